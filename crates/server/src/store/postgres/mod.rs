//! The shared store: PostgreSQL, a few connections, intents on threads that may block.
//!
//! Promises: intents of one tenant run one after another, those of two do not wait for each other (docs/design/0008); an
//! answer is given only after the commit.
//! Never: shows a tenant's rows to a transaction that does not name it.

mod migrate;
mod session;

use std::sync::{Arc, Mutex};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    dial,
    postgres::{Address, CONNECT_TIME},
    task::Task,
};
use tokio::sync::Semaphore;
use tokio_postgres::{Client, error::SqlState};

pub use migrate::{grant, migrate, state};
pub(in crate::store) use session::Session;

use super::{
    Whose,
    sql::{SqlError, Tx},
};

/// Connections of one replica.
const CONNECTIONS: usize = 12;

/// One database.
#[derive(Debug)]
pub(in crate::store) struct Postgres {
    address: Address,
    places: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Session>>>,
}

/// Whether a transaction may change anything.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Way {
    Write,
    Read,
}

/// Where a transaction works.
pub(in crate::store) enum Room {
    /// In the store, for a tenant.
    Store(Whose),
    /// In the schema of a staging space. It sees nothing of the store.
    Space(Arc<str>),
}

impl From<Whose> for Room {
    fn from(whose: Whose) -> Self {
        Self::Store(whose)
    }
}

impl Postgres {
    pub(in crate::store) fn new(address: Address) -> Self {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        Self { address, places, idle: Arc::default() }
    }

    /// Runs an intent; it has its room alone.
    pub(in crate::store) async fn write<T: Send + 'static>(
        &self,
        room: impl Into<Room>,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(Way::Write, room.into(), work).await
    }

    pub(in crate::store) async fn read<T: Send + 'static>(
        &self,
        room: impl Into<Room>,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(Way::Read, room.into(), work).await
    }

    async fn run<T: Send + 'static>(
        &self,
        way: Way,
        room: Room,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let places = Arc::clone(&self.places);
        let permit = places.acquire_owned().await.coded(Code::Draining, "the store is closing")?;
        let kept = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let session = match kept.filter(|session| !session.is_closed()) {
            Some(session) => session,
            // Where the database is and whom it refuses is for the log, not for whoever calls.
            None => Session::open(&self.address).await.map_err(|error| {
                Error::new(error.code, "the database does not answer").because(error)
            })?,
        };
        let idle = Arc::clone(&self.idle);
        runtime::task::blocking(move || {
            let _permit = permit;
            let result = in_transaction(&session, way, &room, work);
            // One whose transaction could not be ended is not used again.
            if session.is_at_rest()
                && let Ok(mut idle) = idle.lock()
            {
                idle.push(session);
            }
            result
        })
        .await?
    }
}

/// What a transaction sees and whom it waits for: `malote.tenant` is what the policies of row-level security read, and
/// the locks are two: one of all tenants together, shared by those of one, and that one's own.
const WRITE_STORE: &str = "SELECT set_config('malote.tenant', ?1, true),
    CASE WHEN ?1 = '*' THEN pg_advisory_xact_lock(1835101295)
         ELSE pg_advisory_xact_lock_shared(1835101295) END,
    CASE WHEN ?1 <> '*' THEN pg_advisory_xact_lock(hashtextextended(?1, 1835101295)) END";
const READ_STORE: &str = "SELECT set_config('malote.tenant', ?1, true)";
/// The schema's name as an identifier.
const WRITE_SPACE: &str = "SELECT set_config('search_path', quote_ident(?1), true),
    pg_advisory_xact_lock(hashtextextended(?1, 1835101296))";
const READ_SPACE: &str = "SELECT set_config('search_path', quote_ident(?1), true)";

/// Runs an intent on a thread that may block.
pub(in crate::store) fn in_transaction<T>(
    session: &Session,
    way: Way,
    room: &Room,
    work: impl FnOnce(&Tx<'_>) -> Result<T>,
) -> Result<T> {
    let tx = Tx::postgres(session);
    let begin = match way {
        Way::Write => "BEGIN",
        Way::Read => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
    };
    let (first, name) = match (room, way) {
        (Room::Store(whose), Way::Write) => (WRITE_STORE, whose.name()),
        (Room::Store(whose), Way::Read) => (READ_STORE, whose.name()),
        (Room::Space(schema), Way::Write) => (WRITE_SPACE, schema.to_string()),
        (Room::Space(schema), Way::Read) => (READ_SPACE, schema.to_string()),
    };
    session.begin(begin).map_err(super::failed)?;
    let result = tx
        .query_row(first, [name.as_str()], |_| Ok(()))
        .map_err(super::failed)
        .and_then(|()| work(&tx))
        .and_then(|done| {
            session.commit().map_err(super::failed)?;
            Ok(done)
        });
    if result.is_err() && !session.is_at_rest() {
        // What cannot be taken back is, with the connection that is closed then.
        let _ = session.roll_back();
    }
    result
}

/// A connection, and the task that carries it.
///
/// # Errors
/// `STORE_FAILED`, which names the database and what stands in the way.
pub(in crate::store) async fn dialled(address: &Address) -> Result<(Client, Task<()>)> {
    let dialled = tokio::time::timeout(CONNECT_TIME, address.dial()).await.map_err(|_| {
        let words = format!("it does not answer within {} s", CONNECT_TIME.as_secs());
        Error::new(Code::StoreFailed, words).at(address)
    });
    dialled?.map_err(|cause| unreached(cause, address).at(address))
}

fn unreached(cause: tokio_postgres::Error, address: &Address) -> Error {
    let config = address.config();
    let user = config.get_user().unwrap_or_default();
    if let Some(state) = cause.code() {
        let words = match state.code() {
            "28P01" => format!("the password of user {user:?} is wrong, or there is no such user"),
            "28000" => format!("user {user:?} is not let in from here, or there is none"),
            "3D000" => "there is no such database".to_owned(),
            "53300" => "it has no connection left".to_owned(),
            "57P03" => "it is starting or ending".to_owned(),
            _ => "it refuses the connection".to_owned(),
        };
        let words = format!("{words} (SQLSTATE {})", state.code());
        return Error::new(Code::StoreFailed, words).because(SqlError::Postgres(cause));
    }
    // The library has no other sign of a handshake that failed.
    let of_tls = cause.to_string().starts_with("error performing TLS handshake");
    let words = match dial::why(&cause) {
        Some(why) => why,
        None if of_tls => "it takes no encrypted connection",
        None if config.get_password().is_none() => {
            "no connection came about; it may ask for a password, and store.password_file names none"
        }
        None => "it does not answer",
    };
    Error::new(Code::StoreFailed, words).because(cause)
}

/// Gives the database's error its code: a full disk is told apart, all else is `STORE_FAILED`. Of its words only the
/// state is said, since they may quote a value.
pub(in crate::store) fn failed(cause: tokio_postgres::Error) -> Error {
    let (code, words) = match cause.code() {
        Some(state) if *state == SqlState::DISK_FULL => {
            (Code::DiskFull, "the database has no room left".to_owned())
        }
        Some(state) => {
            (Code::StoreFailed, format!("the database refused this with SQLSTATE {}", state.code()))
        }
        None => (Code::StoreFailed, "the database does not answer".to_owned()),
    };
    Error::new(code, words).because(SqlError::Postgres(cause))
}

#[cfg(test)]
mod tests;
