//! Sealed secrets and the detailed log on the whole: values are used and are nowhere to be read.

use std::{fs, time::Duration};

use sim::{process, servers};

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    files::holding,
    world::{Plan, World},
};

const SLOW: Duration = Duration::from_secs(60);

/// stdout and stderr of a command beside the agent.
fn agent(world: &World, words: &[&str], stdin: &str) -> String {
    let mut all = vec!["--lang", "en", "agent"];
    all.extend(words);
    all.extend(["--config", "agent.toml"]);
    let done = process::answer(world.cloud.folder.path(), &all, stdin).unwrap();
    [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat()
}

/// The detailed log, once it holds all of these: the end of a batch is told some time after its rows are staged.
async fn recorded(world: &World, all: &[&str]) -> String {
    let waited = async {
        loop {
            let detail = agent(world, &["logs", "show", "--lines", "100000"], "");
            if all.iter().all(|words| detail.contains(words)) {
                return detail;
            }
            runtime::clock::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(SLOW, waited).await.expect("the detailed log tells it")
}

#[tokio::test]
async fn sealed_secrets_open_database_and_cloud_and_no_file_log_status_or_dump_holds_them() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(
        "CREATE TABLE t (k text PRIMARY KEY, v text, n numeric, changed_at timestamptz DEFAULT now());
         INSERT INTO t SELECT 'canary-key-' || g, 'canary-value-' || g, g FROM generate_series(1, 300) g",
    )
    .await
    .unwrap();
    let password = "canary-pass/wörd@1";
    let source = url.replace("postgres@", "postgres:{sealed:erp}@");
    assert_ne!(source, url);
    let cloud = Cloud::start("LOGIX", &["t"]).await;
    let secret = cloud.secret.clone();
    let plan = Plan::new(&source, &["t"])
        .stamp("t", "changed_at")
        .sealed("erp", password)
        .sealed("cloud", &secret)
        .more("[log]\nlevel = 'trace'\n");
    let mut world = World::over(cloud, plan, erp);
    world.staged_reaches("SELECT count(*) FROM t", 300, SLOW).await;

    let on = agent(
        &world,
        &["logs", "on", "--level", "trace", "--for", "10m", "--max-size", "20MB"],
        "",
    );
    assert!(on.contains("is on until"), "{on}");
    world.erp.run("UPDATE t SET v = 'canary-new', changed_at = now() WHERE n < 9").await.unwrap();
    let changed = "SELECT count(*) FROM t WHERE v = 'canary-new'";
    world.staged_reaches(changed, 8, SLOW).await;
    world.cloud.kill();
    world.status_says("\"phase\":\"UNREACHABLE\"", SLOW).await;
    world.cloud.run().await;
    world.status_says("\"phase\":\"SENDING\"", SLOW).await;
    let detail = recorded(&world, &["page of changes read", "batch complete"]).await;

    // Beside the running agent.
    let listed = agent(&world, &["secret", "list"], "");
    assert!(
        listed.contains("cloud ") && listed.contains("erp ") && listed.contains("20"),
        "{listed}"
    );
    let dump = agent(&world, &["run", "--dump-config"], "");
    assert!(dump.contains("postgres:{sealed:erp}@") && dump.contains("{sealed:cloud}"), "{dump}");
    let check = agent(&world, &["check", "--json"], "");
    assert!(check.contains("\"table\":\"t\""), "{check}");
    let metrics = reqwest::get(format!("{}/metrics", world.cloud.registry_base()));
    let shown = [
        ("detail", detail),
        ("list", listed),
        ("dump", dump),
        ("check", check),
        ("status", world.agent_status()),
        ("status in words", agent(&world, &["status"], "")),
        ("metrics", metrics.await.unwrap().text().await.unwrap()),
    ];
    for (place, text) in &shown {
        for canary in ["canary-", secret.as_str()] {
            assert!(!text.contains(canary), "{place} holds {canary}: {text}");
        }
    }
    // Values of rows lie in the journal and in staging, as they must; in no log.
    let folder = world.cloud.folder.path().to_owned();
    for log in ["agent.log", "agent-data/detail.log"] {
        let text = fs::read_to_string(folder.join(log)).unwrap();
        assert!(!text.is_empty() && !text.contains("canary-"), "{log}");
    }
    for canary in ["canary-pass", secret.as_str()] {
        assert_eq!(holding(&folder, canary), Vec::<String>::new());
    }
    assert!(!holding(&folder, "{sealed:erp}").is_empty(), "the test looks where secrets would be");

    // A secret that is gone is missed with the next start, by name.
    agent(&world, &["secret", "remove", "cloud"], "");
    world.erp.run("UPDATE t SET v = 'canary-last', changed_at = now() WHERE n < 3").await.unwrap();
    world.staged_reaches("SELECT count(*) FROM t WHERE v = 'canary-last'", 2, SLOW).await;
    world.stop_agent().await;
    let refused = agent(&world, &["run"], "");
    let words = ["CONFIG_INVALID", "cloud.client_secret", "no secret cloud", "secrets.json"];
    assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
    agent(&world, &["secret", "set", "cloud"], &format!("{secret}\n"));
    fs::write(folder.join("agent-data/secrets.key"), "0".repeat(64)).unwrap();
    let refused = agent(&world, &["run"], "");
    let words = ["CONFIG_INVALID", "source.url", "sealed secret erp", "another key", "secrets.key"];
    assert!(words.iter().all(|word| refused.contains(word)), "{refused}");
}
