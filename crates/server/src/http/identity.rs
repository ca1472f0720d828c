//! Identity over HTTP: the token call as RAC serves it, discovery and public keys (`contracts.md` 3).
//!
//! Promises: errors of the token call are RAC's `{"error":"…"}` with status 400; fields come in any order, stray headers
//! harm nothing, HTTP Basic is taken where the form has no client id.
//! Never: says whether the id or the secret was wrong.

use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{Code, Error, limits};
use runtime::clock::Wall;
use secrecy::SecretString;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::{
    router::{OpenApiRouter, UtoipaMethodRouterExt as _},
    routes,
};

use super::{Desk, answer::note};

const SCOPE: &str = "authorization_api";

/// The form as the description shows it; `basic` credentials may stand for the last two.
#[derive(ToSchema)]
#[expect(
    dead_code,
    reason = "only described: the body is read by Form, which is lenient where RAC is"
)]
struct TokenForm {
    #[schema(pattern = "^client_credentials$")]
    grant_type: String,
    #[schema(pattern = "^authorization_api$")]
    scope: Option<String>,
    client_id: Option<String>,
    client_secret: Option<String>,
}

/// Fields of the form; the last of a repeated one counts.
#[derive(Default)]
struct Form {
    grant_type: String,
    scope: String,
    client_id: String,
    client_secret: String,
}

pub(super) fn routes() -> OpenApiRouter<Desk> {
    let small = DefaultBodyLimit::max(limits::TOKEN_BODY_BYTES);
    OpenApiRouter::new()
        .routes(routes!(token).map(|route| route.layer(small)))
        .routes(routes!(discovery))
        .routes(routes!(jwks))
}

/// The token call, as RAC serves it: client id and secret in, token out. Refusals are RAC's `{"error":"…"}`.
#[utoipa::path(post, path = "/totvs.rac/connect/token", tag = "senders", security(()),
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, body = Object), (status = 400, body = Object)))]
async fn token(State(desk): State<Desk>, headers: HeaderMap, body: Bytes) -> Response {
    let mut form = Form::read(&body);
    if form.client_id.is_empty()
        && let Some((id, secret)) = basic(&headers)
    {
        (form.client_id, form.client_secret) = (id, secret);
    }
    if form.grant_type != "client_credentials" {
        return rac_error("unsupported_grant_type");
    }
    if form.scope.split_ascii_whitespace().any(|scope| scope != SCOPE) {
        return rac_error("invalid_scope");
    }
    let secret = SecretString::from(form.client_secret);
    match desk.services.access.issue(&form.client_id, &secret, Wall::now()).await {
        Ok(token) => {
            ([(header::CACHE_CONTROL, "no-store"), (header::PRAGMA, "no-cache")], Json(token))
                .into_response()
        }
        Err(error) if error.code == Code::InvalidClient => {
            metrics::counter!("malote_token_refused_total").increment(1);
            tracing::info!("token refused: wrong client id or secret, or revoked");
            rac_error("invalid_client")
        }
        Err(error) => server_error(&error),
    }
}

/// Where tokens come from and how they are checked.
#[utoipa::path(get, path = "/totvs.rac/.well-known/openid-configuration", tag = "senders", security(()),
    responses((status = 200, body = Object)))]
async fn discovery(State(desk): State<Desk>) -> impl IntoResponse {
    let issuer = &desk.issuer;
    Json(json!({
        "issuer": &**issuer,
        "jwks_uri": format!("{issuer}/.well-known/openid-configuration/jwks"),
        "token_endpoint": format!("{issuer}/connect/token"),
        "grant_types_supported": ["client_credentials"],
        "scopes_supported": [SCOPE],
        "response_types_supported": ["token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": ["client_secret_post", "client_secret_basic"],
    }))
}

/// Public keys of tokens.
#[utoipa::path(get, path = "/totvs.rac/.well-known/openid-configuration/jwks", tag = "senders", security(()),
    responses((status = 200, body = Object)))]
async fn jwks(State(desk): State<Desk>) -> impl IntoResponse {
    Json(desk.services.access.jwks(Wall::now()).await)
}

impl Form {
    fn read(body: &[u8]) -> Self {
        let mut form = Self::default();
        let pairs = pairs(body);
        for (name, value) in pairs {
            match name.as_str() {
                "grant_type" => form.grant_type = value,
                "scope" => form.scope = value,
                "client_id" => form.client_id = value,
                "client_secret" => form.client_secret = value,
                _ => {}
            }
        }
        form
    }
}

fn pairs(body: &[u8]) -> Vec<(String, String)> {
    body.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            (decoded(halves.next().unwrap_or_default()), decoded(halves.next().unwrap_or_default()))
        })
        .collect()
}

/// Percent-decoding of a form: `+` is a blank; a broken escape stays as it is.
fn decoded(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, hex.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            (b'+', _) => {
                out.push(b' ');
                rest = tail;
            }
            (byte, _) => {
                out.push(*byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Id and secret of HTTP Basic; both are form-encoded inside (RFC 6749, 2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = STANDARD.decode(encoded.trim()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (id, secret) = pair.split_at(colon);
    Some((decoded(id), decoded(secret.get(1..)?)))
}

fn rac_error(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response()
}

fn server_error(error: &Error) -> Response {
    note(error);
    let status =
        StatusCode::from_u16(error.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (
        status,
        Json(json!({ "error": "temporarily_unavailable", "error_description": error.to_string() })),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_read_in_any_order_with_escapes_and_unknown_fields() {
        let form = Form::read(b"client_secret=a%2Bb+c%3D&x=1&client_id=id&&scope=authorization_api&grant_type=client_credentials");
        assert_eq!((form.client_secret.as_str(), form.client_id.as_str()), ("a+b c=", "id"));
        assert_eq!((form.scope.as_str(), form.grant_type.as_str()), (SCOPE, "client_credentials"));
        assert_eq!(decoded(b"%zz%4"), "%zz%4");
        assert_eq!(decoded(b"%"), "%");
    }

    #[test]
    fn basic_is_read_with_a_colon_in_the_secret_and_other_schemes_are_not() {
        let headers =
            |value: &str| HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
        let pair = STANDARD.encode("id:a:b%3D");
        assert_eq!(basic(&headers(&format!("basic {pair}"))), Some(("id".into(), "a:b=".into())));
        for bad in ["Bearer x", "Basic", "Basic !!!", "Basic aWQ="] {
            assert_eq!(basic(&headers(bad)), None, "{bad}");
        }
    }
}
