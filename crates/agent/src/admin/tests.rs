use protocol::ids::Epoch;
use runtime::shutdown;

use super::{client::Client, *};
use crate::journal::{
    Answer, Counted, Differences, Incident, LinkPhase, LinkState, Outcome, Progress, Stage,
    TableStatus,
};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

struct Running {
    folder: tempfile::TempDir,
    journal: Journal,
    address: SocketAddr,
    trigger: shutdown::Trigger,
    task: runtime::task::Task<Result<()>>,
}

async fn running() -> Running {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).await.unwrap().0;
    let admin = Admin::bind(journal.clone(), folder.path(), ANY).await.unwrap();
    let address = admin.address();
    let (trigger, seen) = shutdown::channel();
    let task = runtime::task::spawn("admin", admin.serve(seen));
    Running { folder, journal, address, trigger, task }
}

async fn code(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn status_and_reload_go_through_the_door_with_the_folder_s_token_alone() {
    let running = running().await;
    let journal = &running.journal;
    let plan =
        r#"{"uploadVersion":2,"queries":[{"table":"SE1","filter":null,"forceReload":false}]}"#;
    journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    let table: protocol::names::TableName = "SE1".parse().unwrap();
    let status = TableStatus {
        table: table.clone(),
        state: "STREAMING".into(),
        mode: "TIMESTAMP".into(),
        watermark: None,
        lag_ms: Some(12),
        held_by: None,
        degraded: None,
        parked: None,
        hint: None,
        next_try: None,
        paused: None,
        rows_sent: 3,
        deletes_sent: 0,
        quarantined: 0,
        loaded: None,
    };
    journal.save_status(vec![status.clone()]).await.unwrap();
    let incident = Incident {
        table: Some(table.clone()),
        key_hash: Some("ab".into()),
        code: Code::ValueUnfit,
        words: "w".into(),
        at_micros: 0,
    };
    journal.incident(incident).await.unwrap();
    journal.set_link(LinkState {
        phase: LinkPhase::Sending,
        epoch: Some(Epoch(4)),
        ..LinkState::default()
    });

    let client = Client::open(running.folder.path(), ANY).unwrap();
    let seen = client.status().await.unwrap();
    assert!(seen.configured);
    assert_eq!((seen.link.phase, seen.link.epoch), (LinkPhase::Sending, Some(Epoch(4))));
    assert_eq!(seen.tables, [status]);
    assert_eq!(
        (seen.incidents[0].code.as_str(), seen.incidents[0].at.as_str()),
        ("VALUE_UNFIT", "1970-01-01T00:00:00Z")
    );

    client.reload(Some(&table)).await.unwrap();
    let first = journal.reload_requests().await.unwrap()[&table];
    client.reload(None).await.unwrap();
    assert!(journal.reload_requests().await.unwrap()[&table] > first);
    let unknown = client.reload(Some(&"NOPE".parse().unwrap())).await.unwrap_err();
    assert_eq!(unknown.code, Code::NotFound);

    running.trigger.drain();
    running.task.join().await.unwrap().unwrap();
    let away = client.status().await.unwrap_err();
    assert_eq!(away.code, Code::AgentAway);
    let folder = running.folder.path().display().to_string();
    assert!(away.message.contains(&folder), "{away}");
}

#[tokio::test]
async fn deletes_above_the_cap_are_listed_and_answered_through_the_door_by_their_number() {
    let running = running().await;
    let journal = &running.journal;
    let table: protocol::names::TableName = "SE1".parse().unwrap();
    let client = Client::open(running.folder.path(), ANY).unwrap();
    let mut answer =
        AnswerDeletes { table: table.clone(), confirm: true, rows: Some(700), dry_run: true };
    assert_eq!(client.answer_deletes(&answer).await.unwrap_err().code, Code::NotFound);
    assert!(client.deletes().await.unwrap().is_empty());
    let counted = Counted { gone: 700, known: 1_000, cap: 500 };
    journal.count_deletes(&table, counted, runtime::clock::Wall(0)).await.unwrap();
    let would = client.answer_deletes(&answer).await.unwrap();
    assert_eq!((would.rows, would.answer), (700, Answer::Confirmed));
    let waits = client.deletes().await.unwrap();
    assert_eq!(
        (waits[0].since.as_str(), waits[0].answer),
        ("1970-01-01T00:00:00Z", Answer::Waiting)
    );
    assert_eq!(client.status().await.unwrap().deletes, waits);
    answer = AnswerDeletes { rows: Some(699), dry_run: false, ..answer };
    let other = client.answer_deletes(&answer).await.unwrap_err();
    assert_eq!(other.code, Code::DeletesCapped);
    assert!(other.message.contains("700"), "{other}");
    answer.rows = None;
    client.answer_deletes(&answer).await.unwrap();
    assert_eq!(journal.capped()[&table].answer, Answer::Confirmed);
    answer.confirm = false;
    client.answer_deletes(&answer).await.unwrap();
    assert_eq!(journal.capped()[&table].answer, Answer::Refused);
}

#[tokio::test]
async fn the_history_is_read_and_cleaned_through_the_door_and_sql_reads_the_two_views_alone() {
    let running = running().await;
    let table: protocol::names::TableName = "SE1".parse().unwrap();
    let incident = |at_micros| Incident {
        table: Some(table.clone()),
        key_hash: None,
        code: Code::SourceRights,
        words: "w".into(),
        at_micros,
    };
    let now = runtime::clock::Wall::now().0;
    running.journal.incident(incident(0)).await.unwrap();
    running.journal.incident(incident(now)).await.unwrap();
    let client = Client::open(running.folder.path(), ANY).unwrap();
    let told = client.history(Some("se1"), 9).await.unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(
        (told[1].started.as_str(), told[1].error.as_deref()),
        ("1970-01-01T00:00:00Z", Some("SOURCE_RIGHTS: w"))
    );
    assert!(client.history(Some("other"), 9).await.unwrap().is_empty());
    let mut order = CleanOrder { days: 1, max_rows: 9, dry_run: true };
    let would = client.history_clean(&order).await.unwrap();
    assert_eq!((would.removed, would.left), (1, 1));
    assert_eq!(client.history(None, 9).await.unwrap().len(), 2, "a dry run takes nothing");
    order.dry_run = false;
    assert_eq!(client.history_clean(&order).await.unwrap().removed, 1);
    let sql = "SELECT CONCEITO, STATUS, RECORDS FROM GTOTVSAPPCONCEITOHST ORDER BY ID";
    let selected = client.select(sql, 9).await.unwrap();
    assert_eq!(selected.columns, ["CONCEITO", "STATUS", "RECORDS"]);
    assert_eq!(
        serde_json::to_string(&selected.rows).unwrap(),
        r#"[["SE1","ERROR",0],["job:history-clean","SUCCESS",1]]"#
    );
    let refused = client.select("SELECT * FROM fact", 9).await.unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
}

#[tokio::test]
async fn a_pause_is_told_with_who_when_and_why_and_lifted_by_itself() {
    let running = running().await;
    let client = Client::open(running.folder.path(), ANY).unwrap();
    let table: Option<protocol::names::TableName> = Some("SE1".parse().unwrap());
    let order = |table: &Option<protocol::names::TableName>| PauseOrder {
        table: table.clone(),
        who: "ana".into(),
        why: "month\nend".into(),
    };
    client.pause(&order(&table)).await.unwrap();
    client.pause(&order(&None)).await.unwrap();
    let told = client.status().await.unwrap().halts;
    assert_eq!((told.len(), &told[0].table, &told[1].table), (2, &None, &table));
    assert_eq!((told[1].who.as_str(), told[1].why.as_str()), ("ana", "month end"));
    client.resume(&ResumeOrder::default()).await.unwrap();
    assert_eq!(client.status().await.unwrap().halts.len(), 1, "its own pause stays");
    let again = client.resume(&ResumeOrder::default()).await.unwrap_err();
    assert_eq!(again.code, Code::NotFound);
    client.resume(&ResumeOrder { table: None, all: true }).await.unwrap();
    assert!(client.status().await.unwrap().halts.is_empty());
    let both = ResumeOrder { table: table.clone(), all: true };
    assert_eq!(client.resume(&both).await.unwrap_err().code, Code::BadRequest);
    let nobody = PauseOrder { who: " ".into(), ..order(&table) };
    assert_eq!(client.pause(&nobody).await.unwrap_err().code, Code::BadRequest);
    let plan =
        r#"{"uploadVersion":2,"queries":[{"table":"FLAN","filter":null,"forceReload":false}]}"#;
    running.journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    assert_eq!(client.pause(&order(&table)).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn a_door_without_configuration_tells_what_is_missing_and_links_itself_for_want_of_another() {
    let folder = tempfile::tempdir().unwrap();
    let journal = Journal::open(folder.path()).await.unwrap().0;
    for link in [None, Some("https://malote.example/".to_owned())] {
        let admin = Admin::bind(journal.clone(), folder.path(), ANY).await.unwrap();
        let own = format!("http://{}/", admin.address());
        let admin = admin.unconfigured(vec!["source.url"], link.clone());
        let (trigger, seen) = shutdown::channel();
        let task = runtime::task::spawn("admin", admin.serve(seen));
        let told = Client::open(folder.path(), ANY).unwrap().status().await.unwrap();
        assert!(!told.configured);
        assert_eq!(told.missing, ["source.url"]);
        let page = reqwest::get(&own).await.unwrap().text().await.unwrap();
        assert!(page.contains("source.url") && page.contains("pt-BR"), "{page}");
        assert_eq!(told.configurator_url, Some(link.unwrap_or(own)));
        trigger.drain();
        task.join().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_detailed_log_is_switched_on_told_shown_and_switched_off_through_the_door() {
    runtime::telemetry::start("error", runtime::telemetry::LogFormat::Json);
    let running = running().await;
    let client = Client::open(running.folder.path(), ANY).unwrap();
    let part = client::LogPart::Last(9);
    assert_eq!(client.log_page(part).await.unwrap_err().code, Code::NotFound);
    assert_eq!(client.log_off().await.unwrap(), None);
    let order =
        LogOrder { level: runtime::recording::Detail::Debug, seconds: 60, max_bytes: 100_000 };
    let long = LogOrder { seconds: 1_000_000, ..order.clone() };
    assert_eq!(client.log_on(&long).await.unwrap_err().code, Code::BadRequest);
    let on = client.log_on(&order).await.unwrap();
    assert_eq!((on.level, on.bytes, on.max_bytes), (order.level, 0, 100_000));
    tracing::debug!("a detail");
    let told = client.status().await.unwrap().detailed_log.unwrap();
    assert!(told.bytes > 0 && told.until == on.until, "{told:?}");
    let page = client.log_page(part).await.unwrap();
    assert!(page.text.contains("a detail") && page.on.is_some(), "{page:?}");
    tracing::debug!("another detail");
    let next = client.log_page(client::LogPart::From(page.next)).await.unwrap();
    assert!(next.text.contains("another detail") && !next.text.contains("\"a detail"), "{next:?}");
    assert!(client.log_off().await.unwrap().is_some());
    assert_eq!(client.status().await.unwrap().detailed_log, None);
    // It ends with the agent too.
    client.log_on(&order).await.unwrap();
    running.trigger.drain();
    running.task.join().await.unwrap().unwrap();
    assert_eq!(
        runtime::recording::of(&running.folder.path().join(crate::journal::DETAIL_LOG)),
        None
    );
}

#[tokio::test]
async fn old_history_goes_by_itself_while_the_agent_runs() {
    let running = running().await;
    let incident = Incident {
        table: Some("SE1".parse().unwrap()),
        key_hash: None,
        code: Code::SourceRights,
        words: "w".into(),
        at_micros: 0,
    };
    running.journal.incident(incident).await.unwrap();
    let (trigger, drain) = shutdown::channel();
    let order = CleanOrder { days: 30, max_rows: 10, dry_run: false };
    let every = Some(std::time::Duration::from_secs(3_600));
    let kept = runtime::task::spawn("keep", keep(running.journal.clone(), order, every, drain));
    let gone = async {
        while !running.journal.history(Some("SE1".into()), 9).await.unwrap().is_empty() {
            runtime::clock::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.unwrap();
    trigger.drain();
    kept.join().await.unwrap().unwrap();
}

#[tokio::test]
async fn without_the_token_only_health_and_metrics_answer() {
    let running = running().await;
    runtime::tls::install_provider();
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", running.address);
    assert_eq!(code(web.get(url("/v1/status"))).await, 401);
    assert_eq!(code(web.post(url("/v1/reload")).bearer_auth("wrong")).await, 401);
    assert_eq!(code(web.get(url("/v1/deletes"))).await, 401);
    assert_eq!(code(web.post(url("/v1/deletes")).body("{}")).await, 401);
    assert_eq!(code(web.post(url("/v1/sql")).body("{}")).await, 401);
    assert_eq!(code(web.get(url("/v1/history"))).await, 401);
    assert_eq!(code(web.post(url("/v1/pause")).body("{}")).await, 401);
    assert_eq!(code(web.post(url("/v1/resume")).body("{}")).await, 401);
    assert_eq!(code(web.post(url("/v1/history/clean")).body("{}")).await, 401);
    assert_eq!(code(web.get(url("/v1/logs"))).await, 401);
    assert_eq!(code(web.post(url("/v1/logs")).body("{}")).await, 401);
    assert_eq!(code(web.delete(url("/v1/logs"))).await, 401);
    assert_eq!(code(web.post(url("/v1/verify")).body("{}")).await, 401);
    assert_eq!(code(web.get(url("/v1/verify"))).await, 401);
    assert_eq!(code(web.get(url("/v1/verify/1"))).await, 401);
    assert_eq!(code(web.get(url("/healthz"))).await, 200);
    assert_eq!(code(web.get(url("/metrics"))).await, 200);
    assert_eq!(code(web.get(url("/other"))).await, 404);
    let token = std::fs::read_to_string(running.folder.path().join("admin.token")).unwrap();
    assert_eq!(token.len(), 64);
    let broken = web.post(url("/v1/reload")).bearer_auth(&token).body("[");
    assert_eq!(code(broken).await, 400);
    let nameless = web.post(url("/v1/deletes")).bearer_auth(&token).body("{}");
    assert_eq!(code(nameless).await, 400);
    for path in ["/v1/sql", "/v1/history/clean", "/v1/logs"] {
        assert_eq!(code(web.post(url(path)).bearer_auth(&token).body("{}")).await, 400, "{path}");
    }
    assert_eq!(code(web.get(url("/v1/history?limit=x")).bearer_auth(&token)).await, 400);
    assert_eq!(code(web.get(url("/v1/logs?lines=x")).bearer_auth(&token)).await, 400);
    let large = web.post(url("/v1/reload")).bearer_auth(&token).body("x".repeat(100_000));
    assert_eq!(code(large).await, 413);
    #[cfg(unix)]
    {
        let file = std::fs::metadata(running.folder.path().join("admin.token")).unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&file.permissions()) & 0o777, 0o600);
    }
    let again = token::AdminToken::obtain(running.folder.path()).unwrap();
    assert!(again.fits(&token) && !again.fits("other"), "the token is kept");
}

#[tokio::test]
async fn verifications_are_ordered_and_looked_at_through_the_door() {
    let running = running().await;
    let client = Client::open(running.folder.path(), ANY).unwrap();
    let journal = &running.journal;
    let order = VerifyTables::default();
    assert_eq!(client.verify(&order).await.unwrap_err().code, Code::NotFound, "no plan yet");
    let plan = r#"{"uploadVersion":2,"queries":[{"table":"SE1","filter":null,"forceReload":false},
                   {"table":"SE2","filter":null,"forceReload":false}]}"#;
    journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    let all = client.verify(&order).await.unwrap();
    let names: Vec<_> = all.iter().map(|one| one.table.as_str()).collect();
    assert_eq!(names, ["SE1", "SE2"]);
    let named = |names: &[&str], repair, from: &[&str], to: &[&str]| VerifyTables {
        tables: names.iter().map(|name| name.parse().unwrap()).collect(),
        repair,
        from: from.iter().map(ToString::to_string).collect(),
        to: to.iter().map(ToString::to_string).collect(),
    };
    for (order, refused) in [
        (named(&["SE1", "SE3"], false, &[], &[]), Code::NotFound),
        (named(&[], false, &["1"], &[]), Code::BadRequest),
        (named(&["SE1"], false, &["10"], &["2"]), Code::BadRequest),
        (named(&["SE1"], false, &["2"], &["2"]), Code::BadRequest),
    ] {
        assert_eq!(client.verify(&order).await.unwrap_err().code, refused, "{order:?}");
    }
    let part = client.verify(&named(&["SE2"], true, &["2"], &["10"])).await.unwrap();
    assert_eq!((part.len(), part[0].part, part[0].repair), (1, true, true));
    let taken = journal.next_verification(runtime::clock::Wall(1)).await.unwrap().unwrap();
    let progress = Progress { id: taken.0, step: "READ".into(), rows: 7 };
    journal.tell_verifying(progress.clone());
    let shown = client.verification(all[0].id).await.unwrap();
    assert_eq!((shown.stage, shown.progress), (Stage::Running, Some(progress)));
    let found = Differences { missing: 1, ..Differences::default() };
    let outcome = Outcome { rows: 9, found, ..Outcome::default() };
    journal.end_verification(taken.0, Ok(outcome), runtime::clock::Wall(2)).await.unwrap();
    let shown = client.verification(all[0].id).await.unwrap();
    assert_eq!((shown.stage, shown.outcome), (Stage::Done, Some(outcome)));
    assert_eq!(shown.progress, None);
    let status = client.status().await.unwrap();
    assert_eq!(status.verified, [shown]);
    assert_eq!(status.incidents[0].code, "DIFFERENCES_FOUND");
    assert_eq!(client.verification(99).await.unwrap_err().code, Code::NotFound);
    let token = std::fs::read_to_string(running.folder.path().join("admin.token")).unwrap();
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/v1/verify/x", "/v1/verify?limit=x", "/v1/verify?other=1"] {
        let url = format!("http://{}{path}", running.address);
        assert_eq!(code(web.get(url).bearer_auth(&token)).await, 400, "{path}");
    }
    let url = format!("http://{}/v1/verify?limit=1", running.address);
    let newest: Vec<crate::journal::Verification> = serde_json::from_slice(
        &web.get(url).bearer_auth(&token).send().await.unwrap().bytes().await.unwrap(),
    )
    .unwrap();
    assert_eq!(newest.iter().map(|one| one.id).collect::<Vec<_>>(), [part[0].id]);
}

#[tokio::test]
async fn an_address_that_is_not_loopback_or_taken_is_refused() {
    let running = running().await;
    let open: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let refused = Admin::bind(running.journal.clone(), running.folder.path(), open).await;
    assert_eq!(refused.unwrap_err().code, Code::AddressRefused);
    let taken = Admin::bind(running.journal.clone(), running.folder.path(), running.address).await;
    assert_eq!(taken.unwrap_err().code, Code::AddressInUse);
    let nowhere = tempfile::tempdir().unwrap();
    assert_eq!(Client::open(nowhere.path(), ANY).unwrap_err().code, Code::AgentAway);
}
