//! Administrators: who may administer over the network, with tokens that are looked up on every call.
//!
//! Promises: a token is shown once and kept as an HMAC; one that expired or was revoked is refused from the next call on;
//! what an administrator does is audited under that name.
//! Never: takes a sender's token for an administrator's, or the other way round.

use protocol::{
    Code, Error, Result,
    ids::{AdminTokenId, AdministratorId, TenantId},
};
use runtime::{clock::Wall, entropy};
use secrecy::{ExposeSecret as _, SecretString};

use super::Access;
use crate::{
    model::{
        admin::{AdminToken, Administrator, AuditEntry, AuditQuery, Role},
        catalog::{At, Page},
    },
    service::catalog::{everything, named, pick},
};

/// Every administrator's token begins so: a scanner of secrets finds one that went astray.
const HEAD: &str = "malote_";

/// What a new token shall be.
#[derive(Clone, Debug)]
pub struct TokenWish {
    pub name: String,
    pub role: Role,
    pub tenant: Option<TenantId>,
    pub expires_at: Option<At>,
}

/// A new token; its text is shown once and kept nowhere.
#[derive(Debug)]
pub struct NewAdminToken {
    pub token: AdminToken,
    text: SecretString,
}

impl NewAdminToken {
    /// The token's text, for the one who asked for it.
    #[must_use]
    pub fn reveal(&self) -> &str {
        self.text.expose_secret()
    }
}

impl Access {
    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn create_administrator(&self, name: &str) -> Result<Administrator> {
        let id = AdministratorId(entropy::uuid());
        let created_at = At(Wall::now().0);
        let new = Administrator { id, name: named(name)?, created_at, revoked_at: None };
        self.store.add_administrator(new.clone()).await?;
        Ok(new)
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn administrators(&self, page: Page) -> Result<Vec<Administrator>> {
        self.store.administrators(page).await
    }

    /// By id or by name.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn administrator(&self, key: &str) -> Result<Administrator> {
        let all = self.store.administrators(everything()).await?;
        pick("administrator", key, all, |found| (found.id.0, &found.name))
    }

    /// Ends an administrator with all tokens, at once and for ever.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn revoke_administrator(&self, key: &str) -> Result<Administrator> {
        let found = self.administrator(key).await?;
        let now = At(Wall::now().0);
        self.store.revoke_administrator(found.clone(), now.0).await?;
        Ok(Administrator { revoked_at: found.revoked_at.or(Some(now)), ..found })
    }

    /// # Errors
    /// `NOT_FOUND`, `BAD_NAME`, `ALREADY_EXISTS`; `BAD_REQUEST` where it would be expired when it is made, or its
    /// administrator was revoked.
    pub async fn create_admin_token(&self, key: &str, wish: TokenWish) -> Result<NewAdminToken> {
        let of = self.administrator(key).await?;
        let now = At(Wall::now().0);
        if of.revoked_at.is_some() {
            let words = format!("administrator {:?} was revoked", of.name);
            return Err(Error::new(Code::BadRequest, words));
        }
        if wish.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::new(Code::BadRequest, "the token would be expired already"));
        }
        let token = AdminToken {
            id: AdminTokenId(entropy::uuid()),
            administrator: of.name,
            name: named(&wish.name)?,
            role: wish.role,
            tenant: wish.tenant,
            created_at: now,
            expires_at: wish.expires_at,
            revoked_at: None,
        };
        let secret = entropy::secret();
        let hmac = self.inner.master.admin_hmac(token.id, &secret);
        self.store.add_admin_token(of.id, token.clone(), hmac).await?;
        let text = format!("{HEAD}{}_{}", token.id.0.simple(), secret.expose_secret());
        Ok(NewAdminToken { token, text: text.into() })
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn admin_tokens(&self, key: &str, page: Page) -> Result<Vec<AdminToken>> {
        let of = self.administrator(key).await?;
        self.store.admin_tokens(of.id, page).await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn revoke_admin_token(&self, key: &str, name: &str) -> Result<()> {
        let of = self.administrator(key).await?;
        self.store.revoke_admin_token(of, name.trim().to_owned(), Wall::now().0).await
    }

    /// Whose token it is.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` where it is malformed, unknown, expired or revoked, all alike.
    pub async fn admin(&self, token: &str, now: Wall) -> Result<AdminToken> {
        let refused = || {
            metrics::counter!("malote_admin_token_refused_total").increment(1);
            Error::new(Code::Unauthenticated, "the administrator's token is not valid")
        };
        let (id, secret) = read(token).ok_or_else(refused)?;
        let record = self.store.admin_token(id).await?;
        // An unknown id costs the same HMAC as a known one.
        let kept = record.as_ref().map_or(&[0; 32][..], |record| &record.secret_hmac);
        let given = self.inner.master.admin_hmac(id, &secret);
        let equal: bool = subtle::ConstantTimeEq::ct_eq(&given[..], kept).into();
        match record {
            Some(record) if equal && record.is_in_force(At(now.0)) => Ok(record.token),
            _ => Err(refused()),
        }
    }

    /// What was done, the newest first.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>> {
        self.store.audit(query).await
    }

    /// The first entry of the audit that was changed, or that follows one that was taken out.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn first_broken_audit(&self) -> Result<Option<i64>> {
        self.store.first_broken_audit().await
    }
}

fn read(token: &str) -> Option<(AdminTokenId, SecretString)> {
    let (id, secret) = token.strip_prefix(HEAD)?.split_once('_')?;
    let fits = id.len() == 32 && secret.len() == 64 && secret.is_ascii();
    Some((id.parse().ok().filter(|_| fits)?, SecretString::from(secret)))
}
