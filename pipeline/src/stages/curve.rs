//! The table of a training stage: one row per step.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_models::train::StepMetrics;

use crate::error::RunError;
use crate::exec::write::TableWriter;
use crate::run::context::{Context, shard_file};

/// Steps whose rows are handed to the writer together.
const ROWS: usize = 256;

/// Writes training curves. Columns: `step` (from 1), `epoch`, `lr`, `loss`, for each head
/// `loss_<head>` and `floor_<head>` (nats; the floor is the loss of a head that tells segments apart
/// but sees nothing else), `grad_norm` (before clipping), `views`, `views_per_s`, and `wait_share`
/// (the part of the step's time spent waiting for data, 0..1).
pub struct Curve {
    heads: usize,
    schema: SchemaRef,
    steps: Vec<StepMetrics>,
    writer: TableWriter,
}

impl Curve {
    /// Starts the table `stage`.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn create(context: &Context, stage: &str, heads: &[String]) -> Result<Self, RunError> {
        let number = |name: String| Field::new(name, DataType::Float64, false);
        let mut fields = vec![
            Field::new("step", DataType::Int64, false),
            Field::new("epoch", DataType::Int32, false),
            number("lr".to_owned()),
            number("loss".to_owned()),
        ];
        for head in heads {
            fields.extend([number(format!("loss_{head}")), number(format!("floor_{head}"))]);
        }
        fields.push(number("grad_norm".to_owned()));
        fields.push(Field::new("views", DataType::Int32, false));
        fields.extend([number("views_per_s".to_owned()), number("wait_share".to_owned())]);
        let schema = Arc::new(Schema::new(fields));
        let path = context.dir.create_table(stage)?.join(shard_file(0));
        let writer = TableWriter::create(&path, &schema)?;
        Ok(Self { heads: heads.len(), schema, steps: Vec::new(), writer })
    }

    /// Appends a step.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn push(&mut self, step: &StepMetrics) -> Result<(), RunError> {
        self.steps.push(step.clone());
        if self.steps.len() >= ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), RunError> {
        let steps = std::mem::take(&mut self.steps);
        let number = |value: &dyn Fn(&StepMetrics) -> f64| -> ArrayRef {
            Arc::new(Float64Array::from_iter_values(steps.iter().map(value)))
        };
        let of_head = |values: &[f64], head: usize| values.get(head).copied().unwrap_or(f64::NAN);
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(steps.iter().map(|s| s.step as i64))),
            Arc::new(Int32Array::from_iter_values(steps.iter().map(|s| s.epoch as i32))),
            number(&|s| s.lr),
            number(&|s| s.loss),
        ];
        for head in 0..self.heads {
            columns.push(number(&|s| of_head(&s.head_losses, head)));
            columns.push(number(&|s| of_head(&s.head_floors, head)));
        }
        columns.push(number(&|s| s.grad_norm));
        columns.push(Arc::new(Int32Array::from_iter_values(steps.iter().map(|s| s.views as i32))));
        columns.push(number(&|s| s.views as f64 / seconds(s)));
        columns.push(number(&|s| s.wait_seconds / seconds(s)));
        self.writer.write(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Ends the table; returns its receipt.
    ///
    /// # Errors
    /// When the table cannot be written.
    pub fn finish(mut self) -> Result<RecordBatch, RunError> {
        self.flush()?;
        self.writer.finish()?.receipt()
    }
}

/// How long a step took, waiting for its batch included.
pub fn seconds(step: &StepMetrics) -> f64 {
    (step.wait_seconds + step.step_seconds).max(1e-9)
}
