//! Our functions: those that take tables ([`relation`]), and scalar functions of vectors ([`vector`]), music ([`mir`])
//! and audio ([`audio`]). Scalar functions take arrays and literals alike, and give NULL where an argument is NULL.
//!
//! Where DataFusion has a function of the same name or meaning (`cosine_distance`,
//! `inner_product`, `array_distance`, and their aliases), ours takes its place: DataFusion's turns
//! every vector into a list of doubles first.

pub mod audio;
pub(crate) mod column;
pub(crate) mod kernels;
pub mod mir;
pub(crate) mod relation;
pub(crate) mod spread;
pub mod vector;

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{DocSection, Documentation, ScalarUDF};

/// Makes a session know them. Its state must plan with [`relation::RelationQueryPlanner`].
///
/// # Errors
/// The session's own, if it takes no functions in `from`.
pub(crate) fn register(context: &SessionContext) -> Result<()> {
    for function in all() {
        context.register_udf(function);
    }
    context.register_relation_planner(Arc::new(relation::Planner))
}

/// The scalar functions of this crate.
pub fn all() -> Vec<ScalarUDF> {
    vector::all().into_iter().chain(mir::all()).chain(audio::all()).collect()
}

/// The names and aliases of all scalar functions of this crate, and of those in `from`.
pub fn names() -> Vec<String> {
    all()
        .iter()
        .flat_map(|function| {
            std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned())
        })
        .chain(relation::documentation().map(|(name, _)| name.to_owned()))
        .collect()
}

/// What a function says of itself.
struct Docs {
    section: &'static str,
    description: &'static str,
    syntax: &'static str,
    example: &'static str,
    arguments: &'static [(&'static str, &'static str)],
}

impl Docs {
    fn build(&self) -> Documentation {
        let section = DocSection { include: true, label: self.section, description: None };
        let builder =
            Documentation::builder(section, self.description, self.syntax).with_sql_example(self.example);
        let with_arguments =
            self.arguments.iter().fold(builder, |builder, (name, text)| builder.with_argument(*name, *text));
        with_arguments.build()
    }
}
