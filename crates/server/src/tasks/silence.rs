//! Silence: a reconciler that ends batches nobody sends any more.
//!
//! Promises: an open batch is abandoned after ten silent minutes, whether or not its stream is heard again;
//! batches that are silent for a minute are counted and told, in the log and to webhooks.
//! Never: touches rows; what was accepted stays.

use std::time::Duration;

use metrics::{counter, gauge};
use runtime::{
    clock::{Wall, sleep},
    shutdown::Shutdown,
};

use crate::service::ingest::Ingest;

/// A fraction of the shortest span people see (60 s).
const PERIOD: Duration = Duration::from_secs(15);

/// Runs until the drain.
pub async fn run(ingest: Ingest, mut shutdown: Shutdown) {
    let mut before = 0;
    while !shutdown.is_draining() {
        match ingest.stalled(Wall::now()).await {
            Ok(stalled) => {
                gauge!("malote_batches_stalled").set(f64::from(stalled));
                if stalled > before {
                    tracing::warn!(stalled, "open batches have been silent for a minute");
                }
                before = stalled;
            }
            Err(error) => {
                tracing::warn!(code = %error.code, cause = error.cause(), "stalled batches cannot be counted")
            }
        }
        if let Err(error) = ingest.tell_stalled(Wall::now()).await {
            tracing::warn!(code = %error.code, cause = error.cause(), "stalled batches cannot be told");
        }
        match ingest.abandon_silent(Wall::now()).await {
            Ok(0) => {}
            Ok(batches) => {
                counter!("malote_batches_silent_total").increment(batches as u64);
                tracing::warn!(
                    batches,
                    "open batches were silent for ten minutes and are abandoned"
                );
            }
            Err(error) => {
                tracing::warn!(code = %error.code, cause = error.cause(), "silent batches cannot be ended")
            }
        }
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = sleep(PERIOD) => {}
        }
    }
}
