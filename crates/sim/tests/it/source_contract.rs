//! The contract of a source, one suite for every database (`correctness.md` 3 a, b, d; F07, F11, F30, F35, F68, F72).
//!
//! Each test is written once against [`Erp`]; the macro at the end makes it a test of each database.

use std::{collections::BTreeMap, time::Duration};

use agent::source::{
    AnySource, Bound, BranchLayout, ColumnSource, Disclosure, From, Mask, MaskKey, Page, PageKey,
    Profile, ReadLimit, Source as _, SourceOptions, TableShape, TableSpec, connect,
};
use protocol::{
    Code,
    filter::Filter,
    key::KeyBytes,
    names::{ColumnName, TableName},
};

use super::source_erp::{Erp, PostgresErp, SqliteErp};

pub(crate) const WIDE: ReadLimit = ReadLimit { rows: 1_000, bytes: 1_000_000 };

pub(crate) fn spec(wire: &str) -> TableSpec {
    TableSpec::of(wire.parse().unwrap())
}

pub(crate) fn names(columns: &[&str]) -> Vec<ColumnName> {
    columns.iter().map(|column| column.parse().unwrap()).collect()
}

fn protheus() -> Profile {
    Profile::Protheus { company_group: "01".into(), layout: BranchLayout { company: 1, unity: 0 } }
}

fn at(shape: &TableShape, column: &str) -> usize {
    shape.columns.iter().position(|c| c.name.as_str() == column).unwrap()
}

/// Texts of one column, in page order.
pub(crate) fn column(shape: &TableShape, page: &Page, name: &str) -> Vec<String> {
    let column = at(shape, name);
    (0..page.len()).map(|row| page.cell(row, column).unwrap_or("NULL").to_owned()).collect()
}

/// All pages of a full scan, by a small limit.
async fn scan(source: &AnySource, shape: &TableShape, limit: ReadLimit, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut after: Option<PageKey> = None;
    for _ in 0..10_000 {
        let page = source.chunk(shape, after.as_ref(), None, limit).await.unwrap();
        assert!(page.len() <= limit.rows);
        all.extend(column(shape, &page, name));
        after = page.last().map(|last| last.key.clone()).or(after);
        if page.is_complete() {
            return all;
        }
    }
    panic!("the scan does not end");
}

async fn a_scan_in_small_pages_sees_every_row_once_in_key_order(erp: impl Erp) {
    erp.run("CREATE TABLE items (a integer NOT NULL, b varchar(20) NOT NULL, v varchar(20), PRIMARY KEY (b, a))").await;
    for n in 0..53 {
        erp.run(&format!("INSERT INTO items VALUES ({n}, 'k{}', 'v{n}')", n % 7)).await;
    }
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("ITEMS")).await.unwrap();
    assert_eq!(shape.page_key, ["b", "a"]);
    assert_eq!(
        shape.key.iter().map(|k| shape.columns[*k].name.as_str()).collect::<Vec<_>>(),
        ["b", "a"]
    );
    for rows in [1, 2, 7, 52, 53, 54] {
        let mut seen = scan(&source, &shape, ReadLimit { rows, bytes: 1 << 20 }, "v").await;
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 53, "pages of {rows}");
    }
    let page = source.chunk(&shape, None, None, ReadLimit { rows: 100, bytes: 10 }).await.unwrap();
    assert!(page.len() < 10 && !page.is_complete(), "bytes cut the page too");
    let keys = source.keys(&shape, None, WIDE).await.unwrap();
    assert_eq!(keys.len(), 53);
    assert!(column(&shape, &keys, "v").iter().all(|text| text == "NULL"));
}

async fn equal_stamps_are_paged_by_key_and_the_edge_is_told(erp: impl Erp) {
    let text = erp.stamp_type();
    erp.run(&format!("CREATE TABLE moves (id integer PRIMARY KEY, m {text})")).await;
    for id in 0..30 {
        let second = id / 10;
        erp.run(&format!("INSERT INTO moves VALUES ({id}, '2024-05-01 10:00:0{second}')")).await;
    }
    erp.run("INSERT INTO moves VALUES (99, NULL)").await;
    let source = erp.source_in(Profile::Generic, "UTC");
    let mut with_stamp = spec("moves");
    with_stamp.stamp = Some("m".parse().unwrap());
    with_stamp.allowance = Some(Duration::ZERO);
    let shape = source.describe(&with_stamp).await.unwrap();
    assert!(shape.stamp.as_ref().unwrap().nullable);
    let edge = bound_at("2024-05-01T10:00:02Z");
    let start = source.watermark(&shape, &bound_at("2024-05-01T10:00:00Z")).unwrap();
    let mut from = From::At(start);
    let (mut seen, mut below) = (Vec::new(), 0);
    loop {
        let page = source
            .delta(&shape, &from, &edge, ReadLimit { rows: 4, bytes: 1 << 20 })
            .await
            .unwrap();
        for row in 0..page.len() {
            seen.push(page.cell(row, 0).unwrap().to_owned());
            below += usize::from(page.below_edge(row));
        }
        if page.is_complete() {
            break;
        }
        let last = page.last().unwrap();
        from = From::After(last.stamp.unwrap().clone(), last.key.clone());
    }
    assert_eq!(
        seen,
        (0..30).map(|id| id.to_string()).collect::<Vec<_>>(),
        "each once, NULL stamps never"
    );
    assert_eq!(below, 20);
    let later = source.watermark(&shape, &bound_at("2024-05-01T10:00:02Z")).unwrap();
    let page = source.delta(&shape, &From::At(later), &edge, WIDE).await.unwrap();
    assert_eq!(page.len(), 10, "from the watermark on, itself included");
    assert_eq!(
        source.chunk(&shape, None, None, WIDE).await.unwrap().len(),
        31,
        "chunks cover NULL stamps (F11)"
    );
}

fn bound_at(iso: &str) -> Bound {
    // The only clock here is the text's own.
    let seconds: i64 = match iso {
        "2024-05-01T10:00:00Z" => 1_714_557_600,
        "2024-05-01T10:00:02Z" => 1_714_557_602,
        other => panic!("{other}"),
    };
    Bound::at(seconds * 1_000_000)
}

async fn a_changed_table_is_refused_until_it_is_described_again(erp: impl Erp) {
    erp.run("CREATE TABLE t (id integer PRIMARY KEY, v varchar(5))").await;
    erp.run("INSERT INTO t VALUES (1, 'a')").await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("t")).await.unwrap();
    for change in [
        "ALTER TABLE t ADD COLUMN w integer",
        "ALTER TABLE t RENAME COLUMN v TO x",
        "ALTER TABLE t DROP COLUMN x",
    ] {
        assert_eq!(
            source
                .chunk(&source.describe(&spec("t")).await.unwrap(), None, None, WIDE)
                .await
                .unwrap()
                .len(),
            1
        );
        erp.run(change).await;
        let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
        assert_eq!(refused.code, Code::SchemaChanged, "{change}");
    }
    erp.run("DROP TABLE t").await;
    let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    assert!(matches!(refused.code, Code::SchemaChanged | Code::TableMissing), "{refused}");
    assert_eq!(source.describe(&spec("t")).await.unwrap_err().code, Code::TableMissing);
}

async fn tables_without_a_key_and_columns_that_clash_are_refused_by_name(erp: impl Erp) {
    erp.run("CREATE TABLE bare (a integer, b varchar(5))").await;
    erp.run("CREATE TABLE clash (a integer PRIMARY KEY, deleted integer)").await;
    erp.run("CREATE TABLE clash_too (a integer PRIMARY KEY, _seq integer)").await;
    let source = erp.source(Profile::Generic);
    assert_eq!(source.describe(&spec("bare")).await.unwrap_err().code, Code::TableWithoutKey);
    for table in ["clash", "clash_too"] {
        assert_eq!(source.describe(&spec(table)).await.unwrap_err().code, Code::ColumnClash);
    }
    let mut declared = spec("bare");
    declared.key = Some(names(&["A"]));
    erp.run("INSERT INTO bare VALUES (1, 'x'), (NULL, 'y'), (1, 'z')").await;
    let shape = source.describe(&declared).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!((page.len(), page.poison()[0].code), (2, Code::KeyIsNull));
    let codes: Vec<_> =
        source.findings(&[shape]).await.unwrap().into_iter().filter_map(|f| f.code).collect();
    assert!(codes.contains(&Code::KeyNotUnique) && codes.contains(&Code::KeyIsNull), "{codes:?}");
    declared.stamp = Some("b".parse().unwrap());
    declared.types = vec![("nope".parse().unwrap(), protocol::value::TypeName::parse("date"))];
    assert_eq!(source.describe(&declared).await.unwrap_err().code, Code::ConfigInvalid);
    let mut stamped = spec("clash_too");
    stamped.stamp = Some("nope".parse().unwrap());
    stamped.key = Some(names(&["a"]));
    let refused = source.describe(&stamped).await.unwrap_err().code;
    assert!(matches!(refused, Code::StampUnfit | Code::ColumnClash));
}

async fn a_filter_narrows_chunks_and_agrees_with_the_evaluator(erp: impl Erp) {
    erp.run("CREATE TABLE mov (id integer PRIMARY KEY, n integer, s varchar(20), d decimal(10,2))")
        .await;
    let rows = [
        ("1", "5", "'Alfa'", "1.50"),
        ("2", "-5", "'alfa'", "-0.01"),
        ("3", "NULL", "'a%b'", "100"),
        ("4", "7", "NULL", "NULL"),
        ("5", "0", "''''", "2.25"),
        ("6", "12", "'2024-01-02'", "3"),
    ];
    for (id, n, s, d) in rows {
        erp.run(&format!("INSERT INTO mov VALUES ({id}, {n}, {s}, {d})")).await;
    }
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("mov")).await.unwrap();
    let columns: Vec<ColumnName> = shape.columns.iter().map(|c| c.name.clone()).collect();
    let whole = source.chunk(&shape, None, None, WIDE).await.unwrap();
    for text in [
        "n > 0",
        "MOV.N >= -5 AND n <= 7",
        "n = 7 OR s = 'Alfa'",
        "s LIKE '%lfa'",
        "s LIKE 'A%'",
        "s LIKE 'a\\%b'",
        "s NOT LIKE '%a%'",
        "s IN ('alfa', 'Alfa', '''')",
        "n NOT IN (5, 7)",
        "n IS NULL",
        "s IS NOT NULL",
        "NOT (n > 0 AND s IS NOT NULL)",
        "n BETWEEN -5 AND 5",
        "n NOT BETWEEN 0 AND 6",
        "d > 1.5",
        "d <= -0.01",
        "s > '2024-01-01' AND s < '2025'",
        "5 < n",
        "n <> id",
        "n > 1.5",
        "id < 99999999999999999999",
        "_x = 1",
    ] {
        let Ok(filter) = Filter::parse(text, &"mov".parse().unwrap(), &columns) else {
            assert_eq!(text, "_x = 1");
            continue;
        };
        let page = source.chunk(&shape, None, Some(&filter), WIDE).await.unwrap();
        let expected: Vec<String> = (0..whole.len())
            .filter(|row| filter.matches(&|name| whole.cell(*row, at(&shape, name.as_str()))))
            .map(|row| whole.cell(row, 0).unwrap().to_owned())
            .collect();
        assert_eq!(column(&shape, &page, "id"), expected, "{text}");
    }
}

async fn by_keys_gives_live_rows_alone_where_a_key_is_shared(erp: impl Erp) {
    protheus_table(&erp).await;
    let source = erp.source(protheus());
    let shape = source.describe(&spec("SE1")).await.unwrap();
    assert!(shape.shared_key);
    assert_eq!(shape.page_key.len(), 1);
    let pk = at(&shape, "protheus_pk");
    assert_eq!(shape.key, [pk]);
    assert!(matches!(shape.columns[at(&shape, "branch")].from, ColumnSource::Slice { .. }));
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!(column(&shape, &page, "R_E_C_N_O_"), ["2", "3", "4"], "live rows alone");
    assert_eq!(
        column(&shape, &page, "protheus_pk"),
        ["01|D1|000001", "01|D1|0|0003", "01|D2|000002"]
    );
    assert_eq!(column(&shape, &page, "company"), ["D", "D", "D"]);
    assert_eq!(column(&shape, &page, "branch"), ["1", "1", "2"]);
    let key = |text: &str| KeyBytes::of([text]);
    let wanted =
        [key("01|D1|000001"), key("01|D1|0|0003"), key("01|D9|000009"), key("99|D2|000002")];
    let page = source.by_keys(&shape, &wanted).await.unwrap();
    assert_eq!(
        column(&shape, &page, "R_E_C_N_O_"),
        ["2", "3"],
        "the deleted row 1 shares the key of 2 and stays away"
    );
    // Deleted and live change places.
    erp.run("UPDATE se1010 SET d_e_l_e_t_ = '*', r_e_c_d_e_l_ = 2 WHERE r_e_c_n_o_ = 2").await;
    assert!(source.by_keys(&shape, &wanted[..1]).await.unwrap().is_empty());
    erp.run("UPDATE se1010 SET d_e_l_e_t_ = ' ', r_e_c_d_e_l_ = 0 WHERE r_e_c_n_o_ = 1").await;
    let page = source.by_keys(&shape, &wanted[..1]).await.unwrap();
    assert_eq!(column(&shape, &page, "R_E_C_N_O_"), ["1"]);
    assert!(source.by_keys(&shape, &[]).await.unwrap().is_empty());
    let bound = source.bound().await.unwrap();
    let from = From::At(source.watermark(&shape, &bound_at("2024-05-01T10:00:00Z")).unwrap());
    let page = source.delta(&shape, &from, &bound, WIDE).await.unwrap();
    let deleted: BTreeMap<_, _> = (0..page.len())
        .map(|row| {
            (page.cell(row, at(&shape, "R_E_C_N_O_")).unwrap().to_owned(), page.is_deleted(row))
        })
        .collect();
    let expected = [("1", false), ("2", true), ("3", false)].map(|(k, d)| (k.to_owned(), d));
    assert_eq!(deleted, BTreeMap::from(expected), "deleted rows are changes; row 4 has no stamp");
}

async fn protheus_table(erp: &impl Erp) {
    let stamp = erp.stamp_type();
    erp.run(&format!(
        "CREATE TABLE se1010 (e1_filial char(2) NOT NULL, e1_num char(6) NOT NULL, e1_valor decimal(16,2), \
         d_e_l_e_t_ char(1) DEFAULT ' ', r_e_c_n_o_ integer PRIMARY KEY, r_e_c_d_e_l_ integer NOT NULL, s_t_a_m_p_ {stamp})"
    ))
    .await;
    erp.run("CREATE UNIQUE INDEX se1010_unq ON se1010 (e1_filial, e1_num, r_e_c_d_e_l_)").await;
    for (number, values) in [
        (1, "'D1', '000001', 10, '*', 1, 1, '2024-05-01 10:00:01'"),
        (2, "'D1', '000001', 11, ' ', 2, 0, '2024-05-01 10:00:02'"),
        (3, "'D1', '0|0003', 12, ' ', 3, 0, '2024-05-01 10:00:03'"),
        (4, "'D2', '000002', 13, ' ', 4, 0, NULL"),
    ] {
        assert!(number > 0);
        erp.run(&format!("INSERT INTO se1010 VALUES ({values})")).await;
    }
}

async fn wire_keys_find_their_rows_in_every_key_type(erp: impl Erp) {
    erp.run("CREATE TABLE k (a integer NOT NULL, b varchar(9) NOT NULL, v varchar(5), PRIMARY KEY (a, b))").await;
    erp.run("INSERT INTO k VALUES (1, 'x', 'one'), (1, 'X', 'two'), (-7, 'a|b', 'three')").await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("K")).await.unwrap();
    let wanted = [KeyBytes::of(["-7", "a|b"]), KeyBytes::of(["1", "X"]), KeyBytes::of(["2", "x"])];
    let mut found = column(&shape, &source.by_keys(&shape, &wanted).await.unwrap(), "v");
    found.sort();
    assert_eq!(found, ["three", "two"]);
}

async fn tables_and_identity_are_told(erp: impl Erp) {
    erp.run("CREATE TABLE one (a integer PRIMARY KEY)").await;
    erp.run("CREATE TABLE sa1010 (a integer PRIMARY KEY)").await;
    let listed =
        |names: Vec<TableName>| names.iter().map(|n| n.as_str().to_owned()).collect::<Vec<_>>();
    let source = erp.source(Profile::Generic);
    assert_eq!(listed(source.tables().await.unwrap()), ["one", "sa1010"]);
    assert_eq!(listed(erp.source(protheus()).tables().await.unwrap()), ["SA1"]);
    let identity = source.identity().await.unwrap();
    assert_eq!(
        identity,
        source
            .identity()
            .await
            .map(|again| agent::source::Identity { position: identity.position.clone(), ..again })
            .unwrap()
    );
    assert!(!identity.facts.is_empty() && !identity.version.is_empty());
}

async fn of_masked_columns_no_read_shows_the_value(erp: impl Erp) {
    let text = erp.stamp_type();
    erp.run(&format!(
        "CREATE TABLE people (id integer PRIMARY KEY, cpf varchar(20), n integer, mail varchar(40), obs varchar(40), m {text})"
    ))
    .await;
    erp.run("INSERT INTO people VALUES (1, '123.456.789-09', 987654, 'a@x', 'secret', '2024-05-01 10:00:00'),
             (2, NULL, NULL, NULL, NULL, NULL)")
        .await;
    let source = erp.source_in(Profile::Generic, "UTC");
    let folder = tempfile::tempdir().unwrap();
    let key = MaskKey::open(&folder.path().join("mask.key"), true).unwrap();
    let mut masked = spec("people");
    masked.stamp = Some("m".parse().unwrap());
    let mask = |name: &str, mask| (name.parse().unwrap(), mask);
    masked.disclosure = Disclosure {
        only: None,
        exclude: names(&["OBS"]),
        masks: vec![
            mask("cpf", Mask::Hash(Some(key))),
            mask("n", Mask::Last(4)),
            mask("mail", Mask::Null),
        ],
    };
    let shape = source.describe(&masked).await.unwrap();
    let kinds: Vec<String> =
        shape.columns.iter().map(|c| format!("{} {}", c.name, c.wire_type())).collect();
    assert_eq!(kinds[1..4], ["cpf string", "n string", "mail string"]);
    assert_eq!(shape.columns.len(), 5);
    let bound = bound_at("2024-05-01T10:00:02Z");
    let from = From::At(source.watermark(&shape, &bound_at("2024-05-01T10:00:00Z")).unwrap());
    let one = KeyBytes::of(["1"]);
    let pages = [
        source.chunk(&shape, None, None, WIDE).await.unwrap(),
        source.delta(&shape, &from, &bound, WIDE).await.unwrap(),
        source.by_keys(&shape, &[one]).await.unwrap(),
    ];
    for page in &pages {
        assert_eq!(column(&shape, page, "n")[0], "*654");
        assert_eq!(column(&shape, page, "mail")[0], "NULL");
        assert_eq!(column(&shape, page, "cpf")[0].len(), 32);
        assert!(page.poison().is_empty());
    }
    assert_eq!(column(&shape, &pages[0], "cpf")[1], "NULL");
    let unstamped = source.unstamped(&shape, None, WIDE).await.unwrap();
    assert_eq!(column(&shape, &unstamped, "id"), ["2"]);
    masked.disclosure.masks[0].1 = Mask::Hash(None);
    let locked = source.describe(&masked).await.unwrap();
    let refused = source.chunk(&locked, None, None, WIDE).await.unwrap_err();
    assert_eq!(refused.code, Code::ConfigInvalid, "without the key nothing is read");
}

async fn a_table_with_a_unique_index_alone_is_read_by_the_profiles_that_take_it(erp: impl Erp) {
    erp.run("CREATE TABLE item (it_codigo varchar(16) NOT NULL, descricao varchar(60), progress_recid bigint NOT NULL)").await;
    erp.run("CREATE UNIQUE INDEX item_recid ON item (progress_recid)").await;
    erp.run("CREATE UNIQUE INDEX item_codigo ON item (it_codigo)").await;
    erp.run(
        "CREATE TABLE filial (empresa char(2) NOT NULL, filial integer NOT NULL, nome varchar(60))",
    )
    .await;
    erp.run("CREATE UNIQUE INDEX filial_pk ON filial (empresa, filial)").await;
    erp.run("INSERT INTO item VALUES ('B', 'two', 1), ('A', 'one', 2)").await;
    erp.run("INSERT INTO filial VALUES ('01', 2, 'x'), ('01', 1, 'y')").await;
    let datasul = erp.source(Profile::Datasul);
    let shape = datasul.describe(&spec("ITEM")).await.unwrap();
    assert_eq!(shape.page_key, ["progress_recid"]);
    let one_row = ReadLimit { rows: 1, bytes: 1 << 20 };
    assert_eq!(scan(&datasul, &shape, one_row, "it_codigo").await, ["B", "A"]);
    let logix = erp.source(Profile::Logix);
    assert_eq!(logix.describe(&spec("ITEM")).await.unwrap_err().code, Code::TableWithoutKey);
    let shape = logix.describe(&spec("filial")).await.unwrap();
    assert_eq!(shape.page_key, ["empresa", "filial"]);
    assert_eq!(scan(&logix, &shape, one_row, "nome").await, ["y", "x"]);
    let key = KeyBytes::of(["01", "2"]);
    let found = logix.by_keys(&shape, &[key]).await.unwrap();
    assert_eq!(column(&shape, &found, "nome"), ["x"]);
}

macro_rules! contract {
    ($($test:ident)+) => {
        mod postgres { use super::*; $(#[tokio::test] async fn $test() {
            super::$test(PostgresErp::new().await).await;
        })+ }
        mod sqlite { use super::*; $(#[tokio::test] async fn $test() {
            super::$test(SqliteErp::new()).await;
        })+ }
    };
}

contract! {
    a_scan_in_small_pages_sees_every_row_once_in_key_order
    equal_stamps_are_paged_by_key_and_the_edge_is_told
    a_changed_table_is_refused_until_it_is_described_again
    tables_without_a_key_and_columns_that_clash_are_refused_by_name
    a_filter_narrows_chunks_and_agrees_with_the_evaluator
    by_keys_gives_live_rows_alone_where_a_key_is_shared
    wire_keys_find_their_rows_in_every_key_type
    tables_and_identity_are_told
    of_masked_columns_no_read_shows_the_value
    a_table_with_a_unique_index_alone_is_read_by_the_profiles_that_take_it
}

#[test]
fn urls_of_other_databases_are_told_apart_from_nonsense() {
    let code =
        |url: &str| connect(url, Profile::Generic, &SourceOptions::default()).unwrap_err().code;
    for url in ["sqlserver://h/d", "oracle://h/d", "nonsense:x"] {
        assert_eq!(code(url), Code::SourceUnsupported, "{url}");
    }
    assert_eq!(code("nonsense"), Code::ConfigInvalid);
}
