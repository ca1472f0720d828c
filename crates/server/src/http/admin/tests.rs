mod alerts;
mod fleet;
mod webhooks;

use serde_json::{Value, json};

use crate::{app::fixture::Running, model::admin::Role};

const PLACE: &str = "/tenants/Loja/environments/prod/erps/RM";

struct Desk {
    running: Running,
    token: String,
}

impl Desk {
    async fn new() -> Self {
        let running = Running::start().await;
        let token = running.admin("ana", Role::Operator, None).await;
        Self { running, token }
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.running.act(("GET", path), &self.token, None).await;
        assert_eq!(status, 200, "GET {path}: {body}");
        body
    }

    /// A call with its status and, where it was refused, its code.
    async fn call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let body = (!body.is_null()).then_some(body);
        self.running.act((method, path), &self.token, body).await
    }

    async fn done(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }
}

#[tokio::test]
async fn a_tenant_is_set_up_changed_and_removed() {
    let desk = Desk::new().await;
    let made = desk.done("POST", "/tenants", json!({ "name": "Mercado" })).await;
    let tenant = format!("/tenants/{}", made["id"].as_str().unwrap());
    desk.done("PATCH", &tenant, json!({ "name": "Mercado Novo" })).await;
    assert_eq!(desk.get("/tenants?search=NOVO").await["items"][0]["name"], "Mercado Novo");
    let at = |rest: &str| format!("{tenant}{rest}");
    let environment = json!({ "name": "prod", "type": "PRODUCTION" });
    desk.done("POST", &at("/environments"), environment.clone()).await;
    desk.done("PATCH", &at("/environments/prod"), json!({ "name": "main" })).await;
    desk.done("POST", &at("/apps"), json!({ "name": "techfin" })).await;
    let app = desk.done("PATCH", &at("/apps/techfin"), json!({ "active": false })).await;
    assert_eq!((&app["active"], &app["name"]), (&json!(false), &json!("techfin")));
    desk.done("POST", &at("/installations"), json!({ "name": "erp", "erp": "rm" })).await;
    let bound = json!({ "environment": "main" });
    let erp = desk.done("PUT", &at("/installations/erp/binding"), bound).await;
    assert_eq!((erp["erp"].as_str(), erp["environment"].is_string()), (Some("RM"), true));
    let new = json!({ "installation": "erp" });
    let credential = desk.done("POST", &at("/credentials"), new).await;
    assert_eq!(credential["clientSecret"].as_str().unwrap().len(), 64);
    let client = at(&format!("/credentials/{}", credential["client"].as_str().unwrap()));
    assert!(desk.get(&client).await.get("clientSecret").is_none());
    for (path, expected) in
        [(at(""), 409), (at("/environments/main"), 409), (at("/installations/erp"), 409)]
    {
        let (status, body) = desk.call("DELETE", &path, Value::Null).await;
        assert_eq!((status, body["code"].as_str()), (expected, Some("STILL_USED")), "{path}");
    }
    desk.done("DELETE", &client, Value::Null).await;
    assert!(desk.get(&client).await["revokedAt"].is_string());
    for path in ["/installations/erp/binding", "/installations/erp", "/environments/main"] {
        desk.done("DELETE", &at(path), Value::Null).await;
    }
    desk.done("DELETE", &at("/apps/techfin"), Value::Null).await;
    desk.done("DELETE", &tenant, Value::Null).await;
    assert_eq!(desk.call("GET", &tenant, Value::Null).await.0, 404);
}

#[tokio::test]
async fn tables_are_shared_filtered_sent_again_and_withdrawn() {
    let desk = Desk::new().await;
    let entities = format!("{PLACE}/entities");
    let new =
        json!([{ "table": "FCFO" }, { "table": "ZZZ", "isCustom": true, "filter": "ZZZ.A > 1" }]);
    assert_eq!(desk.done("POST", &entities, new.clone()).await[1]["isCustom"], true);
    let (status, again) = desk.call("POST", &entities, new).await;
    assert_eq!((status, again["code"].as_str()), (409, Some("ALREADY_EXISTS")));
    let fcfo = format!("{entities}/fcfo");
    let bad = json!({ "filter": "A = (SELECT 1)" });
    let (status, refused) = desk.call("PATCH", &fcfo, bad).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("FILTER_REFUSED")));
    let set = desk.done("PATCH", &fcfo, json!({ "filter": "FCFO.A = 1" })).await;
    assert_eq!(set["filter"], "FCFO.A = 1");
    let asked = desk.done("POST", &format!("{PLACE}/reloads"), json!({ "table": "FCFO" })).await;
    assert_eq!(asked, json!([{ "table": "FCFO", "reloadGeneration": 1 }]));
    desk.done("DELETE", &fcfo, Value::Null).await;
    let names = |listing: &Value| {
        let items = listing["items"].as_array().unwrap();
        items.iter().map(|item| item["table"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&desk.get(&entities).await), ["FLAN", "TMOV", "ZZZ"]);
    let all = desk.get(&format!("{entities}?withdrawn=true&limit=2")).await;
    assert_eq!((names(&all).len(), all["next"].as_str()), (2, Some("FLAN")));
    let rest = desk.get(&format!("{entities}?withdrawn=true&limit=2&after=FLAN")).await;
    assert_eq!((names(&rest).len(), rest.get("next")), (2, None));
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_with_a_code_and_words_that_name_it() {
    let desk = Desk::new().await;
    let cases = [
        ("GET", "/tenants?limit=0", Value::Null, 400, "BAD_REQUEST"),
        ("GET", "/tenants?limit=1001", Value::Null, 400, "BAD_REQUEST"),
        ("GET", "/tenants?limit=many", Value::Null, 400, "BAD_REQUEST"),
        ("POST", "/tenants", json!({}), 400, "BAD_REQUEST"),
        ("POST", "/tenants", json!({ "name": "" }), 400, "BAD_NAME"),
        ("POST", "/tenants", json!({ "name": "Loja" }), 409, "ALREADY_EXISTS"),
        ("GET", "/tenants/Nobody", Value::Null, 404, "NOT_FOUND"),
        ("GET", "/audit?after=x", Value::Null, 400, "BAD_ID"),
        ("PUT", "/tenants", Value::Null, 405, "METHOD_NOT_ALLOWED"),
        ("GET", "/nothing", Value::Null, 404, "NOT_FOUND"),
        ("POST", "/tenants/Loja/credentials", json!({}), 400, "BAD_REQUEST"),
        ("GET", "/tenants?limit=1&serach=x", Value::Null, 400, "BAD_REQUEST"),
        ("GET", "/tenants/Loja?after=x", Value::Null, 400, "BAD_REQUEST"),
        ("POST", "/tenants?dryRun=true", json!({ "name": "New" }), 400, "BAD_REQUEST"),
        ("POST", "/tenants", json!({ "name": "New", "nmae": 1 }), 400, "BAD_REQUEST"),
        ("POST", "/tenants/Loja/environments", json!({"name":"x","type":"y"}), 400, "BAD_REQUEST"),
    ];
    for (method, path, body, status, code) in cases {
        let (got, answer) = desk.call(method, path, body).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{method} {path}");
        assert!(answer["detailedMessage"].is_string(), "{method} {path}");
    }
    let cases = [
        ("batches/x", 400, "BAD_ID"),
        ("batches/1", 404, "NOT_FOUND"),
        ("batches?state=odd", 400, "BAD_REQUEST"),
        ("batches/1/messages/1/rows", 404, "NOT_FOUND"),
        ("batches/1/messages/1/rows?after=x", 400, "BAD_ID"),
        ("batches?after=x", 400, "BAD_ID"),
        ("staging/tables/FLAN", 404, "NOT_FOUND"),
        ("staging/tables/FLAN/rows", 404, "NOT_FOUND"),
        ("quarantine?after=1.x.2", 400, "BAD_ID"),
        ("quarantine?code=NO_SUCH", 400, "BAD_REQUEST"),
        ("quarantine?search=x", 400, "BAD_REQUEST"),
    ];
    for (path, status, code) in cases {
        let (got, answer) = desk.call("GET", &format!("{PLACE}/{path}"), Value::Null).await;
        assert_eq!((got, answer["code"].as_str()), (status, Some(code)), "{path}");
    }
    let (status, words) = desk.call("POST", "/tenants", json!({ "name": 5 })).await;
    assert!(status == 400 && words["message"].as_str().unwrap().contains("column"), "{words}");
    for body in [json!("canary"), json!({ "name": "X", "events": "canary\", expected", "url": "" })]
    {
        let (status, words) = desk.call("POST", "/tenants/Loja/webhooks", body).await;
        assert!(status == 400 && !words.to_string().contains("canary"), "{words}");
    }
    let large = json!({ "name": "x".repeat(2 << 20) });
    assert_eq!(desk.call("POST", "/tenants", large).await.1["code"], "BODY_TOO_LARGE");
}

#[tokio::test]
async fn pages_follow_each_other_and_every_item_comes_once() {
    let desk = Desk::new().await;
    for number in 0..7 {
        desk.done("POST", "/tenants/Loja/apps", json!({ "name": format!("app {number}") })).await;
    }
    let (mut after, mut names) = (String::new(), Vec::new());
    loop {
        let path = format!("/tenants/Loja/apps?limit=3&after={}", after.replace(' ', "%20"));
        let page = desk.get(&path).await;
        let items = page["items"].as_array().unwrap();
        names.extend(items.iter().map(|app| app["name"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    let all: Vec<String> = (0..7).map(|number| format!("app {number}")).collect();
    assert_eq!(names, all);
}

#[tokio::test]
async fn what_an_administrator_does_is_in_the_audit_and_a_secret_is_not() {
    let desk = Desk::new().await;
    desk.done("POST", "/administrators", json!({ "name": "bia" })).await;
    let new = json!({ "name": "board", "role": "read-only", "tenant": "Loja", "expiresAt": "2099-01-01" });
    let told = desk.done("POST", "/administrators/bia/tokens", new).await;
    let token = told["token"].as_str().unwrap();
    let (status, me) = desk.running.act(("GET", "/token"), token, None).await;
    assert_eq!((status, me["administrator"].as_str()), (200, Some("bia")));
    let credential =
        desk.done("POST", "/tenants/Loja/credentials", json!({ "installation": "rm" })).await;
    let listed = desk.get("/administrators/bia/tokens").await;
    assert_eq!(listed["items"][0]["role"], "read-only");
    let audit = desk.get("/audit").await;
    assert_eq!(audit["items"][0]["action"], "credential.create");
    assert_eq!(audit["items"][0]["who"], "ana (test)");
    for secret in [token, credential["clientSecret"].as_str().unwrap()] {
        let secret = secret.rsplit('_').next().unwrap();
        assert!(!audit.to_string().contains(secret) && !listed.to_string().contains(secret));
    }
    let (_, own) = desk.running.act(("GET", "/tenants/Loja/audit?limit=1"), token, None).await;
    assert_eq!(own["items"].as_array().unwrap().len(), 1);
    desk.done("DELETE", "/administrators/bia/tokens/board", Value::Null).await;
    assert_eq!(desk.running.act(("GET", "/token"), token, None).await.0, 401);
    desk.done("DELETE", "/administrators/bia", Value::Null).await;
    let (status, _) = desk
        .call("POST", "/administrators/bia/tokens", json!({"name":"x","role":"operator"}))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn the_document_is_openapi_3_1_with_unique_names_and_the_pages_come_with_the_server() {
    let desk = Desk::new().await;
    let web = &desk.running.web;
    let get = async |path: &str| web.get(desk.running.url(path)).send().await.unwrap();
    let text = get("/api/admin/openapi.json").await.text().await.unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let mut names = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            names.push(operation["operationId"].as_str().unwrap().to_owned());
            assert!(
                operation["summary"].as_str().is_some_and(|s| !s.is_empty()),
                "{method} {path}"
            );
            let parts = path.matches('{').count();
            let told = operation["parameters"].as_array().unwrap();
            let told = told.iter().filter(|p| p["in"] == "path" && p["description"] != "");
            assert_eq!(told.count(), parts, "{method} {path}");
        }
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    for reference in text
        .match_indices("\"$ref\":\"#/components/schemas/")
        .map(|(at, mark)| text[at + mark.len()..].split('"').next().unwrap())
    {
        assert!(document["components"]["schemas"].get(reference).is_some(), "{reference}");
    }
    let page = get("/api/admin/docs/").await;
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(policy.contains("script-src 'self'"), "{policy}");
    let html = page.text().await.unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "{html}");
    for file in ["swagger-ui-bundle.js", "swagger-ui.css", "swagger-initializer.js"] {
        let answer = get(&format!("/api/admin/docs/{file}")).await;
        assert_eq!(answer.status().as_u16(), 200, "{file}");
    }
    let initializer = get("/api/admin/docs/swagger-initializer.js").await.text().await.unwrap();
    assert!(initializer.contains("/api/admin/openapi.json"), "{initializer}");
    assert_eq!(get("/api/admin/docs/no.js").await.status().as_u16(), 404);
}

#[tokio::test]
async fn two_credentials_are_in_force_while_rotating_and_the_revoked_one_ends_with_its_tokens() {
    let desk = Desk::new().await;
    let running = &desk.running;
    let old = format!("/tenants/Loja/credentials/{}", running.client);
    let before = running.token().await;
    let made = desk.done("POST", &format!("{old}/rotation"), Value::Null).await;
    let client = made["client"].as_str().unwrap().parse().unwrap();
    let after = running.token_of(&client, made["clientSecret"].as_str().unwrap()).await;
    let entities = async |token: &str| {
        let url = running.url("/api/carol-definitions/v1/entities");
        running.web.get(url).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    assert_eq!((entities(&before).await, entities(&after).await), (200, 200));
    let (status, third) = desk.call("POST", &format!("{old}/rotation"), Value::Null).await;
    assert_eq!((status, third["code"].as_str()), (409, Some("STILL_USED")));
    desk.done("DELETE", &old, Value::Null).await;
    // In this process at once; in another that looked it up, when its look-up ends (`limits::CLIENT_CACHE`).
    assert_eq!((entities(&before).await, entities(&after).await), (401, 200));
    let (status, _) = desk.call("POST", &format!("{old}/rotation"), Value::Null).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_carol_token_reaches_the_tenants_sender_alone_and_no_administrator() {
    let desk = Desk::new().await;
    let running = &desk.running;
    let path = "/tenants/Loja/carol-credentials";
    let canary = "canary-5d1f0a";
    let given = json!({ "endpoint": "https://loja.carol.example/api/", "organization": "loja",
        "carolTenant": "tenant1", "connectorId": "0123456789abcdef", "apiToken": canary });
    let set = desk.done("PUT", path, given.clone()).await;
    assert_eq!(set["endpoint"], "https://loja.carol.example/api");
    let shown = desk.get(path).await;
    let audit = desk.get("/audit").await;
    assert!(audit.to_string().contains("carol.set"));
    for told in [set, shown, audit] {
        assert!(!told.to_string().contains(canary));
    }
    let ask = async |token: &str| {
        let url = running.url("/api/carol-definitions/v1/carolcredentials");
        let answer = running.web.get(url).bearer_auth(token).send().await.unwrap();
        serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap()
    };
    let own = ask(&running.token().await).await;
    assert_eq!((&own["apiToken"], &own["tenant"]), (&json!(canary), &json!("tenant1")));
    let stranger = ask(&running.stranger("RM").await).await;
    assert_eq!(stranger["code"], "NOT_FOUND");
    for entry in std::fs::read_dir(running.folder.path()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        let found = bytes.windows(canary.len()).any(|part| part == canary.as_bytes());
        assert!(!found, "{} holds the token", entry.path().display());
    }
    let mut odd = given;
    odd["apiToken"] = json!("");
    assert_eq!(desk.call("PUT", path, odd).await.0, 400);
    desk.done("DELETE", path, Value::Null).await;
    assert_eq!(desk.call("GET", path, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_list_goes_out_and_in_dry_first_and_all_or_nothing() {
    let desk = Desk::new().await;
    let put = async |query: &str, text: &str| {
        let url = desk.running.url(&format!("/api/admin/v1{PLACE}/entity-list?{query}"));
        let request = desk.running.web.put(url).bearer_auth(&desk.token).body(text.to_owned());
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        (status, serde_json::from_str::<Value>(&answer.text().await.unwrap()).unwrap())
    };
    let list = async |format: &str| {
        let path = format!("/api/admin/v1{PLACE}/entity-list?format={format}");
        let request = desk.running.web.get(desk.running.url(&path)).bearer_auth(&desk.token);
        request.send().await.unwrap().text().await.unwrap()
    };
    let before = list("csv").await;
    assert_eq!(before, "table,filter,custom\nFLAN,FLAN.IDLAN > 1000,false\nTMOV,,false\n");
    let new = "table,filter,custom\nFLAN,FLAN.D > '2012-01-01',\nZZZ,,true\n";
    let (_, dry) = put("format=csv&dryRun=true&withdrawMissing=true", new).await;
    let kinds = |plan: &Value| -> Vec<String> {
        let changes = plan["changes"].as_array().unwrap().iter();
        changes.map(|change| change["change"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (&dry["applied"], kinds(&dry)),
        (&json!(false), ["alter", "add", "withdraw"].map(String::from).to_vec())
    );
    assert_eq!(dry["warnings"].as_array().unwrap().len(), 2, "{dry}");
    assert_eq!(list("csv").await, before, "a dry run changes nothing");
    for (text, code) in [
        ("table,filter\nAAA,\nBBB,A = (SELECT 1)\n", "FILTER_REFUSED"),
        ("table\nAAA\nmalote_x\n", "NAME_RESERVED"),
        ("table\nAAA\naaa\n", "BAD_REQUEST"),
    ] {
        assert_eq!(put("format=csv", text).await.1["code"], code);
        assert_eq!(list("csv").await, before, "{code}: all or nothing");
    }
    assert_eq!(put("format=xml", new).await.0, 400);
    let (status, done) = put("format=csv&withdrawMissing=true", new).await;
    assert_eq!((status, &done["changes"]), (200, &dry["changes"]));
    let toml = list("toml").await;
    assert!(
        toml.contains("2012-01-01") && toml.contains("ZZZ") && !toml.contains("TMOV"),
        "{toml}"
    );
    let (_, again) = put("format=toml", &toml).await;
    assert_eq!(kinds(&again).len(), 0, "what goes out comes in without a change");
    let flan = desk.get(&format!("{PLACE}/entities/FLAN")).await;
    assert!(flan["warning"].as_str().unwrap().contains("2012-01-01"), "{flan}");
    let (_, back) = put("format=csv", "table,filter\nTMOV,TMOV.ID > 5\n").await;
    assert_eq!(kinds(&back), ["add"], "a withdrawn table comes back");
}

#[tokio::test]
async fn rows_of_a_message_are_told_as_they_were_sent_until_its_body_is_gone() {
    let desk = Desk::new().await;
    let rows: [&[(&str, &str)]; 3] = [
        &[("ID", "1"), ("S", "")],
        &[("ID", "2"), ("S", "b"), ("N", "7"), ("Extra", "e")],
        &[("ID", "3"), ("DELETED", "true")],
    ];
    desk.running.sent((100, 1), &rows).await;
    let path = format!("{PLACE}/batches/100/messages/1/rows");
    let all = desk.get(&path).await;
    let expected = json!([
        { "row": 0, "table": "FLAN", "operation": "upsert", "key": { "ID": "1" },
          "columns": { "ID": "1", "S": "", "N": null } },
        { "row": 1, "table": "FLAN", "operation": "upsert", "key": { "ID": "2" },
          "columns": { "ID": "2", "S": "b", "N": "7", "Extra": "e" } },
        { "row": 2, "table": "FLAN", "operation": "delete", "key": { "ID": "3" }, "columns": { "ID": "3" } },
    ]);
    assert_eq!((&all["items"], all.get("next")), (&expected, None));
    let first = desk.get(&format!("{path}?limit=2")).await;
    assert_eq!((first["items"].as_array().unwrap().len(), first["next"].as_str()), (2, Some("1")));
    let rest = desk.get(&format!("{path}?limit=2&after=1")).await;
    assert_eq!((&rest["items"][0]["row"], rest.get("next")), (&json!(2), None));
    let store = rusqlite::Connection::open(desk.running.folder.path().join("store.sqlite"));
    store.unwrap().execute("UPDATE ingest_message SET body = NULL", []).unwrap();
    let (status, gone) = desk.call("GET", &path, Value::Null).await;
    assert_eq!((status, gone["code"].as_str()), (410, Some("BODY_REMOVED")), "{gone}");
    let shown = desk.get(&format!("{PLACE}/batches/100/messages/1")).await;
    assert_eq!((&shown["bodyKept"], &shown["rows"]), (&json!(false), &json!(3)));
}

#[tokio::test]
async fn rows_in_quarantine_are_shown_tried_again_and_given_up() {
    let desk = Desk::new().await;
    let bad: [&[(&str, &str)]; 2] = [&[("ID", "1"), ("N", "x")], &[("ID", "2"), ("N", "canary-7")]];
    desk.running.sent((100, 1), &bad).await;
    let quarantine = format!("{PLACE}/quarantine");
    let listed = desk.get(&quarantine).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains("canary-7"), "a list has no values");
    let shown = desk.get(&format!("{quarantine}/100.1.1")).await;
    assert_eq!((&shown["key"], &shown["code"]), (&json!({ "ID": "2" }), &json!("VALUE_UNFIT")));
    assert_eq!(shown["columns"], json!({ "ID": "2", "N": "canary-7" }));
    assert_eq!(shown["keyHash"].as_str().unwrap().len(), 64);
    let retries = format!("{quarantine}/retries");
    for (body, code) in [
        (json!({}), "BAD_REQUEST"),
        (json!({ "all": true, "table": "FLAN" }), "BAD_REQUEST"),
        (json!({ "row": "x" }), "BAD_ID"),
        (json!({ "row": "100.1.9" }), "NOT_FOUND"),
    ] {
        assert_eq!(desk.call("POST", &retries, body).await.1["code"], code);
    }
    let dry = desk.done("POST", &retries, json!({ "all": true, "dryRun": true })).await;
    assert_eq!((&dry["applied"], &dry["rows"][0]["outcome"]), (&json!(false), &json!("refused")));
    desk.running.sent((100, 2), &[&[("ID", "1"), ("N", "7")]]).await;
    let done = desk.done("POST", &retries, json!({ "table": "FLAN" })).await;
    let outcomes: Vec<&str> = done["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["outcome"].as_str().unwrap())
        .collect();
    assert_eq!(outcomes, ["superseded", "refused"]);
    assert!(!done.to_string().contains("canary-7"), "words have no values");
    let row = format!("{quarantine}/100.1.1");
    let (status, refused) = desk.call("DELETE", &row, Value::Null).await;
    assert_eq!((status, refused["code"].as_str()), (400, Some("BAD_REQUEST")), "a reason is due");
    desk.done("DELETE", &format!("{row}?reason=a%20test&dryRun=true"), Value::Null).await;
    desk.done("DELETE", &format!("{row}?reason=a%20test"), Value::Null).await;
    assert_eq!(desk.call("GET", &row, Value::Null).await.0, 404);
    let audit = desk.get("/audit").await;
    let actions: Vec<&str> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["action"].as_str().unwrap())
        .collect();
    assert_eq!(actions[..2], ["quarantine.discard", "quarantine.retry"]);
    assert_eq!(
        (&audit["items"][0]["who"], audit["items"][0]["detail"].as_str()),
        (&json!("ana (test)"), Some("table flan: a test"))
    );
    assert!(!audit.to_string().contains("canary-7"));
}

#[tokio::test]
async fn retention_tells_what_is_due_and_removes_it_when_ordered() {
    let desk = Desk::new().await;
    for batch in [100, 101] {
        desk.running.sent((batch, 1), &[&[("ID", "1"), ("S", "a")]]).await;
    }
    let store = || rusqlite::Connection::open(desk.running.folder.path().join("store.sqlite"));
    let old = "UPDATE batch SET closed_at = 1 WHERE state <> 'open'";
    store().unwrap().execute(old, []).unwrap();
    let standing = desk.get("/retention").await;
    assert_eq!(
        standing["policy"],
        json!({ "bodyDays": 7, "ledgerDays": 90, "tombstoneDays": 30, "deliveryDays": 7 })
    );
    assert_eq!(
        (&standing["due"]["bodies"], &standing["due"]["applied"]),
        (&json!(1), &json!(false))
    );
    let dry = desk.done("POST", "/retention/runs", json!({ "dryRun": true })).await;
    assert_eq!(dry, standing["due"]);
    let (status, refused) = desk.call("POST", "/retention/runs", json!([])).await;
    assert_eq!(status, 400, "an array is no wish, and removes nothing: {refused}");
    let done = desk.done("POST", "/retention/runs", json!({})).await;
    assert_eq!(
        (&done["bodies"], &done["applied"], &done["more"]),
        (&json!(1), &json!(true), &json!(false))
    );
    assert_eq!(desk.get("/retention").await["due"]["bodies"], 0);
    let audit = desk.get("/audit").await;
    assert_eq!(audit["items"][0]["action"], "retention.run");
}
