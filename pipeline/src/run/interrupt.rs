//! Reasons to stop that long work looks at: Ctrl-C and termination signals, and a limit of memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::memory::{Bytes, resident};
use crate::error::RunError;

/// Whether the run is to stop. Clones share one flag.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    requested: Arc<AtomicBool>,
    /// Resident memory not to go beyond, in bytes.
    limit: Option<u64>,
}

impl Interrupt {
    /// Asks the run to stop at the next safe point. Returns whether that had been asked before.
    pub fn request(&self) -> bool {
        self.requested.swap(true, Ordering::SeqCst)
    }

    /// Takes back a request: what was to stop has stopped, and something else begins.
    pub fn clear(&self) {
        self.requested.store(false, Ordering::SeqCst);
    }

    /// Whether a stop was asked for.
    pub fn requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// The same flag, with a limit of resident memory.
    #[must_use]
    pub fn with_limit(&self, limit: Option<Bytes>) -> Self {
        Self { requested: Arc::clone(&self.requested), limit: limit.map(|Bytes(bytes)| bytes) }
    }

    /// # Errors
    /// [`RunError::Interrupted`] once a stop was asked for, [`RunError::Memory`] beyond the limit.
    pub fn check(&self) -> Result<(), RunError> {
        if self.requested() {
            return Err(RunError::Interrupted);
        }
        match (self.limit, self.limit.and_then(|_| resident())) {
            (Some(limit), Some(used)) if used > limit => Err(RunError::Memory { limit, used }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_stops_work_and_a_request_reaches_all_clones() {
        let interrupt = Interrupt::default();
        let limited = interrupt.with_limit(Some(Bytes(1)));
        assert!(interrupt.check().is_ok());
        if cfg!(target_os = "linux") {
            assert!(matches!(limited.check(), Err(RunError::Memory { limit: 1, used }) if used > 1 << 20));
        }
        assert!(interrupt.with_limit(Some(Bytes(1 << 50))).check().is_ok());
        interrupt.request();
        assert!(matches!(limited.check(), Err(RunError::Interrupted)));
        limited.clear();
        assert!(interrupt.check().is_ok());
    }
}
