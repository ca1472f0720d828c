//! A wall clock that is set, by hours forth and back, under a running agent and a running server (F10, F40, F44).
//!
//! The clock of a real process is moved by a small library that is put before it (`tests/c/clock_jump.c`); the monotonic
//! clock goes on as it does when a real clock is set.

use std::{fs, io::Write as _, path::PathBuf, time::Duration};

use base64_claims::issued_at;
use runtime::clock::{self, Mono, Wall};
use sim::{process, servers};

use crate::whole::{
    compare,
    erp::Erp,
    library::{Library, text},
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(90);
const HOUR: i64 = 3_600;
const TABLE: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
    CREATE INDEX ON t (changed_at, id);
    INSERT INTO t SELECT g, 'v' || g, now() - interval '1 day' FROM generate_series(1, 2000) g; ANALYZE t";

/// The clock of the processes that have it.
struct Clock {
    library: Library,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { library: Library::built("clock_jump") };
        fs::write(clock.file(), 0_i64.to_ne_bytes()).unwrap();
        clock
    }

    fn file(&self) -> PathBuf {
        self.library.beside("seconds")
    }

    fn variables(&self) -> Vec<(String, String)> {
        let clock = ("MALOTE_TEST_CLOCK".to_owned(), text(&self.file()));
        vec![self.library.loaded(), clock]
    }

    /// So many hours off the machine's clock.
    fn set(&self, hours: i64) {
        self.set_seconds(hours * HOUR);
    }

    fn set_seconds(&self, seconds: i64) {
        let mut file = fs::OpenOptions::new().write(true).open(self.file()).unwrap();
        file.write_all(&seconds.to_ne_bytes()).unwrap();
    }

    /// PostgreSQL runs under an account of its own.
    fn open_to_all(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(self.file().parent().unwrap(), all).unwrap();
    }
}

async fn followed() -> World {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(TABLE).await.unwrap();
    World::start(Plan::new(&url, &["t"]).stamp("t", "changed_at"), erp).await
}

/// Changes, inserts and deletes rows, and waits until that is staged.
async fn change(world: &mut World, round: i64) {
    let sql = format!(
        "UPDATE t SET v = 'round {round}', changed_at = now() WHERE id % 7 = {};
         INSERT INTO t VALUES ({}, 'new in {round}'); DELETE FROM t WHERE id = {}",
        round.rem_euclid(7),
        100_000 + round,
        500 + round
    );
    world.erp.run(&sql).await.unwrap();
    world.equal(WAIT).await;
}

/// A world whose agent sends and goes by a clock of the test's.
async fn under_a_clock() -> (Clock, World) {
    let clock = Clock::new();
    let mut world = followed().await;
    world.equal(WAIT).await;
    world.stop_agent().await;
    world.variables = clock.variables();
    world.start_agent();
    world.status_says("\"phase\":\"SENDING\"", WAIT).await;
    (clock, world)
}

/// Batch ids in the order in which their first messages were accepted.
fn batches(world: &World) -> Vec<i64> {
    let store = compare::staging(&world.cloud.store()).unwrap();
    let sql = "SELECT batch FROM ingest_message WHERE number = 1 ORDER BY accept_seq";
    let mut found = store.prepare(sql).unwrap();
    found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

#[tokio::test]
async fn f10_an_agent_whose_clock_is_set_by_hours_and_days_loses_nothing_and_its_batches_only_rise()
{
    let (clock, mut world) = under_a_clock().await;
    let epoch = world.epoch();
    for (round, hours) in [5, -3, 2, 0].into_iter().enumerate() {
        clock.set(hours);
        change(&mut world, i64::try_from(round).unwrap()).await;
        let off = Wall::now().seconds() + hours * HOUR;
        let told = newest(&world.agent_history());
        assert!((told - off).abs() < 900, "the agent's clock is not set: {told}, not {off}");
    }
    assert_eq!(world.epoch(), epoch, "the lease was lost to a wall clock");
    // Years off, either way: the server refuses ids of tomorrow, and the agent counts on from the last one.
    for (round, hours) in [(10, 3 * 365 * 24), (11, -3 * 365 * 24), (12, 0)] {
        clock.set(hours);
        change(&mut world, round).await;
    }
    let batches = batches(&world);
    assert!(batches.is_sorted_by(|before, after| before < after), "{batches:?}");
    world.status_says("\"phase\":\"SENDING\"", WAIT).await;
}

/// Seconds of the latest moment in the newest row of the agent's history.
fn newest(history: &str) -> i64 {
    let history: serde_json::Value = serde_json::from_str(history).unwrap();
    let row = history["history"][0].to_string();
    let moments = row.split('"').filter_map(|word| word.parse::<jiff::Timestamp>().ok());
    moments.map(jiff::Timestamp::as_second).max().unwrap_or_else(|| panic!("no moment in {row}"))
}

#[tokio::test]
async fn f40_a_server_whose_clock_is_set_by_hours_and_days_loses_nothing_and_keeps_nobody_out() {
    let clock = Clock::new();
    let mut world = followed().await;
    world.cloud.stop().await;
    world.cloud.variables = clock.variables();
    world.cloud.run().await;
    world.equal(WAIT).await;
    for (round, hours) in [5, -3, 30, -30, 0].into_iter().enumerate() {
        clock.set(hours);
        change(&mut world, i64::try_from(round).unwrap()).await;
        let (issued, off) =
            (issued_at(&world.cloud.token().await), Wall::now().seconds() + hours * HOUR);
        assert!((issued - off).abs() < 900, "the server's clock is not set: {issued}, not {off}");
    }
    // An agent that dies while the clock stands hours ahead leaves a lease of that time behind.
    clock.set(8);
    change(&mut world, 10).await;
    world.kill_agent();
    clock.set(0);
    world.lose_journal();
    let epoch = world.epoch();
    let begun = Mono::now();
    world.start_agent();
    world.reaches_epoch(epoch + 1, WAIT).await;
    println!("a new instance was let in after {:?}", begun.elapsed());
    change(&mut world, 11).await;
    let batches = batches(&world);
    assert!(batches.is_sorted_by(|before, after| before < after), "{batches:?}");
}

/// A world whose ERP database goes by a clock of the test's, in step with the machine's so far.
async fn database_under_a_clock() -> (Clock, servers::Postgres, World) {
    let clock = Clock::new();
    clock.open_to_all();
    let mut postgres = servers::Postgres::start().await.unwrap();
    postgres.under(clock.variables());
    postgres.restart().await.unwrap();
    let url = postgres.create_database("erp").await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(TABLE).await.unwrap();
    let mut world = World::start(Plan::new(&url, &["t"]).stamp("t", "changed_at"), erp).await;
    world.equal(WAIT).await;
    // The cursor has come to the present.
    change(&mut world, 0).await;
    (clock, postgres, world)
}

#[tokio::test]
async fn f10_a_database_whose_clock_is_set_back_by_minutes_loses_no_row() {
    let (clock, _postgres, mut world) = database_under_a_clock().await;
    let mut off = 0;
    for (round, back) in [(1, 150), (2, 20), (3, 600)] {
        off -= back;
        clock.set_seconds(off);
        // Stamps from here on lie behind what was read already.
        change(&mut world, round).await;
    }
}

#[tokio::test]
async fn f10_what_a_transaction_from_before_the_step_commits_after_it_is_found_and_so_in_a_new_session()
 {
    let (clock, postgres, mut world) = database_under_a_clock().await;
    let late = servers::connect(&postgres.url("erp")).await.unwrap();
    late.batch_execute("BEGIN; SELECT txid_current()").await.unwrap();
    clock.set_seconds(-240);
    change(&mut world, 1).await;
    // Its stamp is the new clock's, and every bound since its begin has passed it by now.
    let write = "UPDATE t SET v = 'late', changed_at = clock_timestamp() WHERE id = 3";
    late.batch_execute(write).await.unwrap();
    change(&mut world, 2).await;
    late.batch_execute("COMMIT").await.unwrap();
    world.equal(WAIT).await;
    // The cloud is away when it steps: the batch that was to tell of it is dropped.
    world.cloud.kill();
    clock.set_seconds(-480);
    let write = "UPDATE t SET v = 'meanwhile', changed_at = now() WHERE id % 5 = 1";
    world.erp.run(write).await.unwrap();
    world.status_says("CLOUD_UNREACHABLE", WAIT).await;
    world.cloud.run().await;
    world.equal(WAIT).await;
}

#[tokio::test]
async fn a_cloud_that_is_away_for_an_hour_by_the_agents_clock_is_told_and_nothing_is_lost() {
    let (clock, mut world) = under_a_clock().await;
    let epoch = world.epoch();
    world.cloud.kill();
    let begun = Mono::now();
    world
        .erp
        .run("UPDATE t SET v = 'while the cloud is away', changed_at = now() WHERE id <= 900")
        .await
        .unwrap();
    world.status_says("CLOUD_UNREACHABLE", WAIT).await;
    clock.set(1);
    // Longer than a lease lives, and than the agent holds on to one.
    for round in 0..15 {
        let sql = format!(
            "UPDATE t SET v = 'away {round}', changed_at = now() WHERE id % 15 = {round}; DELETE FROM t WHERE id = {}",
            1_000 + round
        );
        world.erp.run(&sql).await.unwrap();
        let next = Duration::from_secs(5 * (round + 1));
        clock::sleep(next.saturating_sub(begun.elapsed())).await;
        let status = world.agent_status();
        assert!(status.contains("CLOUD_UNREACHABLE"), "{status}");
        assert!(status.contains("\"hint\"") && status.contains("\"sinceMicros\""), "{status}");
    }
    // While the lease may still stand the phase is that of a sender in trouble.
    world.status_says("\"phase\":\"UNREACHABLE\"", WAIT).await;
    let memory = process::memory(world.agent_id(), "VmRSS").unwrap();
    assert!(memory < 256 << 20, "{memory} bytes are in use");
    world.cloud.run().await;
    world.equal(WAIT).await;
    assert!(world.epoch() > epoch, "the lease outlived the hour");
    world.status_lacks("CLOUD_UNREACHABLE", WAIT).await;
}

/// The one claim that is looked at, read by hand: nothing of the server's is used to check it.
mod base64_claims {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

    pub(super) fn issued_at(token: &str) -> i64 {
        let part = token.split('.').nth(1).unwrap();
        let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
        for sign in part.bytes() {
            let value = SIGNS.iter().position(|known| *known == sign).unwrap();
            bits = bits << 6 | u32::try_from(value).unwrap();
            held += 6;
            if held >= 8 {
                held -= 8;
                bytes.push(u8::try_from(bits >> held & 0xff).unwrap());
            }
        }
        let claims: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        claims["iat"].as_i64().unwrap()
    }
}
