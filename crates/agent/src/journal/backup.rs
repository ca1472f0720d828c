//! Backup of the journal: a copy of its file, and what a copy of another day needs to be safe.
//!
//! Promises: a copy is the file of one moment and keeps nobody from writing; a restored one sends nothing of its day: its
//! spool, its known rows and what people had confirmed are gone, its instance is a new one, what is staged is learned
//! from the server before a table is read, and no batch gets a number that one of since may have had.
//! Never: is needed: a lost journal costs a rebuild and no row.

use std::{fs::File, path::Path, sync::Arc};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{clock::Wall, files};
use rusqlite::{Connection, OpenFlags, params};

use super::{open, writer::failed};

/// Name of the journal in its folder.
pub const FILE: &str = open::FILE;

/// Fact: the second in which a copy was made safe; batch ids lie above it.
pub(super) const RESTORED: &str = "restored_second";

/// Takes a data folder for this process, as a running agent does.
///
/// # Errors
/// `STORE_BUSY` where another process has it, `JOURNAL_FAILED`.
pub fn hold(folder: &Path) -> Result<Arc<File>> {
    files::folder(folder).coded(Code::JournalFailed, "cannot make the data folder")?;
    open::lock(folder)
}

/// Copies a journal, as it is at one moment, into a new private file.
///
/// # Errors
/// `JOURNAL_FAILED`, `DISK_FULL`.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let words = || format!("cannot make the file {}", to.display());
    files::fresh(to).coded(Code::JournalFailed, words())?;
    let path = to.to_str().ok_or_else(|| Error::new(Code::JournalFailed, words()))?;
    let db = read_only(from).map_err(failed)?;
    db.execute("VACUUM INTO ?1", [path]).map(|_| ()).map_err(failed)
}

fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(std::time::Duration::from_secs(10))?;
    Ok(db)
}

/// Reads a whole file and compares it with its own indices and constraints; gives the number of its schema.
///
/// # Errors
/// `BACKUP_INVALID` where it is damaged.
pub fn check(path: &Path) -> Result<u32> {
    let damaged = |cause: rusqlite::Error| {
        Error::new(Code::BackupInvalid, "it is no whole journal").because(cause)
    };
    let db = read_only(path).map_err(damaged)?;
    let found: String =
        db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if found != "ok" {
        return Err(Error::new(Code::BackupInvalid, "it fails SQLite's check").because(found));
    }
    db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damaged)
}

/// The number of a journal's schema, and the one this program makes.
///
/// # Errors
/// `JOURNAL_FAILED`.
pub fn versions(path: &Path) -> Result<(u32, u32)> {
    let read = read_only(path)
        .and_then(|db| db.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)));
    Ok((read.map_err(failed)?, u32::try_from(open::VERSION).unwrap_or_default()))
}

/// Makes a copy of another day safe to start with. Cursors and the last batch stay, for a server without sessions; any
/// other one tells its own. Toward the former, batches are numbered from this moment on: what was numbered since the
/// copy is not known. Pauses, history and incidents stay as they were.
///
/// # Errors
/// `STORE_VERSION` for a newer program's journal, `BACKUP_INVALID`, `JOURNAL_FAILED`, `DISK_FULL`.
pub fn settle(path: &Path, now: Wall) -> Result<()> {
    let mut db = open::connect(path).map_err(|error| match error.code {
        Code::JournalCorrupt => Error::new(Code::BackupInvalid, error.message),
        _ => error,
    })?;
    // A deletion that was confirmed, a reload that was ordered: of that day, and done or not since.
    let tx = db.transaction().map_err(failed)?;
    tx.execute_batch(
        "DELETE FROM spool; DELETE FROM batch; DELETE FROM known; DELETE FROM quarantine; DELETE FROM reload;
         DELETE FROM fact WHERE name IN ('instance', 'epoch', 'opening', 'opened_batch')
                             OR name LIKE 'known/%' OR name LIKE 'deletes/%';
         INSERT OR REPLACE INTO fact VALUES
             ('known_lost', coalesce((SELECT value FROM fact WHERE name = 'known_lost'), 0) + 1);",
    )
    .map_err(failed)?;
    // Older journals wait for no load.
    let waits = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'reload_order')";
    if tx.query_row(waits, [], |row| row.get(0)).map_err(failed)? {
        tx.execute_batch("DELETE FROM reload_order").map_err(failed)?;
    }
    let sql = "INSERT OR REPLACE INTO fact VALUES (?1, ?2)";
    tx.execute(sql, params![RESTORED, now.seconds()]).map_err(failed)?;
    tx.commit().map_err(failed)?;
    // The file is moved by itself: nothing of it may be left beside it.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    db.close().map_err(|(_, cause)| failed(cause))
}
