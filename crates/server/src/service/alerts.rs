//! Alerts: what is wrong, who is told of it, and what people decide of it.
//!
//! Promises: the log and the list are told of everything, whatever else is set; a password is kept sealed and never told;
//! what a person decides is in the audit.
//! Never: judges by itself (`model::alert` does); sends a mail while it is asked something, but for a test.

mod look;
mod mails;
mod post;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Code, Error, Result,
    ids::{AlertId, EnvironmentId, TenantId},
    limits,
    names::TableName,
};
use runtime::clock::Wall;
use secrecy::{ExposeSecret as _, SecretString};

pub use look::Look;
pub use mails::Mails;

use super::{access::Access, staging::Staging};
use crate::{
    model::{
        alert::{
            Alert, Language, MailRoute, MailServer, MailTls, Pace, Wanted, rules::Threshold, words,
        },
        catalog::{At, Page},
        webhook::{EventKind, Webhook},
    },
    store::Store,
};

/// What the mail server's password is sealed to.
const LABEL: &str = "password of the mail server";
/// A silence ends at some time; who wants none at all switches the rule off.
const LONGEST_SILENCE: Duration = Duration::from_secs(90 * 86_400);

/// How alerts are made and told in this process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This server's address, as mails name it.
    pub source: String,
    pub pace: Pace,
    /// Below so many MiB free the disk of the data folder is told; 0: never.
    pub disk_free_mb: u32,
    /// How often is looked.
    pub period: Duration,
    /// A further authority whose certificates are trusted, in PEM.
    pub ca_pem: Option<Vec<u8>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            source: String::new(),
            pace: Pace::default(),
            disk_free_mb: 1_024,
            period: Duration::from_secs(30),
            ca_pem: None,
        }
    }
}

/// Alerts. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Alerts {
    store: Store,
    access: Access,
    staging: Staging,
    data: Arc<PathBuf>,
    settings: Arc<Settings>,
}

/// An address as somebody asks for it.
#[derive(Clone, Debug)]
pub struct NewRoute {
    pub address: String,
    pub language: Language,
    pub environment: Option<EnvironmentId>,
}

/// A mail server as somebody sets it.
#[derive(Clone, Debug)]
pub struct NewMailServer {
    pub host: String,
    /// `None`: the one that goes with `tls`.
    pub port: Option<u16>,
    pub tls: MailTls,
    pub from: String,
    /// User and password.
    pub login: Option<(String, SecretString)>,
}

/// Where alerts of a tenant go, beside the log and the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Routes {
    /// Webhooks that ask for alerts, by name.
    pub webhooks: Vec<String>,
    pub mails: Vec<MailRoute>,
    /// Without one mails wait.
    pub mail_server: bool,
}

/// Whether a mail server answers as it is set, with TLS or without; the words say why not. Nothing is sent.
pub(crate) async fn greeted(
    server: MailServer,
    ca_pem: Option<Vec<u8>>,
    patience: Duration,
) -> Result<(), String> {
    post::Post { server, password: None, ca_pem }.greet(patience).await
}

impl Alerts {
    #[must_use]
    pub fn new(store: Store, access: Access, staging: Staging, data: &Path) -> Self {
        let data = Arc::new(data.to_owned());
        Self { store, access, staging, data, settings: Arc::default() }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    /// The same, made and told in another way than by default.
    #[must_use]
    pub(super) fn with(self, settings: Settings) -> Self {
        Self { settings: Arc::new(settings), ..self }
    }

    /// What looks again and again; for the task of a running server.
    #[must_use]
    pub fn looking(&self) -> Look {
        Look::new(self.clone())
    }

    /// What sends the mails that wait; for the task of a running server.
    #[must_use]
    pub fn mailing(&self) -> Mails {
        Mails::new(self.clone())
    }

    /// How often to look.
    #[must_use]
    pub fn period(&self) -> Duration {
        self.settings.period
    }

    /// Alerts of a tenant, or of the server itself, the newest first.
    ///
    /// # Errors
    /// `BAD_ID` where the page begins behind no alert.
    pub async fn list(
        &self,
        tenant: Option<TenantId>,
        wanted: Wanted,
        page: Page,
    ) -> Result<Vec<Alert>> {
        self.store.alerts(tenant, wanted, page).await
    }

    /// # Errors
    /// `BAD_ID`, `NOT_FOUND`.
    pub async fn find(&self, tenant: Option<TenantId>, id: &str) -> Result<Alert> {
        self.store.alert(tenant, id.parse::<AlertId>()?).await
    }

    /// A person has seen it: it is not told again until it ends.
    ///
    /// # Errors
    /// `BAD_REQUEST` where it is resolved.
    pub async fn acknowledge(&self, alert: Alert) -> Result<Alert> {
        self.store.acknowledge_alert(alert, Wall::now()).await
    }

    /// Nothing is told of it until then, but the end of what was told before; `None` ends a silence.
    ///
    /// # Errors
    /// `BAD_REQUEST` where it lies in the past or too far ahead.
    pub async fn silence(&self, alert: Alert, until: Option<At>) -> Result<Alert> {
        let (now, until) = (Wall::now(), until.map(|until| Wall(until.0)));
        if let Some(until) = until
            && (until <= now || until.since(now) > LONGEST_SILENCE)
        {
            let words = "a silence ends in the future, at most 90 days ahead";
            return Err(Error::new(Code::BadRequest, words));
        }
        self.store.silence_alert(alert, until).await
    }

    /// Where alerts of a tenant, or of the server itself, go.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn routes(&self, tenant: Option<TenantId>) -> Result<Routes> {
        let mut webhooks = Vec::new();
        if let Some(tenant) = tenant {
            let all =
                self.store.webhooks(tenant, super::catalog::everything(), Wall::now()).await?;
            let asks = |webhook: &Webhook| {
                let mut events = webhook.events.iter();
                events.any(|kind| matches!(kind, EventKind::AlertRaised | EventKind::AlertResolved))
            };
            webhooks.extend(all.into_iter().filter(asks).map(|webhook| webhook.name));
        }
        Ok(Routes {
            webhooks,
            mails: self.store.mail_routes(tenant).await?,
            mail_server: self.store.mail_server().await?.is_some(),
        })
    }

    /// Puts these addresses in the place of those there are; what waits for one that is gone is not sent.
    ///
    /// # Errors
    /// `BAD_REQUEST` for what is no address, or more than there may be; `ALREADY_EXISTS` for one that stands twice.
    pub async fn set_routes(&self, tenant: Option<TenantId>, new: Vec<NewRoute>) -> Result<Routes> {
        if new.len() > limits::ALERT_ADDRESSES {
            let words = format!("alerts go to at most {} addresses", limits::ALERT_ADDRESSES);
            return Err(Error::new(Code::BadRequest, words));
        }
        let mut routes = Vec::with_capacity(new.len());
        for NewRoute { address, language, environment } in new {
            let address = post::address(&address)?;
            let (waiting, dead, last_error) = (0, 0, None);
            routes.push(MailRoute { address, language, environment, waiting, dead, last_error });
        }
        self.store.set_mail_routes(tenant, routes).await?;
        self.routes(tenant).await
    }

    /// From which threshold on a tenant's alerts are raised, where it is not the default.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn thresholds(&self, tenant: TenantId) -> Result<Vec<Threshold>> {
        Ok(self.store.thresholds(tenant).await?.0)
    }

    /// Puts these thresholds in the place of those there are.
    ///
    /// # Errors
    /// `BAD_REQUEST` where a rule has none there; `ALREADY_EXISTS` for one that stands twice.
    pub async fn set_thresholds(
        &self,
        tenant: TenantId,
        new: Vec<Threshold>,
    ) -> Result<Vec<Threshold>> {
        if new.len() > limits::ALERT_THRESHOLDS {
            let words = format!("a tenant has at most {} thresholds", limits::ALERT_THRESHOLDS);
            return Err(Error::new(Code::BadRequest, words));
        }
        let mut checked = Vec::with_capacity(new.len());
        for threshold in new {
            threshold.check()?;
            let table = match threshold.table.as_deref() {
                Some(table) => Some(table.parse::<TableName>()?.folded().to_owned()),
                None => None,
            };
            checked.push(Threshold { table, ..threshold });
        }
        self.store.set_thresholds(tenant, checked).await?;
        self.thresholds(tenant).await
    }

    /// The mail server, without its password.
    ///
    /// # Errors
    /// `NOT_FOUND` where none is set.
    pub async fn mail_server(&self) -> Result<MailServer> {
        let found = self.store.mail_server().await?.map(|(server, _)| server);
        found.ok_or_else(|| Error::new(Code::NotFound, "no mail server is set"))
    }

    /// Sets the mail server, or replaces it whole; what waits is tried at once.
    ///
    /// # Errors
    /// `BAD_REQUEST` for what is no host or address, and for a login that would travel in plain text to another machine.
    pub async fn set_mail_server(&self, new: NewMailServer) -> Result<MailServer> {
        let NewMailServer { host, port, tls, from, login } = new;
        let host = post::host(&host)?;
        if tls == MailTls::None && login.is_some() && !post::is_near(&host) {
            let words = "a login goes over TLS, or to a mail server on this machine";
            return Err(Error::new(Code::BadRequest, words));
        }
        let (user, password) = login.unzip();
        let sealed = match &password {
            Some(password) if password.expose_secret().is_empty() => {
                return Err(Error::new(Code::BadRequest, "the password is empty"));
            }
            Some(password) => Some(self.access.seal(LABEL, password)?),
            None => None,
        };
        let server = MailServer {
            host,
            port: port.unwrap_or(tls.port()),
            tls,
            from: post::sender(&from)?,
            user,
            set_at: At(Wall::now().0),
        };
        self.store.set_mail_server(Some((server.clone(), sealed))).await?;
        Ok(server)
    }

    /// Takes the mail server away; mails wait from then on.
    ///
    /// # Errors
    /// `NOT_FOUND` where none is set.
    pub async fn remove_mail_server(&self) -> Result<()> {
        self.mail_server().await?;
        self.store.set_mail_server(None).await
    }

    /// Sends one mail now, past all that waits.
    ///
    /// # Errors
    /// `BAD_REQUEST` for what is no address; `MAIL_UNSENT` with the reason where no mail server takes it.
    pub async fn test(&self, address: &str, language: Language) -> Result<()> {
        let address = post::address(address)?;
        let unsent = |words: String| Error::new(Code::MailUnsent, words);
        let post = self.post().await?.ok_or_else(|| unsent("no mail server is set".to_owned()))?;
        let (subject, text) = words::test(&self.settings.source, language);
        let name = format!("test-{}", Wall::now().0);
        let mail = post::Mail { to: address, subject, text, name };
        post.send(mail).await.map_err(|failed| unsent(failed.words))
    }

    /// The way to the mail server, where one is set.
    async fn post(&self) -> Result<Option<post::Post>> {
        let Some((server, sealed)) = self.store.mail_server().await? else { return Ok(None) };
        let password = sealed.map(|sealed| self.access.unseal(LABEL, &sealed)).transpose()?;
        Ok(Some(post::Post { server, password, ca_pem: self.settings.ca_pem.clone() }))
    }
}

#[cfg(test)]
mod tests;
