//! Times of the day: base loads within their hours, cycles by a recurrence.

use super::*;

const HOUR: i64 = 3_600_000_000;

/// Hours of an hour that begins that many hours from now, in UTC.
fn hours_in(from_now: i64) -> String {
    let clock = |hours: i64| {
        let at = Wall(Wall::now().0 + hours * HOUR).to_iso();
        format!("{}:00", &at[11..13])
    };
    format!("{}-{}", clock(from_now), clock(from_now + 1))
}

fn closed(world: &mut World) {
    world.config.capture.load_hours = vec![hours_in(3)];
    world.config.capture.zone = Some("UTC".into());
}

#[tokio::test]
async fn a_base_load_waits_for_its_hours_and_says_so_while_changes_of_loaded_tables_go_on() {
    let mut world = stamped(50).await;
    closed(&mut world);
    world.plan(|_| {}).await;
    world.start().await;
    let told = world.status(|status| status.paused.is_some()).await;
    assert!(told.paused.unwrap().contains("waits for its hours"));
    assert_eq!((told.state.as_str(), world.journal.spool().borrow().batch), ("BASE_LOAD", None));
    let loads = world.journal.coming().loads.expect("people are told when");
    assert!((2 * HOUR..=3 * HOUR).contains(&(loads.0 - Wall::now().0)));
    world.config.capture.load_hours.clear();
    world.start().await;
    world.until_equal(ALL).await;
    // A reload is a load too; what changes meanwhile does not wait for it.
    closed(&mut world);
    world.start().await;
    world
        .plan(|query| {
            (query.force_reload, query.reload_generation) =
                (true, Some(protocol::ids::Generation(2)))
        })
        .await;
    world.status(|status| status.state == "RELOAD").await;
    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K = 3");
    world.until_equal(ALL).await;
    assert_eq!(world.base_rows, 50);
    world.config.capture.load_hours = vec![hours_in(-1), hours_in(0)];
    world.start().await;
    while world.base_rows < 100 {
        world.accept().await;
    }
    world.stop().await;
}

#[tokio::test]
async fn by_a_recurrence_nothing_is_read_before_its_time_but_what_a_person_orders() {
    let mut world = stamped(50).await;
    let minute = (Wall::now().seconds() / 60 + 30) % 60;
    world.config.capture.recurrence = Some(format!("{minute} * * * *"));
    world.config.capture.zone = Some("UTC".into());
    world.plan(|_| {}).await;
    world.start().await;
    world.status(|status| status.state == "BASE_LOAD").await;
    let next = world.journal.coming().cycle.expect("people are told when");
    assert!((HOUR / 3..HOUR).contains(&(next.0 - Wall::now().0)), "{}", next.to_iso());
    assert_eq!(world.journal.spool().borrow().batch, None);
    world.journal.request_reload(Some(world.table.clone())).await.unwrap();
    world.until_equal(ALL).await;
    // The run is over: another session waits for the next one too.
    world.status(|status| status.state == "STREAMING").await;
    world.start().await;
    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K = 3");
    world.plan_also(&["LATER"], |_| {}).await;
    world.status_of("LATER", |status| status.state == "BASE_LOAD").await;
    assert_eq!(world.journal.spool().borrow().batch, None, "a new plan is shown, not read");
    world.stop().await;
}

#[tokio::test]
async fn changes_go_out_before_what_is_compared_behind_them() {
    let mut world = stamped(100_000).await;
    world.plan(|_| {}).await;
    world.start().await;
    while world.loads_done == 0 {
        world.accept().await;
    }
    (world.config.capture.cycle_seconds, world.config.capture.duty_percent) = (60, 1);
    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K = 1");
    world.start().await;
    let mut spool = world.journal.spool();
    let reading = spool.wait_for(|state| state.appended > 0).await.unwrap().clone();
    assert!(!reading.sealed);
    let begun = Mono::now();
    spool.wait_for(|state| state.sealed).await.unwrap();
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    world.stop().await;
}
