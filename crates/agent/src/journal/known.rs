//! Known rows: key and hash of what staging holds, per table, and the key scan that finds what vanished.
//!
//! Promises: hash zero fits no row, so a row that is perhaps staged is sent again or deleted; of every table it is told
//! whether its known rows follow the session.
//! Never: changes but with a completed or dropped batch, or a rebuild.

use std::collections::BTreeSet;

use protocol::{Result, hash::RowHash, json::Entities, key::KeyBytes, names::TableName};
use rusqlite::{OptionalExtension as _, params};

use super::{
    session,
    writer::{Desk, failed},
};

/// How often all known rows were lost. A table's follow the session where they were learned since the last time: its
/// own fact holds this number.
const LOSSES: &str = "known_lost";

pub(super) const ZERO: RowHash = RowHash([0; 16]);

/// Known keys that were compared with a complete scan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Walked {
    pub known: u64,
    /// Those among them that the scan did not see.
    pub missed: u64,
    /// The last of them; `None` = there were none.
    pub last: Option<KeyBytes>,
}

/// What made a row known.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub batch: i64,
    pub message: u32,
    pub at_micros: i64,
}

/// `sent` is `None` where no accepted batch of this journal tells.
pub(super) fn put(
    desk: &Desk,
    table: i64,
    (key, hash): (&KeyBytes, RowHash),
    sent: Option<Sent>,
) -> Result<()> {
    let sql = "INSERT INTO known VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO UPDATE SET hash = excluded.hash,
               batch = excluded.batch, message = excluded.message, sent_micros = excluded.sent_micros";
    let (batch, message, at) =
        (sent.map(|s| s.batch), sent.map(|s| s.message), sent.map(|s| s.at_micros));
    desk.run(sql, params![table, key.0, hash.0, batch, message, at]).map(|_| ())
}

pub(super) fn remove(desk: &Desk, table: i64, key: &KeyBytes) -> Result<()> {
    desk.run("DELETE FROM known WHERE table_id = ?1 AND key = ?2", params![table, key.0])
        .map(|_| ())
}

pub(super) fn look_up(
    desk: &mut Desk,
    table: &TableName,
    keys: &[KeyBytes],
) -> Result<Vec<Option<RowHash>>> {
    let table = desk.number(table)?;
    let mut read = desk
        .db
        .prepare_cached("SELECT hash FROM known WHERE table_id = ?1 AND key = ?2")
        .map_err(failed)?;
    keys.iter()
        .map(|key| {
            let hash = read.query_row(params![table, key.0], |row| row.get(0)).optional();
            Ok(hash.map_err(failed)?.map(RowHash))
        })
        .collect()
}

pub(super) fn count(desk: &mut Desk, table: &TableName) -> Result<u64> {
    let table = desk.number(table)?;
    let count: i64 = desk
        .db
        .prepare_cached("SELECT count(*) FROM known WHERE table_id = ?1")
        .and_then(|mut read| read.query_row([table], |row| row.get(0)))
        .map_err(failed)?;
    Ok(count.cast_unsigned())
}

fn losses(desk: &Desk) -> Result<i64> {
    Ok(desk.fact(LOSSES)?.unwrap_or_default())
}

fn mark(table: i64) -> String {
    format!("known/{table}")
}

/// Forgets all known rows: those of withdrawn tables too, which must not be taken for good once they come back.
pub(super) fn lose(desk: &Desk) -> Result<()> {
    desk.run("DELETE FROM known", [])?;
    desk.run("DELETE FROM fact WHERE name LIKE 'known/%'", [])?;
    desk.set_fact(LOSSES, losses(desk)?.saturating_add(1))
}

/// The table's known rows are what is staged: from now on they follow the session.
pub(super) fn learned(desk: &mut Desk, table: &TableName) -> Result<()> {
    let number = desk.number(table)?;
    desk.set_fact(&mark(number), losses(desk)?)?;
    // Capture left the table out until now.
    desk.state.plan_serial += 1;
    Ok(())
}

/// The plan, and its tables whose known rows do not follow the session.
pub(super) fn plan_to_learn(desk: &mut Desk) -> Result<(Option<Entities>, BTreeSet<TableName>)> {
    let (lost, plan) = (losses(desk)?, session::plan(desk)?);
    let mut found = BTreeSet::new();
    for query in plan.iter().flat_map(|plan| &plan.queries).filter(|_| lost > 0) {
        let number = desk.number(&query.table)?;
        if desk.fact::<i64>(&mark(number))? != Some(lost) {
            found.insert(query.table.clone());
        }
    }
    Ok((plan, found))
}

pub(super) fn scan_begin(desk: &mut Desk, table: &TableName) -> Result<()> {
    let table = desk.number(table)?;
    desk.run("DELETE FROM temp.seen WHERE table_id = ?1", [table]).map(|_| ())
}

pub(super) fn scan_seen(desk: &mut Desk, table: &TableName, keys: &[KeyBytes]) -> Result<()> {
    let table = desk.number(table)?;
    for key in keys {
        desk.run("INSERT OR IGNORE INTO temp.seen VALUES (?1, ?2)", params![table, key.0])?;
    }
    Ok(())
}

pub(super) fn scan_missing(
    desk: &mut Desk,
    table: &TableName,
    after: Option<KeyBytes>,
    limit: usize,
) -> Result<Vec<KeyBytes>> {
    let table = desk.number(table)?;
    let (from, limit) = (after.unwrap_or_default().0, i64::try_from(limit).unwrap_or(i64::MAX));
    // No key is empty, so `> x''` takes the first one too.
    let sql = "SELECT key FROM known k WHERE table_id = ?1 AND key > ?2
               AND NOT EXISTS (SELECT 1 FROM temp.seen s WHERE s.table_id = ?1 AND s.key = k.key)
               ORDER BY key LIMIT ?3";
    desk.rows(sql, params![table, from, limit], |row| Ok(KeyBytes(row.get(0)?)))
}

pub(super) fn scan_walk(
    desk: &mut Desk,
    table: &TableName,
    after: Option<KeyBytes>,
    limit: usize,
) -> Result<Walked> {
    let table = desk.number(table)?;
    let (from, limit) = (after.unwrap_or_default().0, i64::try_from(limit).unwrap_or(i64::MAX));
    let sql = "SELECT count(*), max(k.key), coalesce(sum(NOT EXISTS (
                   SELECT 1 FROM temp.seen s WHERE s.table_id = ?1 AND s.key = k.key)), 0)
               FROM (SELECT key FROM known WHERE table_id = ?1 AND key > ?2 ORDER BY key LIMIT ?3) k";
    desk.db
        .prepare_cached(sql)
        .and_then(|mut read| {
            read.query_row(params![table, from, limit], |row| {
                Ok(Walked {
                    known: row.get::<_, i64>(0)?.cast_unsigned(),
                    last: row.get::<_, Option<_>>(1)?.map(KeyBytes),
                    missed: row.get::<_, i64>(2)?.cast_unsigned(),
                })
            })
        })
        .map_err(failed)
}
