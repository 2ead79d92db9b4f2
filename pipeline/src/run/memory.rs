//! What a run may hold in memory.
//!
//! Three things grow with a run's options, and none with its data: what renders at the same time, what waits for the
//! trainer, and what waits in writers. Rendering takes permits in bytes before it reads a file; wide batches are
//! reserved in the query engine's memory pool; and as many files are written at the same time as the limit has room for.
//! What a model takes is for its options to say: where that is more than the limit leaves, the run stops with an error
//! (see [`super::interrupt`]) instead of growing on.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::SessionContext;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::RunError;

/// The program itself: code, threads, plans, and what the allocator keeps.
const BASE: u64 = 160 << 20;
/// The least that a limit may be.
const LEAST: u64 = 256 << 20;
/// What a writer holds: a row group under way, and the rows before it.
const WRITER: u64 = 40 << 20;
/// Without a limit: what renders at the same time.
const RENDERING: u64 = 1 << 30;
/// Permits are counted in units of this many bytes.
const UNIT: u64 = 4096;

/// A number of bytes, as people write it: `2GiB`, `512MiB`, `1.5 GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let scale = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kib" => 1024.0,
            "m" | "mib" => f64::from(1 << 20),
            "g" | "gib" => f64::from(1 << 30),
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            other => return Err(format!("`{other}` is no unit of memory; write 2GiB, 512MiB or 1.5GB")),
        };
        match number.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(Self((value * scale) as u64)),
            _ => Err(format!("`{text}` is no size; write 2GiB, 512MiB or 1.5GB")),
        }
    }
}

/// The resident memory of this process now, in bytes; known on Linux.
pub fn resident() -> Option<u64> {
    of_status("VmRSS:")
}

/// The largest resident memory of this process so far, in bytes; known on Linux.
pub fn peak() -> Option<u64> {
    of_status("VmHWM:")
}

fn of_status(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Shares of the memory that a run may take.
pub struct Budget {
    limit: Option<u64>,
    rendering: Semaphore,
    /// Units that [`Self::rendering`] began with.
    units: u32,
    task: Arc<TaskContext>,
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("limit", &self.limit)
            .field("units", &self.units)
            .finish_non_exhaustive()
    }
}

impl Budget {
    /// The budget of a run that is to stay below `limit` bytes of resident memory. `rows` are handed from operator to
    /// operator at a time, if given.
    ///
    /// # Errors
    /// When the limit is less than the program itself takes.
    pub fn new(limit: Option<Bytes>, rows: Option<usize>) -> Result<Self, RunError> {
        let limit = limit.map(|Bytes(bytes)| bytes);
        if let Some(bytes) = limit.filter(|bytes| *bytes < LEAST) {
            return Err(RunError::Engine(format!(
                "--memory {} MiB is too little to work with; at least {} MiB are needed",
                bytes >> 20,
                LEAST >> 20
            )));
        }
        let share = limit.map(|bytes| (bytes - BASE) / 4);
        let units = u32::try_from(share.unwrap_or(RENDERING).min(RENDERING) / UNIT).unwrap_or(u32::MAX);
        let pool: Arc<dyn MemoryPool> = match share {
            Some(share) => Arc::new(GreedyMemoryPool::new(share as usize)),
            None => Arc::new(UnboundedMemoryPool::default()),
        };
        let runtime = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()?;
        let mut config = loev_sql::session_config(1);
        if let Some(rows) = rows {
            config = config.with_batch_size(rows.max(1));
        }
        let task = SessionContext::new_with_config_rt(config, runtime).task_ctx();
        Ok(Self { limit, rendering: Semaphore::new(units as usize), units, task })
    }

    /// What plans are carried out with: the memory pool, and the rows of a batch.
    pub fn task(&self) -> Arc<TaskContext> {
        Arc::clone(&self.task)
    }

    /// The memory of a session of queries.
    pub fn queries(&self) -> Option<usize> {
        self.limit.map(|bytes| ((bytes - BASE) / 4) as usize)
    }

    /// Waits until `bytes` more may be rendered at the same time. More than there is counts as all there is.
    pub async fn rendering(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let units = u32::try_from(bytes as u64 / UNIT).unwrap_or(u32::MAX).min(self.units);
        self.rendering.acquire_many(units).await.ok()
    }

    /// How many files may be written at the same time, where `wanted` would be.
    pub fn partitions(&self, wanted: usize) -> usize {
        match self.limit {
            None => wanted,
            Some(limit) => wanted.min((((limit - BASE) / 2) / WRITER) as usize).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_as_people_write_them() {
        let bytes = |text: &str| text.parse::<Bytes>().map(|b| b.0);
        assert_eq!(bytes("2GiB"), Ok(2 << 30));
        assert_eq!(bytes(" 1.5 GB "), Ok(1_500_000_000));
        assert_eq!(bytes("512m"), Ok(512 << 20));
        assert_eq!(bytes("4096"), Ok(4096));
        assert!(bytes("2 apples").unwrap_err().contains("apples"));
        assert!(bytes("GiB").is_err() && bytes("1.2.3MB").is_err());
    }

    #[test]
    fn a_limit_bounds_what_is_under_way() {
        let budget = Budget::new(Some(Bytes(512 << 20)), None).unwrap();
        let permits = |bytes| futures::FutureExt::now_or_never(budget.rendering(bytes)).flatten();
        let all = permits(1 << 40).unwrap();
        assert!(permits(1 << 20).is_none(), "nothing is left");
        drop(all);
        assert!(permits(1 << 20).is_some());
        assert_eq!(budget.partitions(100), 4);
        assert!(Budget::new(Some(Bytes(1 << 20)), None).is_err());
        assert_eq!(Budget::new(None, None).unwrap().partitions(9), 9);
    }
}
