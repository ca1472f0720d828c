//! Comparison over a real SQLite ERP and the real journal; cloud and capture are tasks of the test.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::{Mutex, PoisonError},
};

use protocol::{
    Error,
    hash::{RowHash, RowHasher},
    ids::{BatchId, Epoch},
    key::KeyBytes,
    limits,
    names::TableName,
};
use rusqlite::Connection;

use super::*;
use crate::{
    journal::{
        Grant, LinkState, Parked, Question, Stage, StagedPage, StagedSum, TableStatus, Told,
        key_hash,
    },
    source::{self, AnySource, Profile, SourceOptions},
};

type Staged = BTreeMap<KeyBytes, RowHash>;
type Change = Box<dyn FnOnce(&mut Staged) + Send>;

/// What the cloud has, what it was asked, and what happens while a round of capture runs.
#[derive(Default)]
struct Cloud {
    staged: Staged,
    /// Rows of each question for sums.
    sums: Vec<u64>,
    pages: usize,
    /// Rows of one page.
    page: usize,
    /// Questions whether anybody answers.
    calls: usize,
    rounds: VecDeque<Change>,
    away: Option<Code>,
}

struct World {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
    source: AnySource,
    journal: Journal,
    config: AgentConfig,
    cloud: Arc<Mutex<Cloud>>,
}

fn key(number: u32) -> KeyBytes {
    KeyBytes::of([number.to_string().as_str()])
}

fn hash(number: u32, value: &str) -> RowHash {
    let cells = [number.to_string(), value.to_owned()];
    let names = ["K", "V"].map(|name| name.parse().unwrap());
    RowHasher::new(&names).hash(|at| cells.get(at).map(String::as_str))
}

fn table() -> TableName {
    "T".parse().unwrap()
}

fn status(state: &str) -> TableStatus {
    let text = r#"{"table":"T","state":"","mode":"SNAPSHOT_DIFF","rowsSent":0,"deletesSent":0,"quarantined":0,
        "watermark":null,"lagMs":null,"heldBy":null,"degraded":null,"parked":null,"loaded":null}"#;
    TableStatus { state: state.into(), ..serde_json::from_str(text).unwrap() }
}

/// Answers as a server does, in small pages.
fn answer(cloud: &mut Cloud, question: Question) -> Result<Told> {
    if let Some(code) = cloud.away {
        return Err(Error::new(code, "away"));
    }
    Ok(match question {
        Question::Sums { span, bounds, .. } => {
            let mut sums = vec![StagedSum::default(); bounds.len() + 1];
            for (key, hash) in cloud.staged.iter().filter(|(key, _)| span.holds(key)) {
                let at = bounds.partition_point(|bound| bound <= key);
                sums[at].add(*hash);
            }
            cloud.sums.push(sums.iter().map(|sum| sum.count).sum());
            Told::Sums(sums)
        }
        Question::Rows { span, .. } if span.from == KeyBytes(vec![u8::MAX; 4]) => {
            cloud.calls += 1;
            Told::Rows(StagedPage::default())
        }
        Question::Rows { span, after, .. } => {
            cloud.pages += 1;
            let first = if after.0.is_empty() {
                Bound::Included(span.from.clone())
            } else {
                Bound::Excluded(after)
            };
            let rows = cloud.staged.range((first, Bound::Unbounded));
            let rows = rows.take_while(|(key, _)| span.holds(key)).take(cloud.page + 1);
            let mut rows: Vec<_> = rows.map(|(key, hash)| (key.clone(), *hash)).collect();
            let more = rows.len() > cloud.page;
            rows.truncate(cloud.page);
            Told::Rows(StagedPage { rows, more })
        }
    })
}

impl World {
    /// Rows 1 to 20, all of them staged and known.
    async fn new(filter: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erp.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch("CREATE TABLE T (K INTEGER PRIMARY KEY, V TEXT)").unwrap();
        for number in 1..=20 {
            db.execute("INSERT INTO T VALUES (?1, 'v')", [number]).unwrap();
        }
        let (journal, _) = Journal::open(&folder.path().join("agent")).await.unwrap();
        let query = serde_json::json!({"table": "T", "filter": filter, "forceReload": false});
        let plan = serde_json::json!({"uploadVersion": 2, "queries": [query]});
        journal.save_plan(serde_json::from_value(plan).unwrap()).await.unwrap();
        journal.save_status(vec![status("STREAMING")]).await.unwrap();
        let grant = Grant { epoch: Epoch(1), last_batch: BatchId(0), cursors: BTreeMap::default() };
        journal.grant(grant, Wall(0)).await.unwrap();
        let staged: Staged = (1..=20).map(|number| (key(number), hash(number, "v"))).collect();
        let known = staged.iter().map(|(key, hash)| (key.clone(), *hash)).collect();
        journal.known_load(&table(), known).await.unwrap();
        let url = format!("sqlite:{}", path.display());
        let source = source::connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
        let mut config = AgentConfig::default();
        config.capture.duty_percent = 100;
        let cloud = Arc::new(Mutex::new(Cloud { staged, page: 2, ..Cloud::default() }));
        let world = Self { _folder: folder, path, source, journal, config, cloud };
        world.serve();
        world
    }

    fn serve(&self) {
        let (journal, cloud) = (self.journal.clone(), Arc::clone(&self.cloud));
        drop(runtime::task::spawn("cloud", async move {
            while let Some(asked) = journal.asked().await {
                let question = asked.question.clone();
                let mut cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
                let told = answer(&mut cloud, question);
                asked.answer(told);
            }
        }));
        let (journal, cloud) = (self.journal.clone(), Arc::clone(&self.cloud));
        drop(runtime::task::spawn("capture", async move {
            loop {
                if let Some(number) = journal.round_of(&table()) {
                    let mut cloud = cloud.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(change) = cloud.rounds.pop_front() {
                        change(&mut cloud.staged);
                    }
                    journal.end_round(&table(), number);
                }
                clock::sleep(Duration::from_millis(5)).await;
            }
        }));
    }

    fn cloud<T>(&self, work: impl FnOnce(&mut Cloud) -> T) -> T {
        work(&mut self.cloud.lock().unwrap())
    }

    fn stage(&self, number: u32, value: Option<&str>) {
        self.cloud(|cloud| match value {
            Some(value) => cloud.staged.insert(key(number), hash(number, value)),
            None => cloud.staged.remove(&key(number)),
        });
    }

    fn each_round(&self, changes: Vec<Change>) {
        self.cloud(|cloud| cloud.rounds = changes.into());
    }

    async fn run(&self) -> Result<Outcome> {
        self.run_within(KeySpan::default()).await
    }

    async fn run_within(&self, span: KeySpan) -> Result<Outcome> {
        let origin = Origin::Person;
        let order = VerifyOrder { table: table(), origin, repair: false, span };
        let comparison = Comparison {
            source: &self.source,
            journal: &self.journal,
            config: &self.config,
            governor: &Governor::default(),
            id: 1,
            order: &order,
        };
        Box::pin(comparison.run()).await
    }
}

fn kinds(outcome: &Outcome) -> [u64; 3] {
    let found = outcome.found;
    [found.missing, found.extra, found.differing]
}

#[tokio::test]
async fn an_equal_table_costs_one_reading_and_one_question() {
    let world = World::new(None).await;
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.rows, outcome.ranges, kinds(&outcome)), (20, 1, [0; 3]));
    let asked = world.cloud(|cloud| (cloud.sums.clone(), cloud.pages, cloud.calls));
    assert_eq!(asked, (vec![20], 0, 1));
}

#[tokio::test]
async fn a_large_table_is_asked_for_in_parts_and_what_differs_in_any_of_them_is_found() {
    let world = World::new(None).await;
    let most = u32::try_from(limits::VERIFY_ASKED_ROWS).unwrap();
    let rows = most + most / 2;
    let db = Connection::open(&world.path).unwrap();
    db.execute(
        "WITH RECURSIVE n(i) AS (SELECT 21 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
         INSERT INTO T SELECT i, 'v' FROM n",
        [rows],
    )
    .unwrap();
    let more: Staged = (21..=rows).map(|number| (key(number), hash(number, "v"))).collect();
    let known = more.iter().map(|(key, hash)| (key.clone(), *hash)).collect();
    world.journal.known_load(&table(), known).await.unwrap();
    world.cloud(|cloud| {
        cloud.staged.extend(more);
        cloud.page = limits::RECONCILE_ROWS;
    });
    world.stage(5, None);
    world.stage(rows, Some("other"));
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome)), (u64::from(rows), [1, 0, 1]));
    let asked = world.cloud(|cloud| cloud.sums.clone());
    assert_eq!((asked.len(), asked.iter().sum::<u64>()), (2, u64::from(rows) - 1));
    assert!(asked.iter().all(|rows| *rows <= limits::VERIFY_ASKED_ROWS), "{asked:?}");
}

#[tokio::test]
async fn what_stays_different_after_a_round_counts_and_what_was_on_its_way_does_not() {
    let world = World::new(None).await;
    world.stage(1, None);
    world.stage(2, Some("other"));
    world.stage(99, Some("v"));
    // These three arrive, or go, while capture makes its round.
    world.stage(3, None);
    world.stage(4, Some("older"));
    world.stage(98, Some("v"));
    let arrive: Change = Box::new(|staged| {
        staged.insert(key(3), hash(3, "v"));
        staged.insert(key(4), hash(4, "v"));
        staged.remove(&key(98));
    });
    world.each_round(vec![arrive]);
    let outcome = world.run().await.unwrap();
    assert_eq!((kinds(&outcome), outcome.unsettled), ([1, 1, 1], 0));
}

#[tokio::test]
async fn a_row_that_changes_at_every_look_is_no_difference() {
    let world = World::new(None).await;
    world.stage(7, Some("0"));
    let change = |turn: u32| -> Change {
        Box::new(move |staged| {
            staged.insert(key(7), hash(7, &turn.to_string()));
        })
    };
    world.each_round((1..=9).map(change).collect());
    let outcome = world.run().await.unwrap();
    assert_eq!((kinds(&outcome), outcome.unsettled), ([0; 3], 1));
    // Two rounds later it rests, and then it counts.
    world.stage(7, Some("0"));
    world.each_round(vec![change(1)]);
    let outcome = world.run().await.unwrap();
    assert_eq!((kinds(&outcome), outcome.unsettled), ([0, 0, 1], 0));
}

#[tokio::test]
async fn a_bound_of_a_part_has_a_value_for_each_key_column() {
    let world = World::new(None).await;
    let two = KeyBytes::of(["1", "2"]);
    for span in [
        KeySpan { from: two.clone(), to: KeyBytes::default() },
        KeySpan { from: KeyBytes::default(), to: two },
    ] {
        let refused = world.run_within(span).await.unwrap_err();
        assert_eq!(refused.code, Code::BadRequest);
        assert!(refused.message.contains("2 values"), "{refused}");
    }
}

#[tokio::test]
async fn a_part_of_a_table_is_compared_by_the_bytes_of_its_keys_alone() {
    let world = World::new(None).await;
    for number in [2, 5, 8] {
        world.stage(number, Some("other"));
    }
    // One digit sorts before two.
    let span = KeySpan { from: key(4), to: key(8) };
    let outcome = world.run_within(span).await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome)), (4, [0, 0, 1]));
    let span = KeySpan { from: key(8), to: KeyBytes::default() };
    let outcome = world.run_within(span).await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome)), (13, [0, 0, 1]));
}

#[tokio::test]
async fn a_filter_explains_rows_that_were_never_sent_and_no_row_that_is_staged() {
    let world = World::new(Some("K > 10")).await;
    (1..=5).for_each(|number| world.stage(number, None));
    world.journal.known_clear(&table()).await.unwrap();
    let known = world.cloud(|cloud| cloud.staged.clone());
    world.journal.known_load(&table(), known.into_iter().collect()).await.unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome)), (15, [0; 3]));
    assert_eq!(world.cloud(|cloud| cloud.pages), 0, "what is known outside the filter is summed");
    world.stage(6, Some("other"));
    world.stage(7, None);
    world.stage(12, None);
    let outcome = world.run().await.unwrap();
    assert_eq!(kinds(&outcome), [1, 0, 1], "7 lies outside the filter");
}

#[tokio::test]
async fn rows_that_have_an_incident_of_their_own_are_told_apart() {
    let world = World::new(None).await;
    world.stage(3, None);
    world.stage(4, None);
    let incident = crate::journal::Incident {
        table: Some(table()),
        key_hash: Some(key_hash(&key(3))),
        code: Code::RowTooLarge,
        words: "w".into(),
        at_micros: 0,
    };
    world.journal.incident(incident).await.unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((kinds(&outcome), outcome.skipped), ([1, 0, 0], 1));
}

#[tokio::test]
async fn rows_that_cannot_travel_are_told_although_no_sum_differs() {
    let world = World::new(None).await;
    let erp = Connection::open(&world.path).unwrap();
    // One that was never staged, and one whose image before is.
    erp.execute_batch("INSERT INTO T VALUES (50, CAST(x'ff' AS TEXT))").unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome), outcome.skipped), (20, [0; 3], 1));
    assert_eq!(world.cloud(|cloud| cloud.pages), 0, "the sums are alike");
    erp.execute_batch("UPDATE T SET V = CAST(x'ff' AS TEXT) WHERE K = 3").unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((outcome.rows, kinds(&outcome), outcome.skipped), (19, [0; 3], 2));
    let span = KeySpan { from: key(4), to: KeyBytes::default() };
    assert_eq!(world.run_within(span).await.unwrap().skipped, 1, "3 lies outside the part");
    // Gone while its incident is open: it is told as one that has it.
    let incident = crate::journal::Incident {
        table: Some(table()),
        key_hash: Some(key_hash(&key(3))),
        code: Code::ValueUnfit,
        words: "w".into(),
        at_micros: 0,
    };
    world.journal.incident(incident).await.unwrap();
    assert_eq!(world.run().await.unwrap().skipped, 2, "no row is counted twice");
    erp.execute_batch("DELETE FROM T WHERE K = 3").unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!((kinds(&outcome), outcome.skipped), ([0; 3], 2));
}

#[tokio::test]
async fn a_table_whose_columns_changed_is_described_anew() {
    let world = World::new(None).await;
    let outcome = world.run().await.unwrap();
    assert_eq!(kinds(&outcome), [0; 3]);
    let db = Connection::open(&world.path).unwrap();
    db.execute_batch("ALTER TABLE T ADD COLUMN W TEXT").unwrap();
    let outcome = world.run().await.unwrap();
    assert_eq!(kinds(&outcome), [0; 3], "NULL in all rows is no difference");
}

#[tokio::test]
async fn without_an_answer_there_is_no_number_and_the_erp_is_not_read() {
    let world = World::new(None).await;
    world.stage(1, None);
    world.cloud(|cloud| cloud.away = Some(Code::PermissionDenied));
    // Whoever reads it learns that it is not there.
    let db = Connection::open(&world.path).unwrap();
    db.execute_batch("ALTER TABLE T RENAME TO gone").unwrap();
    assert_eq!(world.run().await.unwrap_err().code, Code::PermissionDenied);
    world.cloud(|cloud| cloud.away = Some(Code::VersionUnsupported));
    assert_eq!(world.run().await.unwrap_err().code, Code::VersionUnsupported);
    let (code, words) = (Some("INVALID_CLIENT".into()), Some("revoked".into()));
    let refused = LinkState { phase: LinkPhase::Refused, code, words, ..LinkState::default() };
    world.journal.set_link(refused);
    assert_eq!(world.run().await.unwrap_err().code, Code::InvalidClient);
    world.journal.set_link(LinkState::default());
    world.cloud(|cloud| cloud.away = None);
    assert_eq!(world.run().await.unwrap_err().code, Code::TableMissing);
}

#[tokio::test]
async fn a_table_that_capture_does_not_keep_equal_now_is_refused_with_the_reason() {
    let world = World::new(None).await;
    let refused = async || {
        let error = world.run().await.unwrap_err();
        (error.code, error.message)
    };
    let journal = &world.journal;
    journal.save_status(vec![status("RELOAD")]).await.unwrap();
    let (code, words) = refused().await;
    assert!(code == Code::TableNotReady && words.contains("RELOAD"), "{words}");
    journal.save_status(Vec::new()).await.unwrap();
    assert_eq!(refused().await.0, Code::TableNotReady);
    let parked = Some(("SOURCE_RIGHTS".to_owned(), "SELECT is missing".to_owned()));
    journal.save_status(vec![TableStatus { parked, ..status("PARKED") }]).await.unwrap();
    assert_eq!(refused().await, (Code::SourceRights, "SELECT is missing".to_owned()));
    journal.save_status(vec![status("STREAMING")]).await.unwrap();
    journal.halt(None, crate::journal::Halt::new("ana", "", Wall(0))).await.unwrap();
    assert_eq!(refused().await.0, Code::TableNotReady);
    journal.lift_halts().await.unwrap();
    let refusal = Parked {
        code: Code::PrimaryKeyChanged,
        words: "another key".into(),
        retry: None,
        schema: None,
    };
    journal.park(&table(), refusal, Wall(0)).await.unwrap();
    assert_eq!(refused().await.0, Code::PrimaryKeyChanged);
    journal.unpark(&table());
    let code = Some("SESSION_HELD".into());
    journal.set_link(LinkState { phase: LinkPhase::Standby, code, ..LinkState::default() });
    assert_eq!(refused().await.0, Code::SessionHeld);
    journal.set_link(LinkState::default());
    assert_eq!(kinds(&world.run().await.unwrap()), [0; 3]);
}

#[tokio::test]
async fn orders_are_run_one_after_the_other_and_the_drain_leaves_the_rest_for_the_next_start() {
    let world = World::new(None).await;
    world.stage(1, None);
    let ask = async |repair: bool| {
        let (table, origin) = (table(), Origin::Person);
        let order = VerifyOrder { table, origin, repair, span: KeySpan::default() };
        world.journal.order_verify(order, Wall::now()).await.unwrap().unwrap()
    };
    let ids = [ask(false).await, ask(false).await];
    let url = format!("sqlite:{}", world.path.display());
    let source = source::connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let (trigger, drain) = runtime::shutdown::channel();
    let config = Arc::new(world.config.clone());
    let verifier = Verifier::new(Arc::new(source), world.journal.clone(), config, drain);
    let running = runtime::task::spawn("verify", verifier.run());
    for id in ids {
        let done = async {
            loop {
                let one = world.journal.verification(id).await.unwrap().unwrap();
                if one.is_over() {
                    return one;
                }
                clock::sleep(Duration::from_millis(10)).await;
            }
        };
        let one = tokio::time::timeout(Duration::from_secs(20), done).await.unwrap();
        assert_eq!(one.outcome.unwrap().found.missing, 1);
    }
    // A repair waits for capture, which this test does not have.
    let waits = ask(true).await;
    let begun = async {
        while world.journal.is_repaired(&table()) {
            clock::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), begun).await.unwrap();
    trigger.drain();
    running.join().await.unwrap().unwrap();
    let one = world.journal.verification(waits).await.unwrap().unwrap();
    assert_eq!(one.stage, Stage::Running, "it runs again");
    assert_eq!(world.journal.repairs(&table(), None, 9).await.unwrap(), [key(1)]);
}

#[tokio::test]
async fn a_run_that_was_missed_is_made_up_for_some_minutes_behind_the_start() {
    let world = World::new(None).await;
    let at = |iso: &str| Wall(iso.parse::<jiff::Timestamp>().unwrap().as_microsecond());
    let text = "verify = { spread_minutes = 0 }\ncapture = { zone = 'UTC' }";
    let timetable = Timetable::of(&toml::from_str(text).unwrap()).unwrap();
    let due = |last: &str, started: &str| due(&timetable, 0.0, (at(last), at(started)));
    let told = |due: Option<Wall>| due.unwrap().to_iso();
    let (evening, morning) = ("2026-03-01T20:00:00Z", "2026-03-02T08:00:00Z");
    assert_eq!(told(due(evening, morning)), "2026-03-02T08:10:00Z", "the night was missed");
    assert_eq!(told(due("2026-03-02T02:00:00Z", morning)), "2026-03-03T02:00:00Z");
    let early = "2026-03-02T01:55:00Z";
    assert_eq!(told(due(early, early)), "2026-03-02T02:00:00Z", "a first start");
    assert_eq!(told(due("2026-02-01T02:00:00Z", early)), "2026-03-02T02:00:00Z", "which is nearer");
    assert_eq!(
        told(due("2027-01-01T00:00:00Z", morning)),
        "2026-03-03T02:00:00Z",
        "clock set back"
    );
    // The first start is remembered, and each run.
    let (first, later) = (at(evening), at(morning));
    assert_eq!(world.journal.last_round(first).await.unwrap(), first);
    assert_eq!(world.journal.last_round(later).await.unwrap(), first);
    world.journal.note_round(later).await.unwrap();
    assert_eq!(world.journal.last_round(first).await.unwrap(), later);
}

#[tokio::test]
async fn by_night_every_table_that_is_streamed_is_ordered_once_and_none_by_a_standby() {
    let world = World::new(None).await;
    let plan = r#"{"uploadVersion":2,"queries":[{"table":"T","filter":null,"forceReload":false},
                   {"table":"U","filter":null,"forceReload":false}]}"#;
    world.journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    let loading = TableStatus { table: "U".parse().unwrap(), ..status("BASE_LOAD") };
    world.journal.save_status(vec![status("STREAMING"), loading]).await.unwrap();
    let url = format!("sqlite:{}", world.path.display());
    let source = source::connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let (_trigger, drain) = runtime::shutdown::channel();
    let config = Arc::new(world.config.clone());
    let verifier = Verifier::new(Arc::new(source), world.journal.clone(), config, drain);
    world.journal.set_link(LinkState { phase: LinkPhase::Standby, ..LinkState::default() });
    verifier.order_all().await.unwrap();
    assert_eq!(world.journal.verifications(9).await.unwrap(), []);
    world.journal.set_link(LinkState::default());
    for _night in 0..2 {
        verifier.order_all().await.unwrap();
        let all = world.journal.verifications(9).await.unwrap();
        let told: Vec<_> = all.iter().map(|one| (one.table.as_str(), one.origin)).collect();
        assert_eq!(told, [("T", Origin::Schedule)]);
    }
}
