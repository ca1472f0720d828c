//! Tests of the SQLite source: the bound, time-outs, the two spellings of a stamp.

use super::{
    super::{Concern, Disclosure},
    *,
};

fn source(folder: &tempfile::TempDir) -> (SqliteSource, Connection) {
    let path = folder.path().join("erp.db");
    let erp = Connection::open(&path).unwrap();
    erp.execute_batch(
        "PRAGMA journal_mode = WAL; CREATE TABLE t (id integer PRIMARY KEY, m datetime)",
    )
    .unwrap();
    (at(path.to_str().unwrap()).unwrap(), erp)
}

fn at(file: &str) -> Result<SqliteSource> {
    SqliteSource::new(file, Profile::Generic, &SourceOptions::default())
}

fn spec() -> TableSpec {
    TableSpec {
        wire: "t".parse().unwrap(),
        key: None,
        stamp: Some("m".parse().unwrap()),
        no_stamp: false,
        soft_delete: None,
        types: Vec::new(),
        allowance: Some(Duration::ZERO),
        disclosure: Disclosure::default(),
    }
}

#[tokio::test]
async fn a_writer_holds_the_bound_where_the_lock_was_last_seen_free() {
    let folder = tempfile::tempdir().unwrap();
    let (source, erp) = source(&folder);
    erp.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = source.bound().await.unwrap();
    assert!(first.degraded.is_some(), "since when it writes is not known");
    assert!(first.micros <= first.at_micros - 600_000_000);
    erp.execute_batch("COMMIT").unwrap();
    let free = source.bound().await.unwrap();
    assert_eq!((free.micros, free.degraded, free.held_by), (free.at_micros, None, None));
    erp.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (1, '2024-01-01 00:00:00')").unwrap();
    let held = source.bound().await.unwrap();
    assert_eq!((held.micros, held.degraded), (free.at_micros, None));
    assert!(held.held_by.is_some() && held.at_micros > held.micros);
    erp.execute_batch("COMMIT").unwrap();
    let after = source.bound().await.unwrap();
    assert_eq!(after.micros, after.at_micros);
}

#[tokio::test]
async fn a_file_opened_for_reading_alone_knows_writers_by_their_commits() {
    let folder = tempfile::tempdir().unwrap();
    let (writable, erp) = source(&folder);
    let source = at(&format!("{}?mode=ro", writable.inner.path.display())).unwrap();
    let first = source.bound().await.unwrap();
    assert!(first.degraded.is_some(), "since when somebody writes is not known");
    assert!(first.micros <= first.at_micros - 600_000_000);
    erp.execute_batch("INSERT INTO t VALUES (1, '2024-01-01 00:00:00')").unwrap();
    let second = source.bound().await.unwrap();
    assert_eq!((second.micros, second.degraded), (first.at_micros, None));
    erp.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2, '2024-01-01 00:00:00')").unwrap();
    let open = source.bound().await.unwrap();
    assert_eq!(open.micros, first.at_micros, "the lock is held: an open writer holds the bound");
    erp.execute_batch("COMMIT").unwrap();
    let after = source.bound().await.unwrap();
    assert_eq!(after.micros, open.at_micros);
    let quiet = source.bound().await.unwrap();
    assert_eq!(quiet.micros, open.at_micros, "no commit was seen since");
}

#[tokio::test]
async fn the_committed_state_differs_exactly_after_a_commit() {
    let folder = tempfile::tempdir().unwrap();
    let (writable, erp) = source(&folder);
    let reading = at(&format!("{}?mode=ro", writable.inner.path.display())).unwrap();
    for source in [writable, reading] {
        let first = source.bound().await.unwrap().committed;
        assert!(first.is_some());
        erp.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (NULL, NULL)").unwrap();
        assert_eq!(source.bound().await.unwrap().committed, first, "not committed yet");
        erp.execute_batch("COMMIT").unwrap();
        let second = source.bound().await.unwrap().committed;
        assert!(second.is_some() && second != first);
        assert_eq!(source.bound().await.unwrap().committed, second);
    }
}

#[test]
fn only_the_mode_may_stand_behind_the_file() {
    assert!(at("erp.db?mode=rw").is_ok());
    assert_eq!(at("erp.db?mode=rwc").unwrap_err().code, Code::ConfigInvalid);
    assert_eq!(at("erp.db?immutable=1").unwrap_err().code, Code::ConfigInvalid);
}

fn ids(page: &Page) -> Vec<String> {
    (0..page.len()).map(|row| page.cell(row, 0).unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_delta_reads_stamps_of_the_tables_own_spelling_and_the_scan_meets_the_other_one() {
    let micros = 1_714_557_600_900_000;
    let bound = Bound::at(micros);
    let limit = ReadLimit { rows: 100, bytes: 1 << 20 };
    for (own, other) in [(' ', 'T'), ('T', ' ')] {
        let folder = tempfile::tempdir().unwrap();
        let (source, erp) = source(&folder);
        erp.execute_batch(&format!(
            "INSERT INTO t VALUES (1, '2024-05-01{own}09:59:57'), (2, '2024-05-01{own}10:00:00'),
             (3, '2024-05-01{other}09:59:59Z'), (4, '2024-05-01{own}10:00:00.5Z'), (5, '2024-04-30{own}23:00:00'),
             (6, '2024-05-02{own}00:00:00'), (7, '2024-05-01{other}10:00:05')"
        ))
        .unwrap();
        let shape = source.describe(&spec()).await.unwrap();
        let from = From::At(source.watermark(&shape, &bound).unwrap());
        let page = source.delta(&shape, &from, &bound, limit).await.unwrap();
        assert_eq!(ids(&page), ["2", "4", "6"], "{own:?}");
        let scanned = source.unstamped(&shape, None, limit).await.unwrap();
        assert_eq!(ids(&scanned), ["3", "7"], "{own:?}");
    }
}

#[tokio::test]
async fn f07_the_edge_is_told_alike_in_every_spelling_and_a_stamp_left_by_a_cut_is_read_from() {
    let micros = 1_714_557_610_000_000;
    let bound = Bound::at(micros);
    let limit = ReadLimit { rows: 100, bytes: 1 << 20 };
    for (values, cut) in [
        (
            ["'2024-05-01 10:00:00'", "'2024-05-01 10:00:04'", "'2024-05-01 10:00:09'"],
            "2024-05-01 10:00:06",
        ),
        (
            ["'2024-05-01T10:00:00'", "'2024-05-01T10:00:04'", "'2024-05-01T10:00:09'"],
            "2024-05-01T10:00:06.25",
        ),
        (["1714557600", "1714557604", "1714557609"], "1714557606"),
        (["1714557600000", "1714557604000", "1714557609000"], "1714557606000"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (source, erp) = source(&folder);
        let rows: Vec<_> =
            values.iter().zip(1..).map(|(value, id)| format!("({id}, {value})")).collect();
        let sql = "DROP TABLE t; CREATE TABLE t (id integer PRIMARY KEY, m); INSERT INTO t VALUES";
        erp.execute_batch(&format!("{sql} {}", rows.join(", "))).unwrap();
        let spec = TableSpec { allowance: Some(Duration::from_secs(2)), ..spec() };
        let shape = source.describe(&spec).await.unwrap();
        let start = Bound { micros: micros - 60_000_000, ..bound.clone() };
        let from = From::At(source.watermark(&shape, &start).unwrap());
        let page = source.delta(&shape, &from, &bound, limit).await.unwrap();
        let below: Vec<_> = (0..page.len()).map(|row| page.below_edge(row)).collect();
        // Two seconds of allowance: the edge is 10:00:08.
        assert_eq!((ids(&page).len(), below), (3, vec![true, true, false]), "{cut}");
        // The allowance takes two seconds off, so the row of :04 comes and the one of :00 does not.
        let from = From::At(Watermark(cut.to_owned()));
        let page = source.delta(&shape, &from, &bound, limit).await.unwrap();
        assert_eq!(ids(&page), ["2", "3"], "{cut}");
    }
}

#[tokio::test]
async fn a_table_that_gets_its_first_stamp_is_described_again() {
    let folder = tempfile::tempdir().unwrap();
    let (source, erp) = source(&folder);
    let shape = source.describe(&spec()).await.unwrap();
    let micros = 1_714_557_600_000_000;
    let bound = Bound::at(micros);
    let limit = ReadLimit { rows: 100, bytes: 1 << 20 };
    let from = From::At(source.watermark(&shape, &bound).unwrap());
    assert!(source.delta(&shape, &from, &bound, limit).await.unwrap().is_empty());
    erp.execute_batch("INSERT INTO t VALUES (1, '2024-05-01T09:00:00')").unwrap();
    let changed = source.delta(&shape, &from, &bound, limit).await.unwrap_err();
    assert_eq!(changed.code, Code::SchemaChanged);
    assert_eq!(source.describe(&spec()).await.unwrap().stamp.unwrap().form, "T");
}

#[tokio::test]
async fn epochs_are_read_by_their_magnitude_and_other_stamps_are_refused() {
    for (value, found) in
        [("1714557600", 1), ("1714557600000", 1), ("1714557599999", 0), ("1714557600000000", 1)]
    {
        let folder = tempfile::tempdir().unwrap();
        let (source, erp) = source(&folder);
        erp.execute_batch(&format!("DROP TABLE t; CREATE TABLE t (id integer PRIMARY KEY, m integer); INSERT INTO t VALUES (1, {value})")).unwrap();
        let shape = source.describe(&spec()).await.unwrap();
        let micros = 1_714_557_600_000_000;
        let bound = Bound::at(micros);
        let from = From::At(source.watermark(&shape, &bound).unwrap());
        let page =
            source.delta(&shape, &from, &bound, ReadLimit { rows: 9, bytes: 99 }).await.unwrap();
        assert_eq!(page.len(), found, "{value}");
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, erp) = source(&folder);
    erp.execute_batch("INSERT INTO t VALUES (1, '01/05/2024 10:00')").unwrap();
    assert_eq!(source.describe(&spec()).await.unwrap_err().code, Code::StampUnfit);
}

#[tokio::test]
async fn a_missing_file_and_one_that_is_no_database_are_told() {
    let folder = tempfile::tempdir().unwrap();
    for content in [None, Some("this is no database at all, only some text in a file of that name")]
    {
        let path = folder.path().join("x.db");
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let source = at(path.to_str().unwrap()).unwrap();
        let fault = source.describe(&spec()).await.unwrap_err();
        assert_eq!(fault.code, Code::SourceFile);
        assert!(fault.message.contains("x.db"), "{fault}");
        assert_eq!(fault.message.contains("not a database"), content.is_some(), "{fault}");
    }
}

#[tokio::test]
async fn rows_whose_stamp_has_another_form_are_met_by_the_scan_of_unstamped_rows() {
    for (values, apart) in [
        (
            "(1, '2024-05-01 10:00:00'), (2, NULL), (3, ''), (4, '2024-05-01'), (5, 1714557600), \
             (6, '2024-05-01T10:00:00.25Z'), (7, '2024-05-01 10:00:00-03:00'), (8, 1.5), (9, x'00')",
            &["2", "3", "4", "5", "6", "7", "8", "9"][..],
        ),
        ("(1, 1714557600), (2, NULL), (3, 'x'), (4, 1714557600000)", &["2", "3", "4"][..]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (source, erp) = source(&folder);
        let sql = "DROP TABLE t; CREATE TABLE t (id integer PRIMARY KEY, m); INSERT INTO t VALUES";
        erp.execute_batch(&format!("{sql} {values}")).unwrap();
        let shape = source.describe(&spec()).await.unwrap();
        assert!(shape.stamp.as_ref().unwrap().nullable);
        let limit = ReadLimit { rows: 100, bytes: 1 << 20 };
        let page = source.unstamped(&shape, None, limit).await.unwrap();
        let mut ids: Vec<_> =
            (0..page.len()).map(|row| page.cell(row, 0).unwrap().to_owned()).collect();
        ids.extend(page.poison().iter().map(|poison| poison.key.0.join("")));
        ids.sort();
        assert_eq!(ids, apart);
        let told = |findings: Vec<Finding>| {
            let null = Some(Concern::StampNull("m".into()));
            findings.iter().any(|finding| finding.concern == null)
        };
        let shapes = [shape];
        assert!(told(source.findings(&shapes).await.unwrap()));
        erp.execute_batch("DELETE FROM t WHERE id > 1").unwrap();
        assert!(!told(source.findings(&shapes).await.unwrap()));
    }
}
