//! Webhooks over HTTP: where events are told, and how each telling stands.
//!
//! Promises: a secret is told once, in the answer that makes it; an address is told without its query.
//! Never: calls a consumer; what is ordered here the server's task does.

use axum::{Json, http::StatusCode};
use protocol::{
    Code, Error, Result,
    ids::{EnvironmentId, EventId},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
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
        catalog::At,
        delivery::State,
        webhook::{Delivery, EventKind, Webhook},
    },
    service::webhooks::{NewWebhook, Replay, WebhookChange, WithSecret},
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, remove))
        .routes(routes!(rotate))
        .routes(routes!(pause, resume))
        .routes(routes!(test))
        .routes(routes!(deliveries))
        .routes(routes!(delivery))
        .routes(routes!(replay))
}

/// A webhook with its secret.
#[derive(Serialize, ToSchema)]
struct WebhookSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// Told now and never again.
    secret: String,
}

impl From<WithSecret> for WebhookSecret {
    fn from(made: WithSecret) -> Self {
        Self { secret: made.reveal().to_owned(), webhook: made.webhook }
    }
}

/// Webhooks of a tenant, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/webhooks", tag = "webhooks", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Webhook>)))]
async fn list(act: Act, paging: Paging) -> Answer<Json<Listing<Webhook>>> {
    let found = act.services.webhooks.list(act.tenant_id()?, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |webhook| webhook.name.clone())))
}

/// A webhook to be made.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct HookWish {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// https://…, without user, password and fragment.
    #[schema(max_length = 2048)]
    url: String,
    /// batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved; absent: batch.complete alone.
    #[serde(default)]
    events: Vec<String>,
    #[serde(default)]
    description: String,
    /// Environment, by id or name; absent: every one of the tenant.
    environment: Option<String>,
}

/// Makes a webhook; its secret is in the answer and is not told again.
#[utoipa::path(post, path = "/tenants/{tenant}/webhooks", tag = "webhooks", request_body = HookWish,
    security(("administrator" = ["operator"])), responses((status = 201, body = WebhookSecret)))]
async fn create(act: Act, Body(wish): Body<HookWish>) -> Answer<(StatusCode, Json<WebhookSecret>)> {
    let HookWish { name, url, events, description, environment } = wish;
    let environment = match environment {
        Some(key) => Some(environment_of(&act, &key).await?),
        None => None,
    };
    let new = NewWebhook { name, url, events: kinds(&events)?, description, environment };
    let made = act.services.webhooks.create(act.tenant_id()?, new).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// A webhook, without its secret.
#[utoipa::path(get, path = "/tenants/{tenant}/webhooks/{webhook}", tag = "webhooks",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Webhook)))]
async fn show(act: Act) -> Answer<Json<Webhook>> {
    Ok(Json(found(&act).await?))
}

/// What is absent stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangedHook {
    name: Option<String>,
    url: Option<String>,
    events: Option<Vec<String>>,
    description: Option<String>,
    /// Environment, by id or name; empty: every one of the tenant.
    environment: Option<String>,
}

/// Changes a webhook; deliveries that wait go to the new address.
#[utoipa::path(patch, path = "/tenants/{tenant}/webhooks/{webhook}", tag = "webhooks",
    request_body = ChangedHook, security(("administrator" = ["operator"])),
    responses((status = 200, body = Webhook)))]
async fn change(act: Act, Body(new): Body<ChangedHook>) -> Answer<Json<Webhook>> {
    let ChangedHook { name, url, events, description, environment } = new;
    let webhook = found(&act).await?;
    let environment = match environment.as_deref().map(str::trim) {
        None => None,
        Some("") => Some(None),
        Some(key) => Some(Some(environment_of(&act, key).await?)),
    };
    let events = events.as_deref().map(kinds).transpose()?;
    let change = WebhookChange { name, url, events, description, environment };
    Ok(Json(act.services.webhooks.change(webhook, change).await?))
}

/// Removes a webhook with its deliveries, those that wait among them.
#[utoipa::path(delete, path = "/tenants/{tenant}/webhooks/{webhook}", tag = "webhooks",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn remove(act: Act) -> Answer<StatusCode> {
    let webhook = found(&act).await?;
    act.services.webhooks.remove(webhook).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How the secret of before ends.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HookRotation {
    /// Hours for which the secret of before signs as well; 0: it is out of force at once.
    #[serde(default = "day")]
    #[schema(default = 24, maximum = 720)]
    keep_hours: u32,
}

const fn day() -> u32 {
    24
}

/// Makes another secret; while both are in force each call is signed by both.
#[utoipa::path(post, path = "/tenants/{tenant}/webhooks/{webhook}/rotation", tag = "webhooks",
    request_body = HookRotation, security(("administrator" = ["operator"])),
    responses((status = 201, body = WebhookSecret)))]
async fn rotate(
    act: Act,
    Body(rotation): Body<HookRotation>,
) -> Answer<(StatusCode, Json<WebhookSecret>)> {
    let webhook = found(&act).await?;
    let made = act.services.webhooks.rotate(webhook, rotation.keep_hours).await?;
    Ok((StatusCode::CREATED, Json(made.into())))
}

/// Holds deliveries back; events are noted meanwhile, and wait.
#[utoipa::path(put, path = "/tenants/{tenant}/webhooks/{webhook}/pause", tag = "webhooks",
    security(("administrator" = ["operator"])), responses((status = 200, body = Webhook)))]
async fn pause(act: Act) -> Answer<Json<Webhook>> {
    let webhook = found(&act).await?;
    Ok(Json(act.services.webhooks.pause(webhook).await?))
}

/// Lets deliveries go out again, those that waited among them.
#[utoipa::path(delete, path = "/tenants/{tenant}/webhooks/{webhook}/pause", tag = "webhooks",
    security(("administrator" = ["operator"])), responses((status = 200, body = Webhook)))]
async fn resume(act: Act) -> Answer<Json<Webhook>> {
    let webhook = found(&act).await?;
    Ok(Json(act.services.webhooks.resume(webhook).await?))
}

/// Has a test told, once and at once; ask the delivery it answers with how it went.
#[utoipa::path(post, path = "/tenants/{tenant}/webhooks/{webhook}/tests", tag = "webhooks",
    security(("administrator" = ["operator"])), responses((status = 202, body = Delivery)))]
async fn test(act: Act) -> Answer<(StatusCode, Json<Delivery>)> {
    let webhook = found(&act).await?;
    Ok((StatusCode::ACCEPTED, Json(act.services.webhooks.test(webhook).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// ready, leased, done or dead.
    state: Option<String>,
    /// batch.complete, batch.incomplete, batch.stalled, alert.raised, alert.resolved or webhook.test.
    #[serde(rename = "type")]
    kind: Option<String>,
}

/// Deliveries of a webhook, the newest first; `after` is the id of the last one seen.
#[utoipa::path(get, path = "/tenants/{tenant}/webhooks/{webhook}/deliveries", tag = "webhooks",
    params(RowPaging, Wanted), security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Delivery>)))]
async fn deliveries(
    act: Act,
    paging: RowPaging,
    Asked(wanted): Asked<Wanted>,
) -> Answer<Json<Listing<Delivery>>> {
    let webhook = found(&act).await?;
    let state = wanted.state.map(|word| word.parse::<State>()).transpose()?;
    let kind = wanted.kind.map(|word| word.parse::<EventKind>()).transpose()?;
    let found = act.services.webhooks.deliveries(webhook, (state, kind), paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |delivery| delivery.id.to_string())))
}

/// A delivery with the body that is sent.
#[derive(Debug, Serialize, ToSchema)]
struct DeliveryBody {
    #[serde(flatten)]
    delivery: Delivery,
    #[schema(value_type = Object)]
    body: Value,
}

/// A delivery, and what is sent.
#[utoipa::path(get, path = "/tenants/{tenant}/webhooks/{webhook}/deliveries/{delivery}",
    tag = "webhooks", security(("administrator" = ["read-only"])),
    responses((status = 200, body = DeliveryBody)))]
async fn delivery(act: Act) -> Answer<Json<DeliveryBody>> {
    let webhook = found(&act).await?;
    let id: EventId = act.part("delivery")?.parse()?;
    let (delivery, body) = act.services.webhooks.delivery(webhook, id).await?;
    let body = serde_json::from_str(&body).unwrap_or_default();
    Ok(Json(DeliveryBody { delivery, body }))
}

/// Which deliveries: one, or all of a state.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplayWish {
    /// One, by the event's id.
    delivery: Option<String>,
    /// All that are done, or all that are dead.
    state: Option<String>,
    /// With `state`: only what happened then or later; 2027-01-31 or 2027-01-31T12:00:00Z.
    since: Option<String>,
    /// Tell how many they are, and change nothing.
    #[serde(default)]
    dry_run: bool,
}

/// What was told again, or would be.
#[derive(Debug, Serialize, ToSchema)]
struct Replayed {
    /// False for a dry run.
    applied: bool,
    deliveries: u64,
}

/// Has deliveries that ended told again, with all their tries before them.
#[utoipa::path(post, path = "/tenants/{tenant}/webhooks/{webhook}/replays", tag = "webhooks",
    request_body = ReplayWish, security(("administrator" = ["operator"])),
    responses((status = 202, body = Replayed)))]
async fn replay(act: Act, Body(wish): Body<ReplayWish>) -> Answer<(StatusCode, Json<Replayed>)> {
    let webhook = found(&act).await?;
    let which = which(&wish)?;
    let deliveries = act.services.webhooks.replay(webhook, which, wish.dry_run).await?;
    Ok((StatusCode::ACCEPTED, Json(Replayed { applied: !wish.dry_run, deliveries })))
}

fn which(wish: &ReplayWish) -> Result<Replay> {
    let bad = |words: &str| Err(Error::new(Code::BadRequest, words));
    match (&wish.delivery, &wish.state, &wish.since) {
        (Some(id), None, None) => Ok(Replay::One(id.parse()?)),
        (None, Some(state), since) => {
            let since = since.as_deref().map(At::read).transpose()?;
            Ok(Replay::All { state: state.parse()?, since })
        }
        _ => bad("name one delivery, or a state: done or dead, with since if need be"),
    }
}

async fn found(act: &Act) -> Result<Webhook> {
    act.services.webhooks.find(act.tenant_id()?, act.part("webhook")?).await
}

async fn environment_of(act: &Act, key: &str) -> Result<EnvironmentId> {
    Ok(act.services.catalog.environment(act.tenant_id()?, key).await?.id)
}

fn kinds(words: &[String]) -> Result<Vec<EventKind>> {
    words.iter().map(|word| word.parse()).collect()
}
