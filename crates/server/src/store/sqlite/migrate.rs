//! Migrations of the store file: forward only, numbered, each in one transaction.
//!
//! Promises: a step that fails leaves the store as it was; running twice changes nothing.
//! Never: runs by itself in production; `malote server migrate` does (`run` only where the store is new).

use std::path::Path;

use protocol::{Code, Coded as _, Result};

use super::{connect, failed};
use crate::store::migration::{Migration, migrations};

pub(super) const MIGRATIONS: &[Migration] = migrations!("sqlite");

/// How a store file stands to this program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Empty,
    Behind { found: u32 },
    Current,
    Ahead { found: u32 },
}

/// Reads the schema's version.
///
/// # Errors
/// `STORE_FAILED` where the file is not a store.
pub fn state(path: &Path) -> Result<State> {
    let there = path.try_exists();
    if !there.coded(Code::StoreFailed, format!("cannot look for {}", path.display()))? {
        return Ok(State::Empty);
    }
    let found = version(path)?;
    let newest = MIGRATIONS.iter().map(|step| step.number).max().unwrap_or(0);
    Ok(match found {
        0 => State::Empty,
        found if found < newest => State::Behind { found },
        found if found > newest => State::Ahead { found },
        _ => State::Current,
    })
}

/// The number of a store file's schema; 0 = it has none.
///
/// # Errors
/// As [`state`].
pub fn version(path: &Path) -> Result<u32> {
    let connection = connect(path, true)?;
    connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)
}

/// Brings the file to the newest schema; returns the steps that ran.
///
/// # Errors
/// `STORE_FAILED`; the steps before the failing one stay.
pub fn migrate(path: &Path) -> Result<Vec<&'static str>> {
    let mut connection = connect(path, false)?;
    let found: u32 =
        connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
    let mut ran = Vec::new();
    for step in MIGRATIONS.iter().filter(|step| step.number > found) {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(step.sql).map_err(failed)?;
        transaction.pragma_update(None, "user_version", step.number).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        ran.push(step.name);
    }
    Ok(ran)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_migrated_once_and_then_current() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        assert_eq!(state(&path).unwrap(), State::Empty);
        assert_eq!(migrate(&path).unwrap().len(), MIGRATIONS.len());
        assert_eq!(state(&path).unwrap(), State::Current);
        assert!(migrate(&path).unwrap().is_empty());
    }

    #[test]
    fn a_store_of_a_newer_program_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        migrate(&path).unwrap();
        connect(&path, false).unwrap().pragma_update(None, "user_version", 9_999).unwrap();
        assert_eq!(state(&path).unwrap(), State::Ahead { found: 9_999 });
    }
}
