//! The fleet over HTTP.

use protocol::{
    ids::Epoch,
    proto::{
        fleet::{ReportRequest, TableReport, TableState},
        ingestion::{DatabaseIdentity, OpenRequest, Versions, open_response},
    },
};
use runtime::clock::Wall;

use super::*;

impl Desk {
    /// An agent opens a session and reports two tables.
    async fn reported(&self) -> Epoch {
        let (services, caller) = (&self.running.app.services, self.running.caller());
        let id = runtime::entropy::uuid().to_string();
        let identity = DatabaseIdentity { kind: "sqlite".into(), ..Default::default() };
        let request = OpenRequest {
            erp: "RM".into(),
            instance_id: id.clone(),
            nonce: id,
            database_identity: Some(identity),
            versions: Some(Versions { protocol: 1, agent: "1.2.3".into(), database: "3".into() }),
        };
        let opened = services.sessions.open(&caller, request, Wall::now()).await.unwrap();
        let Some(open_response::Result::Granted(granted)) = opened.result else {
            panic!("{opened:?}")
        };
        let table = |name: &str, state: TableState, code: &str| TableReport {
            name: name.into(),
            state: state.into(),
            parked_code: code.into(),
            ..TableReport::default()
        };
        let tables = vec![
            table("FLAN", TableState::Streaming, ""),
            table("TMOV", TableState::Parked, "KEY_IS_NULL"),
        ];
        let (erp, epoch, version) = ("RM".into(), granted.epoch, "1.2.3".into());
        let report = ReportRequest { erp, epoch, tables, version };
        services.fleet.report(&caller, report, Wall::now()).await.unwrap();
        Epoch(epoch)
    }
}

#[tokio::test]
async fn agents_and_their_tables_are_shown_and_found() {
    let desk = Desk::new().await;
    assert_eq!(desk.get("/tenants/Loja/agents").await, json!({ "items": [] }));
    desk.reported().await;
    let agents = desk.get("/tenants/Loja/agents?search=prod/rm").await;
    let agent = &agents["items"][0];
    assert_eq!((&agent["link"], &agent["version"]), (&json!("sending"), &json!("1.2.3")));
    assert_eq!((&agent["tables"], &agent["parked"]), (&json!(2), &json!(1)));
    assert_eq!(desk.get("/tenants/Loja/agents?search=PROTHEUS").await["items"], json!([]));
    let tables = desk.get(&format!("{PLACE}/agent-tables?limit=1")).await;
    assert_eq!((&tables["items"][0]["table"], &tables["next"]), (&json!("FLAN"), &json!("FLAN")));
    let parked = desk.get(&format!("{PLACE}/agent-tables?state=parked")).await;
    assert_eq!(parked["items"][0]["parkedCode"], "KEY_IS_NULL");
    let troubled = desk.get(&format!("{PLACE}/agent-tables?troubled=true")).await;
    assert_eq!(troubled["items"].as_array().unwrap().len(), 1);
    let (status, bad) =
        desk.call("GET", &format!("{PLACE}/agent-tables?state=x"), json!(null)).await;
    assert_eq!((status, &bad["code"]), (400, &json!("BAD_REQUEST")));
}

#[tokio::test]
async fn orders_are_given_listed_and_withdrawn_and_stand_in_the_audit() {
    let desk = Desk::new().await;
    let orders = format!("{PLACE}/orders");
    let dry = desk.done("POST", &orders, json!({ "verb": "RELOAD", "dryRun": true })).await;
    assert_eq!((&dry["applied"], dry.get("order")), (&json!(false), None));
    assert_eq!(desk.get(&orders).await["items"], json!([]));
    for verb in ["RELOAD", "RETRY", "RESUME"] {
        let given = desk.done("POST", &orders, json!({ "verb": verb, "table": "FLAN" })).await;
        assert_eq!((&given["applied"], &given["who"]), (&json!(true), &json!("ana (test)")));
    }
    let page = desk.get(&format!("{orders}?limit=2")).await;
    let verbs = |page: &Value| {
        let items = page["items"].as_array().unwrap().iter();
        items.map(|item| item["verb"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(verbs(&page), ["RESUME", "RETRY"]);
    let next = page["next"].as_str().unwrap();
    assert_eq!(verbs(&desk.get(&format!("{orders}?after={next}")).await), ["RELOAD"]);
    assert_eq!(verbs(&desk.get(&format!("{orders}?verb=retry&state=waiting")).await), ["RETRY"]);
    let number = &page["items"][0]["order"];
    let gone = desk.done("DELETE", &format!("{orders}/{number}"), json!(null)).await;
    assert_eq!(gone["state"], "withdrawn");
    assert_eq!(desk.get(&format!("{orders}/{number}")).await["state"], "withdrawn");
    let audit = desk.get("/audit?search=fleet").await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["fleet.withdraw", "fleet.order", "fleet.order", "fleet.order"]);
    for (body, status) in [
        (json!({ "verb": "EXPLODE" }), 400),
        (json!({ "verb": "RELOAD", "tables": "FLAN" }), 400),
        (json!({ "verb": "RELOAD", "args": { "x": "y" } }), 400),
        (json!({ "verb": "LOG_LEVEL", "args": { "level": "loud" } }), 400),
        (json!({ "verb": "RELOAD", "table": "NOPE" }), 404),
        (json!({ "table": "FLAN" }), 400),
    ] {
        assert_eq!(desk.call("POST", &orders, body.clone()).await.0, status, "{body}");
    }
    let reader = desk.running.admin("eve", Role::ReadOnly, None).await;
    let body = Some(json!({ "verb": "RELOAD" }));
    assert_eq!(desk.running.act(("POST", &orders), &reader, body).await.0, 403);
    assert_eq!(desk.running.act(("GET", &orders), &reader, None).await.0, 200);
    let part = json!({ "verb": "VERIFY", "table": "FLAN", "args": { "from": "canary-1" } });
    desk.done("POST", &orders, part).await;
    for path in [&*orders, "/audit?search=fleet"] {
        let told = desk.running.act(("GET", path), &reader, None).await.1.to_string();
        assert!(told.contains("part") && !told.contains("canary"), "{path}: {told}");
    }
}
