//! Staged tables over HTTP: what the cloud holds of a table now.
//!
//! Promises: values are told as they travelled, NULL apart from the empty string; an answer is bounded in rows and bytes.
//! Never: tells a deleted row among the live ones.

use axum::Json;
use protocol::names::TableName;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Listing, Paging, RowPaging},
};
use crate::service::staging;

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(rows))
        .routes(routes!(count))
}

/// A staged table.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Staged {
    #[schema(value_type = String)]
    table: TableName,
    /// In key order.
    key: Vec<String>,
    columns: Vec<Column>,
    /// Rows were lost with an older staging file; the load that brings them again was ordered and is not done.
    lacks_rows: bool,
}

#[derive(Debug, Serialize, ToSchema)]
struct Column {
    name: String,
    #[serde(rename = "type")]
    kind: String,
}

fn staged(shape: staging::Shape) -> Staged {
    let columns = shape.columns.into_iter().map(|(name, kind)| Column { name, kind }).collect();
    Staged { table: shape.table, key: shape.key, columns, lacks_rows: shape.lacks_rows }
}

/// Staged tables, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/staging/tables",
    tag = "staging", params(Paging), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Staged>)))]
async fn list(act: Act, paging: Paging) -> Answer<Json<Listing<Staged>>> {
    let place = act.place().await?;
    let found = act.services.staging.shapes(&place, paging.page()).await?;
    let found = found.into_iter().map(staged).collect();
    Ok(Json(Listing::cut(found, paging.limit(), |staged: &Staged| {
        staged.table.folded().to_owned()
    })))
}

/// Columns and key of a staged table.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/staging/tables/{table}",
    tag = "staging", security(("administrator" = ["read-only"])), responses((status = 200, body = Staged)))]
async fn show(act: Act) -> Answer<Json<Staged>> {
    let place = act.place().await?;
    Ok(Json(staged(act.services.staging.shape(&place, &act.table()?).await?)))
}

/// Live rows in the order of their keys, each as an object of texts; `after` is `next` of the page before. A page of
/// large rows may hold fewer than `limit`.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/staging/tables/{table}/rows",
    tag = "staging", params(RowPaging), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Object>)))]
async fn rows(act: Act, paging: RowPaging) -> Answer<Json<Listing<Map<String, Value>>>> {
    let (place, table) = (act.place().await?, act.table()?);
    let page = (paging.after(), paging.limit());
    let found = act.services.staging.rows(&place, &table, page).await?;
    let object = |values: Vec<Option<String>>| {
        found.columns.iter().cloned().zip(values.into_iter().map(Value::from)).collect()
    };
    let items = found.values.into_iter().map(object).collect();
    Ok(Json(Listing { items, next: found.next }))
}

/// How many live rows there are.
#[derive(Debug, Serialize, ToSchema)]
struct Count {
    #[schema(value_type = String)]
    table: TableName,
    rows: u64,
}

/// Number of live rows.
#[utoipa::path(get,
    path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/staging/tables/{table}/count",
    tag = "staging", security(("administrator" = ["read-only"])), responses((status = 200, body = Count)))]
async fn count(act: Act) -> Answer<Json<Count>> {
    let (place, table) = (act.place().await?, act.table()?);
    // A table that is not staged has no count, rather than 0.
    let table = act.services.staging.shape(&place, &table).await?.table;
    let rows = act.services.staging.count(place.environment, &place.erp, &table).await?;
    Ok(Json(Count { table, rows }))
}
