//! Signing keys over HTTP.
//!
//! Never: tells a private key.

use axum::{Json, http::StatusCode};
use runtime::clock::Wall;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Body, Listing},
};
use crate::model::access::SigningKey;

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(list, rotate))
}

/// Keys that sign tokens or did, the newest first. All of them: there are few.
#[utoipa::path(get, path = "/signing-keys", tag = "administrators",
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Listing<SigningKey>)))]
async fn list(act: Act) -> Answer<Json<Listing<SigningKey>>> {
    Ok(Json(Listing::whole(act.services.access.signing_keys().await?)))
}

/// How the keys of before end.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rotation {
    /// They verify no token any more; else they do until their last token has ended.
    #[serde(default)]
    at_once: bool,
}

/// Makes a key that signs from now on.
#[utoipa::path(post, path = "/signing-keys", tag = "administrators", request_body = Rotation,
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 201, body = SigningKey)))]
async fn rotate(
    act: Act,
    Body(rotation): Body<Rotation>,
) -> Answer<(StatusCode, Json<SigningKey>)> {
    let made = act.services.access.rotate_signing_key(rotation.at_once, Wall::now()).await?;
    Ok((StatusCode::CREATED, Json(made)))
}
