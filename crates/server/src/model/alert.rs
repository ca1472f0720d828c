//! Alert, model floor: what can be wrong, when people are told of it, and when they are left in peace.
//!
//! Promises: a condition has one alert, however often it comes and goes; it is told when it begins, again only after
//! hours, and once when it is over; one that flaps is held for longer each time, so that what is told stays few; what a
//! person acknowledged is not told again; of what is silenced nothing is told but the end of what was told before.
//! Never: reads a clock, calls anybody.
//!
//! | alert \ condition | there | not there |
//! |---|---|---|
//! | none, or resolved a day ago | a new one, raised | – |
//! | resolved | the same one, raised; held for twice as long | – |
//! | open | again, once the pause is over | clears |
//! | open, clears | open; nothing is told | resolved, once it was clear for its hold |

pub mod findings;
pub mod fresh;
pub mod rules;
pub mod words;

use std::{str::FromStr, time::Duration};

use protocol::{
    Code, Error, Result,
    ids::{AlertId, EnvironmentId, TenantId},
};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::catalog::At;

/// A condition that comes back within this is the same alert.
const DAY: Duration = Duration::from_secs(86_400);

/// What can be wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// No agent has held the session of a stream that had one.
    AgentDead,
    /// Batches were given up or refused, and none was complete since.
    BatchIncomplete,
    /// An open batch is silent.
    BatchStalled,
    /// A comparison found rows that differ.
    Differences,
    /// The server's own disk is nearly full.
    Disk,
    /// Nothing was read, or nothing new came, though it should have.
    Freshness,
    /// Verifications by the timetable came to no end.
    NotVerified,
    /// Rows could not be staged.
    Quarantine,
    /// What was accepted is not staged.
    StagingBehind,
    /// A table is not read.
    TableParked,
}

impl Rule {
    pub const ALL: [Self; 10] = [
        Self::AgentDead,
        Self::BatchIncomplete,
        Self::BatchStalled,
        Self::Differences,
        Self::Disk,
        Self::Freshness,
        Self::NotVerified,
        Self::Quarantine,
        Self::StagingBehind,
        Self::TableParked,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentDead => "agent-dead",
            Self::BatchIncomplete => "batch-incomplete",
            Self::BatchStalled => "batch-stalled",
            Self::Differences => "differences",
            Self::Disk => "disk",
            Self::Freshness => "freshness",
            Self::NotVerified => "not-verified",
            Self::Quarantine => "quarantine",
            Self::StagingBehind => "staging-behind",
            Self::TableParked => "table-parked",
        }
    }
}

impl FromStr for Rule {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|rule| rule.as_str() == text).ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str).join(", ");
            Error::new(Code::BadRequest, format!("a rule is one of {words}"))
        })
    }
}

/// What a condition is about: there is one alert at a time for each.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct About {
    pub environment: Option<EnvironmentId>,
    pub erp: Option<String>,
    pub rule: Rule,
    /// Table, or empty where it is about the whole stream or the server.
    pub subject: String,
    /// Of tables that are told together: the code they are parked by. Empty else, whatever the measure says.
    pub code: Option<String>,
}

/// Something that is wrong now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    pub about: About,
    pub measure: Measure,
}

/// How much of it, as it is told: batches, rows, tables, minutes or MiB by the rule, since when, and by which code.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Measure {
    pub amount: i64,
    pub since: Option<Wall>,
    pub code: Option<String>,
}

/// An alert as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    #[schema(value_type = String)]
    pub id: AlertId,
    /// Absent: of the server itself.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    pub erp: Option<String>,
    pub rule: Rule,
    /// Table, or empty.
    pub subject: String,
    /// Batches, rows, tables, minutes or MiB, by the rule.
    pub amount: i64,
    pub since: Option<At>,
    /// Why, where an agent told it; of freshness: PAUSED where that is all.
    pub code: Option<String>,
    pub raised_at: At,
    /// The condition is not there since then; it is resolved once that lasts.
    pub clear_since: Option<At>,
    pub resolved_at: Option<At>,
    /// When it was told last.
    pub told_at: Option<At>,
    /// How often it came back after it was resolved, within a day each time.
    pub returns: u32,
    pub acknowledged_at: Option<At>,
    pub acknowledged_by: Option<String>,
    pub silenced_until: Option<At>,
    pub silenced_by: Option<String>,
}

/// Which alerts are listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Wanted {
    #[default]
    Open,
    Resolved,
    All,
}

impl FromStr for Wanted {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "open" => Ok(Self::Open),
            "resolved" => Ok(Self::Resolved),
            "all" => Ok(Self::All),
            _ => Err(Error::new(Code::BadRequest, "alerts are open, resolved or all")),
        }
    }
}

/// What is told of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notice {
    Raised,
    /// It is open still.
    Again,
    Resolved,
}

impl Notice {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Again => "again",
            Self::Resolved => "resolved",
        }
    }

    /// From the store's own word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Raised, Self::Again, Self::Resolved].into_iter().find(|n| n.as_str() == text)
    }
}

/// How alerts are paced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pace {
    /// How long a condition must be gone before its alert is resolved; doubled each time it came back.
    pub hold: Duration,
    /// After how long an open alert is told again.
    pub again: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { hold: Duration::from_secs(600), again: Duration::from_secs(6 * 3_600) }
    }
}

impl Pace {
    fn hold_of(self, returns: u32) -> Duration {
        self.hold.saturating_mul(1 << returns.min(16)).min(DAY)
    }
}

/// What the machine knows of an alert.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub raised_at: Wall,
    pub clear_since: Option<Wall>,
    pub resolved_at: Option<Wall>,
    pub told_at: Option<Wall>,
    pub returns: u32,
    pub acknowledged: bool,
    pub silenced_until: Option<Wall>,
}

impl Standing {
    fn begun(now: Wall) -> Self {
        Self {
            raised_at: now,
            clear_since: None,
            resolved_at: None,
            told_at: None,
            returns: 0,
            acknowledged: false,
            silenced_until: None,
        }
    }

    /// It was resolved so long ago that the condition, should it come back, is another alert.
    #[must_use]
    pub fn is_over(&self, now: Wall) -> bool {
        self.resolved_at.is_some_and(|at| now.since(at) >= DAY)
    }

    /// What was resolved at that moment or before is over.
    #[must_use]
    pub fn over_before(now: Wall) -> Wall {
        Wall(now.0.saturating_sub(i64::try_from(DAY.as_micros()).unwrap_or(i64::MAX)))
    }

    fn is_silent(&self, now: Wall) -> bool {
        self.silenced_until.is_some_and(|until| now < until)
    }

    fn tell(&mut self, notice: Notice, now: Wall) -> Option<Notice> {
        // That it is over is told to those alone who were told that it began; and to them, silence or not, since they wait
        // for it.
        if notice == Notice::Resolved {
            return self.told_at.map(|_| notice);
        }
        if self.is_silent(now) {
            return None;
        }
        self.told_at = Some(now);
        Some(notice)
    }
}

/// What becomes of an alert, given whether its condition is there; and what is to be told.
#[must_use]
pub fn step(
    before: Option<Standing>,
    there: bool,
    pace: Pace,
    now: Wall,
) -> (Option<Standing>, Option<Notice>) {
    let Some(mut alert) = before.filter(|alert| !alert.is_over(now)) else {
        if !there {
            return (before, None);
        }
        let mut alert = Standing::begun(now);
        let notice = alert.tell(Notice::Raised, now);
        return (Some(alert), notice);
    };
    let notice = match (alert.resolved_at, there) {
        (Some(_), false) => None,
        (Some(_), true) => {
            let returns = alert.returns.saturating_add(1);
            let silenced_until = alert.silenced_until;
            alert = Standing { returns, silenced_until, ..Standing::begun(now) };
            alert.tell(Notice::Raised, now)
        }
        (None, true) => {
            alert.clear_since = None;
            match alert.told_at {
                None => alert.tell(Notice::Raised, now),
                Some(told) if !alert.acknowledged && now.since(told) >= pace.again => {
                    alert.tell(Notice::Again, now)
                }
                Some(_) => None,
            }
        }
        (None, false) => {
            let since = *alert.clear_since.get_or_insert(now);
            if now.since(since) < pace.hold_of(alert.returns) {
                None
            } else {
                alert.resolved_at = Some(now);
                alert.tell(Notice::Resolved, now)
            }
        }
    };
    (Some(alert), notice)
}

/// The language of a person's mails.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    #[default]
    En,
    Pt,
}

impl Language {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::Pt => "pt",
        }
    }

    pub(super) fn pick<T>(self, en: T, pt: T) -> T {
        match self {
            Self::En => en,
            Self::Pt => pt,
        }
    }
}

impl FromStr for Language {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "en" => Ok(Self::En),
            "pt" => Ok(Self::Pt),
            _ => Err(Error::new(Code::BadRequest, "a language is en or pt")),
        }
    }
}

/// An address that alerts are mailed to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailRoute {
    pub address: String,
    pub language: Language,
    /// Absent: every environment of the tenant.
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    /// Mails that wait, are tried again or are under way.
    pub waiting: u64,
    /// Mails that were given up within the last days.
    pub dead: u64,
    /// Why the last try failed; absent once one went well.
    pub last_error: Option<String>,
}

/// How the server reaches the mail server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MailServer {
    pub host: String,
    pub port: u16,
    #[serde(serialize_with = "word")]
    #[schema(value_type = String)]
    pub tls: MailTls,
    /// Address that mails come from.
    pub from: String,
    /// Absent: no login.
    pub user: Option<String>,
    pub set_at: At,
}

fn word<S: Serializer>(tls: &MailTls, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(tls.as_str())
}

/// How a mail is protected on its way to the mail server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailTls {
    /// Begins in plain text and goes on under TLS, or not at all.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Plain text: a mail server on the same machine or in a closed network.
    None,
}

impl MailTls {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StartTls => "starttls",
            Self::Tls => "tls",
            Self::None => "none",
        }
    }

    /// The port that such servers listen on.
    #[must_use]
    pub const fn port(self) -> u16 {
        match self {
            Self::StartTls => 587,
            Self::Tls => 465,
            Self::None => 25,
        }
    }
}

impl FromStr for MailTls {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::StartTls, Self::Tls, Self::None]
            .into_iter()
            .find(|tls| tls.as_str() == text)
            .ok_or_else(|| Error::new(Code::BadRequest, "tls is starttls, tls or none"))
    }
}

/// A mail that is due, and all that a try needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailClaim {
    /// Names this one try.
    pub receipt: uuid::Uuid,
    pub address: String,
    pub language: Language,
    /// The number of this try, from 1; of its oldest notice.
    pub attempt: u32,
    /// Numbers of its first and last notice: the same mail again has the same.
    pub range: (i64, i64),
    /// What it tells, the oldest first: each alert as it was then.
    pub notices: Vec<Told>,
}

/// Why a mail was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unsent {
    /// For people; without what the mail server said beyond its status.
    pub words: String,
    pub why: Hindrance,
}

/// What stands in a mail's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hindrance {
    /// The mail server, so that no other mail would go either.
    Unreached,
    /// It did not take this one now.
    Later,
    /// It takes none to that address.
    Never,
}

/// An alert as it was when it was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    pub notice: Notice,
    pub at: Wall,
    pub about: About,
    pub measure: Measure,
    /// Name of the environment, for people.
    pub environment: Option<String>,
}

#[cfg(test)]
mod tests;
