//! Migrations of the PostgreSQL store: the twins of the SQLite ones, under the same numbers.
//!
//! Promises: replicas that migrate at once wait for each other; a step that fails leaves the schema as it was.
//! Never: runs as the role that the service works under, but where that is the schema's owner.

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
    Ok(ran)
}
