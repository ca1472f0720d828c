//! Every operation on a thing of a tenant × the things of another tenant (F66).

use std::collections::BTreeMap;

use protocol::proto::ingestion::{DatabaseIdentity, OpenRequest, Versions};

use super::*;
use crate::{app::fixture::stored, service::Caller};

/// Parts of a path of which another tenant has none of its own, for they are words of everybody's. Of every other part
/// and body there must be a thing of the other tenant: what this test does not know ends it.
const WORDS: [(&str, &str); 1] = [("erp", "RM")];

/// Things of one tenant, by the part of a path that names them.
type Things = BTreeMap<&'static str, String>;

struct Operation {
    method: String,
    path: String,
    /// Parts beyond the tenant that name a thing.
    parts: Vec<String>,
    /// Parameters of the query that must be given.
    query: Vec<String>,
    /// Name of its body's schema.
    body: Option<String>,
}

impl Operation {
    fn of(method: &str, path: &str, told: &Value) -> Self {
        let part = |part: &str| Some(part.strip_prefix('{')?.strip_suffix('}')?.to_owned());
        let own = |name: &String| name != "tenant" && WORDS.iter().all(|(word, _)| word != name);
        let required = |p: &&Value| p["in"] == "query" && p["required"] == true;
        let query = told["parameters"].as_array().into_iter().flatten().filter(required);
        let content = told["requestBody"]["content"].as_object().and_then(|c| c.values().next());
        let schema = content.map(|content| {
            let schema = &content["schema"];
            let named = schema["$ref"].as_str().or_else(|| schema["items"]["$ref"].as_str());
            named.map_or("String", |name| name.rsplit('/').next().unwrap()).to_owned()
        });
        Self {
            method: method.to_uppercase(),
            path: path.to_owned(),
            parts: path.split('/').filter_map(part).filter(own).collect(),
            query: query.map(|p| p["name"].as_str().unwrap().to_owned()).collect(),
            body: schema,
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Its address with the parts as `things` has them.
    fn address(&self, tenant: TenantId, things: &Things) -> String {
        let word = |name: &str| WORDS.iter().find(|(word, _)| *word == name).map(|(_, word)| *word);
        let parts = self.path.split('/').map(|part| {
            let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
                return part.to_owned();
            };
            match word(name) {
                _ if name == "tenant" => tenant.to_string(),
                Some(word) => word.to_owned(),
                None => things[name].clone(),
            }
        });
        let asked = self.query.iter().map(|name| match name.as_str() {
            "format" => "format=csv",
            "reason" => "reason=test",
            name => panic!("{}: a parameter {name} that this test does not know", self.name()),
        });
        let path = parts.collect::<Vec<_>>().join("/");
        format!("{path}?{}", asked.collect::<Vec<_>>().join("&"))
    }

    /// Bodies that it takes, with the things of a tenant in them; one of nothing where it takes none.
    fn bodies(&self, things: &Things) -> Vec<String> {
        let thing = |name: &str| things[name].as_str();
        let Some(schema) = &self.body else { return vec![String::new()] };
        let bodies = match schema.as_str() {
            "Named" | "Renamed" => vec![json!({ "name": "another" })],
            "NewEnvironment" => vec![json!({ "name": "another", "type": "CUSTOM" })],
            "NewInstallation" => {
                let environment = thing("environment");
                vec![json!({ "name": "another", "erp": "LOGIX", "environment": environment })]
            }
            "Bound" => vec![json!({ "environment": thing("environment") })],
            "NewApp" => vec![json!({ "name": "another" })],
            "ChangedApp" => vec![json!({ "description": "another", "active": false })],
            "Of" => ["installation", "app"].map(|of| json!({ of: thing(of) })).to_vec(),
            "Given" => vec![json!({ "endpoint": "https://carol.example/api", "organization": "o",
                "carolTenant": "t", "connectorId": "c", "apiToken": "a" })],
            "HookWish" => vec![json!({ "name": "another", "url": "https://etl.example/",
                "environment": thing("environment") })],
            "ChangedHook" => vec![
                json!({ "description": "another" }),
                json!({ "environment": thing("environment") }),
            ],
            "HookRotation" => vec![json!({ "keepHours": 0 })],
            "ReplayWish" => {
                vec![json!({ "state": "dead" }), json!({ "delivery": thing("delivery") })]
            }
            "AlertSilence" => vec![json!({ "hours": 1 })],
            "AlertRoutesWish" => vec![json!({ "mails": [{ "address": "ana@loja.example",
                "environment": thing("environment") }] })],
            "AlertThresholdsWish" => {
                vec![json!({ "thresholds": [{ "rule": "freshness", "value": 5,
                "environment": thing("environment") }] })]
            }
            "AcceptedDatabase" => vec![json!({ "fingerprint": thing("offer") })],
            "Shared" => vec![json!([{ "table": "ANOTHER" }])],
            "Filtered" => vec![json!({ "filter": "ID > 1" })],
            "Reload" => vec![json!({ "table": thing("table") })],
            "String" => return vec!["table\nYET_ANOTHER\n".to_owned()],
            "NewOrder" => vec![json!({ "verb": "RELOAD", "table": thing("table") })],
            "Wish" => vec![json!({ "all": true }), json!({ "row": thing("row") })],
            schema => panic!("{}: a body {schema} that this test does not know", self.name()),
        };
        bodies.iter().map(Value::to_string).collect()
    }
}

/// Operations below a tenant.
fn operations() -> Vec<Operation> {
    let document = super::super::super::described().2;
    let paths = document["paths"].as_object().unwrap().iter();
    let of_tenant = paths.filter(|(path, _)| path.contains("/{tenant}/"));
    of_tenant
        .flat_map(|(path, item)| {
            let operations = item.as_object().unwrap().iter();
            operations.map(|(method, told)| Operation::of(method, path, told))
        })
        .collect()
}

/// Two tenants that have one of each thing, and who may act for one of them.
struct Stage {
    running: Running,
    root: String,
}

impl Stage {
    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self.running.act((method, path), &self.root, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    /// One of each thing for the tenant of the sender; the more messages, the more there is that others have not.
    async fn furnished(&self, caller: &Caller, table: &str, batch: i64, messages: i32) -> Things {
        let tenant = format!("/tenants/{}", caller.tenant);
        let place = format!("{tenant}/environments/{}/erps/RM", caller.environment);
        let at = |path: &str| format!("{tenant}{path}");
        let app = self.done("POST", &at("/apps"), json!({ "name": "app" })).await;
        let of = json!({ "app": app["id"] });
        let credential = self.done("POST", &at("/credentials"), of).await;
        self.done("POST", &format!("{place}/entities"), json!([{ "table": table }])).await;
        let url = format!("http://{}/healthz", self.running.app.http);
        let hook = json!({ "name": "etl", "url": url, "events": ["batch.incomplete"] });
        let hook = self.done("POST", &at("/webhooks"), hook).await;
        let webhook = hook["id"].as_str().unwrap().to_owned();
        // Nothing goes out, so that what is stored stays as it is.
        self.done("PUT", &at(&format!("/webhooks/{webhook}/pause")), Value::Null).await;
        let bad: [&[(&str, &str)]; 2] = [&[("ID", "1"), ("N", "1")], &[("ID", "2"), ("N", "x")]];
        for message in 1..=messages {
            self.running.sent_by(caller, table, (batch, message), &bad).await;
        }
        self.running.sent_by(caller, table, (batch + 1, 1), &bad[..1]).await;
        let deliveries = at(&format!("/webhooks/{webhook}/deliveries"));
        let told = self.done("GET", &deliveries, Value::Null).await;
        let delivery = told["items"][0]["id"].as_str().unwrap().to_owned();
        self.session(caller).await;
        let streams = self.done("GET", &at("/streams"), Value::Null).await;
        let offer = streams["items"][0]["offer"]["fingerprint"].as_str().unwrap().to_owned();
        let order = json!({ "verb": "RELOAD", "table": table });
        let order = self.done("POST", &format!("{place}/orders"), order).await;
        // The first batch was given up, and rows are in quarantine.
        self.running.app.services.alerts.looking().look(Wall::now()).await.unwrap();
        let alerts = self.done("GET", &at("/alerts"), Value::Null).await;
        let alert = alerts["items"][0]["id"].as_str().unwrap().to_owned();
        let id = |made: &Value, key: &str| made[key].as_str().unwrap().to_owned();
        Things::from([
            ("environment", caller.environment.to_string()),
            ("installation", caller.installation.to_string()),
            ("app", id(&app, "id")),
            ("client", id(&credential, "client")),
            ("table", table.to_owned()),
            ("batch", batch.to_string()),
            ("message", messages.to_string()),
            ("row", format!("{batch}.{messages}.1")),
            ("webhook", webhook),
            ("delivery", delivery),
            ("order", order["order"].to_string()),
            ("alert", alert),
            ("offer", offer),
        ])
    }

    /// A session, and the refusal of another database, which waits for somebody to take it.
    async fn session(&self, caller: &Caller) {
        for kind in ["postgres", "sqlite"] {
            let (database_identity, versions) = (
                Some(DatabaseIdentity { kind: kind.into(), ..Default::default() }),
                Some(Versions { protocol: 1, ..Default::default() }),
            );
            let id = caller.installation.to_string();
            let (erp, nonce) = ("RM".into(), id.clone());
            let request = OpenRequest { erp, instance_id: id, nonce, database_identity, versions };
            self.running.app.services.sessions.open(caller, request, Wall::now()).await.unwrap();
        }
        // The session ended a batch; what is staged says so before anybody looks.
        let staging = &self.running.app.services.staging;
        staging.catch_up(&caller.stream(), Wall::now()).await.unwrap();
    }

    /// What a call answers.
    async fn call(
        &self,
        operation: &Operation,
        to: &str,
        token: &str,
        body: String,
    ) -> (u16, String) {
        let method = operation.method.parse().unwrap();
        let request = self.running.web.request(method, self.running.url(to)).bearer_auth(token);
        let answer = request.body(body).send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        let answer: Value = serde_json::from_str(&text).unwrap_or_default();
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    }
}

/// Another tenant's sender.
async fn stranger(running: &Running) -> Caller {
    let (catalog, erp) = (&running.app.services.catalog, running.place.erp.clone());
    let tenant = catalog.create_tenant("other").await.unwrap().id;
    let kind = EnvironmentType::Custom;
    let environment = catalog.create_environment(tenant, "secret", kind).await.unwrap().id;
    let made = catalog.create_installation(tenant, "hidden", erp, Some(environment)).await.unwrap();
    Caller { tenant, environment, installation: made.id, ..running.caller() }
}

/// The parts as `own` has them, but those of the bits as `theirs` has them.
fn mixed(parts: &[String], bits: usize, own: &Things, theirs: &Things) -> Things {
    let mut things = own.clone();
    for (at, name) in parts.iter().enumerate() {
        let known = theirs.get_key_value(name.as_str());
        let (name, thing) = known.unwrap_or_else(|| panic!("a part {name} of nobody"));
        if bits & (1 << at) != 0 {
            things.insert(name, thing.clone());
        }
    }
    things
}

#[tokio::test]
async fn no_operation_reaches_a_thing_of_another_tenant_through_ones_own_path() {
    let running = Running::start().await;
    let root = running.admin("root", Role::Operator, None).await;
    let (own, other) = (running.caller(), stranger(&running).await);
    let token = running.admin("own", Role::Operator, Some(own.tenant)).await;
    let their_token = running.admin("their", Role::Operator, Some(other.tenant)).await;
    let stage = Stage { running, root };
    let ours = stage.furnished(&own, "OURS", 100, 1).await;
    let theirs = stage.furnished(&other, "THEIRS", 700, 2).await;
    let mut named = theirs.clone();
    named.extend([("environment", "secret".into()), ("installation", "hidden".into())]);
    let before = stored(stage.running.folder.path());
    let (mut wrong, mut calls) = (Vec::new(), 0);
    let mut judge = |what: String, answer: (u16, String)| {
        calls += 1;
        if answer != (404, "NOT_FOUND".to_owned()) {
            wrong.push(format!("{what}: {answer:?}"));
        }
    };
    let operations = operations();
    for operation in &operations {
        for bits in 1..1 << operation.parts.len() {
            for theirs in [&theirs, &named] {
                let things = mixed(&operation.parts, bits, &ours, theirs);
                let to = operation.address(own.tenant, &things);
                for body in operation.bodies(&ours) {
                    let answer = stage.call(operation, &to, &token, body).await;
                    judge(format!("{} {to}", operation.method), answer);
                }
            }
        }
        // One's own path, and another's things in the body.
        let to = operation.address(own.tenant, &ours);
        let harmless = operation.bodies(&ours);
        for body in operation.bodies(&theirs).into_iter().filter(|body| !harmless.contains(body)) {
            let answer = stage.call(operation, &to, &token, body.clone()).await;
            judge(format!("{} {to} with {body}", operation.method), answer);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    println!("{calls} calls, {} tables", before.len());
    assert!(calls > 150, "{calls} calls");
    let after = stored(stage.running.folder.path());
    assert!(before.len() > 25, "{} tables", before.len());
    for (table, rows) in &before {
        assert_eq!(after.get(table), Some(rows), "{table}");
    }
    assert_eq!(before.len(), after.len());
    are_reached_by_their_own(&stage, operations, &their_token, (other.tenant, &theirs)).await;
}

/// The things were there to be reached: the same calls by their own tenant's operator come through. Looked at first, and
/// what is below before what it is below of.
async fn are_reached_by_their_own(
    stage: &Stage,
    mut operations: Vec<Operation>,
    token: &str,
    (tenant, theirs): (TenantId, &Things),
) {
    operations.retain(|operation| !operation.parts.is_empty());
    let methods = ["GET", "PATCH", "PUT", "POST", "DELETE"];
    operations.sort_by_key(|operation| {
        let turn = methods.iter().position(|method| *method == operation.method);
        (turn.unwrap(), std::cmp::Reverse(operation.path.len()))
    });
    for operation in &operations {
        let (to, body) = (operation.address(tenant, theirs), operation.bodies(theirs).remove(0));
        let (status, code) = stage.call(operation, &to, token, body).await;
        let used = (status, code.as_str()) == (409, "STILL_USED");
        assert!((200..300).contains(&status) || used, "{}: {status} {code}", operation.name());
    }
}

#[tokio::test]
async fn another_tenant_is_not_told_to_be_there() {
    let running = Running::start().await;
    let catalog = &running.app.services.catalog;
    catalog.create_tenant("other").await.unwrap();
    let own = running.admin("own", Role::Operator, Some(running.tenant.id)).await;
    let (_, tenants) = running.act(("GET", "/tenants"), &own, None).await;
    assert_eq!(tenants["items"].as_array().unwrap().len(), 1);
    for key in ["other", "no such tenant"] {
        let (status, _) = running.act(("GET", &format!("/tenants/{key}")), &own, None).await;
        assert_eq!(status, 403, "{key}: whether it exists is not told");
    }
}
