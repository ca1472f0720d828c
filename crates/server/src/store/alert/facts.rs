//! Facts: what the ledger knows of each stream, for the rules of alerts, and what its agent reported of it.
//!
//! Promises: what is read of a stream is bounded by what happened since its last complete batch, or within the threshold
//! that is asked about.
//! Never: reads a body; judges; writes.

use crate::store::sql::{Optional as _, Tx, named_params, params};
use protocol::{Result, ids::AcceptSeq};
use runtime::clock::Wall;

use crate::{
    model::{
        alert::{
            fresh::Seen,
            rules::{Newest, Reported},
        },
        stream::StreamId,
    },
    store::{
        Store, Whose,
        catalog::{parsed, rows},
        failed,
        ingest::{names, stream_of},
    },
};

/// Incomplete batches counted; beyond that it is a number that nobody reads.
const INCOMPLETE: i64 = 10_000;

/// What the ledger knows of a stream that somebody is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Known {
    pub had_session: bool,
    pub live_until: Option<Wall>,
    /// Last grant and last report of who holds the lease.
    pub holder: (Option<Wall>, Option<Wall>),
    pub newest: Option<Newest>,
    pub complete_at: Option<Wall>,
    pub incomplete: (i64, Option<Wall>),
    pub reported: Vec<Reported>,
    /// Its tables, by name.
    pub tables: Vec<Seen>,
}

/// A stream's head, as it is read.
struct Head {
    ids: [String; 3],
    bound: bool,
    had_session: bool,
    live_until: Option<Wall>,
    holder: (Option<Wall>, Option<Wall>),
}

impl Store {
    /// Every stream with what is known of it; `None` where no installation is bound to its environment for its ERP, so that
    /// nobody is to send it.
    ///
    /// # Errors
    /// The store's own.
    pub async fn stream_facts(&self, now: Wall) -> Result<Vec<(StreamId, Option<Known>)>> {
        self.read(Whose::All, move |connection| {
            let heads = heads(connection, now)?;
            let mut facts = Vec::with_capacity(heads.len());
            for head in heads {
                let stream = stream_of(&head.ids)?;
                let known = if head.bound { Some(known(connection, head)?) } else { None };
                facts.push((stream, known));
            }
            Ok(facts)
        })
        .await
    }

    /// When the oldest message behind that number was accepted.
    ///
    /// # Errors
    /// The store's own.
    pub async fn accepted_behind(
        &self,
        stream: StreamId,
        applied: AcceptSeq,
    ) -> Result<Option<Wall>> {
        self.read(stream.tenant, move |connection| {
            let [tenant, environment, erp] = &names(&stream);
            let sql = "SELECT received_at FROM ingest_message
                        WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND accept_seq > ?4
                        ORDER BY accept_seq LIMIT 1";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let of = params![tenant, environment, erp, applied.0];
            let at: Option<i64> =
                statement.query_row(of, |row| row.get(0)).optional().map_err(failed)?;
            Ok(at.map(Wall))
        })
        .await
    }

    /// Those of these tables, given by folded name with their minutes, that are shared for longer than that and sent
    /// nothing within it, by the name they are shared under. Batches rise with time, so the newest are looked through from
    /// their end to the first that is older.
    ///
    /// # Errors
    /// The store's own.
    pub async fn silent_tables(
        &self,
        stream: StreamId,
        tables: Vec<(String, u32)>,
        now: Wall,
    ) -> Result<Vec<(String, u32)>> {
        if tables.is_empty() {
            return Ok(tables);
        }
        self.read(stream.tenant, move |connection| {
            let [tenant, environment, erp] = &names(&stream);
            let sql = "SELECT name FROM entity
                        WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4)
                          AND withdrawn_at IS NULL AND created_at <= ?5 AND NOT EXISTS (
                              SELECT 1 FROM ingest_message
                               WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND name_folded = ?4
                                 AND batch > coalesce(
                                     (SELECT id FROM batch WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                                         AND last_at < ?5 ORDER BY id DESC LIMIT 1), 0))";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let mut silent = Vec::new();
            for (table, minutes) in tables {
                let since = now.0.saturating_sub(i64::from(minutes) * 60_000_000);
                let of = params![tenant, environment, erp, table, since];
                let name = statement.query_row(of, |row| row.get::<String>(0)).optional();
                silent.extend(name.map_err(failed)?.map(|name| (name, minutes)));
            }
            Ok(silent)
        })
        .await
    }
}

/// A restore and the unbinding of an installation raise the epoch also of a stream that never had a session, so that a
/// grant tells whether there was one. Who holds a lease from before grants were noted is known by its reports alone.
fn heads(connection: &Tx<'_>, now: Wall) -> Result<Vec<Head>> {
    let sql = "SELECT s.tenant_id, s.environment_id, s.erp,
                      EXISTS (SELECT 1 FROM installation i WHERE (i.tenant_id, i.environment_id, i.erp)
                                                               = (s.tenant_id, s.environment_id, s.erp)),
                      s.holder IS NOT NULL OR EXISTS (
                          SELECT 1 FROM fleet_agent a WHERE (a.tenant_id, a.environment_id, a.erp)
                                 = (s.tenant_id, s.environment_id, s.erp) AND a.granted_at IS NOT NULL),
                      iif(s.holder IS NOT NULL AND s.expires_at > :now, s.expires_at, NULL), h.granted_at,
                      iif(h.instance IS NULL AND s.holder IS NOT NULL, (
                          SELECT max(t.reported_at) FROM fleet_table t WHERE (t.tenant_id, t.environment_id, t.erp)
                                 = (s.tenant_id, s.environment_id, s.erp)), h.reported_at)
                 FROM ingest_stream s
                 LEFT JOIN fleet_agent h ON (h.tenant_id, h.environment_id, h.erp, h.instance)
                                          = (s.tenant_id, s.environment_id, s.erp, s.holder)
                ORDER BY s.tenant_id, s.environment_id, s.erp";
    rows(connection, sql, named_params! {":now": now.0}, |row| {
        let wall = |at: usize| row.get::<Option<i64>>(at).map(|at| at.map(Wall));
        Ok(Head {
            ids: [row.get(0)?, row.get(1)?, row.get(2)?],
            bound: row.get(3)?,
            had_session: row.get(4)?,
            live_until: wall(5)?,
            holder: (wall(6)?, wall(7)?),
        })
    })
}

fn known(connection: &Tx<'_>, head: Head) -> Result<Known> {
    let Head { ids, had_session, live_until, holder, .. } = head;
    let (complete, complete_at) = complete(connection, &ids)?.unzip();
    Ok(Known {
        had_session,
        live_until,
        holder,
        newest: newest(connection, &ids)?,
        complete_at,
        incomplete: incomplete(connection, &ids, complete.unwrap_or(0))?,
        reported: reported(connection, &ids)?,
        tables: tables(connection, &ids)?,
    })
}

fn newest(connection: &Tx<'_>, of: &[String; 3]) -> Result<Option<Newest>> {
    let sql =
        "SELECT state, last_at FROM batch WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_row(params![of[0], of[1], of[2]], |row| {
        let state: String = row.get(0)?;
        let last_at = Wall(row.get(1)?);
        Ok(Newest { open: state == "open", complete: state == "complete", last_at })
    });
    found.optional().map_err(failed)
}

/// The newest complete batch and its end.
fn complete(connection: &Tx<'_>, of: &[String; 3]) -> Result<Option<(i64, Wall)>> {
    let sql = "SELECT id, closed_at FROM batch
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND state = 'complete' ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_row(params![of[0], of[1], of[2]], |row| Ok((row.get(0)?, Wall(row.get(1)?))));
    found.optional().map_err(failed)
}

/// Batches behind that one that were given up or refused, and since when.
fn incomplete(connection: &Tx<'_>, of: &[String; 3], complete: i64) -> Result<(i64, Option<Wall>)> {
    let sql = "SELECT count(*), min(at) FROM (
                 SELECT coalesce(closed_at, refused_at) AS at FROM batch
                  WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND id > ?4
                    AND (state = 'abandoned' OR (state = 'open' AND refused_code IS NOT NULL)) LIMIT ?5) found";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement
        .query_row(params![of[0], of[1], of[2], complete, INCOMPLETE], |row| {
            Ok((row.get(0)?, row.get::<Option<i64>>(1)?.map(Wall)))
        })
        .map_err(failed)
}

/// What its agent reported: tables that it parked, and what verification found; of tables that could not be verified, how
/// many, since the cause is mostly one.
fn reported(connection: &Tx<'_>, of: &[String; 3]) -> Result<Vec<Reported>> {
    let sql = "SELECT 'differences', name, differences, NULL, coalesce(verified_at, reported_at) FROM fleet_table
                WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) AND differences > 0
                UNION ALL
               SELECT 'not-verified', '', count(*), min(unverified), min(unverified_since) FROM fleet_table
                WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) AND unverified <> ''
               HAVING count(*) > 0
                UNION ALL
               SELECT 'table-parked', name, 1, nullif(parked_code, ''), since FROM fleet_table
                WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) AND state = 'PARKED'
                ORDER BY 1, 2";
    let values = named_params! {":tenant": of[0], ":environment": of[1], ":erp": of[2]};
    rows(connection, sql, values, |row| {
        Ok(Reported {
            rule: parsed(row, 0)?,
            subject: row.get(1)?,
            amount: row.get(2)?,
            code: row.get(3)?,
            since: Wall(row.get(4)?),
        })
    })
}

/// How far its tables were read, as its agent reported it.
fn tables(connection: &Tx<'_>, of: &[String; 3]) -> Result<Vec<Seen>> {
    let sql =
        "SELECT name, state, since, watermark, lag_ms, degraded <> '', reported_at FROM fleet_table
                WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) ORDER BY name_folded";
    let values = named_params! {":tenant": of[0], ":environment": of[1], ":erp": of[2]};
    rows(connection, sql, values, |row| {
        Ok(Seen {
            table: row.get(0)?,
            state: parsed(row, 1)?,
            since: Wall(row.get(2)?),
            watermark: row.get(3)?,
            lag_ms: row.get(4)?,
            degraded: row.get(5)?,
            reported_at: Wall(row.get(6)?),
        })
    })
}
