//! A wall around the decoders: untrusted files may be refused, they may not panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use crate::error::{AudioError, RejectKind};

/// Runs `work` on a file and turns a panic into [`RejectKind::Panicked`].
///
/// The state that `work` owns is dropped with the panic, and the resamplers of the thread are
/// cleared before each use, so nothing half-done is seen afterwards.
pub(super) fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, AudioError>) -> Result<T, AudioError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let message = format!("{}: the decoder panicked: {reason}", path.display());
        Err(AudioError::new(RejectKind::Panicked, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded::<()>(Path::new("x.mp3"), || panic!("bit {}", 3)).unwrap_err();
        assert_eq!(error.kind, RejectKind::Panicked);
        assert!(error.message.contains("x.mp3") && error.message.contains("bit 3"));
    }
}
