use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use axum::{
    Router,
    body::Bytes,
    extract::State as Held,
    http::{HeaderMap, StatusCode, Uri},
    response::IntoResponse as _,
};
use protocol::ids::{BatchId, EnvironmentId};
use serde_json::Value;

use super::*;
use crate::{
    model::{
        delivery::{Next, Outcome},
        retention::Policy,
        webhook::Claim,
    },
    service::{
        retention::Retention,
        trial::{
            NOW, Trial, at,
            stage::{Cells, Stage},
        },
    },
    store::staging::Spaces,
};

const COLUMNS: Cells<'_> = &[("ID", "integer"), ("S", "string")];
const BAD: Outcome = Outcome::Answered { status: 500, retry_after: None };
const GOOD: Outcome = Outcome::Answered { status: 204, retry_after: None };

/// A stage with webhooks; plain http and private addresses are allowed.
struct Scene {
    stage: Stage,
    webhooks: Webhooks,
}

impl Scene {
    async fn new() -> Self {
        Self::calling(Calling {
            source: "https://malote.example".into(),
            reach: Reach { allow_private: true, ..Reach::default() },
            ..Calling::default()
        })
        .await
    }

    async fn calling(calling: Calling) -> Self {
        let stage = Stage::new();
        let store = stage.trial.store.clone();
        let access = Access::open(store.clone(), &stage.trial.data(), String::new()).await.unwrap();
        let webhooks = Webhooks::new(store, access, stage.staging.clone()).calling(calling);
        Self { stage, webhooks }
    }

    fn tenant(&self) -> TenantId {
        self.stage.trial.caller.tenant
    }

    async fn try_add(&self, name: &str, url: &str, events: &[EventKind]) -> Result<WithSecret> {
        let new = NewWebhook {
            name: name.into(),
            url: url.into(),
            events: events.to_vec(),
            description: String::new(),
            environment: None,
        };
        self.webhooks.create(self.tenant(), new).await
    }

    async fn add(&self, name: &str, url: &str, events: &[EventKind]) -> WithSecret {
        self.try_add(name, url, events).await.unwrap()
    }

    /// Every kind of event to an address that is never called.
    async fn told(&self, name: &str) -> Webhook {
        self.add(name, "https://etl.example/", &EventKind::ASKED).await.webhook
    }

    async fn write(&self, batch: i64, number: i32) {
        let id = number.to_string();
        self.stage.send((batch, number), COLUMNS, &[&[("ID", &id), ("S", "a")]]).await;
    }

    /// A complete batch of one row.
    async fn batch(&self, batch: i64) {
        self.write(batch, 1).await;
        self.stage.end(batch, 1, 1).await;
    }

    /// What waits for one of the webhooks, the newest first.
    async fn deliveries(&self, webhook: &Webhook) -> Vec<Delivery> {
        let page = Page { limit: 100, ..Page::default() };
        self.webhooks.deliveries(webhook.clone(), (None, None), page).await.unwrap()
    }

    async fn kinds(&self, webhook: &Webhook) -> Vec<(EventKind, i64)> {
        let found = self.deliveries(webhook).await.into_iter().rev();
        found.map(|delivery| (delivery.kind, delivery.batch.unwrap_or_default().0)).collect()
    }

    async fn data(&self, webhook: &Webhook, batch: i64, kind: EventKind) -> Value {
        let all = self.deliveries(webhook).await;
        let found = all.iter().find(|one| one.batch == Some(BatchId(batch)) && one.kind == kind);
        let id = found.unwrap().id;
        let (_, body) = self.webhooks.delivery(webhook.clone(), id).await.unwrap();
        serde_json::from_str::<Value>(&body).unwrap()["data"].clone()
    }

    async fn claim(&self, now: Wall) -> Vec<Claim> {
        let schedule = self.webhooks.calling.schedule;
        self.webhooks.store.claim_deliveries(100, schedule, (now, 1.0)).await.unwrap()
    }

    async fn settle(&self, claim: &Claim, outcome: Outcome, now: Wall) -> Option<Next> {
        let (store, schedule) = (&self.webhooks.store, self.webhooks.calling.schedule);
        let words = Some("a reason".to_owned());
        store.settle_delivery(claim.receipt, (outcome, words), schedule, (now, 1.0)).await.unwrap()
    }

    /// Lets staged batches go, as the task does.
    async fn staged(&self) {
        self.stage.caught_up().await;
        self.webhooks.deliverer().unwrap().release().await.unwrap();
    }

    fn events(&self) -> i64 {
        self.stage.trial.count("SELECT count(*) FROM webhook_event")
    }
}

#[tokio::test]
async fn a_complete_batch_is_told_once_its_rows_are_staged_and_not_before() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    let deliverer = scene.webhooks.deliverer().unwrap();
    scene.batch(100).await;
    deliverer.release().await.unwrap();
    assert!(scene.deliveries(&webhook).await[0].waits_for_staging);
    assert!(scene.claim(NOW).await.is_empty(), "accepted, not staged");
    scene.staged().await;
    assert!(!scene.deliveries(&webhook).await[0].waits_for_staging);
    assert_eq!(scene.stage.rows().await, ["ID=1 S=a"]);
    let claims = scene.claim(NOW).await;
    assert_eq!((claims.len(), claims[0].event.kind), (1, EventKind::Complete));
    assert_eq!(scene.settle(&claims[0], GOOD, NOW).await, Some(Next::Done));
    assert!(scene.claim(at(10_000)).await.is_empty(), "told once");
}

#[tokio::test]
async fn a_stream_whose_staging_space_is_damaged_holds_back_only_itself() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    scene.batch(100).await;
    let (environment, erp, _) = scene.stage.place();
    // Another environment, looked at first.
    let other = "00000000-0000-0000-0000-000000000000";
    if scene.stage.trial.is_a_file() {
        let folder = scene.stage.trial.data().join("staging").join(other);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{erp}.sqlite")), [7; 8_192]).unwrap();
    } else {
        let schema = Spaces::schema(EnvironmentId(uuid::Uuid::nil()), &erp);
        let begun =
            format!("CREATE SCHEMA {schema}; CREATE TABLE {schema}.malote_progress (a text)");
        scene.stage.trial.run(&begun);
    }
    scene.stage.trial.run(&format!(
        "INSERT INTO webhook_event (id, tenant_id, type, environment_id, erp, batch, at, data, held_for)
         SELECT '{other}', tenant_id, type, '{other}', erp, batch, at, data, held_for FROM webhook_event
         WHERE environment_id = '{environment}'"
    ));
    scene.stage.caught_up().await;
    let failed = scene.webhooks.deliverer().unwrap().release().await.unwrap_err();
    assert!(failed.message.contains(other), "{failed:?}");
    assert!(!scene.deliveries(&webhook).await[0].waits_for_staging, "the other stream is let go");
}

#[tokio::test]
async fn what_is_missing_is_told_when_a_summary_is_refused_and_when_a_batch_is_given_up() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    scene.write(100, 1).await;
    let summary = |messages| protocol::proto::totvs::BatchSummary {
        erp: "RM".into(),
        batch_id: 100,
        message_count: messages,
        record_count: 9,
        timestamp_start: None,
        timestamp_end: None,
    };
    let Stage { ingest, trial, .. } = &scene.stage;
    for messages in [4, 1] {
        let refused = ingest.summary(&trial.caller, None, &[], &summary(messages), NOW).await;
        refused.unwrap_err();
    }
    scene.write(101, 1).await;
    scene.batch(102).await;
    use EventKind::{Complete, Incomplete};
    let expected = [(Incomplete, 100), (Incomplete, 101), (Complete, 102)];
    assert_eq!(scene.kinds(&webhook).await, expected, "each once");
    let first = scene.data(&webhook, 100, Incomplete).await;
    assert_eq!(first["missingMessages"], json!({ "from": 2, "to": 4 }));
    assert_eq!((&first["state"], &first["reason"]), (&json!("open"), &json!("MESSAGES_MISSING")));
    assert_eq!(first["tables"], json!(["FLAN"]), "by the name it was shared under");
    let second = scene.data(&webhook, 101, Incomplete).await;
    assert_eq!((&second["state"], &second["missingMessages"]), (&json!("abandoned"), &Value::Null));
    // One that was refused at first may become complete yet, and then is told so.
    scene.write(103, 1).await;
    let short = protocol::proto::totvs::BatchSummary { batch_id: 103, ..summary(2) };
    ingest.summary(&trial.caller, None, &[], &short, NOW).await.unwrap_err();
    scene.write(103, 2).await;
    scene.stage.end(103, 2, 2).await;
    let kinds = scene.kinds(&webhook).await;
    assert_eq!(kinds[3..], [(Incomplete, 103), (Complete, 103)]);
    scene.staged().await;
    assert!(scene.deliveries(&webhook).await.iter().all(|one| !one.waits_for_staging));
}

#[tokio::test]
async fn a_batch_that_is_silent_for_a_minute_is_told_as_stalled_once() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    scene.write(100, 1).await;
    let ingest = &scene.stage.ingest;
    assert_eq!(ingest.tell_stalled(at(59)).await.unwrap(), 0);
    assert_eq!(ingest.tell_stalled(at(60)).await.unwrap(), 1);
    assert_eq!(ingest.tell_stalled(at(75)).await.unwrap(), 0);
    let data = scene.data(&webhook, 100, EventKind::Stalled).await;
    assert_eq!(data["since"].as_str(), Some(NOW.to_iso().as_str()));
    ingest.abandon_silent(at(600)).await.unwrap();
    let expected = [(EventKind::Stalled, 100), (EventKind::Incomplete, 100)];
    assert_eq!(scene.kinds(&webhook).await, expected);
}

#[tokio::test]
async fn only_who_asks_is_told_and_where_nobody_asks_nothing_is_written() {
    let scene = Scene::new().await;
    scene.batch(100).await;
    assert_eq!(scene.events(), 0);
    let other = protocol::ids::EnvironmentId(uuid::Uuid::from_u128(9));
    scene.stage.trial.run(&format!(
        "INSERT INTO environment (tenant_id, id, name, type, created_at)
         VALUES ('{}', '{other}', 'other', 'CUSTOM', 1)",
        scene.tenant()
    ));
    let elsewhere = scene.told("elsewhere").await;
    let change = WebhookChange { environment: Some(Some(other)), ..WebhookChange::default() };
    let elsewhere = scene.webhooks.change(elsewhere, change).await.unwrap();
    let alarms = scene.add("alarms", "https://etl.example/", &[EventKind::Stalled]).await.webhook;
    scene.batch(101).await;
    assert_eq!(scene.events(), 0);
    let here = WebhookChange {
        environment: Some(Some(scene.stage.trial.caller.environment)),
        ..WebhookChange::default()
    };
    let here = scene.webhooks.change(elsewhere, here).await.unwrap();
    scene.batch(102).await;
    assert_eq!(scene.kinds(&here).await, [(EventKind::Complete, 102)]);
    assert!(scene.kinds(&alarms).await.is_empty());
    // What a refused call would have told is not told: one transaction.
    scene.stage.trial.refuse_rows("webhook_event");
    scene.write(103, 1).await;
    let Stage { ingest, trial, .. } = &scene.stage;
    let summary = protocol::proto::totvs::BatchSummary {
        erp: "RM".into(),
        batch_id: 103,
        message_count: 1,
        record_count: 1,
        timestamp_start: None,
        timestamp_end: None,
    };
    ingest.summary(&trial.caller, None, &[], &summary, NOW).await.unwrap_err();
    let state = "SELECT count(*) FROM batch WHERE id = 103 AND state = 'open'";
    assert_eq!(trial.count(state), 1, "no event, no complete batch");
}

#[tokio::test]
async fn one_try_at_a_time_the_oldest_first_and_a_failed_one_lets_the_others_pass() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    for batch in [100, 101, 102] {
        scene.batch(batch).await;
    }
    scene.staged().await;
    let first = scene.claim(NOW).await.remove(0);
    assert_eq!((first.attempt, first.event.data.contains("\"batchId\":100")), (1, true));
    assert!(scene.claim(NOW).await.is_empty(), "one is under way");
    let again = scene.settle(&first, BAD, NOW).await;
    assert_eq!(again, Some(Next::Again { not_before: at(60) }));
    let second = scene.claim(NOW).await.remove(0);
    assert!(second.event.data.contains("\"batchId\":101"), "the first one waits for its time");
    scene.settle(&second, GOOD, NOW).await;
    let late = scene.settle(&second, BAD, NOW).await;
    assert_eq!(late, None, "a receipt counts once");
    let states: Vec<State> =
        scene.deliveries(&webhook).await.iter().map(|delivery| delivery.state).collect();
    assert_eq!(states, [State::Ready, State::Done, State::Ready]);
    let third = scene.claim(at(60)).await.remove(0);
    assert_eq!((third.attempt, third.event.id), (2, first.event.id));
}

#[tokio::test]
async fn an_address_that_fails_again_and_again_rests_and_what_waits_uses_up_no_tries() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    for batch in 100..110 {
        scene.batch(batch).await;
    }
    scene.staged().await;
    for _ in 0..3 {
        let claim = scene.claim(NOW).await.remove(0);
        scene.settle(&claim, Outcome::Unanswered, NOW).await;
    }
    assert!(scene.claim(at(59)).await.is_empty());
    let found = scene.webhooks.find(webhook.tenant, "etl").await.unwrap();
    assert_eq!((found.failures, found.pending, found.dead), (3, 10, 0));
    let untried = scene.deliveries(&webhook).await.iter().filter(|one| one.attempts == 0).count();
    assert_eq!(untried, 7);
    let claim = scene.claim(at(60)).await.remove(0);
    scene.settle(&claim, GOOD, at(60)).await;
    let found = scene.webhooks.find(webhook.tenant, "etl").await.unwrap();
    assert_eq!((found.failures, found.rests_until), (0, None));
    assert_eq!(scene.claim(at(60)).await.len(), 1, "it answers again");
}

#[tokio::test]
async fn what_the_last_try_could_not_tell_is_dead_and_can_be_told_again() {
    let calling =
        Calling { schedule: Schedule { attempts: 2, ..Schedule::default() }, ..Calling::default() };
    let scene = Scene::calling(calling).await;
    let webhook = scene.told("etl").await;
    scene.batch(100).await;
    scene.staged().await;
    let claim = scene.claim(NOW).await.remove(0);
    scene.settle(&claim, BAD, NOW).await;
    // The process ends in the second try: its lease lapses, and that was the last one.
    assert_eq!(scene.claim(at(60)).await.len(), 1);
    assert!(scene.claim(at(89)).await.is_empty());
    assert_eq!(scene.deliveries(&webhook).await[0].state, State::Leased);
    assert!(scene.claim(at(90)).await.is_empty());
    let dead = scene.deliveries(&webhook).await.remove(0);
    assert_eq!((dead.state, dead.attempts, dead.last_status), (State::Dead, 2, None));
    assert!(dead.last_error.unwrap().contains("the server ended"));
    assert_eq!(scene.webhooks.store.delivery_counts().await.unwrap(), (0, 1));
    let all = Replay::All { state: State::Dead, since: None };
    let late = Replay::All { state: State::Dead, since: Some(At(at(1).0)) };
    let replay = async |which, dry| scene.webhooks.replay(webhook.clone(), which, dry).await;
    assert_eq!(replay(late, false).await.unwrap(), 0);
    assert_eq!(replay(all, true).await.unwrap(), 1);
    assert_eq!(scene.deliveries(&webhook).await[0].state, State::Dead, "a dry run");
    assert_eq!(replay(all, false).await.unwrap(), 1);
    let one = Replay::One(dead.id);
    assert_eq!(replay(one, false).await.unwrap_err().code, Code::NotFound, "it has not ended");
    let open = Replay::All { state: State::Ready, since: None };
    assert_eq!(replay(open, false).await.unwrap_err().code, Code::BadRequest);
    // What is told again by a person begins now; the trial's clock runs elsewhere.
    let later = Wall(Wall::now().0.max(NOW.0) + 1_000_000);
    let again = scene.claim(later).await.remove(0);
    assert_eq!((again.event.id, again.attempt), (dead.id, 1));
    scene.settle(&again, GOOD, later).await;
    assert_eq!(replay(one, false).await.unwrap(), 1, "what was taken is told again as well");
}

#[tokio::test]
async fn a_pause_holds_all_back_but_a_test_and_nothing_is_lost() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    let paused = scene.webhooks.pause(webhook).await.unwrap();
    assert!(paused.paused_at.is_some());
    scene.batch(100).await;
    scene.staged().await;
    let later = Wall(Wall::now().0.max(NOW.0) + 1_000_000);
    assert!(scene.claim(later).await.is_empty());
    let test = scene.webhooks.test(paused.clone()).await.unwrap();
    let claim = scene.claim(later).await.remove(0);
    assert_eq!((claim.event.id, claim.event.kind), (test.id, EventKind::Test));
    assert_eq!(scene.settle(&claim, BAD, later).await, Some(Next::Dead), "tried once");
    let resumed = scene.webhooks.resume(paused).await.unwrap();
    assert_eq!((resumed.paused_at, resumed.failures), (None, 0), "a test says nothing of the rest");
    assert_eq!(scene.claim(later).await.len(), 1);
    assert_eq!(scene.webhooks.store.delivery_counts().await.unwrap(), (1, 0));
}

#[tokio::test]
async fn a_tenant_has_its_share_of_calls_and_at_most_twenty_webhooks() {
    let scene = Scene::new().await;
    for at in 0..limits::TENANT_WEBHOOKS {
        scene.told(&format!("etl {at:02}")).await;
    }
    let one_more = NewWebhook {
        name: "one more".into(),
        url: "https://etl.example/".into(),
        events: Vec::new(),
        description: String::new(),
        environment: None,
    };
    let refused = scene.webhooks.create(scene.tenant(), one_more).await.unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
    scene.batch(100).await;
    scene.staged().await;
    let claims = scene.claim(NOW).await;
    assert_eq!(claims.len(), limits::TENANT_WEBHOOK_CALLS);
    scene.settle(&claims[0], GOOD, NOW).await;
    assert_eq!(scene.claim(NOW).await.len(), 1, "the one that ended makes room");
}

#[tokio::test]
async fn names_addresses_and_events_are_checked_and_a_removed_webhook_takes_its_deliveries() {
    let scene = Scene::calling(Calling::default()).await;
    let webhook = scene.told("etl").await;
    let create = async |name: &str, url: &str, events: &[EventKind]| {
        scene.try_add(name, url, events).await.err().map(|error| error.code)
    };
    let good = "https://etl.example/";
    assert_eq!(create("etl", good, &[]).await, Some(Code::AlreadyExists));
    assert_eq!(create(" ", good, &[]).await, Some(Code::BadName));
    assert_eq!(create("x", "http://127.0.0.1/", &[]).await, Some(Code::AddressRefused));
    assert_eq!(create("x", "no address", &[]).await, Some(Code::BadRequest));
    assert_eq!(create("x", good, &[EventKind::Test]).await, Some(Code::BadRequest));
    let private =
        WebhookChange { url: Some("https://10.0.0.1/".into()), ..WebhookChange::default() };
    let refused = scene.webhooks.change(webhook.clone(), private).await.unwrap_err();
    assert_eq!(refused.code, Code::AddressRefused);
    let other = scene.add("other", good, &[]).await.webhook;
    assert_eq!(other.events, [EventKind::Complete], "without events: batch.complete");
    scene.batch(100).await;
    scene.staged().await;
    assert_eq!((scene.claim(NOW).await.len(), scene.events()), (2, 1));
    scene.webhooks.remove(webhook).await.unwrap();
    assert_eq!(scene.kinds(&other).await.len(), 1);
    assert_eq!(
        (scene.webhooks.list(scene.tenant(), everything()).await.unwrap().len(), scene.events()),
        (1, 1)
    );
    scene.webhooks.remove(other).await.unwrap();
    assert_eq!(scene.events(), 0, "an event for nobody is not kept");
}

#[tokio::test]
async fn two_secrets_are_in_force_while_rotating_and_none_is_in_the_files() {
    let scene = Scene::new().await;
    let made = scene.add("etl", "https://etl.example/", &[]).await;
    let first = made.reveal().to_owned();
    assert!(first.starts_with("whsec_") && first.len() == 6 + 64);
    let rotated = scene.webhooks.rotate(made.webhook.clone(), 24).await.unwrap();
    let second = rotated.reveal().to_owned();
    assert!(rotated.webhook.former_until.is_some() && second != first);
    let third = scene.webhooks.rotate(rotated.webhook.clone(), 1).await.unwrap_err();
    assert_eq!(third.code, Code::StillUsed);
    let long = scene.webhooks.rotate(rotated.webhook.clone(), 721).await.unwrap_err();
    assert_eq!(long.code, Code::BadRequest);
    scene.stage.clock.set(Wall::now());
    scene.batch(100).await;
    scene.staged().await;
    let deliverer = scene.webhooks.deliverer().unwrap();
    let claim = deliverer.claim(1).await.unwrap().remove(0);
    let secrets = deliverer.secrets(&claim).unwrap();
    let shown: Vec<&str> = secrets.iter().map(|secret| secret.expose_secret()).collect();
    assert_eq!(shown, [second.as_str(), first.as_str()], "the newest first");
    assert!(!format!("{claim:?} {:?} {deliverer:?}", rotated).contains(&second));
    let at_once = scene.webhooks.rotate(rotated.webhook, 0).await.unwrap();
    assert_eq!(at_once.webhook.former_until, None);
    for entry in std::fs::read_dir(scene.stage.trial.data()).unwrap().flatten() {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        for secret in [&first, &second] {
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{} holds a secret", entry.path().display());
        }
    }
}

#[tokio::test]
async fn what_was_taken_goes_after_its_days_and_all_else_with_the_ledger() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    for batch in [100, 101] {
        scene.batch(batch).await;
    }
    scene.staged().await;
    let claim = scene.claim(NOW).await.remove(0);
    scene.settle(&claim, GOOD, NOW).await;
    let day = |days: i64| at(days * 86_400);
    let retention = Retention::new(scene.webhooks.store.clone(), scene.stage.staging.clone());
    let swept = async |retention: &Retention, now| {
        let due = retention.due(now).await.unwrap().removed;
        let done = retention.run(now).await.unwrap().removed;
        assert_eq!(due.deliveries, done.deliveries, "a dry run tells what a run does");
        done.deliveries
    };
    assert_eq!(swept(&retention, day(6)).await, 0);
    assert_eq!(swept(&retention, day(7)).await, 1);
    assert_eq!((scene.deliveries(&webhook).await.len(), scene.events()), (1, 1));
    let ever = Policy { body_days: 0, ledger_days: 0, delivery_days: 0, tombstone_days: 0 };
    assert_eq!(swept(&retention.clone().keeping(ever), day(10_000)).await, 0);
    assert_eq!(swept(&retention, day(89)).await, 0);
    assert_eq!(swept(&retention, day(90)).await, 1);
    assert_eq!(scene.events(), 0);
}

type Calls = Vec<(String, HeaderMap, Bytes)>;
/// A status, and a header beside it.
type Answer = (u16, Option<&'static str>);

/// A consumer that answers with these statuses in turn, then with 204.
#[derive(Clone)]
struct Consumer {
    port: u16,
    calls: Arc<Mutex<Calls>>,
    answers: Arc<Mutex<VecDeque<Answer>>>,
}

impl Consumer {
    async fn start(answers: &[Answer]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let consumer = Self {
            port: listener.local_addr().unwrap().port(),
            calls: Arc::default(),
            answers: Arc::new(Mutex::new(answers.iter().copied().collect())),
        };
        let called = |held: Held<Self>, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            held.0.answer(&uri, headers, body)
        };
        let router = Router::new().fallback(called).with_state(consumer.clone());
        drop(runtime::task::spawn("consumer", async move {
            axum::serve(listener, router).await.unwrap();
        }));
        consumer
    }

    fn answer(&self, uri: &Uri, headers: HeaderMap, body: Bytes) -> axum::response::Response {
        let calls = &mut self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((uri.to_string(), headers, body));
        let answers = &mut self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (status, header) = answers.pop_front().unwrap_or((204, None));
        let status = StatusCode::from_u16(status).unwrap();
        // Much more than is read of an answer.
        let body = if status == StatusCode::OK { "x".repeat(10_000_000) } else { String::new() };
        match header.and_then(|header| header.split_once(": ")) {
            Some((name, value)) => (status, [(name, value)], body).into_response(),
            None => (status, body).into_response(),
        }
    }

    fn calls(&self) -> Calls {
        self.calls.lock().unwrap().clone()
    }
}

impl Scene {
    /// A webhook at a consumer, with one staged batch to be told now.
    async fn at(&self, port: u16) -> (Webhook, Deliverer) {
        let url = format!("http://127.0.0.1:{port}/in?code=canary");
        let webhook = self.add("etl", &url, &[]).await.webhook;
        self.stage.clock.set(Wall::now());
        self.batch(100).await;
        self.staged().await;
        (webhook, self.webhooks.deliverer().unwrap())
    }

    /// One try, whenever it is due, and how the delivery stands behind it.
    async fn tried(&self, webhook: &Webhook, deliverer: &Deliverer) -> Delivery {
        let anytime = Wall(Wall::now().0 + 100 * 3_600_000_000);
        let claim = self.claim(anytime).await.remove(0);
        deliverer.deliver(claim).await;
        self.deliveries(webhook).await.remove(0)
    }
}

#[tokio::test]
async fn every_answer_but_2xx_repeats_a_redirect_is_not_followed_and_a_long_body_not_read() {
    let scene = Scene::new().await;
    let consumer = Consumer::start(&[
        (500, None),
        (301, Some("location: /elsewhere")),
        (429, Some("retry-after: 1800")),
        (200, None),
    ])
    .await;
    let (webhook, deliverer) = scene.at(consumer.port).await;
    let mut told = Vec::new();
    for _ in 0..4 {
        let delivery = scene.tried(&webhook, &deliverer).await;
        told.push((delivery.attempts, delivery.last_status.unwrap(), delivery.state));
        if delivery.last_status == Some(301) {
            assert!(delivery.last_error.unwrap().contains("redirect"));
        }
        if delivery.last_status == Some(429) {
            let pause = delivery.next_at.unwrap().0 - Wall::now().0;
            assert!((1_790_000_000..=1_800_000_000).contains(&pause), "{pause}");
        }
    }
    use State::{Done, Ready};
    assert_eq!(told, [(1, 500, Ready), (2, 301, Ready), (3, 429, Ready), (4, 200, Done)]);
    let calls = consumer.calls();
    assert_eq!(calls.len(), 4);
    for (path, headers, body) in &calls {
        assert_eq!((path.as_str(), body), ("/in?code=canary", &calls[0].2));
        assert_eq!(headers["x-malote-event"], "batch.complete");
        assert!(headers["x-malote-signature"].to_str().unwrap().starts_with("t="));
    }
    let event: Value = serde_json::from_slice(&calls[0].2).unwrap();
    assert_eq!(event["source"], "https://malote.example");
    assert_eq!(event["data"]["recordCount"], 1);
}

#[tokio::test]
async fn an_address_that_may_no_longer_be_called_is_not_called() {
    let scene = Scene::new().await;
    let consumer = Consumer::start(&[]).await;
    let (webhook, _) = scene.at(consumer.port).await;
    // The configuration was narrowed since: by number, and by a name that leads there.
    let closed = scene.webhooks.clone().calling(Calling::default()).deliverer().unwrap();
    let delivery = scene.tried(&webhook, &closed).await;
    assert!(delivery.last_error.unwrap().starts_with("ADDRESS_REFUSED"), "{:?}", delivery.state);
    let named = WebhookChange {
        url: Some(format!("http://localhost:{}/", consumer.port)),
        ..WebhookChange::default()
    };
    scene.webhooks.change(webhook.clone(), named).await.unwrap();
    let delivery = scene.tried(&webhook, &closed).await;
    assert!(delivery.last_error.unwrap().starts_with("ADDRESS_REFUSED"));
    assert!(consumer.calls().is_empty());
    let listed = Reach { allow_private: false, private_hosts: vec!["localhost".into()] };
    let open = Calling { reach: listed, ..Calling::default() };
    let open = scene.webhooks.clone().calling(open).deliverer().unwrap();
    assert_eq!(scene.tried(&webhook, &open).await.state, State::Done);
}

#[tokio::test]
async fn a_consumer_that_is_away_is_told_when_it_is_back() {
    let scene = Scene::new().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (webhook, deliverer) = scene.at(port).await;
    let delivery = scene.tried(&webhook, &deliverer).await;
    assert_eq!(delivery.last_error.as_deref(), Some("nothing listens there"));
    let consumer = Consumer::start(&[]).await;
    let back = WebhookChange {
        url: Some(format!("http://127.0.0.1:{}/", consumer.port)),
        ..WebhookChange::default()
    };
    scene.webhooks.change(webhook.clone(), back).await.unwrap();
    assert_eq!(scene.tried(&webhook, &deliverer).await.state, State::Done);
}

#[tokio::test]
async fn an_event_survives_the_end_of_the_process() {
    let scene = Scene::new().await;
    let webhook = scene.told("etl").await;
    scene.batch(100).await;
    let Scene { stage, webhooks } = scene;
    let trial: Trial = stage.trial.reopen();
    let stage = Stage::over(trial);
    let webhooks =
        Webhooks { store: stage.trial.store.clone(), staging: stage.staging.clone(), ..webhooks };
    let scene = Scene { stage, webhooks };
    assert!(scene.claim(NOW).await.is_empty());
    scene.staged().await;
    assert_eq!(scene.claim(NOW).await.len(), 1);
    assert_eq!(scene.kinds(&webhook).await, [(EventKind::Complete, 100)]);
}
