//! What a report is made of: sections with figures, each with the SQL that it comes from and its data.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Number, Value, json};

use super::html::Html;
use crate::error::RunError;

/// A page about a run.
#[derive(Debug)]
pub struct Report {
    /// The run's name.
    pub title: String,
    /// What stands at the top.
    pub head: Html,
    /// The sections, in order.
    pub sections: Vec<Section>,
    /// What the map shows, for the script.
    pub map: Value,
    /// Sound of clips in the page, for the script.
    pub sound: Value,
    /// Texts that can be saved from the page, by name.
    pub files: Vec<(String, String)>,
}

/// A part of the page.
#[derive(Debug)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its title.
    pub title: &'static str,
    /// One or two sentences on what is to be seen.
    pub lead: String,
    /// What could not be shown, and why.
    pub marks: Vec<String>,
    /// Markup before the figures.
    pub body: Html,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Section {
    /// Without figures yet.
    pub fn new(id: &'static str, title: &'static str, lead: impl Into<String>) -> Self {
        let (marks, figures) = (Vec::new(), Vec::new());
        Self { id, title, lead: lead.into(), marks, body: Html::new(), figures }
    }

    /// Takes the figure, or notes why there is none.
    ///
    /// # Errors
    /// When the user asked to stop.
    pub fn take(&mut self, what: &str, figure: Result<Option<Figure>, RunError>) -> Result<(), RunError> {
        match figure {
            Ok(figure) => self.figures.extend(figure),
            Err(error @ (RunError::Interrupted | RunError::Memory { .. })) => return Err(error),
            Err(error) => self.marks.push(format!("{what}: {error}")),
        }
        Ok(())
    }

    /// Nothing to show and nothing to say.
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty() && self.marks.is_empty() && self.body.as_str().is_empty()
    }
}

/// A figure.
#[derive(Debug)]
pub struct Figure {
    /// What it shows, in a few words; its name in the table of figures.
    pub title: String,
    /// How to read it.
    pub caption: String,
    /// The drawing.
    pub body: Html,
    /// The statements that its data come from.
    pub sql: Vec<String>,
    /// The rows that they gave.
    pub data: Data,
}

/// Named columns of equal length.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Data(pub Vec<(String, Vec<Value>)>);

impl Data {
    /// The rows of a query.
    ///
    /// # Errors
    /// When a column cannot be written as text.
    pub fn of(rows: &RecordBatch) -> Result<Self, RunError> {
        let column =
            |(field, column): (&std::sync::Arc<arrow::datatypes::Field>, &arrow::array::ArrayRef)| {
                Ok((field.name().clone(), values(column)?))
            };
        let schema = rows.schema();
        schema.fields().iter().zip(rows.columns()).map(column).collect::<Result<Vec<_>, RunError>>().map(Self)
    }

    /// For the script.
    pub fn json(&self) -> Value {
        let columns: Vec<Value> = self.0.iter().map(|(name, _)| json!(name)).collect();
        let data: Vec<&Vec<Value>> = self.0.iter().map(|(_, values)| values).collect();
        json!({ "columns": columns, "data": data })
    }
}

/// The values of a column: numbers with six significant digits, all else as text.
fn values(column: &dyn Array) -> Result<Vec<Value>, RunError> {
    let present = |row: usize, value: &dyn Fn(usize) -> Value| match column.is_valid(row) {
        true => value(row),
        false => Value::Null,
    };
    let rows = 0..column.len();
    Ok(match column.data_type() {
        DataType::Boolean => {
            let column = column.as_boolean();
            rows.map(|row| present(row, &|row| column.value(row).into())).collect()
        }
        kind if kind.is_integer() => {
            let cast = cast(column, &DataType::Int64)?;
            let cast = cast.as_primitive::<Int64Type>();
            rows.map(|row| present(row, &|row| cast.value(row).into())).collect()
        }
        kind if kind.is_floating() => {
            let cast = cast(column, &DataType::Float64)?;
            let cast = cast.as_primitive::<Float64Type>();
            rows.map(|row| present(row, &|row| number(cast.value(row)))).collect()
        }
        _ => {
            let options = FormatOptions::default();
            let text = ArrayFormatter::try_new(column, &options)?;
            rows.map(|row| present(row, &|row| text.value(row).to_string().into())).collect()
        }
    })
}

/// A number with six significant digits; what is none is NULL.
pub fn number(value: f64) -> Value {
    let rounded: f64 = format!("{value:.5e}").parse().unwrap_or(f64::NAN);
    Number::from_f64(rounded).map_or(Value::Null, Value::Number)
}

/// The figures' data by their ids.
pub fn data_of(report: &Report) -> Value {
    let mut all = Map::new();
    for section in &report.sections {
        for (i, figure) in section.figures.iter().enumerate() {
            all.insert(figure_id(section, i), figure.data.json());
        }
    }
    Value::Object(all)
}

/// The anchor of a section's figure.
pub fn figure_id(section: &Section, figure: usize) -> String {
    format!("{}-{}", section.id, figure + 1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Float32Array, Int32Array, StringArray};

    use super::*;

    #[test]
    fn data_are_short_numbers_and_text() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("x", Arc::new(Float32Array::from(vec![Some(0.1), Some(f32::NAN), None]))),
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3]))),
            ("on", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("text", Arc::new(StringArray::from(vec![Some("a\"b"), None, Some("")]))),
        ];
        let data = Data::of(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        let expected = json!({
            "columns": ["x", "n", "on", "text"],
            "data": [[0.1, null, null], [1, 2, 3], [true, false, true], ["a\"b", null, ""]],
        });
        assert_eq!(data.json(), expected);
        assert_eq!(
            [1234567.0, 0.0, -1e-9, f64::INFINITY].map(number),
            [json!(1234570.0), json!(0.0), json!(-1e-9), Value::Null]
        );
    }
}
