//! Read: staged rows as canonical text, their hashes and sums.
//!
//! Promises: a value comes back in the text it travelled in; one call sees one moment; pages are bounded.
//! Never: changes anything; shows `_seq` or other inner marks as values.

use std::collections::BTreeMap;

use protocol::{
    Code, Error, Result,
    hash::{RowHash, RowHasher},
    ids::{AcceptSeq, BatchId, Generation, MessageNumber},
    key::KeyBytes,
    limits,
    names::{ColumnName, TableName},
};
use runtime::failpoint;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use crate::store::{ingest::Standing, sqlite::Cut};

use super::{
    Progress, StagingFile, failed,
    tables::{self, StagedTable, canonical},
};

/// Rows between two looks whether anybody still waits for them.
const LOOK: usize = 256;

/// A staged row; `values` in the order of the table's columns, `None` where NULL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedRow {
    pub key: KeyBytes,
    pub values: Vec<Option<String>>,
    pub deleted: bool,
    pub batch: BatchId,
    pub message: MessageNumber,
}

/// Count and XOR of the hashes of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum {
    pub count: u64,
    pub xor: RowHash,
}

/// Keys `from` (inclusive) to `to` (exclusive), beginning behind `after`; empty = no bound.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Span {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    pub after: Vec<u8>,
}

impl StagingFile {
    /// # Errors
    /// The store's own.
    pub async fn progress(&self) -> Result<Progress> {
        self.file.read(progress).await
    }

    /// # Errors
    /// The store's own.
    pub async fn tables(&self) -> Result<Vec<StagedTable>> {
        self.file.read(tables::all).await
    }

    /// # Errors
    /// The store's own.
    pub async fn table(&self, name: TableName) -> Result<Option<StagedTable>> {
        self.file.read(move |connection| tables::find(connection, &name)).await
    }

    /// Rows that are there, deleted ones left out; 0 where there is no such table.
    ///
    /// # Errors
    /// The store's own.
    pub async fn count(&self, name: TableName) -> Result<u64> {
        self.file
            .read(move |connection| {
                let Some(table) = tables::find(connection, &name)? else { return Ok(0) };
                let sql = format!("SELECT count(*) FROM {} WHERE _deleted = 0", table.quoted());
                connection
                    .query_row(&sql, [], |row| row.get(0).map(i64::cast_unsigned))
                    .map_err(failed)
            })
            .await
    }

    /// A page of rows in the order of their keys, behind `after` (empty = from the first).
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn page(
        &self,
        name: TableName,
        (after, limit): (KeyBytes, u32),
        with_deleted: bool,
    ) -> Result<Vec<StagedRow>> {
        self.file
            .read(move |connection| {
                let table = must(connection, &name)?;
                let sql = format!(
                    "SELECT _key, _deleted, _batch, _message{} FROM {}
                      WHERE _key > ?1 AND (_deleted = 0 OR ?2) ORDER BY _key LIMIT ?3",
                    table.list(),
                    table.quoted()
                );
                let mut statement = connection.prepare(&sql).map_err(failed)?;
                let rows = statement
                    .query_map(params![after.0, with_deleted, limit], |row| staged(&table, row))
                    .map_err(failed)?;
                rows.collect::<rusqlite::Result<_>>().map_err(failed)
            })
            .await
    }

    /// Live rows behind `after`, at most `limit` and about `bytes` of them (but one at least); `true` where there are more.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn bounded_page(
        &self,
        name: TableName,
        after: KeyBytes,
        (limit, bytes): (u32, usize),
    ) -> Result<(Vec<StagedRow>, bool)> {
        self.file
            .read(move |connection| {
                let table = must(connection, &name)?;
                let sql = format!(
                    "SELECT _key, _deleted, _batch, _message{} FROM {}
                      WHERE _key > ?1 AND _deleted = 0 ORDER BY _key",
                    table.list(),
                    table.quoted()
                );
                let mut statement = connection.prepare(&sql).map_err(failed)?;
                let mut found = statement.query([after.0]).map_err(failed)?;
                let (mut rows, mut taken) = (Vec::new(), 0);
                while let Some(row) = found.next().map_err(failed)? {
                    if rows.len() >= limit as usize || taken > bytes {
                        return Ok((rows, true));
                    }
                    let row = staged(&table, row).map_err(failed)?;
                    taken +=
                        row.values.iter().flatten().map(|value| value.len() + 8).sum::<usize>();
                    rows.push(row);
                }
                Ok((rows, false))
            })
            .await
    }

    /// Rows of these keys, deleted ones included, in the order asked; `None` where a key was never staged.
    ///
    /// # Errors
    /// The store's own.
    pub async fn rows_by_keys(
        &self,
        name: TableName,
        keys: Vec<KeyBytes>,
    ) -> Result<Vec<Option<StagedRow>>> {
        self.file
            .read(move |connection| {
                let Some(table) = tables::find(connection, &name)? else {
                    return Ok(vec![None; keys.len()]);
                };
                let sql = format!(
                    "SELECT _key, _deleted, _batch, _message{} FROM {} WHERE _key = ?1",
                    table.list(),
                    table.quoted()
                );
                let mut statement = connection.prepare(&sql).map_err(failed)?;
                let mut rows = Vec::with_capacity(keys.len());
                for key in &keys {
                    let row = statement.query_row([&key.0], |row| staged(&table, row)).optional();
                    rows.push(row.map_err(failed)?);
                }
                Ok(rows)
            })
            .await
    }

    /// Tables (folded) whose rows were lost with an older file, with the load that brings them again.
    ///
    /// # Errors
    /// The store's own.
    pub async fn lost(&self) -> Result<BTreeMap<String, Generation>> {
        self.file
            .read(|connection| {
                let sql = "SELECT name_folded, generation FROM malote_lost";
                let mut statement = connection.prepare_cached(sql).map_err(failed)?;
                let rows = statement
                    .query_map([], |row| Ok((row.get(0)?, Generation(row.get(1)?))))
                    .map_err(failed)?;
                rows.collect::<rusqlite::Result<_>>().map_err(failed)
            })
            .await
    }

    /// Where the file stands in its ledger.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing(&self) -> Result<Standing> {
        self.file
            .read(|connection| {
                failpoint::reach("staging.standing", Code::StoreFailed)?;
                let applied = progress(connection)?.applied;
                let sql =
                    "SELECT coalesce(min(batch) FILTER (WHERE state = 'open'), max(batch) + 1, 1)
                             FROM malote_batches";
                let batch = connection.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
                // A program that knew no marks may have applied further since.
                let sql =
                    "SELECT batch, message, sha256 FROM malote_applied WHERE applied_seq = ?1";
                let last = connection
                    .query_row(sql, [applied.0], |row| {
                        Ok((BatchId(row.get(0)?), MessageNumber(row.get(1)?), row.get(2)?))
                    })
                    .optional()
                    .map_err(failed)?;
                Ok(Standing { applied, last, batch: BatchId(batch) })
            })
            .await
    }

    /// Count and XOR of the rows' hashes in the n + 1 ranges that n ascending bounds make, with the progress they hold; only
    /// rows of the span count. Ends early where nobody waits any more.
    ///
    /// # Errors
    /// The store's own.
    pub async fn ranges(
        &self,
        name: TableName,
        (span, bounds): (Span, Vec<Vec<u8>>),
    ) -> Result<(Vec<Sum>, Progress)> {
        self.file
            .read_long(move |connection, cut| {
                let mut sums = vec![Sum::default(); bounds.len() + 1];
                let mut at = 0;
                hashed((connection, cut), &name, &span, |key, hash| {
                    while bounds.get(at).is_some_and(|bound| bound.as_slice() <= key) {
                        at += 1;
                    }
                    if let Some(sum) = sums.get_mut(at) {
                        sum.count += 1;
                        sum.xor = sum.xor.xor(hash);
                    }
                    true
                })?;
                Ok((sums, progress(connection)?))
            })
            .await
    }

    /// Keys and hashes of a range, within the limits of a page; `true` where there are more.
    ///
    /// # Errors
    /// The store's own.
    pub async fn hashes(
        &self,
        name: TableName,
        span: Span,
    ) -> Result<(Vec<(KeyBytes, RowHash)>, bool)> {
        self.file
            .read_long(move |connection, cut| {
                failpoint::reach("staging.hashes", Code::StoreFailed)?;
                let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
                hashed((connection, cut), &name, &span, |key, hash| {
                    bytes += key.len() + 32;
                    more = rows.len() >= limits::RECONCILE_ROWS
                        || (bytes > limits::RECONCILE_BYTES && !rows.is_empty());
                    if !more {
                        rows.push((KeyBytes(key.to_vec()), hash));
                    }
                    !more
                })?;
                Ok((rows, more))
            })
            .await
    }
}

fn progress(connection: &Connection) -> Result<Progress> {
    let sql = "SELECT applied_seq, (SELECT coalesce(max(batch), 0) FROM malote_batches WHERE state = 'complete')
                 FROM malote_progress";
    connection
        .query_row(sql, [], |row| {
            Ok(Progress { applied: AcceptSeq(row.get(0)?), complete_batch: BatchId(row.get(1)?) })
        })
        .map_err(failed)
}

fn must(connection: &Connection, name: &TableName) -> Result<StagedTable> {
    tables::find(connection, name)?
        .ok_or_else(|| Error::new(Code::NotFound, format!("there is no staging table {name}")))
}

fn staged(table: &StagedTable, row: &Row<'_>) -> rusqlite::Result<StagedRow> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (at, column) in (4..).zip(&table.columns) {
        values.push(canonical(column.storage, row.get_ref(at)?));
    }
    Ok(StagedRow {
        key: KeyBytes(row.get(0)?),
        deleted: row.get(1)?,
        batch: BatchId(row.get(2)?),
        message: MessageNumber(row.get(3)?),
        values,
    })
}

/// Walks the live rows of a span in key order with their hashes, until `each` has enough or nobody waits any more.
fn hashed(
    (connection, cut): (&Connection, &Cut),
    name: &TableName,
    span: &Span,
    mut each: impl FnMut(&[u8], RowHash) -> bool,
) -> Result<()> {
    let Some(table) = tables::find(connection, name)? else { return Ok(()) };
    let names: Vec<ColumnName> =
        table.columns.iter().map(|column| column.name.parse()).collect::<Result<_>>()?;
    let hasher = RowHasher::new(&names);
    let (sql, ends) = walk(&table, span);
    let mut statement = connection.prepare(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(ends)).map_err(failed)?;
    let mut values: Vec<Option<String>> = Vec::with_capacity(names.len());
    let mut walked: usize = 0;
    while let Some(row) = rows.next().map_err(failed)? {
        if walked.is_multiple_of(LOOK) && cut.is_cut() {
            return Err(Error::new(Code::Timeout, "nobody waits for these rows any more"));
        }
        walked += 1;
        values.clear();
        for (at, column) in (1..).zip(&table.columns) {
            values.push(canonical(column.storage, row.get_ref(at).map_err(failed)?));
        }
        let hash = hasher.hash(|at| values.get(at).and_then(Option::as_deref));
        let key = row.get_ref(0).map_err(failed)?;
        if !each(key.as_blob().unwrap_or_default(), hash) {
            break;
        }
    }
    Ok(())
}

/// The statement that walks a span, with its values: one bound at either end, so that the index finds both and nothing
/// before or behind them is read.
fn walk<'a>(table: &StagedTable, span: &'a Span) -> (String, Vec<&'a Vec<u8>>) {
    let (begins, first) = match &span.after {
        after if !after.is_empty() && *after >= span.from => (">", after),
        _ => (">=", &span.from),
    };
    let mut ends = vec![first];
    let mut until = "";
    if !span.to.is_empty() {
        ends.push(&span.to);
        until = " AND _key < ?2";
    }
    let sql = format!(
        "SELECT _key{} FROM {} WHERE _deleted = 0 AND _key {begins} ?1{until} ORDER BY _key",
        table.list(),
        table.quoted()
    );
    (sql, ends)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    fn key(at: usize) -> Vec<u8> {
        KeyBytes::of([format!("{at:05}").as_str()]).0
    }

    /// A table of so many rows, by hand.
    fn table(rows: usize) -> (Connection, TableName) {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE flan (_key BLOB NOT NULL PRIMARY KEY, _deleted INTEGER NOT NULL, id TEXT);
             INSERT INTO malote_tables (name_folded, name, key_columns) VALUES ('flan', 'FLAN', '[\"id\"]');
             INSERT INTO malote_columns VALUES ('flan', 0, 'id', 'id', 'string', 'text');";
        connection.execute_batch(super::super::SYSTEM).unwrap();
        connection.execute_batch(sql).unwrap();
        for at in 0..rows {
            let values = params![key(at), at.to_string()];
            connection.execute("INSERT INTO flan VALUES (?1, 0, ?2)", values).unwrap();
        }
        (connection, "FLAN".parse().unwrap())
    }

    fn span(from: Option<usize>, to: Option<usize>, after: Option<usize>) -> Span {
        let [from, to, after] = [from, to, after].map(|at| at.map(key).unwrap_or_default());
        Span { from, to, after }
    }

    #[test]
    fn a_walk_ends_soon_after_nobody_waits_any_more() {
        let (connection, name) = table(4 * LOOK);
        let cut = Cut::default();
        let mut walked = 0;
        let ended = hashed((&connection, &cut), &name, &Span::default(), |_, _| {
            walked += 1;
            if walked == LOOK + 1 {
                cut.0.store(true, Ordering::Relaxed);
            }
            true
        });
        assert_eq!((ended.unwrap_err().code, walked), (Code::Timeout, 2 * LOOK));
        // One that was cut before it began reads nothing.
        let ended = hashed((&connection, &cut), &name, &Span::default(), |_, _| unreachable!());
        assert!(ended.is_err());
    }

    #[test]
    fn a_walk_reads_the_keys_of_its_span_and_the_index_finds_both_its_ends() {
        let (connection, name) = table(10);
        let found = |span: &Span| {
            let mut keys = Vec::new();
            let mut each = |key: &[u8], _: RowHash| {
                keys.push(key.to_vec());
                true
            };
            hashed((&connection, &Cut::default()), &name, span, &mut each).unwrap();
            keys
        };
        let of = |from: usize, to: usize| (from..to).map(key).collect::<Vec<_>>();
        assert_eq!(found(&Span::default()), of(0, 10));
        assert_eq!(found(&span(Some(3), Some(7), None)), of(3, 7));
        assert_eq!(found(&span(Some(3), Some(7), Some(3))), of(4, 7));
        assert_eq!(found(&span(Some(3), None, Some(1))), of(3, 10), "behind a key before it");
        assert_eq!(found(&span(None, Some(2), Some(0))), of(1, 2));
        assert_eq!(found(&span(Some(7), Some(3), None)), of(0, 0));
        let of = tables::find(&connection, &name).unwrap().unwrap();
        let span = span(Some(3), Some(7), Some(4));
        let (sql, ends) = walk(&of, &span);
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let plan: String =
            connection.query_row(&sql, params_from_iter(ends), |row| row.get(3)).unwrap();
        assert!(plan.contains("_key>? AND _key<?"), "{plan}");
    }
}
