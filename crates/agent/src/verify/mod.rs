//! Verify: proves that what is staged equals the ERP, table by table, and has sent again what does not.
//!
//! Promises: one verification at a time, those of the schedule one table after the other; what was under way when the
//! process ended runs again from its begin; what was found is kept, shown and measured.
//! Never: writes to the ERP or talks to the cloud: it asks through the journal, and what it finds is sent by capture.
//!
//! Rooms: `ranges` and `timetable` decide without IO · `scratch` keeps rows that differ · `reader` reads the ERP ·
//! `comparison` is one table's.

mod comparison;
mod ranges;
mod reader;
mod scratch;
mod timetable;

use std::{sync::Arc, time::Duration};

use protocol::{Code, Result};
use runtime::{
    clock::{self, Wall},
    shutdown::Shutdown,
};

use crate::{
    config::AgentConfig,
    journal::{Journal, KeySpan, LinkPhase, Origin, Outcome, Standing, VerifyOrder},
    pacing::Governor,
    source::Source,
};
use comparison::Comparison;
pub use timetable::Timetable;

/// How often the clock on the wall is looked at, which somebody may set.
const LOOK: Duration = Duration::from_secs(30);
/// A run that was missed, since the agent was not there, begins so long after its start: tables that load are through
/// by then, or left for the next one.
const CATCH_UP: Duration = Duration::from_secs(600);
/// Pause after the journal refused something.
const FAULT_PAUSE: Duration = Duration::from_secs(5);

/// Verifies what is ordered, and all tables by the timetable.
#[derive(Debug)]
pub struct Verifier<S> {
    source: Arc<S>,
    journal: Journal,
    config: Arc<AgentConfig>,
    shutdown: Shutdown,
    governor: Arc<Governor>,
}

impl<S: Source> Verifier<S> {
    #[must_use]
    pub fn new(
        source: Arc<S>,
        journal: Journal,
        config: Arc<AgentConfig>,
        shutdown: Shutdown,
    ) -> Self {
        Self { source, journal, config, shutdown, governor: Arc::default() }
    }

    /// At the pace that others who read the same source in bulk keep too.
    #[must_use]
    pub fn paced_by(mut self, governor: Arc<Governor>) -> Self {
        self.governor = governor;
        self
    }

    /// Runs until the drain.
    ///
    /// # Errors
    /// `JOURNAL_FAILED` where the journal is closed, `CONFIG_INVALID` where the timetable cannot be read.
    pub async fn run(self) -> Result<()> {
        let timetable = Timetable::of(&self.config)?;
        let share = share(&self.journal);
        let (mut orders, mut plans) = (self.journal.verify_orders(), self.journal.plan_changed());
        let mut draining = self.shutdown.clone();
        let started = Wall::now();
        let last = self.journal.last_round(started).await.unwrap_or(started);
        let mut due = due(&timetable, share, (last, started));
        while !self.shutdown.is_draining() {
            orders.mark_unchanged();
            plans.mark_unchanged();
            survived(self.measure().await, "what was found could not be measured")?;
            let ran = tokio::select! {
                biased;
                () = draining.draining() => return Ok(()),
                ran = self.next() => ran,
            };
            match ran {
                Ok(true) => continue,
                Ok(false) => {}
                failed => {
                    survived(failed.map(|_| ()), "a verification could not be noted")?;
                    clock::sleep(FAULT_PAUSE).await;
                }
            }
            let now = Wall::now();
            if due.is_some_and(|due| due <= now) {
                due = timetable.next(now, share);
                survived(self.journal.note_round(now).await, "the run could not be noted")?;
                survived(self.order_all().await, "the tables could not be ordered")?;
                continue;
            }
            // A clock that was set back brings it nearer.
            due = due.min(timetable.next(now, share)).or(due);
            let left = due.map_or(LOOK, |due| due.since(now).min(LOOK));
            tokio::select! {
                biased;
                () = draining.draining() => return Ok(()),
                _ = orders.changed() => {}
                _ = plans.changed() => {}
                () = clock::sleep(left) => {}
            }
        }
        Ok(())
    }

    /// Runs the next one; false = none waits.
    async fn next(&self) -> Result<bool> {
        let Some((id, order)) = self.journal.next_verification(Wall::now()).await? else {
            return Ok(false);
        };
        let (table, begun) = (&order.table, Wall::now());
        let comparison = Comparison {
            source: &*self.source,
            journal: &self.journal,
            config: &self.config,
            governor: &self.governor,
            id,
            order: &order,
        };
        let ended = Box::pin(comparison.run()).await;
        let seconds = Wall::now().since(begun).as_secs();
        match &ended {
            Ok(outcome) => tell(&order, outcome, seconds),
            Err(error) if error.code == Code::JournalFailed => {}
            Err(error) => {
                tracing::warn!(%table, %error, cause = error.cause(), hint = error.code.hint(), seconds, "not verified");
            }
        }
        self.journal.end_verification(id, ended, Wall::now()).await?;
        Ok(true)
    }

    /// Tells of every table of the plan what was found in it last.
    async fn measure(&self) -> Result<()> {
        let Some(plan) = self.journal.plan().await? else { return Ok(()) };
        let standing = self.journal.standing().await?;
        for query in plan.queries {
            let of = standing.get(&query.table);
            let name = query.table.to_string();
            metrics::gauge!("malote_verify_timestamp_seconds", "table" => name.clone())
                .set(number(seconds(of)));
            if let Some(of) = of {
                metrics::gauge!("malote_verify_differences", "table" => name)
                    .set(number(of.differences));
            }
        }
        Ok(())
    }

    /// Every table of the plan that can be verified now.
    async fn order_all(&self) -> Result<()> {
        if self.journal.link().borrow().phase == LinkPhase::Standby {
            // The one that sends verifies.
            return Ok(());
        }
        let statuses = self.journal.statuses().await?;
        let ready = statuses.into_iter().filter(|status| status.state == "STREAMING");
        for status in ready.filter(|status| self.config.allows(&status.table)) {
            let order = VerifyOrder {
                table: status.table,
                origin: Origin::Schedule,
                repair: false,
                span: KeySpan::default(),
            };
            match self.journal.order_verify(order, Wall::now()).await {
                // It left the plan meanwhile.
                Err(error) if error.code == Code::NotFound => {}
                ordered => ordered.map(|_| ())?,
            }
        }
        Ok(())
    }
}

/// When the first run is due of an agent that starts: the next one of the timetable, or one that was missed.
fn due(timetable: &Timetable, share: f64, (last, started): (Wall, Wall)) -> Option<Wall> {
    let next = timetable.next(started, share)?;
    let missed = timetable.next(last, share).filter(|missed| *missed <= started);
    let late = Wall(started.0.saturating_add(i64::try_from(CATCH_UP.as_micros()).unwrap_or(0)));
    Some(missed.map_or(next, |_| next.min(late)))
}

/// Tells what failed; only a journal that is closed ends the room.
fn survived(outcome: Result<()>, words: &str) -> Result<()> {
    match outcome {
        Err(error) if error.code != Code::JournalFailed => {
            tracing::warn!(%error, "{words}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Where in the spread this agent begins: anywhere, and always there.
fn share(journal: &Journal) -> f64 {
    let number = u32::try_from(journal.instance().0.as_u128() >> 96).unwrap_or_default();
    f64::from(number) / f64::from(u32::MAX)
}

fn tell(order: &VerifyOrder, outcome: &Outcome, seconds: u64) {
    let (table, found, left) = (&order.table, outcome.found, outcome.remaining());
    let Outcome { rows, ranges, unsettled, skipped, .. } = *outcome;
    if left.total() == 0 {
        let repaired = found.total();
        tracing::info!(%table, rows, ranges, repaired, unsettled, skipped, seconds, "verified: equal");
    } else {
        let (missing, extra, differing) = (left.missing, left.extra, left.differing);
        tracing::warn!(%table, rows, ranges, missing, extra, differing, unsettled, skipped, seconds, code = %Code::DifferencesFound, hint = Code::DifferencesFound.hint(), "verified: different");
    }
}

/// When a table was compared last, in seconds of Unix time; 0 = never, so that its age alarms.
fn seconds(of: Option<&Standing>) -> u64 {
    of.and_then(|of| of.at).map_or(0, |at| at.since(Wall(0)).as_secs())
}

#[expect(clippy::cast_precision_loss, reason = "a number shown to people")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests;
