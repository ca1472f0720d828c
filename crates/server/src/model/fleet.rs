//! Fleet: agents and their tables as an operator sees them, and what a report may say.
//!
//! Promises: an agent that is silent is told as silent, whatever it was told last; a refusal that waits for a person
//! stays told until another answer was given; a report above a limit is refused whole.
//! Never: reads a clock; holds a row's value.

use std::str::FromStr;

use protocol::{
    Code, Error, Result,
    ids::{Epoch, InstanceId},
    limits,
    names::{ErpName, TableName},
    proto::fleet::{CaptureMode, TableReport, TableState},
};
use runtime::clock::Wall;
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::At;

/// How an agent stands to the stream that it wants to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AgentLink {
    /// It holds the lease.
    Sending,
    /// Another one holds it; this one asks again and again.
    Standby,
    /// The server refuses it; the code says why.
    Refused,
    /// It gave its lease back, or lost it, and did not ask again yet.
    Ended,
    /// Nothing was heard of it for a minute.
    Silent,
}

impl AgentLink {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Standby => "standby",
            Self::Refused => "refused",
            Self::Ended => "ended",
            Self::Silent => "silent",
        }
    }
}

/// An agent as its calls left it in the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SeenAgent {
    /// Its last Open, and the code that refused it.
    pub asked_at: Wall,
    pub refused: Option<Code>,
    pub reported_at: Option<Wall>,
    /// It is the one that the stream's lease was given to last.
    pub holds: bool,
    /// When that lease ends unless it is renewed.
    pub expires_at: Wall,
    /// Two processes showed themselves as this instance under that lease.
    pub disputed: bool,
    /// Both of them were heard, under whichever lease, and no person decided since.
    pub twins: bool,
}

impl SeenAgent {
    /// When it was heard last. A lease that runs tells when it was renewed.
    #[must_use]
    pub fn last_seen(&self) -> Wall {
        let ttl = i64::try_from(limits::SESSION_TTL.as_micros()).unwrap_or(i64::MAX);
        let renewed = self.holds.then(|| Wall(self.expires_at.0.saturating_sub(ttl)));
        let all = [Some(self.asked_at), self.reported_at, renewed];
        Wall(all.into_iter().flatten().map(|seen| seen.0).max().unwrap_or_default())
    }

    #[must_use]
    pub fn link(&self, now: Wall) -> AgentLink {
        let live = self.holds && now < self.expires_at;
        if live {
            let refused = self.code(now).is_some();
            return if refused { AgentLink::Refused } else { AgentLink::Sending };
        }
        if now.since(self.last_seen()) >= limits::FLEET_SILENT {
            return AgentLink::Silent;
        }
        match self.refused {
            Some(Code::SessionHeld) => AgentLink::Standby,
            Some(_) => AgentLink::Refused,
            None => AgentLink::Ended,
        }
    }

    /// What stands in its way, whether or not it still asks: the answer waits for a person. A lease that another one
    /// holds is nobody's fault.
    #[must_use]
    pub fn code(&self, now: Wall) -> Option<Code> {
        let twice = self.holds && self.disputed && now < self.expires_at;
        let refused = self.refused.filter(|code| *code != Code::SessionHeld);
        if twice || self.twins { Some(Code::InstanceTwice) } else { refused }
    }
}

/// An agent of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentView {
    /// Environment, ERP and instance, with `/` between them.
    pub agent: String,
    pub environment: String,
    #[schema(value_type = String)]
    pub erp: ErpName,
    #[schema(value_type = String)]
    pub instance: InstanceId,
    pub link: AgentLink,
    /// What stands in its way; `DATABASE_CHANGED` and `INSTANCE_TWICE` wait for a person.
    pub code: Option<String>,
    /// Of `DATABASE_CHANGED`: which facts of its database are others than before.
    pub differs: String,
    pub version: String,
    /// Version of its database.
    pub database: String,
    /// Of the lease it holds.
    #[schema(value_type = Option<i64>)]
    pub epoch: Option<Epoch>,
    /// Its last grant.
    pub since: Option<At>,
    pub first_seen: At,
    pub last_seen: At,
    pub last_report: Option<At>,
    /// Of its last report, where it is the one that sends: tables, and of them those that need a look.
    pub tables: i64,
    pub parked: i64,
    pub degraded: i64,
    /// Rows that its tables could not send.
    pub quarantined: i64,
}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident, $refusal:literal { $($one:ident $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
        pub enum $name { $(#[serde(rename = $text)] $one,)+ }

        impl $name {
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$one => $text,)+ }
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self> {
                let all = [$(Self::$one,)+];
                let found = all.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(text));
                found.ok_or_else(|| Error::new(Code::BadRequest, $refusal))
            }
        }
    };
}

words! {
    /// What an agent does with a table.
    Doing, "a table is BASE_LOAD, STREAMING, RELOAD, PAUSED, PARKED or UNKNOWN" {
        Unknown "UNKNOWN",
        BaseLoad "BASE_LOAD",
        Streaming "STREAMING",
        Reload "RELOAD",
        Paused "PAUSED",
        Parked "PARKED",
    }
}

words! {
    /// How an agent finds the changes of a table.
    Mode, "a mode is TIMESTAMP, TRIGGER, SNAPSHOT_DIFF or UNKNOWN" {
        Unknown "UNKNOWN",
        Timestamp "TIMESTAMP",
        Trigger "TRIGGER",
        SnapshotDiff "SNAPSHOT_DIFF",
    }
}

/// A table of a report, within the limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReportedTable {
    pub name: TableName,
    pub state: Doing,
    pub mode: Mode,
    pub watermark: String,
    pub lag_ms: i64,
    pub held_by: String,
    pub parked_code: String,
    pub quarantined: i64,
    pub degraded: String,
    pub differences: i64,
    /// Of the verification that found them; `None`: there was none.
    pub verified_at: Option<Wall>,
    /// Code: the last one by the timetable came to no end; empty: not so.
    pub unverified: String,
}

/// A table as its agent reported it last.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableView {
    #[schema(value_type = String)]
    pub table: TableName,
    pub state: Doing,
    /// Since when it is reported in this state.
    pub since: At,
    pub mode: Mode,
    /// How far it was captured, in the database's own form.
    pub watermark: Option<String>,
    /// How far that is behind now; it grows while no report comes.
    pub lag_ms: i64,
    /// Session of the database that holds the bound back.
    pub held_by: Option<String>,
    /// Why it is parked.
    pub parked_code: Option<String>,
    /// Why its promise is weaker.
    pub degraded: Option<String>,
    /// Rows that could not be sent.
    pub quarantined: i64,
    /// Rows that the last verification found and did not repair.
    pub differences: i64,
    /// When that ended.
    pub verified_at: Option<At>,
    /// Code that kept the last verification by the timetable from coming to an end.
    pub unverified: Option<String>,
    pub reported_at: At,
}

/// The lag of a table by now: it was that long at its report.
#[must_use]
pub fn lag_by_now(lag_ms: i64, reported_at: Wall, now: Wall) -> i64 {
    let age = i64::try_from(now.since(reported_at).as_millis()).unwrap_or(i64::MAX);
    lag_ms.saturating_add(age)
}

/// Tables of a stream that are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TableQuery {
    pub state: Option<Doing>,
    /// Parked, degraded, not verified, with differences or with rows in quarantine.
    pub troubled: bool,
}

/// Reads the tables of a report.
///
/// # Errors
/// `INVALID_ARGUMENT` above a limit or for a table that comes twice, `BAD_NAME`.
pub fn tables(reports: Vec<TableReport>) -> Result<Vec<ReportedTable>> {
    if reports.len() > limits::STREAM_TABLES {
        return Err(invalid("more tables than a stream may have"));
    }
    let tables = reports.into_iter().map(table).collect::<Result<Vec<_>>>()?;
    let mut names: Vec<&str> = tables.iter().map(|table| table.name.folded()).collect();
    names.sort_unstable();
    match names.windows(2).any(|pair| pair.first() == pair.last()) {
        true => Err(invalid("a table is reported twice")),
        false => Ok(tables),
    }
}

fn table(report: TableReport) -> Result<ReportedTable> {
    let (state, mode) = (report.state(), report.mode());
    let name: TableName = report.name.parse()?;
    let place = |error: Error| error.at(&name);
    let watermark = bounded("watermark", report.watermark).map_err(place)?;
    let held_by = bounded("held_by", report.held_by).map_err(place)?;
    let parked_code = bounded("parked_code", report.parked_code).map_err(place)?;
    let degraded = bounded("degraded", report.degraded).map_err(place)?;
    let unverified = bounded("unverified", report.unverified).map_err(place)?;
    Ok(ReportedTable {
        watermark,
        held_by,
        parked_code,
        degraded,
        unverified,
        state: match state {
            TableState::Unspecified => Doing::Unknown,
            TableState::BaseLoad => Doing::BaseLoad,
            TableState::Streaming => Doing::Streaming,
            TableState::Reload => Doing::Reload,
            TableState::Paused => Doing::Paused,
            TableState::Parked => Doing::Parked,
        },
        mode: match mode {
            CaptureMode::Unspecified => Mode::Unknown,
            CaptureMode::Timestamp => Mode::Timestamp,
            CaptureMode::Trigger => Mode::Trigger,
            CaptureMode::SnapshotDiff => Mode::SnapshotDiff,
        },
        lag_ms: report.lag_ms.max(0),
        quarantined: i64::try_from(report.quarantined).unwrap_or(i64::MAX),
        differences: i64::try_from(report.differences).unwrap_or(i64::MAX),
        verified_at: Some(Wall(report.verified_at)).filter(|at| at.0 > 0),
        name,
    })
}

/// A text of an agent, for people.
///
/// # Errors
/// `INVALID_ARGUMENT` above the limit.
pub fn bounded(name: &str, text: String) -> Result<String> {
    if text.len() > limits::FLEET_TEXT_BYTES {
        let most = limits::FLEET_TEXT_BYTES;
        return Err(invalid(&format!("{name} has more than {most} bytes")));
    }
    Ok(text)
}

/// As [`bounded`], of a call that must not be refused for it.
#[must_use]
pub fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(limits::FLEET_TEXT_BYTES));
    text
}

fn invalid(words: &str) -> Error {
    Error::new(Code::InvalidArgument, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn seen() -> SeenAgent {
        SeenAgent {
            asked_at: Wall(0),
            refused: None,
            reported_at: None,
            holds: true,
            expires_at: Wall(30 * SECOND),
            disputed: false,
            twins: false,
        }
    }

    #[test]
    fn an_agent_is_told_by_its_lease_then_by_its_last_answer_and_silent_after_a_minute() {
        let at = |seconds: i64| Wall(seconds * SECOND);
        let holder = seen();
        assert_eq!(holder.link(at(29)), AgentLink::Sending);
        assert_eq!(holder.link(at(30)), AgentLink::Ended, "its lease lapsed");
        assert_eq!(holder.link(at(60)), AgentLink::Silent);
        let reported = SeenAgent { reported_at: Some(at(20)), ..seen() };
        assert_eq!(
            (reported.link(at(79)), reported.link(at(80))),
            (AgentLink::Ended, AgentLink::Silent)
        );
        let renewed = SeenAgent { expires_at: at(3_630), ..seen() };
        assert_eq!((renewed.link(at(3_601)), renewed.last_seen()), (AgentLink::Sending, at(3_600)));
        let asking = |code| SeenAgent { refused: Some(code), holds: false, ..seen() };
        assert_eq!(asking(Code::SessionHeld).link(at(5)), AgentLink::Standby);
        assert_eq!(asking(Code::DatabaseChanged).link(at(5)), AgentLink::Refused);
        assert_eq!(asking(Code::SessionHeld).link(at(60)), AgentLink::Silent);
        let released = SeenAgent { holds: false, ..seen() };
        assert_eq!(released.link(at(5)), AgentLink::Ended);
    }

    #[test]
    fn a_refusal_that_waits_for_a_person_is_told_also_of_an_agent_that_fell_silent() {
        let hour = Wall(3_600 * SECOND);
        let asking = |code| SeenAgent { refused: Some(code), holds: false, ..seen() };
        assert_eq!(asking(Code::DatabaseChanged).code(hour), Some(Code::DatabaseChanged));
        assert_eq!(asking(Code::InstanceTwice).code(hour), Some(Code::InstanceTwice));
        assert_eq!(asking(Code::SessionHeld).code(hour), None);
        let twins = SeenAgent { disputed: true, ..seen() };
        assert_eq!(twins.code(Wall(0)), Some(Code::InstanceTwice));
        assert_eq!(twins.link(Wall(0)), AgentLink::Refused);
        assert_eq!(twins.code(hour), None, "the lease lapsed, the next one to ask is served");
        let heard = SeenAgent { twins: true, holds: false, ..seen() };
        assert_eq!(heard.code(hour), Some(Code::InstanceTwice), "until a person decides");
    }

    fn report(name: &str) -> TableReport {
        TableReport {
            name: name.into(),
            state: TableState::Parked.into(),
            mode: CaptureMode::Timestamp.into(),
            watermark: "2026-01-05".into(),
            lag_ms: -5,
            quarantined: u64::MAX,
            parked_code: "KEY_IS_NULL".into(),
            ..TableReport::default()
        }
    }

    #[test]
    fn a_report_is_read_within_its_limits_or_refused_whole() {
        let read = tables(vec![report("FLAN")]).unwrap().remove(0);
        assert_eq!((read.state, read.mode), (Doing::Parked, Mode::Timestamp));
        assert_eq!((read.lag_ms, read.quarantined), (0, i64::MAX));
        let later = TableReport { state: 77, mode: -1, ..report("FLAN") };
        let later = tables(vec![later]).unwrap().remove(0);
        assert_eq!((later.state, later.mode), (Doing::Unknown, Mode::Unknown));
        let code = |reports: Vec<TableReport>| tables(reports).unwrap_err().code;
        assert_eq!(code(vec![report("FLAN"), report("flan")]), Code::InvalidArgument);
        assert_eq!(code(vec![report("")]), Code::BadName);
        let long = "x".repeat(limits::FLEET_TEXT_BYTES + 1);
        for wide in [
            TableReport { watermark: long.clone(), ..report("T") },
            TableReport { held_by: long.clone(), ..report("T") },
            TableReport { parked_code: long.clone(), ..report("T") },
            TableReport { degraded: long.clone(), ..report("T") },
            TableReport { unverified: long.clone(), ..report("T") },
        ] {
            assert_eq!(code(vec![wide]), Code::InvalidArgument);
        }
        let names = (0..limits::STREAM_TABLES).map(|at| report(&format!("T{at}")));
        let mut many: Vec<_> = names.collect();
        assert_eq!(tables(many.clone()).unwrap().len(), limits::STREAM_TABLES);
        many.push(report("ONE_MORE"));
        assert_eq!(code(many), Code::InvalidArgument);
    }

    #[test]
    fn a_lag_grows_while_no_report_comes() {
        assert_eq!(lag_by_now(1_500, Wall(0), Wall(2 * SECOND)), 3_500);
        assert_eq!(lag_by_now(1_500, Wall(2 * SECOND), Wall(0)), 1_500, "the clock went back");
        assert_eq!(lag_by_now(i64::MAX, Wall(0), Wall(SECOND)), i64::MAX);
    }

    #[test]
    fn words_are_read_in_any_case_and_others_are_refused() {
        assert_eq!("parked".parse::<Doing>().unwrap(), Doing::Parked);
        assert_eq!("asleep".parse::<Doing>().unwrap_err().code, Code::BadRequest);
        assert_eq!("TRIGGER".parse::<Mode>().unwrap(), Mode::Trigger);
        assert_eq!(shortened("ç".repeat(400)).len(), limits::FLEET_TEXT_BYTES);
    }
}
