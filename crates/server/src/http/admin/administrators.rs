//! Administrators, their tokens and the audit over HTTP.
//!
//! Promises: a token is told once, in the answer that makes it.
//! Never: lets a token of one tenant touch who administers.

use axum::{Json, http::StatusCode};
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
    model::{
        admin::{AdminToken, Administrator, AuditEntry, AuditQuery},
        catalog::At,
    },
    service::access::TokenWish,
};
use protocol::{Code, Error, Result, ids::TenantId};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(me))
        .routes(routes!(list, create))
        .routes(routes!(show, revoke))
        .routes(routes!(list_tokens, create_token))
        .routes(routes!(revoke_token))
        .routes(routes!(audit))
        .routes(routes!(audit_of_tenant))
}

/// The token this call came with.
#[utoipa::path(get, path = "/token", tag = "administrators",
    security(("administrator" = ["read-only"])), responses((status = 200, body = AdminToken)))]
async fn me(act: Act) -> Answer<Json<AdminToken>> {
    Ok(Json(act.token))
}

/// Administrators, by name.
#[utoipa::path(get, path = "/administrators", tag = "administrators", params(Paging),
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Listing<Administrator>)))]
async fn list(act: Act, paging: Paging) -> Answer<Json<Listing<Administrator>>> {
    let found = act.services.access.administrators(paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |administrator| administrator.name.clone())))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAdministrator {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
}

/// Makes an administrator; a token lets it in.
#[utoipa::path(post, path = "/administrators", tag = "administrators", request_body = NewAdministrator,
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 201, body = Administrator)))]
async fn create(
    act: Act,
    Body(new): Body<NewAdministrator>,
) -> Answer<(StatusCode, Json<Administrator>)> {
    let made = act.services.access.create_administrator(&new.name).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

/// An administrator.
#[utoipa::path(get, path = "/administrators/{administrator}", tag = "administrators",
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Administrator)))]
async fn show(act: Act) -> Answer<Json<Administrator>> {
    Ok(Json(act.services.access.administrator(act.part("administrator")?).await?))
}

/// Ends an administrator with all its tokens, at once and for ever.
#[utoipa::path(delete, path = "/administrators/{administrator}", tag = "administrators",
    security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 200, body = Administrator)))]
async fn revoke(act: Act) -> Answer<Json<Administrator>> {
    Ok(Json(act.services.access.revoke_administrator(act.part("administrator")?).await?))
}

/// Tokens of an administrator, by name; never their secrets.
#[utoipa::path(get, path = "/administrators/{administrator}/tokens", tag = "administrators",
    params(Paging), security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Listing<AdminToken>)))]
async fn list_tokens(act: Act, paging: Paging) -> Answer<Json<Listing<AdminToken>>> {
    let of = act.part("administrator")?;
    let found = act.services.access.admin_tokens(of, paging.page()).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |token| token.name.clone())))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewToken {
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// operator or read-only.
    role: String,
    /// The one tenant it opens, by id or name; absent: every tenant.
    tenant: Option<String>,
    /// When it ends, such as `2027-01-31`; absent: never.
    expires_at: Option<String>,
}

/// A token with its text.
#[derive(Serialize, ToSchema)]
struct TokenMade {
    #[serde(flatten)]
    about: AdminToken,
    /// Told now and never again.
    token: String,
}

/// Makes a token.
#[utoipa::path(post, path = "/administrators/{administrator}/tokens", tag = "administrators",
    request_body = NewToken, security(("administrator" = ["operator", "every-tenant"])),
    responses((status = 201, body = TokenMade)))]
async fn create_token(
    act: Act,
    Body(new): Body<NewToken>,
) -> Answer<(StatusCode, Json<TokenMade>)> {
    let tenant = match &new.tenant {
        Some(key) => Some(act.services.catalog.tenant(key).await?.id),
        None => None,
    };
    let expires_at = new.expires_at.as_deref().map(At::read).transpose()?;
    let wish = TokenWish { name: new.name, role: new.role.parse()?, tenant, expires_at };
    let of = act.part("administrator")?;
    let made = act.services.access.create_admin_token(of, wish).await?;
    let told = TokenMade { token: made.reveal().to_owned(), about: made.token };
    Ok((StatusCode::CREATED, Json(told)))
}

/// Revokes a token at once and for ever.
#[utoipa::path(delete, path = "/administrators/{administrator}/tokens/{token}", tag = "administrators",
    security(("administrator" = ["operator", "every-tenant"])), responses((status = 204)))]
async fn revoke_token(act: Act) -> Answer<StatusCode> {
    let (of, name) = (act.part("administrator")?, act.part("token")?);
    act.services.access.revoke_admin_token(of, name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What was done, the newest first; `after` is the number of the last entry seen.
#[utoipa::path(get, path = "/audit", tag = "audit", params(Paging),
    security(("administrator" = ["read-only", "every-tenant"])),
    responses((status = 200, body = Listing<AuditEntry>)))]
async fn audit(act: Act, paging: Paging) -> Answer<Json<Listing<AuditEntry>>> {
    entries(&act, &paging, None).await
}

/// What was done to a tenant, the newest first.
#[utoipa::path(get, path = "/tenants/{tenant}/audit", tag = "audit", params(Paging),
    security(("administrator" = ["read-only"])), responses((status = 200, body = Listing<AuditEntry>)))]
async fn audit_of_tenant(act: Act, paging: Paging) -> Answer<Json<Listing<AuditEntry>>> {
    let tenant = act.tenant_id()?;
    entries(&act, &paging, Some(tenant)).await
}

async fn entries(
    act: &Act,
    paging: &Paging,
    tenant: Option<TenantId>,
) -> Answer<Json<Listing<AuditEntry>>> {
    let search = paging.search().to_owned();
    let query =
        AuditQuery { tenant, search, below: below(paging.after())?, limit: paging.limit() + 1 };
    let found = act.services.access.audit(query).await?;
    Ok(Json(Listing::cut(found, paging.limit(), |entry| entry.seq.to_string())))
}

fn below(after: &str) -> Result<i64> {
    if after.is_empty() {
        return Ok(0);
    }
    after.parse().map_err(|_| Error::new(Code::BadId, "after is the number of an entry"))
}
