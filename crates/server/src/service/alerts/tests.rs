use protocol::proto::{
    fleet::{ReportRequest, TableReport, TableState},
    ingestion::{DatabaseIdentity, OpenRequest, Versions, open_response},
};

use super::*;
use crate::{
    app::fixture::Running,
    model::{alert::Rule, catalog::EnvironmentType},
    service::{Caller, webhooks::NewWebhook},
};

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
    session_of(running, &running.caller(), now).await
}

async fn session_of(running: &Running, caller: &Caller, now: Wall) -> u64 {
    let id = caller.installation.to_string();
    let identity = DatabaseIdentity { kind: "postgres".into(), ..Default::default() };
    let request = OpenRequest {
        erp: "RM".into(),
        instance_id: id.clone(),
        nonce: id,
        database_identity: Some(identity),
        versions: Some(Versions { protocol: 1, ..Default::default() }),
    };
    let sessions = &running.app.services.sessions;
    let opened = sessions.open(caller, request, now).await.unwrap();
    match opened.result {
        Some(open_response::Result::Granted(granted)) => granted.epoch,
        other => panic!("{other:?}"),
    }
}

/// What the agent of that epoch tells of FLAN.
async fn reported(running: &Running, epoch: u64, table: TableReport, now: Wall) {
    let table = TableReport { name: "FLAN".into(), ..table };
    report(running, epoch, vec![table], now).await;
}

async fn report(running: &Running, epoch: u64, tables: Vec<TableReport>, now: Wall) {
    let request = ReportRequest { erp: "RM".into(), epoch, tables, ..Default::default() };
    running.app.services.fleet.report(&running.caller(), request, now).await.unwrap();
}

/// A table in that state, with its watermark and lag.
fn table(name: &str, state: TableState, watermark: &str, lag_ms: i64) -> TableReport {
    let (name, watermark) = (name.to_owned(), watermark.to_owned());
    TableReport { name, state: state.into(), watermark, lag_ms, ..TableReport::default() }
}

/// A further environment with a sender of RM.
async fn elsewhere(running: &Running, name: &str) -> Caller {
    let (catalog, tenant) = (&running.app.services.catalog, running.tenant.id);
    let kind = EnvironmentType::Staging;
    let environment = catalog.create_environment(tenant, name, kind).await.unwrap().id;
    let erp = running.place.erp.clone();
    let made = catalog.create_installation(tenant, name, erp, Some(environment)).await.unwrap();
    Caller { environment, installation: made.id, ..running.caller() }
}

/// FLAN has a freshness threshold of its own.
async fn flan_within_thirty_minutes(running: &Running) {
    let own = Threshold {
        rule: Rule::Freshness,
        environment: None,
        table: Some("FLAN".into()),
        value: 30,
    };
    running.app.services.alerts.set_thresholds(running.tenant.id, vec![own]).await.unwrap();
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
async fn tables_that_could_not_be_verified_are_one_alert_until_they_are() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    let epoch = session(&running, now).await;
    let named = |name: &str, unverified: &str| TableReport {
        unverified: unverified.into(),
        ..table(name, TableState::Streaming, "", 0)
    };
    let report = |tables| report(&running, epoch, tables, now);
    report(vec![named("FLAN", "TIMEOUT"), named("FCFO", "TIMEOUT"), named("TMOV", "")]).await;
    look.look(now).await.unwrap();
    let one = (Rule::NotVerified, String::new());
    assert_eq!(open(&running, Wanted::Open).await, std::slice::from_ref(&one));
    report(vec![named("FLAN", ""), named("FCFO", ""), named("TMOV", "")]).await;
    look.look(now).await.unwrap();
    look.look(later(now, 11)).await.unwrap();
    let resolved = open(&running, Wanted::Resolved).await;
    assert!(resolved.contains(&one), "{resolved:?}");
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
async fn an_agent_that_is_alive_and_does_not_read_is_told_and_a_quiet_erp_is_not() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    for minutes in 0..=60 {
        let at = later(now, minutes);
        let epoch = session(&running, at).await;
        let quiet = table("FLAN", TableState::Streaming, "2026-01-05", 1_000 + minutes * 60_000);
        report(&running, epoch, vec![quiet], at).await;
        look.look(at).await.unwrap();
    }
    assert_eq!(open(&running, Wanted::All).await, [], "nothing was written in the ERP");
    // From here on capture hangs: the agent tells the last picture over and over.
    for minutes in 61..=119 {
        let at = later(now, minutes);
        let epoch = session(&running, at).await;
        let hung = table("FLAN", TableState::Streaming, "2026-01-05", 1_000 + 60 * 60_000);
        report(&running, epoch, vec![hung], at).await;
        look.look(at).await.unwrap();
        assert_eq!(open(&running, Wanted::All).await, [], "{minutes}");
    }
    let at = later(now, 120);
    let epoch = session(&running, at).await;
    let hung = table("FLAN", TableState::Streaming, "2026-01-05", 1_000 + 60 * 60_000);
    report(&running, epoch, vec![hung], at).await;
    look.look(at).await.unwrap();
    assert_eq!(open(&running, Wanted::Open).await, [(Rule::Freshness, String::new())]);
}

#[tokio::test]
async fn a_pause_that_was_forgotten_is_told_by_its_table_where_that_has_a_threshold() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    flan_within_thirty_minutes(&running).await;
    let mut look = alerts.looking();
    let mut found = Vec::new();
    for minutes in [0, 29, 30, 59, 60] {
        let at = later(now, minutes);
        let epoch = session(&running, at).await;
        let paused = ["FLAN", "TMOV"].map(|name| table(name, TableState::Paused, "a", 1));
        report(&running, epoch, paused.to_vec(), at).await;
        look.look(at).await.unwrap();
        found.push(open(&running, Wanted::Open).await);
    }
    let (flan, all) = ((Rule::Freshness, "FLAN".to_owned()), (Rule::Freshness, String::new()));
    assert_eq!(found[..2], [vec![], vec![]]);
    assert_eq!(found[2..], [vec![flan.clone()], vec![flan.clone()], vec![all, flan]]);
    let page = Page { limit: 9, ..Page::default() };
    let listed = alerts.list(Some(running.tenant.id), Wanted::Open, page).await.unwrap();
    assert!(listed.iter().all(|alert| alert.code.as_deref() == Some("PAUSED")), "{listed:?}");
}

#[tokio::test]
async fn what_a_dead_agent_reported_stays_as_it_is_until_it_reports_again() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    let epoch = session(&running, now).await;
    reported(&running, epoch, differing(4), now).await;
    look.look(now).await.unwrap();
    let differences = (Rule::Differences, "FLAN".to_owned());
    assert_eq!(open(&running, Wanted::Open).await, std::slice::from_ref(&differences));
    // Hours later it would be told again, were anybody there to tell it.
    for minutes in [1, 6, 400] {
        look.look(later(now, minutes)).await.unwrap();
    }
    let both = [(Rule::AgentDead, String::new()), differences];
    assert_eq!(open(&running, Wanted::Open).await, both);
    let page = Page { limit: 9, ..Page::default() };
    let listed = alerts.list(Some(running.tenant.id), Wanted::Open, page).await.unwrap();
    let told = |rule| listed.iter().find(|alert| alert.rule == rule).unwrap().told_at.unwrap().0;
    assert_eq!((told(Rule::Differences), told(Rule::AgentDead)), (now.0, later(now, 400).0));
    // It is back, and has not reported yet; then it does.
    let epoch = session(&running, later(now, 401)).await;
    look.look(later(now, 401)).await.unwrap();
    assert_eq!(open(&running, Wanted::Open).await.len(), 2);
    reported(&running, epoch, differing(0), later(now, 401)).await;
    look.look(later(now, 401)).await.unwrap();
    let epoch = session(&running, later(now, 411)).await;
    reported(&running, epoch, differing(0), later(now, 411)).await;
    look.look(later(now, 411)).await.unwrap();
    assert_eq!(open(&running, Wanted::Open).await, []);
}

#[tokio::test]
async fn a_server_that_starts_anew_takes_nothing_back_that_is_still_so() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    // A capture that hangs: the same picture again and again.
    let hung = || vec![table("FLAN", TableState::Streaming, "a", 1_000)];
    for minutes in [0, 30, 61] {
        let at = later(now, minutes);
        let held = session(&running, at).await;
        report(&running, held, hung(), at).await;
        look.look(at).await.unwrap();
    }
    let stale = [(Rule::Freshness, String::new())];
    assert_eq!(open(&running, Wanted::Open).await, stale);
    let mut anew = alerts.looking();
    for minutes in [62, 80, 100] {
        let at = later(now, minutes);
        let held = session(&running, at).await;
        report(&running, held, hung(), at).await;
        anew.look(at).await.unwrap();
        assert_eq!(open(&running, Wanted::Open).await, stale, "{minutes} minutes");
    }
    // It draws again: that is over, and held for a while as always.
    for minutes in [101, 112] {
        let at = later(now, minutes);
        let held = session(&running, at).await;
        let drawn = vec![table("FLAN", TableState::Streaming, "b", 1_000 + minutes)];
        report(&running, held, drawn, at).await;
        anew.look(at).await.unwrap();
    }
    assert_eq!(open(&running, Wanted::Open).await, []);
    // Gone for as long as is asked for, and the server begins anew in between.
    for minutes in [115, 121] {
        anew.look(later(now, minutes)).await.unwrap();
    }
    let dead = [(Rule::AgentDead, String::new())];
    assert_eq!(open(&running, Wanted::Open).await, dead);
    let own = Threshold { rule: Rule::AgentDead, environment: None, table: None, value: 60 };
    alerts.set_thresholds(running.tenant.id, vec![own]).await.unwrap();
    let mut third = alerts.looking();
    for minutes in [122, 140, 160] {
        third.look(later(now, minutes)).await.unwrap();
        assert_eq!(open(&running, Wanted::Open).await, dead, "{minutes} minutes");
    }
}

#[tokio::test]
async fn nobody_is_missed_where_nobody_ever_was_or_is_to_be() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let (catalog, environment) = (&running.app.services.catalog, running.place.environment);
    let mut look = alerts.looking();
    // Bound anew: calls of before are fenced by another epoch, though there never was a session.
    catalog.unbind(&running.installation).await.unwrap();
    catalog.bind(&running.installation, environment).await.unwrap();
    for minutes in [0, 10] {
        look.look(later(now, minutes)).await.unwrap();
    }
    assert_eq!(open(&running, Wanted::All).await, []);
    session(&running, later(now, 10)).await;
    for minutes in [11, 21] {
        look.look(later(now, minutes)).await.unwrap();
    }
    let dead = [(Rule::AgentDead, String::new())];
    assert_eq!(open(&running, Wanted::Open).await, dead);
    // Nobody is bound to it any more: nobody is to send it.
    catalog.unbind(&running.installation).await.unwrap();
    for minutes in [22, 32] {
        look.look(later(now, minutes)).await.unwrap();
    }
    assert_eq!(open(&running, Wanted::Resolved).await, dead);
}

#[tokio::test]
async fn a_staging_file_that_cannot_be_read_blinds_its_stream_alone() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let mut look = alerts.looking();
    let other = elsewhere(&running, "homolog").await;
    session_of(&running, &other, now).await;
    for minutes in [1, 7] {
        look.look(later(now, minutes)).await.unwrap();
    }
    let dead = (Rule::AgentDead, String::new());
    assert_eq!(open(&running, Wanted::Open).await, std::slice::from_ref(&dead));
    let folder = running.folder.path().join("staging").join(other.environment.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("RM.sqlite"), [b'x'; 4_096]).unwrap();
    running.sent((100, 1), &[&[("ID", "1"), ("N", "1")]]).await;
    running.sent((101, 1), &[&[("ID", "1"), ("N", "1")]]).await;
    session_of(&running, &other, later(now, 8)).await;
    for minutes in [8, 20] {
        let error = look.look(later(now, minutes)).await.unwrap_err();
        assert!(error.to_string().contains(&other.environment.to_string()), "{error}");
    }
    let found = open(&running, Wanted::Open).await;
    assert!(found.contains(&(Rule::BatchIncomplete, String::new())), "{found:?}");
    assert!(found.contains(&dead), "what is told of it stays: {found:?}");
}

#[tokio::test]
async fn a_table_of_its_own_freshness_is_missed_only_where_it_is_shared() {
    let running = Running::start().await;
    let alerts = &running.app.services.alerts;
    // FLAN is shared in one of two environments, and sent in none.
    let other = elsewhere(&running, "homolog").await;
    let now = later(Wall::now(), 40);
    for caller in [&running.caller(), &other] {
        session_of(&running, caller, now).await;
    }
    flan_within_thirty_minutes(&running).await;
    alerts.looking().look(now).await.unwrap();
    assert_eq!(open(&running, Wanted::Open).await, [(Rule::Freshness, "FLAN".to_owned())]);
}

#[tokio::test]
async fn where_the_mail_server_cannot_be_reached_the_rest_of_the_round_waits() {
    let running = Running::start().await;
    let (now, alerts) = (Wall::now(), &running.app.services.alerts);
    let tenant = Some(running.tenant.id);
    let route = |address: &str| NewRoute {
        address: address.into(),
        language: Language::Pt,
        environment: None,
    };
    let routes = ["ana@loja.example", "rui@loja.example"].map(route);
    alerts.set_routes(tenant, routes.to_vec()).await.unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = NewMailServer {
        host: "127.0.0.1".into(),
        port: Some(closed),
        tls: MailTls::None,
        from: "malote@loja.example".into(),
        login: None,
    };
    alerts.set_mail_server(server).await.unwrap();
    let epoch = session(&running, now).await;
    reported(&running, epoch, differing(4), now).await;
    alerts.looking().look(now).await.unwrap();
    assert_eq!(alerts.mailing().send().await.unwrap(), 0);
    let mails = alerts.routes(tenant).await.unwrap().mails;
    let tried: Vec<bool> = mails.iter().map(|route| route.last_error.is_some()).collect();
    assert_eq!(tried, [true, false]);
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
    assert_eq!(alerts.mailing().send().await.unwrap(), 0);
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
    assert_eq!(alerts.mailing().send().await.unwrap(), 0);
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
