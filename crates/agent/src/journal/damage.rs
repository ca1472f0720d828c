//! Damage: what a disk did to the journal while nobody looked.
//!
//! Promises: whatever of a file cannot be read, or reads as something else, is found when it is opened, or by the first
//! read or write that meets it; then the file is marked, and the next start begins with another one.
//! Never: mends a record. A damaged file is moved aside, a damaged batch dropped, a damaged cursor entry left out.

use std::{
    error::Error as _,
    fs,
    path::{Path, PathBuf},
};

use protocol::{Code, Error, Result};
use rusqlite::{Connection, ErrorCode, functions::FunctionFlags, types::ValueRef};

use super::{
    backup,
    deletes::{self, CappedDeletes},
    halt::{self, Halts},
    known, orders, people, rounds, session, spool, verify,
    writer::{Desk, failed},
};

/// CRC32C over values, each with its kind and length, so that no byte can move from one to the next.
pub(super) fn checksum<'v>(values: impl IntoIterator<Item = ValueRef<'v>>) -> u32 {
    values.into_iter().fold(0, |crc, value| {
        let number;
        let (kind, bytes): (u8, &[u8]) = match value {
            ValueRef::Null => (0, &[]),
            ValueRef::Integer(value) => {
                number = value.to_be_bytes();
                (1, &number)
            }
            ValueRef::Real(value) => {
                number = value.to_be_bytes();
                (2, &number)
            }
            ValueRef::Text(text) => (3, text),
            ValueRef::Blob(blob) => (4, blob),
        };
        let length = (bytes.len() as u64).to_be_bytes();
        let parts: [&[u8]; 3] = [&[kind], &length, bytes];
        parts.into_iter().fold(crc, crc32c::crc32c_append)
    })
}

/// Makes [`checksum`] known to SQL, for the step that adds it to an older journal.
pub(super) fn add_checksum(db: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("checksum", -1, flags, |context| {
        Ok(checksum((0..context.len()).map(|at| context.get_raw(at))))
    })
}

/// What was found beside the spool when the journal was opened.
pub(super) struct Found {
    pub capped: std::collections::BTreeMap<protocol::names::TableName, CappedDeletes>,
    pub halts: Halts,
    /// Tables with rows to be sent again.
    pub again: std::collections::BTreeSet<protocol::names::TableName>,
}

/// Reads everything once that is read later, but for the rows of known, quarantine and history.
pub(super) fn probe(desk: &mut Desk) -> Result<Found> {
    names(desk)?;
    let messages = desk.rows("SELECT count(*) FROM spool", [], |row| row.get::<_, i64>(0))?;
    if desk.state.spool.batch.is_none() && messages != [0] {
        return Err(Error::new(Code::JournalFailed, "the spool holds messages of no batch"));
    }
    desk.epoch()?;
    for fact in ["granted_batch", "opened_batch", "reload_number", "known_lost", backup::RESTORED] {
        desk.fact::<i64>(fact)?;
    }
    session::unanswered(desk)?;
    session::registry(desk)?;
    session::cursors(desk)?;
    people::statuses(desk)?;
    people::incidents(desk, usize::MAX)?;
    people::reload_requests(desk)?;
    orders::untold(desk)?;
    known::plan_to_learn(desk)?;
    verify::probe(desk)?;
    Ok(Found { capped: deletes::all(desk)?, halts: halt::all(desk)?, again: rounds::again(desk)? })
}

/// A table's name and the form it is looked up by belong together.
fn names(desk: &Desk) -> Result<()> {
    let rows = desk.rows("SELECT folded, name FROM named", [], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
    })?;
    rows.iter().try_for_each(|(folded, name)| match spool::stored(name)?.folded() == folded {
        true => Ok(()),
        false => Err(Error::new(Code::JournalFailed, "a table name in the journal is damaged")),
    })
}

/// Whether SQLite itself calls the file damaged.
pub(super) fn is_damage(error: &Error) -> bool {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
    let code = cause.and_then(rusqlite::Error::sqlite_error_code);
    matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// The mark of a journal that was found damaged while it was in use.
pub(super) fn mark_of(journal: &Path) -> PathBuf {
    journal.with_extension("broken")
}

/// Leaves the mark: no check at the next start may find what a write met now.
pub(super) fn mark(db: &Connection) {
    let Some(path) = db.path().map(Path::new) else { return };
    if let Err(cause) = fs::write(mark_of(path), "") {
        tracing::error!(%cause, "the damaged journal cannot be marked; move it aside by hand");
    }
}

/// While opening, what is wrong with the file's content is damage; a full, locked or read-only disk is not.
pub(super) fn damaged(cause: rusqlite::Error) -> Error {
    judged(failed(cause))
}

/// As [`damaged`], of an error that a read of the journal gave.
pub(super) fn judged(error: Error) -> Error {
    let by_the_system = |cause: &rusqlite::Error| {
        let code = cause.sqlite_error_code();
        code.is_some_and(|code| {
            // `Unknown` is SQLite's plain error: the file is a database, but not a journal.
            !matches!(
                code,
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::Unknown
                    | ErrorCode::ConstraintViolation
                    | ErrorCode::TypeMismatch
                    | ErrorCode::TooBig
            )
        })
    };
    let cause = error.source().and_then(|cause| cause.downcast_ref::<rusqlite::Error>());
    if error.code != Code::JournalFailed || cause.is_some_and(by_the_system) {
        return error;
    }
    let words = error.chain();
    Error::new(Code::JournalCorrupt, "the journal is damaged").because(words)
}
