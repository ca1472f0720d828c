//! Spawning: named tasks and threads whose panics are seen.
//!
//! Promises: a panic in a task is logged as a bug and ends the wait of whoever joins it with an error.
//! Never: detaches in silence. In a simulated world, tasks are the world's and blocking work runs where it is asked for.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use protocol::{Code, Coded as _, Error, Result};
use tokio::{sync::oneshot, task::JoinHandle};
use tracing::Instrument as _;

use crate::world;

const ENDED: &str = "a task ended by a panic or was aborted";

/// A running task; dropping the handle lets it go on.
#[derive(Debug)]
pub struct Task<T>(Running<T>);

#[derive(Debug)]
enum Running<T> {
    Tokio(JoinHandle<T>),
    /// In a simulated world, under the world's number.
    World {
        number: u64,
        told: oneshot::Receiver<T>,
        over: Arc<AtomicBool>,
    },
}

/// Says that a task is over, however it ended.
struct Over(Arc<AtomicBool>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Task<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// `INTERNAL` where the task panicked or was aborted.
    pub async fn join(self) -> Result<T> {
        match self.0 {
            Running::Tokio(handle) => handle.await.coded(Code::Internal, ENDED),
            Running::World { told, .. } => told.await.coded(Code::Internal, ENDED),
        }
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        match &self.0 {
            Running::Tokio(handle) => handle.abort(),
            Running::World { number, .. } => {
                if let Some(world) = world::current() {
                    world.abort(*number);
                }
            }
        }
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Running::Tokio(handle) => handle.is_finished(),
            Running::World { over, .. } => over.load(Ordering::Relaxed),
        }
    }
}

/// Runs a future as a task in a span of that name.
pub fn spawn<F>(name: &'static str, work: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let Some(world) = world::current() else {
        return Task(Running::Tokio(tokio::spawn(
            work.instrument(tracing::info_span!("task", name)),
        )));
    };
    let (tell, told) = oneshot::channel();
    let over = Arc::new(AtomicBool::new(false));
    let mark = Over(Arc::clone(&over));
    let number = world.spawn(
        name,
        Box::pin(async move {
            let _mark = mark;
            // Nobody waits any more: the handle was dropped.
            let _ = tell.send(work.await);
        }),
    );
    Task(Running::World { number, told, over })
}

/// Runs blocking work on the pool of blocking threads.
///
/// # Errors
/// `INTERNAL` where the work panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    if world::is_on() {
        return Ok(work());
    }
    tokio::task::spawn_blocking(work).await.coded(Code::Internal, "blocking work ended by a panic")
}

/// Starts an operating-system thread of that name.
///
/// # Errors
/// `INTERNAL` where the system refuses one more thread.
pub fn thread(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|cause| Error::new(Code::Internal, "cannot start a thread").because(cause))
}
