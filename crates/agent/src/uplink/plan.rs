//! Plan: follows Entities and keeps the last good answer in the journal.
//!
//! Promises: an answer that is not valid changes nothing; a table that the cloud parked is tried again once the plan
//! says that somebody acted, a denied one also by itself, with growing pauses.
//! Never: decides what a plan means for a table (capture does).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{Code, Error, Result, ids::Generation, json::Entities, names::TableName};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use super::{board::Board, cloud::Cloud};
use crate::journal::{Journal, Parked};

/// Longest pause between tries while Entities cannot be read.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Plan {
    pub journal: Journal,
    pub cloud: Arc<Cloud>,
    pub board: Arc<Board>,
    /// Asks for a reading now.
    pub reread: Arc<Notify>,
    pub every: Duration,
}

impl Plan {
    pub(super) async fn follow(self, mut shutdown: Shutdown) {
        let mut backoff =
            Backoff::new(self.every.min(Duration::from_secs(1)), LONGEST_PAUSE.max(self.every));
        loop {
            let pause = match self.read().await {
                Ok(()) => {
                    backoff.reset();
                    self.board.plan(None);
                    self.every
                }
                Err(error) if error.code == Code::JournalFailed => return,
                Err(error) => {
                    if backoff.tries() == 0 {
                        tracing::warn!(code = %error.code, words = error.message, cause = %error.chain(), "Entities not read; the last good plan stays");
                    }
                    self.board.plan(Some(&error));
                    backoff.next_pause()
                }
            };
            tokio::select! {
                () = shutdown.draining() => return,
                () = self.try_denied_for(pause) => {}
                () = self.reread.notified() => {}
            }
        }
    }

    /// Ends after that time; meanwhile denied tables are tried again as their time comes.
    async fn try_denied_for(&self, pause: Duration) {
        let end = Mono::now() + pause;
        loop {
            let now = Mono::now();
            let mut next = end;
            for (table, parked) in self.journal.parked() {
                let Some(retry) = parked.retry else { continue };
                if retry.due > now {
                    next = next.min(retry.due);
                } else {
                    tracing::info!(%table, "denied table is tried again");
                    self.journal.try_again(&table);
                }
            }
            clock::sleep(next - now).await;
            if next == end {
                return;
            }
        }
    }

    async fn read(&self) -> Result<()> {
        let result = self.cloud.entities().await;
        if let Err(Error { code: Code::CloudUnreachable | Code::NotFound, .. }) = &result {
            self.cloud.registry_is_stale().await;
        }
        let entities = result?;
        let before = self.journal.plan().await?;
        self.journal.save_plan(entities.clone()).await?;
        for table in lifted(&self.journal.parked(), before.as_ref(), &entities) {
            tracing::info!(%table, "parked table is tried again");
            self.journal.unpark(&table);
        }
        Ok(())
    }
}

/// Parked tables whose reason may be gone: a right given (the plan differs), a reload ordered under the new key.
fn lifted(
    parked: &BTreeMap<TableName, Parked>,
    before: Option<&Entities>,
    after: &Entities,
) -> Vec<TableName> {
    let generation = |plan: &Entities, table: &TableName| -> Option<Generation> {
        plan.queries.iter().find(|query| query.table == *table)?.reload_generation
    };
    let differs = before.is_some_and(|before| before != after);
    let reloaded = |table: &TableName| {
        before.is_some_and(|before| generation(before, table) != generation(after, table))
    };
    parked
        .iter()
        .filter(|(table, parked)| match parked.code {
            Code::PrimaryKeyChanged | Code::MissingKeyColumn => reloaded(table),
            _ => differs,
        })
        .map(|(table, _)| table.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(generation: i64, filter: &str) -> Entities {
        serde_json::from_str(&format!(
            r#"{{"uploadVersion":2,"queries":[{{"table":"FLAN","filter":"{filter}","forceReload":false,"reloadGeneration":{generation}}}]}}"#
        ))
        .unwrap()
    }

    #[test]
    fn a_parked_table_is_tried_again_once_somebody_acted() {
        let why = |code| Parked { code, words: String::new(), retry: None };
        let parked = |code| BTreeMap::from([("FLAN".parse().unwrap(), why(code))]);
        let (old, same, other, reload) = (plan(1, "a"), plan(1, "a"), plan(1, "b"), plan(2, "a"));
        let count = |code, after: &Entities| lifted(&parked(code), Some(&old), after).len();
        assert_eq!(count(Code::PermissionDenied, &same), 0);
        assert_eq!(count(Code::PermissionDenied, &other), 1);
        assert_eq!(count(Code::PrimaryKeyChanged, &other), 0);
        assert_eq!(count(Code::PrimaryKeyChanged, &reload), 1);
        assert!(lifted(&parked(Code::PermissionDenied), None, &old).is_empty());
    }
}
