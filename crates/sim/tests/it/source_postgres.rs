//! PostgreSQL as a source, with two and more connections (F01-F03, F05, F06, F16, F19, F33).

use std::{sync::Arc, time::Duration};

use agent::source::{
    AnySource, Bound, From, Page, PageKey, Profile, ReadLimit, SAFE_BOUND_SQL, Source as _,
    SourceOptions, TableShape, connect,
};
use protocol::{Code, key::KeyBytes};
use runtime::task;
use sim::servers::{self, Postgres};

use super::{
    source_contract::{WIDE, column, spec},
    source_erp::{Erp as _, PostgresErp},
};

async fn stamped(erp: &PostgresErp) -> (AnySource, TableShape) {
    erp.run("CREATE TABLE mov (id integer PRIMARY KEY, m timestamptz DEFAULT now())").await;
    let source = erp.source(Profile::Generic);
    let mut with_stamp = spec("mov");
    with_stamp.stamp = Some("m".parse().unwrap());
    let shape = source.describe(&with_stamp).await.unwrap();
    (source, shape)
}

async fn delta(source: &AnySource, shape: &TableShape, from: &Bound, now: &Bound) -> Vec<String> {
    let watermark = source.watermark(shape, from).unwrap();
    let page = source.delta(shape, &From::At(watermark), now, WIDE).await.unwrap();
    column(shape, &page, "id")
}

#[tokio::test]
async fn the_database_never_sees_more_than_three_connections() {
    let erp = PostgresErp::new().await;
    stamped(&erp).await;
    let role = plain_role(&erp).await;
    erp.run(&format!("ALTER ROLE {role} CONNECTION LIMIT 3")).await;
    let url = erp.url.replace("postgres@", &format!("{role}@"));
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let source = Arc::new(source);
    // More calls at once than there may be connections, and then one that looks at the database anew.
    for _ in 0..3 {
        let call = |_| {
            let source = Arc::clone(&source);
            task::spawn("call", async move { source.probe().await })
        };
        for call in (0..12).map(call).collect::<Vec<_>>() {
            assert!(call.join().await.unwrap().unwrap());
        }
        // What a call before has closed may take the server a moment to count out: that is waited for.
        source.identity().await.unwrap();
    }
}

#[tokio::test]
async fn a_late_commit_is_found_although_its_stamp_is_old() {
    let erp = PostgresErp::new().await;
    let (source, shape) = stamped(&erp).await;
    let late = servers::connect(&erp.url).await.unwrap();
    late.batch_execute("BEGIN; INSERT INTO mov VALUES (1)").await.unwrap();
    // Long enough that no allowance can hide a wrong bound: the others' rows are an hour younger.
    erp.run("INSERT INTO mov VALUES (2, now() + interval '1 hour')").await;
    let bound = source.bound().await.unwrap();
    assert_eq!(bound.degraded, None);
    assert!(
        bound.micros < bound.at_micros && bound.held_by.as_ref().unwrap().contains("session"),
        "{bound:?}"
    );
    assert_eq!(delta(&source, &shape, &bound, &bound).await, ["2"]);
    late.batch_execute("COMMIT").await.unwrap();
    let next = source.bound().await.unwrap();
    assert_eq!(delta(&source, &shape, &bound, &next).await, ["1", "2"]);
}

#[tokio::test]
async fn a_transaction_that_has_not_written_yet_holds_the_bound() {
    let erp = PostgresErp::new().await;
    let (source, _) = stamped(&erp).await;
    let idle = servers::connect(&erp.url).await.unwrap();
    idle.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let start: i64 = idle
        .query_one("SELECT (extract(epoch FROM now()) * 1000000)::bigint", &[])
        .await
        .unwrap()
        .get(0);
    let bound = source.bound().await.unwrap();
    assert_eq!(bound.micros, start, "F02: the start counts, not the first write");
    idle.batch_execute("COMMIT").await.unwrap();
    let free = source.bound().await.unwrap();
    assert_eq!((free.micros, free.held_by), (free.at_micros, None));
}

#[tokio::test]
async fn a_bound_taken_before_the_read_covers_what_commits_between() {
    let erp = PostgresErp::new().await;
    let (source, shape) = stamped(&erp).await;
    let bound = source.bound().await.unwrap();
    erp.run("INSERT INTO mov VALUES (1)").await;
    let next = source.bound().await.unwrap();
    assert_eq!(delta(&source, &shape, &bound, &next).await, ["1"]);
}

async fn plain_role(erp: &PostgresErp) -> String {
    let role = format!("agent_{}", erp.url.rsplit('/').next().unwrap());
    erp.run(&format!(
        "CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    ))
    .await;
    role
}

#[tokio::test]
async fn a_plain_login_is_degraded_until_the_function_or_the_right_is_there() {
    let erp = PostgresErp::new().await;
    let (_, shape) = stamped(&erp).await;
    let role = plain_role(&erp).await;
    let url = erp.url.replace("postgres@", &format!("{role}@"));
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let open = servers::connect(&erp.url).await.unwrap();
    open.batch_execute("BEGIN; SELECT 1").await.unwrap();
    let blind = source.bound().await.unwrap();
    assert!(blind.degraded.is_some());
    assert!(
        blind.micros <= blind.at_micros - 600_000_000,
        "a window, since others are invisible (F05)"
    );
    let codes = async |shapes: &[TableShape]| -> Vec<Code> {
        source.findings(shapes).await.unwrap().into_iter().filter_map(|f| f.code).collect()
    };
    assert!(codes(std::slice::from_ref(&shape)).await.contains(&Code::BoundDegraded));
    assert_eq!(codes(&[]).await, [], "without a stamp no bound is needed");
    erp.run(SAFE_BOUND_SQL).await;
    erp.run(&format!("GRANT USAGE ON SCHEMA malote TO {role}; GRANT EXECUTE ON FUNCTION malote.safe_bound() TO {role}")).await;
    let exact = source.bound().await.unwrap();
    assert_eq!(exact.degraded, None);
    assert!(exact.micros < exact.at_micros && exact.held_by.is_some());
    assert!(exact.micros > exact.at_micros - 600_000_000);
    erp.run("DROP SCHEMA malote CASCADE").await;
    erp.run(&format!("GRANT pg_read_all_stats TO {role}")).await;
    assert_eq!(source.bound().await.unwrap().degraded, None);
    open.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn a_function_whose_owner_sees_no_other_session_is_not_trusted() {
    let erp = PostgresErp::new().await;
    let (_, _) = stamped(&erp).await;
    let role = plain_role(&erp).await;
    let url = erp.url.replace("postgres@", &format!("{role}@"));
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let open = servers::connect(&erp.url).await.unwrap();
    open.batch_execute("BEGIN; SELECT 1").await.unwrap();
    // As an owner of the database would make it who is no superuser.
    let owner = format!("{role}_owner");
    erp.run(&format!(
        "CREATE ROLE {owner}; GRANT CREATE ON DATABASE {} TO {owner}",
        database(&erp)
    ))
    .await;
    let installer = servers::connect(&erp.url).await.unwrap();
    let refused = installer.batch_execute(&format!("SET ROLE {owner}; {SAFE_BOUND_SQL}")).await;
    assert!(refused.is_err(), "the script itself refuses such an owner");
    erp.run(SAFE_BOUND_SQL).await;
    erp.run(&format!(
        "ALTER FUNCTION malote.safe_bound() OWNER TO {owner}; \
         GRANT USAGE ON SCHEMA malote TO {role}, {owner}; \
         GRANT EXECUTE ON FUNCTION malote.safe_bound() TO {role}"
    ))
    .await;
    let blind = source.bound().await.unwrap();
    assert!(blind.degraded.unwrap().contains("owner of malote.safe_bound()"));
    assert!(blind.micros <= blind.at_micros - 600_000_000);
    erp.run(&format!("GRANT pg_read_all_stats TO {owner}")).await;
    let exact = source.bound().await.unwrap();
    assert_eq!(exact.degraded, None);
    assert!(exact.micros < exact.at_micros && exact.micros > exact.at_micros - 600_000_000);
    open.batch_execute("COMMIT").await.unwrap();
}

#[tokio::test]
async fn the_committed_state_changes_with_every_transaction_that_wrote() {
    let erp = PostgresErp::new().await;
    let (source, _) = stamped(&erp).await;
    let open = servers::connect(&erp.url).await.unwrap();
    open.batch_execute("BEGIN; INSERT INTO mov VALUES (1)").await.unwrap();
    let before = source.bound().await.unwrap().committed;
    assert!(before.is_some());
    open.batch_execute("COMMIT").await.unwrap();
    assert_ne!(source.bound().await.unwrap().committed, before);
}

fn database(erp: &PostgresErp) -> &str {
    erp.url.rsplit('/').next().unwrap()
}

/// Codes that `malote agent check` finds.
fn checked(folder: &std::path::Path) -> Vec<String> {
    let output = std::process::Command::new(sim::process::binary().unwrap())
        .args(["agent", "check", "--json", "--config", "agent.toml"])
        .current_dir(folder)
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
        panic!("check says {}", String::from_utf8_lossy(&output.stderr));
    });
    let codes = told["findings"].as_array().unwrap().iter();
    codes.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn what_safe_bound_prints_runs_in_psql_and_check_reports_no_degraded_bound_then() {
    let erp = PostgresErp::new().await;
    let (_, shape) = stamped(&erp).await;
    let stamp = &shape.stamp.as_ref().unwrap().column;
    let role = plain_role(&erp).await;
    let folder = tempfile::tempdir().unwrap();
    let url = erp.url.replace("postgres@", &format!("{role}@"));
    std::fs::write(
        folder.path().join("agent.toml"),
        format!(
            "[source]\nurl = \"{url}\"\nprofile = \"generic\"\n[tables.mov]\nstamp = \"{stamp}\"\n"
        ),
    )
    .unwrap();
    assert!(checked(folder.path()).contains(&"BOUND_DEGRADED".to_owned()));
    let sql =
        sim::process::command(folder.path(), &["agent", "safe-bound", "--login", &role]).unwrap();
    let script = folder.path().join("safe_bound.sql");
    std::fs::write(&script, sql).unwrap();
    let psql = servers::available().unwrap().join("psql");
    let ran = std::process::Command::new(psql)
        .args(["-X", "-v", "ON_ERROR_STOP=1", "-d", &erp.url, "-f"])
        .arg(&script)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(!checked(folder.path()).contains(&"BOUND_DEGRADED".to_owned()));
}

#[tokio::test]
async fn a_prepared_transaction_holds_the_bound_at_the_poll_before_it_was_seen() {
    let erp = PostgresErp::new().await;
    let (source, shape) = stamped(&erp).await;
    let before = source.bound().await.unwrap();
    let gid = format!("g-{}", erp.url.rsplit('/').next().unwrap());
    erp.run("BEGIN; INSERT INTO mov VALUES (1)").await;
    erp.run(&format!("PREPARE TRANSACTION '{gid}'")).await;
    for _ in 0..2 {
        let held = source.bound().await.unwrap();
        assert_eq!((held.micros, held.degraded), (before.micros, None));
        assert!(held.held_by.unwrap().contains("prepared"));
    }
    // An agent that starts now cannot know how old it is.
    assert!(erp.source(Profile::Generic).bound().await.unwrap().degraded.is_some());
    erp.run(&format!("COMMIT PREPARED '{gid}'")).await;
    let free = source.bound().await.unwrap();
    assert_eq!(free.micros, free.at_micros);
    assert_eq!(delta(&source, &shape, &before, &free).await, ["1"]);
}

#[tokio::test]
async fn half_a_page_is_never_a_page_and_a_restarted_server_is_read_again() {
    let mut server = Postgres::start().await.unwrap();
    let url = server.create_database("erp").await.unwrap();
    let client = servers::connect(&url).await.unwrap();
    client
        .batch_execute(
            "CREATE TABLE t (id integer PRIMARY KEY, v text); \
             INSERT INTO t SELECT n, repeat('x', 2000) FROM generate_series(1, 20000) n; CHECKPOINT",
        )
        .await
        .unwrap();
    let source =
        std::sync::Arc::new(connect(&url, Profile::Generic, &SourceOptions::default()).unwrap());
    let shape = source.describe(&spec("t")).await.unwrap();
    let limit = ReadLimit { rows: 20_000, bytes: 100 << 20 };
    let _width =
        source.chunk(&shape, None, None, ReadLimit { rows: 10, bytes: 1 << 20 }).await.unwrap();
    let (reader, of) = (source.clone(), shape.clone());
    let page =
        runtime::task::spawn("page", async move { reader.chunk(&of, None, None, limit).await });
    server.stop_immediate().await.unwrap();
    match page.join().await.unwrap() {
        Ok(page) => assert_eq!((page.len(), page.is_complete()), (20_000, true)),
        Err(error) => assert!(error.is_transient(), "{error}"),
    }
    let down = source.chunk(&shape, None, None, limit).await.unwrap_err();
    assert_eq!(down.code, Code::SourceUnreachable);
    server.restart().await.unwrap();
    let page = source.chunk(&shape, None, None, limit).await.unwrap();
    assert_eq!((page.len(), page.is_complete()), (20_000, true));
}

#[tokio::test]
async fn a_lock_or_a_slow_statement_ends_with_a_time_out() {
    let erp = PostgresErp::new().await;
    let (source, shape) = stamped(&erp).await;
    let locker = servers::connect(&erp.url).await.unwrap();
    locker.batch_execute("BEGIN; LOCK TABLE mov").await.unwrap();
    let error = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    assert_eq!(error.code, Code::SourceTimeout);
    locker.batch_execute("ROLLBACK").await.unwrap();
    source.chunk(&shape, None, None, WIDE).await.unwrap();
}

#[tokio::test]
async fn the_database_orders_and_compares_keys_whatever_their_collation() {
    let erp = PostgresErp::new().await;
    erp.run(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
    )
    .await;
    erp.run("CREATE COLLATION pt (provider = icu, locale = 'pt-BR')").await;
    erp.run(
        "CREATE TABLE c (a text COLLATE ci, b char(5), d text COLLATE pt, PRIMARY KEY (a, b, d))",
    )
    .await;
    let mut rows = 0;
    for a in ["a", "Ábc", "abd", "Z", "ç", "", " "] {
        for b in ["x", "x  y", "", "É"] {
            for d in ["co-op", "coop", "Coop", "á", "a ", "a"] {
                erp.run(&format!("INSERT INTO c VALUES ('{a}', '{b}', '{d}')")).await;
                rows += 1;
            }
        }
    }
    let source = erp.source(Profile::Generic);
    let shape = source.describe(&spec("c")).await.unwrap();
    for limit in [1, 5, 167] {
        let (mut seen, mut after): (usize, Option<PageKey>) = (0, None);
        loop {
            let page: Page = source
                .chunk(&shape, after.as_ref(), None, ReadLimit { rows: limit, bytes: 1 << 20 })
                .await
                .unwrap();
            seen += page.len();
            after = page.last().map(|last| last.key.clone()).or(after);
            if page.is_complete() {
                break;
            }
        }
        assert_eq!(seen, rows, "pages of {limit}");
    }
    // Another spelling of the same key finds the row: equality is the database's too.
    let page = source.by_keys(&shape, &[KeyBytes::of(["ABD", "x", "coop"])]).await.unwrap();
    assert_eq!(column(&shape, &page, "a"), ["abd"]);
}

#[tokio::test]
async fn a_login_without_rights_or_with_a_wrong_name_is_told() {
    let erp = PostgresErp::new().await;
    let (_, _) = stamped(&erp).await;
    let place = erp.url.split('@').nth(1).unwrap().split('/').next().unwrap().to_owned();
    for (url, code, place, words) in [
        (
            erp.url.replace("postgres@", "nobody_at_all@"),
            Code::SourceLogin,
            &*place,
            "user \"nobody_at_all\"",
        ),
        (format!("{}_missing", erp.url), Code::SourceLogin, &*place, "there is no database"),
        (
            "postgres://x@127.0.0.1:1/x".into(),
            Code::SourceUnreachable,
            "127.0.0.1:1",
            "nothing listens there",
        ),
        (
            "postgres://x@no-such-host.invalid/x".into(),
            Code::SourceUnreachable,
            "no-such-host.invalid:5432",
            "the name leads to no address",
        ),
        // This server has no TLS.
        (
            format!("{}?sslmode=require", erp.url),
            Code::SourceTls,
            &*place,
            "takes no encrypted connection",
        ),
    ] {
        let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
        let error = source.describe(&spec("mov")).await.unwrap_err();
        assert_eq!(error.code, code, "{error}");
        for part in [place, words] {
            assert!(error.message.contains(part), "{error}");
        }
    }
    let role = plain_role(&erp).await;
    erp.run(&format!("REVOKE SELECT ON mov FROM {role}")).await;
    let url = erp.url.replace("postgres@", &format!("{role}@"));
    let source = connect(&url, Profile::Generic, &SourceOptions::default()).unwrap();
    let shape = source.describe(&spec("mov")).await.unwrap();
    let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    assert_eq!(refused.code, Code::SourceRights);
    assert!(refused.message.contains("SELECT is missing on"), "{refused}");
    let column = shape.columns.first().unwrap().name.as_str();
    erp.run(&format!("GRANT SELECT ({column}) ON mov TO {role}")).await;
    let refused = source.chunk(&shape, None, None, WIDE).await.unwrap_err();
    assert!(refused.message.contains("on columns "), "{refused}");
    assert!(!refused.message.contains(&format!("columns {column}")), "{refused}");
    let refused = servers::connect(&url).await.unwrap();
    refused.batch_execute("SELECT 1").await.unwrap();
}

#[tokio::test]
async fn a_local_stamp_is_never_read_too_late_when_the_clocks_go_back() {
    let erp = PostgresErp::new().await;
    erp.run("CREATE TABLE h (id integer PRIMARY KEY, m timestamp)").await;
    // New York, 3 November 2024: 01:30 comes twice, at 05:30 and 06:30 UTC.
    erp.run("INSERT INTO h VALUES (1, '2024-11-03 01:10:00'), (2, '2024-11-03 00:10:00')").await;
    let source = erp.source_in(Profile::Generic, "America/New_York");
    let mut with_stamp = spec("h");
    with_stamp.stamp = Some("m".parse().unwrap());
    with_stamp.allowance = Some(Duration::ZERO);
    let shape = source.describe(&with_stamp).await.unwrap();
    let micros = 1_730_613_000_000_000; // 05:50 UTC, 01:50 the first time.
    let bound = Bound::at(micros);
    // Row 1 may have been written at 06:10 UTC, after the bound.
    assert_eq!(delta(&source, &shape, &bound, &bound).await, ["1"]);
}
