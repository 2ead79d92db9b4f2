//! The table for people:
//!
//! ```text
//!  subspace   task  metric     value
//!  ─────────  ────  ────────  ──────
//!  invariant  key   accuracy  0.4167
//! (1 row)
//! ```
//!
//! Too wide a table first cuts its widest text columns and headers short (`…`), then leaves out
//! columns at the right and says which. Numbers are never cut.

use std::io::Write;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Schema};
use arrow::error::ArrowError;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Style, arrow_error, bars, cell};
use crate::error::SqlError;
use crate::suggest::listed;

/// Text columns are not cut below this many terminal columns.
const LEAST_TEXT: usize = 8;
/// Headers of number columns are not cut below this.
const LEAST_NUMBER: usize = 4;
/// What stands between two columns.
const GAP: usize = 2;

struct Column {
    name: String,
    cells: Vec<String>,
    number: bool,
    width: usize,
    least: usize,
}

/// Writes `batches`, which are the first of `rows` rows.
pub(super) fn write(
    schema: &Schema,
    batches: &[RecordBatch],
    rows: u64,
    style: &Style,
    out: &mut dyn Write,
) -> Result<(), SqlError> {
    // `create view` and the like have no columns.
    if schema.fields().is_empty() {
        return Ok(writeln!(out, "done")?);
    }
    let mut columns = Vec::with_capacity(schema.fields().len());
    for (index, field) in schema.fields().iter().enumerate() {
        let arrays: Vec<_> = batches.iter().map(|batch| batch.column(index)).collect();
        let mut cells = cell::column(&arrays).map_err(arrow_error)?;
        if style.bars.wants(field.name()) {
            draw(field.data_type(), &arrays, &mut cells).map_err(arrow_error)?;
        }
        columns.push(Column::new(field.name(), cells, cell::is_number(field.data_type())));
    }
    let hidden = style.width.map(|width| fit(&mut columns, width)).unwrap_or_default();

    write_line(out, columns.iter().map(|column| column.aligned(&shortened(&column.name, column.width))))?;
    write_line(out, columns.iter().map(|column| "─".repeat(column.width)))?;
    let shown: usize = batches.iter().map(RecordBatch::num_rows).sum();
    for row in 0..shown {
        write_row(out, &columns, row)?;
    }
    let mut notes = row_note(shown, rows);
    if !hidden.is_empty() {
        let noun = if hidden.len() == 1 { "column" } else { "columns" };
        notes.push_str(&format!(
            "; {} {noun} not shown: {}",
            hidden.len(),
            listed(hidden.iter().map(String::as_str), 8)
        ));
    }
    Ok(writeln!(out, "({notes})")?)
}

/// How many rows there are, of which `shown` are shown.
pub(super) fn row_note(shown: usize, rows: u64) -> String {
    match rows {
        1 => "1 row".to_owned(),
        _ if (shown as u64) < rows => format!("the first {shown} of {rows} rows"),
        _ => format!("{rows} rows"),
    }
}

/// Bars behind numbers, sparklines in place of lists of numbers.
fn draw(data_type: &DataType, arrays: &[&ArrayRef], cells: &mut [String]) -> Result<(), ArrowError> {
    if cell::is_number(data_type) {
        let widest = cells.iter().map(|cell| cell.width()).max().unwrap_or(0);
        for (cell, bar) in cells.iter_mut().zip(bars::bars(arrays)?) {
            *cell = format!("{}{cell} {bar}", " ".repeat(widest - cell.width()));
        }
        return Ok(());
    }
    let lists = arrays.iter().flat_map(|array| bars::number_lists(array).into_iter().flatten());
    for (cell, items) in cells.iter_mut().zip(lists) {
        if let Some(spark) = items.as_ref().and_then(bars::spark) {
            *cell = spark;
        }
    }
    Ok(())
}

impl Column {
    fn new(name: &str, cells: Vec<String>, number: bool) -> Self {
        let name: String = name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let header = name.width();
        let widest =
            cells.iter().flat_map(|cell| cell.lines()).map(UnicodeWidthStr::width).max().unwrap_or(0);
        let width = header.max(widest).max(1);
        let least = if number { widest.max(header.min(LEAST_NUMBER)).max(1) } else { width.min(LEAST_TEXT) };
        Self { name, cells, number, width, least }
    }

    fn aligned(&self, text: &str) -> String {
        let padding = " ".repeat(self.width.saturating_sub(text.width()));
        if self.number { format!("{padding}{text}") } else { format!("{text}{padding}") }
    }
}

/// Makes the columns fit; returns the names of those that had to go.
fn fit(columns: &mut Vec<Column>, width: usize) -> Vec<String> {
    // One space leads every line.
    let total =
        |columns: &[Column]| 1 + columns.iter().map(|c| c.width + GAP).sum::<usize>().saturating_sub(GAP);
    let mut hidden = Vec::new();
    loop {
        let over = total(columns).saturating_sub(width);
        if over == 0 {
            break;
        }
        let slack: usize = columns.iter().map(|column| column.width - column.least).sum();
        if slack >= over {
            for _ in 0..over {
                if let Some(column) = columns
                    .iter_mut()
                    .filter(|column| column.width > column.least)
                    .max_by_key(|column| column.width)
                {
                    column.width -= 1;
                }
            }
        } else if columns.len() > 1 {
            hidden.extend(columns.pop().map(|column| column.name));
        } else {
            // A lone column is cut as far as it takes.
            for column in columns.iter_mut() {
                column.width = column.width.min(width.saturating_sub(1)).max(1);
            }
            break;
        }
    }
    hidden.reverse();
    hidden
}

/// A row takes several lines if a text has line breaks; such texts are wrapped, others cut.
fn write_row(out: &mut dyn Write, columns: &[Column], row: usize) -> Result<(), SqlError> {
    let cells: Vec<Vec<String>> = columns
        .iter()
        .map(|column| {
            let cell = column.cells.get(row).map_or("", String::as_str);
            if cell.contains('\n') {
                cell.lines().flat_map(|line| wrapped(line, column.width)).collect()
            } else {
                vec![shortened(cell, column.width)]
            }
        })
        .collect();
    let lines = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..lines {
        let parts = columns
            .iter()
            .zip(&cells)
            .map(|(column, cell)| column.aligned(cell.get(line).map_or("", String::as_str)));
        write_line(out, parts)?;
    }
    Ok(())
}

fn write_line(out: &mut dyn Write, parts: impl Iterator<Item = String>) -> Result<(), SqlError> {
    let line = parts.collect::<Vec<_>>().join(&" ".repeat(GAP));
    Ok(writeln!(out, " {}", line.trim_end())?)
}

fn shortened(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut kept = String::new();
    let mut used = 0;
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide + 1 > width {
            break;
        }
        used += wide;
        kept.push(c);
    }
    kept.push('…');
    kept
}

fn wrapped(line: &str, width: usize) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut used = 0;
    for c in line.chars() {
        let wide = c.width().unwrap_or(0);
        if used + wide > width {
            parts.push(String::new());
            used = 0;
        }
        used += wide;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}
