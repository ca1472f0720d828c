//! Access: who calls. Client secrets, tokens (RAC-compatible), and the look-up of a client on every call.
//!
//! Promises: a revoked client is refused at the latest when its cached look-up ends (`limits::CLIENT_CACHE`), whatever
//! life its token has left; tenant comes from the token, environment and ERP from the client's binding, nothing from
//! a message.
//! Never: stores or logs a secret; trusts a key, an algorithm or an issuer that a token names.

mod admins;
mod carol;
mod keys;
mod signing;
mod token;

use std::{
    collections::HashMap,
    path::Path,
    str::FromStr as _,
    sync::{Arc, Mutex},
};

use protocol::{
    Code, Error, Result,
    ids::{ClientId, EnvironmentId, TenantId},
    json, limits,
    names::ErpName,
};
use runtime::clock::{Mono, Wall};
use secrecy::{ExposeSecret as _, SecretString};

use super::Caller;
use crate::{
    model::{
        access::{ClientRecord, HolderRecord},
        carol::Envelope,
        catalog::{Credential, Holder},
    },
    store::Store,
};
pub use admins::{NewAdminToken, TokenWish};
pub use carol::NewCarol;
pub(crate) use keys::{MasterKey, fits};
use signing::Signers;

/// Look-ups kept at once; above it the cache starts anew.
const CACHED_CLIENTS: usize = 10_000;

/// Identity of callers. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
    /// The store for whoever acts through this handle.
    store: Store,
    /// Plain and private addresses may be set.
    allow_private: bool,
}

struct Inner {
    store: Store,
    master: MasterKey,
    signers: Signers,
    cache: Mutex<HashMap<ClientId, (Mono, Arc<ClientRecord>)>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Access")
    }
}

/// What a valid token says, with the client behind it.
#[derive(Clone, Debug)]
pub struct Identity {
    record: Arc<ClientRecord>,
}

/// A new client; the secret is shown once and kept nowhere.
#[derive(Debug)]
pub struct NewCredential {
    pub credential: Credential,
    secret: SecretString,
}

impl NewCredential {
    /// The secret, for the one who asked for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.secret.expose_secret()
    }
}

impl Access {
    /// Seals a secret that another service keeps; it opens with `label` alone.
    ///
    /// # Errors
    /// `INTERNAL`.
    pub(super) fn seal(&self, label: &str, secret: &SecretString) -> Result<Envelope> {
        self.inner.master.envelope(label, secret)
    }

    /// What was sealed with `label`.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the key file is not this store's.
    pub(super) fn unseal(&self, label: &str, sealed: &Envelope) -> Result<SecretString> {
        self.inner.master.opened(label, sealed)
    }

    /// Opens the key file beside the store, and makes the first signing key where there is none.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the key file is not this store's, or others may read it; `STORE_FAILED`.
    pub async fn open(store: Store, data: &Path, issuer: String) -> Result<Self> {
        let folder = data.to_owned();
        if !keys::is_there(data) && !store.all_signing_keys().await?.is_empty() {
            let words = format!("there is no key file {}", keys::path(data).display());
            return Err(Error::new(
                Code::ConfigInvalid,
                format!(
                    "{words}, and the store was made with one: what it sealed opens with that one alone, so restore it"
                ),
            ));
        }
        let master = runtime::task::blocking(move || MasterKey::open(&folder)).await??;
        let signers = Signers::open(&store, &master, issuer).await?;
        let inner = Inner { store: store.clone(), master, signers, cache: Mutex::default() };
        Ok(Self { inner: Arc::new(inner), store, allow_private: false })
    }

    /// Whether plain http and private addresses may be set.
    #[must_use]
    pub(super) fn allowing_private(self, allow_private: bool) -> Self {
        Self { allow_private, ..self }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), ..self.clone() }
    }

    /// Makes a client of `holder`.
    ///
    /// # Errors
    /// `NOT_FOUND` where the holder is not the tenant's, `STORE_FAILED`.
    pub async fn create_credential(
        &self,
        tenant: TenantId,
        holder: Holder,
    ) -> Result<NewCredential> {
        self.new_credential(tenant, holder, false).await
    }

    async fn new_credential(
        &self,
        tenant: TenantId,
        holder: Holder,
        rotates: bool,
    ) -> Result<NewCredential> {
        let secret = runtime::entropy::secret();
        let client = ClientId::from_str(&runtime::entropy::uuid().simple().to_string())?;
        let created_at = crate::model::catalog::At(Wall::now().0);
        let credential = Credential { tenant, client, holder, created_at, revoked_at: None };
        let hmac = self.inner.master.secret_hmac(&credential.client, &secret);
        self.store.add_credential(credential.clone(), hmac, rotates).await?;
        Ok(NewCredential { credential, secret })
    }

    /// Makes a second client for the holder of `client`, so that senders can change over while both are in force;
    /// revoking the first ends the rotation.
    ///
    /// # Errors
    /// `NOT_FOUND`; `BAD_REQUEST` where `client` was revoked; `STILL_USED` where its holder has two in force already.
    pub async fn rotate(&self, tenant: TenantId, client: &ClientId) -> Result<NewCredential> {
        let all = self.store.credentials(tenant, super::catalog::everything()).await?;
        let missing = || Error::new(Code::NotFound, format!("the tenant has no client {client}"));
        let found = all.iter().find(|credential| credential.client == *client);
        let found = found.ok_or_else(missing)?;
        if found.revoked_at.is_some() {
            return Err(Error::new(Code::BadRequest, format!("client {client} was revoked")));
        }
        self.new_credential(tenant, found.holder, true).await
    }

    /// Revokes a client for ever.
    ///
    /// # Errors
    /// `NOT_FOUND` where the tenant has no such client.
    pub async fn revoke_credential(&self, tenant: TenantId, client: &ClientId) -> Result<()> {
        self.store.revoke_credential(tenant, client.clone(), Wall::now().0).await?;
        if let Ok(mut cache) = self.inner.cache.lock() {
            cache.remove(client);
        }
        Ok(())
    }

    /// The token call: client id and secret in, token out.
    ///
    /// # Errors
    /// `INVALID_CLIENT` for a wrong id or secret and for a revoked client alike.
    pub async fn issue(
        &self,
        client_id: &str,
        secret: &SecretString,
        now: Wall,
    ) -> Result<json::Token> {
        let refused = || {
            Error::new(
                Code::InvalidClient,
                "client id or secret is wrong, or the client was revoked",
            )
        };
        let record = match ClientId::from_str(client_id) {
            Ok(client) => self.look_up(&client).await?,
            Err(_) => None,
        };
        // An unknown id costs the same HMAC as a known one, so that ids cannot be told by the time they take.
        let fits = self.inner.master.verify_secret(client_id, secret, record.as_deref());
        match record {
            Some(record) if fits && !record.revoked => self.signer(now).await.issue(&record, now),
            _ => Err(refused()),
        }
    }

    /// Reads a token and looks its client up.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where the token is bad, expired or its client is revoked.
    pub async fn identify(&self, token: &str, now: Wall) -> Result<Identity> {
        let claims = self.verify(token, now).await?;
        let refused =
            || Error::new(Code::Unauthenticated, "the token's client is unknown or was revoked");
        let record = self.look_up(&claims.client).await?.ok_or_else(refused)?;
        if record.revoked || record.tenant != claims.tenant {
            return Err(refused());
        }
        Ok(Identity { record })
    }

    /// As [`Access::identify`], for senders: the client must belong to an installation bound to an environment.
    /// The connection is 0; the edge sets it.
    ///
    /// # Errors
    /// Also `PERMISSION_DENIED` where the client is an app's or the installation is not bound.
    pub async fn authenticate(&self, token: &str, now: Wall) -> Result<Caller> {
        self.identify(token, now).await?.caller()
    }

    /// Public keys for those who verify tokens themselves.
    pub async fn jwks(&self, now: Wall) -> serde_json::Value {
        self.signer(now).await.jwks()
    }

    /// Whether the store commits and has room.
    ///
    /// # Errors
    /// `DISK_FULL`, `STORE_FAILED`.
    pub async fn takes_writes(&self) -> Result<()> {
        self.inner.store.takes_writes().await
    }

    async fn look_up(&self, client: &ClientId) -> Result<Option<Arc<ClientRecord>>> {
        if let Ok(cache) = self.inner.cache.lock()
            && let Some((since, record)) = cache.get(client)
            && since.elapsed() < limits::CLIENT_CACHE
        {
            return Ok(Some(Arc::clone(record)));
        }
        // Taken before the read: what changes while it runs is seen at the latest one cache life after it.
        let since = Mono::now();
        let Some(record) = self.inner.store.client(client.as_str()).await?.map(Arc::new) else {
            return Ok(None);
        };
        if let Ok(mut cache) = self.inner.cache.lock() {
            if cache.len() >= CACHED_CLIENTS {
                cache.clear();
            }
            cache.insert(client.clone(), (since, Arc::clone(&record)));
        }
        Ok(Some(record))
    }
}

impl Identity {
    #[must_use]
    pub fn tenant(&self) -> TenantId {
        self.record.tenant
    }

    /// ERP and environment, where the client is an installation's.
    #[must_use]
    pub fn installation(&self) -> Option<(&ErpName, Option<EnvironmentId>)> {
        match &self.record.holder {
            HolderRecord::Installation { erp, environment, .. } => Some((erp, *environment)),
            HolderRecord::App { .. } => None,
        }
    }

    /// # Errors
    /// `PERMISSION_DENIED` where the client cannot send rows.
    pub fn caller(&self) -> Result<Caller> {
        let denied = |why: &str| Error::new(Code::PermissionDenied, why);
        match &self.record.holder {
            HolderRecord::App { .. } => {
                Err(denied("this credential is an app's; rows are sent by an installation"))
            }
            HolderRecord::Installation { environment: None, .. } => {
                Err(denied("the installation of this credential is not bound to an environment"))
            }
            HolderRecord::Installation { id, erp, environment: Some(environment) } => Ok(Caller {
                tenant: self.record.tenant,
                environment: *environment,
                installation: *id,
                client: self.record.client.clone(),
                erp: erp.clone(),
                connection: 0,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
