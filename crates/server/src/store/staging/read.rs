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

use super::{
    Progress, Space, SpaceTx,
    tables::{self, StagedTable, canonical},
};
use crate::store::{
    ingest::Standing,
    sql::{Cell, Optional as _, Row, SqlResult, failed, params},
    sqlite::Cut,
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

impl Space {
    /// # Errors
    /// The store's own.
    pub async fn progress(&self) -> Result<Progress> {
        self.read(progress).await
    }

    /// # Errors
    /// The store's own.
    pub async fn tables(&self) -> Result<Vec<StagedTable>> {
        self.read(tables::all).await
    }

    /// # Errors
    /// The store's own.
    pub async fn table(&self, name: TableName) -> Result<Option<StagedTable>> {
        self.read(move |tx| tables::find(tx, &name)).await
    }

    /// Rows that are there, deleted ones left out; 0 where there is no such table.
    ///
    /// # Errors
    /// The store's own.
    pub async fn count(&self, name: TableName) -> Result<u64> {
        self.read(move |tx| {
            let Some(table) = tables::find(tx, &name)? else { return Ok(0) };
            let live = table.dialect.live();
            let sql = format!("SELECT count(*) FROM {} WHERE {live}", table.quoted());
            let mut statement = tx.prepare(&sql).map_err(failed)?;
            let count = statement.query_row([], |row| row.get(0).map(i64::cast_unsigned));
            count.map_err(failed)
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
        self.read(move |tx| {
            let table = must(tx, &name)?;
            let live = format!(" AND {}", table.dialect.live());
            let sql = format!(
                "{} WHERE _key > ?1{} ORDER BY _key LIMIT ?2",
                selected(&table),
                if with_deleted { "" } else { live.as_str() }
            );
            let mut statement = tx.prepare(&sql).map_err(failed)?;
            let rows = statement.query_map(params![after.0, limit], |row| staged(&table, row));
            rows.map_err(failed)
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
        self.read(move |tx| {
            let table = must(tx, &name)?;
            let (mut rows, mut taken, mut more) = (Vec::new(), 0, false);
            let columns = format!(", _deleted, _batch, _message{}", table.told());
            let span = Span { after: after.0, ..Span::default() };
            walk(tx, (&table, &columns), &span, |row| {
                more = rows.len() >= limit as usize || taken > bytes;
                if !more {
                    let row = staged(&table, row)?;
                    taken +=
                        row.values.iter().flatten().map(|value| value.len() + 8).sum::<usize>();
                    rows.push(row);
                }
                Ok(!more)
            })?;
            Ok((rows, more))
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
        self.read(move |tx| {
            let Some(table) = tables::find(tx, &name)? else {
                return Ok(vec![None; keys.len()]);
            };
            let sql = format!("{} WHERE _key = ?1", selected(&table));
            let mut statement = tx.prepare(&sql).map_err(failed)?;
            let mut rows = Vec::with_capacity(keys.len());
            for key in &keys {
                let row = statement.query_row([&key.0], |row| staged(&table, row)).optional();
                rows.push(row.map_err(failed)?);
            }
            Ok(rows)
        })
        .await
    }

    /// Tables (folded) whose rows were lost with an older space, with the load that brings them again.
    ///
    /// # Errors
    /// The store's own.
    pub async fn lost(&self) -> Result<BTreeMap<String, Generation>> {
        self.read(|tx| {
            let sql = "SELECT name_folded, generation FROM malote_lost";
            let mut statement = tx.prepare_cached(sql).map_err(failed)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, Generation(row.get(1)?))));
            Ok(rows.map_err(failed)?.into_iter().collect())
        })
        .await
    }

    /// Where the space stands in its ledger.
    ///
    /// # Errors
    /// The store's own.
    pub async fn standing(&self) -> Result<Standing> {
        self.read(|tx| {
            failpoint::reach("staging.standing", Code::StoreFailed)?;
            let applied = progress(tx)?.applied;
            let sql =
                "SELECT coalesce(min(batch) FILTER (WHERE state = 'open'), max(batch) + 1, 1) FROM malote_batches";
            let batch = tx.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
            // A program that knew no marks may have applied further since.
            let sql = "SELECT batch, message, sha256 FROM malote_applied WHERE applied_seq = ?1";
            let read = |row: &Row<'_>| {
                Ok((BatchId(row.get(0)?), MessageNumber(row.get(1)?), row.get(2)?))
            };
            let last = tx.query_row(sql, [applied.0], read).optional().map_err(failed)?;
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
        self.read_long(move |tx, cut| {
            let mut sums = vec![Sum::default(); bounds.len() + 1];
            let mut at = 0;
            hashed((tx, cut), &name, &span, |key, hash| {
                while bounds.get(at).is_some_and(|bound| bound.as_slice() <= key) {
                    at += 1;
                }
                if let Some(sum) = sums.get_mut(at) {
                    sum.count += 1;
                    sum.xor = sum.xor.xor(hash);
                }
                true
            })?;
            Ok((sums, progress(tx)?))
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
        self.read_long(move |tx, cut| {
            failpoint::reach("staging.hashes", Code::StoreFailed)?;
            let (mut rows, mut bytes, mut more) = (Vec::new(), 0, false);
            hashed((tx, cut), &name, &span, |key, hash| {
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

fn progress(tx: &SpaceTx<'_>) -> Result<Progress> {
    let sql = "SELECT applied_seq, (SELECT coalesce(max(batch), 0) FROM malote_batches WHERE state = 'complete')
                 FROM malote_progress";
    let read = |row: &Row<'_>| {
        Ok(Progress { applied: AcceptSeq(row.get(0)?), complete_batch: BatchId(row.get(1)?) })
    };
    tx.query_row(sql, [], read).map_err(failed)
}

fn must(tx: &SpaceTx<'_>, name: &TableName) -> Result<StagedTable> {
    tables::find(tx, name)?
        .ok_or_else(|| Error::new(Code::NotFound, format!("there is no staging table {name}")))
}

/// The statement of whole rows, without its conditions.
fn selected(table: &StagedTable) -> String {
    format!("SELECT _key, _deleted, _batch, _message{} FROM {}", table.told(), table.quoted())
}

fn staged(table: &StagedTable, row: &Row<'_>) -> SqlResult<StagedRow> {
    let mut values = Vec::with_capacity(table.columns.len());
    for (at, column) in (4..).zip(&table.columns) {
        values.push(canonical(column.storage, row.cell(at)?));
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
    (tx, cut): (&SpaceTx<'_>, &Cut),
    name: &TableName,
    span: &Span,
    mut each: impl FnMut(&[u8], RowHash) -> bool,
) -> Result<()> {
    let Some(table) = tables::find(tx, name)? else { return Ok(()) };
    let names: Vec<ColumnName> =
        table.columns.iter().map(|column| column.name.parse()).collect::<Result<_>>()?;
    let hasher = RowHasher::new(&names);
    let mut values: Vec<Option<String>> = Vec::with_capacity(names.len());
    let (mut walked, mut left): (usize, bool) = (0, false);
    walk(tx, (&table, &table.told()), span, |row| {
        left = walked.is_multiple_of(LOOK) && cut.is_cut();
        if left {
            return Ok(false);
        }
        walked += 1;
        values.clear();
        for (at, column) in (1..).zip(&table.columns) {
            values.push(canonical(column.storage, row.cell(at)?));
        }
        let hash = hasher.hash(|at| values.get(at).and_then(Option::as_deref));
        Ok(each(key_of(row)?, hash))
    })?;
    if left {
        return Err(Error::new(Code::Timeout, "nobody waits for these rows any more"));
    }
    Ok(())
}

fn key_of<'r>(row: &'r Row<'_>) -> SqlResult<&'r [u8]> {
    Ok(if let Cell::Blob(key) = row.cell(0)? { key } else { &[] })
}

/// Walks the live rows of a span in key order, each as its key and those columns, until `each` has enough. With
/// PostgreSQL they come in pages.
fn walk(
    tx: &SpaceTx<'_>,
    (table, columns): (&StagedTable, &str),
    span: &Span,
    mut each: impl FnMut(&Row<'_>) -> SqlResult<bool>,
) -> Result<()> {
    let mut at_once = table.dialect.at_once(0, 0);
    let mut span = span.clone();
    loop {
        let (sql, ends) = steps(table, columns, &span);
        let ends: Vec<Cell<'_>> =
            ends.into_iter().map(Cell::Blob).chain([Cell::Int(at_once)]).collect();
        let (mut count, mut bytes, mut enough, mut last) = (0, 0, false, Vec::new());
        tx.prepare(&sql)
            .and_then(|mut statement| {
                statement.each(ends.as_slice(), |row| {
                    count += 1;
                    bytes += row.size();
                    enough = !each(row)?;
                    if count == at_once {
                        last = key_of(row)?.to_vec();
                    }
                    Ok(!enough)
                })
            })
            .map_err(failed)?;
        if enough || last.is_empty() {
            return Ok(());
        }
        at_once = table.dialect.at_once(at_once, bytes);
        span.after = last;
    }
}

/// The statement that walks a span, with its values: one bound at either end, so that the index finds both and nothing
/// before or behind them is read.
fn steps<'a>(table: &StagedTable, columns: &str, span: &'a Span) -> (String, Vec<&'a [u8]>) {
    let (begins, first) = match &span.after {
        after if !after.is_empty() && *after >= span.from => (">", after),
        _ => (">=", &span.from),
    };
    let mut ends = vec![first.as_slice()];
    let mut until = "";
    if !span.to.is_empty() {
        ends.push(&span.to);
        until = " AND _key < ?2";
    }
    let sql = format!(
        "SELECT _key{columns} FROM {} WHERE {} AND _key {begins} ?1{until} ORDER BY _key LIMIT ?{}",
        table.quoted(),
        table.dialect.live(),
        ends.len() + 1
    );
    (sql, ends)
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;
    use crate::store::{sql::Tx, sqlite::Asking, staging::Dialect};

    fn key(at: usize) -> Vec<u8> {
        KeyBytes::of([format!("{at:05}").as_str()]).0
    }

    /// A table of so many rows, by hand.
    fn table(rows: usize) -> (Connection, TableName) {
        let connection = Connection::open_in_memory().unwrap();
        let sql = "CREATE TABLE flan (_key BLOB NOT NULL PRIMARY KEY, _deleted INTEGER NOT NULL, id TEXT);
             INSERT INTO malote_tables (name_folded, name, key_columns) VALUES ('flan', 'FLAN', '[\"id\"]');
             INSERT INTO malote_columns VALUES ('flan', 0, 'id', 'id', 'string', 'text');";
        connection.execute_batch(super::super::OF_SQLITE).unwrap();
        connection.execute_batch(sql).unwrap();
        for at in 0..rows {
            let values = rusqlite::params![key(at), at.to_string()];
            connection.execute("INSERT INTO flan VALUES (?1, 0, ?2)", values).unwrap();
        }
        (connection, "FLAN".parse().unwrap())
    }

    const fn space(connection: &Connection) -> SpaceTx<'_> {
        SpaceTx { tx: Tx::sqlite(connection), dialect: &Dialect::Sqlite }
    }

    fn span(from: Option<usize>, to: Option<usize>, after: Option<usize>) -> Span {
        let [from, to, after] = [from, to, after].map(|at| at.map(key).unwrap_or_default());
        Span { from, to, after }
    }

    #[test]
    fn a_walk_ends_soon_after_nobody_waits_any_more() {
        let (connection, name) = table(4 * LOOK);
        let asking = Asking::default();
        let cut = asking.cut();
        let mut asking = Some(asking);
        let mut walked = 0;
        let tx = space(&connection);
        let ended = hashed((&tx, &cut), &name, &Span::default(), |_, _| {
            walked += 1;
            if walked == LOOK + 1 {
                asking = None;
            }
            true
        });
        assert_eq!((ended.unwrap_err().code, walked), (Code::Timeout, 2 * LOOK));
        // One that was cut before it began reads nothing.
        let ended = hashed((&tx, &cut), &name, &Span::default(), |_, _| unreachable!());
        assert!(ended.is_err());
    }

    #[test]
    fn a_walk_reads_the_keys_of_its_span_and_the_index_finds_both_its_ends() {
        let (connection, name) = table(10);
        let tx = space(&connection);
        let found = |span: &Span| {
            let mut keys = Vec::new();
            let mut each = |key: &[u8], _: RowHash| {
                keys.push(key.to_vec());
                true
            };
            hashed((&tx, &Cut::default()), &name, span, &mut each).unwrap();
            keys
        };
        let of = |from: usize, to: usize| (from..to).map(key).collect::<Vec<_>>();
        assert_eq!(found(&Span::default()), of(0, 10));
        assert_eq!(found(&span(Some(3), Some(7), None)), of(3, 7));
        assert_eq!(found(&span(Some(3), Some(7), Some(3))), of(4, 7));
        assert_eq!(found(&span(Some(3), None, Some(1))), of(3, 10), "behind a key before it");
        assert_eq!(found(&span(None, Some(2), Some(0))), of(1, 2));
        assert_eq!(found(&span(Some(7), Some(3), None)), of(0, 0));
        let of = tables::find(&tx, &name).unwrap().unwrap();
        let span = span(Some(3), Some(7), Some(4));
        let (sql, ends) = steps(&of, &of.told(), &span);
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let plan: String = connection
            .query_row(&sql, rusqlite::params![ends[0], ends[1], 1], |row| row.get(3))
            .unwrap();
        assert!(plan.contains("_key>? AND _key<?"), "{plan}");
    }
}
