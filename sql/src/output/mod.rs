//! Results as text: an aligned table for people, CSV and JSON lines for programs.
//!
//! Batches go in one by one ([`Writer::push`]); CSV and JSON go straight out, a table keeps the
//! rows it will show, because its columns are as wide as their widest cell.

mod cell;
mod lines;
mod table;

use std::fmt;
use std::io::Write;
use std::str::FromStr;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;

use crate::diagnose;
use crate::error::SqlError;

/// How a result is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Aligned columns; vectors are cut short, NULL is written `NULL`.
    #[default]
    Table,
    /// RFC 4180 with a header; NULL is empty, lists and structs are JSON.
    Csv,
    /// One JSON object a line; NULL, NaN and infinities are `null`.
    Json,
}

impl Format {
    /// All formats, as they are named on a command line.
    pub const NAMES: [&'static str; 3] = ["table", "csv", "json"];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "table" => Ok(Self::Table),
            "csv" => Ok(Self::Csv),
            "json" => Ok(Self::Json),
            other => Err(format!("'{other}' is not one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// A format with what a table needs to know of where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Columns of the terminal, which a table keeps within; `None` for no limit.
    pub width: Option<usize>,
    /// Rows that a table shows; `None` for all. A note tells of the others.
    pub max_rows: Option<usize>,
}

impl Style {
    /// For a file or a pipe: nothing is cut.
    pub fn new(format: Format) -> Self {
        Self { format, width: None, max_rows: None }
    }

    /// For a terminal of `width` columns: a table is kept within it and shows at most 200 rows.
    pub fn terminal(format: Format, width: usize) -> Self {
        Self { format, width: Some(width), max_rows: Some(200) }
    }
}

/// Writes the rows of `batches`, which share a schema. Nothing is written for no batches.
///
/// # Errors
/// [`SqlError::Output`] if `out` fails.
pub fn write(batches: &[RecordBatch], style: &Style, out: &mut dyn Write) -> Result<(), SqlError> {
    let Some(first) = batches.first() else { return Ok(()) };
    let mut writer = Writer::new(first.schema(), style, out);
    for batch in batches {
        writer.push(batch)?;
    }
    writer.finish().map(|_| ())
}

/// Writes batches of one schema as they come.
pub struct Writer<'a> {
    schema: SchemaRef,
    style: Style,
    out: &'a mut dyn Write,
    rows: u64,
    /// The rows that a table will show.
    kept: Vec<RecordBatch>,
}

impl<'a> Writer<'a> {
    /// A writer for batches of `schema`.
    pub fn new(schema: SchemaRef, style: &Style, out: &'a mut dyn Write) -> Self {
        Self { schema, style: *style, out, rows: 0, kept: Vec::new() }
    }

    /// Takes the next batch.
    ///
    /// # Errors
    /// [`SqlError::Output`] if the output fails.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let first = self.rows == 0;
        let shown = usize::try_from(self.rows).unwrap_or(usize::MAX);
        self.rows += batch.num_rows() as u64;
        if batch.num_rows() == 0 {
            return Ok(());
        }
        match self.style.format {
            Format::Csv => lines::csv(batch, first, self.out),
            Format::Json => lines::json(batch, self.out),
            Format::Table => {
                let room = self.style.max_rows.map_or(usize::MAX, |most| most.saturating_sub(shown));
                if room > 0 {
                    self.kept.push(batch.slice(0, room.min(batch.num_rows())));
                }
                Ok(())
            }
        }
    }

    /// Writes what is left (a table, or the header of an empty CSV) and returns the number of rows.
    ///
    /// # Errors
    /// [`SqlError::Output`] if the output fails.
    pub fn finish(self) -> Result<u64, SqlError> {
        match self.style.format {
            Format::Csv if self.rows == 0 && !self.schema.fields().is_empty() => {
                lines::csv(&RecordBatch::new_empty(self.schema), true, self.out)?;
            }
            Format::Table => table::write(&self.schema, &self.kept, self.rows, self.style.width, self.out)?,
            Format::Csv | Format::Json => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// Errors of Arrow's own writers: those of the output stay what they are.
fn arrow_error(error: arrow::error::ArrowError) -> SqlError {
    match error {
        arrow::error::ArrowError::IoError(_, source) => SqlError::Output(source),
        other => diagnose::engine(DataFusionError::ArrowError(Box::new(other), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::query;
    use crate::testing::{block_on, session};

    fn shown(sql: &str, style: Style) -> String {
        let rows = block_on(query(&session(), sql)).unwrap();
        let mut text = Vec::new();
        write(&rows, &style, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn tables_are_aligned() {
        assert_eq!(
            shown("select name, n, \"BPM\" from music", Style::new(Format::Table)),
            " name    n   BPM\n \
             ──────  ─  ────\n \
             drift   1  60.0\n \
             anthem  2  90.5\n \
             静か    3  NULL\n\
             (3 rows)\n"
        );
        let vectors = shown(
            "select vector, [1.5, 2.25, 3.0, 4.0, 5.0] as v, [name, 'x'] as tags, {a: n, b: 'q'} as s from music limit 1",
            Style::new(Format::Table),
        );
        assert!(vectors.contains("[1, 2, 2]  [1.5, 2.25, … 5]  [drift, x]  {a: 1, b: q}"), "{vectors}");
        assert!(vectors.ends_with("(1 row)\n"), "{vectors}");
    }

    #[test]
    fn wide_tables_are_cut_to_the_terminal() {
        let text = shown(
            "select repeat('long ', 30) as first, n as a_header_that_is_long, 0.123456 as value from music",
            Style::terminal(Format::Table, 40),
        );
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines.iter().all(|line| line.chars().count() <= 40), "{text}");
        assert!(lines[2].contains('…') && lines[2].contains("0.1235"), "{text}");
        let text = shown(
            "select name, n, n as m, n as o, n as p, \"BPM\" from music",
            Style::terminal(Format::Table, 17),
        );
        assert!(text.contains("(3 rows; 2 columns not shown: p, BPM)"), "{text}");
    }

    #[test]
    fn long_tables_are_cut_with_a_note() {
        let style = Style { max_rows: Some(2), ..Style::new(Format::Table) };
        let text = shown("select value from generate_series(1, 20000)", style);
        assert_eq!(text, " value\n ─────\n     1\n     2\n(the first 2 of 20000 rows)\n");
    }

    #[test]
    fn empty_results_have_a_header() {
        assert_eq!(shown("select n from music where n > 9", Style::new(Format::Table)), " n\n ─\n(0 rows)\n");
        assert_eq!(shown("select n, name from music where n > 9", Style::new(Format::Csv)), "n,name\n");
        assert_eq!(shown("select n from music where n > 9", Style::new(Format::Json)), "");
    }

    #[test]
    fn plans_keep_their_lines() {
        let text = shown("explain select n from music where n > 1", Style::terminal(Format::Table, 60));
        assert!(text.lines().count() > 6, "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
    }

    #[test]
    fn csv_and_json_are_complete() {
        let sql = "select name || ', \"q\"' as name, \"BPM\", vector, {a: n} as s from music";
        assert_eq!(
            shown(sql, Style::new(Format::Csv)),
            "name,BPM,vector,s\n\
             \"drift, \"\"q\"\"\",60.0,\"[1.0,2.0,2.0]\",\"{\"\"a\"\":1}\"\n\
             \"anthem, \"\"q\"\"\",90.5,\"[0.0,3.0,4.0]\",\"{\"\"a\"\":2}\"\n\
             \"静か, \"\"q\"\"\",,,\"{\"\"a\"\":3}\"\n"
        );
        assert_eq!(
            shown("select name, n as x, \"BPM\", vector from music where n > 1", Style::new(Format::Json)),
            "{\"name\":\"anthem\",\"x\":2,\"BPM\":90.5,\"vector\":[0.0,3.0,4.0]}\n\
             {\"name\":\"静か\",\"x\":3,\"BPM\":null,\"vector\":null}\n"
        );
        let twice =
            shown("select * from music a join music b on a.n = b.n where a.n = 1", Style::new(Format::Json));
        assert!(twice.contains("\"name_2\":\"drift\""), "{twice}");
    }

    #[test]
    fn formats_have_names() {
        for name in Format::NAMES {
            assert_eq!(name.parse::<Format>().unwrap().to_string(), name);
        }
        assert_eq!("xml".parse::<Format>(), Err("'xml' is not one of table, csv, json".to_owned()));
    }
}
