//! Look: what a person who looks after a store wants to know of it, in one read over either engine.
//!
//! Promises: a database that does not answer costs no more than the patience of whoever asks.
//! Never: opens a store to write; makes one; shows a key unsealed.

use std::time::Duration;

use protocol::{Code, Error, Result};
use runtime::{clock::Wall, postgres::Address, task::Task};

use super::{
    Site, Whose, alert, failed,
    postgres::{self, Room, Session, Way},
    sql::Tx,
    sqlite::{self, State},
};
use crate::model::{access::SealedKey, alert::MailServer};

/// How a store was found.
#[derive(Clone, Debug)]
pub struct Look {
    pub state: State,
    /// Of a store whose schema is current.
    pub held: Option<Held>,
    /// Of a store in a database.
    pub database: Option<Database>,
}

/// What is in a store.
#[derive(Clone, Debug)]
pub struct Held {
    /// The newest moment that something was written down at.
    pub newest: Wall,
    /// When the key that signs tokens was made; `None` = there is none yet.
    pub signing_key_at: Option<Wall>,
    pub streams: u32,
    pub bytes: u64,
    pub keys: Vec<SealedKey>,
    /// The mail server that alerts go through, where one is set.
    pub mail: Option<MailServer>,
}

/// What a database is and lets this role do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Database {
    pub version: String,
    pub role: String,
    /// Policies of row-level security do not hold for the role: it is a superuser, or set free of them.
    pub is_above_policies: bool,
    /// The role owns the store's schema, and so could lift the policies.
    pub owns_schema: bool,
    /// A copy that follows another server and takes no writes.
    pub is_standby: bool,
}

impl Site {
    /// Looks a store over.
    ///
    /// # Errors
    /// `STORE_FAILED` where it cannot be read, or does not answer within that time.
    pub async fn look(&self, patience: Duration) -> Result<Look> {
        match self {
            Self::File(path) => {
                let path = path.clone();
                runtime::task::blocking(move || {
                    let state = sqlite::state(&path)?;
                    let mut look = Look { state, held: None, database: None };
                    if state == State::Current {
                        let connection = sqlite::connect(&path, true)?;
                        let bytes = runtime::backup::size(&path);
                        look.held = Some(held(&Tx::sqlite(&connection), |_| Ok(bytes))?);
                    }
                    Ok(look)
                })
                .await?
            }
            Self::Postgres(address) => {
                let looked = tokio::time::timeout(patience, of_database(address)).await;
                looked.unwrap_or_else(|_| {
                    let words = format!("it does not answer within {} s", patience.as_secs());
                    Err(Error::new(Code::StoreFailed, words).at(address))
                })
            }
        }
    }
}

/// Cuts a connection: a thread that waits for its answer waits no longer.
struct Cut(Task<()>);

impl Drop for Cut {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn of_database(address: &Address) -> Result<Look> {
    let state = postgres::state(address).await?;
    let (client, carried) = postgres::dialled(address).await?;
    let _cut = Cut(carried);
    let session = Session::over(client).await?;
    runtime::task::blocking(move || {
        postgres::in_transaction(&session, Way::Read, &Room::Store(Whose::All), |tx| {
            let database = Some(database(tx)?);
            let held = match state {
                State::Current => Some(held(tx, size)?),
                _ => None,
            };
            Ok(Look { state, held, database })
        })
    })
    .await?
}

fn database(tx: &Tx<'_>) -> Result<Database> {
    let sql = "SELECT current_setting('server_version'), rolname::text, rolsuper OR rolbypassrls, pg_is_in_recovery(),
                      EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'malote' AND nspowner = r.oid)
                 FROM pg_roles r WHERE rolname = current_user";
    let found = tx.query_row(sql, [], |row| {
        Ok(Database {
            version: row.get(0)?,
            role: row.get(1)?,
            is_above_policies: row.get(2)?,
            is_standby: row.get(3)?,
            owns_schema: row.get(4)?,
        })
    });
    found.map_err(failed)
}

/// Bytes of the whole database.
fn size(tx: &Tx<'_>) -> Result<u64> {
    let sql = "SELECT pg_database_size(current_database())";
    tx.query_row(sql, [], |row| row.get::<i64>(0)).map(i64::unsigned_abs).map_err(failed)
}

fn held(tx: &Tx<'_>, bytes: impl FnOnce(&Tx<'_>) -> Result<u64>) -> Result<Held> {
    let sql = "SELECT max(coalesce((SELECT max(at) FROM audit), 0), coalesce((SELECT max(last_at) FROM batch), 0)),
                      (SELECT max(created_at) FROM signing_key WHERE retired_at IS NULL),
                      (SELECT count(*) FROM ingest_stream)";
    let seen = tx.query_row(sql, [], |row| {
        let made = row.get::<Option<i64>>(1)?.map(Wall);
        Ok((Wall(row.get(0)?), made, row.get::<u32>(2)?))
    });
    let (newest, signing_key_at, streams) = seen.map_err(failed)?;
    let mail = alert::mail_server(tx)?.map(|(server, _)| server);
    Ok(Held { newest, signing_key_at, streams, bytes: bytes(tx)?, keys: sealed_keys(tx)?, mail })
}

/// The signing keys of a store, as they are sealed in it.
pub(in crate::store) fn sealed_keys(tx: &Tx<'_>) -> Result<Vec<SealedKey>> {
    let sql = "SELECT kid, sealed, public_der FROM signing_key ORDER BY kid";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let keys = statement.query_map([], |row| {
        Ok(SealedKey { kid: row.get(0)?, sealed: row.get(1)?, public_der: row.get(2)? })
    });
    keys.map_err(failed)
}
