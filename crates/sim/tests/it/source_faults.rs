//! Faults of the catalogue at PostgreSQL as a source: recovery, locks, values of every size, hostile filters (F14, F15,
//! F33, F34, F68).

use std::{collections::BTreeSet, fs, time::Duration};

use agent::source::{PageKey, Profile, ReadLimit, Source as _, SourceOptions, connect};
use protocol::{
    Code,
    filter::Filter,
    names::{ColumnName, TableName},
};
use runtime::{
    clock::{self, Mono},
    config,
};
use sim::{
    chance::Chance,
    fuzz::{Form, mutate::Mutator},
    servers::{self, Postgres},
};

use super::{
    source_contract::{WIDE, column, spec},
    source_erp::{Erp as _, PostgresErp},
};
use crate::whole::{
    erp::Erp,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn f14_a_database_in_recovery_is_refused_until_it_is_the_one_that_is_written_to() {
    let mut server = Postgres::start().await.unwrap();
    let url = server.create_database("erp").await.unwrap();
    let schema =
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
                  INSERT INTO t SELECT g, 'v' || g FROM generate_series(1, 500) g";
    Erp::postgres(&url).await.run(schema).await.unwrap();
    server.follow().await.unwrap();
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    assert_eq!(source.identity().await.unwrap_err().code, Code::SourceStandby);
    assert_eq!(source.bound().await.unwrap_err().code, Code::SourceStandby);
    assert_eq!(source.describe(&spec("t")).await.unwrap_err().code, Code::SourceStandby);
    // An agent says so, asks for no session, and sends nothing of it.
    let erp = Erp::postgres(&url).await;
    let mut world = World::start(Plan::new(&url, &["t"]).stamp("t", "changed_at"), erp).await;
    world.status_says("SOURCE_STANDBY", WAIT).await;
    assert_eq!(world.staged_count("SELECT count(*) FROM t"), 0);
    world.erp.run("SELECT pg_promote()").await.unwrap();
    world.equal(WAIT).await;
    world.erp.run("INSERT INTO t VALUES (9001, 'after the promotion')").await.unwrap();
    world.equal(WAIT).await;
    world.status_lacks("SOURCE_STANDBY", WAIT).await;
}

/// Sessions of others in this database: state, and whether they hold a snapshot or a transaction.
async fn sessions(erp: &PostgresErp) -> Vec<(String, bool)> {
    let sql = "SELECT state, xact_start IS NOT NULL OR backend_xmin IS NOT NULL OR backend_xid IS NOT NULL
                 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let rows = erp.client.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn f15_between_two_pages_nothing_is_held_and_a_lock_is_waited_for_two_seconds() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE TABLE mov (id integer PRIMARY KEY, v text); INSERT INTO mov SELECT g, repeat('x', 50) FROM generate_series(1, 2000) g")
        .await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("mov")).await.unwrap();
    let (mut after, mut pages): (Option<PageKey>, u32) = (None, 0);
    loop {
        let limit = ReadLimit { rows: 300, bytes: 1 << 20 };
        let page = source.chunk(&shape, after.as_ref(), None, limit).await.unwrap();
        pages += 1;
        let begun = Mono::now();
        // A moment after a page its session is at rest.
        while sessions(&erp).await.iter().any(|(state, holds)| state != "idle" || *holds) {
            assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", sessions(&erp).await);
            clock::sleep(Duration::from_millis(5)).await;
        }
        after = page.last().map(|last| last.key.clone()).or(after);
        if page.is_complete() {
            break;
        }
    }
    assert!(pages >= 7);
    assert!(sessions(&erp).await.len() <= 3, "more than three connections");
    // Somebody of the ERP holds the table: the read gives up, and nobody waits behind it.
    let holder = servers::connect(&erp.url).await.unwrap();
    holder.batch_execute("BEGIN; LOCK TABLE mov IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let begun = Mono::now();
    let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    let waited = begun.elapsed();
    assert_eq!(refused.code, Code::SourceTimeout, "{refused}");
    assert!((1_900..4_900).contains(&waited.as_millis()), "a lock was waited for {waited:?}");
    holder.batch_execute("ROLLBACK").await.unwrap();
    source.chunk(&shape, None, None, WIDE).await.unwrap();
}

#[tokio::test]
async fn f15_a_statement_of_the_agents_ends_after_five_seconds() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE VIEW slow AS SELECT g AS id, 'x' || pg_sleep(0.5) AS v FROM generate_series(1, 100) g").await;
    let source = erp.source(Profile::Generic);
    let mut wanted = spec("slow");
    wanted.key = Some(vec!["id".parse().unwrap()]);
    let shape = source.describe(&wanted).await.unwrap();
    let begun = Mono::now();
    let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    let took = begun.elapsed();
    assert_eq!(refused.code, Code::SourceTimeout, "{refused}");
    assert!((4_900..9_000).contains(&took.as_millis()), "a statement ran for {took:?}");
    let running = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%slow%'
                     AND state = 'active' AND pid <> pg_backend_pid()";
    let running: i64 = erp.client.query_one(running, &[]).await.unwrap().get(0);
    assert_eq!(running, 0, "it goes on at the database");
}

/// Numbers and moments of any size, by the database's own spelling and by their bits.
#[tokio::test]
async fn f33_numbers_and_moments_of_any_size_arrive_digit_for_digit() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let erp = PostgresErp::new().await;
    erp.run("CREATE TABLE v (id integer PRIMARY KEY, n numeric, d double precision, r real, b bigint, m timestamp, z timestamptz)").await;
    let rows = 400;
    for id in 1..=rows {
        let digits = |chance: &mut Chance, most: u64| -> String {
            (0..=chance.below(most)).map(|_| char::from(b'0' + chance.below(10) as u8)).collect()
        };
        let sign = if chance.percent(50) { "-" } else { "" };
        let number = format!("{sign}{}.{}", digits(&mut chance, 60), digits(&mut chance, 40));
        let double = f64::from_bits(chance.draw());
        let single = f32::from_bits(chance.draw() as u32);
        // Years 1 to 9999.
        let micros =
            i64::try_from(chance.below(315_537_897_600_000_000)).unwrap() - 62_135_596_800_000_000;
        let sql = format!(
            "INSERT INTO v VALUES ({id}, '{number}', '{double:e}', '{single:e}', {}, to_timestamp(0) AT TIME ZONE 'UTC' + interval '{micros} microseconds', to_timestamp(0) + interval '{micros} microseconds')",
            chance.draw().cast_signed(),
        )
        .replace("'inf'", "'Infinity'")
        .replace("'-inf'", "'-Infinity'");
        erp.run(&sql).await;
    }
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("v")).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!((page.len(), page.poison().len()), (usize::try_from(rows).unwrap(), 0));
    erp.run("SET TimeZone = 'UTC'; SET extra_float_digits = 3").await;
    let iso = "'YYYY-MM-DD\"T\"HH24:MI:SS.US'";
    let own = format!(
        "SELECT id::text, n::text, d, r, b::text, to_char(m, {iso}), to_char(z, {iso}) FROM v ORDER BY v.id"
    );
    for (at, row) in erp.client.query(&own, &[]).await.unwrap().iter().enumerate() {
        let cell = |column: usize| page.cell(at, column).unwrap();
        let text = |column: usize| row.get::<_, String>(column);
        let trimmed = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
        assert_eq!(cell(0), text(0));
        assert_eq!(cell(1), text(1), "numeric of row {}", text(0));
        let (double, single): (f64, f32) = (row.get(2), row.get(3));
        let read: f64 = cell(2).parse().unwrap();
        assert!(
            read.to_bits() == double.to_bits() || (read.is_nan() && double.is_nan()),
            "{} is not {double:e}",
            cell(2)
        );
        let read: f32 = cell(3).parse().unwrap();
        assert!(
            read.to_bits() == single.to_bits() || (read.is_nan() && single.is_nan()),
            "{} is not {single:e}",
            cell(3)
        );
        assert_eq!(cell(4), text(4));
        assert_eq!(cell(5), trimmed(text(5)));
        assert_eq!(cell(6), format!("{}Z", trimmed(text(6))));
    }
}

#[tokio::test]
async fn f34_bytes_that_are_no_text_are_told_by_row_and_travel_once_they_are_declared_as_bytes() {
    let own = PostgresErp::new().await;
    let name = format!("{}_bytes", own.url.rsplit('/').next().unwrap());
    own.run(&format!("CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
        .await;
    let url = servers::shared_server().await.unwrap().url(&name);
    let client = servers::connect(&url).await.unwrap();
    // What a WIN1252 program left behind; PostgreSQL itself takes no U+0000 in a text, whatever the encoding.
    client
        .batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, E'caf\\xe9'), (2, 'ok'), (3, E'\\xff\\xfe'), (4, '')",
        )
        .await
        .unwrap();
    assert!(client.batch_execute("INSERT INTO t VALUES (5, E'a\\x00b')").await.is_err());
    let erp = Erp::postgres(&url).await;
    let mut world = World::start(Plan::new(&url, &["t"]), erp).await;
    world.staged_has("t", "2", WAIT).await;
    world.staged_has("t", "4", WAIT).await;
    world.status_says("VALUE_UNFIT", WAIT).await;
    assert_eq!(
        world.staged_count("SELECT count(*) FROM t WHERE id IN (1, 3)"),
        0,
        "a byte was guessed"
    );
    // Mended in the ERP, the row goes out by itself.
    client.batch_execute("UPDATE t SET v = 'cafe' WHERE id = 1").await.unwrap();
    world.staged_has("t", "1", WAIT).await;
    // Declared as bytes, the other one travels as it is, and nothing stays skipped.
    world.stop_agent().await;
    let config = world.cloud.folder.path().join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[tables.t]\ntypes = {{ v = 'string;enc=b64' }}\n"))
        .unwrap();
    world.start_agent();
    world.staged_reaches("SELECT count(*) FROM t WHERE id = 3 AND v = '//4='", 1, WAIT).await;
    world.status_lacks("VALUE_UNFIT", WAIT).await;
}

/// One filter a line, as the parser's own tests take and refuse them.
fn filters(name: &str) -> Vec<String> {
    let path = servers::crate_folder().join("../protocol/tests/filters").join(name);
    fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect()
}

/// Every filter that is taken is run by a login that could do anything: no transaction of its sessions ever gets a
/// number, which the first write of any kind would give it; what a filter holds comes as a parameter, never as text.
#[tokio::test]
async fn f68_no_filter_writes_where_its_login_could_and_what_it_holds_is_bound() {
    let mut chance = Chance::from_environment();
    println!("MALOTE_SEED={}", chance.seed());
    let server = Postgres::start_with(&["autovacuum=off", "log_statement=all"]).await.unwrap();
    let url = server.create_database("erp").await.unwrap();
    let own = servers::connect(&url).await.unwrap();
    own.batch_execute(
        "CREATE TABLE tmov (idlan bigint PRIMARY KEY, codcoligada smallint, status varchar(20), datamovimento timestamp,
            fkd_dtbaix char(8), e1_valor numeric(16,2), a integer, \"_b$1\" text);
         INSERT INTO tmov SELECT g, g % 5, chr(65 + g % 26), now(), '20240101', g, g, 'x' FROM generate_series(1, 200) g",
    )
    .await
    .unwrap();
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let shape = source.describe(&spec("tmov")).await.unwrap();
    let columns: Vec<ColumnName> = shape.columns.iter().map(|column| column.name.clone()).collect();
    let table: TableName = "TMOV".parse().unwrap();
    let number = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
    let next = async || own.query_one(number, &[]).await.unwrap().get::<_, String>(0);
    let before = next().await;
    let (real, hostile) = (filters("real.txt"), filters("hostile.txt"));
    assert!(hostile.iter().all(|text| Filter::parse(text, &table, &columns).is_err()));
    let canaries = [
        "STATUS = 'zqcanary'",
        "STATUS LIKE '%zqcanary%'",
        "STATUS IN ('zqcanary', 'b')",
        "A = 987654321",
    ];
    let good = real.iter().map(String::as_str).chain(canaries).map(str::to_owned);
    let (mut run, mut refused) = (0, BTreeSet::new());
    let mut read = async |text: &str| {
        let Ok(filter) = Filter::parse(text, &table, &columns) else { return };
        match source.chunk(&shape, None, Some(&filter), WIDE).await {
            Ok(_) => run += 1,
            // A literal that the column's type does not know, such as a date of no calendar.
            Err(error) if error.code == Code::FilterRefused => {
                refused.insert(text.to_owned());
            }
            Err(error) => panic!("{text}: {error:?}"),
        }
    };
    for text in good {
        read(&text).await;
    }
    let seeds = real.iter().chain(&hostile).map(|text| text.clone().into_bytes()).collect();
    let mut mutator = Mutator::new(Form::Words, seeds, chance.draw());
    let full = config::variable("MALOTE_TEST_FULL").is_some();
    let (time, begun) = (Duration::from_secs(if full { 60 } else { 4 }), Mono::now());
    while begun.elapsed() < time {
        if let Ok(text) = String::from_utf8(mutator.make()) {
            read(&text).await;
        }
    }
    println!("{run} filters were run, {} refused by the database's types", refused.len());
    assert!(run > 110, "{refused:?}");
    assert_eq!(next().await, before, "a filter wrote");
    let log = server.log();
    let said = |line: &&str| line.contains("zqcanary") || line.contains("987654321");
    let (bound, text): (Vec<_>, Vec<_>) =
        log.lines().filter(said).partition(|line| line.contains("parameters:"));
    assert!(bound.len() >= canaries.len(), "the log shows no parameters");
    assert!(text.is_empty(), "a literal is in a statement: {text:?}");
    // The number would have moved with any write.
    own.batch_execute("UPDATE tmov SET a = 0 WHERE idlan = 1").await.unwrap();
    assert_ne!(next().await, before);
}

#[tokio::test]
async fn a_filter_that_compares_columns_of_two_kinds_is_refused_as_a_filter() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE TABLE kinds (id integer PRIMARY KEY, m timestamp, s varchar(9))").await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("kinds")).await.unwrap();
    let columns: Vec<ColumnName> = shape.columns.iter().map(|column| column.name.clone()).collect();
    for text in ["m = s", "s BETWEEN m AND id", "id > m"] {
        let filter = Filter::parse(text, &"kinds".parse().unwrap(), &columns).unwrap();
        let refused = source.chunk(&shape, None, Some(&filter), WIDE).await.unwrap_err();
        assert_eq!(refused.code, Code::FilterRefused, "{text}: {refused}");
    }
}

#[tokio::test]
async fn a_column_is_read_under_its_own_name_whatever_the_name_holds() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE TABLE odd (id integer PRIMARY KEY, \"a\"\"; DROP TABLE odd; --\" text); INSERT INTO odd VALUES (1, 'x')").await;
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("odd")).await.unwrap();
    let page = source.chunk(&shape, None, None, WIDE).await.unwrap();
    assert_eq!(column(&shape, &page, "a\"; DROP TABLE odd; --"), ["x"]);
}
