//! Charts as SVG: they print, and need no script. Colours are classes, so that they follow the page's theme.

mod dots;
mod graph;
mod lines;
mod matrix;

pub use dots::{Dots, Mark, Row, dots};
pub use graph::{Node, graph};
pub use lines::{Lines, Series, lines, smooth};
pub use matrix::{Shades, matrix, scale_bar};

use super::html::Html;

/// Colours that there are; more subspaces begin again.
const COLOURS: usize = 8;

/// The classes of a colour: of lines and of areas.
pub fn stroke(colour: usize) -> &'static str {
    ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7"][colour % COLOURS]
}

/// See [`stroke`].
pub fn fill(colour: usize) -> &'static str {
    ["f0", "f1", "f2", "f3", "f4", "f5", "f6", "f7"][colour % COLOURS]
}

/// Maps values to places, linearly or by logarithm.
#[derive(Debug, Clone, Copy)]
pub struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Values from `low` to `high` at places from `from` to `to`; a range that is empty is widened.
    pub fn new(low: f64, high: f64, from: f64, to: f64) -> Self {
        let (low, high) = match (low.is_finite() && high.is_finite(), high > low) {
            (false, _) => (0.0, 1.0),
            (true, true) => (low, high),
            (true, false) => (low - low.abs().max(1.0) * 0.05, low + low.abs().max(1.0) * 0.05),
        };
        Self { low, high, from, to }
    }

    /// The axis of all finite values, with a little room at both ends.
    pub fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = range(values);
        let room = (high - low) * 0.04;
        Self::new(low - room, high + room, from, to)
    }

    /// The place of a value; outside of the range, the nearest end.
    pub fn at(&self, value: f64) -> f64 {
        let part = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        self.from + part * (self.to - self.from)
    }

    /// About `count` round values within the range.
    pub fn ticks(&self, count: usize) -> Vec<f64> {
        let rough = (self.high - self.low) / count.max(1) as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power);
        let first = (self.low / step - 1e-9).ceil();
        let last = (self.high / step + 1e-9).floor();
        if !(step > 0.0 && (last - first).abs() < 100.0) {
            return Vec::new();
        }
        (0..=(last - first) as usize).map(|i| (first + i as f64) * step).collect()
    }
}

/// The least and greatest finite value.
pub fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}

/// A number for people: three significant digits or so.
pub fn short(value: f64) -> String {
    let text = match value.abs() {
        x if !x.is_finite() => return "–".to_owned(),
        x if x >= 1e6 || (x < 1e-4 && x > 0.0) => return format!("{value:.1e}"),
        x if x >= 1000.0 => return format!("{value:.0}"),
        x if x >= 100.0 => format!("{value:.0}"),
        x if x >= 10.0 => format!("{value:.1}"),
        x if x >= 1.0 => format!("{value:.2}"),
        x if x >= 0.01 || x == 0.0 => format!("{value:.3}"),
        _ => format!("{value:.5}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    // A true minus, as wide as the digits.
    if text == "-0" { "0".to_owned() } else { text.replace('-', "\u{2212}") }
}

/// Words cut to about `width` units of the drawing, at 12 units a line.
pub fn fitting(text: &str, width: f64) -> String {
    let most = (width / 6.8).max(2.0) as usize;
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

/// The opening of a drawing of this size, told to readers by `label`.
pub fn drawing(width: f64, height: f64, label: &str) -> Html {
    let mut svg = Html::new();
    let view = format!("0 0 {width} {height}");
    svg.open(
        "svg",
        &[
            ("viewBox", view.as_str().into()),
            ("width", width.into()),
            ("height", height.into()),
            ("role", "img".into()),
            ("aria-label", label.into()),
            ("class", "chart".into()),
        ],
    );
    svg
}

/// A straight line.
pub fn line(svg: &mut Html, class: &'static str, [x1, y1, x2, y2]: [f64; 4]) {
    let at =
        [("x1", x1.into()), ("y1", y1.into()), ("x2", x2.into()), ("y2", y2.into()), ("class", class.into())];
    svg.empty("line", &at);
}

/// Text at a place; `anchor` is `start`, `middle` or `end`.
pub fn label(svg: &mut Html, class: &'static str, anchor: &'static str, x: f64, y: f64, text: &str) {
    let at = [("x", x.into()), ("y", y.into()), ("text-anchor", anchor.into()), ("class", class.into())];
    svg.element("text", &at, text);
}

/// Names and colours under a drawing.
pub fn legend(entries: &[(String, usize)]) -> Html {
    let mut html = Html::new();
    html.open("ul", &[("class", "legend".into())]);
    for (name, colour) in entries {
        html.raw("<li><svg viewBox=\"0 0 12 12\" aria-hidden=\"true\">");
        html.empty(
            "circle",
            &[("cx", 6.0.into()), ("cy", 6.0.into()), ("r", 5.0.into()), ("class", fill(*colour).into())],
        );
        html.raw("</svg>").text(name).raw("</li>");
    }
    html.close("ul");
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_within() {
        assert_eq!(Axis::new(0.0, 1.0, 0.0, 100.0).ticks(5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(Axis::new(-8.3, 7.9, 0.0, 1.0).ticks(6), [-5.0, 0.0, 5.0]);
        assert_eq!(Axis::new(0.0, 1.0, 0.0, 100.0).at(0.25), 25.0);
        for (low, high) in [(f64::NAN, 1.0), (3.0, 3.0), (f64::INFINITY, f64::NEG_INFINITY), (-1e300, 1e300)]
        {
            let axis = Axis::new(low, high, 0.0, 100.0);
            assert!(axis.at(3.0).is_finite() && axis.ticks(5).len() < 100, "{low} {high}");
        }
        assert!(Axis::of(std::iter::empty(), 0.0, 1.0).at(0.5).is_finite());
    }

    #[test]
    fn numbers_are_short() {
        let shown = [0.5, 1.0, -12.34, 1234.5, 0.0005, 0.000012, f64::NAN, -0.0].map(short);
        assert_eq!(shown, ["0.5", "1", "\u{2212}12.3", "1234", "0.0005", "1.2e-5", "–", "0"]);
        assert_eq!(fitting("pitch_shift", 60.0), "pitch_s…");
    }
}
