//! Keep: the history is cleaned by itself, now and then.
//!
//! Promises: a cleaning that fails is told and tried again at the next turn.
//! Never: runs while the agent drains.

use std::time::Duration;

use protocol::{Code, Result};
use runtime::{
    clock::{self, Wall},
    shutdown::Shutdown,
};

use super::records::CleanOrder;
use crate::journal::Journal;

/// Cleans at the start and then in this rhythm, until the drain.
///
/// # Errors
/// `JOURNAL_FAILED` where the journal is closed.
pub async fn keep(
    journal: Journal,
    order: CleanOrder,
    every: Option<Duration>,
    mut shutdown: Shutdown,
) -> Result<()> {
    let Some(every) = every else {
        shutdown.draining().await;
        return Ok(());
    };
    loop {
        let now = Wall::now();
        match journal.history_clean(order.at(now), Wall::now).await {
            Ok(cleaned) if cleaned.removed > 0 => {
                tracing::info!(removed = cleaned.removed, left = cleaned.left, "history cleaned");
            }
            Ok(_) => {}
            Err(error) if error.code == Code::JournalFailed => return Err(error),
            Err(error) => tracing::warn!(%error, "history not cleaned"),
        }
        // Also what the known rows of a table withdrawn left free.
        loop {
            match journal.shrink_step().await {
                Ok(true) if !shutdown.is_draining() => {}
                Ok(_) => break,
                Err(error) if error.code == Code::JournalFailed => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "the journal cannot be made smaller");
                    break;
                }
            }
        }
        tokio::select! {
            () = shutdown.draining() => return Ok(()),
            () = clock::sleep(every) => {}
        }
    }
}
