//! Sender: empties the spool: Writes in order with a window, then Prepare and Summary.
//!
//! Promises: a Summary goes out once every Write of its batch is acknowledged; what failed is sent again from the
//! lowest number on, with the same bytes; a batch ends complete or dropped, never half.
//! Never: launches a call once the lease may have lapsed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use protocol::{
    Code, Error, Result,
    hash::{RowHash, RowHasher},
    ids::{BatchId, Epoch, MessageNumber},
    key::KeyBytes,
    limits,
    loads::done_entry,
    names::{ColumnName, ErpName, TableName},
    proto::{
        ingestion::{CursorEntry, PrepareRequest},
        totvs::BatchSummary,
    },
    wire::TableView,
};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono, Wall},
    mutant,
};
use tokio::sync::{Notify, watch};

use super::{
    DENIED_LONGEST,
    board::Board,
    cloud::Bearer,
    decide::{Action, Outcome, Standing, code_of, decide},
    rpc::Rpc,
};
use crate::journal::{
    Incident, Journal, Parked, Poisoned, Retry, Seal, SpoolMessage, key_hash, schema_mark,
};

/// First and longest pause before the same bytes go again.
pub(super) const PAUSES: (Duration, Duration) =
    (Duration::from_millis(100), Duration::from_secs(10));

/// Spooled bytes read at once: what waits for a free call waits on disk.
const AHEAD: usize = 2 * 1024 * 1024;

/// Repeats in a row after which people are shown what is answered.
const SHOWN_AFTER: u32 = 4;

pub(super) struct Sender {
    pub journal: Journal,
    pub rpc: Rpc,
    pub erp: ErpName,
    /// `None` = a server without sessions: one Write at a time, no Prepare.
    pub epoch: Option<Epoch>,
    /// Until when calls may be launched.
    pub valid: Option<watch::Receiver<Mono>>,
    pub board: Arc<Board>,
    /// Asks for Entities.
    pub reread: Arc<Notify>,
    /// First pause before a denied table is tried again.
    pub denied_retry: Duration,
    /// A batch went through since this sender began.
    pub completed: bool,
}

/// Why sending ended.
#[derive(Debug)]
pub(super) enum Stop {
    /// The batch was dropped; a new session is wanted.
    Dropped,
    Fenced(Error),
}

/// An answer, with what was asked.
struct Answered {
    message: SpoolMessage,
    bearer: Bearer,
    outcome: Outcome,
}

/// What a Prepare came to, and under which token.
type PrepareAnswer = (Outcome, Bearer);

/// The Prepare that goes ahead of the last answers.
enum Prepared {
    Not,
    Sent(BoxFuture<'static, PrepareAnswer>),
    /// Taken for the answer of the one before the Summary.
    Answered(PrepareAnswer),
}

impl Prepared {
    /// Waits for the answer; without a call under way for ever.
    async fn answered(&mut self) {
        match self {
            Self::Sent(call) => *self = Self::Answered(call.await),
            Self::Not | Self::Answered(_) => std::future::pending().await,
        }
    }
}

/// One batch on its way.
struct Flight {
    batch: BatchId,
    calls: FuturesUnordered<BoxFuture<'static, Answered>>,
    bytes: usize,
    queue: VecDeque<SpoolMessage>,
    /// Highest number launched.
    sent: i32,
    troubles: BTreeMap<i32, Answered>,
    prepared: Prepared,
    /// Rows acknowledged, by table.
    taken: BTreeMap<TableName, u64>,
    standing: Standing,
    pauses: Backoff,
}

impl Flight {
    fn new(batch: BatchId) -> Self {
        Self {
            batch,
            calls: FuturesUnordered::new(),
            bytes: 0,
            queue: VecDeque::new(),
            sent: 0,
            troubles: BTreeMap::new(),
            prepared: Prepared::Not,
            taken: BTreeMap::new(),
            standing: Standing::default(),
            pauses: Backoff::new(PAUSES.0, PAUSES.1),
        }
    }

    fn again_from(&mut self, number: i32) {
        self.sent = number.saturating_sub(1).max(0);
        self.queue.clear();
        self.troubles.clear();
        self.prepared = Prepared::Not;
    }

    /// What the Prepare that went ahead came to. A failure counts once: then another one goes.
    async fn prepared(&mut self) -> Option<PrepareAnswer> {
        if matches!(self.prepared, Prepared::Sent(_)) {
            self.prepared.answered().await;
        }
        match std::mem::replace(&mut self.prepared, Prepared::Not) {
            Prepared::Answered((Outcome::Success, bearer)) => {
                self.prepared = Prepared::Answered((Outcome::Success, bearer.clone()));
                Some((Outcome::Success, bearer))
            }
            Prepared::Answered(failed) => Some(failed),
            Prepared::Not | Prepared::Sent(_) => None,
        }
    }
}

impl Sender {
    /// Sends batch after batch until one is dropped or the stream is another's.
    pub(super) async fn run(&mut self) -> Result<Stop> {
        let (mut spool, mut granted) = (self.journal.spool(), self.journal.granted());
        loop {
            let batch = tokio::select! {
                biased;
                state = spool.wait_for(|state| state.batch.is_some()) => match state {
                    Ok(state) => state.batch,
                    Err(_) => return Err(Error::new(Code::JournalFailed, "the journal is closed")),
                },
                // Capture gave the session up while it held no batch.
                _ = granted.wait_for(Option::is_none) => return Ok(Stop::Dropped),
            };
            let Some(batch) = batch else { continue };
            match self.batch(batch).await {
                Ok(None) => self.completed = true,
                Ok(Some(stop)) => return Ok(stop),
                Err(error) if error.code == Code::JournalCorrupt => {
                    self.drop_batch(error.code, &error.message, true).await?;
                    return Ok(Stop::Dropped);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn batch(&mut self, batch: BatchId) -> Result<Option<Stop>> {
        let mut flight = Flight::new(batch);
        let mut spool = self.journal.spool();
        loop {
            let state = spool.borrow_and_update().clone();
            if state.batch != Some(batch) {
                return Ok(Some(Stop::Dropped));
            }
            if flight.troubles.is_empty() {
                self.launch(&mut flight).await?;
            } else if flight.calls.is_empty() {
                if let Some(stop) = self.judge(&mut flight).await? {
                    return Ok(Some(stop));
                }
                continue;
            }
            let all_told = flight.calls.is_empty() && state.acked >= state.appended;
            if state.sealed && (all_told || mutant::is("summary_early")) {
                match self.close(&mut flight).await? {
                    Closing::Complete => return Ok(None),
                    Closing::Stop(stop) => return Ok(Some(stop)),
                    Closing::Again => continue,
                }
            }
            // The batch is open at the server: a round trip less to wait for behind the last Write.
            if state.sealed && state.acked > 0 && matches!(flight.prepared, Prepared::Not) {
                self.prepare_ahead(&mut flight).await?;
            }
            tokio::select! {
                biased;
                Some(answered) = flight.calls.next() => self.land(&mut flight, answered).await?,
                () = flight.prepared.answered() => {}
                changed = spool.changed() => {
                    changed.map_err(|_| Error::new(Code::JournalFailed, "the journal is closed"))?;
                }
            }
        }
    }

    /// Fills the window, in the order of the numbers.
    async fn launch(&mut self, flight: &mut Flight) -> Result<()> {
        let (calls, room) = match self.epoch {
            Some(_) => (limits::SENDER_IN_FLIGHT, limits::SENDER_IN_FLIGHT_BYTES),
            None => (1, limits::SENDER_IN_FLIGHT_BYTES),
        };
        while flight.calls.len() < calls {
            if flight.queue.is_empty() {
                let after = MessageNumber(flight.sent);
                let left = room.saturating_sub(flight.bytes).min(AHEAD);
                flight.queue = self.journal.unacked(flight.batch, after, left).await?.into();
            }
            let fits = |message: &SpoolMessage| {
                flight.bytes == 0 || flight.bytes + message.bytes.len() <= room
            };
            if !flight.queue.front().is_some_and(fits) {
                return Ok(());
            }
            self.wait_for_lease().await;
            let bearer = match self.rpc.bearer().await {
                Ok(bearer) => bearer,
                Err(error) if error.code == Code::JournalFailed => return Err(error),
                Err(error) => {
                    tracing::warn!(code = %error.code, words = error.message, cause = error.cause(), hint = error.code.hint(), "no token; trying again");
                    self.board.trouble(Some(&error));
                    flight.pauses.pause().await;
                    continue;
                }
            };
            let Some(message) = flight.queue.pop_front() else { return Ok(()) };
            flight.sent = message.number.0;
            flight.bytes += message.bytes.len();
            let bytes = match flight.pauses.tries() {
                1.. if mutant::is("resend_reencoded") => reencoded(&message.bytes),
                _ => message.bytes.clone(),
            };
            let call = self.rpc.clone().write(bytes, bearer.clone(), self.epoch);
            flight.calls.push(call.map(|outcome| Answered { message, bearer, outcome }).boxed());
        }
        Ok(())
    }

    async fn wait_for_lease(&mut self) {
        let Some(valid) = &mut self.valid else { return };
        // Where the keeper is gone this sender is about to be dropped with it.
        let _ = valid.wait_for(|until| Mono::now() < *until).await;
    }

    /// Takes this answer and all others that are there; acknowledges in one go.
    async fn land(&self, flight: &mut Flight, first: Answered) -> Result<()> {
        let mut acked = Vec::new();
        let mut next = Some(first);
        while let Some(answered) = next {
            flight.bytes = flight.bytes.saturating_sub(answered.message.bytes.len());
            let number = answered.message.number;
            if answered.outcome == Outcome::Success {
                acked.push(number);
                *flight.taken.entry(answered.message.table.clone()).or_default() +=
                    u64::from(answered.message.rows);
                count_sent(&answered.message);
            } else {
                flight.troubles.insert(number.0, answered);
            }
            next = flight.calls.next().now_or_never().flatten();
        }
        if !acked.is_empty() {
            self.board.trouble(None);
            flight.pauses.reset();
            flight.standing.token_renewed = false;
            self.journal.acked(flight.batch, acked).await?;
        }
        Ok(())
    }

    /// All calls have ended and some failed: a fence decides, else the lowest number; what followed it is sent again.
    async fn judge(&mut self, flight: &mut Flight) -> Result<Option<Stop>> {
        let standing = flight.standing;
        let decided = |answered: &Answered| decide(&answered.outcome, standing);
        let fenced = |at: &Answered| matches!(decided(at), Action::Fenced(_));
        let fence = flight.troubles.iter().find(|(_, at)| fenced(at)).map(|(number, _)| *number);
        let number = fence.or_else(|| flight.troubles.keys().next().copied());
        let Some(answered) = number.and_then(|number| flight.troubles.remove(&number)) else {
            return Ok(None);
        };
        let number = answered.message.number.0;
        let action = decided(&answered);
        let words = answered.outcome.words();
        tracing::debug!(batch = %flight.batch, number, ?action, words, "a Write was not accepted");
        match action {
            Action::Done => flight.again_from(number),
            Action::Repeat(after) => {
                self.pause(flight, after, words).await;
                flight.again_from(number);
            }
            Action::RenewToken => {
                self.rpc.token_refused(&answered.bearer).await;
                flight.standing.token_renewed = true;
                flight.again_from(number);
            }
            Action::ResendFrom(expected) | Action::ResendTail(expected) => {
                metrics::counter!("malote_agent_retries_total").increment(1);
                flight.standing.resent(&action);
                self.journal.unack(flight.batch, MessageNumber(expected)).await?;
                flight.again_from(expected.min(number));
            }
            Action::Drop { code, alert } => {
                return self.drop_batch(code, words, alert).await.map(Some);
            }
            Action::Park(code) => {
                self.park(&answered.message, code, words).await?;
                return self.drop_batch(code, words, false).await.map(Some);
            }
            Action::Suspect(code) => {
                let message = &answered.message;
                let taken = flight.taken.get(&message.table).copied().unwrap_or_default();
                self.suspect(message, taken, (code, words)).await?;
                return self.drop_batch(code, words, false).await.map(Some);
            }
            Action::Fenced(code) => return Ok(Some(Stop::Fenced(Error::new(code, words)))),
        }
        Ok(None)
    }

    /// Before the same bytes go again. What is repeated for long is shown, whatever it is.
    async fn pause(&self, flight: &mut Flight, after: Option<Duration>, words: &str) {
        metrics::counter!("malote_agent_retries_total").increment(1);
        let pause = flight.pauses.next_pause();
        if flight.pauses.tries() >= SHOWN_AFTER {
            let said = code_of(words);
            let text = words.split_once(": ").filter(|_| said.is_some());
            let text = text.map_or(words, |(_, text)| text);
            self.board.trouble(Some(&Error::new(said.unwrap_or(Code::CloudUnreachable), text)));
        }
        clock::sleep(after.unwrap_or(pause)).await;
    }

    async fn drop_batch(&self, code: Code, words: &str, alert: bool) -> Result<Stop> {
        metrics::counter!("malote_agent_drops_total").increment(1);
        if alert {
            let words = words.to_owned();
            let at_micros = Wall::now().0;
            self.journal
                .incident(Incident { table: None, key_hash: None, code, words, at_micros })
                .await?;
        }
        self.journal.drop_batch(code, words, Wall::now()).await?;
        Ok(Stop::Dropped)
    }

    async fn park(&self, message: &SpoolMessage, code: Code, words: &str) -> Result<()> {
        tracing::warn!(table = %message.table, %code, words, "table parked");
        let denied = code == Code::PermissionDenied;
        let retry = denied.then(|| self.next_try(&message.table));
        let schema = if denied { None } else { mark_of(&message.bytes) };
        let parked = Parked { code, words: words.to_owned(), retry, schema };
        self.journal.park(&message.table, parked, Wall::now()).await?;
        if denied {
            self.reread.notify_one();
        }
        Ok(())
    }

    /// A right may come back without a word: 1, 2, 4 … minutes, 15 at most.
    fn next_try(&self, table: &TableName) -> Retry {
        let times = self.journal.times_parked(table).min(16);
        let pause = self.denied_retry.saturating_mul(1 << times).min(DENIED_LONGEST);
        let micros = i64::try_from(pause.as_micros()).unwrap_or(i64::MAX);
        Retry { due: Mono::now() + pause, at: Wall(Wall::now().0.saturating_add(micros)) }
    }

    /// A message alone holds its culprit; others are narrowed down to it, until too many rows were refused. `taken` are
    /// the rows of the table that this batch holds before it.
    async fn suspect(
        &self,
        message: &SpoolMessage,
        taken: u64,
        (code, words): (Code, &str),
    ) -> Result<()> {
        if message.rows > 1 {
            return self.journal.suspect(&message.table, code, words).await;
        }
        let Some((key, hash)) = only_row(&message.bytes) else {
            return self.park(message, code, words).await;
        };
        let key_hash = key_hash(&key);
        tracing::warn!(table = %message.table, %code, key_hash, "row refused by the server, left out");
        let table = message.table.clone();
        let row =
            Poisoned { table, key, hash, code, words: words.to_owned(), at_micros: Wall::now().0 };
        let refusals = self.journal.quarantine(row, key_hash, taken).await?;
        let words = if refusals.in_a_row >= limits::REFUSED_IN_A_ROW {
            format!("{} rows one after another were refused: {words}", refusals.in_a_row)
        } else if refusals.all >= limits::REFUSED_UNACCEPTED {
            format!("{} rows were refused and no batch accepted: {words}", refusals.all)
        } else {
            return Ok(());
        };
        self.park(message, code, &words).await
    }
}

/// How an attempt to end the batch went.
enum Closing {
    Complete,
    Again,
    Stop(Stop),
}

impl Sender {
    /// Prepare, Summary, and the journal's end of the batch.
    async fn close(&mut self, flight: &mut Flight) -> Result<Closing> {
        let Some(seal) = self.journal.sealed(flight.batch).await? else {
            return Ok(Closing::Again);
        };
        self.wait_for_lease().await;
        let bearer = match self.rpc.bearer().await {
            Ok(bearer) => bearer,
            Err(error) if error.code == Code::JournalFailed => return Err(error),
            Err(_) => {
                flight.pauses.pause().await;
                return Ok(Closing::Again);
            }
        };
        let prepared = match flight.prepared().await {
            Some(answer) => answer,
            None => self.prepare(flight.batch, &seal, bearer.clone()).await,
        };
        let (outcome, bearer) = match prepared {
            (Outcome::Success, _) => {
                let summary = summary_of(&self.erp, flight.batch, &seal);
                let loads = if self.epoch.is_some() { loads_done(&seal) } else { String::new() };
                (self.rpc.summary(summary, &bearer, self.epoch, &loads).await, bearer)
            }
            refused => refused,
        };
        let words = outcome.words();
        let action = decide(&outcome, flight.standing);
        match action {
            Action::Done => {
                self.board.trouble(None);
                self.journal.complete(flight.batch, Wall::now()).await?;
                tracing::debug!(batch = %flight.batch, messages = seal.messages, rows = seal.records, "batch complete");
                Ok(Closing::Complete)
            }
            Action::Repeat(after) => {
                self.pause(flight, after, words).await;
                Ok(Closing::Again)
            }
            Action::RenewToken => {
                self.rpc.token_refused(&bearer).await;
                flight.standing.token_renewed = true;
                Ok(Closing::Again)
            }
            Action::ResendTail(from) | Action::ResendFrom(from) => {
                flight.standing.resent(&action);
                self.journal.unack(flight.batch, MessageNumber(from)).await?;
                flight.again_from(from);
                Ok(Closing::Again)
            }
            Action::Fenced(code) => Ok(Closing::Stop(Stop::Fenced(Error::new(code, words)))),
            Action::Drop { code, alert } => {
                self.drop_batch(code, words, alert).await.map(Closing::Stop)
            }
            // Neither table nor row is named by these calls.
            Action::Park(code) | Action::Suspect(code) => {
                if code == Code::PermissionDenied {
                    self.reread.notify_one();
                }
                self.drop_batch(code, words, true).await.map(Closing::Stop)
            }
        }
    }

    /// Sends the entries while the last Writes are still under way. Without a token the end of the batch asks for one.
    async fn prepare_ahead(&mut self, flight: &mut Flight) -> Result<()> {
        if let Some(seal) = self.journal.sealed(flight.batch).await? {
            self.wait_for_lease().await;
            if let Ok(bearer) = self.rpc.bearer().await {
                flight.prepared = Prepared::Sent(self.prepare(flight.batch, &seal, bearer));
            }
        }
        Ok(())
    }

    fn prepare(
        &self,
        batch: BatchId,
        seal: &Seal,
        bearer: Bearer,
    ) -> BoxFuture<'static, PrepareAnswer> {
        let Some(epoch) = self.epoch.filter(|_| !seal.cursors.is_empty()) else {
            return std::future::ready((Outcome::Success, bearer)).boxed();
        };
        let entry = |(table, value): &(TableName, Vec<u8>)| CursorEntry {
            table: table.to_string(),
            value: value.clone(),
        };
        let request = PrepareRequest {
            erp: self.erp.to_string(),
            epoch: epoch.0,
            batch_id: batch.0,
            entries: seal.cursors.iter().map(entry).collect(),
        };
        let call = self.rpc.clone().prepare(request, bearer.clone());
        call.map(|outcome| (outcome, bearer)).boxed()
    }
}

fn summary_of(erp: &ErpName, batch: BatchId, seal: &Seal) -> BatchSummary {
    let time = |micros: i64| prost_types::Timestamp {
        seconds: micros.div_euclid(1_000_000),
        nanos: i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
    };
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    BatchSummary {
        erp: erp.to_string(),
        batch_id: batch.0,
        message_count: count(seal.messages),
        record_count: count(seal.records),
        timestamp_start: seal.start.map(time),
        timestamp_end: Some(time(seal.end)),
    }
}

fn loads_done(seal: &Seal) -> String {
    let loads: Vec<_> =
        seal.loads_done.iter().map(|(table, generation)| done_entry(table, *generation)).collect();
    loads.join(",")
}

/// The same message in other bytes, for a mutant alone: the mark of a base load once more, as protobuf allows.
fn reencoded(bytes: &[u8]) -> bytes::Bytes {
    let mark = TableView::scan(bytes).is_ok_and(|view| view.is_base_load);
    [bytes, &[0x48, u8::from(mark)]].concat().into()
}

/// Key and hash of a message's one row, from the bytes themselves.
fn only_row(bytes: &[u8]) -> Option<(KeyBytes, RowHash)> {
    let view = TableView::scan(bytes).ok()?;
    let cell = |name: &str| {
        view.row(0).iter().find(|cell| cell.name.eq_ignore_ascii_case(name)).map(|cell| cell.value)
    };
    let key = view.schema.key.iter().map(|name| cell(name)).collect::<Option<Vec<_>>>()?;
    let names = view
        .schema
        .columns
        .iter()
        .map(|(name, _)| name.parse().ok())
        .collect::<Option<Vec<ColumnName>>>()?;
    let hash = RowHasher::new(&names).hash(|at| names.get(at).and_then(|name| cell(name.as_str())));
    (!key.is_empty()).then(|| (KeyBytes::of(key), hash))
}

/// Mark of the schema a message carries.
fn mark_of(bytes: &[u8]) -> Option<u64> {
    let schema = TableView::scan(bytes).ok()?.schema;
    Some(schema_mark(schema.columns.iter().copied(), schema.key.iter().copied()))
}

fn count_sent(message: &SpoolMessage) {
    let table = message.table.to_string();
    metrics::counter!("malote_agent_messages_total", "table" => table.clone()).increment(1);
    metrics::counter!("malote_agent_bytes_total", "table" => table)
        .increment(message.bytes.len() as u64);
}
