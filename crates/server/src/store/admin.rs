//! Administrators in the embedded store, with their tokens.
//!
//! Promises: a name taken twice is `ALREADY_EXISTS`; a token is found with its administrator in one read; what is
//! revoked keeps its first time.
//! Never: returns an HMAC to a list, sees a secret.

use crate::store::sql::{Optional as _, Row, SqlResult, named_params};
use protocol::{
    Code, Error, Result,
    ids::{AdminTokenId, AdministratorId},
};

use super::{
    Store, Whose,
    audit::Deed,
    catalog::{change, parsed, rows, text_as, time},
    failed,
};
use crate::model::{
    admin::{AdminToken, AdminTokenRecord, Administrator, Role},
    catalog::{At, Page},
};

/// Columns of a token, as [`token`] reads them.
const TOKEN: &str =
    "SELECT t.id, a.name, t.name, t.role, t.tenant_id, t.created_at, t.expires_at, t.revoked_at,
                            t.secret_hmac, a.revoked_at IS NOT NULL
                     FROM admin_token t JOIN administrator a ON a.id = t.administrator_id";

impl Store {
    pub(crate) async fn add_administrator(&self, new: Administrator) -> Result<()> {
        self.audited(Deed::global("administrator.create", &new.name), move |transaction| {
            change(
                transaction,
                format!("administrator {:?}", new.name),
                "INSERT INTO administrator (id, name, created_at) VALUES (:id, :name, :at)",
                named_params! {":id": new.id.to_string(), ":name": new.name, ":at": new.created_at.0},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn administrators(&self, page: Page) -> Result<Vec<Administrator>> {
        self.read(Whose::All, move |connection| {
            rows(
                connection,
                "SELECT id, name, created_at, revoked_at FROM administrator
                 WHERE name > :after AND (:search = '' OR instr(lower(name), lower(:search)) > 0)
                 ORDER BY name LIMIT :limit",
                named_params! {":after": page.after, ":search": page.search, ":limit": page.limit},
                |row| {
                    Ok(Administrator {
                        id: parsed(row, 0)?,
                        name: row.get(1)?,
                        created_at: At(row.get(2)?),
                        revoked_at: time(row, 3)?,
                    })
                },
            )
        })
        .await
    }

    /// Ends an administrator with all tokens.
    pub(crate) async fn revoke_administrator(
        &self,
        administrator: Administrator,
        now: i64,
    ) -> Result<()> {
        let deed = Deed::global("administrator.revoke", &administrator.name);
        self.audited(deed, move |transaction| {
            change(
                transaction,
                "an administrator",
                "UPDATE administrator SET revoked_at = coalesce(revoked_at, :now) WHERE id = :id",
                named_params! {":id": administrator.id.to_string(), ":now": now},
            )?;
            Ok(())
        })
        .await
    }

    pub(crate) async fn add_admin_token(
        &self,
        of: AdministratorId,
        new: AdminToken,
        secret_hmac: [u8; 32],
    ) -> Result<()> {
        let deed =
            Deed::global("admin-token.create", format!("{} {}", new.administrator, new.name)).with(
                match new.tenant {
                    Some(tenant) => format!("{} of tenant {tenant}", new.role.as_str()),
                    None => format!("{} of every tenant", new.role.as_str()),
                },
            );
        self.audited(deed, move |transaction| {
            change(
                transaction,
                format!("token {:?} of administrator {:?}", new.name, new.administrator),
                "INSERT INTO admin_token (id, administrator_id, name, role, tenant_id, secret_hmac, created_at, expires_at)
                 VALUES (:id, :administrator, :name, :role, :tenant, :hmac, :at, :expires)",
                named_params! {":id": new.id.to_string(), ":administrator": of.to_string(), ":name": new.name,
                    ":role": new.role.as_str(), ":tenant": new.tenant.map(|id| id.to_string()), ":hmac": secret_hmac,
                    ":at": new.created_at.0, ":expires": new.expires_at.map(|at| at.0)},
            )?;
            Ok(())
        })
        .await
    }

    /// Tokens of an administrator, by name.
    pub(crate) async fn admin_tokens(
        &self,
        of: AdministratorId,
        page: Page,
    ) -> Result<Vec<AdminToken>> {
        self.read(Whose::All, move |connection| {
            rows(
                connection,
                &format!(
                    "{TOKEN} WHERE t.administrator_id = :of AND t.name > :after
                       AND (:search = '' OR instr(lower(t.name), lower(:search)) > 0) ORDER BY t.name LIMIT :limit"
                ),
                named_params! {":of": of.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| Ok(token(row)?.token),
            )
        })
        .await
    }

    pub(crate) async fn revoke_admin_token(
        &self,
        of: Administrator,
        name: String,
        now: i64,
    ) -> Result<()> {
        let deed = Deed::global("admin-token.revoke", format!("{} {name}", of.name));
        self.audited(deed, move |transaction| {
            let found = change(
                transaction,
                "a token",
                "UPDATE admin_token SET revoked_at = coalesce(revoked_at, :now)
                 WHERE administrator_id = :of AND name = :name",
                named_params! {":of": of.id.to_string(), ":name": name, ":now": now},
            )?;
            if found == 0 {
                let words = format!("administrator {:?} has no token {name:?}", of.name);
                return Err(Error::new(Code::NotFound, words));
            }
            Ok(())
        })
        .await
    }

    /// The token of that id, whether or not it is in force.
    pub(crate) async fn admin_token(&self, id: AdminTokenId) -> Result<Option<AdminTokenRecord>> {
        self.read(Whose::All, move |connection| {
            connection
                .prepare_cached(&format!("{TOKEN} WHERE t.id = ?1"))
                .map_err(failed)?
                .query_row([id.to_string()], token)
                .optional()
                .map_err(failed)
        })
        .await
    }
}

fn token(row: &Row<'_>) -> SqlResult<AdminTokenRecord> {
    Ok(AdminTokenRecord {
        token: AdminToken {
            id: parsed(row, 0)?,
            administrator: row.get(1)?,
            name: row.get(2)?,
            role: parsed::<Role>(row, 3)?,
            tenant: text_as(row, 4)?,
            created_at: At(row.get(5)?),
            expires_at: time(row, 6)?,
            revoked_at: time(row, 7)?,
        },
        secret_hmac: row.get(8)?,
        administrator_revoked: row.get(9)?,
    })
}
