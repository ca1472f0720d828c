//! The worker against a real SQLite ERP and the real journal; the cloud is a test that accepts or drops batches.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prost::Message as _;
use protocol::{
    Code,
    hash::RowHasher,
    ids::{BatchId, Epoch, MessageNumber},
    json::{Entities, EntityQuery},
    key::KeyBytes,
    limits,
    names::TableName,
    proto::totvs::Table,
};
use runtime::{
    clock::{Mono, Wall},
    shutdown,
    task::Task,
};
use rusqlite::Connection;

use super::{Worker, room::Room};
use crate::{
    config::{AgentConfig, CaptureConfig, Deletes},
    journal::{
        Answer, CappedDeletes, Grant, Journal, Parked, Poisoned, Retry, Seal, TableStatus, Verdict,
        schema_mark,
    },
    source::{self, Profile, SourceOptions},
};

mod asking;
mod halting;
mod masking;
mod retrying;
mod timing;

type Rows = BTreeMap<String, BTreeMap<String, String>>;

/// What a cloud would have staged of one table, and the batches it took.
struct World {
    _folder: tempfile::TempDir,
    path: PathBuf,
    journal: Journal,
    config: AgentConfig,
    profile: Profile,
    table: TableName,
    cursors: BTreeMap<TableName, Vec<u8>>,
    epoch: u64,
    last: BatchId,
    running: Option<(shutdown::Trigger, Task<protocol::Result<()>>)>,
    /// Free bytes as the worker reads them, and how often it did.
    free: Arc<AtomicU64>,
    looks: Arc<AtomicU64>,
    staged: Rows,
    base_rows: usize,
    deletes: usize,
    loads_done: usize,
}

impl World {
    async fn new(ddl: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erp.db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "wal").unwrap();
        db.execute_batch(ddl).unwrap();
        let (journal, _) = Journal::open(&folder.path().join("agent")).await.unwrap();
        let capture = CaptureConfig {
            cycle_seconds: 0,
            key_scan_seconds: 0,
            duty_percent: 100,
            deletes: Deletes::Capped,
            ..CaptureConfig::default()
        };
        let config = AgentConfig { capture, ..AgentConfig::default() };
        Self {
            _folder: folder,
            path,
            journal,
            config,
            profile: Profile::Generic,
            table: "T".parse().unwrap(),
            cursors: BTreeMap::new(),
            epoch: 0,
            last: BatchId(0),
            running: None,
            free: Arc::new(AtomicU64::new(u64::MAX)),
            looks: Arc::default(),
            staged: Rows::new(),
            base_rows: 0,
            deletes: 0,
            loads_done: 0,
        }
    }

    fn sql(&self, sql: &str) {
        let db = Connection::open(&self.path).unwrap();
        db.busy_timeout(Duration::from_secs(10)).unwrap();
        db.execute_batch(sql).unwrap();
    }

    async fn plan(&self, change: impl FnOnce(&mut EntityQuery)) {
        self.plan_also(&[], change).await;
    }

    /// With further tables.
    async fn plan_also(&self, others: &[&str], change: impl FnOnce(&mut EntityQuery)) {
        let mut query = EntityQuery {
            table: self.table.clone(),
            filter: None,
            force_reload: false,
            reload_generation: None,
            is_native: true,
            is_custom: false,
            metadata: None,
        };
        change(&mut query);
        let named = |name: &&str| EntityQuery { table: name.parse().unwrap(), ..query.clone() };
        let queries = [query.clone()].into_iter().chain(others.iter().map(named)).collect();
        let plan = Entities { upload_version: 2, upload_version_info: String::new(), queries };
        self.journal.save_plan(plan).await.unwrap();
    }

    /// A new process of the agent with the session's cursors; what the old one held in memory is gone.
    async fn start(&mut self) {
        self.stop().await;
        self.epoch += 1;
        let grant = Grant {
            epoch: Epoch(self.epoch),
            last_batch: self.last,
            cursors: self.cursors.clone(),
        };
        self.journal.grant(grant, Wall(0)).await.unwrap();
        let url = format!("sqlite:{}", self.path.display());
        let source =
            source::connect(&url, self.profile.clone(), &SourceOptions::default()).unwrap();
        let (trigger, drain) = shutdown::channel();
        let config = Arc::new(self.config.clone());
        let mut worker = Worker::new(
            Arc::new(source),
            self.journal.clone(),
            config,
            "RM".parse().unwrap(),
            drain,
        );
        let (free, looks) = (Arc::clone(&self.free), Arc::clone(&self.looks));
        worker.room = Room::by(move || {
            looks.fetch_add(1, Ordering::Relaxed);
            Some(free.load(Ordering::Relaxed))
        });
        self.running = Some((trigger, runtime::task::spawn("worker", worker.run())));
    }

    /// Waits for a status of the table.
    async fn status(&self, is: impl Fn(&TableStatus) -> bool) -> TableStatus {
        self.status_of(self.table.as_str(), is).await
    }

    async fn status_of(&self, table: &str, is: impl Fn(&TableStatus) -> bool) -> TableStatus {
        let table: TableName = table.parse().unwrap();
        let looking = async {
            loop {
                let found = self.journal.statuses().await.unwrap();
                if let Some(status) = found.into_iter().find(|s| s.table == table && is(s)) {
                    return status;
                }
                runtime::clock::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), looking).await {
            Ok(status) => status,
            Err(_) => panic!("it is not told: {:?}", self.journal.statuses().await),
        }
    }

    /// Waits until that many deletes are above the cap, so answered.
    async fn capped(&self, rows: u64, answer: Answer) -> CappedDeletes {
        let looking = async {
            loop {
                let found = self.journal.capped().get(&self.table).copied();
                match found.filter(|found| (found.rows, found.answer) == (rows, answer)) {
                    Some(found) => return found,
                    None => runtime::clock::sleep(Duration::from_millis(10)).await,
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), looking).await {
            Ok(found) => found,
            Err(_) => panic!("not {rows} {answer:?}: {:?}", self.journal.capped()),
        }
    }

    /// Waits until nothing is above the cap.
    async fn settled(&self) {
        let looking = async {
            while !self.journal.capped().is_empty() {
                runtime::clock::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), looking).await.expect("it is settled");
    }

    async fn stop(&mut self) {
        if let Some((trigger, task)) = self.running.take() {
            trigger.drain();
            task.join().await.unwrap().unwrap();
        }
    }

    /// Takes what is spooled until the batch is sealed, as uplink does.
    async fn sealed(&self) -> (BatchId, Seal, Vec<Table>) {
        match tokio::time::timeout(Duration::from_secs(30), self.take()).await {
            Ok(taken) => taken,
            Err(_) => {
                let (state, told) =
                    (self.journal.statuses().await, self.journal.incidents(3).await);
                panic!("no batch comes: {state:?} {told:?}");
            }
        }
    }

    async fn take(&self) -> (BatchId, Seal, Vec<Table>) {
        let mut spool = self.journal.spool();
        let mut tables = Vec::new();
        loop {
            let got = i32::try_from(tables.len()).unwrap();
            let state = spool
                .wait_for(|s| s.batch.is_some() && (s.sealed || s.appended.cast_signed() > got));
            let id = state.await.unwrap().batch.unwrap();
            let messages = self.journal.unacked(id, MessageNumber(got), usize::MAX).await.unwrap();
            tables.extend(messages.iter().map(|m| Table::decode(m.bytes.clone()).unwrap()));
            self.journal.acked(id, messages.iter().map(|m| m.number).collect()).await.unwrap();
            if let Some(seal) = self.journal.sealed(id).await.unwrap()
                && seal.messages as usize == tables.len()
            {
                return (id, seal, tables);
            }
        }
    }

    fn stage(&mut self, tables: &[Table]) {
        for table in tables {
            let key = &table.schema.as_ref().unwrap().primary_key.as_ref().unwrap().columns;
            for row in &table.rows {
                let mut cells: BTreeMap<String, String> =
                    row.columns.iter().map(|c| (c.name.clone(), c.value.clone())).collect();
                let deleted = cells.remove("DELETED").is_some();
                // The form of a stamp is the source's own affair.
                cells.remove("S");
                let key: Vec<&str> = key.iter().map(|name| cells[name].as_str()).collect();
                let key = key.join("|");
                self.base_rows += usize::from(table.is_base_load);
                if deleted {
                    self.deletes += 1;
                    assert_eq!(cells.len(), 1, "a deleted row carries its key alone");
                    self.staged.remove(&key);
                } else {
                    self.staged.insert(key, cells);
                }
            }
        }
    }

    /// Stages the next batch and accepts it.
    async fn accept(&mut self) -> Seal {
        let (id, seal, tables) = self.sealed().await;
        assert!(id > self.last);
        let rows: usize = tables.iter().map(|table| table.rows.len()).sum();
        assert_eq!((seal.messages as usize, seal.records as usize), (tables.len(), rows));
        self.stage(&tables);
        self.last = id;
        self.cursors.extend(seal.cursors.clone());
        self.loads_done += seal.loads_done.len();
        self.journal.complete(id, Wall(0)).await.unwrap();
        seal
    }

    /// The source's rows, by key.
    fn source(&self, query: &str) -> Rows {
        let db = Connection::open(&self.path).unwrap();
        let mut statement = db.prepare(query).unwrap();
        let names: Vec<String> = statement.column_names().into_iter().map(str::to_owned).collect();
        let mut rows = statement.query([]).unwrap();
        let mut out = Rows::new();
        while let Some(row) = rows.next().unwrap() {
            let cells: BTreeMap<String, String> = names
                .iter()
                .enumerate()
                .filter_map(|(at, name)| {
                    Some((name.clone(), row.get::<_, Option<String>>(at).unwrap()?))
                })
                .collect();
            out.insert(cells[&names[0]].clone(), cells);
        }
        out
    }

    async fn parked(&self, by: &str) {
        let parked = async {
            loop {
                let found = self.journal.statuses().await.unwrap().into_iter();
                if let Some((code, _)) = found.filter_map(|status| status.parked).next() {
                    return code;
                }
                runtime::clock::sleep(Duration::from_millis(20)).await;
            }
        };
        let code = tokio::time::timeout(Duration::from_secs(20), parked).await.unwrap();
        assert_eq!(code, by);
    }

    async fn until_equal(&mut self, query: &str) {
        for _batch in 0..50 {
            if self.staged == self.source(query) {
                return;
            }
            self.accept().await;
        }
        assert_eq!(self.staged, self.source(query));
    }
}

const STAMPED: &str = "CREATE TABLE T (K INTEGER PRIMARY KEY, V TEXT, S TEXT NOT NULL);
    CREATE INDEX TS ON T (S);";
const PLAIN: &str = "CREATE TABLE T (K INTEGER PRIMARY KEY, V TEXT);";
const ALL: &str = "SELECT CAST(K AS TEXT) AS K, V FROM T";

fn fill(rows: usize, with: &str) -> String {
    format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
        INSERT INTO T SELECT i, 'v' || i {with} FROM n;"
    )
}

async fn stamped(rows: usize) -> World {
    let mut world = World::new(STAMPED).await;
    let table = crate::config::TableConfig {
        stamp: Some("S".parse().unwrap()),
        types: [("S".parse().unwrap(), "timestamp".to_owned())].into(),
        ..Default::default()
    };
    world.config.tables.insert("T".parse().unwrap(), table);
    world.sql(&fill(rows, ", '2024-01-01 00:00:00'"));
    world
}

#[tokio::test]
async fn a_table_with_a_stamp_is_loaded_then_changes_and_deletes_follow() {
    let mut world = stamped(1_500).await;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    assert_eq!(world.loads_done, 1);
    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K <= 3; DELETE FROM T WHERE K = 9;");
    world.until_equal(ALL).await;
    assert_eq!((world.base_rows, world.deletes), (1_500, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_table_without_stamp_is_compared_and_only_what_changed_is_sent() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(700, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("UPDATE T SET V = NULL WHERE K = 1; INSERT INTO T VALUES (9000, ''); DELETE FROM T WHERE K = 2;");
    world.until_equal(ALL).await;
    assert_eq!((world.base_rows, world.deletes), (700, 1));
    world.stop().await;
}

#[tokio::test]
async fn f17_a_base_load_that_is_cut_goes_on_where_the_last_accepted_batch_ended() {
    let mut world = stamped(60_000).await;
    world.plan(|_| {}).await;
    // One row needs a message of its own size, so that a batch is full long before the table ends.
    world.sql("UPDATE T SET V = hex(zeroblob(700))");
    world.start().await;
    world.accept().await;
    let first = world.base_rows;
    assert!(first < 60_000, "the load was cut: {first}");
    world.sealed().await;
    world.start().await;
    world.until_equal(ALL).await;
    assert_eq!(world.base_rows, 60_000, "no chunk comes twice, none is left out");
    assert_eq!(world.loads_done, 1);
    world.stop().await;
}

#[tokio::test]
async fn rows_of_a_chunk_that_was_read_ahead_do_not_come_after_what_they_became() {
    let mut world = stamped(60_000).await;
    world.plan(|_| {}).await;
    world.sql("UPDATE T SET V = hex(zeroblob(700))");
    world.start().await;
    let (id, seal, tables) = world.sealed().await;
    world.stage(&tables);
    let next = world.base_rows + 1;
    assert!(next < 60_000, "the load was cut: {next}");
    // The next chunk is being read, or was; the batch is not accepted yet.
    let now = "S = strftime('%Y-%m-%d %H:%M:%f')";
    for round in 0..20 {
        let (changed, gone) = (next + 10 * round, next + 10 * round + 1);
        world.sql(&format!(
            "UPDATE T SET V = 'new', {now} WHERE K = {changed}; DELETE FROM T WHERE K = {gone};"
        ));
    }
    world.last = id;
    world.cursors.extend(seal.cursors);
    world.journal.complete(id, Wall(0)).await.unwrap();
    world.until_equal(ALL).await;
    assert_eq!(world.loads_done, 1);
    world.stop().await;
}

#[tokio::test]
async fn a_dropped_batch_is_read_again_from_the_grant() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(300, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.sealed().await;
    world.journal.drop_batch(Code::SequenceGap, "a test", Wall(0)).await.unwrap();
    world.epoch += 1;
    let grant =
        Grant { epoch: Epoch(world.epoch), last_batch: BatchId(5), cursors: BTreeMap::new() };
    world.journal.grant(grant, Wall(0)).await.unwrap();
    world.until_equal(ALL).await;
    assert_eq!(world.base_rows, 300);
    world.stop().await;
}

#[tokio::test]
async fn f29_a_table_that_vanishes_is_left_alone_until_a_person_says_so() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(1_000, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("DELETE FROM T WHERE K > 1");
    world.capped(999, Answer::Waiting).await;
    assert_eq!(world.staged.len(), 1_000);
    world.stop().await;
    world.config.capture.deletes = Deletes::Always;
    world.start().await;
    world.until_equal(ALL).await;
    assert_eq!(world.deletes, 999);
    world.stop().await;
}

fn verdict(answer: Answer, rows: Option<u64>) -> Verdict {
    Verdict { table: "T".parse().unwrap(), answer, rows, dry_run: false }
}

#[tokio::test]
async fn f29_deletes_above_the_cap_go_once_a_person_confirmed_their_number_and_the_next_ask_again()
{
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(2_500, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("DELETE FROM T WHERE K > 1000");
    let since = world.capped(1_500, Answer::Waiting).await.since_micros;
    let told = world.journal.incidents(9).await.unwrap();
    assert_eq!(
        (told.len(), told[0].code),
        (1, Code::DeletesCapped),
        "one incident, however often it is counted"
    );

    let other = world.journal.answer_deletes(verdict(Answer::Confirmed, Some(1_499))).await;
    assert_eq!(other.unwrap_err().code, Code::DeletesCapped, "not the number that was seen");
    let mut dry = verdict(Answer::Confirmed, Some(1_500));
    dry.dry_run = true;
    world.journal.answer_deletes(dry).await.unwrap();
    assert_eq!(world.journal.capped()[&world.table].answer, Answer::Waiting, "only looked at");

    // More are gone by the time the confirmation is seen: it does not hold for them.
    world.stop().await;
    world.journal.answer_deletes(verdict(Answer::Confirmed, Some(1_500))).await.unwrap();
    world.sql("DELETE FROM T WHERE K > 900");
    world.start().await;
    let asked = world.capped(1_600, Answer::Waiting).await;
    assert!(asked.since_micros > since, "asked anew");
    assert_eq!(world.staged.len(), 2_500);

    world.journal.answer_deletes(verdict(Answer::Confirmed, None)).await.unwrap();
    world.until_equal(ALL).await;
    assert_eq!(world.deletes, 1_600);
    assert!(world.journal.capped().is_empty(), "settled with the batch: it holds once");
    assert!(world.journal.incidents(9).await.unwrap().is_empty(), "mended");

    // It held once.
    world.sql("DELETE FROM T WHERE K > 100");
    world.capped(800, Answer::Waiting).await;
    assert_eq!(world.staged.len(), 900);
    world.stop().await;
}

#[tokio::test]
async fn f29_a_confirmation_outlives_a_dropped_batch_and_a_new_process() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(1_000, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("DELETE FROM T WHERE K > 1");
    world.capped(999, Answer::Waiting).await;
    world.journal.answer_deletes(verdict(Answer::Confirmed, Some(999))).await.unwrap();
    world.sealed().await;
    world.journal.drop_batch(Code::SequenceGap, "a test", Wall(0)).await.unwrap();
    assert_eq!(world.journal.capped()[&world.table].answer, Answer::Confirmed);
    world.stop().await;
    let gone = Journal::open(&world._folder.path().join("none")).await.unwrap().0;
    drop(std::mem::replace(&mut world.journal, gone));
    world.journal = Journal::open(&world._folder.path().join("agent")).await.unwrap().0;
    assert_eq!(world.journal.capped()[&world.table].rows, 999);
    world.start().await;
    world.until_equal(ALL).await;
    world.settled().await;
    world.stop().await;
}

#[tokio::test]
async fn f29_refused_deletes_stay_until_a_larger_number_asks_again_and_returned_rows_end_it() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(1_000, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("DELETE FROM T WHERE K > 300");
    world.capped(700, Answer::Waiting).await;
    world.journal.answer_deletes(verdict(Answer::Refused, None)).await.unwrap();
    assert!(world.journal.incidents(9).await.unwrap().is_empty(), "a person looked");
    world.stop().await;
    world.sql("DELETE FROM T WHERE K > 200");
    world.start().await;
    world.capped(800, Answer::Waiting).await;
    assert_eq!(world.journal.incidents(9).await.unwrap().len(), 1);
    // The person finds that they were taken by mistake.
    world.sql("DELETE FROM T");
    world.sql(&fill(1_000, ""));
    world.stop().await;
    world.start().await;
    world.settled().await;
    assert_eq!((world.staged.len(), world.deletes), (1_000, 0));
    assert!(world.journal.incidents(9).await.unwrap().is_empty());
    world.stop().await;
}

fn parked(code: Code, schema: Option<u64>) -> Parked {
    let due = Mono::now() + Duration::from_secs(3_600);
    let retry = Some(Retry { due, at: Wall(1_800_000_000_000_000) });
    Parked { code, words: "no right".into(), retry, schema }
}

#[tokio::test]
async fn a_parked_table_shows_its_next_try_and_goes_on_as_soon_as_it_is_tried() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(10, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.journal.park(&world.table, parked(Code::PermissionDenied, None), Wall(0)).await.unwrap();
    let told = world.status(|status| status.state == "PARKED").await;
    assert_eq!(told.parked.unwrap().0, "PERMISSION_DENIED");
    assert_eq!(told.next_try.as_deref(), Some("2027-01-15T08:00:00Z"));
    world.sql("INSERT INTO T VALUES (99, 'x')");
    world.journal.try_again(&world.table);
    // Far below the minute after which capture tries what it parked itself.
    let begun = Mono::now();
    world.until_equal(ALL).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    world.stop().await;
}

#[tokio::test]
async fn a_table_on_trial_shares_no_batch_with_the_others_and_keeps_none_of_them_waiting() {
    let mut world =
        World::new(&format!("{PLAIN} CREATE TABLE U (K INTEGER PRIMARY KEY, V TEXT)")).await;
    world.sql(&fill(10, ""));
    world.plan_also(&["U"], |_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.status_of("U", |status| status.state == "STREAMING").await;
    world.journal.park(&world.table, parked(Code::PermissionDenied, None), Wall(0)).await.unwrap();
    world.status(|status| status.state == "PARKED").await;
    world.sql("UPDATE T SET V = 'new'; INSERT INTO U VALUES (1, 'new')");
    world.journal.try_again(&world.table);
    let mut names = Vec::new();
    for _batch in 0..2 {
        let (id, _, tables) = world.sealed().await;
        names.extend(tables.iter().map(|table| table.table_name.clone()));
        world.journal.complete(id, Wall(0)).await.unwrap();
    }
    names.sort();
    assert_eq!(names, ["T", "U"], "one message in each batch");
    assert!(world.journal.alone().is_empty(), "accepted once, it is one among the others");
    world.stop().await;
}

#[tokio::test]
async fn a_table_refused_for_its_schema_is_tried_again_under_another_one_with_its_refused_rows() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(5, ""));
    world.plan(|_| {}).await;
    world.start().await;
    let (id, _, tables) = world.sealed().await;
    let schema = tables[0].schema.clone().unwrap();
    let mark = schema_mark(
        schema.columns.iter().map(|column| (column.name.as_str(), column.r#type.as_str())),
        schema.primary_key.iter().flat_map(|key| key.columns.iter().map(String::as_str)),
    );
    // As uplink does with a row that is refused alone, and the next one, until it is enough.
    let poisoned = Poisoned {
        table: world.table.clone(),
        key: KeyBytes::of(["1"]),
        hash: RowHasher::new(&["K", "V"].map(|name| name.parse().unwrap()))
            .hash(|at| Some(["1", "v1"][at])),
        code: Code::InvalidArgument,
        words: "refused".into(),
        at_micros: 0,
    };
    let key_hash = crate::journal::key_hash(&KeyBytes::of(["1"]));
    world.journal.quarantine(poisoned, key_hash, 0).await.unwrap();
    let refused = parked(Code::InvalidArgument, Some(mark));
    world.journal.park(&world.table, refused, Wall(0)).await.unwrap();
    world.journal.drop_batch(Code::InvalidArgument, "a test", Wall(0)).await.unwrap();
    world.last = id;
    world.start().await;
    let told = world.status(|status| status.state == "PARKED" && status.quarantined > 0).await;
    assert_eq!((told.parked.unwrap().0.as_str(), told.quarantined), ("INVALID_ARGUMENT", 1));
    assert!(world.journal.parked().contains_key(&world.table), "the schema is the refused one");
    world.stop().await;
    world.sql("ALTER TABLE T ADD COLUMN W TEXT");
    world.start().await;
    world.until_equal(ALL).await;
    assert!(world.journal.quarantined(&world.table).await.unwrap().is_empty());
    world.stop().await;
}

impl World {
    /// Waits until the worker looked for room that many times more.
    async fn looks(&self, more: u64) {
        let wanted = self.looks.load(Ordering::Relaxed) + more;
        let looking = async {
            while self.looks.load(Ordering::Relaxed) < wanted {
                runtime::clock::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), looking).await.expect("it looks again");
    }
}

#[tokio::test]
async fn below_100_mb_free_nothing_is_read_the_grant_stays_and_it_goes_on_once_there_is_room() {
    let mut world = stamped(50).await;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    assert_eq!(world.journal.paused(), None);
    world.free.store(limits::DISK_FREE_BYTES - 1, Ordering::Relaxed);
    let told = world.status(|status| status.state == "PAUSED").await;
    assert!(told.paused.unwrap().starts_with("DISK_FULL: 99 MB free"));
    assert_eq!(world.journal.paused().unwrap().code, Code::DiskFull);
    let incidents = world.journal.incidents(9).await.unwrap();
    assert_eq!((incidents.len(), incidents[0].code), (1, Code::DiskFull));
    let grant = world.journal.granted().borrow().clone().unwrap();

    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K <= 3");
    world.looks(3).await;
    assert_eq!(world.journal.spool().borrow().batch, None, "nothing is read");
    assert_eq!(world.journal.granted().borrow().clone().unwrap().epoch, grant.epoch);
    assert_eq!(world.journal.incidents(9).await.unwrap().len(), 1, "told once");

    world.free.store(limits::DISK_FREE_BYTES, Ordering::Relaxed);
    world.until_equal(ALL).await;
    world.status(|status| status.state == "STREAMING" && status.paused.is_none()).await;
    assert_eq!(world.journal.paused(), None);
    assert!(world.journal.incidents(9).await.unwrap().is_empty(), "mended");
    world.stop().await;
}

#[tokio::test]
async fn a_disk_that_fills_up_while_a_batch_is_read_ends_the_batch_and_what_was_read_goes_out() {
    let mut world = stamped(20_000).await;
    world.plan(|_| {}).await;
    // Room for the first looks, none from then on.
    let (free, looks) = (Arc::clone(&world.free), Arc::clone(&world.looks));
    let filling = runtime::task::spawn("disk", async move {
        while looks.load(Ordering::Relaxed) < 4 {
            tokio::task::yield_now().await;
        }
        free.store(0, Ordering::Relaxed);
    });
    world.start().await;
    world.accept().await;
    filling.join().await.unwrap();
    world.status(|status| status.state == "PAUSED").await;
    assert!((1..20_000).contains(&world.base_rows), "{} rows went out", world.base_rows);
    world.free.store(u64::MAX, Ordering::Relaxed);
    world.until_equal(ALL).await;
    assert_eq!(world.base_rows, 20_000, "it went on where it was");
    world.stop().await;
}

#[tokio::test]
async fn an_incident_of_a_disk_that_was_full_closes_when_a_new_process_finds_room() {
    let mut world = World::new(PLAIN).await;
    world.plan(|_| {}).await;
    world.free.store(0, Ordering::Relaxed);
    world.start().await;
    world.status(|status| status.state == "PAUSED").await;
    world.stop().await;
    assert_eq!(world.journal.incidents(9).await.unwrap().len(), 1);
    world.free.store(u64::MAX, Ordering::Relaxed);
    world.start().await;
    world.accept().await;
    world.status(|status| status.state != "PAUSED").await;
    assert!(world.journal.incidents(9).await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn f20_a_reload_runs_once_per_generation_and_its_end_is_told() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(50, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.accept().await;
    let ask = |query: &mut EntityQuery| {
        (query.force_reload, query.reload_generation) = (true, Some(protocol::ids::Generation(1)));
    };
    world.plan(ask).await;
    let seal = world.accept().await;
    assert_eq!(seal.loads_done[0].1.0, 1);
    world.start().await;
    world.sql("INSERT INTO T VALUES (99, 'x')");
    world.until_equal(ALL).await;
    assert_eq!(world.base_rows, 100, "the flag that stays up starts nothing more");
    world.stop().await;
}

#[tokio::test]
async fn a_table_under_another_key_waits_for_an_order_and_is_taken_by_a_load_from_its_first_row_on()
{
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(300, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.stop().await;
    let to = |key: &str, more: &str| {
        format!(
            "CREATE TABLE N (K INTEGER, V TEXT, PRIMARY KEY ({key})); INSERT INTO N SELECT * FROM T;
             DROP TABLE T; ALTER TABLE N RENAME TO T; {more}"
        )
    };
    world.sql(&to("K, V", "UPDATE T SET V = 'other' WHERE K = 1; DELETE FROM T WHERE K = 2"));
    world.start().await;
    world.parked("PRIMARY_KEY_CHANGED").await;
    world.stop().await;
    // The key is changed back: it goes on as if nothing had been, the row that went meanwhile included.
    world.sql(&to("K", ""));
    world.start().await;
    world.until_equal(ALL).await;
    assert_eq!((world.base_rows, world.deletes), (300, 1));
    world.stop().await;
    world.sql(&to("V, K", ""));
    let ask = |query: &mut EntityQuery| {
        (query.force_reload, query.reload_generation) = (true, Some(protocol::ids::Generation(1)));
    };
    world.plan(ask).await;
    world.start().await;
    let (_, seal, tables) = world.sealed().await;
    let loads: Vec<bool> = tables.iter().map(|table| table.is_base_load).collect();
    assert!(loads.iter().all(|base_load| *base_load), "{loads:?}");
    assert_eq!(tables.iter().map(|table| table.rows.len()).sum::<usize>(), 299);
    assert_eq!(seal.loads_done, [("T".parse().unwrap(), protocol::ids::Generation(1))]);
    world.stop().await;
}

#[tokio::test]
async fn f36_a_row_above_the_limit_is_told_and_the_others_go() {
    let mut world = World::new(PLAIN).await;
    world.sql("INSERT INTO T VALUES (1, 'a'), (2, hex(zeroblob(2600000))), (3, 'c')");
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal("SELECT CAST(K AS TEXT) AS K, V FROM T WHERE K <> 2").await;
    let told = world.journal.incidents(9).await.unwrap();
    assert_eq!((told.len(), told[0].code), (1, Code::RowTooLarge));
    world.stop().await;
}

#[tokio::test]
async fn a_filter_holds_for_the_load_and_a_refused_one_parks_the_table() {
    let mut world = stamped(10).await;
    world.plan(|query| query.filter = Some("T.K > 7".into())).await;
    world.start().await;
    world.until_equal(&format!("{ALL} WHERE K > 7")).await;
    world.sql("UPDATE T SET S = strftime('%Y-%m-%d %H:%M:%f') WHERE K = 1");
    world.until_equal(&format!("{ALL} WHERE K > 7 OR K = 1")).await;
    world.plan(|query| query.filter = Some("1 = (SELECT 1)".into())).await;
    world.parked("FILTER_REFUSED").await;
    world.stop().await;
}

#[tokio::test]
async fn f72_a_deleted_row_never_takes_the_live_one_of_its_key_with_it() {
    let ddl = "CREATE TABLE SE1010 (E1_FILIAL TEXT NOT NULL, E1_NUM TEXT NOT NULL, R_E_C_N_O_ INTEGER PRIMARY KEY,
        R_E_C_D_E_L_ INTEGER NOT NULL DEFAULT 0, D_E_L_E_T_ TEXT NOT NULL DEFAULT ' ', S_T_A_M_P_ TIMESTAMP);
        CREATE UNIQUE INDEX SE1010_UNQ ON SE1010 (E1_FILIAL, E1_NUM, R_E_C_D_E_L_);
        INSERT INTO SE1010 (E1_FILIAL, E1_NUM, R_E_C_N_O_) VALUES ('01', 'A', 1), ('01', 'B', 2);";
    let mut world = World::new(ddl).await;
    (world.profile, world.table) = (
        Profile::Protheus { company_group: "01".into(), layout: source::BranchLayout::default() },
        "SE1".parse().unwrap(),
    );
    world.plan(|_| {}).await;
    world.start().await;
    world.accept().await;
    let now = "strftime('%Y-%m-%d %H:%M:%f')";
    let delete = |row: u32| {
        format!(
            "UPDATE SE1010 SET D_E_L_E_T_ = '*', R_E_C_D_E_L_ = R_E_C_N_O_, S_T_A_M_P_ = {now} WHERE R_E_C_N_O_ = {row};"
        )
    };
    let insert = |row: u32, key: &str| {
        format!(
            "INSERT INTO SE1010 (E1_FILIAL, E1_NUM, R_E_C_N_O_, S_T_A_M_P_) VALUES ('01', '{key}', {row}, {now});"
        )
    };
    // The key comes back behind its delete, and before one that is stamped later.
    world.sql(&format!("{}{}", delete(1), insert(3, "A")));
    world.sql(&format!(
        "{}{}UPDATE SE1010 SET S_T_A_M_P_ = '2999-01-01 00:00:00' WHERE R_E_C_N_O_ = 2;",
        delete(2),
        insert(4, "B")
    ));
    for _batch in 0..9 {
        let numbers: Vec<&str> =
            world.staged.values().map(|row| row["R_E_C_N_O_"].as_str()).collect();
        if numbers == ["3", "4"] {
            break;
        }
        world.accept().await;
    }
    assert_eq!((world.staged.len(), world.deletes), (2, 0));
    world.sql(&delete(3));
    while world.staged.len() == 2 {
        world.accept().await;
    }
    assert!(world.staged.values().all(|row| row["E1_NUM"] == "B"));
    world.stop().await;
}
