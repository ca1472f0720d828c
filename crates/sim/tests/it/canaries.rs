//! Canaries: marked secrets, keys and values never come out in logs, status or metrics, whatever goes wrong (I18).

use std::{fs, time::Duration};

use sim::servers;

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    world::{Plan, World},
};

const SLOW: Duration = Duration::from_secs(60);

#[tokio::test]
async fn no_log_no_status_and_no_metric_holds_a_secret_a_key_or_a_value() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    // Rows that travel, one that is too large to, one that changes, one that goes; and a column no filter may name.
    erp.run(
        "CREATE TABLE t (k text PRIMARY KEY, v text, n numeric, changed_at timestamptz DEFAULT now());
         INSERT INTO t SELECT 'canary-key-' || g, 'canary-value-' || g, g FROM generate_series(1, 500) g;
         INSERT INTO t VALUES ('canary-key-big', repeat('canary-value-big ', 400000), 1);
         CREATE TABLE u (k text, v text); INSERT INTO u VALUES ('canary-key-u', 'canary-value-u')",
    )
    .await
    .unwrap();
    let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
    let tables = ["t", "u"];
    let more = "log = { level = 'trace' }";
    let cloud = Cloud::start_at(ports, more, ("LOGIX", &tables)).await;
    let source = url.replace("postgres@", "postgres:canary-database-password@");
    assert_ne!(source, url);
    let plan =
        Plan::new(&source, &tables).stamp("t", "changed_at").more("[log]\nlevel = 'trace'\n");
    let mut world = World::over(cloud, plan, erp);
    world.staged_reaches("SELECT count(*) FROM t", 500, SLOW).await;
    world.status_says("ROW_TOO_LARGE", SLOW).await;
    world.status_says("TABLE_WITHOUT_KEY", SLOW).await;
    // A crash, a server that is away, and a change after each.
    world.kill_agent();
    world.cloud.kill();
    world
        .erp
        .run("UPDATE t SET v = 'canary-value-new', changed_at = now() WHERE n < 9")
        .await
        .unwrap();
    world.start_agent();
    world.cloud.run().await;
    world.erp.run("DELETE FROM t WHERE n = 7").await.unwrap();
    world
        .staged_reaches(
            "SELECT count(*) FROM t WHERE v = 'canary-value-new' AND _deleted = 0",
            7,
            SLOW,
        )
        .await;
    let folder = world.cloud.folder.path().to_owned();
    let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let token = world.cloud.token().await;
    let admin = read("agent-data/admin.token");
    let metrics = reqwest::get(format!("{}/metrics", world.cloud.registry_base()));
    let shown = [
        ("agent.log", read("agent.log")),
        ("server.log", read("server.log")),
        ("status", world.agent_status()),
        ("metrics", metrics.await.unwrap().text().await.unwrap()),
    ];
    let bearer_part = token.split('.').nth(1).unwrap();
    let canaries = ["canary-", &world.cloud.secret, admin.trim(), bearer_part];
    for (place, text) in &shown {
        assert!(!text.is_empty(), "{place} says nothing");
        for canary in canaries {
            let line = text.lines().find(|line| line.contains(canary));
            assert_eq!(line, None, "{place} holds {canary}");
        }
    }
}
