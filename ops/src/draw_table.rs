//! Draws as Arrow columns, and back.
//!
//! ```text
//! segment, epoch, view: Int32   centre_s: Float64   key: UInt64   groups: FixedSizeList<Int64>[heads]
//! one struct per leaf of the chain: applied: Boolean
//!     position: Int32 (within a shuffle: its place in processing)
//!     Float64 per number, Utf8 per choice (units in the metadata of the fields)
//!     clip_id: Utf8, uri: Utf8, start_s: Float64 (of the second recording, where the operator has one)
//! ```
//! An operator that was not applied has `applied = false` and null parameters. A factor with identity parameters is
//! always applied, so its columns hold no nulls. The chain itself goes into the metadata of the schema.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeListArray, Float64Array, Int32Array, Int64Array,
    RecordBatch, StringArray, StructArray, UInt64Array,
};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type, UInt64Type};
use arrow::error::ArrowError;
use serde::{Deserialize, Serialize};

use crate::chain::{Chain, Leaf, check_draw};
use crate::operator::{OperatorDef, ParamDef, ParamKind};
use crate::operators::find;
use crate::views::{Draw, Partner};

/// The key of a table's schema metadata under which [`chain_metadata`] stands.
pub const METADATA: &str = "loev.chain";

#[derive(Serialize, Deserialize)]
struct Stored {
    chain: Chain,
    operators: std::collections::BTreeMap<String, u32>,
}

/// The metadata entry that says how the draws of a table came about: the chain and its operators' versions.
pub fn chain_metadata(chain: &Chain) -> (String, String) {
    let operators = chain.operators().into_iter().map(|s| (s.name().to_owned(), s.def().version)).collect();
    let stored = Stored { chain: chain.clone(), operators };
    // Serialising plain data to a string has no way to fail; an empty entry would be refused on reading.
    (METADATA.to_owned(), serde_json::to_string(&stored).unwrap_or_default())
}

/// The chain of a table of draws.
///
/// # Errors
/// When the entry is missing or damaged, or when an operator has another version now: its draws would render
/// to other samples.
pub fn chain_from_metadata(metadata: &HashMap<String, String>) -> Result<Chain, ArrowError> {
    let schema_error = |m: String| ArrowError::SchemaError(m);
    let text = metadata.get(METADATA).ok_or_else(|| {
        schema_error(format!("the table has no `{METADATA}` entry: it does not hold draws"))
    })?;
    let stored: Stored = serde_json::from_str(text)
        .map_err(|e| schema_error(format!("the `{METADATA}` entry cannot be read: {e}")))?;
    for (name, version) in &stored.operators {
        let now = find(name).map_or(0, |def| def.version);
        if now != *version {
            return Err(schema_error(format!(
                "the draws were made with version {version} of `{name}`, this program has version {now}"
            )));
        }
    }
    Ok(stored.chain)
}

/// The fields of a table of draws of `chain`, in order.
pub fn draw_fields(chain: &Chain) -> Vec<Field> {
    let mut fields = vec![
        Field::new("segment", DataType::Int32, false),
        Field::new("epoch", DataType::Int32, false),
        Field::new("view", DataType::Int32, false),
        Field::new("centre_s", DataType::Float64, false).with_metadata(unit("s")),
        Field::new("draw_key", DataType::UInt64, false),
        Field::new_fixed_size_list("groups", group_item(), chain.heads().len() as i32, false),
    ];
    fields.extend(chain.leaves().iter().zip(chain.columns()).map(|(leaf, column)| {
        let inner = leaf_fields(leaf);
        let version = HashMap::from([("version".to_owned(), leaf.spec.def().version.to_string())]);
        Field::new_struct(column, inner, false).with_metadata(version)
    }));
    fields
}

fn unit(text: &str) -> HashMap<String, String> {
    if text.is_empty() { HashMap::new() } else { HashMap::from([("unit".to_owned(), text.to_owned())]) }
}

fn group_item() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Int64, false))
}

fn leaf_fields(leaf: &Leaf) -> Fields {
    let def = leaf.spec.def();
    let param = |p: &ParamDef| {
        let kind = match p.kind {
            ParamKind::Number { .. } => DataType::Float64,
            ParamKind::Choice { .. } => DataType::Utf8,
        };
        Field::new(p.name, kind, leaf.may_skip).with_metadata(unit(p.unit))
    };
    let mut fields = vec![Field::new("applied", DataType::Boolean, false)];
    if leaf.shuffle.is_some() {
        fields.push(Field::new("position", DataType::Int32, false));
    }
    fields.extend(def.params.iter().map(param));
    if def.partner().is_some() {
        fields.push(Field::new("clip_id", DataType::Utf8, true));
        fields.push(Field::new("uri", DataType::Utf8, true));
        fields.push(Field::new("start_s", DataType::Float64, true).with_metadata(unit("s")));
    }
    fields.into()
}

/// The columns of [`draw_fields`] for these draws.
///
/// # Errors
/// When a draw does not have the shape that `chain` gives.
pub fn draws_to_arrays(chain: &Chain, draws: &[Draw]) -> Result<Vec<ArrayRef>, ArrowError> {
    let invalid = |m: String| ArrowError::InvalidArgumentError(m);
    let heads = chain.heads().len();
    let leaves = chain.leaves();
    for draw in draws {
        check_draw(&leaves, draw).map_err(|e| invalid(e.message))?;
        if draw.groups.len() != heads {
            return Err(invalid("a draw does not fit its chain: the number of groups".into()));
        }
    }
    let int32 = |of: fn(&Draw) -> u32| {
        let values = draws.iter().map(|d| i32::try_from(of(d)));
        let values = values.collect::<Result<Vec<_>, _>>();
        values.map(|v| Arc::new(Int32Array::from(v)) as ArrayRef).map_err(|e| invalid(e.to_string()))
    };
    let groups = Int64Array::from_iter_values(draws.iter().flat_map(|d| d.groups.iter().copied()));
    let mut arrays: Vec<ArrayRef> = vec![
        int32(|d| d.segment)?,
        int32(|d| d.epoch)?,
        int32(|d| d.view)?,
        Arc::new(Float64Array::from_iter_values(draws.iter().map(|d| d.centre_s))),
        Arc::new(UInt64Array::from_iter_values(draws.iter().map(|d| d.key))),
        Arc::new(FixedSizeListArray::try_new(group_item(), heads as i32, Arc::new(groups), None)?),
    ];
    for (i, leaf) in leaves.iter().enumerate() {
        let params = |d: &Draw| d.params.get(i).and_then(Option::as_ref).cloned();
        let mut columns: Vec<ArrayRef> =
            vec![Arc::new(BooleanArray::from_iter(draws.iter().map(|d| Some(params(d).is_some()))))];
        if leaf.shuffle.is_some() {
            let position = |d: &Draw| d.order.iter().position(|leaf| *leaf == i).map(|at| at as i32);
            columns.push(Arc::new(Int32Array::from_iter(draws.iter().map(position))));
        }
        for (j, param) in leaf.spec.def().params.iter().enumerate() {
            let values = draws.iter().map(|d| params(d)?.get(j).copied());
            columns.push(match &param.kind {
                ParamKind::Number { .. } => Arc::new(Float64Array::from_iter(values)),
                ParamKind::Choice { options, .. } => {
                    let names = values.map(|v| v.and_then(|v| options.get(v as usize)));
                    Arc::new(StringArray::from_iter(names))
                }
            });
        }
        if leaf.spec.def().partner().is_some() {
            let partners = || draws.iter().map(|d| d.partners.get(i).and_then(Option::as_ref));
            columns.push(Arc::new(partners().map(|p| Some(&p?.clip_id)).collect::<StringArray>()));
            columns.push(Arc::new(partners().map(|p| Some(&p?.uri)).collect::<StringArray>()));
            columns.push(Arc::new(partners().map(|p| Some(p?.start_s)).collect::<Float64Array>()));
        }
        arrays.push(Arc::new(StructArray::try_new(leaf_fields(leaf), columns, None)?));
    }
    Ok(arrays)
}

/// The draws of a batch that has the columns of [`draw_fields`], in any order and among others.
///
/// # Errors
/// When a column is missing or of another type, or a value is not one that `chain` allows.
pub fn draws_from_batch(chain: &Chain, batch: &RecordBatch) -> Result<Vec<Draw>, ArrowError> {
    let fields = draw_fields(chain);
    for field in &fields {
        let found = column(batch, field.name())?.data_type();
        let same_kind = matches!((found, field.data_type()), (DataType::Struct(_), DataType::Struct(_)))
            || found.equals_datatype(field.data_type());
        if !same_kind {
            let want = field.data_type();
            return Err(ArrowError::SchemaError(format!("column `{}` is {found}, not {want}", field.name())));
        }
    }
    let int32 = |name| Ok::<_, ArrowError>(column(batch, name)?.as_primitive::<Int32Type>());
    let (segment, epoch, view) = (int32("segment")?, int32("epoch")?, int32("view")?);
    let centre_s = column(batch, "centre_s")?.as_primitive::<Float64Type>();
    let key = column(batch, "draw_key")?.as_primitive::<UInt64Type>();
    let groups = column(batch, "groups")?.as_fixed_size_list();
    let leaves = chain.leaves();
    let columns =
        leaves.iter().zip(chain.columns()).map(|(leaf, name)| Ok((leaf, column(batch, &name)?.as_struct())));
    let columns: Vec<(&Leaf, &StructArray)> = columns.collect::<Result<_, ArrowError>>()?;
    (0..batch.num_rows())
        .map(|row| {
            let params = columns.iter().map(|(leaf, array)| read_params(leaf.spec.def(), array, row));
            let partners = columns.iter().map(|(leaf, array)| read_partner(leaf.spec.def(), array, row));
            let group = groups.value(row);
            let draw = Draw {
                segment: unsigned(segment.value(row))?,
                epoch: unsigned(epoch.value(row))?,
                view: unsigned(view.value(row))?,
                centre_s: centre_s.value(row),
                key: key.value(row),
                params: params.collect::<Result<_, _>>()?,
                partners: partners.collect::<Result<_, _>>()?,
                order: read_order(&columns, row)?,
                groups: group.as_primitive::<Int64Type>().values().to_vec(),
            };
            check_draw(&leaves, &draw).map_err(|e| ArrowError::InvalidArgumentError(e.message))?;
            Ok(draw)
        })
        .collect()
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    batch.column_by_name(name).ok_or_else(|| ArrowError::SchemaError(format!("there is no column `{name}`")))
}

fn unsigned(value: i32) -> Result<u32, ArrowError> {
    u32::try_from(value)
        .map_err(|_| ArrowError::InvalidArgumentError(format!("{value} where a count belongs")))
}

fn wrong(def: &OperatorDef, name: &str) -> ArrowError {
    ArrowError::SchemaError(format!("`{name}` of `{}` is missing or of another type", def.name))
}

fn child<'a>(def: &OperatorDef, array: &'a StructArray, name: &str) -> Result<&'a ArrayRef, ArrowError> {
    array.column_by_name(name).ok_or_else(|| wrong(def, name))
}

/// The parameters of one operator in one row; `None` when it was not applied.
fn read_params(def: &OperatorDef, array: &StructArray, row: usize) -> Result<Option<Vec<f64>>, ArrowError> {
    let applied = child(def, array, "applied")?.as_boolean_opt().ok_or_else(|| wrong(def, "applied"))?;
    if !applied.value(row) {
        return Ok(None);
    }
    let params = def.params.iter().map(|param| {
        let values = child(def, array, param.name)?;
        if values.is_null(row) {
            return Err(wrong(def, param.name));
        }
        let value = match &param.kind {
            ParamKind::Number { .. } => values.as_primitive_opt::<Float64Type>().map(|v| v.value(row)),
            ParamKind::Choice { options, .. } => values
                .as_string_opt::<i32>()
                .and_then(|v| options.iter().position(|o| *o == v.value(row)))
                .map(|i| i as f64),
        };
        value.ok_or_else(|| wrong(def, param.name))
    });
    params.collect::<Result<Vec<_>, _>>().map(Some)
}

/// The second recording of one operator in one row, if there is one.
fn read_partner(def: &OperatorDef, array: &StructArray, row: usize) -> Result<Option<Partner>, ArrowError> {
    if def.partner().is_none() {
        return Ok(None);
    }
    let text = |name| child(def, array, name)?.as_string_opt::<i32>().ok_or_else(|| wrong(def, name));
    let start = child(def, array, "start_s")?.as_primitive_opt::<Float64Type>();
    let (clip_id, uri, start) = (text("clip_id")?, text("uri")?, start.ok_or_else(|| wrong(def, "start_s"))?);
    if uri.is_null(row) {
        return Ok(None);
    }
    let (clip_id, uri) = (clip_id.value(row).to_owned(), uri.value(row).to_owned());
    Ok(Some(Partner { clip_id, uri, start_s: start.value(row) }))
}

/// The leaves in the order of processing: those of a shuffle where their column says, the others as they are listed.
fn read_order(columns: &[(&Leaf, &StructArray)], row: usize) -> Result<Vec<usize>, ArrowError> {
    let mut order: Vec<usize> = (0..columns.len()).collect();
    for (i, (leaf, array)) in columns.iter().enumerate().filter(|(_, (leaf, _))| leaf.shuffle.is_some()) {
        let def = leaf.spec.def();
        let position = child(def, array, "position")?.as_primitive_opt::<Int32Type>();
        let at = position.ok_or_else(|| wrong(def, "position"))?.value(row);
        let slot = usize::try_from(at).ok().and_then(|at| order.get_mut(at));
        *slot.ok_or_else(|| wrong(def, "position"))? = i;
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Channels, Sampling};
    use crate::rng::Key;
    use crate::views::Pools;
    use arrow::datatypes::Schema;

    fn chain() -> Chain {
        let base = r#"["gain", "polarity", "colored_noise", "filter", "gain"]"#;
        Chain {
            sample_rate: 16_000,
            seconds: 3.0,
            channels: Channels::Mono,
            base: serde_json::from_str(base).unwrap(),
            variant: serde_json::from_str(r#"["pitch_shift", "time_stretch"]"#).unwrap(),
            sampling: Sampling::Factorial,
        }
    }

    fn draws(chain: &Chain) -> Vec<Draw> {
        (0..20)
            .flat_map(|s| chain.draw_segment(Key::root(9), "clip", 20.0, s, 1, &Pools::new()).unwrap())
            .collect()
    }

    #[test]
    fn draws_survive_the_round_trip() {
        let chain = chain();
        let draws = draws(&chain);
        let arrays = draws_to_arrays(&chain, &draws).unwrap();
        let (name, text) = chain_metadata(&chain);
        let schema = Schema::new(draw_fields(&chain)).with_metadata(HashMap::from([(name, text)]));
        // `try_new` also checks that columns without nulls are declared so, and the reverse.
        let batch = RecordBatch::try_new(Arc::new(schema), arrays).unwrap();
        assert_eq!(draws_from_batch(&chain, &batch).unwrap(), draws);
        assert_eq!(chain_from_metadata(batch.schema().metadata()).unwrap(), chain);
        let gain = batch.column_by_name("gain_2").unwrap().as_struct();
        let nulls = gain.column_by_name("db").unwrap().null_count();
        assert!(nulls > 0 && nulls < draws.len());
    }

    #[test]
    fn fields_carry_units_versions_and_honest_nullability() {
        let schema = Schema::new(draw_fields(&chain()));
        let DataType::Struct(pitch) = schema.field_with_name("pitch_shift").unwrap().data_type().clone()
        else {
            panic!("not a struct")
        };
        assert_eq!(pitch[1].metadata()["unit"], "semitones");
        assert!(!pitch[1].is_nullable());
        let filter = schema.field_with_name("filter").unwrap();
        assert_eq!(filter.metadata()["version"], "2");
        let DataType::Struct(filter) = filter.data_type() else { panic!("not a struct") };
        assert_eq!((filter[1].name().as_str(), filter[1].data_type()), ("kind", &DataType::Utf8));
        assert!(filter[1].is_nullable() && !filter[0].is_nullable());
    }

    #[test]
    fn another_version_and_bad_tables_are_refused() {
        let chain = chain();
        let (name, text) = chain_metadata(&chain);
        let older = text.replace(r#""gain":2"#, r#""gain":7"#);
        let error = chain_from_metadata(&HashMap::from([(name.clone(), older)])).unwrap_err().to_string();
        assert!(error.contains("version 7 of `gain`, this program has version 2"), "{error}");
        assert!(chain_from_metadata(&HashMap::new()).is_err());
        assert!(chain_from_metadata(&HashMap::from([(name, "{".into())])).is_err());

        let draws = draws(&chain);
        let arrays = draws_to_arrays(&chain, &draws).unwrap();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(draw_fields(&chain))), arrays).unwrap();
        let without = batch.project(&[0, 1, 2, 3, 4, 5, 6]).unwrap();
        assert!(draws_from_batch(&chain, &without).unwrap_err().to_string().contains("time_stretch"));
        let mut bad = draws;
        bad[0].params[0] = Some(vec![99.0]);
        assert!(
            draws_to_arrays(&chain, &bad).unwrap_err().to_string().contains("`semitones` of `pitch_shift`")
        );
        bad[0].params[0] = None;
        assert!(draws_to_arrays(&chain, &bad).is_err());
    }
}
