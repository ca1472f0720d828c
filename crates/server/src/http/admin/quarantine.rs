//! Rows in quarantine over HTTP: to look at, to try again, to give up.
//!
//! Promises: each row that was tried is told with what became of it; a dry run tells the same and changes nothing.
//! Never: tells values in a list; `show` alone does.

use axum::Json;
use protocol::names::TableName;
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Asked, Body, Listing, RowPaging},
};
use crate::{
    model::catalog::At,
    service::staging::{self, Outcome, Quarantined, Shown},
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(quarantine))
        .routes(routes!(held))
        .routes(routes!(retry))
        .routes(routes!(discard))
}

/// A row that could not be staged.
#[derive(Debug, Serialize, ToSchema)]
struct Refused {
    /// Names the row: batch, message and place in it.
    id: String,
    table: String,
    batch: i64,
    message: i32,
    /// Place in its message, from 0; -1 = the whole message.
    row: i64,
    code: String,
    reason: String,
    at: At,
}

impl Refused {
    fn of(row: Quarantined) -> Self {
        Self {
            id: row.id(),
            table: row.table,
            batch: row.batch.0,
            message: row.message.0,
            row: row.row,
            code: row.code,
            reason: row.reason,
            at: At(row.at.0),
        }
    }
}

/// Which rows of the quarantine.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Held {
    /// Only rows of this table.
    table: Option<String>,
    /// Only rows refused with this code.
    code: Option<String>,
}

/// Rows that could not be staged, the newest batch first.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/quarantine",
    tag = "staging", params(RowPaging, Held), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Refused>)))]
async fn quarantine(
    act: Act,
    paging: RowPaging,
    Asked(Held { table, code }): Asked<Held>,
) -> Answer<Json<Listing<Refused>>> {
    let place = act.place().await?;
    let table = table.map(|name| name.parse()).transpose()?;
    let code = code.map(|word| staging::code(&word)).transpose()?;
    let found = act.services.staging.quarantined(&place, (table, code), paging.page()).await?;
    let found = found.into_iter().map(Refused::of).collect();
    Ok(Json(Listing::cut(found, paging.limit(), |row: &Refused| row.id.clone())))
}

/// A row in quarantine with its columns.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct HeldRow {
    #[serde(flatten)]
    row: Refused,
    /// The key's columns with their values, as far as they can be told.
    #[schema(value_type = Object)]
    key: Map<String, Value>,
    /// SHA-256 of the key's canonical bytes in hex, as an agent names the row.
    key_hash: Option<String>,
    /// Columns as they came; none of a whole message.
    #[schema(value_type = Object)]
    columns: Map<String, Value>,
}

/// A row that could not be staged, with its columns as they came.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/quarantine/{row}",
    tag = "staging", security(("administrator" = ["read-only"])), responses((status = 200, body = HeldRow)))]
async fn held(act: Act) -> Answer<Json<HeldRow>> {
    let place = act.place().await?;
    let found = act.services.staging.quarantined_row(&place, act.part("row")?).await?;
    let Shown { row, key, key_hash, columns } = found;
    let object = |cells: Vec<(String, String)>| {
        cells.into_iter().map(|(name, value)| (name, Value::from(value))).collect()
    };
    Ok(Json(HeldRow {
        row: Refused::of(row),
        key: object(key),
        key_hash,
        columns: object(columns),
    }))
}

/// Which rows: one of `row`, `table` and `all`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wish {
    /// The row's id.
    row: Option<String>,
    #[schema(value_type = Option<String>)]
    table: Option<TableName>,
    #[serde(default)]
    all: bool,
    /// Tell what would become of them, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// `next` of the call before.
    #[serde(default)]
    after: String,
}

/// What became of rows that were tried again.
#[derive(Debug, Serialize, ToSchema)]
struct Retried {
    /// False for a dry run.
    applied: bool,
    rows: Vec<Tried>,
    /// `after` of the next call; absent: all were tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Tried {
    id: String,
    table: String,
    /// applied, superseded (what is staged is newer) or refused (it stays in quarantine).
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Tried {
    fn of(tried: staging::Tried) -> Self {
        let staging::Tried { id, table, outcome } = tried;
        let word = outcome.as_str();
        let (code, reason) = match outcome {
            Outcome::Refused { code, reason } => (Some(code.as_str().to_owned()), Some(reason)),
            Outcome::Applied | Outcome::Superseded => (None, None),
        };
        Self { id, table, outcome: word, code, reason }
    }
}

/// Tries rows again against what is staged now, in the order they were accepted in, at most 1,000 in a call. A row never
/// replaces a newer image of itself.
#[utoipa::path(post, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/quarantine/retries",
    tag = "staging", request_body = Wish, security(("administrator" = ["operator"])),
    responses((status = 200, body = Retried)))]
async fn retry(act: Act, Body(wish): Body<Wish>) -> Answer<Json<Retried>> {
    let place = act.place().await?;
    let which = staging::which(wish.row.as_deref(), wish.table, wish.all)?;
    let how = (wish.after.as_str(), wish.dry_run);
    let done = act.services.staging.retry(&place, which, how, Wall::now()).await?;
    let rows = done.rows.into_iter().map(Tried::of).collect();
    Ok(Json(Retried { applied: done.applied, rows, next: done.next }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct GivenUp {
    /// Why; the audit keeps it.
    reason: String,
    /// Tell which row it is, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Gives a row up: it leaves quarantine unstaged, and the audit keeps why.
#[utoipa::path(delete, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/quarantine/{row}",
    tag = "staging", params(GivenUp), security(("administrator" = ["operator"])),
    responses((status = 200, body = Refused)))]
async fn discard(
    act: Act,
    Asked(GivenUp { reason, dry_run }): Asked<GivenUp>,
) -> Answer<Json<Refused>> {
    let place = act.place().await?;
    let row = act.services.staging.discard(&place, act.part("row")?, (&reason, dry_run)).await?;
    Ok(Json(Refused::of(row)))
}
