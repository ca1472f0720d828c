//! Tenants and their apps over HTTP.
//!
//! Promises: a token of one tenant sees that one alone.
//! Never: removes what something still hangs on.

use axum::{Json, http::StatusCode};
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{
    Desk,
    answer::Answer,
    gate::Act,
    listing::{Body, Listing, Paging},
};
use crate::{
    model::catalog::{App, Tenant},
    service::catalog::AppChange,
};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, rename, remove))
        .routes(routes!(list_apps, create_app))
        .routes(routes!(show_app, change_app, remove_app))
}

/// A name for something new, or a new one for something old.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
}

/// Tenants, by name.
#[utoipa::path(get, path = "/tenants", tag = "tenants", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<Tenant>)))]
async fn list(act: Act, paging: Paging) -> Answer<Json<Listing<Tenant>>> {
    let found = act.services.catalog.tenants_for(act.token.tenant, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |tenant| tenant.name.clone())))
}

/// Makes a tenant.
#[utoipa::path(post, path = "/tenants", tag = "tenants", request_body = Named,
    security(("administrator" = ["operator", "every-tenant"])), responses((status = 201, body = Tenant)))]
async fn create(act: Act, Body(new): Body<Named>) -> Answer<(StatusCode, Json<Tenant>)> {
    let made = act.services.catalog.create_tenant(&new.name).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// A tenant.
#[utoipa::path(get, path = "/tenants/{tenant}", tag = "tenants",
    security(("administrator" = ["read-only"])), responses((status = 200, body = Tenant)))]
async fn show(act: Act) -> Answer<Json<Tenant>> {
    Ok(Json(act.tenant()?.clone()))
}

/// Gives a tenant another name; its id stays.
#[utoipa::path(patch, path = "/tenants/{tenant}", tag = "tenants", request_body = Named,
    security(("administrator" = ["operator"])), responses((status = 200, body = Tenant)))]
async fn rename(act: Act, Body(new): Body<Named>) -> Answer<Json<Tenant>> {
    Ok(Json(act.services.catalog.rename_tenant(act.tenant()?, &new.name).await?))
}

/// Removes a tenant that has nothing.
#[utoipa::path(delete, path = "/tenants/{tenant}", tag = "tenants",
    security(("administrator" = ["operator", "every-tenant"])), responses((status = 204)))]
async fn remove(act: Act) -> Answer<StatusCode> {
    act.services.catalog.remove_tenant(act.tenant()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Apps of a tenant, by name.
#[utoipa::path(get, path = "/tenants/{tenant}/apps", tag = "apps", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<App>)))]
async fn list_apps(act: Act, paging: Paging) -> Answer<Json<Listing<App>>> {
    let found = act.services.catalog.apps(act.tenant_id()?, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |app| app.name.clone())))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewApp {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    #[serde(default)]
    description: String,
}

/// Makes an app; it is active.
#[utoipa::path(post, path = "/tenants/{tenant}/apps", tag = "apps", request_body = NewApp,
    security(("administrator" = ["operator"])), responses((status = 201, body = App)))]
async fn create_app(act: Act, Body(new): Body<NewApp>) -> Answer<(StatusCode, Json<App>)> {
    let catalog = &act.services.catalog;
    let made = catalog.create_app(act.tenant_id()?, &new.name, &new.description).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// An app.
#[utoipa::path(get, path = "/tenants/{tenant}/apps/{app}", tag = "apps",
    security(("administrator" = ["read-only"])), responses((status = 200, body = App)))]
async fn show_app(act: Act) -> Answer<Json<App>> {
    Ok(Json(act.services.catalog.app(act.tenant_id()?, act.part("app")?).await?))
}

/// What is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangedApp {
    name: Option<String>,
    description: Option<String>,
    /// False keeps the app's clients out until it is true again.
    active: Option<bool>,
}

/// Changes an app.
#[utoipa::path(patch, path = "/tenants/{tenant}/apps/{app}", tag = "apps", request_body = ChangedApp,
    security(("administrator" = ["operator"])), responses((status = 200, body = App)))]
async fn change_app(act: Act, Body(change): Body<ChangedApp>) -> Answer<Json<App>> {
    let catalog = &act.services.catalog;
    let app = catalog.app(act.tenant_id()?, act.part("app")?).await?;
    let ChangedApp { name, description, active } = change;
    Ok(Json(catalog.change_app(&app, AppChange { name, description, active }).await?))
}

/// Removes an app without credentials in force.
#[utoipa::path(delete, path = "/tenants/{tenant}/apps/{app}", tag = "apps",
    security(("administrator" = ["operator"])), responses((status = 204)))]
async fn remove_app(act: Act) -> Answer<StatusCode> {
    let catalog = &act.services.catalog;
    let app = catalog.app(act.tenant_id()?, act.part("app")?).await?;
    catalog.remove_app(&app).await?;
    Ok(StatusCode::NO_CONTENT)
}
