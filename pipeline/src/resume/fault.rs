//! Faults on demand, for tests: places in the code where a process can be made to die, to find a full disk, or to
//! panic.
//!
//! Only with the feature `faults`, which the end-to-end tests switch on; without it every call is empty. The
//! environment variable `LOEV_FAULT` is `PLACE:N:WHAT`: at the N-th time that PLACE is passed (from 1), do WHAT:
//! `kill`, `full` (no space left), `denied` (no permission) or `panic`.

/// A place where the file system may fail.
///
/// # Errors
/// The error that was asked for.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn io(_: &'static str) -> std::io::Result<()> {
    Ok(())
}

/// A place where a thread may panic.
#[cfg(not(feature = "faults"))]
#[inline]
pub fn point(_: &'static str) {}

#[cfg(feature = "faults")]
pub use on::{io, point};

#[cfg(feature = "faults")]
mod on {
    use std::io::{Error, ErrorKind};
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Fault {
        place: String,
        at: u64,
        what: String,
        passed: AtomicU64,
    }

    fn due(place: &str) -> Option<&'static str> {
        static FAULT: OnceLock<Option<Fault>> = OnceLock::new();
        let fault = FAULT.get_or_init(|| {
            let text = std::env::var("LOEV_FAULT").ok()?;
            let mut parts = text.split(':');
            let (place, at, what) = (parts.next()?, parts.next()?, parts.next()?);
            let at = at.parse().ok()?;
            Some(Fault { place: place.to_owned(), at, what: what.to_owned(), passed: AtomicU64::new(0) })
        });
        let fault = fault.as_ref().filter(|fault| fault.place == place)?;
        (fault.passed.fetch_add(1, Ordering::SeqCst) + 1 == fault.at).then_some(fault.what.as_str())
    }

    /// See the module.
    ///
    /// # Errors
    /// The error that was asked for.
    pub fn io(place: &'static str) -> std::io::Result<()> {
        match due(place) {
            None => Ok(()),
            Some("full") => Err(Error::from(ErrorKind::StorageFull)),
            Some("denied") => Err(Error::from(ErrorKind::PermissionDenied)),
            Some("panic") => panic!("asked to panic at {place}"),
            // As with kill -9: nothing is flushed, nothing is dropped.
            Some(_) => std::process::abort(),
        }
    }

    /// See the module.
    pub fn point(place: &'static str) {
        io(place).ok();
    }
}
