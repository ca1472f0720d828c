//! Shutdown: one signal drains, a second exits now.
//!
//! Promises: whoever holds a [`Shutdown`] sees the drain once it is asked for; late holders too.
//! Never: kills a task; tasks end by themselves.

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

/// Drains on SIGINT or SIGTERM; exits with [`exit::INTERRUPTED`] on the second.
pub async fn on_signal(trigger: Trigger) {
    signal().await;
    tracing::info!("signal received, draining; a second one exits at once");
    trigger.drain();
    signal().await;
    std::process::exit(i32::from(exit::INTERRUPTED));
}

#[cfg(unix)]
async fn signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

#[cfg(not(unix))]
async fn signal() {
    let _ = tokio::signal::ctrl_c().await;
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
}
