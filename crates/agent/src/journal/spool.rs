//! Spool: the one open batch.
//!
//! Promises: numbers rise by one from 1; messages and seal read back as they were written (CRC32C) or the batch is called
//! corrupt.
//! Never: keeps what a completed or dropped batch held, but for the rows it made known.

use bytes::Bytes;
use protocol::{
    Code, Error, Result,
    hash::RowHash,
    ids::{BatchId, Epoch, MessageNumber},
    key::KeyBytes,
    limits,
    names::TableName,
};
use runtime::{clock::Wall, failpoint, mutant};
use rusqlite::{OptionalExtension as _, params};

use super::{
    Seal, SpoolMessage, SpoolState, history,
    known::{self, Sent, ZERO},
    session,
    writer::{Desk, failed},
};

fn fenced(words: &str) -> Error {
    Error::new(Code::Fenced, words)
}

fn same_batch(desk: &Desk, batch: BatchId) -> Result<()> {
    if desk.state.spool.batch == Some(batch) {
        Ok(())
    } else {
        Err(fenced("the batch was dropped or completed meanwhile"))
    }
}

pub(super) fn open_batch(desk: &mut Desk, epoch: Epoch, batch: BatchId, at: Wall) -> Result<()> {
    failpoint::reach("journal.open_batch", Code::DiskFull)?;
    let grant = desk.state.grant.clone().filter(|grant| grant.epoch == epoch);
    let Some(grant) = grant else { return Err(fenced("the grant changed meanwhile")) };
    if desk.state.spool.batch.is_some() {
        return Err(fenced("a batch is open already"));
    }
    if batch <= grant.last_batch {
        return Err(Error::new(Code::Internal, "a batch id must be above the last one"));
    }
    desk.run("INSERT INTO batch (one, id, opened_micros) VALUES (1, ?1, ?2)", [batch.0, at.0])?;
    desk.set_fact("opened_batch", batch.0)?;
    let mut raised = (*grant).clone();
    raised.last_batch = batch;
    desk.state.grant = Some(raised.into());
    reset(desk, Some(batch));
    Ok(())
}

fn reset(desk: &mut Desk, batch: Option<BatchId>) {
    let state = &mut desk.state;
    state.spool_bytes = 0;
    state.acked_up_to = 0;
    state.acked_above.clear();
    let (completed, dropped) = (state.spool.completed, state.spool.dropped);
    state.spool = SpoolState { batch, completed, dropped, ..SpoolState::default() };
}

pub(super) fn append(desk: &mut Desk, batch: BatchId, messages: &[SpoolMessage]) -> Result<()> {
    failpoint::reach("journal.append", Code::DiskFull)?;
    same_batch(desk, batch)?;
    if desk.state.spool.sealed {
        return Err(Error::new(Code::Internal, "the batch is sealed"));
    }
    for message in messages {
        let next = i64::from(desk.state.spool.appended) + 1;
        if i64::from(message.number.0) != next {
            let words = format!("message {next} is next, got {}", message.number);
            return Err(Error::new(Code::Internal, words));
        }
        let known = encode(&message.known);
        let size = message.bytes.len() as u64;
        desk.state.spool_bytes += size + known.len() as u64;
        if desk.state.spool_bytes > limits::SPOOL_BYTES {
            return Err(Error::new(
                Code::DiskFull,
                "the open batch has used up the journal's budget",
            ));
        }
        let table = desk.number(&message.table)?;
        desk.run(
            "INSERT INTO spool SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, checksum(?1, name, ?3) FROM named WHERE id = ?2",
            params![
                message.number.0,
                table,
                message.rows,
                crc32c::crc32c(&message.bytes),
                crc32c::crc32c(&known),
                message.bytes.as_ref(),
                known
            ],
        )?;
        desk.state.spool.appended += 1;
        desk.state.spool.unacked_bytes += size;
    }
    Ok(())
}

pub(super) fn seal(desk: &mut Desk, batch: BatchId, seal: &Seal) -> Result<()> {
    failpoint::reach("journal.seal", Code::DiskFull)?;
    same_batch(desk, batch)?;
    let json = serde_json::to_string(seal)
        .map_err(|cause| Error::new(Code::Internal, "the seal cannot be written").because(cause))?;
    desk.run("UPDATE batch SET seal = ?1, seal_crc = checksum(id, ?1)", [json])?;
    desk.state.spool.sealed = true;
    Ok(())
}

/// `JOURNAL_CORRUPT` where the seal is damaged, or counts other messages than there are.
pub(super) fn sealed(desk: &Desk, batch: BatchId) -> Result<Option<Seal>> {
    same_batch(desk, batch)?;
    let read: Option<(Option<Vec<u8>>, bool)> = desk
        .db
        .prepare_cached("SELECT CAST(seal AS BLOB), seal_crc = checksum(id, seal) FROM batch")
        .and_then(|mut read| read.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional())
        .map_err(failed)?;
    let Some((Some(json), good)) = read else { return Ok(None) };
    let corrupt = |words: &str| Error::new(Code::JournalCorrupt, words);
    if !good {
        return Err(corrupt("the seal is damaged"));
    }
    let seal: Seal = serde_json::from_slice(&json)
        .map_err(|cause| corrupt("the seal cannot be read").because(cause))?;
    if seal.messages != desk.state.spool.appended {
        return Err(corrupt("the spool lacks messages of its seal"));
    }
    Ok(Some(seal))
}

pub(super) fn unacked(
    desk: &Desk,
    batch: BatchId,
    after: MessageNumber,
    max_bytes: usize,
) -> Result<Vec<SpoolMessage>> {
    failpoint::reach("journal.unacked", Code::DiskFull)?;
    same_batch(desk, batch)?;
    let mut statement = desk
        .db
        .prepare_cached(
            "SELECT s.number, n.name, s.row_count, s.crc, s.bytes,
                    s.head_crc = checksum(s.number, n.name, s.row_count)
             FROM spool s LEFT JOIN named n ON n.id = s.table_id WHERE s.number > ?1 ORDER BY s.number",
        )
        .map_err(failed)?;
    let from = after.0.max(desk.state.acked_up_to);
    let mut rows = statement.query([from]).map_err(failed)?;
    let (mut messages, mut total) = (Vec::new(), 0usize);
    while let Some(row) = rows.next().map_err(failed)? {
        let number: i64 = row.get(0).map_err(failed)?;
        let corrupt = || {
            Error::new(Code::JournalCorrupt, format!("message {number} of the spool is damaged"))
        };
        let number = i32::try_from(number).map_err(|_| corrupt())?;
        if desk.state.acked_above.contains(&number) {
            continue;
        }
        let bytes = row.get_ref(4).and_then(|value| Ok(value.as_blob()?)).map_err(failed)?;
        total = total.saturating_add(bytes.len());
        if total > max_bytes && !messages.is_empty() {
            break;
        }
        let (crc, head): (i64, bool) =
            row.get(3).and_then(|crc| Ok((crc, row.get(5)?))).map_err(failed)?;
        if !head || crc != i64::from(crc32c::crc32c(bytes)) {
            return Err(corrupt());
        }
        let name: String = row.get(1).map_err(failed)?;
        messages.push(SpoolMessage {
            number: MessageNumber(number),
            table: stored(&name)?,
            rows: row.get(2).map_err(failed)?,
            bytes: Bytes::copy_from_slice(bytes),
            known: Vec::new(),
        });
    }
    Ok(messages)
}

pub(super) fn acked(desk: &mut Desk, batch: BatchId, numbers: &[MessageNumber]) -> Result<()> {
    failpoint::reach("journal.acked", Code::DiskFull)?;
    same_batch(desk, batch)?;
    for number in numbers {
        let state = &mut desk.state;
        if number.0 <= state.acked_up_to || !state.acked_above.insert(number.0) {
            continue;
        }
        while state.acked_above.remove(&state.acked_up_to.saturating_add(1)) {
            state.acked_up_to += 1;
        }
        state.spool.acked += 1;
        let size: i64 = desk
            .db
            .prepare_cached("SELECT length(bytes) FROM spool WHERE number = ?1")
            .and_then(|mut read| read.query_row([number.0], |row| row.get(0)))
            .map_err(failed)?;
        let left = desk.state.spool.unacked_bytes.saturating_sub(size.cast_unsigned());
        desk.state.spool.unacked_bytes = left;
    }
    Ok(())
}

/// After a gap: the server lost what it had acknowledged of this batch from `from` on, so it is sent again.
pub(super) fn unack(desk: &mut Desk, batch: BatchId, from: MessageNumber) -> Result<()> {
    same_batch(desk, batch)?;
    let state = &mut desk.state;
    state.acked_above.split_off(&from.0);
    if state.acked_up_to >= from.0 {
        state.acked_up_to = from.0.saturating_sub(1).max(0);
        state.acked_above.clear();
    }
    let above = state.acked_above.len();
    let (up_to, above_set) = (state.acked_up_to, state.acked_above.clone());
    let sizes =
        desk.rows("SELECT number, length(bytes) FROM spool WHERE number > ?1", [up_to], |row| {
            Ok((row.get::<_, i32>(0)?, row.get::<_, i64>(1)?))
        })?;
    let open = sizes.iter().filter(|(number, _)| !above_set.contains(number));
    desk.state.spool.unacked_bytes = open.map(|(_, size)| size.cast_unsigned()).sum();
    let count = up_to.cast_unsigned() as usize + above;
    desk.state.spool.acked = u32::try_from(count).unwrap_or(u32::MAX);
    Ok(())
}

pub(super) fn complete(desk: &mut Desk, batch: BatchId, at: Wall) -> Result<Seal> {
    failpoint::reach("journal.complete", Code::DiskFull)?;
    same_batch(desk, batch)?;
    let Some(seal) = sealed(desk, batch)? else {
        return Err(Error::new(Code::Internal, "the batch is not sealed"));
    };
    for number in 1..=desk.state.spool.appended {
        let (table, rows) = pending(desk, number)?;
        let sent = Some(Sent { batch: batch.0, message: number, at_micros: at.0 });
        for (key, hash) in rows {
            match hash {
                Some(hash) => known::put(desk, table, (&key, hash), sent)?,
                None => known::remove(desk, table, &key)?,
            }
        }
    }
    for (table, value) in &seal.cursors {
        session::keep_cursor(desk, table, value)?;
    }
    if let Some(grant) = &desk.state.grant {
        let mut grant = (**grant).clone();
        grant.cursors.extend(seal.cursors.iter().cloned());
        desk.state.grant = Some(grant.into());
    }
    desk.set_fact("granted_batch", batch.0)?;
    history::settle(desk, None, at)?;
    empty(desk)?;
    desk.state.spool.completed = Some(batch);
    Ok(seal)
}

/// Throws the open batch away. Staging may hold any of its rows or what they replaced, so all become unsure.
pub(super) fn discard(desk: &mut Desk, why: (Code, &str), at: Wall) -> Result<()> {
    if desk.state.spool.batch.is_none() {
        return Ok(());
    }
    failpoint::reach("journal.discard", Code::DiskFull)?;
    for number in 1..=desk.state.spool.appended {
        match pending(desk, number) {
            Ok((table, rows)) => {
                for (key, hash) in rows {
                    let hash = hash.filter(|_| mutant::is("known_before_summary"));
                    known::put(desk, table, (&key, hash.unwrap_or(ZERO)), None)?;
                }
            }
            // Which keys became unsure cannot be read: the known rows no longer match any session and are rebuilt.
            Err(error) if error.code == Code::JournalCorrupt => {
                desk.run("DELETE FROM fact WHERE name IN ('granted_batch', 'opened_batch')", [])?;
            }
            Err(error) => return Err(error),
        }
    }
    history::settle(desk, Some(why), at)?;
    empty(desk)?;
    desk.state.spool.dropped += 1;
    Ok(())
}

fn empty(desk: &mut Desk) -> Result<()> {
    desk.run("DELETE FROM spool", [])?;
    desk.run("DELETE FROM batch", [])?;
    reset(desk, None);
    Ok(())
}

/// Rows of each table in the open batch.
pub(super) fn rows_per_table(desk: &Desk) -> Result<Vec<(TableName, u64)>> {
    let sql = "SELECT n.name, sum(s.row_count) FROM spool s JOIN named n ON n.id = s.table_id GROUP BY n.name";
    desk.rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))?
        .into_iter()
        .map(|(name, rows)| Ok((stored(&name)?, rows.cast_unsigned())))
        .collect()
}

type Pending = Vec<(KeyBytes, Option<RowHash>)>;

fn pending(desk: &Desk, number: u32) -> Result<(i64, Pending)> {
    let corrupt =
        || Error::new(Code::JournalCorrupt, format!("the keys of message {number} are damaged"));
    let (table, crc, bytes, head): (i64, i64, Vec<u8>, bool) = desk
        .db
        .prepare_cached(
            "SELECT s.table_id, s.known_crc, s.known, s.head_crc = checksum(s.number, n.name, s.row_count)
             FROM spool s LEFT JOIN named n ON n.id = s.table_id WHERE s.number = ?1",
        )
        .and_then(|mut read| {
            let row = |row: &rusqlite::Row<'_>| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
            };
            read.query_row([number], row).optional()
        })
        .map_err(failed)?
        .ok_or_else(corrupt)?;
    if !head || crc != i64::from(crc32c::crc32c(&bytes)) {
        return Err(corrupt());
    }
    Ok((table, decode(&bytes).ok_or_else(corrupt)?))
}

/// A name that was a `TableName` when it was written.
pub(super) fn stored(name: &str) -> Result<TableName> {
    name.parse()
        .map_err(|_| Error::new(Code::JournalFailed, "a table name in the journal is damaged"))
}

/// Per row: length of the key (4 bytes), key, 1 and hash or 0.
fn encode(rows: &[(KeyBytes, Option<RowHash>)]) -> Vec<u8> {
    let size = rows.iter().map(|(key, _)| key.0.len() + 21).sum();
    let mut out = Vec::with_capacity(size);
    for (key, hash) in rows {
        out.extend_from_slice(&u32::try_from(key.0.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&key.0);
        match hash {
            Some(hash) => {
                out.push(1);
                out.extend_from_slice(&hash.0);
            }
            None => out.push(0),
        }
    }
    out
}

fn decode(mut bytes: &[u8]) -> Option<Pending> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (key, rest) =
            rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let (mark, rest) = rest.split_first()?;
        let (hash, rest) = match mark {
            0 => (None, rest),
            _ => {
                let (hash, rest) = rest.split_first_chunk::<16>()?;
                (Some(RowHash(*hash)), rest)
            }
        };
        rows.push((KeyBytes(key.to_vec()), hash));
        bytes = rest;
    }
    Some(rows)
}
