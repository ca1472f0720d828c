//! Spawning: named tasks and threads whose panics are seen.
//!
//! Promises: a panic in a task is logged as a bug and ends the wait of whoever joins it with an error.
//! Never: detaches in silence.

use std::future::Future;

use protocol::{Code, Coded as _, Error, Result};
use tracing::Instrument as _;

/// A running task; dropping the handle lets it go on.
#[derive(Debug)]
pub struct Task<T>(tokio::task::JoinHandle<T>);

impl<T> Task<T> {
    /// Waits for the end.
    ///
    /// # Errors
    /// `INTERNAL` where the task panicked or was aborted.
    pub async fn join(self) -> Result<T> {
        self.0.await.coded(Code::Internal, "a task ended by a panic or was aborted")
    }

    /// Ends the task at its next await.
    pub fn abort(&self) {
        self.0.abort();
    }

    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// Runs a future as a task in a span of that name.
pub fn spawn<F>(name: &'static str, work: F) -> Task<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    Task(tokio::spawn(work.instrument(tracing::info_span!("task", name))))
}

/// Runs blocking work on the pool of blocking threads.
///
/// # Errors
/// `INTERNAL` where the work panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
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
