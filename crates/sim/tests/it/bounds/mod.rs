//! The watermark's bound, on real PostgreSQL and to a real server (`correctness.md` 3 a; F01 to F04).
//!
//! Each script steps the agent through its cycles and runs transactions between them. It is run with the agent's own
//! bound, which must miss nothing, and with a wrong one, which must miss rows: else the script would prove nothing.

mod stepped;

use std::{sync::Arc, time::Duration};

use agent::source::{Profile, SourceOptions, connect};
use sim::servers;
use stepped::{Choice, Moment, Stepped, Steps};
use tokio_postgres::Client;

use crate::whole::{
    cloud::Cloud,
    compare,
    erp::Erp,
    inside::{self, Inside},
};

/// What the table's stamps may err.
const ALLOWANCE_SECONDS: u64 = 1;
/// A statement that lasts longer than the allowance.
const OUTLAST: &str = "SELECT pg_sleep(1.3)";
/// What a wrong choice takes off the clock in the script of F04.
const WINDOW: Duration = Duration::from_secs(2);

const SCHEMA: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz NOT NULL DEFAULT now());
    CREATE INDEX ON t (changed_at, id);
    INSERT INTO t SELECT g, 'v' || g, now() - interval '1 day' FROM generate_series(1, 50) g; ANALYZE t";

/// The whole with an agent that is stepped; the table is loaded and scanned.
struct Stage {
    url: String,
    erp: Erp,
    cloud: Cloud,
    agent: Inside,
    steps: Steps,
}

impl Stage {
    async fn new(choice: Choice) -> Self {
        let url = servers::shared().await.unwrap();
        let erp = Erp::postgres(&url).await;
        erp.run(SCHEMA).await.unwrap();
        let cloud = Cloud::start("LOGIX", &["t"]).await;
        let real = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
        let own = servers::connect(&url).await.unwrap();
        let (source, steps) = Stepped::new(real, own, choice);
        let config = inside::config("t", "changed_at", ALLOWANCE_SECONDS);
        let agent = Inside::start(Arc::new(source), &cloud, config).await;
        let mut stage = Self { url, erp, cloud, agent, steps };
        stage.staged("SELECT count(*) = 50 FROM t").await;
        // The first key scan runs behind the load; the ones after it are an hour away.
        stage.steps.cycles(3).await;
        stage
    }

    async fn session(&self) -> Client {
        servers::connect(&self.url).await.unwrap()
    }

    async fn run(&self, sql: &str) {
        self.erp.run(sql).await.unwrap();
    }

    async fn staged(&self, is: &str) {
        let look = |staging: &rusqlite::Connection| {
            let found: bool = staging.query_row(is, [], |row| row.get(0)).ok()?;
            found.then_some(())
        };
        self.cloud.staged(is, look).await;
    }

    /// Keys whose rows are not staged as they are, although what changed after them is.
    async fn missed(mut self) -> Vec<String> {
        self.steps.cycles(2).await;
        self.run("INSERT INTO t VALUES (9999, 'the end')").await;
        self.steps.cycles(1).await;
        self.steps.free();
        self.staged("SELECT count(*) = 1 FROM t WHERE id = 9999").await;
        let staging = compare::staging(&self.cloud.staging()).unwrap();
        let found = compare::differences(&self.erp, &["t"], &staging).await;
        self.agent.stop().await;
        let mut keys: Vec<String> =
            found.iter().map(|words| words.split('"').nth(1).unwrap().to_owned()).collect();
        keys.dedup();
        keys
    }
}

/// F03: a transaction is open while one of bound and rows is taken, and committed when the other one is.
async fn commits_between_bound_and_read(choice: Choice) -> Vec<String> {
    let mut stage = Stage::new(choice).await;
    let late = stage.session().await;
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1001, 'between')").await.unwrap();
    late.batch_execute(OUTLAST).await.unwrap();
    stage.steps.hold(Moment::Between).await;
    late.batch_execute("COMMIT").await.unwrap();
    // And one that begins and commits there, one that commits when the rows were read.
    stage.run("INSERT INTO t VALUES (1002, 'whole')").await;
    let later = stage.session().await;
    later
        .batch_execute("BEGIN; UPDATE t SET v = 'later', changed_at = now() WHERE id = 7")
        .await
        .unwrap();
    stage.steps.hold(Moment::Read).await;
    later.batch_execute("COMMIT").await.unwrap();
    stage.missed().await
}

#[tokio::test]
async fn f03_what_commits_between_the_bound_and_the_read_is_not_missed() {
    assert_eq!(commits_between_bound_and_read(Choice::Right).await, [""; 0]);
}

#[tokio::test]
async fn f03_evidence_a_bound_taken_after_the_rows_misses_what_commits_between_them() {
    let missed = commits_between_bound_and_read(Choice::AfterTheRows).await;
    assert_eq!(missed, ["1001"]);
}

/// F01: a transaction commits late; others with younger stamps were read before.
async fn commits_late(choice: Choice) -> Vec<String> {
    let mut stage = Stage::new(choice).await;
    let late = stage.session().await;
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1001, 'late')").await.unwrap();
    late.batch_execute("UPDATE t SET v = 'late', changed_at = now() WHERE id = 7").await.unwrap();
    late.batch_execute(OUTLAST).await.unwrap();
    stage.run("INSERT INTO t VALUES (2001, 'in time')").await;
    stage.steps.cycles(2).await;
    late.batch_execute("COMMIT").await.unwrap();
    stage.missed().await
}

#[tokio::test]
async fn f01_what_commits_late_with_an_older_stamp_is_not_missed_whatever_was_read_before() {
    assert_eq!(commits_late(Choice::Right).await, [""; 0]);
}

#[tokio::test]
async fn f01_evidence_the_highest_stamp_as_watermark_misses_a_late_commit() {
    let missed = commits_late(Choice::HighestStamp).await;
    assert_eq!(missed, ["1001", "7"]);
}

/// F02: a transaction is open without a write; when it writes at last, its stamp is its start.
async fn writes_late(choice: Choice) -> Vec<String> {
    let mut stage = Stage::new(choice).await;
    let idle = stage.session().await;
    idle.batch_execute("BEGIN; SELECT count(*) FROM t").await.unwrap();
    idle.batch_execute(OUTLAST).await.unwrap();
    stage.run("INSERT INTO t VALUES (2001, 'in time')").await;
    stage.steps.cycles(2).await;
    let write = "INSERT INTO t VALUES (1001, 'late'); UPDATE t SET v = 'late', changed_at = now() WHERE id = 7; COMMIT";
    idle.batch_execute(write).await.unwrap();
    stage.missed().await
}

#[tokio::test]
async fn f02_what_is_stamped_with_the_start_of_a_transaction_that_wrote_late_is_not_missed() {
    assert_eq!(writes_late(Choice::Right).await, [""; 0]);
}

#[tokio::test]
async fn f02_evidence_a_bound_of_writers_only_misses_a_late_write_and_nothing_of_a_late_commit() {
    let missed = writes_late(Choice::WritersOnly).await;
    assert_eq!(missed, ["1001", "7"]);
    // The script of F01 cannot tell this choice from the right one: each fault needs its own.
    assert_eq!(commits_late(Choice::WritersOnly).await, [""; 0]);
}

/// F04: a transaction outlasts the window that is taken off the clock.
async fn outlasts_the_window(choice: Choice) -> Vec<String> {
    let mut stage = Stage::new(choice).await;
    let long = stage.session().await;
    long.batch_execute("BEGIN; INSERT INTO t VALUES (1001, 'long')").await.unwrap();
    long.batch_execute("UPDATE t SET v = 'long', changed_at = now() WHERE id = 7").await.unwrap();
    long.batch_execute(&format!("SELECT pg_sleep({})", WINDOW.as_secs() + ALLOWANCE_SECONDS))
        .await
        .unwrap();
    stage.run("INSERT INTO t VALUES (2001, 'in time')").await;
    stage.steps.cycles(2).await;
    long.batch_execute("COMMIT").await.unwrap();
    stage.missed().await
}

#[tokio::test]
async fn f04_what_a_transaction_of_any_length_wrote_is_not_missed() {
    assert_eq!(outlasts_the_window(Choice::Right).await, [""; 0]);
}

#[tokio::test]
async fn f04_evidence_a_window_shorter_than_a_transaction_misses_it_and_a_longer_one_does_not() {
    let missed = outlasts_the_window(Choice::Overlap(WINDOW)).await;
    assert_eq!(missed, ["1001", "7"]);
    assert_eq!(outlasts_the_window(Choice::Overlap(Duration::from_secs(600))).await, [""; 0]);
}
