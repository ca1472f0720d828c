//! The demo as its user starts it: events, exit codes, sources of all kinds, the end by Ctrl-C.

use std::{path::Path, process::Command, time::Duration};

use runtime::clock::{self, Mono};
use serde_json::Value;
use sim::{process, servers};

use crate::whole::erp::Erp;

/// Runs `malote demo` to its end: exit code, events of stdout, words of stderr.
async fn demo(arguments: &[&str]) -> (i32, Vec<Value>, String) {
    let arguments: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
    let run = move || {
        let mut command = Command::new(process::binary().unwrap());
        command.args(["demo", "--json"]).args(arguments);
        let done = command.output().unwrap();
        let lines = String::from_utf8(done.stdout).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let words = String::from_utf8_lossy(&done.stderr).into_owned();
        (done.status.code().unwrap_or(-1), events, words)
    };
    runtime::task::blocking(run).await.unwrap()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

fn verified(events: &[Value]) -> &Value {
    let last = events.last().unwrap();
    assert_eq!(last["event"], "verified", "{last}");
    last
}

#[tokio::test]
async fn the_demo_tells_where_everything_is_then_its_progress_then_that_all_is_equal() {
    let (code, events, words) = demo(&["--rows", "1000"]).await;
    assert_eq!(code, 0, "{words}");
    let ready = &events[0];
    assert_eq!(ready["event"], "ready");
    for key in ["registry", "grpc", "clientId", "clientSecret", "tenantId", "environmentId"] {
        assert!(ready[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {ready}");
    }
    assert!(ready["adminToken"].is_string());
    assert!(ready["registry"].as_str().unwrap().starts_with("http://127.0.0.1:"));
    assert!(!ready["grpc"].as_str().unwrap().contains("//"), "host:port");
    assert!(kinds(&events).contains(&"progress") && kinds(&events).contains(&"step"));
    let verified = verified(&events);
    assert_eq!((&verified["equal"], &verified["differences"]), (&true.into(), &0.into()));
    assert_eq!((&verified["tables"], &verified["leftOut"]), (&10.into(), &0.into()));
    assert!(verified["rows"].as_u64().unwrap() > 500);
}

fn sqlite(path: &Path, sql: &str) {
    let database = rusqlite::Connection::open(path).unwrap();
    database.busy_timeout(Duration::from_secs(10)).unwrap();
    database.execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_database_is_followed_once_and_what_cannot_be_shared_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    sqlite(
        &path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, NULL);
         CREATE TABLE keyless (v TEXT)",
    );
    let url = format!("sqlite:{}", path.display());
    let (code, events, words) = demo(&["--source", &url, "--once"]).await;
    assert_eq!(code, 0, "{words}");
    assert_eq!(events[0]["event"], "ready", "whoever reads along waits for it first");
    let left: Vec<_> = events.iter().filter(|event| event["event"] == "leftOut").collect();
    assert_eq!((left.len(), &left[0]["code"]), (1, &"TABLE_WITHOUT_KEY".into()));
    let verified = verified(&events);
    assert_eq!((&verified["rows"], &verified["leftOut"]), (&2.into(), &1.into()));
}

#[tokio::test]
async fn a_row_that_cannot_travel_is_a_difference_and_the_exit_code_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    sqlite(
        &path,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, n BIGINT); INSERT INTO t VALUES (1, 1), (2, 'x')",
    );
    let url = format!("sqlite:{}", path.display());
    let (code, events, _) = demo(&["--source", &url, "--once"]).await;
    assert_eq!(code, 3);
    assert!(kinds(&events).contains(&"difference"));
    let verified = verified(&events);
    assert_eq!((&verified["equal"], &verified["differences"]), (&false.into(), &1.into()));
}

#[tokio::test]
async fn a_postgres_that_never_rests_is_verified_and_followed_until_it_is_told_to_stop() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run("CREATE TABLE t (id bigint PRIMARY KEY, n bigint); INSERT INTO t SELECT g, 0 FROM generate_series(1, 500) g")
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("demo.log");
    let mut demo =
        process::Process::start(folder.path(), &log, &["demo", "--json", "--source", &url])
            .unwrap();
    let says = |what: &str| std::fs::read_to_string(&log).unwrap_or_default().contains(what);
    let begun = Mono::now();
    let mut round = 0;
    while !says("\"verified\"") {
        assert!(begun.elapsed() < Duration::from_secs(90), "no verdict: {}", demo.log_end(10));
        round += 1;
        let sql = format!("UPDATE t SET n = n + 1 WHERE id = 1 + ({round} * 37) % 500");
        erp.run(&sql).await.unwrap();
        clock::sleep(Duration::from_millis(20)).await;
    }
    assert!(says("\"equal\":true"), "{}", demo.log_end(10));
    assert!(demo.ended().unwrap().is_none(), "it follows on");
    demo.signal("INT").unwrap();
    let begun = Mono::now();
    let ended = loop {
        if let Some(ended) = demo.ended().unwrap() {
            break ended;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "Ctrl-C does not end it");
        clock::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(ended.code(), Some(0), "the verdict's exit code stays");
}
