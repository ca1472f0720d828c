//! Document: the OpenAPI 3.1 description of every route, made from the routes themselves, and Swagger UI over it.
//!
//! Promises: what is served is described and what is described is served; each operation says who may call it; the
//! pages load nothing from elsewhere.
//! Never: decides who may call; the gate reads that from here.

use std::sync::Arc;

use axum::{
    Extension,
    body::Bytes,
    extract::Path,
    http::header,
    response::{IntoResponse, Redirect, Response},
};
use protocol::{Code, Error};
use serde_json::{Map, Value, json};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::Config;

use super::{Desk, answer::Refusal};

/// Where the document is served.
const PATH: &str = "/api/admin/openapi.json";
/// Swagger UI brings its own files; its styles are written into the page.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
                           img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'";

/// What the parts of a path stand for.
const PARTS: [(&str, &str); 17] = [
    ("tenant", "Tenant, by id or name."),
    ("app", "App, by id or name."),
    ("environment", "Environment, by id or name."),
    ("installation", "Installation, by id or name."),
    ("client", "Client id."),
    ("erp", "RM, PROTHEUS, DATASUL, LOGIX or another."),
    ("table", "Table, in any case."),
    ("batch", "The batch's number."),
    ("message", "The message's number within its batch."),
    ("row", "A row in quarantine, by its id: batch.message.row."),
    ("administrator", "Administrator, by id or name."),
    ("token", "The token's name."),
    ("webhook", "Webhook, by id or name."),
    ("delivery", "The event's id."),
    ("order", "The order's number."),
    ("alert", "Alert, by id."),
    ("file", "A file of the pages."),
];

/// The document as it is sent.
#[derive(Clone, Debug)]
pub(super) struct Text(Bytes);

impl Text {
    pub(super) fn of(document: &Value) -> Self {
        Self(document.to_string().into())
    }
}

/// Routes of the document itself.
pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new()
        .routes(routes!(openapi))
        .routes(routes!(docs))
        .routes(routes!(docs_page))
        .routes(routes!(docs_file))
        .layer(Extension(Arc::new(Config::from(PATH).persist_authorization(false))))
}

/// This document.
#[utoipa::path(get, path = "/api/admin/openapi.json", tag = "document", security(()),
    responses((status = 200, content_type = "application/json")))]
async fn openapi(Extension(Text(text)): Extension<Text>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], text)
}

/// Leads to the pages.
#[utoipa::path(get, path = "/api/admin/docs", tag = "document", security(()),
    responses((status = 308, description = "The pages are one step further.")))]
async fn docs() -> Redirect {
    Redirect::permanent("/api/admin/docs/")
}

/// Swagger UI: this document, to read and to try.
#[utoipa::path(get, path = "/api/admin/docs/", tag = "document", security(()),
    responses((status = 200, content_type = "text/html")))]
async fn docs_page(Extension(config): Extension<Arc<Config<'static>>>) -> Response {
    page("index.html", config)
}

/// A file of Swagger UI.
#[utoipa::path(get, path = "/api/admin/docs/{file}", tag = "document", security(()),
    responses((status = 200, content_type = "application/octet-stream")))]
async fn docs_file(
    Path(file): Path<String>,
    Extension(config): Extension<Arc<Config<'static>>>,
) -> Response {
    page(&file, config)
}

fn page(file: &str, config: Arc<Config<'static>>) -> Response {
    let found = utoipa_swagger_ui::serve(file, config).ok().flatten();
    let Some(found) = found else {
        return Refusal(Error::new(Code::NotFound, "the pages have no such file")).into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, found.content_type),
        (header::CONTENT_SECURITY_POLICY, PAGE_POLICY.to_owned()),
    ];
    (headers, found.bytes.into_owned()).into_response()
}

/// Completes what the routes tell: the head, how one authenticates, names, parts of paths and refusals.
pub(super) fn complete(routes: &utoipa::openapi::OpenApi) -> Value {
    let mut document = serde_json::to_value(routes).unwrap_or_default();
    document["info"] = json!({
        "title": "Malote server",
        "version": env!("CARGO_PKG_VERSION"),
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        "description": "Calls of senders and of administrators. Lists take `limit` and `after` and answer `next`, \
                        which is `after` of the page behind; without `next` there is none. Every refusal has a code \
                        of a closed table.",
    });
    document["components"]["securitySchemes"] = json!({
        "administrator": { "type": "http", "scheme": "bearer",
            "description": "A token of `malote server admin token create`." },
        "sender": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
            "description": "A token of the token call (`/totvs.rac/connect/token`)." },
    });
    document["components"]["schemas"]["Refusal"] = json!({
        "type": "object",
        "required": ["code", "message"],
        "properties": {
            "code": { "type": "string", "enum": Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>() },
            "message": { "type": "string", "description": "What was wrong and where." },
            "detailedMessage": { "type": "string", "description": "What to do." },
        },
    });
    let paths = document["paths"].as_object_mut();
    for (path, item) in paths.into_iter().flatten() {
        for (method, operation) in item.as_object_mut().into_iter().flatten() {
            if let Some(operation) = operation.as_object_mut() {
                complete_operation(path, method, operation);
            }
        }
    }
    document
}

fn complete_operation(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let words = path.split(|sign: char| !sign.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let index = path.ends_with('/').then_some("index");
    let id: Vec<&str> = std::iter::once(method).chain(words).chain(index).collect();
    operation.insert("operationId".into(), id.join("_").into());
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let words = PARTS.iter().find(|(part, _)| *part == name).map_or("", |(_, words)| words);
            json!({ "name": name, "in": "path", "required": true, "description": words,
                "schema": { "type": "string", "minLength": 1 } })
        })
        .collect();
    if let Some(Value::Array(told)) = operation.remove("parameters") {
        parameters.extend(told.into_iter().filter(|parameter| parameter["in"] != "path"));
    }
    operation.insert("parameters".into(), parameters.into());
    let refusal = json!({
        "description": "Refused; the code says why.",
        "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Refusal" } } },
    });
    if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
        responses.insert("default".into(), refusal);
    }
}
