//! States of the agent that people see and end: tables that wait, deletes that wait, a disk that fills up. Real server,
//! real agent, SQLite as ERP.
//!
//! Promises: each test ends with staging equal to the source, or with the rows that a person refused to let go.

use std::{fs, time::Duration};

use protocol::{
    Code,
    ids::{Epoch, InstanceId, Nonce},
};
use runtime::clock::Wall;
use server::model::session::{Event, State, step};
use sim::process;
use tempfile::TempDir;

use crate::{
    disks::SmallDisk,
    whole::{
        erp::Erp,
        world::{Plan, World},
    },
};

const QUICK: Duration = Duration::from_secs(40);
/// A lost journal is another instance: it waits until the lease of the one before lapses.
const AFTER_LEASE: Duration = Duration::from_secs(90);

/// A stamped table and one without stamp, 300 rows each, loaded and equal. The folder holds the SQLite file.
async fn loaded(plan: impl Fn(Plan) -> Plan) -> (World, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    let schema = "
        CREATE TABLE numbers AS WITH RECURSIVE n(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < 300) SELECT g FROM n;
        CREATE TABLE t (id integer PRIMARY KEY, v varchar(20), changed_at timestamp);
        CREATE TABLE u (id integer PRIMARY KEY, v varchar(20));
        INSERT INTO t SELECT g, 'v' || g, '2024-01-02 03:04:05' FROM numbers;
        INSERT INTO u SELECT g, 'v' || g FROM numbers";
    erp.run(schema).await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let plan = plan(Plan::new(&url, &["t", "u"]).stamp("t", "changed_at"));
    let mut world = World::start(plan, erp).await;
    world.equal(QUICK).await;
    (world, folder)
}

#[tokio::test]
async fn rows_deleted_of_a_table_that_was_withdrawn_while_the_journal_was_lost_are_found_once_it_is_back()
 {
    let (mut world, _folder) = loaded(|plan| plan).await;
    let loads = world.ledger_messages("t", "is_base_load = 1");
    world.cloud.command(&["entity", "remove", "t"]);
    world.status_lacks("\"table\":\"t\"", QUICK).await;
    world.kill_agent();
    world.lose_journal();
    world.erp.run("DELETE FROM t WHERE id BETWEEN 20 AND 29").await.unwrap();
    world.erp.run("DELETE FROM u WHERE id BETWEEN 20 AND 29").await.unwrap();
    world.start_agent();
    // The other table goes on without it.
    world.staged_reaches("SELECT count(*) FROM u WHERE _deleted = 1", 10, AFTER_LEASE).await;
    world.cloud.command(&["entity", "add", "t"]);
    world.equal(QUICK).await;
    assert_eq!(world.ledger_messages("t", "is_base_load = 1"), loads, "t was loaded again");
}

#[tokio::test]
async fn a_table_that_the_server_denied_goes_on_as_soon_as_it_is_shared_again() {
    let (mut world, _folder) = loaded(|plan| plan).await;
    world.cloud.command(&["entity", "remove", "t"]);
    // Written while the agent still has it in its plan, and refused.
    world
        .erp
        .run("UPDATE t SET v = 'late', changed_at = CURRENT_TIMESTAMP WHERE id = 7")
        .await
        .unwrap();
    world.erp.run("UPDATE u SET v = 'on' WHERE id = 7").await.unwrap();
    world.staged_reaches("SELECT count(*) FROM u WHERE v = 'on'", 1, QUICK).await;
    world.status_lacks("\"table\":\"t\",\"state\"", QUICK).await;
    world.cloud.command(&["entity", "add", "t"]);
    world.equal(QUICK).await;
}

/// `malote agent …` beside the running agent.
fn agent(world: &World, words: &[&str]) -> String {
    let mut all = vec!["agent"];
    all.extend(words);
    all.extend(["--config", "agent.toml"]);
    process::command(world.cloud.folder.path(), &all).unwrap_or_else(|error| error.message)
}

#[tokio::test]
async fn f29_deletes_above_the_cap_are_shown_confirmed_by_command_and_go_at_once() {
    let (mut world, _folder) = loaded(|plan| plan).await;
    for table in ["t", "u"] {
        world.erp.run(&format!("DELETE FROM {table} WHERE id > 10")).await.unwrap();
        world
            .status_says(&format!("\"deletes\":[{{\"table\":\"{table}\",\"rows\":290"), QUICK)
            .await;
        let text = agent(&world, &["status"]);
        assert!(text.contains("DELETES_CAPPED: 290 of 300 rows vanished, since 20"), "{text}");
        assert!(agent(&world, &["deletes", "list"]).starts_with(table), "it waits");
        agent(&world, &["deletes", "confirm", table, "--dry-run"]);
        let wrong = agent(&world, &["deletes", "confirm", table, "--rows", "289"]);
        assert!(wrong.contains("290 rows of"), "{wrong}");
        assert!(agent(&world, &["deletes", "list"]).contains("confirm|refuse"), "not answered yet");
        agent(&world, &["deletes", "confirm", table, "--rows", "290"]);
        world.status_lacks("DELETES_CAPPED", QUICK).await;
        let gone = format!("SELECT count(*) FROM {table} WHERE _deleted = 1");
        world.staged_reaches(&gone, 290, QUICK).await;
        world.status_says("\"deletes\":[]", QUICK).await;
    }
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f29_refused_deletes_stay_staged_and_nobody_is_asked_for_them_again() {
    let (mut world, _folder) = loaded(|plan| plan).await;
    world.erp.run("DELETE FROM u WHERE id > 10").await.unwrap();
    world.status_says("\"deletes\":[{\"table\":\"u\",\"rows\":290", QUICK).await;
    agent(&world, &["deletes", "refuse", "u"]);
    // A new process counts again, and asks nobody.
    world.kill_agent();
    world.start_agent();
    world.erp.run("INSERT INTO u VALUES (1000, 'after')").await.unwrap();
    world.staged_has("u", "1000", QUICK).await;
    world.status_says("\"answer\":\"REFUSED\"", QUICK).await;
    world.status_lacks("\"code\":\"DELETES_CAPPED\"", QUICK).await;
    world.staged_reaches("SELECT count(*) FROM u WHERE _deleted = 0", 301, QUICK).await;
}

/// A grant that a dead process never learned is taken over by its nonce (the agent's side). A copy of the data folder made
/// in that moment can do so too, and is found out as any other copy is.
#[test]
fn two_copies_of_a_folder_made_between_open_and_grant_are_both_stopped() {
    let instance = InstanceId(runtime::entropy::uuid());
    let [old, copy] = [(); 2].map(|()| Nonce(runtime::entropy::uuid()));
    let now = Wall(1_000_000);
    let mut state = State::Free { epoch: Epoch(0) };
    let mut say = |event| {
        let (next, answer) = step(state.clone(), event, now);
        state = next;
        answer.map(|_| ())
    };
    let open = |nonce| Event::Open { by: instance, nonce };
    let renew = |epoch, nonce| Event::Renew { epoch: Epoch(epoch), nonce };
    say(open(old)).unwrap();
    // The copy takes the grant over and renews it with a nonce of its own.
    say(open(old)).unwrap();
    say(renew(2, copy)).unwrap();
    // The first one is alive after all: fenced, and found out when it opens again.
    assert_eq!(say(renew(1, old)), Err(Code::Fenced));
    assert_eq!(say(open(old)), Err(Code::InstanceTwice));
    assert_eq!(say(renew(2, copy)), Err(Code::InstanceTwice), "the copy is stopped too");
}

#[tokio::test]
async fn an_agent_on_a_small_tmpfs_that_fills_up_stops_reading_keeps_its_lease_and_goes_on() {
    let (mut world, _folder) = loaded(|plan| plan).await;
    world.stop_agent().await;
    let data = world.cloud.folder.path().join("agent-data");
    let _disk = SmallDisk::over(data.clone(), 160);
    world.start_agent();
    world.status_says("\"phase\":\"SENDING\"", QUICK).await;
    world.erp.run("INSERT INTO u VALUES (1000, 'before')").await.unwrap();
    world.equal(QUICK).await;
    let epoch = world.cloud.command(&["session", "list", "--json"]);

    fs::write(data.join("filler"), vec![0u8; 80 * 1024 * 1024]).unwrap();
    world.status_says("\"paused\":{\"code\":\"DISK_FULL\"", QUICK).await;
    world.status_says("\"state\":\"PAUSED\"", QUICK).await;
    let text = agent(&world, &["status"]);
    assert!(text.contains("PAUSED since") && text.contains("DISK_FULL"), "{text}");
    assert!(text.contains("reading needs 100"), "{text}");
    // Far away they see it too, as what nobody ordered.
    let begun = runtime::clock::Mono::now();
    let seen =
        |world: &World| world.cloud.command(&["fleet", "tables", "--state", "parked", "--json"]);
    while seen(&world).matches("DISK_FULL").count() < 2 {
        assert!(begun.elapsed() < QUICK, "{}", seen(&world));
        runtime::clock::sleep(Duration::from_millis(100)).await;
    }
    world.erp.run("INSERT INTO u VALUES (1001, 'meanwhile')").await.unwrap();
    world.erp.run("DELETE FROM t WHERE id = 7").await.unwrap();
    world.status_says("\"phase\":\"SENDING\"", QUICK).await;

    fs::remove_file(data.join("filler")).unwrap();
    world.equal(QUICK).await;
    world.status_lacks("DISK_FULL", QUICK).await;
    let number = |list: &str| {
        let line = list.lines().next().unwrap().to_owned();
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["epoch"].clone()
    };
    let after = world.cloud.command(&["session", "list", "--json"]);
    assert_eq!(number(&epoch), number(&after), "the lease was kept all the while");
    world.kill_agent();
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_agent_steps_back_behind_other_processes_with_all_its_threads() {
    let (world, _folder) = loaded(|plan| plan).await;
    let tasks = fs::read_dir(format!("/proc/{}/task", world.agent_id())).unwrap();
    let nice: Vec<i32> = tasks
        // One that ended meanwhile has none.
        .filter_map(|task| fs::read_to_string(task.unwrap().path().join("stat")).ok())
        .map(|stat| stat.rsplit(')').next().unwrap().split_whitespace().nth(16).unwrap().parse())
        .map(Result::unwrap)
        .collect();
    assert!(nice.len() > 2 && nice.iter().all(|nice| *nice >= 10), "{nice:?}");
}

#[tokio::test]
async fn agents_of_datasul_and_logix_carry_their_tables_whole() {
    for profile in ["datasul", "logix"] {
        let (mut world, _folder) = loaded(|plan| plan).await;
        world.stop_agent().await;
        let file = world.cloud.folder.path().join("agent.toml");
        let config = fs::read_to_string(&file).unwrap();
        let own = config.replace("profile = 'generic'", &format!("profile = '{profile}'"));
        assert_ne!(own, config);
        fs::write(&file, own).unwrap();
        world.lose_journal();
        world.start_agent();
        let changes = "UPDATE t SET v = 'changed', changed_at = CURRENT_TIMESTAMP WHERE id < 9;
                       DELETE FROM t WHERE id = 200; INSERT INTO u VALUES (1000, 'new'); DELETE FROM u WHERE id = 7";
        world.erp.run(changes).await.unwrap();
        world.equal(AFTER_LEASE).await;
    }
}
