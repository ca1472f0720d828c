//! Carol credentials: set by an administrator, given to the tenant's own senders.
//!
//! Promises: the token is kept sealed and opened only for the call that the tenant's sender makes with its own token
//! (`contracts.md` 4.2).
//! Never: shows an administrator the token again.

use protocol::{Code, Error, Result, ids::TenantId};
use runtime::clock::Wall;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Access, Identity};
use crate::model::{
    carol::{CarolCredential, SealedCarol},
    catalog::At,
};

/// Longest of each part; the real ones have below 100 bytes.
const PART_BYTES: usize = 512;

/// A connector as an administrator gives it.
#[derive(Debug)]
pub struct NewCarol {
    pub endpoint: String,
    pub organization: String,
    pub carol_tenant: String,
    pub connector_id: String,
    pub token: SecretString,
}

impl Access {
    /// Sets a tenant's connector, or replaces it.
    ///
    /// # Errors
    /// `BAD_REQUEST` for a part that is empty or too long and an endpoint that is no address, `ADDRESS_REFUSED` for a plain or private address.
    pub async fn set_carol(&self, tenant: TenantId, new: NewCarol) -> Result<CarolCredential> {
        let endpoint = part("endpoint", &new.endpoint)?.trim_end_matches('/').to_owned();
        crate::config::check_address(&endpoint, self.allow_private).map_err(|error| {
            match error.code {
                // The caller's word, not this process's configuration.
                Code::ConfigInvalid => Error::new(Code::BadRequest, error.message).at("endpoint"),
                _ => error,
            }
        })?;
        let shown = CarolCredential {
            endpoint,
            organization: part("organization", &new.organization)?,
            carol_tenant: part("tenant at Carol", &new.carol_tenant)?,
            connector_id: part("connector id", &new.connector_id)?,
            set_at: At(Wall::now().0),
        };
        part("token", new.token.expose_secret())?;
        let token = self.inner.master.envelope(&label(tenant), &new.token)?;
        self.store.set_carol(SealedCarol { tenant, shown: shown.clone(), token }).await?;
        Ok(shown)
    }

    /// A tenant's connector, without its token.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn carol(&self, tenant: TenantId) -> Result<CarolCredential> {
        Ok(self.sealed(tenant).await?.shown)
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn remove_carol(&self, tenant: TenantId) -> Result<()> {
        self.store.remove_carol(tenant).await
    }

    /// The connector of the caller's tenant with its token, for the caller.
    ///
    /// # Errors
    /// `NOT_FOUND`; `CONFIG_INVALID` where the key file is not this store's.
    pub async fn carol_for(&self, caller: &Identity) -> Result<(CarolCredential, SecretString)> {
        let sealed = self.sealed(caller.tenant()).await?;
        let token = self.inner.master.opened(&label(caller.tenant()), &sealed.token)?;
        Ok((sealed.shown, token))
    }

    async fn sealed(&self, tenant: TenantId) -> Result<SealedCarol> {
        let missing = || {
            let words = "no Carol connector is configured for this tenant";
            Error::new(Code::NotFound, words)
        };
        self.store.carol(tenant).await?.ok_or_else(missing)
    }
}

/// What the envelope is bound to: it opens for this tenant alone.
fn label(tenant: TenantId) -> String {
    format!("carol token of {tenant}")
}

fn part(what: &str, text: &str) -> Result<String> {
    let text = text.trim();
    if text.is_empty() || text.len() > PART_BYTES || text.chars().any(char::is_control) {
        let words = format!("{what} has 1 to {PART_BYTES} bytes and no control characters");
        return Err(Error::new(Code::BadRequest, words));
    }
    Ok(text.to_owned())
}
