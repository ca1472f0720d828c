//! Backup, store floor: copies of database files, what is checked of one, and what a copy needs to go on as a store.
//!
//! Promises: a copy is the file of one moment, whatever is written meanwhile, and keeps nobody from writing; a restored
//! store abandons its open batches, ends its leases and goes on with numbers that were never given out, in one
//! transaction that the audit tells of.
//! Never: changes the file it copies.

use std::{collections::BTreeMap, path::Path};

use protocol::{
    Code, Coded as _, Error, Result,
    ids::{BatchId, Epoch},
};
use runtime::{clock::Wall, files};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use super::{
    Store,
    audit::{self, Deed},
    connect, failed,
    ingest::{abandon, names, stream_of},
};
use crate::model::{
    access::SealedKey,
    restore::{self, Mark},
    stream::StreamId,
};

/// How far each stream of a store is.
pub type Marks = BTreeMap<StreamId, Mark>;

/// A stream before and after a restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    pub stream: StreamId,
    pub from: Mark,
    pub to: Mark,
}

impl Store {
    /// Notes that a copy of everything was made.
    ///
    /// # Errors
    /// The store's own.
    pub async fn note_backup(&self, to: String) -> Result<()> {
        self.audited(Deed::global("store.backup", to), |_| Ok(())).await
    }
}

/// Copies a database, as it is at one moment, into a new private file.
///
/// # Errors
/// `STORE_FAILED`, `DISK_FULL`.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let words = || format!("cannot make the file {}", to.display());
    if let Some(folder) = to.parent() {
        files::folder(folder).coded(Code::StoreFailed, words())?;
    }
    // SQLite writes into an empty file that is there, so it is private from the first byte on.
    files::fresh(to).coded(Code::StoreFailed, words())?;
    let path = to.to_str().ok_or_else(|| {
        Error::new(Code::StoreFailed, format!("{}: the path is not UTF-8", to.display()))
    })?;
    let connection = connect(from, true)?;
    connection.execute("VACUUM INTO ?1", [path]).map(|_| ()).map_err(failed)
}

/// Reads a whole file and compares it with its own indices and constraints.
///
/// # Errors
/// `BACKUP_INVALID` where it is damaged.
pub fn check(path: &Path) -> Result<()> {
    let place = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let damaged = |cause: rusqlite::Error| {
        Error::new(Code::BackupInvalid, "it is no whole database").at(place()).because(cause)
    };
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(damaged)?;
    let found: String =
        connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if found == "ok" {
        return Ok(());
    }
    Err(Error::new(Code::BackupInvalid, "it fails SQLite's check").at(place()).because(found))
}

/// How far each stream of a store is.
///
/// # Errors
/// `STORE_FAILED` where it cannot be read.
pub fn marks(path: &Path) -> Result<Marks> {
    marks_of(&connect(path, true)?)
}

fn marks_of(connection: &Connection) -> Result<Marks> {
    let sql = "SELECT tenant_id, environment_id, erp, epoch, last_batch FROM ingest_stream";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            let epoch = Epoch(row.get::<_, i64>(3)?.cast_unsigned());
            let mark = Mark { epoch, last_batch: BatchId(row.get(4)?) };
            Ok(([row.get(0)?, row.get(1)?, row.get(2)?], mark))
        })
        .map_err(failed)?;
    rows.map(|row| {
        let (ids, mark) = row.map_err(failed)?;
        Ok((stream_of(&ids)?, mark))
    })
    .collect()
}

/// The signing keys of a store, as they are sealed in it.
///
/// # Errors
/// `STORE_FAILED`.
pub fn sealed_keys(path: &Path) -> Result<Vec<SealedKey>> {
    let connection = connect(path, true)?;
    let sql = "SELECT kid, sealed, public_der FROM signing_key ORDER BY kid";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            Ok(SealedKey { kid: row.get(0)?, sealed: row.get(1)?, public_der: row.get(2)? })
        })
        .map_err(failed)?;
    rows.collect::<rusqlite::Result<_>>().map_err(failed)
}

/// Makes a copy fit to go on: nobody of before may send, and nothing that was numbered since is numbered again.
///
/// # Errors
/// `STORE_FAILED`, `DISK_FULL`; the copy is as it was then.
pub fn settle(
    path: &Path,
    replaced: &Marks,
    (who, from): (&str, &str),
    now: Wall,
) -> Result<Vec<Moved>> {
    let mut connection = connect(path, false)?;
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let mut moved = Vec::new();
    for (stream, from) in marks_of(&tx)? {
        abandon(&tx, &stream, now)?;
        let to = restore::after(from, replaced.get(&stream).copied(), now);
        let [tenant, environment, erp] = &names(&stream);
        let sql = "UPDATE ingest_stream SET epoch = ?4, last_batch = ?5, holder = NULL, nonce = NULL, former = x'',
                          expires_at = 0, disputed = 0
                    WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
        let epoch = to.epoch.0.cast_signed();
        tx.execute(sql, params![tenant, environment, erp, epoch, to.last_batch.0])
            .map_err(failed)?;
        moved.push(Moved { stream, from, to });
    }
    let deed = Deed::global("store.restore", from).with(format!("{} streams", moved.len()));
    audit::note(&tx, who, deed)?;
    tx.commit().map_err(failed)?;
    // The file is moved by itself: nothing of it may be left beside it.
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(sql, [], |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, cause)| failed(cause))?;
    Ok(moved)
}

/// What a person who looks after a store wants to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Glance {
    /// The newest moment that something was written down at.
    pub newest: Wall,
    /// When the key that signs tokens was made; `None` = there is none yet.
    pub signing_key_at: Option<Wall>,
    pub streams: u32,
}

/// Reads that of a store, whose schema must be current.
///
/// # Errors
/// `STORE_FAILED`.
pub fn glance(path: &Path) -> Result<Glance> {
    let connection = connect(path, true)?;
    let sql = "SELECT max(coalesce((SELECT max(at) FROM audit), 0), coalesce((SELECT max(last_at) FROM batch), 0)),
                      (SELECT max(created_at) FROM signing_key WHERE retired_at IS NULL),
                      (SELECT count(*) FROM ingest_stream)";
    connection
        .query_row(sql, [], |row| {
            Ok(Glance {
                newest: Wall(row.get(0)?),
                signing_key_at: row.get::<_, Option<i64>>(1)?.map(Wall),
                streams: row.get(2)?,
            })
        })
        .map_err(failed)
}
