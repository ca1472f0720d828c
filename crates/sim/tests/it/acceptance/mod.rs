//! Acceptance and session: random commands against the real service on the real SQLite store, every answer and what is
//! left behind compared with the reference models.

mod commands;
mod real;

use std::collections::BTreeMap;

use bytes::Bytes;
use commands::{
    Batch, Closing, Command, Content, Epoch, Fault, Generation, Number, Sending, commands,
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestCaseError};
use prost::Message as _;
use protocol::{
    Code,
    proto::totvs::{
        BatchSummary, Table,
        table::{
            RowColumn, Schema, TableRow,
            schema::{SchemaColumn, SchemaPrimaryKey},
        },
    },
};
use real::{ERP, Real, TABLES};
use sha2::{Digest as _, Sha256};
use sim::model::{
    Answer, Stream,
    acceptance::{State, Summary, Write},
    session::{Opening, Sender},
    staging::{Row, Staging},
};

const SECOND: i64 = 1_000_000;
/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600 * SECOND;

/// What the cases of one run must come to between them: a checker that never fails proves nothing.
const OUTCOMES: [&str; 30] = [
    "open DATABASE_CHANGED",
    "open GRANTED",
    "open HELD",
    "open INSTANCE_TWICE",
    "reload DONE",
    "reload DONE BY SILENCE",
    "reload OLDER DONE",
    "staged DELETE OVER UPSERT",
    "staged UPSERT OVER DELETE",
    "staged UPSERT OVER UPSERT",
    "summary BATCH_CLOSED",
    "summary BATCH_UNKNOWN",
    "summary EPOCH_REQUIRED",
    "summary FENCED",
    "summary MESSAGES_MISSING",
    "summary MESSAGE_CONFLICT",
    "summary SUCCESS",
    "summary SUMMARY_MISMATCH",
    "write BATCH_CLOSED",
    "write BATCH_UNKNOWN",
    "write CLOCK_AHEAD",
    "write EPOCH_REQUIRED",
    "write FENCED",
    "write MESSAGE_CONFLICT",
    "write MISSING_KEY_COLUMN",
    "write PRIMARY_KEY_CHANGED",
    "write REBUILDS",
    "write REBUILDS BACK",
    "write SEQUENCE_GAP",
    "write SUCCESS",
];

fn outcome(call: &str, answer: &Answer) -> String {
    match answer {
        Answer::Success => format!("{call} SUCCESS"),
        Answer::Gap(_) => format!("{call} SEQUENCE_GAP"),
        Answer::Missing(..) => format!("{call} MESSAGES_MISSING"),
        Answer::Refused(code) => format!("{call} {code}"),
    }
}

/// Outcomes and how often each came.
#[derive(Default)]
struct Seen(BTreeMap<String, u32>);

impl Seen {
    fn insert(&mut self, outcome: String) {
        *self.0.entry(outcome).or_default() += 1;
    }

    fn extend(&mut self, other: Self) {
        for (outcome, count) in other.0 {
            *self.0.entry(outcome).or_default() += count;
        }
    }
}

/// The model with what the driver has to remember to aim at it.
struct Twin {
    now: i64,
    model: Stream,
    /// Bytes of what was accepted, to send again.
    sent: BTreeMap<(i64, i32), Bytes>,
    /// What staging must hold.
    staging: Staging,
    /// Kinds of answers, and how often each was seen.
    seen: Seen,
}

impl Twin {
    fn new() -> Self {
        Self {
            now: BEGIN,
            model: Stream::sharing(&TABLES),
            sent: BTreeMap::new(),
            staging: Staging::default(),
            seen: Seen::default(),
        }
    }

    fn epoch(&self, epoch: Epoch) -> Option<u64> {
        let current = self.model.lease.epoch.max(1);
        match epoch {
            Epoch::None => None,
            Epoch::Current => Some(current),
            Epoch::Older => Some(current.saturating_sub(1).max(1)),
            Epoch::Newer => Some(current + 1),
        }
    }

    fn batch(&self, batch: Batch) -> i64 {
        let last = self.model.ledger.last_batch;
        let seconds = self.now / SECOND;
        let id = match batch {
            Batch::Last if last == 0 => seconds,
            Batch::Last => last,
            Batch::Next => last + 1,
            Batch::Later(by) => last + by,
            Batch::Earlier(by) => last - by,
            Batch::Clock => seconds,
            Batch::Ahead => seconds + 24 * 3600 + 60,
        };
        id.max(1)
    }

    fn stored(&self, batch: i64) -> i32 {
        let stored = self.model.ledger.batches.get(&batch).map_or(0, |batch| batch.messages.len());
        i32::try_from(stored).unwrap()
    }

    fn load(&self, table: u8, generation: Generation) -> (String, i64) {
        let name = TABLES.get(usize::from(table)).copied().unwrap_or("NOT_SHARED");
        let newest = self.model.tables.0.get(name).map_or(0, |table| table.generation);
        let generation = match generation {
            Generation::Newest => newest,
            Generation::Older => (newest - 1).max(0),
            Generation::Beyond => newest + 2,
        };
        (name.to_owned(), generation)
    }

    fn number(&self, batch: i64, number: Number) -> i32 {
        let stored = self.stored(batch);
        match number {
            Number::Next => stored + 1,
            Number::First => 1,
            Number::Again(pick) => i32::from(pick) % stored.max(1) + 1,
            Number::Skip(by) => stored + 1 + by,
            Number::Wrong(number) => number,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_service_answers_as_the_model_of_acceptance_and_session_does() {
    // proptest's own loop is not async, so its runner is driven here, one case after the other.
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::default());
    let cases = runner.config().cases;
    let mut seen = Seen::default();
    for _ in 0..cases {
        let tree = commands().new_tree(&mut runner).unwrap();
        seen.extend(smallest(tree).await);
    }
    println!("{:#?}", seen.0);
    for outcome in OUTCOMES {
        assert!(seen.0.contains_key(outcome), "no case came to {outcome}");
    }
}

/// Runs a case and tells the outcomes seen; where it fails, the smallest that still fails is shown.
async fn smallest(mut tree: impl ValueTree<Value = Vec<Command>>) -> Seen {
    let mut failure = match run(&tree.current()).await {
        Ok(seen) => return seen,
        Err(failure) => failure,
    };
    let mut told = tree.current();
    let mut failing = true;
    for _ in 0..400 {
        let more = if failing { tree.simplify() } else { tree.complicate() };
        if !more {
            break;
        }
        match run(&tree.current()).await {
            Ok(_) => failing = false,
            Err(again) => (failing, failure, told) = (true, again, tree.current()),
        }
    }
    panic!("{failure}\nafter {told:#?}");
}

async fn run(commands: &[Command]) -> Result<Seen, TestCaseError> {
    let mut real = Real::new().await;
    let mut twin = Twin::new();
    for (at, command) in commands.iter().enumerate() {
        step(&mut twin, &mut real, command)
            .await
            .map_err(|error| TestCaseError::fail(format!("step {at}: {error}")))?;
    }
    // What silence abandoned is told by the next call of any kind; the model is asked alike.
    twin.model.silence(twin.now);
    let _ = real.renew(twin.now, twin.model.lease.epoch + 7, 0).await;
    compare(&twin, &real).await?;
    Ok(twin.seen)
}

async fn step(twin: &mut Twin, real: &mut Real, command: &Command) -> Result<(), TestCaseError> {
    match command {
        Command::Open { instance, nonce, facts, position } => {
            let sender = Sender {
                instance: *instance,
                nonce: *nonce,
                facts: format!("db{facts}"),
                position: *position,
            };
            let expected = twin.model.open(twin.now, &sender);
            let (opening, grant) = real.open(twin.now, &sender).await;
            twin.seen.insert(match &expected {
                Opening::Granted(_) => "open GRANTED".to_owned(),
                Opening::Held => "open HELD".to_owned(),
                Opening::Refused(code) => format!("open {code}"),
            });
            prop_assert_eq!(&opening, &expected);
            if let Opening::Granted(epoch) = expected {
                prop_assert_eq!(grant.unwrap(), twin.model.grant(epoch));
            }
        }
        Command::Renew { epoch, nonce } => {
            let epoch = twin.epoch(*epoch).unwrap_or(1);
            twin.model.silence(twin.now);
            let expected = twin.model.lease.renew(twin.now, epoch, *nonce);
            prop_assert_eq!(real.renew(twin.now, epoch, *nonce).await, expected);
        }
        Command::Release { epoch } => {
            let epoch = twin.epoch(*epoch).unwrap_or(1);
            let expected = twin.model.lease.release(epoch);
            prop_assert_eq!(real.release(twin.now, epoch).await, expected);
        }
        Command::Prepare { epoch, batch, entries } => {
            let (epoch, batch) = (twin.epoch(*epoch).unwrap_or(1), twin.batch(*batch));
            let entries: Vec<_> =
                entries.iter().map(|(table, value)| (format!("T{table}"), vec![*value])).collect();
            let expected = twin.model.prepare(twin.now, epoch, batch, &entries);
            prop_assert_eq!(real.prepare(twin.now, (epoch, batch), &entries).await, expected);
        }
        Command::AcceptDatabase => {
            let expected = twin.model.lease.accept_database();
            prop_assert_eq!(real.accept_database().await, expected);
        }
        Command::Reload { table, rebuild, times, apart } => {
            let table = TABLES[usize::from(*table) % TABLES.len()];
            for _ in 0..*times {
                twin.model.tables.ask(table, *rebuild, twin.now);
                let generation = twin.model.tables.0[table].generation;
                prop_assert_eq!(real.reload(twin.now, table, *rebuild).await, generation);
            }
            twin.now += i64::from(*apart);
        }
        Command::Write(sending) => write(twin, real, sending).await?,
        Command::Summary(closing) => summary(twin, real, closing).await?,
        Command::Wait { seconds } => {
            twin.now += seconds * SECOND;
            real.apply(twin.now).await;
        }
        Command::Crash => {
            real.crash();
            twin.model.silence(twin.now);
            let _ = real.renew(twin.now, twin.model.lease.epoch + 7, 0).await;
            compare(twin, real).await?;
        }
    }
    Ok(())
}

async fn write(twin: &mut Twin, real: &mut Real, sending: &Sending) -> Result<(), TestCaseError> {
    let (epoch, batch) = (twin.epoch(sending.epoch), twin.batch(sending.batch));
    let number = twin.number(batch, sending.number);
    let known = twin.sent.get(&(batch, number)).filter(|_| sending.same).cloned();
    let repeat = known.is_some();
    let table = message(batch, number, &sending.content);
    let bytes = known.unwrap_or_else(|| table.encode_to_vec().into());
    let expected = match sending.content.fault {
        _ if repeat => None,
        Fault::OtherErp => Some(Code::PermissionDenied),
        Fault::RecordCount => Some(Code::RecordCountMismatch),
        Fault::MissingKey => Some(Code::MissingKeyColumn),
        Fault::None | Fault::UnlistedTable | Fault::OtherKey => None,
    };
    let expected = match expected {
        Some(code) => Answer::Refused(code),
        None => judged(twin, epoch, (batch, number), (&table, &bytes, repeat)),
    };
    twin.seen.insert(outcome("write", &expected));
    prop_assert_eq!(real.write(twin.now, epoch, &bytes).await, expected);
    Ok(())
}

/// The model's answer; what only the catalogue and the staging tables know is judged on what would be accepted.
fn judged(
    twin: &mut Twin,
    epoch: Option<u64>,
    (batch, number): (i64, i32),
    (table, bytes, repeat): (&Table, &Bytes, bool),
) -> Answer {
    let rows = if repeat { 0 } else { i64::try_from(table.rows.len()).unwrap() };
    let loads = table.is_base_load.then(|| table.table_name.clone());
    let write = Write { batch, number, sha: Sha256::digest(bytes).into(), rows, loads };
    let before = twin.model.clone();
    let answer = twin.model.write(twin.now, epoch, &write);
    if answer != Answer::Success || twin.model.ledger.accept_seq == before.ledger.accept_seq {
        return answer;
    }
    let key = table.schema.as_ref().and_then(|schema| schema.primary_key.as_ref()).unwrap();
    match twin.model.tables.admit(&table.table_name, &key.columns, table.is_base_load) {
        Err(code) => {
            twin.model = before;
            twin.model.silence(twin.now);
            return Answer::Refused(code);
        }
        Ok(true) => {
            let back = if key.columns.len() == 1 { " BACK" } else { "" };
            twin.seen.insert(format!("write REBUILDS{back}"));
            twin.staging.forget(&table.table_name);
        }
        Ok(false) => {}
    }
    twin.sent.insert((batch, number), bytes.clone());
    let rows = rows_of(table);
    twin.seen.extend(shared_keys(&rows));
    twin.staging.apply(&table.table_name, batch, number, twin.model.ledger.accept_seq, &rows);
    answer
}

/// How rows of one message that share a key follow each other (F54).
fn shared_keys(rows: &[Row]) -> Seen {
    let word = |row: &Row| if row.deleted { "DELETE" } else { "UPSERT" };
    let mut last: BTreeMap<&[String], &Row> = BTreeMap::new();
    let mut seen = Seen::default();
    for row in rows {
        if let Some(before) = last.insert(&row.key, row) {
            seen.insert(format!("staged {} OVER {}", word(row), word(before)));
        }
    }
    seen
}

fn rows_of(table: &Table) -> Vec<Row> {
    let key =
        &table.schema.as_ref().and_then(|schema| schema.primary_key.as_ref()).unwrap().columns;
    let row = |row: &TableRow| {
        let value = |name: &str| {
            row.columns.iter().find(|column| column.name == name).map(|column| &column.value)
        };
        let cells = ["ID", "V"]
            .into_iter()
            .filter_map(|name| Some((name.to_lowercase(), value(name)?.clone())));
        Row {
            key: key.iter().map(|column| value(column).unwrap().clone()).collect(),
            cells: cells.collect(),
            deleted: value("DELETED").is_some(),
        }
    };
    table.rows.iter().map(row).collect()
}

async fn summary(twin: &mut Twin, real: &mut Real, closing: &Closing) -> Result<(), TestCaseError> {
    let (epoch, batch) = (twin.epoch(closing.epoch), twin.batch(closing.batch));
    let rows = twin.model.ledger.batches.get(&batch);
    let rows: i64 =
        rows.into_iter().flat_map(|batch| &batch.messages).map(|message| message.rows).sum();
    let (start, end) = match closing.range {
        0 => (Some(batch), Some(batch + 5)),
        1 => (None, Some(batch)),
        2 => (Some(batch), Some(batch + 9)),
        _ => (Some(batch + 5), Some(batch)),
    };
    let told = Summary {
        messages: twin.stored(batch) + closing.messages,
        records: i32::try_from(rows).unwrap() + closing.records,
        start: start.map(|seconds| seconds * SECOND),
        end: end.map(|seconds| seconds * SECOND),
    };
    let stamp =
        |seconds: Option<i64>| seconds.map(|seconds| prost_types::Timestamp { seconds, nanos: 0 });
    let sent = BatchSummary {
        erp: ERP.to_owned(),
        batch_id: batch,
        message_count: told.messages,
        record_count: told.records,
        timestamp_start: stamp(start),
        timestamp_end: stamp(end),
    };
    let loads: Vec<_> = closing.loads.iter().map(|(table, of)| twin.load(*table, *of)).collect();
    let before = twin.model.tables.clone();
    let expected = twin.model.summary(twin.now, epoch, (batch, &loads), &told);
    twin.seen.insert(outcome("summary", &expected));
    for (table, was) in before.0.into_iter().filter(|(_, was)| was.is_asked()) {
        let is = &twin.model.tables.0[&table];
        let how = match (is.is_asked(), loads.is_empty()) {
            (false, true) => "DONE BY SILENCE",
            (false, false) => "DONE",
            (true, _) if is.done > was.done => "OLDER DONE",
            (true, _) => continue,
        };
        twin.seen.insert(format!("reload {how}"));
    }
    prop_assert_eq!(real.summary(twin.now, epoch, &loads, &sent).await, expected);
    Ok(())
}

/// A table message as a sender of its own would make it.
fn message(batch: i64, number: i32, content: &Content) -> Table {
    let fault = content.fault;
    let column =
        |name: &str, type_name: &str| SchemaColumn { name: name.into(), r#type: type_name.into() };
    let cell = |name: &str, value: String| RowColumn { name: name.into(), value };
    let row = |(key, value, deleted): &(u8, Option<u8>, bool)| {
        let mut columns = Vec::new();
        if fault != Fault::MissingKey {
            columns.push(cell("ID", key.to_string()));
        }
        // With two key columns no row may lack the second one.
        match (value, fault) {
            (Some(value), _) => columns.push(cell("V", format!("v{value}"))),
            (None, Fault::OtherKey) => columns.push(cell("V", String::new())),
            (None, _) => {}
        }
        if *deleted {
            columns.push(cell("DELETED", "true".into()));
        }
        TableRow { columns }
    };
    let key = if fault == Fault::OtherKey {
        vec!["ID".to_owned(), "V".to_owned()]
    } else {
        vec!["ID".to_owned()]
    };
    let known = TABLES[usize::from(content.table) % TABLES.len()];
    let name = if fault == Fault::UnlistedTable { "NOT_SHARED" } else { known };
    let rows: Vec<TableRow> = content.rows.iter().map(row).collect();
    let surplus = i32::from(fault == Fault::RecordCount);
    Table {
        table_name: name.into(),
        erp: if fault == Fault::OtherErp { "PROTHEUS".into() } else { ERP.into() },
        record_count: i32::try_from(rows.len()).unwrap() + surplus,
        rows,
        schema: Some(Schema {
            flexible: true,
            export_data: true,
            columns: vec![column("ID", "long"), column("V", "string")],
            primary_key: Some(SchemaPrimaryKey { name: name.into(), columns: key }),
        }),
        batch_id: batch,
        message_number: number,
        is_base_load: content.base_load,
    }
}

/// Ledger, cursor entries and staged rows, as they lie in the files.
async fn compare(twin: &Twin, real: &Real) -> Result<(), TestCaseError> {
    let word = |state: State| match state {
        State::Open => "open",
        State::Complete => "complete",
        State::Abandoned => "abandoned",
    };
    let batches = twin.model.ledger.batches.iter().map(|(id, batch)| {
        let messages = batch
            .messages
            .iter()
            .map(|stored| (stored.sha.to_vec(), stored.rows, stored.accept_seq));
        (*id, (word(batch.state).to_owned(), messages.collect()))
    });
    prop_assert_eq!(real.ledger(), batches.collect::<BTreeMap<_, _>>());
    prop_assert_eq!(real.cursors(), twin.model.cursors.clone());
    let tables = twin.model.tables.0.iter().map(|(name, table)| {
        (name.clone(), (table.generation, table.done, table.rebuild, table.key.clone()))
    });
    prop_assert_eq!(real.tables(), tables.collect::<BTreeMap<_, _>>());
    let staged = twin.staging.tables.iter().map(|(table, rows)| {
        let row = |row: &sim::model::staging::Staged| {
            (row.deleted, row.batch, row.message, row.cells.clone())
        };
        (table.clone(), rows.iter().map(|(key, staged)| (key.clone(), row(staged))).collect())
    });
    prop_assert_eq!(
        real.staged(twin.now).await,
        staged.collect::<BTreeMap<String, BTreeMap<_, _>>>()
    );
    Ok(())
}

/// Several Writes in flight on one connection, in any order (F45): stored in order, each acknowledged.
#[tokio::test]
async fn writes_in_flight_are_stored_in_order_whatever_order_they_arrive_in() {
    let mut chance = sim::chance::Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    for round in 0..40 {
        let mut real = Real::new().await;
        let batch = BEGIN / SECOND + round;
        let content = Content {
            table: 0,
            rows: vec![(1, Some(1), false)],
            base_load: false,
            fault: Fault::None,
        };
        let mut messages: Vec<Bytes> = (1..=20)
            .map(|number| message(batch, number, &content).encode_to_vec().into())
            .collect();
        let in_order: Vec<Vec<u8>> =
            messages.iter().map(|bytes| Sha256::digest(bytes).to_vec()).collect();
        for at in (1..messages.len()).rev() {
            messages.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
        }
        let answers = real.write_all(BEGIN, None, messages).await;
        assert!(answers.iter().all(|answer| *answer == Answer::Success), "{answers:?}");
        let stored = &real.ledger()[&batch].1;
        assert_eq!(stored.iter().map(|(sha, _, _)| sha.clone()).collect::<Vec<_>>(), in_order);
        assert!(stored.is_sorted_by_key(|(_, _, accept_seq)| *accept_seq));
    }
}
