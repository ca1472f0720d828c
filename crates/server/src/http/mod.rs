//! HTTP: registry, token, entities and apps for senders; health and metrics for operators.
//!
//! Promises: every refusal is JSON with a code (the token call keeps RAC's own error shape); a body is bounded before
//! it is read; a server that drains answers probes and refuses all else.
//! Never: decides a rule (the services do), logs a body, a query or an `Authorization` header.

mod answer;
mod identity;
mod provisioning;
mod serve;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use protocol::{Code, Error, json::Service, limits};
use runtime::shutdown::{Calls, Shutdown};
use tower_http::timeout::TimeoutLayer;

pub(crate) use serve::serve;

use crate::service::{access::Access, catalog::Catalog};

/// What the routes work with.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) access: Access,
    pub(crate) catalog: Catalog,
    pub(crate) registry: Arc<[Service]>,
    pub(crate) issuer: Arc<str>,
    pub(crate) shutdown: Shutdown,
    pub(crate) calls: Calls,
}

/// All routes.
pub(crate) fn router(desk: Desk) -> Router {
    Router::new()
        .route("/", get(registry))
        .route("/api/v1/services", get(registry))
        .route(
            "/totvs.rac/connect/token",
            post(identity::token).layer(DefaultBodyLimit::max(limits::TOKEN_BODY_BYTES)),
        )
        .route("/totvs.rac/.well-known/openid-configuration", get(identity::discovery))
        .route("/totvs.rac/.well-known/openid-configuration/jwks", get(identity::jwks))
        .route("/api/carol-definitions/v1/entities", get(provisioning::entities))
        .route("/api/carol-definitions/v1/entities/{erp}", get(provisioning::entities_of))
        .route("/api/carol-definitions/v1/carolcredentials", get(provisioning::carol_credentials))
        .route("/api/data-management/v1/apps/by-tenant", get(provisioning::apps))
        .route_layer(middleware::from_fn_with_state(desk.clone(), admitted))
        // Whoever probes or measures is answered also while the server drains.
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(limits::ADMIN_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, limits::CALL_TIMEOUT))
        .layer(middleware::from_fn(answer::finish))
        .with_state(desk)
}

/// Lets a request in as a call, or refuses it while the server drains.
async fn admitted(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    match desk.calls.begin() {
        Err(error) => answer::Refusal::from(error).into_response(),
        Ok(call) => {
            let response = next.run(request).await;
            drop(call);
            response
        }
    }
}

async fn registry(State(desk): State<Desk>) -> impl IntoResponse {
    Json(desk.registry.to_vec())
}

async fn alive() -> &'static str {
    "ok\n"
}

async fn ready(State(desk): State<Desk>) -> answer::Answer<&'static str> {
    if desk.shutdown.is_draining() {
        return Err(Error::new(Code::Draining, "the server is stopping").into());
    }
    if !desk.access.is_store_writable().await {
        return Err(Error::new(Code::StoreFailed, "the store does not commit").into());
    }
    Ok("ready\n")
}

async fn metrics() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")],
        runtime::telemetry::render_metrics(),
    )
}

async fn nothing_here() -> answer::Refusal {
    Error::new(Code::NotFound, "there is nothing at this address").into()
}

async fn wrong_method() -> answer::Refusal {
    Error::new(Code::MethodNotAllowed, "this address takes another method").into()
}

#[cfg(test)]
mod tests;
