//! Real input, shared whole: Chinook and the Brazilian municipalities, from PostgreSQL and from SQLite, equal after the
//! load and equal again after random changes.

use std::time::Duration;

use sim::{chance::Chance, servers};

use crate::whole::{
    changes, compare,
    erp::Erp,
    input,
    world::{Plan, World},
};

const LOAD: Duration = Duration::from_secs(120);

#[test]
fn real_input_is_available() {
    input::folder();
}

/// Loaded, equal, changed, equal.
async fn shared_whole(source: &str, erp: Erp, tables: &[&'static str], at_least: usize) {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let mut world = World::start(Plan::new(source, tables), erp).await;
    let rows = world.equal(LOAD).await;
    assert!(rows >= at_least, "{rows} rows were compared");
    for _ in 0..3 {
        let done = changes::change(&world.erp, tables, 40, &mut chance).await;
        assert!(done.inserts > 0 && done.updates > 0 && done.deletes > 0, "{done:?}");
        world.equal(LOAD).await;
    }
    // The columns' types are those of the source, not text throughout.
    let staging = compare::staging(&world.cloud.staging()).unwrap();
    let integers: i64 = staging
        .query_row(
            "SELECT count(*) FROM sqlite_schema s, pragma_table_info(s.name) c
             WHERE s.type = 'table' AND c.type = 'INTEGER' AND c.name NOT LIKE '\\_%' ESCAPE '\\'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert!(integers > 0);
}

#[tokio::test]
async fn chinook_on_postgres_is_shared_whole() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    input::chinook(&erp).await;
    shared_whole(&url, erp, &input::CHINOOK, 15_000).await;
}

#[tokio::test]
async fn chinook_on_sqlite_is_shared_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chinook.sqlite");
    input::chinook_copy(&path);
    let source = format!("sqlite:{}", path.display());
    shared_whole(&source, Erp::sqlite(&path), &input::CHINOOK_SQLITE, 15_000).await;
}

#[tokio::test]
async fn the_municipalities_on_postgres_are_shared_whole() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    input::brazil(&erp).await;
    shared_whole(&url, erp, &input::BRAZIL, 5_500).await;
}

#[tokio::test]
async fn the_municipalities_on_sqlite_are_shared_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("brazil.sqlite");
    let erp = Erp::sqlite(&path);
    input::brazil(&erp).await;
    let source = format!("sqlite:{}", path.display());
    shared_whole(&source, erp, &input::BRAZIL, 5_500).await;
}
