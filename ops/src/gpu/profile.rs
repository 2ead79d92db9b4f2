//! How long each kernel takes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Gpu, GpuError, Ticket};

/// A name, and a mark on either side of the work.
type Taken = (&'static str, Ticket, Ticket);

/// What was asked for while somebody looked.
#[derive(Default)]
pub(super) struct Profile(Mutex<Option<Vec<Taken>>>);

/// What the device spent on one kind of work.
#[derive(Clone, Debug, PartialEq)]
pub struct Spent {
    /// The kernel, `transform` for those of cuFFT, or what [`Gpu::timed`] was told.
    pub name: &'static str,
    /// How many times.
    pub count: usize,
    /// Seconds in all.
    pub seconds: f64,
}

impl Gpu {
    /// From now on the time of each kernel is taken. Work is slower meanwhile.
    pub fn begin_profile(&self) {
        *self.1.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Vec::new());
    }

    /// What the time went to since [`Gpu::begin_profile`], the most first; waits for the device.
    ///
    /// # Errors
    /// [`GpuError::Failed`].
    pub fn end_profile(&self) -> Result<Vec<Spent>, GpuError> {
        let taken = self.1.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut by_name = BTreeMap::<&'static str, (usize, f64)>::new();
        for (name, from, to) in taken.unwrap_or_default() {
            let (count, seconds) = by_name.entry(name).or_default();
            *count += 1;
            *seconds += self.0.between(&from, &to)?;
        }
        let spent = |(name, (count, seconds))| Spent { name, count, seconds };
        let mut spent: Vec<Spent> = by_name.into_iter().map(spent).collect();
        spent.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        Ok(spent)
    }

    /// Asks the device for `work`, whose time is taken under this name while somebody looks.
    ///
    /// # Errors
    /// Those of `work`, and [`GpuError::Failed`].
    pub fn timed<R>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> Result<R, GpuError>,
    ) -> Result<R, GpuError> {
        let looking = self.1.0.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !looking {
            return work();
        }
        let from = self.0.mark()?;
        let done = work()?;
        let to = self.0.mark()?;
        if let Some(taken) = self.1.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            taken.push((name, from, to));
        }
        Ok(done)
    }
}
