//! `decode`: every clip read once and stored as 16-bit samples, so that what follows neither decodes nor resamples.
//!
//! ```text
//! clips ─► pieces of 20 s ─► pool: read ─ resample ─ round ─► audio/<stage>/<shard>.pcm
//!                                              in order └───► tables/<stage>_audio    where each clip is
//! clips ─ Locate (tables/<stage>_audio) ─ Write ────────────► tables/<stage>          clips, with these addresses
//! ```
//!
//! Two tables, because a corrected label is no reason to decode again: the first depends on the audio of the clips
//! alone, the second on all of their columns.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use futures::{StreamExt, stream};
use loev_ops::source::{Pcm, Pieces, Source, encode_pcm};
use loev_ops::{AudioError, RejectKind};

use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::PartitionExec;
use crate::exec::columns::{CLIP_ID, SECONDS, URI, number, required, text};
use crate::exec::locate::LocateOp;
use crate::exec::render::source_bytes;
use crate::exec::samples::SamplesWriter;
use crate::exec::scan::{Table, TableFile};
use crate::exec::write::TableWriter;
use crate::resume::journal::Receipt;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Shard, Work};
use crate::run::context::Context;
use crate::run::stage::StageHandle;
use crate::spec::Kind;
use crate::spec::stage::Decode;

/// Rows that wait for the writer.
const ROWS: usize = 1024;
/// Characters of a recipe's digest in the name of a file of samples.
const NAMED: usize = 16;

/// What a `decode` stage has to make: for each file of its input the samples with their places, and the rows.
///
/// # Errors
/// When the input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Decode) -> Result<Work, RunError> {
    let columns = inputs.audio_columns(&options.from)?;
    let audio = inputs.audio(&options.from)?;
    let recipe =
        Recipe::new(Kind::Decode, 1).options(options, &["from"]).with("music", loev_ops::synth::VERSION);
    let (mut samples, mut rows) = (Vec::new(), Vec::new());
    for input in inputs.files(&options.from)? {
        let made = recipe.shard(&["samples", &input.file, &input.content(Some(&columns)), &audio]);
        let row = recipe.shard(&["rows", &input.file, &input.digest, &made]);
        samples.push(Shard { table: side_table(name, "audio"), file: input.file.clone(), recipe: made });
        rows.push(Shard { table: name.to_owned(), file: input.file.clone(), recipe: row });
    }
    samples.append(&mut rows);
    let from = Content { digest: inputs.content(&options.from, None)? };
    Ok(Work::each(recipe.with("from", from).with("audio", Content { digest: audio }), samples))
}

/// Decodes the clips of a `decode` stage, and writes its tables.
///
/// # Errors
/// When the input lacks a column or has a clip twice, or a file cannot be written.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Decode) -> Result<Outcome, RunError> {
    let clips = context.table(&options.from)?;
    let places = side_table(name, "audio");
    let todo = job.todo(&places);
    let (_, total) = clips.partitions(&todo)?;
    let stage = context.stage(name, total, "clips decoded");
    for (column, meaning) in [(CLIP_ID, "the clip's name"), (URI, "where its audio is")] {
        if clips.schema.index_of(column).is_err() {
            return Err(stage.error(format!(
                "the input has no column `{column}` ({meaning}); select it in the SQL that makes the input"
            )));
        }
    }
    // Also what would be wrong with the rows, before hours of decoding.
    LocateOp::new(&clips.schema, &schema(), Vec::new(), stage.clone())?;
    let shards = Shards { context, stage: &stage, name, options };
    context.dir.create_table(&places)?;
    for (partition, shard) in todo.iter().enumerate() {
        job.enter(shards.decode(partition, shard, clips.file(&shard.file)?).await?)?;
    }
    stage.bar.finish();

    let todo = job.todo(name);
    let (partitions, _) = clips.partitions(&todo)?;
    let stage = context.quiet_stage(name);
    let decoded = context.table(&places)?;
    let of_shard = |shard: &Shard| Table::of_file(&decoded.file(&shard.file)?.path);
    let of_shards = todo.iter().map(of_shard).collect::<Result<Vec<_>, _>>()?;
    let locate = LocateOp::new(&clips.schema, &schema(), of_shards, stage.clone())?;
    context.store(job, &stage, todo, PartitionExec::over(locate, clips.scan(&partitions)?)).await?;

    let (mut hours, mut gigabytes, mut clipped) = (0.0, 0.0, 0.0);
    for rows in decoded.read(&[SECONDS, "bytes", "clipped"])? {
        let sum = |column| Ok::<_, RunError>(number(&rows, column)?.values().iter().sum::<f64>());
        hours += sum(SECONDS)? / 3600.0;
        gigabytes += sum("bytes")? / 1e9;
        clipped += sum("clipped")?;
    }
    let note = format!("{hours:.1} h of audio, {gigabytes:.2} GB, {clipped} samples clipped");
    Ok(Outcome { side_tables: vec![places], note, ..Outcome::default() })
}

/// The table of what was decoded.
fn schema() -> SchemaRef {
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field(CLIP_ID, DataType::Utf8),
        field(URI, DataType::Utf8),
        field(SECONDS, DataType::Float64),
        field("rate", DataType::Int32),
        field("channels", DataType::Int32),
        field("frames", DataType::Int64),
        field("container", DataType::Utf8),
        field("codec", DataType::Utf8),
        field("bytes", DataType::Int64),
        field("digest", DataType::Utf8),
        field("clipped", DataType::Int64),
    ]))
}

/// A clip that is being decoded.
struct Clip {
    id: String,
    uri: String,
    /// Nothing more of it is needed.
    failed: AtomicBool,
}

/// A piece of a clip: start and length in seconds, or why there is none.
struct Piece {
    clip: Arc<Clip>,
    range: Result<(f64, f64), AudioError>,
    last: bool,
}

/// A clip that was decoded.
struct Row {
    id: String,
    samples: Pcm,
    frames: u64,
    bytes: u64,
    digest: String,
    clipped: u64,
}

struct Shards<'a> {
    context: &'a Context,
    stage: &'a StageHandle,
    name: &'a str,
    options: &'a Decode,
}

impl Shards<'_> {
    fn clips(&self, input: &TableFile) -> Result<Vec<Arc<Clip>>, RunError> {
        let (mut clips, mut seen) = (Vec::new(), HashSet::new());
        for rows in Table::of_file(&input.path)?.read(&[CLIP_ID, URI])? {
            let (ids, uris) = (text(&rows, CLIP_ID)?, text(&rows, URI)?);
            for row in 0..rows.num_rows() {
                let id = required(&ids, CLIP_ID, row)?.to_owned();
                let uri = required(&uris, URI, row)?.to_owned();
                if !seen.insert(id.clone()) {
                    return Err(self.stage.error(format!(
                        "two rows of `{}` are of the clip `{id}`; a clip is decoded once",
                        self.options.from
                    )));
                }
                clips.push(Arc::new(Clip { id, uri, failed: AtomicBool::new(false) }));
            }
        }
        Ok(clips)
    }

    /// The pieces of a clip; one with the reason if there are none.
    fn pieces(clip: Arc<Clip>, rate: u32) -> Vec<Piece> {
        let pieces = Source::parse(&clip.uri).and_then(|source| Pieces::new(&source, 0.0, None, Some(rate)));
        let mut pieces: Vec<Piece> = match pieces {
            Ok(pieces) => {
                let piece = |range| Piece { clip: Arc::clone(&clip), range: Ok(range), last: false };
                pieces.map(piece).collect()
            }
            Err(error) => vec![Piece { clip: Arc::clone(&clip), range: Err(error), last: false }],
        };
        if let Some(piece) = pieces.last_mut() {
            piece.last = true;
        }
        pieces
    }

    /// Decodes the clips of one file of the input. Pieces are decoded by all threads and written in their order, so that
    /// the file does not depend on how many there are.
    async fn decode(&self, partition: usize, shard: &Shard, input: &TableFile) -> Result<Receipt, RunError> {
        let Decode { sample_rate: rate, channels, .. } = *self.options;
        let (pool, budget) = (&self.context.pool, &self.context.budget);
        let threads = pool.threads();
        let looked = stream::iter(self.clips(input)?).map(|clip| {
            let job = Arc::clone(&clip);
            let answer = pool.submit(move || Self::pieces(job, rate));
            async move { (clip, answer.await.unwrap_or_else(|_| Err("the thread is gone".to_owned()))) }
        });
        let pieces = looked.buffered(2 * threads).flat_map(|(clip, answer)| {
            let pieces = match answer {
                Ok(pieces) => pieces,
                Err(panic) => {
                    let range = Err(AudioError::new(RejectKind::Panicked, panic));
                    vec![Piece { clip, range, last: true }]
                }
            };
            stream::iter(pieces)
        });
        let mut decoded = std::pin::pin!(
            pieces
                .map(|Piece { clip, range, last }| async move {
                    let seconds = range.as_ref().map_or(0.0, |(_, seconds)| *seconds);
                    // Held until the piece is written. Those before it have theirs already, so that one is always given back.
                    let permit = budget.rendering(source_bytes(seconds)).await;
                    let job = Arc::clone(&clip);
                    let answer = pool.submit(move || {
                        let (start_s, seconds) = range?;
                        if job.failed.load(Ordering::Relaxed) {
                            return Ok((Vec::new(), 0));
                        }
                        let source = Source::parse(&job.uri)?;
                        channels.read(&source, start_s, seconds, rate).map(|audio| encode_pcm(&audio))
                    });
                    (clip, answer.await, last, permit)
                })
                .buffered(2 * threads)
        );

        let stem = shard.file.trim_end_matches(".parquet");
        let named: String = shard.recipe.chars().take(NAMED).collect();
        let mut samples =
            SamplesWriter::create(&self.context.dir, self.name, &format!("{stem}.{named}.pcm"))?;
        let path = self.context.dir.table(&shard.table).join(&shard.file);
        let mut writer = TableWriter::create(&path, &schema())?;
        let mut rows = Vec::new();
        let (mut hasher, mut bytes, mut clipped) = (blake3::Hasher::new(), 0, 0);
        while let Some((clip, answer, last, _permit)) = decoded.next().await {
            self.stage.interrupt.check()?;
            let piece = answer.map_err(|_| RunError::Interrupted)?;
            let piece = piece.unwrap_or_else(|panic| Err(AudioError::new(RejectKind::Panicked, panic)));
            match piece {
                _ if clip.failed.load(Ordering::Relaxed) => {}
                Ok((piece, beyond)) => {
                    samples.append(&piece)?;
                    hasher.update(&piece);
                    (bytes, clipped) = (bytes + piece.len() as u64, clipped + beyond);
                }
                Err(error) => {
                    clip.failed.store(true, Ordering::Relaxed);
                    self.stage.reject(partition, &clip.id, &clip.uri, &error);
                }
            }
            if !last {
                continue;
            }
            if clip.failed.load(Ordering::Relaxed) {
                samples.drop_clip()?;
            } else {
                let count = channels.count() as u16;
                let frames = bytes / (2 * u64::from(count));
                let place = Pcm::new(samples.relative(), samples.start(), frames, rate, count);
                let place = place.map_err(|error| self.stage.error(error.message))?;
                let digest = hasher.finalize().to_hex().to_string();
                rows.push(Row { id: clip.id.clone(), samples: place, frames, bytes, digest, clipped });
                samples.keep();
            }
            (hasher, bytes, clipped) = (blake3::Hasher::new(), 0, 0);
            self.stage.bar.add(1);
            if rows.len() >= ROWS {
                writer.write(self.batch(&std::mem::take(&mut rows))?)?;
            }
        }
        writer.write(self.batch(&rows)?)?;
        // The samples first: a receipt, and a row, stand for what is there.
        let data = samples.finish()?;
        let receipt =
            writer.finish()?.receipt(&shard.table, &shard.recipe, self.stage.rejects.take(partition));
        Ok(Receipt { data: Some(data), ..receipt })
    }

    fn batch(&self, rows: &[Row]) -> Result<RecordBatch, RunError> {
        let text = |f: &dyn Fn(&Row) -> String| -> ArrayRef {
            Arc::new(StringArray::from_iter_values(rows.iter().map(f)))
        };
        let count = |f: fn(&Row) -> u64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| f(row) as i64)))
        };
        let same = |value: i32| -> ArrayRef { Arc::new(Int32Array::from(vec![value; rows.len()])) };
        let columns = vec![
            text(&|row| row.id.clone()),
            text(&|row| row.samples.uri()),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.samples.seconds()))),
            same(self.options.sample_rate as i32),
            same(self.options.channels.count() as i32),
            count(|row| row.frames),
            text(&|_| Pcm::CONTAINER.to_owned()),
            text(&|_| Pcm::CODEC.to_owned()),
            count(|row| row.bytes),
            text(&|row| row.digest.clone()),
            count(|row| row.clipped),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}
