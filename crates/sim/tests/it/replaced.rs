//! A database that is put in the place of the one the server knows, while the agent runs (F51).
//!
//! Real agent, real server; SQLite's file is replaced by rename, PostgreSQL's cluster by another one behind the address.

use std::{fs, path::Path, time::Duration};

use sim::servers::Postgres;

use crate::whole::{
    erp::Erp,
    line::Line,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);
const SCHEMA: &str = "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT CURRENT_TIMESTAMP)";

/// A file with two rows that is followed.
async fn followed(path: &Path) -> World {
    let erp = Erp::sqlite(path);
    erp.run("PRAGMA journal_mode = DELETE").await.unwrap();
    erp.run("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, changed_at TEXT DEFAULT CURRENT_TIMESTAMP)").await.unwrap();
    erp.run("INSERT INTO t (id, v) VALUES (1, 'a'), (2, 'b')").await.unwrap();
    let source = format!("sqlite:{}", path.display());
    let plan = Plan::new(&source, &["t"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan, erp).await;
    world.equal(WAIT).await;
    world
}

/// Yesterday's copy comes back: without row 2, with another row 3.
async fn put_back(path: &Path) {
    let copy = path.with_file_name("copy.sqlite");
    fs::copy(path, &copy).unwrap();
    let restored = Erp::sqlite(&copy);
    restored
        .run("DELETE FROM t WHERE id = 2; INSERT INTO t (id, v) VALUES (3, 'c')")
        .await
        .unwrap();
    drop(restored);
    fs::rename(&copy, path).unwrap();
}

#[tokio::test]
async fn f51_a_file_that_is_replaced_while_the_agent_is_dead_is_told_although_its_lease_lasts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let mut world = followed(&path).await;
    world.kill_agent();
    put_back(&path).await;
    world.start_agent();
    world.status_says("DATABASE_CHANGED", WAIT).await;
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'b'"), 1, "nothing is taken");
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'c'"), 0);
}

#[tokio::test]
async fn f51_a_file_that_is_replaced_under_the_agent_is_told_and_waits_for_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let mut world = followed(&path).await;
    put_back(&path).await;
    world.status_says("DATABASE_CHANGED", WAIT).await;
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'b'"), 1, "nothing is taken");
    let agents = world.cloud.command(&["fleet", "agents", "--json"]);
    assert!(agents.contains("\"code\":\"DATABASE_CHANGED\""), "{agents}");
    // A person says that it is the same ERP: now it is followed, and equal.
    world.erp = Erp::sqlite(&path);
    let streams = world.cloud.command(&["session", "list", "--json"]);
    let waits = streams.split("\"fingerprint\":\"").nth(1).and_then(|rest| rest.split('"').next());
    world.cloud.command(&["session", "accept", waits.unwrap()]);
    world.equal(WAIT).await;
    let agents = world.cloud.command(&["fleet", "agents", "--json"]);
    assert!(agents.contains("\"link\":\"sending\",\"code\":null"), "{agents}");
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'b' AND _deleted = 0"), 0);
}

#[tokio::test]
async fn f51_an_address_that_leads_to_another_cluster_is_told_and_nothing_of_it_is_read() {
    let mut first = Postgres::start().await.unwrap();
    let url = first.create_database("erp").await.unwrap();
    let other = Postgres::start().await.unwrap();
    let other_url = other.create_database("erp").await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&format!("{SCHEMA}; INSERT INTO t (id, v) VALUES (1, 'a')")).await.unwrap();
    let stranger = Erp::postgres(&other_url).await;
    stranger.run(&format!("{SCHEMA}; INSERT INTO t (id, v) VALUES (9, 'z')")).await.unwrap();
    let line = Line::to(format!("127.0.0.1:{}", first.port())).await;
    let near = url.replace(&format!(":{}/", first.port()), &format!(":{}/", line.port));
    let plan = Plan::new(&near, &["t"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan, erp).await;
    world.equal(WAIT).await;
    line.turn_to(format!("127.0.0.1:{}", other.port()));
    first.stop_immediate().await.unwrap();
    world.status_says("DATABASE_CHANGED", WAIT).await;
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE id = 9"), 0);
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE id = 1 AND _deleted = 0"), 1);
}

/// A cluster of its own with two rows that are followed, and a copy of it from before the second came.
async fn followed_cluster(role: &str) -> (World, Postgres) {
    let mut postgres = Postgres::start().await.unwrap();
    let url = postgres.create_database("erp").await.unwrap();
    let erp = Erp::postgres(&url).await;
    let reader =
        "CREATE ROLE reader LOGIN; GRANT pg_read_all_stats TO reader; GRANT SELECT ON t TO reader";
    erp.run(&format!("{SCHEMA}; INSERT INTO t (id, v) VALUES (1, 'a'); {reader}")).await.unwrap();
    drop(erp);
    postgres.copied().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run("INSERT INTO t (id, v) VALUES (2, 'b')").await.unwrap();
    let source = postgres.url_as(role, "erp");
    let plan = Plan::new(&source, &["t"]).stamp("t", "changed_at").deletes_always();
    let mut world = World::start(plan, erp).await;
    world.equal(WAIT).await;
    (world, postgres)
}

#[tokio::test]
async fn f51_a_cluster_that_is_put_back_from_an_older_copy_is_told_and_nothing_is_deleted() {
    // The same machine, folder, port, system and timeline: the place in the log alone tells them apart.
    for role in ["postgres", "reader"] {
        let (mut world, mut postgres) = followed_cluster(role).await;
        postgres.put_back().await.unwrap();
        world.status_says("DATABASE_CHANGED", WAIT).await;
        let live = "SELECT count(*) FROM t WHERE _deleted = 0";
        assert_eq!(world.staged_count(live), 2, "{role}: nothing is taken");
        let agents = world.cloud.command(&["fleet", "agents", "--json"]);
        assert!(agents.contains("position"), "{role}: {agents}");
    }
}

#[tokio::test]
async fn f51_a_second_agent_that_reads_a_clone_is_refused_while_the_first_one_goes_on() {
    for role in ["postgres", "reader"] {
        let (mut world, postgres) = followed_cluster(role).await;
        let clone = postgres.clone_of_copy().await.unwrap();
        let clone_erp = Erp::postgres(&clone.url("erp")).await;
        // More was written in it than in the one it was made from, so that its place in the log is further.
        clone_erp.run("CREATE TABLE filler AS SELECT g, repeat('x', 1000) FROM generate_series(1, 20000) g").await.unwrap();
        clone_erp.run("DELETE FROM t; INSERT INTO t (id, v) VALUES (9, 'z')").await.unwrap();
        world.stop_agent().await;
        let file = world.cloud.folder.path().join("agent.toml");
        let config = fs::read_to_string(&file).unwrap();
        let (own, theirs) = (postgres.url_as(role, "erp"), clone.url_as(role, "erp"));
        fs::write(&file, config.replace(&own, &theirs)).unwrap();
        world.start_agent();
        world.status_says("DATABASE_CHANGED", WAIT).await;
        assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE id = 9"), 0, "{role}");
        world.stop_agent().await;
        fs::write(&file, config).unwrap();
        world.start_agent();
        world.erp.run("INSERT INTO t (id, v) VALUES (3, 'c')").await.unwrap();
        world.equal(WAIT).await;
    }
}
