//! Provisioning over HTTP: entities per ERP, apps of the tenant, Carol credentials (`contracts.md` 4).
//!
//! Promises: every call needs a Bearer token; `x-upload-version` is 1 or 2, missing means 1.
//! Never: answers another tenant's things.

use axum::{
    Extension, Json,
    extract::{Path, State},
    http::HeaderMap,
};
use protocol::{Code, Error, Result, json};
use secrecy::ExposeSecret as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Desk, answer::Answer};
use crate::service::access::Identity;

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(entities))
        .routes(routes!(entities_of))
        .routes(routes!(carol_credentials))
        .routes(routes!(apps))
}

/// Tables to be sent, of the tenant's only ERP.
#[utoipa::path(get, path = "/api/carol-definitions/v1/entities", tag = "senders",
    security(("sender" = [])), responses((status = 200, body = Object)))]
async fn entities(
    State(desk): State<Desk>,
    Extension(caller): Extension<Identity>,
    headers: HeaderMap,
) -> Answer<Json<json::Entities>> {
    let version = upload_version(&headers)?;
    Ok(Json(desk.services.catalog.entities_for(&caller, None, version).await?))
}

/// Tables to be sent, of an ERP.
#[utoipa::path(get, path = "/api/carol-definitions/v1/entities/{erp}", tag = "senders",
    security(("sender" = [])), responses((status = 200, body = Object)))]
async fn entities_of(
    State(desk): State<Desk>,
    Extension(caller): Extension<Identity>,
    Path(erp): Path<String>,
    headers: HeaderMap,
) -> Answer<Json<json::Entities>> {
    let version = upload_version(&headers)?;
    Ok(Json(desk.services.catalog.entities_for(&caller, Some(&erp), version).await?))
}

/// Apps of the caller's tenant.
#[utoipa::path(get, path = "/api/data-management/v1/apps/by-tenant", tag = "senders",
    security(("sender" = [])), responses((status = 200, body = Object)))]
async fn apps(
    State(desk): State<Desk>,
    Extension(caller): Extension<Identity>,
) -> Answer<Json<json::Apps>> {
    Ok(Json(desk.services.catalog.apps_for(&caller).await?))
}

/// Carol credentials of the caller's tenant.
#[utoipa::path(get, path = "/api/carol-definitions/v1/carolcredentials", tag = "senders",
    security(("sender" = [])), responses((status = 200, body = Object)))]
async fn carol_credentials(
    State(desk): State<Desk>,
    Extension(caller): Extension<Identity>,
) -> Answer<Json<serde_json::Value>> {
    let (carol, token) = desk.services.access.carol_for(&caller).await?;
    Ok(Json(serde_json::json!({
        "endpoint": carol.endpoint,
        "organization": carol.organization,
        "tenant": carol.carol_tenant,
        "connectorId": carol.connector_id,
        "apiToken": token.expose_secret(),
    })))
}

fn upload_version(headers: &HeaderMap) -> Result<u32> {
    match headers.get("x-upload-version").map(|value| value.as_bytes().trim_ascii()) {
        None | Some(b"1") => Ok(1),
        Some(b"2") => Ok(2),
        Some(_) => Err(Error::new(Code::BadRequest, "x-upload-version must be 1 or 2")),
    }
}
