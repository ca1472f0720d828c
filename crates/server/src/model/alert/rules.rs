//! Rules: from what the server knows of a stream to what is wrong with it.
//!
//! Promises: total and without memory: the same facts at the same time give the same conditions; where nobody sends,
//! that is told and not, beside it, all that follows from it, nor what an agent told while it was there.
//! Never: reads a clock or a store.

use std::time::Duration;

use protocol::{Code, Error, Result, ids::EnvironmentId, limits};
use runtime::clock::Wall;
use serde::Serialize;
use utoipa::ToSchema;

use super::{About, Condition, Measure, Rule, findings::Findings};
use crate::model::{fleet::Doing, stream::StreamId};

/// Where a threshold holds: the narrowest one that fits counts, a table's before an environment's before a tenant's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Threshold {
    pub rule: Rule,
    /// Absent: every environment of the tenant.
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    /// Folded; absent: every table.
    pub table: Option<String>,
    /// In the rule's unit; 0: the rule is off there.
    pub value: u32,
}

impl Threshold {
    /// # Errors
    /// `BAD_REQUEST` where the rule has no threshold there.
    pub fn check(&self) -> Result<()> {
        let bad = |words: &str| Err(Error::new(Code::BadRequest, words));
        if self.rule == Rule::Disk {
            return bad("disk is the server's own: alerts.disk_free_mb in its configuration");
        }
        if self.table.is_some() && !is_of_tables(self.rule) {
            return bad("of a table there are freshness, table-parked and differences");
        }
        Ok(())
    }
}

const fn is_of_tables(rule: Rule) -> bool {
    matches!(rule, Rule::Freshness | Rule::TableParked | Rule::Differences)
}

/// What holds where nothing was set: minutes, batches or rows by the rule.
const fn default_of(rule: Rule) -> u32 {
    match rule {
        Rule::AgentDead | Rule::TableParked => 5,
        Rule::StagingBehind => 15,
        Rule::Freshness => 60,
        // MiB; the configuration's own.
        Rule::Disk => 1_024,
        Rule::BatchStalled
        | Rule::BatchIncomplete
        | Rule::Differences
        | Rule::NotVerified
        | Rule::Quarantine => 1,
    }
}

/// Without a session nobody knows whether a sender is there and finds nothing new, or is gone: a day is long for both.
const FRESHNESS_WITHOUT_SESSION: u32 = 1_440;

/// Thresholds of a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Thresholds(pub Vec<Threshold>);

impl Thresholds {
    /// The one set for that table itself.
    fn own(&self, rule: Rule, environment: EnvironmentId, table: &str) -> Option<u32> {
        let mut tables = self.0.iter().filter(|of| of.rule == rule && of.table.is_some());
        let named = |of: &Threshold| {
            of.table.as_deref().is_some_and(|of| of.eq_ignore_ascii_case(table))
                && of.environment.is_none_or(|of| of == environment)
        };
        tables.any(named).then(|| self.of(rule, environment, Some(table)))
    }

    /// The one set for exactly that, or for what it is part of; `None`: nothing was set.
    #[must_use]
    fn set(&self, rule: Rule, environment: EnvironmentId, table: Option<&str>) -> Option<u32> {
        let fits = |threshold: &&Threshold| {
            threshold.rule == rule
                && threshold.environment.is_none_or(|of| of == environment)
                && threshold
                    .table
                    .as_deref()
                    .is_none_or(|of| table.is_some_and(|table| table.eq_ignore_ascii_case(of)))
        };
        let width =
            |threshold: &&Threshold| (threshold.table.is_some(), threshold.environment.is_some());
        self.0.iter().filter(fits).max_by_key(width).map(|threshold| threshold.value)
    }

    fn of(&self, rule: Rule, environment: EnvironmentId, table: Option<&str>) -> u32 {
        self.set(rule, environment, table).unwrap_or(default_of(rule))
    }

    /// Tables whose own freshness is asked for, by folded name and minutes.
    #[must_use]
    pub fn fresh_tables(&self, environment: EnvironmentId) -> Vec<(String, u32)> {
        let own = self.0.iter().filter(|of| of.rule == Rule::Freshness && of.value > 0);
        let here = own.filter(|of| of.environment.is_none_or(|of| of == environment));
        let mut tables: Vec<String> = here.filter_map(|of| of.table.clone()).collect();
        tables.sort_unstable();
        tables.dedup();
        let with_minutes = |table: String| {
            let minutes = self.of(Rule::Freshness, environment, Some(&table));
            (table, minutes)
        };
        tables.into_iter().map(with_minutes).collect()
    }
}

/// The newest batch of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Newest {
    pub open: bool,
    pub complete: bool,
    pub last_at: Wall,
}

/// What somebody told of a stream: the agent of its tables, a comparison of its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reported {
    pub rule: Rule,
    /// Table, as it is shared.
    pub subject: String,
    pub amount: i64,
    pub code: Option<String>,
    pub since: Wall,
}

/// Whether what was reported of a stream says how it stands now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reports {
    /// Nobody holds the lease: it is how it stood.
    Past,
    /// Who holds the lease was granted it just now and has told nothing yet.
    Awaited,
    /// Who holds the lease reports.
    Current,
    /// It does not: a sender of somebody else, or an agent of before.
    Never,
}

impl Reports {
    /// Of a stream by whether its lease is live, and by the last grant and the last report of who holds it.
    #[must_use]
    pub fn of(live: bool, (granted, reported): (Option<Wall>, Option<Wall>), now: Wall) -> Self {
        if !live {
            return Self::Past;
        }
        // A report from before the grant may be one of an agent that was older or newer.
        if reported.is_some_and(|reported| granted.is_none_or(|granted| reported >= granted)) {
            return Self::Current;
        }
        let just_now = granted.is_some_and(|granted| now.since(granted) < limits::FLEET_SILENT);
        if just_now { Self::Awaited } else { Self::Never }
    }
}

/// A table of which an agent reports how far it was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Read {
    /// As it is shared.
    pub table: String,
    /// Everything up to then was read.
    pub fresh: Wall,
    /// It may be longer ago than that: when its picture was drawn nobody saw.
    pub undated: bool,
    pub paused: bool,
}

/// What the server knows of a stream that somebody is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub stream: StreamId,
    /// It had a session at some time.
    pub had_session: bool,
    /// Until when the lease lasts that is live now.
    pub live_until: Option<Wall>,
    /// Since when no lease was seen; `None`: one is live.
    pub absent_since: Option<Wall>,
    /// It may be absent for longer than that: nobody saw it go.
    pub undated_absence: bool,
    pub newest: Option<Newest>,
    /// End of the last batch that was complete.
    pub complete_at: Option<Wall>,
    /// Batches given up or refused behind it, and since when.
    pub incomplete: (i64, Option<Wall>),
    /// When the oldest message was accepted that is not staged.
    pub unstaged_since: Option<Wall>,
    /// Rows in quarantine.
    pub quarantined: i64,
    /// Shared tables that nobody reports and whose own freshness is asked for, with their minutes, that sent nothing for so
    /// long.
    pub silent_tables: Vec<(String, u32)>,
    pub reports: Reports,
    pub reported: Vec<Reported>,
    /// Empty where nobody reports.
    pub read: Vec<Read>,
}

/// All that is wrong with a stream, and what cannot be said of it.
#[must_use]
pub fn findings(facts: &Facts, thresholds: &Thresholds, now: Wall) -> Findings {
    let judge = Judge { facts, thresholds, now };
    let absent = facts.absent_since.filter(|_| facts.had_session);
    let dead = judge.late(Rule::AgentDead, absent);
    let mut found = Findings::from(judge.of_ledger());
    let mut unknown: &[Rule] = &[];
    if dead.is_some() {
        found.conditions.extend(dead.map(|at| judge.of(Rule::AgentDead, "", since(at))));
        unknown = &[Rule::Differences, Rule::Freshness, Rule::NotVerified, Rule::TableParked];
    } else {
        let stalled = facts.newest.filter(|newest| newest.open).map(|newest| newest.last_at);
        let stalled = judge.late(Rule::BatchStalled, stalled);
        found.conditions.extend(stalled.map(|at| judge.of(Rule::BatchStalled, "", since(at))));
        found.conditions.extend(judge.stale());
        // It may be too long already; what was told of that stays.
        if absent.is_some() && facts.undated_absence {
            found.note_unknown(&facts.stream, Some(Rule::AgentDead));
            found.note_unknown(&facts.stream, Some(Rule::Freshness));
        }
        if facts.read.iter().any(|read| read.undated) {
            found.note_unknown(&facts.stream, Some(Rule::Freshness));
        }
        match facts.reports {
            Reports::Current | Reports::Past => found.conditions.extend(judge.reported()),
            Reports::Awaited => {
                unknown = &[Rule::Differences, Rule::NotVerified, Rule::TableParked];
            }
            Reports::Never => {}
        }
    }
    for rule in unknown {
        found.note_unknown(&facts.stream, Some(*rule));
    }
    found
}

fn since(since: Wall) -> Measure {
    Measure { since: Some(since), ..Measure::default() }
}

/// A stream that is held against the rules.
#[derive(Clone, Copy)]
struct Judge<'a> {
    facts: &'a Facts,
    thresholds: &'a Thresholds,
    now: Wall,
}

impl Judge<'_> {
    fn limit(&self, rule: Rule) -> u32 {
        self.thresholds.of(rule, self.facts.stream.environment, None)
    }

    fn is_late(&self, since: Wall, minutes: u32) -> bool {
        minutes > 0 && self.now.since(since) >= duration(minutes)
    }

    fn late(&self, rule: Rule, since: Option<Wall>) -> Option<Wall> {
        since.filter(|since| self.is_late(*since, self.limit(rule)))
    }

    fn of(&self, rule: Rule, subject: &str, measure: Measure) -> Condition {
        let StreamId { environment, erp, .. } = &self.facts.stream;
        let (environment, erp) = (Some(*environment), Some(erp.to_string()));
        let about = About { environment, erp, rule, subject: subject.to_owned(), code: None };
        Condition { about, measure }
    }

    /// What the server sees by itself, whoever sends.
    fn of_ledger(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        let (batches, first) = self.facts.incomplete;
        let most = self.limit(Rule::BatchIncomplete);
        if most > 0 && batches >= i64::from(most) {
            let measure = Measure { amount: batches, since: first, code: None };
            all.push(self.of(Rule::BatchIncomplete, "", measure));
        }
        let behind = self.late(Rule::StagingBehind, self.facts.unstaged_since);
        all.extend(behind.map(|at| self.of(Rule::StagingBehind, "", since(at))));
        let most = self.limit(Rule::Quarantine);
        if most > 0 && self.facts.quarantined >= i64::from(most) {
            let measure = Measure { amount: self.facts.quarantined, ..Measure::default() };
            all.push(self.of(Rule::Quarantine, "", measure));
        }
        all
    }

    /// What is not read: the stream by the worst of its tables, and each table whose own threshold is set.
    fn stale(&self) -> Vec<Condition> {
        let mut all = Vec::new();
        let by_tables = self.facts.reports == Reports::Current && !self.facts.read.is_empty();
        let mut together: Vec<&Read> = Vec::new();
        for read in self.facts.read.iter().filter(|_| by_tables) {
            let environment = self.facts.stream.environment;
            match self.thresholds.own(Rule::Freshness, environment, &read.table) {
                None => together.push(read),
                Some(minutes) if self.is_late(read.fresh, minutes) => {
                    let code = read.paused.then(|| Doing::Paused.as_str().to_owned());
                    let measure = Measure { amount: minutes.into(), since: Some(read.fresh), code };
                    all.push(self.of(Rule::Freshness, &read.table, measure));
                }
                Some(_) => {}
            }
        }
        if by_tables {
            let minutes = self.limit(Rule::Freshness);
            together.retain(|read| self.is_late(read.fresh, minutes));
            all.extend(worst(&together).map(|measure| self.of(Rule::Freshness, "", measure)));
        } else {
            all.extend(self.quiet_since().map(|at| self.of(Rule::Freshness, "", since(at))));
        }
        all.extend(self.facts.silent_tables.iter().map(|(table, minutes)| {
            let measure = Measure { amount: i64::from(*minutes), ..Measure::default() };
            self.of(Rule::Freshness, table, measure)
        }));
        all
    }

    /// Since when nothing new came of a stream whose tables nobody reports, where that is too long. A live session whose
    /// batches are complete is taken to have read everything up to its last renewal.
    fn quiet_since(&self) -> Option<Wall> {
        let Facts { stream, had_session, live_until, absent_since, newest, complete_at, .. } =
            self.facts;
        let minutes = match self.thresholds.set(Rule::Freshness, stream.environment, None) {
            Some(minutes) => minutes,
            None if *had_session => default_of(Rule::Freshness),
            None => FRESHNESS_WITHOUT_SESSION,
        };
        let ttl = i64::try_from(limits::SESSION_TTL.as_micros()).unwrap_or(i64::MAX);
        let renewed = match live_until {
            Some(until) => Some(Wall(until.0.saturating_sub(ttl))),
            None => absent_since.filter(|_| *had_session),
        };
        let quiet = newest.is_none_or(|newest| newest.complete);
        // A first batch that never completed is as old as its newest message: it is told as stalled or incomplete.
        let fresh = renewed.filter(|_| quiet).max(*complete_at)?;
        self.is_late(fresh, minutes).then_some(fresh)
    }

    fn reported(&self) -> Vec<Condition> {
        let place = (self.facts.stream.environment, self.now);
        let due = self.facts.reported.iter().filter(|told| is_due(told, self.thresholds, place));
        due.map(|told| {
            let Reported { rule, subject, amount, code, since } = told.clone();
            self.of(rule, &subject, Measure { amount, since: Some(since), code })
        })
        .collect()
    }
}

/// How many tables are not read, since when the worst of them, and whether that is because they are paused.
fn worst(stale: &[&Read]) -> Option<Measure> {
    let since = Some(stale.iter().map(|read| read.fresh).min()?);
    let paused = stale.iter().all(|read| read.paused);
    let code = paused.then(|| Doing::Paused.as_str().to_owned());
    Some(Measure { amount: i64::try_from(stale.len()).unwrap_or(i64::MAX), since, code })
}

fn is_due(
    told: &Reported,
    thresholds: &Thresholds,
    (environment, now): (EnvironmentId, Wall),
) -> bool {
    let most = thresholds.of(told.rule, environment, Some(&told.subject));
    match told.rule {
        _ if most == 0 => false,
        Rule::TableParked | Rule::Freshness => now.since(told.since) >= duration(most),
        _ => told.amount >= i64::from(most),
    }
}

fn duration(minutes: u32) -> Duration {
    Duration::from_secs(u64::from(minutes) * 60)
}

/// What is wrong with the server itself: `free` bytes of its disk, where that can be told.
#[must_use]
pub fn of_server(free: Option<u64>, least_mb: u32) -> Vec<Condition> {
    let least = u64::from(least_mb) * 1_048_576;
    let low = free.filter(|free| *free < least);
    let (rule, subject) = (Rule::Disk, String::new());
    let about = About { environment: None, erp: None, rule, subject, code: None };
    // In steps of 64 MiB, so that each look does not find another amount.
    let step = |free: u64| i64::try_from(free / 1_048_576 / 64 * 64).unwrap_or(i64::MAX);
    let measure = |free: u64| Measure { amount: step(free), ..Measure::default() };
    low.map(|free| Condition { about, measure: measure(free) }).into_iter().collect()
}

#[cfg(test)]
mod tests;
