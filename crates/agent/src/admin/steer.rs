//! Steer: a person pauses tables and lets them go on.
//!
//! Promises: who, why and when are kept with the pause and logged.
//! Never: pauses a table that is not in the plan, where there is a plan.

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing};
use protocol::{Code, Error, Result, names::TableName};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};

use super::door::{Behind, Refusal, parsed};
use crate::journal::{Halt, Halts, Journal};

pub(super) fn routes() -> Router<Behind> {
    Router::new()
        .route("/v1/pause", routing::post(pause))
        .route("/v1/resume", routing::post(resume))
}

/// A table that waits, or (`table` absent) all of them.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HaltStatus {
    pub table: Option<TableName>,
    pub who: String,
    pub why: String,
    pub since: String,
}

pub(super) fn halts(halts: Halts) -> Vec<HaltStatus> {
    let status = |table: Option<TableName>, halt: Halt| HaltStatus {
        table,
        who: halt.who,
        why: halt.why,
        since: halt.since.to_iso(),
    };
    let all = halts.all.map(|halt| status(None, halt));
    let tables = halts.tables.into_iter().map(|(table, halt)| status(Some(table), halt));
    all.into_iter().chain(tables).collect()
}

/// An order to pause.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PauseOrder {
    /// Absent: all tables.
    #[serde(default)]
    pub table: Option<TableName>,
    pub who: String,
    #[serde(default)]
    pub why: String,
}

/// An order to go on.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResumeOrder {
    /// Absent: what was paused as a whole; tables paused by themselves stay so.
    #[serde(default)]
    pub table: Option<TableName>,
    /// Every pause, whatever it was of.
    #[serde(default)]
    pub all: bool,
}

async fn pause(State(journal): State<Journal>, body: Bytes) -> Result<StatusCode, Refusal> {
    let PauseOrder { table, who, why } = parsed(&body, "{\"who\": …, \"table\": …, \"why\": …}")?;
    if let (Some(table), Some(plan)) = (&table, journal.plan().await?)
        && !plan.queries.iter().any(|query| query.table == *table)
    {
        let words = format!("table {table} is not in the plan");
        return Err(Error::new(Code::NotFound, words).into());
    }
    if who.trim().is_empty() {
        return Err(Error::new(Code::BadRequest, "a pause needs to say who pauses").into());
    }
    let halt = Halt::new(&who, &why, Wall::now());
    let named = table.as_ref().map(ToString::to_string);
    tracing::warn!(table = named, who = halt.who, why = halt.why, "paused by a person");
    journal.halt(table, halt).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn resume(State(journal): State<Journal>, body: Bytes) -> Result<StatusCode, Refusal> {
    let order: ResumeOrder = parsed(&body, "{\"table\": …, \"all\": …}")?;
    let named = order.table.as_ref().map(ToString::to_string);
    match order {
        ResumeOrder { table: None, all: true } => journal.lift_halts().await?,
        ResumeOrder { table, all: false } => journal.lift_halt(table).await?,
        ResumeOrder { table: Some(_), all: true } => {
            return Err(Error::new(Code::BadRequest, "name a table or all, not both").into());
        }
    }
    tracing::info!(table = named, "resumed by a person");
    Ok(StatusCode::ACCEPTED)
}
