//! Credentials over HTTP.
//!
//! Promises: a secret is told once, in the answer that makes it.
//! Never: lists one.

use axum::{Json, http::StatusCode};
use protocol::{Code, Error};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Body, Listing, Paging},
};
use crate::{
    model::catalog::{Credential, Holder},
    service::access::NewCredential,
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, revoke))
        .routes(routes!(rotate))
}

/// A credential with its secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Secret {
    #[serde(flatten)]
    credential: Credential,
    /// Told now and never again.
    client_secret: String,
}

impl From<&NewCredential> for Secret {
    fn from(new: &NewCredential) -> Self {
        Self { credential: new.credential.clone(), client_secret: new.reveal().to_owned() }
    }
}

/// Credentials of a tenant, revoked ones among them.
#[utoipa::path(get, path = "/tenants/{tenant}/credentials", tag = "credentials", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Credential>)))]
async fn list(act: Act, paging: Paging) -> Answer<Json<Listing<Credential>>> {
    let found = act.services.catalog.credentials(act.tenant_id()?, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |credential| credential.client.to_string())))
}

/// Whose: one of both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Of {
    /// Installation, by id or name.
    installation: Option<String>,
    /// App, by id or name.
    app: Option<String>,
}

/// Makes a client id and secret.
#[utoipa::path(post, path = "/tenants/{tenant}/credentials", tag = "credentials", request_body = Of,
    security(("administrator" = ["operator"])), responses((status = 201, body = Secret)))]
async fn create(act: Act, Body(of): Body<Of>) -> Answer<(StatusCode, Json<Secret>)> {
    let (catalog, tenant) = (&act.services.catalog, act.tenant_id()?);
    let holder = match (&of.installation, &of.app) {
        (Some(key), None) => Holder::Installation(catalog.installation(tenant, key).await?.id),
        (None, Some(key)) => Holder::App(catalog.app(tenant, key).await?.id),
        _ => {
            let words = "name installation or app, one of both";
            return Err(Error::new(Code::BadRequest, words).into());
        }
    };
    let made = act.services.access.create_credential(tenant, holder).await?;
    Ok((StatusCode::CREATED, Json(Secret::from(&made))))
}

/// A credential.
#[utoipa::path(get, path = "/tenants/{tenant}/credentials/{client}", tag = "credentials",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Credential)))]
async fn show(act: Act) -> Answer<Json<Credential>> {
    let client = act.part("client")?.parse()?;
    Ok(Json(act.services.catalog.credential(act.tenant_id()?, &client).await?))
}

/// Makes a second credential for the holder of this one; both are in force until one is revoked.
#[utoipa::path(post, path = "/tenants/{tenant}/credentials/{client}/rotation", tag = "credentials",
    security(("administrator" = ["operator"])), responses((status = 201, body = Secret)))]
async fn rotate(act: Act) -> Answer<(StatusCode, Json<Secret>)> {
    let client = act.part("client")?.parse()?;
    let made = act.services.access.rotate(act.tenant_id()?, &client).await?;
    Ok((StatusCode::CREATED, Json(Secret::from(&made))))
}

/// Revokes a client for ever; its tokens are refused within 60 s too.
#[utoipa::path(delete, path = "/tenants/{tenant}/credentials/{client}", tag = "credentials",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn revoke(act: Act) -> Answer<StatusCode> {
    let client = act.part("client")?.parse()?;
    act.services.access.revoke_credential(act.tenant_id()?, &client).await?;
    Ok(StatusCode::NO_CONTENT)
}
