//! Retention over HTTP: how long what the ledger holds is kept, what is due, and a run at once.
//!
//! Promises: a dry run tells what a run would remove.
//! Never: changes the spans; the configuration has them.

use axum::Json;
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::super::{Desk, answer::Answer, gate::Act, listing::Body};
use crate::{model::retention::Policy, service::retention::Swept};

pub(super) fn routes() -> OpenApiRouter<Desk> {
    OpenApiRouter::new().routes(routes!(retention)).routes(routes!(run_retention))
}

/// The spans in force and what is due.
#[derive(Debug, Serialize, ToSchema)]
struct Standing {
    policy: Spans,
    due: Swept,
}

/// Days after the end of a batch; 0 = for ever.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct Spans {
    /// Bodies of messages whose rows are staged.
    body_days: u32,
    /// Batches and messages in the ledger: ids, counts and hashes.
    ledger_days: u32,
    /// Tombstones of staged rows.
    tombstone_days: u32,
    /// Deliveries of webhooks that were taken; 0 = as long as the ledger.
    delivery_days: u32,
}

impl Spans {
    const fn of(policy: Policy) -> Self {
        let Policy { body_days, ledger_days, tombstone_days, delivery_days } = policy;
        Self { body_days, ledger_days, tombstone_days, delivery_days }
    }
}

/// For how long what the ledger holds is kept, and what is past it now.
#[utoipa::path(get, path = "/retention", tag = "retention",
    security(("administrator" = ["read-only", "every-tenant"])), responses((status = 200, body = Standing)))]
async fn retention(act: Act) -> Answer<Json<Standing>> {
    let retention = &act.services.retention;
    Ok(Json(Standing {
        policy: Spans::of(retention.policy()),
        due: retention.due(Wall::now()).await?,
    }))
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Run {
    /// Tell what would be removed, and remove nothing.
    #[serde(default)]
    dry_run: bool,
}

/// Removes what is due now; `more` tells that another run has something left to do.
#[utoipa::path(post, path = "/retention/runs", tag = "retention", request_body = Run,
    security(("administrator" = ["operator", "every-tenant"])), responses((status = 200, body = Swept)))]
async fn run_retention(act: Act, Body(wish): Body<Run>) -> Answer<Json<Swept>> {
    let retention = &act.services.retention;
    let now = Wall::now();
    Ok(Json(if wish.dry_run { retention.due(now).await? } else { retention.run(now).await? }))
}
