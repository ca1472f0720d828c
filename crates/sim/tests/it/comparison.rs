//! The comparison itself: a checker that never fails proves nothing.

use rusqlite::Connection;

use crate::whole::{compare, erp::Erp};

const SOURCE: &str = "CREATE TABLE T (Id INTEGER PRIMARY KEY, Name TEXT, Price NUMERIC(10,2), At DATETIME);
    INSERT INTO T VALUES (1, 'a', 0.99, '2009-01-01 00:00:00'), (2, NULL, 1, NULL), (3, '', NULL, NULL)";
const STAGED: &str =
    "CREATE TABLE t (id INTEGER, name TEXT, price TEXT, at TEXT, _deleted INTEGER) STRICT;
    INSERT INTO t VALUES (1, 'a', '0.99', '2009-01-01T00:00:00', 0), (2, NULL, '1', NULL, 0),
                         (3, '', NULL, NULL, 0), (4, NULL, NULL, NULL, 1)";

async fn found(damage: &str) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let erp = Erp::sqlite(&folder.path().join("erp.sqlite"));
    erp.run(SOURCE).await.unwrap();
    let path = folder.path().join("staging.sqlite");
    Connection::open(&path).unwrap().execute_batch(&format!("{STAGED}; {damage}")).unwrap();
    compare::differences(&erp, &["T"], &compare::staging(&path).unwrap()).await
}

#[tokio::test]
async fn an_equal_copy_has_no_difference() {
    assert_eq!(found("").await, Vec::<String>::new());
}

#[tokio::test]
async fn each_kind_of_difference_is_found() {
    for (damage, words) in [
        ("DELETE FROM t WHERE id = 1", "missing"),
        ("UPDATE t SET _deleted = 1 WHERE id = 2", "missing"),
        ("UPDATE t SET _deleted = 0 WHERE id = 4", "extra"),
        ("UPDATE t SET name = '' WHERE id = 2", "Name"),
        ("UPDATE t SET name = NULL WHERE id = 3", "Name"),
        ("UPDATE t SET price = '0.990001' WHERE id = 1", "Price"),
        ("UPDATE t SET at = '2009-01-01T00:00:01' WHERE id = 1", "At"),
        ("ALTER TABLE t DROP COLUMN price", "Price"),
        ("DROP TABLE t", "no staged table"),
    ] {
        let found = found(damage).await;
        assert!(found.iter().any(|difference| difference.contains(words)), "{damage}: {found:?}");
    }
}

#[tokio::test]
async fn an_empty_table_that_was_never_staged_is_a_difference_and_an_empty_staged_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let erp = Erp::sqlite(&folder.path().join("erp.sqlite"));
    erp.run("CREATE TABLE T (Id INTEGER PRIMARY KEY)").await.unwrap();
    let path = folder.path().join("staging.sqlite");
    let staging = Connection::open(&path).unwrap();
    staging.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    let found = compare::differences(&erp, &["T"], &compare::staging(&path).unwrap()).await;
    assert_eq!(found, ["T: no staged table for 0 rows"]);
    staging.execute_batch("CREATE TABLE t (id INTEGER, _deleted INTEGER)").unwrap();
    let found = compare::differences(&erp, &["T"], &compare::staging(&path).unwrap()).await;
    assert_eq!(found, Vec::<String>::new());
}
