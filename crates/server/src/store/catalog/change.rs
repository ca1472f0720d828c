//! Changes and removals of the catalog in the embedded store.
//!
//! Promises: what something still hangs on is not removed (`STILL_USED`); revoked credentials go with their holder.
//! Never: removes a batch, a row or an entry of the audit.

use crate::store::sql::{Broken, ToCell, Tx, named_params};
use protocol::{
    Code, Error, Result,
    ids::{EnvironmentId, InstallationId, TenantId},
};

use super::{Deed, Store, change, failed};
use crate::model::catalog::{App, Environment, Installation, Tenant};

impl Store {
    pub(crate) async fn change_app(&self, app: App) -> Result<()> {
        let deed = Deed::of("app.change", app.tenant, &app.name).with(if app.active {
            "active"
        } else {
            "not active"
        });
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("app {:?}", app.name),
                "UPDATE app SET name = :name, description = :description, active = :active
                 WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": app.tenant.to_string(), ":id": app.id.to_string(), ":name": app.name,
                    ":description": app.description, ":active": app.active},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn rename_environment(
        &self,
        (tenant, id): (TenantId, EnvironmentId),
        name: String,
    ) -> Result<()> {
        self.audited(Deed::of("environment.rename", tenant, &name).with(id), move |transaction| {
            change(
                transaction,
                format!("environment {name:?}"),
                "UPDATE environment SET name = :name WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": tenant.to_string(), ":id": id.to_string(), ":name": name},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn rename_installation(
        &self,
        (tenant, id): (TenantId, InstallationId),
        name: String,
    ) -> Result<()> {
        self.audited(Deed::of("installation.rename", tenant, &name).with(id), move |transaction| {
            change(
                transaction,
                format!("installation {name:?}"),
                "UPDATE installation SET name = :name WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": tenant.to_string(), ":id": id.to_string(), ":name": name},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn remove_tenant(&self, tenant: Tenant) -> Result<()> {
        let deed = Deed::of("tenant.remove", tenant.id, &tenant.name);
        self.audited(deed, move |transaction| {
            let id = tenant.id.to_string();
            for sql in [
                "DELETE FROM alert_threshold WHERE tenant_id = ?1",
                "DELETE FROM alert_route WHERE tenant_id = ?1",
                "DELETE FROM alert_notice WHERE tenant_id = ?1",
            ] {
                transaction.prepare_cached(sql).map_err(failed)?.execute([&id]).map_err(failed)?;
            }
            remove(
                transaction,
                &format!(
                    "tenant {:?} still has environments, installations, apps, tokens or webhooks",
                    tenant.name
                ),
                "DELETE FROM tenant WHERE id = :id",
                named_params! {":id": id},
            )
        })
        .await
    }

    pub(crate) async fn remove_environment(&self, environment: Environment) -> Result<()> {
        let deed = Deed::of("environment.remove", environment.tenant, &environment.name);
        self.audited(deed, move |transaction| {
            // A stream without a message is only the trace of an installation that was unbound.
            let sql = "DELETE FROM ingest_stream WHERE tenant_id = ?1 AND environment_id = ?2 AND accept_seq = 0";
            let of = [environment.tenant.to_string(), environment.id.to_string()];
            transaction.prepare_cached(sql).map_err(failed)?.execute([&of[0], &of[1]]).map_err(failed)?;
            for sql in ALERTS_OF {
                transaction.prepare_cached(sql).map_err(failed)?.execute([&of[0], &of[1]]).map_err(failed)?;
            }
            remove(
                transaction,
                &format!(
                    "environment {:?} has an installation or a webhook, or tables were shared for it",
                    environment.name
                ),
                "DELETE FROM environment WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": environment.tenant.to_string(), ":id": environment.id.to_string()},
            )
        })
        .await
    }

    pub(crate) async fn remove_installation(&self, installation: Installation) -> Result<()> {
        let deed = Deed::of("installation.remove", installation.tenant, &installation.name);
        self.audited(deed, move |transaction| {
            let (tenant, id) = (installation.tenant.to_string(), installation.id.to_string());
            let values = named_params! {":tenant": tenant, ":id": id};
            let still = format!(
                "installation {:?} is bound, or has a credential in force",
                installation.name
            );
            forget_revoked(transaction, "installation_id", values)?;
            remove(
                transaction,
                &still,
                "DELETE FROM installation WHERE tenant_id = :tenant AND id = :id AND environment_id IS NULL",
                values,
            )
        })
        .await
    }

    pub(crate) async fn remove_app(&self, app: App) -> Result<()> {
        self.audited(Deed::of("app.remove", app.tenant, &app.name), move |transaction| {
            let (tenant, id) = (app.tenant.to_string(), app.id.to_string());
            let values = named_params! {":tenant": tenant, ":id": id};
            forget_revoked(transaction, "app_id", values)?;
            remove(
                transaction,
                &format!("app {:?} has a credential in force", app.name),
                "DELETE FROM app WHERE tenant_id = :tenant AND id = :id",
                values,
            )
        })
        .await
    }
}

fn forget_revoked(
    transaction: &Tx<'_>,
    holder: &str,
    values: &[(&str, &dyn ToCell)],
) -> Result<()> {
    let sql = format!(
        "DELETE FROM credential WHERE tenant_id = :tenant AND {holder} = :id AND revoked_at IS NOT NULL"
    );
    transaction.prepare_cached(&sql).map_err(failed)?.execute(values).map_err(failed)?;
    Ok(())
}

/// What is known of alerts of an environment goes with it.
const ALERTS_OF: [&str; 3] = [
    "DELETE FROM alert WHERE tenant_id = ?1 AND environment_id = ?2",
    "DELETE FROM alert_route WHERE tenant_id = ?1 AND environment_id = ?2",
    "DELETE FROM alert_threshold WHERE tenant_id = ?1 AND environment_id = ?2",
];

/// Removes one row; a foreign key that refuses, or a condition that does not hold, is `STILL_USED`.
fn remove(
    transaction: &Tx<'_>,
    still: &str,
    sql: &str,
    values: &[(&str, &dyn ToCell)],
) -> Result<()> {
    let used = || Error::new(Code::StillUsed, still);
    let mut statement = transaction.prepare_cached(sql).map_err(failed)?;
    match statement.execute(values) {
        Ok(0) => Err(used()),
        Ok(_) => Ok(()),
        Err(cause) if cause.broken() == Some(Broken::ForeignKey) => Err(used()),
        Err(cause) => Err(failed(cause)),
    }
}
