//! Grants, plan and the last good registry, as uplink writes them.
//!
//! Promises: a new grant and the loss of the old batch are one transaction; the known rows are told to be foreign where
//! another sender's batch stands last, or the server saw this instance twice.
//! Never: decides who may send.

use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, Nonce},
    json::{Entities, Service},
    limits,
    names::TableName,
};
use runtime::{clock::Wall, failpoint};
use rusqlite::params;

use super::{Grant, Seal, spool, writer::Desk};

pub(super) fn save_plan(desk: &mut Desk, entities: &Entities) -> Result<()> {
    failpoint::reach("journal.plan", Code::DiskFull)?;
    let json = serde_json::to_string(entities)
        .map_err(|cause| Error::new(Code::Internal, "the plan cannot be written").because(cause))?;
    if desk.fact::<String>("plan")?.as_deref() != Some(&json) {
        desk.set_fact("plan", json)?;
        desk.state.plan_serial += 1;
    }
    Ok(())
}

/// A plan that cannot be read counts as none: the next answer of Entities writes it again.
pub(super) fn plan(desk: &Desk) -> Result<Option<Entities>> {
    Ok(desk.fact::<String>("plan")?.and_then(|json| serde_json::from_str(&json).ok()))
}

pub(super) fn save_registry(desk: &Desk, services: &[Service]) -> Result<()> {
    let json = serde_json::to_string(services).map_err(|cause| {
        Error::new(Code::Internal, "the registry cannot be written").because(cause)
    })?;
    if desk.fact::<String>("registry")?.as_deref() == Some(&json) {
        return Ok(());
    }
    desk.set_fact("registry", json)
}

pub(super) fn registry(desk: &Desk) -> Result<Option<Vec<Service>>> {
    Ok(desk.fact::<String>("registry")?.and_then(|json| serde_json::from_str(&json).ok()))
}

const OPENING: &str = "opening";
const TWICE: &str = "twice";

/// Nonce of an Open whose answer this journal never learned.
pub(super) fn unanswered(desk: &Desk) -> Result<Option<Nonce>> {
    Ok(desk.fact::<String>(OPENING)?.and_then(|text| text.parse().ok()))
}

pub(super) fn opening(desk: &Desk, nonce: Nonce) -> Result<()> {
    failpoint::reach("journal.opening", Code::DiskFull)?;
    desk.set_fact(OPENING, nonce.to_string())
}

/// The journal knows the epoch: whoever follows asks with that.
fn opened(desk: &Desk) -> Result<()> {
    desk.run("DELETE FROM fact WHERE name = ?1", [OPENING]).map(|_| ())
}

/// The server saw this instance twice: a copy of this journal sends, or did.
pub(super) fn saw_twice(desk: &Desk) -> Result<()> {
    desk.set_fact(TWICE, 1)
}

/// Whether it did since the last grant.
pub(super) fn was_seen_twice(desk: &Desk) -> Result<bool> {
    Ok(desk.fact::<i64>(TWICE)?.is_some())
}

pub(super) fn grant(desk: &mut Desk, grant: Grant, at: Wall) -> Result<()> {
    failpoint::reach("journal.grant", Code::DiskFull)?;
    spool::discard(desk, (Code::Fenced, "a new session was granted"), at)?;
    opened(desk)?;
    desk.run("DELETE FROM fact WHERE name = ?1", [TWICE])?;
    desk.set_fact("epoch", grant.epoch.0.cast_signed())?;
    desk.set_fact("granted_batch", grant.last_batch.0)?;
    // The grant says how far the stream came; an id that was opened and never accepted may become another sender's.
    desk.run("DELETE FROM fact WHERE name = 'opened_batch'", [])?;
    desk.run("DELETE FROM cursor", [])?;
    for (table, value) in &grant.cursors {
        keep_cursor(desk, table, value)?;
    }
    desk.state.grant = Some(grant.into());
    desk.state.grant_serial += 1;
    Ok(())
}

pub(super) fn resume(desk: &mut Desk, epoch: Epoch, at: Wall) -> Result<()> {
    failpoint::reach("journal.resume", Code::DiskFull)?;
    if desk.state.spool.batch.is_some() && !desk.state.spool.sealed {
        // Capture's place in an unsealed batch was lost with its process, so nobody could end it.
        let words = "the agent ended while the batch was read";
        spool::discard(desk, (Code::Fenced, words), at)?;
    }
    super::open::read_spool(desk)?;
    let mut cursors = cursors(desk)?;
    if let Some(batch) = desk.state.spool.batch {
        cursors
            .extend(spool::sealed(desk, batch)?.map(|seal: Seal| seal.cursors).unwrap_or_default());
    }
    desk.set_fact("epoch", epoch.0.cast_signed())?;
    opened(desk)?;
    let granted = desk.fact::<i64>("granted_batch")?.unwrap_or_default();
    let opened = desk.fact::<i64>("opened_batch")?.unwrap_or_default();
    let grant = Grant {
        epoch,
        last_batch: BatchId(granted.max(opened)),
        cursors: cursors.into_iter().collect(),
    };
    desk.state.grant = Some(grant.into());
    desk.state.grant_serial += 1;
    Ok(())
}

pub(super) fn revoke(desk: &mut Desk, why: (Code, &str), at: Wall) -> Result<()> {
    failpoint::reach("journal.revoke", Code::DiskFull)?;
    spool::discard(desk, why, at)?;
    if desk.state.grant.take().is_some() {
        desk.state.grant_serial += 1;
    }
    Ok(())
}

pub(super) fn keep_cursor(desk: &mut Desk, table: &TableName, value: &[u8]) -> Result<()> {
    let number = desk.number(table)?;
    let sql = "INSERT OR REPLACE INTO cursor (table_id, value, crc)
               SELECT id, ?2, checksum(name, ?2) FROM named WHERE id = ?1";
    desk.run(sql, params![number, value]).map(|_| ())
}

/// A damaged entry is left out: its table is loaded again, from a server with sessions under the place that the server
/// knows.
pub(super) fn cursors(desk: &Desk) -> Result<Vec<(TableName, Vec<u8>)>> {
    let sql = "SELECT n.name, c.value, c.crc = checksum(n.name, c.value)
               FROM cursor c JOIN named n ON n.id = c.table_id";
    let rows = desk
        .rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, bool>(2)?)))?;
    let (good, bad): (Vec<_>, Vec<_>) = rows.into_iter().partition(|(_, _, good)| *good);
    if !bad.is_empty() {
        tracing::warn!(
            entries = bad.len(),
            "damaged cursor entries in the journal; their tables start again"
        );
    }
    good.into_iter().map(|(name, value, _)| Ok((spool::stored(&name)?, value))).collect()
}

/// The server tells less than this journal knows it was told: it came back from an older copy. A restore makes the epoch
/// step; where the copy was put into place by hand, the last batch lies below one that was completed, or the cursors are
/// not those of the batch that both know as the last.
pub(super) fn set_back(desk: &Desk, grant: &Grant) -> Result<bool> {
    let stepped = |own: Epoch| grant.epoch.0 >= own.0.saturating_add(limits::RESTORE_EPOCHS);
    let granted = desk.fact::<i64>("granted_batch")?;
    if desk.epoch()?.is_some_and(stepped) || granted.is_some_and(|own| grant.last_batch.0 < own) {
        return Ok(true);
    }
    let opened = desk.fact::<i64>("opened_batch")?;
    let settled = granted == Some(grant.last_batch.0) && opened.is_none_or(|_| opened == granted);
    if !settled {
        return Ok(false);
    }
    let own = cursors(desk)?;
    Ok(own.iter().any(|(table, value)| grant.cursors.get(table) != Some(value)))
}

/// The stream's last batch is neither the one this journal was granted or completed last nor the one it opened since; or a
/// copy of this journal may have fed it, which numbers its batches alike.
pub(super) fn foreign(desk: &Desk, last: BatchId) -> Result<bool> {
    if was_seen_twice(desk)? {
        return Ok(true);
    }
    let granted = desk.fact::<i64>("granted_batch")?;
    let opened = desk.fact::<i64>("opened_batch")?;
    Ok(match (granted, opened) {
        (None, None) => last != BatchId(0),
        (granted, opened) => ![granted, opened].contains(&Some(last.0)),
    })
}
