//! Apply: a reconciler from the ledger to staging, one worker per stream.
//!
//! Promises: woken by a hint or a period, so that a lost hint costs a period; hints of one stream, however many, do not
//! put the period of the others off; a stream that fails holds back only itself and is tried again.
//! Never: ends before the drain.

use std::{collections::BTreeMap, time::Duration};

use runtime::{
    clock::{Mono, Wall, sleep},
    shutdown::Shutdown,
    task::{self, Task},
};

use crate::{
    model::stream::StreamId,
    service::{ingest::Hint, staging::Staging},
};

/// How long a lost hint may delay a row.
const PERIOD: Duration = Duration::from_secs(1);

/// When to look again: at a hint, and at fixed times.
struct Beat {
    due: Mono,
}

impl Beat {
    fn begin() -> Self {
        Self { due: Mono::now() + PERIOD }
    }

    /// Resolves at the next hint or when the period is over.
    async fn next(&mut self, hint: &Hint) {
        tokio::select! {
            biased;
            () = sleep(self.due - Mono::now()) => self.due = Mono::now() + PERIOD,
            () = hint.taken() => {}
        }
    }
}

/// Runs until the drain.
pub async fn run(staging: Staging, hint: Hint, mut shutdown: Shutdown) {
    let mut workers: BTreeMap<StreamId, Task<()>> = BTreeMap::new();
    let mut beat = Beat::begin();
    while !shutdown.is_draining() {
        workers.retain(|_, worker| !worker.is_finished());
        match staging.streams().await {
            Ok(streams) => {
                for stream in streams {
                    workers.entry(stream.clone()).or_insert_with(|| {
                        task::spawn(
                            "apply-stream",
                            catch_up(staging.clone(), stream, shutdown.clone()),
                        )
                    });
                }
            }
            Err(error) => {
                tracing::warn!(code = %error.code, cause = error.cause(), "streams cannot be listed")
            }
        }
        tokio::select! {
            () = beat.next(&hint) => {}
            () = shutdown.draining() => {}
        }
    }
    for worker in workers.into_values() {
        // A worker ends with its round; one that panicked was logged already.
        let _ = worker.join().await;
    }
}

/// Applies what there is, then ends; the supervisor starts it again at the next hint.
async fn catch_up(staging: Staging, stream: StreamId, shutdown: Shutdown) {
    while !shutdown.is_draining() {
        match staging.apply(&stream, Wall::now()).await {
            Ok(applied) if applied.messages == 0 => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(erp = %stream.erp, code = %error.code, cause = error.cause(), "apply failed, it is tried again");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn hints_without_end_do_not_put_the_period_off() {
        let (hint, begun) = (Hint::default(), Mono::now());
        let mut beat = Beat::begin();
        let mut periods = Vec::new();
        while periods.len() < 3 {
            assert!(begun.elapsed() < PERIOD * 4, "{periods:?}");
            sleep(PERIOD / 10).await;
            hint.give();
            let due = beat.due;
            beat.next(&hint).await;
            if beat.due != due {
                periods.push(begun.elapsed());
            }
        }
        assert_eq!(periods, [PERIOD, PERIOD * 2, PERIOD * 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn without_hints_the_period_wakes_and_a_hint_wakes_at_once() {
        let (hint, begun) = (Hint::default(), Mono::now());
        let mut beat = Beat::begin();
        beat.next(&hint).await;
        assert_eq!(begun.elapsed(), PERIOD);
        hint.give();
        beat.next(&hint).await;
        assert_eq!(begun.elapsed(), PERIOD);
    }
}
