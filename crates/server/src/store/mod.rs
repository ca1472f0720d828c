//! Store: the server's memory. Intents in one transaction each; no SQL and no transaction handle leaves this floor.
//!
//! Promises: what a method returned as done is durable; what it refused left no trace.
//! Never: decides (the `model` does), knows a wire format.

mod access;
mod admin;
pub mod alert;
mod audit;
mod carol;
mod catalog;
pub mod copy;
pub mod fleet;
pub mod ingest;
pub mod look;
mod migration;
mod overview;
pub mod postgres;
pub mod retention;
pub mod session;
mod site;
mod sql;
pub mod sqlite;
pub mod staging;
#[cfg(test)]
pub(crate) mod trial;
pub mod webhook;

use std::{path::Path, sync::Arc};

use protocol::{Code, Error, Result, ids::TenantId};
use runtime::postgres::Address;

pub use site::Site;
use sql::{Tx, failed};
use sqlite::{SqliteFile, State};

/// The server's store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    engine: Engine,
    /// Who acts through this handle, for the audit.
    who: Arc<str>,
}

#[derive(Clone, Debug)]
enum Engine {
    Sqlite(Arc<SqliteFile>),
    Postgres(Arc<postgres::Postgres>),
}

/// For whom an intent works: it sees the rows of that tenant alone, and waits for its other intents.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Whose {
    Tenant(TenantId),
    /// None in particular: what has no tenant, or whatever any has.
    All,
}

impl Whose {
    /// As the database is told.
    fn name(self) -> String {
        match self {
            Self::Tenant(tenant) => tenant.to_string(),
            Self::All => "*".to_owned(),
        }
    }
}

impl From<TenantId> for Whose {
    fn from(tenant: TenantId) -> Self {
        Self::Tenant(tenant)
    }
}

impl From<Option<TenantId>> for Whose {
    fn from(tenant: Option<TenantId>) -> Self {
        tenant.map_or(Self::All, Self::Tenant)
    }
}

impl Store {
    /// Opens the store file; its schema must be current.
    ///
    /// # Errors
    /// `STORE_VERSION` where it must be migrated first, `STORE_FAILED` where it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        is_current(sqlite::state(path)?).map_err(|error| error.at(path.display()))?;
        let engine = Engine::Sqlite(Arc::new(SqliteFile::open(path)?));
        Ok(Self { engine, who: "the server".into() })
    }

    /// Opens the store of a database; its schema must be current.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn connect(address: Address) -> Result<Self> {
        is_current(postgres::state(&address).await?).map_err(|error| error.at(&address))?;
        let engine = Engine::Postgres(Arc::new(postgres::Postgres::new(address)));
        Ok(Self { engine, who: "the server".into() })
    }

    /// Runs an intent in a transaction. What `work` returns as an error is rolled back.
    async fn write<T: Send + 'static>(
        &self,
        whose: impl Into<Whose>,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.engine {
            Engine::Sqlite(file) => file.write(move |tx| work(&Tx::sqlite(tx))).await,
            Engine::Postgres(database) => Box::pin(database.write(whose.into(), work)).await,
        }
    }

    /// Runs a read on a snapshot of its own.
    async fn read<T: Send + 'static>(
        &self,
        whose: impl Into<Whose>,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.engine {
            Engine::Sqlite(file) => {
                file.read(move |connection| work(&Tx::sqlite(connection))).await
            }
            Engine::Postgres(database) => Box::pin(database.read(whose.into(), work)).await,
        }
    }

    /// The folder its file is in, where it has one.
    fn folder(&self) -> Option<&Path> {
        match &self.engine {
            Engine::Sqlite(file) => file.path().parent(),
            Engine::Postgres(_) => None,
        }
    }
}

fn is_current(state: State) -> Result<()> {
    let words = match state {
        State::Current => return Ok(()),
        State::Empty => "there is no schema of a store in it".to_owned(),
        State::Behind { found } => {
            format!("the store has schema {found}, which is older than this program's")
        }
        State::Ahead { found } => {
            format!("the store has schema {found}, which this program does not know")
        }
    };
    Err(Error::new(Code::StoreVersion, words))
}
