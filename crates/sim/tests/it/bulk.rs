//! One statement that stamps very many rows alike (F71): the group is larger than any batch, and the agent is killed
//! inside it.

use std::time::Duration;

use runtime::{clock::Mono, config};
use sim::{process, servers};

use crate::whole::{
    erp::Erp,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(240);
/// What an agent may hold at its highest; the text of the group alone is 150 MB and more.
const MEMORY_KIB: u64 = 128 * 1024;

/// Highest resident memory of a process so far, KiB.
fn peak_kib(of: u32) -> u64 {
    process::memory(of, "VmHWM").unwrap() / 1024
}

#[tokio::test]
async fn f07_f71_one_update_of_very_many_rows_survives_kills_inside_the_group() {
    let full = config::variable("MALOTE_TEST_FULL").is_some();
    let rows: i64 = if full { 1_000_000 } else { 300_000 };
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    let schema = format!(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
         CREATE INDEX ON t (changed_at, id);
         INSERT INTO t SELECT g, 'v' || g, now() - interval '1 day' FROM generate_series(1, {rows}) g; ANALYZE t"
    );
    erp.run(&schema).await.unwrap();
    let plan = Plan::new(&url, &["t"]).stamp("t", "changed_at").no_scans();
    let mut world = World::start(plan, erp).await;
    world.staged_reaches("SELECT count(*) FROM t", rows, WAIT).await;
    world.status_says("\"STREAMING\"", WAIT).await;
    let mut peaks = vec![peak_kib(world.agent_id())];

    let begun = Mono::now();
    world.erp.run("UPDATE t SET v = repeat('bulk ', 100) || id, changed_at = now()").await.unwrap();
    println!("updated after {:?}", begun.elapsed());
    let bulk = "SELECT count(*) FROM t WHERE v LIKE 'bulk%'";
    for part in [20, 3] {
        world.staged_reaches(bulk, rows / part, WAIT).await;
        peaks.push(peak_kib(world.agent_id()));
        world.kill_agent();
        let staged = world.staged_count(bulk);
        assert!(staged < rows, "the kill came after the group: {staged} of {rows}");
        world.start_agent();
    }
    world.staged_reaches(bulk, rows, WAIT).await;
    world.equal(WAIT).await;
    peaks.push(peak_kib(world.agent_id()));
    println!("{rows} rows in one group, equal after {:?}, peaks of {peaks:?} KiB", begun.elapsed());
    assert!(peaks.iter().all(|peak| *peak < MEMORY_KIB), "peaks of {peaks:?} KiB");
    let sent = world.ledger_rows("t");
    let most = 5 * rows.cast_unsigned();
    assert!(
        sent < most,
        "{sent} rows were sent for two times {rows}: the group begins again at zero"
    );
}
