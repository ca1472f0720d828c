//! Apply: a reconciler from the ledger to staging, one worker per stream.
//!
//! Promises: woken by a hint or a period, so that a lost hint costs a period; a stream that fails holds back only
//! itself and is tried again.
//! Never: ends before the drain.

use std::{collections::BTreeMap, time::Duration};

use runtime::{
    clock::{Wall, sleep},
    shutdown::Shutdown,
    task::{self, Task},
};

use crate::{
    model::stream::StreamId,
    service::{ingest::Hint, staging::Staging},
};

/// How long a lost hint may delay a row.
const PERIOD: Duration = Duration::from_secs(1);

/// Runs until the drain.
pub async fn run(staging: Staging, hint: Hint, mut shutdown: Shutdown) {
    let mut workers: BTreeMap<StreamId, Task<()>> = BTreeMap::new();
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
                tracing::warn!(code = %error.code, chain = error.chain(), "streams cannot be listed")
            }
        }
        tokio::select! {
            () = hint.taken() => {}
            () = sleep(PERIOD) => {}
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
                tracing::warn!(erp = %stream.erp, code = %error.code, chain = error.chain(), "apply failed, it is tried again");
                return;
            }
        }
    }
}
