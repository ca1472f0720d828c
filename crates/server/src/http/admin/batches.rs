//! Streams, sessions, batches, messages and their rows over HTTP.
//!
//! Promises: states are told as people see them, stalled and incomplete included.
//! Never: changes the ledger.

use axum::{Json, http::StatusCode};
use protocol::ids::BatchId;
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
use crate::model::{
    catalog::At,
    content::{Content, SentRow},
    overview::{BatchView, MessageView, OfferView, StreamView},
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(streams))
        .routes(routes!(accept_database))
        .routes(routes!(release))
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(messages))
        .routes(routes!(message))
        .routes(routes!(sent_rows))
}

/// Streams of a tenant with who sends them, and what waits for a decision. All of them: there are few.
#[utoipa::path(get, path = "/tenants/{tenant}/streams", tag = "sessions",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<StreamView>)))]
async fn streams(act: Act) -> Answer<Json<Listing<StreamView>>> {
    Ok(Json(Listing::whole(act.services.overview.streams(act.tenant_id()?).await?)))
}

/// A database to accept.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AcceptedDatabase {
    /// As the list of streams shows it.
    fingerprint: String,
    /// Tell whether it waits, and accept nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Takes the database that was refused last for the stream's own (`DATABASE_CHANGED`); 404 where another one waits by now.
#[utoipa::path(post,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/session/accepted-database",
    tag = "sessions", security(("administrator" = ["operator"])), request_body = AcceptedDatabase,
    responses((status = 200, body = OfferView)))]
async fn accept_database(
    act: Act,
    Body(accepted): Body<AcceptedDatabase>,
) -> Answer<Json<OfferView>> {
    let place = act.place().await?;
    let AcceptedDatabase { fingerprint, dry_run } = accepted;
    Ok(Json(act.services.overview.accept_database(place, fingerprint, dry_run).await?))
}

/// Ends the session at once; its sender reads again from the cursor.
#[utoipa::path(delete, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/session",
    tag = "sessions", security(("administrator" = ["operator"])), responses((status = 204)))]
async fn release(act: Act) -> Answer<StatusCode> {
    let place = act.place().await?;
    act.services.overview.release(place).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct State {
    /// open, stalled, incomplete or complete.
    state: Option<String>,
}

/// A batch with its state as people see it.
#[derive(Debug, Serialize, ToSchema)]
struct Batch {
    #[serde(flatten)]
    batch: BatchView,
    /// open, stalled, incomplete or complete.
    shown: String,
}

impl Batch {
    fn of(batch: BatchView) -> Self {
        let shown = batch.shown(At(Wall::now().0)).to_owned();
        Self { batch, shown }
    }
}

/// Batches, the newest first; `after` is the number of the last one seen.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/batches",
    tag = "batches", params(RowPaging, State), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Batch>)))]
async fn list(
    act: Act,
    paging: RowPaging,
    Asked(State { state }): Asked<State>,
) -> Answer<Json<Listing<Batch>>> {
    let place = act.place().await?;
    let state = state.map(|word| word.parse()).transpose()?;
    let found = act.services.overview.batches(place, state, paging.page()).await?;
    let found = found.into_iter().map(Batch::of).collect();
    Ok(Json(Listing::cut(found, paging.limit(), |batch: &Batch| batch.batch.batch.to_string())))
}

/// A batch.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/batches/{batch}",
    tag = "batches", security(("administrator" = ["read-only"])), responses((status = 200, body = Batch)))]
async fn show(act: Act) -> Answer<Json<Batch>> {
    let (place, batch) = (act.place().await?, BatchId(act.number("batch")?));
    Ok(Json(Batch::of(act.services.overview.batch(place, batch).await?)))
}

/// Messages of a batch in order; `after` is the number of the last one seen.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/batches/{batch}/messages",
    tag = "batches", params(RowPaging), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<MessageView>)))]
async fn messages(act: Act, paging: RowPaging) -> Answer<Json<Listing<MessageView>>> {
    let (place, batch) = (act.place().await?, BatchId(act.number("batch")?));
    let found = act.services.overview.messages(place, batch, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |message| message.number.to_string())))
}

/// A message of a batch.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/batches/{batch}/messages/{message}",
    tag = "batches", security(("administrator" = ["read-only"])),
    responses((status = 200, body = MessageView)))]
async fn message(act: Act) -> Answer<Json<MessageView>> {
    let (place, batch) = (act.place().await?, BatchId(act.number("batch")?));
    let number = act.number("message")?;
    Ok(Json(act.services.overview.message(place, batch, number).await?))
}

/// A row as it was sent.
#[derive(Serialize, ToSchema)]
struct Sent {
    /// Place in its message, from 0.
    row: usize,
    table: String,
    /// upsert or delete.
    operation: &'static str,
    /// The key's columns with their values.
    #[schema(value_type = Object)]
    key: Map<String, Value>,
    /// All columns with their values as texts, NULL as null; of a deleted row only what came.
    #[schema(value_type = Object)]
    columns: Map<String, Value>,
}

impl Sent {
    fn of(content: &Content, row: SentRow) -> Self {
        let part = |column: &String| (column.clone(), Value::from(row.value(column)));
        Self {
            row: row.row,
            table: content.table.to_string(),
            operation: row.operation(),
            key: content.key.iter().map(part).collect(),
            columns: row
                .cells
                .into_iter()
                .map(|(name, value)| (name, Value::from(value)))
                .collect(),
        }
    }
}

/// Rows of a message as they were sent, while its body is kept (`BODY_REMOVED` after that); `after` is the place of the
/// last one seen. A page of large rows may hold fewer than `limit`.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/batches/{batch}/messages/{message}/rows",
    tag = "batches", params(RowPaging), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Sent>)))]
async fn sent_rows(act: Act, paging: RowPaging) -> Answer<Json<Listing<Sent>>> {
    let (place, batch) = (act.place().await?, BatchId(act.number("batch")?));
    let of = (batch, act.number("message")?);
    let page = (paging.after(), paging.limit());
    let mut content = act.services.overview.content(place, of, page).await?;
    let next = content.next.map(|row| row.to_string());
    let rows = std::mem::take(&mut content.rows);
    let items = rows.into_iter().map(|row| Sent::of(&content, row)).collect();
    Ok(Json(Listing { items, next }))
}
