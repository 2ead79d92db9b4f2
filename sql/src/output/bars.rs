//! Bars and sparklines: numbers as lengths, beside them or in place of lists of them.

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use arrow::error::ArrowError;

/// Terminal columns of a bar.
const WIDTH: usize = 10;
/// Terminal columns of a sparkline at most; longer lists are averaged in pieces.
const SPARK: usize = 24;
/// Eighths of a column, from the left.
const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
/// Levels of a sparkline.
const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// A bar of [`WIDTH`] columns per value of a column of numbers. The scale is that of the whole column, from the least
/// value or 0 to the greatest value or 0; bars start at 0, so those of negative values lie left of it.
pub(super) fn bars(arrays: &[&ArrayRef]) -> Result<Vec<String>, ArrowError> {
    let mut values = Vec::new();
    for array in arrays {
        values.extend(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().iter());
    }
    let finite = || values.iter().flatten().copied().filter(|value| value.is_finite());
    let (least, most) = (finite().fold(0.0, f64::min), finite().fold(0.0, f64::max));
    let span = most - least;
    Ok(values.iter().map(|value| bar(value.filter(|v| v.is_finite()), least, span)).collect())
}

fn bar(value: Option<f64>, least: f64, span: f64) -> String {
    let (Some(value), true) = (value, span > 0.0 && span.is_finite()) else { return " ".repeat(WIDTH) };
    // Places in eighths of a column; the end right of 0 is drawn to the eighth, the one left of it to the half.
    let at = |x: f64| ((x - least) / span * (WIDTH * 8) as f64).round() as usize;
    let zero = at(0.0) / 8 * 8;
    let (from, to) = if value < 0.0 { (at(value) / 4 * 4, zero) } else { (zero, at(value).max(zero)) };
    (0..WIDTH)
        .map(|column| {
            let (left, right) = (column * 8, column * 8 + 8);
            match (from.clamp(left, right) - left, to.clamp(left, right) - left) {
                (0, 8) => '█',
                (4, 8) => '▐',
                (0, end) => EIGHTHS[end],
                _ => ' ',
            }
        })
        .collect()
}

/// A list of numbers as levels from its own least to its own greatest value; `None` for a list without numbers.
pub(super) fn spark(items: &ArrayRef) -> Option<String> {
    let values = cast(items, &DataType::Float64).ok()?;
    let values: Vec<f64> =
        values.as_primitive::<Float64Type>().iter().flatten().filter(|value| value.is_finite()).collect();
    let columns = values.len().min(SPARK);
    let mean = |column: usize| {
        let piece = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        piece.iter().sum::<f64>() / piece.len() as f64
    };
    let means: Vec<f64> = (0..columns).map(mean).collect();
    let least = means.iter().copied().reduce(f64::min)?;
    let span = means.iter().copied().fold(least, f64::max) - least;
    let level = |value: &f64| {
        let place = if span > 0.0 { (value - least) / span * (LEVELS.len() - 1) as f64 } else { 0.0 };
        LEVELS[(place.round() as usize).min(LEVELS.len() - 1)]
    };
    Some(means.iter().map(level).collect())
}

/// The items of a list of numbers, row by row; `None` for other types.
pub(super) fn number_lists(array: &ArrayRef) -> Option<Vec<Option<ArrayRef>>> {
    let rows = 0..array.len();
    let items: Vec<Option<ArrayRef>> = match array.data_type() {
        DataType::List(field) if field.data_type().is_numeric() => {
            rows.map(|row| array.is_valid(row).then(|| array.as_list::<i32>().value(row))).collect()
        }
        DataType::LargeList(field) if field.data_type().is_numeric() => {
            rows.map(|row| array.is_valid(row).then(|| array.as_list::<i64>().value(row))).collect()
        }
        DataType::FixedSizeList(field, _) if field.data_type().is_numeric() => {
            rows.map(|row| array.is_valid(row).then(|| array.as_fixed_size_list().value(row))).collect()
        }
        _ => return None,
    };
    Some(items)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::Float64Array;

    use super::*;

    fn drawn(values: &[f64]) -> Vec<String> {
        let array: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        bars(&[&array]).unwrap()
    }

    #[test]
    fn bars_have_one_scale_and_start_at_zero() {
        assert_eq!(drawn(&[1.0, 0.5, 0.0125, 0.0]), ["██████████", "█████     ", "▏         ", "          "]);
        assert_eq!(drawn(&[-1.0, 1.0, -0.5]), ["█████     ", "     █████", "  ▐██     "]);
        assert_eq!(drawn(&[f64::NAN, 2.0]), [" ".repeat(10), "█".repeat(10)]);
        assert_eq!(drawn(&[0.0]), [" ".repeat(10)]);
    }

    #[test]
    fn sparklines_go_from_least_to_greatest() {
        let list = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
        assert_eq!(spark(&list(vec![0.0, 1.0, 7.0])).as_deref(), Some("▁▂█"));
        assert_eq!(spark(&list((0..96).map(f64::from).collect())).map(|text| text.chars().count()), Some(24));
        assert_eq!(spark(&list(vec![2.0, 2.0])).as_deref(), Some("▁▁"));
        assert_eq!(spark(&list(vec![])), None);
    }
}
