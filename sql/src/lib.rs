//! SQL over runs: one DataFusion session configuration, a run's tables, vector and music
//! functions, errors that point at the place, and results as a table, CSV or JSON.
//!
//! ```text
//! run.json, tables/*/*.parquet --open_run--> SessionContext --query--> record batches --write--> text
//! ```
//!
//! * [`session_config`] and [`new_session`]: shared with the pipeline's own SQL stages.
//! * [`open_run`], [`register_table`]: a directory of Parquet files is a table; [`open_runs`]: several runs beside
//!   each other, and files of rows.
//! * [`store`]: files on this machine and in object stores, by address.
//! * [`plan`], [`query`], [`stream`], [`execute`]: one statement; [`referenced_tables`]: what it reads.
//! * [`statements`]: several statements in one text.
//! * [`Catalog`]: tables, columns and functions, for `\d` and completion.
//! * `Server`, with the feature `serve`: clients of PostgreSQL.
//! * [`Style`], [`write`](fn@write): results as text or Parquet.
//!
//! Invariant: types come back as they are stored, and no result has a view type.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! let context = loev_sql::new_session(1, None)?;
//! let rows = loev_sql::query(&context, "select transpose_key('A minor', 3) as key").await?;
//! let mut text = Vec::new();
//! loev_sql::write(&rows, &loev_sql::Style::new(loev_sql::Format::Csv), &mut text)?;
//! assert_eq!(text, b"key\nC minor\n");
//! # Ok::<(), loev_sql::SqlError>(())
//! # }).unwrap();
//! ```

mod caret;
mod catalog;
mod diagnose;
mod error;
pub mod functions;
mod output;
mod query;
mod run;
mod script;
mod search;
#[cfg(feature = "serve")]
mod serve;
mod session;
pub mod store;
mod suggest;
#[cfg(test)]
mod testing;
mod types;

pub use catalog::{
    COLUMNS, Catalog, ColumnInfo, FIGURES, FunctionInfo, FunctionKind, OpenRuns, RUNS, Source, TableInfo,
    open_runs,
};
pub use error::{Place, SqlError, StatementError, StoreFault};
pub use output::{Bars, Format, Style, Writer, write};
pub use query::{execute, explain_error, plan, query, referenced_tables, stream};
pub use run::{
    Absent, OpenRun, RunCatalog, RunFigure, RunMachine, RunStage, open_run, owning_run, register_table,
};
pub use script::{gives_rows, is_finished, statements};
#[cfg(feature = "serve")]
pub use serve::{Listening, Server};
pub use session::{new_session, session_config};
pub use store::Location;
pub use types::{quoted, type_name};
