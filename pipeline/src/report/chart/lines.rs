//! Lines over one axis: raw behind, smoothed before it, with bands.

use std::fmt::Write;

use super::super::html::{Html, coordinate};
use super::{Axis, drawing, fill, label, line, range, short, stroke};

/// Of a panel, and of a wide one.
const WIDTHS: [f64; 2] = [360.0, 480.0];
const HEIGHT: f64 = 210.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 34.0;

/// A panel.
#[derive(Debug, Clone, Default)]
pub struct Lines {
    /// Above it.
    pub title: String,
    /// Under the horizontal axis.
    pub x_title: String,
    /// What is drawn, from back to front.
    pub series: Vec<Series>,
    /// A value that must be in sight, such as 0.
    pub include: Option<f64>,
    /// For two panels beside each other, not three.
    pub wide: bool,
}

/// One line.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// Its colour.
    pub colour: usize,
    /// Places along the axis.
    pub x: Vec<f64>,
    /// Values; those that are not finite leave a gap.
    pub y: Vec<f64>,
    /// A band around it: lower and upper ends.
    pub band: Option<(Vec<f64>, Vec<f64>)>,
    /// `raw`, `dashed`, or nothing special.
    pub class: &'static str,
    /// Whether each value is a dot too.
    pub dots: bool,
}

/// Draws a panel.
pub fn lines(panel: &Lines) -> Html {
    let width = WIDTHS[usize::from(panel.wide)];
    let xs = Axis::of(panel.series.iter().flat_map(|s| s.x.iter().copied()), LEFT + 4.0, width - RIGHT - 4.0);
    let band = |s: &Series| s.band.clone().unwrap_or_default();
    let values = panel.series.iter().flat_map(|s| {
        let (low, high) = band(s);
        s.y.iter().copied().chain(low).chain(high).collect::<Vec<_>>()
    });
    let ys = Axis::of(values.chain(panel.include), HEIGHT - BOTTOM, TOP);
    let mut svg = drawing(width, HEIGHT, &described(panel));
    label(&mut svg, "title", "start", LEFT, 14.0, &panel.title);
    for tick in ys.ticks(4) {
        let y = ys.at(tick);
        line(&mut svg, "grid", [LEFT, y, width - RIGHT, y]);
        label(&mut svg, "tick", "end", LEFT - 6.0, y + 3.5, &short(tick));
    }
    for tick in xs.ticks(6) {
        label(&mut svg, "tick", "middle", xs.at(tick), HEIGHT - BOTTOM + 15.0, &short(tick));
    }
    line(&mut svg, "axis", [LEFT, HEIGHT - BOTTOM, width - RIGHT, HEIGHT - BOTTOM]);
    label(&mut svg, "tick", "end", width - RIGHT, HEIGHT - 4.0, &panel.x_title);
    for series in &panel.series {
        if let Some((low, high)) = &series.band {
            let there =
                |(x, y): (&f64, &f64)| (x.is_finite() && y.is_finite()).then(|| (xs.at(*x), ys.at(*y)));
            let upper = series.x.iter().zip(high).filter_map(there);
            let lower: Vec<(f64, f64)> = series.x.iter().zip(low).filter_map(there).collect();
            let outline: Vec<(f64, f64)> = upper.chain(lower.into_iter().rev()).collect();
            let path = path(outline.into_iter().map(Some));
            svg.empty(
                "path",
                &[
                    ("d", path.as_str().into()),
                    ("class", fill(series.colour).into()),
                    ("fill-opacity", 0.16.into()),
                ],
            );
        }
        let places = || {
            series
                .x
                .iter()
                .zip(&series.y)
                .map(|(x, y)| (x.is_finite() && y.is_finite()).then(|| (xs.at(*x), ys.at(*y))))
        };
        let class = format!("line {} {}", stroke(series.colour), series.class);
        let path = path(places());
        svg.open("path", &[("d", path.as_str().into()), ("class", class.as_str().into())]);
        svg.element("title", &[], &series.name).close("path");
        if series.dots {
            for (x, y) in places().flatten() {
                let at = [
                    ("cx", x.into()),
                    ("cy", y.into()),
                    ("r", 2.2.into()),
                    ("class", fill(series.colour).into()),
                ];
                svg.empty("circle", &at);
            }
        }
    }
    svg.close("svg");
    svg
}

/// What a reader who does not see the drawing is told.
fn described(panel: &Lines) -> String {
    let mut text = format!("{} over {}", panel.title, panel.x_title);
    for series in panel.series.iter().filter(|s| s.class != "raw") {
        let last = series.y.iter().rev().find(|y| y.is_finite());
        let (low, high) = range(series.y.iter().copied());
        if let Some(last) = last {
            let _ = write!(
                text,
                "; {}: from {} to {}, at the end {}",
                series.name,
                short(low),
                short(high),
                short(*last)
            );
        }
    }
    text
}

/// A path through places, with a gap where there is none.
fn path(places: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut drawn = false;
    for place in places {
        if let Some((x, y)) = place {
            let _ = write!(path, "{}{} {}", if drawn { 'L' } else { 'M' }, coordinate(x), coordinate(y));
        }
        drawn = place.is_some();
    }
    path
}

/// The mean of each value and up to `reach` finite ones on both sides; what is not finite stays so.
pub fn smooth(values: &[f64], reach: usize) -> Vec<f64> {
    let mean = |i: usize| {
        let near = &values[i.saturating_sub(reach)..(i + reach + 1).min(values.len())];
        let (sum, count) =
            near.iter().filter(|v| v.is_finite()).fold((0.0, 0u32), |(s, n), v| (s + v, n + 1));
        if values[i].is_finite() { sum / f64::from(count.max(1)) } else { f64::NAN }
    };
    (0..values.len()).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_stay_gaps_and_nothing_breaks() {
        assert_eq!(smooth(&[1.0, f64::NAN, 3.0, 5.0], 1)[2..], [4.0, 4.0]);
        assert!(smooth(&[1.0, f64::NAN], 3)[1].is_nan());
        let series = Series {
            name: "loss".to_owned(),
            x: vec![1.0, 2.0, 3.0],
            y: vec![1.0, f64::NAN, 2.0],
            ..Series::default()
        };
        let svg = lines(&Lines { series: vec![series, Series::default()], ..Lines::default() });
        assert_eq!(svg.as_str().matches("d=\"M").count(), 1);
        let path = svg.as_str().split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert!(!svg.as_str().contains("NaN") && !svg.as_str().contains("inf"));
    }
}
