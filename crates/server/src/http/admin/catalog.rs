//! Environments and installations over HTTP.
//!
//! Promises: an installation that is bound is bound elsewhere only after it was unbound.
//! Never: removes what something still hangs on.

use axum::{Json, http::StatusCode};
use protocol::names::ErpName;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Body, Listing, Paging},
};
use crate::model::catalog::{Environment, Installation};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list_environments, create_environment))
        .routes(routes!(show_environment, rename_environment, remove_environment))
        .routes(routes!(list_installations, create_installation))
        .routes(routes!(show_installation, rename_installation, remove_installation))
        .routes(routes!(bind, unbind))
}

/// Environments of a tenant, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/environments", tag = "environments", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Environment>)))]
async fn list_environments(act: Act, paging: Paging) -> Answer<Json<Listing<Environment>>> {
    let found = act.services.catalog.environments(act.tenant_id()?, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |environment| environment.name.clone())))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewEnvironment {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// PRODUCTION, STAGING, DEVELOPMENT or CUSTOM.
    #[serde(rename = "type")]
    kind: String,
}

/// Makes an environment.
#[utoipa::path(post, path = "/tenants/{tenant}/environments", tag = "environments",
    request_body = NewEnvironment, security(("administrator" = ["operator"])),
    responses((status = 201, body = Environment)))]
async fn create_environment(
    act: Act,
    Body(new): Body<NewEnvironment>,
) -> Answer<(StatusCode, Json<Environment>)> {
    let (catalog, kind) = (&act.services.catalog, new.kind.parse()?);
    let made = catalog.create_environment(act.tenant_id()?, &new.name, kind).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn environment(act: &Act) -> Answer<Environment> {
    Ok(act.services.catalog.environment(act.tenant_id()?, act.part("environment")?).await?)
}

/// An environment.
#[utoipa::path(get, path = "/tenants/{tenant}/environments/{environment}", tag = "environments",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Environment)))]
async fn show_environment(act: Act) -> Answer<Json<Environment>> {
    Ok(Json(environment(&act).await?))
}

/// A name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Renamed {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
}

/// Gives an environment another name; its id stays.
#[utoipa::path(patch, path = "/tenants/{tenant}/environments/{environment}", tag = "environments",
    request_body = Renamed, security(("administrator" = ["operator"])),
    responses((status = 200, body = Environment)))]
async fn rename_environment(act: Act, Body(new): Body<Renamed>) -> Answer<Json<Environment>> {
    let found = environment(&act).await?;
    Ok(Json(act.services.catalog.rename_environment(&found, &new.name).await?))
}

/// Removes an environment to which nothing was bound, and for which no table was ever shared.
#[utoipa::path(delete, path = "/tenants/{tenant}/environments/{environment}", tag = "environments",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn remove_environment(act: Act) -> Answer<StatusCode> {
    let found = environment(&act).await?;
    act.services.catalog.remove_environment(&found).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Installations of a tenant, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/installations", tag = "installations", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Installation>)))]
async fn list_installations(act: Act, paging: Paging) -> Answer<Json<Listing<Installation>>> {
    let found = act.services.catalog.installations(act.tenant_id()?, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |installation| installation.name.clone())))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewInstallation {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// RM, PROTHEUS, DATASUL, LOGIX or another.
    #[schema(value_type = String)]
    erp: ErpName,
    /// Environment to bind it to, by id or name.
    environment: Option<String>,
}

/// Makes an installation, bound where an environment is named.
#[utoipa::path(post, path = "/tenants/{tenant}/installations", tag = "installations",
    request_body = NewInstallation, security(("administrator" = ["operator"])),
    responses((status = 201, body = Installation)))]
async fn create_installation(
    act: Act,
    Body(new): Body<NewInstallation>,
) -> Answer<(StatusCode, Json<Installation>)> {
    let (catalog, tenant) = (&act.services.catalog, act.tenant_id()?);
    let environment = match &new.environment {
        Some(key) => Some(catalog.environment(tenant, key).await?.id),
        None => None,
    };
    let made = catalog.create_installation(tenant, &new.name, new.erp, environment).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn installation(act: &Act) -> Answer<Installation> {
    Ok(act.services.catalog.installation(act.tenant_id()?, act.part("installation")?).await?)
}

/// An installation.
#[utoipa::path(get, path = "/tenants/{tenant}/installations/{installation}", tag = "installations",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Installation)))]
async fn show_installation(act: Act) -> Answer<Json<Installation>> {
    Ok(Json(installation(&act).await?))
}

/// Gives an installation another name; its id stays.
#[utoipa::path(patch, path = "/tenants/{tenant}/installations/{installation}", tag = "installations",
    request_body = Renamed, security(("administrator" = ["operator"])),
    responses((status = 200, body = Installation)))]
async fn rename_installation(act: Act, Body(new): Body<Renamed>) -> Answer<Json<Installation>> {
    let found = installation(&act).await?;
    Ok(Json(act.services.catalog.rename_installation(&found, &new.name).await?))
}

/// Removes an installation that is not bound and has no credential in force.
#[utoipa::path(delete, path = "/tenants/{tenant}/installations/{installation}", tag = "installations",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn remove_installation(act: Act) -> Answer<StatusCode> {
    let found = installation(&act).await?;
    act.services.catalog.remove_installation(&found).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Where an installation is bound.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Bound {
    /// Environment, by id or name.
    environment: String,
}

/// Ties an installation to an environment.
#[utoipa::path(put, path = "/tenants/{tenant}/installations/{installation}/binding",
    tag = "installations", request_body = Bound, security(("administrator" = ["operator"])),
    responses((status = 200, body = Installation)))]
async fn bind(act: Act, Body(to): Body<Bound>) -> Answer<Json<Installation>> {
    let catalog = &act.services.catalog;
    let found = installation(&act).await?;
    let environment = catalog.environment(act.tenant_id()?, &to.environment).await?.id;
    catalog.bind(&found, environment).await?;
    Ok(Json(Installation { environment: Some(environment), ..found }))
}

/// Unties an installation; its senders are refused within 60 s.
#[utoipa::path(delete, path = "/tenants/{tenant}/installations/{installation}/binding",
    tag = "installations", security(("administrator" = ["operator"])),
    responses((status = 200, body = Installation)))]
async fn unbind(act: Act) -> Answer<Json<Installation>> {
    let found = installation(&act).await?;
    act.services.catalog.unbind(&found).await?;
    Ok(Json(Installation { environment: None, ..found }))
}
