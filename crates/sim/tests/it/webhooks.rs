//! Webhooks of the real server process, told to a consumer that is not ours: Python's `http.server` and `hmac`, with the
//! function that the guide prints.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use runtime::clock;
use serde_json::{Value, json};
use sim::servers;
use tempfile::TempDir;

use crate::{
    foreign::python,
    tls::{self, Front},
    whole::{
        cloud::{Cloud, database},
        sender::{Sender, Target},
    },
};

const WAIT: Duration = Duration::from_secs(40);
/// Quick retries, so that a test sees them; pauses are at least half of it.
const QUICK: &str = "[webhooks]\nfirst_retry_seconds = 1\n";

/// The consumer's process; ends when dropped.
struct Consumer {
    child: Child,
    port: u16,
}

impl Consumer {
    fn start(folder: &TempDir, port: u16) -> Self {
        let script = servers::crate_folder().join("tests/python/webhook_consumer.py");
        let guide = servers::crate_folder().join("../../docs/guide/webhooks.md");
        let mut child = Command::new(python())
            .arg("-B")
            .arg(script)
            .arg(guide)
            .arg(folder.path())
            .arg(port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, port: line.trim().parse().unwrap() }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, and the folder by which test and consumer talk.
struct Scene {
    cloud: Cloud,
    desk: TempDir,
}

impl Scene {
    async fn new(more: &str) -> Self {
        let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let cloud = Cloud::start_at(ports, more, ("RM", &["FLAN"])).await;
        Self { cloud, desk: tempfile::tempdir().unwrap() }
    }

    fn tell(&self, file: &str, text: &str) {
        fs::write(self.desk.path().join(file), text).unwrap();
    }

    /// `malote server webhook …`, with its JSON.
    fn webhook(&self, words: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = ["webhook"].iter().chain(words).chain(&["--json"]).copied().collect();
        let told = self.cloud.command(&all);
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Makes a webhook and lets the consumer know its secret.
    fn add(&self, url: &str, events: &str) -> String {
        let made = self.webhook(&["add", "warehouse", "--url", url, "--events", events]);
        let secret = made[0]["secret"].as_str().unwrap().to_owned();
        self.tell("secrets", &secret);
        secret
    }

    async fn sender(&self) -> Sender {
        let (grpc, token) = (self.cloud.grpc_target(), self.cloud.token().await);
        Sender::new(Target { grpc, token, erp: "RM".into(), table: "FLAN".into() })
    }

    /// Two messages with three rows, and their Summary.
    async fn batch(&self, sender: &mut Sender, batch: i64) {
        write(sender, (batch, 1), &["1", "2"]).await;
        write(sender, (batch, 2), &["3"]).await;
        let answer = sender.summary(batch, 2, 3).await.unwrap();
        assert!(answer.success, "{:?}", answer.errors);
    }

    /// Waits until the consumer was called so often.
    async fn calls(&self, count: usize) -> Vec<Value> {
        let begun = clock::Mono::now();
        loop {
            let text = fs::read_to_string(self.desk.path().join("calls")).unwrap_or_default();
            let calls: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            if calls.len() >= count {
                return calls;
            }
            let late = begun.elapsed() > WAIT;
            assert!(!late, "{} of {count} calls: {calls:#?}\n{}", calls.len(), self.cloud.log());
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the newest delivery is in that state.
    async fn delivery(&self, state: &str) -> Value {
        let begun = clock::Mono::now();
        loop {
            let found = self.webhook(&["deliveries", "warehouse", "--limit", "1"]);
            if found.first().is_some_and(|delivery| delivery["state"] == state) {
                return found[0].clone();
            }
            assert!(begun.elapsed() < WAIT, "not {state}: {found:#?}\n{}", self.cloud.log());
            clock::sleep(Duration::from_millis(100)).await;
        }
    }

    fn staging(&self) -> PathBuf {
        database(&self.cloud.folder.path().join("data"), "RM")
    }
}

async fn write(sender: &mut Sender, of: (i64, i32), keys: &[&str]) {
    let columns = [("ID", "string"), ("S", "string")];
    let rows: Vec<Vec<(&str, &str)>> =
        keys.iter().map(|key| vec![("ID", *key), ("S", "x")]).collect();
    let rows: Vec<&[(&str, &str)]> = rows.iter().map(Vec::as_slice).collect();
    let message = sender.message(of, (&columns, 1), &rows);
    let answer = sender.write(&message).await.unwrap();
    assert!(answer.success, "{:?}", answer.errors);
}

#[tokio::test]
async fn a_stranger_verifies_what_it_is_told_and_finds_the_rows_staged() {
    let scene = Scene::new(QUICK).await;
    let mut sender = scene.sender().await;
    // A first batch makes the staging file, whose path the consumer is told.
    scene.batch(&mut sender, 1_000).await;
    let ready = |staging: &rusqlite::Connection| {
        staging.query_row("SELECT 1 FROM flan WHERE ID = '3'", [], |_| Ok(())).ok()
    };
    scene.cloud.staged("the first batch", ready).await;
    scene.tell("staging", scene.staging().to_str().unwrap());
    scene.tell("statuses", "500 301 204");
    let consumer = Consumer::start(&scene.desk, 0);
    let url = format!("http://127.0.0.1:{}/in?key=canary", consumer.port);
    let first = scene.add(&url, "batch.complete");
    scene.batch(&mut sender, 2_000).await;
    let calls = scene.calls(3).await;
    let told: Vec<(&Value, &Value)> =
        calls.iter().map(|call| (&call["status"], &call["attempt"])).collect();
    let expected = [(json!(500), json!(1)), (json!(301), json!(2)), (json!(204), json!(3))];
    assert_eq!(told, expected.iter().map(|(status, at)| (status, at)).collect::<Vec<_>>());
    for call in &calls {
        assert_eq!((&call["verified"], &call["signatures"]), (&json!([true]), &json!(1)), "{call}");
        for wrong in ["tampered", "old"] {
            assert_eq!(call[wrong], json!([false]), "{wrong}: {call}");
        }
        assert_eq!((&call["stranger"], &call["path"]), (&json!(false), &json!("/in?key=canary")));
        assert_eq!(call["staged"], json!({ "state": "complete", "rows": 3 }), "{call}");
        assert_eq!(call["event"], calls[0]["event"], "the same at each try");
        assert_eq!(call["contentType"], "application/cloudevents+json; charset=utf-8");
    }
    let event = &calls[0]["event"];
    assert_eq!(event["source"].as_str(), Some(scene.cloud.registry_base().as_str()));
    assert_eq!((&event["type"], &calls[0]["type"]), (&json!("batch.complete"), &event["type"]));
    let data = &event["data"];
    assert_eq!((&data["batchId"], &data["messageCount"]), (&json!(2_000), &json!(2)));
    assert_eq!((&data["recordCount"], &data["tables"]), (&json!(3), &json!(["FLAN"])));
    let done = scene.delivery("done").await;
    assert_eq!((&done["attempts"], &done["lastStatus"]), (&json!(3), &json!(204)));
    // Both secrets sign while one takes the other's place; an old one that is out of force signs no more.
    let second = scene.webhook(&["rotate", "warehouse", "--keep-hours", "1"])[0]["secret"].clone();
    scene.tell("secrets", &format!("{first}\n{}", second.as_str().unwrap()));
    scene.batch(&mut sender, 3_000).await;
    let both = scene.calls(4).await[3].clone();
    assert_eq!((&both["verified"], &both["signatures"]), (&json!([true, true]), &json!(2)));
    scene.webhook(&["rotate", "warehouse", "--at-once"]);
    scene.batch(&mut sender, 4_000).await;
    let third = scene.calls(5).await[4].clone();
    assert_eq!((&third["verified"], &third["signatures"]), (&json!([false, false]), &json!(1)));
    let listed = scene.cloud.command(&["webhook", "list", "--json"]);
    let audit = scene.cloud.command(&["audit", "list", "--json"]);
    for told in [listed, audit, scene.cloud.log()] {
        assert!(!told.contains("canary") && !told.contains(&first[..20]), "{told}");
    }
}

#[tokio::test]
async fn an_event_outlives_the_server_and_a_consumer_that_was_away() {
    let mut scene = Scene::new(QUICK).await;
    let port = servers::free_port().unwrap();
    scene.add(&format!("http://127.0.0.1:{port}/"), "batch.complete");
    let mut sender = scene.sender().await;
    scene.batch(&mut sender, 2_000).await;
    // The Summary was answered, so the event is on disk, told to nobody yet.
    scene.cloud.kill();
    scene.cloud.run().await;
    let begun = clock::Mono::now();
    let tried = |found: &[Value]| found[0]["lastError"].is_string();
    loop {
        let found = scene.webhook(&["deliveries", "warehouse"]);
        assert_eq!(found.len(), 1, "{found:#?}");
        if tried(&found) {
            assert_eq!(found[0]["lastError"], "nothing listens there");
            break;
        }
        assert!(begun.elapsed() < WAIT, "{found:#?}");
        clock::sleep(Duration::from_millis(100)).await;
    }
    let consumer = Consumer::start(&scene.desk, port);
    assert_eq!(consumer.port, port);
    let calls = scene.calls(1).await;
    assert_eq!(calls[0]["event"]["data"]["batchId"], 2_000);
    assert!(calls[0]["attempt"].as_i64().unwrap() > 1, "{calls:#?}");
    scene.delivery("done").await;
    let test = scene.webhook(&["test", "warehouse"]);
    assert_eq!((&test[0]["state"], &test[0]["type"]), (&json!("done"), &json!("webhook.test")));
}

#[tokio::test]
async fn incomplete_and_stalled_batches_are_told_with_what_is_missing_and_since_when() {
    let scene = Scene::new(QUICK).await;
    let consumer = Consumer::start(&scene.desk, 0);
    let url = format!("http://127.0.0.1:{}/", consumer.port);
    scene.add(&url, "batch.incomplete,batch.stalled");
    let mut sender = scene.sender().await;
    write(&mut sender, (2_000, 1), &["1"]).await;
    let refused = sender.summary(2_000, 3, 5).await.unwrap();
    assert!(!refused.success);
    let call = scene.calls(1).await[0].clone();
    let data = &call["event"]["data"];
    assert_eq!(call["event"]["type"], "batch.incomplete");
    assert_eq!((&data["state"], &data["reason"]), (&json!("open"), &json!("MESSAGES_MISSING")));
    assert_eq!(data["missingMessages"], json!({ "from": 2, "to": 3 }));
    assert_eq!((&data["messageCount"], &data["expectedRecordCount"]), (&json!(1), &json!(5)));
    // The next batch ends that one, which was told already; and another ends this one, which was not.
    write(&mut sender, (3_000, 1), &["2"]).await;
    write(&mut sender, (4_000, 1), &["3"]).await;
    let call = scene.calls(2).await[1].clone();
    let data = &call["event"]["data"];
    assert_eq!((&data["batchId"], &data["reason"]), (&json!(3_000), &json!("ABANDONED")));
    assert_eq!(data["state"], "abandoned");
    // As if the last message had come 61 seconds earlier.
    let store = rusqlite::Connection::open(scene.cloud.store()).unwrap();
    store
        .execute("UPDATE batch SET last_at = last_at - 61000000 WHERE state = 'open'", [])
        .unwrap();
    let calls = scene.calls(3).await;
    let (event, data) = (&calls[2]["event"], &calls[2]["event"]["data"]);
    assert_eq!((&event["type"], &data["batchId"]), (&json!("batch.stalled"), &json!(4_000)));
    assert_eq!(data["since"], data["lastMessageAt"]);
    assert!(calls.iter().all(|call| call["verified"] == json!([true])), "{calls:#?}");
}

// Commands block one worker while the front answers on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_behind_tls_is_told_where_its_authority_is_trusted() {
    let scene = {
        let authority = tls::file("ca.pem");
        Scene::new(&format!("{QUICK}ca_file = '{}'\n", authority.display())).await
    };
    let consumer = Consumer::start(&scene.desk, 0);
    let front = Front::before(consumer.port, &["http/1.1"]).await;
    scene.add(&format!("https://localhost:{}/", front.port), "batch.complete");
    let test = scene.webhook(&["test", "warehouse"]);
    assert_eq!((&test[0]["state"], &test[0]["lastStatus"]), (&json!("done"), &json!(204)));
    let call = scene.calls(1).await[0].clone();
    assert_eq!(call["verified"], json!([true]));
    // The certificate is made out to localhost alone.
    let numbers = format!("https://127.0.0.1:{}/", front.port);
    scene.webhook(&["edit", "warehouse", "--url", &numbers]);
    let mut words = vec!["webhook", "test", "warehouse", "--json"];
    words.insert(0, "server");
    words.extend(["--config", "server.toml"]);
    let failed = sim::process::answer(scene.cloud.folder.path(), &words, "").unwrap();
    assert!(!failed.status.success());
    let told = String::from_utf8_lossy(&failed.stdout).into_owned();
    assert!(told.contains("its certificate is made out to another name"), "{told}");
    assert!(String::from_utf8_lossy(&failed.stderr).contains("WEBHOOK_UNTOLD"));
}
