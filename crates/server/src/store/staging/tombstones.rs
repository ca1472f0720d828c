//! Tombstones: the marks of deleted rows go once their days are over (`correctness.md` k 10).
//!
//! Promises: none goes while a row that was accepted before it waits in quarantine, which then finds what stands against
//! it (F55); a table whose tombstones went remembers up to where; a step is short.
//! Never: takes a live row.

use protocol::{Result, ids::AcceptSeq};

use super::{
    Space, SpaceTx,
    apply::last_row_seq,
    tables::{self, StagedTable},
};
use crate::store::sql::{failed, params};

/// Tombstones of one step.
const STEP: usize = 1_000;

impl Space {
    /// How many tombstones of messages up to that number there are.
    ///
    /// # Errors
    /// The store's own.
    pub async fn old_tombstones(&self, to: AcceptSeq) -> Result<u64> {
        self.read(move |tx| tables::all(tx)?.iter().map(|table| count(tx, table, to)).sum()).await
    }

    /// Removes the next tombstones of messages up to that number; 0 = there are none left.
    ///
    /// # Errors
    /// The store's own; nothing of the step is kept then.
    pub async fn remove_tombstones(&self, to: AcceptSeq) -> Result<u64> {
        self.write(move |tx| {
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
}

/// Up to where they may go: not past a row of the table that waits in quarantine, else nobody could tell later whether
/// it was deleted since.
fn reach(tx: &SpaceTx<'_>, table: &StagedTable, to: AcceptSeq) -> Result<AcceptSeq> {
    // An older program did not note where its rows stood.
    let sql = "SELECT min(coalesce(accept_seq, 0)) FROM malote_quarantine WHERE table_folded = ?1";
    let waiting: Option<i64> =
        tx.query_row(sql, [table.name.folded()], |row| row.get(0)).map_err(failed)?;
    Ok(waiting.map_or(to, |waiting| AcceptSeq(to.0.min(waiting.saturating_sub(1)))))
}

fn count(tx: &SpaceTx<'_>, table: &StagedTable, to: AcceptSeq) -> Result<u64> {
    let to = reach(tx, table, to)?;
    let gone = table.dialect.gone();
    let sql = format!("SELECT count(*) FROM {} WHERE {gone} AND _seq <= ?1", table.quoted());
    let found: i64 = tx.query_row(&sql, [last_row_seq(to)], |row| row.get(0)).map_err(failed)?;
    Ok(found.unsigned_abs())
}

fn remove(tx: &SpaceTx<'_>, table: &StagedTable, (to, limit): (AcceptSeq, usize)) -> Result<usize> {
    let to = reach(tx, table, to)?;
    // A file of an older program has no index yet.
    tables::index_tombstones(tx, table)?;
    let (name, gone) = (table.quoted(), table.dialect.gone());
    let sql = format!(
        "DELETE FROM {name} WHERE _key IN
            (SELECT _key FROM {name} WHERE {gone} AND _seq <= ?1 ORDER BY _seq LIMIT ?2)"
    );
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let gone = tx.execute(&sql, params![last_row_seq(to), limit]).map_err(failed)?;
    if gone > 0 {
        // Of whatever was accepted up to there, staging cannot tell any more whether a delete followed it.
        tables::raise_floor(tx, &table.name, AcceptSeq(to.0.saturating_add(1)))?;
    }
    Ok(gone)
}
