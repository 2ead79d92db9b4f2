//! Results written out: an aligned table or records for people, Markdown for documents, CSV, JSON lines and Parquet
//! for programs.
//!
//! Batches go in one by one ([`Writer::push`]); CSV, JSON and Parquet go straight out, the others keep the
//! rows they will show, because a table's columns are as wide as their widest cell.

mod bars;
mod cell;
mod lines;
mod markdown;
mod parquet;
mod records;
mod table;

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema, SchemaRef};
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
    /// A table of a Markdown document, with the cells of [`Format::Table`].
    Markdown,
    /// A Parquet file, with the types of the columns.
    Parquet,
}

impl Format {
    /// All formats, as they are named on a command line.
    pub const NAMES: [&'static str; 5] = ["table", "csv", "json", "markdown", "parquet"];

    /// The format that a file's name asks for by its ending, if there is one for it.
    pub fn of_file(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "txt" => Self::Table,
            "csv" => Self::Csv,
            "json" | "jsonl" | "ndjson" => Self::Json,
            "md" | "markdown" => Self::Markdown,
            "parquet" => Self::Parquet,
            _ => return None,
        })
    }

    /// Whether people read it.
    pub fn is_text_table(self) -> bool {
        matches!(self, Self::Table | Self::Markdown)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Markdown => "markdown",
            Self::Parquet => "parquet",
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
            "markdown" | "md" => Ok(Self::Markdown),
            "parquet" => Ok(Self::Parquet),
            other => Err(format!("'{other}' is not one of {}", Self::NAMES.join(", "))),
        }
    }
}

/// Which columns of a table are drawn as bars, and lists of numbers as sparklines.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Bars {
    /// None.
    #[default]
    None,
    /// All that hold numbers.
    All,
    /// Those of these names.
    Columns(Vec<String>),
}

impl Bars {
    fn wants(&self, column: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Columns(names) => names.iter().any(|name| name == column),
        }
    }
}

/// A format with what a table needs to know of where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// The format.
    pub format: Format,
    /// Columns of the terminal, which a table keeps within; `None` for no limit.
    pub width: Option<usize>,
    /// Rows that a table shows; `None` for all. A note tells of the others.
    pub max_rows: Option<usize>,
    /// Columns of a table that are drawn beside their numbers.
    pub bars: Bars,
    /// A table shows each row as a block of lines.
    pub records: bool,
}

impl Style {
    /// For a file or a pipe: nothing is cut.
    pub fn new(format: Format) -> Self {
        Self { format, width: None, max_rows: None, bars: Bars::None, records: false }
    }

    /// For a terminal of `width` columns: a table is kept within it and shows at most 200 rows.
    pub fn terminal(format: Format, width: usize) -> Self {
        Self { width: Some(width), max_rows: Some(200), ..Self::new(format) }
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
    parquet: Option<parquet::Encoder>,
}

impl<'a> Writer<'a> {
    /// A writer for batches of `schema`.
    pub fn new(schema: SchemaRef, style: &Style, out: &'a mut dyn Write) -> Self {
        Self { schema, style: style.clone(), out, rows: 0, kept: Vec::new(), parquet: None }
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
            Format::Json => lines::json(&uniquely_named(batch)?, self.out),
            Format::Parquet => {
                let batch = uniquely_named(batch)?;
                let encoder = match &mut self.parquet {
                    Some(encoder) => encoder,
                    none => none.insert(parquet::Encoder::new(batch.schema())?),
                };
                encoder.push(&batch, self.out)
            }
            Format::Table | Format::Markdown => {
                let room = self.style.max_rows.map_or(usize::MAX, |most| most.saturating_sub(shown));
                if room > 0 {
                    self.kept.push(batch.slice(0, room.min(batch.num_rows())));
                }
                Ok(())
            }
        }
    }

    /// Writes what is left (a table, or the header of an empty file) and returns the number of rows.
    ///
    /// # Errors
    /// [`SqlError::Output`] if the output fails.
    pub fn finish(mut self) -> Result<u64, SqlError> {
        match self.style.format {
            Format::Csv if self.rows == 0 && !self.schema.fields().is_empty() => {
                lines::csv(&RecordBatch::new_empty(self.schema), true, self.out)?;
            }
            Format::Table if self.style.records => {
                records::write(&self.schema, &self.kept, self.rows, self.out)?;
            }
            Format::Table => table::write(&self.schema, &self.kept, self.rows, &self.style, self.out)?,
            Format::Markdown => markdown::write(&self.schema, &self.kept, self.out)?,
            Format::Parquet if !self.schema.fields().is_empty() => {
                let encoder = match self.parquet.take() {
                    Some(encoder) => encoder,
                    None => parquet::Encoder::new(Arc::new(unique_names(&self.schema)))?,
                };
                encoder.finish(self.out)?;
            }
            Format::Csv | Format::Json | Format::Parquet => {}
        }
        self.out.flush()?;
        Ok(self.rows)
    }
}

/// Names of columns, made different: a second `x` is `x_2`.
fn unique_names(schema: &Schema) -> Schema {
    let mut taken = HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        let names =
            (1..).map(|n| if n == 1 { field.name().clone() } else { format!("{}_{n}", field.name()) });
        let name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(name.clone());
        Field::clone(field).with_name(name)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

fn uniquely_named(batch: &RecordBatch) -> Result<RecordBatch, SqlError> {
    let schema = Arc::new(unique_names(&batch.schema()));
    RecordBatch::try_new(schema, batch.columns().to_vec()).map_err(arrow_error)
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
        let wrong = "'xml' is not one of table, csv, json, markdown, parquet";
        assert_eq!("xml".parse::<Format>(), Err(wrong.to_owned()));
        assert_eq!(Format::of_file(Path::new("a/b.MD")), Some(Format::Markdown));
        assert_eq!(Format::of_file(Path::new("a/b.xml")), None);
    }

    #[test]
    fn markdown_has_no_stray_bars() {
        assert_eq!(
            shown(
                "select name || '|<b>' as \"na|me\", n from music where n < 3",
                Style::new(Format::Markdown)
            ),
            "| na\\|me | n |\n| --- | ---: |\n| drift\\|\\<b> | 1 |\n| anthem\\|\\<b> | 2 |\n"
        );
    }

    #[test]
    fn records_have_a_line_per_column() {
        let style = Style { records: true, ..Style::new(Format::Table) };
        assert_eq!(
            shown("select name, \"BPM\" from music where n = 1", style),
            "─ 1 ────────────────────\nname  drift\nBPM   60.0\n(1 row)\n"
        );
    }

    #[test]
    fn numbers_are_drawn_where_asked() {
        let style = Style { bars: Bars::Columns(vec!["n".to_owned()]), ..Style::new(Format::Table) };
        let text = shown("select n, n as m from music order by n", style);
        assert!(text.contains(" 1 ███▍        1\n") && text.contains(" 3 ██████████  3\n"), "{text}");
        let text = shown("select vector from music", Style { bars: Bars::All, ..Style::new(Format::Table) });
        assert!(text.contains(" ▁██\n") && text.contains(" NULL\n"), "{text}");
    }

    #[test]
    fn parquet_has_the_types_and_rows_of_the_result() {
        use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        let rows =
            block_on(query(&session(), "select a.*, b.name from music a join music b using (n)")).unwrap();
        let read = |rows: &[RecordBatch]| -> RecordBatch {
            let mut file = tempfile::tempfile().unwrap();
            write(rows, &Style::new(Format::Parquet), &mut file).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let schema = std::sync::Arc::clone(reader.schema());
            let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
            arrow::compute::concat_batches(&schema, &batches).unwrap()
        };
        let back = read(&rows);
        assert_eq!(back.num_rows(), 3);
        assert_eq!(back.schema().field(4).name(), "name_2");
        assert_eq!(back.schema().field(3).data_type(), rows[0].schema().field(3).data_type());
        let empty = read(&[RecordBatch::new_empty(rows[0].schema())]);
        assert_eq!((empty.num_rows(), empty.num_columns()), (0, 5));
    }
}
