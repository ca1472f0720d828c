//! The fleet channel end to end: a real agent reports to a real server and carries out what an operator orders, once.

use std::time::Duration;

use runtime::clock::{self, Mono};
use serde_json::{Value, json};
use sim::{process, servers};

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);

/// Alerts come within seconds.
const QUICK: &str = "[alerts]\nlook_seconds = 1\n";

/// An agent that follows two tables of that many rows.
async fn world(rows: u32) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    for table in ["t", "u"] {
        let schema = format!(
            "CREATE TABLE {table} (id INTEGER PRIMARY KEY, v TEXT, changed_at TEXT DEFAULT CURRENT_TIMESTAMP)"
        );
        erp.run(&schema).await.unwrap();
        erp.run(&format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})
             INSERT INTO {table} (id, v) SELECT i, 'v' || i FROM n"
        ))
        .await
        .unwrap();
    }
    let plan = Plan::new(&format!("sqlite:{}", path.display()), &["t", "u"]);
    let plan = plan.stamp("t", "changed_at").stamp("u", "changed_at").deletes_always();
    let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
    let cloud = Cloud::start_at(ports, QUICK, ("LOGIX", &["t", "u"])).await;
    let mut world = World::over(cloud, plan, erp);
    world.equal(WAIT).await;
    (folder, world)
}

/// Records that a command of the fleet prints.
fn fleet(world: &World, words: &[&str]) -> Vec<Value> {
    let mut all = vec!["fleet"];
    all.extend(words);
    all.push("--json");
    let told = world.cloud.command(&all);
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Gives an order and tells its number.
fn order(world: &World, words: &[&str]) -> i64 {
    let mut all = vec!["order"];
    all.extend(words);
    fleet(world, &all)[0]["order"].as_i64().unwrap()
}

/// Waits until a list shows what is looked for.
async fn until(world: &World, words: &[&str], is: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let begun = Mono::now();
    loop {
        let told = fleet(world, words);
        if is(&told) {
            return told;
        }
        assert!(begun.elapsed() < WAIT, "{words:?}: {told:?}\n{}", world.logs());
        clock::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until an order ended, and tells it.
async fn ended(world: &World, number: i64) -> Value {
    let of = |told: &[Value]| told.iter().find(|order| order["order"] == number).cloned();
    let over = |told: &[Value]| of(told).is_some_and(|order| !order["endedAt"].is_null());
    of(&until(world, &["orders"], over).await).unwrap()
}

/// Waits until the alert of that rule, open or not, is as it should be.
async fn alerted(world: &World, rule: &str, is: impl Fn(&Value) -> bool) {
    let begun = Mono::now();
    loop {
        let told = world.cloud.command(&["alert", "list", "--state", "all", "--json"]);
        let all = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        if all.filter(|alert| alert["rule"] == rule).any(|alert| is(&alert)) {
            return;
        }
        assert!(begun.elapsed() < WAIT, "{rule}: {told}\n{}", world.logs());
        clock::sleep(Duration::from_millis(100)).await;
    }
}

fn state_of(told: &[Value], table: &str) -> String {
    let found = told.iter().find(|found| found["table"] == table);
    found.map(|found| found["state"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn an_agent_is_shown_with_its_tables_and_a_silent_one_ends_as_such() {
    let (_folder, mut world) = world(50).await;
    let reported = |told: &[Value]| told.len() == 1 && told[0]["tables"] == 2;
    let agent = until(&world, &["agents"], reported).await.remove(0);
    assert_eq!((&agent["link"], &agent["code"]), (&json!("sending"), &Value::Null));
    assert_eq!(agent["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(agent["epoch"], world.epoch());
    assert!(agent["database"].as_str().unwrap().starts_with("SQLite 3"), "{agent}");
    let streaming = |told: &[Value]| state_of(told, "t") == "STREAMING";
    let tables = until(&world, &["tables"], streaming).await;
    assert_eq!((tables.len(), &tables[0]["mode"]), (2, &json!("TIMESTAMP")));
    assert!(tables[0]["watermark"].is_string(), "{}", tables[0]);
    world.stop_agent().await;
    let gone = |told: &[Value]| told[0]["link"] == "ended";
    until(&world, &["agents"], gone).await;
}

/// State of an order as it is told now.
fn order_state(told: &[Value], number: i64) -> String {
    let found = told.iter().find(|found| found["order"] == number);
    found.map(|found| found["state"].as_str().unwrap().to_owned()).unwrap_or_default()
}

#[tokio::test]
async fn a_reload_under_way_and_a_pause_go_to_the_agent_that_takes_the_stream_over() {
    let (_folder, mut world) = world(150).await;
    let loads = |world: &World| world.ledger_messages("t", "is_base_load = 1");
    let pause = order(&world, &["pause", "t"]);
    assert_eq!(ended(&world, pause).await["state"], "done");
    // It cannot load a table that is left alone, so the order does not end.
    let reload = order(&world, &["reload", "t"]);
    until(&world, &["orders"], |told| order_state(told, reload) == "under-way").await;
    // The machine is lost with its journal; another one takes its place.
    world.kill_agent();
    std::fs::remove_dir_all(world.cloud.folder.path().join("agent-data")).unwrap();
    world.start_agent();
    let two =
        |told: &[Value]| told.iter().any(|agent| agent["link"] == "sending") && told.len() == 2;
    until(&world, &["agents"], two).await;
    until(&world, &["tables"], |told| state_of(told, "t") == "PAUSED").await;
    assert_eq!(order_state(&fleet(&world, &["orders"]), reload), "under-way");
    assert_eq!(loads(&world), 1);
    let resume = order(&world, &["resume", "t"]);
    assert_eq!(ended(&world, resume).await["state"], "done");
    assert_eq!(ended(&world, reload).await["state"], "done");
    assert_eq!(loads(&world), 2, "{}", world.logs());
    world.equal(WAIT).await;
}

#[tokio::test]
async fn a_reload_is_done_once_although_the_stream_is_cut_and_the_agent_killed_behind_its_id() {
    let (_folder, mut world) = world(150).await;
    let loads = |world: &World| world.ledger_messages("t", "is_base_load = 1");
    assert_eq!(loads(&world), 1);
    // The agent dies as soon as it has written the id.
    world.stop_agent().await;
    world.start_agent_with(&[("MALOTE_FAILPOINTS", "fleet.taken=crash")]);
    let number = order(&world, &["reload", "t"]);
    let begun = Mono::now();
    while !world.agent_ended() {
        assert!(begun.elapsed() < WAIT, "it does not get there\n{}", world.logs());
        clock::sleep(Duration::from_millis(50)).await;
    }
    let told = fleet(&world, &["orders"]);
    assert_eq!(told[0]["state"], "sent", "{told:?}");
    // The stream is cut too: the server dies and comes back before anybody said how it went.
    world.cloud.kill();
    world.cloud.run().await;
    world.start_agent();
    let done = ended(&world, number).await;
    assert_eq!((&done["state"], &done["code"]), (&json!("done"), &Value::Null));
    let begun = Mono::now();
    while loads(&world) < 2 {
        assert!(begun.elapsed() < WAIT, "no load\n{}", world.logs());
        clock::sleep(Duration::from_millis(50)).await;
    }
    // Another death of both, and an order behind it: the one before does not come again.
    world.cloud.kill();
    world.kill_agent();
    world.cloud.run().await;
    world.start_agent();
    let number = order(&world, &["retry", "--all"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.erp.run("INSERT INTO t (id, v) VALUES (9001, 'new')").await.unwrap();
    world.equal(WAIT).await;
    assert_eq!(loads(&world), 2, "{}", world.logs());
}

#[tokio::test]
async fn tables_are_paused_and_resumed_by_order_and_the_log_is_switched_on() {
    let (_folder, mut world) = world(20).await;
    let number = order(&world, &["pause", "t", "--why", "closing"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    let paused = |told: &[Value]| state_of(told, "t") == "PAUSED";
    let told = until(&world, &["tables"], paused).await;
    assert_eq!(state_of(&told, "u"), "STREAMING");
    world.status_says("closing", WAIT).await;
    let sql = "UPDATE t SET v = 'x', changed_at = datetime('now', '+1 second') WHERE id = 1;
               UPDATE u SET v = 'x', changed_at = datetime('now', '+1 second') WHERE id = 1";
    world.erp.run(sql).await.unwrap();
    world.staged_reaches("SELECT count(*) FROM u WHERE v = 'x'", 1, WAIT).await;
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'x'"), 0);
    // The pause is the agent's own: it outlives its process.
    world.stop_agent().await;
    world.start_agent();
    world.status_says("closing", WAIT).await;
    let number = order(&world, &["resume", "t"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.equal(WAIT).await;
    let number = order(&world, &["resume", "t"]);
    let again = ended(&world, number).await;
    assert_eq!((&again["state"], &again["code"]), (&json!("done"), &Value::Null), "it goes on");
    let number = order(&world, &["log-level", "debug", "--minutes", "5"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.status_says("\"detailedLog\":{\"level\":\"debug\"", WAIT).await;
    let number = order(&world, &["log-level", "off"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.status_lacks("detailedLog", WAIT).await;
}

#[tokio::test]
async fn differences_are_found_and_mended_by_order_and_an_alert_begins_and_ends_with_them() {
    let (_folder, mut world) = world(50).await;
    until(&world, &["tables"], |told| state_of(told, "t") == "STREAMING").await;
    let differ = |told: &[Value]| {
        let found = told.iter().find(|found| found["table"] == "t");
        found.and_then(|found| found["differences"].as_i64())
    };
    world.damage("DELETE FROM t WHERE id = 8; UPDATE t SET v = 'by hand' WHERE id = 9");
    let number = order(&world, &["verify", "t"]);
    let looked = ended(&world, number).await;
    let found = (&json!("failed"), &json!("DIFFERENCES_FOUND"));
    assert_eq!((&looked["state"], &looked["code"]), found);
    until(&world, &["tables"], |told| differ(told) == Some(2)).await;
    alerted(&world, "differences", |alert| alert["amount"] == 2 && alert["clearSince"].is_null())
        .await;
    assert!(!world.differences().await.is_empty(), "a look mends nothing");
    let number = order(&world, &["repair", "t"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.equal(WAIT).await;
    until(&world, &["tables"], |told| differ(told) == Some(0)).await;
    alerted(&world, "differences", |alert| !alert["clearSince"].is_null()).await;
}

#[tokio::test]
async fn a_table_that_is_gone_is_told_as_parked_and_goes_on_by_order() {
    let (_folder, mut world) = world(5).await;
    world.erp.run("ALTER TABLE u RENAME TO away").await.unwrap();
    let told = until(&world, &["tables"], |told| state_of(told, "u") == "PARKED").await;
    let parked = told.iter().find(|found| found["table"] == "u").unwrap();
    assert!(parked["parkedCode"].is_string(), "{parked}");
    assert_eq!(state_of(&told, "t"), "STREAMING", "the other one goes on");
    world.erp.run("ALTER TABLE away RENAME TO u").await.unwrap();
    world.erp.run("INSERT INTO u (id, v) VALUES (6, 'new')").await.unwrap();
    let number = order(&world, &["retry", "u"]);
    assert_eq!(ended(&world, number).await["state"], "done");
    world.equal(WAIT).await;
    until(&world, &["tables"], |told| state_of(told, "u") == "STREAMING").await;
}

#[tokio::test]
async fn an_order_waits_for_an_agent_and_can_be_withdrawn_until_one_has_it() {
    let (_folder, mut world) = world(5).await;
    world.stop_agent().await;
    let (first, second) = (order(&world, &["pause", "t"]), order(&world, &["pause", "u"]));
    let gone = fleet(&world, &["withdraw", &first.to_string()]);
    assert_eq!(gone[0]["state"], "withdrawn");
    world.start_agent();
    assert_eq!(ended(&world, second).await["state"], "done");
    world.status_says("paused", WAIT).await;
    let told = until(&world, &["tables"], |told| state_of(told, "u") == "PAUSED").await;
    assert_eq!(state_of(&told, "t"), "STREAMING", "the withdrawn one was not carried out");
    let folder = world.cloud.folder.path();
    let words = ["server", "--config", "server.toml", "fleet", "withdraw", &second.to_string()];
    let refused = process::command(folder, &words).unwrap_err();
    assert!(refused.message.contains("ORDER_SENT"), "{refused}");
}

#[tokio::test]
async fn who_only_reads_does_not_order_and_another_tenant_sees_nothing() {
    let (_folder, world) = world(5).await;
    until(&world, &["agents"], |told| told.len() == 1).await;
    world.cloud.command(&["admin", "add", "eve"]);
    world.cloud.command(&["tenant", "create", "Other"]);
    let token = |role: &str, tenant: &str| {
        let name = format!("{role}-{tenant}");
        let words = [
            "admin", "token", "create", "eve", "--name", &name, "--role", role, "--tenant", tenant,
        ];
        world.cloud.command(&words).lines().next().unwrap().to_owned()
    };
    let mine = world.cloud.tenant.clone();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let base = format!("{}/api/admin/v1/tenants", world.cloud.registry_base());
    let place = format!("{mine}/environments/production/erps/LOGIX/orders");
    let reload = json!({ "verb": "RELOAD" }).to_string();
    let reader = token("read-only", &mine);
    let listed = client.get(format!("{base}/{mine}/agents")).bearer_auth(&reader);
    let listed: Value = listed.send().await.unwrap().json().await.unwrap();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{listed}");
    let post = |token: &str| {
        client.post(format!("{base}/{place}")).bearer_auth(token).body(reload.clone())
    };
    assert_eq!(post(&reader).send().await.unwrap().status().as_u16(), 403);
    let stranger = token("operator", "Other");
    assert_eq!(post(&stranger).send().await.unwrap().status().as_u16(), 403);
    let theirs = client.get(format!("{base}/Other/agents")).bearer_auth(&stranger);
    let theirs: Value = theirs.send().await.unwrap().json().await.unwrap();
    assert_eq!(theirs["items"], json!([]));
    let mine = client.get(format!("{base}/{mine}/agents")).bearer_auth(&stranger);
    assert_eq!(mine.send().await.unwrap().status().as_u16(), 403);
    assert!(
        fleet(&world, &["orders", "--erp", "LOGIX", "--tenant", &world.cloud.tenant]).is_empty()
    );
    let operator = token("operator", &world.cloud.tenant);
    assert_eq!(post(&operator).send().await.unwrap().status().as_u16(), 202);
}
