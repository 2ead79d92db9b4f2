//! The physical operators that DataFusion does not have, and what runs them.
//!
//! ```text
//! scan(clips) ─ Draw ─ Write                      views: narrow rows, stored
//! scan(clips) ─ Locate ─ Write                    clips whose samples are stored
//! scan(views) ─ Render ─ Write                    views, when materialised; features
//! scan(audio) ─ Featurise ─ Write                 features of materialised views
//! scan(views) ─ Batch ─ Render ─ lane threads     training
//! scan(clips) ─ Draw ─ Render ─ Embed ─ Write     embeddings of clips
//! scan(views) ─ Render ─ EmbedViews ─ Write       embeddings of views
//! ```
//!
//! Each operator is a [`PartitionOp`]: it turns the stream of one partition into another stream and
//! never looks at a second partition, so a partition is a unit of work that can run anywhere. Rows
//! stay narrow (references and parameters) up to [`render`], the one place where audio appears.
//! Nothing here exchanges rows between partitions.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions,
};

pub mod batch;
pub mod columns;
pub mod device;
pub mod draw;
pub mod embed;
pub mod embed_views;
pub mod featurise;
pub mod lanes;
pub mod locate;
pub mod pool;
pub mod render;
pub mod samples;
pub mod scan;
pub mod write;

/// What an operator does to one partition.
pub trait PartitionOp: fmt::Debug + Send + Sync + 'static {
    /// The operator's name in plans, such as `RenderExec`.
    fn name(&self) -> &'static str;

    /// One line of details for plans; empty when there are none.
    fn details(&self) -> String;

    /// The schema of the rows that [`Self::start`] yields.
    fn schema(&self) -> SchemaRef;

    /// Turns the rows of `partition` into the operator's rows. Must not block: work goes to the
    /// [`pool::Pool`]. Dropping the returned stream cancels the partition.
    fn start(
        self: Arc<Self>,
        partition: usize,
        input: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream>;
}

/// A [`PartitionOp`] as a node of a DataFusion plan: one child, the same number of partitions.
#[derive(Debug)]
pub struct PartitionExec<O> {
    op: Arc<O>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl<O: PartitionOp> PartitionExec<O> {
    /// `op` over `input`.
    pub fn over(op: O, input: Arc<dyn ExecutionPlan>) -> Arc<dyn ExecutionPlan> {
        Arc::new(Self::build(Arc::new(op), input))
    }

    fn build(op: Arc<O>, input: Arc<dyn ExecutionPlan>) -> Self {
        let partitions = input.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(op.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Self { op, input, properties: Arc::new(properties) }
    }
}

impl<O: PartitionOp> DisplayAs for PartitionExec<O> {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = self.op.details();
        match details.is_empty() {
            true => f.write_str(self.op.name()),
            false => write!(f, "{}: {details}", self.op.name()),
        }
    }
}

impl<O: PartitionOp> ExecutionPlan for PartitionExec<O> {
    fn name(&self) -> &str {
        self.op.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// An optimiser must not add an exchange below: a partition is a shard.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.pop()) {
            (Some(input), None) => Ok(Arc::new(Self::build(Arc::clone(&self.op), input))),
            _ => Err(DataFusionError::Internal(format!("{} takes one input", self.op.name()))),
        }
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, Arc::clone(&context))?;
        Arc::clone(&self.op).start(partition, input, context)
    }
}
