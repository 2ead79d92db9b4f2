//! Work on the rows of a batch, spread over the cores of the machine.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, PoisonError};
use std::thread;

use datafusion::common::{Result, exec_err};

/// One permit per core, for the process: queries with many partitions do not hold more audio than that.
static PERMITS: LazyLock<Permits> = LazyLock::new(|| Permits {
    free: Mutex::new(thread::available_parallelism().map_or(1, NonZero::get)),
    given_back: Condvar::new(),
});

struct Permits {
    free: Mutex<usize>,
    given_back: Condvar,
}

struct Permit<'a>(&'a Permits);

impl Permits {
    fn take(&self) -> Permit<'_> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = self.given_back.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Permit(self)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.given_back.notify_one();
    }
}

/// The answers of `work` for the rows `0..rows`, in order. Reading and decoding block; they run on threads of their own,
/// one per core, while the caller waits. `state` is made once per thread.
///
/// # Errors
/// When `work` panics.
pub(crate) fn spread<S, T: Send>(
    rows: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, usize) -> T + Sync,
) -> Result<Vec<T>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(rows);
    let next = AtomicUsize::new(0);
    let of_one_thread = || {
        let mut state = state();
        let mut answers = Vec::new();
        loop {
            let row = next.fetch_add(1, Ordering::Relaxed);
            if row >= rows {
                return answers;
            }
            let _permit = PERMITS.take();
            answers.push((row, work(&mut state, row)));
        }
    };
    let answers = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(of_one_thread)).collect();
        threads.into_iter().map(|thread| thread.join()).collect::<Result<Vec<_>, _>>()
    });
    let Ok(answers) = answers else { return exec_err!("a thread that reads audio has panicked") };
    let mut answers: Vec<_> = answers.into_iter().flatten().collect();
    answers.sort_unstable_by_key(|(row, _)| *row);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_keep_their_order_and_a_panic_is_an_error() {
        let twice = spread(
            1_000,
            || 0,
            |count: &mut usize, row| {
                *count += 1;
                2 * row
            },
        );
        assert_eq!(twice.unwrap(), (0..1_000).map(|row| 2 * row).collect::<Vec<_>>());
        assert!(spread(0, || (), |(), row| row).unwrap().is_empty());
        assert!(spread(3, || (), |(), row| assert_ne!(row, 1)).is_err());
        assert_eq!(spread(2, || (), |(), row| row).unwrap(), [0, 1], "its permit came back");
    }
}
