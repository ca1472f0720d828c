//! Outbox: events of batches and alerts, written in the transaction that made them true.
//!
//! Promises: one event per batch and type; a delivery for each webhook that asks for it; where nobody asks, nothing is
//! written and next to nothing is read; what tells of staged rows is held until they are staged.
//! Never: calls anybody.

use crate::store::sql::{Optional as _, Tx, params};
use protocol::{
    Result,
    ids::{AcceptSeq, BatchId, EventId, TenantId},
    limits,
};
use runtime::{clock::Wall, entropy};

use crate::{
    model::{
        batch::BatchState,
        stream::StreamId,
        webhook::{EventKind, Facts, Happened},
    },
    store::{
        Store, Whose, failed,
        ingest::{names, stream_of},
    },
};

impl Store {
    /// Notes, once for each, that open batches have been silent for so long that people see them as stalled; returns how
    /// many were noted now.
    ///
    /// # Errors
    /// The store's own.
    pub async fn tell_stalled(&self, now: Wall) -> Result<usize> {
        let silent = i64::try_from(limits::BATCH_STALLED.as_micros()).unwrap_or(i64::MAX);
        let since = now.0.saturating_sub(silent);
        // A look first: the writer is for those who accept.
        let untold = "SELECT b.tenant_id, b.environment_id, b.erp, b.id FROM batch b
             WHERE b.state = 'open' AND b.last_at <= ?1 AND b.refused_code IS NULL
               AND EXISTS (SELECT 1 FROM webhook w WHERE w.tenant_id = b.tenant_id
                    AND (w.environment_id IS NULL OR w.environment_id = b.environment_id)
                    AND EXISTS (SELECT 1 FROM json_each(w.events) WHERE value = 'batch.stalled'))
               AND NOT EXISTS (SELECT 1 FROM webhook_event e
                    WHERE (e.tenant_id, e.environment_id, e.erp, e.batch, e.type)
                        = (b.tenant_id, b.environment_id, b.erp, b.id, 'batch.stalled'))";
        let found =
            self.read(Whose::All, move |connection| stalled(connection, untold, since)).await?;
        if found.is_empty() {
            return Ok(0);
        }
        self.write(Whose::All, move |tx| {
            let found = stalled(tx, untold, since)?;
            for (stream, batch) in &found {
                tell(tx, stream, *batch, &Happened::Stalled, now)?;
            }
            Ok(found.len())
        })
        .await
    }

    /// Streams with events that wait for their rows to be staged.
    ///
    /// # Errors
    /// The store's own.
    pub async fn held_streams(&self) -> Result<Vec<StreamId>> {
        self.read(Whose::All, |connection| {
            let sql = "SELECT DISTINCT tenant_id, environment_id, erp FROM webhook_event WHERE held_for IS NOT NULL";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let found = statement
                .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
                .map_err(failed)?;
            found.iter().map(stream_of).collect()
        })
        .await
    }

    /// Lets the events of a stream go whose rows are staged; returns how many.
    ///
    /// # Errors
    /// The store's own.
    pub async fn release_staged(
        &self,
        stream: StreamId,
        (applied, complete): (AcceptSeq, BatchId),
    ) -> Result<usize> {
        let sql = "FROM webhook_event WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                     AND held_for IS NOT NULL AND held_for <= ?4 AND batch <= ?5";
        let of = stream.clone();
        let any = self
            .read(stream.tenant, move |connection| {
                let [tenant, environment, erp] = &names(&of);
                let exists = format!("SELECT EXISTS (SELECT 1 {sql})");
                let mut statement = connection.prepare_cached(&exists).map_err(failed)?;
                let values = params![tenant, environment, erp, applied.0, complete.0];
                statement.query_row(values, |row| row.get::<bool>(0)).map_err(failed)
            })
            .await?;
        if !any {
            return Ok(0);
        }
        self.write(stream.tenant, move |tx| {
            let [tenant, environment, erp] = &names(&stream);
            let release =
                format!("UPDATE webhook_event SET held_for = NULL WHERE seq IN (SELECT seq {sql})");
            tx.prepare_cached(&release)
                .map_err(failed)?
                .execute(params![tenant, environment, erp, applied.0, complete.0])
                .map_err(failed)
        })
        .await
    }
}

fn stalled(connection: &Tx<'_>, sql: &str, since: i64) -> Result<Vec<(StreamId, BatchId)>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map([since], |row| {
            Ok(([row.get(0)?, row.get(1)?, row.get(2)?], BatchId(row.get(3)?)))
        })
        .map_err(failed)?;
    found.into_iter().map(|(ids, batch)| Ok((stream_of(&ids)?, batch))).collect()
}

/// Notes what happened to a batch, for the webhooks that ask for it.
pub(in crate::store) fn tell(
    tx: &Tx<'_>,
    stream: &StreamId,
    batch: BatchId,
    happened: &Happened,
    now: Wall,
) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let asking = asking(tx, (tenant, Some(environment.as_str())), happened.kind().as_str())?;
    if asking.is_empty() {
        return Ok(());
    }
    let (facts, last_seq) = facts(tx, stream, batch)?;
    let id = EventId(entropy::uuid_at(now.millis())).to_string();
    let held = (*happened == Happened::Complete).then_some(last_seq);
    let sql = "INSERT INTO webhook_event (id, tenant_id, type, environment_id, erp, batch, at, data, held_for)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING RETURNING seq";
    let data = happened.data(&facts).to_string();
    let kind = happened.kind().as_str();
    let seq: Option<i64> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![id, tenant, kind, environment, erp, batch.0, now.0, data, held], |row| {
            row.get(0)
        })
        .optional()
        .map_err(failed)?;
    // Told before: once per batch and type.
    let Some(seq) = seq else { return Ok(()) };
    deliver(tx, tenant, asking, (seq, now))
}

/// Notes an alert of a tenant, for the webhooks that ask for such.
pub(in crate::store) fn tell_alert(
    tx: &Tx<'_>,
    tenant: TenantId,
    (kind, environment, erp): (EventKind, Option<String>, Option<String>),
    data: String,
    now: Wall,
) -> Result<()> {
    let tenant = tenant.to_string();
    let asking = asking(tx, (&tenant, environment.as_deref()), kind.as_str())?;
    if asking.is_empty() {
        return Ok(());
    }
    let id = EventId(entropy::uuid_at(now.millis())).to_string();
    let sql = "INSERT INTO webhook_event (id, tenant_id, type, environment_id, erp, at, data)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) RETURNING seq";
    let seq: i64 = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![id, tenant, kind.as_str(), environment, erp, now.0, data], |row| {
            row.get(0)
        })
        .map_err(failed)?;
    deliver(tx, &tenant, asking, (seq, now))
}

/// A delivery of an event for each of those webhooks.
fn deliver(tx: &Tx<'_>, tenant: &str, asking: Vec<String>, (seq, now): (i64, Wall)) -> Result<()> {
    let sql = "INSERT INTO webhook_delivery (tenant_id, webhook_id, event_seq, not_before) VALUES (?1, ?2, ?3, ?4)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    for webhook in asking {
        statement.execute(params![tenant, webhook, seq, now.0]).map_err(failed)?;
    }
    Ok(())
}

/// Webhooks that ask for events of that type of that environment.
fn asking(
    tx: &Tx<'_>,
    (tenant, environment): (&str, Option<&str>),
    kind: &str,
) -> Result<Vec<String>> {
    let sql = "SELECT id FROM webhook WHERE tenant_id = ?1 AND (environment_id IS NULL OR environment_id = ?2)
                 AND EXISTS (SELECT 1 FROM json_each(events) WHERE value = ?3) ORDER BY id";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(params![tenant, environment, kind], |row| row.get(0))
        .map_err(failed)?;
    Ok(found)
}

/// What the ledger knows of the batch, and the number of acceptance of its newest message.
fn facts(tx: &Tx<'_>, stream: &StreamId, batch: BatchId) -> Result<(Facts, i64)> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT messages, row_count, range_start, range_end, opened_at, last_at, last_seq, state FROM batch
                WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4)";
    let of = params![tenant, environment, erp, batch.0];
    let wall = |at: Option<i64>| at.map(Wall);
    let (mut facts, last_seq) = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(of, |row| {
            // A range belongs to an accepted Summary.
            let told = row.get::<String>(7)? == BatchState::Complete.as_str();
            let facts = Facts {
                stream: stream.clone(),
                batch,
                messages: row.get(0)?,
                rows: row.get(1)?,
                tables: Vec::new(),
                start: wall(row.get(2)?).filter(|_| told),
                end: wall(row.get(3)?).filter(|_| told),
                opened_at: Wall(row.get(4)?),
                last_at: Wall(row.get(5)?),
            };
            Ok((facts, row.get(6)?))
        })
        .map_err(failed)?;
    let sql = "SELECT DISTINCT coalesce(e.name, m.name_folded) AS name FROM ingest_message m
                 LEFT JOIN entity e ON (e.tenant_id, e.environment_id, e.erp, e.name_folded)
                                     = (m.tenant_id, m.environment_id, m.erp, m.name_folded)
                WHERE (m.tenant_id, m.environment_id, m.erp, m.batch) = (?1, ?2, ?3, ?4) ORDER BY name";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_map(params![tenant, environment, erp, batch.0], |row| row.get(0))
        .map_err(failed)?;
    facts.tables = found;
    Ok((facts, last_seq))
}
