//! Shutdown: one signal drains, a second exits now.
//!
//! Promises: whoever holds a [`Shutdown`] sees the drain once it is asked for; late holders too. A call that [`Calls`]
//! let in is waited for, one that comes after the drain is refused; there is nothing between.
//! Never: kills a task; tasks end by themselves.

use protocol::{Code, Error, Result};
use tokio::sync::watch;

use crate::exit;

/// A cheap handle that tells when to drain.
#[derive(Clone, Debug)]
pub struct Shutdown {
    seen: watch::Receiver<bool>,
}

/// Asks for the drain. Dropping it asks too.
#[derive(Debug)]
pub struct Trigger {
    tell: watch::Sender<bool>,
}

#[must_use]
pub fn channel() -> (Trigger, Shutdown) {
    let (tell, seen) = watch::channel(false);
    (Trigger { tell }, Shutdown { seen })
}

impl Trigger {
    pub fn drain(&self) {
        self.tell.send_replace(true);
    }
}

impl Shutdown {
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.seen.borrow() || self.seen.has_changed().is_err()
    }

    /// Resolves when the drain is asked for.
    pub async fn draining(&mut self) {
        // An error means that the trigger is gone, which asks for the drain as well.
        let _ = self.seen.wait_for(|draining| *draining).await;
    }
}

/// Lets calls in until the drain, and tells when the last one has ended.
#[derive(Clone, Debug)]
pub struct Calls {
    under_way: watch::Sender<usize>,
    shutdown: Shutdown,
}

/// A call under way; dropping it ends it.
#[derive(Debug)]
#[must_use = "a call is under way for as long as this is held"]
pub struct Call(watch::Sender<usize>);

impl Calls {
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self { under_way: watch::channel(0).0, shutdown }
    }

    /// Lets a call in.
    ///
    /// # Errors
    /// `DRAINING` once the drain was asked for.
    pub fn begin(&self) -> Result<Call> {
        self.refuse_draining()?;
        let call = Call::begin(self.under_way.clone());
        // Looked at again now that it counts: a drain that this look does not see waits for this call.
        self.refuse_draining()?;
        Ok(call)
    }

    fn refuse_draining(&self) -> Result<()> {
        if self.shutdown.is_draining() {
            return Err(Error::new(Code::Draining, "the process is stopping"));
        }
        Ok(())
    }

    /// Resolves when the drain is asked for.
    pub async fn draining(&self) {
        self.shutdown.clone().draining().await;
    }

    /// Resolves when no call is under way.
    pub async fn ended(&self) {
        // An error would mean that every sender is gone; `self` has one.
        let _ = self.under_way.subscribe().wait_for(|calls| *calls == 0).await;
    }
}

impl Call {
    fn begin(under_way: watch::Sender<usize>) -> Self {
        under_way.send_modify(|calls| *calls += 1);
        metrics::gauge!("malote_calls_under_way").increment(1);
        Self(under_way)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls = calls.saturating_sub(1));
        metrics::gauge!("malote_calls_under_way").decrement(1);
    }
}

/// Drains on SIGINT or SIGTERM; exits with [`exit::INTERRUPTED`] on the second.
pub async fn on_signal(trigger: Trigger) {
    let mut signals = Signals::listen();
    signals.next().await;
    tracing::info!("signal received, draining; a second one exits at once");
    trigger.drain();
    signals.next().await;
    std::process::exit(i32::from(exit::INTERRUPTED));
}

/// Listens without a break: a signal that comes while another is dealt with is not lost.
#[cfg(unix)]
struct Signals(Vec<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Signals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    async fn next(&mut self) {
        std::future::poll_fn(|context| {
            let came = self.0.iter_mut().any(|signal| signal.poll_recv(context).is_ready());
            if came { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Self {
        Self
    }

    async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_holder_sees_the_drain_also_when_the_trigger_is_dropped() {
        let (trigger, mut early) = channel();
        assert!(!early.is_draining());
        trigger.drain();
        early.draining().await;
        assert!(early.clone().is_draining());
        let (trigger, mut holder) = channel();
        drop(trigger);
        holder.draining().await;
        assert!(holder.is_draining());
    }

    #[tokio::test]
    async fn a_drain_waits_for_the_calls_that_were_let_in_and_lets_no_other_in() {
        let (trigger, shutdown) = channel();
        let calls = Calls::new(shutdown);
        let (first, second) = (calls.begin().unwrap(), calls.begin().unwrap());
        trigger.drain();
        assert_eq!(calls.begin().unwrap_err().code, Code::Draining);
        let mut ended = std::pin::pin!(calls.ended());
        drop(first);
        let early = tokio::select! {
            biased;
            () = &mut ended => true,
            () = std::future::ready(()) => false,
        };
        assert!(!early, "a call is under way still");
        drop(second);
        ended.await;
    }
}
