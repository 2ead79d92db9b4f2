//! Views over a run's tables that make the usual joins short: `STAGE_labelled`, what a stage made beside the labels of
//! its clips.
//!
//! | stage | rows | columns |
//! | --- | --- | --- |
//! | `embed` of clips | mean embeddings of clips, also of the baseline | `clip_id`, `subspace`, `embedding`, labels |
//! | `embed` of views | embeddings of views | those of the stage, then those of the view |
//! | `probe`, `finetune` | answers about test clips | those of the answers, `score`, labels |
//! | `retrieve` | neighbours | those of the neighbours, `query_LABEL` and `neighbour_LABEL` |

use std::collections::BTreeSet;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use serde_json::Value;

use crate::run::RunCatalog;
use crate::types::quoted;

/// The end of a view's name.
const LABELLED: &str = "labelled";
/// The relative tolerance of tempo scores where a stage has none.
const TOLERANCE: f64 = 0.04;

/// A view to be made.
pub(super) struct View {
    pub(super) name: String,
    pub(super) query: String,
}

/// Where a run's tables are, and what their columns are.
pub(super) trait Tables {
    /// The columns of a table that is there.
    fn schema(&self, table: &str) -> Option<SchemaRef>;
    /// A table's name as SQL wants it.
    fn sql(&self, table: &str) -> String;
}

/// The views of a run, but for those whose names are taken by tables.
pub(super) fn of(run: &RunCatalog, tables: &dyn Tables) -> Vec<View> {
    let mut views = Vec::new();
    for (stage, kind, options) in run.pipeline_stages() {
        let text = |option: &str| options.get(option).and_then(Value::as_str);
        let made = match kind {
            "embed" => {
                let baseline = format!("{stage}_baseline");
                let of = |table: &str| embeddings(tables, table, text("from")?);
                vec![(stage.to_owned(), of(stage)), (baseline.clone(), of(&baseline))]
            }
            "probe" | "finetune" => {
                let labels = text("labels").or_else(|| source(run, text("from")?));
                let tolerance = options.get("tempo_tolerance").and_then(Value::as_f64).unwrap_or(TOLERANCE);
                let query = labels
                    .and_then(|labels| answers(tables, &format!("{stage}_predictions"), labels, tolerance));
                vec![(stage.to_owned(), query)]
            }
            "retrieve" => {
                let labels = |from: Option<&str>| {
                    let of = source(run, from?)?;
                    let is_view = tables.schema(of)?.column_with_name("view_id").is_some();
                    Some(text("labels").filter(|_| !is_view).unwrap_or(of))
                };
                let items = labels(text("from"));
                let queries = labels(text("queries").or(text("from")));
                let query = items.zip(queries).and_then(|(items, queries)| {
                    neighbours(tables, &format!("{stage}_neighbours"), queries, items)
                });
                vec![(stage.to_owned(), query)]
            }
            _ => Vec::new(),
        };
        for (table, query) in made {
            let name = format!("{table}_{LABELLED}");
            if let Some(query) = query.filter(|_| !run.tables.contains_key(&name)) {
                views.push(View { name, query });
            }
        }
    }
    views
}

/// What a stage that reads embeddings, or features, reads the labels of: what those were made from.
fn source<'a>(run: &'a RunCatalog, stage: &str) -> Option<&'a str> {
    let options = run.pipeline_stages().find(|(name, ..)| *name == stage).map(|(.., options)| options)?;
    options.get("from").and_then(Value::as_str)
}

fn embeddings(tables: &dyn Tables, table: &str, labels: &str) -> Option<String> {
    let (own, of) = (tables.schema(table)?, tables.schema(labels)?);
    let of_views = own.column_with_name("view_id").is_some();
    let mut columns = match of_views {
        true => prefixed("e", names(&own)),
        false => prefixed("e", ["clip_id", "subspace", "embedding"]),
    };
    columns.extend(prefixed("l", others(&of, &own)));
    let (id, condition) = if of_views { ("view_id", "") } else { ("clip_id", " where e.segment is null") };
    let (columns, table, labels) = (columns.join(", "), tables.sql(table), tables.sql(labels));
    Some(format!("select {columns} from {table} e join {labels} l on e.{id} = l.{id}{condition}"))
}

fn answers(tables: &dyn Tables, table: &str, labels: &str, tolerance: f64) -> Option<String> {
    let (own, of) = (tables.schema(table)?, tables.schema(labels)?);
    let is_key = |id: &&str| own.column_with_name(id).is_some() && of.column_with_name(id).is_some();
    let id = ["view_id", "clip_id"].into_iter().find(is_key)?;
    let mut columns = prefixed("p", names(&own));
    columns.push(format!("{} as score", score(tolerance)));
    columns.extend(prefixed("l", others(&of, &own).filter(|name| *name != "score")));
    let (columns, table, labels) = (columns.join(", "), tables.sql(table), tables.sql(labels));
    Some(format!("select {columns} from {table} p join {labels} l on p.{id} = l.{id}"))
}

/// How right an answer is, from 0 to 1: a tempo by Acc1, tags by Jaccard's index, others as a whole. NULL where there is
/// no truth.
pub(crate) fn score(tolerance: f64) -> String {
    let number = |column: &str| format!("try_cast({column} as double)");
    let tags = |column: &str| format!("string_to_array({column}, ',')");
    let (p, t) = (tags("p.prediction"), tags("p.truth"));
    format!(
        "case when p.truth is null then null \
         when p.task = 'tempo' then tempo_acc1({}, {}, {tolerance}) \
         when p.task = 'tags' then cast(coalesce(array_length(array_intersect({p}, {t})), 0) as double) \
           / array_length(array_union({p}, {t})) \
         when p.prediction = p.truth then 1.0 else 0.0 end",
        number("p.prediction"),
        number("p.truth")
    )
}

fn neighbours(tables: &dyn Tables, table: &str, queries: &str, items: &str) -> Option<String> {
    let (own, query, item) = (tables.schema(table)?, tables.schema(queries)?, tables.schema(items)?);
    let id = if query.column_with_name("view_id").is_some() { "view_id" } else { "clip_id" };
    let mut columns = prefixed("n", names(&own));
    for (alias, prefix, schema) in [("q", "query", &query), ("i", "neighbour", &item)] {
        let labels = schema.fields().iter().filter(|field| is_label(field.name(), field.data_type()));
        columns.extend(labels.map(|field| {
            let name = field.name();
            format!("{alias}.{} as {}", quoted(name), quoted(&format!("{prefix}_{name}")))
        }));
    }
    let columns = columns.join(", ");
    let (table, queries, items) = (tables.sql(table), tables.sql(queries), tables.sql(items));
    Some(format!(
        "select {columns} from {table} n join {queries} q on n.query = q.{id} \
         join {items} i on n.neighbour = i.clip_id"
    ))
}

/// Whether a column of clips or views says something of the music: no name, place or draw.
fn is_label(name: &str, data_type: &DataType) -> bool {
    const OTHERS: [&str; 10] =
        ["clip_id", "view_id", "shard", "uri", "seconds", "segment", "epoch", "view", "centre_s", "draw_key"];
    let plain = match data_type {
        DataType::List(field) => matches!(field.data_type(), DataType::Utf8),
        other => !other.is_nested(),
    };
    plain && !OTHERS.contains(&name)
}

fn names(schema: &Schema) -> impl Iterator<Item = &str> {
    schema.fields().iter().map(|field| field.name().as_str())
}

/// The columns of `of` that `without` has not.
fn others<'a>(of: &'a Schema, without: &Schema) -> impl Iterator<Item = &'a str> {
    let taken: BTreeSet<String> = names(without).map(str::to_owned).collect();
    names(of).filter(move |name| !taken.contains(*name))
}

/// `alias."a"`, `alias."b"`
fn prefixed<'a>(alias: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().map(|name| format!("{alias}.{}", quoted(name))).collect()
}
