//! Files that are tables: which format a file has, and one table over a file or a folder of files.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::arrow::ArrowFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl};
use datafusion::error::DataFusionError;

use super::{Location, list, read_range};
use crate::diagnose;
use crate::error::{SqlError, StoreFault};
use crate::suggest::listed;

/// Bytes of a file of JSON that are looked at to tell an array from lines.
const HEAD: u64 = 4096;

/// The format of a file of rows, known by its ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum RowFormat {
    Parquet,
    /// With a header; columns are parted by this byte.
    Text(u8),
    /// An object a line, or one array of objects.
    Json,
    /// Arrow's file format, also known as Feather 2.
    Arrow,
}

/// The endings of files of rows.
const ENDINGS: [(&str, RowFormat); 9] = [
    ("parquet", RowFormat::Parquet),
    ("csv", RowFormat::Text(b',')),
    ("tsv", RowFormat::Text(b'\t')),
    ("json", RowFormat::Json),
    ("jsonl", RowFormat::Json),
    ("ndjson", RowFormat::Json),
    ("arrow", RowFormat::Arrow),
    ("feather", RowFormat::Arrow),
    ("ipc", RowFormat::Arrow),
];

impl RowFormat {
    fn of(place: &Location) -> Option<Self> {
        let ending = place.extension()?.to_ascii_lowercase();
        ENDINGS.iter().find(|(known, _)| *known == ending).map(|(_, format)| *format)
    }
}

/// Whether a name ends like that of a file of rows.
pub(crate) fn is_row_file(place: &Location) -> bool {
    RowFormat::of(place).is_some()
}

/// The table over a file of rows, or over those in a folder, which must be of one format. Folders in it do not count,
/// nor do files whose names begin with a dot or an underscore.
///
/// # Errors
/// [`SqlError::Table`] if there is no such file, its ending is none of Parquet, CSV, JSON or Arrow, a folder holds
/// none or several formats, or the schema cannot be read.
pub(crate) async fn table_at(
    state: &dyn Session,
    name: &str,
    place: &Location,
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let wrong = |reason: String| SqlError::Table { table: name.to_owned(), location: place.clone(), reason };
    let (first, format, folder) = look(place).map_err(wrong)?;
    let mut url = place.url().map_err(|error| wrong(error.to_string()))?;
    let mut ending = String::new();
    if folder {
        url.push('/');
        ending = first.extension().map(|ending| format!(".{ending}")).unwrap_or_default();
    }
    let format: Arc<dyn FileFormat> = match format {
        RowFormat::Parquet => {
            let options = state.default_table_options().parquet;
            Arc::new(ParquetFormat::default().with_options(options))
        }
        RowFormat::Text(delimiter) => {
            Arc::new(CsvFormat::default().with_has_header(true).with_delimiter(delimiter))
        }
        RowFormat::Json => Arc::new(JsonFormat::default().with_newline_delimited(!is_array(&first))),
        RowFormat::Arrow => Arc::new(ArrowFormat),
    };
    let made = async {
        let options = ListingOptions::new(format).with_file_extension(ending);
        let config = ListingTableConfig::new(ListingTableUrl::parse(&url)?).with_listing_options(options);
        ListingTable::try_new(config.infer_schema(state).await?)
    };
    match made.await {
        Ok(table) => Ok(Arc::new(table)),
        Err(error) => Err(wrong(reason(error))),
    }
}

/// The first file of rows of a place, its format, and whether the place is a folder.
fn look(place: &Location) -> Result<(Location, RowFormat, bool), String> {
    let endings = || listed(ENDINGS.iter().map(|(ending, _)| *ending), ENDINGS.len());
    let told = |error: SqlError| match error {
        SqlError::Store { fault: StoreFault::Missing, .. } => "no such file or folder".to_owned(),
        SqlError::Store { reason, .. } => reason,
        other => other.to_string(),
    };
    if place.as_path().is_some_and(|path| path.is_file()) {
        let format = RowFormat::of(place);
        return format
            .map(|format| (place.clone(), format, false))
            .ok_or_else(|| format!("its name does not end like a file of rows; known are {}", endings()));
    }
    let files = list(place, false).map_err(told)?;
    let hidden = |file: &Location| file.name().is_some_and(|name| name.starts_with(['.', '_']));
    let rows: Vec<(Location, RowFormat)> = files
        .into_iter()
        .filter(|file| !hidden(&file.location))
        .filter_map(|file| RowFormat::of(&file.location).map(|format| (file.location, format)))
        .collect();
    let found: BTreeSet<&str> = rows.iter().filter_map(|(file, _)| file.extension()).collect();
    if found.len() > 1 {
        let found = listed(found.iter().copied(), ENDINGS.len());
        return Err(format!("the folder holds files of several formats ({found}): name one file"));
    }
    match (rows.into_iter().next(), RowFormat::of(place)) {
        (Some((first, format)), _) => Ok((first, format, true)),
        // An object has no folder to look into.
        (None, Some(format)) if place.as_path().is_none() => Ok((place.clone(), format, false)),
        (None, _) => Err(format!("no file of rows is in it; known are {}", endings())),
    }
}

/// Whether a file of JSON begins as an array.
fn is_array(file: &Location) -> bool {
    let head = read_range(file, 0..HEAD).unwrap_or_default();
    head.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[')
}

/// What the engine says of a file, with what is not built in named as such.
fn reason(error: DataFusionError) -> String {
    let reason = diagnose::engine(error).to_string();
    if reason.contains("compression") {
        return format!("{reason} (compressed files other than Parquet are not supported: unpack it)");
    }
    reason
}
