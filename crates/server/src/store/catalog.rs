//! Catalog in the embedded store: tenants, apps, environments, installations and credentials (entities beside it).
//!
//! Promises: every statement but those on tenants names the tenant first; a name taken twice is `ALREADY_EXISTS`;
//! a page is ordered by name.
//! Never: decides what a name means (the service resolves), returns an HMAC.

mod change;
mod entity;

use std::{fmt::Display, str::FromStr};

use crate::store::sql::{
    Broken, Optional as _, Row, SqlError, SqlResult, ToCell, Tx, named_params, params,
};
use protocol::{
    Code, Error, Result,
    ids::{AppId, ClientId, EnvironmentId, InstallationId, TenantId},
    names::ErpName,
};
use runtime::clock::Wall;

use super::{Store, Whose, audit::Deed, failed, session::fence};
use crate::model::{
    catalog::{App, At, Credential, Environment, Holder, Installation, Page, Tenant},
    stream::StreamId,
};

/// Column `at` read as text and parsed; `None` where NULL.
pub(super) fn text_as<T: FromStr<Err = Error>>(row: &Row<'_>, at: usize) -> SqlResult<Option<T>> {
    let Some(text) = row.get::<Option<String>>(at)? else { return Ok(None) };
    text.parse().map(Some).map_err(|cause: Error| SqlError::column(at, cause))
}

pub(super) fn parsed<T: FromStr<Err = Error>>(row: &Row<'_>, at: usize) -> SqlResult<T> {
    text_as(row, at)?.ok_or_else(|| SqlError::column(at, "NULL where a value must be"))
}

pub(super) fn time(row: &Row<'_>, at: usize) -> SqlResult<Option<At>> {
    Ok(row.get::<Option<i64>>(at)?.map(At))
}

/// Runs an insert or update; a unique index that refuses becomes `ALREADY_EXISTS`, a foreign key `NOT_FOUND`.
pub(super) fn change(
    transaction: &Tx<'_>,
    what: impl Display,
    sql: &str,
    values: &[(&str, &dyn ToCell)],
) -> Result<usize> {
    let mut statement = transaction.prepare_cached(sql).map_err(failed)?;
    statement.execute(values).map_err(|cause| match cause.broken() {
        Some(Broken::Unique) => Error::new(Code::AlreadyExists, format!("{what} exists already")),
        Some(Broken::ForeignKey) => {
            Error::new(Code::NotFound, format!("what {what} belongs to does not exist"))
        }
        None => failed(cause),
    })
}

pub(super) fn rows<T>(
    connection: &Tx<'_>,
    sql: &str,
    values: &[(&str, &dyn ToCell)],
    read: impl FnMut(&Row<'_>) -> SqlResult<T>,
) -> Result<Vec<T>> {
    connection.prepare_cached(sql).map_err(failed)?.query_map(values, read).map_err(failed)
}

impl Store {
    pub(crate) async fn add_tenant(&self, tenant: Tenant) -> Result<()> {
        let deed = Deed::of("tenant.create", tenant.id, &tenant.name);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("tenant {:?}", tenant.name),
                "INSERT INTO tenant (id, name, created_at) VALUES (:id, :name, :at)",
                named_params! {":id": tenant.id.to_string(), ":name": tenant.name, ":at": tenant.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn rename_tenant(&self, tenant: TenantId, name: String) -> Result<()> {
        let deed = Deed::of("tenant.rename", tenant, &name);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("tenant {name:?}"),
                "UPDATE tenant SET name = :name WHERE id = :id",
                named_params! {":id": tenant.to_string(), ":name": name},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn tenants(&self, page: Page) -> Result<Vec<Tenant>> {
        self.read(Whose::All, move |connection| {
            rows(
                connection,
                "SELECT id, name, created_at FROM tenant WHERE name > :after AND (:search = '' OR instr(lower(name), lower(:search)) > 0)
                 ORDER BY name LIMIT :limit",
                named_params! {":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| Ok(Tenant { id: parsed(row, 0)?, name: row.get(1)?, created_at: At(row.get(2)?) }),
            )
        })
        .await
    }

    pub(crate) async fn add_environment(&self, new: Environment) -> Result<()> {
        let deed = Deed::of("environment.create", new.tenant, &new.name);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("environment {:?}", new.name),
                "INSERT INTO environment (tenant_id, id, name, type, created_at) VALUES (:tenant, :id, :name, :type, :at)",
                named_params! {":tenant": new.tenant.to_string(), ":id": new.id.to_string(), ":name": new.name,
                    ":type": new.kind.as_str(), ":at": new.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn environments(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Vec<Environment>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT id, name, type, created_at FROM environment
                 WHERE tenant_id = :tenant AND name > :after
                   AND (:search = '' OR instr(lower(name), lower(:search)) > 0) ORDER BY name LIMIT :limit",
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| {
                    Ok(Environment {
                        tenant,
                        id: parsed(row, 0)?,
                        name: row.get(1)?,
                        kind: parsed(row, 2)?,
                        created_at: At(row.get(3)?),
                    })
                },
            )
        })
        .await
    }

    pub(crate) async fn add_installation(&self, new: Installation) -> Result<()> {
        let deed = Deed::of("installation.create", new.tenant, &new.name).with(&new.erp);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("installation {:?} (or one of {} in that environment)", new.name, new.erp),
                "INSERT INTO installation (tenant_id, id, name, erp, environment_id, created_at)
                 VALUES (:tenant, :id, :name, :erp, :environment, :at)",
                named_params! {":tenant": new.tenant.to_string(), ":id": new.id.to_string(), ":name": new.name,
                    ":erp": new.erp.as_str(), ":environment": new.environment.map(|id| id.to_string()),
                    ":at": new.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    /// Ties an installation to an environment, or unties it; what it sent there until now is fenced in the same
    /// transaction (F52).
    pub(crate) async fn bind(
        &self,
        tenant: TenantId,
        installation: InstallationId,
        environment: Option<EnvironmentId>,
        now: Wall,
    ) -> Result<()> {
        let deed = match environment {
            Some(id) => Deed::of("installation.bind", tenant, installation).with(id),
            None => Deed::of("installation.unbind", tenant, installation),
        };
        self.audited(deed, move |transaction| {
            let sql = "SELECT environment_id, erp FROM installation WHERE tenant_id = ?1 AND id = ?2";
            let found = transaction
                .query_row(sql, [tenant.to_string(), installation.to_string()], |row| {
                    Ok((text_as::<EnvironmentId>(row, 0)?, parsed::<ErpName>(row, 1)?))
                })
                .optional()
                .map_err(failed)?;
            change(
                transaction,
                "an installation of this ERP in that environment",
                "UPDATE installation SET environment_id = :environment WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": tenant.to_string(), ":id": installation.to_string(),
                    ":environment": environment.map(|id| id.to_string())},
            )?;
            match found {
                Some((Some(before), erp)) if Some(before) != environment => {
                    fence(transaction, &StreamId { tenant, environment: before, erp }, now)
                }
                _ => Ok(()),
            }
        })
        .await
    }

    pub(crate) async fn installations(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Vec<Installation>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT id, name, erp, environment_id, created_at FROM installation
                 WHERE tenant_id = :tenant AND name > :after
                   AND (:search = '' OR instr(lower(name), lower(:search)) > 0) ORDER BY name LIMIT :limit",
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| {
                    Ok(Installation {
                        tenant,
                        id: parsed(row, 0)?,
                        name: row.get(1)?,
                        erp: parsed(row, 2)?,
                        environment: text_as(row, 3)?,
                        created_at: At(row.get(4)?),
                    })
                },
            )
        })
        .await
    }

    pub(crate) async fn add_app(&self, new: App) -> Result<()> {
        let deed = Deed::of("app.create", new.tenant, &new.name);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("app {:?}", new.name),
                "INSERT INTO app (tenant_id, id, name, description, active, created_at)
                 VALUES (:tenant, :id, :name, :description, :active, :at)",
                named_params! {":tenant": new.tenant.to_string(), ":id": new.id.to_string(), ":name": new.name,
                    ":description": new.description, ":active": new.active, ":at": new.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn set_app_active(
        &self,
        tenant: TenantId,
        app: AppId,
        active: bool,
    ) -> Result<()> {
        let deed = Deed::of(if active { "app.activate" } else { "app.deactivate" }, tenant, app);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                "an app",
                "UPDATE app SET active = :active WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": tenant.to_string(), ":id": app.to_string(), ":active": active},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn apps(&self, tenant: TenantId, page: Page) -> Result<Vec<App>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT id, name, description, active, created_at FROM app
                 WHERE tenant_id = :tenant AND name > :after
                   AND (:search = '' OR instr(lower(name), lower(:search)) > 0) ORDER BY name LIMIT :limit",
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| {
                    Ok(App {
                        tenant,
                        id: parsed(row, 0)?,
                        name: row.get(1)?,
                        description: row.get(2)?,
                        active: row.get(3)?,
                        created_at: At(row.get(4)?),
                    })
                },
            )
        })
        .await
    }

    /// Adds a client; `rotates`: beside one other in force at most.
    ///
    /// # Errors
    /// `STILL_USED` where it would be the third of its holder and rotates.
    pub(crate) async fn add_credential(
        &self,
        new: Credential,
        secret_hmac: [u8; 32],
        rotates: bool,
    ) -> Result<()> {
        let (installation, app) = match new.holder {
            Holder::Installation(id) => (Some(id.to_string()), None),
            Holder::App(id) => (None, Some(id.to_string())),
        };
        let deed = Deed::of("credential.create", new.tenant, &new.client);
        self.audited(deed, move |transaction| {
            if rotates {
                let sql = "SELECT count(*) FROM credential WHERE tenant_id = ?1 AND revoked_at IS NULL
                             AND (installation_id IS NOT DISTINCT FROM ?2 AND app_id IS NOT DISTINCT FROM ?3)";
                let of = params![new.tenant.to_string(), installation, app];
                let in_force: i64 =
                    transaction.query_row(sql, of, |row| row.get(0)).map_err(failed)?;
                if in_force > 1 {
                    let words = format!("its holder has {in_force} credentials in force; revoke one first");
                    return Err(Error::new(Code::StillUsed, words));
                }
            }
            change(
                transaction,
                format!("client {}", new.client),
                "INSERT INTO credential (client_id, tenant_id, installation_id, app_id, secret_hmac, created_at)
                 VALUES (:client, :tenant, :installation, :app, :hmac, :at)",
                named_params! {":client": new.client.as_str(), ":tenant": new.tenant.to_string(),
                    ":installation": installation, ":app": app, ":hmac": secret_hmac, ":at": new.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    /// Revokes for ever; a client revoked already keeps its time.
    pub(crate) async fn revoke_credential(
        &self,
        tenant: TenantId,
        client: ClientId,
        now: i64,
    ) -> Result<()> {
        let deed = Deed::of("credential.revoke", tenant, &client);
        self.audited(deed, move |transaction| {
            let found = change(
                transaction,
                "a client",
                "UPDATE credential SET revoked_at = coalesce(revoked_at, :now)
                 WHERE tenant_id = :tenant AND client_id = :client",
                named_params! {":tenant": tenant.to_string(), ":client": client.as_str(), ":now": now},
            )?;
            if found == 0 {
                return Err(Error::new(Code::NotFound, format!("the tenant has no client {client}")));
            }
            Ok(())
        })
        .await
    }

    pub(crate) async fn credentials(
        &self,
        tenant: TenantId,
        page: Page,
    ) -> Result<Vec<Credential>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT client_id, installation_id, app_id, created_at, revoked_at FROM credential
                 WHERE tenant_id = :tenant AND client_id > :after
                   AND (:search = '' OR instr(lower(client_id), lower(:search)) > 0) ORDER BY client_id LIMIT :limit",
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| {
                    let holder = match text_as(row, 1)? {
                        Some(id) => Holder::Installation(id),
                        None => Holder::App(parsed(row, 2)?),
                    };
                    Ok(Credential {
                        tenant,
                        client: parsed(row, 0)?,
                        holder,
                        created_at: At(row.get(3)?),
                        revoked_at: time(row, 4)?,
                    })
                },
            )
        })
        .await
    }
}
