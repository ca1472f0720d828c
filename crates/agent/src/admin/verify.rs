//! Verify: a person asks for tables to be compared with what is staged, or repaired, and looks what came of it.
//!
//! Promises: an order is on disk before it is answered; what is answered holds numbers and codes.
//! Never: waits for a verification; shows a key.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
    routing,
};
use futures_util::future::try_join_all;
use protocol::{Code, Error, Result, key::KeyBytes, names::TableName};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};

use super::door::{Behind, Refusal, parsed};
use crate::journal::{Journal, KeySpan, Origin, Verification, VerifyOrder};

/// Verifications that one look shows where nobody says how many, and at most.
const USUAL: usize = 100;
const MOST: usize = 10_000;

pub(super) fn routes() -> Router<Behind> {
    Router::new()
        .route("/v1/verify", routing::get(list).post(order))
        .route("/v1/verify/{id}", routing::get(show))
}

/// What is to be verified.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyTables {
    /// Empty: all of the plan.
    #[serde(default)]
    pub tables: Vec<TableName>,
    /// Sends again what differs.
    #[serde(default)]
    pub repair: bool,
    /// Key of the first row that is compared: its canonical values in key order. Keys are ordered by their bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Key of the first row behind those that are compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
}

fn key(values: &[String]) -> KeyBytes {
    KeyBytes::of(values.iter().map(String::as_str))
}

async fn order(
    State(journal): State<Journal>,
    body: Bytes,
) -> Result<(StatusCode, Json<Vec<Verification>>), Refusal> {
    let asked: VerifyTables = parsed(&body, "{\"tables\": […], \"repair\": …}")?;
    let span = KeySpan::asked(key(&asked.from), key(&asked.to))?.of_tables(asked.tables.len())?;
    let plan = journal
        .plan()
        .await?
        .ok_or_else(|| Error::new(Code::NotFound, "there is no plan yet, so no table to verify"))?;
    let planned: Vec<TableName> = plan.queries.into_iter().map(|query| query.table).collect();
    if let Some(table) = asked.tables.iter().find(|table| !planned.contains(table)) {
        let words = format!("table {table} is not in the plan");
        return Err(Error::new(Code::NotFound, words).into());
    }
    let tables = if asked.tables.is_empty() { planned } else { asked.tables };
    let (now, repair) = (Wall::now(), asked.repair);
    let orders = tables.into_iter().map(|table| {
        let (origin, span) = (Origin::Person, span.clone());
        journal.order_verify(VerifyOrder { table, origin, repair, span }, now)
    });
    // All at once: they share commits.
    let ids = try_join_all(orders).await?;
    let ordered = ids.into_iter().flatten().map(|id| journal.verification(id));
    let ordered: Vec<Verification> = try_join_all(ordered).await?.into_iter().flatten().collect();
    let tables = ordered.len();
    tracing::info!(tables, repair, "a person asked for verification");
    Ok((StatusCode::ACCEPTED, Json(ordered)))
}

async fn show(
    State(journal): State<Journal>,
    asked: Result<Path<i64>, PathRejection>,
) -> Result<Json<Verification>, Refusal> {
    let Path(id) = asked.map_err(|cause| {
        Error::new(Code::BadRequest, "a verification has a number").because(cause)
    })?;
    let found = journal.verification(id).await?;
    let words = "there is no verification of that number, or it is older than what is kept";
    Ok(Json(found.ok_or_else(|| Error::new(Code::NotFound, words))?))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    limit: Option<usize>,
}

async fn list(
    State(journal): State<Journal>,
    asked: Result<Query<ListQuery>, QueryRejection>,
) -> Result<Json<Vec<Verification>>, Refusal> {
    let Query(ListQuery { limit }) = asked
        .map_err(|cause| Error::new(Code::BadRequest, "verify takes ?limit=…").because(cause))?;
    Ok(Json(journal.verifications(limit.unwrap_or(USUAL).min(MOST)).await?))
}
