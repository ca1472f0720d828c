//! Keys, loads and lost memories, end to end: real server, real agent, PostgreSQL and SQLite.
//!
//! Promises: each test ends with staging equal to the source, whatever the agent forgot or was told in between.

use std::time::Duration;

use sim::servers;
use tempfile::TempDir;

use crate::whole::{
    erp::Erp,
    world::{Plan, World},
};

const QUICK: Duration = Duration::from_secs(40);
/// A lost journal is another instance: it waits until the lease of the one before lapses.
const AFTER_LEASE: Duration = Duration::from_secs(90);

/// A stamped table and one without stamp, in words both databases know.
const SCHEMA: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, v varchar(20), changed_at timestamp);
    CREATE TABLE u (id integer PRIMARY KEY, v varchar(20));
    INSERT INTO t SELECT g, 'v' || g, '2024-01-02 03:04:05' FROM numbers;
    INSERT INTO u SELECT g, 'v' || g FROM numbers";

/// The world over a database of that kind, loaded and equal. The folder holds the SQLite file.
async fn loaded(
    database: &str,
    rows: u32,
    plan: impl Fn(Plan) -> Plan,
) -> (World, Option<TempDir>) {
    let (erp, url, folder) = if database == "postgres" {
        let url = servers::shared().await.unwrap();
        (Erp::postgres(&url).await, url, None)
    } else {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erp.sqlite");
        (Erp::sqlite(&path), format!("sqlite:{}", path.display()), Some(folder))
    };
    let numbers = format!(
        "CREATE TABLE numbers AS WITH RECURSIVE n(g) AS (SELECT 1 UNION ALL SELECT g + 1 FROM n WHERE g < {rows})
         SELECT g FROM n"
    );
    erp.run(&numbers).await.unwrap();
    erp.run(SCHEMA).await.unwrap();
    let plan = plan(Plan::new(&url, &["t", "u"]).stamp("t", "changed_at"));
    let mut world = World::start(plan, erp).await;
    world.equal(QUICK).await;
    (world, folder)
}

/// The old key's row leaves staging and the new key's comes, by stamp and by comparison.
async fn a_changed_key(database: &str) {
    let (mut world, _folder) = loaded(database, 300, |plan| plan).await;
    for change in [
        // Values of t are stamped by the ERP; the old key leaves no trace but its absence.
        "UPDATE t SET id = 9001, changed_at = CURRENT_TIMESTAMP WHERE id = 7",
        "UPDATE u SET id = 9001 WHERE id = 7",
        // The key goes to a row that had another one, whose own key goes on.
        "UPDATE t SET id = 9002, changed_at = CURRENT_TIMESTAMP WHERE id = 8",
        "UPDATE t SET id = 8, changed_at = CURRENT_TIMESTAMP WHERE id = 9",
        "UPDATE u SET id = 9002 WHERE id = 8",
        "UPDATE u SET id = 8 WHERE id = 9",
        // And back to where it was.
        "UPDATE t SET id = 7, changed_at = CURRENT_TIMESTAMP WHERE id = 9001",
        "UPDATE u SET id = 7 WHERE id = 9001",
    ] {
        world.erp.run(change).await.unwrap();
        world.equal(QUICK).await;
    }
}

#[tokio::test]
async fn a_row_whose_key_changes_leaves_under_the_old_one_and_comes_under_the_new_one_on_postgres()
{
    a_changed_key("postgres").await;
}

#[tokio::test]
async fn a_row_whose_key_changes_leaves_under_the_old_one_and_comes_under_the_new_one_on_sqlite() {
    a_changed_key("sqlite").await;
}

/// A base load removes nothing; what is gone from an emptied table is found by its keys, and the request still ends.
async fn an_emptied_table(database: &str) {
    let (mut world, _folder) = loaded(database, 300, Plan::deletes_always).await;
    world.erp.run("DELETE FROM t").await.unwrap();
    world.erp.run("DELETE FROM u").await.unwrap();
    world.reloaded(&["--all"], QUICK).await;
    assert_eq!(world.equal(QUICK).await, 0);
    // Once more over nothing at all: the end of an empty load is told too.
    world.reloaded(&["--all"], QUICK).await;
    assert_eq!(world.equal(QUICK).await, 0);
    world.erp.run("INSERT INTO t VALUES (1, 'again', CURRENT_TIMESTAMP)").await.unwrap();
    world.erp.run("INSERT INTO u VALUES (1, 'again')").await.unwrap();
    assert_eq!(world.equal(QUICK).await, 2);
}

#[tokio::test]
async fn a_table_emptied_under_force_reload_is_empty_in_staging_and_the_reload_ends_on_postgres() {
    an_emptied_table("postgres").await;
}

#[tokio::test]
async fn a_table_emptied_under_force_reload_is_empty_in_staging_and_the_reload_ends_on_sqlite() {
    an_emptied_table("sqlite").await;
}

#[tokio::test]
async fn a_table_emptied_under_force_reload_waits_for_a_person_where_deletes_are_capped() {
    let (mut world, _folder) = loaded("sqlite", 300, |plan| plan).await;
    world.erp.run("DELETE FROM u").await.unwrap();
    world.reloaded(&["u"], QUICK).await;
    world.status_says("DELETES_CAPPED", QUICK).await;
    world.staged_reaches("SELECT count(*) FROM u WHERE _deleted = 0", 300, QUICK).await;
    // The person found that the rows were taken by mistake.
    world.erp.run("INSERT INTO u SELECT g, 'v' || g FROM numbers").await.unwrap();
    world.equal(AFTER_LEASE).await;
}

/// What was staged before is learned from the server, so that a delete that came meanwhile is found.
async fn a_lost_journal(database: &str) {
    let (mut world, _folder) = loaded(database, 300, |plan| plan).await;
    let loads = world.ledger_messages("t", "is_base_load = 1");
    world.kill_agent();
    world.lose_journal();
    world.erp.run("DELETE FROM t WHERE id BETWEEN 20 AND 29").await.unwrap();
    world.erp.run("DELETE FROM u WHERE id BETWEEN 20 AND 29").await.unwrap();
    world.start_agent();
    world.equal(AFTER_LEASE).await;
    // And one that comes after.
    world.erp.run("DELETE FROM t WHERE id = 40").await.unwrap();
    world.erp.run("DELETE FROM u WHERE id = 40").await.unwrap();
    world.equal(QUICK).await;
    assert_eq!(world.ledger_messages("t", "is_base_load = 1"), loads, "t was loaded again");
}

#[tokio::test]
async fn a_delete_after_the_journal_was_lost_is_found_on_postgres() {
    a_lost_journal("postgres").await;
}

#[tokio::test]
async fn a_delete_after_the_journal_was_lost_is_found_on_sqlite() {
    a_lost_journal("sqlite").await;
}

/// Rows deleted while nobody looked at the table, by an agent that remembers it.
async fn a_withdrawn_table(database: &str) {
    let (mut world, _folder) = loaded(database, 300, |plan| plan).await;
    world.cloud.command(&["entity", "remove", "t"]);
    world.status_lacks("\"table\":\"t\"", QUICK).await;
    world.erp.run("DELETE FROM t WHERE id BETWEEN 20 AND 29").await.unwrap();
    world.cloud.command(&["entity", "add", "t"]);
    world.equal(QUICK).await;
}

#[tokio::test]
async fn rows_deleted_while_their_table_was_withdrawn_are_found_on_postgres() {
    a_withdrawn_table("postgres").await;
}

#[tokio::test]
async fn rows_deleted_while_their_table_was_withdrawn_are_found_on_sqlite() {
    a_withdrawn_table("sqlite").await;
}

/// A table whose key becomes another one is parked by the server's refusal until a person lets a load rebuild it.
async fn a_table_under_another_key(database: &str) {
    let (mut world, _folder) = loaded(database, 300, Plan::deletes_always).await;
    let alters: &[&str] = match database {
        "postgres" => &[
            "ALTER TABLE u DROP CONSTRAINT u_pkey; ALTER TABLE u ADD PRIMARY KEY (id, v)",
            "ALTER TABLE u DROP CONSTRAINT u_pkey; ALTER TABLE u ADD PRIMARY KEY (id)",
        ],
        _ => &[
            "CREATE TABLE w (id integer, v varchar(20), PRIMARY KEY (id, v)); INSERT INTO w SELECT * FROM u;
             DROP TABLE u; ALTER TABLE w RENAME TO u",
            "CREATE TABLE w (id integer PRIMARY KEY, v varchar(20)); INSERT INTO w SELECT * FROM u;
             DROP TABLE u; ALTER TABLE w RENAME TO u",
        ],
    };
    let parked = "\"parked\":[\"PRIMARY_KEY_CHANGED\"";
    for (nth, alter) in (1..).zip(alters) {
        world.erp.run(alter).await.unwrap();
        world.status_says(parked, QUICK).await;
        undisturbed(&mut world, nth).await;
        if database == "postgres" && nth == 1 {
            // A plain reload is one try, whose refusal costs its batch, and keeps the staged rows as they are.
            let before = world.epoch();
            world.cloud.command(&["reload", "u"]);
            world.reaches_epoch(before + 1, QUICK).await;
            undisturbed(&mut world, nth + 10).await;
        }
        assert_eq!(world.staged_count("SELECT count(*) FROM u WHERE _deleted = 0"), 300);
        // Rows that go meanwhile are not among those the rebuilt table is made of.
        world.erp.run(&format!("DELETE FROM u WHERE id = {nth}")).await.unwrap();
        world.reloaded(&["u", "--rebuild"], AFTER_LEASE).await;
        world.status_lacks(parked, QUICK).await;
        world.equal(QUICK).await;
        let back =
            format!("INSERT INTO u VALUES ({nth}, 'back'); UPDATE u SET v = 'x{nth}' WHERE id = 9");
        world.erp.run(&back).await.unwrap();
        assert_eq!(world.equal(QUICK).await, 600);
    }
}

/// A parked table costs the others nothing: their batches are complete, one after the other, within one session.
async fn undisturbed(world: &mut World, nth: u32) {
    let mut epochs = std::collections::BTreeSet::new();
    for change in 0..4 {
        let v = format!("still on {nth} {change}");
        world
            .erp
            .run(&format!("UPDATE t SET v = '{v}', changed_at = CURRENT_TIMESTAMP WHERE id = 6"))
            .await
            .unwrap();
        let complete = "SELECT count(*) FROM t JOIN malote_batches b ON b.batch = t._batch AND b.state = 'complete'";
        world.staged_reaches(&format!("{complete} WHERE t.v = '{v}'"), 1, QUICK).await;
        epochs.insert(world.epoch());
    }
    assert_eq!(
        epochs.len(),
        1,
        "sessions were opened again and again: {epochs:?}\n{}",
        world.logs()
    );
}

#[tokio::test]
async fn a_table_under_another_key_is_parked_and_made_anew_by_a_rebuild_on_postgres() {
    a_table_under_another_key("postgres").await;
}

#[tokio::test]
async fn a_table_under_another_key_is_parked_and_made_anew_by_a_rebuild_on_sqlite() {
    a_table_under_another_key("sqlite").await;
}

/// What a person changed by mistake and changed back costs nothing: a delete of the time between is found as well.
#[tokio::test]
async fn a_key_that_is_changed_and_changed_back_leaves_staging_equal() {
    let (mut world, _folder) = loaded("postgres", 300, |plan| plan).await;
    let loads = world.ledger_messages("u", "is_base_load = 1");
    world
        .erp
        .run("ALTER TABLE u DROP CONSTRAINT u_pkey; ALTER TABLE u ADD PRIMARY KEY (id, v)")
        .await
        .unwrap();
    world.status_says("\"parked\":[\"PRIMARY_KEY_CHANGED\"", QUICK).await;
    world
        .erp
        .run("DELETE FROM u WHERE id = 5; UPDATE u SET v = 'meanwhile' WHERE id = 6")
        .await
        .unwrap();
    world
        .erp
        .run("ALTER TABLE u DROP CONSTRAINT u_pkey; ALTER TABLE u ADD PRIMARY KEY (id)")
        .await
        .unwrap();
    // A parked table is looked at again once a minute.
    world.equal(AFTER_LEASE).await;
    assert_eq!(world.ledger_messages("u", "is_base_load = 1"), loads, "u was loaded again");
    assert_eq!(world.epoch(), 1, "a refusal was needed");
}

#[tokio::test]
async fn loads_of_tables_with_names_of_any_letters_end_together_and_their_requests_are_told_as_done()
 {
    let names = ["preços", "a:b 50%", "plain"];
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    for name in names {
        let sql = format!(
            "CREATE TABLE \"{name}\" (id bigint PRIMARY KEY, v text); INSERT INTO \"{name}\" VALUES (1, 'a')"
        );
        erp.run(&sql).await.unwrap();
    }
    let mut world = World::start(Plan::new(&url, &names), erp).await;
    world.equal(QUICK).await;
    world.reloaded(&["--all"], QUICK).await;
    world.equal(QUICK).await;
}
