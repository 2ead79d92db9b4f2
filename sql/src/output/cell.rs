//! The cells of a table: one column of values as text.
//!
//! Floats get about four significant digits, and the columns' needless zeros are dropped together
//! so that decimal points stay aligned. Lists of numbers show their first values and their length.
//! Control characters are escaped: what is in a table cannot steer the terminal.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// How NULL is shown.
const NULL: &str = "NULL";
/// Lists of numbers up to this length are shown whole.
const WHOLE_VECTOR: usize = 4;
/// Numbers shown of a longer one.
const VECTOR_HEAD: usize = 2;
/// Items shown of other lists.
const LIST_HEAD: usize = 12;

/// The cells of the same column in several batches.
pub(super) fn column(arrays: &[&ArrayRef]) -> Result<Vec<String>, ArrowError> {
    let Some(first) = arrays.first() else { return Ok(Vec::new()) };
    if first.data_type().is_floating() {
        let mut values = Vec::new();
        for array in arrays {
            let doubles = cast(array, &DataType::Float64)?;
            values.extend(doubles.as_primitive::<Float64Type>().iter());
        }
        return Ok(floats(&values));
    }
    let mut cells = Vec::new();
    for array in arrays {
        for row in 0..array.len() {
            cells.push(value(array.as_ref(), row, true)?);
        }
    }
    Ok(cells)
}

/// Whether a column is aligned to the right.
pub(super) fn is_number(data_type: &DataType) -> bool {
    data_type.is_numeric()
}

fn floats(values: &[Option<f64>]) -> Vec<String> {
    let mut cells: Vec<String> =
        values.iter().map(|value| value.map_or(NULL.to_owned(), four_digits)).collect();
    let needed = |cell: &String| {
        let decimals = plain_decimals(cell)?;
        let zeros = cell.len() - cell.trim_end_matches('0').len();
        Some(decimals.saturating_sub(zeros))
    };
    let most = cells.iter().filter_map(needed).max().unwrap_or(1).max(1);
    for cell in &mut cells {
        if let Some(decimals) = plain_decimals(cell) {
            cell.truncate(cell.len() - decimals.saturating_sub(most));
        }
    }
    cells
}

/// The number of decimals of a cell such as `0.4167`; `None` for `NULL`, `NaN`, `1.2e-5`.
fn plain_decimals(cell: &str) -> Option<usize> {
    let (whole, decimals) = cell.split_once('.')?;
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole.trim_start_matches('-')) && digits(decimals)).then_some(decimals.len())
}

/// At least four significant digits and at most four decimals; scientific where that says nothing.
fn four_digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0.0000".to_owned(),
        _ if !value.is_finite() => value.to_string(),
        _ if !(1e-3..1e9).contains(&size) => format!("{value:.3e}"),
        _ if size < 10.0 => format!("{value:.4}"),
        _ if size < 100.0 => format!("{value:.3}"),
        _ if size < 1000.0 => format!("{value:.2}"),
        _ => format!("{value:.1}"),
    }
}

/// About three significant digits, for numbers inside lists and structs.
fn three_digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".to_owned(),
        _ if !value.is_finite() => value.to_string(),
        _ if !(1e-3..1e9).contains(&size) => format!("{value:.1e}"),
        _ => {
            let decimals = if size < 1.0 {
                3
            } else if size < 10.0 {
                2
            } else {
                1
            };
            let text = format!("{value:.decimals$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// One value as text. Line breaks of a text are kept at the top level only (query plans).
fn value(array: &dyn Array, row: usize, top: bool) -> Result<String, ArrowError> {
    if array.is_null(row) {
        return Ok(NULL.to_owned());
    }
    match array.data_type() {
        DataType::List(_) => list(&array.as_list::<i32>().value(row)),
        DataType::LargeList(_) => list(&array.as_list::<i64>().value(row)),
        DataType::FixedSizeList(_, _) => list(&array.as_fixed_size_list().value(row)),
        DataType::Struct(fields) => {
            let columns = fields.iter().zip(array.as_struct().columns());
            let parts = columns.map(|(field, column)| {
                Ok(format!("{}: {}", field.name(), value(column.as_ref(), row, false)?))
            });
            Ok(format!("{{{}}}", parts.collect::<Result<Vec<_>, ArrowError>>()?.join(", ")))
        }
        data_type if data_type.is_floating() => {
            let double = cast(&array.slice(row, 1), &DataType::Float64)?;
            Ok(three_digits(double.as_primitive::<Float64Type>().value(0)))
        }
        _ => {
            let text =
                ArrayFormatter::try_new(array, &FormatOptions::default())?.value(row).try_to_string()?;
            Ok(escaped(&text, top))
        }
    }
}

fn list(items: &ArrayRef) -> Result<String, ArrowError> {
    let (length, number) = (items.len(), items.data_type().is_numeric());
    let head = match number {
        true if length > WHOLE_VECTOR => VECTOR_HEAD,
        true => length,
        false => length.min(LIST_HEAD),
    };
    let shown: Vec<String> =
        (0..head).map(|row| value(items.as_ref(), row, false)).collect::<Result<_, ArrowError>>()?;
    let shown = shown.join(", ");
    Ok(if head < length { format!("[{shown}, … {length}]") } else { format!("[{shown}]") })
}

fn escaped(text: &str, keep_breaks: bool) -> String {
    let plain = |c: char| !c.is_control() || (keep_breaks && c == '\n');
    if text.chars().all(plain) {
        return text.to_owned();
    }
    text.chars().map(|c| if plain(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_share_their_decimals() {
        let cells = |values: &[f64]| floats(&values.iter().copied().map(Some).collect::<Vec<_>>());
        assert_eq!(cells(&[0.41666, 0.35, 1.0]), ["0.4167", "0.3500", "1.0000"]);
        assert_eq!(cells(&[12.0, 3.5, 4.25]), ["12.00", "3.50", "4.25"]);
        assert_eq!(cells(&[12.0, 3.0]), ["12.0", "3.0"]);
        assert_eq!(cells(&[120.4567, 98765.43]), ["120.46", "98765.4"]);
        assert_eq!(cells(&[0.00012345, 0.5]), ["1.234e-4", "0.5"]);
        assert_eq!(cells(&[-0.25, f64::NAN, f64::INFINITY]), ["-0.25", "NaN", "inf"]);
        assert_eq!(floats(&[None, Some(0.0)]), ["NULL", "0.0"]);
    }

    #[test]
    fn numbers_in_lists_are_short() {
        assert_eq!([0.12, -0.0312, 2.71, 96.0, 0.0].map(three_digits), ["0.12", "-0.031", "2.71", "96", "0"]);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escaped("a\u{1b}[2Jb\n", false), "a\\u{1b}[2Jb\\n");
        assert_eq!(escaped("a\nb\t", true), "a\nb\\t");
    }
}
