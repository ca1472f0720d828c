//! Site: where a store is, a file or a database, and what can be done with it before it is open.
//!
//! Promises: neither what it shows nor its errors hold a password.
//! Never: opens a store whose schema is not this program's.

use std::path::PathBuf;

use protocol::{Code, Error, Result};
use runtime::postgres::Address;

use super::{Store, postgres, sqlite, sqlite::State};

/// Where a store is.
#[derive(Clone, Debug)]
pub enum Site {
    File(PathBuf),
    Postgres(Box<Address>),
}

impl Site {
    /// How its schema stands to this program.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn state(&self) -> Result<State> {
        match self {
            Self::File(path) => sqlite::state(path),
            Self::Postgres(address) => postgres::state(address).await,
        }
    }

    /// Brings its schema to the newest form; returns the steps that ran.
    ///
    /// # Errors
    /// `STORE_FAILED`; the steps before the failing one stay.
    pub async fn migrate(&self) -> Result<Vec<&'static str>> {
        match self {
            Self::File(path) => sqlite::migrate(path),
            Self::Postgres(address) => postgres::migrate(address).await,
        }
    }

    /// Lets a role of the database work as the server.
    ///
    /// # Errors
    /// `BAD_REQUEST` of a file, and as [`postgres::grant`].
    pub async fn grant(&self, role: &str) -> Result<()> {
        match self {
            Self::File(_) => Err(Error::new(
                Code::BadRequest,
                "a store in a file has no roles: leave --role out",
            )),
            Self::Postgres(address) => postgres::grant(address, role).await,
        }
    }

    /// Opens it; its schema must be current.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub async fn open(&self) -> Result<Store> {
        match self {
            Self::File(path) => Store::open(path),
            Self::Postgres(address) => Store::connect(Address::clone(address)).await,
        }
    }
}

impl std::fmt::Display for Site {
    /// The file, or host and database.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(out),
            Self::Postgres(address) => address.fmt(out),
        }
    }
}
