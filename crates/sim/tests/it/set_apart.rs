//! What is set apart while the rest goes on, with a real PostgreSQL, agent and server: deletes above the cap, a row that no
//! message holds, rows that differ by a NULL or by where one value ends (F27, F29, F36).
//!
//! Promises: each test ends with staging equal to the database.

use std::time::Duration;

use sim::{process, servers};

use crate::whole::{
    erp::Erp,
    world::{Plan, World},
};

const QUICK: Duration = Duration::from_secs(60);

/// A table with a stamp and one without, 300 rows each, loaded and equal.
async fn loaded() -> World {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, w text, changed_at timestamptz DEFAULT now());
         CREATE INDEX ON t (changed_at, id);
         CREATE TABLE u (id bigint PRIMARY KEY, v text, w text);
         INSERT INTO t SELECT g, 'v' || g, 'w', now() - interval '1 day' FROM generate_series(1, 300) g;
         INSERT INTO u SELECT g, 'v' || g, 'w' FROM generate_series(1, 300) g",
    )
    .await
    .unwrap();
    let mut world = World::start(Plan::new(&url, &["t", "u"]).stamp("t", "changed_at"), erp).await;
    world.equal(QUICK).await;
    world
}

#[tokio::test]
async fn f29_most_rows_of_a_postgres_table_vanish_and_nothing_goes_until_a_person_says_their_number()
 {
    let mut world = loaded().await;
    for table in ["t", "u"] {
        world.erp.run(&format!("DELETE FROM {table} WHERE id > 10")).await.unwrap();
        let waits = format!("\"deletes\":[{{\"table\":\"{table}\",\"rows\":290");
        world.status_says(&waits, QUICK).await;
        let live = format!("SELECT count(*) FROM {table} WHERE _deleted = 0");
        assert_eq!(world.staged_count(&live), 300, "none went");
        let words =
            ["agent", "deletes", "confirm", table, "--rows", "290", "--config", "agent.toml"];
        process::command(world.cloud.folder.path(), &words).unwrap();
        world.staged_reaches(&live, 10, QUICK).await;
        world.status_lacks("DELETES_CAPPED", QUICK).await;
    }
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f36_a_postgres_row_that_no_message_holds_is_told_and_its_neighbours_go() {
    let mut world = loaded().await;
    let large = "SELECT string_agg(md5(g::text), '') FROM generate_series(1, 180000) g";
    let sql = format!(
        "INSERT INTO t VALUES (1001, 'before', 'w'); INSERT INTO t VALUES (1002, ({large}), 'w');
         INSERT INTO t VALUES (1003, 'behind', 'w'); INSERT INTO u VALUES (1002, ({large}), 'w');
         INSERT INTO u VALUES (1003, 'behind', 'w')"
    );
    world.erp.run(&sql).await.unwrap();
    for (table, id) in [("t", "1001"), ("t", "1003"), ("u", "1003")] {
        world.staged_has(table, id, QUICK).await;
    }
    world.status_says("ROW_TOO_LARGE", QUICK).await;
    let staged = "SELECT (SELECT count(*) FROM t WHERE id = 1002) + (SELECT count(*) FROM u WHERE id = 1002)";
    assert_eq!(world.staged_count(staged), 0);
    let small = "UPDATE t SET v = 'small', changed_at = now() WHERE id = 1002; UPDATE u SET v = 'small' WHERE id = 1002";
    world.erp.run(small).await.unwrap();
    world.equal(QUICK).await;
    world.status_lacks("ROW_TOO_LARGE", QUICK).await;
}

#[tokio::test]
async fn f27_a_postgres_row_that_differs_by_a_null_or_by_where_a_value_ends_is_another_one() {
    let mut world = loaded().await;
    // Without a stamp only the hash tells that a row is another one.
    for set in [
        "v = NULL",
        "v = ''",
        "v = NULL, w = ''",
        "v = '', w = NULL",
        "v = 'ab', w = 'c'",
        "v = 'a', w = 'bc'",
        "v = 'a|b', w = 'c'",
        "v = 'a', w = 'b|c'",
        "v = 'a', w = 'b|c '",
    ] {
        world.erp.run(&format!("UPDATE u SET {set} WHERE id % 100 = 7")).await.unwrap();
        world.equal(QUICK).await;
    }
    world
        .erp
        .run("ALTER TABLE u ADD COLUMN x text; UPDATE u SET x = w WHERE id < 50")
        .await
        .unwrap();
    world.equal(QUICK).await;
}
