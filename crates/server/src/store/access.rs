//! Access in the embedded store: signing keys (sealed) and the look-up of a client with its holder.
//!
//! Promises: a client is found with its tenant, its binding and its revocation in one read.
//! Never: sees a secret or an unsealed key.

use crate::store::sql::{Optional as _, Row, SqlResult, Tx, named_params};
use protocol::{Code, Error, Result, limits};
use runtime::failpoint;

use super::{
    Store, Whose,
    audit::Deed,
    catalog::{rows, text_as},
    failed,
};
use crate::model::{
    access::{ClientRecord, HolderRecord, SealedKey, SigningKey},
    catalog::At,
};

impl Store {
    /// Signing keys in force at that moment; the one that signs comes first.
    pub(crate) async fn signing_keys(&self, now: i64) -> Result<Vec<SealedKey>> {
        failpoint::pass("access.keys", Code::StoreFailed).await?;
        self.read(Whose::All, move |connection| {
            connection
                .prepare_cached(
                    "SELECT kid, sealed, public_der FROM signing_key WHERE retired_at IS NULL OR retired_at > ?1
                     ORDER BY retired_at IS NOT NULL, created_at DESC, kid",
                )
                .map_err(failed)?
                .query_map([now], |row| {
                    Ok(SealedKey { kid: row.get(0)?, sealed: row.get(1)?, public_der: row.get(2)? })
                })
                .map_err(failed)
        })
        .await
    }

    /// Keeps a first signing key; where another process was faster, its key stays and this one is dropped.
    pub(crate) async fn add_first_signing_key(&self, key: SealedKey, now: i64) -> Result<()> {
        self.write(Whose::All, move |transaction| {
            transaction
                .execute(
                    "INSERT INTO signing_key (kid, sealed, public_der, created_at)
                     SELECT :kid, :sealed, :public_der, :now
                     WHERE NOT EXISTS (SELECT 1 FROM signing_key WHERE retired_at IS NULL)",
                    named_params! {":kid": key.kid, ":sealed": key.sealed, ":public_der": key.public_der, ":now": now},
                )
                .map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// Every signing key there was, the newest first.
    pub(crate) async fn all_signing_keys(&self) -> Result<Vec<SigningKey>> {
        self.read(Whose::All, |connection| {
            rows(
                connection,
                "SELECT kid, created_at, retired_at FROM signing_key ORDER BY created_at DESC, kid",
                &[],
                |row| {
                    Ok(SigningKey {
                        kid: row.get(0)?,
                        created_at: At(row.get(1)?),
                        retired_at: row.get::<Option<i64>>(2)?.map(At),
                    })
                },
            )
        })
        .await
    }

    /// Keeps a key that signs from now on; those of before verify until then.
    pub(crate) async fn rotate_signing_key(
        &self,
        key: SealedKey,
        now: i64,
        until: i64,
    ) -> Result<()> {
        let deed = Deed::global("signing-key.rotate", &key.kid)
            .with(format!("those of before verify until {}", At(until)));
        self.audited(deed, move |transaction| {
            transaction
                .execute(
                    "UPDATE signing_key SET retired_at = :until WHERE retired_at IS NULL OR retired_at > :until",
                    named_params! {":until": until},
                )
                .map_err(failed)?;
            transaction
                .execute(
                    "INSERT INTO signing_key (kid, sealed, public_der, created_at)
                     VALUES (:kid, :sealed, :public_der, :now)",
                    named_params! {":kid": key.kid, ":sealed": key.sealed, ":public_der": key.public_der, ":now": now},
                )
                .map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// The client of that id, revoked ones included.
    pub(crate) async fn client(&self, client_id: &str) -> Result<Option<ClientRecord>> {
        failpoint::pass("access.client", Code::StoreFailed).await?;
        let client_id = client_id.to_owned();
        self.read(Whose::All, move |connection| client(connection, &client_id)).await
    }

    /// Whether the writer commits and finds room for what it is given.
    ///
    /// # Errors
    /// `DISK_FULL`, `STORE_FAILED`.
    pub(crate) async fn takes_writes(&self) -> Result<()> {
        let free = self.folder().and_then(runtime::files::free);
        if let Some(free) = free.filter(|free| *free < limits::STORE_FREE_BYTES) {
            let words = format!("{free} bytes are free on the disk of the data folder");
            return Err(Error::new(Code::DiskFull, words));
        }
        // Nothing is written: a disk that is full shows above, one that is read-only or broken here.
        self.write(Whose::All, |_| Ok(())).await
    }
}

fn client(connection: &Tx<'_>, client_id: &str) -> Result<Option<ClientRecord>> {
    connection
        .prepare_cached(
            "SELECT c.client_id, c.tenant_id, t.name, c.secret_hmac, c.revoked_at,
                    c.installation_id, i.erp, i.environment_id, c.app_id, a.active
             FROM credential c
             JOIN tenant t ON t.id = c.tenant_id
             LEFT JOIN installation i ON i.tenant_id = c.tenant_id AND i.id = c.installation_id
             LEFT JOIN app a ON a.tenant_id = c.tenant_id AND a.id = c.app_id
             WHERE c.client_id = ?1",
        )
        .map_err(failed)?
        .query_row([client_id], record)
        .optional()
        .map_err(failed)?
        .map(|found| {
            found.ok_or_else(|| Error::new(Code::StoreFailed, "a credential has no holder"))
        })
        .transpose()
}

fn record(row: &Row<'_>) -> SqlResult<Option<ClientRecord>> {
    let holder = if let Some(installation) = text_as(row, 5)? {
        let Some(erp) = text_as(row, 6)? else { return Ok(None) };
        HolderRecord::Installation { id: installation, erp, environment: text_as(row, 7)? }
    } else {
        let Some(app) = text_as(row, 8)? else { return Ok(None) };
        HolderRecord::App { id: app, active: row.get::<Option<bool>>(9)?.unwrap_or(false) }
    };
    let (Some(client), Some(tenant)) = (text_as(row, 0)?, text_as(row, 1)?) else {
        return Ok(None);
    };
    Ok(Some(ClientRecord {
        client,
        tenant,
        tenant_name: row.get(2)?,
        secret_hmac: row.get(3)?,
        revoked: row.get::<Option<i64>>(4)?.is_some(),
        holder,
    }))
}
