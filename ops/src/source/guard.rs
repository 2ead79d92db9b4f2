//! A wall around the decoders: untrusted files may be refused, they may not panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::input::Input;
use crate::error::{AudioError, RejectKind};

/// Runs `work` on an input and turns a panic into [`RejectKind::Panicked`]. What came of reads that failed
/// in an object store is that failure, whatever the decoder made of it.
///
/// The state that `work` owns is dropped with the panic, and the resamplers of the thread are
/// cleared before each use, so nothing half-done is seen afterwards.
pub(super) fn guarded<T>(
    input: &Input,
    work: impl FnOnce() -> Result<T, AudioError>,
) -> Result<T, AudioError> {
    let done = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let message = format!("{input}: the decoder panicked: {reason}");
        Err(AudioError::new(RejectKind::Panicked, message))
    });
    input.failure().map_or(done, |failure| Err(failure.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded::<()>(&Input::File("x.mp3".into()), || panic!("bit {}", 3)).unwrap_err();
        assert_eq!(error.kind, RejectKind::Panicked);
        assert!(error.message.contains("x.mp3") && error.message.contains("bit 3"));
    }
}
