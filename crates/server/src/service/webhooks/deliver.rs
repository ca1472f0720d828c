//! Deliver: tells events that wait, for the task of a running server.
//!
//! Promises: `batch.complete` is told only once the batch's rows are staged; a try that was made is written down with
//! what it came to; one whose outcome could not be written down is made again (at least once).
//! Never: decides when to try again (`model::delivery` does); logs an address, a body or a secret.

use metrics::{counter, gauge, histogram};
use protocol::{Code, Result};
use runtime::{
    clock::{Mono, Wall},
    entropy, failpoint,
};
use secrecy::SecretString;

use super::{Webhooks, label, post::Post, sign};
use crate::model::{
    delivery::{Next, Outcome},
    stream::StreamId,
    webhook::Claim,
};

/// What tells events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Deliverer {
    webhooks: Webhooks,
    post: Post,
}

impl Deliverer {
    pub(super) fn new(webhooks: &Webhooks) -> Result<Self> {
        let post = Post::new(&webhooks.calling)?;
        Ok(Self { webhooks: webhooks.clone(), post })
    }

    /// Lets go what waited for rows that are staged now. A stream that fails holds back only itself.
    ///
    /// # Errors
    /// The stores' own: the first one, once every other stream was looked at.
    pub async fn release(&self) -> Result<()> {
        let mut outcome = Ok(());
        for stream in self.webhooks.store.held_streams().await? {
            let place = format!("stream {} {}", stream.environment, stream.erp);
            let released = self.release_stream(stream).await;
            outcome = outcome.and(released.map_err(|error| error.at(place)));
        }
        outcome
    }

    async fn release_stream(&self, stream: StreamId) -> Result<()> {
        let Webhooks { store, staging, .. } = &self.webhooks;
        failpoint::pass("webhook.release", Code::StoreFailed).await?;
        let staged = staging.applied(stream.environment, &stream.erp).await?;
        store.release_staged(stream, (staged.applied, staged.complete_batch)).await.map(|_| ())
    }

    /// Takes deliveries that are due, at most so many.
    ///
    /// # Errors
    /// The store's own.
    pub async fn claim(&self, room: usize) -> Result<Vec<Claim>> {
        if room == 0 {
            return Ok(Vec::new());
        }
        let moment = (Wall::now(), entropy::fraction());
        let Webhooks { store, calling, .. } = &self.webhooks;
        let claims = store.claim_deliveries(room, calling.schedule, moment).await?;
        if !claims.is_empty() {
            failpoint::pass("webhook.claimed", Code::StoreFailed).await?;
        }
        Ok(claims)
    }

    /// Makes one try and writes down what it came to.
    pub async fn deliver(&self, claim: Claim) {
        let begun = Mono::now();
        let (outcome, words) = self.call(&claim).await;
        histogram!("malote_webhook_seconds").record(begun.elapsed().as_secs_f64());
        let Claim { webhook, event, attempt, receipt, .. } = &claim;
        let (store, schedule) = (&self.webhooks.store, self.webhooks.calling.schedule);
        let moment = (Wall::now(), entropy::fraction());
        let told = (outcome, words.clone());
        let words = words.unwrap_or_default();
        let called = failpoint::pass("webhook.called", Code::StoreFailed).await;
        let noted = match called {
            Ok(()) => store.settle_delivery(*receipt, told, schedule, moment).await,
            Err(error) => Err(error),
        };
        match noted {
            Ok(Some(Next::Done)) => {
                counter!("malote_webhook_tries_total", "outcome" => "done").increment(1);
            }
            Ok(Some(Next::Again { .. })) => {
                counter!("malote_webhook_tries_total", "outcome" => "failed").increment(1);
                tracing::info!(%webhook, event = %event.id, attempt, words, "an event could not be told, it is tried again");
            }
            Ok(Some(Next::Dead)) => {
                counter!("malote_webhook_tries_total", "outcome" => "dead").increment(1);
                tracing::warn!(%webhook, event = %event.id, attempt, words, "an event could not be told and its tries are used up");
            }
            Ok(None) => {
                tracing::info!(%webhook, event = %event.id, attempt, "a try ended after its lease, or its webhook was removed");
            }
            Err(error) => {
                tracing::warn!(%webhook, event = %event.id, code = %error.code, cause = error.cause(), "what a try came to cannot be noted, it is made again");
            }
        }
    }

    /// Counts what waits and what is dead.
    ///
    /// # Errors
    /// The store's own.
    pub async fn measure(&self) -> Result<()> {
        let (pending, dead) = self.webhooks.store.delivery_counts().await?;
        #[expect(clippy::cast_precision_loss, reason = "2^53 deliveries are never kept")]
        let gauges = (pending as f64, dead as f64);
        gauge!("malote_webhook_pending").set(gauges.0);
        gauge!("malote_webhook_dead").set(gauges.1);
        Ok(())
    }

    async fn call(&self, claim: &Claim) -> (Outcome, Option<String>) {
        let secrets = match self.secrets(claim) {
            Ok(secrets) => secrets,
            Err(error) => return (Outcome::Unanswered, Some(error.to_string())),
        };
        let body = claim.event.body(&self.webhooks.calling.source);
        let signature = sign::signature(&secrets, Wall::now().seconds(), &body);
        self.post.send(claim, &signature, body).await
    }

    /// Secrets in force, the newest first.
    pub(super) fn secrets(&self, claim: &Claim) -> Result<Vec<SecretString>> {
        let label = label(claim.tenant, claim.webhook);
        let former = claim.secrets.former.iter().map(|(sealed, _)| sealed);
        let all = std::iter::once(&claim.secrets.current).chain(former);
        all.map(|sealed| self.webhooks.access.unseal(&label, sealed)).collect()
    }
}
