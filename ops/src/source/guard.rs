//! A wall around the decoders: untrusted files may be refused, they may not panic, and not go on forever.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::Limits;
use super::input::Input;
use super::watch::Watch;
use crate::error::{AudioError, RejectKind};

/// Runs `work` on an input, with a watch over what it takes, and turns a panic into
/// [`RejectKind::Panicked`]. What was exceeded counts before whatever else went wrong because of it, and
/// reads that failed in an object store before all that the decoder made of them.
///
/// The state that `work` owns is dropped with the panic, and the resamplers of the thread are
/// cleared before each use, so nothing half-done is seen afterwards.
pub(super) fn guarded<T>(
    input: &Input,
    limits: &Limits,
    work: impl FnOnce(&Arc<Watch>) -> Result<T, AudioError>,
) -> Result<T, AudioError> {
    let watch = Arc::new(Watch::new(limits));
    let fail = |kind, why: &str| Err(AudioError::new(kind, format!("{}: {why}", input)));
    let result = catch_unwind(AssertUnwindSafe(|| work(&watch))).unwrap_or_else(|payload| {
        let reason = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        fail(RejectKind::Panicked, &format!("the decoder panicked: {reason}"))
    });
    match (input.failure(), watch.verdict()) {
        (Some(failure), _) => Err(failure.clone()),
        (None, Some(why)) => fail(RejectKind::OverLimit, &why),
        (None, None) => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        let error = guarded::<()>(&Input::File("x.mp3".into()), &Limits::default(), |_| panic!("bit {}", 3))
            .unwrap_err();
        assert_eq!(error.kind, RejectKind::Panicked);
        assert!(error.message.contains("x.mp3") && error.message.contains("bit 3"));
    }

    #[test]
    fn what_was_exceeded_is_told_whatever_came_of_it() {
        let limits = Limits { max_step_bytes: 10, ..Limits::default() };
        let error = guarded(&Input::File("x.mp3".into()), &limits, |watch| {
            watch.step();
            Ok(watch.take(11).is_ok())
        });
        assert_eq!(error.unwrap_err().kind, RejectKind::OverLimit);
    }
}
