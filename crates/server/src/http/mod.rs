//! HTTP: registry, token, entities and apps for senders; administration with its document; health and metrics.
//!
//! Promises: every refusal is JSON with a code (the token call keeps RAC's own error shape); a body is bounded before
//! it is read; a server that drains answers probes and refuses all else.
//! Never: decides a rule (the services do), logs a body, a query or an `Authorization` header.

mod admin;
mod answer;
mod document;
mod gate;
mod identity;
mod listing;
mod provisioning;
mod serve;

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
};
use protocol::{Code, Error, json::Service, limits};
use runtime::shutdown::{Calls, Shutdown};
use tower_http::timeout::TimeoutLayer;
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use serve::serve;

use crate::service::Services;

/// What the routes work with.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) services: Services,
    pub(crate) registry: Arc<[Service]>,
    pub(crate) issuer: Arc<str>,
    pub(crate) shutdown: Shutdown,
    pub(crate) calls: Calls,
}

/// Calls, which a server that drains refuses, and which the gate stands before.
fn calls() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(registry_root))
        .routes(routes!(registry))
        .merge(identity::routes())
        .merge(provisioning::routes())
        .merge(admin::routes())
        .merge(document::routes())
}

/// Whoever probes or measures is answered also while the server drains.
fn probes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(alive)).routes(routes!(ready)).routes(routes!(metrics))
}

/// The document of all routes.
fn described() -> (Router<Desk>, Router<Desk>, serde_json::Value) {
    let (calls, mut told) = calls().split_for_parts();
    let (probes, of_probes) = probes().split_for_parts();
    told.merge(of_probes);
    (calls, probes, document::complete(&told))
}

/// All routes.
pub(crate) fn router(desk: Desk) -> Router {
    let (calls, probes, document) = described();
    let gates = Arc::new(gate::Gates::of(&document));
    calls
        .layer(Extension(document::Text::of(&document)))
        .route_layer(middleware::from_fn_with_state((desk.clone(), gates), gate::gate))
        .route_layer(middleware::from_fn_with_state(desk.clone(), admitted))
        .merge(probes)
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

/// Where each service is, as some clients ask for it; a browser gets a page that says how to go on.
#[utoipa::path(get, path = "/", tag = "senders", security(()),
    responses((status = 200, content((Vec<Object> = "application/json"), (String = "text/html")))))]
async fn registry_root(desk: State<Desk>, headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    // Programs in Java ask for text/html unless told otherwise; for XHTML only browsers do.
    if accepts.is_some_and(|kinds| kinds.contains("application/xhtml+xml")) {
        return Html(include_str!("start.html")).into_response();
    }
    registry(desk).await.into_response()
}

/// Where each service is.
#[utoipa::path(get, path = "/api/v1/services", tag = "senders", security(()),
    responses((status = 200, body = Vec<Object>)))]
async fn registry(State(desk): State<Desk>) -> impl IntoResponse {
    Json(desk.registry.to_vec())
}

/// The process answers.
#[utoipa::path(get, path = "/healthz", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn alive() -> &'static str {
    "ok\n"
}

/// The server takes calls, its store commits, and its disk has room.
#[utoipa::path(get, path = "/readyz", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn ready(State(desk): State<Desk>) -> answer::Answer<&'static str> {
    if desk.shutdown.is_draining() {
        return Err(Error::new(Code::Draining, "the server is stopping").into());
    }
    desk.services.access.takes_writes().await?;
    Ok("ready\n")
}

/// Counters and times for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "probes", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
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
