//! Plan: follows Entities and keeps the last good answer in the journal.
//!
//! Promises: an answer that is not valid changes nothing; a table that the cloud parked is tried again once the plan
//! says that somebody acted, a denied one also by itself, with growing pauses.
//! Never: decides what a plan means for a table (capture does).

use std::{sync::Arc, time::Duration};

use protocol::{
    Code, Error, Result,
    json::{Entities, EntityQuery},
    names::TableName,
};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono},
    shutdown::Shutdown,
};
use tokio::sync::Notify;

use super::{board::Board, cloud::Cloud};
use crate::journal::Journal;

/// Longest pause between tries while Entities cannot be read. Short: until the next one people are shown the old fault.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

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
                        let kept = self.journal.plan().await.is_ok_and(|plan| plan.is_some());
                        let then =
                            if kept { "the last good plan stays" } else { "there is no plan yet" };
                        tracing::warn!(code = %error.code, words = error.message, cause = error.cause(), hint = error.code.hint(), then, "Entities not read");
                    }
                    self.board.plan(Some(&error));
                    backoff.next_pause()
                }
            };
            tokio::select! {
                biased;
                () = shutdown.draining() => return,
                () = self.reread.notified() => {}
                () = self.try_denied_for(pause) => {}
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
        let Some(before) = before else { return Ok(()) };
        let change = Change { before: &before, after: &entities };
        for query in entities.queries.iter().filter(|query| change.reloads(&query.table)) {
            self.journal.forgive_all(&query.table).await?;
        }
        for (table, parked) in self.journal.parked() {
            if change.lifts(&table, parked.code) {
                tracing::info!(%table, "parked table is tried again");
                if parked.code != Code::PermissionDenied {
                    self.journal.forgive_all(&table).await?;
                }
                self.journal.unpark(&table);
            }
        }
        Ok(())
    }
}

/// From one plan to the next.
struct Change<'a> {
    before: &'a Entities,
    after: &'a Entities,
}

impl Change<'_> {
    /// Whether the reason for parking a table may be gone: a right given (the plan differs), a reload ordered under the
    /// new key, another entry of the table.
    fn lifts(&self, table: &TableName, code: Code) -> bool {
        match code {
            Code::PermissionDenied => self.before != self.after,
            Code::PrimaryKeyChanged => self.reloads(table),
            _ => entry(self.before, table) != entry(self.after, table),
        }
    }

    fn reloads(&self, table: &TableName) -> bool {
        let generation = |plan| entry(plan, table)?.reload_generation;
        generation(self.before) != generation(self.after)
    }
}

fn entry<'a>(plan: &'a Entities, table: &TableName) -> Option<&'a EntityQuery> {
    plan.queries.iter().find(|query| query.table == *table)
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
        let (old, same, other, reload) = (plan(1, "a"), plan(1, "a"), plan(1, "b"), plan(2, "a"));
        let mut grown = plan(1, "a");
        grown.queries.push(EntityQuery { table: "SE1".parse().unwrap(), ..old.queries[0].clone() });
        let lifts = |code, after: &Entities| {
            Change { before: &old, after }.lifts(&"FLAN".parse().unwrap(), code)
        };
        for (code, by) in [
            (Code::PermissionDenied, [false, true, true, true]),
            (Code::PrimaryKeyChanged, [false, false, true, false]),
            (Code::InvalidArgument, [false, true, true, false]),
            (Code::MissingKeyColumn, [false, true, true, false]),
        ] {
            assert_eq!(
                [&same, &other, &reload, &grown].map(|after| lifts(code, after)),
                by,
                "{code}"
            );
        }
    }
}
