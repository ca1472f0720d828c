//! Restored: server and agent come back from yesterday's copy while the ERP went on (`correctness.md` 3 e, f, h, j).
//!
//! Real processes and the commands of the program. After each restore staging equals the source, no batch id is given
//! out twice, and a sender of before is refused.

use std::{collections::BTreeSet, fs, time::Duration};

use serde_json::Value;
use sim::{process, servers};

use crate::whole::{
    compare,
    erp::Erp,
    sender::{Sender, Target},
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(90);

/// `t` has a stamp, `u` is compared by its rows.
const SCHEMA: &str = "
    CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
    CREATE INDEX ON t (changed_at, id);
    CREATE TABLE u (id bigint PRIMARY KEY, v text);
    INSERT INTO t SELECT g, repeat('x', 60), now() - interval '1 day' FROM generate_series(1, 3000) g;
    INSERT INTO u SELECT g, repeat('y', 60) FROM generate_series(1, 300) g;
    ANALYZE";

async fn world() -> World {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(SCHEMA).await.unwrap();
    let plan = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan, erp).await;
    world.equal(WAIT).await;
    world
}

/// Rows that come, change and go, in both tables; `from` keeps rounds apart.
async fn a_day_of_the_erp(world: &World, from: u32) {
    let to = from + 99;
    let fresh = (10_000 + from, 10_000 + to);
    let sql = format!(
        "INSERT INTO t SELECT g, 'new' FROM generate_series({0}, {1}) g;
         INSERT INTO u SELECT g, 'new' FROM generate_series({0}, {1}) g;
         UPDATE t SET v = 'changed', changed_at = now() WHERE id BETWEEN {from} AND {from} + 40;
         UPDATE u SET v = 'changed' WHERE id BETWEEN {from} AND {from} + 40;
         DELETE FROM t WHERE id BETWEEN {from} + 50 AND {to};
         DELETE FROM u WHERE id BETWEEN {from} + 50 AND {to}",
        fresh.0, fresh.1
    );
    world.erp.run(&sql).await.unwrap();
}

fn batches(world: &World) -> BTreeSet<i64> {
    let store = compare::staging(&world.cloud.store()).unwrap();
    let mut found = store.prepare("SELECT id FROM batch WHERE erp = 'LOGIX'").unwrap();
    found.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

/// Puts the copy back; gives what the command told. What it put aside is taken away, as a person does in the end.
fn restore(world: &World, words: &[&str]) -> Value {
    let told = world.cloud.command(words);
    let told: Value = serde_json::from_str(&told).unwrap();
    let former = told["former"].as_str().unwrap();
    let aside = world.cloud.folder.path().join("data").join(former);
    assert!(aside.join("store.sqlite").exists() && aside.join("staging").exists());
    fs::remove_dir_all(aside).unwrap();
    told
}

/// What a sender of that epoch is answered.
async fn write_under(world: &World, epoch: i64, batch: i64) -> String {
    let target = Target {
        grpc: world.cloud.grpc_target(),
        token: world.cloud.token().await,
        erp: "LOGIX".to_owned(),
        table: "u".to_owned(),
    };
    let mut sender = Sender::new(target);
    sender.epoch = Some(epoch.cast_unsigned());
    let columns = [("id", "long"), ("v", "string")];
    let row: &[(&str, &str)] = &[("id", "1"), ("v", "an image of yesterday")];
    let message = sender.message((batch, 1), (&columns, 1), &[row]);
    match sender.write(&message).await {
        Ok(answer) => format!("{} {}", answer.success, answer.errors.join(", ")),
        Err(status) => status.message().to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_from_yesterdays_copy_gets_again_what_came_since_and_numbers_nothing_twice() {
    let mut world = world().await;
    world.cloud.command(&["backup", "--to", "copy"]);
    a_day_of_the_erp(&world, 1).await;
    world.equal(WAIT).await;
    let (lived, epoch) = (batches(&world), world.epoch());
    world.cloud.stop().await;
    let told = restore(&world, &["restore", "--from", "copy", "--replace", "--json"]);
    assert_eq!(told["streams"].as_array().map(Vec::len), Some(1), "{told}");
    assert!(!batches(&world).is_superset(&lived), "the copy lacks what came since");
    // The ERP goes on while the server is away.
    a_day_of_the_erp(&world, 101).await;
    world.cloud.run().await;
    let last = *lived.last().unwrap();
    let stale = write_under(&world, epoch, last + 1).await;
    assert!(stale.contains("FENCED"), "a sender of before the restore: {stale}");
    world.equal(WAIT).await;
    world.status_says("CLOUD_SET_BACK", WAIT).await;
    let copied: BTreeSet<i64> = batches(&world).into_iter().filter(|id| *id <= last).collect();
    assert!(copied.is_subset(&lived), "a batch id of before came again: {copied:?}");
    assert!(batches(&world).last().unwrap() > &last, "it went on");
    assert!(world.epoch() > epoch + (1 << 32), "{} after {epoch}", world.epoch());
    // Once more from the same copy: the numbers of its first second life do not come again either.
    let (lived, epoch) = (batches(&world), world.epoch());
    world.cloud.stop().await;
    restore(&world, &["restore", "--from", "copy", "--replace", "--json"]);
    a_day_of_the_erp(&world, 201).await;
    world.cloud.run().await;
    world.equal(WAIT).await;
    assert!(world.epoch() > epoch, "{} after {epoch}", world.epoch());
    let (last, now) = (*lived.last().unwrap(), batches(&world));
    assert!(now.iter().filter(|id| **id <= last).all(|id| lived.contains(id)), "{now:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_copied_and_restored_while_nobody_is_asked_to_stop_sending() {
    let mut world = world().await;
    // The copy is of some moment within a load.
    world.cloud.command(&["reload", "t"]);
    world.cloud.command(&["backup", "--to", "copy", "--with-key"]);
    world.equal(WAIT).await;
    let refused = process::answer(
        world.cloud.folder.path(),
        &["server", "restore", "--from", "copy", "--replace", "--config", "server.toml"],
        "",
    )
    .unwrap();
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && words.contains("STORE_BUSY"), "{words}");
    world.cloud.kill();
    // Everything is lost but the copy, its key included.
    fs::remove_dir_all(world.cloud.folder.path().join("data")).unwrap();
    world.cloud.command(&["restore", "--from", "copy"]);
    a_day_of_the_erp(&world, 1).await;
    world.cloud.run().await;
    world.equal(WAIT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_from_yesterdays_copy_sends_nothing_of_its_day_and_finds_what_was_deleted() {
    let mut world = world().await;
    let folder = world.cloud.folder.path().to_owned();
    let agent = |words: &[&str]| {
        let mut all = vec!["agent"];
        all.extend(words);
        all.extend(["--config", "agent.toml"]);
        process::command(&folder, &all).unwrap()
    };
    agent(&["backup", "--to", "copy"]);
    a_day_of_the_erp(&world, 1).await;
    world.equal(WAIT).await;
    world.kill_agent();
    a_day_of_the_erp(&world, 101).await;
    agent(&["restore", "--from", "copy", "--replace"]);
    world.start_agent();
    world.equal(WAIT).await;
}
