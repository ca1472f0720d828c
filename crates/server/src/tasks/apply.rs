//! Apply: a reconciler from the ledger to staging, one worker per stream.
//!
//! Promises: woken by a hint or a period, so that a lost hint costs a period; hints of one stream, however many, do not
//! put the period of the others off, and none is lost while the stream is looked at; a stream that fails holds back only
//! itself and is tried again.
//! Never: ends before the drain.

use std::{collections::BTreeMap, future::Future, time::Duration};

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
    let mut workers: BTreeMap<StreamId, (Hint, Task<()>)> = BTreeMap::new();
    let mut beat = Beat::begin();
    while !shutdown.is_draining() {
        // One that panicked was logged and is started anew.
        workers.retain(|_, (_, worker)| !worker.is_finished());
        match staging.streams().await {
            Ok(streams) => {
                for stream in streams {
                    let (hint, _) = workers.entry(stream).or_insert_with_key(|stream| {
                        let hint = Hint::default();
                        let (staging, stream) = (staging.clone(), stream.clone());
                        let round = move || catch_up(staging.clone(), stream.clone());
                        let work = follow(hint.clone(), shutdown.clone(), round);
                        (hint, task::spawn("apply-stream", work))
                    });
                    hint.give();
                }
            }
            Err(error) => {
                tracing::warn!(code = %error.code, cause = error.cause(), "streams cannot be listed")
            }
        }
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = beat.next(&hint) => {}
        }
    }
    for (_, worker) in workers.into_values() {
        // A worker ends with its round; one that panicked was logged already.
        let _ = worker.join().await;
    }
}

/// Round after round, each at a hint: one that is given while a round looks for the last time counts for the next.
async fn follow<F>(hint: Hint, mut shutdown: Shutdown, mut round: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    while !shutdown.is_draining() {
        if round().await {
            continue;
        }
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = hint.taken() => {}
        }
    }
}

/// Applies what there is, up to some messages; `false` = there is no more, or it fails and is tried again later.
async fn catch_up(staging: Staging, stream: StreamId) -> bool {
    match staging.apply(&stream, Wall::now()).await {
        Ok(applied) => applied.messages > 0,
        Err(error) => {
            tracing::warn!(erp = %stream.erp, code = %error.code, cause = error.cause(), "apply failed, it is tried again");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };

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
    async fn a_hint_that_comes_while_a_round_looks_for_the_last_time_is_followed_at_once() {
        let (hint, begun, rounds) = (Hint::default(), Mono::now(), Arc::new(AtomicU32::new(0)));
        let (trigger, shutdown) = runtime::shutdown::channel();
        let (inner, count) = (hint.clone(), Arc::clone(&rounds));
        let round = move || {
            let (hint, round) = (inner.clone(), count.fetch_add(1, Ordering::SeqCst));
            async move {
                if round == 0 {
                    hint.give();
                }
                false
            }
        };
        let worker = task::spawn("worker", follow(hint, shutdown, round));
        while rounds.load(Ordering::SeqCst) < 2 {
            assert!(begun.elapsed() < PERIOD, "the hint was lost");
            sleep(PERIOD / 100).await;
        }
        trigger.drain();
        worker.join().await.unwrap();
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
