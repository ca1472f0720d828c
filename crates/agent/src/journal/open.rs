//! Opening the journal: lock of the folder, check of the file and of what stands in it, moving a damaged one aside.
//!
//! Promises: one process per folder; a damaged journal is kept under another name and never stops the start, however it
//! is damaged; only the owner may read what is made.
//! Never: opens the journal of a newer program.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Code, Coded as _, Error, Result,
    ids::{BatchId, InstanceId},
};
use runtime::files;
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    Recovery, SpoolState,
    damage::{self, Found, damaged},
    writer::{Desk, failed},
};

const SCHEMA: &str = include_str!("schema.sql");
/// What follows the first schema, in order; the last one's number is the journal's version.
const UPGRADES: [&str; 6] = [
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
];
pub(super) const VERSION: i64 = 1 + UPGRADES.len() as i64;
pub(super) const FILE: &str = "journal.sqlite";
/// A process that is ending holds the folder a moment longer than its supervisor thinks: its last write to a busy disk
/// was seen to take more than a second.
const LOCK_TRIES: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// An opened journal, before its thread starts.
pub(super) struct Opened {
    pub desk: Desk,
    pub instance: InstanceId,
    pub found: Found,
    pub recovery: Recovery,
    /// Held while the journal is in use.
    pub lock: Arc<File>,
}

pub(super) fn open(folder: &Path) -> Result<Opened> {
    let place = |error: Error| error.at(folder.display());
    files::folder(folder)
        .coded(Code::JournalFailed, "cannot make the data folder")
        .map_err(place)?;
    files::warn_of_open_folder(folder);
    let lock = lock(folder).map_err(place)?;
    runtime::backup::refuse_pending(folder)?;
    let path = folder.join(FILE);
    let existed = path.exists();
    let mark = damage::mark_of(&path);
    let read = match mark.exists() {
        true => {
            Err(Error::new(Code::JournalCorrupt, "the journal was damaged when it was used last"))
        }
        false => whole(&path),
    };
    let ((desk, instance, found), recovery) = match read {
        Ok(read) => (read, if existed { Recovery::Resumed } else { Recovery::Fresh }),
        Err(error) if error.code == Code::JournalCorrupt && (existed || mark.exists()) => {
            tracing::warn!(
                words = error.message,
                cause = error.cause(),
                "journal is damaged, moved aside"
            );
            if existed {
                move_aside(&path).map_err(place)?;
            }
            if mark.exists() {
                fs::remove_file(&mark)
                    .coded(Code::JournalFailed, "cannot take the mark of a damaged journal away")
                    .map_err(place)?;
            }
            (whole(&path).map_err(place)?, Recovery::Replaced)
        }
        Err(error) => return Err(place(error)),
    };
    Ok(Opened { desk, instance, found, recovery, lock })
}

/// The file with all that is read of it later: damage that is met now is one path, met later it would end the process
/// again and again.
fn whole(path: &Path) -> Result<(Desk, InstanceId, Found)> {
    let mut desk = Desk::new(connect(path)?);
    let read = |desk: &mut Desk| {
        let instance = instance(desk)?;
        read_spool(desk)?;
        Ok((instance, damage::probe(desk)?))
    };
    let (instance, found) = read(&mut desk).map_err(damage::judged)?;
    Ok((desk, instance, found))
}

pub(super) fn lock(folder: &Path) -> Result<Arc<File>> {
    let path = folder.join("lock");
    let file = files::private(&path)
        .and_then(|()| File::options().write(true).open(&path))
        .coded(Code::JournalFailed, "cannot make the lock file")?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(Arc::new(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(cause)) => {
                let words = "cannot lock the data folder";
                return Err(Error::new(Code::JournalFailed, words).because(cause));
            }
        }
    }
    Err(Error::new(Code::StoreBusy, "another agent uses this data folder"))
}

pub(super) fn connect(path: &Path) -> Result<Connection> {
    files::database(path).coded(Code::JournalFailed, "cannot make the journal")?;
    let db = Connection::open(path).map_err(damaged)?;
    db.set_prepared_statement_cache_capacity(64);
    damage::add_checksum(&db).map_err(failed)?;
    // Before the first table: what retention frees can be given back only by a file made so.
    db.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA busy_timeout = 10000; PRAGMA cache_size = -4000; PRAGMA temp_store = FILE;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864;
         CREATE TEMP TABLE seen (table_id INTEGER NOT NULL, key BLOB NOT NULL, PRIMARY KEY (table_id, key))
         WITHOUT ROWID;",
    )
    .map_err(damaged)?;
    let check: String =
        db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if check != "ok" {
        return Err(Error::new(Code::JournalCorrupt, "the journal failed its check").because(check));
    }
    let version: i64 =
        db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damaged)?;
    match version {
        0..=VERSION => upgrade(&db, version)?,
        _ => {
            let words = format!("the journal has schema {version}, this program knows {VERSION}");
            return Err(Error::new(Code::StoreVersion, words));
        }
    }
    let fresh = Connection::open_in_memory().map_err(failed)?;
    damage::add_checksum(&fresh).map_err(failed)?;
    upgrade(&fresh, 0)?;
    if schema(&db)? != schema(&fresh)? {
        return Err(Error::new(Code::JournalCorrupt, "the journal's schema is damaged"));
    }
    Ok(db)
}

/// Tables and indices in the words that made them.
fn schema(db: &Connection) -> Result<Vec<(String, String)>> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite%' ORDER BY name";
    let mut statement = db.prepare(sql).map_err(damaged)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(damaged)?;
    rows.collect::<rusqlite::Result<_>>().map_err(damaged)
}

/// Each step in a transaction of its own: one that was cut short is begun again.
fn upgrade(db: &Connection, from: i64) -> Result<()> {
    let steps = std::iter::once(SCHEMA).chain(UPGRADES);
    for step in steps.skip(usize::try_from(from).unwrap_or_default()) {
        db.execute_batch(&format!("BEGIN;\n{step}\nCOMMIT;")).map_err(damaged)?;
    }
    Ok(())
}

fn move_aside(path: &Path) -> Result<()> {
    let free = (1u32..)
        .map(|number| path.with_extension(format!("damaged-{number}")))
        .find(|name| !name.exists())
        .unwrap_or_else(|| path.with_extension("damaged"));
    let tail = |of: &Path, tail: &str| {
        let mut name = of.as_os_str().to_owned();
        name.push(tail);
        PathBuf::from(name)
    };
    fs::rename(path, &free).coded(Code::JournalFailed, "cannot move the damaged journal aside")?;
    for end in ["-wal", "-shm"] {
        if tail(path, end).exists() {
            fs::rename(tail(path, end), tail(&free, end))
                .coded(Code::JournalFailed, "cannot move the damaged journal aside")?;
        }
    }
    Ok(())
}

fn instance(desk: &Desk) -> Result<InstanceId> {
    if let Some(id) = desk.fact::<String>("instance")?.and_then(|text| text.parse().ok()) {
        return Ok(id);
    }
    let id = InstanceId(runtime::entropy::uuid());
    desk.set_fact("instance", id.to_string())?;
    Ok(id)
}

/// What the file says of the open batch; everything in it counts as not acknowledged.
pub(super) fn read_spool(desk: &mut Desk) -> Result<()> {
    let batch = desk
        .db
        .query_row("SELECT id, seal IS NOT NULL FROM batch", [], |row| {
            Ok((BatchId(row.get(0)?), row.get::<_, bool>(1)?))
        })
        .optional()
        .map_err(failed)?;
    let Some((batch, sealed)) = batch else { return Ok(()) };
    let (appended, bytes, known): (u32, i64, i64) = desk
        .db
        .query_row(
            "SELECT count(*), coalesce(sum(length(bytes)), 0), coalesce(sum(length(known)), 0) FROM spool",
            [],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .map_err(failed)?;
    let state = &mut desk.state;
    let bytes = bytes.cast_unsigned();
    state.spool_bytes = bytes + known.cast_unsigned();
    state.acked_up_to = 0;
    state.acked_above.clear();
    let (completed, dropped) = (state.spool.completed, state.spool.dropped);
    state.spool = SpoolState {
        batch: Some(batch),
        appended,
        acked: 0,
        unacked_bytes: bytes,
        sealed,
        completed,
        dropped,
    };
    Ok(())
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn only_the_owner_may_read_the_journal_and_one_that_was_open_to_others_is_tightened() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("agent-data");
        let modes = || {
            let mut modes = vec![fs::metadata(&data).unwrap().permissions().mode() & 0o777];
            let files = fs::read_dir(&data).unwrap().flatten();
            modes.extend(files.map(|file| file.metadata().unwrap().permissions().mode() & 0o777));
            modes
        };
        let opened = open(&data).unwrap();
        assert_eq!(modes(), [0o700, 0o600, 0o600, 0o600, 0o600]);
        drop(opened);
        let journal = data.join(FILE);
        fs::set_permissions(&journal, fs::Permissions::from_mode(0o644)).unwrap();
        let _opened = open(&data).unwrap();
        assert_eq!(modes(), [0o700, 0o600, 0o600, 0o600, 0o600]);
    }
}
