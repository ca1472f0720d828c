//! What was sent, as people read it: records, history, its cleaning, and the SELECT of a person.

use protocol::limits;
use rusqlite::Connection;

use super::*;

const SECOND: i64 = 1_000_000;
const RECORDS: &str = "SELECT * FROM GDataShareRecords ORDER BY TABLENAME, RECORDKEY";

/// A batch of one table with these rows known, opened and settled at seconds.
async fn settled(journal: &Journal, batch: i64, of: &str, seconds: (i64, i64)) {
    let id = BatchId(batch);
    let epoch = journal.granted().borrow().clone().unwrap().epoch;
    journal.open_batch(epoch, id, Wall(seconds.0 * SECOND)).await.unwrap();
    journal.append(id, vec![message(1, of, &[("a", Some(1))])]).await.unwrap();
    journal.seal(id, seal_of(1, &[])).await.unwrap();
    journal.complete(id, Wall(seconds.1 * SECOND)).await.unwrap();
}

async fn rows(journal: &Journal, sql: &str) -> Vec<String> {
    let selected = journal.select(sql.to_owned(), 100).await.unwrap();
    selected.rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect()
}

#[tokio::test]
async fn a_record_is_shown_with_the_batch_and_message_that_carried_it_once_its_summary_was_taken() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    let batch = BatchId(11);
    journal.open_batch(Epoch(7), batch, Wall(5 * SECOND)).await.unwrap();
    let two = SpoolMessage {
        known: vec![(KeyBytes::of(["1", "x|y"]), Some(hash(2)))],
        ..message(2, "TMOV", &[])
    };
    journal.append(batch, vec![message(1, "FLAN", &[("a", Some(1))]), two]).await.unwrap();
    journal.seal(batch, seal_of(2, &[])).await.unwrap();
    assert!(rows(&journal, RECORDS).await.is_empty(), "what is only spooled was not sent");
    journal.complete(batch, Wall(6 * SECOND)).await.unwrap();
    let selected = journal.select(RECORDS.to_owned(), 9).await.unwrap();
    assert_eq!(
        selected.columns,
        ["TABLENAME", "RECORDKEY", "RECORDHASH", "BATCHID", "MESSAGENUMBER", "SENTON"]
    );
    let (one, two) = ("01".repeat(16), "02".repeat(16));
    assert_eq!(
        rows(&journal, RECORDS).await,
        [
            format!(r#"["FLAN","a","{one}",11,1,"1970-01-01T00:00:06.000Z"]"#),
            format!(r#"["TMOV","1|x|y","{two}",11,2,"1970-01-01T00:00:06.000Z"]"#),
        ]
    );
    // A batch that is dropped may have been staged: the record is unsure, and a delete takes it away.
    journal.open_batch(Epoch(7), BatchId(12), Wall(0)).await.unwrap();
    journal.append(BatchId(12), vec![message(1, "FLAN", &[("a", Some(3))])]).await.unwrap();
    journal.drop_batch(Code::SequenceGap, "test", Wall(0)).await.unwrap();
    assert_eq!(rows(&journal, RECORDS).await[0], r#"["FLAN","a",null,null,null,null]"#);
    journal.grant(grant_of(8, 12), Wall(0)).await.unwrap();
    journal.open_batch(Epoch(8), BatchId(13), Wall(0)).await.unwrap();
    journal.append(BatchId(13), vec![message(1, "FLAN", &[("a", None)])]).await.unwrap();
    journal.seal(BatchId(13), seal_of(1, &[])).await.unwrap();
    journal.complete(BatchId(13), Wall(0)).await.unwrap();
    assert_eq!(rows(&journal, RECORDS).await.len(), 1);
}

#[tokio::test]
async fn each_table_of_a_batch_has_a_row_of_history_with_its_outcome_in_the_same_transaction() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    sealed_batch(&journal, 11).await;
    journal.complete(BatchId(11), Wall(3 * SECOND)).await.unwrap();
    journal.open_batch(Epoch(7), BatchId(12), Wall(5 * SECOND)).await.unwrap();
    journal.append(BatchId(12), vec![message(1, "FLAN", &[("a", Some(3))])]).await.unwrap();
    journal.drop_batch(Code::SequenceGap, "3 is missing", Wall(6 * SECOND)).await.unwrap();
    let sql = "SELECT CONCEITO, STARTEDON, FINISHEDON, STATUS, RECORDS, ERROR FROM GTOTVSAPPCONCEITOHST ORDER BY ID";
    assert_eq!(
        rows(&journal, sql).await,
        [
            r#"["FLAN","1970-01-01T00:00:03.000Z","1970-01-01T00:00:03.000Z","SUCCESS",2,null]"#,
            r#"["TMOV","1970-01-01T00:00:03.000Z","1970-01-01T00:00:03.000Z","SUCCESS",1,null]"#,
            r#"["FLAN","1970-01-01T00:00:05.000Z","1970-01-01T00:00:06.000Z","ERROR",1,"SEQUENCE_GAP: 3 is missing"]"#,
        ]
    );
    let all = "SELECT * FROM GTOTVSAPPCONCEITOHST".to_owned();
    let columns = journal.select(all, 1).await.unwrap();
    assert_eq!(
        columns.columns,
        ["ID", "CONCEITO", "STARTEDON", "FINISHEDON", "STATUS", "RECORDS", "ERROR"]
    );
    assert!(columns.truncated);
    // A batch that did not settle, since its journal ended, is told at the next start.
    journal.grant(grant_of(8, 12), Wall(0)).await.unwrap();
    journal.open_batch(Epoch(8), BatchId(13), Wall(0)).await.unwrap();
    journal.append(BatchId(13), vec![message(1, "TMOV", &[("x", Some(3))])]).await.unwrap();
    drop(journal);
    let journal = place.open().await;
    journal.resume(Epoch(8), Wall(9 * SECOND)).await.unwrap();
    let last = &journal.history(None, 1).await.unwrap()[0];
    assert_eq!((last.concept.as_str(), last.status.as_str()), ("TMOV", "ERROR"));
    assert!(last.error.as_ref().unwrap().starts_with("FENCED: the agent ended"));
}

#[tokio::test]
async fn cleaning_takes_the_oldest_first_as_many_as_it_may_and_never_a_concept_s_last_success() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 0), Wall(0)).await.unwrap();
    for batch in 1..=6 {
        settled(&journal, batch, if batch == 2 { "OLD" } else { "FLAN" }, (batch, batch)).await;
    }
    let incident = Incident {
        table: Some(table("FLAN")),
        key_hash: None,
        code: Code::SourceRights,
        words: "w".into(),
        at_micros: 7 * SECOND,
    };
    journal.incident(incident).await.unwrap();
    let concepts = |rows: Vec<HistoryRow>| -> Vec<i64> { rows.iter().map(|row| row.id).collect() };
    let clean = |seconds: i64, most, dry_run| {
        journal.history_clean(Clean { before: Wall(seconds * SECOND), most, dry_run }, || {
            Wall(99 * SECOND)
        })
    };
    let would = clean(4, 9, true).await.unwrap();
    assert_eq!((would.removed, would.left), (2, 5), "1 and 3; 2 is the last success of OLD");
    let cleaned = clean(4, 1, false).await.unwrap();
    assert_eq!((cleaned.removed, cleaned.left), (1, 6));
    let left = concepts(journal.history(None, 99).await.unwrap());
    assert_eq!(left, [8, 7, 6, 5, 4, 3, 2], "the oldest went; 8 tells of the cleaning");
    // Everything is old now: the last success of each concept stays all the same, the failure goes.
    clean(1_000, 99, false).await.unwrap();
    let left = journal.history(None, 99).await.unwrap();
    let left: Vec<(i64, &str)> = left.iter().map(|row| (row.id, row.concept.as_str())).collect();
    assert_eq!(left, [(9, CLEAN_JOB), (8, CLEAN_JOB), (6, "FLAN"), (2, "OLD")]);
    let again = clean(1_000, 99, false).await.unwrap();
    assert_eq!(again.removed, 1, "the cleaning before the last");
    let sql = "SELECT count(*) FROM GTOTVSAPPCONCEITOHST WHERE CONCEITO = 'OLD'";
    assert_eq!(rows(&journal, sql).await, ["[1]"]);
}

#[tokio::test]
async fn above_the_bound_of_rows_the_oldest_go_although_their_days_are_not_over() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 0), Wall(0)).await.unwrap();
    settled(&journal, 1, "FLAN", (1, 1)).await;
    let path = place.folder.path().join("journal.sqlite");
    let db = Connection::open(path).unwrap();
    db.execute(
        "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'history'",
        [limits::HISTORY_ROWS.cast_signed() + 1],
    )
    .unwrap();
    drop(db);
    settled(&journal, 2, "FLAN", (2, 2)).await;
    let nothing_old = Clean { before: Wall(0), most: 9, dry_run: false };
    assert_eq!(journal.history_clean(nothing_old, || Wall(3)).await.unwrap().removed, 1);
}

#[tokio::test]
async fn a_select_reads_the_two_views_and_nothing_else_whatever_name_it_goes_by() {
    let place = Place::new();
    let journal = place.open().await;
    journal.grant(grant_of(7, 10), Wall(0)).await.unwrap();
    sealed_batch(&journal, 11).await;
    for sql in [
        "SELECT * FROM spool",
        "SELECT * FROM fact",
        "SELECT count(*) FROM spool",
        "SELECT count(*) FROM pragma_table_info('spool')",
        "SELECT count(*) FROM sqlite_master",
        "WITH spool AS (SELECT * FROM main.spool) SELECT count(*) FROM spool",
        "SELECT * FROM main.quarantine",
        "SELECT * FROM sqlite_master",
        "SELECT * FROM temp.sqlite_master",
        "SELECT * FROM pragma_table_info('spool')",
        "WITH GDataShareRecords AS (SELECT bytes FROM spool) SELECT * FROM GDataShareRecords",
        "SELECT (SELECT value FROM fact LIMIT 1) FROM GDataShareRecords",
        "SELECT * FROM GDataShareRecords UNION SELECT 1, 2, 3, 4, 5, value FROM fact",
        "SELECT load_extension('x')",
        "DELETE FROM GDataShareRecords",
        "DELETE FROM history",
        "INSERT INTO GTOTVSAPPCONCEITOHST VALUES (1, 2, 3, 4, 5, 6, 7)",
        "UPDATE known SET hash = zeroblob(16)",
        "CREATE TEMP TABLE x (y)",
        "DROP VIEW GDataShareRecords",
        "ATTACH 'x' AS x",
        "PRAGMA user_version",
        "PRAGMA writable_schema = 1",
        "BEGIN",
        "VACUUM INTO 'x'",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM history",
        "SELECT ?1",
        "",
        "-- nothing",
        "nonsense",
        "SELECT zeroblob(100000000)",
        "SELECT group_concat(hex(zeroblob(400000))) FROM (SELECT 1 UNION SELECT 2)",
    ] {
        let refused = journal.select(sql.to_owned(), 9).await;
        let refused = refused.map(|selected| selected.rows.len()).unwrap_err();
        assert_eq!(refused.code, Code::BadRequest, "{sql}");
    }
    assert_eq!(rows(&journal, "WITH x AS (SELECT 1 AS y) SELECT y FROM x;").await, ["[1]"]);
    assert!(journal.select("SELECT 1".into(), 9).await.is_ok());
}

#[tokio::test]
async fn a_select_that_runs_for_ever_ends_and_one_that_gives_too_much_is_cut() {
    let place = Place::new();
    let journal = place.open().await;
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT ";
    let counted = journal.select(format!("{endless} count(*) FROM n"), 9).await;
    assert_eq!(counted.unwrap_err().code, Code::Timeout);
    let many = journal.select(format!("{endless} i FROM n"), usize::MAX).await.unwrap();
    assert_eq!((many.rows.len(), many.truncated), (limits::SQL_ROWS, true));
    let wide =
        journal.select(format!("{endless} hex(zeroblob(400000)) FROM n"), 100).await.unwrap();
    assert!(wide.truncated && wide.rows.len() < 12, "{}", wide.rows.len());
}

#[tokio::test]
async fn a_journal_of_the_first_schema_is_taken_over_with_what_it_holds() {
    let place = Place::new();
    let path = place.folder.path().join("journal.sqlite");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(include_str!("../schema.sql")).unwrap();
    db.execute_batch(
        "PRAGMA journal_mode = WAL; INSERT INTO named VALUES (1, 'flan', 'FLAN');
         INSERT INTO known VALUES (1, x'0000000161', x'01010101010101010101010101010101');
         INSERT INTO batch VALUES (1, 5, NULL);
         INSERT INTO spool VALUES (1, 1, 1, 0, 0, x'', x'');",
    )
    .unwrap();
    drop(db);
    let (journal, recovery) = Journal::open(place.folder.path()).await.unwrap();
    assert_eq!(recovery, Recovery::Resumed);
    assert_eq!(hashes(&journal, "FLAN", &["a"]).await, [Some(hash(1))]);
    let one = "01".repeat(16);
    assert_eq!(rows(&journal, RECORDS).await, [format!(r#"["FLAN","a","{one}",null,null,null]"#)]);
    journal.grant(grant_of(1, 5), Wall(7 * SECOND)).await.unwrap();
    let told = &journal.history(None, 9).await.unwrap()[0];
    assert_eq!(
        (&told.started, &told.finished),
        (&"1970-01-01T00:00:07Z".to_owned(), &told.started)
    );
}
