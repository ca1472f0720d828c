//! A fuzzer that is not ours (schemathesis) reads the server's own description and calls every operation of it, with
//! what the description allows and with what it forbids: no answer is a fault of the server's, each has a status and a
//! shape that the description names, and what has the wrong kind is refused.
//!
//! Promises: of whatever a path names there is one when it begins, so that calls go further than to "no such thing".

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    process::Command,
};

use serde_json::{Value, json};
use sim::servers;

use crate::whole::{cloud::Cloud, sender};

/// Operations that would end the fuzzer's own token.
const SELF_ENDING: &str = "DELETE .*/administrators/";
/// Of a hundred operations so many have to do at least once what they were asked for.
const DONE_PERCENT: usize = 60;
/// Alerts come within seconds.
const QUICK: &str = "[alerts]\nlook_seconds = 1\n";

/// A method and a path as the description writes it.
type Operation = (String, String);

/// A server with one of each thing, and an administrator.
struct Scene {
    cloud: Cloud,
    token: String,
    web: reqwest::Client,
    description: Value,
}

impl Scene {
    async fn start() -> Self {
        let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let mut cloud = Cloud::start_at(ports, QUICK, ("RM", &["FLAN", "FCFO"])).await;
        cloud.command(&["admin", "add", "ana"]);
        let words =
            ["admin", "token", "create", "ana", "--name", "fuzzer", "--role", "operator", "--json"];
        let made: Value = serde_json::from_str(&cloud.command(&words)).unwrap();
        let token = made["token"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
        cloud.ready().await;
        let web = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/api/admin/openapi.json", cloud.registry_base());
        let description = web.get(url).send().await.unwrap().json().await.unwrap();
        Self { cloud, token, web, description }
    }

    async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = format!("{}/api/admin/v1{path}", self.cloud.registry_base());
        let mut call = self.web.request(method.parse().unwrap(), url).bearer_auth(&self.token);
        if let Some(body) = body {
            call = call.body(body.to_string());
        }
        let answer = call.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    /// One of each thing, by the part of a path that names it.
    async fn furnish(&self) -> BTreeMap<&'static str, String> {
        let tenant = format!("/tenants/{}", self.cloud.tenant);
        let at = |path: &str| format!("{tenant}{path}");
        let word =
            |of: &Value, key: &str| of[key].as_str().unwrap_or_else(|| panic!("{of}")).to_owned();
        let app = self.done("POST", &at("/apps"), Some(json!({ "name": "app" }))).await;
        let of = json!({ "app": app["id"] });
        let credential = self.done("POST", &at("/credentials"), Some(of)).await;
        let url = format!("{}/healthz", self.cloud.registry_base());
        let hook = json!({ "name": "etl", "url": url, "events": ["batch.complete"] });
        let hook = self.done("POST", &at("/webhooks"), Some(hook)).await;
        let batch = sender::staged_and_set_apart(&self.cloud).await;
        let deliveries = at(&format!("/webhooks/{}/deliveries", word(&hook, "id")));
        let delivery = self.first(&deliveries).await;
        let environment = self.first(&at("/environments")).await;
        let installation = self.first(&at("/installations")).await;
        let place = at(&format!("/environments/{}/erps/RM", word(&environment, "id")));
        let row = self.first(&format!("{place}/quarantine")).await;
        let alert = self.first(&at("/alerts")).await;
        let order = json!({ "verb": "RELOAD", "table": "FLAN" });
        let order = self.done("POST", &format!("{place}/orders"), Some(order)).await;
        BTreeMap::from([
            ("tenant", self.cloud.tenant.clone()),
            ("environment", "production".to_owned()),
            ("erp", "RM".to_owned()),
            ("table", "FLAN".to_owned()),
            ("app", word(&app, "id")),
            ("client", word(&credential, "client")),
            ("installation", word(&installation, "id")),
            ("webhook", word(&hook, "id")),
            ("delivery", word(&delivery, "id")),
            ("batch", batch.to_string()),
            ("message", "1".to_owned()),
            ("row", word(&row, "id")),
            ("order", order["order"].to_string()),
            ("alert", word(&alert, "id")),
            ("administrator", "ana".to_owned()),
        ])
    }

    /// The first of a list, once there is one.
    async fn first(&self, path: &str) -> Value {
        for _ in 0..400 {
            let found = self.done("GET", path, None).await;
            match found["items"].get(0) {
                Some(one) => return one.clone(),
                None => runtime::clock::sleep(std::time::Duration::from_millis(50)).await,
            }
        }
        panic!("{path} stays empty");
    }

    /// Calls every operation but those left out, under that token; which of them did what they were asked for.
    async fn fuzz(&self, token: &str, more: &[&str]) -> (BTreeSet<Operation>, String) {
        let folder = self.cloud.folder.path().to_owned();
        let full = std::env::var_os("MALOTE_TEST_FULL").is_some();
        let mut fuzzer = Command::new(servers::cache_folder().join("venv/bin/schemathesis"));
        fuzzer
            .current_dir(&folder)
            .args(["--config-file", "schemathesis.toml", "--no-color", "run"])
            .arg(format!("{}/api/admin/openapi.json", self.cloud.registry_base()))
            .args(["--header", &format!("Authorization: Bearer {token}")])
            .args(["--checks", "all", "--phases", "coverage,fuzzing", "--warnings", "off"])
            // The description gives kinds, not every rule of a name: what has the kind alone may be refused.
            .args(["--exclude-checks", "positive_data_acceptance"])
            .args(["--continue-on-failure", "--report", "har", "--report-har-path", "calls.har"])
            .args(["--max-examples", if full { "60" } else { "8" }])
            .args(more);
        if !full {
            // The same calls each time; a longer run tells the seed of its own.
            fuzzer.args(["--seed", "1"]);
        }
        let done = runtime::task::blocking(move || fuzzer.output().unwrap()).await.unwrap();
        let told = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(done.status.success(), "{told}\n{}", String::from_utf8_lossy(&done.stderr));
        let calls = fs::read_to_string(folder.join("calls.har")).unwrap();
        (self.done_of(&serde_json::from_str(&calls).unwrap()), told)
    }

    /// Operations that the description names. The fuzzer takes a path with and without a slash at its end for one.
    fn operations(&self) -> BTreeSet<Operation> {
        let paths = self.description["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, of)| {
            let path = path.trim_end_matches('/').to_owned();
            of.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        });
        operations.collect()
    }

    /// Which operations answered a call with what was asked for.
    fn done_of(&self, calls: &Value) -> BTreeSet<Operation> {
        let operations = self.operations();
        let is = |path: &str, pattern: &str| {
            let (path, pattern): (Vec<_>, Vec<_>) =
                (path.split('/').collect(), pattern.split('/').collect());
            let same = |(part, of): (&&str, &&str)| of.starts_with('{') || part == of;
            path.len() == pattern.len() && path.iter().zip(&pattern).all(same)
        };
        let mut done = BTreeSet::new();
        for call in calls["log"]["entries"].as_array().unwrap() {
            let status = call["response"]["status"].as_u64().unwrap_or_default();
            let method = call["request"]["method"].as_str().unwrap();
            let url = reqwest::Url::parse(call["request"]["url"].as_str().unwrap()).unwrap();
            if (200..300).contains(&status) {
                let path = url.path().trim_end_matches('/');
                let fits =
                    operations.iter().filter(|(of, path_of)| of == method && is(path, path_of));
                // One with words of its own in the path, before one that takes any word there.
                done.extend(fits.max_by_key(|(_, path)| path.matches('{').count() == 0).cloned());
            }
        }
        done
    }
}

#[tokio::test]
async fn a_fuzzer_finds_no_fault_behind_the_description_of_the_interface() {
    let mut scene = Scene::start().await;
    let things = scene.furnish().await;
    let lines = things.iter().map(|(part, thing)| format!("\"path.{part}\" = '{thing}'\n"));
    let parameters = format!("[parameters]\n{}", lines.collect::<String>());
    fs::write(scene.cloud.folder.path().join("schemathesis.toml"), parameters).unwrap();
    // A sender first: nothing is taken away yet.
    let sender = scene.cloud.token().await;
    let (done, told) = scene.fuzz(&sender, &["--include-tag", "senders"]).await;
    assert!(done.len() >= 3, "{done:?}\n{told}");
    let token = scene.token.clone();
    let (done, told) = scene.fuzz(&token, &["--exclude-name-regex", SELF_ENDING]).await;
    let tested = told.lines().find_map(|line| line.trim().strip_prefix("Tested: "));
    let tested: usize = tested.unwrap().trim().parse().unwrap();
    let all = scene.operations();
    assert_eq!(tested, all.len() - 2, "all but the two that end the fuzzer's token: {told}");
    let missing: Vec<_> = all.difference(&done).collect();
    assert!(
        done.len() * 100 >= all.len() * DONE_PERCENT,
        "{} never did: {missing:#?}",
        missing.len()
    );
    // It stands after all that, whatever was deleted.
    scene.cloud.ready().await;
}
