//! Webhooks by way of the calls.

use super::*;

const HOOKS: &str = "/tenants/Loja/webhooks";

impl Desk {
    async fn code(&self, method: &str, path: &str, body: Value) -> (u16, String) {
        let (status, answer) = self.call(method, path, body).await;
        (status, answer["code"].as_str().unwrap_or_default().to_owned())
    }
}

#[tokio::test]
async fn a_webhook_is_made_changed_paused_rotated_and_removed_and_its_secret_told_once() {
    let desk = Desk::new().await;
    let new = json!({ "name": "etl", "url": "https://etl.example/in?code=canary-1",
        "events": ["batch.stalled", "batch.complete"], "description": "the warehouse", "environment": "prod" });
    let made = desk.done("POST", HOOKS, new.clone()).await;
    let secret = made["secret"].as_str().unwrap().to_owned();
    assert_eq!(made["url"], "https://etl.example/in?…");
    assert_eq!(made["events"], json!(["batch.complete", "batch.stalled"]));
    assert_eq!(desk.code("POST", HOOKS, new).await, (409, "ALREADY_EXISTS".into()));
    let etl = format!("{HOOKS}/etl");
    let changed = json!({ "environment": "", "events": ["batch.incomplete"], "name": "lake" });
    let changed = desk.done("PATCH", &etl, changed).await;
    assert_eq!((&changed["environment"], &changed["name"]), (&Value::Null, &json!("lake")));
    assert_eq!(changed["url"], made["url"], "what is absent stays");
    let lake = format!("{HOOKS}/{}", made["id"].as_str().unwrap());
    let paused = desk.done("PUT", &format!("{lake}/pause"), Value::Null).await;
    assert!(paused["pausedAt"].is_string());
    let resumed = desk.done("DELETE", &format!("{lake}/pause"), Value::Null).await;
    assert_eq!(resumed["pausedAt"], Value::Null);
    let rotation = format!("{lake}/rotation");
    let rotated = desk.done("POST", &rotation, json!({})).await;
    assert!(rotated["formerUntil"].is_string() && rotated["secret"] != secret.as_str());
    assert_eq!(desk.code("POST", &rotation, json!({})).await, (409, "STILL_USED".into()));
    desk.done("POST", &rotation, json!({ "keepHours": 0 })).await;
    let listed = desk.get(&format!("{HOOKS}?search=LAK")).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let audit = desk.get("/audit").await;
    for action in ["create", "change", "pause", "resume", "rotate"] {
        assert!(audit.to_string().contains(&format!("webhook.{action}")), "{action}: {audit}");
    }
    for told in [listed, audit, desk.get(&lake).await] {
        assert!(!told.to_string().contains(&secret) && !told.to_string().contains("canary-1"));
    }
    assert_eq!(desk.code("DELETE", "/tenants/Loja", Value::Null).await, (409, "STILL_USED".into()));
    desk.done("DELETE", &lake, Value::Null).await;
    assert_eq!(desk.code("GET", &lake, Value::Null).await, (404, "NOT_FOUND".into()));
}

#[tokio::test]
async fn deliveries_are_listed_by_state_and_page_shown_with_their_body_and_told_again() {
    let desk = Desk::new().await;
    // Nothing is told while it is paused, so that states stay as they are.
    let url = format!("http://{}/healthz", desk.running.app.http);
    desk.done("POST", HOOKS, json!({ "name": "etl", "url": url, "events": ["batch.incomplete"] }))
        .await;
    let etl = format!("{HOOKS}/etl");
    desk.done("PUT", &format!("{etl}/pause"), Value::Null).await;
    for batch in [100, 101, 102] {
        desk.running.sent((batch, 1), &[&[("ID", "1"), ("S", "a")]]).await;
    }
    let deliveries = format!("{etl}/deliveries");
    let first = desk.get(&format!("{deliveries}?limit=1&state=ready&type=batch.incomplete")).await;
    assert_eq!(first["items"][0]["batch"], 101, "the newest first");
    let next = first["next"].as_str().unwrap();
    let second = desk.get(&format!("{deliveries}?limit=1&after={next}")).await;
    assert_eq!((&second["items"][0]["batch"], second.get("next")), (&json!(100), None));
    let one = format!("{deliveries}/{}", second["items"][0]["id"].as_str().unwrap());
    let shown = desk.get(&one).await;
    assert_eq!(shown["body"]["id"], second["items"][0]["id"]);
    assert_eq!(shown["body"]["data"]["reason"], "ABANDONED");
    let source = format!("http://{}", desk.running.app.http);
    assert_eq!(shown["body"]["source"].as_str(), Some(source.as_str()));
    // A test goes out all the same; the consumer here takes no POST.
    let test = desk.done("POST", &format!("{etl}/tests"), Value::Null).await;
    let test = format!("{deliveries}/{}", test["id"].as_str().unwrap());
    let begun = runtime::clock::Mono::now();
    let dead = loop {
        let shown = desk.get(&test).await;
        if shown["state"] == "dead" {
            break shown;
        }
        assert!(begun.elapsed().as_secs() < 20, "{shown}");
        tokio::task::yield_now().await;
    };
    assert_eq!((&dead["lastStatus"], &dead["attempts"]), (&json!(405), &json!(1)));
    let replays = format!("{etl}/replays");
    let dry = desk.done("POST", &replays, json!({ "state": "dead", "dryRun": true })).await;
    assert_eq!(dry, json!({ "applied": false, "deliveries": 0 }), "an old test is no event");
    let by_name = json!({ "delivery": dead["id"], "dryRun": true });
    let dry = desk.done("POST", &replays, by_name).await;
    assert_eq!(dry, json!({ "applied": false, "deliveries": 1 }), "unless it is named");
    for (body, status, code) in [
        (json!({}), 400, "BAD_REQUEST"),
        (json!({ "state": "ready" }), 400, "BAD_REQUEST"),
        (json!({ "state": "odd" }), 400, "BAD_REQUEST"),
        (json!({ "delivery": "x" }), 400, "BAD_ID"),
        (json!({ "delivery": "x", "state": "dead" }), 400, "BAD_REQUEST"),
        (json!({ "state": "dead", "since": "x" }), 400, "BAD_REQUEST"),
        (json!({ "delivery": second["items"][0]["id"] }), 404, "NOT_FOUND"),
    ] {
        assert_eq!(
            desk.code("POST", &replays, body.clone()).await,
            (status, code.into()),
            "{body}"
        );
    }
    for (path, status, code) in [
        ("deliveries?state=odd", 400, "BAD_REQUEST"),
        ("deliveries?type=odd", 400, "BAD_REQUEST"),
        ("deliveries?after=x", 400, "BAD_ID"),
        ("deliveries/x", 400, "BAD_ID"),
        ("deliveries/00000000-0000-0000-0000-000000000000", 404, "NOT_FOUND"),
    ] {
        let found = desk.code("GET", &format!("{etl}/{path}"), Value::Null).await;
        assert_eq!(found, (status, code.into()), "{path}");
    }
    let bad = json!({ "name": "x", "url": "https://etl.example/", "events": ["webhook.test"] });
    assert_eq!(desk.code("POST", HOOKS, bad).await, (400, "BAD_REQUEST".into()));
}
