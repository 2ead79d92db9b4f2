//! Figures with intervals: a dot with whiskers for each, chance and a reference beside them.

use std::fmt::Write;

use super::super::html::Html;
use super::{Axis, drawing, fill, fitting, label, line, range, short, stroke};

const WIDTH: f64 = 460.0;
const LEFT: f64 = 128.0;
const RIGHT: f64 = 44.0;
const TOP: f64 = 26.0;
const ROW: f64 = 19.0;
const HEADER: f64 = 19.0;
const BOTTOM: f64 = 24.0;
/// Within a row, series are this far apart.
const APART: f64 = 6.0;

/// A panel.
#[derive(Debug, Clone, Default)]
pub struct Dots {
    /// Above it.
    pub title: String,
    /// The names of the series; more than one is told apart by filled and hollow dots.
    pub series: Vec<String>,
    /// From top to bottom.
    pub rows: Vec<Row>,
}

/// A line of a panel.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// Rows of one group stand under its name.
    pub group: String,
    /// What it is.
    pub name: String,
    /// Its colour.
    pub colour: usize,
    /// One for each series.
    pub marks: Vec<Option<Mark>>,
    /// What guessing gives.
    pub chance: Option<f64>,
    /// What something simple gives.
    pub reference: Option<f64>,
}

/// A figure.
#[derive(Debug, Clone, Copy)]
pub struct Mark {
    /// Its value.
    pub value: f64,
    /// The interval.
    pub interval: (f64, f64),
}

/// Draws a panel.
pub fn dots(panel: &Dots) -> Html {
    let grouped = panel.rows.iter().any(|row| row.group != panel.rows[0].group);
    let groups = panel.rows.chunk_by(|a, b| a.group == b.group).count();
    let bottom = TOP + panel.rows.len() as f64 * ROW + if grouped { groups as f64 * HEADER } else { 0.0 };
    let marks = panel.rows.iter().flat_map(|row| {
        let marks = row.marks.iter().flatten().flat_map(|m| [m.value, m.interval.0, m.interval.1]);
        marks.chain(row.chance).chain(row.reference).collect::<Vec<_>>()
    });
    // Shares are seen against all that is possible; what may be below 0 as it is.
    let (low, high) = range(marks);
    let axis = match low >= 0.0 && high <= 1.0 {
        true => Axis::new(0.0, 1.0, LEFT, WIDTH - RIGHT),
        false => Axis::of([low, high, 0.0].into_iter(), LEFT, WIDTH - RIGHT),
    };
    let mut svg = drawing(WIDTH, bottom + BOTTOM, &described(panel));
    label(&mut svg, "title", "start", 0.0, 14.0, &panel.title);
    for tick in axis.ticks(5) {
        let x = axis.at(tick);
        line(&mut svg, "grid", [x, TOP, x, bottom]);
        label(&mut svg, "tick", "middle", x, bottom + 14.0, &short(tick));
    }
    let mut y = TOP;
    let mut group: Option<&str> = None;
    for row in &panel.rows {
        if grouped && group != Some(row.group.as_str()) {
            label(&mut svg, "group", "start", 0.0, y + 14.0, &fitting(&row.group, WIDTH));
            group = Some(&row.group);
            y += HEADER;
        }
        one(&mut svg, panel, row, &axis, y + ROW / 2.0, if grouped { 10.0 } else { 0.0 });
        y += ROW;
    }
    svg.close("svg");
    svg
}

fn one(svg: &mut Html, panel: &Dots, row: &Row, axis: &Axis, y: f64, indent: f64) {
    label(svg, "name", "start", indent, y + 4.0, &fitting(&row.name, LEFT - indent - 6.0));
    svg.open("g", &[]);
    let mut told = format!("{} {}:", row.group, row.name);
    if let Some(chance) = row.chance.filter(|chance| chance.is_finite()) {
        let x = axis.at(chance);
        line(svg, "chance", [x, y - ROW / 2.0, x, y + ROW / 2.0]);
    }
    if let Some(reference) = row.reference.filter(|reference| reference.is_finite()) {
        let x = axis.at(reference);
        let diamond = [(0.0, -4.5), (4.5, 0.0), (0.0, 4.5), (-4.5, 0.0)];
        let mut points = String::new();
        for (dx, dy) in diamond {
            let _ = write!(points, "{:.1},{:.1} ", x + dx, y + dy);
        }
        svg.empty("polygon", &[("points", points.trim_end().into()), ("class", "reference".into())]);
    }
    let count = panel.series.len().max(1) as f64;
    for (i, mark) in row.marks.iter().enumerate() {
        let Some(Mark { value, interval: (lo, hi) }) = mark else { continue };
        let at = y + (i as f64 - (count - 1.0) / 2.0) * APART.min((ROW - 4.0) / count);
        if lo.is_finite() && hi.is_finite() {
            line(svg, stroke(row.colour), [axis.at(*lo), at, axis.at(*hi), at]);
        }
        let class = match i {
            0 => fill(row.colour).to_owned(),
            _ => format!("hollow {}", stroke(row.colour)),
        };
        if value.is_finite() {
            let place = [("cx", axis.at(*value).into()), ("cy", at.into()), ("r", 3.6.into())];
            svg.empty("circle", &[place[0], place[1], place[2], ("class", class.as_str().into())]);
        }
        let name = panel.series.get(i).filter(|_| panel.series.len() > 1).map_or("", String::as_str);
        let _ = write!(told, " {name} {} [{}, {}]", short(*value), short(*lo), short(*hi));
    }
    svg.element("title", &[], told.trim()).close("g");
    if let Some(Some(mark)) = row.marks.first() {
        // As many digits in all rows, so that they can be compared.
        let digits = if mark.value.abs() < 10.0 { format!("{:.3}", mark.value) } else { short(mark.value) };
        let shown = if mark.value.is_finite() { digits.replace('-', "\u{2212}") } else { short(f64::NAN) };
        label(svg, "value", "end", WIDTH, y + 4.0, &shown);
    }
}

/// What a reader who does not see the drawing is told; the table beneath has all of it.
fn described(panel: &Dots) -> String {
    let rows = panel.rows.iter().filter_map(|row| {
        let mark = row.marks.first().copied().flatten()?;
        Some(format!("{} {} {}", row.group, row.name, short(mark.value)))
    });
    format!("{}: {}", panel.title, rows.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_groups_and_odd_values_draw_nothing() {
        let row = |group: &str, value: f64| Row {
            group: group.to_owned(),
            name: "<b>".to_owned(),
            marks: vec![Some(Mark { value, interval: (value, f64::NAN) }), None],
            chance: Some(0.1),
            reference: Some(f64::NAN),
            ..Row::default()
        };
        let panel = Dots {
            title: "key".to_owned(),
            series: vec!["linear".to_owned(), "mlp".to_owned()],
            rows: vec![row("a", 0.5), row("a", f64::NAN), row("b", 0.7)],
        };
        let svg = dots(&panel);
        let svg = svg.as_str();
        assert_eq!((svg.matches("<circle").count(), svg.matches("class=\"group\"").count()), (2, 2));
        assert!(!svg.contains("<b>") && !svg.contains("NaN") && !svg.contains("polygon"), "{svg}");
        assert!(dots(&Dots::default()).as_str().starts_with("<svg"));
    }
}
