//! What verification asks of capture: a round at once, and rows sent again.

use super::*;

impl World {
    /// Takes what comes until the round is over; gives the batches that came.
    async fn round(&mut self, number: u64) -> usize {
        let mut batches = 0;
        let begun = Mono::now();
        while self.journal.round_of(&self.table) == Some(number) {
            if self.journal.spool().borrow().batch.is_some() {
                self.accept().await;
                batches += 1;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the round does not end");
            runtime::clock::sleep(Duration::from_millis(5)).await;
        }
        batches
    }

    async fn repair(&mut self, keys: &[&str]) {
        let keys = keys.iter().map(|key| KeyBytes::of([*key])).collect();
        self.journal.add_repairs(&self.table, keys).await.unwrap();
        self.journal.begin_repair(&self.table);
    }
}

#[tokio::test]
async fn a_round_scans_at_once_and_is_over_once_what_it_found_was_accepted() {
    let mut world = stamped(400).await;
    world.config.capture.key_scan_seconds = 3_600;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    let first = world.journal.ask_round(&world.table);
    world.round(first).await;
    world.sql("DELETE FROM T WHERE K IN (5, 6)");
    let number = world.journal.ask_round(&world.table);
    let (id, seal, tables) = world.sealed().await;
    assert_eq!(world.journal.round_of(&world.table), Some(number), "the cloud has not taken it");
    world.stage(&tables);
    world.last = id;
    world.cursors.extend(seal.cursors);
    world.journal.complete(id, Wall(0)).await.unwrap();
    world.round(number).await;
    assert_eq!((world.deletes, world.staged.len()), (2, 398));
    world.stop().await;
}

#[tokio::test]
async fn rows_asked_for_go_again_as_they_are_and_what_the_erp_lacks_is_left_to_the_scan() {
    let mut world = stamped(400).await;
    world.config.capture.key_scan_seconds = 3_600;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    let first = world.journal.ask_round(&world.table);
    world.round(first).await;
    let base_rows = world.base_rows;
    // What somebody did to staging.
    world.staged.remove("3");
    world.staged.get_mut("4").unwrap().insert("V".into(), "by hand".into());
    world.repair(&["3", "4", "9999"]).await;
    world.accept().await;
    assert_eq!(world.staged, world.source(ALL));
    assert_eq!((world.deletes, world.base_rows), (0, base_rows), "ordinary rows, no load");
    let number = world.journal.ask_round(&world.table);
    world.round(number).await;
    assert_eq!(world.deletes, 1, "the scan deletes what is not in the ERP");
    assert!(world.journal.is_repaired(&world.table));
    assert_eq!(world.journal.repairs(&world.table, None, 9).await.unwrap(), []);
    world.stop().await;
}

#[tokio::test]
async fn rows_asked_for_go_again_after_a_dropped_batch_and_in_a_new_process() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(50, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.staged.remove("7");
    world.repair(&["7"]).await;
    world.sealed().await;
    world.journal.drop_batch(Code::SequenceGap, "a test", Wall(0)).await.unwrap();
    assert!(!world.journal.is_repaired(&world.table));
    world.start().await;
    world.until_equal(ALL).await;
    let number = world.journal.ask_round(&world.table);
    world.round(number).await;
    assert!(world.journal.is_repaired(&world.table));
    world.stop().await;
}

#[tokio::test]
async fn more_rows_than_one_look_up_takes_go_again_and_none_is_forgotten() {
    let mut world = World::new(PLAIN).await;
    world.sql(&fill(2_600, ""));
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    let keys: Vec<String> = (1..=2_600).map(|key| key.to_string()).collect();
    world.staged.clear();
    world.repair(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.until_equal(ALL).await;
    let number = world.journal.ask_round(&world.table);
    world.round(number).await;
    assert!(world.journal.is_repaired(&world.table));
    assert_eq!((world.deletes, world.loads_done), (0, 1));
    world.stop().await;
}
