//! Staging, service floor: the ledger becomes staged tables, and people and tools read them.
//!
//! Promises: one apply at a time per stream, in order of acceptance; reads give canonical text.
//! Never: knows SQL; judges a row.

mod analysts;
mod look;
mod quarantine;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{counter, gauge};
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, EnvironmentId},
    key::KeyBytes,
    names::{ErpName, TableName},
};
use runtime::clock::Wall;

pub use analysts::Readers;
pub use look::{Rows, Shape};
pub use quarantine::{Outcome, Quarantined, Retried, RowAt, Shown, Tried, Which, code, which};

use crate::{
    model::{catalog::Place, stream::StreamId},
    store::{
        Store,
        ingest::{Following, LedgerBatch, LedgerMessage, Standing},
        staging::{Applied, Progress, Space, Spaces, StagedRow, StagedTable},
    },
};

/// Bytes of messages applied in one transaction: large enough that a commit is cheap, small enough to be quick.
const ROUND_BYTES: usize = 8 * 1024 * 1024;

/// Staged tables. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Staging {
    store: Store,
    spaces: Spaces,
    turns: Arc<Turns>,
}

/// One lock per stream, so that two rounds of one stream never meet.
#[derive(Debug, Default)]
struct Turns(Mutex<HashMap<StreamId, Arc<tokio::sync::Mutex<()>>>>);

impl Staging {
    #[must_use]
    pub fn new(store: Store, data: &Path) -> Self {
        let spaces = Spaces::of(&store, data);
        Self { store, spaces, turns: Arc::default() }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    /// Streams that have something to apply or to mirror.
    ///
    /// # Errors
    /// The store's own.
    pub async fn streams(&self) -> Result<BTreeSet<StreamId>> {
        Ok(self
            .store
            .ledger_ends()
            .await?
            .into_iter()
            .filter(|(_, seq)| seq.0 > 0)
            .map(|(id, _)| id)
            .collect())
    }

    /// Applies the next messages of a stream and mirrors its batches; `messages` 0 = all is applied.
    ///
    /// # Errors
    /// The stores' own; nothing of the round is kept then, and it can be repeated.
    pub async fn apply(&self, stream: &StreamId, now: Wall) -> Result<Applied> {
        let turn = {
            let mut turns = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(stream.clone()).or_default())
        };
        let _turn = turn.lock().await;
        let space = self.spaces.make(stream.environment, &stream.erp).await?;
        let (standing, messages, batches) = self.next(stream, &space, now).await?;
        if messages.is_empty() && batches.is_empty() {
            return Ok(Applied { up_to: standing.applied, ..Applied::default() });
        }
        let oldest = batches.iter().map(|batch| batch.last_at).min();
        let applied = space.apply(messages, batches, now).await?;
        counter!("malote_rows_staged_total").increment(applied.rows as u64);
        counter!("malote_rows_quarantined_total").increment(applied.quarantined as u64);
        if applied.quarantined > 0 {
            tracing::warn!(erp = %stream.erp, rows = applied.quarantined, "rows went to quarantine");
        }
        let lag = oldest
            .filter(|_| applied.messages > 0)
            .map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
        gauge!("malote_apply_lag_seconds").set(lag);
        Ok(applied)
    }

    /// What the file lacks of the ledger. One that was made from another ledger begins anew: below its own number it
    /// would take none of the messages that were acknowledged since the store was restored. One that lacks messages
    /// whose bodies retention removed has every table sent again, and goes on behind them: the loads are ordered first,
    /// so that an end of the process between the two costs a second order and never a row.
    async fn next(
        &self,
        stream: &StreamId,
        space: &Space,
        now: Wall,
    ) -> Result<(Standing, Vec<LedgerMessage>, Vec<LedgerBatch>)> {
        loop {
            let standing = space.standing().await?;
            let page = self.store.ledger_after(stream.clone(), standing.clone(), ROUND_BYTES);
            match page.await? {
                Following::Next(messages, batches) => return Ok((standing, messages, batches)),
                Following::OtherLedger => {
                    tracing::error!(
                        erp = %stream.erp,
                        applied = standing.applied.0,
                        "what is staged comes from another ledger (was the store restored?); it is made again from this one"
                    );
                    space.begin_anew().await?;
                }
                Following::Removed(behind) => {
                    let StreamId { tenant, environment, erp } = stream.clone();
                    let place = Place { tenant, environment, erp };
                    let lost = self.store.reload_lost(place, now).await?;
                    tracing::error!(
                        erp = %stream.erp,
                        applied = standing.applied.0,
                        behind = behind.applied.0,
                        tables = lost.len(),
                        "what is staged lacks messages whose bodies retention removed; every shared table is ordered again"
                    );
                    space.begin_behind(behind, lost).await?;
                }
            }
        }
    }

    /// Applies all of a stream that is in the ledger now.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub async fn catch_up(&self, stream: &StreamId, now: Wall) -> Result<()> {
        while self.apply(stream, now).await?.messages > 0 {}
        Ok(())
    }

    /// How far staging is. Zero where nothing was ever staged.
    ///
    /// # Errors
    /// The store's own.
    pub async fn applied(&self, environment: EnvironmentId, erp: &ErpName) -> Result<Progress> {
        match self.spaces.find(environment, erp).await? {
            Some(space) => space.progress().await,
            None => Ok(Progress::default()),
        }
    }

    /// The stream's highest number of acceptance: staging holds all when [`Self::applied`] has reached it.
    ///
    /// # Errors
    /// The store's own.
    pub async fn accepted(&self, stream: &StreamId) -> Result<AcceptSeq> {
        self.store.accepted(stream.clone()).await
    }

    /// # Errors
    /// The store's own.
    pub async fn tables(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Vec<StagedTable>> {
        match self.spaces.find(environment, erp).await? {
            Some(space) => space.tables().await,
            None => Ok(Vec::new()),
        }
    }

    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn table(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
        table: &TableName,
    ) -> Result<StagedTable> {
        let missing = || Error::new(Code::NotFound, format!("there is no staging table {table}"));
        self.space(environment, erp).await?.table(table.clone()).await?.ok_or_else(missing)
    }

    /// Live rows of a table; 0 where it is not staged.
    ///
    /// # Errors
    /// The store's own.
    pub async fn count(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
        table: &TableName,
    ) -> Result<u64> {
        match self.spaces.find(environment, erp).await? {
            Some(space) => space.count(table.clone()).await,
            None => Ok(0),
        }
    }

    /// A page of live rows behind a key (empty = from the first), in the order of key bytes.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn page(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
        table: &TableName,
        (after, limit): (KeyBytes, u32),
    ) -> Result<Vec<StagedRow>> {
        self.space(environment, erp).await?.page(table.clone(), (after, limit), false).await
    }

    /// Rows of these keys, deleted ones included (`deleted` is set), in the order asked.
    ///
    /// # Errors
    /// The store's own.
    pub async fn rows_by_keys(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
        table: &TableName,
        keys: Vec<KeyBytes>,
    ) -> Result<Vec<Option<StagedRow>>> {
        match self.spaces.find(environment, erp).await? {
            Some(space) => space.rows_by_keys(table.clone(), keys).await,
            None => Ok(vec![None; keys.len()]),
        }
    }

    pub(super) async fn space(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Arc<Space>> {
        let missing = || {
            Error::new(Code::NotFound, format!("nothing of {erp} is staged in this environment"))
        };
        self.spaces.find(environment, erp).await?.ok_or_else(missing)
    }

    pub(super) async fn found(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Option<Arc<Space>>> {
        self.spaces.find(environment, erp).await
    }
}

#[cfg(test)]
mod tests;
