//! Pace: a base load gives way while the ERP database answers slower than it is used to, and says so.
//!
//! Real agent, real server, real PostgreSQL behind a line that takes its time when the test wants it.

use std::time::Duration;

use runtime::clock::{self, Mono};

use crate::{silent_line::followed, whole::world::World};

const ROWS: u32 = 300_000;
const WAIT: Duration = Duration::from_secs(120);

/// Rows staged of the table so far.
fn staged(world: &World) -> i64 {
    world.staged_count("SELECT count(*) FROM t")
}

/// Rows staged in so long.
async fn in_so_long(world: &World, time: Duration) -> i64 {
    let before = staged(world);
    clock::sleep(time).await;
    staged(world) - before
}

async fn until(world: &mut World, slowed: bool) {
    let begun = Mono::now();
    loop {
        let status: serde_json::Value = serde_json::from_str(&world.agent_status()).unwrap();
        if status["slowed"].is_object() == slowed {
            return;
        }
        assert!(begun.elapsed() < WAIT, "slowed is not {slowed}: {status}");
        clock::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_base_load_gives_way_while_the_database_answers_slowly_and_goes_on_when_it_does_not() {
    let (mut world, line) = followed(ROWS, |plan| plan.duty(25)).await;
    // It learns what the database is used to.
    world.staged_reaches("SELECT count(*) FROM t", 20_000, WAIT).await;
    let quick = in_so_long(&world, Duration::from_secs(3)).await;
    line.hold(Duration::from_millis(15));
    until(&mut world, true).await;
    clock::sleep(Duration::from_secs(2)).await;
    let slow = in_so_long(&world, Duration::from_secs(3)).await;
    assert!(slow * 2 < quick, "{slow} rows while it is slow, {quick} before");
    line.hold(Duration::ZERO);
    until(&mut world, false).await;
    world.staged_reaches("SELECT count(*) FROM t", i64::from(ROWS), WAIT).await;
    world.equal(WAIT).await;
}
