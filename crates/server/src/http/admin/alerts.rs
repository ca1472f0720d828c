//! Alerts over HTTP: what is wrong, where it is told, and from which threshold on.
//!
//! Promises: a set of addresses or thresholds is replaced whole; the mail server's password is taken and never told.
//! Never: decides what is wrong; sends a mail.

use axum::{Json, http::StatusCode};
use protocol::{
    Code, Error, Result,
    ids::{EnvironmentId, TenantId},
};
use runtime::clock::Wall;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Asked, Body, Listing, RowPaging},
};
use crate::{
    model::{
        alert::{Alert, Language, MailRoute, MailServer, Wanted, rules::Threshold},
        catalog::At,
    },
    service::alerts::{NewMailServer, NewRoute, Routes},
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(acknowledge))
        .routes(routes!(silence))
        .routes(routes!(told, tell))
        .routes(routes!(thresholds, set_thresholds))
        .routes(routes!(list_own))
        .routes(routes!(show_own))
        .routes(routes!(acknowledge_own))
        .routes(routes!(silence_own))
        .routes(routes!(told_own, tell_own))
        .routes(routes!(mail, set_mail, remove_mail))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct AlertsWanted {
    /// open, resolved or all; absent: open.
    state: Option<String>,
}

impl AlertsWanted {
    fn read(self) -> Result<Wanted> {
        self.state.map_or(Ok(Wanted::Open), |word| word.parse())
    }
}

/// Alerts of a tenant, the newest first; `after` is the id of the last one seen.
#[utoipa::path(get, path = "/tenants/{tenant}/alerts", tag = "alerts", params(RowPaging, AlertsWanted),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Alert>)))]
async fn list(
    act: Act,
    paging: RowPaging,
    Asked(wanted): Asked<AlertsWanted>,
) -> Answer<Json<Listing<Alert>>> {
    let tenant = Some(act.tenant_id()?);
    Ok(Json(listed(&act, tenant, (paging, wanted.read()?)).await?))
}

/// Alerts of the server itself, the newest first; `after` is the id of the last one seen.
#[utoipa::path(get, path = "/alerts", tag = "alerts", params(RowPaging, AlertsWanted),
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Listing<Alert>)))]
async fn list_own(
    act: Act,
    paging: RowPaging,
    Asked(wanted): Asked<AlertsWanted>,
) -> Answer<Json<Listing<Alert>>> {
    Ok(Json(listed(&act, None, (paging, wanted.read()?)).await?))
}

async fn listed(
    act: &Act,
    tenant: Option<TenantId>,
    (paging, wanted): (RowPaging, Wanted),
) -> Result<Listing<Alert>> {
    let found = act.services.alerts.list(tenant, wanted, paging.page()).await?;
    Ok(Listing::cut(found, paging.limit(), |alert| alert.id.to_string()))
}

/// An alert of a tenant.
#[utoipa::path(get, path = "/tenants/{tenant}/alerts/{alert}", tag = "alerts",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Alert)))]
async fn show(act: Act) -> Answer<Json<Alert>> {
    let tenant = Some(act.tenant_id()?);
    Ok(Json(found(&act, tenant).await?))
}

/// An alert of the server itself.
#[utoipa::path(get, path = "/alerts/{alert}", tag = "alerts",
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Alert)))]
async fn show_own(act: Act) -> Answer<Json<Alert>> {
    Ok(Json(found(&act, None).await?))
}

/// Notes that a person has seen it: it is not told again until it ends.
#[utoipa::path(post, path = "/tenants/{tenant}/alerts/{alert}/acknowledge", tag = "alerts",
    security(("administrator" = ["operator"])), responses((status = 200, body = Alert)))]
async fn acknowledge(act: Act) -> Answer<Json<Alert>> {
    let alert = found(&act, Some(act.tenant_id()?)).await?;
    Ok(Json(act.services.alerts.acknowledge(alert).await?))
}

/// As for an alert of a tenant.
#[utoipa::path(post, path = "/alerts/{alert}/acknowledge", tag = "alerts",
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 200, body = Alert)))]
async fn acknowledge_own(act: Act) -> Answer<Json<Alert>> {
    let alert = found(&act, None).await?;
    Ok(Json(act.services.alerts.acknowledge(alert).await?))
}

/// For how long nothing is told of an alert but its end; without either it is told again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertSilence {
    /// Hours from now.
    #[schema(minimum = 1, maximum = 2160)]
    hours: Option<u32>,
    /// 2027-01-31 or 2027-01-31T12:00:00Z.
    until: Option<String>,
}

impl AlertSilence {
    fn read(&self) -> Result<Option<At>> {
        match (self.hours, &self.until) {
            (None, None) => Ok(None),
            (Some(hours), None) => {
                Ok(Some(At(Wall::now().0.saturating_add(i64::from(hours) * 3_600_000_000))))
            }
            (None, Some(until)) => At::read(until).map(Some),
            (Some(_), Some(_)) => {
                Err(Error::new(Code::BadRequest, "give hours, or until, or neither"))
            }
        }
    }
}

/// Has nothing told of an alert for a while, but its end where its begin was told.
#[utoipa::path(post, path = "/tenants/{tenant}/alerts/{alert}/silence", tag = "alerts",
    request_body = AlertSilence, security(("administrator" = ["operator"])),
    responses((status = 200, body = Alert)))]
async fn silence(act: Act, Body(wish): Body<AlertSilence>) -> Answer<Json<Alert>> {
    let alert = found(&act, Some(act.tenant_id()?)).await?;
    Ok(Json(act.services.alerts.silence(alert, wish.read()?).await?))
}

/// As for an alert of a tenant.
#[utoipa::path(post, path = "/alerts/{alert}/silence", tag = "alerts", request_body = AlertSilence,
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 200, body = Alert)))]
async fn silence_own(act: Act, Body(wish): Body<AlertSilence>) -> Answer<Json<Alert>> {
    let alert = found(&act, None).await?;
    Ok(Json(act.services.alerts.silence(alert, wish.read()?).await?))
}

/// Where alerts go.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AlertRoutes {
    /// The server's log and the list are always told.
    log: bool,
    /// Webhooks that ask for alert.raised or alert.resolved, by name.
    webhooks: Vec<String>,
    mails: Vec<MailRoute>,
    /// Without a mail server mails wait.
    mail_server: bool,
}

impl From<Routes> for AlertRoutes {
    fn from(routes: Routes) -> Self {
        let Routes { webhooks, mails, mail_server } = routes;
        Self { log: true, webhooks, mails, mail_server }
    }
}

/// Addresses that alerts are to go to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertRoutesWish {
    #[schema(max_items = 10)]
    mails: Vec<AlertMailRouteWish>,
}

/// An address that alerts are to go to.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertMailRouteWish {
    #[schema(min_length = 3, max_length = 254)]
    address: String,
    /// en or pt; absent: en.
    language: Option<String>,
    /// Environment, by id or name; absent: every one of the tenant.
    environment: Option<String>,
}

/// Where alerts of a tenant go.
#[utoipa::path(get, path = "/tenants/{tenant}/alert-routes", tag = "alerts",
    security(("administrator" = ["read-only"])), responses((status = 200, body = AlertRoutes)))]
async fn told(act: Act) -> Answer<Json<AlertRoutes>> {
    let tenant = Some(act.tenant_id()?);
    Ok(Json(act.services.alerts.routes(tenant).await?.into()))
}

/// Puts these addresses in the place of those there are; webhooks are set among the webhooks.
#[utoipa::path(put, path = "/tenants/{tenant}/alert-routes", tag = "alerts",
    request_body = AlertRoutesWish, security(("administrator" = ["operator"])),
    responses((status = 200, body = AlertRoutes)))]
async fn tell(act: Act, Body(wish): Body<AlertRoutesWish>) -> Answer<Json<AlertRoutes>> {
    let mut routes = Vec::with_capacity(wish.mails.len());
    for AlertMailRouteWish { address, language, environment } in wish.mails {
        let language = language_of(language)?;
        let environment = environment_of(&act, environment).await?;
        routes.push(NewRoute { address, language, environment });
    }
    let tenant = Some(act.tenant_id()?);
    Ok(Json(act.services.alerts.set_routes(tenant, routes).await?.into()))
}

/// Where alerts of the server itself go.
#[utoipa::path(get, path = "/alert-routes", tag = "alerts",
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = AlertRoutes)))]
async fn told_own(act: Act) -> Answer<Json<AlertRoutes>> {
    Ok(Json(act.services.alerts.routes(None).await?.into()))
}

/// Puts these addresses in the place of those there are; they name no environment.
#[utoipa::path(put, path = "/alert-routes", tag = "alerts", request_body = AlertRoutesWish,
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 200, body = AlertRoutes)))]
async fn tell_own(act: Act, Body(wish): Body<AlertRoutesWish>) -> Answer<Json<AlertRoutes>> {
    let mut routes = Vec::with_capacity(wish.mails.len());
    for AlertMailRouteWish { address, language, environment } in wish.mails {
        if environment.is_some() {
            let words = "alerts of the server itself are of no environment";
            return Err(Error::new(Code::BadRequest, words).into());
        }
        let language = language_of(language)?;
        routes.push(NewRoute { address, language, environment: None });
    }
    Ok(Json(act.services.alerts.set_routes(None, routes).await?.into()))
}

/// Thresholds that alerts are to be raised from.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertThresholdsWish {
    thresholds: Vec<AlertThresholdWish>,
}

/// From where on an alert is to be raised.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertThresholdWish {
    /// agent-dead, batch-incomplete, batch-stalled, differences, freshness, not-verified, quarantine, staging-behind or table-parked.
    rule: String,
    /// Environment, by id or name; absent: every one of the tenant.
    environment: Option<String>,
    /// Absent: every table.
    table: Option<String>,
    /// Minutes, batches or rows by the rule; 0: off.
    value: u32,
}

/// Thresholds of a tenant, where they are not the defaults. All of them.
#[utoipa::path(get, path = "/tenants/{tenant}/alert-thresholds", tag = "alerts",
    security(("administrator" = ["read-only"])),
    responses((status = 200, body = Listing<Threshold>)))]
async fn thresholds(act: Act) -> Answer<Json<Listing<Threshold>>> {
    Ok(Json(Listing::whole(act.services.alerts.thresholds(act.tenant_id()?).await?)))
}

/// Puts these thresholds in the place of those there are.
#[utoipa::path(put, path = "/tenants/{tenant}/alert-thresholds", tag = "alerts",
    request_body = AlertThresholdsWish, security(("administrator" = ["operator"])),
    responses((status = 200, body = Listing<Threshold>)))]
async fn set_thresholds(
    act: Act,
    Body(wish): Body<AlertThresholdsWish>,
) -> Answer<Json<Listing<Threshold>>> {
    let mut new = Vec::with_capacity(wish.thresholds.len());
    for AlertThresholdWish { rule, environment, table, value } in wish.thresholds {
        let environment = environment_of(&act, environment).await?;
        new.push(Threshold { rule: rule.parse()?, environment, table, value });
    }
    Ok(Json(Listing::whole(act.services.alerts.set_thresholds(act.tenant_id()?, new).await?)))
}

/// The mail server, without its password.
#[utoipa::path(get, path = "/alert-mail", tag = "alerts",
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = MailServer)))]
async fn mail(act: Act) -> Answer<Json<MailServer>> {
    Ok(Json(act.services.alerts.mail_server().await?))
}

/// A mail server to be set.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AlertMailWish {
    /// smtp.example.com
    #[schema(min_length = 1, max_length = 253)]
    host: String,
    /// Absent: 587 with starttls, 465 with tls, 25 with none.
    #[schema(minimum = 1)]
    port: Option<u16>,
    /// starttls, tls or none.
    tls: String,
    /// name@host, or Name <name@host>.
    from: String,
    /// With `password`; absent: no login.
    user: Option<String>,
    /// Kept sealed, told to nobody.
    password: Option<String>,
}

/// Sets the mail server, or replaces it whole; what waits is tried at once.
#[utoipa::path(put, path = "/alert-mail", tag = "alerts", request_body = AlertMailWish,
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 200, body = MailServer)))]
async fn set_mail(act: Act, Body(wish): Body<AlertMailWish>) -> Answer<Json<MailServer>> {
    let AlertMailWish { host, port, tls, from, user, password } = wish;
    let login = match (user, password) {
        (None, None) => None,
        (Some(user), Some(password)) => Some((user, SecretString::from(password))),
        _ => {
            let words = "a login has a user and a password";
            return Err(Error::new(Code::BadRequest, words).into());
        }
    };
    if port == Some(0) {
        return Err(Error::new(Code::BadRequest, "a port is 1 to 65535").into());
    }
    let new = NewMailServer { host, port, tls: tls.parse()?, from, login };
    Ok(Json(act.services.alerts.set_mail_server(new).await?))
}

/// Takes the mail server away; mails wait from then on.
#[utoipa::path(delete, path = "/alert-mail", tag = "alerts",
    security(("administrator" = ["operator", "every-tenant"])), responses((status = 204)))]
async fn remove_mail(act: Act) -> Answer<StatusCode> {
    act.services.alerts.remove_mail_server().await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn found(act: &Act, tenant: Option<TenantId>) -> Result<Alert> {
    act.services.alerts.find(tenant, act.part("alert")?).await
}

fn language_of(word: Option<String>) -> Result<Language> {
    word.map_or(Ok(Language::default()), |word| word.parse())
}

async fn environment_of(act: &Act, key: Option<String>) -> Result<Option<EnvironmentId>> {
    match key {
        Some(key) => Ok(Some(act.services.catalog.environment(act.tenant_id()?, &key).await?.id)),
        None => Ok(None),
    }
}
