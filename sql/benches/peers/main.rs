//! Our side of the measurement in `search.py`: answers one job at a time, as lines of JSON.
//!
//! `open` names Parquet files as tables, on disk and (with `_memory`) in memory; `sql` runs a statement that gives ids;
//! `read` reads the vectors of a table in memory and does nothing with them.

use std::error::Error;
use std::io::{BufRead, Write};
use std::time::Instant;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Int64Type};
use datafusion::execution::context::SessionContext;
use loev_sql::{new_session, query};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Job {
    Open { table: String, path: String },
    Sql { sql: String },
    Read { table: String },
}

struct Side {
    context: SessionContext,
    threads: usize,
}

impl Side {
    async fn answer(&self, job: Job) -> Result<Value, Box<dyn Error>> {
        Ok(match job {
            Job::Open { table, path } => {
                query(&self.context, &format!("create view {table} as select * from '{path}'")).await?;
                query(&self.context, &format!("create table {table}_memory as select * from '{path}'"))
                    .await?;
                json!({})
            }
            Job::Sql { sql } => {
                let start = Instant::now();
                let rows = query(&self.context, &sql).await?;
                let seconds = start.elapsed().as_secs_f64();
                let ids = rows
                    .iter()
                    .flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec());
                json!({"seconds": seconds, "ids": ids.collect::<Vec<_>>()})
            }
            Job::Read { table } => {
                let rows = query(&self.context, &format!("select embedding from {table}_memory")).await?;
                let start = Instant::now();
                let parts = rows.chunks(rows.len().div_ceil(self.threads).max(1));
                let sum = std::thread::scope(|scope| {
                    let readers: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
                    readers.into_iter().filter_map(|reader| reader.join().ok()).fold(0, |a, b| a ^ b)
                });
                json!({"seconds": start.elapsed().as_secs_f64(), "sum": sum})
            }
        })
    }
}

/// Every value is read once.
fn read(batches: &[RecordBatch]) -> u32 {
    let mut lanes = [0u32; 64];
    for batch in batches {
        let values = batch.column(0).as_fixed_size_list().values();
        for chunk in values.as_primitive::<Float32Type>().values().as_chunks::<64>().0 {
            lanes.iter_mut().zip(chunk).for_each(|(lane, value)| *lane ^= value.to_bits());
        }
    }
    lanes.iter().fold(0, |a, b| a ^ b)
}

fn main() -> Result<(), Box<dyn Error>> {
    let threads = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(2);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_time().build()?;
    let side = Side { context: new_session(threads, None)?, threads };
    for line in std::io::stdin().lock().lines() {
        let job = serde_json::from_str(&line?).map_err(Box::from);
        let answer = job.and_then(|job| runtime.block_on(side.answer(job)));
        let answer = answer.unwrap_or_else(|error: Box<dyn Error>| json!({"error": error.to_string()}));
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}
