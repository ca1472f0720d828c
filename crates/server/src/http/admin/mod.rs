//! Administration over HTTP: everything the command line can do to a server's set-up and see of its data.
//!
//! Promises: each call goes through the services the command line uses; lists are paged alike.
//! Never: decides; who may call stands in each operation's `security`, and the gate holds it.

mod administrators;
mod alerts;
mod batches;
mod carol;
mod catalog;
mod credentials;
mod entities;
mod fleet;
mod keys;
mod quarantine;
mod retention;
mod staging;
mod tenants;
mod webhooks;

use utoipa_axum::router::OpenApiRouter;

use super::Desk;

/// Where all of it lies.
pub(super) const PREFIX: &str = "/api/admin/v1";

pub(super) fn routes() -> OpenApiRouter<Desk> {
    let all = OpenApiRouter::new()
        .merge(administrators::routes())
        .merge(tenants::routes())
        .merge(catalog::routes())
        .merge(credentials::routes())
        .merge(keys::routes())
        .merge(carol::routes())
        .merge(entities::routes())
        .merge(batches::routes())
        .merge(fleet::routes())
        .merge(staging::routes())
        .merge(quarantine::routes())
        .merge(retention::routes())
        .merge(webhooks::routes())
        .merge(alerts::routes());
    OpenApiRouter::new().nest(PREFIX, all)
}

#[cfg(test)]
mod tests;
