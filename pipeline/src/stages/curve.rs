//! The table of a training stage: one row per step.
//!
//! While training goes on, rows are kept in pieces beside its states, one from state to state, so that a resumed
//! training has the rows of all its steps. They become the stage's table at the end.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_models::train::StepMetrics;

use crate::error::RunError;
use crate::exec::scan::Table;
use crate::exec::write::{TableWriter, Written};

/// The start of the names of pieces.
const PIECE: &str = "steps-";

/// Training curves. Columns: `step` (from 1), `epoch`, `lr`, `loss`, for each head
/// `loss_<head>` and `floor_<head>` (nats; the floor is the loss of a head that tells segments apart
/// but sees nothing else), `temperature_<head>` where temperatures are learned, `grad_norm` (before clipping), `views`, `views_per_s`, and `wait_share`
/// (the part of the step's time spent waiting for data, 0..1).
pub struct Curve {
    heads: usize,
    /// Whether temperatures are learned.
    learned: bool,
    schema: SchemaRef,
    dir: PathBuf,
    steps: Vec<StepMetrics>,
}

impl Curve {
    /// The curve of a training that goes on after `done` steps, with its pieces in `dir`: those of later steps go.
    /// `learned`: whether temperatures are learned.
    ///
    /// # Errors
    /// When a piece cannot be removed.
    pub fn resume(dir: &Path, heads: &[String], learned: bool, done: usize) -> Result<Self, RunError> {
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
        if learned {
            fields.extend(heads.iter().map(|head| number(format!("temperature_{head}"))));
        }
        fields.push(number("grad_norm".to_owned()));
        fields.push(Field::new("views", DataType::Int32, false));
        fields.extend([number("views_per_s".to_owned()), number("wait_share".to_owned())]);
        let curve = Self {
            heads: heads.len(),
            learned,
            schema: Arc::new(Schema::new(fields)),
            dir: dir.to_owned(),
            steps: Vec::new(),
        };
        for (first, path) in curve.pieces()? {
            if first > done {
                fs::remove_file(&path).map_err(RunError::io("cannot remove", &path))?;
            }
        }
        Ok(curve)
    }

    /// The pieces by their first steps.
    fn pieces(&self) -> Result<Vec<(usize, PathBuf)>, RunError> {
        let mut pieces = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(RunError::io("cannot read", &self.dir))? {
            let path = entry.map_err(RunError::io("cannot read", &self.dir))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let first = name.strip_prefix(PIECE).and_then(|rest| rest.strip_suffix(".parquet"));
            if let Some(first) = first.and_then(|first| first.parse().ok()) {
                pieces.push((first, path));
            }
        }
        pieces.sort();
        Ok(pieces)
    }

    /// Appends a step.
    pub fn push(&mut self, step: &StepMetrics) {
        self.steps.push(step.clone());
    }

    /// The mean loss of the steps since the last piece.
    pub fn recent_loss(&self) -> f64 {
        self.steps.iter().map(|step| step.loss).sum::<f64>() / self.steps.len().max(1) as f64
    }

    /// Writes the steps since the last piece.
    ///
    /// # Errors
    /// When the disk is full.
    pub fn save(&mut self) -> Result<(), RunError> {
        let Some(first) = self.steps.first().map(|step| step.step) else { return Ok(()) };
        let path = self.dir.join(format!("{PIECE}{first:09}.parquet"));
        let mut writer = TableWriter::create(&path, &self.schema)?;
        writer.write(self.rows()?)?;
        writer.finish()?;
        Ok(())
    }

    fn rows(&mut self) -> Result<RecordBatch, RunError> {
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
        if self.learned {
            columns.extend((0..self.heads).map(|head| number(&|s| of_head(&s.temperatures, head))));
        }
        columns.push(number(&|s| s.grad_norm));
        columns.push(Arc::new(Int32Array::from_iter_values(steps.iter().map(|s| s.views as i32))));
        columns.push(number(&|s| s.views as f64 / seconds(s)));
        columns.push(number(&|s| s.wait_seconds / seconds(s)));
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }

    /// Writes the table of all steps to `path`.
    ///
    /// # Errors
    /// When a piece cannot be read or the table cannot be written.
    pub fn finish(mut self, path: &Path) -> Result<Written, RunError> {
        let names: Vec<&str> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let mut writer = TableWriter::create(path, &self.schema)?;
        for (_, piece) in self.pieces()? {
            for rows in Table::of_file(&piece)?.read(&names)? {
                writer.write(rows)?;
            }
        }
        writer.write(self.rows()?)?;
        writer.finish()
    }
}

/// How long a step took, waiting for its batch included.
pub fn seconds(step: &StepMetrics) -> f64 {
    (step.wait_seconds + step.step_seconds).max(1e-9)
}
