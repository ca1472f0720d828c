//! Carol credentials in the embedded store.
//!
//! Promises: one connector per tenant; setting it replaces what was there.
//! Never: sees an unsealed token.

use crate::store::sql::{Optional as _, named_params};
use protocol::{Code, Error, Result, ids::TenantId};

use super::{Store, audit::Deed, catalog::change, failed};
use crate::model::{
    carol::{CarolCredential, Envelope, SealedCarol},
    catalog::At,
};

impl Store {
    pub(crate) async fn set_carol(&self, new: SealedCarol) -> Result<()> {
        let deed = Deed::of("carol.set", new.tenant, &new.shown.connector_id);
        self.audited(deed.with(&new.shown.endpoint), move |transaction| {
            let SealedCarol { tenant, shown, token } = new;
            change(
                transaction,
                "a Carol credential",
                "INSERT INTO carol_credential
                 (tenant_id, endpoint, organization, carol_tenant, connector_id, sealed_key, sealed_token, set_at)
                 VALUES (:tenant, :endpoint, :organization, :carol, :connector, :key, :token, :at)
                 ON CONFLICT (tenant_id) DO UPDATE SET endpoint = excluded.endpoint,
                    organization = excluded.organization, carol_tenant = excluded.carol_tenant,
                    connector_id = excluded.connector_id, sealed_key = excluded.sealed_key,
                    sealed_token = excluded.sealed_token, set_at = excluded.set_at",
                named_params! {":tenant": tenant.to_string(), ":endpoint": shown.endpoint,
                    ":organization": shown.organization, ":carol": shown.carol_tenant,
                    ":connector": shown.connector_id, ":key": token.key, ":token": token.secret,
                    ":at": shown.set_at.0},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn carol(&self, tenant: TenantId) -> Result<Option<SealedCarol>> {
        self.read(tenant, move |connection| {
            connection
                .prepare_cached(
                    "SELECT endpoint, organization, carol_tenant, connector_id, set_at, sealed_key, sealed_token
                     FROM carol_credential WHERE tenant_id = ?1",
                )
                .map_err(failed)?
                .query_row([tenant.to_string()], |row| {
                    let shown = CarolCredential {
                        endpoint: row.get(0)?,
                        organization: row.get(1)?,
                        carol_tenant: row.get(2)?,
                        connector_id: row.get(3)?,
                        set_at: At(row.get(4)?),
                    };
                    let token = Envelope { key: row.get(5)?, secret: row.get(6)? };
                    Ok(SealedCarol { tenant, shown, token })
                })
                .optional()
                .map_err(failed)
        })
        .await
    }

    pub(crate) async fn remove_carol(&self, tenant: TenantId) -> Result<()> {
        self.audited(Deed::of("carol.remove", tenant, "connector"), move |transaction| {
            let sql = "DELETE FROM carol_credential WHERE tenant_id = :tenant";
            let found = change(
                transaction,
                "a Carol credential",
                sql,
                named_params! {":tenant": tenant.to_string()},
            )?;
            if found == 0 {
                return Err(Error::new(Code::NotFound, "the tenant has no Carol connector"));
            }
            Ok(())
        })
        .await
    }
}
