//! What people see and ask for: statuses, incidents, quarantined rows, reloads.
//!
//! Promises: everything that is skipped has an incident here (I18).
//! Never: keeps a row's value; a quarantined row is known by key and hash.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Code, Error, Result, hash::RowHash, key::KeyBytes, names::TableName};
use runtime::failpoint;
use rusqlite::params;

use super::{Incident, TableStatus, history, session, spool, writer::Desk};

/// Incidents kept; older ones go.
const INCIDENTS: i64 = 10_000;

pub(super) fn save_status(desk: &mut Desk, statuses: &[TableStatus]) -> Result<()> {
    failpoint::reach("journal.status", Code::DiskFull)?;
    desk.run("DELETE FROM status", [])?;
    for status in statuses {
        let table = desk.number(&status.table)?;
        let json = serde_json::to_string(status).map_err(|cause| {
            Error::new(Code::Internal, "a status cannot be written").because(cause)
        })?;
        desk.run("INSERT OR REPLACE INTO status VALUES (?1, ?2)", params![table, json])?;
    }
    Ok(())
}

pub(super) fn statuses(desk: &Desk) -> Result<Vec<TableStatus>> {
    let sql = "SELECT s.json FROM status s JOIN named n ON n.id = s.table_id ORDER BY n.folded";
    let rows = desk.rows(sql, [], |row| row.get::<_, String>(0))?;
    // A status of another version is left out: the next cycle writes it again.
    Ok(rows.iter().filter_map(|json| serde_json::from_str(json).ok()).collect())
}

pub(super) fn incident(desk: &mut Desk, incident: &Incident) -> Result<()> {
    let table = incident.table.as_ref().map(|table| desk.number(table)).transpose()?;
    desk.run(
        "INSERT INTO incident (table_id, key_hash, code, words, at_micros) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![table, incident.key_hash, incident.code.as_str(), incident.words, incident.at_micros],
    )?;
    let old = desk.db.last_insert_rowid() - INCIDENTS;
    if let (Some(table), None) = (&incident.table, &incident.key_hash) {
        // The table failed as a whole; a single row that is skipped does not make its concept fail.
        let error = format!("{}: {}", incident.code, incident.words);
        history::failed(desk, table, error, incident.at_micros)?;
    }
    // Single rows never push out what is told of a table, or of the whole; of that the newest of each kind stays.
    let surplus = "DELETE FROM incident WHERE id <= ?1 AND (key_hash IS NOT NULL OR EXISTS (
                     SELECT 1 FROM incident n WHERE n.id > incident.id AND n.key_hash IS NULL
                       AND n.table_id IS incident.table_id AND n.code = incident.code))";
    desk.run(surplus, [old]).map(|_| ())
}

/// What the open incidents of a table (`None` = of no table) with that code told of is mended; those of single rows stay.
pub(super) fn close(desk: &mut Desk, table: Option<&TableName>, code: Code) -> Result<()> {
    let number = table.map(|table| desk.number(table)).transpose()?;
    let sql = "DELETE FROM incident WHERE table_id IS ?1 AND code = ?2 AND key_hash IS NULL";
    desk.run(sql, params![number, code.as_str()]).map(|_| ())
}

/// The table is read again: whatever kept it from being read is mended. What has an end of its own stays.
pub(super) fn read_again(desk: &mut Desk, table: &TableName) -> Result<()> {
    const STAY: [Code; 5] = [
        Code::DeletesCapped,
        Code::KeyIsNull,
        Code::DifferencesFound,
        Code::NotVerified,
        Code::BoundDegraded,
    ];
    let stay = STAY.map(|code| format!("'{code}'")).join(", ");
    let table = desk.number(table)?;
    let sql = format!(
        "DELETE FROM incident WHERE table_id = ?1 AND key_hash IS NULL AND code NOT IN ({stay})"
    );
    desk.run(&sql, [table]).map(|_| ())
}

/// Words of the open incidents with that code, by table; those of single rows are not among them.
pub(super) fn told(desk: &mut Desk, code: Code) -> Result<Vec<(TableName, String)>> {
    let sql = "SELECT n.name, i.words FROM incident i JOIN named n ON n.id = i.table_id
               WHERE i.code = ?1 AND i.key_hash IS NULL ORDER BY i.id";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get(1)?));
    let told = desk.rows(sql, [code.as_str()], read)?;
    told.into_iter().map(|(name, words)| Ok((spool::stored(&name)?, words))).collect()
}

pub(super) fn incidents(desk: &Desk, limit: usize) -> Result<Vec<Incident>> {
    let sql = "SELECT n.name, i.key_hash, i.code, i.words, i.at_micros FROM incident i
               LEFT JOIN named n ON n.id = i.table_id ORDER BY i.id DESC LIMIT ?1";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let read = |row: &rusqlite::Row<'_>| {
        Ok((
            row.get::<_, Option<String>>(0)?,
            row.get(1)?,
            row.get::<_, String>(2)?,
            row.get(3)?,
            row.get(4)?,
        ))
    };
    desk.rows(sql, [limit], read)?
        .into_iter()
        .map(|(table, key_hash, code, words, at_micros)| {
            Ok(Incident {
                table: table.as_deref().map(spool::stored).transpose()?,
                key_hash,
                code: code.parse().unwrap_or(Code::Internal),
                words,
                at_micros,
            })
        })
        .collect()
}

pub(super) fn quarantine(
    desk: &mut Desk,
    table: &TableName,
    key: &KeyBytes,
    hash: RowHash,
) -> Result<()> {
    let table = desk.number(table)?;
    desk.run("INSERT OR REPLACE INTO quarantine VALUES (?1, ?2, ?3)", params![table, key.0, hash.0])
        .map(|_| ())
}

pub(super) fn quarantined(
    desk: &mut Desk,
    table: &TableName,
) -> Result<BTreeMap<KeyBytes, RowHash>> {
    let table = desk.number(table)?;
    let sql = "SELECT key, hash FROM quarantine WHERE table_id = ?1";
    let rows = desk.rows(sql, [table], |row| Ok((KeyBytes(row.get(0)?), RowHash(row.get(1)?))))?;
    Ok(rows.into_iter().collect())
}

pub(super) fn forgive(desk: &mut Desk, table: &TableName, keys: &[KeyBytes]) -> Result<()> {
    let table = desk.number(table)?;
    for key in keys {
        desk.run("DELETE FROM quarantine WHERE table_id = ?1 AND key = ?2", params![table, key.0])?;
    }
    Ok(())
}

pub(super) fn forgive_all(desk: &mut Desk, table: &TableName) -> Result<()> {
    let table = desk.number(table)?;
    // Rows that still cannot be sent are told anew.
    desk.run("DELETE FROM incident WHERE table_id = ?1 AND key_hash IS NOT NULL", [table])?;
    desk.run("DELETE FROM quarantine WHERE table_id = ?1", [table]).map(|_| ())
}

/// Hashes of the keys of rows with an open incident.
pub(super) fn skipped(desk: &mut Desk, table: &TableName) -> Result<BTreeSet<String>> {
    let table = desk.number(table)?;
    let sql = "SELECT key_hash FROM incident WHERE table_id = ?1 AND key_hash IS NOT NULL";
    Ok(desk.rows(sql, [table], |row| row.get(0))?.into_iter().collect())
}

/// The row went out: its incidents are over.
pub(super) fn close_row(desk: &mut Desk, table: &TableName, key_hash: &str) -> Result<()> {
    let table = desk.number(table)?;
    let sql = "DELETE FROM incident WHERE table_id = ?1 AND key_hash = ?2";
    desk.run(sql, params![table, key_hash]).map(|_| ())
}

/// Gives the number of the request, and the tables it is for.
pub(super) fn request_reload(
    desk: &mut Desk,
    table: Option<&TableName>,
) -> Result<(i64, Vec<TableName>)> {
    let tables = match table {
        Some(table) => vec![table.clone()],
        None => {
            let plan = session::plan(desk)?.ok_or_else(|| {
                Error::new(Code::NotFound, "there is no plan yet, so no table to load again")
            })?;
            plan.queries.into_iter().map(|query| query.table).collect()
        }
    };
    // Batch ids are seconds: a journal that was replaced still numbers above the requests it forgot.
    let floor = desk.fact::<i64>("granted_batch")?.unwrap_or_default();
    let number =
        desk.fact::<i64>("reload_number")?.unwrap_or_default().max(floor).saturating_add(1);
    desk.set_fact("reload_number", number)?;
    for table in &tables {
        // A person wants all of it: refused rows are tried as they are.
        forgive_all(desk, table)?;
        let table = desk.number(table)?;
        desk.run("INSERT OR REPLACE INTO reload VALUES (?1, ?2)", params![table, number])?;
    }
    Ok((number, tables))
}

pub(super) fn reload_requests(desk: &Desk) -> Result<BTreeMap<TableName, u64>> {
    failpoint::reach("journal.reload_requests", Code::DiskFull)?;
    let sql = "SELECT n.name, r.number FROM reload r JOIN named n ON n.id = r.table_id";
    desk.rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
        .into_iter()
        .map(|(name, number)| Ok((spool::stored(&name)?, number.cast_unsigned())))
        .collect()
}
