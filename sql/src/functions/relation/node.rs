//! A call in a plan: the logical node, and its way to the physical one.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::Session;
use datafusion::common::{DFSchema, DFSchemaRef, Result, plan_err};
use datafusion::execution::context::QueryPlanner;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::{
    Expr, Extension, LogicalPlan, UserDefinedLogicalNode, UserDefinedLogicalNodeCore,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_planner::{DefaultPhysicalPlanner, ExtensionPlanner, PhysicalPlanner};

use super::exec::{Input, Output, RelationExec};

/// What a call does, once its arguments are known: rows of its inputs in, rows of its result out.
#[async_trait]
pub(crate) trait Operation: Debug + Send + Sync + 'static {
    /// The function's name, for `explain` and errors.
    fn name(&self) -> &'static str;

    /// Its parameters as text, for `explain`; operations of one name and text over the same inputs are the same.
    fn parameters(&self) -> String;

    /// The columns of the result. Inputs may have lost columns since the call was planned, so what is looked for is
    /// found by name.
    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>>;

    /// The columns that it reads whether or not the result has them, for each input.
    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>>;

    /// Does the work. Rows come out in the order in which they are sent.
    async fn run(&self, inputs: Vec<Input>, output: Output) -> Result<()>;
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputColumn {
    /// A column of an input, perhaps under another name.
    Passed { input: usize, column: usize, name: String },
    /// A column of the operation's own.
    Made(FieldRef),
}

impl OutputColumn {
    fn field(&self, inputs: &[&Schema]) -> Result<FieldRef> {
        match self {
            Self::Made(field) => Ok(Arc::clone(field)),
            Self::Passed { input, column, name } => {
                match inputs.get(*input).and_then(|schema| schema.fields().get(*column)) {
                    Some(field) => Ok(Arc::new(Field::clone(field).with_name(name))),
                    None => plan_err!("column '{name}' is not there"),
                }
            }
        }
    }
}

/// The plan of an operation over its inputs.
pub(crate) fn operation(operation: Arc<dyn Operation>, inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
    let node = RelationNode::try_new(operation, inputs)?;
    Ok(LogicalPlan::Extension(Extension { node: Arc::new(node) }))
}

/// The schema of an operation's result, and what its columns are.
pub(super) fn result_of(
    operation: &dyn Operation,
    inputs: &[&Schema],
) -> Result<(Vec<OutputColumn>, SchemaRef)> {
    let columns = operation.columns(inputs)?;
    let fields = columns.iter().map(|column| column.field(inputs)).collect::<Result<Vec<_>>>()?;
    for (index, field) in fields.iter().enumerate() {
        if fields[..index].iter().any(|other| other.name() == field.name()) {
            return plan_err!(
                "{}: two columns of the result would be named '{}'; rename the one of the table",
                operation.name(),
                field.name()
            );
        }
    }
    Ok((columns, Arc::new(Schema::new(fields))))
}

#[derive(Debug, Clone)]
pub(crate) struct RelationNode {
    operation: Arc<dyn Operation>,
    inputs: Vec<LogicalPlan>,
    columns: Vec<OutputColumn>,
    reads: Vec<Vec<usize>>,
    schema: DFSchemaRef,
}

impl RelationNode {
    fn try_new(operation: Arc<dyn Operation>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        let schemas: Vec<&Schema> = inputs.iter().map(|input| input.schema().as_arrow()).collect();
        let (columns, schema) = result_of(operation.as_ref(), &schemas)?;
        let reads = operation.reads(&schemas)?;
        let schema = DFSchema::from_unqualified_fields(schema.fields().clone(), schema.metadata().clone())?;
        Ok(Self { operation, inputs, columns, reads, schema: Arc::new(schema) })
    }

    fn key(&self) -> (&'static str, String, &[LogicalPlan]) {
        (self.operation.name(), self.operation.parameters(), &self.inputs)
    }
}

impl PartialEq for RelationNode {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for RelationNode {}

impl Hash for RelationNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialOrd for RelationNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.key().partial_cmp(&other.key())
    }
}

impl UserDefinedLogicalNodeCore for RelationNode {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.operation.name(), self.operation.parameters())
    }

    fn with_exprs_and_inputs(&self, _expressions: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Self::try_new(Arc::clone(&self.operation), inputs)
    }

    fn necessary_children_exprs(&self, output_columns: &[usize]) -> Option<Vec<Vec<usize>>> {
        let mut needed = self.reads.clone();
        for column in output_columns {
            if let OutputColumn::Passed { input, column, .. } = self.columns.get(*column)? {
                needed.get_mut(*input)?.push(*column);
            }
        }
        for columns in &mut needed {
            columns.sort_unstable();
            columns.dedup();
        }
        Some(needed)
    }
}

/// DataFusion's planner with ours for these nodes.
#[derive(Debug)]
pub(crate) struct RelationQueryPlanner;

#[async_trait]
impl QueryPlanner for RelationQueryPlanner {
    async fn create_physical_plan(
        &self,
        plan: &LogicalPlan,
        session: &dyn Session,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let planner = DefaultPhysicalPlanner::with_extension_planners(vec![Arc::new(Nodes)]);
        planner.create_physical_plan(plan, session).await
    }
}

struct Nodes;

#[async_trait]
impl ExtensionPlanner for Nodes {
    async fn plan_extension(
        &self,
        _planner: &dyn PhysicalPlanner,
        node: &dyn UserDefinedLogicalNode,
        _logical_inputs: &[&LogicalPlan],
        inputs: &[Arc<dyn ExecutionPlan>],
        _session: &dyn Session,
        _context: &PhysicalPlanningContext,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let Some(node) = node.as_any().downcast_ref::<RelationNode>() else { return Ok(None) };
        Ok(Some(Arc::new(RelationExec::try_new(Arc::clone(&node.operation), inputs.to_vec())?)))
    }
}
