//! From a table of clips or views to log-mel features: the operators that `features`, `statistics` and `embed` share.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema};
use datafusion::physical_plan::ExecutionPlan;
use indexmap::IndexMap;
use loev_ops::chain::Chain;
use loev_ops::features::FrontEnd;

use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::exec::draw::{DrawOp, Plan};
use crate::exec::featurise::FeaturiseOp;
use crate::exec::render::{BYTES, Output, RenderOp};
use crate::exec::scan::{Table, TableFile};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::stage::Views;

/// What the features are of.
#[derive(Clone, Copy, PartialEq)]
pub enum Of {
    /// Segments of clips, one after the other, `hop` seconds from start to start.
    Clips {
        /// In seconds.
        hop: f64,
    },
    /// Views, rendered from their draws.
    Views,
    /// Views whose audio is stored.
    Audio,
}

impl Of {
    /// Of a stage of views, or of clips when there is none.
    pub fn new(views: Option<&Views>, hop: f64) -> Self {
        match views {
            None => Self::Clips { hop },
            Some(views) if views.materialize => Self::Audio,
            Some(_) => Self::Views,
        }
    }
}

/// A table whose audio becomes features.
pub struct Featured<'a> {
    /// The table.
    pub input: &'a Table,
    /// What its rows are.
    pub of: Of,
    /// The chain that renders; clips pass through it at identity.
    pub chain: &'a Chain,
    /// Of the features.
    pub front_end: &'a FrontEnd,
    /// Segments or views made at once.
    pub rows: usize,
}

impl Featured<'_> {
    /// The plan that computes the features of `partitions`, with the columns of its rows.
    ///
    /// # Errors
    /// When the table cannot be scanned, or lacks columns.
    pub fn plan(
        &self,
        context: &Context,
        stage: &StageHandle,
        partitions: &[Vec<&TableFile>],
    ) -> Result<Arc<dyn ExecutionPlan>, RunError> {
        let pool = Arc::clone(&context.pool);
        let (draws, counting) = match self.of {
            Of::Audio => {
                let scan = self.input.scan_by(partitions, Some(self.rows))?;
                let (schema, front_end) = (scan.schema(), self.front_end.clone());
                let op = FeaturiseOp::new(&schema, self.chain, front_end, pool, stage.clone());
                return Ok(PartitionExec::over(op, scan));
            }
            Of::Views => (self.input.scan(partitions)?, stage.counting()),
            Of::Clips { hop } => {
                let input = narrow(self.input.clone());
                let (plan, key, labels) = (Plan::Clean { hop }, context.key(&stage.name), IndexMap::new());
                let draw = DrawOp::new(&input.schema, self.chain.clone(), plan, key, &labels, stage.clone())?;
                (PartitionExec::over(draw, input.scan(partitions)?), stage.clone())
            }
        };
        let (output, budget) = (Output::Features(self.front_end.clone()), Arc::clone(&context.budget));
        let render =
            RenderOp::new(&draws.schema(), self.chain.clone(), output, self.rows, pool, budget, counting);
        Ok(PartitionExec::over(render, draws))
    }
}

/// The columns that rendering needs, so that no label can clash with a column of draws.
fn narrow(table: Table) -> Table {
    let keep = |field: &&Arc<Field>| [CLIP_ID, URI, SECONDS, BYTES].contains(&field.name().as_str());
    let fields: Vec<Arc<Field>> = table.schema.fields().iter().filter(keep).cloned().collect();
    Table { schema: Arc::new(Schema::new(fields)), files: table.files }
}
