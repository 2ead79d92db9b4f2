//! What a command is pointed at: runs, and files of rows.

use std::path::Path;
use std::str::FromStr;

use crate::error::SqlError;
use crate::store::Location;

/// A run, a file of rows, or a folder of such files, perhaps under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The name in SQL; without one, it is made from the location's.
    pub name: Option<String>,
    /// Where it is.
    pub location: Location,
}

impl FromStr for Source {
    type Err = SqlError;

    /// Reads `PATH` or `NAME=PATH`. A path that is there is taken as it stands.
    fn from_str(text: &str) -> Result<Self, SqlError> {
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        };
        match text.split_once('=') {
            Some((name, location)) if is_name(name) && !Path::new(text).exists() => {
                Ok(Self { name: Some(name.to_owned()), location: location.parse()? })
            }
            _ => Ok(Location::parse(text)?.into()),
        }
    }
}

impl From<Location> for Source {
    fn from(location: Location) -> Self {
        Self { name: None, location }
    }
}

/// The name of a table for a file: that of the file without its ending, in lower case and with `_` for what would need
/// quotes in SQL.
pub(super) fn table_name(location: &Location) -> String {
    let name = location.name().unwrap_or("file");
    let stem = Path::new(name).file_stem().and_then(|stem| stem.to_str()).unwrap_or(name);
    let plain: String = stem
        .chars()
        .map(|c| if c.is_alphanumeric() { c.to_lowercase().next().unwrap_or(c) } else { '_' })
        .collect();
    match plain.starts_with(|c: char| c.is_numeric()) {
        true => format!("_{plain}"),
        false => plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_may_have_names() {
        let source = |text: &str| -> Source { text.parse().unwrap() };
        assert_eq!(source("truth=data/a=b.csv").name.as_deref(), Some("truth"));
        assert_eq!(source("truth=data/a=b.csv").location, Location::parse("data/a=b.csv").unwrap());
        assert_eq!(source("data/x=1.csv"), Location::parse("data/x=1.csv").unwrap().into());
        assert!("a=az://b".parse::<Source>().is_err());
        for (file, name) in
            [("a/My labels.v2.CSV", "my_labels_v2"), ("2024.parquet", "_2024"), ("静か.json", "静か")]
        {
            assert_eq!(table_name(&Location::parse(file).unwrap()), name);
        }
    }
}
