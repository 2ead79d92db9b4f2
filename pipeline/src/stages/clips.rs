//! What `synth` and `files` share: how clips are spread over shards.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_ops::rng::Key;

use crate::error::RunError;
use crate::exec::columns::SHARD;
use crate::resume::recipe::Recipe;
use crate::resume::work::Shard;
use crate::run::context::shard_file;

/// The shard of a clip: a function of its name, so that adding a clip moves no other.
pub fn shard_of(clip_id: &str, shards: u32) -> u32 {
    (Key::root(0).with_str("shard").with_str(clip_id).value() % u64::from(shards)) as u32
}

/// Shards of a table of clips: as many as its stage says, else so many that what is under way with a shard, and what
/// is lost with it, does not grow with the number of clips. Powers of two, so that the number seldom changes.
pub fn shard_count(said: Option<u32>, clips: u64) -> u32 {
    const LEAST: u32 = 8;
    const MOST: u32 = 1024;
    const CLIPS: u64 = 256;
    let enough = clips.div_ceil(CLIPS).min(u64::from(MOST)) as u32;
    said.unwrap_or_else(|| enough.next_power_of_two().max(LEAST))
}

/// The files of a table of clips. `content` tells what goes into a shard beside the recipe.
pub fn shards(table: &str, recipe: &Recipe, shards: u32, content: impl Fn(u32) -> String) -> Vec<Shard> {
    let shard = |number: u32| {
        let file = shard_file(number as usize);
        let recipe = recipe.shard(&[&file, &shards.to_string(), &content(number)]);
        Shard { table: table.to_owned(), file, recipe }
    };
    (0..shards).map(shard).collect()
}

/// The number of a shard, from the name of its file.
pub fn number_of(file: &str) -> Option<u32> {
    file.strip_prefix("shard-")?.strip_suffix(".parquet")?.parse().ok()
}

/// What of `parts`, one for each shard, belongs to the shard of a file.
pub fn part_of<'a, T>(parts: &'a [Vec<T>], shard: &Shard) -> &'a [T] {
    let part = number_of(&shard.file).and_then(|number| parts.get(number as usize));
    part.map(Vec::as_slice).unwrap_or_default()
}

/// The schema of a table of clips: with the column `shard` after `clip_id`, which comes first.
pub fn with_shard_field(schema: &Schema) -> SchemaRef {
    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.insert(1, Field::new(SHARD, DataType::Int32, false));
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

/// Clips with the column `shard` after `clip_id`, which comes first.
///
/// # Errors
/// When `schema` is not that of [`with_shard_field`].
pub fn with_shard(clips: &RecordBatch, schema: &SchemaRef, shard: u32) -> Result<RecordBatch, RunError> {
    let mut columns = clips.columns().to_vec();
    let number: ArrayRef = Arc::new(Int32Array::from(vec![shard as i32; clips.num_rows()]));
    columns.insert(1, number);
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_depend_on_names_and_numbers_alone() {
        assert_eq!(shard_of("clip-1", 8), shard_of("clip-1", 8));
        let mut counts = [0; 8];
        (0..800).for_each(|i| counts[shard_of(&format!("clip-{i}"), 8) as usize] += 1);
        assert!(counts.iter().all(|n| (60..150).contains(n)), "shards are of like size: {counts:?}");
    }

    #[test]
    fn there_are_more_shards_of_more_clips_unless_it_is_said() {
        let clips = [1, 2_048, 2_049, 4_096, 6_000, 1_000_000, u64::MAX];
        assert_eq!(clips.map(|clips| shard_count(None, clips)), [8, 8, 16, 16, 32, 1024, 1024]);
        assert_eq!(shard_count(Some(3), 1_000_000), 3);
    }
}
