//! Answers: the error body, the headers every answer has, and the request log.
//!
//! Promises: one line per request with method, route, status and time; whatever the framework refuses gets a code too.
//! Never: logs or echoes a path segment, a query, a header or a body.

use axum::{
    Json,
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use protocol::{Class, Code, Error, json::ErrorBody};
use runtime::clock::Mono;

/// An error on its way out.
pub(super) struct Refusal(pub(super) Error);

pub(super) type Answer<T> = Result<T, Refusal>;

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = self.0;
        note(&error);
        let status =
            StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(ErrorBody::from(&error))).into_response();
        let headers = response.headers_mut();
        if let Some(after) = error.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Faults of ours go to the log with their cause; the caller sees words alone.
pub(super) fn note(error: &Error) {
    match error.class() {
        Class::Bug => {
            tracing::error!(code = %error.code, cause = error.cause(), "{}", error.message)
        }
        Class::Transient if error.code != Code::Draining => {
            tracing::warn!(code = %error.code, cause = error.cause(), "{}", error.message);
        }
        _ => {}
    }
}

/// Outermost layer: log, counters, protective headers, and a code where the framework gave none.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let begun = Mono::now();
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let mut response = coded(next.run(request).await);
    protect(response.headers_mut());
    let status = response.status().as_u16();
    let time = begun.elapsed();
    tracing::info!(%method, route, status, ms = time.as_millis(), "http");
    metrics::counter!("malote_http_requests_total", "route" => route.clone(), "status" => status.to_string()).increment(1);
    metrics::histogram!("malote_http_seconds", "route" => route).record(time.as_secs_f64());
    response
}

/// The framework's own refusals are plain text or empty; they become the error body.
fn coded(response: Response) -> Response {
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    let code = match response.status() {
        _ if json => return response,
        StatusCode::PAYLOAD_TOO_LARGE => Code::BodyTooLarge,
        StatusCode::GATEWAY_TIMEOUT => Code::Timeout,
        status if status.is_client_error() => Code::BadRequest,
        status if status.is_server_error() => Code::Internal,
        _ => return response,
    };
    Refusal(Error::new(code, "the request was refused")).into_response()
}

fn protect(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}
