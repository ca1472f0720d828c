use std::collections::BTreeMap;

use prost::Message as _;
use protocol::{
    Code,
    hash::RowHash,
    ids::{BatchId, Epoch, Generation, MessageNumber},
    key::KeyBytes,
    names::TableName,
    proto::totvs::{Table, table},
};
use runtime::shutdown::{self, Trigger};

use super::{tests::double::Double, *};
use crate::journal::{Grant, LinkPhase, Recovery, Seal, SpoolMessage};

mod answers;
mod double;
mod steered;

use double::Fault;

fn table_name(name: &str) -> TableName {
    name.parse().unwrap()
}

fn row(id: &str, deleted: bool) -> table::TableRow {
    let column =
        |name: &str, value: &str| table::RowColumn { name: name.into(), value: value.into() };
    let mut columns = vec![column("ID", id), column("V", "x")];
    if deleted {
        columns.push(column("DELETED", "true"));
    }
    table::TableRow { columns }
}

fn message(batch: BatchId, number: i32, name: &str, ids: &[&str]) -> SpoolMessage {
    let column =
        |name: &str| table::schema::SchemaColumn { name: name.into(), r#type: "string".into() };
    let wire = Table {
        table_name: name.into(),
        erp: "RM".into(),
        rows: ids.iter().map(|id| row(id, false)).collect(),
        schema: Some(table::Schema {
            flexible: true,
            export_data: true,
            columns: vec![column("ID"), column("V")],
            primary_key: Some(table::schema::SchemaPrimaryKey {
                name: name.into(),
                columns: vec!["ID".into()],
            }),
        }),
        batch_id: batch.0,
        message_number: number,
        record_count: i32::try_from(ids.len()).unwrap(),
        is_base_load: false,
    };
    SpoolMessage {
        number: MessageNumber(number),
        table: table_name(name),
        rows: u32::try_from(ids.len()).unwrap(),
        bytes: wire.encode_to_vec().into(),
        known: ids.iter().map(|id| (KeyBytes::of([*id]), Some(RowHash([1; 16])))).collect(),
    }
}

fn seal(messages: u32, records: u32) -> Seal {
    Seal {
        messages,
        records,
        start: Some(1_700_000_000_000_000),
        end: 1_700_000_005_500_000,
        cursors: vec![(table_name("FLAN"), b"cursor".to_vec())],
        loads_done: vec![(table_name("FLAN"), Generation(4))],
        deletes_done: Vec::new(),
        reloads_done: Vec::new(),
    }
}

/// A running uplink against the double.
struct Stage {
    double: Double,
    folder: tempfile::TempDir,
    journal: Journal,
    trigger: Option<Trigger>,
    task: Option<runtime::task::Task<Result<()>>>,
    denied_retry: Duration,
    entities_every: Duration,
    source_away: Duration,
}

impl Stage {
    async fn start(double: Double) -> Self {
        Self::retrying(double, DENIED_RETRY).await
    }

    /// With that first pause before a denied table is tried again.
    async fn retrying(double: Double, denied_retry: Duration) -> Self {
        Self::paced(double, denied_retry, Duration::from_millis(200)).await
    }

    /// Entities is read that often.
    async fn reading(double: Double, entities_every: Duration) -> Self {
        Self::paced(double, DENIED_RETRY, entities_every).await
    }

    async fn paced(double: Double, denied_retry: Duration, entities_every: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (journal, recovery) = Journal::open(folder.path()).await.unwrap();
        assert_eq!(recovery, Recovery::Fresh);
        let (trigger, task) = (None, None);
        let source_away = Duration::from_millis(300);
        let mut stage = Self {
            double,
            folder,
            journal,
            trigger,
            task,
            denied_retry,
            entities_every,
            source_away,
        };
        stage.launch();
        stage
    }

    fn launch(&mut self) {
        let config = UplinkConfig {
            registry_url: self.double.registry(),
            client_id: "erp-1".parse().unwrap(),
            client_secret: "s3cret".to_owned().into(),
            erp: "RM".parse().unwrap(),
            hosts: Vec::new(),
            allow_private: true,
            proxy: None,
            ca_pem: None,
            entities_every: self.entities_every,
            denied_retry: self.denied_retry,
            source_away: self.source_away,
            agent_version: "test".into(),
        };
        let (trigger, seen) = shutdown::channel();
        let identity = || async {
            let database =
                DatabaseIdentity { kind: "sqlite".into(), ..DatabaseIdentity::default() };
            Ok(Identity { database, version: "3".into() })
        };
        let run = run(self.journal.clone(), config, identity, seen);
        self.task = Some(runtime::task::spawn("uplink", run));
        self.trigger = Some(trigger);
    }

    /// The process dies: no release, no drain.
    async fn kill(&mut self) {
        let task = self.task.take().unwrap();
        task.abort();
        let _ = task.join().await;
        let gone = Journal::open(tempfile::tempdir().unwrap().path()).await.unwrap().0;
        drop(std::mem::replace(&mut self.journal, gone));
        self.journal = Journal::open(self.folder.path()).await.unwrap().0;
    }

    async fn stop(&mut self) -> Result<()> {
        self.trigger.take().unwrap().drain();
        self.task.take().unwrap().join().await.unwrap()
    }

    /// A grant other than `before`'s epoch.
    async fn grant(&self, before: u64) -> Grant {
        let mut granted = self.journal.granted();
        let new = |grant: &Option<Arc<Grant>>| {
            grant.as_ref().is_some_and(|grant| grant.epoch != Epoch(before))
        };
        let grant = within(granted.wait_for(new)).await.unwrap().clone().unwrap();
        (*grant).clone()
    }

    /// Writes a batch of `messages` messages with one row each.
    async fn write(&self, grant: &Grant, messages: i32) -> BatchId {
        let batch = grant.last_batch.next();
        self.journal.open_batch(grant.epoch, batch, runtime::clock::Wall(0)).await.unwrap();
        let one = |number: i32| message(batch, number, "FLAN", &[&number.to_string()]);
        self.journal.append(batch, (1..=messages).map(one).collect()).await.unwrap();
        let count = u32::try_from(messages).unwrap();
        // Where the batch was dropped meanwhile the test looks at that.
        let _ = self.journal.seal(batch, seal(count, count)).await;
        batch
    }

    async fn complete(&self, batch: BatchId) {
        let mut spool = self.journal.spool();
        within(spool.wait_for(|state| state.completed == Some(batch))).await.unwrap();
    }

    /// Waits until that many tables are planned.
    async fn planned(&self, count: usize) {
        let mut changed = self.journal.plan_changed();
        let there = async {
            while self.journal.plan().await.unwrap().is_none_or(|plan| plan.queries.len() != count)
            {
                changed.changed().await.unwrap();
            }
        };
        within(there).await;
    }

    /// Waits until a table is planned and its known rows follow the session.
    async fn learned(&self, table: &str) {
        let mut changed = self.journal.plan_changed();
        let there = async {
            loop {
                let (plan, unlearned) = self.journal.plan_to_learn().await.unwrap();
                let planned = plan.is_some_and(|plan| {
                    plan.queries.iter().any(|query| query.table == table_name(table))
                });
                if planned && !unlearned.contains(&table_name(table)) {
                    return;
                }
                changed.changed().await.unwrap();
            }
        };
        within(there).await;
    }

    /// Known hashes of rows of FLAN.
    async fn known(&self, ids: &[&str]) -> Vec<Option<RowHash>> {
        let keys = ids.iter().map(|id| KeyBytes::of([*id])).collect();
        self.journal.known(&table_name("FLAN"), keys).await.unwrap()
    }

    async fn phase(&self, phase: LinkPhase) -> crate::journal::LinkState {
        let mut link = self.journal.link();
        within(link.wait_for(|state| state.phase == phase)).await.unwrap().clone()
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it happens in time")
}

#[tokio::test]
async fn a_batch_goes_out_in_order_with_its_cursor_and_its_end() {
    let double = Double::start().await;
    double.script(1, Fault::Slow);
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 100).await;
    stage.complete(batch).await;
    let seen = stage.double.look();
    assert_eq!(seen.stored[&batch.0].len(), 100);
    let summary = &seen.summaries[0];
    assert_eq!((summary.0.message_count, summary.0.record_count), (100, 100));
    assert_eq!(summary.0.timestamp_end.unwrap().nanos, 500_000_000);
    assert_eq!(summary.1, "FLAN:4");
    assert_eq!(seen.committed, BTreeMap::from([("FLAN".to_owned(), b"cursor".to_vec())]));
    assert_eq!(seen.most_in_flight, protocol::limits::SENDER_IN_FLIGHT);
    assert_eq!(stage.journal.cursors().await.unwrap()[&table_name("FLAN")], b"cursor");
    let known = stage.journal.known_count(&table_name("FLAN")).await.unwrap();
    assert_eq!(known, 100);
    assert_eq!(stage.phase(LinkPhase::Sending).await.epoch, Some(grant.epoch));
    stage.stop().await.unwrap();
    assert_eq!(stage.double.seen().released, [grant.epoch.0]);
}

#[tokio::test]
async fn unknown_outcomes_gaps_and_old_tokens_cost_a_repeat_and_never_the_batch() {
    for fault in [
        Fault::LostAnswer,
        Fault::Unavailable,
        Fault::RateLimited,
        Fault::Unauthenticated,
        Fault::Forget,
        Fault::Gap,
    ] {
        let double = Double::start().await;
        double.script(7, fault);
        let mut stage = Stage::start(double).await;
        let grant = stage.grant(0).await;
        let batch = stage.write(&grant, 20).await;
        stage.complete(batch).await;
        let seen = stage.double.look();
        assert_eq!(seen.stored[&batch.0].len(), 20, "{fault:?}");
        assert_eq!(seen.conflicts, 0, "{fault:?}: the same bytes each time");
        assert_eq!(stage.journal.spool().borrow().dropped, 0, "{fault:?}");
        assert!(seen.script.is_empty(), "{fault:?} happened");
        let tokens = if fault == Fault::Unauthenticated { 2 } else { 1 };
        assert_eq!(seen.tokens, tokens, "{fault:?}");
        stage.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_that_does_not_get_through_is_shown_with_its_code_until_it_does() {
    let double = Double::start().await;
    // The pauses between them grow: the sixth repeat is told, the seventh goes through some seconds later.
    for _ in 0..7 {
        double.script(1, Fault::Unavailable);
    }
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 3).await;
    let mut link = stage.journal.link();
    let told = |state: &crate::journal::LinkState| state.code.as_deref() == Some("UNAVAILABLE");
    let state = within(link.wait_for(told)).await.unwrap().clone();
    assert_eq!(state.phase, crate::journal::LinkPhase::Sending, "the lease is held all the same");
    assert!(state.hint.is_some());
    stage.complete(batch).await;
    within(link.wait_for(|state| state.code.is_none())).await.unwrap();
    stage.stop().await.unwrap();
}

/// By tokio's clock, which runs ahead whenever nothing is under way; the journal's own writes take their time all the same.
#[tokio::test]
async fn an_hour_without_the_cloud_is_told_asked_again_in_bounds_and_ends_in_a_session_that_sends()
{
    let mut stage = Stage::start(Double::start().await).await;
    let before = stage.grant(0).await;
    stage.double.seen().gone = true;
    let lost = stage.write(&before, 3).await;
    tokio::time::pause();
    let begun = runtime::clock::Mono::now();
    while begun.elapsed() < Duration::from_secs(3_600) {
        runtime::clock::sleep(Duration::from_secs(1)).await;
    }
    tokio::time::resume();
    let mut link = stage.journal.link();
    let unreachable = |state: &crate::journal::LinkState| state.phase == LinkPhase::Unreachable;
    let state = within(link.wait_for(unreachable)).await.unwrap().clone();
    assert!(state.code.is_some() && state.hint.is_some() && state.since_micros.is_some());
    let missed = stage.double.look().missed;
    // A call that is refused takes its own time, in which the clock runs ahead: a busy machine makes fewer.
    assert!((30..3_600).contains(&missed), "{missed} calls in an hour");
    // The lease is long over: what was spooled is dropped, since the ERP still holds it.
    // The journal's thread takes its time beside the clock that ran ahead.
    within(stage.journal.granted().wait_for(Option::is_none)).await.unwrap();
    within(stage.journal.spool().wait_for(|state| state.batch.is_none())).await.unwrap();
    stage.double.seen().gone = false;
    let mut granted = stage.journal.granted();
    let new = |grant: &Option<Arc<Grant>>| {
        grant.as_ref().is_some_and(|grant| grant.epoch > before.epoch && grant.last_batch < lost)
    };
    // The last pause before the cloud came back is taken in full.
    let found = tokio::time::timeout(Duration::from_secs(90), granted.wait_for(new)).await;
    let grant = found.expect("no session").unwrap().clone().unwrap();
    let batch = stage.write(&grant, 3).await;
    stage.complete(batch).await;
    assert_eq!(stage.double.look().stored[&batch.0].len(), 3);
    assert_eq!(stage.phase(LinkPhase::Sending).await.code, None);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_gap_without_progress_or_a_conflict_drops_and_a_new_session_reads_again() {
    for fault in [Fault::GapAlways, Fault::Conflict, Fault::Fenced] {
        let double = Double::start().await;
        double.script(3, fault);
        let mut stage = Stage::start(double).await;
        let first = stage.grant(0).await;
        let lost = stage.write(&first, 5).await;
        let second = stage.grant(first.epoch.0).await;
        assert!(second.epoch > first.epoch, "{fault:?}");
        assert!(second.last_batch >= lost, "{fault:?}: ids rise");
        assert_eq!(stage.journal.spool().borrow().dropped, 1, "{fault:?}");
        stage.double.clear();
        let batch = stage.write(&second, 5).await;
        stage.complete(batch).await;
        stage.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_denied_table_is_parked_and_one_row_that_is_refused_alone_is_quarantined() {
    let double = Double::start().await;
    double.script(2, Fault::Denied);
    let mut stage = Stage::start(double).await;
    let first = stage.grant(0).await;
    stage.write(&first, 3).await;
    let second = stage.grant(first.epoch.0).await;
    assert_eq!(stage.journal.parked()[&table_name("FLAN")].code, Code::PermissionDenied);
    let entities = stage.double.seen().entities;
    within(stage.double.until(move |seen| seen.entities > entities)).await;

    stage.double.script(1, Fault::Invalid);
    let batch = second.last_batch.next();
    stage.journal.open_batch(second.epoch, batch, runtime::clock::Wall(0)).await.unwrap();
    stage.journal.append(batch, vec![message(batch, 1, "TMOV", &["a", "b"])]).await.unwrap();
    let third = stage.grant(second.epoch.0).await;
    let suspect = stage.journal.suspects()[&table_name("TMOV")].clone();
    assert_eq!((suspect.code, suspect.rows_left), (Code::InvalidArgument, 2));

    stage.double.script(2, Fault::Invalid);
    let batch = third.last_batch.next();
    stage.journal.open_batch(third.epoch, batch, runtime::clock::Wall(0)).await.unwrap();
    let singles = vec![message(batch, 1, "TMOV", &["a"]), message(batch, 2, "TMOV", &["b"])];
    stage.journal.append(batch, singles).await.unwrap();
    stage.grant(third.epoch.0).await;
    let rows = stage.journal.quarantined(&table_name("TMOV")).await.unwrap();
    let key = KeyBytes::of(["b"]);
    let names = ["ID".parse().unwrap(), "V".parse().unwrap()];
    let hash = protocol::hash::RowHasher::new(&names).hash(|at| Some(["b", "x"][at]));
    assert_eq!(rows, BTreeMap::from([(key, hash)]));
    let incidents = stage.journal.incidents(10).await.unwrap();
    assert!(incidents.iter().any(|i| i.table == Some(table_name("TMOV")) && i.key_hash.is_some()));
    stage.stop().await.unwrap();
}

/// Looks again and again until it holds.
async fn until(holds: impl Fn() -> bool) {
    let looking = async {
        while !holds() {
            runtime::clock::sleep(Duration::from_millis(10)).await;
        }
    };
    within(looking).await;
}

#[tokio::test]
async fn a_denied_table_is_tried_again_by_itself_with_growing_pauses_until_it_is_taken() {
    let flan = table_name("FLAN");
    let first = Duration::from_secs(1);
    let mut stage = Stage::retrying(Double::start().await, first).await;
    let mut grant = stage.grant(0).await;
    for times in 1..=2u32 {
        stage.double.script(1, Fault::Denied);
        let before = runtime::clock::Mono::now();
        stage.write(&grant, 1).await;
        grant = stage.grant(grant.epoch.0).await;
        let parked = stage.journal.parked()[&flan].clone();
        let pause = parked.retry.unwrap().due - before;
        assert_eq!(stage.journal.times_parked(&flan), times);
        assert!(pause >= first * times, "{times}: {pause:?}");
        assert!(pause < first * times + Duration::from_secs(20), "{times}: {pause:?}");
        until(|| stage.journal.parked().is_empty()).await;
        assert!(parked.retry.unwrap().due <= runtime::clock::Mono::now(), "not before its time");
        assert!(stage.journal.alone().contains(&flan), "it goes alone until it is taken");
    }
    let batch = stage.write(&grant, 1).await;
    stage.complete(batch).await;
    until(|| stage.journal.alone().is_empty()).await;
    assert_eq!(stage.journal.times_parked(&flan), 0, "the pauses start small again");
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_denied_table_is_tried_again_at_once_when_entities_changes() {
    let double = Double::start().await;
    double.script(1, Fault::Denied);
    let mut stage = Stage::start(double).await;
    let first = stage.grant(0).await;
    stage.write(&first, 1).await;
    stage.grant(first.epoch.0).await;
    assert!(stage.journal.parked().contains_key(&table_name("FLAN")));
    // Read again several times, and the same each time.
    let entities = stage.double.seen().entities + 3;
    within(stage.double.until(|seen| seen.entities >= entities)).await;
    assert!(stage.journal.parked().contains_key(&table_name("FLAN")));
    stage.double.seen().planned.push("SE1");
    until(|| stage.journal.parked().is_empty()).await;
    assert_eq!(stage.journal.times_parked(&table_name("FLAN")), 0);
    stage.stop().await.unwrap();
}

/// The capture room over a small ERP, for what the two rooms do together.
fn capturing(stage: &Stage, erp: &std::path::Path) -> Trigger {
    let config = crate::config::AgentConfig {
        capture: crate::config::CaptureConfig {
            cycle_seconds: 0,
            key_scan_seconds: 0,
            duty_percent: 100,
            ..Default::default()
        },
        ..Default::default()
    };
    let url = format!("sqlite:{}", erp.display());
    let source =
        crate::source::connect(&url, crate::source::Profile::Generic, &Default::default()).unwrap();
    let (trigger, drain) = shutdown::channel();
    let worker = crate::capture::Worker::new(
        Arc::new(source),
        stage.journal.clone(),
        Arc::new(config),
        "RM".parse().unwrap(),
        drain,
    );
    runtime::task::spawn("capture", worker.run());
    trigger
}

/// Rows of a table in complete batches.
fn accepted_rows(double: &Double, table: &str) -> usize {
    let seen = double.seen();
    let complete = seen.summaries.iter().map(|(summary, _)| summary.batch_id);
    let messages = complete.flat_map(|batch| seen.stored[&batch].values());
    let of = messages.map(|bytes| Table::decode(bytes.as_slice()).unwrap());
    of.filter(|message| message.table_name == table).map(|message| message.rows.len()).sum()
}

#[tokio::test]
async fn f38_a_table_all_of_whose_messages_are_refused_is_parked_and_a_reload_tries_all_of_it_again()
 {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.db");
    let erp = rusqlite::Connection::open(&path).unwrap();
    erp.pragma_update(None, "journal_mode", "wal").unwrap();
    erp.busy_timeout(Duration::from_secs(10)).unwrap();
    erp.execute_batch(
        "CREATE TABLE FLAN (ID INTEGER PRIMARY KEY, V TEXT);
         CREATE TABLE TMOV (ID INTEGER PRIMARY KEY, V TEXT);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) INSERT INTO TMOV SELECT i, 'v' FROM n;",
    )
    .unwrap();
    let double = Double::start().await;
    double.seen().malformed = Some("TMOV");
    let mut stage = Stage::start(double).await;
    let capture = capturing(&stage, &path);
    let tmov = table_name("TMOV");
    let mut written = 0u32;
    let parking = async {
        while !stage.journal.parked().contains_key(&tmov) {
            // The other table is busy all the while.
            written += 1;
            erp.execute("INSERT INTO FLAN VALUES (?1, 'v')", [written]).unwrap();
            runtime::clock::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), parking).await.expect("it is parked");
    let parked = stage.journal.parked()[&tmov].clone();
    assert_eq!((parked.code, parked.retry), (Code::InvalidArgument, None));
    let limit = protocol::limits::REFUSED_IN_A_ROW as usize;
    assert!(parked.words.starts_with(&format!("{limit} rows one after another")), "{parked:?}");
    assert_eq!(stage.journal.quarantined(&tmov).await.unwrap().len(), limit, "they stay listed");
    let listed = stage.journal.incidents(100).await.unwrap();
    assert_eq!(listed.iter().filter(|told| told.key_hash.is_some()).count(), limit);
    until(|| accepted_rows(&stage.double, "FLAN") >= written as usize).await;
    // Its base load never got a cursor: it is due in every new session, and that lifts nothing.
    written += 1;
    erp.execute("INSERT INTO FLAN VALUES (?1, 'v')", [written]).unwrap();
    until(|| accepted_rows(&stage.double, "FLAN") >= written as usize).await;
    assert!(stage.journal.parked().contains_key(&tmov), "it stays parked");
    assert_eq!(stage.journal.spool().borrow().dropped, limit as u64 + 1, "the first named no row");

    stage.double.seen().malformed = None;
    stage.journal.request_reload(Some(tmov.clone())).await.unwrap();
    until(|| accepted_rows(&stage.double, "TMOV") >= 300).await;
    assert!(stage.journal.quarantined(&tmov).await.unwrap().is_empty());
    capture.drain();
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn the_cursor_is_prepared_beside_the_last_writes_and_the_summary_waits_for_them() {
    let double = Double::start().await;
    double.script(3, Fault::Hang);
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 3).await;
    within(stage.double.until(|seen| !seen.prepared.is_empty())).await;
    let seen = stage.double.look();
    assert!(!seen.stored[&batch.0].contains_key(&3), "the last Write is not answered");
    assert!(seen.summaries.is_empty() && seen.committed.is_empty());
    stage.kill().await;
    stage.launch();
    stage.complete(batch).await;
    let seen = stage.double.look();
    assert_eq!(seen.committed, BTreeMap::from([("FLAN".to_owned(), b"cursor".to_vec())]));
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_restart_resumes_under_the_old_epoch_and_sends_the_same_bytes_again() {
    let double = Double::start().await;
    double.script(4, Fault::Hang);
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    let batch = stage.write(&grant, 5).await;
    within(stage.double.until(|seen| seen.script.is_empty())).await;
    stage.kill().await;
    stage.launch();
    stage.complete(batch).await;
    let seen = stage.double.look();
    assert_eq!((seen.opens, seen.conflicts, seen.epoch), (1, 0, grant.epoch.0));
    assert_eq!(seen.stored[&batch.0].len(), 5);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_process_that_died_before_it_knew_its_grant_is_followed_by_one_that_is_granted_at_once() {
    let double = Double::start().await;
    double.seen().lose_grant = true;
    let mut stage = Stage::start(double).await;
    within(stage.double.until(|seen| seen.nonce.is_some())).await;
    let first = stage.double.seen().nonce.clone();
    stage.kill().await;
    stage.launch();
    let grant = stage.grant(0).await;
    assert_eq!((grant.epoch, stage.double.seen().opens), (Epoch(2), 2), "no INSTANCE_TWICE");
    // From now on the lease is the new process's: whoever else uses the old nonce is found out.
    within(stage.double.until(|seen| seen.nonce != first)).await;
    let second = stage.double.seen().nonce.clone();
    let batch = stage.write(&grant, 2).await;
    stage.complete(batch).await;
    // A restart later knows its epoch and needs no nonce of before.
    stage.kill().await;
    stage.launch();
    stage.grant(0).await;
    within(stage.double.until(|seen| seen.nonce != second)).await;
    assert_eq!(stage.double.seen().opens, 2);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_process_that_died_twice_before_it_knew_its_grant_leaves_the_way_free_all_the_same() {
    let double = Double::start().await;
    double.seen().lose_grant = true;
    let mut stage = Stage::start(double).await;
    for opens in 1..=2u32 {
        within(stage.double.until(move |seen| seen.opens == opens)).await;
        stage.kill().await;
        stage.double.seen().lose_grant = opens == 1;
        // And the next one finds no server at first.
        stage.double.seen().away = 1;
        stage.launch();
    }
    assert_eq!(stage.grant(0).await.epoch, Epoch(3));
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn an_agent_whose_instance_runs_twice_says_so_and_when_it_tries_next() {
    let double = Double::start().await;
    double.seen().nonce = Some("another process".into());
    let mut stage = Stage::start(double).await;
    let link = stage.phase(LinkPhase::Refused).await;
    assert_eq!(link.code.as_deref(), Some("INSTANCE_TWICE"));
    assert!(link.hint.unwrap().contains("30 s"));
    let next = link.next_try.unwrap();
    assert!(next.ends_with('Z') && next.as_str() > "2026", "{next}");
    stage.double.seen().nonce = None;
    stage.grant(0).await;
    assert_eq!(stage.phase(LinkPhase::Sending).await.next_try, None);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_journal_whose_lease_is_another_s_now_drops_its_spool_and_learns_what_is_staged() {
    let double = Double::start().await;
    double.script(2, Fault::Hang);
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    stage.write(&grant, 3).await;
    within(stage.double.until(|seen| seen.script.is_empty())).await;
    stage.kill().await;
    stage.double.taken_over(vec![(KeyBytes::of(["77"]), RowHash([7; 16]))]);
    stage.launch();
    let next = stage.grant(grant.epoch.0).await;
    assert!(next.epoch.0 > grant.epoch.0 + 1);
    stage.learned("FLAN").await;
    assert_eq!(stage.known(&["77", "1"]).await, [Some(RowHash([7; 16])), None]);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_table_that_enters_the_plan_after_the_known_rows_were_lost_is_learned_then() {
    let double = Double::start().await;
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    stage.double.seen().planned = vec!["TMOV"];
    stage.planned(1).await;
    stage.kill().await;
    stage.double.taken_over(vec![(KeyBytes::of(["77"]), RowHash([7; 16]))]);
    stage.launch();
    stage.grant(grant.epoch.0).await;
    stage.learned("TMOV").await;
    assert!(!stage.double.seen().rows_asked.contains_key("FLAN"), "withdrawn: not asked for");

    stage.double.seen().planned = vec!["FLAN", "TMOV"];
    stage.learned("FLAN").await;
    assert_eq!(stage.known(&["77"]).await, [Some(RowHash([7; 16]))]);
    // Known now: coming back once more asks for nothing.
    let asked = stage.double.seen().rows_asked.clone();
    for planned in [vec!["TMOV"], vec!["FLAN", "TMOV"]] {
        let count = planned.len();
        stage.double.seen().planned = planned;
        stage.planned(count).await;
    }
    stage.learned("FLAN").await;
    assert_eq!(stage.double.seen().rows_asked, asked);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_standby_waits_for_the_lease_and_a_refused_agent_says_why() {
    let double = Double::start().await;
    double.hold(true);
    let mut stage = Stage::start(double).await;
    let link = stage.phase(LinkPhase::Standby).await;
    assert_eq!(link.code.as_deref(), Some("SESSION_HELD"));
    assert!(stage.journal.granted().borrow().is_none());
    stage.double.hold(false);
    stage.grant(0).await;
    stage.stop().await.unwrap();

    let double = Double::start().await;
    double.refuse("DATABASE_CHANGED");
    let mut stage = Stage::start(double).await;
    let link = stage.phase(LinkPhase::Refused).await;
    assert_eq!(link.code.as_deref(), Some("DATABASE_CHANGED"));
    assert!(link.hint.unwrap().contains("session accept"));
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_session_that_capture_gives_up_between_two_batches_is_followed_by_another_one() {
    let mut stage = Stage::start(Double::start().await).await;
    let first = stage.grant(0).await;
    stage
        .journal
        .drop_batch(Code::DatabaseChanged, "another file", runtime::clock::Wall(0))
        .await
        .unwrap();
    let second = stage.grant(first.epoch.0).await;
    let batch = stage.write(&second, 2).await;
    stage.complete(batch).await;
    assert_eq!(stage.double.seen().released, [first.epoch.0]);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn f41_a_lease_is_given_back_where_the_database_cannot_be_read_and_asked_for_again_later() {
    let mut stage = Stage::start(Double::start().await).await;
    let grant = stage.grant(0).await;
    let unread = |code| {
        let (since, words) = (runtime::clock::Mono::now(), "silent".to_owned());
        crate::journal::Unread { since, code, words }
    };
    // What ends in time is nothing.
    stage.journal.tell_unread(Some(unread(Code::SourceTimeout)));
    stage.journal.tell_unread(None);
    let mut link = stage.journal.link();
    let standby = link.wait_for(|state| state.phase == LinkPhase::Standby);
    assert!(tokio::time::timeout(stage.source_away * 2, standby).await.is_err(), "given back");
    assert!(stage.double.seen().released.is_empty());
    let begun = runtime::clock::Mono::now();
    stage.journal.tell_unread(Some(unread(Code::SourceUnreachable)));
    // The first of a row of failures counts.
    stage.journal.tell_unread(Some(unread(Code::SourceTimeout)));
    let link = stage.phase(LinkPhase::Standby).await;
    assert!(begun.elapsed() >= stage.source_away, "given back after {:?}", begun.elapsed());
    assert_eq!(link.code.as_deref(), Some("SOURCE_UNREACHABLE"));
    let mut granted = stage.journal.granted();
    within(granted.wait_for(|now| now.as_ref().is_none_or(|now| now.epoch != grant.epoch)))
        .await
        .unwrap();
    let again = stage.grant(0).await;
    assert!(again.epoch > grant.epoch);
    assert_eq!(stage.double.seen().released, [grant.epoch.0]);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_while_the_lease_may_have_lapsed() {
    let double = Double::start().await;
    double.seen().ttl = 6;
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    stage.double.seen().deaf = true;
    // The first failing renewal comes 2 s after the grant, 1 s after the last safe moment (6 s less 5 s).
    stage.phase(LinkPhase::Unreachable).await;
    let batch = stage.write(&grant, 3).await;
    within(stage.journal.spool().wait_for(|state| state.sealed)).await.unwrap();
    assert!(stage.double.seen().stored.is_empty());
    stage.double.seen().deaf = false;
    stage.complete(batch).await;
    assert_eq!(stage.double.seen().opens, 1, "the same session went on");
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_without_sessions_gets_one_write_at_a_time_and_the_journal_keeps_the_cursor() {
    let double = Double::foreign().await;
    let mut stage = Stage::start(double).await;
    let grant = stage.grant(0).await;
    assert!(stage.phase(LinkPhase::Sending).await.foreign_server);
    let batch = stage.write(&grant, 6).await;
    stage.complete(batch).await;
    assert_eq!(stage.double.seen().most_in_flight, 1);
    assert_eq!(stage.double.seen().epochs_seen, 0, "no epoch toward a server that knows none");
    stage.double.script(2, Fault::Conflict);
    let mut again = grant.clone();
    again.last_batch = batch;
    stage.write(&again, 3).await;
    let next = stage.grant(grant.epoch.0).await;
    assert_eq!(
        next.cursors[&table_name("FLAN")],
        b"cursor",
        "dropping the spool never loses the cursor"
    );
    assert!(next.last_batch > batch);
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn wrong_credentials_and_an_old_upload_version_are_shown_with_their_codes() {
    let double = Double::start().await;
    double.secret("other");
    let mut stage = Stage::start(double).await;
    let code = |code: &'static str| {
        move |state: &crate::journal::LinkState| state.code.as_deref() == Some(code)
    };
    let state =
        within(stage.journal.link().wait_for(code("INVALID_CLIENT"))).await.unwrap().clone();
    assert_eq!(state.phase, LinkPhase::Refused, "although no session was tried");
    assert!(state.since_micros.is_some());
    stage.stop().await.unwrap();

    let double = Double::start().await;
    double.upload_version(1);
    let mut stage = Stage::start(double).await;
    within(stage.journal.link().wait_for(code("UPLOAD_VERSION"))).await.unwrap();
    assert!(stage.journal.plan().await.unwrap().is_none());
    stage.double.upload_version(2);
    stage.grant(0).await;
    stage.stop().await.unwrap();
}
