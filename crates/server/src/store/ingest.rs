//! Ingest, store floor: intents of acceptance, each in one transaction that reads the stream's row first.
//!
//! Promises: message, number of acceptance and batch change together; a Summary, its batch's state and the cursor
//! entries prepared for it change together; a refusal leaves the ledger as it was (a batch that has been silent too
//! long is closed in passing). What became of a batch is noted for webhooks in the same transaction.
//! Never: judges; `model::batch` does.

mod body;
mod ledger;

use crate::store::sql::{Optional as _, Tx, params};
use bytes::Bytes;
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, Epoch, Generation, InstallationId, MessageNumber},
    names::TableName,
};
use runtime::{clock::Wall, failpoint, mutant};

use super::{Store, Whose, failed, webhook};
pub use body::Kept;
pub(super) use ledger::is_of_this_ledger;
pub use ledger::{Following, LedgerBatch, LedgerMessage, Standing};

use crate::model::{
    batch::{
        self, BatchState, Known, Manifest, Offer, Refusal, SummaryRefusal, SummaryVerdict, Told,
        Verdict,
    },
    stream::{Head, Open, StreamId},
    webhook::{Happened, Lack},
};

/// A checked table message on its way into the ledger.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub stream: StreamId,
    pub sender: InstallationId,
    pub offer: Offer,
    pub table: TableName,
    /// Folded, in key order.
    pub key: Vec<String>,
    pub rows: i64,
    pub base_load: bool,
    pub sha256: [u8; 32],
    pub body: Bytes,
}

/// What became of a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Admission {
    Accepted {
        seq: AcceptSeq,
    },
    Duplicate,
    Refused(Refusal),
    /// The table is not in the stream's entity list, or was withdrawn.
    NotListed,
    /// The staging table stands under this key.
    KeyChanged {
        stands: Vec<String>,
    },
}

/// A Summary with what came beside it.
#[derive(Clone, Debug)]
pub struct Closing {
    pub stream: StreamId,
    pub sender: InstallationId,
    pub epoch: Option<Epoch>,
    pub batch: BatchId,
    pub manifest: Manifest,
    /// Base loads whose last rows are in this batch, as the sender told.
    pub loads_done: Vec<(TableName, Generation)>,
}

impl Store {
    /// Judges a message under the stream's lock and stores it where it is the next.
    ///
    /// # Errors
    /// The store's own.
    pub async fn accept(&self, message: Incoming, now: Wall) -> Result<Admission> {
        self.write(message.stream.tenant, move |tx| accept(tx, &message, now)).await
    }

    /// Judges a Summary under the stream's lock; where counts agree the batch is complete and its cursor entries hold.
    ///
    /// # Errors
    /// The store's own.
    pub async fn close_batch(&self, closing: Closing, now: Wall) -> Result<SummaryVerdict> {
        self.write(closing.stream.tenant, move |tx| close(tx, &closing, now)).await
    }

    /// How many open batches have been silent for so long that people see them as stalled.
    ///
    /// # Errors
    /// The store's own.
    pub async fn stalled(&self, now: Wall) -> Result<u32> {
        let since = now.0.saturating_sub(
            i64::try_from(protocol::limits::BATCH_STALLED.as_micros()).unwrap_or(i64::MAX),
        );
        self.read(Whose::All, move |connection| {
            let sql = "SELECT count(*) FROM batch WHERE state = 'open' AND last_at <= ?1";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            statement.query_row([since], |row| row.get(0)).map_err(failed)
        })
        .await
    }

    /// Abandons every open batch that has been silent for too long; returns how many.
    ///
    /// # Errors
    /// The store's own.
    pub async fn abandon_silent(&self, now: Wall) -> Result<usize> {
        self.write(Whose::All, move |tx| {
            let streams = open_streams(tx)?;
            let mut abandoned = 0;
            for stream in &streams {
                abandoned += usize::from(head(tx, stream, now)?.open.is_none());
            }
            Ok(abandoned)
        })
        .await
    }
}

pub(super) fn names(stream: &StreamId) -> [String; 3] {
    [stream.tenant.to_string(), stream.environment.to_string(), stream.erp.as_str().to_owned()]
}

/// The stream's row, made where it is not there yet. A batch that has been silent too long is abandoned in passing.
pub(super) fn head(tx: &Tx<'_>, stream: &StreamId, now: Wall) -> Result<Head> {
    let [tenant, environment, erp] = &names(stream);
    let select = "SELECT s.epoch, s.holder IS NOT NULL AND s.expires_at > ?4, s.last_batch,
                         s.open_batch, s.next_n, b.row_count, b.last_at
                    FROM ingest_stream s
                    LEFT JOIN batch b ON (b.tenant_id, b.environment_id, b.erp, b.id)
                                       = (s.tenant_id, s.environment_id, s.erp, s.open_batch)
                   WHERE (s.tenant_id, s.environment_id, s.erp) = (?1, ?2, ?3)";
    let found = tx
        .prepare_cached(select)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, now.0], |row| {
            let open = match row.get::<Option<i64>>(3)? {
                Some(batch) => Some(Open {
                    batch: BatchId(batch),
                    next: MessageNumber(row.get(4)?),
                    rows: row.get(5)?,
                    last_at: Wall(row.get(6)?),
                }),
                None => None,
            };
            let epoch = Epoch(row.get::<i64>(0)?.cast_unsigned());
            Ok(Head { epoch, live: row.get(1)?, open, last_batch: BatchId(row.get(2)?) })
        })
        .optional()
        .map_err(failed)?;
    let Some(mut head) = found else {
        tx.execute(
            "INSERT INTO ingest_stream (tenant_id, environment_id, erp) VALUES (?1, ?2, ?3)",
            params![tenant, environment, erp],
        )
        .map_err(failed)?;
        return Ok(Head::default());
    };
    if head.open.is_some_and(|open| batch::is_silent(&open, now)) {
        abandon(tx, stream, now)?;
        head.open = None;
    }
    Ok(head)
}

/// Whether the sender's installation is bound to the stream's environment at this moment (F52): what a caller's
/// look-up says may be some seconds old.
///
/// # Errors
/// `PERMISSION_DENIED` where it is not.
pub(super) fn bound(tx: &Tx<'_>, stream: &StreamId, sender: InstallationId) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT id FROM installation WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let holder: Option<String> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    if holder.is_some_and(|holder| holder == sender.to_string()) {
        return Ok(());
    }
    let words = "the installation of this credential is not bound to that environment any more";
    Err(Error::new(Code::PermissionDenied, words))
}

/// Ends the open batch, if any, forgets what was prepared, and tells that the batch stays incomplete.
pub(super) fn abandon(tx: &Tx<'_>, stream: &StreamId, now: Wall) -> Result<()> {
    failpoint::reach("ledger.abandon", Code::StoreFailed)?;
    let [tenant, environment, erp] = &names(stream);
    let sql = "UPDATE batch SET state = 'abandoned', closed_at = ?4
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND state = 'open' RETURNING id";
    let open: Option<i64> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, now.0], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    for sql in [
        "UPDATE ingest_stream SET open_batch = NULL WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)",
        "DELETE FROM cursor_pending WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)",
    ] {
        let mut statement = tx.prepare_cached(sql).map_err(failed)?;
        statement.execute(params![tenant, environment, erp]).map_err(failed)?;
    }
    let Some(open) = open else { return Ok(()) };
    webhook::tell(tx, stream, BatchId(open), &Happened::Incomplete(Lack::GivenUp), now)
}

fn open_streams(tx: &Tx<'_>) -> Result<Vec<StreamId>> {
    let sql = "SELECT tenant_id, environment_id, erp FROM batch WHERE state = 'open'";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let rows = statement
        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
        .map_err(failed)?;
    rows.iter().map(stream_of).collect()
}

pub(super) fn stream_of([tenant, environment, erp]: &[String; 3]) -> Result<StreamId> {
    Ok(StreamId { tenant: tenant.parse()?, environment: environment.parse()?, erp: erp.parse()? })
}

fn accept(tx: &Tx<'_>, message: &Incoming, now: Wall) -> Result<Admission> {
    failpoint::reach("ledger.accept", Code::StoreFailed)?;
    let head = head(tx, &message.stream, now)?;
    bound(tx, &message.stream, message.sender)?;
    let known = known(tx, message)?;
    let opens = match batch::judge(&head, &message.offer, known, now) {
        Verdict::Accept { opens } => opens,
        Verdict::Duplicate => {
            if mutant::is("no_dedupe") {
                take_again(tx, message)?;
            }
            return Ok(Admission::Duplicate);
        }
        Verdict::Refuse(refusal) => return Ok(Admission::Refused(refusal)),
    };
    let Some(rebuilding) = entity(tx, message)? else { return Ok(Admission::NotListed) };
    let rebuild = match stands_under(tx, message)? {
        None => false,
        Some(key) if key == message.key => false,
        Some(_) if rebuilding && message.base_load => true,
        Some(stands) => return Ok(Admission::KeyChanged { stands }),
    };
    if opens {
        abandon(tx, &message.stream, now)?;
    }
    store(tx, message, (opens, rebuild), now).map(|seq| Admission::Accepted { seq })
}

/// For a mutant alone: a repeat is taken as if it were new.
fn take_again(tx: &Tx<'_>, message: &Incoming) -> Result<()> {
    let [tenant, environment, erp] = &names(&message.stream);
    let Offer { batch, number, .. } = message.offer;
    for sql in [
        "UPDATE ingest_stream SET accept_seq = accept_seq + 1 + 0 * (?4 + ?5)
          WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)",
        "UPDATE ingest_message SET accept_seq = (SELECT accept_seq FROM ingest_stream
                 WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3))
          WHERE (tenant_id, environment_id, erp, batch, number) = (?1, ?2, ?3, ?4, ?5)",
    ] {
        let mut statement = tx.prepare_cached(sql).map_err(failed)?;
        statement.execute(params![tenant, environment, erp, batch.0, number.0]).map_err(failed)?;
    }
    Ok(())
}

fn known(tx: &Tx<'_>, message: &Incoming) -> Result<Known> {
    let [tenant, environment, erp] = &names(&message.stream);
    let sql = "SELECT b.state, m.sha256 = ?6 FROM batch b
                 LEFT JOIN ingest_message m ON (m.tenant_id, m.environment_id, m.erp, m.batch)
                                             = (b.tenant_id, b.environment_id, b.erp, b.id) AND m.number = ?5
                WHERE (b.tenant_id, b.environment_id, b.erp, b.id) = (?1, ?2, ?3, ?4)";
    let batch = message.offer.batch.0;
    let number = message.offer.number.0;
    let found: Option<(String, Option<bool>)> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, batch, number, message.sha256], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(failed)?;
    Ok(match found {
        None => Known::Nothing,
        Some((_, Some(same))) => Known::Message { same: same || mutant::is("any_content") },
        Some((state, None)) => {
            Known::Batch(BatchState::parse(&state).unwrap_or(BatchState::Abandoned))
        }
    })
}

/// `None` where the table may not be sent, else whether a reload that may bring another key is asked for and not done.
fn entity(tx: &Tx<'_>, message: &Incoming) -> Result<Option<bool>> {
    let [tenant, environment, erp] = &names(&message.stream);
    let sql = "SELECT generation > done_generation AND rebuild = 1 FROM entity
                WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4) AND withdrawn_at IS NULL";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, message.table.folded()], |row| row.get(0))
        .optional()
        .map_err(failed)
}

fn stands_under(tx: &Tx<'_>, message: &Incoming) -> Result<Option<Vec<String>>> {
    let [tenant, environment, erp] = &names(&message.stream);
    let sql = "SELECT key_columns FROM ingest_table
                WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4)";
    let found: Option<String> = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, message.table.folded()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    Ok(found.map(|json| serde_json::from_str(&json).unwrap_or_default()))
}

fn store(
    tx: &Tx<'_>,
    message: &Incoming,
    (opens, rebuild): (bool, bool),
    now: Wall,
) -> Result<AcceptSeq> {
    let [tenant, environment, erp] = &names(&message.stream);
    let Offer { batch, number, epoch } = message.offer;
    let bytes = i64::try_from(message.body.len()).unwrap_or(i64::MAX);
    let advance = "UPDATE ingest_stream
                      SET accept_seq = accept_seq + 1, open_batch = ?4, last_batch = ?4, next_n = ?5 + 1
                    WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) RETURNING accept_seq";
    let seq: i64 = tx
        .prepare_cached(advance)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, batch.0, number.0], |row| row.get(0))
        .map_err(failed)?;
    let count = if opens {
        "INSERT INTO batch (tenant_id, environment_id, erp, id, messages, row_count, byte_count, last_seq, last_at,
                            opened_at, epoch, state)
         VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?8, ?9, 'open')"
    } else {
        "UPDATE batch SET messages = messages + 1, row_count = row_count + ?5, byte_count = byte_count + ?6,
                          last_seq = ?7, last_at = max(last_at, ?8)
          WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4) AND ?9 = ?9"
    };
    let epoch = epoch.unwrap_or_default().0.cast_signed();
    tx.prepare_cached(count)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, batch.0, message.rows, bytes, seq, now.0, epoch])
        .map_err(failed)?;
    let insert = "INSERT INTO ingest_message (tenant_id, environment_id, erp, batch, number, accept_seq, sha256,
                         name_folded, row_count, byte_count, is_base_load, rebuild, received_at, body)
                  VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    let table = message.table.folded();
    let (sha, body) = (&message.sha256, message.body.as_ref());
    tx.prepare_cached(insert)
        .map_err(failed)?
        .execute(params![
            tenant,
            environment,
            erp,
            batch.0,
            number.0,
            seq,
            sha,
            table,
            message.rows,
            bytes,
            message.base_load,
            rebuild,
            now.0,
            body
        ])
        .map_err(failed)?;
    let key = serde_json::Value::from(message.key.clone()).to_string();
    let keep = "INSERT INTO ingest_table (tenant_id, environment_id, erp, name_folded, key_columns)
                VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT (tenant_id, environment_id, erp, name_folded)
                DO UPDATE SET key_columns = excluded.key_columns
                 WHERE ingest_table.key_columns <> excluded.key_columns";
    tx.prepare_cached(keep)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, table, key])
        .map_err(failed)?;
    failpoint::reach("ledger.accepted", Code::DiskFull)?;
    Ok(AcceptSeq(seq))
}

fn close(tx: &Tx<'_>, closing: &Closing, now: Wall) -> Result<SummaryVerdict> {
    failpoint::reach("ledger.close", Code::StoreFailed)?;
    let head = head(tx, &closing.stream, now)?;
    bound(tx, &closing.stream, closing.sender)?;
    let told = told(tx, closing)?;
    let verdict =
        batch::judge_summary(&head, closing.epoch, closing.batch, (&told, &closing.manifest));
    match verdict {
        SummaryVerdict::Complete => {
            complete(tx, closing, now)?;
            failpoint::reach("ledger.closed", Code::DiskFull)?;
        }
        SummaryVerdict::Refuse(refusal) => note_refusal(tx, closing, refusal, now)?,
        SummaryVerdict::Duplicate => {}
    }
    Ok(verdict)
}

fn told(tx: &Tx<'_>, closing: &Closing) -> Result<Told> {
    let [tenant, environment, erp] = &names(&closing.stream);
    let sql = "SELECT state, messages, row_count, range_start, range_end FROM batch
                WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4)";
    let found = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp, closing.batch.0], |row| {
            let manifest = Manifest {
                messages: row.get(1)?,
                rows: row.get(2)?,
                start: row.get(3)?,
                end: row.get(4)?,
            };
            Ok((row.get::<String>(0)?, manifest))
        })
        .optional()
        .map_err(failed)?;
    Ok(match found {
        None => Told::Nothing,
        Some((state, manifest)) => match BatchState::parse(&state) {
            Some(BatchState::Open) => Told::Open,
            Some(BatchState::Complete) => Told::Complete(manifest),
            Some(BatchState::Abandoned) | None => Told::Abandoned,
        },
    })
}

/// Batch complete, cursor entries of it committed, loads it ends marked as done: one transaction.
fn complete(tx: &Tx<'_>, closing: &Closing, now: Wall) -> Result<()> {
    let [tenant, environment, erp] = &names(&closing.stream);
    let (batch, manifest) = (closing.batch.0, &closing.manifest);
    tx.prepare_cached(
        "UPDATE batch SET state = 'complete', closed_at = ?5, range_start = ?6, range_end = ?7, refused_code = NULL,
                refused_at = NULL
          WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4)",
    )
    .map_err(failed)?
    .execute(params![tenant, environment, erp, batch, now.0, manifest.start, manifest.end])
    .map_err(failed)?;
    for sql in [
        "UPDATE ingest_stream SET open_batch = NULL WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND ?4 = ?4",
        "INSERT INTO cursor (tenant_id, environment_id, erp, name_folded, name, value)
         SELECT tenant_id, environment_id, erp, name_folded, name, value FROM cursor_pending
          WHERE (tenant_id, environment_id, erp, batch) = (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant_id, environment_id, erp, name_folded)
         DO UPDATE SET name = excluded.name, value = excluded.value",
        "DELETE FROM cursor_pending WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND ?4 = ?4",
    ] {
        let mut statement = tx.prepare_cached(sql).map_err(failed)?;
        statement.execute(params![tenant, environment, erp, batch]).map_err(failed)?;
    }
    webhook::tell(tx, &closing.stream, closing.batch, &Happened::Complete, now)?;
    loads_done(tx, closing)
}

fn loads_done(tx: &Tx<'_>, closing: &Closing) -> Result<()> {
    let [tenant, environment, erp] = &names(&closing.stream);
    for (table, generation) in &closing.loads_done {
        let sql = "UPDATE entity SET done_generation = max(done_generation, min(?5, generation)),
                           rebuild = iif(?5 >= generation, 0, rebuild)
                    WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4)";
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, table.folded(), generation.0])
            .map_err(failed)?;
    }
    if closing.epoch.is_none() && closing.loads_done.is_empty() {
        // A foreign sender knows no generations: base-load rows of a batch begun after the request end it.
        let sql = "UPDATE entity SET done_generation = generation, rebuild = 0
                    WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND generation > done_generation
                      AND reload_asked_at < (SELECT opened_at FROM batch b
                           WHERE (b.tenant_id, b.environment_id, b.erp, b.id) = (?1, ?2, ?3, ?4))
                      AND EXISTS (SELECT 1 FROM ingest_message m
                           WHERE (m.tenant_id, m.environment_id, m.erp, m.batch) = (?1, ?2, ?3, ?4)
                             AND m.name_folded = entity.name_folded AND m.is_base_load = 1)";
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, closing.batch.0])
            .map_err(failed)?;
    }
    Ok(())
}

fn note_refusal(tx: &Tx<'_>, closing: &Closing, refusal: SummaryRefusal, now: Wall) -> Result<()> {
    let (code, missing) = match refusal {
        SummaryRefusal::Missing { from, to } => (Code::MessagesMissing, Some((from, to))),
        SummaryRefusal::Mismatch { .. } => (Code::SummaryMismatch, None),
        SummaryRefusal::As(_) => return Ok(()),
    };
    let [tenant, environment, erp] = &names(&closing.stream);
    let sql = "UPDATE batch SET refused_code = ?5, refused_at = ?6
                WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, closing.batch.0, code.as_str(), now.0])
        .map_err(failed)?;
    let Manifest { messages, rows, .. } = closing.manifest;
    let lack = Lack::Refused { code, missing, told: (i64::from(messages), rows) };
    webhook::tell(tx, &closing.stream, closing.batch, &Happened::Incomplete(lack), now)
}
