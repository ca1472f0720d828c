//! Order: what an operator may have an agent do, and the life of such an order.
//!
//! Promises: one that an agent may have is not withdrawn; an outcome is final, and telling it again changes nothing; keys
//! are told to the agent that carries it out and to nobody else.
//! Never: reads a clock, knows how an agent does it.
//!
//! | event \ state | waiting | sent | under-way | done, failed | withdrawn |
//! |---|---|---|---|---|---|
//! | send | sent | sent | under-way | – | – |
//! | begin | – | under-way | under-way | as it is | – |
//! | end | – | done or failed | done or failed | as it is | – |
//! | withdraw | withdrawn | `OrderSent` | `OrderSent` | `OrderSent` | as it is |
//!
//! "–" cannot come from an agent that was never given the order: `NotFound`.

use std::{collections::BTreeMap, str::FromStr};

use protocol::{Code, Error, Result, ids::OrderId, limits, names::TableName, proto::fleet};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::catalog::At;

/// Minutes of a detailed log at most.
const LOG_MINUTES: u64 = limits::DETAIL_TIME.as_secs() / 60;

/// What an agent is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Verb {
    /// Load a table again.
    Reload,
    /// Leave a table alone.
    Pause,
    /// Follow it again.
    Resume,
    /// Try again at once what is parked or in the agent's quarantine.
    Retry,
    /// Compare a table with what is staged of it.
    Verify,
    /// Compare it, and send again what differs.
    Repair,
    /// Write a detailed log for a while.
    LogLevel,
}

impl Verb {
    pub const ALL: [Self; 7] = [
        Self::Reload,
        Self::Pause,
        Self::Resume,
        Self::Retry,
        Self::Verify,
        Self::Repair,
        Self::LogLevel,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "RELOAD",
            Self::Pause => "PAUSE",
            Self::Resume => "RESUME",
            Self::Retry => "RETRY",
            Self::Verify => "VERIFY",
            Self::Repair => "REPAIR",
            Self::LogLevel => "LOG_LEVEL",
        }
    }

    /// As it travels.
    #[must_use]
    pub const fn wire(self) -> fleet::Verb {
        match self {
            Self::Reload => fleet::Verb::Reload,
            Self::Pause => fleet::Verb::Pause,
            Self::Resume => fleet::Verb::Resume,
            Self::Retry => fleet::Verb::Retry,
            Self::Verify => fleet::Verb::Verify,
            Self::Repair => fleet::Verb::Repair,
            Self::LogLevel => fleet::Verb::LogLevel,
        }
    }

    /// Arguments that it takes.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Reload | Self::Resume | Self::Retry => &[],
            Self::Pause => &["why"],
            Self::Verify | Self::Repair => &["from", "to"],
            Self::LogLevel => &["level", "minutes"],
        }
    }
}

impl FromStr for Verb {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|verb| verb.as_str().eq_ignore_ascii_case(text)).ok_or_else(
            || {
                let all: Vec<_> = Self::ALL.iter().map(|verb| verb.as_str()).collect();
                Error::new(Code::BadRequest, format!("an order is one of {}", all.join(", ")))
            },
        )
    }
}

/// An order as it is given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OrderWish {
    pub verb: Verb,
    /// `None` = all tables.
    pub table: Option<TableName>,
    pub args: BTreeMap<String, String>,
}

impl OrderWish {
    /// # Errors
    /// `BAD_REQUEST` where verb, table and arguments do not fit each other.
    pub fn checked(self) -> Result<Self> {
        let refuse = |words: String| Err(Error::new(Code::BadRequest, words));
        let (verb, known) = (self.verb, self.verb.arguments());
        if let Some(name) = self.args.keys().find(|name| !known.contains(&name.as_str())) {
            let takes = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return refuse(format!("{} has no argument {name:?}; it takes {takes}", verb.as_str()));
        }
        let most = limits::ORDER_ARGUMENT_BYTES;
        if let Some((name, _)) = self.args.iter().find(|(_, value)| value.len() > most) {
            return refuse(format!("{name} has more than {most} bytes"));
        }
        match verb {
            Verb::Verify | Verb::Repair if self.table.is_none() && !self.args.is_empty() => {
                refuse("a range of keys is one of a table".to_owned())
            }
            Verb::LogLevel if self.table.is_some() => {
                refuse("the log is the whole agent's, not a table's".to_owned())
            }
            Verb::LogLevel => {
                let level = self.args.get("level").map_or("", String::as_str);
                if !["info", "debug", "trace", "off"].contains(&level) {
                    return refuse("level is info, debug, trace or off".to_owned());
                }
                let minutes = self.args.get("minutes").map(|text| text.parse::<u64>());
                match minutes {
                    None => Ok(self),
                    Some(Ok(1..=LOG_MINUTES)) => Ok(self),
                    Some(_) => refuse(format!("minutes is a number from 1 to {LOG_MINUTES}")),
                }
            }
            _ => Ok(self),
        }
    }
}

/// Arguments that hold a key.
const KEYS: [&str; 2] = ["from", "to"];
/// What stands in their place.
const PART: &str = "part";

/// Arguments as people see them, in lists and in the audit, and as they are kept once the order has ended: a key is a
/// row's value, so that of a range it is told that there is one.
#[must_use]
pub fn shown(mut args: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let all = args.len();
    args.retain(|name, _| !KEYS.contains(&name.as_str()));
    if args.len() < all {
        args.insert(PART.to_owned(), "yes".to_owned());
    }
    args
}

/// How far an order is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OrderState {
    /// No agent has it.
    Waiting,
    /// It was written to an agent, which did not answer yet.
    Sent,
    /// An agent has it.
    UnderWay,
    Done,
    /// The code says why.
    Failed,
    Withdrawn,
}

impl OrderState {
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Sent, Self::UnderWay, Self::Done, Self::Failed, Self::Withdrawn];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Sent => "sent",
            Self::UnderWay => "under-way",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Withdrawn => "withdrawn",
        }
    }

    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Withdrawn)
    }
}

impl FromStr for OrderState {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or_else(|| {
            let words = "an order is waiting, sent, under-way, done, failed or withdrawn";
            Error::new(Code::BadRequest, words)
        })
    }
}

/// What happens to an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OrderEvent {
    /// It is written into a stream of commands.
    Send,
    /// Its agent has it.
    Begin,
    /// Its agent is through with it.
    End { failed: bool },
    /// An operator takes it back.
    Withdraw,
}

/// The next state.
///
/// # Errors
/// The code of the refusal; the state stays.
pub const fn step(state: OrderState, event: OrderEvent) -> Result<OrderState, Code> {
    use OrderState::{Done, Failed, Sent, UnderWay, Waiting, Withdrawn};
    Ok(match (event, state) {
        (OrderEvent::Send, Waiting | Sent) => Sent,
        (OrderEvent::Send | OrderEvent::Begin, UnderWay) | (OrderEvent::Begin, Sent) => UnderWay,
        (OrderEvent::End { failed }, Sent | UnderWay) => {
            if failed {
                Failed
            } else {
                Done
            }
        }
        (OrderEvent::Begin | OrderEvent::End { .. }, Done | Failed) => state,
        (OrderEvent::Withdraw, Waiting | Withdrawn) => Withdrawn,
        (OrderEvent::Withdraw, Sent | UnderWay | Done | Failed) => return Err(Code::OrderSent),
        _ => return Err(Code::NotFound),
    })
}

/// An order on its way to an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Place among all orders of the store.
    pub number: i64,
    pub id: OrderId,
    pub wish: OrderWish,
    /// Who gave it.
    pub who: String,
}

impl Order {
    /// As it travels: who pauses is shown where the table waits.
    #[must_use]
    pub fn command(self) -> fleet::Command {
        let OrderWish { verb, table, mut args } = self.wish;
        if verb == Verb::Pause {
            args.insert("who".to_owned(), self.who);
        }
        fleet::Command {
            id: self.id.to_string(),
            verb: verb.wire().into(),
            table: table.map_or_else(String::new, |table| table.as_str().to_owned()),
            args,
        }
    }
}

/// An order as an operator sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    /// Absent of a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<i64>,
    pub verb: Verb,
    /// Absent: all tables.
    #[schema(value_type = Option<String>)]
    pub table: Option<TableName>,
    /// As given; of `from` and `to` only `part`: that a part of the table was asked for.
    pub args: BTreeMap<String, String>,
    pub state: OrderState,
    /// Why it failed.
    pub code: Option<String>,
    pub who: String,
    pub ordered_at: At,
    pub sent_at: Option<At>,
    pub ended_at: Option<At>,
}

/// Which orders are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OrderQuery {
    pub state: Option<OrderState>,
    pub verb: Option<Verb>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_answers_every_event_as_the_table_says() {
        use OrderState::{Done, Failed, Sent, UnderWay, Waiting, Withdrawn};
        const NONE: Result<OrderState, Code> = Err(Code::NotFound);
        const SENT: Result<OrderState, Code> = Err(Code::OrderSent);
        let events = [
            OrderEvent::Send,
            OrderEvent::Begin,
            OrderEvent::End { failed: false },
            OrderEvent::End { failed: true },
            OrderEvent::Withdraw,
        ];
        for (state, answers) in [
            (Waiting, [Ok(Sent), NONE, NONE, NONE, Ok(Withdrawn)]),
            (Sent, [Ok(Sent), Ok(UnderWay), Ok(Done), Ok(Failed), SENT]),
            (UnderWay, [Ok(UnderWay), Ok(UnderWay), Ok(Done), Ok(Failed), SENT]),
            (Done, [NONE, Ok(Done), Ok(Done), Ok(Done), SENT]),
            (Failed, [NONE, Ok(Failed), Ok(Failed), Ok(Failed), SENT]),
            (Withdrawn, [NONE, NONE, NONE, NONE, Ok(Withdrawn)]),
        ] {
            assert_eq!(events.map(|event| step(state, event)), answers, "{state:?}");
            assert_eq!(state.as_str().parse::<OrderState>().unwrap(), state);
        }
    }

    fn wish(verb: &str, table: Option<&str>, args: &[(&str, &str)]) -> Result<OrderWish> {
        let args = args.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let table = table.map(|name| name.parse().unwrap());
        OrderWish { verb: verb.parse()?, table, args }.checked()
    }

    #[test]
    fn an_order_takes_the_arguments_of_its_verb_and_no_others() {
        for (verb, table, args) in [
            ("reload", Some("FLAN"), &[][..]),
            ("RETRY", None, &[]),
            ("PAUSE", None, &[("why", "month end")]),
            ("VERIFY", Some("FLAN"), &[("from", "1"), ("to", "9")]),
            ("REPAIR", None, &[]),
            ("LOG_LEVEL", None, &[("level", "debug"), ("minutes", "1440")]),
            ("LOG_LEVEL", None, &[("level", "off")]),
        ] {
            assert!(wish(verb, table, args).is_ok(), "{verb} {args:?}");
        }
        let long = "x".repeat(limits::ORDER_ARGUMENT_BYTES + 1);
        for (verb, table, args) in [
            ("EXPLODE", None, &[][..]),
            ("RELOAD", None, &[("who", "ana")]),
            ("PAUSE", None, &[("who", "ana")]),
            ("PAUSE", None, &[("why", long.as_str())]),
            ("VERIFY", None, &[("from", "1")]),
            ("LOG_LEVEL", None, &[]),
            ("LOG_LEVEL", None, &[("level", "loud")]),
            ("LOG_LEVEL", Some("FLAN"), &[("level", "debug")]),
            ("LOG_LEVEL", None, &[("level", "debug"), ("minutes", "1441")]),
            ("LOG_LEVEL", None, &[("level", "debug"), ("minutes", "0")]),
            ("LOG_LEVEL", None, &[("level", "debug"), ("minutes", "soon")]),
        ] {
            assert_eq!(
                wish(verb, table, args).unwrap_err().code,
                Code::BadRequest,
                "{verb} {args:?}"
            );
        }
    }

    #[test]
    fn of_a_range_of_keys_nobody_but_the_agent_sees_the_keys() {
        let args = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let part = args(&[("part", "yes")]);
        for given in [&[("from", "canary")][..], &[("to", "9")], &[("from", "1"), ("to", "9")]] {
            assert_eq!(shown(args(given)), part, "{given:?}");
        }
        assert_eq!(shown(part.clone()), part, "a second time changes nothing");
        for given in [&[][..], &[("why", "from here to there")]] {
            assert_eq!(shown(args(given)), args(given));
        }
    }

    #[test]
    fn an_order_travels_under_the_contracts_verbs_and_a_pause_tells_who_gave_it() {
        let order = |verb: Verb| Order {
            number: 1,
            id: OrderId(uuid::Uuid::from_u128(7)),
            wish: OrderWish { verb, table: None, args: BTreeMap::new() },
            who: "ana (laptop)".into(),
        };
        let numbers = Verb::ALL.map(|verb| order(verb).command().verb);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(order(Verb::Pause).command().args["who"], "ana (laptop)");
        assert!(order(Verb::Reload).command().args.is_empty());
    }
}
