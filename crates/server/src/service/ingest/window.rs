//! Window: Writes of one batch on one connection that came before their predecessor (`correctness.md` g).
//!
//! Promises: a waiting Write is neither stored nor acknowledged; at most 56 wait, none longer than 2 s; the order in
//! which Writes go to the store is the order of their numbers where they could be ordered.
//! Never: decides; a Write that cannot be ordered goes to the store, whose judge names the gap.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    ids::{BatchId, MessageNumber},
    limits,
};
use runtime::clock::{Mono, sleep};
use tokio::sync::Notify;

use crate::model::stream::StreamId;

type LaneKey = (u64, StreamId, BatchId);

/// All lanes of the process.
#[derive(Debug, Default)]
pub(super) struct Windows {
    lanes: Mutex<HashMap<LaneKey, Arc<Shared>>>,
}

/// Writes in flight of one batch on one connection. Held by each of them; the last one takes the lane away.
#[derive(Debug)]
pub(super) struct Lane {
    windows: Arc<Windows>,
    key: LaneKey,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Progress>,
    moved: Notify,
}

#[derive(Debug, Default)]
struct Progress {
    /// Highest number handed to the store in sequence, as far as known; 0 = none on this lane yet.
    submitted: i32,
    /// Highest number the store has taken or had.
    accepted: i32,
    waiting: usize,
    in_flight: usize,
}

/// One Write's wait for its predecessor.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    lane: &'a Lane,
    number: i32,
    began: Mono,
}

impl Windows {
    pub(super) fn enter(
        self: &Arc<Self>,
        connection: u64,
        stream: &StreamId,
        batch: BatchId,
    ) -> Lane {
        let key = (connection, stream.clone(), batch);
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(lanes.entry(key.clone()).or_default());
        shared.progress(|progress| progress.in_flight += 1);
        Lane { windows: Arc::clone(self), key, shared }
    }
}

impl Shared {
    fn progress<T>(&self, work: impl FnOnce(&mut Progress) -> T) -> T {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lane {
    pub(super) fn turn(&self, number: MessageNumber) -> Turn<'_> {
        Turn { lane: self, number: number.0, began: Mono::now() }
    }

    /// Runs `hand_over` under the lock and lets the successor go.
    pub(super) fn submit<T>(&self, number: MessageNumber, hand_over: impl FnOnce() -> T) -> T {
        let result = self.shared.progress(|progress| {
            let result = hand_over();
            progress.submitted = progress.submitted.max(number.0);
            result
        });
        self.shared.moved.notify_waiters();
        result
    }

    /// The store has this number.
    pub(super) fn accepted(&self, number: MessageNumber) {
        self.shared.progress(|progress| progress.accepted = progress.accepted.max(number.0));
        self.shared.moved.notify_waiters();
    }

    /// The store refused this number: its successors wait again.
    pub(super) fn take_back(&self, number: MessageNumber) {
        self.shared.progress(|progress| {
            let before = number.0.saturating_sub(1).max(progress.accepted);
            progress.submitted = progress.submitted.min(before);
        });
    }
}

impl Turn<'_> {
    /// Waits until the predecessor was handed to the store. Goes at once where nothing is known on this lane: the
    /// predecessor may have come on another connection.
    pub(super) async fn handed(&self) {
        self.wait(|progress| {
            progress.submitted == 0 || progress.submitted >= self.number.saturating_sub(1)
        })
        .await;
    }

    /// After a refusal for a gap: waits until the store has the predecessor. `false` where time or room is over.
    pub(super) async fn stored(&self) -> bool {
        self.wait(|progress| progress.accepted >= self.number.saturating_sub(1)).await
    }

    async fn wait(&self, ready: impl Fn(&Progress) -> bool) -> bool {
        let shared = &self.lane.shared;
        let mut seat = None;
        loop {
            let moved = shared.moved.notified();
            tokio::pin!(moved);
            // Counts from here on, so that nothing is missed between the look and the wait.
            moved.as_mut().enable();
            if shared.progress(|progress| ready(progress)) {
                return true;
            }
            if seat.is_none() {
                seat = Seat::take(shared);
            }
            let left = limits::REORDER_WAIT.saturating_sub(self.began.elapsed());
            if seat.is_none() || left == Duration::ZERO {
                return false;
            }
            tokio::select! {
                biased;
                () = moved => {}
                () = sleep(left) => {}
            }
        }
    }
}

/// A place among the waiting; dropping it frees it, also when the call is cancelled.
struct Seat<'a>(&'a Shared);

impl<'a> Seat<'a> {
    fn take(shared: &'a Shared) -> Option<Self> {
        let free = shared.progress(|progress| {
            let free = progress.waiting < limits::REORDER_WINDOW;
            progress.waiting += usize::from(free);
            free
        });
        free.then(|| Self(shared))
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.progress(|progress| progress.waiting -= 1);
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut lanes = self.windows.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.shared.progress(|progress| {
            progress.in_flight = progress.in_flight.saturating_sub(1);
            progress.in_flight
        });
        if left == 0 {
            lanes.remove(&self.key);
        }
    }
}
