//! Backup, store floor: copies of database files, what is checked of one, and what a copy needs to go on as a store.
//!
//! Promises: a copy is the file of one moment, whatever is written meanwhile, and keeps nobody from writing; a restored
//! store abandons its open batches, ends its leases, goes on with numbers that were never given out and lets nobody in
//! whom the one it replaces had shut out, in one transaction that the audit tells of.
//! Never: changes the file it copies.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use protocol::{
    Code, Coded as _, Error, Result,
    ids::{BatchId, Epoch, TenantId},
};
use runtime::{clock::Wall, files};
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior, params};

use super::{connect, failed};
use crate::{
    model::{
        access::SealedKey,
        restore::{self, Mark},
        stream::StreamId,
    },
    store::{
        Store,
        audit::{self, Deed},
        ingest::{abandon, names, stream_of},
        look,
        sql::Tx,
    },
};

/// How far each stream of a store is.
type Marks = BTreeMap<StreamId, Mark>;

/// A stream before and after a restore; of one that the copy lacks, before is nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    pub stream: StreamId,
    pub from: Mark,
    pub to: Mark,
}

/// What lets somebody in, until it is revoked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Entrance {
    Credential,
    Administrator,
    AdminToken,
}

impl Entrance {
    const ALL: [Self; 3] = [Self::Credential, Self::Administrator, Self::AdminToken];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Administrator => "administrator",
            Self::AdminToken => "admin-token",
        }
    }

    /// Its table, and the key of that.
    const fn table(self) -> (&'static str, &'static str) {
        match self {
            Self::Credential => ("credential", "client_id"),
            Self::Administrator => ("administrator", "id"),
            Self::AdminToken => ("admin_token", "id"),
        }
    }

    /// Id, tenant and name of those that are revoked. A revoked credential goes with its holder, its audit stays.
    const fn revoked(self) -> &'static str {
        match self {
            Self::Credential => {
                "SELECT client_id, tenant_id, client_id FROM credential WHERE revoked_at IS NOT NULL
                 UNION SELECT target, tenant_id, target FROM audit
                        WHERE action = 'credential.revoke' AND tenant_id IS NOT NULL"
            }
            Self::Administrator => {
                "SELECT id, NULL, name FROM administrator WHERE revoked_at IS NOT NULL"
            }
            Self::AdminToken => {
                "SELECT t.id, NULL, a.name || ' ' || t.name
                   FROM admin_token t JOIN administrator a ON a.id = t.administrator_id
                  WHERE t.revoked_at IS NOT NULL"
            }
        }
    }

    /// As the audit calls its end.
    const fn action(self) -> &'static str {
        match self {
            Self::Credential => "credential.revoke",
            Self::Administrator => "administrator.revoke",
            Self::AdminToken => "admin-token.revoke",
        }
    }
}

/// One that was revoked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Revoked {
    pub entrance: Entrance,
    pub id: String,
    /// Of a credential.
    pub tenant: Option<TenantId>,
    /// As people know it.
    pub name: String,
}

/// What a store that is to be replaced knows and its copy may not.
#[derive(Clone, Debug, Default)]
pub struct Replaced {
    marks: Marks,
    revoked: BTreeSet<Revoked>,
}

/// What a restore does to a store.
#[derive(Clone, Debug, Default)]
pub struct Steps {
    pub streams: Vec<Moved>,
    /// In force in the copy, and not in the store that is replaced.
    pub revoked: Vec<Revoked>,
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

/// What a store that is to be replaced tells.
///
/// # Errors
/// `STORE_FAILED` where it cannot be read.
pub fn replaced(path: &Path) -> Result<Replaced> {
    let connection = connect(path, true)?;
    Ok(Replaced { marks: marks(&connection)?, revoked: revoked(&connection)? })
}

fn marks(connection: &Connection) -> Result<Marks> {
    // Each grant leaves the identity of a database, and nothing takes it away.
    let sql = "SELECT tenant_id, environment_id, erp, epoch, last_batch,
                      identity IS NOT NULL OR holder IS NOT NULL OR EXISTS (
                        SELECT 1 FROM cursor c
                         WHERE (c.tenant_id, c.environment_id, c.erp) = (s.tenant_id, s.environment_id, s.erp))
                 FROM ingest_stream s";
    let mut statement = connection.prepare(sql).map_err(failed)?;
    let rows = statement
        .query_map([], |row| {
            let epoch = Epoch(row.get::<_, i64>(3)?.cast_unsigned());
            let mark = Mark { epoch, last_batch: BatchId(row.get(4)?), had_session: row.get(5)? };
            Ok(([row.get(0)?, row.get(1)?, row.get(2)?], mark))
        })
        .map_err(failed)?;
    rows.map(|row| {
        let (ids, mark) = row.map_err(failed)?;
        Ok((stream_of(&ids)?, mark))
    })
    .collect()
}

/// Whether there are administrators and an audit in it: an older store is read as well.
fn is_administered(connection: &Connection) -> Result<bool> {
    let sql = "SELECT count(*) = 2 FROM sqlite_schema WHERE type = 'table' AND name IN ('admin_token', 'audit')";
    connection.query_row(sql, [], |row| row.get(0)).map_err(failed)
}

fn revoked(connection: &Connection) -> Result<BTreeSet<Revoked>> {
    let mut all = BTreeSet::new();
    if !is_administered(connection)? {
        return Ok(all);
    }
    for entrance in Entrance::ALL {
        let mut statement = connection.prepare(entrance.revoked()).map_err(failed)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get::<_, Option<String>>(1)?, row.get(2)?)))
            .map_err(failed)?;
        for row in rows {
            let (id, tenant, name) = row.map_err(failed)?;
            let tenant = tenant.map(|tenant| tenant.parse::<TenantId>()).transpose()?;
            all.insert(Revoked { entrance, id, tenant, name });
        }
    }
    Ok(all)
}

/// The signing keys of a store, as they are sealed in it.
///
/// # Errors
/// `STORE_FAILED`.
pub fn sealed_keys(path: &Path) -> Result<Vec<SealedKey>> {
    look::sealed_keys(&Tx::sqlite(&connect(path, true)?))
}

/// What a restore would do to that copy.
///
/// # Errors
/// `STORE_FAILED`.
pub fn foreseen(path: &Path, replaced: &Replaced, now: Wall) -> Result<Steps> {
    steps(&connect(path, true)?, replaced, now)
}

fn steps(connection: &Connection, replaced: &Replaced, now: Wall) -> Result<Steps> {
    let own = marks(connection)?;
    let mut streams = Vec::new();
    for (stream, from) in &own {
        let to = restore::after(*from, replaced.marks.get(stream).copied(), now);
        streams.push(Moved { stream: stream.clone(), from: *from, to });
    }
    for (stream, mark) in replaced.marks.iter().filter(|(stream, _)| !own.contains_key(*stream)) {
        // Where the environment came after the copy too, nobody can send there.
        let sql = "SELECT EXISTS (SELECT 1 FROM environment WHERE (tenant_id, id) = (?1, ?2))";
        let [tenant, environment, _] = names(stream);
        let is_there: bool =
            connection.query_row(sql, [tenant, environment], |row| row.get(0)).map_err(failed)?;
        if is_there {
            let from = Mark::default();
            let to = restore::after(from, Some(*mark), now);
            streams.push(Moved { stream: stream.clone(), from, to });
        }
    }
    let mut open = Vec::new();
    if is_administered(connection)? {
        for revoked in &replaced.revoked {
            let (table, key) = revoked.entrance.table();
            let sql = format!(
                "SELECT EXISTS (SELECT 1 FROM {table} WHERE {key} = ?1 AND revoked_at IS NULL)"
            );
            let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
            if statement.query_row([&revoked.id], |row| row.get(0)).map_err(failed)? {
                open.push(revoked.clone());
            }
        }
    }
    Ok(Steps { streams, revoked: open })
}

/// Makes a copy fit to go on: nobody of before may send, nobody who was shut out since comes in, and nothing that was
/// numbered since is numbered again.
///
/// # Errors
/// `STORE_FAILED`, `DISK_FULL`; the copy is as it was then.
pub fn settle(
    path: &Path,
    replaced: &Replaced,
    (who, from): (&str, &str),
    now: Wall,
) -> Result<Steps> {
    let mut connection = connect(path, false)?;
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let steps = steps(&tx, replaced, now)?;
    for Moved { stream, to, .. } in &steps.streams {
        abandon(&Tx::sqlite(&tx), stream, now)?;
        let [tenant, environment, erp] = &names(stream);
        let sql = "INSERT INTO ingest_stream (tenant_id, environment_id, erp, epoch, last_batch)
                   VALUES (?1, ?2, ?3, ?4, ?5)
                   ON CONFLICT DO UPDATE SET epoch = ?4, last_batch = ?5, holder = NULL, nonce = NULL, former = x'',
                          expires_at = 0, disputed = 0";
        let epoch = to.epoch.0.cast_signed();
        tx.execute(sql, params![tenant, environment, erp, epoch, to.last_batch.0])
            .map_err(failed)?;
    }
    for revoked in &steps.revoked {
        shut(&tx, who, revoked, now)?;
    }
    let deed = Deed::global("store.restore", from);
    audit::note(&Tx::sqlite(&tx), who, deed.with(format!("{} streams", steps.streams.len())))?;
    tx.commit().map_err(failed)?;
    // The file is moved by itself: nothing of it may be left beside it.
    let sql = "PRAGMA wal_checkpoint(TRUNCATE)";
    connection.query_row(sql, [], |_| Ok(())).map_err(failed)?;
    connection.close().map_err(|(_, cause)| failed(cause))?;
    Ok(steps)
}

fn shut(tx: &Transaction<'_>, who: &str, revoked: &Revoked, now: Wall) -> Result<()> {
    let Revoked { entrance, id, tenant, name } = revoked;
    let (table, key) = entrance.table();
    let sql = format!("UPDATE {table} SET revoked_at = ?2 WHERE {key} = ?1");
    tx.prepare_cached(&sql).map_err(failed)?.execute(params![id, now.0]).map_err(failed)?;
    let deed = match tenant {
        Some(tenant) => Deed::of(entrance.action(), *tenant, name),
        None => Deed::global(entrance.action(), name),
    };
    audit::note(
        &Tx::sqlite(tx),
        who,
        deed.with("it was revoked in the store that a restore replaced"),
    )
}
