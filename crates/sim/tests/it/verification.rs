//! `malote verify` on the whole: real processes, a staging file that somebody changed by hand, an ERP that somebody changed
//! by SQL; what is found, what is mended, what waits for a person.
//!
//! Promises: whether staging equals the ERP is read by the tests' own comparison, never by the one under test.

use std::time::Duration;

use protocol::key::KeyBytes;
use runtime::{
    clock::{self, Mono},
    exit,
};
use rusqlite::Connection;
use serde_json::{Value, json};
use sim::{process, servers};

use crate::whole::{
    cloud::Cloud,
    erp::Erp,
    world::{Plan, World},
};

const QUICK: Duration = Duration::from_secs(60);
const SLOW: Duration = Duration::from_secs(150);

/// A table with a stamp and one without.
const ERP: &str = "
CREATE TABLE t (id integer PRIMARY KEY, v text, changed_at timestamp);
CREATE TABLE u (id integer PRIMARY KEY, v text);";

fn rows(count: u32) -> String {
    let row = |id: u32| format!("({id}, 'v{id}', '2026-01-01 00:00:00')");
    let of_t: Vec<String> = (1..=count).map(row).collect();
    let of_u: Vec<String> = (1..=count).map(|id| format!("({id}, 'v{id}')")).collect();
    format!(
        "{ERP} INSERT INTO t VALUES {}; INSERT INTO u VALUES {};",
        of_t.join(", "),
        of_u.join(", ")
    )
}

async fn sqlite(count: u32, plan: impl FnOnce(Plan) -> Plan) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    erp.run(&rows(count)).await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let new = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at");
    (folder, World::start(plan(new), erp).await)
}

async fn postgres(count: u32, plan: impl FnOnce(Plan) -> Plan) -> World {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(&rows(count)).await.unwrap();
    let new = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at");
    World::start(plan(new), erp).await
}

impl World {
    /// Runs `malote verify …`: its exit code, and what it found of each table.
    fn verify(&self, words: &[&str]) -> (u8, Vec<Value>, String) {
        let mut all = vec!["--lang", "en", "verify", "--config", "agent.toml", "--json"];
        all.extend(words);
        let done = process::answer(self.cloud.folder.path(), &all, "").unwrap();
        let told: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        let found = told["verifications"].as_array().cloned().unwrap_or_default();
        let code = u8::try_from(done.status.code().unwrap()).unwrap();
        (code, found, String::from_utf8_lossy(&done.stderr).into_owned())
    }

    /// Verifies one table: exit code, then missing, extra, differing; `null` where it was not verified.
    fn found(&self, words: &[&str]) -> (u8, Value, Value) {
        let (code, found, told) = self.verify(words);
        assert_eq!(found.len(), 1, "{told}\n{}", self.logs());
        let outcome = &found[0]["outcome"];
        let kinds = |of: &Value| json!([of["missing"], of["extra"], of["differing"]]);
        assert!(!outcome.is_null(), "{}\n{}", found[0], self.logs());
        (code, kinds(outcome), kinds(&outcome["left"]))
    }

    /// Waits until all tables are captured as they should be.
    async fn streams(&mut self) {
        let begun = Mono::now();
        loop {
            let status: Value = serde_json::from_str(&self.agent_status()).unwrap_or_default();
            let tables = status["tables"].as_array().cloned().unwrap_or_default();
            if !tables.is_empty() && tables.iter().all(|table| table["state"] == "STREAMING") {
                return;
            }
            assert!(begun.elapsed() < QUICK, "{status}\n{}", self.logs());
            clock::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Changes the staged rows behind Malote's back.
    pub(crate) fn damage(&self, sql: &str) {
        let staging = Connection::open(self.cloud.staging()).unwrap();
        staging.busy_timeout(Duration::from_secs(20)).unwrap();
        staging.execute_batch(sql).unwrap();
    }

    /// Stages copies of row 1 under keys that the ERP does not have.
    fn add_staged(&self, table: &str, ids: std::ops::Range<u32>) {
        let mut staging = Connection::open(self.cloud.staging()).unwrap();
        staging.busy_timeout(Duration::from_secs(20)).unwrap();
        let sql = format!(
            "INSERT INTO {table} (_key, _seq, _deleted, _batch, _message, id, v)
             SELECT ?1, _seq, 0, _batch, _message, ?2, v FROM {table} WHERE id = 1"
        );
        let all = staging.transaction().unwrap();
        for id in ids {
            let key = KeyBytes::of([id.to_string().as_str()]);
            assert_eq!(all.execute(&sql, rusqlite::params![key.0, id]).unwrap(), 1);
        }
        all.commit().unwrap();
    }

    async fn metrics(&self) -> String {
        let told = self.cloud.folder.path().join("agent-data/admin.address");
        let address = std::fs::read_to_string(told).unwrap();
        reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap()
    }
}

/// One staged row is changed, one taken out, one added.
async fn damage_is_found_told_and_mended(mut world: World) {
    world.equal(QUICK).await;
    world.streams().await;
    let metrics = world.metrics().await;
    for table in ["t", "u"] {
        let never = format!("malote_verify_timestamp_seconds{{table=\"{table}\"}} 0");
        assert!(metrics.contains(&never), "{metrics}");
    }
    let (code, found, told) = world.verify(&[]);
    assert_eq!((code, found.len()), (exit::OK, 2), "{told} {found:?}\n{}", world.logs());
    assert!(found.iter().all(|one| one["outcome"]["rows"] == 500), "{found:?}");
    for table in ["t", "u"] {
        world.damage(&format!(
            "UPDATE {table} SET v = 'by hand' WHERE id = 7; DELETE FROM {table} WHERE id = 8"
        ));
        world.add_staged(table, 9_000..9_001);
    }
    let (code, found, _) = world.verify(&[]);
    assert_eq!(code, exit::DIFFERENT);
    for one in &found {
        let outcome = &one["outcome"];
        let kinds = (&outcome["missing"], &outcome["extra"], &outcome["differing"]);
        assert_eq!(kinds, (&json!(1), &json!(1), &json!(1)), "{one}");
    }
    let status = world.agent_status();
    assert_eq!(status.matches("DIFFERENCES_FOUND").count(), 2, "{status}");
    let metrics = world.metrics().await;
    assert!(metrics.contains("malote_verify_differences{table=\"t\"} 3"), "{metrics}");
    let (code, found, _) = world.found(&["t", "--from", "7", "--to", "8"]);
    assert_eq!((code, found), (exit::DIFFERENT, json!([0, 0, 1])), "a part");
    let loads = world.ledger_messages("t", "is_base_load = 1");
    let (code, found, left) = world.found(&["t", "--repair", "--dry-run"]);
    assert_eq!((code, found, left), (exit::DIFFERENT, json!([1, 1, 1]), json!([null, null, null])));
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'by hand'"), 1);
    for table in ["t", "u"] {
        let (code, found, left) = world.found(&[table, "--repair"]);
        assert_eq!((code, found, left), (exit::OK, json!([1, 1, 1]), json!([0, 0, 0])), "{table}");
    }
    world.equal(QUICK).await;
    assert_eq!(world.ledger_messages("t", "is_base_load = 1"), loads, "it was loaded again");
    let (code, found, _) = world.verify(&[]);
    assert_eq!(code, exit::OK, "{found:?}");
    let status = world.agent_status();
    assert!(!status.contains("DIFFERENCES_FOUND"), "{status}");
    let metrics = world.metrics().await;
    assert!(metrics.contains("malote_verify_differences{table=\"t\"} 0"), "{metrics}");
    assert!(metrics.contains("malote_verify_timestamp_seconds{table=\"u\"}"), "{metrics}");
}

#[tokio::test]
async fn what_was_changed_in_staging_behind_malotes_back_is_found_and_mended_with_sqlite() {
    let (_folder, world) = sqlite(500, |plan| plan).await;
    damage_is_found_told_and_mended(world).await;
}

#[tokio::test]
async fn what_was_changed_in_staging_behind_malotes_back_is_found_and_mended_with_postgresql() {
    damage_is_found_told_and_mended(postgres(500, |plan| plan.no_scans()).await).await;
}

#[tokio::test]
async fn f12_rows_changed_while_the_trigger_of_the_stamp_was_off_are_found_and_mended() {
    let mut world = postgres(300, |plan| plan.no_scans()).await;
    world
        .erp
        .run(
            "CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN NEW.changed_at = now() AT TIME ZONE 'UTC'; RETURN NEW; END $$;
             CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();",
        )
        .await
        .unwrap();
    world.equal(QUICK).await;
    world.streams().await;
    world
        .erp
        .run(
            "ALTER TABLE t DISABLE TRIGGER stamp;
             UPDATE t SET v = 'by direct SQL' WHERE id <= 20;
             INSERT INTO t VALUES (5001, 'late', '2020-01-01'); DELETE FROM t WHERE id = 100;
             ALTER TABLE t ENABLE TRIGGER stamp",
        )
        .await
        .unwrap();
    // The row that was deleted is found, and deleted, by the scan that the verification waits for.
    let (code, found, _) = world.found(&["t"]);
    assert_eq!((code, found), (exit::DIFFERENT, json!([1, 0, 20])));
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE v = 'by direct SQL'"), 0);
    let (code, _, left) = world.found(&["t", "--repair"]);
    assert_eq!((code, left), (exit::OK, json!([0, 0, 0])));
    world.equal(QUICK).await;
}

#[tokio::test]
async fn rows_that_change_all_the_while_are_no_differences() {
    let mut world = postgres(200, |plan| plan).await;
    world.equal(QUICK).await;
    world.streams().await;
    let Erp::Postgres(client) = &world.erp else { panic!("PostgreSQL") };
    client
        .batch_execute(
            "CREATE PROCEDURE busy() LANGUAGE plpgsql AS $$ BEGIN
                 FOR turn IN 1..600 LOOP
                     UPDATE t SET v = 'turn ' || turn, changed_at = clock_timestamp() AT TIME ZONE 'UTC' WHERE id <= 50;
                     UPDATE u SET v = 'turn ' || turn WHERE id <= 50;
                     COMMIT; PERFORM pg_sleep(0.05);
                 END LOOP; END $$",
        )
        .await
        .unwrap();
    let busy = client.batch_execute("CALL busy()");
    let folder = world.cloud.folder.path().to_owned();
    let verifying = runtime::task::blocking(move || {
        let words = ["verify", "--config", "agent.toml", "--json"];
        process::answer(&folder, &words, "").unwrap()
    });
    let (called, done) = tokio::join!(busy, verifying);
    called.unwrap();
    let done = done.unwrap();
    let told = String::from_utf8_lossy(&done.stdout);
    assert_eq!(done.status.code(), Some(i32::from(exit::OK)), "{told}\n{}", world.logs());
    world.equal(QUICK).await;
}

#[tokio::test]
async fn a_filter_explains_what_is_missing_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    erp.run(&rows(300)).await.unwrap();
    let cloud = Cloud::start("LOGIX", &["t", "u"]).await;
    for table in ["t", "u"] {
        cloud.command(&["entity", "set-filter", table, &format!("{table}.id > 100")]);
    }
    let url = format!("sqlite:{}", path.display());
    let plan = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at");
    let mut world = World::over(cloud, plan, erp);
    world.staged_reaches("SELECT count(*) FROM u", 200, QUICK).await;
    world.staged_reaches("SELECT count(*) FROM t", 200, QUICK).await;
    // A change is sent whatever the filter says.
    let now = "strftime('%Y-%m-%d %H:%M:%S', 'now')";
    world.erp.run(&format!("UPDATE t SET v = 'x', changed_at = {now} WHERE id = 5")).await.unwrap();
    world.staged_has("t", "5", QUICK).await;
    world.streams().await;
    let (code, found, told) = world.verify(&[]);
    assert_eq!(code, exit::OK, "{told} {found:?}\n{}", world.logs());
    let compared: Vec<_> = found.iter().map(|one| one["outcome"]["rows"].clone()).collect();
    assert_eq!(compared, [201, 200]);
    world.damage("UPDATE t SET v = 'y' WHERE id = 5; DELETE FROM t WHERE id = 200");
    let (code, found, left) = world.found(&["t", "--repair"]);
    assert_eq!((code, found, left), (exit::OK, json!([1, 0, 1]), json!([0, 0, 0])));
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE id = 5 AND v = 'x'"), 1);
    assert_eq!(world.staged_count("SELECT count(*) FROM t WHERE id < 101"), 1);
}

#[tokio::test]
async fn a_masked_column_is_compared_as_it_travels_and_no_value_is_told() {
    let masks = "[tables.u]\nmask = { v = 'hash' }\n[log]\nlevel = 'debug'\n";
    let (_folder, mut world) = sqlite(200, |plan| plan.more(masks)).await;
    world.staged_reaches("SELECT count(*) FROM u", 200, QUICK).await;
    world.streams().await;
    let (code, found, _) = world.found(&["u"]);
    assert_eq!((code, found), (exit::OK, json!([0, 0, 0])));
    world.damage("UPDATE u SET v = 'canary-value' WHERE id = 9");
    let (code, found, left) = world.found(&["u", "--repair"]);
    assert_eq!((code, found, left), (exit::OK, json!([0, 0, 1]), json!([0, 0, 0])));
    assert_eq!(world.staged_count("SELECT count(*) FROM u WHERE length(v) = 32"), 200);
    let logged = std::fs::read_to_string(world.agent_log()).unwrap();
    assert!(logged.contains("verified: equal"), "{logged}");
    assert!(!logged.contains("canary") && !logged.contains("v9"), "{logged}");
}

#[tokio::test]
async fn f29_deletes_of_a_repair_above_the_cap_wait_for_a_person() {
    let (_folder, mut world) = sqlite(300, |plan| plan).await;
    world.equal(QUICK).await;
    world.streams().await;
    world.add_staged("u", 9_000..9_400);
    let (code, found, left) = world.found(&["u", "--repair"]);
    assert_eq!((code, found, left), (exit::DIFFERENT, json!([0, 400, 0]), json!([0, 400, 0])));
    let status = world.agent_status();
    assert!(status.contains("DELETES_CAPPED") && status.contains("DIFFERENCES_FOUND"), "{status}");
    assert_eq!(world.staged_count("SELECT count(*) FROM u WHERE _deleted = 0"), 700);
    let words = ["agent", "deletes", "confirm", "u", "--rows", "400", "--config", "agent.toml"];
    process::command(world.cloud.folder.path(), &words).unwrap();
    world.equal(QUICK).await;
    let (code, found, _) = world.found(&["u"]);
    assert_eq!((code, found), (exit::OK, json!([0, 0, 0])));
}

#[tokio::test]
async fn a_table_that_cannot_be_verified_says_why_and_the_others_are() {
    let (_folder, mut world) = sqlite(100, |plan| plan).await;
    world.equal(QUICK).await;
    world.streams().await;
    let (code, found, told) = world.verify(&["t", "nowhere"]);
    assert_eq!((code, found.len()), (exit::FAILED, 0));
    assert!(told.contains("NOT_FOUND") && told.contains("nowhere"), "{told}");
    process::command(world.cloud.folder.path(), &["agent", "pause", "t", "--config", "agent.toml"])
        .unwrap();
    let (code, found, _) = world.verify(&[]);
    assert_eq!(code, exit::FAILED);
    let of = |table: &str| found.iter().find(|one| one["table"] == table).unwrap();
    assert_eq!(of("t")["code"], "TABLE_NOT_READY");
    assert!(of("t")["outcome"].is_null());
    assert_eq!(of("u")["outcome"]["rows"], 100);
    let (code, out, _) = {
        let words = ["--lang", "pt", "verify", "u", "--no-wait", "--config", "agent.toml"];
        let done = process::answer(world.cloud.folder.path(), &words, "").unwrap();
        let [out, err] = [done.stdout, done.stderr].map(|b| String::from_utf8(b).unwrap());
        (done.status.code(), err, out)
    };
    assert_eq!((code, out.trim()), (Some(0), "pedido feito: 1 tabela"));
}

#[tokio::test]
async fn without_the_cloud_a_verification_ends_with_a_code_and_no_number_and_the_next_one_is_whole()
{
    let (_folder, mut world) = sqlite(100, |plan| plan).await;
    world.equal(QUICK).await;
    world.streams().await;
    world.damage("DELETE FROM u WHERE id = 8");
    let (code, found, _) = world.found(&["u"]);
    assert_eq!((code, found), (exit::DIFFERENT, json!([1, 0, 0])));
    world.cloud.kill();
    let (code, found, _) = world.verify(&["u", "--repair"]);
    assert_eq!(code, exit::FAILED, "{found:?}");
    assert_eq!(found[0]["code"], "CLOUD_UNREACHABLE", "{found:?}");
    assert!(found[0]["outcome"].is_null(), "{found:?}");
    world.kill_agent();
    world.cloud.run().await;
    world.start_agent();
    world.status_says("\"SENDING\"", SLOW).await;
    let metrics = world.metrics().await;
    let stands = "malote_verify_differences{table=\"u\"} 1";
    assert!(metrics.contains(stands), "one that failed says nothing of the table\n{metrics}");
    let (code, found, left) = world.found(&["u", "--repair"]);
    assert_eq!((code, found, left), (exit::OK, json!([1, 0, 0]), json!([0, 0, 0])));
    world.equal(QUICK).await;
}

#[tokio::test]
async fn a_verification_that_kill_9_cut_short_runs_again_and_what_it_mends_is_mended() {
    let (_folder, mut world) = sqlite(400, |plan| plan).await;
    world.equal(QUICK).await;
    world.streams().await;
    for round in 0..3 {
        world.damage(&format!(
            "UPDATE u SET v = 'by hand' WHERE id % 4 = {round}; DELETE FROM t WHERE id % 5 = {round}"
        ));
        let (code, ordered, told) = world.verify(&["--repair", "--no-wait"]);
        assert_eq!((code, ordered.len()), (exit::OK, 2), "{told}");
        let begun = Mono::now();
        while !world.agent_verifies().await {
            assert!(begun.elapsed() < QUICK, "{}", world.logs());
            clock::sleep(Duration::from_millis(10 + 150 * round)).await;
        }
        world.kill_agent();
        world.start_agent();
        world.equal(SLOW).await;
        for one in &ordered {
            world.verified(one["id"].as_i64().unwrap()).await;
        }
    }
    let (code, found, told) = world.verify(&[]);
    assert_eq!(code, exit::OK, "{told} {found:?}");
}

#[tokio::test]
async fn at_its_time_of_the_day_every_table_is_verified_by_itself() {
    // The minute behind the next one: the agent runs by then.
    let at = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(90);
    let at = at.strftime("%H:%M").to_string();
    let lines = format!("[verify]\nat = '{at}'\nspread_minutes = 0\n");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("erp.sqlite");
    let erp = Erp::sqlite(&path);
    erp.run(&rows(50)).await.unwrap();
    let url = format!("sqlite:{}", path.display());
    let plan = Plan::new(&url, &["t", "u"]).stamp("t", "changed_at").more(&lines);
    let cloud = Cloud::start("LOGIX", &["t", "u"]).await;
    let mut world = World::over(cloud, plan, erp);
    world.kill_agent();
    world.variables = vec![("MALOTE_AGENT_CAPTURE__ZONE".to_owned(), "UTC".to_owned())];
    world.start_agent();
    world.equal(QUICK).await;
    world.damage("DELETE FROM u WHERE id = 8");
    let begun = Mono::now();
    loop {
        let all = world.verifications().await;
        let over = all.iter().filter(|one| one["stage"] == "DONE" && one["origin"] == "SCHEDULE");
        let mut over: Vec<(String, u64)> = over
            .map(|one| {
                let missing = one["outcome"]["missing"].as_u64().unwrap();
                (one["table"].as_str().unwrap().to_owned(), missing)
            })
            .collect();
        over.sort();
        if over.len() == 2 {
            assert_eq!(over, [("t".to_owned(), 0), ("u".to_owned(), 1)]);
            break;
        }
        assert!(begun.elapsed() < SLOW, "{all:?}\n{}", world.logs());
        clock::sleep(Duration::from_millis(200)).await;
    }
    assert!(world.agent_status().contains("DIFFERENCES_FOUND"), "{}", world.agent_status());
}

impl World {
    /// The newest verifications, as the agent's door tells them.
    async fn verifications(&self) -> Vec<Value> {
        let folder = self.cloud.folder.path().join("agent-data");
        let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let (address, token) = (read("admin.address"), read("admin.token"));
        let url = format!("http://{}/v1/verify", address.trim());
        // Nobody answers while the agent starts.
        let Ok(answer) = reqwest::Client::new().get(url).bearer_auth(token.trim()).send().await
        else {
            return Vec::new();
        };
        serde_json::from_slice(&answer.bytes().await.unwrap_or_default()).unwrap_or_default()
    }

    async fn agent_verifies(&self) -> bool {
        self.verifications().await.iter().any(|one| one["stage"] == "RUNNING")
    }

    /// Waits until that one is done, and nothing is left.
    async fn verified(&self, id: i64) {
        let begun = Mono::now();
        loop {
            let all = self.verifications().await;
            let one = all.iter().find(|one| one["id"] == id);
            if let Some(one) = one.filter(|one| one["stage"] == "DONE") {
                let left = if one["outcome"]["left"].is_null() {
                    &one["outcome"]
                } else {
                    &one["outcome"]["left"]
                };
                assert_eq!((&left["missing"], &left["differing"]), (&json!(0), &json!(0)), "{one}");
                return;
            }
            assert!(begun.elapsed() < SLOW, "{all:?}\n{}", self.logs());
            clock::sleep(Duration::from_millis(100)).await;
        }
    }
}
