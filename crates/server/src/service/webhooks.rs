//! Webhooks: where a tenant's consumers are told of batches.
//!
//! Promises: a secret is told once, when it is made, and kept sealed; an address that may not be called is refused when
//! it is set and again before each call; what a person changes, tests or replays is in the audit.
//! Never: tells an event itself (`deliver` does, for the task); shows a secret or the query of an address.

mod deliver;
mod post;
mod sign;

use std::sync::Arc;

use protocol::{
    Code, Error, Result,
    ids::{EnvironmentId, EventId, TenantId, WebhookId},
    limits,
};
use runtime::{clock::Wall, entropy};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

pub use deliver::Deliverer;
pub use post::Reach;

use super::{
    access::Access,
    catalog::{everything, named, pick},
    staging::Staging,
};
pub use crate::store::webhook::Replay;
use crate::{
    model::{
        carol::Envelope,
        catalog::{At, Page},
        delivery::{Schedule, State},
        webhook::{Delivery, EventKind, Target, Webhook},
    },
    store::Store,
};

/// Every secret of a webhook begins so: a scanner of secrets finds one that went astray.
const HEAD: &str = "whsec_";
/// Longest description: a paragraph.
const DESCRIPTION_BYTES: usize = 2_048;

/// How webhooks are called in this process.
#[derive(Clone, Debug, Default)]
pub struct Calling {
    /// This server's address, as events name it.
    pub source: String,
    pub schedule: Schedule,
    pub reach: Reach,
    /// A further authority whose certificates are trusted, in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// Webhooks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Webhooks {
    store: Store,
    access: Access,
    staging: Staging,
    calling: Arc<Calling>,
}

/// A webhook as somebody asks for it.
#[derive(Clone, Debug)]
pub struct NewWebhook {
    pub name: String,
    pub url: String,
    /// Empty: `batch.complete` alone.
    pub events: Vec<EventKind>,
    pub description: String,
    /// `None`: every environment of the tenant.
    pub environment: Option<EnvironmentId>,
}

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct WebhookChange {
    pub name: Option<String>,
    pub url: Option<String>,
    pub events: Option<Vec<EventKind>>,
    pub description: Option<String>,
    /// `Some(None)`: every environment.
    pub environment: Option<Option<EnvironmentId>>,
}

/// A webhook with a secret that was just made.
#[derive(Debug)]
pub struct WithSecret {
    pub webhook: Webhook,
    secret: SecretString,
}

impl WithSecret {
    /// The secret, for the one who asked for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.secret.expose_secret()
    }
}

impl Webhooks {
    #[must_use]
    pub fn new(store: Store, access: Access, staging: Staging) -> Self {
        Self { store, access, staging, calling: Arc::default() }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    /// The same, which call in another way than by default.
    #[must_use]
    pub(super) fn calling(self, calling: Calling) -> Self {
        Self { calling: Arc::new(calling), ..self }
    }

    /// What tells events; for the task of a running server.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the further authority is no certificate.
    pub fn deliverer(&self) -> Result<Deliverer> {
        Deliverer::new(self)
    }

    /// Makes a webhook; its secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// `BAD_NAME`, `BAD_REQUEST`, `ADDRESS_REFUSED`; `ALREADY_EXISTS` for a name that is taken.
    pub async fn create(&self, tenant: TenantId, new: NewWebhook) -> Result<WithSecret> {
        let (now, id) = (Wall::now(), WebhookId(entropy::uuid()));
        let webhook = Webhook {
            tenant,
            id,
            name: named(&new.name)?,
            environment: new.environment,
            url: self.target(&new.url)?,
            events: asked(new.events)?,
            description: described(&new.description)?,
            created_at: At(now.0),
            paused_at: None,
            secret_at: At(now.0),
            former_until: None,
            failures: 0,
            rests_until: None,
            pending: 0,
            dead: 0,
        };
        let (secret, sealed) = self.new_secret(tenant, id)?;
        self.store.add_webhook(webhook.clone(), sealed).await?;
        Ok(WithSecret { webhook, secret })
    }

    /// Webhooks of a tenant, by name.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn list(&self, tenant: TenantId, page: Page) -> Result<Vec<Webhook>> {
        self.store.webhooks(tenant, page, Wall::now()).await
    }

    /// By id or name; an empty key is the only one there is.
    ///
    /// # Errors
    /// `NOT_FOUND`, or `BAD_REQUEST` where nothing was given and there are several.
    pub async fn find(&self, tenant: TenantId, key: &str) -> Result<Webhook> {
        let all = self.list(tenant, everything()).await?;
        pick("webhook", key, all, |webhook| (webhook.id.0, &webhook.name))
    }

    /// Changes what people set.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn change(&self, webhook: Webhook, change: WebhookChange) -> Result<Webhook> {
        let mut new = webhook;
        if let Some(name) = change.name {
            new.name = named(&name)?;
        }
        if let Some(url) = change.url {
            new.url = self.target(&url)?;
        }
        if let Some(events) = change.events {
            new.events = asked(events)?;
        }
        if let Some(description) = change.description {
            new.description = described(&description)?;
        }
        if let Some(environment) = change.environment {
            new.environment = environment;
        }
        self.store.change_webhook(new.clone()).await?;
        self.find(new.tenant, &new.id.to_string()).await
    }

    /// Holds deliveries back; events are noted meanwhile, and wait.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn pause(&self, webhook: Webhook) -> Result<Webhook> {
        let (tenant, id) = (webhook.tenant, webhook.id.to_string());
        self.store.pause_webhook(webhook, Some(Wall::now())).await?;
        self.find(tenant, &id).await
    }

    /// Lets deliveries go out again, those that waited among them.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn resume(&self, webhook: Webhook) -> Result<Webhook> {
        let (tenant, id) = (webhook.tenant, webhook.id.to_string());
        self.store.pause_webhook(webhook, None).await?;
        self.find(tenant, &id).await
    }

    /// Makes another secret. The one of before signs as well for `keep_hours`; 0: it is out of force at once.
    ///
    /// # Errors
    /// `STILL_USED` where two are in force already and `keep_hours` is not 0; `BAD_REQUEST` above the longest overlap.
    pub async fn rotate(&self, webhook: Webhook, keep_hours: u32) -> Result<WithSecret> {
        let longest = limits::WEBHOOK_SECRET_OVERLAP.as_secs() / 3_600;
        if u64::from(keep_hours) > longest {
            let words = format!("the secret of before stays in force for at most {longest} hours");
            return Err(Error::new(Code::BadRequest, words));
        }
        let now = Wall::now();
        let until = Wall(now.0.saturating_add(i64::from(keep_hours) * 3_600_000_000));
        let (tenant, id) = (webhook.tenant, webhook.id);
        let (secret, sealed) = self.new_secret(tenant, id)?;
        let overlap = (now, (keep_hours > 0).then_some(until));
        self.store.rotate_webhook(webhook, sealed, overlap).await?;
        Ok(WithSecret { webhook: self.find(tenant, &id.to_string()).await?, secret })
    }

    /// Removes a webhook with its deliveries, those that wait among them.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn remove(&self, webhook: Webhook) -> Result<()> {
        self.store.remove_webhook(webhook).await
    }

    /// Has a test told, once and at once, also where the webhook is paused; how it went stands among the deliveries.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn test(&self, webhook: Webhook) -> Result<Delivery> {
        let data = json!({ "tenantId": webhook.tenant.to_string(), "webhookId": webhook.id.to_string(),
            "webhook": webhook.name });
        let id = self.store.add_test(webhook.clone(), data.to_string(), Wall::now()).await?;
        Ok(self.store.delivery(webhook, id).await?.0)
    }

    /// Deliveries of a webhook, the newest first.
    ///
    /// # Errors
    /// `BAD_ID` where the page begins behind no event.
    pub async fn deliveries(
        &self,
        webhook: Webhook,
        wanted: (Option<State>, Option<EventKind>),
        page: Page,
    ) -> Result<Vec<Delivery>> {
        self.store.deliveries(webhook, wanted, page).await
    }

    /// One delivery, and the body that is sent.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn delivery(&self, webhook: Webhook, id: EventId) -> Result<(Delivery, String)> {
        let (delivery, event) = self.store.delivery(webhook, id).await?;
        Ok((delivery, event.body(&self.calling.source)))
    }

    /// Has deliveries that ended told again, with all their tries before them; tells how many they are, or would be.
    ///
    /// # Errors
    /// `NOT_FOUND` for one that does not exist or has not ended; `BAD_REQUEST` for a state that is no end.
    pub async fn replay(&self, webhook: Webhook, which: Replay, dry_run: bool) -> Result<u64> {
        if let Replay::All { state: State::Ready | State::Leased, .. } = which {
            let words = "what is done or dead is told again; all else is still to be told";
            return Err(Error::new(Code::BadRequest, words));
        }
        self.store.replay(webhook, which, (dry_run, Wall::now())).await
    }

    fn target(&self, url: &str) -> Result<Target> {
        self.calling.reach.check(url.trim()).map(|url| Target(url.to_string()))
    }

    fn new_secret(&self, tenant: TenantId, id: WebhookId) -> Result<(SecretString, Envelope)> {
        let secret: SecretString = format!("{HEAD}{}", entropy::secret().expose_secret()).into();
        let sealed = self.access.seal(&label(tenant, id), &secret)?;
        Ok((secret, sealed))
    }
}

/// What an envelope is bound to: it opens for this webhook alone.
fn label(tenant: TenantId, id: WebhookId) -> String {
    format!("webhook secret of {tenant} {id}")
}

fn asked(mut events: Vec<EventKind>) -> Result<Vec<EventKind>> {
    if events.contains(&EventKind::Test) {
        let words = "webhook.test is not asked for: it comes when a test is ordered";
        return Err(Error::new(Code::BadRequest, words));
    }
    if events.is_empty() {
        events.push(EventKind::Complete);
    }
    events.sort_unstable();
    events.dedup();
    Ok(events)
}

fn described(text: &str) -> Result<String> {
    let text = text.trim();
    if text.len() > DESCRIPTION_BYTES {
        let words = format!("a description has at most {DESCRIPTION_BYTES} bytes");
        return Err(Error::new(Code::BadRequest, words));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
