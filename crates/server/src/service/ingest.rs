//! Ingest, service floor: table messages and Summaries, from bytes to a durable answer.
//!
//! Promises: `Ok` means durable or stored before; whatever is an error was not stored and used up no number; a message
//! whose predecessor is still on its way waits for it, briefly (`correctness.md` g).
//! Never: knows a transport; writes a row's value into words or logs.
//!
//! Errors whose code has the gRPC status OK are business outcomes: the edge puts their text into `errors[]`.

mod window;

use std::{pin::pin, sync::Arc};

use bytes::Bytes;
use futures_util::FutureExt as _;
use metrics::counter;
use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, Generation, MessageNumber},
    names::{ErpName, TableName},
    proto::totvs::BatchSummary,
    wire::TableView,
};
use runtime::{clock::Wall, failpoint, mutant};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use super::{
    Caller,
    budget::{Budget, Room, Share},
};
use crate::{
    model::{
        batch::{Manifest, Offer, Refusal, SummaryRefusal, SummaryVerdict},
        schema,
        stream::StreamId,
    },
    store::{
        Store,
        ingest::{Admission, Closing, Incoming},
    },
};
use window::{Lane, Windows};

/// Acceptance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    store: Store,
    windows: Arc<Windows>,
    budget: Budget,
    hint: Hint,
}

/// A table message as received, with the room that counts it.
#[derive(Clone, Debug)]
pub struct Message {
    bytes: Bytes,
    room: Option<Room>,
}

impl Message {
    /// A message that came by way of an edge, which took the room for it.
    #[must_use]
    pub fn in_room(bytes: Bytes, room: Room) -> Self {
        Self { bytes, room: Some(room) }
    }
}

/// A message of the same process: its room is taken when it is written.
impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, room: None }
    }
}

/// Tells the apply task that there may be work; one that is lost costs a period of polling, nothing more.
#[derive(Clone, Debug, Default)]
pub struct Hint(Arc<Notify>);

impl Hint {
    /// Says that the ledger changed.
    pub fn give(&self) {
        self.0.notify_one();
    }

    /// Resolves at the next hint; one given since the last wait counts.
    pub async fn taken(&self) {
        self.0.notified().await;
    }
}

impl Ingest {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store, windows: Arc::default(), budget: Budget::default(), hint: Hint::default() }
    }

    /// What messages in flight are counted by.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    /// What the apply task waits for.
    #[must_use]
    pub fn hint(&self) -> Hint {
        self.hint.clone()
    }

    /// Takes one table message, the bytes as received. Its room is held until the answer is known.
    ///
    /// # Errors
    /// Every outcome of `contracts.md` 5.5 but success.
    pub async fn write(
        &self,
        caller: &Caller,
        epoch: Option<Epoch>,
        message: impl Into<Message>,
        now: Wall,
    ) -> Result<()> {
        let Message { bytes, room } = message.into();
        let room = room.unwrap_or_else(|| self.budget.room(caller.tenant, Share::Writes));
        room.hold(bytes.len())?;
        let mut outcome = self.admit(caller, epoch, bytes, now).await;
        let lost = |error: &Error| matches!(error.code, Code::StoreFailed | Code::DiskFull);
        if mutant::is("ack_before_commit") && outcome.as_ref().is_err_and(lost) {
            outcome = Ok(());
        }
        drop(room);
        if let Err(error) = &outcome {
            counter!("malote_writes_refused_total", "code" => error.code.as_str()).increment(1);
        }
        outcome
    }

    async fn admit(
        &self,
        caller: &Caller,
        epoch: Option<Epoch>,
        bytes: Bytes,
        now: Wall,
    ) -> Result<()> {
        failpoint::pass("ingest.write", Code::StoreFailed).await?;
        let incoming = check(caller, epoch, &bytes)?;
        let words = Words::of(&incoming);
        let lane = self.windows.enter(caller.connection, &incoming.stream, incoming.offer.batch);
        let admission = self.in_turn(&lane, incoming, now).await?;
        match admission {
            Admission::Accepted { .. } => {
                failpoint::pass("ingest.written", Code::StoreFailed).await?;
                counter!("malote_messages_accepted_total").increment(1);
                counter!("malote_rows_accepted_total").increment(words.rows.cast_unsigned());
                counter!("malote_bytes_accepted_total").increment(bytes.len() as u64);
                self.hint.give();
                Ok(())
            }
            Admission::Duplicate => {
                counter!("malote_messages_duplicate_total").increment(1);
                Ok(())
            }
            Admission::Refused(refusal) => Err(words.refused(refusal)),
            Admission::NotListed => {
                let text =
                    format!("table {} is not in the entity list of {}", words.table, words.erp);
                Err(Error::new(Code::PermissionDenied, text))
            }
            Admission::KeyChanged { stands } => {
                let text =
                    format!("table {} stands under the key ({})", words.table, stands.join(", "));
                Err(Error::new(Code::PrimaryKeyChanged, text))
            }
        }
    }

    /// Goes to the store when the predecessor has gone; where that one was refused, waits for it to come again.
    async fn in_turn(&self, lane: &Lane, incoming: Incoming, now: Wall) -> Result<Admission> {
        let Offer { batch, number, .. } = incoming.offer;
        let turn = lane.turn(number);
        turn.handed().await;
        loop {
            let admission = {
                let mut work = pin!(self.store.accept(incoming.clone(), now));
                // The first poll hands the job to the writer: done under the lane's lock, so that the order of jobs
                // is the order of numbers and a group of messages shares one commit.
                let early = lane.submit(number, || work.as_mut().now_or_never());
                match early {
                    Some(answer) => answer,
                    None => work.await,
                }
            };
            let early = match &admission {
                Ok(Admission::Accepted { .. } | Admission::Duplicate) => {
                    lane.accepted(number);
                    return admission;
                }
                Ok(Admission::Refused(Refusal::Gap { .. })) => true,
                Ok(Admission::Refused(Refusal::Unknown { last })) => {
                    batch > *last && number > MessageNumber(1)
                }
                _ => false,
            };
            lane.take_back(number);
            if !early || !turn.stored().await {
                return admission;
            }
        }
    }

    /// Takes a batch's Summary; `loads_done` is what metadata `x-base-load-done` told.
    ///
    /// # Errors
    /// Every outcome of `contracts.md` 5.5 but success.
    pub async fn summary(
        &self,
        caller: &Caller,
        epoch: Option<Epoch>,
        loads_done: &[(TableName, Generation)],
        summary: &BatchSummary,
        now: Wall,
    ) -> Result<()> {
        let erp: ErpName = summary.erp.parse()?;
        caller.may_send(&erp)?;
        let batch = BatchId(summary.batch_id);
        let manifest = manifest(summary);
        let stream = caller.stream();
        let sender = caller.installation;
        let closing =
            Closing { stream, sender, epoch, batch, manifest, loads_done: loads_done.to_vec() };
        let verdict = self.store.close_batch(closing, now).await?;
        failpoint::pass("ingest.summarized", Code::StoreFailed).await?;
        // The batch's state is mirrored beside the staged rows, whatever it became.
        self.hint.give();
        let words = Words { table: String::new(), erp, batch, number: MessageNumber(0), rows: 0 };
        match verdict {
            SummaryVerdict::Complete => {
                counter!("malote_batches_complete_total").increment(1);
                Ok(())
            }
            SummaryVerdict::Duplicate => Ok(()),
            SummaryVerdict::Refuse(refusal) => {
                let error = words.summary_refused(refusal, summary);
                counter!("malote_summaries_refused_total", "code" => error.code.as_str())
                    .increment(1);
                Err(error)
            }
        }
    }

    /// How many open batches have been silent for a minute.
    ///
    /// # Errors
    /// The store's own.
    pub async fn stalled(&self, now: Wall) -> Result<u32> {
        self.store.stalled(now).await
    }

    /// Notes for webhooks, once for each batch, which of them people see as stalled; returns how many were noted now.
    ///
    /// # Errors
    /// The store's own.
    pub async fn tell_stalled(&self, now: Wall) -> Result<usize> {
        self.store.tell_stalled(now).await
    }

    /// Abandons batches that have been silent for ten minutes; returns how many.
    ///
    /// # Errors
    /// The store's own.
    pub async fn abandon_silent(&self, now: Wall) -> Result<usize> {
        let abandoned = self.store.abandon_silent(now).await?;
        if abandoned > 0 {
            self.hint.give();
        }
        Ok(abandoned)
    }
}

impl Caller {
    /// The stream this caller's messages belong to.
    #[must_use]
    pub fn stream(&self) -> StreamId {
        StreamId { tenant: self.tenant, environment: self.environment, erp: self.erp.clone() }
    }
}

/// Everything that can be judged without the ledger.
fn check(caller: &Caller, epoch: Option<Epoch>, bytes: &Bytes) -> Result<Incoming> {
    let view = TableView::scan(bytes)?;
    caller.may_send(&view.erp.parse()?)?;
    let checked = schema::check(&view)?;
    Ok(Incoming {
        sender: caller.installation,
        stream: caller.stream(),
        offer: Offer {
            epoch,
            batch: BatchId(view.batch_id),
            number: MessageNumber(view.message_number),
        },
        table: checked.table,
        key: checked.key,
        rows: i64::try_from(view.row_count()).unwrap_or(i64::MAX),
        base_load: view.is_base_load,
        sha256: Sha256::digest(bytes).into(),
        body: bytes.clone(),
    })
}

fn manifest(summary: &BatchSummary) -> Manifest {
    let micros = |stamp: &Option<prost_types::Timestamp>| {
        stamp.map(|stamp| {
            stamp.seconds.saturating_mul(1_000_000).saturating_add(i64::from(stamp.nanos) / 1000)
        })
    };
    Manifest {
        messages: summary.message_count,
        rows: i64::from(summary.record_count),
        start: micros(&summary.timestamp_start),
        end: micros(&summary.timestamp_end),
    }
}

/// What the words of a refusal name.
struct Words {
    table: String,
    erp: ErpName,
    batch: BatchId,
    number: MessageNumber,
    rows: i64,
}

impl Words {
    fn of(incoming: &Incoming) -> Self {
        Self {
            table: incoming.table.to_string(),
            erp: incoming.stream.erp.clone(),
            batch: incoming.offer.batch,
            number: incoming.offer.number,
            rows: incoming.rows,
        }
    }

    fn refused(&self, refusal: Refusal) -> Error {
        let Self { erp, batch, number, .. } = self;
        let (code, words) = match refusal {
            Refusal::Fenced { epoch } => (Code::Fenced, format!("the stream is at epoch {epoch}")),
            Refusal::EpochRequired => {
                (Code::EpochRequired, "a session of this stream is live".to_owned())
            }
            Refusal::Conflict => {
                tracing::warn!(%erp, %batch, %number, "other content under a number that is taken");
                let text = format!(
                    "message {number} of batch {batch} of {erp} is stored with other content"
                );
                (Code::MessageConflict, text)
            }
            Refusal::Gap { expected } => {
                let text =
                    format!("batch {batch} of {erp} expects message {expected}, got {number}");
                (Code::SequenceGap, text)
            }
            Refusal::Closed(state) => {
                (Code::BatchClosed, format!("batch {batch} of {erp} is {}", state.as_str()))
            }
            Refusal::Unknown { last } => {
                let text = format!(
                    "batch {batch} of {erp} is not known with message {number}; the last id is {last}"
                );
                (Code::BatchUnknown, text)
            }
            Refusal::ClockAhead { last } => {
                let text = format!(
                    "batch {batch} of {erp} is more than a day ahead; the last id is {last}"
                );
                (Code::ClockAhead, text)
            }
        };
        Error::new(code, words)
    }

    fn summary_refused(&self, refusal: SummaryRefusal, summary: &BatchSummary) -> Error {
        let Self { erp, batch, .. } = self;
        match refusal {
            SummaryRefusal::As(Refusal::Conflict) => {
                let text = format!("batch {batch} of {erp} is complete under another summary");
                Error::new(Code::MessageConflict, text)
            }
            SummaryRefusal::As(Refusal::Unknown { last }) => {
                let text = format!("batch {batch} of {erp} is not known; the last id is {last}");
                Error::new(Code::BatchUnknown, text)
            }
            SummaryRefusal::As(refusal) => self.refused(refusal),
            SummaryRefusal::Missing { from, to } => Error::new(
                Code::MessagesMissing,
                format!("batch {batch} of {erp} lacks messages {from} to {to}"),
            ),
            SummaryRefusal::Mismatch { .. } if manifest(summary).is_backwards() => Error::new(
                Code::SummaryMismatch,
                format!("the range of batch {batch} of {erp} ends before it starts"),
            ),
            SummaryRefusal::Mismatch { messages, rows } => {
                let told = format!(
                    "{} messages and {} records",
                    summary.message_count, summary.record_count
                );
                let text = format!(
                    "batch {batch} of {erp} has {messages} messages and {rows} records, not {told}"
                );
                Error::new(Code::SummaryMismatch, text)
            }
        }
    }
}

#[cfg(test)]
mod tests;
