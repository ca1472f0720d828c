//! Alerts by way of the calls.

use runtime::clock::Wall;

use super::*;

const LOJA: &str = "/tenants/Loja";

#[tokio::test]
async fn alerts_are_listed_seen_and_silenced_and_what_people_decide_is_in_the_audit() {
    let desk = Desk::new().await;
    // The second batch gives the first one up.
    for batch in [100, 101] {
        desk.running.sent((batch, 1), &[&[("ID", "1"), ("N", "1")]]).await;
    }
    let mut look = desk.running.app.services.alerts.looking();
    look.look(Wall::now()).await.unwrap();
    let listed = desk.get(&format!("{LOJA}/alerts")).await;
    let alert = listed["items"][0].clone();
    assert_eq!((&alert["rule"], &alert["amount"]), (&json!("batch-incomplete"), &json!(1)));
    let one = format!("{LOJA}/alerts/{}", alert["id"].as_str().unwrap());
    assert_eq!(desk.get(&one).await, alert);
    let seen = desk.done("POST", &format!("{one}/acknowledge"), Value::Null).await;
    assert!(seen["acknowledgedAt"].is_string() && seen["acknowledgedBy"].is_string(), "{seen}");
    let silence = format!("{one}/silence");
    let silent = desk.done("POST", &silence, json!({ "hours": 2 })).await;
    assert!(silent["silencedUntil"].is_string());
    let loud = desk.done("POST", &silence, json!({})).await;
    assert_eq!(loud["silencedUntil"], Value::Null);
    for bad in [json!({ "until": "2001-01-01" }), json!({ "hours": 1, "until": "2099-01-01" })] {
        assert_eq!(desk.call("POST", &silence, bad).await.0, 400);
    }
    assert_eq!(desk.call("GET", "/tenants/Loja/alerts?state=loud", Value::Null).await.0, 400);
    let resolved = desk.get(&format!("{LOJA}/alerts?state=resolved")).await;
    assert_eq!(resolved["items"], json!([]));
    // What is of a tenant is not of the server.
    let own = format!("/alerts/{}", alert["id"].as_str().unwrap());
    assert_eq!(desk.call("GET", &own, Value::Null).await.0, 404);
    assert_eq!(desk.get("/alerts").await["items"], json!([]));
    let audit = desk.get("/audit").await.to_string();
    assert!(audit.contains("alert.acknowledge") && audit.contains("alert.silence"), "{audit}");
}

#[tokio::test]
async fn routes_thresholds_and_the_mail_server_are_replaced_whole_and_the_password_told_to_nobody()
{
    let desk = Desk::new().await;
    let routes = format!("{LOJA}/alert-routes");
    let set = json!({ "mails": [{ "address": "ana@loja.example", "language": "pt", "environment": "prod" },
        { "address": "rui@loja.example" }] });
    let told = desk.done("PUT", &routes, set).await;
    assert_eq!((&told["log"], &told["mailServer"]), (&json!(true), &json!(false)));
    assert_eq!(told["mails"][0]["language"], "pt");
    assert_eq!(told["mails"][1]["environment"], Value::Null);
    let twice = json!({ "mails": [{ "address": "a@b.example" }, { "address": "a@b.example" }] });
    assert_eq!(desk.call("PUT", &routes, twice).await.0, 409);
    assert_eq!(desk.get(&routes).await, told, "nothing changed");
    let own = json!({ "mails": [{ "address": "root@loja.example", "environment": "prod" }] });
    assert_eq!(desk.call("PUT", "/alert-routes", own).await.0, 400);
    desk.done("PUT", "/alert-routes", json!({ "mails": [] })).await;
    let thresholds = format!("{LOJA}/alert-thresholds");
    let set = json!({ "thresholds": [{ "rule": "freshness", "environment": "prod", "table": "flan", "value": 30 }] });
    let set = desk.done("PUT", &thresholds, set).await;
    assert_eq!(
        (&set["items"][0]["table"], &set["items"][0]["value"]),
        (&json!("flan"), &json!(30))
    );
    for bad in [
        json!({ "thresholds": [{ "rule": "storm", "value": 1 }] }),
        json!({ "thresholds": [{ "rule": "disk", "value": 1 }] }),
        json!({ "thresholds": [{ "rule": "agent-dead", "table": "FLAN", "value": 1 }] }),
    ] {
        assert_eq!(desk.call("PUT", &thresholds, bad.clone()).await.0, 400, "{bad}");
    }
    let mail = json!({ "host": "smtp.example.com", "tls": "starttls", "from": "malote@loja.example",
        "user": "malote", "password": "canary-7" });
    let set = desk.done("PUT", "/alert-mail", mail).await;
    assert_eq!((&set["port"], &set["user"]), (&json!(587), &json!("malote")));
    let half = json!({ "host": "h", "tls": "tls", "from": "a@b.example", "user": "malote" });
    assert_eq!(desk.call("PUT", "/alert-mail", half).await.0, 400);
    let all = [set, desk.get("/alert-mail").await, desk.get("/audit").await];
    assert!(all.iter().all(|told| !told.to_string().contains("canary")), "{all:?}");
    desk.done("DELETE", "/alert-mail", Value::Null).await;
    assert_eq!(desk.call("GET", "/alert-mail", Value::Null).await.0, 404);
}
