//! `render`: the audio of views, from their rows.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, FixedSizeListArray, Float32Array, Int32Array, RecordBatch, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use async_trait::async_trait;
use datafusion::common::{DataFusionError, Result, exec_err, plan_err};
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use loev_ops::AudioError;
use loev_ops::chain::Chain;
use loev_ops::draw_table::{chain_from_metadata, draw_fields, draws_from_batch};
use loev_ops::render::Renderer;
use loev_ops::source::Source;
use loev_ops::views::Draw;

use super::knn::index_of;
use super::reduce::all_passed;
use super::{Call, Input, Operation, Output, OutputColumn, RelationFunction, operation};
use crate::functions::Docs;
use crate::functions::spread::spread;

/// The column with the address of a view's clip.
const URI: &str = "uri";
/// Audio that is rendered before it is handed on, about, in bytes.
const CHUNK: usize = 8 << 20;

/// The function.
#[derive(Debug)]
pub(super) struct Render;

impl RelationFunction for Render {
    fn name(&self) -> &'static str {
        "render"
    }

    fn docs(&self) -> Docs {
        Docs {
            section: "Audio Functions",
            description: "The audio of views, rendered again from their rows as in the run: the table's columns with audio \
                          (a vector of samples, one channel after the other), audio_rate (Hz), audio_channels and \
                          audio_error, which says why audio is NULL where it is. The table is that of a stage of views, \
                          or a query over one that keeps its columns. A few rows at a time are in memory.",
            syntax: "render(table)",
            example: "select view_id, loudness(audio, audio_rate) from render((select * from views limit 10));",
            arguments: &[("table", "A table of views, or a query over one in parentheses.")],
        }
    }

    fn plan(&self, call: &mut Call<'_>) -> Result<LogicalPlan> {
        let table = call.table(0)?.clone();
        let schema = table.schema();
        let chain = match chain_from_metadata(schema.metadata()) {
            Ok(chain) => chain,
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.strip_prefix("Schema error: ").unwrap_or(&reason);
                return plan_err!("render takes views, the rows of one stage of views: {reason}");
            }
        };
        let wanted = draw_fields(&chain).into_iter().map(|field| field.name().clone());
        for column in wanted.chain([URI.to_owned()]) {
            if !schema.fields().iter().any(|field| *field.name() == column) {
                return plan_err!(
                    "render needs all columns of the views: '{column}' is not there; select * keeps them"
                );
            }
        }
        operation(Arc::new(Rendering { chain }), vec![table])
    }
}

#[derive(Debug)]
struct Rendering {
    chain: Chain,
}

impl Rendering {
    fn width(&self) -> usize {
        self.chain.frames() * self.chain.channels.count()
    }

    fn made(&self) -> [FieldRef; 4] {
        let item = Arc::new(Field::new_list_field(DataType::Float32, true));
        let audio = DataType::FixedSizeList(item, i32::try_from(self.width()).unwrap_or(i32::MAX));
        [
            Arc::new(Field::new("audio", audio, true)),
            Arc::new(Field::new("audio_rate", DataType::Int32, false)),
            Arc::new(Field::new("audio_channels", DataType::Int32, false)),
            Arc::new(Field::new("audio_error", DataType::Utf8, true)),
        ]
    }

    fn column(&self, index: usize, rendered: &[Result<Vec<f32>, AudioError>]) -> Result<ArrayRef> {
        let constant = |value: u32| {
            Arc::new(Int32Array::from_value(i32::try_from(value).unwrap_or(i32::MAX), rendered.len()))
        };
        Ok(match index {
            0 => {
                let width = self.width();
                let mut samples = Vec::with_capacity(width * rendered.len());
                for view in rendered {
                    match view {
                        Ok(view) => samples.extend_from_slice(view),
                        Err(_) => samples.resize(samples.len() + width, 0.0),
                    }
                }
                let valid = NullBuffer::from(rendered.iter().map(Result::is_ok).collect::<Vec<_>>());
                let [field, ..] = self.made();
                let DataType::FixedSizeList(item, width) = field.data_type() else {
                    return exec_err!("audio is a vector");
                };
                let samples = Arc::new(Float32Array::from(samples));
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *width, samples, Some(valid))?)
            }
            1 => constant(self.chain.sample_rate),
            2 => constant(self.chain.channels.count() as u32),
            _ => {
                let errors = rendered.iter().map(|view| Some(view.as_ref().err()?.message.as_str()));
                Arc::new(errors.collect::<StringArray>())
            }
        })
    }
}

#[async_trait]
impl Operation for Rendering {
    fn name(&self) -> &'static str {
        "render"
    }

    fn parameters(&self) -> String {
        let Chain { sample_rate, seconds, .. } = &self.chain;
        // Chains that differ must not have one text.
        let mut hash = DefaultHasher::new();
        format!("{:?}", self.chain).hash(&mut hash);
        let columns = self.chain.columns().join(", ");
        format!("{seconds} s at {sample_rate} Hz through {columns} (chain {:016x})", hash.finish())
    }

    fn columns(&self, inputs: &[&Schema]) -> Result<Vec<OutputColumn>> {
        Ok(all_passed(inputs).chain(self.made().map(OutputColumn::Made)).collect())
    }

    fn reads(&self, inputs: &[&Schema]) -> Result<Vec<Vec<usize>>> {
        let [table] = inputs else { return plan_err!("render reads a table") };
        let fields = draw_fields(&self.chain);
        let names = fields.iter().map(|field| field.name().as_str()).chain([URI]);
        Ok(vec![names.map(|name| index_of(table, name, "render")).collect::<Result<_>>()?])
    }

    async fn run(&self, inputs: Vec<Input>, output: Output) -> Result<()> {
        let [table] = inputs.as_slice() else { return exec_err!("render reads a table") };
        let bytes = self.width() * size_of::<f32>();
        let step = (CHUNK / bytes.max(1)).max(1);
        table.reservation().try_grow(2 * step * bytes)?;
        let mut stream = table.in_order()?;
        while let Some(batch) = stream.try_next().await? {
            for first in (0..batch.num_rows()).step_by(step) {
                let rows = batch.slice(first, step.min(batch.num_rows() - first));
                let (chain, views) = (self.chain.clone(), rows.clone());
                let rendered = tokio::task::spawn_blocking(move || render(&chain, &views)).await;
                let rendered = rendered.map_err(|error| DataFusionError::External(Box::new(error)))??;
                let read = output
                    .send(rows.num_rows(), |index| match index.checked_sub(rows.num_columns()) {
                        None => Ok(Arc::clone(rows.column(index))),
                        Some(index) => self.column(index, &rendered),
                    })
                    .await?;
                if !read {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// The views of some rows. Neighbours of one segment share what is read of their clip.
fn render(chain: &Chain, rows: &RecordBatch) -> Result<Vec<Result<Vec<f32>, AudioError>>> {
    let draws = draws_from_batch(chain, rows)?;
    let uris = match rows.column_by_name(URI).and_then(|uris| uris.as_string_opt::<i32>()) {
        Some(uris) => uris,
        None => return exec_err!("render needs the column '{URI}' with texts"),
    };
    let same = |i: usize, j: usize| {
        let (a, b): (&Draw, &Draw) = (&draws[i], &draws[j]);
        uris.value(i) == uris.value(j) && (a.segment, a.epoch) == (b.segment, b.epoch)
    };
    let mut segments: Vec<std::ops::Range<usize>> = Vec::new();
    for row in 0..draws.len() {
        match segments.last_mut() {
            Some(segment) if same(segment.start, row) => segment.end = row + 1,
            _ => segments.push(row..row + 1),
        }
    }
    let views = spread(
        segments.len(),
        || Renderer::new(chain),
        |renderer, index| -> Vec<Result<Vec<f32>, AudioError>> {
            let segment = segments[index].clone();
            let failed = |error: &AudioError| segment.clone().map(|_| Err(error.clone())).collect();
            let renderer = match renderer {
                Ok(renderer) => renderer,
                Err(error) => return failed(error),
            };
            let source = Source::parse(uris.value(segment.start))
                .and_then(|source| renderer.read(&source, &draws[segment.start]));
            let source = match source {
                Ok(source) => source,
                Err(error) => return failed(&error),
            };
            let view = |row| Ok(renderer.render(&source, &draws[row])?.channels.concat());
            segment.clone().map(view).collect()
        },
    )?;
    Ok(views.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::Array;
    use arrow::datatypes::Float32Type;
    use loev_ops::chain::{Channels, Sampling};
    use loev_ops::draw_table::{chain_metadata, draws_to_arrays};
    use loev_ops::rng::Key;
    use loev_ops::views::Pools;

    use super::*;
    use crate::testing::{block_on, write_parquet};
    use crate::{new_session, query, register_table};

    fn chain() -> Chain {
        Chain {
            sample_rate: 8_000,
            seconds: 0.5,
            channels: Channels::Stereo,
            base: serde_json::from_str(r#"["gain"]"#).unwrap(),
            variant: serde_json::from_str(r#"["pitch_shift"]"#).unwrap(),
            sampling: Sampling::Factorial,
        }
    }

    const GOOD: &str = "synth:v1?seed=1&index=2&seconds=6";

    /// Views of a procedural clip, and of a file that is not there.
    fn views() -> (RecordBatch, Vec<Draw>) {
        let chain = chain();
        let draw = |segment| chain.draw_segment(Key::root(1), "a", 6.0, segment, 0, &Pools::new()).unwrap();
        let draws: Vec<Draw> = (0..3).flat_map(draw).collect();
        let uris = draws.iter().map(|draw| if draw.segment == 1 { "none.wav" } else { GOOD });
        let mut fields =
            vec![Field::new("view_id", DataType::Int32, false), Field::new(URI, DataType::Utf8, false)];
        fields.extend(draw_fields(&chain));
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter_values(0..draws.len() as i32)),
            Arc::new(uris.map(Some).collect::<StringArray>()),
        ];
        columns.extend(draws_to_arrays(&chain, &draws).unwrap());
        let (name, text) = chain_metadata(&chain);
        let schema = Schema::new_with_metadata(fields, HashMap::from([(name, text)]));
        (RecordBatch::try_new(Arc::new(schema), columns).unwrap(), draws)
    }

    #[test]
    fn views_sound_as_they_did() {
        let (views, draws) = views();
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("views");
        write_parquet(&place, "0.parquet", &views);
        let context = new_session(2, None).unwrap();
        block_on(register_table(&context, "views", place.as_path())).unwrap();
        let sql = "select view_id, audio, audio_rate, audio_channels, audio_error from render(views) order by view_id";
        let rows = block_on(query(&context, sql)).unwrap();
        let rows = arrow::compute::concat_batches(rows[0].schema_ref(), &rows).unwrap();
        assert_eq!(rows.num_rows(), draws.len());
        let audio = rows.column(1).as_fixed_size_list();
        assert_eq!(audio.value_length(), 8_000, "2 channels of 4000 frames");
        let mut renderer = Renderer::new(&chain()).unwrap();
        let source = Source::parse(GOOD).unwrap();
        for (row, draw) in draws.iter().enumerate() {
            if draw.segment == 1 {
                assert!(audio.is_null(row));
                assert!(rows.column(4).as_string::<i32>().value(row).contains("none.wav"));
                continue;
            }
            let want = renderer.read(&source, draw).and_then(|audio| renderer.render(&audio, draw)).unwrap();
            let got = audio.value(row);
            assert_eq!(got.as_primitive::<Float32Type>().values().as_ref(), want.channels.concat());
        }

        let sql = "select count(loudness(audio, audio_rate, audio_channels)) as n \
                   from render((select * from views where view_id in (0, 3, 4)))";
        let rows = block_on(query(&context, sql)).unwrap();
        assert_eq!(rows[0].column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 2);
    }

    #[test]
    fn what_holds_no_views_is_refused() {
        let (views, _) = views();
        let context = new_session(1, None).unwrap();
        context.register_batch("views", views).unwrap();
        let refused = |sql: &str| block_on(query(&context, sql)).unwrap_err().to_string();
        let error = refused("select * from render((select 1 as x))");
        assert!(error.contains("render takes views") && error.contains("does not hold draws"), "{error}");
        let error = refused("select * from render((select view_id, uri, groups from views))");
        assert!(error.contains("'segment' is not there; select * keeps them"), "{error}");
    }
}
