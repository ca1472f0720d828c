//! Two agents on one stream: one sends, the other stands by and takes over (`correctness.md` 3 e; F39 to F41).
//!
//! Two real agent processes with data folders of their own, real PostgreSQL, real server. After each test the ledger is
//! read as history: epochs and batch ids only rise, and no row is followed by an older image of itself (I5, I6, I7).

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::PathBuf,
    time::Duration,
};

use prost::Message as _;
use protocol::proto::totvs::Table;
use runtime::clock::{self, Mono};
use serde_json::Value;
use sim::{
    process::{self, Process},
    servers,
};

use crate::whole::{
    compare,
    erp::Erp,
    line::Line,
    sender::{Cells, Sender, Target},
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);
/// A standby asks every 5 s, a fifth more or less.
const POLL: Duration = Duration::from_secs(6);
/// What a hand-over itself may take.
const HAND_OVER: Duration = Duration::from_secs(1);
/// Of a lease nobody gave back: 30 s, and a poll.
const LAPSE: Duration = Duration::from_secs(40);

/// Every change of a row raises its version; no key comes back after its delete.
const SCHEMA: &str = "CREATE TABLE t (id bigint PRIMARY KEY, ver bigint NOT NULL, v text, changed_at timestamptz DEFAULT now());
    CREATE INDEX ON t (changed_at, id)";

/// The second agent: its own folder and door, the first one's configuration.
struct Second {
    folder: PathBuf,
    process: Process,
}

impl Second {
    fn start(world: &World) -> Self {
        Self::reading(world, |config| config)
    }

    /// With that change of the first one's configuration.
    fn reading(world: &World, change: impl FnOnce(String) -> String) -> Self {
        let folder = world.cloud.folder.path().to_owned();
        let config = fs::read_to_string(folder.join("agent.toml")).unwrap();
        let door = config.lines().find(|line| line.starts_with("listen")).unwrap().to_owned();
        let own = format!("listen = '127.0.0.1:{}'", servers::free_port().unwrap());
        let config = config.replace("'agent-data'", "'second-data'").replace(&door, &own);
        fs::write(folder.join("second.toml"), change(config)).unwrap();
        let process = Self::run(&folder);
        Self { folder, process }
    }

    fn run(folder: &std::path::Path) -> Process {
        let words = ["agent", "run", "--config", "second.toml"];
        Process::start(folder, &folder.join("second.log"), &words).unwrap()
    }

    /// Phase and code of its link, as its own status tells them; empty while it does not answer.
    fn link(&self) -> (String, String) {
        let words = ["agent", "status", "--json", "--config", "second.toml"];
        link_of(&process::command(&self.folder, &words).unwrap_or_default())
    }

    /// Waits for a phase; tells how long it took.
    async fn becomes(&self, phase: &str, within: Duration) -> Duration {
        let begun = Mono::now();
        loop {
            let link = self.link();
            if link.0 == phase {
                return begun.elapsed();
            }
            assert!(
                begun.elapsed() < within,
                "not {phase} but {link:?}\n{}",
                self.process.log_end(30)
            );
            clock::sleep(Duration::from_millis(100)).await;
        }
    }
}

fn link_of(status: &str) -> (String, String) {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let word = |key: &str| status["link"][key].as_str().unwrap_or_default().to_owned();
    (word("phase"), word("code"))
}

/// A database with a table of those rows, and its address.
async fn filled(rows: u32) -> (String, Erp) {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    let fill = format!(
        "{SCHEMA}; INSERT INTO t SELECT g, 1, repeat('x', 60), now() - interval '1 day' FROM generate_series(1, {rows}) g; ANALYZE t"
    );
    erp.run(&fill).await.unwrap();
    (url, erp)
}

/// The first agent sends a table of those rows, the second stands by.
async fn pair(rows: u32) -> (World, Second) {
    let (url, erp) = filled(rows).await;
    let plan = Plan::new(&url, &["t"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan, erp).await;
    world.status_says("\"phase\":\"SENDING\"", WAIT).await;
    let second = Second::start(&world);
    second.becomes("STANDBY", WAIT).await;
    assert_eq!(second.link().1, "SESSION_HELD");
    (world, second)
}

fn first(world: &World) -> (String, String) {
    link_of(&world.agent_status())
}

async fn change(world: &World, ids: &str) {
    let sql = format!("UPDATE t SET ver = ver + 1, changed_at = now() WHERE id {ids}");
    world.erp.run(&sql).await.unwrap();
}

/// A message of the ledger: batch, epoch of its batch, rows as key and version; a deleted row has none.
type Message = (i64, i64, Vec<(String, Option<i64>)>);

/// Reads the ledger in the order of acceptance.
fn history(world: &World) -> Vec<Message> {
    let store = compare::staging(&world.cloud.store()).unwrap();
    let sql = "SELECT m.batch, b.epoch, m.body FROM ingest_message m JOIN batch b
                 ON b.id = m.batch AND b.erp = m.erp WHERE m.erp = 'LOGIX' ORDER BY m.accept_seq";
    let mut found = store.prepare(sql).unwrap();
    let message = |row: &rusqlite::Row<'_>| {
        let body: Vec<u8> = row.get(2)?;
        let rows = Table::decode(&*body).unwrap().rows.into_iter().map(|row| {
            let cell = |name: &str| {
                let found = row.columns.iter().find(|cell| cell.name.eq_ignore_ascii_case(name));
                found.map(|cell| cell.value.clone())
            };
            (cell("id").unwrap(), cell("ver").map(|version| version.parse().unwrap()))
        });
        Ok((row.get(0)?, row.get(1)?, rows.collect()))
    };
    found.query_map([], message).unwrap().map(Result::unwrap).collect()
}

/// Batch and epoch never fall, and no image is followed by an older one of its row (I5, I6, I7).
fn only_rises(history: &[Message]) -> Result<(), String> {
    let (mut before, mut versions) = ((0, 0), HashMap::new());
    for (batch, epoch, rows) in history {
        if before.0 > *batch || before.1 > *epoch {
            return Err(format!("{before:?} is followed by batch {batch} of epoch {epoch}"));
        }
        before = (*batch, *epoch);
        for (id, version) in rows {
            // Nothing may come after a delete.
            let version = version.unwrap_or(i64::MAX);
            let held = versions.insert(id, version).unwrap_or(0);
            if held > version {
                return Err(format!("row {id} goes back from {held} to {version}"));
            }
        }
    }
    Ok(())
}

fn history_only_rises(world: &World) {
    let history = history(world);
    let epochs: BTreeSet<i64> = history.iter().map(|(_, epoch, _)| *epoch).collect();
    assert!(epochs.len() > 1, "one sender alone was heard: {epochs:?}");
    only_rises(&history).unwrap();
}

#[test]
fn a_history_that_goes_back_is_seen() {
    let row = |version| vec![("1".to_owned(), version)];
    let good =
        [(7, 1, row(Some(1))), (7, 1, row(Some(1))), (8, 2, row(Some(2))), (9, 2, row(None))];
    only_rises(&good).unwrap();
    for bad in [
        [(7, 1, row(Some(2))), (8, 2, row(Some(1)))],
        [(7, 1, row(None)), (8, 2, row(Some(9)))],
        [(8, 1, row(Some(1))), (7, 1, row(Some(1)))],
        [(7, 2, row(Some(1))), (8, 1, row(Some(1)))],
    ] {
        only_rises(&bad).unwrap_err();
    }
}

#[tokio::test]
async fn a_second_agent_stands_by_and_takes_over_at_once_when_the_first_is_stopped() {
    let (mut world, second) = pair(500).await;
    world.equal(WAIT).await;
    change(&world, "<= 10").await;
    world.equal(WAIT).await;
    assert_eq!(first(&world).0, "SENDING");
    assert_eq!(second.link().0, "STANDBY", "the second one sends beside the first");
    let log = fs::read_to_string(second.folder.join("second.log")).unwrap();
    assert!(!log.contains("session granted"), "{log}");
    world.stop_agent().await;
    let took = second.becomes("SENDING", WAIT).await;
    println!("taken over {took:?} after the first one ended");
    assert!(took < POLL + HAND_OVER, "the hand-over took {took:?}");
    change(&world, "> 490").await;
    world.erp.run("DELETE FROM t WHERE id BETWEEN 100 AND 109").await.unwrap();
    world.equal(WAIT).await;
    // The first one comes back and finds the place taken.
    world.start_agent();
    world.status_says("\"phase\":\"STANDBY\"", WAIT).await;
    change(&world, "BETWEEN 200 AND 210").await;
    world.equal(WAIT).await;
    history_only_rises(&world);
}

#[tokio::test]
async fn a_second_agent_takes_over_from_one_that_was_killed_when_its_lease_lapses() {
    let (mut world, second) = pair(60_000).await;
    world.equal(WAIT).await;
    change(&world, "% 2 = 0").await;
    within_a_batch(&world).await;
    world.kill_agent();
    change(&world, "% 7 = 0").await;
    let took = second.becomes("SENDING", WAIT).await;
    println!("taken over {took:?} after the kill");
    assert!(took < LAPSE, "the take-over took {took:?}");
    change(&world, "% 11 = 0").await;
    world.equal(WAIT).await;
    history_only_rises(&world);
}

#[tokio::test]
async fn f39_an_agent_that_was_frozen_within_a_batch_is_fenced_and_takes_nothing_back() {
    let (mut world, second) = pair(60_000).await;
    world.equal(WAIT).await;
    change(&world, "% 2 = 0").await;
    within_a_batch(&world).await;
    world.signal_agent("STOP");
    // What the frozen one has read is old by the time it wakes.
    change(&world, "% 3 = 0").await;
    let took = second.becomes("SENDING", WAIT).await;
    assert!(took < LAPSE, "the take-over took {took:?}");
    world.staged_reaches("SELECT count(*) FROM t WHERE ver = 3", 10_000, WAIT).await;
    stale_calls_are_fenced(&world).await;
    change(&world, "% 3 = 1").await;
    world.signal_agent("CONT");
    world.status_says("\"phase\":\"STANDBY\"", WAIT).await;
    assert_eq!(second.link().0, "SENDING", "the one that woke took the stream");
    change(&world, "% 3 = 2").await;
    world.equal(WAIT).await;
    history_only_rises(&world);
    let dropped: Value = serde_json::from_str(&world.agent_status()).unwrap();
    assert!(dropped["spool"]["batch"].is_null(), "the frozen one keeps its batch: {dropped}");
}

#[tokio::test]
async fn f41_an_agent_that_cannot_read_the_database_lets_one_that_can_take_over() {
    let (url, erp) = filled(2_000).await;
    let port = servers::shared_server().await.unwrap().port();
    let line = Line::to(format!("127.0.0.1:{port}")).await;
    let near = url.replace(&format!(":{port}/"), &format!(":{}/", line.port));
    let plan = Plan::new(&near, &["t"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan.gives_up_after(5), erp).await;
    world.status_says("\"phase\":\"SENDING\"", WAIT).await;
    let second = Second::reading(&world, |config| config.replace(&near, &url));
    second.becomes("STANDBY", WAIT).await;
    world.equal(WAIT).await;
    line.silent_after(0);
    change(&world, "% 2 = 0").await;
    // Its own watch notices the silence within 15 s a call; the lease was renewed all the while.
    let took = second.becomes("SENDING", WAIT).await;
    println!("taken over {took:?} after the line fell silent");
    world.equal(WAIT).await;
    let link = first(&world);
    assert_eq!(link.0, "STANDBY");
    assert!(["SOURCE_TIMEOUT", "SOURCE_UNREACHABLE"].contains(&link.1.as_str()), "{link:?}");
    line.open_again();
    world.status_says("SESSION_HELD", WAIT).await;
    change(&world, "% 3 = 0").await;
    world.equal(WAIT).await;
    history_only_rises(&world);
}

/// The agent's own clock would keep it from such calls; the server must not rest on that. A batch above all others, so
/// that nothing but the epoch stands in its way.
async fn stale_calls_are_fenced(world: &World) {
    let (grpc, token) = (world.cloud.grpc_target(), world.cloud.token().await);
    let (erp, table) = ("LOGIX".to_owned(), "t".to_owned());
    let mut sender = Sender::new(Target { grpc, token, erp, table });
    let batch = clock::Wall::now().seconds() + 3_600;
    let columns: (Cells<'_>, usize) = (&[("id", "long"), ("ver", "long")], 1);
    let message = sender.message((batch, 1), columns, &[&[("id", "1"), ("ver", "0")]]);
    let now = world.epoch().cast_unsigned();
    for (epoch, code) in
        [(Some(now - 1), "FENCED"), (Some(now + 1), "FENCED"), (None, "EPOCH_REQUIRED")]
    {
        sender.epoch = epoch;
        let refused = sender.write(&message).await.expect_err("a stale call was taken");
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused:?}");
        assert!(refused.message().contains(code), "{refused:?}");
    }
}

/// Waits until the server holds an open batch.
async fn within_a_batch(world: &World) {
    let begun = Mono::now();
    loop {
        let store = compare::staging(&world.cloud.store()).unwrap();
        let sql = "SELECT count(*) FROM batch WHERE state = 'open' AND messages > 1";
        if store.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() > 0 {
            return;
        }
        assert!(begun.elapsed() < WAIT, "no batch is open");
        clock::sleep(Duration::from_millis(2)).await;
    }
}
