//! Tombstones: the marks of deleted rows go once their days are over (`correctness.md` k 10).
//!
//! Promises: a table whose tombstones went remembers up to where, so that a row which was accepted earlier and waits in
//! quarantine does not come back as a live one (F55); a step is short.
//! Never: takes a live row.

use protocol::{Result, ids::AcceptSeq};
use rusqlite::{Connection, Transaction, params};

use super::{
    StagingFile,
    apply::last_row_seq,
    failed,
    tables::{self, StagedTable},
};
use crate::store::sqlite::retention::shrink;

/// Tombstones of one step.
const STEP: usize = 1_000;

impl StagingFile {
    /// How many tombstones of messages up to that number there are.
    ///
    /// # Errors
    /// The store's own.
    pub async fn old_tombstones(&self, to: AcceptSeq) -> Result<u64> {
        self.file
            .read(move |connection| {
                let tables = tables::all(connection)?;
                tables.iter().map(|table| count(connection, table, to)).sum()
            })
            .await
    }

    /// Removes the next tombstones of messages up to that number; 0 = there are none left.
    ///
    /// # Errors
    /// The store's own; nothing of the step is kept then.
    pub async fn remove_tombstones(&self, to: AcceptSeq) -> Result<u64> {
        self.file
            .write(move |tx| {
                let mut gone = 0;
                for table in tables::all(tx)? {
                    if gone < STEP {
                        gone += remove(tx, &table, (to, STEP - gone))?;
                    }
                }
                Ok(gone as u64)
            })
            .await
    }

    /// Gives some free pages back to the file system; `false` where there are none.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shrink_step(&self) -> Result<bool> {
        self.file.write(shrink).await
    }
}

fn count(connection: &Connection, table: &StagedTable, to: AcceptSeq) -> Result<u64> {
    let sql = format!("SELECT count(*) FROM {} WHERE _deleted = 1 AND _seq <= ?1", table.quoted());
    let found: i64 = connection
        .prepare_cached(&sql)
        .map_err(failed)?
        .query_row([last_row_seq(to)], |row| row.get(0))
        .map_err(failed)?;
    Ok(found.unsigned_abs())
}

fn remove(
    tx: &Transaction<'_>,
    table: &StagedTable,
    (to, limit): (AcceptSeq, usize),
) -> Result<usize> {
    // A file of an older program has no index yet.
    tables::index_tombstones(tx, table)?;
    let name = table.quoted();
    let sql = format!(
        "DELETE FROM {name} WHERE rowid IN
            (SELECT rowid FROM {name} WHERE _deleted = 1 AND _seq <= ?1 ORDER BY _seq LIMIT ?2)"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let gone = tx
        .prepare_cached(&sql)
        .map_err(failed)?
        .execute(params![last_row_seq(to), limit])
        .map_err(failed)?;
    if gone > 0 {
        // Of whatever was accepted up to there, staging cannot tell any more whether a delete followed it.
        tables::raise_floor(tx, &table.name, AcceptSeq(to.0.saturating_add(1)))?;
    }
    Ok(gone)
}
