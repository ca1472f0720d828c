//! Compare: staging against the ERP, row by row and value by value (I7 on the file itself, I8, I12, I17).
//!
//! Promises: reads the staging file as its users do; a row that is quarantined is told, since this ERP has no value that
//! cannot travel.
//! Never: takes a table that is not there for an empty one once rows were accepted of it.

use std::collections::BTreeMap;

use rusqlite::{Connection, OpenFlags};

use super::{Check, RowAt, Stream};
use crate::world::erp::{TABLES, TableAt};

/// What is staged of a table: name and version by key.
type Staged = BTreeMap<i64, (String, i64)>;

impl Check {
    /// No staged row is older than it was before.
    pub fn look_at_staging(&mut self) {
        let mut faults = Vec::new();
        for (at, stream) in self.streams.iter_mut().enumerate() {
            for table in [TableAt(0), TableAt(1)] {
                let rows = match staged(stream, table) {
                    Ok(rows) => rows,
                    Err(cause) => {
                        faults.push(("staging", cause.to_string()));
                        continue;
                    }
                };
                for (id, (_, version)) in rows {
                    let row: RowAt = (table, id);
                    let before = stream.staged.get(&row).copied().unwrap_or(i64::MIN);
                    if version < before {
                        let words = format!(
                            "stream {at} {row:?} is staged as v{version}, it was v{before}"
                        );
                        faults.push(("I7", words));
                    }
                    stream.staged.insert(row, version.max(before));
                }
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

fn differs(stream: &Stream, table: TableAt) -> Option<String> {
    let staged = match staged(stream, table) {
        Ok(staged) => staged,
        Err(cause) => return Some(cause.to_string()),
    };
    let engine = stream.erp.held();
    let live: Staged = engine
        .rows(table)
        .iter()
        .filter(|(_, row)| !row.marked)
        .map(|(id, row)| (*id, (row.name.clone(), row.version)))
        .collect();
    if let Some((id, row)) = live.iter().find(|(id, row)| staged.get(id) != Some(row)) {
        let words = format!("{id} is {row:?} in the ERP and {:?} in staging", staged.get(id));
        return Some(words);
    }
    let ghost = staged.keys().find(|id| !live.contains_key(id))?;
    Some(format!("{ghost} is staged and not in the ERP"))
}

fn staged(stream: &Stream, table: TableAt) -> rusqlite::Result<Staged> {
    if !stream.staging.exists() {
        return Ok(Staged::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(&stream.staging, flags)?;
    let name = TABLES[table.0];
    let there = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE)";
    if !connection.query_row(there, [name], |row| row.get::<_, bool>(0))? {
        return Ok(Staged::new());
    }
    let sql = format!("SELECT ID, NAME, VER FROM \"{name}\" WHERE _deleted = 0");
    let mut statement = connection.prepare(&sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    rows.collect()
}
