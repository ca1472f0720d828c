//! Ledger: what was accepted, for the apply task. People look at it through `overview`.
//!
//! Promises: messages come in order of acceptance; a page is bounded in rows and bytes.
//! Never: changes anything.

use crate::store::sql::{Optional as _, Row, SqlResult, Tx, params};
use bytes::Bytes;
use protocol::{
    Code, Result,
    ids::{AcceptSeq, BatchId, MessageNumber},
};
use runtime::{clock::Wall, failpoint};

use super::{names, stream_of};
use crate::{
    model::{batch::BatchState, stream::StreamId},
    store::{Store, Whose, failed, retention},
};

/// A message as the apply task takes it.
#[derive(Clone, Debug)]
pub struct LedgerMessage {
    pub seq: AcceptSeq,
    pub batch: BatchId,
    pub number: MessageNumber,
    /// Folded.
    pub table: String,
    pub rebuild: bool,
    pub sha256: [u8; 32],
    pub body: Bytes,
}

/// How far somebody has read the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// The number of acceptance read last; 0 = none.
    pub applied: AcceptSeq,
    /// The message of that number, where it was noted.
    pub last: Option<(BatchId, MessageNumber, [u8; 32])>,
    /// The lowest batch whose state may have changed since.
    pub batch: BatchId,
}

/// What follows a standing, or that it is one of another ledger: the store was restored, and has other messages under
/// the numbers that were read.
#[derive(Clone, Debug)]
pub enum Following {
    Next(Vec<LedgerMessage>, Vec<LedgerBatch>),
    OtherLedger,
    /// Bodies that follow were removed by retention: what is staged cannot be completed from the ledger. The first
    /// standing that can be gone on from, with nothing staged of what lies below.
    Removed(Standing),
}

/// A batch as its mirror beside the staged rows needs it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LedgerBatch {
    pub batch: BatchId,
    pub state: BatchState,
    pub last_seq: AcceptSeq,
    pub last_at: Wall,
    pub closed_at: Option<Wall>,
}

impl Store {
    /// Streams with their highest number of acceptance.
    ///
    /// # Errors
    /// The store's own.
    pub async fn ledger_ends(&self) -> Result<Vec<(StreamId, AcceptSeq)>> {
        failpoint::pass("ledger.ends", Code::StoreFailed).await?;
        self.read(Whose::All, |connection| {
            let sql = "SELECT tenant_id, environment_id, erp, accept_seq FROM ingest_stream";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let rows = statement
                .query_map([], |row| Ok(([row.get(0)?, row.get(1)?, row.get(2)?], row.get(3)?)))
                .map_err(failed)?;
            rows.into_iter().map(|(ids, seq)| Ok((stream_of(&ids)?, AcceptSeq(seq)))).collect()
        })
        .await
    }

    /// The highest number of acceptance of a stream; 0 where nothing came yet.
    ///
    /// # Errors
    /// The store's own.
    pub async fn accepted(&self, stream: StreamId) -> Result<AcceptSeq> {
        let streams = self.ledger_ends().await?;
        Ok(streams
            .into_iter()
            .find(|(id, _)| *id == stream)
            .map(|(_, seq)| seq)
            .unwrap_or_default())
    }

    /// The next messages after a standing, at most `bytes` of them (but one at least), and the batches from its own on,
    /// all of one moment.
    ///
    /// # Errors
    /// The store's own.
    pub async fn ledger_after(
        &self,
        stream: StreamId,
        standing: Standing,
        bytes: usize,
    ) -> Result<Following> {
        self.read(stream.tenant, move |connection| {
            failpoint::reach("ledger.read", Code::StoreFailed)?;
            if !is_of_this_ledger(connection, &stream, &standing)? {
                return Ok(Following::OtherLedger);
            }
            if standing.applied < retention::removed(connection, &stream)? {
                return retention::behind_removed(connection, &stream).map(Following::Removed);
            }
            let messages = messages_after(connection, &stream, standing.applied, bytes)?;
            let sql = "SELECT id, state, last_seq, last_at, closed_at FROM batch
                        WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND id >= ?4 ORDER BY id LIMIT 1000";
            let [tenant, environment, erp] = &names(&stream);
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let rows = statement.query_map(params![tenant, environment, erp, standing.batch.0], batch).map_err(failed)?;
            Ok(Following::Next(messages, rows))
        })
        .await
    }
}

/// Whether the message a standing notes is the one this ledger has under its number.
pub(in crate::store) fn is_of_this_ledger(
    connection: &Tx<'_>,
    stream: &StreamId,
    standing: &Standing,
) -> Result<bool> {
    if standing.applied == AcceptSeq(0) {
        return Ok(true);
    }
    let sql = "SELECT batch, number, sha256 FROM ingest_message
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND accept_seq = ?4";
    let [tenant, environment, erp] = &names(stream);
    let found = connection
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, standing.applied.0], |row| {
            Ok((BatchId(row.get(0)?), MessageNumber(row.get(1)?), row.get(2)?))
        })
        .optional()
        .map_err(failed)?;
    Ok(match (found, &standing.last) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(found), Some(last)) => found == *last,
    })
}

/// What a message counts for at least, in bytes: it takes its place in a round, however small it is.
const LEAST: usize = 1_024;

fn messages_after(
    connection: &Tx<'_>,
    stream: &StreamId,
    after: AcceptSeq,
    bytes: usize,
) -> Result<Vec<LedgerMessage>> {
    let [tenant, environment, erp] = &names(stream);
    // Which they are is told by their sizes, before a body is read.
    let sql = "SELECT accept_seq, byte_count FROM ingest_message
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND accept_seq > ?4
                ORDER BY accept_seq LIMIT ?5";
    let most = i64::try_from(bytes.div_ceil(LEAST)).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let sizes = statement
        .query_map(params![tenant, environment, erp, after.0, most], |row| {
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
        })
        .map_err(failed)?;
    let (mut taken, mut last) = (0, after.0);
    for (seq, size) in sizes {
        if taken >= bytes {
            break;
        }
        taken += usize::try_from(size).unwrap_or(usize::MAX).max(LEAST);
        last = seq;
    }
    let sql =
        "SELECT accept_seq, batch, number, name_folded, rebuild, sha256, body FROM ingest_message
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND accept_seq > ?4 AND accept_seq <= ?5
                ORDER BY accept_seq";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.query_map(params![tenant, environment, erp, after.0, last], message).map_err(failed)
}

fn message(row: &Row<'_>) -> SqlResult<LedgerMessage> {
    Ok(LedgerMessage {
        seq: AcceptSeq(row.get(0)?),
        batch: BatchId(row.get(1)?),
        number: MessageNumber(row.get(2)?),
        table: row.get(3)?,
        rebuild: row.get(4)?,
        sha256: row.get(5)?,
        body: row.get::<Vec<u8>>(6)?.into(),
    })
}

fn batch(row: &Row<'_>) -> SqlResult<LedgerBatch> {
    Ok(LedgerBatch {
        batch: BatchId(row.get(0)?),
        state: BatchState::parse(&row.get::<String>(1)?).unwrap_or(BatchState::Abandoned),
        last_seq: AcceptSeq(row.get(2)?),
        last_at: Wall(row.get(3)?),
        closed_at: row.get::<Option<i64>>(4)?.map(Wall),
    })
}
