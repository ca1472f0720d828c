//! Doctor: what the command finds beside real processes, and when something of them is broken on purpose.

use std::{fs, time::Duration};

use serde_json::Value;
use sim::{process, servers};

use crate::whole::{
    erp::Erp,
    world::{Plan, World},
};

const WAIT: Duration = Duration::from_secs(60);

async fn world() -> World {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, v text, changed_at timestamptz DEFAULT now());
         INSERT INTO t SELECT g, 'x', now() - interval '1 day' FROM generate_series(1, 500) g;
         INSERT INTO t VALUES (501, 'x', NULL);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql
             AS 'BEGIN NEW.changed_at := now(); RETURN NEW; END';
         CREATE TRIGGER touch_t BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch();
         ALTER TABLE t DISABLE TRIGGER touch_t;
         ANALYZE t",
    )
    .await
    .unwrap();
    let mut world = World::start(Plan::new(&url, &["t"]).stamp("t", "changed_at"), erp).await;
    world.equal(WAIT).await;
    world
}

/// Exit code, what was found, and everything that was printed.
pub(crate) fn doctor(
    world: &World,
    config: &str,
    more: &[&str],
) -> (Option<i32>, Vec<Value>, String) {
    let mut words = vec!["doctor", "--config", config, "--json"];
    words.extend(more);
    let done = process::answer(world.cloud.folder.path(), &words, "").unwrap();
    let [out, err] = [&done.stdout, &done.stderr].map(|text| String::from_utf8_lossy(text));
    let told: Value = serde_json::from_str(&out).unwrap_or_default();
    let findings = told["findings"].as_array().cloned().unwrap_or_default();
    (done.status.code(), findings, format!("{out}{err}"))
}

pub(crate) fn of<'a>(findings: &'a [Value], topic: &str, grade: &str) -> Vec<&'a Value> {
    let is = |found: &&Value| found["topic"] == topic && found["grade"] == grade;
    findings.iter().filter(is).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn beside_a_running_agent_and_server_all_is_well_and_what_is_weak_is_told() {
    let world = world().await;
    let (code, findings, all) = doctor(&world, "agent.toml", &[]);
    assert_eq!(code, Some(0), "{all}");
    for topic in ["config", "data", "disk", "registry", "hosts", "clock", "token", "entities"] {
        assert!(!of(&findings, topic, "ok").is_empty(), "{topic}: {all}");
    }
    assert!(!of(&findings, "grpc", "ok").is_empty(), "{all}");
    let table =
        |words: &str| findings.iter().any(|found| found["found"]["en"].to_string().contains(words));
    assert!(table("has no index") && table("NULL in changed_at"), "{all}");
    assert!(table("trigger touch_t is switched off"), "{all}");
    assert!(table("may also change its rows"), "the superuser may write: {all}");
    assert!(table("about 501 rows"), "{all}");
    assert!(!all.contains(&world.cloud.secret), "a secret is shown");
    for found in findings.iter().filter(|found| found["grade"] == "warning") {
        assert!(found["todo"]["pt"].as_str().is_some_and(|todo| !todo.is_empty()), "{found}");
    }
    let (code, findings, all) = doctor(&world, "server.toml", &[]);
    assert_eq!(code, Some(0), "{all}");
    for topic in ["config", "store", "key", "port", "address", "signing-key"] {
        assert!(!of(&findings, topic, "ok").is_empty(), "{topic}: {all}");
    }
}

/// Changes the agent's configuration and looks for what that breaks.
fn broken(world: &World, config: &str, (from, to): (&str, &str), (topic, words): (&str, &str)) {
    assert!(config.contains(from), "{from} is not in the configuration");
    let file = world.cloud.folder.path().join("agent.toml");
    fs::write(file, config.replace(from, to)).unwrap();
    let (code, findings, all) = doctor(world, "agent.toml", &["--timeout", "5"]);
    let found = of(&findings, topic, "mend");
    let told = found.iter().any(|found| found.to_string().contains(words));
    assert!(code == Some(4) && told, "{topic} {words}: {all}");
    assert!(found.iter().all(|found| found["todo"]["en"].is_string()), "{all}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_broken_has_exit_code_4_a_code_and_what_to_do() {
    let mut world = world().await;
    let file = world.cloud.folder.path().join("agent.toml");
    let config = fs::read_to_string(&file).unwrap();
    let secret = world.cloud.secret.clone();
    for (from, to, topic, words) in [
        (secret.as_str(), "wrong", "token", "INVALID_CLIENT"),
        ("allow_private = true", "", "dns", "ADDRESS_REFUSED"),
        ("stamp = 'changed_at'", "stamp = 'none'", "table", "\"t\""),
        ("duty_percent = 100", "duty_percent = 0", "config", "duty_percent"),
        ("[capture]", "[capture]\nnonsense = 1", "config", "nonsense"),
        ("postgres://", "oracle://", "source", "SOURCE_UNSUPPORTED"),
        (
            "allow_private = true",
            "allow_private = true\nproxy = 'http://127.0.0.1:1'",
            "proxy",
            "CLOUD_UNREACHABLE",
        ),
        ("postgres://postgres@", "postgres://nobody_here@", "source", "SOURCE"),
    ] {
        broken(&world, &config, (from, to), (topic, words));
    }
    world.erp.run("CREATE ROLE blind LOGIN").await.unwrap();
    broken(
        &world,
        &config,
        ("postgres://postgres@", "postgres://blind@"),
        ("table", "SOURCE_RIGHTS"),
    );
    let same = ("[capture]", "[capture]");
    let changes = [
        ("ALTER TABLE t DROP CONSTRAINT t_pkey", "TABLE_WITHOUT_KEY"),
        (
            "ALTER TABLE t ALTER id DROP NOT NULL; UPDATE t SET id = NULL WHERE id = 1",
            "TABLE_WITHOUT_KEY",
        ),
    ];
    for (sql, words) in changes {
        world.erp.run(sql).await.unwrap();
        broken(&world, &config, same, ("table", words));
    }
    world.stop_agent().await;
    world.cloud.stop().await;
    broken(&world, &config, ("[capture]", "[capture]"), ("registry", "CLOUD_UNREACHABLE"));
    let (code, _, all) = doctor(&world, "agent.toml", &["--only", "data,disk"]);
    assert_eq!(code, Some(0), "only what is asked for is looked at: {all}");
    let (code, _, all) = doctor(&world, "agent.toml", &["--only", "nonsense"]);
    assert!(code == Some(1) && all.contains("BAD_REQUEST"), "{all}");
    let key = world.cloud.folder.path().join("data/master.key");
    fs::remove_file(key).unwrap();
    let (code, findings, all) = doctor(&world, "server.toml", &[]);
    assert!(code == Some(4) && !of(&findings, "key", "mend").is_empty(), "{all}");
}
