//! The one session configuration: the pipeline's own SQL stages and `loev sql` both use it, so a
//! query means the same in both.
//!
//! Columns come back as they are stored. DataFusion by default turns strings that it reads into
//! `Utf8View`; a stage would then write other types than it read. Both switches for that are off.

use std::sync::Arc;

use datafusion::catalog::DynamicFileCatalog;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::context::SessionContext;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionStateBuilder;

use crate::diagnose;
use crate::error::SqlError;
use crate::functions::{self, Literals, relation::RelationQueryPlanner};
use crate::search::NearestFirst;
use crate::store::{AddressedTables, Registry};

/// The configuration of every session, for `threads` partitions (at least 1).
///
/// With one thread the rows of a scan come in the order of the table's files and the rows in
/// them, and sums are taken in that order; with more, only `order by` fixes an order. Stages
/// whose output must not depend on the number of threads are planned with one.
pub fn session_config(threads: usize) -> SessionConfig {
    let threads = threads.max(1);
    let mut config = SessionConfig::new().with_information_schema(true).with_target_partitions(threads);
    let options = config.options_mut();
    options.execution.planning_concurrency = threads;
    options.execution.parquet.schema_force_view_types = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    // The rule fails on valid statements: fields of structs over unions and self-joins (apache/datafusion#25412).
    options.optimizer.enable_leaf_expression_pushdown = false;
    // Places in the statement, for error messages.
    options.sql_parser.collect_spans = true;
    config
}

/// A session with this crate's functions and no tables. Files are tables by their address, as in
/// `select * from 'labels.csv'` or `select * from 's3://bucket/x.parquet'`; see [`crate::store`]. `memory_limit` is in bytes: operators
/// that can spill do so at the limit, others fail with an error that says so.
///
/// # Errors
/// [`SqlError::Engine`] if the runtime cannot be made (no temporary directory, for example).
pub fn new_session(threads: usize, memory_limit: Option<usize>) -> Result<SessionContext, SqlError> {
    // Listings are not cached: a table's directory may be written between two queries.
    let mut runtime = RuntimeEnvBuilder::new()
        .with_object_list_cache_limit(0)
        .with_object_store_registry(Arc::new(Registry::default()));
    if let Some(bytes) = memory_limit {
        runtime = runtime.with_memory_limit(bytes, 1.0);
    }
    let runtime = runtime.build_arc().map_err(diagnose::engine)?;
    let state = SessionStateBuilder::new()
        .with_config(session_config(threads))
        .with_runtime_env(runtime)
        // Before DataFusion's own, of which the first that plans an expression counts.
        .with_expr_planners(vec![Arc::new(Literals)])
        .with_default_features()
        .with_query_planner(Arc::new(RelationQueryPlanner))
        .with_optimizer_rule(Arc::new(NearestFirst))
        .build();
    let context = SessionContext::new_with_state(state);
    functions::register(&context).map_err(diagnose::engine)?;
    let addressed = Arc::new(AddressedTables::default());
    addressed.attach(&context);
    let catalogs = Arc::clone(context.state().catalog_list());
    context.register_catalog_list(Arc::new(DynamicFileCatalog::new(catalogs, addressed)));
    Ok(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::query;
    use crate::testing::block_on;

    #[test]
    fn settings_reach_the_session() {
        let context = new_session(3, Some(64 << 20)).unwrap();
        let config = context.copied_config();
        assert_eq!(config.target_partitions(), 3);
        assert!(config.information_schema());
        assert!(!config.options().execution.parquet.schema_force_view_types);
        assert_eq!(session_config(0).target_partitions(), 1);
        let rows =
            block_on(query(&context, "select table_name from information_schema.tables limit 1")).unwrap();
        assert_eq!(rows[0].num_columns(), 1);
    }

    #[test]
    fn the_memory_limit_holds_and_says_so() {
        let context = new_session(1, Some(1 << 20)).unwrap();
        let sql =
            "select array_agg(a.value * b.value) from generate_series(1, 3000) a, generate_series(1, 300) b";
        let error = block_on(query(&context, sql)).unwrap_err();
        assert!(matches!(error, SqlError::Engine { .. }), "{error:?}");
        assert!(error.to_string().contains("more memory than its limit"), "{error}");
    }
}
