use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Float64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field, Float64Type};
use datafusion::datasource::MemTable;
use loev_ops::rng::Key;

use crate::testing::block_on;
use crate::{new_session, query};

/// Vectors of four floats around three centres, with a label, a number and a truth value.
fn rows(count: usize) -> RecordBatch {
    let mut rng = Key::root(9).rng();
    let labels: Vec<usize> = (0..count).map(|_| rng.below(3)).collect();
    let centres =
        labels.iter().flat_map(|label| [0, 1, 2, 3].map(|place| f32::from(u8::from(place == *label))));
    let values: Vec<f32> = centres.map(|centre| 2.0 * centre + rng.normal() as f32).collect();
    let numbers: Vec<f64> = values.chunks(4).map(|v| f64::from(v[0] - v[3]) + rng.normal()).collect();
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let vectors = FixedSizeListArray::new(item, 4, Arc::new(Float32Array::from(values)), None);
    let labels = StringArray::from_iter_values(labels.iter().map(|label| format!("c{label}")));
    let columns: [(&str, ArrayRef); 3] =
        [("v", Arc::new(vectors)), ("c", Arc::new(labels)), ("x", Arc::new(Float64Array::from(numbers)))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// The figures of `sql` over partitions of rows.
fn figures(sql: &str, partitions: Vec<Vec<RecordBatch>>) -> Vec<f64> {
    let context = new_session(4, None).unwrap();
    let schema = partitions[0][0].schema();
    context.register_table("t", Arc::new(MemTable::try_new(schema, partitions).unwrap())).unwrap();
    let batches = block_on(query(&context, sql)).unwrap_or_else(|error| panic!("{error}"));
    let batch = batches.iter().find(|batch| batch.num_rows() == 1).unwrap();
    batch.columns().iter().map(|column| column.as_primitive::<Float64Type>().value(0)).collect()
}

#[test]
fn partitions_do_not_matter() {
    let rows = rows(700);
    let parts = [(300, 400), (0, 1), (1, 99), (100, 200)].map(|(start, length)| rows.slice(start, length));
    let [a, b, c, d] = parts;
    let split = || vec![vec![a.clone()], vec![b.clone(), c.clone()], vec![d.clone()]];
    // What keeps rows is equal to the last bit, what sums them up to rounding.
    let kept =
        "select silhouette(v, c), neighbour_purity(v, c, 5), recall_at_k(v, c, 2), equivariance_r2(v, x),
        bootstrap_ci(x, 3)['lo'], roc_auc(x, c = 'c0'), average_precision(x, c = 'c1'),
        macro_roc_auc([x, -x], [c = 'c0', c = 'c1']), macro_average_precision([x, -x], [c = 'c0', c = 'c1']),
        entropy(c), silhouette(v, c) filter (where c <> 'c2') from t";
    assert_eq!(figures(kept, vec![vec![rows.clone()]]), figures(kept, split()));
    let summed =
        "select vector_norm(vector_sum(v)), vector_norm(vector_avg(v)), vector_norm(vector_stddev(v)),
        covariance_trace(v), effective_rank(v), participation_ratio(v), linear_cka(v, [x, -x]) from t";
    let whole = figures(summed, vec![vec![rows.clone()]]);
    for (a, b) in whole.iter().zip(figures(summed, split())) {
        assert!((a - b).abs() < 1e-6 * a.abs(), "{a} {b}");
    }
}

#[test]
fn rows_that_are_kept_count_as_memory() {
    for call in [
        "silhouette(v, c)",
        "recall_at_k(v, c, 3)",
        "equivariance_r2(v, x)",
        "bootstrap_ci(x, 1)",
        "roc_auc(x, c = 'c0')",
    ] {
        let context = new_session(1, Some(200_000)).unwrap();
        context.register_batch("t", rows(30_000)).unwrap();
        let error = block_on(query(&context, &format!("select {call} from t"))).unwrap_err();
        assert!(error.to_string().contains("more memory than its limit"), "{call}: {error}");
    }
}
