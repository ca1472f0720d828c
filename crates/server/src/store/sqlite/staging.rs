//! Staging, store floor: one SQLite file per environment and ERP, with real typed tables (`design.md` 3.3).
//!
//! Promises: rows and the apply cursor change in one transaction of the file; a row never goes back to an older image
//! (I7); a row that cannot be staged stands in quarantine and stops nothing; the file knows which ledger it was made from.
//! Never: holds what the ledger does not: a file that is lost, or of another ledger, is made again from it.

mod apply;
mod quarantine;
mod read;
mod tables;
mod tombstones;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{
    Code, Coded as _, Result,
    ids::{AcceptSeq, BatchId, EnvironmentId},
    names::ErpName,
};

use runtime::failpoint;
use rusqlite::{Connection, TransactionBehavior};

use super::{SqliteFile, failed};

pub use apply::Applied;
pub use quarantine::{Held, Outcome, Quarantined, Retry, RowAt, Waiting, Which};
pub use read::{Span, StagedRow, Sum};
pub use tables::{StagedColumn, StagedTable};

/// Relations of Malote's own in every staging file; the tables of the ERP stand beside them.
const SYSTEM: &str = "
CREATE TABLE IF NOT EXISTS malote_progress (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    applied_seq INTEGER NOT NULL
) STRICT;
INSERT OR IGNORE INTO malote_progress (one, applied_seq) VALUES (1, 0);
-- The message of that number: a store that was restored gives the same numbers to other messages.
CREATE TABLE IF NOT EXISTS malote_applied (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    applied_seq  INTEGER NOT NULL,
    batch        INTEGER NOT NULL,
    message      INTEGER NOT NULL,
    sha256       BLOB NOT NULL CHECK (length(sha256) = 32)
) STRICT;
CREATE TABLE IF NOT EXISTS malote_batches (
    batch        INTEGER PRIMARY KEY,
    state        TEXT NOT NULL CHECK (state IN ('open', 'complete', 'abandoned')),
    completed_at TEXT
) STRICT;
CREATE TABLE IF NOT EXISTS malote_tables (
    name_folded TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    key_columns TEXT NOT NULL CHECK (json_valid(key_columns)),
    -- Rows accepted before this number may be older than what was taken away: a rebuild, or an old tombstone.
    floor_seq   INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS malote_columns (
    table_folded TEXT NOT NULL,
    position     INTEGER NOT NULL,
    name_folded  TEXT NOT NULL,
    name         TEXT NOT NULL,
    type         TEXT NOT NULL,
    storage      TEXT NOT NULL CHECK (storage IN ('integer', 'boolean', 'base64', 'text')),
    PRIMARY KEY (table_folded, position),
    UNIQUE (table_folded, name_folded)
) STRICT, WITHOUT ROWID;
-- Tables whose rows were lost with an older file: they lack rows until the load of this generation is done.
CREATE TABLE IF NOT EXISTS malote_lost (
    name_folded TEXT PRIMARY KEY,
    generation  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS malote_quarantine (
    batch        INTEGER NOT NULL,
    message      INTEGER NOT NULL,
    row_at       INTEGER NOT NULL,
    table_folded TEXT NOT NULL,
    code         TEXT NOT NULL,
    reason       TEXT NOT NULL,
    cells        TEXT NOT NULL,
    at           INTEGER NOT NULL,
    -- Its message's place in the order of acceptance; NULL where an older program wrote the row.
    accept_seq   INTEGER,
    PRIMARY KEY (batch, message, row_at)
) STRICT, WITHOUT ROWID;
";

/// Columns that files of older programs lack.
const LATER: [(&str, &str, &str); 2] = [
    ("malote_tables", "floor_seq", "INTEGER NOT NULL DEFAULT 0"),
    ("malote_quarantine", "accept_seq", "INTEGER"),
];

type OpenFiles = HashMap<(EnvironmentId, ErpName), Arc<StagingFile>>;

/// The staging files of a data folder. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StagingFiles {
    root: PathBuf,
    open: Arc<Mutex<OpenFiles>>,
}

/// One staging file.
#[derive(Debug)]
pub struct StagingFile {
    file: SqliteFile,
}

/// How far a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub applied: AcceptSeq,
    /// Newest complete batch that is staged whole; 0 = none.
    pub complete_batch: BatchId,
}

impl StagingFiles {
    #[must_use]
    pub fn new(data: &Path) -> Self {
        Self { root: data.join("staging"), open: Arc::default() }
    }

    /// Where the file of an environment and ERP lies.
    #[must_use]
    pub fn path(&self, environment: EnvironmentId, erp: &ErpName) -> PathBuf {
        // An ERP's name has letters, digits, '_' and '-' alone, so it is a file name.
        self.root.join(environment.to_string()).join(format!("{erp}.sqlite"))
    }

    /// The file, made where it is not there yet.
    ///
    /// # Errors
    /// `STORE_FAILED` where it cannot be opened.
    pub async fn make(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Arc<StagingFile>> {
        let key = (environment, erp.clone());
        let path = self.path(environment, erp);
        let files = self.clone();
        runtime::task::blocking(move || {
            let mut open = files.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = open.get(&key) {
                return Ok(Arc::clone(file));
            }
            let file = Arc::new(StagingFile::open(&path)?);
            open.insert(key, Arc::clone(&file));
            Ok(file)
        })
        .await?
    }

    /// The file, if there is one.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub async fn find(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Option<Arc<StagingFile>>> {
        if self.path(environment, erp).exists() {
            self.make(environment, erp).await.map(Some)
        } else {
            Ok(None)
        }
    }
}

impl StagingFile {
    fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            runtime::files::folder(folder)
                .coded(Code::StoreFailed, "cannot make the staging folder")?;
        }
        let mut connection = super::connect(path, false)?;
        prepare(&mut connection)?;
        drop(connection);
        Ok(Self { file: SqliteFile::open(path)? })
    }
}

/// One transaction: a second process may open the file at the same moment.
fn prepare(connection: &mut Connection) -> Result<()> {
    failpoint::reach("staging.make", Code::StoreFailed)?;
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    tx.execute_batch(SYSTEM).map_err(failed)?;
    for (table, column, kind) in LATER {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
        let known: bool = tx.query_row(sql, [table, column], |row| row.get(0)).map_err(failed)?;
        if !known {
            let sql = format!("ALTER TABLE {table} ADD COLUMN {column} {kind}");
            tx.execute_batch(&sql).map_err(failed)?;
        }
    }
    tx.commit().map_err(failed)
}
