//! Migrations of the PostgreSQL store: the twins of the SQLite ones, under the same numbers.
//!
//! Promises: replicas that migrate at once wait for each other; a step that fails leaves the schema as it was.
//! Whoever owns the schema runs them; the role that the server works under needs no more than what [`grant`] gives it, and
//! what it was given once it has of later tables too.
//! Never: gives a role a way around row-level security, or to change the audit.

use protocol::{Code, Error, Result};
use runtime::postgres::Address;
use tokio_postgres::Client;

use super::{dialled, failed};
use crate::store::{
    migration::{Migration, migrations},
    sqlite::State,
};

const MIGRATIONS: &[Migration] = migrations!("postgres");

async fn connect(address: &Address) -> Result<Client> {
    Ok(dialled(address).await?.0)
}

async fn found(client: &Client) -> Result<i64> {
    let there = "SELECT to_regclass('malote.migration') IS NOT NULL";
    if !client.query_one(there, &[]).await.map_err(failed)?.get::<_, bool>(0) {
        return Ok(0);
    }
    let sql = "SELECT coalesce(max(number), 0) FROM malote.migration";
    Ok(client.query_one(sql, &[]).await.map_err(failed)?.get(0))
}

/// How the schema stands to this program.
///
/// # Errors
/// `STORE_FAILED`.
pub async fn state(address: &Address) -> Result<State> {
    let found = found(&connect(address).await?).await?;
    let newest = MIGRATIONS.iter().map(|step| i64::from(step.number)).max().unwrap_or(0);
    let number = u32::try_from(found).unwrap_or(u32::MAX);
    Ok(match found {
        0 => State::Empty,
        found if found < newest => State::Behind { found: number },
        found if found > newest => State::Ahead { found: number },
        _ => State::Current,
    })
}

/// Brings the schema to the newest form; returns the steps that ran.
///
/// # Errors
/// `STORE_FAILED`; the steps before the failing one stay.
pub async fn migrate(address: &Address) -> Result<Vec<&'static str>> {
    let mut client = connect(address).await?;
    // Held until the connection ends: whoever comes second finds the work done.
    client.execute("SELECT pg_advisory_lock(1835101294)", &[]).await.map_err(failed)?;
    let found = found(&client).await?;
    let mut ran = Vec::new();
    for step in MIGRATIONS.iter().filter(|step| i64::from(step.number) > found) {
        let step_failed = |cause| {
            let error = failed(cause);
            Error::new(Code::StoreFailed, format!("migration {}: {}", step.name, error.message))
                .because(error)
        };
        let tx = client.transaction().await.map_err(failed)?;
        tx.batch_execute(step.sql).await.map_err(step_failed)?;
        let sql = "INSERT INTO malote.migration (number, name) VALUES ($1, $2)";
        tx.execute(sql, &[&i64::from(step.number), &step.name]).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        ran.push(step.name);
    }
    if !ran.is_empty() {
        for role in granted(&client).await? {
            let_in(&client, &role).await?;
        }
    }
    Ok(ran)
}

/// Lets a role work as the server: it reads and writes the store's rows, and makes staging schemas.
///
/// # Errors
/// `NOT_FOUND` where the database has no such role, `BAD_REQUEST` where no policy of row-level security holds for it or it
/// owns the schema, `STORE_VERSION` where there is no schema yet, `STORE_FAILED`.
pub async fn grant(address: &Address, role: &str) -> Result<()> {
    let client = connect(address).await?;
    if found(&client).await? == 0 {
        return Err(Error::new(Code::StoreVersion, "the database has no schema of the store yet"));
    }
    let sql = "SELECT quote_ident(r.rolname), r.rolsuper OR r.rolbypassrls, n.nspowner = r.oid
                 FROM pg_roles r, pg_namespace n WHERE r.rolname = $1 AND n.nspname = 'malote'";
    let Some(row) = client.query_opt(sql, &[&role]).await.map_err(failed)? else {
        let words = format!("the database has no role {role:?}");
        return Err(Error::new(Code::NotFound, words));
    };
    let (quoted, sees_all, owns): (String, bool, bool) = (row.get(0), row.get(1), row.get(2));
    if sees_all || owns {
        let words = format!(
            "the role {role:?} is {}: name one that row-level security holds for and that owns nothing",
            if sees_all { "beyond row-level security" } else { "the schema's owner" }
        );
        return Err(Error::new(Code::BadRequest, words));
    }
    let_in(&client, &quoted).await
}

/// Roles that were let in, as the database quotes them.
async fn granted(client: &Client) -> Result<Vec<String>> {
    let sql = "SELECT DISTINCT quote_ident(r.rolname) FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a
                 JOIN pg_roles r ON r.oid = a.grantee
                WHERE n.nspname = 'malote' AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner";
    let rows = client.query(sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Gives a role its rights; it is quoted.
async fn let_in(client: &Client, role: &str) -> Result<()> {
    let sql = "SELECT quote_ident(current_database())";
    let database: String = client.query_one(sql, &[]).await.map_err(failed)?.get(0);
    let rights = format!(
        "GRANT USAGE ON SCHEMA malote TO {role};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA malote TO {role};
         REVOKE INSERT, UPDATE, DELETE ON malote.migration FROM {role};
         REVOKE UPDATE, DELETE ON malote.audit FROM {role};
         GRANT USAGE ON ALL SEQUENCES IN SCHEMA malote TO {role};
         GRANT CREATE, TEMPORARY ON DATABASE {database} TO {role}"
    );
    client.batch_execute(&rights).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::trial::{apart, made, owner_of};

    /// Runs statements as whoever that address names; `false` where they are refused.
    fn may(address: &Address, sql: &str) -> bool {
        apart(|| async {
            let client = connect(address).await.unwrap();
            client.batch_execute("SET malote.tenant TO '*'").await.unwrap();
            client.batch_execute(sql).await.is_ok()
        })
    }

    #[test]
    fn the_servers_role_reads_and_writes_rows_and_changes_neither_schema_nor_audit() {
        let service = apart(made);
        let owner = owner_of(&service);
        assert!(may(&service, "SELECT * FROM malote.audit; SELECT * FROM malote.migration"));
        for sql in [
            "ALTER TABLE malote.tenant DISABLE ROW LEVEL SECURITY",
            "ALTER TABLE malote.tenant NO FORCE ROW LEVEL SECURITY",
            "DROP POLICY of_tenant ON malote.tenant",
            "DROP TABLE malote.tenant",
            "CREATE TABLE malote.mine (a text)",
            "UPDATE malote.audit SET who = 'x'",
            "DELETE FROM malote.audit",
            "TRUNCATE malote.audit",
            "DELETE FROM malote.migration",
        ] {
            assert!(!may(&service, sql), "{sql}");
        }
        assert!(may(&service, "CREATE SCHEMA staging_x; CREATE TEMPORARY TABLE t (a text)"));
        // A table of a later step.
        assert!(may(&owner, "CREATE TABLE malote.later (a text)"));
        assert!(!may(&service, "SELECT * FROM malote.later"));
        apart(|| async {
            let client = connect(&owner).await.unwrap();
            let roles = granted(&client).await.unwrap();
            assert_eq!(roles, ["malote"]);
            let_in(&client, &roles[0]).await.unwrap();
        });
        assert!(may(&service, "INSERT INTO malote.later VALUES ('a')"));
    }

    #[test]
    fn only_a_role_that_policies_hold_for_and_that_owns_nothing_is_let_in() {
        let owner = owner_of(&apart(made));
        let code = |role: &'static str| {
            let address = owner.clone();
            apart(move || async move { grant(&address, role).await.unwrap_err().code })
        };
        assert_eq!(code("nobody"), Code::NotFound);
        assert_eq!(code("postgres"), Code::BadRequest, "a superuser");
        assert_eq!(code("malote_owner"), Code::BadRequest, "the owner");
        assert!(may(&owner, "DROP SCHEMA malote CASCADE"));
        assert_eq!(code("malote"), Code::StoreVersion);
    }
}
