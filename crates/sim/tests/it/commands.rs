//! Commands as people give them over what is there: each does what it says, and says it.
//!
//! Promises: real processes, rows that a sender sent or an agent captured.

use std::{fs, time::Duration};

use protocol::Code;
use runtime::clock::{self, Mono};
use serde_json::Value;
use sim::process;

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    sender,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);

/// Records that a command of the server prints.
fn records(cloud: &Cloud, line: &str) -> Vec<Value> {
    let mut words: Vec<&str> = line.split(' ').collect();
    words.push("--json");
    let told = cloud.command(&words);
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// As [`records`], once there is one.
async fn first(cloud: &Cloud, line: &str) -> Value {
    let begun = Mono::now();
    loop {
        if let Some(one) = records(cloud, line).first() {
            return one.clone();
        }
        assert!(begun.elapsed() < WAIT, "{line} stays empty\n{}", cloud.log());
        clock::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_sender_sent_is_shown_down_to_its_rows_and_given_up_by_command() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    let batch = sender::staged_and_set_apart(&cloud).await;
    let shown = records(&cloud, &format!("batches show {batch}"));
    assert_eq!(
        (shown.len(), &shown[0]["table"], &shown[0]["rows"]),
        (1, &"FLAN".into(), &2.into())
    );
    let rows = records(&cloud, &format!("batches rows {batch} 1"));
    let cells: Vec<_> = rows.iter().map(|row| (&row["key"]["ID"], &row["columns"]["N"])).collect();
    assert_eq!(cells, [(&"1".into(), &"1".into()), (&"2".into(), &"x".into())], "{rows:?}");
    let apart = first(&cloud, "quarantine list").await;
    let schema = records(&cloud, "staging schema FLAN");
    let names: Vec<_> = schema.iter().filter_map(|column| column["column"].as_str()).collect();
    assert!(names.contains(&"ID") && names.contains(&"N"), "{schema:?}");
    let staged = records(&cloud, "staging rows FLAN");
    assert_eq!(staged.len(), 1, "{staged:?}");
    let id = apart["id"].as_str().unwrap();
    let shown = records(&cloud, &format!("quarantine show {id}"));
    assert!(shown[0]["key"]["ID"] == "2", "{shown:?}");
    cloud.command(&["quarantine", "discard", id, "--reason", "typed by hand", "--dry-run"]);
    assert_eq!(records(&cloud, "quarantine list").len(), 1, "a dry run leaves it");
    cloud.command(&["quarantine", "discard", id, "--reason", "typed by hand"]);
    assert!(records(&cloud, "quarantine list").is_empty());
    let told = records(&cloud, "audit list --search quarantine.discard");
    assert!(told[0].to_string().contains("typed by hand"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_credentials_lists_of_tables_and_a_connector_are_changed_by_command() {
    let cloud = Cloud::start("RM", &["FLAN"]).await;
    cloud.token().await;
    let keys = records(&cloud, "key list");
    assert_eq!(keys.len(), 1, "{keys:?}");
    records(&cloud, "key rotate");
    records(&cloud, "key rotate --at-once");
    assert_eq!(records(&cloud, "key list").len(), 3);
    let made = records(&cloud, &format!("credential rotate {}", cloud.client_id));
    let word = |key: &str| made[0][key].as_str().unwrap();
    assert_ne!((word("clientId"), word("clientSecret")), (&*cloud.client_id, &*cloud.secret));
    // Both are in force until the old one is revoked.
    cloud.token_of(word("clientId"), word("clientSecret")).await;
    cloud.token().await;

    let list = cloud.command(&["entity", "export"]);
    assert!(list.contains("FLAN"), "{list}");
    let more = format!("{list}\n[[table]]\nname = \"FCFO\"\n");
    fs::write(cloud.folder.path().join("tables.toml"), more).unwrap();
    let names = |cloud: &Cloud| records(cloud, "entity list").len();
    cloud.command(&["entity", "import", "tables.toml", "--dry-run"]);
    assert_eq!(names(&cloud), 1, "a dry run shares nothing");
    cloud.command(&["entity", "import", "tables.toml"]);
    assert_eq!(names(&cloud), 2);

    let line = "server carol set --endpoint https://acme.carol.example/api --organization acme \
                --carol-tenant tenant1 --connector 0123456789abcdef --config server.toml";
    let words: Vec<&str> = line.split_whitespace().collect();
    let done = process::answer(cloud.folder.path(), &words, "canary-carol").unwrap();
    assert!(done.status.success(), "{done:?}");
    let shown = records(&cloud, "carol show");
    assert!(shown[0].to_string().contains("acme") && !shown[0].to_string().contains("canary"));
    cloud.command(&["carol", "remove"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_s_records_are_read_and_cleaned_and_its_tables_halted_by_command() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    let schema = "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT, changed_at TEXT DEFAULT CURRENT_TIMESTAMP)";
    erp.run(schema).await.unwrap();
    erp.run("INSERT INTO t (id, v) VALUES (1, 'a'), (2, 'b')").await.unwrap();
    let plan = Plan::new(&format!("sqlite:{}", path.display()), &["t"]).stamp("t", "changed_at");
    let mut world = World::start(plan, erp).await;
    world.equal(WAIT).await;
    let told = |world: &World, words: &[&str]| world.agent_command(words);
    // What is staged may not be noted yet.
    let begun = Mono::now();
    let select = "SELECT count(*) AS n FROM GTOTVSAPPCONCEITOHST";
    while told(&world, &["sql", select, "--format", "csv"]).trim() == "n\n0" {
        assert!(begun.elapsed() < WAIT, "{}", world.logs());
        clock::sleep(Duration::from_millis(100)).await;
    }
    let all = told(&world, &["sql", "SELECT * FROM GDataShareRecords", "--limit", "1"]);
    assert!(all.lines().count() >= 1, "{all}");
    let refused = told(&world, &["sql", "DELETE FROM GDataShareRecords"]);
    assert!(refused.contains(Code::BadRequest.as_str()), "{refused}");
    let cleaned = told(&world, &["history", "clean", "--days", "0", "--dry-run", "--json"]);
    let cleaned: Value = serde_json::from_str(&cleaned).unwrap();
    let left = cleaned["left"].as_u64().unwrap();
    assert!(left >= 1, "the last success of each concept stays: {cleaned}");
    let cleaned = told(&world, &["history", "clean", "--days", "0", "--max-rows", "100", "--json"]);
    let cleaned: Value = serde_json::from_str(&cleaned).unwrap();
    assert!(cleaned["left"].as_u64().unwrap() >= 1, "{cleaned}");

    let paused = |world: &World| world.agent_status().contains("closing");
    told(&world, &["pause", "t", "--why", "closing"]);
    assert!(paused(&world), "{}", world.agent_status());
    told(&world, &["resume", "t"]);
    assert!(!paused(&world), "{}", world.agent_status());
    told(&world, &["pause", "--why", "closing"]);
    assert!(paused(&world));
    told(&world, &["resume", "--all"]);
    assert!(!paused(&world));
    world.erp.run("INSERT INTO t (id, v) VALUES (3, 'c')").await.unwrap();
    assert_eq!(world.equal(WAIT).await, 3);
    world.stop_agent().await;
}
