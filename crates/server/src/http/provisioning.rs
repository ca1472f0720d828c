//! Provisioning over HTTP: entities per ERP, apps of the tenant, Carol credentials (`contracts.md` 4).
//!
//! Promises: every call needs a Bearer token; `x-upload-version` is 1 or 2, missing means 1.
//! Never: answers another tenant's things.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, header},
};
use protocol::{Code, Error, Result, json};
use runtime::clock::Wall;

use super::{Desk, answer::Answer};
use crate::service::access::Identity;

pub(super) async fn entities(
    State(desk): State<Desk>,
    headers: HeaderMap,
) -> Answer<Json<json::Entities>> {
    answer_entities(&desk, &headers, None).await
}

pub(super) async fn entities_of(
    State(desk): State<Desk>,
    Path(erp): Path<String>,
    headers: HeaderMap,
) -> Answer<Json<json::Entities>> {
    answer_entities(&desk, &headers, Some(&erp)).await
}

async fn answer_entities(
    desk: &Desk,
    headers: &HeaderMap,
    erp: Option<&str>,
) -> Answer<Json<json::Entities>> {
    let caller = identify(desk, headers).await?;
    let version = upload_version(headers)?;
    Ok(Json(desk.catalog.entities_for(&caller, erp, version).await?))
}

pub(super) async fn apps(State(desk): State<Desk>, headers: HeaderMap) -> Answer<Json<json::Apps>> {
    let caller = identify(&desk, &headers).await?;
    Ok(Json(desk.catalog.apps_for(&caller).await?))
}

pub(super) async fn carol_credentials(State(desk): State<Desk>, headers: HeaderMap) -> Answer<()> {
    identify(&desk, &headers).await?;
    Err(Error::new(Code::NotFound, "no Carol connector is configured for this tenant").into())
}

async fn identify(desk: &Desk, headers: &HeaderMap) -> Result<Identity> {
    desk.access.identify(bearer(headers)?, Wall::now()).await
}

fn bearer(headers: &HeaderMap) -> Result<&str> {
    let missing = || {
        Error::new(
            Code::Unauthenticated,
            "the header Authorization: Bearer {token} is missing or malformed",
        )
    };
    let value = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(missing()) }
}

fn upload_version(headers: &HeaderMap) -> Result<u32> {
    match headers.get("x-upload-version").map(|value| value.as_bytes().trim_ascii()) {
        None | Some(b"1") => Ok(1),
        Some(b"2") => Ok(2),
        Some(_) => Err(Error::new(Code::BadRequest, "x-upload-version must be 1 or 2")),
    }
}
