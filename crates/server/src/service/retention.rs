//! Retention, service floor: what nobody needs any more goes, stream by stream and step by step.
//!
//! Promises: only what is staged goes; a stream whose file is missing or of another ledger keeps all; a stream that
//! fails holds back only itself; what a person orders is in the audit, a dry run is not.
//! Never: knows SQL; waits inside a step.

use std::{sync::Arc, time::Duration};

use metrics::counter;
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, EnvironmentId},
    names::ErpName,
};
use runtime::{clock::Wall, failpoint};
use serde::Serialize;
use utoipa::ToSchema;

use super::staging::Staging;
pub use crate::store::retention::Sweep;
use crate::store::webhook::Due;
use crate::{
    model::{
        retention::{Policy, Removed, Trust},
        stream::StreamId,
    },
    store::{Store, staging::Space},
};

/// Steps of one run that a person waits for: about a minute of work.
const RUN_STEPS: usize = 1_000;

/// Retention. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Retention {
    store: Store,
    staging: Staging,
    policy: Policy,
}

/// What a run removed, or would remove.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Swept {
    /// False for a dry run.
    pub applied: bool,
    #[serde(flatten)]
    pub removed: Removed,
    /// True where more is due than one run removes.
    pub more: bool,
    /// Streams of which nothing could be told or removed, or not all.
    pub failed: Vec<FailedStream>,
}

/// A stream that retention could not work on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct FailedStream {
    #[schema(value_type = String)]
    pub environment: EnvironmentId,
    #[schema(value_type = String)]
    pub erp: ErpName,
    pub code: &'static str,
    pub message: String,
}

impl FailedStream {
    fn of(stream: &StreamId, error: Error) -> Self {
        Self {
            environment: stream.environment,
            erp: stream.erp.clone(),
            code: error.code.as_str(),
            message: error.message,
        }
    }
}

impl Retention {
    #[must_use]
    pub fn new(store: Store, staging: Staging) -> Self {
        Self { store, staging, policy: Policy::default() }
    }

    /// The same under another policy.
    #[must_use]
    pub fn keeping(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    #[must_use]
    pub const fn policy(&self) -> Policy {
        self.policy
    }

    /// Streams that have a ledger.
    ///
    /// # Errors
    /// The store's own.
    pub async fn streams(&self) -> Result<Vec<StreamId>> {
        Ok(self.staging.streams().await?.into_iter().collect())
    }

    /// Looks at a clock that shows `now`, `passed` after the look before in this process (zero for its first one). Gives
    /// how it was doubted before and is now.
    ///
    /// # Errors
    /// The store's own.
    pub async fn look(&self, now: Wall, passed: Duration) -> Result<(Trust, Trust)> {
        let before = self.store.trust().await?;
        let after = before.look(now, passed);
        self.store.keep_trust(after).await?;
        Ok((before, after))
    }

    #[cfg(test)]
    pub(crate) async fn trust(&self) -> Result<Trust> {
        self.store.trust().await
    }

    #[cfg(test)]
    pub(crate) async fn keep_trust(&self, trust: Trust) -> Result<()> {
        self.store.keep_trust(trust).await
    }

    /// How far a stream may be swept now; `None` where nothing of it is staged, so that all of it is still needed.
    ///
    /// # Errors
    /// The stores' own.
    pub async fn sweep(&self, stream: &StreamId, now: Wall) -> Result<Option<Sweep>> {
        let found = self.staging.found(stream.environment, &stream.erp).await?;
        let Some(space) = found else { return Ok(None) };
        let standing = space.standing().await?;
        let held = space.whole_messages().await?.into_iter().collect();
        self.store.sweep(stream.clone(), standing, held, (self.policy, now)).await.map(Some)
    }

    /// One step of a sweep; nothing = it is done.
    ///
    /// # Errors
    /// The stores' own.
    pub async fn step(&self, sweep: &Sweep) -> Result<Removed> {
        failpoint::pass("retention.step", Code::StoreFailed).await?;
        // Tombstones first: the ledger's rows tell how old they are.
        let mut removed = Removed { tombstones: self.bury(sweep).await?, ..Removed::default() };
        if removed.is_nothing() {
            removed = self.store.sweep_step(sweep.clone()).await?;
        }
        counter!("malote_retention_tombstones_total").increment(removed.tombstones);
        counter!("malote_retention_bodies_total").increment(removed.bodies);
        counter!("malote_retention_bytes_total").increment(removed.bytes);
        counter!("malote_retention_ledger_rows_total").increment(removed.messages);
        Ok(removed)
    }

    async fn bury(&self, sweep: &Sweep) -> Result<u64> {
        match self.space_of(sweep).await? {
            Some(space) => space.remove_tombstones(sweep.tombstones_to).await,
            None => Ok(0),
        }
    }

    /// The staging file, where a sweep has anything to do with it.
    async fn space_of(&self, sweep: &Sweep) -> Result<Option<Arc<Space>>> {
        if sweep.tombstones_to == AcceptSeq(0) {
            return Ok(None);
        }
        self.staging.found(sweep.stream.environment, &sweep.stream.erp).await
    }

    /// One step through the deliveries of webhooks; nothing = all that is due is gone.
    ///
    /// # Errors
    /// The store's own.
    pub async fn forget_deliveries(&self, now: Wall) -> Result<Removed> {
        let (deliveries, untold) = self.store.forget_deliveries(self.due_deliveries(now)).await?;
        counter!("malote_retention_deliveries_total").increment(deliveries);
        if untold > 0 {
            tracing::warn!(
                untold,
                "events that no consumer took are past the days of the ledger and were removed"
            );
        }
        Ok(Removed { deliveries, ..Removed::default() })
    }

    fn due_deliveries(&self, now: Wall) -> Due {
        Due {
            done_before: self.policy.deliveries_before(now),
            all_before: self.policy.ledger_before(now),
        }
    }

    /// Gives some of what became free in the store back to the file system; `false` = there is nothing more.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shrink(&self) -> Result<bool> {
        self.store.shrink_step().await
    }

    /// As [`Self::shrink`], of a stream's staging file.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shrink_staging(&self, stream: &StreamId) -> Result<bool> {
        failpoint::pass("retention.shrink", Code::StoreFailed).await?;
        match self.staging.found(stream.environment, &stream.erp).await? {
            Some(space) => space.shrink_step().await,
            None => Ok(false),
        }
    }

    /// Tells what is due now.
    ///
    /// # Errors
    /// The stores' own.
    pub async fn due(&self, now: Wall) -> Result<Swept> {
        let (mut removed, mut failed) = (Removed::default(), Vec::new());
        for stream in self.streams().await? {
            match self.due_of(&stream, now).await {
                Ok(due) => removed += due,
                Err(error) => failed.push(FailedStream::of(&stream, error)),
            }
        }
        removed.deliveries = self.store.deliveries_due(self.due_deliveries(now)).await?;
        Ok(Swept { applied: false, removed, more: false, failed })
    }

    async fn due_of(&self, stream: &StreamId, now: Wall) -> Result<Removed> {
        let Some(sweep) = self.sweep(stream, now).await? else { return Ok(Removed::default()) };
        let tombstones = match self.space_of(&sweep).await? {
            Some(space) => space.old_tombstones(sweep.tombstones_to).await?,
            None => 0,
        };
        let mut due = self.store.due(sweep).await?;
        due.tombstones += tombstones;
        Ok(due)
    }

    /// Removes what is due now, as a person ordered. A stream that fails is told and holds back only itself.
    ///
    /// # Errors
    /// The store's own; what was removed before stays removed.
    pub async fn run(&self, now: Wall) -> Result<Swept> {
        self.store.note_retention(self.policy).await?;
        let (removed, failed) = (Removed::default(), Vec::new());
        let mut swept = Swept { applied: true, removed, more: false, failed };
        let mut steps = 0;
        for stream in self.streams().await? {
            let done = self.sweep_whole(&stream, now, (&mut steps, &mut swept.removed)).await;
            let smaller = self.shrink_whole(&stream, &mut steps).await;
            if let Err(error) = done.and(smaller) {
                swept.failed.push(FailedStream::of(&stream, error));
            }
        }
        loop {
            if steps == RUN_STEPS {
                return Ok(Swept { more: true, ..swept });
            }
            let removed = self.forget_deliveries(now).await?;
            if removed.is_nothing() {
                break;
            }
            swept.removed += removed;
            steps += 1;
        }
        while steps < RUN_STEPS && self.shrink().await? {
            steps += 1;
        }
        Ok(swept)
    }

    /// All steps of one stream, as far as the run has some left.
    async fn sweep_whole(
        &self,
        stream: &StreamId,
        now: Wall,
        (steps, all): (&mut usize, &mut Removed),
    ) -> Result<()> {
        let Some(sweep) = self.sweep(stream, now).await? else { return Ok(()) };
        while *steps < RUN_STEPS {
            let removed = self.step(&sweep).await?;
            if removed.is_nothing() {
                break;
            }
            *all += removed;
            *steps += 1;
        }
        Ok(())
    }

    async fn shrink_whole(&self, stream: &StreamId, steps: &mut usize) -> Result<()> {
        while *steps < RUN_STEPS && self.shrink_staging(stream).await? {
            *steps += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
