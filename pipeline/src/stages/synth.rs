//! `synth`: procedural music with exact labels. Only references and labels are stored; the audio is
//! made from the reference whenever it is needed.

use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, stream};
use loev_ops::labels::{intervals_column, intervals_type, times_column, times_type};
use loev_ops::mir::Mode;
use loev_ops::synth::{ClipSpec, Score};

use super::Outcome;
use super::clips::{self, shard_count, shard_of};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, URI};
use crate::exec::write::TableWriter;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::spec::Kind;
use crate::spec::stage::Synth;

/// Clips whose labels one job of the pool works out.
const CHUNK: usize = 256;
/// Clips whose names have the same number of digits, and so the order of their numbers.
const NUMBERED: u64 = 1_000_000;

fn clip_id(index: u64) -> String {
    format!("synth-{index:06}")
}

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
        text(specs.iter().map(|spec| clip_id(spec.index)).collect()),
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

/// What a `synth` stage has to make.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Synth) -> Work {
    let seed = options.seed.unwrap_or(inputs.pipeline.seed);
    let recipe = Recipe::new(Kind::Synth, 1)
        .options(options, &["seed", "shards"])
        .with("seed", seed)
        .with("music", loev_ops::synth::VERSION);
    let count = shard_count(options.shards, options.clips);
    let shards = clips::shards(name, &recipe, count, |_| String::new());
    Work::each(recipe.with("shards", count), shards)
}

/// The clips of each shard, in the order of their names.
fn clips_by_shard(clips: u64, shards: u32) -> Vec<Vec<u64>> {
    let mut of_shard = vec![Vec::new(); shards as usize];
    for index in 0..clips {
        if let Some(shard) = of_shard.get_mut(shard_of(&clip_id(index), shards) as usize) {
            shard.push(index);
        }
    }
    if clips > NUMBERED {
        of_shard.iter_mut().for_each(|shard| shard.sort_by_cached_key(|index| clip_id(*index)));
    }
    of_shard
}

/// Writes the clips of a `synth` stage, chunk by chunk: memory does not grow with their number.
///
/// # Errors
/// When the table cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Synth) -> Result<Outcome, RunError> {
    let todo = job.todo(name);
    let of_shard = clips_by_shard(options.clips, shard_count(options.shards, options.clips));
    let clips_of = |shard: &Shard| clips::part_of(&of_shard, shard);
    let stage = context.stage(name, todo.iter().map(|shard| clips_of(shard).len() as u64).sum(), "clips");
    let seed = options.seed.unwrap_or(context.pipeline.seed);
    let dir = context.dir.create_table(name)?;
    let schema = clips::with_shard_field(&schema());
    for shard in &todo {
        let number = clips::number_of(&shard.file).unwrap_or_default();
        let mut writer = TableWriter::create(&dir.join(&shard.file), &schema)?;
        let chunks = clips_of(shard).chunks(CHUNK).map(|indices| {
            let seconds = options.seconds;
            let specs: Vec<_> =
                indices.iter().map(|index| ClipSpec { seed, index: *index, seconds }).collect();
            context.pool.submit(move || rows(&specs))
        });
        let mut composed = stream::iter(chunks).buffered(2 * context.pool.threads());
        while let Some(answer) = composed.next().await {
            stage.interrupt.check()?;
            let answer = answer.map_err(|_| RunError::Interrupted)?;
            let rows = answer.map_err(|panic| stage.error(format!("the composer panicked: {panic}")))??;
            stage.bar.add(rows.num_rows() as u64);
            writer.write(clips::with_shard(&rows, &schema, number)?)?;
        }
        job.enter(writer.finish()?.receipt(name, &shard.recipe, Vec::new()))?;
    }
    stage.bar.finish();
    let hours = options.seconds * options.clips as f64 / 3600.0;
    Ok(Outcome::note(format!("{} shards, {hours:.1} h of audio", of_shard.len())))
}
