//! Faults of the catalogue (`correctness.md` 2) end to end: real PostgreSQL, real server, real agent, real clock.

use std::time::Duration;

use runtime::{clock, config};
use sim::{
    chance::Chance,
    servers::{self, Postgres},
};

use crate::whole::{
    erp::Erp,
    workload,
    world::{Plan, World},
};

const QUICK: Duration = Duration::from_secs(40);
const SLOW: Duration = Duration::from_secs(90);

/// A stamped table of `rows` rows; the stamp is the start of the transaction.
fn stamped(rows: u32) -> String {
    format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
         CREATE INDEX ON t (changed_at, id);
         INSERT INTO t SELECT g, 'v' || g, now() - interval '1 day' FROM generate_series(1, {rows}) g; ANALYZE t"
    )
}

/// A database of its own with a schema, a reader, and the whole following it, by the watermark alone.
async fn followed_by_stamp(schema: &str) -> (String, World) {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(schema).await.unwrap();
    let plan = Plan::new(&url, &["t"]).stamp("t", "changed_at").no_scans();
    let mut world = World::start(plan, erp).await;
    world.status_says("\"TIMESTAMP\"", QUICK).await;
    (url, world)
}

/// A database of its own with a schema, a reader, and the whole following it.
async fn followed(schema: &str, tables: &[&'static str]) -> (String, World) {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(schema).await.unwrap();
    let world = World::start(Plan::new(&url, tables).stamp("t", "changed_at"), erp).await;
    (url, world)
}

#[tokio::test]
async fn f01_a_transaction_that_commits_late_with_an_older_stamp_is_not_missed() {
    let (url, mut world) = followed_by_stamp(&stamped(50)).await;
    world.equal(QUICK).await;
    let late = servers::connect(&url).await.unwrap();
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1001, 'late')").await.unwrap();
    for id in 2001..2004 {
        world.erp.run(&format!("INSERT INTO t VALUES ({id}, 'in time')")).await.unwrap();
        world.staged_has("t", &id.to_string(), QUICK).await;
    }
    late.batch_execute("COMMIT").await.unwrap();
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f02_a_transaction_that_writes_late_with_its_start_as_stamp_is_not_missed() {
    let (url, mut world) = followed_by_stamp(&stamped(50)).await;
    world.equal(QUICK).await;
    let idle = servers::connect(&url).await.unwrap();
    idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
    for id in 2001..2004 {
        world.erp.run(&format!("INSERT INTO t VALUES ({id}, 'in time')")).await.unwrap();
        world.staged_has("t", &id.to_string(), QUICK).await;
    }
    idle.batch_execute("INSERT INTO t VALUES (1001, 'stamped with its start'); COMMIT")
        .await
        .unwrap();
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f04_a_transaction_longer_than_the_allowance_is_not_missed() {
    let (url, mut world) = followed_by_stamp(&stamped(50)).await;
    world.equal(QUICK).await;
    let long = servers::connect(&url).await.unwrap();
    long.batch_execute("BEGIN; UPDATE t SET v = 'long', changed_at = now() WHERE id <= 10")
        .await
        .unwrap();
    // The allowance of PostgreSQL is 10 s; the watermark would have passed without a safe bound.
    let begun = clock::Mono::now();
    let mut id = 3000;
    while begun.elapsed() < Duration::from_secs(16) {
        id += 1;
        world.erp.run(&format!("INSERT INTO t VALUES ({id}, 'meanwhile')")).await.unwrap();
        world.staged_has("t", &id.to_string(), QUICK).await;
    }
    long.batch_execute("COMMIT").await.unwrap();
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f05_a_login_that_cannot_see_other_sessions_is_degraded_and_says_so() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&stamped(20)).await.unwrap();
    let role = "CREATE ROLE plain_reader LOGIN; GRANT SELECT ON t TO plain_reader";
    erp.run(role).await.unwrap();
    let plain = url.replace("postgres://postgres@", "postgres://plain_reader@");
    let mut world = World::start(Plan::new(&plain, &["t"]).stamp("t", "changed_at"), erp).await;
    world.equal(QUICK).await;
    let findings = world.agent_check();
    assert!(findings.contains("BOUND_DEGRADED"), "{findings}");
    // The words of the degraded mode, not its absence.
    world.status_says("\"degraded\":\"", QUICK).await;
    world.erp.run("UPDATE t SET v = 'seen all the same', changed_at = now()").await.unwrap();
    world.equal(QUICK).await;
}

#[tokio::test]
async fn f11_rows_whose_stamp_is_null_are_loaded() {
    let schema = format!("{}; UPDATE t SET changed_at = NULL WHERE id % 2 = 0", stamped(1_000));
    let (_, mut world) = followed_by_stamp(&schema).await;
    world.equal(QUICK).await;
    world.erp.run("UPDATE t SET v = 'now stamped', changed_at = now() WHERE id = 2").await.unwrap();
    world.equal(QUICK).await;
}

/// Cuts the database's power at random moments of a base load, then of deltas over the whole table.
#[tokio::test]
async fn f16_a_database_that_loses_power_again_and_again_while_it_is_read_is_read_on() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let full = config::variable("MALOTE_TEST_FULL").is_some();
    let (cuts, rows) = if full { (50, 300_000) } else { (5, 120_000) };
    let mut server = Postgres::start().await.unwrap();
    let url = server.create_database("erp").await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&stamped(rows)).await.unwrap();
    let mut world = World::start(Plan::new(&url, &["t"]).stamp("t", "changed_at"), erp).await;
    let (mut of_load, mut of_delta) = (0, 0);
    for cut in 1..=cuts {
        let staged = world.staged_count("SELECT count(*) FROM t");
        if staged + 2_000 < i64::from(rows) && cut * 2 <= cuts {
            world.staged_reaches("SELECT count(*) FROM t", staged + 2_000, SLOW).await;
            of_load += 1;
        } else {
            // A tenth is long enough to be cut within; the group is read whole after each cut.
            let update =
                format!("UPDATE t SET v = 'cut {cut}', changed_at = now() WHERE id % 10 = 0");
            world.erp.run(&update).await.unwrap();
            let sent = format!("SELECT count(*) FROM t WHERE v = 'cut {cut}'");
            world.staged_reaches(&sent, 1_000, SLOW).await;
            of_delta += 1;
        }
        clock::sleep(Duration::from_millis(chance.below(150))).await;
        server.stop_immediate().await.unwrap();
        server.restart().await.unwrap();
        world.erp = Erp::postgres(&url).await;
    }
    world.erp.run("INSERT INTO t VALUES (900001, 'after the cut')").await.unwrap();
    world.equal(SLOW).await;
    println!("{of_load} cuts while it was loaded, {of_delta} after");
    assert!(of_load > 0 && of_delta > 0);
}

#[tokio::test]
async fn f17_a_base_load_that_is_killed_goes_on_at_its_chunk() {
    let rows = 60_000;
    let (_, mut world) = followed(&stamped(rows), &["t"]).await;
    for kill in 1..=3 {
        world.staged_reaches("SELECT count(*) FROM t", kill * 8_000, SLOW).await;
        world.kill_agent();
        world.start_agent();
    }
    world.equal(SLOW).await;
    let sent = world.ledger_rows("t");
    assert!(
        sent < 3 * u64::from(rows),
        "{sent} rows were sent for {rows}: the load began again at zero"
    );
}

#[tokio::test]
async fn f19_rows_behind_the_chunk_and_keys_of_an_icu_collation_are_not_missed() {
    let schema = "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        CREATE TABLE names (name text COLLATE nocase PRIMARY KEY, n integer);
        INSERT INTO names SELECT chr(97 + g % 26) || 'é ' || g || repeat(' ', g % 3), g FROM generate_series(1, 20000) g;
        INSERT INTO names VALUES ('Ärger', 1), ('argé', 2), ('ARGUE ', 3), ('', 4), (' ', 5), ('ß', 6), ('ſ', 7);
        CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
        INSERT INTO t SELECT g * 2, 'v', now() - interval '1 day' FROM generate_series(1, 20000) g; ANALYZE";
    let (_, mut world) = followed(schema, &["names", "t"]).await;
    world.staged_reaches("SELECT count(*) FROM t", 1_000, SLOW).await;
    world.erp.run("INSERT INTO t VALUES (1, 'behind'), (3, 'behind'); UPDATE t SET id = 5, changed_at = now() WHERE id = 39998; UPDATE t SET id = 39997, changed_at = now() WHERE id = 4").await.unwrap();
    world.equal(SLOW).await;
}

#[tokio::test]
async fn f30_columns_that_come_go_and_change_under_the_reader_are_never_mixed_up() {
    let (_, mut world) = followed(&stamped(5_000), &["t"]).await;
    world.staged_reaches("SELECT count(*) FROM t", 200, QUICK).await;
    for ddl in [
        // None of them moves a stamp, and all of them change what every row looks like.
        "ALTER TABLE t ADD COLUMN added text DEFAULT 'there'",
        "ALTER TABLE t RENAME COLUMN v TO w",
        "ALTER TABLE t ALTER COLUMN added DROP DEFAULT, ALTER COLUMN added TYPE numeric USING 7",
        "ALTER TABLE t DROP COLUMN added; UPDATE t SET w = w || '!', changed_at = now() WHERE id < 9",
    ] {
        world.erp.run(ddl).await.unwrap();
        world.equal(SLOW).await;
    }
}

#[tokio::test]
async fn a_busy_erp_of_many_sessions_is_equal_when_it_rests() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(workload::SCHEMA).await.unwrap();
    let plan = Plan::new(&url, &workload::TABLES).stamp("orders", "changed_at");
    let mut world = World::start(plan, erp).await;
    let told = workload::run(&url, 8, 60, &mut chance).await;
    world.equal(SLOW).await;
    println!("{told:?}");
    for kind in workload::KINDS {
        assert!(told.of(kind) > 0, "no {kind}: {told:?}");
    }
    assert!(told.most_open() >= 4, "at most {} transactions at once", told.most_open());
}

#[tokio::test]
async fn f12_what_a_disabled_trigger_and_direct_sql_did_to_no_stamp_is_found_by_the_comparison() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&stamped(300)).await.unwrap();
    erp.run(
        "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.changed_at = now(); RETURN NEW; END $$;
         CREATE TRIGGER stamp BEFORE UPDATE OR INSERT ON t FOR EACH ROW EXECUTE FUNCTION stamp()",
    )
    .await
    .unwrap();
    let plan = Plan::new(&url, &["t"]).stamp("t", "changed_at").compares_every(5);
    let mut world = World::start(plan, erp).await;
    world.equal(QUICK).await;
    world
        .erp
        .run(
            "ALTER TABLE t DISABLE TRIGGER stamp; UPDATE t SET v = 'unseen' WHERE id % 10 = 0;
             INSERT INTO t VALUES (9001, 'old stamp', now() - interval '30 days')",
        )
        .await
        .unwrap();
    world.equal(SLOW).await;
}

#[tokio::test]
async fn f04_a_transaction_longer_than_a_weak_bounds_window_is_found_by_the_comparison() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&stamped(50)).await.unwrap();
    // A login that sees no other session has a window alone.
    let role = format!("weak_{}", runtime::entropy::uuid().simple());
    erp.run(&format!(
        "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ))
    .await
    .unwrap();
    let server = servers::shared_server().await.unwrap();
    let database = url.rsplit('/').next().unwrap();
    let source = server.url_as(&role, database);
    let plan = Plan::new(&source, &["t"]).stamp("t", "changed_at").compares_every(10).overlaps(2);
    let mut world = World::start(plan, erp).await;
    world.equal(QUICK).await;
    world.status_says("of overlap are used", QUICK).await;
    let late = servers::connect(&url).await.unwrap();
    late.batch_execute("BEGIN; INSERT INTO t VALUES (1001, 'late')").await.unwrap();
    // The watermark passes the open transaction: its window is two seconds.
    let begun = clock::Mono::now();
    for id in 2001.. {
        world.erp.run(&format!("INSERT INTO t VALUES ({id}, 'in time')")).await.unwrap();
        world.staged_has("t", &id.to_string(), QUICK).await;
        if begun.elapsed() > Duration::from_secs(5) {
            break;
        }
    }
    late.batch_execute("COMMIT").await.unwrap();
    world.equal(SLOW).await;
}

#[tokio::test]
async fn a_table_whose_rows_a_policy_hides_from_the_login_is_parked_and_no_part_of_it_is_taken_for_the_whole()
 {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    let role = format!("policed_{}", runtime::entropy::uuid().simple());
    erp.run(&format!(
        "{}; CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT SELECT ON t TO {role};
         ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY a_part ON t USING (id <= 10)",
        stamped(50)
    ))
    .await
    .unwrap();
    let server = servers::shared_server().await.unwrap();
    let source = server.url_as(&role, url.rsplit('/').next().unwrap());
    let plan = Plan::new(&source, &["t"]).stamp("t", "changed_at");
    let mut world = World::start(plan, erp).await;
    world.status_says("SOURCE_RIGHTS", QUICK).await;
    world.erp.run(&format!("ALTER ROLE {role} BYPASSRLS")).await.unwrap();
    world.equal(SLOW).await;
}
