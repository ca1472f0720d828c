//! Canaries: marked secrets, keys and values never come out in logs, status, metrics or refusals, whatever goes wrong
//! (I18).

use std::{fs, time::Duration};

use runtime::clock;
use serde_json::{Value, json};
use sim::servers;

use crate::{
    tls::proxy::Tinyproxy,
    whole::{
        cloud::Cloud,
        erp::Erp,
        world::{Plan, World},
    },
};

const SLOW: Duration = Duration::from_secs(60);
/// Base64 of `ana:canary-proxy-password`, as the header has it.
const PROXY_LOGIN: &str = "YW5hOmNhbmFyeS1wcm94eS1wYXNzd29yZA";

/// Secrets of administration, as a person sets and uses them over REST, and what was answered meanwhile but where a
/// secret is told for once.
struct Desk<'a> {
    cloud: &'a Cloud,
    web: reqwest::Client,
    /// An administrator's.
    token: String,
    /// Secrets that the server made.
    made: Vec<String>,
    answers: Vec<(String, String)>,
}

impl<'a> Desk<'a> {
    fn new(cloud: &'a Cloud) -> Self {
        cloud.command(&["admin", "add", "ana"]);
        let words = ["admin", "token", "create", "ana", "--name", "t", "--role", "operator"];
        let made = cloud.command(&[&words[..], &["--json"]].concat());
        let made: Value = serde_json::from_str(&made).unwrap();
        let token = made["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("malote_"), "{token}");
        let secret = token.rsplit('_').next().unwrap().to_owned();
        let web = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { cloud, web, token, made: vec![secret], answers: Vec::new() }
    }

    async fn call(&self, method: &str, path: &str, bearer: &str, body: &str) -> (u16, String) {
        let url = format!("{}{path}", self.cloud.registry_base());
        let request = self.web.request(method.parse().unwrap(), url).bearer_auth(bearer);
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    fn of_tenant(&self, path: &str) -> String {
        format!("/api/admin/v1/tenants/{}{path}", self.cloud.tenant)
    }

    /// A call that is done; its answer is not kept, for it may tell a secret.
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, text) = self.call(method, &self.of_tenant(path), &self.token, &body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// A call whose answer may tell nothing.
    async fn told(&mut self, method: &str, path: &str, bearer: &str, body: &str, expected: u16) {
        let (status, text) = self.call(method, path, bearer, body).await;
        assert_eq!(status, expected, "{method} {path}: {text}");
        self.answers.push((format!("the answer to {method} {path}"), text));
    }

    /// Two webhooks, one of which nobody listens to, and one secret made anew; both are tried until they fail.
    async fn webhooks(&mut self) {
        let closed = format!("http://127.0.0.1:{}", servers::free_port().unwrap());
        // A server of ours takes no POST here.
        for (name, url) in [("closed", closed), ("refusing", self.cloud.registry_base())] {
            let url = format!("{url}/?code=canary-webhook-code");
            let hook =
                json!({ "name": name, "url": url, "events": ["batch.complete", "batch.stalled"] });
            let made = self.done("POST", "/webhooks", hook.clone()).await;
            self.made.push(made["secret"].as_str().unwrap().to_owned());
            let hooks = self.of_tenant("/webhooks");
            let token = self.token.clone();
            self.told("POST", &hooks, &token, &hook.to_string(), 409).await;
        }
        let rotated = self.done("POST", "/webhooks/closed/rotation", json!({})).await;
        self.made.push(rotated["secret"].as_str().unwrap().to_owned());
        for name in ["closed", "refusing"] {
            let test = self.done("POST", &format!("/webhooks/{name}/tests"), Value::Null).await;
            let path = format!("/webhooks/{name}/deliveries/{}", test["id"].as_str().unwrap());
            let begun = clock::Mono::now();
            while self.done("GET", &path, Value::Null).await["state"] != "dead" {
                assert!(begun.elapsed() < SLOW, "{}", self.cloud.log());
                clock::sleep(Duration::from_millis(50)).await;
            }
            let (path, token) = (self.of_tenant(&path), self.token.clone());
            self.told("GET", &path, &token, "", 200).await;
        }
    }

    /// Carol's token, which a sender gets, and a second credential of the sender, with which it calls.
    async fn credentials(&mut self) {
        let rotation = format!("/credentials/{}/rotation", self.cloud.client_id);
        let rotated = self.done("POST", &rotation, Value::Null).await;
        let word = |key: &str| rotated[key].as_str().unwrap().to_owned();
        let (client, secret) = (word("client"), word("clientSecret"));
        let sender = self.cloud.token_of(&client, &secret).await;
        self.made.extend([secret, sender.split('.').nth(1).unwrap().to_owned()]);
        let carol = json!({ "endpoint": "https://carol.example/api", "organization": "o",
            "carolTenant": "t", "connectorId": "c", "apiToken": "canary-carol-token" });
        self.done("PUT", "/carol-credentials", carol.clone()).await;
        let path = "/api/carol-definitions/v1/carolcredentials";
        let (_, got) = self.call("GET", path, &sender, "").await;
        assert!(got.contains("canary-carol-token"), "{got}");
        let (token, mut odd) = (self.token.clone(), carol);
        odd["connectorId"] = json!(7);
        let carol = self.of_tenant("/carol-credentials");
        self.told("PUT", &carol, &token, &odd.to_string(), 400).await;
        odd["connectorId"] = json!("c");
        odd["endpoint"] = json!("");
        self.told("PUT", &carol, &token, &odd.to_string(), 400).await;
        let rotation = self.of_tenant(&rotation);
        self.told("POST", &rotation, &token, "", 409).await;
        self.told("GET", path, &format!("{sender}x"), "", 401).await;
        self.told("GET", &carol, &format!("{token}x"), "", 401).await;
        self.told("GET", path, &token, "", 401).await;
        let form = format!(
            "grant_type=client_credentials&scope=authorization_api&client_id={client}&client_secret=canary-wrong-secret"
        );
        let url = self.cloud.service("rac-token").await;
        let request =
            self.web.post(url).header("content-type", "application/x-www-form-urlencoded");
        let answer = request.body(form).send().await.unwrap();
        assert!(answer.status().is_client_error());
        self.answers.push(("the refusal of a token".to_owned(), answer.text().await.unwrap()));
    }

    /// All of it, and what is told of it afterwards.
    async fn planted(mut self) -> (Vec<String>, Vec<(String, String)>) {
        self.webhooks().await;
        self.credentials().await;
        let token = self.token.clone();
        for path in ["/webhooks", "/carol-credentials", "/credentials", "/audit"] {
            let path = self.of_tenant(path);
            self.told("GET", &path, &token, "", 200).await;
        }
        (self.made, self.answers)
    }
}

/// Rows that travel, one that is too large to, one that changes, one that goes; and a column no filter may name.
const ROWS: &str = "CREATE TABLE t (k text PRIMARY KEY, v text, n numeric, changed_at timestamptz DEFAULT now());
     INSERT INTO t SELECT 'canary-key-' || g, 'canary-value-' || g, g FROM generate_series(1, 500) g;
     INSERT INTO t VALUES ('canary-key-big', repeat('canary-value-big ', 400000), 1);
     CREATE TABLE u (k text, v text); INSERT INTO u VALUES ('canary-key-u', 'canary-value-u')";

#[tokio::test]
async fn no_log_no_status_no_metric_and_no_refusal_holds_a_secret_a_key_or_a_value() {
    let url = servers::shared().await.unwrap();
    let erp = Erp::postgres(&url).await;
    erp.run(ROWS).await.unwrap();
    let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
    let tables = ["t", "u"];
    let more = "log = { level = 'trace' }";
    let cloud = Cloud::start_at(ports, more, ("LOGIX", &tables)).await;
    let (made, mut shown) = Desk::new(&cloud).planted().await;
    let source = url.replace("postgres@", "postgres:canary-database-password@");
    assert_ne!(source, url);
    let proxy = Tinyproxy::start("ana", "canary-proxy-password").await;
    let line = format!("proxy = 'http://ana:canary-proxy-password@127.0.0.1:{}'", proxy.port);
    let plan = Plan::new(&source, &tables)
        .cloud(cloud.registry(), &line)
        .stamp("t", "changed_at")
        .more("[log]\nlevel = 'trace'\n");
    let mut world = World::over(cloud, plan, erp);
    world.staged_reaches("SELECT count(*) FROM t", 500, SLOW).await;
    world.status_says("ROW_TOO_LARGE", SLOW).await;
    world.status_says("TABLE_WITHOUT_KEY", SLOW).await;
    assert!(proxy.tunnels("127.0.0.1", ports.1) > 0, "it went through the proxy");
    // A crash, a server that is away, a proxy that refuses the login, and a change after each.
    world.kill_agent();
    let file = world.cloud.folder.path().join("agent.toml");
    let config = fs::read_to_string(&file).unwrap();
    fs::write(&file, config.replace("proxy-password", "proxy-wrong")).unwrap();
    world.start_agent();
    let log = world.agent_log();
    let begun = clock::Mono::now();
    while !fs::read_to_string(&log).unwrap().contains("registry answered 401") {
        assert!(begun.elapsed() < SLOW, "{}", world.agent_status());
        clock::sleep(Duration::from_millis(50)).await;
    }
    world.kill_agent();
    fs::write(&file, config).unwrap();
    world.cloud.kill();
    let change = "UPDATE t SET v = 'canary-value-new', changed_at = now() WHERE n < 9";
    world.erp.run(change).await.unwrap();
    world.start_agent();
    world.cloud.run().await;
    world.erp.run("DELETE FROM t WHERE n = 7").await.unwrap();
    let changed = "SELECT count(*) FROM t WHERE v = 'canary-value-new' AND _deleted = 0";
    world.staged_reaches(changed, 7, SLOW).await;
    let token = world.cloud.token().await;
    let metrics = reqwest::get(format!("{}/metrics", world.cloud.registry_base()));
    let read = |name: &str| fs::read_to_string(world.cloud.folder.path().join(name)).unwrap();
    let admin = read("agent-data/admin.token");
    let mut add = |place: &str, text: String| shown.push((place.to_owned(), text));
    add("agent.log", read("agent.log"));
    add("server.log", read("server.log"));
    add("status", world.agent_status());
    add("metrics", metrics.await.unwrap().text().await.unwrap());
    let bearer_part = token.split('.').nth(1).unwrap();
    let mut canaries = vec!["canary-", PROXY_LOGIN, &world.cloud.secret, admin.trim(), bearer_part];
    canaries.extend(made.iter().map(String::as_str));
    let mut found = Vec::new();
    for (place, text) in &shown {
        assert!(!text.is_empty(), "{place} says nothing");
        for canary in &canaries {
            let line = text.lines().find(|line| line.contains(canary));
            found.extend(line.map(|line| format!("{place} holds {canary}: {line}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
