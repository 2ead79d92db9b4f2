//! Similarity matrices: the embeddings of a sample of clips, ordered by a label, beside the matrix of what should be near.

use arrow::array::{Array, RecordBatch};
use arrow::datatypes::{DataType, Int64Type};
use loev_sql::quoted;

use super::ask::{Run, rank};
use super::chart::{Shades, matrix, scale_bar, short};
use super::figure::{Data, Figure, Section, number as rounded};
use super::html::Html;
use crate::error::RunError;
use crate::exec::columns::{primitive, text};

/// Rows and columns of a matrix.
const SIZE: u64 = 64;
/// Clips and segments of each, where segments are compared.
const CLIPS: u64 = 16;
const SEGMENTS: u64 = 4;

/// Labels that clips are ordered by, one after the other.
const LABELS: usize = 2;

/// By what clips are ordered, and which of them are to be near each other.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// The column.
    pub column: String,
    /// Numbers within this ratio of each other are of one class; without it, equal values are.
    pub ratio: Option<f64>,
    /// Whether values are keys.
    pub is_key: bool,
}

impl Label {
    fn of(kind: &str, column: &str) -> Self {
        let ratio = (kind == "tempo").then_some(TEMPO);
        Self { column: column.to_owned(), ratio, is_key: kind == "key" }
    }

    /// By what clips are ordered: keys along the circle of fifths, so that what is near in music is near in the matrix.
    fn order(&self) -> String {
        let column = quoted(&self.column);
        if self.is_key { format!("circle_of_fifths({column}), {column}") } else { column }
    }
}

/// Tempi of one class, as the `retrieve` stage has them by default.
const TEMPO: f64 = 1.04;

/// What the probes and searches of a run ask for; without any, what its clips have that looks like it.
pub fn labels(run: &Run, table: &str) -> Vec<Label> {
    let mut labels: Vec<Label> = Vec::new();
    for (stage, _) in run.stages() {
        for task in run.option(stage, "tasks").and_then(|tasks| tasks.as_array()).into_iter().flatten() {
            for (kind, column) in task.as_object().into_iter().flatten() {
                let Some(column) = column.as_str() else { continue };
                let label = Label::of(kind, column);
                if ["key", "tempo", "class"].contains(&kind.as_str()) && !labels.contains(&label) {
                    labels.push(label);
                }
            }
        }
    }
    let usual =
        [("key", "key"), ("tempo", "bpm"), ("tempo", "tempo"), ("class", "style"), ("class", "genre")];
    if labels.is_empty() {
        labels = usual.map(|(kind, column)| Label::of(kind, column)).into();
    }
    let fits = |label: &Label| {
        let field = run.schema(table).and_then(|schema| schema.field_with_name(&label.column).ok());
        field.is_some_and(|field| match label.ratio {
            Some(_) => field.data_type().is_numeric(),
            None => matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View),
        })
    };
    labels.retain(fits);
    labels.truncate(LABELS);
    labels
}

/// The section, if the pipeline embeds clips.
///
/// # Errors
/// When the user asked to stop.
pub async fn section(run: &Run) -> Result<Option<Section>, RunError> {
    let mut section = Section::new(
        "similarity",
        "Similarity",
        "Cosine similarities of a sample of clips, ordered by a label (keys along the circle of fifths), beside the matrix of what \
         should be near: bright where two clips have the same label. A subspace that holds the label repeats the pattern. \
         Under each matrix: the mean over pairs of one label, and over all others.",
    );
    for (stage, table) in run.embeddings(false) {
        let needs = ["clip_id", "segment", "subspace", "embedding"];
        for stage in run.readable(&[stage], &needs, &mut section.marks) {
            let test = has_test(run, &table).await;
            for label in labels(run, &table) {
                let sample = by_label(stage, &table, &label, test);
                let title = format!("{stage}, by {}", label.column);
                section.take(&title, figure(run, stage, &title, &sample, label.ratio, test).await)?;
            }
            let title = format!("{stage}, by clip");
            section.take(&title, figure(run, stage, &title, &by_clip(stage), None, false).await)?;
        }
    }
    Ok((!section.is_empty()).then_some(section))
}

/// Whether the clips have test clips, enough to look at.
async fn has_test(run: &Run, table: &str) -> bool {
    if !run.has(table, &["split"]) {
        return false;
    }
    let count = run.ask(&format!("select count(*) as n from {} where split = 'test'", quoted(table))).await;
    count
        .and_then(|rows| primitive::<Int64Type>(&rows, "n"))
        .is_ok_and(|n| n.iter().flatten().next() >= Some(8))
}

/// Rows `place`, `label`, `clip_id`, `segment` (NULL: the whole clip) of a sample.
fn by_label(stage: &str, table: &str, label: &Label, test: bool) -> String {
    let (stage, table, column, order) = (quoted(stage), quoted(table), quoted(&label.column), label.order());
    let test = if test { " and split = 'test'" } else { "" };
    format!(
        "select place, label, clip_id, cast(null as int) as segment from (\n    \
         select clip_id, {column} as label, cast(row_number() over (order by {order}, clip_id) as bigint) - 1 as place, count(*) over () as clips\n    \
         from {table} where {column} is not null{test}\n      and clip_id in (select clip_id from {stage} where segment is null)\n  \
         ) where place % ((clips + {most}) / {SIZE}) = 0",
        most = SIZE - 1
    )
}

/// The first segments of some clips.
fn by_clip(stage: &str) -> String {
    let stage = quoted(stage);
    format!(
        "select c.number * 100 + s.segment as place, c.clip_id as label, c.clip_id, s.segment from (\n    \
         select clip_id, cast(row_number() over (order by clip_id) as bigint) - 1 as number, count(*) over () as clips\n    \
         from (select distinct clip_id from {stage} where segment = 1)\n  ) as c join (\n    \
         select distinct clip_id, segment from {stage} where segment < {SEGMENTS}\n  ) as s on s.clip_id = c.clip_id\n  \
         where c.number % ((c.clips + {most}) / {CLIPS}) = 0",
        most = CLIPS - 1
    )
}

async fn figure(
    run: &Run,
    stage: &str,
    title: &str,
    sample: &str,
    ratio: Option<f64>,
    test: bool,
) -> Result<Option<Figure>, RunError> {
    let table = quoted(stage);
    let sql = format!(
        "with chosen as (\n  {sample}\n), chosen_vectors as (\n  \
         select s.place, s.clip_id, s.label, e.subspace, e.embedding from chosen as s\n  \
         join {table} as e on e.clip_id = s.clip_id and e.segment is not distinct from s.segment\n)\n\
         select a.subspace, a.place as \"row\", b.place as \"column\", a.clip_id as row_clip, b.clip_id as column_clip,\n  \
         a.label as row_label, b.label as column_label, cosine_similarity(a.embedding, b.embedding) as similarity\n\
         from chosen_vectors as a join chosen_vectors as b on a.subspace = b.subspace\norder by 1, 2, 3"
    );
    let rows = run.ask(&sql).await?;
    let cells = Cells::new(&rows)?;
    if cells.places.len() < 2 {
        return Ok(None);
    }
    let mut spaces: Vec<&str> = cells.of.iter().map(|(space, ..)| space.as_str()).collect();
    spaces.dedup();
    spaces.sort_by_key(|space| rank(space));
    let size = cells.places.len();
    let target = cells.target(ratio);
    let mut body = Html::new();
    body.raw("<div class=\"matrices\">");
    let pattern = matrix(
        &target,
        size,
        Shades { low: 0.0, high: 1.0 },
        &format!("{title}: which pairs have the same label"),
    )?;
    body.raw("<figure>").add(&pattern).raw("<figcaption><b>same label</b></figcaption></figure>");
    for space in &spaces {
        let values = cells.matrix(space);
        let aside = values.iter().enumerate().filter(|(i, _)| i / size != i % size).map(|(_, v)| *v);
        let shades = Shades::of(aside);
        let [same, other] = [true, false].map(|wanted| {
            let pairs = values.iter().zip(&target).enumerate();
            let kept =
                pairs.filter(|(i, (v, t))| i / size != i % size && v.is_finite() && (**t > 0.5) == wanted);
            let (sum, count) = kept.fold((0.0, 0u32), |(sum, count), (_, (v, _))| (sum + v, count + 1));
            if count > 0 { sum / f64::from(count) } else { f64::NAN }
        });
        let alt =
            format!("{title}: similarities in {space}; same label {}, others {}", short(same), short(other));
        body.raw("<figure>").add(&matrix(&values, size, shades, &alt)?);
        body.raw("<figcaption><b>").text(space).raw("</b><br>");
        body.text(&format!("same {} \u{b7} others {}", short(same), short(other)));
        body.raw("<br>").add(&scale_bar(shades)).raw("</figcaption></figure>");
    }
    body.raw("</div>");
    let which = if test { "test clips" } else { "clips" };
    let alike = ratio.map_or_else(String::new, |ratio| {
        format!(" Within {:.0}% counts as the same.", 100.0 * (ratio - 1.0))
    });
    let caption = match title.ends_with(", by clip") {
        true => format!("{size} segments, up to {SEGMENTS} of each clip."),
        false => format!("{size} {which}, spread evenly over the order of the label.{alike}"),
    };
    Ok(Some(Figure { title: title.to_owned(), caption, body, data: cells.data(&spaces), sql: vec![sql] }))
}

/// The rows of a figure: subspace, row, column, similarity; and the places with clips and labels.
struct Cells {
    of: Vec<(String, usize, usize, f64)>,
    places: Vec<(i64, String, String)>,
}

impl Cells {
    fn new(rows: &RecordBatch) -> Result<Self, RunError> {
        let spaces = text(rows, "subspace")?;
        let (clips, labels) = (text(rows, "row_clip")?, text(rows, "row_label")?);
        let [from, to] = ["row", "column"].map(|name| primitive::<Int64Type>(rows, name));
        let (from, to) = (from?, to?);
        let values = crate::exec::columns::number(rows, "similarity")?;
        let mut places: Vec<(i64, String, String)> = (0..rows.num_rows())
            .map(|row| (from.value(row), clips.value(row).to_owned(), labels.value(row).to_owned()))
            .collect();
        places.sort();
        places.dedup_by_key(|(place, ..)| *place);
        let at = |place: i64| places.binary_search_by_key(&place, |(place, ..)| *place).ok();
        let cell = |row: usize| {
            let value = if values.is_valid(row) { values.value(row) } else { f64::NAN };
            Some((spaces.value(row).to_owned(), at(from.value(row))?, at(to.value(row))?, value))
        };
        Ok(Self { of: (0..rows.num_rows()).filter_map(cell).collect(), places })
    }

    fn matrix(&self, space: &str) -> Vec<f64> {
        let size = self.places.len();
        let mut values = vec![f64::NAN; size * size];
        for (_, row, column, value) in self.of.iter().filter(|(of, ..)| of == space) {
            values[row * size + column] = *value;
        }
        values
    }

    /// 1 where two have the same label.
    fn target(&self, ratio: Option<f64>) -> Vec<f64> {
        let alike = |a: &str, b: &str| match ratio {
            None => a == b,
            Some(ratio) => match (a.parse::<f64>(), b.parse::<f64>()) {
                (Ok(a), Ok(b)) => a.max(b) <= ratio * a.min(b),
                _ => false,
            },
        };
        let labels = self.places.iter().map(|(.., label)| label);
        labels.clone().flat_map(|a| labels.clone().map(move |b| f64::from(alike(a, b)))).collect()
    }

    /// The matrices one under the other, with a column for each clip.
    fn data(&self, spaces: &[&str]) -> Data {
        let size = self.places.len();
        let each = |f: &dyn Fn(usize, &str) -> serde_json::Value| -> Vec<serde_json::Value> {
            spaces.iter().flat_map(|space| (0..size).map(|row| f(row, space))).collect()
        };
        let mut columns = vec![
            ("subspace".to_owned(), each(&|_, space| space.into())),
            ("clip_id".to_owned(), each(&|row, _| self.places[row].1.as_str().into())),
            ("label".to_owned(), each(&|row, _| self.places[row].2.as_str().into())),
        ];
        let matrices: Vec<Vec<f64>> = spaces.iter().map(|space| self.matrix(space)).collect();
        for (to, (_, clip, _)) in self.places.iter().enumerate() {
            let values = matrices.iter().flat_map(|matrix| (0..size).map(|row| matrix[row * size + to]));
            columns.push((clip.clone(), values.map(|value| rounded((value * 1e3).round() / 1e3)).collect()));
        }
        Data(columns)
    }
}
