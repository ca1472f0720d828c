//! Retention in the embedded store: bodies and ledger rows go in bounded steps.
//!
//! Promises: of a stream only what its staging file has applied, and what a closed batch holds, is removed; how far is
//! noted in the same transaction; the rows at which a staging file stands or would begin anew stay; a step is short,
//! so that an accepting writer waits for one step at most.
//! Never: removes anything where the staging file is of another ledger; touches the audit, a cursor or the open batch.

use std::{collections::HashSet, time::Duration};

use crate::store::sql::{Optional as _, Row, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, Generation, MessageNumber},
    names::TableName,
};
use runtime::clock::Wall;

use super::{
    Engine, Store, Whose,
    audit::Deed,
    catalog::{parsed, rows},
    failed,
    ingest::{Standing, is_of_this_ledger, names},
    sqlite::shrink,
};
use crate::model::{
    catalog::Place,
    retention::{Policy, Removed, Trust},
    stream::StreamId,
};

/// Bodies of one step: freeing 16 MB takes some hundredths of a second.
const STEP_BODIES: usize = 256;
const STEP_BYTES: u64 = 16 * 1024 * 1024;
/// Ledger rows of one step.
const STEP_ROWS: usize = 1_000;
/// What may go of one stream, as its staging file stands.
#[derive(Clone, Debug)]
pub struct Sweep {
    pub stream: StreamId,
    pub standing: Standing,
    /// Messages that stand in quarantine whole: their bodies and rows stay.
    pub held: HashSet<(BatchId, MessageNumber)>,
    /// Bodies up to this number may go.
    pub bodies_to: AcceptSeq,
    pub ledger_before: Option<Wall>,
    /// Tombstones of messages up to this number may go.
    pub tombstones_to: AcceptSeq,
}

impl Store {
    /// Looks how far the bodies of a stream may go.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep(
        &self,
        stream: StreamId,
        standing: Standing,
        held: HashSet<(BatchId, MessageNumber)>,
        (policy, now): (Policy, Wall),
    ) -> Result<Sweep> {
        self.read(stream.tenant, move |connection| {
            let staged_by = |before: Option<Wall>, from: AcceptSeq| match before {
                Some(before) => {
                    Ok(closed_to(connection, &stream, (before, from))?.min(standing.applied))
                }
                None => Ok(AcceptSeq(0)),
            };
            let removed = removed(connection, &stream)?;
            let bodies_to = staged_by(policy.bodies_before(now), removed)?;
            let tombstones_to = match is_of_this_ledger(connection, &stream, &standing)? {
                true => staged_by(policy.tombstones_before(now), AcceptSeq(0))?,
                false => AcceptSeq(0),
            };
            let ledger_before = policy.ledger_before(now);
            Ok(Sweep { stream, standing, held, bodies_to, ledger_before, tombstones_to })
        })
        .await
    }

    /// What the steps of a sweep would remove.
    ///
    /// # Errors
    /// The store's own.
    pub async fn due(&self, sweep: Sweep) -> Result<Removed> {
        self.read(sweep.stream.tenant, move |connection| due(connection, &sweep)).await
    }

    /// Removes the next bodies, then ledger rows; nothing = the sweep is done.
    ///
    /// # Errors
    /// The store's own; nothing of the step is kept then.
    pub async fn sweep_step(&self, sweep: Sweep) -> Result<Removed> {
        self.write(sweep.stream.tenant, move |tx| {
            if !is_of_this_ledger(tx, &sweep.stream, &sweep.standing)? {
                return Ok(Removed::default());
            }
            let bodies = remove_bodies(tx, &sweep)?;
            if bodies.is_nothing() { remove_rows(tx, &sweep) } else { Ok(bodies) }
        })
        .await
    }

    /// Gives some free pages back to the file system; `false` where there are none, or the file keeps them for itself.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shrink_step(&self) -> Result<bool> {
        match &self.engine {
            Engine::Sqlite(file) => file.write(shrink).await,
            // The database gives back what it has freed by itself (autovacuum).
            Engine::Postgres(_) => Ok(false),
        }
    }

    /// How far its clock is believed.
    ///
    /// # Errors
    /// The store's own.
    pub async fn trust(&self) -> Result<Trust> {
        self.read(Whose::All, |connection| {
            let sql = "SELECT at, doubted FROM retention_look";
            let read = |row: &Row<'_>| {
                let doubted = Duration::from_micros(row.get::<i64>(1)?.unsigned_abs());
                Ok(Trust { believed: Some(Wall(row.get(0)?)), doubted })
            };
            let found = connection.query_row(sql, [], read).optional().map_err(failed)?;
            Ok(found.unwrap_or_default())
        })
        .await
    }

    /// Notes it.
    ///
    /// # Errors
    /// The store's own.
    pub async fn keep_trust(&self, trust: Trust) -> Result<()> {
        let Some(believed) = trust.believed else { return Ok(()) };
        let doubted = i64::try_from(trust.doubted.as_micros()).unwrap_or(i64::MAX);
        self.write(Whose::All, move |tx| {
            let sql = "INSERT INTO retention_look (one, at, doubted) VALUES (1, ?1, ?2)
                       ON CONFLICT (one) DO UPDATE SET at = excluded.at, doubted = excluded.doubted";
            tx.execute(sql, params![believed.0, doubted]).map_err(failed).map(|_| ())
        })
        .await
    }

    /// Notes that a person runs retention.
    pub(crate) async fn note_retention(&self, policy: Policy) -> Result<()> {
        let Policy { body_days, ledger_days, tombstone_days, delivery_days } = policy;
        let deed = Deed::global("retention.run", "every stream").with(format!(
            "bodies {body_days} days, ledger {ledger_days} days, tombstones {tombstone_days} days, \
             deliveries {delivery_days} days"
        ));
        self.audited(deed, |_| Ok(())).await
    }

    /// Orders a load of every shared table: what was staged is lost, and the ledger has no bodies for it any more.
    pub(crate) async fn reload_lost(
        &self,
        place: Place,
        now: Wall,
    ) -> Result<Vec<(TableName, Generation)>> {
        let deed = Deed::of("reload", place.tenant, place.name_of("every table")).with(
            "the staging file was made anew, and retention has removed bodies it was made from",
        );
        self.audited(deed, move |tx| {
            rows(
                tx,
                "UPDATE entity SET generation = generation + 1, reload_asked_at = :now
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND withdrawn_at IS NULL
                 RETURNING name, generation",
                named_params! {":now": now.0, ":tenant": place.tenant.to_string(),
                    ":environment": place.environment.to_string(), ":erp": place.erp.as_str()},
                |row| Ok((parsed(row, 0)?, Generation(row.get(1)?))),
            )
        })
        .await
    }
}

/// How far bodies were removed; 0 = all are there.
pub(super) fn removed(connection: &Tx<'_>, stream: &StreamId) -> Result<AcceptSeq> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT removed_seq FROM ingest_stream WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let found = connection
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    Ok(AcceptSeq(found.unwrap_or(0)))
}

/// Where a staging file stands that begins behind the bodies removed last.
pub(super) fn behind_removed(connection: &Tx<'_>, stream: &StreamId) -> Result<Standing> {
    let applied = removed(connection, stream)?;
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT batch, number, sha256 FROM ingest_message
                WHERE (tenant_id, environment_id, erp, accept_seq) = (?1, ?2, ?3, ?4)";
    let last = connection
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, applied.0], |row| {
            Ok((BatchId(row.get(0)?), MessageNumber(row.get(1)?), row.get(2)?))
        })
        .optional()
        .map_err(failed)?;
    let gone = || {
        Error::new(
            Code::StoreFailed,
            format!("the ledger of {} lacks message {applied:?}", stream.erp),
        )
    };
    let last = last.ok_or_else(gone)?;
    Ok(Standing { applied, last: Some(last), batch: BatchId(1) })
}

/// The highest number of acceptance in batches that ended by then; looked for from the batch of `from` on. Batches of a stream follow each other, so what lies
/// below belongs to batches that had ended, whatever a clock that stepped wrote into them.
fn closed_to(
    connection: &Tx<'_>,
    stream: &StreamId,
    (before, from): (Wall, AcceptSeq),
) -> Result<AcceptSeq> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT coalesce(max(last_seq), 0) FROM batch
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND state <> 'open' AND closed_at <= ?4
                  AND id >= coalesce((SELECT batch FROM ingest_message
                       WHERE (tenant_id, environment_id, erp, accept_seq) = (?1, ?2, ?3, ?5)), 0)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_row(params![tenant, environment, erp, before.0, from.0], |row| row.get(0))
        .map_err(failed)?;
    Ok(AcceptSeq(found))
}

struct Body {
    seq: i64,
    of: (BatchId, MessageNumber),
    bytes: u64,
}

fn bodies(connection: &Tx<'_>, sweep: &Sweep, limit: usize) -> Result<Vec<Body>> {
    let [tenant, environment, erp] = &names(&sweep.stream);
    let from = removed(connection, &sweep.stream)?;
    let sql = "SELECT accept_seq, batch, number, byte_count FROM ingest_message
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND accept_seq > ?4 AND accept_seq <= ?5
                ORDER BY accept_seq LIMIT ?6";
    let to = sweep.bodies_to.min(sweep.standing.applied);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(params![tenant, environment, erp, from.0, to.0, limit], |row| {
            let of = (BatchId(row.get(1)?), MessageNumber(row.get(2)?));
            let bytes = row.get::<i64>(3)?.unsigned_abs();
            Ok(Body { seq: row.get(0)?, of, bytes })
        })
        .map_err(failed)?;
    Ok(found)
}

fn remove_bodies(tx: &Tx<'_>, sweep: &Sweep) -> Result<Removed> {
    let [tenant, environment, erp] = &names(&sweep.stream);
    let (mut done, mut to) = (Removed::default(), None);
    for body in bodies(tx, sweep, STEP_BODIES.saturating_add(sweep.held.len()))? {
        if done.bytes >= STEP_BYTES || done.bodies >= STEP_BODIES as u64 {
            break;
        }
        to = Some(body.seq);
        if sweep.held.contains(&body.of) {
            continue;
        }
        let sql = "UPDATE ingest_message SET body = NULL
                    WHERE (tenant_id, environment_id, erp, accept_seq) = (?1, ?2, ?3, ?4)";
        let mut statement = tx.prepare_cached(sql).map_err(failed)?;
        statement.execute(params![tenant, environment, erp, body.seq]).map_err(failed)?;
        done.bodies += 1;
        done.bytes += body.bytes;
    }
    if let Some(to) = to {
        let sql = "UPDATE ingest_stream SET removed_seq = ?4 WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, to])
            .map_err(failed)?;
    }
    Ok(done)
}

/// Closed batches whose time is over, the oldest first: wholly below where the staging file stands and where one would
/// begin anew, mirrored beside the staged rows, and holding nothing that stands in quarantine whole.
fn old_batches(
    connection: &Tx<'_>,
    sweep: &Sweep,
    (below, limit): (AcceptSeq, usize),
) -> Result<Vec<(i64, u64)>> {
    let Some(before) = sweep.ledger_before else { return Ok(Vec::new()) };
    let [tenant, environment, erp] = &names(&sweep.stream);
    let held: Vec<i64> = sweep.held.iter().map(|(batch, _)| batch.0).collect();
    let sql = "SELECT id, messages FROM batch
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND state <> 'open' AND closed_at <= ?4
                  AND last_seq < ?5 AND id < ?6 AND id NOT IN (SELECT CAST(value AS bigint) FROM json_each(?7))
                ORDER BY id LIMIT ?8";
    let held = serde_json::Value::from(held).to_string();
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mirrored = sweep.standing.batch.0;
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(
            params![tenant, environment, erp, before.0, below.0, mirrored, held, limit],
            |row| Ok((row.get(0)?, row.get::<i64>(1)?.unsigned_abs())),
        )
        .map_err(failed)?;
    Ok(found)
}

fn remove_rows(tx: &Tx<'_>, sweep: &Sweep) -> Result<Removed> {
    let [tenant, environment, erp] = &names(&sweep.stream);
    let below = removed(tx, &sweep.stream)?.min(sweep.standing.applied);
    let mut done = Removed::default();
    for (batch, _) in old_batches(tx, sweep, (below, STEP_ROWS))? {
        let room = STEP_ROWS.saturating_sub(usize::try_from(done.messages).unwrap_or(STEP_ROWS));
        if room == 0 {
            break;
        }
        let sql = "DELETE FROM ingest_message WHERE (tenant_id, environment_id, erp, batch) = (?1, ?2, ?3, ?4)
                    AND number IN (SELECT number FROM ingest_message
                         WHERE (tenant_id, environment_id, erp, batch) = (?1, ?2, ?3, ?4) ORDER BY number LIMIT ?5)";
        let room = i64::try_from(room).unwrap_or(i64::MAX);
        let gone = tx
            .prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, batch, room])
            .map_err(failed)?;
        done.messages += gone as u64;
        let sql = "DELETE FROM batch WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4)
                    AND NOT EXISTS (SELECT 1 FROM ingest_message m
                         WHERE (m.tenant_id, m.environment_id, m.erp, m.batch) = (?1, ?2, ?3, ?4))";
        let gone = tx
            .prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, batch])
            .map_err(failed)?;
        done.batches += gone as u64;
    }
    Ok(done)
}

fn due(connection: &Tx<'_>, sweep: &Sweep) -> Result<Removed> {
    if !is_of_this_ledger(connection, &sweep.stream, &sweep.standing)? {
        return Ok(Removed::default());
    }
    let mut due = Removed::default();
    let mut from = removed(connection, &sweep.stream)?;
    for body in bodies(connection, sweep, usize::MAX)? {
        from = AcceptSeq(body.seq);
        if !sweep.held.contains(&body.of) {
            due.bodies += 1;
            due.bytes += body.bytes;
        }
    }
    let below = from.min(sweep.standing.applied);
    for (_, messages) in old_batches(connection, sweep, (below, usize::MAX))? {
        due.batches += 1;
        due.messages += messages;
    }
    Ok(due)
}
