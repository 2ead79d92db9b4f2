//! Vector functions over 100k vectors of 512 floats, on one thread and in batches as a query has them, beside the sum of
//! the same floats: what reading them from memory takes.

use std::hint::black_box;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, FixedSizeListArray, Float32Array};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF};
use divan::Bencher;
use divan::counter::BytesCount;
use loev_sql::functions;

const ROWS: usize = 100_000;
const DIM: usize = 512;
const BATCH: usize = 8192;

fn main() {
    divan::main();
}

/// Pseudo-random floats in -1..1.
static VALUES: LazyLock<Float32Array> = LazyLock::new(|| {
    let mut state = 1u64;
    let step = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32) / ((1u64 << 23) as f32) - 1.0
    };
    std::iter::repeat_with(step).take(ROWS * DIM).collect::<Vec<f32>>().into()
});

static BATCHES: LazyLock<Vec<ArrayRef>> = LazyLock::new(|| {
    let item = Arc::new(Field::new_list_field(DataType::Float32, true));
    let values = Arc::new(VALUES.clone()) as ArrayRef;
    let column = FixedSizeListArray::new(item, DIM as i32, values, None);
    (0..ROWS)
        .step_by(BATCH)
        .map(|start| column.slice(start, BATCH.min(ROWS - start)))
        .map(|a| Arc::new(a) as _)
        .collect()
});

fn bytes() -> BytesCount {
    BytesCount::new(ROWS * DIM * size_of::<f32>())
}

#[divan::bench]
fn sum_of_all_floats(bencher: Bencher) {
    let values = VALUES.values();
    bencher.counter(bytes()).bench_local(|| {
        let mut lanes = [0.0f32; 64];
        let (chunks, _) = black_box(values).as_chunks::<64>();
        for chunk in chunks {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane += value);
        }
        lanes.iter().sum::<f32>()
    });
}

/// A call: the function, and what follows the column.
struct Call {
    function: ScalarUDF,
    rest: Vec<ColumnarValue>,
    fields: Vec<FieldRef>,
    result: FieldRef,
    options: Arc<ConfigOptions>,
}

impl Call {
    fn new(name: &str) -> Self {
        let known = functions::all();
        let function = known.into_iter().find(|function| function.name() == name).unwrap();
        let query = ScalarValue::try_from_array(&BATCHES[0], 7).unwrap();
        let rest = match name {
            "vector_norm" | "l2_normalize" | "quantize_int8" | "quantize_binary" => Vec::new(),
            "vector_scale" => vec![ScalarValue::Float32(Some(0.5))],
            "subvector" => vec![ScalarValue::Int64(Some(129)), ScalarValue::Int64(Some(256))],
            _ => vec![query],
        };
        let types =
            std::iter::once(BATCHES[0].data_type().clone()).chain(rest.iter().map(ScalarValue::data_type));
        let fields: Vec<FieldRef> = types.map(|t| Arc::new(Field::new("a", t, true))).collect();
        let scalars: Vec<Option<&ScalarValue>> = std::iter::once(None).chain(rest.iter().map(Some)).collect();
        let arguments = ReturnFieldArgs { arg_fields: &fields, scalar_arguments: &scalars };
        let result = function.return_field_from_args(arguments).unwrap();
        let rest = rest.into_iter().map(ColumnarValue::Scalar).collect();
        Self { function, rest, fields, result, options: Arc::new(ConfigOptions::default()) }
    }

    fn run(&self, batch: &ArrayRef) -> ColumnarValue {
        let column = std::iter::once(ColumnarValue::Array(Arc::clone(batch)));
        let arguments = ScalarFunctionArgs {
            args: column.chain(self.rest.iter().cloned()).collect(),
            arg_fields: self.fields.clone(),
            number_rows: batch.len(),
            return_field: Arc::clone(&self.result),
            config_options: Arc::clone(&self.options),
        };
        self.function.invoke_with_args(arguments).unwrap()
    }
}

#[divan::bench(args = [
    "inner_product", "l2_distance", "l1_distance", "cosine_distance", "vector_norm", "l2_normalize", "vector_add",
    "vector_scale", "subvector", "vector_concat", "quantize_int8", "quantize_binary",
])]
fn function(bencher: Bencher, name: &str) {
    let call = Call::new(name);
    bencher.counter(bytes()).bench_local(|| {
        for batch in BATCHES.iter() {
            black_box(call.run(batch));
        }
    });
}
