//! Lanes: the threads between a query plan and the trainer.
//!
//! ```text
//! lane 0  ─ plan partition 0 ─► bounded(2) ─┐
//! lane 1  ─ plan partition 1 ─► bounded(2) ─┤─► batch k comes from lane k mod L
//! ```
//!
//! A lane is an OS thread, so that its blocking send is the back-pressure: a slow trainer holds up
//! the lanes, and through their streams the renderers. The number of lanes is part of a run's
//! configuration; the number of rendering threads is not, and cannot change the batches.

use std::thread::{Builder, JoinHandle};

use crossbeam::channel::{Receiver, bounded};

use crate::error::RunError;

/// Finished batches that wait in each lane.
const DEPTH: usize = 2;

/// Threads that make things in a fixed order. Dropping it stops them.
#[derive(Debug)]
pub struct Lanes<T> {
    receivers: Vec<Receiver<Result<T, RunError>>>,
    threads: Vec<JoinHandle<()>>,
    next: usize,
}

impl<T: Send + 'static> Lanes<T> {
    /// Starts `count` lanes. `make(lane, send)` runs on the lane's thread and hands on what it makes
    /// until `send` answers false (nobody listens any more) or there is no more. Lane `j` must make
    /// those of the items first, first + 1, ... whose number leaves the remainder j when divided by `count`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start<F>(count: usize, first: usize, make: F) -> Result<Self, RunError>
    where
        F: Fn(usize, &mut dyn FnMut(T) -> bool) -> Result<(), RunError> + Send + Clone + 'static,
    {
        let (mut receivers, mut threads) = (Vec::new(), Vec::new());
        for lane in 0..count.max(1) {
            let (sender, receiver) = bounded(DEPTH);
            let make = make.clone();
            let work = move || {
                let mut send = |item| sender.send(Ok(item)).is_ok();
                if let Err(error) = make(lane, &mut send) {
                    sender.send(Err(error)).ok();
                }
            };
            let thread = Builder::new().name(format!("lane-{lane}")).spawn(work);
            threads.push(thread.map_err(RunError::io("cannot start a thread for", format!("lane {lane}")))?);
            receivers.push(receiver);
        }
        Ok(Self { receivers, threads, next: first })
    }
}

impl<T> Lanes<T> {
    /// The next item in order if it is there already; `None` when it is not, or its lane has ended.
    ///
    /// # Errors
    /// What the lane failed with.
    pub fn take_ready(&mut self) -> Result<Option<T>, RunError> {
        let lane = self.next % self.receivers.len();
        let Some(Ok(item)) = self.receivers.get(lane).map(Receiver::try_recv) else { return Ok(None) };
        self.next += 1;
        item.map(Some)
    }

    /// The next item in order; `None` when its lane has ended.
    ///
    /// # Errors
    /// What the lane failed with.
    pub fn take_next(&mut self) -> Result<Option<T>, RunError> {
        let lane = self.next % self.receivers.len();
        self.next += 1;
        match self.receivers.get(lane).map(Receiver::recv) {
            Some(Ok(item)) => item.map(Some),
            Some(Err(_)) | None => Ok(None),
        }
    }
}

impl<T> Drop for Lanes<T> {
    fn drop(&mut self) {
        self.receivers.clear();
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_come_in_order_and_errors_arrive() {
        let mut lanes = Lanes::start(3, 0, |lane, send| {
            let mut item = lane;
            while item < 7 {
                send(item);
                item += 3;
            }
            if lane == 1 { Err(RunError::Interrupted) } else { Ok(()) }
        })
        .unwrap();
        let mut items: Vec<usize> = (0..5).map(|_| lanes.take_next().unwrap().unwrap()).collect();
        // The same order for those that are not waited for.
        while items.len() < 7 {
            items.extend(lanes.take_ready().unwrap());
        }
        assert_eq!(items, [0, 1, 2, 3, 4, 5, 6]);
        assert!(matches!(lanes.take_next(), Err(RunError::Interrupted)));
        assert!(lanes.take_next().unwrap().is_none());
    }

    #[test]
    fn dropping_stops_endless_lanes() {
        let mut lanes = Lanes::start(2, 0, |lane, send| {
            let mut item = lane;
            while send(item) {
                item += 2;
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(lanes.take_next().unwrap(), Some(0));
        drop(lanes);
    }
}
