//! Markup that data cannot break out of: tags and attribute names are literals of this program, all else is escaped.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value as Json;

/// A piece of HTML, or of SVG.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Html(String);

/// The value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// Escaped.
    Text(&'a str),
    /// With at most two decimals.
    Number(f64),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

/// Names and values of attributes.
pub type Attributes<'a> = &'a [(&'static str, Value<'a>)];

impl Html {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Text as it may stand between tags.
    pub fn text(&mut self, text: &str) -> &mut Self {
        escape(&visible(text), &mut self.0);
        self
    }

    /// Markup of this program.
    pub fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Another piece.
    pub fn add(&mut self, piece: &Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// `<tag name="value">`
    pub fn open(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.start(tag, attributes);
        self.0.push('>');
        self
    }

    /// `</tag>`
    pub fn close(&mut self, tag: &'static str) -> &mut Self {
        let _ = write!(self.0, "</{tag}>");
        self
    }

    /// `<tag name="value"/>`
    pub fn empty(&mut self, tag: &'static str, attributes: Attributes<'_>) -> &mut Self {
        self.start(tag, attributes);
        self.0.push_str("/>");
        self
    }

    /// `<tag name="value">text</tag>`
    pub fn element(&mut self, tag: &'static str, attributes: Attributes<'_>, text: &str) -> &mut Self {
        self.open(tag, attributes).text(text).close(tag)
    }

    /// The markup.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn start(&mut self, tag: &'static str, attributes: Attributes<'_>) {
        let _ = write!(self.0, "<{tag}");
        for (name, value) in attributes {
            let _ = write!(self.0, " {name}=\"");
            match value {
                Value::Text(text) => escape(&visible(text), &mut self.0),
                Value::Number(number) => self.0.push_str(&coordinate(*number)),
            }
            self.0.push('"');
        }
    }
}

/// A coordinate with at most two decimals; 0 for what is no number.
pub fn coordinate(value: f64) -> String {
    let value = if value.is_finite() { (value * 100.0).round() / 100.0 } else { 0.0 };
    // No `-0`.
    (value + 0.0).to_string()
}

/// The text with control characters, and marks that turn the direction of text around, in sight.
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_hidden(c) {
            let _ = write!(out, "\u{27e8}U+{:04X}\u{27e9}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    }))
}

/// Whether a character is not seen, or does something to others.
fn is_hidden(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t')
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Adds text as it may stand in HTML, between tags and in attributes.
pub fn escape(text: &str, out: &mut String) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

/// JSON as it may stand in a `script` element: nothing in it ends the element, or a line of a script.
pub fn script_json(value: &Json) -> Html {
    let text = value.to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        // Outside of strings JSON has none of these.
        match c {
            c if matches!(c, '<' | '>' | '&') || is_hidden(c) => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    Html(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        let mut html = Html::new();
        html.element("a", &[("title", "\"><script>".into()), ("x", 1.005.into())], "<img onerror='x'>&");
        assert_eq!(
            html.as_str(),
            "<a title=\"&quot;&gt;&lt;script&gt;\" x=\"1\">&lt;img onerror=&#39;x&#39;&gt;&amp;</a>"
        );
        assert_eq!([f64::NAN, -0.001, 7.12678].map(coordinate), ["0", "0", "7.13"]);
    }

    #[test]
    fn json_cannot_end_its_element_and_reads_back() {
        let value = json!({ "</script><!--": "\u{2028}<script>&\"" });
        let html = script_json(&value);
        assert!(!html.as_str().contains(['<', '>', '&', '\u{2028}']), "{}", html.as_str());
        assert_eq!(serde_json::from_str::<Json>(html.as_str()).unwrap(), value);
    }

    #[test]
    fn text_cannot_turn_around() {
        assert_eq!(visible("a\u{202e}gpj.exe\u{7}"), "a\u{27e8}U+202E\u{27e9}gpj.exe\u{27e8}U+0007\u{27e9}");
        assert!(matches!(visible("\u{5e9}\u{5dc}\u{5d5}\u{5dd}\n"), Cow::Borrowed(_)));
    }
}
