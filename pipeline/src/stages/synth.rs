//! `synth`: procedural music with exact labels. Only references and labels are stored; the audio is
//! made from the reference whenever it is needed.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_ops::labels::{intervals_column, intervals_type, times_column, times_type};
use loev_ops::mir::Mode;
use loev_ops::synth::{ClipSpec, Score};

use super::Outcome;
use super::clips::store;
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::run::context::Context;
use crate::spec::stage::Synth;

/// Clips whose labels one job of the pool works out.
const CHUNK: u64 = 256;

fn schema() -> SchemaRef {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    let tag = Arc::new(Field::new_list_field(DataType::Utf8, false));
    Arc::new(Schema::new(vec![
        text(CLIP_ID),
        text(URI),
        Field::new(SECONDS, DataType::Float64, false),
        text("key"),
        text("mode"),
        Field::new("bpm", DataType::Float64, false),
        text("metre"),
        text("style"),
        Field::new("instruments", DataType::List(tag), false),
        Field::new("beats", times_type(), false),
        Field::new("chords", intervals_type(), false),
    ]))
}

fn rows(specs: &[ClipSpec]) -> Result<RecordBatch, RunError> {
    let scores: Vec<Score> = specs.iter().map(ClipSpec::score).collect();
    let text = |values: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(values)) };
    let number = |values: Vec<f64>| -> ArrayRef { Arc::new(Float64Array::from(values)) };
    let mode = |score: &Score| match score.key.mode() {
        Mode::Major => "major".to_owned(),
        Mode::Minor => "minor".to_owned(),
    };
    let tag = Arc::new(Field::new_list_field(DataType::Utf8, false));
    let mut instruments = ListBuilder::new(StringBuilder::new()).with_field(tag);
    for score in &scores {
        for instrument in &score.instruments {
            instruments.values().append_value(instrument);
        }
        instruments.append(true);
    }
    let columns = vec![
        text(specs.iter().map(|spec| format!("synth-{:06}", spec.index)).collect()),
        text(specs.iter().map(ClipSpec::uri).collect()),
        number(specs.iter().map(|spec| spec.seconds).collect()),
        text(scores.iter().map(|score| score.key.name()).collect()),
        text(scores.iter().map(mode).collect()),
        number(scores.iter().map(|score| score.bpm).collect()),
        text(scores.iter().map(|score| score.metre.clone()).collect()),
        text(scores.iter().map(|score| score.style.clone()).collect()),
        Arc::new(instruments.finish()),
        times_column(specs.iter().map(ClipSpec::beats)),
        intervals_column(specs.iter().map(ClipSpec::chords))?,
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

/// Writes the clips of a `synth` stage.
///
/// # Errors
/// When the table cannot be written.
pub async fn run(context: &Context, name: &str, options: &Synth) -> Result<Outcome, RunError> {
    let stage = context.stage(name, options.clips, "clips");
    let seed = options.seed.unwrap_or(context.pipeline.seed);
    let mut answers = Vec::new();
    for from in (0..options.clips).step_by(CHUNK as usize) {
        let (stage, seconds) = (stage.clone(), options.seconds);
        let to = (from + CHUNK).min(options.clips);
        answers.push(context.pool.submit(move || {
            stage.interrupt.check()?;
            let specs: Vec<_> = (from..to).map(|index| ClipSpec { seed, index, seconds }).collect();
            stage.bar.add(to - from);
            rows(&specs)
        }));
    }
    let mut batches = Vec::new();
    for answer in answers {
        let answer = answer.await.map_err(|_| RunError::Interrupted)?;
        batches.push(answer.map_err(|panic| stage.error(format!("the composer panicked: {panic}")))??);
    }
    let shards = options.shards;
    let rows = store(context, name, &schema(), &batches, shards)?;
    stage.bar.finish();
    Ok(Outcome::rows(
        rows,
        format!("{shards} shards, {:.1} h of audio", options.seconds * rows as f64 / 3600.0),
    ))
}
