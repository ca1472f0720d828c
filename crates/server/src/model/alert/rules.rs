//! Rules: from what the server knows of a stream to what is wrong with it.
//!
//! Promises: total and without memory: the same facts at the same time give the same conditions; where nobody sends,
//! that is told and not, beside it, all that follows from it.
//! Never: reads a clock or a store; knows who told a fact.

use std::time::Duration;

use protocol::{Code, Error, Result, ids::EnvironmentId, limits};
use runtime::clock::Wall;
use serde::Serialize;
use utoipa::ToSchema;

use super::{About, Condition, Measure, Rule};
use crate::model::stream::StreamId;

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
            return bad("of a table there are freshness, table-parked, quarantine and differences");
        }
        Ok(())
    }
}

const fn is_of_tables(rule: Rule) -> bool {
    matches!(rule, Rule::Freshness | Rule::TableParked | Rule::Quarantine | Rule::Differences)
}

/// What holds where nothing was set: minutes, batches or rows by the rule.
const fn default_of(rule: Rule) -> u32 {
    match rule {
        Rule::AgentDead | Rule::TableParked => 5,
        Rule::StagingBehind => 15,
        Rule::Freshness => 60,
        // MiB; the configuration's own.
        Rule::Disk => 1_024,
        Rule::BatchStalled | Rule::BatchIncomplete | Rule::Differences | Rule::Quarantine => 1,
    }
}

/// Without a session nobody knows whether a sender is there and finds nothing new, or is gone: a day is long for both.
const FRESHNESS_WITHOUT_SESSION: u32 = 1_440;

/// Thresholds of a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Thresholds(pub Vec<Threshold>);

impl Thresholds {
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

/// What the server knows of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub stream: StreamId,
    /// It had a session at some time.
    pub had_session: bool,
    /// Until when the lease lasts that is live now.
    pub live_until: Option<Wall>,
    /// Since when no lease was seen; `None`: one is live.
    pub absent_since: Option<Wall>,
    pub newest: Option<Newest>,
    /// End of the last batch that was complete.
    pub complete_at: Option<Wall>,
    /// Batches given up or refused behind it, and since when.
    pub incomplete: (i64, Option<Wall>),
    /// When the oldest message was accepted that is not staged.
    pub unstaged_since: Option<Wall>,
    /// Rows in quarantine.
    pub quarantined: i64,
    /// Tables whose own freshness is asked for that sent nothing for so long, with their minutes.
    pub stale_tables: Vec<(String, u32)>,
    pub reported: Vec<Reported>,
}

/// All that is wrong with a stream.
#[must_use]
pub fn conditions(facts: &Facts, thresholds: &Thresholds, now: Wall) -> Vec<Condition> {
    let environment = facts.stream.environment;
    let limit = |rule: Rule| thresholds.of(rule, environment, None);
    let late = |rule: Rule, since: Option<Wall>| {
        let minutes = limit(rule);
        since.filter(|since| minutes > 0 && now.since(*since) >= duration(minutes))
    };
    let of = |rule: Rule, subject: &str, measure: Measure| Condition {
        about: About {
            environment: Some(environment),
            erp: Some(facts.stream.erp.to_string()),
            rule,
            subject: subject.to_owned(),
        },
        measure,
    };
    let since = |since: Wall| Measure { since: Some(since), ..Measure::default() };
    let mut all = Vec::new();
    let dead = late(Rule::AgentDead, facts.absent_since.filter(|_| facts.had_session));
    all.extend(dead.map(|at| of(Rule::AgentDead, "", since(at))));
    if dead.is_none() {
        let stalled = facts.newest.filter(|newest| newest.open).map(|newest| newest.last_at);
        let stalled = late(Rule::BatchStalled, stalled);
        all.extend(stalled.map(|at| of(Rule::BatchStalled, "", since(at))));
        all.extend(stale(facts, thresholds, now).map(|at| of(Rule::Freshness, "", since(at))));
        for (table, minutes) in &facts.stale_tables {
            let amount = i64::from(*minutes);
            all.push(of(Rule::Freshness, table, Measure { amount, ..Measure::default() }));
        }
    }
    let (batches, first) = facts.incomplete;
    let most = limit(Rule::BatchIncomplete);
    if most > 0 && batches >= i64::from(most) {
        let measure = Measure { amount: batches, since: first, code: None };
        all.push(of(Rule::BatchIncomplete, "", measure));
    }
    let behind = late(Rule::StagingBehind, facts.unstaged_since);
    all.extend(behind.map(|at| of(Rule::StagingBehind, "", since(at))));
    let most = limit(Rule::Quarantine);
    if most > 0 && facts.quarantined >= i64::from(most) {
        let measure = Measure { amount: facts.quarantined, ..Measure::default() };
        all.push(of(Rule::Quarantine, "", measure));
    }
    let told = facts.reported.iter().filter(|told| is_due(told, thresholds, (environment, now)));
    all.extend(told.map(|told| {
        let Reported { rule, subject, amount, code, since } = told.clone();
        of(rule, &subject, Measure { amount, since: Some(since), code })
    }));
    all
}

/// Since when nothing new came, where that is too long. A live session whose batches are complete has read everything up
/// to its last renewal, whether or not there was anything to send.
fn stale(facts: &Facts, thresholds: &Thresholds, now: Wall) -> Option<Wall> {
    let set = thresholds.set(Rule::Freshness, facts.stream.environment, None);
    let minutes = match set {
        Some(minutes) => minutes,
        None if facts.had_session => default_of(Rule::Freshness),
        None => FRESHNESS_WITHOUT_SESSION,
    };
    let ttl = i64::try_from(limits::SESSION_TTL.as_micros()).unwrap_or(i64::MAX);
    let renewed = match facts.live_until {
        Some(until) => Some(Wall(until.0.saturating_sub(ttl))),
        None => facts.absent_since.filter(|_| facts.had_session),
    };
    let quiet = facts.newest.is_none_or(|newest| newest.complete);
    // A first batch that never completed is as old as its newest message: it is told as stalled or incomplete.
    let fresh = renewed.filter(|_| quiet).max(facts.complete_at)?;
    (minutes > 0 && now.since(fresh) >= duration(minutes)).then_some(fresh)
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
    let about = About { environment: None, erp: None, rule: Rule::Disk, subject: String::new() };
    // In steps of 64 MiB, so that each look does not find another amount.
    let step = |free: u64| i64::try_from(free / 1_048_576 / 64 * 64).unwrap_or(i64::MAX);
    let measure = |free: u64| Measure { amount: step(free), ..Measure::default() };
    low.map(|free| Condition { about, measure: measure(free) }).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use protocol::ids::TenantId;
    use uuid::Uuid;

    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000_000);

    fn ago(minutes: i64) -> Wall {
        Wall(NOW.0 - minutes * 60_000_000)
    }

    fn environment() -> EnvironmentId {
        EnvironmentId(Uuid::from_u128(2))
    }

    /// A stream at work: a live lease, all complete, all staged.
    fn well() -> Facts {
        let tenant = TenantId(Uuid::from_u128(1));
        Facts {
            stream: StreamId { tenant, environment: environment(), erp: "RM".parse().unwrap() },
            had_session: true,
            live_until: Some(Wall(NOW.0 + 20_000_000)),
            absent_since: None,
            newest: Some(Newest { open: false, complete: true, last_at: ago(600) }),
            complete_at: Some(ago(600)),
            incomplete: (0, None),
            unstaged_since: None,
            quarantined: 0,
            stale_tables: Vec::new(),
            reported: Vec::new(),
        }
    }

    fn rules(facts: &Facts, thresholds: &Thresholds) -> Vec<(Rule, String)> {
        let found = conditions(facts, thresholds, NOW).into_iter();
        found.map(|found| (found.about.rule, found.about.subject)).collect()
    }

    fn default_rules(facts: &Facts) -> Vec<Rule> {
        rules(facts, &Thresholds::default()).into_iter().map(|(rule, _)| rule).collect()
    }

    #[test]
    fn a_quiet_erp_with_a_live_agent_is_well() {
        assert_eq!(default_rules(&well()), []);
    }

    #[test]
    fn each_thing_that_is_wrong_is_told_from_its_threshold_on() {
        let away = |minutes| Facts { live_until: None, absent_since: Some(ago(minutes)), ..well() };
        assert_eq!(default_rules(&away(4)), []);
        assert_eq!(default_rules(&away(5)), [Rule::AgentDead]);
        assert_eq!(default_rules(&away(61)), [Rule::AgentDead], "freshness follows from it");
        let never = Facts { had_session: false, complete_at: None, newest: None, ..away(500) };
        assert_eq!(default_rules(&never), []);
        let open = |minutes| {
            let newest = Newest { open: true, complete: false, last_at: ago(minutes) };
            Facts { newest: Some(newest), complete_at: Some(ago(minutes)), ..well() }
        };
        assert_eq!(default_rules(&open(0)), []);
        assert_eq!(default_rules(&open(1)), [Rule::BatchStalled]);
        assert_eq!(default_rules(&open(61)), [Rule::BatchStalled, Rule::Freshness]);
        let lost = Facts { incomplete: (1, Some(ago(1))), ..well() };
        assert_eq!(default_rules(&lost), [Rule::BatchIncomplete]);
        let behind = |minutes| Facts { unstaged_since: Some(ago(minutes)), ..well() };
        assert_eq!(default_rules(&behind(14)), []);
        assert_eq!(default_rules(&behind(15)), [Rule::StagingBehind]);
        assert_eq!(default_rules(&Facts { quarantined: 1, ..well() }), [Rule::Quarantine]);
    }

    #[test]
    fn a_sender_without_sessions_may_be_silent_for_a_day() {
        let old = |minutes| Facts {
            had_session: false,
            live_until: None,
            absent_since: Some(ago(10_000)),
            complete_at: Some(ago(minutes)),
            ..well()
        };
        assert_eq!(default_rules(&old(1_439)), []);
        assert_eq!(default_rules(&old(1_440)), [Rule::Freshness]);
    }

    #[test]
    fn what_was_reported_is_told_by_the_threshold_of_its_table() {
        let told = |rule, subject: &str, amount, since| Reported {
            rule,
            subject: subject.into(),
            amount,
            code: Some("SOURCE_RIGHTS".into()),
            since,
        };
        let reported = vec![
            told(Rule::TableParked, "FLAN", 1, ago(6)),
            told(Rule::TableParked, "TMOV", 1, ago(4)),
            told(Rule::Differences, "FLAN", 9, ago(0)),
        ];
        let facts = Facts { reported, ..well() };
        let wanted = [(Rule::TableParked, "FLAN".to_owned()), (Rule::Differences, "FLAN".into())];
        assert_eq!(rules(&facts, &Thresholds::default()), wanted);
        let of = |rule, table: Option<&str>, value| Threshold {
            rule,
            environment: Some(environment()),
            table: table.map(str::to_owned),
            value,
        };
        let set = vec![
            of(Rule::TableParked, None, 0),
            of(Rule::TableParked, Some("TMOV"), 2),
            of(Rule::Differences, Some("FLAN"), 10),
        ];
        assert_eq!(rules(&facts, &Thresholds(set)), [(Rule::TableParked, "TMOV".to_owned())]);
    }

    #[test]
    fn the_narrowest_threshold_counts_and_nought_switches_a_rule_off() {
        let of = |environment, table: Option<&str>, value| Threshold {
            rule: Rule::Freshness,
            environment,
            table: table.map(str::to_owned),
            value,
        };
        let other = Some(EnvironmentId(Uuid::from_u128(9)));
        let all = Thresholds(vec![
            of(None, None, 10),
            of(Some(environment()), None, 20),
            of(other, None, 30),
            of(None, Some("FLAN"), 40),
            of(other, Some("TMOV"), 50),
        ]);
        let set = |table| all.set(Rule::Freshness, environment(), table);
        assert_eq!(
            (set(None), set(Some("FLAN")), set(Some("TMOV"))),
            (Some(20), Some(40), Some(20))
        );
        assert_eq!(all.fresh_tables(environment()), [("FLAN".to_owned(), 40)]);
        let away = Facts { complete_at: Some(ago(500)), live_until: None, ..well() };
        assert_eq!(rules(&away, &Thresholds(vec![of(None, None, 0)])), []);
        assert!(of(None, Some("FLAN"), 1).check().is_ok());
        let wrong = Threshold { rule: Rule::AgentDead, ..of(None, Some("FLAN"), 1) };
        assert_eq!(wrong.check().unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn a_disk_is_told_below_its_threshold_where_it_can_be_read() {
        let mib = 1_048_576;
        assert_eq!(of_server(None, 1_024), []);
        assert_eq!(of_server(Some(1_024 * mib), 1_024), []);
        let low = of_server(Some(1_000 * mib), 1_024);
        assert_eq!((low[0].about.rule, low[0].measure.amount), (Rule::Disk, 960));
    }
}
