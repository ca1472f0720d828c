//! Carol credentials over HTTP.
//!
//! Promises: what was set is told without its token.
//! Never: tells the token.

use axum::{Json, http::StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{Desk, answer::Answer, gate::Act, listing::Body};
use crate::{model::carol::CarolCredential, service::access::NewCarol};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(show, set, remove))
}

/// A tenant's Carol connector, without its token.
#[utoipa::path(get, path = "/tenants/{tenant}/carol-credentials", tag = "credentials",
    security(("administrator" = ["read-only"])), responses((status = 200, body = CarolCredential)))]
async fn show(act: Act) -> Answer<Json<CarolCredential>> {
    Ok(Json(act.services.access.carol(act.tenant_id()?).await?))
}

#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Given {
    /// Address that ends in `/api`.
    endpoint: String,
    organization: String,
    /// The tenant's subdomain at Carol.
    carol_tenant: String,
    connector_id: String,
    /// Kept sealed; not told again.
    api_token: String,
}

/// Sets a tenant's Carol connector, or replaces it.
#[utoipa::path(put, path = "/tenants/{tenant}/carol-credentials", tag = "credentials",
    request_body = Given, security(("administrator" = ["operator"])),
    responses((status = 200, body = CarolCredential)))]
async fn set(act: Act, Body(given): Body<Given>) -> Answer<Json<CarolCredential>> {
    let Given { endpoint, organization, carol_tenant, connector_id, api_token } = given;
    let token = SecretString::from(api_token);
    let new = NewCarol { endpoint, organization, carol_tenant, connector_id, token };
    Ok(Json(act.services.access.set_carol(act.tenant_id()?, new).await?))
}

/// Takes a tenant's Carol connector away.
#[utoipa::path(delete, path = "/tenants/{tenant}/carol-credentials", tag = "credentials",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn remove(act: Act) -> Answer<StatusCode> {
    act.services.access.remove_carol(act.tenant_id()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
