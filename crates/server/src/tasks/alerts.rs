//! Alerts: a reconciler that looks whether something is wrong, and has people told.
//!
//! Promises: a look that fails is repeated with the next one; what is to be told waits in the store.
//! Never: ends before the drain; waits for a mail server with it.

use std::time::Duration;

use protocol::Result;
use runtime::{
    clock::{Wall, sleep},
    shutdown::Shutdown,
};

use crate::service::alerts::Look;

/// How long a mail under way may take to end with the drain; what was cut off is sent again after its lease.
const LAST: Duration = Duration::from_secs(3);

/// Runs until the drain, with that pause between two looks.
pub async fn run(mut look: Look, period: Duration, mut shutdown: Shutdown) {
    while !shutdown.is_draining() {
        noted(look.look(Wall::now()).await, "what is wrong cannot be looked at whole");
        let sent = {
            let mut draining = shutdown.clone();
            let last = async {
                draining.draining().await;
                sleep(LAST).await;
            };
            tokio::select! {
                biased;
                sent = look.send() => sent.map(|_| ()),
                () = last => Ok(()),
            }
        };
        noted(sent, "mails about alerts cannot be sent");
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            () = sleep(period) => {}
        }
    }
}

fn noted(result: Result<()>, words: &str) {
    if let Err(error) = result {
        tracing::warn!(code = %error.code, cause = error.cause(), "{words}, it is tried again");
    }
}
