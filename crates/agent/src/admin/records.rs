//! Records: what was sent, as people ask for it: one SELECT, the history, its cleaning.
//!
//! Promises: reads over the journal's own read-only door; what is cleaned is what the journal says may go.
//! Never: shows more than the journal's two views; logs a statement or what it gave.

use axum::{
    Json, Router,
    extract::{Query, State},
    routing,
};
use protocol::{Code, Error};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};

use super::door::{Behind, Refusal, parsed};
use crate::journal::{Clean, Cleaned, HistoryRow, Journal, Selected};

/// Rows of a SELECT, or of the history, where nobody says how many.
pub const USUAL_ROWS: usize = 1_000;
/// Rows of history that one look gives at most.
const MOST_HISTORY: usize = 10_000;
const DAY_MICROS: i64 = 86_400_000_000;

pub(super) fn routes() -> Router<Behind> {
    Router::new()
        .route("/v1/sql", routing::post(select))
        .route("/v1/history", routing::get(history))
        .route("/v1/history/clean", routing::post(clean))
}

/// One SELECT.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Select {
    pub sql: String,
    #[serde(default)]
    pub limit: Option<usize>,
}

async fn select(
    State(journal): State<Journal>,
    body: axum::body::Bytes,
) -> Result<Json<Selected>, Refusal> {
    let asked: Select = parsed(&body, "{\"sql\": …}")?;
    Ok(Json(journal.select(asked.sql, asked.limit.unwrap_or(USUAL_ROWS)).await?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    concept: Option<String>,
    limit: Option<usize>,
}

async fn history(
    State(journal): State<Journal>,
    asked: Result<Query<HistoryQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Vec<HistoryRow>>, Refusal> {
    let Query(HistoryQuery { concept, limit }) = asked.map_err(|cause| {
        Error::new(Code::BadRequest, "history takes ?concept=…&limit=…").because(cause)
    })?;
    Ok(Json(journal.history(concept, limit.unwrap_or(USUAL_ROWS).min(MOST_HISTORY)).await?))
}

/// What a cleaning may take: the fields of the documented screen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CleanOrder {
    /// Days that stay.
    pub days: u32,
    /// Most rows to be removed.
    pub max_rows: u64,
    #[serde(default)]
    pub dry_run: bool,
}

impl CleanOrder {
    /// As the journal takes it, at a moment.
    #[must_use]
    pub fn at(self, now: Wall) -> Clean {
        let kept = i64::from(self.days).saturating_mul(DAY_MICROS);
        Clean {
            before: Wall(now.0.saturating_sub(kept)),
            most: self.max_rows,
            dry_run: self.dry_run,
        }
    }
}

async fn clean(
    State(journal): State<Journal>,
    body: axum::body::Bytes,
) -> Result<Json<Cleaned>, Refusal> {
    let order: CleanOrder = parsed(&body, "{\"days\": …, \"maxRows\": …}")?;
    let cleaned = journal.history_clean(order.at(Wall::now()), Wall::now).await?;
    if !order.dry_run {
        tracing::info!(days = order.days, removed = cleaned.removed, "history cleaned by a person");
    }
    Ok(Json(cleaned))
}
