//! What `synth` and `files` share: how clips are spread over shards and stored.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int32Array, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use loev_ops::rng::Key;

use crate::error::RunError;
use crate::exec::columns::{CLIP_ID, SHARD, text};
use crate::exec::write::TableWriter;
use crate::run::context::{Context, shard_file};

/// The shard of a clip: a function of its name, so that adding a clip moves no other.
pub fn shard_of(clip_id: &str, shards: u32) -> u32 {
    (Key::root(0).with_str("shard").with_str(clip_id).value() % u64::from(shards)) as u32
}

/// Stores clips: adds the column `shard` after `clip_id` (the first column of `clips`) and writes one
/// file per shard, clips in the order of their names. Shards without a clip still get their file.
///
/// # Errors
/// When two clips have one name, or a file cannot be written.
pub fn store(
    context: &Context,
    stage: &str,
    schema: &SchemaRef,
    clips: &[RecordBatch],
    shards: u32,
) -> Result<u64, RunError> {
    let clips = concat_batches(schema, clips)?;
    let ids = text(&clips, CLIP_ID)?;
    let mut order: Vec<(u32, &str, u32)> = (0..clips.num_rows())
        .map(|row| (shard_of(ids.value(row), shards), ids.value(row), row as u32))
        .collect();
    order.sort_unstable();
    if let Some(pair) = order.windows(2).find(|pair| pair[0].1 == pair[1].1) {
        return Err(RunError::stage(stage, format!("two clips are named `{}`", pair[0].1)));
    }

    let mut fields: Vec<Field> = schema.fields().iter().map(|f| f.as_ref().clone()).collect();
    fields.insert(1, Field::new(SHARD, DataType::Int32, false));
    let schema: SchemaRef = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let dir = context.dir.create_table(stage)?;
    let mut receipts = Vec::new();
    for shard in 0..shards {
        let from = order.partition_point(|(s, ..)| *s < shard);
        let to = order.partition_point(|(s, ..)| *s <= shard);
        let rows: UInt32Array = order[from..to].iter().map(|(.., row)| *row).collect();
        let rows = take_record_batch(&clips, &rows)?;
        let mut columns = rows.columns().to_vec();
        let number: ArrayRef = Arc::new(Int32Array::from(vec![shard as i32; rows.num_rows()]));
        columns.insert(1, number);
        let mut writer = TableWriter::create(&dir.join(shard_file(shard as usize)), &schema)?;
        writer.write(RecordBatch::try_new(Arc::clone(&schema), columns)?)?;
        receipts.push(writer.finish()?.receipt()?);
    }
    context.write_receipts(stage, stage, &receipts)?;
    Ok(clips.num_rows() as u64)
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
}
