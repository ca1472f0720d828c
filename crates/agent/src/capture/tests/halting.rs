//! A table that a person paused is not read, its neighbours are, and it goes on where it stopped.

use super::*;
use crate::journal::Halt;

const OTHER: &str =
    "CREATE TABLE U (K INTEGER PRIMARY KEY, V TEXT); INSERT INTO U VALUES (9001, 'a');";

fn halt() -> Halt {
    Halt::new("ana", "month end", Wall(0))
}

#[tokio::test]
async fn a_paused_table_is_not_read_while_the_others_are_and_goes_on_where_it_stopped() {
    let mut world = stamped(1_500).await;
    world.sql(OTHER);
    world.plan_also(&["U"], |_| {}).await;
    world.start().await;
    while world.loads_done < 2 {
        world.accept().await;
    }
    let table = world.table.clone();
    world.journal.halt(Some(table.clone()), halt()).await.unwrap();
    let told = world.status(|status| status.state == "PAUSED").await;
    assert!(told.paused.unwrap().starts_with("by ana since 1970-01-01T00:00:00Z: month end"));
    world.sql("UPDATE T SET V = 'new', S = strftime('%Y-%m-%d %H:%M:%f') WHERE K = 3; INSERT INTO U VALUES (9002, 'b');");
    // The same after a restart of the worker; the neighbour's row travels, the paused table's does not.
    world.start().await;
    let mut others = 0;
    while others == 0 {
        let (id, seal, tables) = world.sealed().await;
        assert!(tables.iter().all(|message| message.table_name == "U"), "{tables:?}");
        others += tables.iter().map(|message| message.rows.len()).sum::<usize>();
        world.last = id;
        world.cursors.extend(seal.cursors);
        world.journal.complete(id, Wall(0)).await.unwrap();
    }
    world.journal.lift_halt(Some(table)).await.unwrap();
    while world.staged["3"]["V"] != "new" {
        world.accept().await;
    }
    assert_eq!(world.loads_done, 2, "one load each, none again");
    world.stop().await;
}

#[tokio::test]
async fn a_base_load_stops_at_its_next_page_and_a_paused_agent_rests_between_its_looks() {
    let mut world = stamped(20_000).await;
    world.config.capture.cycle_seconds = 1;
    world.plan(|_| {}).await;
    world.journal.halt(None, halt()).await.unwrap();
    world.start().await;
    world.status(|status| status.state == "PAUSED").await;
    assert_eq!(world.journal.spool().borrow().batch, None);
    // Each cycle looks at the disk at least once; without rests five cycles would take no time.
    let begun = Mono::now();
    world.looks(15).await;
    assert!(begun.elapsed() > Duration::from_secs(1));
    world.journal.lift_halt(None).await.unwrap();
    world.until_equal(ALL).await;
    world.stop().await;
}
