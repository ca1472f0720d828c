//! The fleet over HTTP: agents, their tables, and orders to them.
//!
//! Promises: what an agent said last is told with how old it is; an order is given to whoever sends the stream.
//! Never: reaches an agent itself: agents call.

use std::collections::BTreeMap;

use axum::{Json, http::StatusCode};
use protocol::names::TableName;
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Asked, Body, Listing, Paging, RowPaging},
};
use crate::{
    model::{
        fleet::{AgentView, TableQuery, TableView},
        order::{OrderQuery, OrderView, OrderWish, Verb},
    },
    service::fleet::Ordered,
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(agents))
        .routes(routes!(tables))
        .routes(routes!(orders, give))
        .routes(routes!(order, withdraw))
}

/// Agents of a tenant by environment, ERP and instance: the one that sends each stream, those that stand by, those that
/// are refused until a person decides, and those that fell silent. `search` looks into all three names.
#[utoipa::path(get, path = "/tenants/{tenant}/agents", tag = "fleet", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<AgentView>)))]
async fn agents(act: Act, paging: Paging) -> Answer<Json<Listing<AgentView>>> {
    let tenant = act.tenant_id()?;
    let found = act.services.fleet.agents(tenant, paging.page(), Wall::now()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |agent: &AgentView| agent.agent.clone())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhichTables {
    /// BASE_LOAD, STREAMING, RELOAD, PAUSED, PARKED or UNKNOWN.
    state: Option<String>,
    /// Only those that are parked, degraded, or have rows in quarantine.
    #[serde(default)]
    troubled: bool,
}

/// Tables of a stream as its agent reported them last, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/agent-tables",
    tag = "fleet", params(Paging, WhichTables), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<TableView>)))]
async fn tables(
    act: Act,
    paging: Paging,
    Asked(which): Asked<WhichTables>,
) -> Answer<Json<Listing<TableView>>> {
    let place = act.place().await?;
    let state = which.state.map(|word| word.parse()).transpose()?;
    let query = TableQuery { state, troubled: which.troubled };
    let found = act.services.fleet.tables(place, query, paging.page(), Wall::now()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |table: &TableView| table.table.to_string())))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WhichOrders {
    /// waiting, sent, under-way, done, failed or withdrawn.
    state: Option<String>,
    /// RELOAD, PAUSE, RESUME, RETRY, VERIFY, REPAIR or LOG_LEVEL.
    verb: Option<String>,
}

/// Orders to the agents of a stream, the newest first; `after` is the number of the last one seen.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/orders",
    tag = "fleet", params(RowPaging, WhichOrders), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<OrderView>)))]
async fn orders(
    act: Act,
    paging: RowPaging,
    Asked(which): Asked<WhichOrders>,
) -> Answer<Json<Listing<OrderView>>> {
    let place = act.place().await?;
    let state = which.state.map(|word| word.parse()).transpose()?;
    let verb = which.verb.map(|word| word.parse()).transpose()?;
    let query = OrderQuery { state, verb };
    let found = act.services.fleet.orders(place, query, paging.page()).await?;
    let key = |order: &OrderView| order.order.unwrap_or_default().to_string();
    Ok(Json(Listing::cut(found, paging.limit(), key)))
}

/// What an agent is to do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewOrder {
    verb: Verb,
    /// The table; absent: all of them.
    #[schema(value_type = Option<String>)]
    table: Option<TableName>,
    /// PAUSE takes `why`; VERIFY and REPAIR take `from` and `to`; LOG_LEVEL takes `level` (info, debug, trace, off) and
    /// `minutes`.
    #[serde(default)]
    args: BTreeMap<String, String>,
    /// Tell whether it could be given, and give nothing.
    #[serde(default)]
    dry_run: bool,
}

/// An order that was given, or would be.
#[derive(Debug, Serialize, ToSchema)]
struct GivenOrder {
    /// False for a dry run.
    applied: bool,
    #[serde(flatten)]
    order: OrderView,
}

/// Gives an order to the agent that sends the stream, or that sends it next. It is carried out once.
#[utoipa::path(post, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/orders",
    tag = "fleet", request_body = NewOrder, security(("administrator" = ["operator"])),
    responses((status = 202, body = GivenOrder)))]
async fn give(act: Act, Body(new): Body<NewOrder>) -> Answer<(StatusCode, Json<GivenOrder>)> {
    let place = act.place().await?;
    let NewOrder { verb, table, args, dry_run } = new;
    let wish = OrderWish { verb, table, args };
    let done = act.services.fleet.order(place, wish, dry_run, Wall::now()).await?;
    let Ordered { applied, order } = done;
    Ok((StatusCode::ACCEPTED, Json(GivenOrder { applied, order })))
}

/// An order.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/orders/{order}",
    tag = "fleet", security(("administrator" = ["read-only"])), responses((status = 200, body = OrderView)))]
async fn order(act: Act) -> Answer<Json<OrderView>> {
    let place = act.place().await?;
    Ok(Json(act.services.fleet.one_order(place, act.number("order")?).await?))
}

/// Takes an order back that no agent has yet (`ORDER_SENT` after that).
#[utoipa::path(delete, path = "/tenants/{tenant}/environments/{environment}/erps/{erp}/orders/{order}",
    tag = "fleet", security(("administrator" = ["operator"])), responses((status = 200, body = OrderView)))]
async fn withdraw(act: Act) -> Answer<Json<OrderView>> {
    let place = act.place().await?;
    let number = act.number("order")?;
    Ok(Json(act.services.fleet.withdraw(place, number, Wall::now()).await?))
}
