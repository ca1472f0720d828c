use protocol::proto::{
    fleet::{ReportRequest, TableReport, TableState},
    ingestion::{DatabaseIdentity, OpenRequest, Versions, open_response},
};

use super::*;
use crate::{app::fixture::Running, model::alert::Rule, service::webhooks::NewWebhook};

fn later(now: Wall, minutes: i64) -> Wall {
    Wall(now.0 + minutes * 60_000_000)
}

async fn open(running: &Running, wanted: Wanted) -> Vec<(Rule, String)> {
    let page = Page { limit: 100, ..Page::default() };
    let alerts = &running.app.services.alerts;
    let found = alerts.list(Some(running.tenant.id), wanted, page).await.unwrap();
    let mut found: Vec<_> = found.into_iter().map(|alert| (alert.rule, alert.subject)).collect();
    found.sort();
    found
}

async fn session(running: &Running, now: Wall) -> u64 {
    let id = running.installation.id.to_string();
    let identity = DatabaseIdentity { kind: "postgres".into(), ..Default::default() };
    let request = OpenRequest {
        erp: "RM".into(),
        instance_id: id.clone(),
        nonce: id,
        database_identity: Some(identity),
        versions: Some(Versions { protocol: 1, ..Default::default() }),
    };
    let sessions = &running.app.services.sessions;
    let opened = sessions.open(&running.caller(), request, now).await.unwrap();
    match opened.result {
        Some(open_response::Result::Granted(granted)) => granted.epoch,
        other => panic!("{other:?}"),
    }
}

/// What the agent of that epoch tells of FLAN.
async fn reported(running: &Running, epoch: u64, table: TableReport, now: Wall) {
    let table = TableReport { name: "FLAN".into(), ..table };
    let request =
        ReportRequest { erp: "RM".into(), epoch, tables: vec![table], ..Default::default() };
    running.app.services.fleet.report(&running.caller(), request, now).await.unwrap();
}

fn differing(rows: u64) -> TableReport {
    TableReport { differences: rows, verified_at: 1, ..TableReport::default() }
}

#[tokio::test]
async fn what_the_server_knows_is_told_and_ends_when_it_ends() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    look.look(now).await.unwrap();
    assert_eq!(open(&running, Wanted::All).await, [], "nobody was ever there");
    // The second batch gives the first one up; a row is no number and cannot be staged.
    let running = &running;
    running.sent((100, 1), &[&[("ID", "1"), ("N", "1")], &[("ID", "2"), ("N", "x")]]).await;
    running.sent((101, 1), &[&[("ID", "1"), ("N", "1")]]).await;
    session(running, now).await;
    look.look(now).await.unwrap();
    let two = [(Rule::BatchIncomplete, String::new()), (Rule::Quarantine, String::new())];
    assert_eq!(open(running, Wanted::Open).await, two);
    // The lease lapses; what follows from an agent that is gone is not told beside it.
    look.look(later(now, 2)).await.unwrap();
    look.look(later(now, 100)).await.unwrap();
    let found = open(running, Wanted::Open).await;
    assert!(found.contains(&(Rule::AgentDead, String::new())), "{found:?}");
    assert!(!found.contains(&(Rule::Freshness, String::new())), "{found:?}");
    // It is back, and a person gave the row up.
    session(running, later(now, 101)).await;
    let discarded = running.app.services.staging.quarantined(
        &running.place,
        Default::default(),
        Page { limit: 10, ..Page::default() },
    );
    let row = discarded.await.unwrap().remove(0).id();
    let reason = ("test", false);
    running.app.services.staging.discard(&running.place, &row, reason).await.unwrap();
    look.look(later(now, 101)).await.unwrap();
    look.look(later(now, 112)).await.unwrap();
    let resolved = open(running, Wanted::Resolved).await;
    assert!(resolved.contains(&(Rule::Quarantine, String::new())), "{resolved:?}");
    assert!(resolved.contains(&(Rule::AgentDead, String::new())), "{resolved:?}");
}

#[tokio::test]
async fn what_an_agent_reports_is_told_until_it_reports_that_it_is_over() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    let epoch = session(&running, later(now, -10)).await;
    let state = TableState::Parked.into();
    let parked = TableReport { state, parked_code: "SOURCE_RIGHTS".into(), ..differing(4) };
    reported(&running, epoch, parked.clone(), later(now, -10)).await;
    look.look(later(now, -10)).await.unwrap();
    let flan = |rule| (rule, "FLAN".to_owned());
    assert_eq!(open(&running, Wanted::Open).await, [flan(Rule::Differences)], "parked just now");
    let epoch = session(&running, now).await;
    reported(&running, epoch, parked, now).await;
    look.look(now).await.unwrap();
    let both = [flan(Rule::Differences), flan(Rule::TableParked)];
    assert_eq!(open(&running, Wanted::Open).await, both);
    reported(&running, epoch, differing(0), now).await;
    look.look(now).await.unwrap();
    look.look(later(now, 11)).await.unwrap();
    let resolved = open(&running, Wanted::Resolved).await;
    assert!(both.iter().all(|over| resolved.contains(over)), "{resolved:?}");
}

#[tokio::test]
async fn a_webhook_that_asks_for_alerts_is_told_of_their_begin_and_their_end() {
    let running = Running::start().await;
    let services = &running.app.services;
    let new = NewWebhook {
        name: "alarms".into(),
        url: "http://127.0.0.1:9/".into(),
        events: vec![EventKind::AlertRaised, EventKind::AlertResolved],
        description: String::new(),
        environment: None,
    };
    let webhook = services.webhooks.create(running.tenant.id, new).await.unwrap().webhook;
    let webhook = services.webhooks.pause(webhook).await.unwrap();
    let now = Wall::now();
    let epoch = session(&running, now).await;
    reported(&running, epoch, differing(4), now).await;
    let mut look = services.alerts.looking();
    look.look(now).await.unwrap();
    reported(&running, epoch, differing(0), now).await;
    look.look(now).await.unwrap();
    look.look(later(now, 10)).await.unwrap();
    let page = Page { limit: 10, ..Page::default() };
    let told = services.webhooks.deliveries(webhook.clone(), (None, None), page).await.unwrap();
    let kinds: Vec<EventKind> = told.iter().map(|delivery| delivery.kind).collect();
    assert!(kinds.contains(&EventKind::AlertResolved), "{kinds:?}");
    assert_eq!(kinds.last(), Some(&EventKind::AlertRaised));
    let first = told.last().unwrap().id;
    let (_, body) = services.webhooks.delivery(webhook, first).await.unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["type"], "alert.raised");
    assert_eq!(body["data"]["rule"], "differences");
    assert_eq!(body["data"]["table"], "FLAN");
    assert!(body["data"]["text"].as_str().unwrap().contains("4 row(s) differ"), "{body}");
    let routes = services.alerts.routes(Some(running.tenant.id)).await.unwrap();
    assert_eq!(routes.webhooks, ["alarms"]);
}

#[tokio::test]
async fn without_a_mail_server_mails_wait_and_a_test_says_so() {
    let running = Running::start().await;
    let alerts = &running.app.services.alerts;
    let route = |address: &str| NewRoute {
        address: address.into(),
        language: Language::Pt,
        environment: None,
    };
    let tenant = Some(running.tenant.id);
    let bad = alerts.set_routes(tenant, vec![route("ana")]).await.unwrap_err();
    assert_eq!(bad.code, Code::BadRequest);
    let many = (0..=limits::ALERT_ADDRESSES).map(|n| route(&format!("a{n}@x.example"))).collect();
    assert_eq!(alerts.set_routes(tenant, many).await.unwrap_err().code, Code::BadRequest);
    let set = alerts.set_routes(tenant, vec![route("ana@loja.example")]).await.unwrap();
    assert!(!set.mail_server);
    let now = Wall::now();
    let epoch = session(&running, now).await;
    reported(&running, epoch, differing(4), now).await;
    let mut look = alerts.looking();
    look.look(now).await.unwrap();
    assert_eq!(look.send().await.unwrap(), 0);
    assert_eq!(alerts.routes(tenant).await.unwrap().mails[0].waiting, 1);
    let untold = alerts.test("ana@loja.example", Language::En).await.unwrap_err();
    assert_eq!(untold.code, Code::MailUnsent);
    // One that nobody listens at: the reason is told, and the mail is tried again.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = |tls, login| NewMailServer {
        host: "127.0.0.1".into(),
        port: Some(closed),
        tls,
        from: "malote@loja.example".into(),
        login,
    };
    alerts.set_mail_server(server(MailTls::None, None)).await.unwrap();
    let untold = alerts.test("ana@loja.example", Language::En).await.unwrap_err();
    assert_eq!((untold.code, untold.message.as_str()), (Code::MailUnsent, "nothing listens there"));
    assert_eq!(look.send().await.unwrap(), 0);
    let mails = alerts.routes(tenant).await.unwrap().mails;
    assert_eq!(
        (mails[0].waiting, mails[0].last_error.as_deref()),
        (1, Some("nothing listens there"))
    );
}

#[tokio::test]
async fn a_login_never_travels_in_plain_text_and_its_password_is_told_to_nobody() {
    let running = Running::start().await;
    let alerts = &running.app.services.alerts;
    let server = |host: &str, tls| NewMailServer {
        host: host.into(),
        port: None,
        tls,
        from: "Malote <malote@loja.example>".into(),
        login: Some(("malote".into(), "canary-9".into())),
    };
    let plain = alerts.set_mail_server(server("smtp.example.com", MailTls::None)).await;
    assert_eq!(plain.unwrap_err().code, Code::BadRequest);
    assert!(alerts.set_mail_server(server("127.0.0.1", MailTls::None)).await.is_ok());
    let set = alerts.set_mail_server(server("smtp.example.com", MailTls::StartTls)).await.unwrap();
    assert_eq!(set.port, 587);
    let shown = format!("{set:?} {}", serde_json::to_string(&set).unwrap());
    assert!(!shown.contains("canary"), "{shown}");
    let stored = std::fs::read(running.folder.path().join("store.sqlite")).unwrap();
    let log = std::fs::read(running.folder.path().join("store.sqlite-wal")).unwrap_or_default();
    for bytes in [stored, log] {
        assert!(!bytes.windows(8).any(|part| part == b"canary-9"), "it is kept sealed");
    }
    alerts.remove_mail_server().await.unwrap();
    assert_eq!(alerts.mail_server().await.unwrap_err().code, Code::NotFound);
}
