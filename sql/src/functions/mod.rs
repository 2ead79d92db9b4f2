//! Our scalar functions: vectors ([`vector`]) and music ([`mir`]). All are immutable, take arrays
//! and literals alike, and give NULL where an argument is NULL.
//!
//! Where DataFusion has a function of the same name or meaning (`cosine_distance`,
//! `inner_product`, `array_distance`, and their aliases), ours takes its place: DataFusion's turns
//! every vector into a list of doubles first.

mod column;
mod kernels;
pub mod mir;
mod reference;
pub mod vector;

pub use reference::reference;

use datafusion::execution::context::SessionContext;
use datafusion::logical_expr::{DocSection, Documentation, ScalarUDF};

/// Makes a session know them.
pub(crate) fn register(context: &SessionContext) {
    for function in all() {
        context.register_udf(function);
    }
}

/// The scalar functions of this crate.
pub fn all() -> Vec<ScalarUDF> {
    vector::all().into_iter().chain(mir::all()).collect()
}

/// The names and aliases of all functions of this crate.
pub fn names() -> Vec<String> {
    all()
        .iter()
        .flat_map(|function| {
            std::iter::once(function.name().to_owned()).chain(function.aliases().iter().cloned())
        })
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
