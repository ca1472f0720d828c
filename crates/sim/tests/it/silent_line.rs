//! Silent TCP death between agent and database (F16): a firewall that drops what passes and tells nobody.

use std::time::Duration;

use runtime::{clock, config};
use sim::{chance::Chance, servers};

use crate::whole::{
    erp::Erp,
    line::Line,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(90);
/// The agent's own watch on a call is 15 s, three times a statement's limit; the rest is for a slow machine.
const NOTICED: Duration = Duration::from_secs(30);

/// A table of those rows, read over a line by a plan changed like that.
pub(crate) async fn followed(rows: u32, change: impl FnOnce(Plan) -> Plan) -> (World, Line) {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    let schema = format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
         CREATE INDEX ON t (changed_at, id);
         INSERT INTO t SELECT g, repeat('v', 100) || g, now() - interval '1 day' FROM generate_series(1, {rows}) g; ANALYZE t"
    );
    erp.run(&schema).await.unwrap();
    let port = servers::shared_server().await.unwrap().port();
    let line = Line::to(format!("127.0.0.1:{port}")).await;
    let near = url.replace(&format!(":{port}/"), &format!(":{}/", line.port));
    let plan = Plan::new(&near, &["t"]).stamp("t", "changed_at").no_scans();
    (World::start(change(plan), erp).await, line)
}

/// Waits until the table is parked by what silence looks like; the agent meanwhile keeps its lease.
async fn noticed(world: &mut World) {
    let begun = clock::Mono::now();
    loop {
        let status = world.agent_status();
        assert!(status.contains("\"phase\":\"SENDING\""), "the lease was lost: {status}");
        if status.contains("SOURCE_TIMEOUT") || status.contains("SOURCE_UNREACHABLE") {
            return;
        }
        assert!(begun.elapsed() < NOTICED, "the agent hangs: {status}\n{}", world.logs());
        clock::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn f16_a_line_that_falls_silent_within_a_page_frees_the_loop_and_half_a_page_is_no_page() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let full = config::variable("MALOTE_TEST_FULL").is_some();
    let (rounds, rows) = if full { (8, 200_000) } else { (2, 60_000) };
    let (mut world, line) = followed(rows, |plan| plan).await;
    for round in 1..=rounds {
        world.staged_reaches("SELECT count(*) FROM t", round * 3_000, WAIT).await;
        // A page has at least 50 kB here.
        line.silent_after(u32::try_from(1_000 + chance.below(200_000)).unwrap());
        tokio::time::timeout(WAIT, line.fell_silent()).await.unwrap();
        noticed(&mut world).await;
        line.open_again();
    }
    world.erp.run("INSERT INTO t VALUES (900001, 'after the silence')").await.unwrap();
    world.equal(WAIT).await;
    assert!(line.swallowed() > 0, "nothing was lost on the line");
}

#[tokio::test]
async fn f16_a_line_that_is_silent_between_cycles_is_noticed_and_what_changed_meanwhile_comes() {
    let (mut world, line) = followed(200, |plan| plan).await;
    world.equal(WAIT).await;
    line.silent_after(0);
    noticed(&mut world).await;
    world.erp.run("UPDATE t SET v = 'meanwhile', changed_at = now() WHERE id <= 20").await.unwrap();
    world.erp.run("INSERT INTO t VALUES (900001, 'meanwhile')").await.unwrap();
    // A second watch passes on connections that are made anew and hear nothing.
    world.status_says("SOURCE_UNREACHABLE", WAIT).await;
    line.open_again();
    world.equal(WAIT).await;
}
