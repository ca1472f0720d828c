//! Ledger: what the server stored since the last look, against what reached it.
//!
//! Promises: messages are judged in the order in which the store numbered their acceptance.
//! Never: writes; keeps the store's file locked between two looks.

use prost::Message as _;
use protocol::proto::{ingestion::PrepareRequest, totvs};
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};

use super::{Batch, Call, Check, Delivered, RowAt, Stream, cursor::Place, table_of};
use crate::world::erp::TableAt;

/// A message of the ledger.
struct Stored {
    batch: i64,
    number: i32,
    seq: i64,
    sha: Vec<u8>,
    rows: i64,
}

/// A table of the wire as it was sent.
struct Sent {
    table: TableAt,
    rows: Vec<(i64, Option<i64>, String)>,
}

impl Check {
    /// A call is about to be answered: what it brings is kept for comparison.
    pub fn delivered(&mut self, call: &Call) {
        let Some(stream) = self.streams.get_mut(call.stream) else { return };
        match call.path.rsplit('/').next() {
            Some("Write") => {
                let sha = Sha256::digest(&call.message).to_vec();
                let epoch = call.epoch.unwrap_or_default();
                let known = self
                    .delivered
                    .entry(sha)
                    .or_insert_with(|| Delivered { message: call.message.clone(), epoch });
                known.epoch = known.epoch.max(epoch);
            }
            Some("Summary") => {
                if let Ok(summary) = totvs::BatchSummary::decode(call.message.clone()) {
                    let told = (summary.batch_id, summary.message_count, summary.record_count);
                    stream.summaries.insert(told);
                }
            }
            Some("Prepare") => {
                let Ok(prepare) = PrepareRequest::decode(call.message.clone()) else { return };
                for entry in prepare.entries {
                    if let Some(table) = table_of(&entry.table) {
                        stream.prepared.insert((prepare.batch_id, table, entry.value));
                    }
                }
            }
            _ => {}
        }
    }

    /// The server answered; `success` = it took the call.
    pub fn answered(&mut self, call: &Call, success: bool) {
        self.sweep();
        self.look_at_staging();
        if !success || !call.path.ends_with("/Write") {
            return;
        }
        let Ok(table) = totvs::Table::decode(call.message.clone()) else { return };
        let place = (call.stream, table.batch_id, table.message_number);
        let sha = Sha256::digest(&call.message).to_vec();
        match self.acknowledged.insert(place, sha.clone()) {
            Some(before) if before != sha => {
                self.fault("I2", format!("{place:?} was acknowledged with two contents"));
            }
            Some(_) => {}
            None => self.is_stored(place, &sha),
        }
    }

    /// A session was granted: no other one has its epoch.
    pub fn granted(&mut self, stream: usize, epoch: u64) {
        let Some(of) = self.streams.get_mut(stream) else { return };
        if !of.granted.insert(epoch) {
            self.fault("I5", format!("stream {stream}: epoch {epoch} was granted twice"));
        }
    }

    /// Everything acknowledged is still there; after a crash, and at the end.
    pub fn all_is_stored(&mut self) {
        let all: Vec<_> =
            self.acknowledged.iter().map(|(place, sha)| (*place, sha.clone())).collect();
        for (place, sha) in all {
            self.is_stored(place, &sha);
        }
    }

    fn is_stored(&mut self, (stream, batch, number): (usize, i64, i32), sha: &[u8]) {
        let Some(connection) = self.open() else { return };
        let found = self.streams.get(stream).map(|stream| {
            let sql = "SELECT sha256 FROM ingest_message WHERE tenant_id = ?1 AND environment_id = ?2 AND erp = ?3
                        AND batch = ?4 AND number = ?5";
            let [tenant, environment, erp] = &stream.key;
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_row(params![tenant, environment, erp, batch, number], |row| {
                row.get::<_, Vec<u8>>(0)
            })
        });
        self.connection = Some(connection);
        if !matches!(found, Some(Ok(stored)) if stored == *sha) {
            let words = format!(
                "stream {stream} batch {batch} message {number} is acknowledged and not stored"
            );
            self.fault("I1", words);
        }
    }

    /// Looks at all that the store took since the last look.
    pub fn sweep(&mut self) {
        let Some(connection) = self.open() else { return };
        for at in 0..self.streams.len() {
            if let Err(cause) = self.stream(&connection, at) {
                self.fault("store", cause.to_string());
            }
        }
        self.connection = Some(connection);
    }

    fn stream(&mut self, connection: &Connection, at: usize) -> rusqlite::Result<()> {
        let Some(stream) = self.streams.get(at) else { return Ok(()) };
        let (key, seq, epoch_before) = (stream.key.clone(), stream.seq, stream.epoch);
        // The epoch is read first: what is stored by the time of the messages' look was judged under it or a later one.
        let epoch = epoch(connection, &key)?;
        for stored in messages(connection, &key, seq)? {
            self.message(at, &stored, epoch_before);
        }
        if let Some(stream) = self.streams.get_mut(at) {
            stream.epoch = epoch;
        }
        for (id, rows, messages) in completed(connection, &key)? {
            self.complete(at, id, (messages, rows));
        }
        for (name, entry) in cursors(connection, &key)? {
            if let Some(table) = table_of(&name) {
                self.cursor(at, table, entry);
            }
        }
        Ok(())
    }

    fn message(&mut self, at: usize, stored: &Stored, epoch: u64) {
        let Stored { batch, number, seq, .. } = *stored;
        let Some(delivered) = self.delivered.get(&stored.sha).cloned() else {
            return self.fault(
                "I2",
                format!("stream {at} batch {batch} message {number} was sent by nobody"),
            );
        };
        if delivered.epoch < epoch {
            let words = format!(
                "stream {at} batch {batch} message {number} was accepted under epoch {}, the stream was at {epoch}",
                delivered.epoch
            );
            self.fault("I5", words);
        }
        let Some(stream) = self.streams.get_mut(at) else { return };
        stream.seq = seq;
        let (last, known) = (stream.last_batch, stream.batches.contains_key(&batch));
        stream.last_batch = last.max(batch);
        let entry = stream.batches.entry(batch).or_default();
        let expected = entry.messages + 1;
        (entry.messages, entry.rows) = (number, entry.rows + stored.rows);
        self.seen.0 += 1;
        self.seen.1 += stored.rows.unsigned_abs();
        if !known && batch <= last {
            self.fault("I6", format!("stream {at}: batch {batch} began after batch {last}"));
        }
        if number != expected {
            self.fault(
                "I3",
                format!(
                    "stream {at} batch {batch}: message {number} is stored, {expected} was next"
                ),
            );
        }
        match sent(&delivered) {
            Some(sent) => self.rows(at, &sent),
            None => self
                .fault("I17", format!("stream {at} batch {batch} message {number} cannot be read")),
        }
    }

    /// Rows in the order of their acceptance, which is the order in which they are staged.
    fn rows(&mut self, at: usize, sent: &Sent) {
        let mut faults = Vec::new();
        let Some(stream) = self.streams.get_mut(at) else { return };
        for (id, version, name) in &sent.rows {
            let row: RowAt = (sent.table, *id);
            let Some(version) = *version else { continue };
            let before = stream.versions.get(&row).copied().unwrap_or(i64::MIN);
            if version < before {
                faults.push((
                    "I7",
                    format!("stream {at} {row:?} goes from v{before} back to v{version}"),
                ));
            }
            if let Some(words) = out_of_order(stream, row, version) {
                faults.push(("I11", format!("stream {at} {words}")));
            }
            if !name.starts_with(&format!("t{at}:")) {
                faults.push(("I12", format!("stream {at} {row:?} holds {name:?}")));
            }
            stream.versions.insert(row, version.max(before));
        }
        for (invariant, words) in faults {
            self.fault(invariant, words);
        }
    }

    fn complete(&mut self, at: usize, id: i64, (messages, rows): (i32, i64)) {
        let Some(stream) = self.streams.get_mut(at) else { return };
        let batch = stream.batches.entry(id).or_default();
        if std::mem::replace(&mut batch.complete, true) {
            return;
        }
        self.seen.2 += 1;
        let Batch { messages: own, rows: counted, .. } = *batch;
        let told =
            i32::try_from(counted).is_ok_and(|rows| stream.summaries.contains(&(id, own, rows)));
        if !told || (messages, rows) != (own, counted) {
            let words = format!(
                "stream {at} batch {id} is complete with {own} messages and {counted} rows; the ledger says {messages} and {rows}, told by a summary: {told}"
            );
            self.fault("I4", words);
        }
    }

    fn cursor(&mut self, at: usize, table: TableAt, entry: Vec<u8>) {
        let Some(stream) = self.streams.get_mut(at) else { return };
        if stream.cursors.get(&table).is_some_and(|before| *before == entry) {
            return;
        }
        let complete = |id: &i64| stream.batches.get(id).is_some_and(|batch| batch.complete);
        let due = stream
            .prepared
            .iter()
            .any(|(id, of, value)| *of == table && *value == entry && complete(id));
        let place = Place::read(&entry);
        match &place {
            Some(place) => drop(stream.places.insert(table, place.clone())),
            None => drop(stream.places.remove(&table)),
        }
        stream.cursors.insert(table, entry);
        let place = place.filter(|_| stream.erp.held().clock >= 0);
        let passed = place.and_then(|place| left_behind(stream, table, &place));
        if !due {
            self.fault(
                "I10",
                format!("stream {at}: the cursor of {table:?} moved without its summary"),
            );
        }
        if let Some(words) = passed {
            self.fault("I9", format!("stream {at} {table:?}: {words}"));
        }
    }
}

/// Rows of a table are sent in the order in which they were read: none had been replaced before a commit that an earlier
/// one shows (I11).
fn out_of_order(stream: &mut Stream, row: RowAt, version: i64) -> Option<String> {
    let born = stream.born.get(&version).copied().unwrap_or(0);
    let newest = stream.sent.entry(row.0).or_default();
    let mut changes = stream.changed.get(&row).into_iter().flatten();
    let replaced = changes.find(|commit| **commit > born && **commit <= *newest);
    let words = format!("{row:?} v{version} was sent behind commit {newest}");
    *newest = born.max(*newest);
    replaced.map(|commit| format!("{words}, which had replaced it by commit {commit}"))
}

/// A row that is in the ERP, not in the cloud, and that nothing will look for any more.
fn left_behind(stream: &Stream, table: TableAt, place: &Place) -> Option<String> {
    let engine = stream.erp.held();
    let allowance = engine.allowance();
    let lost = engine.rows(table).iter().find(|(id, row)| {
        let at = (table, **id);
        let accepted = stream.versions.get(&at).copied();
        let needed = match (row.marked, accepted) {
            (false, accepted) => accepted.is_none_or(|version| version < row.version),
            // What only a dropped batch brought is known to the agent, and a key scan finds that it is gone (design note
            // 0002), as it finds rows that vanish without a mark: whether it does is seen at the end (I8).
            (true, _) => false,
        };
        let loads = !row.marked && place.will_load(**id);
        // A row that cannot travel is told and left where it is (I17).
        needed
            && !loads
            && !row.is_poison()
            && row.stamp.is_some_and(|stamp| place.passed(stamp, **id, allowance))
    });
    let (id, row) = lost?;
    Some(format!("{id} v{} with stamp {:?} was left behind by {place:?}", row.version, row.stamp))
}

fn epoch(
    connection: &Connection,
    [tenant, environment, erp]: &[String; 3],
) -> rusqlite::Result<u64> {
    let sql = "SELECT coalesce(max(epoch), 0) FROM ingest_stream WHERE tenant_id = ?1 AND environment_id = ?2 AND erp = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_row([tenant, environment, erp], |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()))
}

fn messages(
    connection: &Connection,
    [tenant, environment, erp]: &[String; 3],
    after: i64,
) -> rusqlite::Result<Vec<Stored>> {
    let sql = "SELECT batch, number, accept_seq, sha256, row_count FROM ingest_message
                WHERE tenant_id = ?1 AND environment_id = ?2 AND erp = ?3 AND accept_seq > ?4 ORDER BY accept_seq";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![tenant, environment, erp, after], |row| {
        Ok(Stored {
            batch: row.get(0)?,
            number: row.get(1)?,
            seq: row.get(2)?,
            sha: row.get(3)?,
            rows: row.get(4)?,
        })
    })?;
    rows.collect()
}

/// The newest complete batches: id, rows, messages.
fn completed(
    connection: &Connection,
    [tenant, environment, erp]: &[String; 3],
) -> rusqlite::Result<Vec<(i64, i64, i32)>> {
    let sql = "SELECT id, row_count, messages FROM batch
                WHERE tenant_id = ?1 AND environment_id = ?2 AND erp = ?3 AND state = 'complete'
                ORDER BY id DESC LIMIT 4";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement
        .query_map([tenant, environment, erp], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    rows.collect()
}

fn cursors(
    connection: &Connection,
    [tenant, environment, erp]: &[String; 3],
) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
    let sql = "SELECT name_folded, value FROM cursor WHERE tenant_id = ?1 AND environment_id = ?2 AND erp = ?3 ORDER BY name_folded";
    let mut statement = connection.prepare_cached(sql)?;
    let rows =
        statement.query_map([tenant, environment, erp], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// A message as prost reads it; the server reads it in its own way.
fn sent(delivered: &Delivered) -> Option<Sent> {
    let message = totvs::Table::decode(delivered.message.clone()).ok()?;
    let table = table_of(&message.table_name)?;
    let mut rows = Vec::new();
    for row in &message.rows {
        let cell = |name: &str| {
            row.columns.iter().find(|column| column.name == name).map(|column| &column.value)
        };
        let id = cell("ID")?.parse().ok()?;
        let deleted = cell("DELETED").is_some_and(|mark| mark == "true");
        let version = if deleted { None } else { Some(cell("VER")?.parse().ok()?) };
        rows.push((id, version, cell("NAME").cloned().unwrap_or_default()));
    }
    Some(Sent { table, rows })
}
