//! What a person orders to be tried again is tried at once, not when its own time comes.

use protocol::ids::OrderId;

use super::*;
use crate::journal::{Deed, Incident};

impl World {
    async fn retried(&self) {
        let id = OrderId(runtime::entropy::uuid());
        self.journal.take_order(id, Wall(1)).await.unwrap();
        let deed = Deed::Retry(Some(self.table.clone()));
        assert_eq!(self.journal.carry_out(id, deed).await.unwrap(), None);
    }
}

/// A world whose table was loaded, and is gone and parked now.
async fn without_its_table() -> World {
    let mut world = stamped(50).await;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    world.sql("ALTER TABLE T RENAME TO AWAY");
    let missing = |status: &TableStatus| {
        status.parked.as_ref().is_some_and(|(code, _)| code == "TABLE_MISSING")
    };
    world.status(missing).await;
    world
}

#[tokio::test]
async fn a_table_that_capture_parked_is_tried_again_when_it_is_ordered() {
    let mut world = without_its_table().await;
    world.sql("ALTER TABLE AWAY RENAME TO T");
    // By itself it would rest for minutes.
    world.retried().await;
    world.status(|status| status.state == "STREAMING" && status.parked.is_none()).await;
    assert_eq!(world.journal.incidents(9).await.unwrap(), [], "what it told of is mended");
    world.stop().await;
}

#[tokio::test]
async fn what_kept_a_table_from_being_read_is_over_when_a_new_process_reads_it() {
    let mut world = without_its_table().await;
    world.stop().await;
    assert_eq!(world.journal.incidents(9).await.unwrap().len(), 1);
    world.sql("ALTER TABLE AWAY RENAME TO T");
    world.start().await;
    world.status(|status| status.state == "STREAMING" && status.parked.is_none()).await;
    assert_eq!(world.journal.incidents(9).await.unwrap(), []);
    world.stop().await;
}

#[tokio::test]
async fn where_rows_were_skipped_all_rows_are_compared_when_it_is_ordered() {
    let mut world = stamped(300).await;
    world.plan(|_| {}).await;
    world.start().await;
    world.until_equal(ALL).await;
    let skipped = Incident {
        table: Some(world.table.clone()),
        key_hash: Some("x".into()),
        code: Code::ValueUnfit,
        words: "skipped".into(),
        at_micros: 1,
    };
    world.journal.incident(skipped).await.unwrap();
    // No stamp moves: only a comparison finds it.
    world.sql("UPDATE T SET V = 'silent' WHERE K = 7");
    world.retried().await;
    world.until_equal(ALL).await;
    assert_eq!((world.staged["7"]["V"].as_str(), world.loads_done), ("silent", 1));
    assert!(world.journal.skipped(&world.table).await.unwrap().is_empty());
    world.stop().await;
}
