//! Shrink, store floor: free pages of a SQLite file go back to the file system.
//!
//! Promises: a step is short, whatever the file has to give.
//! Never: moves a row.

use protocol::Result;
use rusqlite::Transaction;

use super::failed;

/// Free pages given back in one step.
const STEP_PAGES: u32 = 1_000;

/// Gives some free pages of a file back; `false` where there are none, or the file keeps them for itself.
pub(in crate::store) fn shrink(tx: &Transaction<'_>) -> Result<bool> {
    let free = || -> Result<u32> {
        tx.pragma_query_value(None, "freelist_count", |row| row.get(0)).map_err(failed)
    };
    let before = free()?;
    if before == 0 {
        return Ok(false);
    }
    let sql = format!("PRAGMA incremental_vacuum({STEP_PAGES})");
    let mut statement = tx.prepare(&sql).map_err(failed)?;
    // A page is moved with each step of the statement.
    let mut rows = statement.query([]).map_err(failed)?;
    while rows.next().map_err(failed)?.is_some() {}
    drop(rows);
    Ok(free()? < before)
}
