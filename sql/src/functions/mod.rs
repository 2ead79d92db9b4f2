//! Our functions: of vectors ([`vector`], [`arith`], [`quantise`]), music ([`mir`]) and audio ([`audio`]), statistics over
//! rows ([`aggregate`]), distances as operators, vectors in statements (`literals`), and functions in `from` that take tables (`relation`). Scalar functions
//! take arrays and literals alike, and give NULL where an argument is NULL.
//!
//! Where DataFusion has a function of the same name or meaning (`cosine_distance`, `inner_product`, `array_distance`,
//! `array_add`, `array_subtract`, `array_scale`, `array_normalize`, and their aliases), ours takes its place: DataFusion's
//! turns every vector into a list of doubles first.

pub mod aggregate;
pub mod arith;
pub mod audio;
pub(crate) mod column;
pub(crate) mod kernels;
mod literals;
pub mod mir;
pub(crate) mod operators;
pub mod quantise;
mod reference;
pub(crate) mod relation;
mod scalar;
pub(crate) mod spread;
pub mod vector;

use std::sync::Arc;

pub(crate) use literals::Literals;
pub use reference::reference;

use datafusion::common::Result;
use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{DocSection, Documentation, ScalarUDF};

/// Makes a session know them. Its state must plan with [`relation::RelationQueryPlanner`].
///
/// # Errors
/// The session's own, if it takes no operators or no functions in `from`.
pub(crate) fn register(context: &SessionContext) -> Result<()> {
    for function in all() {
        context.register_udf(function);
    }
    for function in aggregate::all() {
        context.register_udaf(function);
    }
    operators::register(context)?;
    context.register_relation_planner(Arc::new(relation::Planner))
}

/// The scalar functions of this crate.
pub fn all() -> Vec<ScalarUDF> {
    let vectors = vector::all().into_iter().chain(arith::all()).chain(quantise::all());
    vectors.chain(mir::all()).chain(audio::all()).collect()
}

/// The names and aliases of all functions of this crate: scalar functions, aggregates, and those in `from`.
pub fn names() -> Vec<String> {
    let named = |name: &str, aliases: &[String]| -> Vec<String> {
        std::iter::once(name.to_owned()).chain(aliases.iter().cloned()).collect()
    };
    let scalars = all().into_iter().flat_map(|function| named(function.name(), function.aliases()));
    let aggregates = aggregate::all();
    let aggregates = aggregates.iter().flat_map(|function| named(function.name(), function.aliases()));
    let relations = relation::names().map(str::to_owned);
    scalars.chain(aggregates).chain(relations).collect()
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
