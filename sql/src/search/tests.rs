//! Searches against the same statements without them, on vectors of every kind.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int64Array, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type};
use datafusion::execution::context::SessionContext;

use crate::testing::block_on;
use crate::{new_session, query};

/// A fixed sequence of numbers (a linear congruential generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    /// One of few values in most rows, so that there are ties; now and then one that `f32` can hardly hold.
    fn value(&mut self, wild: bool) -> f32 {
        match self.below(if wild { 40 } else { 36 }) {
            36 => f32::NAN,
            37 => f32::INFINITY,
            38 => 3e30,
            39 => 1e-30,
            any => any as f32 / 8.0 - 2.0,
        }
    }
}

/// A table of `n`, its groups of three, and vectors, some NULL and some zero; wild rows come after `tame` rows.
fn register(
    context: &SessionContext,
    name: &str,
    rows: usize,
    dim: usize,
    tame: usize,
    numbers: &mut Numbers,
) {
    let mut values = Vec::new();
    let mut valid = Vec::new();
    for row in 0..rows {
        let kind = numbers.below(12);
        valid.push(kind != 0);
        let wild = row >= tame && kind == 1;
        values.extend((0..dim).map(|_| if kind == 2 { 0.0 } else { numbers.value(wild) }));
    }
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let vectors = FixedSizeListArray::new(
        item,
        dim as i32,
        Arc::new(Float32Array::from(values)),
        Some(NullBuffer::from(valid)),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", Arc::new(Int64Array::from_iter_values(0..rows as i64))),
        ("g", Arc::new(Int64Array::from_iter((0..rows as i64).map(|n| (n % 7 > 0).then_some(n / 3))))),
        ("v", Arc::new(vectors)),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
    // Several batches in one of two partitions, so that rows are found in all and threads take turns.
    let length = rows.div_ceil(12).max(1);
    let parts = (0..rows).step_by(length).map(|start| batch.slice(start, length.min(rows - start)));
    let parts = vec![Vec::new(), parts.collect()];
    let table = datafusion::datasource::MemTable::try_new(batch.schema(), parts).unwrap();
    context.register_table(name, Arc::new(table)).unwrap();
}

fn rows(context: &SessionContext, sql: &str) -> Vec<RecordBatch> {
    block_on(query(context, sql)).unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The first column as the bits of its numbers.
fn bits(batches: &[RecordBatch]) -> Vec<Option<u64>> {
    let values = batches.iter().flat_map(|batch| batch.column(0).as_primitive::<Float64Type>().iter());
    values.map(|value| value.map(f64::to_bits)).collect()
}

#[test]
fn a_sort_with_a_limit_gives_what_the_sort_gives() {
    let mut numbers = Numbers(1);
    for (dim, threads) in [(1, 1), (16, 2), (37, 1)] {
        let context = new_session(threads, None).unwrap();
        register(&context, "t", 600, dim, 300, &mut numbers);
        let literal: Vec<String> = (0..dim).map(|_| format!("{:?}", numbers.value(false))).collect();
        let constants = [
            format!("[{}]", literal.join(", ")),
            "(select v from t where v is not null and n < 50 order by n limit 1)".into(),
        ];
        let functions = [
            "cosine_distance",
            "cosine_similarity",
            "l2_distance",
            "l1_distance",
            "inner_product",
            "negative_inner_product",
        ];
        let calls =
            constants.iter().flat_map(|constant| functions.map(|name| format!("{name}(v, {constant})")));
        for call in calls {
            for order in ["asc", "desc", "desc nulls last", "asc nulls first"] {
                let sql = format!("select {call} as d from t order by d {order}");
                let all = bits(&rows(&context, &sql));
                for k in [1, 40] {
                    let first = bits(&rows(&context, &format!("{sql} limit {k}")));
                    assert_eq!(first, all[..k], "{sql} limit {k}");
                }
            }
        }
    }
}

#[test]
fn rows_of_equal_distance_come_in_their_order_on_any_number_of_threads() {
    let distance = "l2_distance(v, [0.5, -0.25])";
    for threads in [1, 2, 7] {
        let context = new_session(threads, None).unwrap();
        register(&context, "t", 900, 2, 900, &mut Numbers(3));
        let numbers = |sql: &str| -> Vec<i64> {
            let found = rows(&context, sql);
            found.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
        };
        let sorted =
            numbers(&format!("select n from t where v is not null order by {distance}, n limit 300"));
        assert_eq!(sorted.len(), 300);
        for _ in 0..20 {
            assert_eq!(numbers("select n from knn(t, [0.5, -0.25], 300, metric => 'l2')"), sorted);
        }
    }
}

#[test]
fn a_join_finds_what_a_sort_of_all_pairs_finds() {
    let mut numbers = Numbers(2);
    for (dim, cast) in [(1, "v"), (33, "v"), (5, "arrow_cast(v, 'List(Float64)')")] {
        let context = new_session(2, None).unwrap();
        register(&context, "a", 40, dim, 25, &mut numbers);
        register(&context, "b", 700, dim, 600, &mut numbers);
        for (metric, function) in [
            ("cosine", "cosine_distance"),
            ("l2", "l2_distance"),
            ("l1", "l1_distance"),
            ("inner_product", "negative_inner_product"),
        ] {
            for (exclude, condition) in
                [("", ""), (", exclude => g", "and (a.g <> b.g or a.g is null or b.g is null)")]
            {
                let (a, b) = (
                    format!("(select n, g, {cast} as v from a)"),
                    format!("(select n, g, {cast} as v from b)"),
                );
                let found = rows(
                    &context,
                    &format!(
                        "select distance, n, neighbour_n, rank from knn_join({a}, {b}, 7, '{metric}'{exclude})"
                    ),
                );
                let plain = rows(
                    &context,
                    &format!(
                        "select d, n, m, r from (select *, row_number() over (partition by n order by d, m) as r from \
                         (select a.n as n, b.n as m, {function}(a.v, b.v) as d from {a} a cross join {b} b where true {condition}) \
                         where d is not null and not isnan(d)) where r <= 7 order by n, r"
                    ),
                );
                assert_eq!(bits(&found), bits(&plain), "{metric} {cast} {dim} {exclude}");
                for column in 1..4 {
                    let numbers = |batches: &[RecordBatch]| -> Vec<Option<i64>> {
                        let column = |batch: &RecordBatch| {
                            let array = arrow::compute::cast(batch.column(column), &DataType::Int64).unwrap();
                            array.as_primitive::<Int64Type>().iter().collect::<Vec<_>>()
                        };
                        batches.iter().flat_map(column).collect()
                    };
                    assert_eq!(numbers(&found), numbers(&plain), "{metric} {cast} {dim} {exclude}");
                }
            }
        }
    }
}

#[test]
fn plans_name_the_search_and_read_only_what_they_need() {
    let context = new_session(1, None).unwrap();
    register(&context, "t", 20, 3, 20, &mut Numbers(3));
    let plan = |sql: &str| {
        let batches = rows(&context, &format!("explain {sql}"));
        let texts = batches.iter().flat_map(|batch| batch.column(1).as_string::<i32>().iter().flatten());
        texts.map(str::to_owned).collect::<Vec<_>>().join("\n")
    };
    let sorted = plan("select n from t order by v <=> [1.0, 0.0, 0.0] limit 4");
    assert_eq!(sorted.matches("nearest: k=4, metric=cosine, vector=v").count(), 2, "{sorted}");
    assert!(sorted.contains("projection=[n, v]"), "{sorted}");
    let called = plan("select n, rank from knn(t, [1.0, 0.0, 0.0], 4) where distance < 1");
    assert_eq!(called.matches("knn: k=4, metric=cosine, vector=v").count(), 2, "{called}");
    assert!(called.contains("projection=[n, v]"), "{called}");
    let joined = plan("select n, neighbour_n from knn_join(t, t, 4, 'l2', exclude => g)");
    assert!(joined.contains("knn_join: k=4, metric=l2, vectors=v and v, exclude=g"), "{joined}");
    for sql in [
        "select n from t order by v <=> [1.0, 0.0, 0.0], n limit 4",
        "select n from t order by v <=> [1.0, 0.0, 0.0]",
        "select n from t order by v <=> v limit 4",
        "select n from t order by (v <=> [1.0, 0.0, 0.0]) + 1 limit 4",
    ] {
        assert!(!plan(sql).contains("nearest:"), "{sql}");
    }
}

#[test]
fn a_search_within_its_memory_says_so() {
    let context = new_session(1, Some(1 << 20)).unwrap();
    register(&context, "t", 40_000, 16, 40_000, &mut Numbers(4));
    assert_eq!(rows(&context, "select n from knn(t, (select v from t where n = 1), 3)")[0].num_rows(), 3);
    let error = block_on(query(&context, "select n from knn_join(t, t, 3)")).unwrap_err().to_string();
    assert!(error.contains("more memory than its limit"), "{error}");
}

/// A table of `n`, its groups of three, its part of two, and vectors about 60 centres. Some rows in the middle are NULL,
/// zero, NaN, or of numbers that `f32` can hardly multiply.
fn register_clusters(context: &SessionContext, name: &str, rows: usize, seed: u64) {
    const DIM: usize = 6;
    let mut numbers = Numbers(seed);
    let mut values = Vec::new();
    for row in 0..rows {
        let centre = numbers.below(60);
        let mut centres = Numbers(centre);
        for _ in 0..DIM {
            let value = centres.below(1000) as f32 / 100.0 - 5.0 + numbers.below(1000) as f32 / 400.0;
            values.push(match row {
                40..50 => 0.0,
                50..60 => f32::NAN,
                60..70 => value * 1e18,
                _ => value,
            });
        }
    }
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let valid = NullBuffer::from((0..rows).map(|row| !(30..40).contains(&row)).collect::<Vec<_>>());
    let vectors =
        FixedSizeListArray::new(item, DIM as i32, Arc::new(Float32Array::from(values)), Some(valid));
    let number =
        |of: fn(i64) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values((0..rows as i64).map(of))) };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("n", number(|n| n)),
        ("g", number(|n| n / 3)),
        ("part", number(|n| i64::from(n % 5 > 1))),
        ("v", Arc::new(vectors)),
    ];
    context.register_batch(name, RecordBatch::try_from_iter(columns).unwrap()).unwrap();
}

/// Rows of a row, its neighbour and the bits of their distance.
fn pairs(context: &SessionContext, call: &str) -> Vec<(i64, i64, u64)> {
    let sql = format!("select distance, n, neighbour_n from {call} order by n, rank");
    let batches = rows(context, &sql);
    let pairs = batches.iter().flat_map(|batch| {
        let distances = batch.column(0).as_primitive::<Float64Type>().values();
        let number = |column: usize| batch.column(column).as_primitive::<Int64Type>().values();
        (0..batch.num_rows()).map(move |row| (number(1)[row], number(2)[row], distances[row].to_bits()))
    });
    pairs.collect()
}

#[test]
fn an_approximate_join_finds_the_share_that_was_asked_for() {
    let contexts = [1, 3].map(|threads| {
        let context = new_session(threads, None).unwrap();
        register_clusters(&context, "a", 5000, 1);
        register_clusters(&context, "b", 6000, 2);
        context
    });
    for options in ["'inner_product'", "'l2', exclude => g", "'cosine', within => part, exclude => g"] {
        let exact = pairs(&contexts[0], &format!("knn_join(a, b, 5, {options})"));
        let call = format!("knn_join(a, b, 5, {options}, recall => 0.9)");
        let found = pairs(&contexts[0], &call);
        assert!(found == pairs(&contexts[1], &call), "{options}: the threads change nothing");
        assert_eq!(found.len(), exact.len(), "{options}: no row has fewer neighbours");
        let all: HashSet<_> = exact.iter().collect();
        let share = found.iter().filter(|pair| all.contains(pair)).count() as f64 / exact.len() as f64;
        // Of 256 rows the share is known to about 0.01.
        assert!(share > 0.87, "{options}: {share}");
        assert!(found.iter().any(|pair| !all.contains(pair)), "{options}");
    }
    let plan = rows(&contexts[1], "explain analyze select n from knn_join(a, b, 5, recall => 0.9)");
    let plan = plan[0].column(1).as_string::<i32>().value(0).to_owned();
    for part in ["approximate recall>=0.9", "cells=64", "probes=", "measured_recall=9"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
}

#[test]
fn an_approximate_join_is_exact_where_cells_do_not_help() {
    let context = new_session(2, None).unwrap();
    register_clusters(&context, "a", 6000, 1);
    let few = "(select n, v from a where n < 20)";
    for (tables, recall) in [
        ("a, a".to_owned(), 1.0),
        (format!("{few}, a"), 0.5),
        (format!("a, {few}"), 0.5),
        ("a, (select n, v from a where n between 30 and 59)".to_owned(), 0.5),
    ] {
        let found = pairs(&context, &format!("knn_join({tables}, 3, recall => {recall})"));
        let exact = pairs(&context, &format!("knn_join({tables}, 3)"));
        assert!(found == exact, "{tables} {recall}");
    }
}
