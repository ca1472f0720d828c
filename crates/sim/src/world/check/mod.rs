//! Check: what must always be true (`correctness.md` 1b).
//!
//! Promises: reads the server's own files, the calls as they were delivered and the ERP's rows; the first thing that is
//! not true is kept with the number of its invariant and ends the world. After every call that the server answered: I2
//! to I6 and I10 on the ledger, I7 and I11 on the order of acceptance, I9 of each cursor that moved, I1 of the message just
//! acknowledged; after each of them and every commit of an ERP: I7 and I12 on a staging file that changed; after every
//! commit: I9; after a crash of the server and at the end: I1 of everything; at the end: I8 and I17, then I8 by its own
//! bound and I18 of rows (`run`). I12 is seen by the names in the rows, whose keys and tables coincide. Of I16 the double sees how many
//! statements an agent has under way.
//! Never: shares a line with what it checks; asks agent or server what they think. Of the others: I13 to I15 come with
//! messages; the rest of I16, and secrets in logs (I18), need real databases and logs and are tested there (`tests/it/source_faults.rs`,
//! `canaries.rs`).

mod compare;
mod cursor;
mod ledger;
pub mod told;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};

use super::erp::{Committed, TABLES, TableAt, source::Double};
use cursor::Place;

/// A row of a stream, by its table's place and its key.
type RowAt = (TableAt, i64);

/// A call of a sender as it reached the server.
#[derive(Clone, Debug)]
pub struct Call {
    pub stream: usize,
    pub path: String,
    /// The message, without its frame.
    pub message: Bytes,
    pub epoch: Option<u64>,
}

/// One stream as the checker knows it.
#[derive(Debug)]
struct Stream {
    erp: Double,
    /// Tenant, environment and ERP, as the store writes them.
    key: [String; 3],
    staging: PathBuf,
    seq: i64,
    last_batch: i64,
    epoch: u64,
    granted: BTreeSet<u64>,
    batches: BTreeMap<i64, Batch>,
    /// Highest version accepted of each row.
    versions: BTreeMap<RowAt, i64>,
    cursors: BTreeMap<TableAt, Vec<u8>>,
    places: BTreeMap<TableAt, Place>,
    /// Entries that a Prepare brought, by batch.
    prepared: BTreeSet<(i64, TableAt, Vec<u8>)>,
    /// Summaries as delivered: batch, messages, records.
    summaries: BTreeSet<(i64, i32, i32)>,
    /// Highest version seen in the staging file.
    staged: BTreeMap<RowAt, i64>,
    /// The staging file, and its state at the last look.
    file: Option<(Connection, Option<i64>)>,
    /// Commit that brought each version; rows that were there before the agent have none.
    born: BTreeMap<i64, u64>,
    /// Commits that changed each row, in their order.
    changed: BTreeMap<RowAt, Vec<u64>>,
    /// Newest commit seen in what was sent of each table.
    sent: BTreeMap<TableAt, u64>,
}

#[derive(Clone, Debug, Default)]
struct Batch {
    messages: i32,
    rows: i64,
    complete: bool,
}

/// A message as it was delivered.
#[derive(Clone, Debug)]
struct Delivered {
    message: Bytes,
    epoch: u64,
}

#[derive(Debug, Default)]
pub struct Check {
    store: Option<PathBuf>,
    connection: Option<Connection>,
    streams: Vec<Stream>,
    delivered: BTreeMap<Vec<u8>, Delivered>,
    acknowledged: BTreeMap<(usize, i64, i32), Vec<u8>>,
    faults: Vec<String>,
    /// Table messages and rows that were accepted, and batches that were completed.
    pub seen: (u64, u64, u64),
}

impl Check {
    /// What the world's servers keep, and the ERP of each stream beside its names.
    #[must_use]
    pub fn new(data: &Path, streams: Vec<(Double, [String; 3])>) -> Self {
        let stream = |(erp, key): (Double, [String; 3])| Stream {
            staging: data.join("staging").join(&key[1]).join(format!("{}.sqlite", key[2])),
            erp,
            key,
            seq: 0,
            last_batch: 0,
            epoch: 0,
            granted: BTreeSet::new(),
            batches: BTreeMap::new(),
            versions: BTreeMap::new(),
            cursors: BTreeMap::new(),
            places: BTreeMap::new(),
            prepared: BTreeSet::new(),
            summaries: BTreeSet::new(),
            staged: BTreeMap::new(),
            file: None,
            born: BTreeMap::new(),
            changed: BTreeMap::new(),
            sent: BTreeMap::new(),
        };
        let streams = streams.into_iter().map(stream).collect();
        Self { store: Some(data.join("store.sqlite")), streams, ..Self::default() }
    }

    /// What was found untrue, oldest first.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    pub fn fault(&mut self, invariant: &str, words: String) {
        self.faults.push(format!("{invariant}: {words}"));
    }

    /// Opens the store for reading, where it is not open.
    fn open(&mut self) -> Option<Connection> {
        if let Some(connection) = self.connection.take() {
            return Some(connection);
        }
        let path = self.store.as_ref()?;
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(path, flags);
        match opened {
            Ok(connection) => {
                connection.set_prepared_statement_cache_capacity(32);
                Some(connection)
            }
            Err(cause) => {
                self.fault("store", cause.to_string());
                None
            }
        }
    }

    /// The server's process ended: what it had open is closed.
    pub fn close(&mut self) {
        self.connection = None;
        self.streams.iter_mut().for_each(|stream| stream.file = None);
    }

    /// A row of an ERP became visible: no durable watermark may lie above what a read will look for (I9). Where the ERP's
    /// clock was set back that is left to the comparison of all rows, and so to I8.
    pub fn committed(&mut self, stream: usize, committed: &Committed) {
        self.look_at_staging();
        let Some(found) = self.streams.get_mut(stream) else { return };
        let Committed { table, id, commit, .. } = *committed;
        found.changed.entry((table, id)).or_default().push(commit);
        let Some(row) = &committed.row else { return };
        found.born.insert(row.version, commit);
        let (Some(stamp), Some(place)) = (row.stamp, found.places.get(&committed.table)) else {
            return;
        };
        let was_set_back = found.erp.held().clock < 0;
        if !was_set_back && place.passed(stamp, committed.id, found.erp.held().allowance()) {
            let words = format!(
                "stream {stream}: {} {} v{} was committed with stamp {stamp}, the durable cursor is at {place:?}",
                TABLES[committed.table.0], committed.id, row.version
            );
            self.fault("I9", words);
        }
    }
}

/// The table of that name.
fn table_of(name: &str) -> Option<TableAt> {
    TABLES.iter().position(|table| table.eq_ignore_ascii_case(name)).map(TableAt)
}
