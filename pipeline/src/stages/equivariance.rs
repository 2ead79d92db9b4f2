//! `equivariance`: what two embeddings of views say of what was drawn for them, and the reverse.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int32Type};
use datafusion::prelude::SessionContext;
use loev_models::evaluate::{EquivarianceFigure, Parameter, ViewData, equivariance};
use loev_models::probe::Split;
use loev_ops::chain::Chain;
use loev_ops::dist::Scale;
use loev_ops::operator::FactorDef;
use loev_sql::quoted;

use super::embed::BASELINE;
use super::tables::{embedded, has_baseline, rows, splits, table, vectors};
use super::views::behind_views;
use super::{Content, Outcome, side_table};
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, primitive, text};
use crate::resume::ledger::Inputs;
use crate::resume::recipe::Recipe;
use crate::resume::work::{Job, Work};
use crate::run::context::Context;
use crate::spec::stage::Equivariance;
use crate::spec::{Kind, Pipeline};

/// What an `equivariance` stage has to make.
///
/// # Errors
/// When an input is not finished.
pub fn work(inputs: &Inputs<'_>, name: &str, options: &Equivariance) -> Result<Work, RunError> {
    let (labels, chain) = behind(inputs.pipeline, name, options)?;
    let columns = [CLIP_ID, options.split.as_str()];
    let mut recipe = Recipe::new(Kind::Equivariance, 1)
        .options(options, &["from", "labels"])
        .with("seed", inputs.pipeline.seed)
        .with("stage", name)
        .with("factors", &chain.variant)
        .with("embeddings", Content { digest: inputs.content(&options.from, None)? })
        .with("labels", Content { digest: inputs.content(&labels, Some(&columns))? });
    if has_baseline(inputs.pipeline, &options.from) {
        let digest = inputs.content(&side_table(&options.from, "baseline"), None)?;
        recipe = recipe.with("baseline", Content { digest });
    }
    Ok(Work::whole(recipe))
}

/// The table with the split, and the chain of the views.
fn behind(pipeline: &Pipeline, name: &str, options: &Equivariance) -> Result<(String, Chain), RunError> {
    let views =
        embedded(pipeline, &options.from).and_then(|views| behind_views(pipeline, views, &options.labels));
    views.ok_or_else(|| RunError::stage(name, format!("`{}` does not embed views", options.from)))
}

/// The views of one subspace; see [`ViewData`].
struct Views {
    embeddings: Vec<f32>,
    dim: usize,
    segment: Vec<usize>,
    segments: Vec<(String, usize)>,
    parameters: Vec<Parameter>,
}

/// Measures the subspaces of an `equivariance` stage, one after the other.
///
/// # Errors
/// When columns are missing, a part of the data has no pairs of views, or a table cannot be written.
pub async fn run(
    context: &Context,
    job: &Job,
    name: &str,
    options: &Equivariance,
) -> Result<Outcome, RunError> {
    let (labels, chain) = behind(&context.pipeline, name, options)?;
    let session = context.session(&[options.from.clone(), labels.clone()]).await?;
    let clips = splits(&session, name, &options.split, &labels).await?;
    let split: Arc<Vec<Split>> = Arc::new(clips.values().map(|(_, split)| *split).collect());
    let mut spaces = subspaces(&session, &options.from).await?;
    if has_baseline(&context.pipeline, &options.from) {
        spaces.extend(subspaces(&session, &side_table(&options.from, "baseline")).await?);
    }
    let stage = context.stage(name, spaces.len() as u64, "subspaces");
    let mut figures: Vec<(String, EquivarianceFigure)> = Vec::new();
    for (table, space) in spaces {
        stage.interrupt.check()?;
        let views = views(&session, &table, &space, &clips, &chain)
            .await
            .map_err(|error| stage.error(error.to_string()))?;
        let (split, config, key) = (Arc::clone(&split), options.config.clone(), context.key(name));
        let answer = context.pool.submit(move || {
            let data = ViewData {
                embeddings: &views.embeddings,
                dim: views.dim,
                segment: &views.segment,
                segments: &views.segments,
                split: &split,
                parameters: &views.parameters,
            };
            equivariance(&data, &config, key)
        });
        let found = answer
            .await
            .map_err(|_| RunError::Interrupted)?
            .map_err(|panic| stage.error(format!("a regression panicked: {panic}")))?
            .map_err(|error| stage.error(format!("subspace {space}: {error}")))?;
        figures.extend(found.into_iter().map(|figure| (space.clone(), figure)));
        stage.bar.add(1);
    }
    context.store_batch(job, name, batch(&figures)?)?;
    stage.bar.finish();
    Ok(Outcome::note(format!("{} clips", clips.len())))
}

/// The subspaces of a table, each with the table.
async fn subspaces(session: &SessionContext, table: &str) -> Result<Vec<(String, String)>, RunError> {
    let query = format!("select distinct subspace from {} order by subspace", quoted(table));
    let found = text(&rows(session, &query).await?, "subspace")?;
    Ok(found.iter().flatten().map(|space| (table.to_owned(), space.to_owned())).collect())
}

async fn views(
    session: &SessionContext,
    table: &str,
    space: &str,
    clips: &BTreeMap<String, (usize, Split)>,
    chain: &Chain,
) -> Result<Views, RunError> {
    let query = format!(
        "select * from {} where subspace = '{}' order by {CLIP_ID}, epoch, segment, view",
        quoted(table),
        space.replace('\'', "''")
    );
    let rows = rows(session, &query).await?;
    let ids = text(&rows, CLIP_ID)?;
    let numbers = |name| primitive::<Int32Type>(&rows, name);
    let (epochs, numbers) = (numbers("epoch")?, numbers("segment")?);
    let (values, dim) = vectors(&rows, table)?;
    let mut parameters = parameters(chain, &rows)?;
    let mut views = Views {
        embeddings: Vec::new(),
        dim,
        segment: Vec::new(),
        segments: Vec::new(),
        parameters: Vec::new(),
    };
    let mut kept = Vec::new();
    for row in 0..rows.num_rows() {
        let Some((clip, _)) = clips.get(ids.value(row)) else { continue };
        let name = format!("{}:{}:{}", ids.value(row), numbers.value(row), epochs.value(row));
        if views.segments.last().is_none_or(|(last, _)| *last != name) {
            views.segments.push((name, *clip));
        }
        views.segment.push(views.segments.len() - 1);
        views.embeddings.extend_from_slice(&values.values()[row * dim..(row + 1) * dim]);
        kept.push(row);
    }
    for parameter in &mut parameters {
        parameter.values = kept.iter().map(|row| parameter.values[*row]).collect();
    }
    Ok(Views { parameters, ..views })
}

/// What was drawn for the factors, on the scale on which differences count.
///
/// # Errors
/// When a factor's column is missing, or holds NULL.
pub fn parameters(chain: &Chain, rows: &RecordBatch) -> Result<Vec<Parameter>, RunError> {
    let mut parameters = Vec::new();
    for (spec, factor) in chain.variant.iter().zip(chain.factors()) {
        let missing =
            |what: &str| RunError::Engine(format!("column `{factor}` has no {what} for every view"));
        let column = rows.column_by_name(&factor).and_then(|column| column.as_struct_opt());
        let column = column.ok_or_else(|| missing("draw"))?;
        let child = |name: &str| column.column_by_name(name).filter(|child| child.null_count() == 0);
        let (name, values) = match spec.def().factor {
            FactorDef::Level { param, scale, .. } => {
                let name = spec.def().params.get(param).map_or("", |def| def.name);
                let values = child(name).and_then(|child| child.as_primitive_opt::<Float64Type>());
                let values = values.ok_or_else(|| missing(name))?.values().iter();
                let values = match scale {
                    Scale::Linear => values.copied().collect(),
                    Scale::Log => values.map(|value| value.ln()).collect(),
                };
                (name, values)
            }
            FactorDef::OnOff => {
                let applied = child("applied").and_then(|child| child.as_boolean_opt());
                let applied = applied.ok_or_else(|| missing("applied"))?;
                ("applied", applied.iter().map(|on| f64::from(on == Some(true))).collect())
            }
        };
        parameters.push(Parameter { factor, name: name.to_owned(), values });
    }
    Ok(parameters)
}

/// The table: one row per subspace, parameter and measure.
fn batch(figures: &[(String, EquivarianceFigure)]) -> Result<RecordBatch, RunError> {
    let baseline = |of: &EquivarianceFigure| {
        let same = |figure: &EquivarianceFigure| {
            (&figure.factor, &figure.parameter, figure.measure) == (&of.factor, &of.parameter, of.measure)
        };
        figures
            .iter()
            .find(|(space, figure)| space == BASELINE && same(figure))
            .map(|(_, figure)| figure.value)
    };
    let texts = |f: &dyn Fn(&(String, EquivarianceFigure)) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(figures.iter().map(f)))
    };
    let numbers = |f: &dyn Fn(&EquivarianceFigure) -> f64| -> ArrayRef {
        Arc::new(Float64Array::from_iter_values(figures.iter().map(|(_, figure)| f(figure))))
    };
    let pairs = |part: usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(figures.iter().map(|(_, figure)| figure.pairs[part] as i64)))
    };
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("subspace", texts(&|(space, _)| space.clone())),
        ("factor", texts(&|(_, figure)| figure.factor.clone())),
        ("parameter", texts(&|(_, figure)| figure.parameter.clone())),
        ("measure", texts(&|(_, figure)| figure.measure.to_owned())),
        ("value", numbers(&|figure| figure.value)),
        ("lo", numbers(&|figure| figure.lo)),
        ("hi", numbers(&|figure| figure.hi)),
        ("chance", numbers(&|_| 0.0)),
        ("baseline", Arc::new(figures.iter().map(|(_, figure)| baseline(figure)).collect::<Float64Array>())),
        ("penalty", numbers(&|figure| figure.penalty)),
        ("n_train", pairs(0)),
        ("n_valid", pairs(1)),
        ("n_test", pairs(2)),
    ];
    table(columns, &["baseline"])
}
