//! Kill rounds: agent and server end by kill -9 at random moments of a base load and of deltas, with a busy ERP.
//!
//! Checked while it runs: no staged row goes back to an older image (I7). At the end: staging equals the source (I8),
//! no acknowledged message is missing (I1), no complete batch was undone.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime::{clock, config, task};
use serde_json::Value;
use sim::{chance::Chance, servers};

use crate::whole::{
    compare,
    erp::Erp,
    recorder::{self, Acknowledged},
    sender::Target,
    world::{Plan, World},
};

/// Every change of a row raises its version; no key comes back after its delete.
const SCHEMA: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, ver bigint NOT NULL, v text, changed_at timestamptz DEFAULT now());
    CREATE INDEX ON t (changed_at, id);
    CREATE TABLE u (id bigint PRIMARY KEY, ver bigint NOT NULL, v text);
    INSERT INTO t SELECT g, 1, repeat('x', 60), now() - interval '1 day' FROM generate_series(1, 30000) g;
    INSERT INTO u SELECT g, 1, repeat('y', 60) FROM generate_series(1, 3000) g;
    ANALYZE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_rounds_of_agent_and_server_lose_nothing_and_take_nothing_back() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let rounds: u32 =
        config::variable("MALOTE_KILL_ROUNDS").and_then(|text| text.parse().ok()).unwrap_or(10);
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(SCHEMA).await.unwrap();
    let mut world = World::start(Plan::new(&url, &["t", "u"]).stamp("t", "changed_at"), erp).await;

    let stop = Arc::new(AtomicBool::new(false));
    let recording = recorder::start(second_sender(&world).await, Arc::clone(&stop));
    let writing = writer(url.clone(), Chance::new(chance.draw()), Arc::clone(&stop));
    let seen_enough = Arc::new(AtomicBool::new(false));
    let watching = watcher(world.cloud.folder.path().to_owned(), Arc::clone(&seen_enough));

    for round in 1..=rounds {
        clock::sleep(Duration::from_millis(300 + chance.below(2_500))).await;
        let victim = chance.below(5);
        println!(
            "round {round}: {}",
            if victim < 2 {
                "agent"
            } else if victim < 4 {
                "server"
            } else {
                "both"
            }
        );
        if victim < 2 || victim == 4 {
            world.kill_agent();
        }
        if victim >= 2 {
            world.cloud.kill();
            world.cloud.launch();
        }
        if victim < 2 || victim == 4 {
            world.start_agent();
        }
        world.cloud.ready().await;
    }

    clock::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let changes = writing.join().await.unwrap();
    let acknowledged = recording.join().await.unwrap();
    world.equal(Duration::from_secs(180)).await;
    seen_enough.store(true, Ordering::Relaxed);
    let polls = watching.join().await.unwrap();
    assert!(changes > 100 && polls > 20, "{changes} changes, {polls} looks at the staged rows");
    assert!(
        acknowledged.batches.len() > 5,
        "{} batches of the second sender",
        acknowledged.batches.len()
    );
    nothing_acknowledged_is_missing(&world, &acknowledged);
}

/// Another ERP of the same environment, for a sender of the test's own.
async fn second_sender(world: &World) -> Target {
    let setup =
        ["setup", "--tenant", "Loja São João", "--erp", "DATASUL", "--tables", "ACKS", "--json"];
    let made: Value = serde_json::from_str(&world.cloud.command(&setup)).unwrap();
    let token = world
        .cloud
        .token_of(made["clientId"].as_str().unwrap(), made["clientSecret"].as_str().unwrap())
        .await;
    Target {
        grpc: world.cloud.grpc_target(),
        token,
        erp: "DATASUL".to_owned(),
        table: "ACKS".to_owned(),
    }
}

/// Changes rows until told to stop; tells how many statements it ran.
fn writer(url: String, mut chance: Chance, stop: Arc<AtomicBool>) -> task::Task<u64> {
    task::spawn("writer", async move {
        let client = servers::connect(&url).await.unwrap();
        let mut done = 0;
        while !stop.load(Ordering::Relaxed) {
            let (id, fresh) = (chance.below(30_000) + 1, 1_000_000 + done);
            let sql = match chance.below(10) {
                0..5 => format!(
                    "UPDATE t SET ver = ver + 1, changed_at = now() WHERE id BETWEEN {id} AND {id} + 3"
                ),
                5..7 => format!("UPDATE u SET ver = ver + 1 WHERE id = {id} % 3000"),
                7 => format!("INSERT INTO t (id, ver) VALUES ({fresh}, 1)"),
                8 => format!("DELETE FROM t WHERE id = {id}"),
                _ => format!("DELETE FROM u WHERE id = {id} % 3000"),
            };
            client.batch_execute(&sql).await.unwrap();
            done += 1;
            clock::sleep(Duration::from_millis(8)).await;
        }
        done
    })
}

/// Looks at the staged versions again and again; a row that goes back fails the test.
fn watcher(folder: PathBuf, stop: Arc<AtomicBool>) -> task::Task<u64> {
    task::spawn("watcher", async move {
        let mut seen: HashMap<(&'static str, i64), i64> = HashMap::new();
        let mut polls = 0;
        while !stop.load(Ordering::Relaxed) {
            let folder = folder.clone();
            let known = std::mem::take(&mut seen);
            let (known, looked) = task::blocking(move || look(&folder, known)).await.unwrap();
            seen = known;
            polls += u64::from(looked);
            clock::sleep(Duration::from_millis(60)).await;
        }
        polls
    })
}

type Versions = HashMap<(&'static str, i64), i64>;

/// A deleted row counts as the highest version: it must not come back.
fn look(folder: &std::path::Path, mut seen: Versions) -> (Versions, bool) {
    let Some(staging) = compare::staging(&crate::whole::cloud::staging_of(folder, "LOGIX")) else {
        return (seen, false);
    };
    for table in ["t", "u"] {
        // While the server starts again the file may be out of reach for a moment.
        let Ok(mut rows) = staging.prepare(&format!("SELECT id, ver, _deleted, _key FROM {table}"))
        else {
            return (seen, false);
        };
        let Ok(rows) =
            rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        else {
            return (seen, false);
        };
        for row in rows {
            let Ok(row) = row else { return (seen, false) };
            let (_id, version, deleted, key): (Option<i64>, Option<i64>, bool, Vec<u8>) = row;
            let id: i64 = std::str::from_utf8(&key[4..]).unwrap().parse().unwrap();
            let now = if deleted { i64::MAX } else { version.unwrap() };
            let before = seen.insert((table, id), now).unwrap_or(0);
            assert!(before <= now, "{table} {id} went back from version {before} to {now}");
        }
    }
    (seen, true)
}

fn nothing_acknowledged_is_missing(world: &World, acknowledged: &Acknowledged) {
    let store = compare::staging(&world.cloud.store()).unwrap();
    let sha =
        "SELECT sha256 FROM ingest_message WHERE erp = 'DATASUL' AND batch = ?1 AND number = ?2";
    for ((batch, number), expected) in &acknowledged.messages {
        let stored: Option<Vec<u8>> = store.query_row(sha, (batch, number), |row| row.get(0)).ok();
        assert_eq!(
            stored.as_ref(),
            Some(expected),
            "acknowledged message {number} of batch {batch}"
        );
    }
    let state = "SELECT state FROM batch WHERE erp = 'DATASUL' AND id = ?1";
    for batch in &acknowledged.batches {
        let stored: String = store.query_row(state, [batch], |row| row.get(0)).unwrap();
        assert_eq!(stored, "complete", "batch {batch}, whose summary was acknowledged");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn agent_and_server_asked_to_stop_end_by_themselves_and_go_on_where_they_were() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(SCHEMA).await.unwrap();
    let plan = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at");
    let mut world = World::start(plan, erp).await;
    world.equal(Duration::from_secs(60)).await;
    let sent = world.ledger_rows("t");
    world.stop_agent().await;
    world.cloud.stop().await;
    world
        .erp
        .run(
            "UPDATE t SET ver = 2, changed_at = now() WHERE id <= 10; DELETE FROM u WHERE id <= 10",
        )
        .await
        .unwrap();
    world.cloud.run().await;
    world.start_agent();
    world.equal(Duration::from_secs(60)).await;
    // What was read within the allowance of the stamp may come again, a second load must not.
    assert!(world.ledger_rows("t") < sent + 1_000, "the table was loaded again");
}
