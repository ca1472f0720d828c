//! Compare: staging against the ERP, row by row and value by value (I7 and I12 on the file itself, I8, I17).
//!
//! Promises: a staging file is looked at after every call and commit that found it changed, and read as its users do; of a
//! row that cannot travel, staging may keep the image before.
//! Never: takes a table that is not there for an empty one once rows were accepted of it.

use std::{collections::BTreeMap, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{Check, RowAt, Stream};
use crate::world::erp::{Row, TABLES, TableAt};

/// What is staged of a table: name and version by key.
type Staged = BTreeMap<i64, (String, i64)>;

impl Check {
    /// A row of a stream's ERP that staging does not show as it is; `None` = there is none. Rows that are gone are not asked
    /// for.
    pub fn behind(&self) -> Option<String> {
        self.streams.iter().enumerate().find_map(|(at, stream)| {
            [TableAt(0), TableAt(1)].into_iter().find_map(|table| {
                let staged = staged(stream, table).unwrap_or_default();
                let engine = stream.erp.held();
                let (id, row) = engine.rows(table).iter().find(|(id, row)| {
                    let staged = staged.get(id).map(|(_, version)| *version);
                    if row.is_poison() {
                        false
                    } else if row.marked {
                        staged.is_some()
                    } else {
                        staged != Some(row.version)
                    }
                })?;
                let words = format!("stream {at} {} {id} v{}", TABLES[table.0], row.version);
                Some(format!("{words} is staged as {:?}", staged.get(id)))
            })
        })
    }

    /// No staged row is older than it was before, and none is of another tenant. A file that nobody wrote is not read.
    pub fn look_at_staging(&mut self) {
        let mut faults = Vec::new();
        for (at, stream) in self.streams.iter_mut().enumerate() {
            if let Err(cause) = look(at, stream, &mut faults) {
                faults.push(("staging", cause.to_string()));
            }
        }
        for (invariant, words) in faults {
            self.fault(invariant, words);
        }
    }

    /// What keeps the world from being at rest: a difference between staging and ERP, or a batch that is open. `None` =
    /// nothing.
    pub fn unsettled(&mut self) -> Option<String> {
        let connection = self.open()?;
        let open = "SELECT count(*) FROM batch WHERE state = 'open'";
        let open = connection.query_row(open, [], |row| row.get::<_, i64>(0));
        self.connection = Some(connection);
        match open {
            Ok(0) => {}
            Ok(open) => return Some(format!("{open} batches are open")),
            Err(cause) => return Some(cause.to_string()),
        }
        self.streams.iter().enumerate().find_map(|(at, stream)| {
            [TableAt(0), TableAt(1)].into_iter().find_map(|table| {
                let words = differs(stream, table)?;
                Some(format!("stream {at} {}: {words}", TABLES[table.0]))
            })
        })
    }
}

fn look(
    at: usize,
    stream: &mut Stream,
    faults: &mut Vec<(&'static str, String)>,
) -> rusqlite::Result<()> {
    if stream.file.is_none() {
        let Some(connection) = open(&stream.staging)? else { return Ok(()) };
        stream.file = Some((connection, None));
    }
    let Some((connection, seen)) = &mut stream.file else { return Ok(()) };
    let written = connection.query_row("PRAGMA data_version", [], |row| row.get(0))?;
    if seen.replace(written) == Some(written) {
        return Ok(());
    }
    for table in [TableAt(0), TableAt(1)] {
        for (id, (name, version)) in rows(connection, table)? {
            let row: RowAt = (table, id);
            let before = stream.staged.get(&row).copied().unwrap_or(i64::MIN);
            if version < before {
                let words =
                    format!("stream {at} {row:?} is staged as v{version}, it was v{before}");
                faults.push(("I7", words));
            }
            if !name.starts_with(&format!("t{at}:")) {
                faults.push(("I12", format!("stream {at} {row:?} is staged as {name:?}")));
            }
            stream.staged.insert(row, version.max(before));
        }
    }
    Ok(())
}

fn differs(stream: &Stream, table: TableAt) -> Option<String> {
    let staged = match staged(stream, table) {
        Ok(staged) => staged,
        Err(cause) => return Some(cause.to_string()),
    };
    let engine = stream.erp.held();
    let live: Staged = engine
        .rows(table)
        .iter()
        .filter(|(_, row)| !row.marked && !row.is_poison())
        .map(|(id, row)| (*id, (row.name.clone(), row.version)))
        .collect();
    if let Some((id, row)) = live.iter().find(|(id, row)| staged.get(id) != Some(row)) {
        let words = format!("{id} is {row:?} in the ERP and {:?} in staging", staged.get(id));
        return Some(words);
    }
    // Of a row that cannot travel staging keeps the image before, or none (I17): what it has was a row's once (I2).
    let poison = |id: &i64| engine.rows(table).get(id).is_some_and(Row::is_poison);
    let ghost = staged.keys().find(|id| !live.contains_key(id) && !poison(id))?;
    Some(format!("{ghost} is staged and not in the ERP"))
}

fn staged(stream: &Stream, table: TableAt) -> rusqlite::Result<Staged> {
    match open(&stream.staging)? {
        Some(connection) => rows(&connection, table),
        None => Ok(Staged::new()),
    }
}

fn open(staging: &Path) -> rusqlite::Result<Option<Connection>> {
    if !staging.exists() {
        return Ok(None);
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(staging, flags).map(Some)
}

fn rows(connection: &Connection, table: TableAt) -> rusqlite::Result<Staged> {
    let name = TABLES[table.0];
    let there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)";
    if !connection.prepare_cached(there)?.query_row([name], |row| row.get::<_, bool>(0))? {
        return Ok(Staged::new());
    }
    let sql = format!("SELECT ID, NAME, VER FROM \"{name}\" WHERE _deleted = 0");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    rows.collect()
}
