//! Masked and excluded columns: what leaves the source is the mask alone, and changes are found all the same.

use super::*;
use crate::config::TableConfig;

const PEOPLE: &str = "CREATE TABLE T (K INTEGER PRIMARY KEY, V TEXT, CPF TEXT, FONE TEXT, MAIL TEXT, OBS TEXT, S TEXT NOT NULL);
    INSERT INTO T SELECT value, 'v' || value, 'canary-cpf-' || value, '+55 11 9876-' || (1000 + value),
           'canary-mail-' || value, 'canary-obs-' || value, '2024-01-01 00:00:00' FROM generate_series(1, 300);";

fn table(masks: &str) -> TableConfig {
    toml::from_str(&format!("stamp = 'S'\ntypes = {{ S = 'timestamp' }}\n{masks}")).unwrap()
}

const MASKS: &str = "exclude = ['OBS']\nmask = { CPF = 'hash', fone = 'last', MAIL = 'null' }";

async fn people(masks: &str) -> World {
    let mut world = World::new("CREATE TABLE OTHER (K INTEGER PRIMARY KEY)").await;
    // SQLite's shell has generate_series, the library has not.
    let series = "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 300) SELECT value FROM n)";
    world.sql(&PEOPLE.replace("generate_series(1, 300)", series));
    world.config.data = world.path.parent().unwrap().join("data");
    masked(&mut world, masks);
    world.plan(|_| {}).await;
    world
}

fn masked(world: &mut World, masks: &str) {
    world.config.tables.insert("T".parse().unwrap(), table(masks));
    world.config.open_mask_key().unwrap();
}

/// Every byte of every file below a folder.
fn bytes_below(folder: &std::path::Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(bytes_below(&path));
        } else {
            all.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    all
}

fn holds(bytes: &[u8], needle: &str) -> bool {
    bytes.windows(needle.len()).any(|part| part == needle.as_bytes())
}

#[tokio::test]
async fn a_masked_value_is_in_no_message_and_in_no_byte_of_the_journal_and_its_change_is_found() {
    let mut world = people(MASKS).await;
    world.start().await;
    while world.loads_done == 0 {
        // Looked at while the batch lies in the spool, and again once its rows are known.
        world.journal.spool().wait_for(|state| state.sealed).await.unwrap();
        journal_is_clean(&world);
        world.accept().await;
    }
    journal_is_clean(&world);
    let row = world.staged["7"].clone();
    assert_eq!(row["FONE"], "*1007");
    assert_eq!(row["CPF"].len(), 32);
    assert_eq!((row.get("MAIL"), row.get("OBS")), (None, None));
    let hashes: std::collections::BTreeSet<&String> =
        world.staged.values().map(|row| &row["CPF"]).collect();
    assert_eq!(hashes.len(), 300);

    let now = "S = strftime('%Y-%m-%d %H:%M:%f')";
    world.sql(&format!("UPDATE T SET CPF = 'canary-cpf-new', {now} WHERE K = 7"));
    while world.staged["7"]["CPF"] == row["CPF"] {
        world.accept().await;
    }
    world.sql(&format!("UPDATE T SET V = 'seen', MAIL = 'canary-mail-new', {now} WHERE K = 8"));
    while world.staged["8"]["V"] != "seen" {
        world.accept().await;
    }
    journal_is_clean(&world);
    world.stop().await;
}

fn journal_is_clean(world: &World) {
    let files: Vec<_> = bytes_below(world.path.parent().unwrap())
        .into_iter()
        .filter(|(path, _)| !path.file_name().unwrap().to_string_lossy().contains("erp"))
        .collect();
    assert!(files.iter().any(|(path, _)| path.ends_with("journal.sqlite-wal")));
    for (path, bytes) in &files {
        for canary in ["canary-", "9876-1"] {
            assert!(!holds(bytes, canary), "{} holds {canary}", path.display());
        }
    }
    assert!(files.iter().any(|(_, bytes)| holds(bytes, "*1007")), "the test sees masks");
}

#[tokio::test]
async fn a_mask_declared_later_reaches_every_row_although_no_stamp_moved() {
    let mut world = people("").await;
    world.start().await;
    while world.loads_done == 0 {
        world.accept().await;
    }
    assert_eq!(world.staged["7"]["OBS"], "canary-obs-7");
    masked(&mut world, MASKS);
    world.start().await;
    let open = |world: &World| {
        let values = world.staged.values().flat_map(BTreeMap::values);
        values.filter(|value| value.starts_with("canary-")).count()
    };
    while open(&world) > 0 {
        world.accept().await;
    }
    assert_eq!(world.staged.len(), 300);
    world.stop().await;
}

#[tokio::test]
async fn a_table_whose_key_or_stamp_or_misspelt_column_is_masked_is_parked_and_nothing_of_it_goes()
{
    for (masks, by) in [
        ("mask = { K = 'hash' }", "MASK_UNFIT"),
        ("exclude = ['k']", "MASK_UNFIT"),
        ("columns = ['V', 'S']", "MASK_UNFIT"),
        ("mask = { S = 'null' }", "MASK_UNFIT"),
        ("mask = { CPFF = 'hash' }", "CONFIG_INVALID"),
        ("exclude = ['NOPE']", "CONFIG_INVALID"),
    ] {
        let mut world = people(masks).await;
        world.start().await;
        world.parked(by).await;
        assert_eq!(world.journal.spool().borrow().batch, None, "{masks}");
        world.stop().await;
    }
}

#[tokio::test]
async fn a_filter_of_the_cloud_that_names_a_masked_or_excluded_column_is_refused() {
    for filter in ["CPF = 'canary-cpf-7'", "T.OBS > 'a'"] {
        let mut world = people(MASKS).await;
        world.plan(|query| query.filter = Some(filter.into())).await;
        world.start().await;
        world.parked("FILTER_REFUSED").await;
        world.stop().await;
    }
}
