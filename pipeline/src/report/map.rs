//! The map: clips as points, by their embeddings in each subspace, with labels, neighbours and sound.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Schema};
use loev_models::evaluate::{Vectors, nearest};
use loev_sql::quoted;
use serde_json::{Value, json};

use super::ask::{Run, colour, rank};
use super::figure::{Data, Figure, Section, number};
use super::html::{Html, visible};
use super::sound::Clip;
use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SECONDS, SHARD, URI, column, primitive, text};
use crate::stages::tables::vectors;

/// Neighbours of each clip in each subspace.
const NEAR: usize = 6;
/// Maps by t-SNE are made of so many clips at most: it takes time, for each subspace.
const TSNE: usize = 2000;
/// Coordinates are whole numbers up to this.
const GRID: f64 = 4095.0;
/// Values of a label beyond which it is a text to read and no colour.
const VALUES: usize = 48;
/// Tags of a list that can be shown.
const TAGS: usize = 12;
/// Characters of a label.
const LONGEST: usize = 80;

/// The map.
#[derive(Debug)]
pub struct Map {
    /// The section that it stands in.
    pub section: Section,
    /// For the script.
    pub data: Value,
    /// Its clips.
    pub clips: Vec<Clip>,
}

/// The map of at most `most` clips, if the pipeline embeds clips.
///
/// # Errors
/// When the user asked to stop.
pub async fn map(run: &Run, most: usize, spaces: &[String]) -> Result<Option<Map>, RunError> {
    let mut section = Section::new(
        "map",
        "Map of clips",
        "Each point is a clip, placed by its mean embedding. Choose a subspace and a label; drag to move, scroll or pinch to zoom, \
         and click a point to hear it and to see its nearest clips in every subspace.",
    );
    let stages = run.embeddings(false);
    let names: Vec<&str> = stages.iter().map(|(stage, _)| *stage).collect();
    let needs = [CLIP_ID, "segment", "subspace", "embedding"];
    let readable = run.readable(&names, &needs, &mut section.marks);
    let Some((_, table)) = stages.iter().find(|(stage, _)| readable.contains(stage)) else {
        return Ok((!section.is_empty()).then(|| Map { section, data: Value::Null, clips: Vec::new() }));
    };
    let drawn = points(run, table, most, &readable, spaces, &mut section).await;
    let (data, clips) = match drawn {
        Ok(drawn) => drawn,
        Err(error @ (RunError::Interrupted | RunError::Memory { .. })) => return Err(error),
        Err(error) => {
            section.marks.push(error.to_string());
            (Value::Null, Vec::new())
        }
    };
    Ok(Some(Map { section, data, clips }))
}

async fn points(
    run: &Run,
    table: &str,
    most: usize,
    stages: &[&str],
    spaces: &[String],
    section: &mut Section,
) -> Result<(Value, Vec<Clip>), RunError> {
    let schema = run.schema(table).ok_or_else(|| RunError::Engine(format!("no table `{table}`")))?;
    let count = run.ask(&format!("select count(*) as n from {}", quoted(table))).await?;
    let count = primitive::<arrow::datatypes::Int64Type>(&count, "n")?.iter().flatten().next().unwrap_or(0);
    let each = count.unsigned_abs().div_ceil(most.max(1) as u64).max(1);
    let columns: Vec<String> = shown(schema).into_iter().map(quoted).collect();
    let source = match each {
        1 => quoted(table),
        _ => format!(
            "(select *, cast(row_number() over (order by {CLIP_ID}) as bigint) - 1 as place from {}) where place % {each} = 0",
            quoted(table)
        ),
    };
    let sql = format!("select {} from {source} order by {CLIP_ID}", columns.join(", "));
    let found = first_of_each(&run.ask(&sql).await?)?;
    let ids = text(&found, CLIP_ID)?;
    let number_of: BTreeMap<&str, usize> =
        ids.iter().enumerate().filter_map(|(i, id)| Some((id?, i))).collect();
    let clips = clips(&found)?;

    let mut statements = vec![sql];
    let mut placed = Vec::new();
    let sampled =
        if each > 1 { format!(" and {CLIP_ID} in (select {CLIP_ID} from {source})") } else { String::new() };
    for stage in stages {
        for table in std::iter::once((*stage).to_owned()).chain(run.baseline(stage)) {
            let sql = format!("select distinct subspace from {} order by 1", quoted(&table));
            let mut names: Vec<String> =
                text(&run.ask(&sql).await?, "subspace")?.iter().flatten().map(str::to_owned).collect();
            names.sort_by_key(|name| rank(name));
            for name in names {
                let vectors = format!(
                    "select {CLIP_ID}, embedding from {} where segment is null and subspace = '{}'{sampled} order by {CLIP_ID}",
                    quoted(&table),
                    name.replace('\'', "''")
                );
                match space(run, &vectors, &table, &number_of, ids.len()).await {
                    Ok((mut space, sql)) => {
                        space["stage"] = visible(stage).into();
                        space["subspace"] = visible(&name).into();
                        space["colour"] = colour(spaces, &name).into();
                        placed.push(space);
                        statements.extend(sql);
                    }
                    Err(error @ (RunError::Interrupted | RunError::Memory { .. })) => return Err(error),
                    Err(error) => section.marks.push(format!("{table}, {name}: {error}")),
                }
            }
        }
    }
    if placed.is_empty() || ids.is_empty() {
        return Err(RunError::Engine("there is no clip with an embedding".to_owned()));
    }
    let labels = labels(&found)?;
    let first = run.stages().iter().find_map(|(stage, _)| {
        let task = run.option(stage, "tasks")?.as_array()?.first()?.as_object()?.values().next()?.as_str()?;
        labels.iter().position(|label| label["name"] == task)
    });
    let ids: Vec<Value> = ids.iter().map(|id| visible(id.unwrap_or("")).into()).collect();
    let mut caption = format!("{} clips of {count}.", ids.len());
    if each > 1 {
        caption = format!("{caption} One clip in {each} is taken; neighbours are among these.");
    }
    section.figures.push(Figure {
        title: "Clips".to_owned(),
        caption,
        body: frame(),
        sql: statements,
        data: Data::default(),
    });
    let data =
        json!({ "ids": ids, "labels": labels, "spaces": placed, "near": NEAR, "grid": GRID, "first": first });
    Ok((data, clips))
}

/// Columns that tell something of a clip.
fn shown(schema: &Schema) -> Vec<&str> {
    let is_text = |kind: &DataType| matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    let tells = |name: &str, kind: &DataType| match kind {
        _ if [CLIP_ID, URI, SECONDS].contains(&name) => true,
        _ if [SHARD, "digest", "bytes", "view_id"].contains(&name) => false,
        DataType::Boolean => true,
        DataType::List(item) => is_text(item.data_type()),
        kind => is_text(kind) || kind.is_numeric(),
    };
    let fields = schema.fields().iter().filter(|field| tells(field.name(), field.data_type()));
    fields.map(|field| field.name().as_str()).collect()
}

/// One row for each clip: of several, the first.
fn first_of_each(found: &RecordBatch) -> Result<RecordBatch, RunError> {
    let mut seen = BTreeSet::new();
    let ids = text(found, CLIP_ID)?;
    let kept: Vec<bool> = ids.iter().map(|id| id.is_some_and(|id| seen.insert(id))).collect();
    Ok(arrow::compute::filter_record_batch(found, &kept.into())?)
}

fn clips(found: &RecordBatch) -> Result<Vec<Clip>, RunError> {
    if found.column_by_name(URI).is_none() {
        return Ok(Vec::new());
    }
    let uris = text(found, URI)?;
    let seconds = match found.column_by_name(SECONDS) {
        Some(_) => primitive::<Float64Type>(found, SECONDS)?.iter().collect(),
        None => vec![None; uris.len()],
    };
    let clip =
        |(uri, seconds): (Option<&str>, Option<f64>)| Clip { uri: uri.unwrap_or("").to_owned(), seconds };
    Ok(uris.iter().zip(seconds).map(clip).collect())
}

/// One subspace: places, and the nearest clips of each; and the statements that they come from.
async fn space(
    run: &Run,
    sql: &str,
    table: &str,
    number_of: &BTreeMap<&str, usize>,
    clips: usize,
) -> Result<(Value, Vec<String>), RunError> {
    let found = run.ask(sql).await?;
    let ids = text(&found, CLIP_ID)?;
    let (values, dim) = vectors(&found, table)?;
    // Vectors that are whole, of clips on the map.
    let (mut of, mut kept) = (Vec::new(), Vec::new());
    for (id, vector) in ids.iter().zip(values.values().chunks_exact(dim.max(1))) {
        if let Some(clip) = id.and_then(|id| number_of.get(id))
            && vector.iter().all(|v| v.is_finite())
        {
            of.push(*clip);
            kept.extend_from_slice(vector);
        }
    }
    if of.is_empty() {
        return Err(RunError::Engine("no clip has an embedding that is finite".to_owned()));
    }
    let (layouts, mut statements) = layouts(run, sql, number_of, clips, of.len()).await?;
    statements.insert(0, sql.to_owned());

    let (mut near, mut like) = (vec![json!([]); clips], vec![json!([]); clips]);
    let k = NEAR.min(of.len() - 1);
    if k > 0 {
        let vectors = Vectors::normalised(kept, dim).map_err(|e| RunError::Engine(e.to_string()))?;
        let own: Vec<Option<usize>> = (0..of.len()).map(Some).collect();
        let found = nearest(&vectors, &vectors, &own, k).map_err(|e| RunError::Engine(e.to_string()))?;
        for (row, found) in found.chunks_exact(k).enumerate() {
            near[of[row]] = found.iter().map(|n| Value::from(of[n.item])).collect();
            like[of[row]] =
                found.iter().map(|n| number((f64::from(n.similarity) * 1e3).round() / 1e3)).collect();
        }
    }
    Ok((json!({ "layouts": layouts, "near": near, "like": like }), statements))
}

/// The ways to place the vectors that `sql` selects, and the statements that do: principal components, and for maps that
/// are not large t-SNE, by angles as the neighbours are.
async fn layouts(
    run: &Run,
    sql: &str,
    number_of: &BTreeMap<&str, usize>,
    clips: usize,
    rows: usize,
) -> Result<(Vec<Value>, Vec<String>), RunError> {
    let (mut layouts, mut statements) = (Vec::new(), Vec::new());
    if rows >= 2 {
        let sql = format!(
            "select {CLIP_ID}, pc[1] as x, pc[2] as y, explained[1] as share_x, explained[2] as share_y from pca((\n  {sql}\n), 2)"
        );
        let found = run.ask(&sql).await?;
        let [first, second] = ["share_x", "share_y"].map(|name| primitive::<Float64Type>(&found, name));
        let percent =
            |shares: &Float64Array| shares.iter().flatten().next().map_or(0.0, |share| 100.0 * share);
        let note = format!("{:.0}% and {:.0}% of the variance", percent(&first?), percent(&second?));
        layouts.push(layout("principal components", &note, &placed(&found, number_of)?, clips));
        statements.push(sql);
    }
    if (4..=TSNE).contains(&rows) {
        let normal = format!(
            "select {CLIP_ID}, l2_normalize(embedding) as embedding from (\n  {sql}\n) order by {CLIP_ID}"
        );
        let sql = format!("select {CLIP_ID}, x, y from embedding_map((\n  {normal}\n), seed => 1)");
        let found = run.ask(&sql).await?;
        let note = "what is near has near angles; distances between groups mean little";
        layouts.push(layout("t-SNE", note, &placed(&found, number_of)?, clips));
        statements.push(sql);
    }
    if layouts.is_empty() {
        layouts.push(layout(
            "one clip",
            "",
            &number_of.values().map(|clip| (*clip, 0.0, 0.0)).collect::<Vec<_>>(),
            clips,
        ));
    }
    Ok((layouts, statements))
}

/// The clips that a layout places: their numbers and coordinates.
fn placed(
    found: &RecordBatch,
    number_of: &BTreeMap<&str, usize>,
) -> Result<Vec<(usize, f64, f64)>, RunError> {
    let ids = text(found, CLIP_ID)?;
    let [x, y] = ["x", "y"].map(|name| primitive::<Float64Type>(found, name));
    let (x, y) = (x?, y?);
    let place = |((id, x), y): ((Option<&str>, Option<f64>), Option<f64>)| {
        let (x, y) = (x.filter(|x| x.is_finite())?, y.filter(|y| y.is_finite())?);
        Some((*number_of.get(id?)?, x, y))
    };
    Ok(ids.iter().zip(x.iter()).zip(y.iter()).filter_map(place).collect())
}

/// Places on a grid, the same in both directions; clips without a place have none.
fn layout(name: &str, note: &str, at: &[(usize, f64, f64)], clips: usize) -> Value {
    let (left, right) = super::chart::range(at.iter().map(|(_, x, _)| *x));
    let (bottom, top) = super::chart::range(at.iter().map(|(.., y)| *y));
    let unit = ((right - left).max(top - bottom) / GRID).max(f64::MIN_POSITIVE);
    let (mut x, mut y) = (vec![Value::Null; clips], vec![Value::Null; clips]);
    for (clip, across, up) in at {
        x[*clip] = (((across - left) / unit).round() as i64).into();
        y[*clip] = (((up - bottom) / unit).round() as i64).into();
    }
    json!({ "name": name, "note": note, "unit": number(unit), "from": [number(left), number(bottom)], "x": x, "y": y })
}

/// The labels of the clips, for the script: categories, numbers, and texts to read.
fn labels(found: &RecordBatch) -> Result<Vec<Value>, RunError> {
    let mut labels = Vec::new();
    for field in
        found.schema().fields().iter().filter(|field| ![CLIP_ID, URI].contains(&field.name().as_str()))
    {
        let name = field.name().as_str();
        match field.data_type() {
            DataType::List(_) => labels.extend(tags(found, name)?),
            kind if kind.is_numeric() => {
                let values: Vec<Value> = primitive::<Float64Type>(found, name)?
                    .iter()
                    .map(|v| v.map_or(Value::Null, number))
                    .collect();
                let distinct: BTreeSet<String> = values.iter().map(Value::to_string).collect();
                if distinct.len() > 1 {
                    labels.push(json!({ "name": visible(name), "kind": "number", "of": values }));
                }
            }
            DataType::Boolean => {
                let values = column(found, name, &DataType::Boolean)?;
                let words = values.as_boolean().iter().map(|v| v.map(|v| if v { "true" } else { "false" }));
                labels.push(category(name, &words.collect::<StringArray>()));
            }
            _ => labels.push(category(name, &text(found, name)?)),
        }
    }
    Ok(labels)
}

/// A label with few values, the most frequent first; with many, a text.
fn category(name: &str, values: &StringArray) -> Value {
    let short = |value: &str| -> String { visible(value).chars().take(LONGEST).collect() };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    values.iter().flatten().for_each(|value| *counts.entry(value).or_default() += 1);
    if counts.len() > VALUES {
        let of: Vec<Value> = values.iter().map(|v| v.map_or(Value::Null, |v| short(v).into())).collect();
        return json!({ "name": visible(name), "kind": "text", "of": of });
    }
    // By name: keys and classes are looked for by theirs.
    let order: Vec<&str> = counts.keys().copied().collect();
    let of: Vec<Option<usize>> = values.iter().map(|v| order.binary_search(&v?).ok()).collect();
    let names: Vec<String> = order.iter().map(|value| short(value)).collect();
    json!({ "name": visible(name), "kind": "category", "values": names, "of": of })
}

/// A label for each of the most frequent tags of a list.
fn tags(found: &RecordBatch, name: &str) -> Result<Vec<Value>, RunError> {
    let item = std::sync::Arc::new(arrow::datatypes::Field::new_list_field(DataType::Utf8, true));
    let lists = column(found, name, &DataType::List(item))?;
    let lists = lists.as_list::<i32>();
    let of_row = |row: usize| -> BTreeSet<String> {
        if lists.is_null(row) {
            return BTreeSet::new();
        }
        lists.value(row).as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    };
    let rows: Vec<BTreeSet<String>> = (0..lists.len()).map(of_row).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().flatten().for_each(|tag| *counts.entry(tag).or_default() += 1);
    let mut order: Vec<(&str, usize)> = counts.into_iter().collect();
    order.sort_by_key(|(tag, count)| (std::cmp::Reverse(*count), *tag));
    let of_tag = |(tag, _): &(&str, usize)| {
        let of: Vec<usize> = rows.iter().map(|tags| usize::from(!tags.contains(*tag))).collect();
        let title = format!("{name}: {tag}");
        json!({ "name": visible(&title), "kind": "category", "values": ["yes", "no"], "of": of })
    };
    Ok(order.iter().take(TAGS).map(of_tag).collect())
}

/// What the script fills.
fn frame() -> Html {
    let mut html = Html::new();
    html.raw(
        "<noscript><p class=\"mark\">The map needs JavaScript, which this page brings with it.</p></noscript>\
         <div id=\"map-app\" hidden><div class=\"controls\">\
         <label>Subspace <select id=\"map-space\"></select></label>\
         <label id=\"map-layouts\">Layout <select id=\"map-layout\"></select></label>\
         <label>Label <select id=\"map-label\"></select></label>\
         <label>Find <input id=\"map-find\" list=\"map-ids\" placeholder=\"a clip\" autocomplete=\"off\"></label>\
         <datalist id=\"map-ids\"></datalist></div>\
         <div class=\"map\"><div class=\"stage-area\"><canvas id=\"map-canvas\" tabindex=\"0\" role=\"application\" \
         aria-label=\"Map of clips. Arrow keys move, plus and minus zoom, 0 shows all; the field Find chooses a clip.\"></canvas>\
         <div class=\"zoom\"><button type=\"button\" id=\"map-in\" aria-label=\"Zoom in\">+</button>\
         <button type=\"button\" id=\"map-out\" aria-label=\"Zoom out\">\u{2212}</button>\
         <button type=\"button\" id=\"map-all\" aria-label=\"Show all\">\u{2922}</button></div>\
         <div id=\"map-tip\" hidden></div><p id=\"map-note\" class=\"hint\"></p></div>\
         <div id=\"map-legend\" aria-label=\"Legend\"></div></div>\
         <div id=\"map-clip\" aria-live=\"polite\"></div></div>",
    );
    html
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array};

    use super::*;

    #[test]
    fn labels_are_what_they_hold() {
        let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
        for row in [vec!["drums", "bass"], vec!["drums"], vec![]] {
            row.iter().for_each(|tag| tags.values().append_value(tag));
            tags.append(true);
        }
        let columns: Vec<(&str, ArrayRef)> = vec![
            (CLIP_ID, Arc::new(StringArray::from(vec!["a", "b", "c"]))),
            ("key", Arc::new(StringArray::from(vec![Some("C\u{202e}"), None, Some("A")]))),
            ("bpm", Arc::new(Int32Array::from(vec![Some(90), None, Some(120)]))),
            ("same", Arc::new(Int32Array::from(vec![1, 1, 1]))),
            ("tags", Arc::new(tags.finish())),
        ];
        let found = RecordBatch::try_from_iter(columns).unwrap();
        let labels = labels(&found).unwrap();
        assert_eq!(
            labels,
            [
                json!({ "name": "key", "kind": "category", "values": ["A", "C\u{27e8}U+202E\u{27e9}"], "of": [1, null, 0] }),
                json!({ "name": "bpm", "kind": "number", "of": [90.0, null, 120.0] }),
                json!({ "name": "tags: drums", "kind": "category", "values": ["yes", "no"], "of": [0, 0, 1] }),
                json!({ "name": "tags: bass", "kind": "category", "values": ["yes", "no"], "of": [0, 1, 1] }),
            ]
        );
        assert_eq!(shown(found.schema_ref()), [CLIP_ID, "key", "bpm", "same", "tags"]);
    }

    #[test]
    fn places_are_on_a_grid_of_one_unit() {
        let placed = layout("x", "", &[(2, -1.0, 0.0), (0, 3.0, 1.0)], 3);
        assert_eq!(placed["x"], json!([4095, null, 0]));
        assert_eq!(placed["y"], json!([1024, null, 0]));
        assert_eq!(layout("x", "", &[(0, 5.0, 5.0)], 1)["x"], json!([0]));
    }
}
