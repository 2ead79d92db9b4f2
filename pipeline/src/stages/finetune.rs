//! `finetune`: a trained encoder and a linear head learn a labelled task from stored features.
//!
//! Features are read row group by row group, in an order drawn anew for each pass, into a buffer from which batches
//! are drawn: memory does not grow with the data.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Float32Type;
use datafusion::execution::memory_pool::MemoryConsumer;
use loev_models::checkpoint;
use loev_models::probe::finetune::{Finetuned, Finetuning};
use loev_models::probe::{Labels, Split};
use loev_ops::rng::Key;
use loev_sql::quoted;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};

use super::tables::{labels_of, rows, split_of, table};
use super::views::views_of;
use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, text};
use crate::exec::draw::VIEW_ID;
use crate::exec::scan::Table;
use crate::resume::journal::Artifact;
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::run::dir::RunDir;
use crate::run::stage::StageHandle;
use crate::spec::stage::Finetune;
use crate::spec::{Kind, Pipeline, Stage};

/// The wide column.
const FEATURES: &str = "features";
/// Batches that the buffer holds, from which the next one is drawn.
const BUFFERED: usize = 8;

/// The table with the labels, and the column that names its rows: views answer for themselves, segments for their
/// clip.
fn labels_table<'a>(
    pipeline: &'a Pipeline,
    name: &str,
    options: &'a Finetune,
) -> Result<(&'a str, &'static str), RunError> {
    let Some(Stage::Features(features)) = pipeline.stages.get(&options.from) else {
        return Err(RunError::stage(name, format!("`{}` is no features stage", options.from)));
    };
    let views = views_of(pipeline, &features.from).is_some();
    Ok(match &options.labels {
        Some(labels) => (labels, CLIP_ID),
        None => (&features.from, if views { VIEW_ID } else { CLIP_ID }),
    })
}

/// What a `finetune` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Finetune) -> Result<Work, RunError> {
    let (labels, id) = labels_table(inputs.pipeline, name, options)?;
    let columns = [id, options.split.as_str(), options.task.column()];
    let model = Content { digest: inputs.artifact(&options.model)?.digest.clone() };
    let recipe = Recipe::new(Kind::Finetune, 1)
        .options(options, &["from", "model", "labels"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name)
        .with("model", model)
        .with("features", Content { digest: inputs.content(&options.from, None)? })
        .with("labels", Content { digest: inputs.content(labels, Some(&columns))? });
    Ok(Work::whole(recipe))
}

/// Labelled rows, ordered by name.
struct Labelled {
    names: Vec<String>,
    splits: Vec<Split>,
    labels: Labels,
}

/// Fine-tunes the model of a `finetune` stage.
///
/// # Errors
/// When columns are missing, a split has no labelled row, the features do not fit the model, or training fails.
pub async fn run(context: &Context, job: &Job, name: &str, options: &Finetune) -> Result<Outcome, RunError> {
    let stage = context.stage(name, options.config.epochs as u64, "passes");
    let (from, id) = labels_table(&context.pipeline, name, options)?;
    let session = context.session(&[from.to_owned()]).await?;
    let query =
        format!("select * from {} where {} is not null order by {id}", quoted(from), quoted(&options.split));
    let labelled = rows(&session, &query).await.map_err(|e| stage.error(e.to_string()))?;
    let splits = text(&labelled, &options.split)?;
    let split = |word: &str| split_of(name, &options.split, word);
    let labelled = Labelled {
        names: text(&labelled, id)?.iter().flatten().map(str::to_owned).collect(),
        splits: splits.iter().flatten().map(split).collect::<Result<_, _>>()?,
        labels: labels_of(&labelled, &options.task).map_err(|e| stage.error(e.to_string()))?,
    };
    let features = context.table(&options.from)?;
    let (model, notes) =
        checkpoint::load_with_notes(&context.dir.checkpoint(&options.model), &context.device)?;
    let front_end = match context.pipeline.stages.get(&options.from) {
        Some(Stage::Features(features)) => Some(&features.front_end),
        _ => None,
    };
    if front_end.is_some_and(|front_end| *front_end != model.config().front_end) {
        return Err(stage.error("the features are of another front end than the model reads"));
    }

    let work = {
        let (options, key, path) = (options.clone(), context.key(name), context.dir.checkpoint(name));
        let task = context.budget.task();
        let memory = MemoryConsumer::new("fine-tuning").register(task.memory_pool());
        let stage = stage.clone();
        move || {
            let pieces = Pieces::open(&features, id, &labelled)?;
            let mut tuning = Finetuning::new(
                model,
                &options.subspace,
                &labelled.labels,
                &labelled.splits,
                &options.config,
                pieces.views(Split::Train),
                key,
            )?;
            let buffer = BUFFERED * options.config.batch * tuning.width() * size_of::<f32>();
            memory.try_grow(buffer)?;
            let epochs = tune(&mut tuning, &pieces, &options, key, &stage)?;
            let test = pieces.answers(&tuning, Split::Test, options.config.batch, &stage)?;
            let found = tuning.score(&test)?;
            let digest = checkpoint::save(&tuning.into_model(), &path, &notes)?;
            Ok::<_, RunError>((labelled, epochs, found, digest))
        }
    };
    let answer = context.device_pool.submit(work).await.map_err(|_| RunError::Interrupted)?;
    let (labelled, epochs, found, digest) =
        answer.map_err(|panic| stage.error(format!("fine-tuning panicked: {panic}")))??;
    stage.bar.finish();

    context.store_batch(job, name, figures(options, &found)?)?;
    let predictions = side_table(name, "predictions");
    context.store_batch(job, &predictions, predictions_batch(options, id, &labelled, &found)?)?;
    let passes = side_table(name, "passes");
    context.store_batch(job, &passes, passes_batch(&epochs)?)?;
    let path = context.dir.checkpoint(name);
    let bytes = std::fs::metadata(&path).map(|found| found.len()).unwrap_or_default();
    let artifact = Artifact { path: RunDir::relative_checkpoint(name), bytes, digest };
    let note = format!("{} of {} passes", epochs.len(), options.config.epochs);
    Ok(Outcome { side_tables: vec![predictions, passes], artifacts: vec![artifact], note })
}

/// A pass over the training rows.
struct Pass {
    loss: f64,
    valid_loss: f64,
}

/// Trains until validation rows gain no more, and goes back to the best pass.
fn tune(
    tuning: &mut Finetuning<'_>,
    pieces: &Pieces,
    options: &Finetune,
    key: Key,
    stage: &StageHandle,
) -> Result<Vec<Pass>, RunError> {
    let (batch, width) = (options.config.batch, tuning.width());
    let mut passes: Vec<Pass> = Vec::new();
    loop {
        let key = key.with_str("pass").with(passes.len() as u64);
        let mut order: Vec<&Piece> = pieces.of(Split::Train).collect();
        key.with_str("pieces").rng().shuffle(&mut order);
        let mut draw = key.with_str("views").rng();
        let mut buffer: Vec<(usize, Vec<f32>)> = Vec::new();
        let mut order = order.into_iter();
        let (mut sum, mut steps) = (0.0, 0);
        loop {
            while buffer.len() < BUFFERED * batch
                && let Some(piece) = order.next()
            {
                buffer.extend(pieces.read(piece, Split::Train, width, stage)?);
            }
            if buffer.is_empty() {
                break;
            }
            stage.interrupt.check()?;
            let (mut rows, mut features) = (Vec::with_capacity(batch), Vec::with_capacity(batch * width));
            while rows.len() < batch && !buffer.is_empty() {
                let (row, values) = buffer.swap_remove(draw.below(buffer.len()));
                rows.push(row);
                features.extend(values);
            }
            sum += tuning.step(features, &rows)?;
            steps += 1;
        }
        let valid = pieces.answers(tuning, Split::Valid, batch, stage)?;
        let (valid_loss, goes_on) = tuning.end_epoch(&valid)?;
        let loss = sum / f64::from(steps.max(1));
        passes.push(Pass { loss, valid_loss });
        stage.bar.note(format!("loss {loss:.3}"));
        stage.bar.add(1);
        if !goes_on {
            break;
        }
    }
    tuning.restore()?;
    Ok(passes)
}

/// A row group of the features.
struct Piece {
    file: usize,
    group: usize,
    /// The labelled row of each of its rows.
    rows: Vec<Option<usize>>,
}

/// The table of features as row groups, whose wide column is read piece by piece.
struct Pieces {
    files: Vec<(File, ArrowReaderMetadata)>,
    pieces: Vec<Piece>,
    splits: Vec<Split>,
    usable: Vec<bool>,
}

impl Pieces {
    /// Reads which row each feature belongs to, and none of the features.
    fn open(table: &Table, id: &str, labelled: &Labelled) -> Result<Self, RunError> {
        let row_of: BTreeMap<&str, usize> =
            labelled.names.iter().enumerate().map(|(row, name)| (name.as_str(), row)).collect();
        let usable = (0..labelled.names.len()).map(|row| labelled.labels.is_present(row)).collect();
        let (mut files, mut pieces) = (Vec::new(), Vec::new());
        for (number, file) in table.files.iter().enumerate() {
            let opened = File::open(&file.path).map_err(RunError::io("cannot open", &file.path))?;
            let metadata = ArrowReaderMetadata::load(&opened, ArrowReaderOptions::new())?;
            for group in 0..metadata.metadata().num_row_groups() {
                let mut rows = Vec::new();
                for batch in read(&opened, &metadata, group, id, &file.path)? {
                    let names = text(&batch, id)?;
                    rows.extend(names.iter().map(|name| row_of.get(name?).copied()));
                }
                pieces.push(Piece { file: number, group, rows });
            }
            files.push((opened, metadata));
        }
        Ok(Self { files, pieces, splits: labelled.splits.clone(), usable })
    }

    fn takes(&self, row: Option<usize>, split: Split) -> Option<usize> {
        row.filter(|&row| self.splits[row] == split && self.usable[row])
    }

    /// The pieces that hold rows of a split.
    fn of(&self, split: Split) -> impl Iterator<Item = &Piece> {
        self.pieces.iter().filter(move |piece| piece.rows.iter().any(|&row| self.takes(row, split).is_some()))
    }

    /// Features of a split.
    fn views(&self, split: Split) -> usize {
        let rows = self.pieces.iter().flat_map(|piece| &piece.rows);
        rows.filter(|&&row| self.takes(row, split).is_some()).count()
    }

    /// The features of a piece that belong to a split, with their rows.
    fn read(
        &self,
        piece: &Piece,
        split: Split,
        width: usize,
        stage: &StageHandle,
    ) -> Result<Vec<(usize, Vec<f32>)>, RunError> {
        let (file, metadata) = &self.files[piece.file];
        let mut found = Vec::new();
        let mut rows = piece.rows.iter();
        for batch in read(file, metadata, piece.group, FEATURES, Path::new(FEATURES))? {
            let wide = batch.column_by_name(FEATURES).and_then(|column| column.as_fixed_size_list_opt());
            let wide = wide.ok_or_else(|| RunError::Engine("the table has no features".to_owned()))?;
            if wide.value_length() as usize != width {
                let length = wide.value_length();
                return Err(stage.error(format!(
                    "the features have {length} values a view, and the model reads {width}: give the features \
                     stage the length of the model's views (`seconds`)"
                )));
            }
            let values = wide.values().as_primitive::<Float32Type>().values();
            for (values, &row) in values.chunks_exact(width.max(1)).zip(rows.by_ref()) {
                if let Some(row) = self.takes(row, split) {
                    found.push((row, values.to_vec()));
                }
            }
        }
        Ok(found)
    }

    /// Mean probabilities of the rows of a split that take part.
    fn answers(
        &self,
        tuning: &Finetuning<'_>,
        split: Split,
        batch: usize,
        stage: &StageHandle,
    ) -> Result<Vec<f32>, RunError> {
        let (outputs, width) = (tuning.outputs(), tuning.width());
        let mut sums: BTreeMap<usize, (Vec<f64>, usize)> =
            tuning.rows(split).iter().map(|&row| (row, (vec![0.0; outputs], 0))).collect();
        let mut waiting = Vec::new();
        let mut answer = |waiting: &mut Vec<(usize, Vec<f32>)>, least: usize| -> Result<(), RunError> {
            while waiting.len() >= least.max(1) {
                stage.interrupt.check()?;
                let views: Vec<_> = waiting.drain(..batch.min(waiting.len())).collect();
                let features = views.iter().flat_map(|(_, values)| values.iter().copied()).collect();
                let probabilities = tuning.predict(features, views.len())?;
                for ((row, _), probabilities) in views.iter().zip(probabilities.chunks_exact(outputs)) {
                    if let Some((sum, count)) = sums.get_mut(row) {
                        sum.iter_mut().zip(probabilities).for_each(|(sum, &p)| *sum += f64::from(p));
                        *count += 1;
                    }
                }
            }
            Ok(())
        };
        for piece in self.of(split) {
            waiting.extend(self.read(piece, split, width, stage)?);
            answer(&mut waiting, batch)?;
        }
        answer(&mut waiting, 1)?;
        if let Some((row, _)) = sums.iter().find(|(_, (_, count))| *count == 0) {
            return Err(stage.error(format!("labelled row {row} of the {split} split has no features")));
        }
        Ok(sums
            .into_values()
            .flat_map(|(sum, count)| sum.into_iter().map(move |sum| (sum / count as f64) as f32))
            .collect())
    }
}

/// One column of one row group.
fn read(
    file: &File,
    metadata: &ArrowReaderMetadata,
    group: usize,
    column: &str,
    path: &Path,
) -> Result<Vec<RecordBatch>, RunError> {
    let file = file.try_clone().map_err(RunError::io("cannot read", path))?;
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata.clone());
    let mask = ProjectionMask::columns(reader.parquet_schema(), [column]);
    let batches = reader.with_projection(mask).with_row_groups(vec![group]).build()?;
    Ok(batches.collect::<Result<_, _>>()?)
}

fn texts(values: Vec<String>) -> ArrayRef {
    Arc::new(StringArray::from(values))
}

fn figures(options: &Finetune, found: &Finetuned) -> Result<RecordBatch, RunError> {
    let n = found.metrics.len();
    let numbers = |f: fn(&loev_models::probe::Metric) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(found.metrics.iter().map(f)))
    };
    let count = |count: usize| -> ArrayRef { Arc::new(Int64Array::from(vec![count as i64; n])) };
    table(
        vec![
            ("subspace", texts(vec![options.subspace.clone(); n])),
            ("task", texts(vec![options.task.task().to_string(); n])),
            ("probe", texts(vec!["finetuned".to_owned(); n])),
            ("metric", texts(found.metrics.iter().map(|m| m.name.to_owned()).collect())),
            ("value", numbers(|m| m.value)),
            ("lo", numbers(|m| m.lo)),
            ("hi", numbers(|m| m.hi)),
            ("chance", numbers(|m| m.chance)),
            ("n_train", count(found.rows.train)),
            ("n_valid", count(found.rows.valid)),
            ("n_test", count(found.rows.test)),
            ("n_missing", count(found.rows.missing)),
            ("n_unseen", count(found.rows.unseen)),
        ],
        &[],
    )
}

fn predictions_batch(
    options: &Finetune,
    id: &str,
    labelled: &Labelled,
    found: &Finetuned,
) -> Result<RecordBatch, RunError> {
    let of = |row: usize| labelled.labels.text(row);
    let predictions = &found.predictions;
    table(
        vec![
            (id, texts(predictions.iter().map(|p| labelled.names[p.row].clone()).collect())),
            ("task", texts(vec![options.task.task().to_string(); predictions.len()])),
            ("truth", Arc::new(predictions.iter().map(|p| of(p.row)).collect::<StringArray>())),
            ("prediction", texts(predictions.iter().map(|p| p.value.clone()).collect())),
            (
                "confidence",
                Arc::new(Float64Array::from_iter_values(predictions.iter().map(|p| p.confidence))),
            ),
        ],
        &["truth"],
    )
}

fn passes_batch(passes: &[Pass]) -> Result<RecordBatch, RunError> {
    table(
        vec![
            ("pass", Arc::new(Int64Array::from_iter_values(1..=passes.len() as i64))),
            ("loss", Arc::new(Float64Array::from_iter_values(passes.iter().map(|pass| pass.loss)))),
            (
                "valid_loss",
                Arc::new(Float64Array::from_iter_values(passes.iter().map(|pass| pass.valid_loss))),
            ),
        ],
        &[],
    )
}
