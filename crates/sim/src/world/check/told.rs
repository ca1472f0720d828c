//! Told: whoever looks at the agents learns of every row that does not travel (I18).
//!
//! Promises: reads the agents' journals as they lie on their disks. Which agent of a stream was told is all the same: one
//! that takes over meets the row again when it compares.
//! Never: asks an agent.

use std::{collections::BTreeSet, path::PathBuf};

use agent::journal::key_hash;
use protocol::key::KeyBytes;
use rusqlite::{Connection, OpenFlags};

use crate::world::erp::{TABLES, TableAt, source::Double};

/// A row that cannot travel and of which no incident is open; `journals` with the place of their stream. `None` = there is
/// none.
#[must_use]
pub fn untold(doubles: &[Double], journals: &[(usize, PathBuf)]) -> Option<String> {
    doubles.iter().enumerate().find_map(|(at, double)| {
        let mut told = BTreeSet::new();
        for (_, journal) in journals.iter().filter(|(stream, _)| *stream == at) {
            match incidents(journal) {
                Ok(found) => told.extend(found),
                Err(cause) => return Some(format!("a journal cannot be read: {cause}")),
            }
        }
        let engine = double.held();
        [TableAt(0), TableAt(1)].into_iter().find_map(|table| {
            let name = TABLES[table.0];
            let mut skipped =
                engine.rows(table).iter().filter(|(_, row)| row.is_poison() && !row.marked);
            let (id, _) = skipped.find(|(id, _)| {
                let key = key_hash(&KeyBytes::of([id.to_string().as_str()]));
                !told.contains(&(name.to_ascii_lowercase(), key))
            })?;
            Some(format!("stream {at} {name} {id} cannot travel, and no incident of it is open"))
        })
    })
}

/// Table and key of each row of which an incident is open.
fn incidents(journal: &PathBuf) -> rusqlite::Result<Vec<(String, String)>> {
    if !journal.exists() {
        return Ok(Vec::new());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(journal, flags)?;
    let sql = "SELECT lower(n.name), i.key_hash FROM incident i JOIN named n ON n.id = i.table_id
               WHERE i.key_hash IS NOT NULL";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
