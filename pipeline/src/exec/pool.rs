//! The threads that decode and render. Query plans run on an async runtime whose threads must not
//! be held up; they hand each piece of CPU work to this pool and wait for its answer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Sender, unbounded};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed set of worker threads. Dropping it lets the queued work finish, then joins them.
#[derive(Debug)]
pub struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// `threads` workers (at least one).
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn new(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = unbounded::<Job>();
        let threads = (0..threads.max(1))
            .map(|i| {
                let queue = queue.clone();
                Builder::new().name(format!("render-{i}")).spawn(move || queue.iter().for_each(|job| job()))
            })
            .collect::<std::io::Result<_>>()?;
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// The number of workers.
    pub fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Queues `job`. The queue itself has no bound: callers bound what they have under way.
    ///
    /// The receiver yields the job's answer, or the message of its panic.
    pub fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> oneshot::Receiver<Result<T, String>> {
        let (answer, receiver) = oneshot::channel();
        let run: Job = Box::new(move || {
            // Nobody may be waiting any more: a cancelled partition drops its receivers.
            if !answer.is_closed() {
                let result = catch_unwind(AssertUnwindSafe(job)).map_err(panic_message);
                answer.send(result).ok();
            }
        });
        if let Some(jobs) = &self.jobs {
            // Workers hold the receiving end until `jobs` is dropped, so that this cannot fail.
            jobs.send(run).ok();
        }
        receiver
    }
}

fn panic_message(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "panic".to_owned())
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_arrive_and_a_panic_is_contained() {
        let pool = Pool::new(2).unwrap();
        let good: Vec<_> = (0..8).map(|i| pool.submit(move || i * i)).collect();
        let bad = pool.submit(|| -> u32 { panic!("broken clip") });
        let good: Vec<i32> = good.into_iter().map(|r| r.blocking_recv().unwrap().unwrap()).collect();
        assert_eq!(good, [0, 1, 4, 9, 16, 25, 36, 49]);
        assert_eq!(bad.blocking_recv().unwrap(), Err("broken clip".to_owned()));
        assert_eq!(pool.submit(|| 1).blocking_recv().unwrap(), Ok(1), "the worker lives on");
    }
}
