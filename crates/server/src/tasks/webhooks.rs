//! Webhooks: a reconciler that tells what waits to be told.
//!
//! Promises: calls of different webhooks run side by side up to a bound, those of one webhook one after another; a
//! consumer that is slow or gone holds back only what is for itself; a call that ends makes room at once.
//! Never: ends before the drain; waits for long with it (what was cut off is told again after its lease).

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use protocol::{Result, limits};
use runtime::{
    clock::{Mono, sleep},
    shutdown::Shutdown,
    task,
};

use crate::service::webhooks::Deliverer;

/// How long what became due may wait for the next look.
const PERIOD: Duration = Duration::from_millis(500);
/// How often what waits is counted.
const MEASURE: Duration = Duration::from_secs(10);
/// How long calls under way may take to end with the drain.
const LAST: Duration = Duration::from_secs(3);

/// Runs until the drain.
pub async fn run(deliverer: Deliverer, mut shutdown: Shutdown) {
    let mut calls = FuturesUnordered::new();
    let mut measured: Option<Mono> = None;
    while !shutdown.is_draining() {
        if measured.is_none_or(|at| at.elapsed() >= MEASURE) {
            measured = Some(Mono::now());
            noted(deliverer.measure().await, "what waits to be told cannot be counted");
        }
        noted(deliverer.release().await, "events of staged batches cannot be let go");
        let room = limits::WEBHOOK_CALLS.saturating_sub(calls.len());
        let claims = noted(deliverer.claim(room).await, "what waits to be told cannot be taken");
        for claim in claims.unwrap_or_default() {
            let deliverer = deliverer.clone();
            // A task of its own, so that one that panics ends alone.
            let call = task::spawn("webhook-call", async move { deliverer.deliver(claim).await });
            calls.push(call.join());
        }
        tokio::select! {
            biased;
            () = shutdown.draining() => {}
            // How it ended is in the store; a panic was logged.
            Some(_) = calls.next() => {}
            () = sleep(PERIOD) => {}
        }
    }
    let rest = async { while calls.next().await.is_some() {} };
    if tokio::time::timeout(LAST, rest).await.is_err() {
        tracing::info!(
            "some consumers did not answer in time; they are told again after the start"
        );
    }
}

fn noted<T>(result: Result<T>, words: &str) -> Option<T> {
    result
        .inspect_err(|error| {
            tracing::warn!(code = %error.code, cause = error.cause(), "{words}, it is tried again");
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode};

    use super::*;
    use crate::{
        app::fixture::Running,
        model::{
            catalog::Page,
            delivery::State,
            webhook::{EventKind, Webhook},
        },
        service::webhooks::NewWebhook,
    };

    async fn webhook(running: &Running, name: &str, port: u16) -> Webhook {
        let new = NewWebhook {
            name: name.into(),
            url: format!("http://127.0.0.1:{port}/"),
            events: vec![EventKind::Incomplete],
            description: String::new(),
            environment: None,
        };
        running.app.services.webhooks.create(running.tenant.id, new).await.unwrap().webhook
    }

    async fn states(running: &Running, webhook: &Webhook) -> Vec<State> {
        let page = Page { limit: 10, ..Page::default() };
        let webhooks = &running.app.services.webhooks;
        let found = webhooks.deliveries(webhook.clone(), (None, None), page).await.unwrap();
        found.iter().map(|delivery| delivery.state).collect()
    }

    #[tokio::test]
    async fn a_consumer_that_never_answers_holds_up_neither_another_one_nor_the_drain() {
        let running = Running::start().await;
        // Connections are taken by the system and never answered.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(async || StatusCode::ACCEPTED);
        drop(task::spawn("consumer", async move { axum::serve(listener, router).await.unwrap() }));
        let silent = webhook(&running, "a silent one", silent.local_addr().unwrap().port()).await;
        let quick = webhook(&running, "quick", port).await;
        // Each batch but the last gives the one before it up.
        for batch in [100, 101, 102] {
            running.sent((batch, 1), &[&[("ID", "1"), ("S", "a")]]).await;
        }
        let begun = Mono::now();
        while states(&running, &quick).await != [State::Done, State::Done] {
            assert!(begun.elapsed() < limits::WEBHOOK_TIMEOUT, "it waits for the silent one");
            tokio::task::yield_now().await;
        }
        assert_eq!(states(&running, &silent).await, [State::Ready, State::Leased]);
        let (begun, services) = (Mono::now(), running.app.services.clone());
        running.app.stop().await;
        assert!(begun.elapsed() < limits::WEBHOOK_TIMEOUT, "{:?}", begun.elapsed());
        drop(services);
    }
}
