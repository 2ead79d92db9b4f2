//! Pieces of pages: tables, blocks of text, amounts.

use super::chart::short;
use super::html::Html;

/// A table; numbers stand at the right.
pub fn table(headers: &[&'static str], rows: &[Vec<Cell>]) -> Html {
    let mut html = Html::new();
    html.raw("<div class=\"scroll\"><table><thead><tr>");
    for header in headers {
        html.element("th", &[("scope", "col".into())], header);
    }
    html.raw("</tr></thead><tbody>");
    for row in rows {
        html.raw("<tr>");
        for cell in row {
            match cell {
                Cell::Text(text) => html.element("td", &[], text),
                Cell::Code(text) => html.open("td", &[]).element("code", &[], text).close("td"),
                Cell::Number(text) => html.element("td", &[("class", "number".into())], text),
            };
        }
        html.raw("</tr>");
    }
    html.raw("</tbody></table></div>");
    html
}

/// A cell of a [`table`].
#[derive(Debug, Clone)]
pub enum Cell {
    /// Words.
    Text(String),
    /// A name or a command.
    Code(String),
    /// A number, as it is shown.
    Number(String),
}

impl Cell {
    /// A number, or nothing.
    pub fn number(value: Option<f64>) -> Self {
        Self::Number(value.map_or_else(String::new, short))
    }

    /// A count with spaces between thousands.
    pub fn count(value: u64) -> Self {
        Self::Number(count(value))
    }
}

/// Something to open and close.
pub fn details(summary: &str, content: &Html) -> Html {
    let mut html = Html::new();
    html.raw("<details><summary>").text(summary).raw("</summary>").add(content).raw("</details>");
    html
}

/// Text as it is, such as a command.
pub fn block(text: &str) -> Html {
    let mut html = Html::new();
    html.open("pre", &[("tabindex", "0".into())]).element("code", &[], text).close("pre");
    html
}

/// A count with thin spaces between thousands.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A size in bytes, for people.
pub fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b >= 1e9 => format!("{:.1} GB", b / 1e9),
        b if b >= 1e6 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.0} kB", b / 1e3),
    }
}

/// A time, for people.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() || s < 0.0 => "?".to_owned(),
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{} min {:.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{} h {:.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(count),
            ["0", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]
        );
        assert_eq!(
            [0.04, 59.94, 119.6, 7300.0, f64::NAN].map(duration),
            ["0.0 s", "59.9 s", "1 min 59 s", "2 h 1 min", "?"]
        );
        assert_eq!([1, 2_500_000].map(size), ["0 kB", "2.5 MB"]);
    }
}
