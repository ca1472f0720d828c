//! Door: the routes and who may use them.
//!
//! Promises: `/v1` needs the token, `/` tells without one which keys of a configuration are missing; errors have the
//! contract's body; bodies are bounded.
//! Never: answers a page of another origin (no CORS).

use std::{path::Path, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRef, Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing,
};
use protocol::{Code, Error, Result, json::ErrorBody, limits, names::TableName};
use serde::{Deserialize, Serialize};

use super::{
    Unconfigured, logs, records,
    status::{self, DeletesStatus, status},
    steer,
    token::AdminToken,
    verify,
};
use crate::journal::{Answer, Journal, Verdict};

pub(super) struct Refusal(Error);

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.0.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(ErrorBody::from(&self.0))).into_response()
    }
}

/// A body in the form that `like` shows.
pub(super) fn parsed<T: serde::de::DeserializeOwned>(body: &[u8], like: &str) -> Result<T> {
    serde_json::from_slice(body).map_err(|cause| {
        Error::new(Code::BadRequest, format!("the body is not {like}")).because(cause)
    })
}

/// What the routes stand before.
#[derive(Clone)]
pub(super) struct Behind {
    pub(super) journal: Journal,
    pub(super) unconfigured: Option<Arc<Unconfigured>>,
    /// File of the detailed log.
    pub(super) log: Arc<Path>,
}

impl FromRef<Behind> for Journal {
    fn from_ref(behind: &Behind) -> Self {
        behind.journal.clone()
    }
}

pub(super) fn router(behind: Behind, token: Arc<AdminToken>) -> Router {
    let guarded = Router::new()
        .route("/v1/status", routing::get(show))
        .route("/v1/reload", routing::post(reload))
        .route("/v1/deletes", routing::get(show_deletes).post(answer_deletes))
        .merge(logs::routes())
        .merge(records::routes())
        .merge(steer::routes())
        .merge(verify::routes())
        .layer(DefaultBodyLimit::max(limits::TOKEN_BODY_BYTES))
        .layer(middleware::from_fn_with_state(token, guard));
    Router::new()
        .merge(guarded)
        .route("/metrics", routing::get(async || runtime::telemetry::render_metrics()))
        .route("/healthz", routing::get(async || "ok"))
        .route("/", routing::get(start))
        .fallback(async || Refusal(Error::new(Code::NotFound, "there is no such page")))
        .with_state(behind)
}

/// Where a link leads that an agent without configuration gives: what is missing, and how to go on. Nothing else of the
/// agent is told here, since no token is asked for.
async fn start(State(behind): State<Behind>) -> Html<String> {
    let missing = behind.unconfigured.as_ref().map(|why| why.missing.join(", "));
    let (state, estado) = match missing {
        Some(_) => (
            "This agent does nothing yet: its configuration is incomplete.",
            "Este agente ainda não faz nada: a configuração está incompleta.",
        ),
        None => (
            "This agent is configured; malote agent status tells what it does.",
            "Este agente está configurado; malote agent status mostra o que ele faz.",
        ),
    };
    let page = include_str!("start.html").replace("{state}", state).replace("{estado}", estado);
    Html(page.replace("{missing}", missing.as_deref().unwrap_or("–")))
}

async fn guard(State(token): State<Arc<AdminToken>>, request: Request, next: Next) -> Response {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given
        .and_then(|value| value.strip_prefix("Bearer "))
        .is_some_and(|given| token.fits(given.trim()))
    {
        next.run(request).await
    } else {
        let words = "send the token of admin.token in the data folder as Bearer";
        Refusal(Error::new(Code::Unauthenticated, words)).into_response()
    }
}

async fn show(State(behind): State<Behind>) -> Result<Response, Refusal> {
    Ok(Json(status(&behind).await?).into_response())
}

#[derive(Deserialize, Default)]
struct Reload {
    table: Option<String>,
}

/// Without a body, or without a table: all tables of the plan.
async fn reload(State(journal): State<Journal>, body: Bytes) -> Result<StatusCode, Refusal> {
    let reload: Reload =
        if body.is_empty() { Reload::default() } else { parsed(&body, "{\"table\": …}")? };
    let table = reload.table.map(|table| table.parse::<TableName>()).transpose()?;
    if let Some(table) = &table {
        let plan = journal.plan().await?;
        let planned =
            plan.is_some_and(|plan| plan.queries.iter().any(|query| query.table == *table));
        if !planned {
            return Err(
                Error::new(Code::NotFound, format!("table {table} is not in the plan")).into()
            );
        }
    }
    journal.request_reload(table).await?;
    Ok(StatusCode::ACCEPTED)
}

async fn show_deletes(State(journal): State<Journal>) -> Response {
    Json(status::deletes(&journal)).into_response()
}

/// A person's answer to deletes above the cap.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AnswerDeletes {
    pub table: TableName,
    /// Confirms, or else refuses.
    pub confirm: bool,
    /// The number the person saw; absent: whatever is counted now.
    #[serde(default)]
    pub rows: Option<u64>,
    #[serde(default)]
    pub dry_run: bool,
}

async fn answer_deletes(
    State(journal): State<Journal>,
    body: Bytes,
) -> Result<Json<DeletesStatus>, Refusal> {
    let given: AnswerDeletes = parsed(&body, "{\"table\": …, \"confirm\": …}")?;
    let answer = if given.confirm { Answer::Confirmed } else { Answer::Refused };
    let AnswerDeletes { table, rows, dry_run, .. } = given;
    let verdict = Verdict { table: table.clone(), answer, rows, dry_run };
    let capped = journal.answer_deletes(verdict).await?;
    if !dry_run {
        let rows = capped.rows;
        tracing::warn!(%table, ?answer, rows, "deletes above the cap: a person answered");
    }
    Ok(Json(DeletesStatus::of(table, capped)))
}
