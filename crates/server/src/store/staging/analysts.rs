//! Analysts: roles of the database that may read the staged tables of a space, and nothing else of the store.
//!
//! Promises: what comes later can be read too; who may read no longer reads nothing of it; a role is named in a statement
//! as the database itself quotes it.
//! Never: makes a role, or gives one a password.

use protocol::{Code, Error, Result};

use super::{Home, Space, SpaceTx, dialect::quote, tables};
use crate::store::sql::{Optional as _, Row, failed};

/// Relations of Malote's own that a reader of whole batches needs. Quarantine is not among them: it holds what was refused.
const SHOWN: [&str; 3] = ["malote_batches", "malote_columns", "malote_tables"];

impl Space {
    /// Roles that may read the space, by name.
    ///
    /// # Errors
    /// The store's own.
    pub async fn analysts(&self) -> Result<Vec<String>> {
        let schema = self.schema();
        self.read(move |tx| {
            let sql = "SELECT DISTINCT r.rolname::text FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
                         JOIN pg_roles r ON r.oid = a.grantee
                        WHERE n.nspname = ?1 AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner
                        ORDER BY 1";
            let mut statement = tx.prepare_cached(sql).map_err(failed)?;
            statement.query_map([&*schema], |row| row.get(0)).map_err(failed)
        })
        .await
    }

    /// Lets a role read the space; `dry_run` looks alone whether it can be done.
    ///
    /// # Errors
    /// `NOT_FOUND` where the database has no such role, `BAD_REQUEST` where it is the service's own or sees everything.
    pub async fn add_analyst(&self, role: String, dry_run: bool) -> Result<()> {
        let schema = quote(&self.schema());
        self.write(move |tx| {
            let role = reader(tx, &role)?;
            let mut relations: Vec<String> =
                SHOWN.iter().map(|name| tx.dialect().relation(name)).collect();
            relations.extend(tables::all(tx)?.iter().map(tables::StagedTable::quoted));
            let grant = format!(
                "GRANT USAGE ON SCHEMA {schema} TO {role}; GRANT SELECT ON {} TO {role};
                 ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} GRANT SELECT ON TABLES TO {role}",
                relations.join(", ")
            );
            let run = || tx.batch(&grant).map_err(failed);
            if dry_run { tx.try_out(run) } else { run() }
        })
        .await
    }

    /// Takes from a role whatever it may read of the space.
    ///
    /// # Errors
    /// As [`Self::add_analyst`].
    pub async fn remove_analyst(&self, role: String) -> Result<()> {
        let schema = quote(&self.schema());
        self.write(move |tx| {
            let role = reader(tx, &role)?;
            let revoke = format!(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} REVOKE SELECT ON TABLES FROM {role};
                 REVOKE ALL ON ALL TABLES IN SCHEMA {schema} FROM {role};
                 REVOKE ALL ON SCHEMA {schema} FROM {role}"
            );
            tx.batch(&revoke).map_err(failed)
        })
        .await
    }

    /// Whether roles can be let in: of a file its folder's owner decides.
    #[must_use]
    pub const fn has_analysts(&self) -> bool {
        matches!(self.home, Home::Schema(_))
    }
}

/// The role as the database quotes it.
fn reader(tx: &SpaceTx<'_>, role: &str) -> Result<String> {
    let sql =
        "SELECT quote_ident(rolname), rolsuper OR rolbypassrls, rolname = current_user FROM pg_roles
                WHERE rolname = ?1";
    let read =
        |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<bool>(1)?, row.get::<bool>(2)?));
    let found = tx.query_row(sql, [role], read).optional().map_err(failed)?;
    let Some((quoted, sees_all, own)) = found else {
        let words = format!("the database has no role {role:?}");
        return Err(Error::new(Code::NotFound, words));
    };
    if sees_all || own {
        let words =
            "this role is the server's own, or no policy holds for it: name one that reads alone";
        return Err(Error::new(Code::BadRequest, words));
    }
    Ok(quoted)
}
