//! Signing: which key signs tokens now, which ones still verify them, and the change from one to the next.
//!
//! Promises: after a change the old key verifies for as long as a token lives, unless it is taken away at once; a server
//! sees what another process changed when it meets the new key, and at the latest after [`LIFE`].
//! Never: signs with a key that has a successor.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::{Result, limits};
use runtime::clock::{Mono, Wall};

use super::{
    Access, MasterKey, keys,
    token::{Signer, Verified},
};
use crate::{
    model::{access::SigningKey, catalog::At},
    store::Store,
};

/// How long keys are used before the store is asked again.
const LIFE: std::time::Duration = limits::CLIENT_CACHE;
/// A token of an unknown key asks the store again, but not more often than this: anyone can make such tokens.
const UNKNOWN: std::time::Duration = std::time::Duration::from_secs(1);

/// The keys in force, as they were read last.
pub(super) struct Signers {
    issuer: String,
    held: Mutex<(Arc<Signer>, Mono)>,
}

impl Signers {
    /// Reads the keys of the store; makes the first one where there is none.
    pub(super) async fn open(store: &Store, master: &MasterKey, issuer: String) -> Result<Self> {
        let now = Wall::now();
        let mut sealed = store.signing_keys(now.0).await?;
        if sealed.is_empty() {
            store.add_first_signing_key(made(master).await?, now.0).await?;
            sealed = store.signing_keys(now.0).await?;
        }
        let signer = Arc::new(Signer::new(master, &sealed, issuer.clone())?);
        Ok(Self { issuer, held: Mutex::new((signer, Mono::now())) })
    }

    /// As they were read last.
    pub(super) fn held(&self) -> Arc<Signer> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn are_older_than(&self, age: std::time::Duration) -> bool {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).1.elapsed() >= age
    }

    /// Reads the store. Where it cannot be read the keys of before serve: they were good a moment ago.
    async fn read(&self, store: &Store, master: &MasterKey, now: Wall) -> Arc<Signer> {
        let read = async {
            let sealed = store.signing_keys(now.0).await?;
            let held = self.held();
            if held.has_exactly(&sealed) {
                return Ok(held);
            }
            Ok(Arc::new(Signer::new(master, &sealed, self.issuer.clone())?))
        };
        let read: Result<Arc<Signer>> = read.await;
        match read {
            Ok(signer) => {
                let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                *held = (Arc::clone(&signer), Mono::now());
                signer
            }
            Err(error) => {
                tracing::warn!(code = %error.code, cause = error.cause(), "signing keys not read; those of before serve");
                self.held()
            }
        }
    }
}

async fn made(master: &MasterKey) -> Result<crate::model::access::SealedKey> {
    let master = master.clone();
    runtime::task::blocking(move || keys::new_signing_key(&master)).await?
}

impl Access {
    /// The keys in force, read again where they are old.
    pub(super) async fn signer(&self, now: Wall) -> Arc<Signer> {
        if self.inner.signers.are_older_than(LIFE) {
            self.read_keys(now).await
        } else {
            self.inner.signers.held()
        }
    }

    /// What a token says. One that is refused may be signed by a key that is not known yet; only then is that looked at.
    ///
    /// # Errors
    /// As [`Signer::verify`].
    pub(super) async fn verify(&self, token: &str, now: Wall) -> Result<Verified> {
        let signer = self.signer(now).await;
        let refused = match signer.verify(token, now) {
            Err(error) => error,
            good => return good,
        };
        if signer.knows_key_of(token) || !self.inner.signers.are_older_than(UNKNOWN) {
            return Err(refused);
        }
        self.read_keys(now).await.verify(token, now)
    }

    pub(super) async fn read_keys(&self, now: Wall) -> Arc<Signer> {
        self.inner.signers.read(&self.inner.store, &self.inner.master, now).await
    }

    /// Every signing key there was, the newest first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKey>> {
        self.store.all_signing_keys().await
    }

    /// Makes a key that signs from now on. Those of before verify until their last token has ended, or, `at_once`, no more:
    /// senders then fetch new tokens by themselves. Another server process follows within [`LIFE`].
    ///
    /// # Errors
    /// The store's own; the key of before signs on then.
    pub async fn rotate_signing_key(&self, at_once: bool, now: Wall) -> Result<SigningKey> {
        let key = made(&self.inner.master).await?;
        let made = SigningKey { kid: key.kid.clone(), created_at: At(now.0), retired_at: None };
        // A process that has not seen the new key yet signs with the old one for as long as it keeps what it read.
        let grace = if at_once { std::time::Duration::ZERO } else { limits::TOKEN_LIFE + LIFE };
        let until = now.0.saturating_add(i64::try_from(grace.as_micros()).unwrap_or(i64::MAX));
        self.store.rotate_signing_key(key, now.0, until).await?;
        self.read_keys(now).await;
        Ok(made)
    }
}
