//! Overview: what an operator sees of streams, batches and messages.
//!
//! Promises: words of `contracts.md` 5.2 for states, *stalled* and *incomplete* included.
//! Never: holds a row or its value.

use std::str::FromStr;

use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, MessageNumber},
    limits,
    names::{ErpName, TableName},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::At;

/// A stream with its session.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamView {
    pub environment: String,
    #[schema(value_type = String)]
    pub erp: ErpName,
    #[schema(value_type = i64)]
    pub epoch: Epoch,
    /// Instance that holds the lease.
    pub holder: Option<String>,
    pub expires_at: At,
    /// Two copies of one agent were seen.
    pub disputed: bool,
    /// Another database was offered and waits for a person.
    pub database_waits: bool,
    /// That database.
    pub offer: Option<OfferView>,
    #[schema(value_type = i64)]
    pub last_batch: BatchId,
}

/// A database that was offered for a stream and refused (`DATABASE_CHANGED`).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OfferView {
    /// Of the instance and of the facts of its database; a person who accepts names it.
    pub fingerprint: String,
    /// Of the agent that offered it.
    pub instance: String,
    /// When this one was offered first, and last.
    pub since: At,
    pub at: At,
}

/// A batch of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchView {
    #[schema(value_type = String)]
    pub erp: ErpName,
    #[schema(value_type = i64)]
    pub batch: BatchId,
    pub state: String,
    pub messages: i64,
    pub rows: i64,
    pub bytes: i64,
    pub opened_at: At,
    pub last_at: At,
    pub closed_at: Option<At>,
    /// Code of the Summary that was refused last.
    pub refused: Option<String>,
}

/// A state as people see it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shown {
    Open,
    Stalled,
    Incomplete,
    Complete,
}

impl Shown {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stalled => "stalled",
            Self::Incomplete => "incomplete",
            Self::Complete => "complete",
        }
    }
}

impl FromStr for Shown {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Open, Self::Stalled, Self::Incomplete, Self::Complete]
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                let words = "a batch is open, stalled, incomplete or complete";
                Error::new(Code::BadRequest, words)
            })
    }
}

impl BatchView {
    /// The state as people see it.
    #[must_use]
    pub fn shown(&self, now: At) -> &str {
        let stalled = i64::try_from(limits::BATCH_STALLED.as_micros()).unwrap_or(i64::MAX);
        match self.state.as_str() {
            "abandoned" => "incomplete",
            "open" if self.refused.is_some() => "incomplete",
            "open" if now.0.saturating_sub(self.last_at.0) >= stalled => "stalled",
            state => state,
        }
    }
}

/// A table message of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageView {
    #[schema(value_type = i64)]
    pub number: MessageNumber,
    #[schema(value_type = String)]
    pub table: TableName,
    pub rows: i64,
    pub bytes: i64,
    pub base_load: bool,
    pub received_at: At,
    /// False once retention has taken the body.
    pub body_kept: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_stalled_and_incomplete_batches() {
        let batch = |state: &str, refused: Option<&str>| BatchView {
            erp: "RM".parse().unwrap(),
            batch: BatchId(1),
            state: state.into(),
            messages: 1,
            rows: 1,
            bytes: 1,
            opened_at: At(0),
            last_at: At(0),
            closed_at: None,
            refused: refused.map(str::to_owned),
        };
        let minute = At(60_000_000);
        assert_eq!(batch("open", None).shown(At(59_999_999)), "open");
        assert_eq!(batch("open", None).shown(minute), "stalled");
        assert_eq!(batch("open", Some("MESSAGES_MISSING")).shown(At(0)), "incomplete");
        assert_eq!(batch("abandoned", None).shown(minute), "incomplete");
        assert_eq!(batch("complete", None).shown(minute), "complete");
    }
}
