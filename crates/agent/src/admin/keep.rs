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
        let order = order.at(Wall::now());
        let cleaned = journal.history_clean(order, Wall::now).await.map(|cleaned| {
            if cleaned.removed > 0 {
                tracing::info!(removed = cleaned.removed, left = cleaned.left, "history cleaned");
            }
        });
        survived(cleaned, "history not cleaned")?;
        survived(shrink(&journal, &shutdown).await, "the journal cannot be made smaller")?;
        tokio::select! {
            biased;
            () = shutdown.draining() => return Ok(()),
            () = clock::sleep(every) => {}
        }
    }
}

/// Gives back what the cleaning left free, and what the known rows of a table withdrawn did.
async fn shrink(journal: &Journal, shutdown: &Shutdown) -> Result<()> {
    while journal.shrink_step().await? && !shutdown.is_draining() {}
    Ok(())
}

/// Tells what failed; only a journal that is closed ends the task.
fn survived(outcome: Result<()>, words: &str) -> Result<()> {
    match outcome {
        Err(error) if error.code != Code::JournalFailed => {
            tracing::warn!(%error, "{words}");
            Ok(())
        }
        outcome => outcome,
    }
}
