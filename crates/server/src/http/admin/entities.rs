//! Entities over HTTP: which tables are shared, with which filter, and when they are sent again.
//!
//! Promises: a filter is checked before it is kept; tables are added all or none.
//! Never: touches staged rows.

use axum::{
    Json,
    http::{StatusCode, header},
    response::IntoResponse,
};
use protocol::{ids::Generation, names::TableName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Asked, Body, Items, Listing, Paging, Plain},
};
use crate::{
    model::{catalog::Entity, exchange::Format},
    service::catalog::{Import, NewEntity, Plan},
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, set_filter, withdraw))
        .routes(routes!(reload))
        .routes(routes!(export, import))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Which {
    /// Also those that were withdrawn.
    #[serde(default)]
    withdrawn: bool,
}

/// A table with what should be known of its filter.
#[derive(Debug, Serialize, ToSchema)]
struct SharedTable {
    #[serde(flatten)]
    entity: Entity,
    /// The filter is missing, or reaches back over two years.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

fn told(act: &Act, entity: Entity) -> SharedTable {
    let warning = act.services.catalog.warning(&entity.table, entity.filter.as_deref());
    SharedTable { entity, warning: warning.map(|warning| warning.to_string()) }
}

/// Tables that are shared.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entities",
    tag = "entities", params(Paging, Which), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<SharedTable>)))]
async fn list(
    act: Act,
    paging: Paging,
    Asked(which): Asked<Which>,
) -> Answer<Json<Listing<SharedTable>>> {
    let place = act.place().await?;
    let found = act.services.catalog.entities(&place, which.withdrawn, paging.page()).await?;
    let found = found.into_iter().map(|entity| told(&act, entity)).collect();
    Ok(Json(Listing::cut(found, paging.limit(), |told: &SharedTable| {
        told.entity.table.to_string()
    })))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Shared {
    #[schema(value_type = String)]
    table: TableName,
    /// Predicate for the base load, such as `FLAN.IDLAN > 1000`.
    filter: Option<String>,
    /// The customer's own table.
    #[serde(default)]
    is_custom: bool,
}

/// Shares tables: all, or none.
#[utoipa::path(post, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entities",
    tag = "entities", request_body = Vec<Shared>, security(("administrator" = ["operator"])),
    responses((status = 201, body = Vec<SharedTable>)))]
async fn add(act: Act, Items(new): Items<Shared>) -> Answer<(StatusCode, Json<Vec<SharedTable>>)> {
    let place = act.place().await?;
    let new = new.into_iter().map(|Shared { table, filter, is_custom }| NewEntity {
        table,
        filter,
        is_custom,
    });
    let added = act.services.catalog.add_entities(&place, new.collect()).await?;
    let added = added.into_iter().map(|entity| told(&act, entity)).collect();
    Ok((StatusCode::CREATED, Json(added)))
}

/// A table that is or was shared.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entities/{table}",
    tag = "entities", security(("administrator" = ["read-only"])), responses((status = 200, body = SharedTable)))]
async fn show(act: Act) -> Answer<Json<SharedTable>> {
    let place = act.place().await?;
    let entity = act.services.catalog.entity(&place, &act.table()?).await?;
    Ok(Json(told(&act, entity)))
}

/// A filter; absent or empty: none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Filtered {
    filter: Option<String>,
}

/// Sets the filter of a table; it counts from the next base load on.
#[utoipa::path(patch, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entities/{table}",
    tag = "entities", request_body = Filtered, security(("administrator" = ["operator"])),
    responses((status = 200, body = SharedTable)))]
async fn set_filter(act: Act, Body(new): Body<Filtered>) -> Answer<Json<SharedTable>> {
    let (catalog, place, table) = (&act.services.catalog, act.place().await?, act.table()?);
    catalog.set_filter(&place, &table, new.filter).await?;
    let entity = catalog.entity(&place, &table).await?;
    Ok(Json(told(&act, entity)))
}

/// Stops sharing a table; its staged rows stay.
#[utoipa::path(delete, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entities/{table}",
    tag = "entities", security(("administrator" = ["operator"])), responses((status = 204)))]
async fn withdraw(act: Act) -> Answer<StatusCode> {
    let place = act.place().await?;
    act.services.catalog.withdraw(&place, &act.table()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Reload {
    /// The table; absent: every shared table.
    #[schema(value_type = Option<String>)]
    table: Option<TableName>,
    /// The load may bring another primary key: the staging table is made anew.
    #[serde(default)]
    rebuild: bool,
}

/// A load that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Asking {
    #[schema(value_type = String)]
    table: TableName,
    #[schema(value_type = i64)]
    reload_generation: Generation,
}

/// Asks for a table, or for all, to be sent again whole.
#[utoipa::path(post, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/reloads",
    tag = "entities", request_body = Reload, security(("administrator" = ["operator"])),
    responses((status = 202, body = Vec<Asking>)))]
async fn reload(act: Act, Body(asked): Body<Reload>) -> Answer<(StatusCode, Json<Vec<Asking>>)> {
    let place = act.place().await?;
    let table = asked.table.as_ref();
    let asked = act.services.catalog.reload(&place, table, asked.rebuild).await?;
    let told = asked
        .into_iter()
        .map(|(table, reload_generation)| Asking { table, reload_generation })
        .collect();
    Ok((StatusCode::ACCEPTED, Json(told)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Written {
    /// toml or csv.
    format: String,
}

/// The list of shared tables as a file.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entity-list",
    tag = "entities", params(Written), security(("administrator" = ["read-only"])),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn export(
    act: Act,
    Asked(Written { format }): Asked<Written>,
) -> Answer<impl IntoResponse + use<>> {
    let (place, format): (_, Format) = (act.place().await?, format.parse()?);
    let text = act.services.catalog.export(&place, format).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
struct Taken {
    /// toml or csv.
    format: String,
    /// Tell what would change, and change nothing.
    #[serde(default)]
    dry_run: bool,
    /// Withdraw what the list does not name.
    #[serde(default)]
    withdraw_missing: bool,
}

/// Takes a list of tables in, all or nothing, and tells each change.
#[utoipa::path(put, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/entity-list",
    tag = "entities", params(Taken), request_body(content = String, content_type = "text/plain"),
    security(("administrator" = ["operator"])), responses((status = 200, body = Plan)))]
async fn import(
    act: Act,
    Asked(Taken { format, dry_run, withdraw_missing }): Asked<Taken>,
    Plain(text): Plain,
) -> Answer<Json<Plan>> {
    let (place, format) = (act.place().await?, format.parse()?);
    let how = Import { dry_run, withdraw_missing };
    Ok(Json(act.services.catalog.import(&place, (&text, format), how).await?))
}
