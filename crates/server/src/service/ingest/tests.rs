//! Every outcome of `contracts.md` 5.5 on a real store, in order and out of order.

use prost::Message as _;
use protocol::{
    limits,
    proto::totvs::{
        Table,
        table::{
            RowColumn, Schema, TableRow,
            schema::{SchemaColumn, SchemaPrimaryKey},
        },
    },
};
use runtime::clock::Mono;

use super::*;
use crate::service::{
    session::Sessions,
    trial::{NOW, Trial, at},
};

/// A good message of table FLAN with one row per key.
fn table(batch: i64, number: i32, keys: &[i64]) -> Table {
    let column = |name: &str, value: String| RowColumn { name: name.into(), value };
    let row = |key: &i64| TableRow {
        columns: vec![column("ID", key.to_string()), column("V", format!("b{batch}"))],
    };
    let kind = |name: &str, kind: &str| SchemaColumn { name: name.into(), r#type: kind.into() };
    Table {
        table_name: "FLAN".into(),
        erp: "RM".into(),
        rows: keys.iter().map(row).collect(),
        schema: Some(Schema {
            flexible: false,
            export_data: true,
            columns: vec![kind("ID", "integer"), kind("V", "string")],
            primary_key: Some(SchemaPrimaryKey { name: "FLAN".into(), columns: vec!["ID".into()] }),
        }),
        batch_id: batch,
        message_number: number,
        record_count: i32::try_from(keys.len()).unwrap(),
        is_base_load: false,
    }
}

fn bytes(table: &Table) -> Bytes {
    table.encode_to_vec().into()
}

fn message(batch: i64, number: i32) -> Bytes {
    bytes(&table(batch, number, &[i64::from(number)]))
}

fn summary(batch: i64, messages: i32, records: i32) -> BatchSummary {
    BatchSummary {
        erp: "RM".into(),
        batch_id: batch,
        message_count: messages,
        record_count: records,
        timestamp_start: None,
        timestamp_end: None,
    }
}

struct Sender {
    trial: Trial,
    ingest: Ingest,
    epoch: Option<Epoch>,
}

impl Sender {
    fn legacy() -> Self {
        let trial = Trial::new();
        Self { ingest: Ingest::new(trial.store.clone()), trial, epoch: None }
    }

    async fn with_session() -> Self {
        let mut sender = Self::legacy();
        sender.epoch = Some(sender.trial.open(1, 1, NOW).await);
        sender
    }

    async fn send(&self, bytes: Bytes) -> Result<(), Error> {
        self.ingest.write(&self.trial.caller, self.epoch, bytes, NOW).await
    }

    async fn end(&self, summary: &BatchSummary) -> Result<(), Error> {
        self.ingest.summary(&self.trial.caller, self.epoch, &[], summary, NOW).await
    }

    async fn code(&self, bytes: Bytes) -> Code {
        self.send(bytes).await.unwrap_err().code
    }
}

#[tokio::test]
async fn a_batch_goes_from_message_one_to_its_summary_and_repeats_change_nothing() {
    let sender = Sender::with_session().await;
    for number in [1, 2, 1, 2] {
        sender.send(message(100, number)).await.unwrap();
    }
    for _ in 0..2 {
        sender.end(&summary(100, 2, 2)).await.unwrap();
    }
    sender.send(message(100, 2)).await.unwrap();
    assert_eq!(sender.trial.count("SELECT count(*) FROM ingest_message"), 2);
    assert_eq!(sender.trial.count("SELECT accept_seq FROM ingest_stream"), 2);
    assert_eq!(sender.trial.count("SELECT count(*) FROM batch WHERE state = 'complete'"), 1);
}

#[tokio::test]
async fn other_content_under_a_taken_number_is_a_conflict_and_keeps_the_first() {
    let sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    assert_eq!(sender.code(bytes(&table(100, 1, &[9]))).await, Code::MessageConflict);
    sender.end(&summary(100, 1, 1)).await.unwrap();
    assert_eq!(sender.code(bytes(&table(100, 1, &[9]))).await, Code::MessageConflict);
    assert_eq!(sender.end(&summary(100, 1, 2)).await.unwrap_err().code, Code::MessageConflict);
}

#[tokio::test]
async fn a_gap_names_the_expected_number_after_a_short_wait() {
    let sender = Sender::with_session().await;
    for number in [1, 2] {
        sender.send(message(100, number)).await.unwrap();
    }
    let error = sender.send(message(100, 5)).await.unwrap_err();
    assert_eq!(error.to_string(), "SEQUENCE_GAP: batch 100 of RM expects message 3, got 5");
    sender.send(message(100, 3)).await.unwrap();
}

#[tokio::test]
async fn messages_in_flight_in_any_order_are_stored_in_the_order_of_their_numbers() {
    let sender = Sender::with_session().await;
    let numbers = [4, 2, 6, 1, 8, 3, 5, 7];
    let sends = numbers.map(|number| sender.send(message(100, number)));
    for outcome in futures_util::future::join_all(sends).await {
        outcome.unwrap();
    }
    let wrong = "SELECT count(*) FROM ingest_message WHERE number <> accept_seq";
    assert_eq!(sender.trial.count(wrong), 0);
    sender.end(&summary(100, 8, 8)).await.unwrap();
}

#[tokio::test]
async fn a_message_beyond_the_window_is_told_the_gap_at_once_and_one_that_waits_leaves_nothing_behind()
 {
    const BEYOND: usize = 3;
    let sender = &Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    let last = i32::try_from(limits::REORDER_WINDOW + BEYOND).unwrap();
    let late = (0..last).map(|ahead| async move {
        let begun = Mono::now();
        (sender.send(message(100, 3 + ahead)).await.unwrap_err(), begun.elapsed())
    });
    let mut at_once = 0;
    for (error, waited) in futures_util::future::join_all(late).await {
        assert_eq!(error.code, Code::SequenceGap);
        at_once += usize::from(waited < limits::REORDER_WAIT / 2);
    }
    assert_eq!(at_once, BEYOND, "all but those had a seat");
    assert_eq!(sender.trial.count("SELECT count(*) FROM ingest_message"), 1);
    sender.send(message(100, 2)).await.unwrap();
}

#[tokio::test]
async fn batches_that_are_closed_unknown_or_too_far_ahead_are_refused() {
    let sender = Sender::with_session().await;
    assert_eq!(sender.code(message(100, 2)).await, Code::BatchUnknown);
    assert_eq!(sender.end(&summary(100, 1, 1)).await.unwrap_err().code, Code::BatchUnknown);
    sender.send(message(100, 1)).await.unwrap();
    sender.end(&summary(100, 1, 1)).await.unwrap();
    assert_eq!(sender.code(message(100, 2)).await, Code::BatchClosed);
    assert_eq!(sender.code(message(99, 1)).await, Code::BatchUnknown);
    assert_eq!(sender.code(message(0, 1)).await, Code::BatchUnknown);
    assert_eq!(sender.code(message(NOW.seconds() + 86_401, 1)).await, Code::ClockAhead);
    sender.send(message(101, 1)).await.unwrap();
    sender.send(message(102, 1)).await.unwrap();
    assert_eq!(sender.code(message(101, 2)).await, Code::BatchClosed);
    assert_eq!(sender.end(&summary(101, 1, 1)).await.unwrap_err().code, Code::BatchClosed);
    sender.send(message(101, 1)).await.unwrap();
}

#[tokio::test]
async fn a_summary_that_does_not_agree_leaves_the_batch_open_for_the_tail() {
    let sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    let error = sender.end(&summary(100, 3, 3)).await.unwrap_err();
    assert_eq!(error.to_string(), "MESSAGES_MISSING: batch 100 of RM lacks messages 2 to 3");
    assert_eq!(sender.end(&summary(100, 1, 7)).await.unwrap_err().code, Code::SummaryMismatch);
    let stamp = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
    let backwards =
        BatchSummary { timestamp_start: stamp(9), timestamp_end: stamp(8), ..summary(100, 1, 1) };
    assert_eq!(sender.end(&backwards).await.unwrap_err().code, Code::SummaryMismatch);
    for number in [2, 3] {
        sender.send(message(100, number)).await.unwrap();
    }
    sender.end(&summary(100, 3, 3)).await.unwrap();
}

#[tokio::test]
async fn a_sender_that_was_taken_over_is_fenced_and_one_without_epoch_waits_for_the_lease() {
    let mut sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    let newer = sender.trial.open(2, 2, at(31)).await;
    assert_eq!(sender.code(message(100, 2)).await, Code::Fenced);
    assert_eq!(sender.code(message(100, 1)).await, Code::Fenced);
    assert_eq!(sender.end(&summary(100, 1, 1)).await.unwrap_err().code, Code::Fenced);
    sender.epoch = None;
    assert_eq!(sender.code(message(200, 1)).await, Code::EpochRequired);
    sender.epoch = Some(newer);
    assert_eq!(sender.code(message(100, 2)).await, Code::BatchClosed);
    sender.send(message(200, 1)).await.unwrap();
}

#[tokio::test]
async fn without_a_lease_a_legacy_sender_is_taken_and_fenced_by_a_higher_batch() {
    let sender = Sender::legacy();
    sender.send(message(100, 1)).await.unwrap();
    sender.send(message(101, 1)).await.unwrap();
    assert_eq!(sender.code(message(100, 2)).await, Code::BatchClosed);
    sender.end(&summary(101, 1, 1)).await.unwrap();
}

#[tokio::test]
async fn malformed_foreign_and_unlisted_messages_are_refused_and_use_no_number() {
    let sender = Sender::with_session().await;
    let mut wrong = table(100, 1, &[1]);
    wrong.table_name = "SECRET".into();
    assert_eq!(sender.code(bytes(&wrong)).await, Code::PermissionDenied);
    let mut wrong = table(100, 1, &[1]);
    wrong.erp = "PROTHEUS".into();
    assert_eq!(sender.code(bytes(&wrong)).await, Code::PermissionDenied);
    let mut wrong = table(100, 1, &[1]);
    wrong.record_count = 2;
    assert_eq!(sender.code(bytes(&wrong)).await, Code::RecordCountMismatch);
    let mut wrong = table(100, 1, &[1]);
    wrong.rows[0].columns.remove(0);
    assert_eq!(sender.code(bytes(&wrong)).await, Code::MissingKeyColumn);
    assert_eq!(sender.code(Bytes::from_static(b"\xff\xff")).await, Code::InvalidArgument);
    assert_eq!(sender.code(vec![0; limits::MESSAGE_BYTES + 1].into()).await, Code::MessageTooLarge);
    assert_eq!(sender.trial.count("SELECT count(*) FROM ingest_message"), 0);
    sender.send(message(100, 1)).await.unwrap();
}

#[tokio::test]
async fn another_key_is_refused_until_a_forced_reload_brings_it() {
    let sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    let mut changed = table(100, 2, &[2]);
    changed.schema.as_mut().unwrap().primary_key.as_mut().unwrap().columns = vec!["V".into()];
    assert_eq!(sender.code(bytes(&changed)).await, Code::PrimaryKeyChanged);
    changed.is_base_load = true;
    assert_eq!(sender.code(bytes(&changed)).await, Code::PrimaryKeyChanged);
    let order = "UPDATE entity SET generation = 1, reload_asked_at = 1 WHERE name_folded = 'flan'";
    sender.trial.run(order);
    let refused = sender.code(bytes(&changed)).await;
    assert_eq!(refused, Code::PrimaryKeyChanged, "a plain reload keeps the table");
    sender.trial.run("UPDATE entity SET rebuild = 1 WHERE name_folded = 'flan'");
    sender.send(bytes(&changed)).await.unwrap();
    assert_eq!(sender.trial.count("SELECT rebuild FROM ingest_message WHERE number = 2"), 1);
    assert_eq!(sender.code(message(100, 3)).await, Code::PrimaryKeyChanged);
}

#[tokio::test]
async fn a_reload_is_done_when_its_sender_says_so_or_a_silent_one_has_sent_base_load_rows() {
    let done = "SELECT done_generation FROM entity WHERE name_folded = 'flan'";
    let order = "UPDATE entity SET generation = 2, reload_asked_at = 1 WHERE name_folded = 'flan'";
    let mut base = table(100, 1, &[1]);
    base.is_base_load = true;

    let told = Sender::with_session().await;
    told.trial.run(order);
    told.send(bytes(&base)).await.unwrap();
    told.end(&summary(100, 1, 1)).await.unwrap();
    assert_eq!(told.trial.count(done), 0, "a sender with a session tells when its load is done");
    told.send(message(101, 1)).await.unwrap();
    let loads = [("flan".parse().unwrap(), Generation(2))];
    told.ingest
        .summary(&told.trial.caller, told.epoch, &loads, &summary(101, 1, 1), NOW)
        .await
        .unwrap();
    assert_eq!(told.trial.count(done), 2);

    let silent = Sender::legacy();
    silent.trial.run(order);
    silent.send(bytes(&base)).await.unwrap();
    silent.end(&summary(100, 1, 1)).await.unwrap();
    assert_eq!(silent.trial.count(done), 2);
}

#[tokio::test]
async fn a_new_process_on_the_same_store_gives_the_same_answers() {
    let sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    let (trial, epoch) = (sender.trial, sender.epoch);
    drop(sender.ingest);
    let trial = trial.reopen();
    let sender = Sender { ingest: Ingest::new(trial.store.clone()), trial, epoch };
    sender.send(message(100, 1)).await.unwrap();
    sender.send(message(100, 2)).await.unwrap();
    sender.end(&summary(100, 2, 2)).await.unwrap();
    assert_eq!(sender.trial.count("SELECT count(*) FROM ingest_message"), 2);
}

#[tokio::test]
async fn ten_silent_minutes_abandon_a_batch_and_its_rows_stay() {
    let sender = Sender::with_session().await;
    sender.send(message(100, 1)).await.unwrap();
    assert_eq!(sender.ingest.stalled(at(59)).await.unwrap(), 0);
    assert_eq!(sender.ingest.stalled(at(60)).await.unwrap(), 1);
    assert_eq!(sender.ingest.abandon_silent(at(599)).await.unwrap(), 0);
    assert_eq!(sender.ingest.abandon_silent(at(600)).await.unwrap(), 1);
    assert_eq!(sender.ingest.stalled(at(700)).await.unwrap(), 0);
    assert_eq!(sender.code(message(100, 2)).await, Code::BatchClosed);
    assert_eq!(sender.trial.count("SELECT count(*) FROM ingest_message"), 1);
}

#[tokio::test]
async fn a_tenant_without_room_in_flight_is_told_when_to_come_again() {
    let sender = Sender::with_session().await;
    let room = sender.ingest.budget().room(sender.trial.caller.tenant, Share::Writes);
    room.hold(3 * limits::MESSAGE_BYTES).unwrap();
    let error = sender.send(vec![0; limits::MESSAGE_BYTES].into()).await.unwrap_err();
    assert_eq!(error.code, Code::RateLimited);
    assert!(error.retry_after.is_some());
    drop(room);
    sender.send(message(100, 1)).await.unwrap();
}

#[tokio::test]
async fn cursor_entries_hold_with_their_summary_alone() {
    let sender = Sender::with_session().await;
    let sessions = Sessions::new(sender.trial.store.clone());
    sender.send(message(100, 1)).await.unwrap();
    sender.trial.prepare(&sessions, sender.epoch, 100, b"w1").await.unwrap();
    sender.send(message(101, 1)).await.unwrap();
    sender.end(&summary(101, 1, 1)).await.unwrap();
    assert_eq!(sender.trial.count("SELECT count(*) FROM cursor"), 0, "batch 100 was abandoned");
    sender.send(message(102, 1)).await.unwrap();
    sender.trial.prepare(&sessions, sender.epoch, 102, b"w2").await.unwrap();
    assert_eq!(sender.end(&summary(102, 1, 9)).await.unwrap_err().code, Code::SummaryMismatch);
    assert_eq!(sender.trial.count("SELECT count(*) FROM cursor"), 0);
    sender.end(&summary(102, 1, 1)).await.unwrap();
    let kept = format!("SELECT count(*) FROM cursor WHERE value = {}", sender.trial.bytes(b"w2"));
    assert_eq!(sender.trial.count(&kept), 1);
}

#[tokio::test]
async fn f52_an_installation_that_is_unbound_writes_nothing_from_that_moment_on() {
    let trial = Trial::new();
    let ingest = Ingest::new(trial.store.clone());
    let epoch = Some(trial.open(1, 1, NOW).await);
    let write = |epoch, batch, number| {
        let bytes = message(batch, number);
        let (ingest, caller) = (ingest.clone(), trial.caller.clone());
        async move { ingest.write(&caller, epoch, bytes, NOW).await.map_err(|error| error.code) }
    };
    write(epoch, 100, 1).await.unwrap();
    let caller = trial.caller.clone();
    trial.store.bind(caller.tenant, caller.installation, None, NOW).await.unwrap();
    assert_eq!(trial.count("SELECT count(*) FROM batch WHERE state = 'abandoned'"), 1);
    // Its token and what was looked up of it are as good as before; the accepting transaction refuses all the same.
    assert_eq!(write(epoch, 100, 2).await, Err(Code::PermissionDenied));
    assert_eq!(write(None, 200, 1).await, Err(Code::PermissionDenied));
    let closed = ingest.summary(&caller, epoch, &[], &summary(100, 1, 1), NOW).await;
    assert_eq!(closed.unwrap_err().code, Code::PermissionDenied);
    let opened = Sessions::new(trial.store.clone()).open(&caller, Trial::request(1, 1), NOW).await;
    assert_eq!(opened.unwrap_err().code, Code::PermissionDenied);
    // Bound again it begins anew: what it was granted before is over.
    let environment = Some(caller.environment);
    trial.store.bind(caller.tenant, caller.installation, environment, NOW).await.unwrap();
    assert_eq!(write(epoch, 100, 2).await, Err(Code::Fenced));
    assert_eq!(trial.open(1, 1, NOW).await, Epoch(3));
}
