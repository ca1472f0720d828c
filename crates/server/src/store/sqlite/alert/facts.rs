//! Facts: what the ledger knows of each stream, for the rules of alerts, and what its agent reported of it.
//!
//! Promises: what is read of a stream is bounded by what happened since its last complete batch, or within the threshold
//! that is asked about.
//! Never: reads a body; judges; writes.

use protocol::{Result, ids::AcceptSeq};
use runtime::clock::Wall;
use rusqlite::{Connection, OptionalExtension as _, named_params, params};

use crate::{
    model::{
        alert::rules::{Newest, Reported},
        stream::StreamId,
    },
    store::sqlite::{
        Store,
        catalog::{parsed, rows},
        failed,
        ingest::{names, stream_of},
    },
};

/// Incomplete batches counted; beyond that it is a number that nobody reads.
const INCOMPLETE: i64 = 10_000;

/// What the ledger knows of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StreamFacts {
    pub stream: StreamId,
    pub had_session: bool,
    pub live_until: Option<Wall>,
    pub newest: Option<Newest>,
    pub complete_at: Option<Wall>,
    pub incomplete: (i64, Option<Wall>),
    pub reported: Vec<Reported>,
}

impl Store {
    /// Every stream with what is known of it.
    ///
    /// # Errors
    /// The store's own.
    pub async fn stream_facts(&self, now: Wall) -> Result<Vec<StreamFacts>> {
        self.read(move |connection| {
            let sql = "SELECT tenant_id, environment_id, erp, epoch, iif(holder IS NOT NULL AND expires_at > :now, expires_at, NULL)
                         FROM ingest_stream ORDER BY tenant_id, environment_id, erp";
            let found = rows(connection, sql, named_params! {":now": now.0}, |row| {
                let epoch: i64 = row.get(3)?;
                let live: Option<i64> = row.get(4)?;
                Ok(([row.get(0)?, row.get(1)?, row.get(2)?], epoch > 0, live.map(Wall)))
            })?;
            let mut facts = Vec::with_capacity(found.len());
            for (ids, had_session, live_until) in found {
                let stream = stream_of(&ids)?;
                let (complete, complete_at) = complete(connection, &ids)?.unzip();
                facts.push(StreamFacts {
                    had_session,
                    live_until,
                    newest: newest(connection, &ids)?,
                    complete_at,
                    incomplete: incomplete(connection, &ids, complete.unwrap_or(0))?,
                    reported: reported(connection, &ids)?,
                    stream,
                });
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
        self.read(move |connection| {
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

    /// Whether a message of a table came since then. Batches rise with time, so the newest are looked through from their
    /// end to the first that is older.
    ///
    /// # Errors
    /// The store's own.
    pub async fn came_since(&self, stream: StreamId, table: String, since: Wall) -> Result<bool> {
        self.read(move |connection| {
            let [tenant, environment, erp] = &names(&stream);
            let sql = "SELECT EXISTS (SELECT 1 FROM ingest_message
                 WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND name_folded = ?4 AND batch > coalesce(
                     (SELECT id FROM batch WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND last_at < ?5
                       ORDER BY id DESC LIMIT 1), 0))";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let of = params![tenant, environment, erp, table, since.0];
            statement.query_row(of, |row| row.get(0)).map_err(failed)
        })
        .await
    }
}

fn newest(connection: &Connection, of: &[String; 3]) -> Result<Option<Newest>> {
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
fn complete(connection: &Connection, of: &[String; 3]) -> Result<Option<(i64, Wall)>> {
    let sql = "SELECT id, closed_at FROM batch
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND state = 'complete' ORDER BY id DESC LIMIT 1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement
        .query_row(params![of[0], of[1], of[2]], |row| Ok((row.get(0)?, Wall(row.get(1)?))));
    found.optional().map_err(failed)
}

/// Batches behind that one that were given up or refused, and since when.
fn incomplete(
    connection: &Connection,
    of: &[String; 3],
    complete: i64,
) -> Result<(i64, Option<Wall>)> {
    let sql = "SELECT count(*), min(at) FROM (
                 SELECT coalesce(closed_at, refused_at) AS at FROM batch
                  WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND id > ?4
                    AND (state = 'abandoned' OR (state = 'open' AND refused_code IS NOT NULL)) LIMIT ?5)";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement
        .query_row(params![of[0], of[1], of[2], complete, INCOMPLETE], |row| {
            Ok((row.get(0)?, row.get::<_, Option<i64>>(1)?.map(Wall)))
        })
        .map_err(failed)
}

/// What its agent reported: tables that it parked, and what verification found.
fn reported(connection: &Connection, of: &[String; 3]) -> Result<Vec<Reported>> {
    let sql = "SELECT 'differences', name, differences, NULL, coalesce(verified_at, reported_at) FROM fleet_table
                WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp) AND differences > 0
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
