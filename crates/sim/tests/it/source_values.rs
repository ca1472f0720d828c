//! Values of PostgreSQL as canonical text (F33, F34, I17): the edges of every type.

use agent::source::{Profile, Source as _};
use protocol::{Code, key::KeyBytes};

use super::{
    source_contract::{WIDE, column, spec},
    source_erp::{Erp as _, PostgresErp, SqliteErp},
};

/// Type, literal, canonical text (`NULL` = NULL).
const EDGES: &[(&str, &str, &str)] = &[
    ("boolean", "true", "true"),
    ("boolean", "false", "false"),
    ("boolean", "NULL", "NULL"),
    ("smallint", "'-32768'", "-32768"),
    ("smallint", "32767", "32767"),
    ("integer", "'-2147483648'", "-2147483648"),
    ("integer", "2147483647", "2147483647"),
    ("integer", "0", "0"),
    ("bigint", "'-9223372036854775808'", "-9223372036854775808"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("oid", "4294967295", "4294967295"),
    ("real", "0.1", "0.1"),
    ("real", "'-0'", "-0"),
    ("real", "'NaN'", "NaN"),
    ("real", "'Infinity'", "Infinity"),
    ("real", "'3.4028235e38'", "340282350000000000000000000000000000000"),
    ("double precision", "0.1", "0.1"),
    ("double precision", "'-0'", "-0"),
    ("double precision", "'NaN'", "NaN"),
    ("double precision", "'-Infinity'", "-Infinity"),
    ("double precision", "1e21", "1000000000000000000000"),
    ("double precision", "'1.0000000000000002'", "1.0000000000000002"),
    ("double precision", "123456789.125", "123456789.125"),
    ("numeric", "1.50", "1.50"),
    ("numeric", "'-0.00'", "0.00"),
    ("numeric", "0", "0"),
    ("numeric", "1e-20", "0.00000000000000000001"),
    ("numeric", "99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
    (
        "numeric",
        "'-123456789012345678.123456789012345678'",
        "-123456789012345678.123456789012345678",
    ),
    ("numeric", "10000", "10000"),
    ("numeric", "100000000.0001", "100000000.0001"),
    ("numeric", "0.0001", "0.0001"),
    ("numeric", "0.00001", "0.00001"),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'Infinity'", "Infinity"),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("numeric(38,10)", "12345678901234567890.5", "12345678901234567890.5000000000"),
    ("numeric(16,2)", "0.1", "0.10"),
    ("text", "''", ""),
    ("text", "' a '", " a "),
    ("text", "E'\\t\\n'", "\t\n"),
    ("text", "'ação'", "ação"),
    ("text", "'日本😀'", "日本😀"),
    ("varchar(10)", "'x'", "x"),
    ("char(5)", "'x'", "x    "),
    ("char(5)", "''", "     "),
    ("name", "'n'", "n"),
    ("\"char\"", "'c'", "c"),
    ("bytea", "'\\x'", ""),
    ("bytea", "'\\x00ff10'", "AP8Q"),
    ("date", "'1970-01-01'", "1970-01-01"),
    ("date", "'0001-01-01'", "0001-01-01"),
    ("date", "'9999-12-31'", "9999-12-31"),
    ("date", "'infinity'", "Infinity"),
    ("date", "'-infinity'", "-Infinity"),
    ("date", "'10000-01-01'", "+10000-01-01"),
    ("date", "'0001-12-31 BC'", "0000-12-31"),
    ("date", "'4713-01-01 BC'", "-4712-01-01"),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("time", "'00:00'", "00:00:00"),
    ("time", "'24:00'", "24:00:00"),
    ("time", "'12:34:56.789'", "12:34:56.789"),
    ("time", "'23:59:59.999999'", "23:59:59.999999"),
    ("timetz", "'12:00-03'", "12:00:00-03:00"),
    ("timetz", "'12:00:00.5+05:30'", "12:00:00.5+05:30"),
    ("timestamp", "'2024-01-01 10:00'", "2024-01-01T10:00:00"),
    ("timestamp", "'1969-12-31 23:59:59.999999'", "1969-12-31T23:59:59.999999"),
    ("timestamp", "'infinity'", "Infinity"),
    ("timestamp", "'-infinity'", "-Infinity"),
    ("timestamp", "'0044-03-15 00:00 BC'", "-0043-03-15T00:00:00"),
    ("timestamptz", "'2024-01-01 10:00-03'", "2024-01-01T13:00:00Z"),
    ("timestamptz", "'infinity'", "Infinity"),
    ("timestamptz", "'2038-01-19 03:14:08.1Z'", "2038-01-19T03:14:08.1Z"),
    ("timestamptz", "'0044-03-15 00:00Z BC'", "-0043-03-15T00:00:00Z"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", "'{\"b\": 1,  \"a\":2}'", "{\"b\": 1,  \"a\":2}"),
    ("jsonb", "'{\"b\": 1,  \"a\":2}'", "{\"a\": 2, \"b\": 1}"),
    ("jsonb", "'null'", "null"),
    ("interval", "'1 day 02:00'", "1 day 02:00:00"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("integer[]", "'{1,NULL,3}'", "{1,NULL,3}"),
    ("int4range", "'[1,5)'", "[1,5)"),
    ("bit(3)", "B'101'", "101"),
    ("point", "'(1,2)'", "(1,2)"),
    ("money_dom", "12.30", "12.30"),
    ("mood", "'sad'", "sad"),
];

#[tokio::test]
async fn every_value_arrives_exactly_and_finds_its_row_again_as_a_key() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN money_dom AS numeric(16,2)")
        .await;
    let source = erp.source(Profile::Generic);
    for (at, (kind, literal, canonical)) in EDGES.iter().enumerate() {
        erp.run(&format!("CREATE TABLE v{at} (id integer PRIMARY KEY, v {kind}); INSERT INTO v{at} VALUES (1, {literal}::{kind})")).await;
        let mut wanted = spec(&format!("v{at}"));
        let shape = source.describe(&wanted).await.unwrap();
        let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
        assert_eq!(page.cell(0, 1).unwrap_or("NULL"), *canonical, "{kind} {literal}");
        if *canonical == "NULL" || ["json", "point"].contains(kind) {
            continue;
        }
        // The same value as page key and as wire key.
        erp.run(&format!("ALTER TABLE v{at} DROP CONSTRAINT v{at}_pkey")).await;
        wanted.key = Some(vec!["v".parse().unwrap()]);
        let shape = source.describe(&wanted).await.unwrap();
        let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
        let behind = source.chunk(&shape, Some(page.key(0)), None, WIDE).await;
        assert!(behind.unwrap().is_empty(), "{kind} {literal}: nothing lies behind the last key");
        let found = source.by_keys(&shape, &[KeyBytes::of([*canonical])]).await;
        assert_eq!(found.unwrap().len(), 1, "{kind} {literal}");
    }
    assert!(EDGES.len() >= 60);
}

#[tokio::test]
async fn a_value_that_cannot_travel_is_poison_and_its_neighbours_go_on() {
    let erp = SqliteErp::new();
    erp.run("CREATE TABLE v (id integer PRIMARY KEY, i integer, d decimal(9,2), b boolean, t text, x blob, r real)").await;
    erp.run(
        "INSERT INTO v VALUES (1, 9223372036854775807, 1.5, 1, 'a', x'00ff', 0.1), (2, 'abc', 1, 0, 'b', NULL, 1), \
         (3, 1, 'abc', 0, 'c', NULL, 1), (4, 1, 1, 7, 'd', NULL, 1), (5, 1, 1, 1, CAST(x'ff' AS TEXT), NULL, 1), \
         (6, 1, 1, 1, 'a' || char(0), NULL, 1), (7, 1, 1, 1, x'00', NULL, 1), (8, 1, 1, 1, 'h', 'text', 1), \
         (9, NULL, NULL, NULL, '', NULL, NULL), (10, 1.5, 1, 1, 'i', NULL, 1)",
    )
    .await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("v")).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!(column(&shape, &page, "id"), ["1", "9"]);
    let first: Vec<_> = (0..7).map(|at| page.cell(0, at).unwrap()).collect();
    assert_eq!(first, ["1", "9223372036854775807", "1.5", "true", "a", "AP8=", "0.1"]);
    assert_eq!((page.cell(1, 1), page.cell(1, 4)), (None, Some("")));
    assert_eq!(page.poison().len(), 8);
    assert!(
        page.poison()
            .iter()
            .all(|poison| poison.code == Code::ValueUnfit && !poison.words.contains("abc"))
    );
    assert_eq!(page.last().unwrap().key.0, ["10"], "paging goes on behind poison");
}

#[tokio::test]
async fn bytes_that_are_no_text_are_poison_in_a_database_without_encoding() {
    let erp = PostgresErp::new().await;
    let server = sim::servers::shared_server().await.unwrap();
    let name = format!("{}_ascii", erp.url.rsplit('/').next().unwrap());
    erp.run(&format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
        .await;
    let url = server.url(&name);
    let client = sim::servers::connect(&url).await.unwrap();
    client
        .batch_execute("CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, E'\\xe9'), (2, 'ok')")
        .await
        .unwrap();
    let source = agent::source::connect(&url, Profile::Generic, &Default::default()).unwrap();
    let mut wanted = spec("t");
    let shape = source.describe(&wanted).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!((page.len(), page.poison().len()), (1, 1));
    // Declared as raw bytes, it travels.
    wanted.types = vec![("v".parse().unwrap(), protocol::value::TypeName::parse("string;enc=b64"))];
    let shape = source.describe(&wanted).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!(column(&shape, &page, "v"), ["6Q==", "b2s="]);
}
