//! Webhook, model floor: where events are told, which events there are, and the words they are told in
//! (`contracts.md` 5.7).
//!
//! Promises: the body of an event is the same at each try; neither `Debug` nor what is shown holds a secret or the query
//! of an address.
//! Never: unseals; signs.

use std::{fmt, str::FromStr};

use protocol::{
    Code, Error, Result,
    ids::{BatchId, EnvironmentId, EventId, MessageNumber, TenantId, WebhookId},
};
use runtime::clock::Wall;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    carol::Envelope,
    catalog::At,
    delivery::{Health, State},
    stream::StreamId,
};

/// What can be told. `batch.complete` is of the contract, the others are Malote's own in the same form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, ToSchema)]
pub enum EventKind {
    #[serde(rename = "batch.complete")]
    Complete,
    #[serde(rename = "batch.incomplete")]
    Incomplete,
    #[serde(rename = "batch.stalled")]
    Stalled,
    #[serde(rename = "alert.raised")]
    AlertRaised,
    #[serde(rename = "alert.resolved")]
    AlertResolved,
    #[serde(rename = "webhook.test")]
    Test,
}

impl EventKind {
    /// Those that a webhook asks for; a test comes to each.
    pub const ASKED: [Self; 5] =
        [Self::Complete, Self::Incomplete, Self::Stalled, Self::AlertRaised, Self::AlertResolved];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "batch.complete",
            Self::Incomplete => "batch.incomplete",
            Self::Stalled => "batch.stalled",
            Self::AlertRaised => "alert.raised",
            Self::AlertResolved => "alert.resolved",
            Self::Test => "webhook.test",
        }
    }

    /// From the store's own word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ASKED.into_iter().chain([Self::Test]).find(|kind| kind.as_str() == text)
    }
}

impl FromStr for EventKind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let words = "an event is batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved or webhook.test";
        Self::parse(text).ok_or_else(|| Error::new(Code::BadRequest, words))
    }
}

/// Where a consumer is called. Its query may hold a key of the consumer's own, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Target(pub String);

impl Target {
    /// The address without its query.
    #[must_use]
    pub fn shown(&self) -> String {
        match self.0.split_once('?') {
            Some((path, _)) => format!("{path}?…"),
            None => self.0.clone(),
        }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

/// An address with what is told there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub id: WebhookId,
    pub name: String,
    /// Absent: every environment of the tenant.
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    /// Without its query.
    #[schema(value_type = String)]
    pub url: Target,
    pub events: Vec<EventKind>,
    pub description: String,
    pub created_at: At,
    /// Deliveries wait since then.
    pub paused_at: Option<At>,
    /// The secret in force was made then.
    pub secret_at: At,
    /// The secret of before signs as well until then.
    pub former_until: Option<At>,
    /// Tries in a row that failed.
    pub failures: u32,
    /// The address is left in peace until then.
    pub rests_until: Option<At>,
    /// Deliveries that wait or are under way.
    pub pending: u64,
    /// Deliveries whose tries are used up.
    pub dead: u64,
}

/// Secrets of a webhook as the store keeps them.
#[derive(Clone, Debug)]
pub struct Secrets {
    pub current: Envelope,
    /// The one of before, and until when it is in force.
    pub former: Option<(Envelope, Wall)>,
}

/// How the telling of one event to one webhook stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// The event's id, the same at each try.
    #[schema(value_type = String)]
    pub id: EventId,
    #[serde(rename = "type")]
    pub kind: EventKind,
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    pub erp: Option<String>,
    #[schema(value_type = Option<i64>)]
    pub batch: Option<BatchId>,
    /// When it happened.
    pub at: At,
    /// ready, leased (a try is under way), done or dead.
    #[serde(serialize_with = "word")]
    #[schema(value_type = String)]
    pub state: State,
    /// The batch's rows are not staged yet; it is told when they are.
    pub waits_for_staging: bool,
    /// Tries, the one under way among them.
    pub attempts: u32,
    /// Not tried before.
    pub next_at: Option<At>,
    /// End of the last try.
    pub last_at: Option<At>,
    /// Status of the last answer.
    pub last_status: Option<u16>,
    /// Why the last try was not the end.
    pub last_error: Option<String>,
    pub ended_at: Option<At>,
}

fn word<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(state.as_str())
}

/// An event as it is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    pub id: EventId,
    pub kind: EventKind,
    pub at: At,
    /// JSON, as it was noted when it happened.
    pub data: String,
}

impl Event {
    /// The body, in the form of CloudEvents 1.0; `source` is this server's address.
    #[must_use]
    pub fn body(&self, source: &str) -> String {
        let data = serde_json::from_str::<Value>(&self.data).unwrap_or_default();
        json!({ "specversion": "1.0", "id": self.id.to_string(), "source": source, "type": self.kind.as_str(),
            "time": self.at.to_string(), "data": data })
        .to_string()
    }
}

/// A delivery that was claimed, with all that a try needs.
#[derive(Clone, Debug)]
pub struct Claim {
    pub tenant: TenantId,
    pub webhook: WebhookId,
    pub url: Target,
    pub secrets: Secrets,
    pub event: Event,
    /// The number of this try, from 1.
    pub attempt: u32,
    /// Names this one try.
    pub receipt: uuid::Uuid,
}

/// How the deliveries and the address stand when a try ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    pub attempts: u32,
    pub test: bool,
    pub health: Health,
}

/// What the ledger knows of a batch that is told about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    pub stream: StreamId,
    pub batch: BatchId,
    pub messages: i64,
    pub rows: i64,
    /// By name.
    pub tables: Vec<String>,
    /// Range of the accepted Summary.
    pub start: Option<Wall>,
    pub end: Option<Wall>,
    pub opened_at: Wall,
    pub last_at: Wall,
}

/// What happened to a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happened {
    Complete,
    Incomplete(Lack),
    Stalled,
}

/// What a batch lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Lack {
    /// It was given up before its Summary was accepted.
    GivenUp,
    /// Its Summary was refused, and it is open yet.
    Refused {
        code: Code,
        /// The first and the last message that are missing.
        missing: Option<(MessageNumber, MessageNumber)>,
        /// Messages and rows as the Summary told them.
        told: (i64, i64),
    },
}

impl Happened {
    #[must_use]
    pub const fn kind(&self) -> EventKind {
        match self {
            Self::Complete => EventKind::Complete,
            Self::Incomplete(_) => EventKind::Incomplete,
            Self::Stalled => EventKind::Stalled,
        }
    }

    /// The `data` of the event.
    #[must_use]
    pub fn data(&self, facts: &Facts) -> Value {
        let StreamId { tenant, environment, erp } = &facts.stream;
        let time = |at: Option<Wall>| at.map(Wall::to_iso);
        let mut data = json!({ "tenantId": tenant.to_string(), "environmentId": environment.to_string(),
            "erp": erp.as_str(), "batchId": facts.batch.0, "messageCount": facts.messages, "recordCount": facts.rows,
            "tables": facts.tables, "timestampStart": time(facts.start), "timestampEnd": time(facts.end) });
        let open = |data: &mut Value| {
            data["openedAt"] = json!(facts.opened_at.to_iso());
            data["lastMessageAt"] = json!(facts.last_at.to_iso());
        };
        match self {
            Self::Complete => {}
            Self::Stalled => {
                open(&mut data);
                data["state"] = json!("open");
                data["since"] = json!(facts.last_at.to_iso());
            }
            Self::Incomplete(lack) => {
                open(&mut data);
                lack.tell(&mut data);
            }
        }
        data
    }
}

impl Lack {
    fn tell(&self, data: &mut Value) {
        let (state, reason) = match self {
            Self::GivenUp => ("abandoned", "ABANDONED"),
            Self::Refused { code, .. } => ("open", code.as_str()),
        };
        data["state"] = json!(state);
        data["reason"] = json!(reason);
        let (missing, told) = match self {
            Self::GivenUp => (None, None),
            Self::Refused { missing, told, .. } => (*missing, Some(*told)),
        };
        data["missingMessages"] =
            json!(missing.map(|(from, to)| json!({ "from": from.0, "to": to.0 })));
        data["expectedMessageCount"] = json!(told.map(|(messages, _)| messages));
        data["expectedRecordCount"] = json!(told.map(|(_, rows)| rows));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let id = uuid::Uuid::from_u128;
        Facts {
            stream: StreamId {
                tenant: TenantId(id(1)),
                environment: EnvironmentId(id(2)),
                erp: "RM".parse().unwrap(),
            },
            batch: BatchId(1_718_000_000),
            messages: 2,
            rows: 3,
            tables: vec!["FLAN".into(), "TMOV".into()],
            start: Some(Wall(1_718_000_000_000_000)),
            end: Some(Wall(1_718_000_005_000_000)),
            opened_at: Wall(1_767_614_400_000_000),
            last_at: Wall(1_767_614_405_000_000),
        }
    }

    #[test]
    fn a_complete_batch_is_told_in_the_words_of_the_contract() {
        let data = Happened::Complete.data(&facts()).to_string();
        let at = At(1_767_614_407_000_000);
        let id = EventId(uuid::Uuid::from_u128(7));
        let event = Event { id, kind: EventKind::Complete, at, data };
        assert_eq!(
            event.body("https://malote.example"),
            "{\"specversion\":\"1.0\",\"id\":\"00000000-0000-0000-0000-000000000007\",\
             \"source\":\"https://malote.example\",\"type\":\"batch.complete\",\"time\":\"2026-01-05T12:00:07Z\",\
             \"data\":{\"tenantId\":\"00000000-0000-0000-0000-000000000001\",\
             \"environmentId\":\"00000000-0000-0000-0000-000000000002\",\"erp\":\"RM\",\"batchId\":1718000000,\
             \"messageCount\":2,\"recordCount\":3,\"tables\":[\"FLAN\",\"TMOV\"],\
             \"timestampStart\":\"2024-06-10T06:13:20Z\",\"timestampEnd\":\"2024-06-10T06:13:25Z\"}}"
        );
    }

    #[test]
    fn an_incomplete_batch_says_what_is_missing_and_a_stalled_one_since_when() {
        let missing = Some((MessageNumber(3), MessageNumber(5)));
        let lack = Lack::Refused { code: Code::MessagesMissing, missing, told: (5, 9) };
        let data = Happened::Incomplete(lack).data(&facts());
        assert_eq!(data["missingMessages"], json!({ "from": 3, "to": 5 }));
        assert_eq!((&data["state"], &data["reason"]), (&json!("open"), &json!("MESSAGES_MISSING")));
        assert_eq!((&data["expectedMessageCount"], &data["messageCount"]), (&json!(5), &json!(2)));
        let data = Happened::Incomplete(Lack::GivenUp).data(&facts());
        assert_eq!((&data["state"], &data["reason"]), (&json!("abandoned"), &json!("ABANDONED")));
        assert_eq!(data["missingMessages"], Value::Null);
        let data = Happened::Stalled.data(&facts());
        assert_eq!(
            (&data["since"], &data["state"]),
            (&json!("2026-01-05T12:00:05Z"), &json!("open"))
        );
    }

    #[test]
    fn the_query_of_an_address_is_not_shown() {
        let target = Target("https://etl.example/in?code=canary-1".into());
        let shown = serde_json::to_string(&target).unwrap();
        assert_eq!(shown, "\"https://etl.example/in?…\"");
        assert!(!format!("{target:?}").contains("canary"));
    }
}
