use protocol::ids::AcceptSeq;
use uuid::Uuid;

use super::*;
use crate::{
    model::{
        alert::{Condition, Hindrance, MailClaim, MailRoute, Rule, Unsent, rules::Threshold},
        catalog::{Environment, EnvironmentType, Tenant},
        delivery::Next,
        stream::StreamId,
    },
    store::trial::Database,
};

const MINUTE: i64 = 60_000_000;
const START: i64 = 1_800_000_000_000_000;

struct Stage {
    _folder: tempfile::TempDir,
    store: Store,
    tenant: TenantId,
    environment: EnvironmentId,
}

fn at(minutes: i64) -> Wall {
    Wall(START + minutes * MINUTE)
}

impl Stage {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Database::new(folder.path()).store().by("ana");
        let (tenant, id) = (TenantId(Uuid::from_u128(1)), EnvironmentId(Uuid::from_u128(2)));
        let created_at = At(1);
        let new = Tenant { id: tenant, name: "Loja".into(), created_at };
        store.add_tenant(new).await.unwrap();
        let kind = EnvironmentType::Production;
        let new = Environment { tenant, id, name: "prod".into(), kind, created_at };
        store.add_environment(new).await.unwrap();
        Self { _folder: folder, store, tenant, environment: id }
    }

    fn condition(&self, rule: Rule, subject: &str) -> Condition {
        let about = About {
            environment: Some(self.environment),
            erp: Some("RM".into()),
            rule,
            subject: subject.into(),
            code: None,
        };
        Condition { about, measure: Measure { amount: 3, ..Measure::default() } }
    }

    /// Tables of that many that are parked by a code.
    fn parked(&self, tables: std::ops::Range<usize>, code: &str) -> Vec<Condition> {
        let of = |table| {
            let found = self.condition(Rule::TableParked, &format!("T{table}"));
            let measure = Measure { amount: 1, since: Some(at(0)), code: Some(code.into()) };
            Condition { measure, ..found }
        };
        tables.map(of).collect()
    }

    async fn judge(&self, conditions: &[Condition], minutes: i64) -> Vec<(Rule, Option<Notice>)> {
        self.judge_found(conditions.to_vec().into(), minutes).await
    }

    async fn judge_found(&self, found: Findings, minutes: i64) -> Vec<(Rule, Option<Notice>)> {
        let moment = (Pace::default(), at(minutes));
        let turns = self.store.judge_alerts(Some(self.tenant), found, moment).await.unwrap();
        turns.into_iter().map(|turn| (turn.alert.rule, turn.notice)).collect()
    }

    fn stream(&self) -> StreamId {
        let (tenant, environment) = (self.tenant, self.environment);
        StreamId { tenant, environment, erp: "RM".parse().unwrap() }
    }

    async fn listed(&self, wanted: Wanted) -> Vec<Alert> {
        let page = Page { limit: 100, ..Page::default() };
        self.store.alerts(Some(self.tenant), wanted, page).await.unwrap()
    }

    async fn mailed_to(&self, addresses: &[&str]) {
        let route = |address: &&str| MailRoute {
            address: (*address).into(),
            language: Language::Pt,
            environment: None,
            waiting: 0,
            dead: 0,
            last_error: None,
        };
        let routes = addresses.iter().map(route).collect();
        self.store.set_mail_routes(Some(self.tenant), routes).await.unwrap();
    }

    async fn claim(&self, minutes: i64) -> Option<MailClaim> {
        self.store.claim_mail((at(minutes), 0.0)).await.unwrap()
    }

    async fn settle(&self, receipt: Uuid, failure: Option<&str>, minutes: i64) -> Option<Next> {
        let later = |words: &str| Unsent { words: words.into(), why: Hindrance::Later };
        self.settle_as(receipt, failure.map(later), minutes).await
    }

    async fn settle_as(&self, receipt: Uuid, unsent: Option<Unsent>, minutes: i64) -> Option<Next> {
        self.store.settle_mail(receipt, unsent, (at(minutes), 0.0)).await.unwrap()
    }
}

fn notices(claim: &MailClaim) -> Vec<(Rule, Notice)> {
    claim.notices.iter().map(|told| (told.about.rule, told.notice)).collect()
}

#[tokio::test]
async fn what_is_wrong_is_noted_once_and_so_is_its_end() {
    let stage = Stage::new().await;
    let wrong = [stage.condition(Rule::Quarantine, "")];
    assert_eq!(stage.judge(&wrong, 0).await, [(Rule::Quarantine, Some(Notice::Raised))]);
    assert_eq!(stage.judge(&wrong, 1).await, [], "nothing changed, nothing is written");
    assert_eq!(stage.judge(&[], 2).await, [(Rule::Quarantine, None)]);
    assert_eq!(stage.judge(&wrong, 3).await, [(Rule::Quarantine, None)], "back before its hold");
    stage.judge(&[], 4).await;
    assert_eq!(stage.judge(&[], 14).await, [(Rule::Quarantine, Some(Notice::Resolved))]);
    assert_eq!(stage.listed(Wanted::Open).await.len(), 0);
    let all = stage.listed(Wanted::All).await;
    assert_eq!((all.len(), all[0].amount), (1, 3));
    // It comes back: the same alert; and once more a day later: another one.
    stage.judge(&wrong, 20).await;
    assert_eq!(stage.listed(Wanted::Open).await[0].id, all[0].id);
    stage.judge(&[], 21).await;
    stage.judge(&[], 60).await;
    stage.judge(&wrong, 3_000).await;
    let open = stage.listed(Wanted::Open).await;
    assert_eq!((open.len(), open[0].returns), (1, 0));
    assert_ne!(open[0].id, all[0].id);
    // Another amount is shown, and not told.
    let mut more = wrong.clone();
    more[0].measure.amount = 9;
    assert_eq!(stage.judge(&more, 3_001).await, [(Rule::Quarantine, None)]);
    assert_eq!(stage.listed(Wanted::Open).await[0].amount, 9);
}

#[tokio::test]
async fn what_happens_together_is_one_mail_and_the_next_one_comes_a_minute_later_at_the_earliest() {
    let stage = Stage::new().await;
    stage.mailed_to(&["ana@loja.example"]).await;
    let wrong = [stage.condition(Rule::Quarantine, ""), stage.condition(Rule::TableParked, "FLAN")];
    stage.judge(&wrong, 0).await;
    let mail = stage.claim(0).await.unwrap();
    assert_eq!((mail.address.as_str(), mail.language), ("ana@loja.example", Language::Pt));
    assert_eq!(
        notices(&mail),
        [(Rule::Quarantine, Notice::Raised), (Rule::TableParked, Notice::Raised)]
    );
    assert_eq!(mail.notices[0].environment.as_deref(), Some("prod"));
    assert_eq!(stage.claim(0).await, None, "one mail at a time");
    assert_eq!(stage.settle(mail.receipt, None, 0).await, Some(Next::Done));
    assert_eq!(stage.settle(mail.receipt, Some("late"), 0).await, None, "it is settled");
    let third = [stage.condition(Rule::AgentDead, "")];
    stage.judge(&[wrong.to_vec(), third.to_vec()].concat(), 0).await;
    assert_eq!(stage.claim(0).await, None, "not within a minute");
    let next = stage.claim(1).await.unwrap();
    assert_eq!(notices(&next), [(Rule::AgentDead, Notice::Raised)]);
}

#[tokio::test]
async fn a_mail_whose_outcome_was_lost_is_sent_once_more_and_one_that_never_goes_is_given_up() {
    let stage = Stage::new().await;
    stage.mailed_to(&["ana@loja.example"]).await;
    stage.judge(&[stage.condition(Rule::Disk, "")], 0).await;
    let lost = stage.claim(0).await.unwrap();
    assert_eq!(stage.claim(1).await, None, "its lease holds");
    // The process ended. Its lease lapses, which is a failed try.
    assert_eq!(stage.claim(2).await, None);
    let again = stage.claim(3).await.unwrap();
    assert_eq!((again.range, again.attempt), (lost.range, 2));
    assert_eq!(stage.settle(lost.receipt, None, 3).await, None, "the old receipt says nothing");
    let mut claim = again;
    let mut minutes = 3;
    let mut tries = 2;
    while let Some(Next::Again { .. }) = stage.settle(claim.receipt, Some("no"), minutes).await {
        loop {
            minutes += 10;
            if let Some(next) = stage.claim(minutes).await {
                claim = next;
                break;
            }
        }
        tries += 1;
    }
    assert_eq!(tries, 16);
    let routes = stage.store.mail_routes(Some(stage.tenant)).await.unwrap();
    assert_eq!((routes[0].waiting, routes[0].dead), (0, 1));
    assert_eq!(routes[0].last_error.as_deref(), Some("no"));
}

#[tokio::test]
async fn what_waits_for_an_address_that_is_gone_is_not_sent() {
    let stage = Stage::new().await;
    stage.mailed_to(&["ana@loja.example", "rui@loja.example"]).await;
    stage.judge(&[stage.condition(Rule::Quarantine, "")], 0).await;
    stage.mailed_to(&["rui@loja.example"]).await;
    assert_eq!(stage.claim(0).await.unwrap().address, "rui@loja.example");
    assert_eq!(stage.claim(0).await, None);
}

#[tokio::test]
async fn a_mail_under_way_to_an_address_that_is_taken_away_is_not_tried_again() {
    let stage = Stage::new().await;
    stage.mailed_to(&["ana@loja.example"]).await;
    let wrong = [stage.condition(Rule::Quarantine, "")];
    stage.judge(&wrong, 0).await;
    let mail = stage.claim(0).await.unwrap();
    stage.mailed_to(&[]).await;
    assert_eq!(stage.settle(mail.receipt, Some("no"), 0).await, None);
    assert_eq!(stage.claim(600).await, None);
    assert_eq!(stage.store.notice_counts().await.unwrap(), (0, 0));
    // So it is where the server ended meanwhile and the lease lapses.
    stage.mailed_to(&["ana@loja.example"]).await;
    stage.judge(&wrong, 600).await;
    stage.claim(600).await.unwrap();
    stage.mailed_to(&[]).await;
    assert_eq!(stage.claim(700).await, None);
    assert_eq!(stage.store.notice_counts().await.unwrap(), (0, 0));
}

#[tokio::test]
async fn an_address_that_the_mail_server_refuses_for_good_is_not_tried_sixteen_times() {
    let stage = Stage::new().await;
    stage.mailed_to(&["nobody@loja.example"]).await;
    stage.judge(&[stage.condition(Rule::Quarantine, "")], 0).await;
    let mail = stage.claim(0).await.unwrap();
    let never = Unsent { words: "it answered 550".into(), why: Hindrance::Never };
    assert_eq!(stage.settle_as(mail.receipt, Some(never), 0).await, Some(Next::Dead));
    let route = stage.store.mail_routes(Some(stage.tenant)).await.unwrap().remove(0);
    assert_eq!((route.waiting, route.dead), (0, 1));
    assert_eq!(route.last_error.as_deref(), Some("it answered 550"));
}

#[tokio::test]
async fn tables_parked_together_are_one_alert_and_their_number_is_no_news() {
    let stage = Stage::new().await;
    let raised = (Rule::TableParked, Some(Notice::Raised));
    assert_eq!(stage.judge(&stage.parked(0..2, "DOWN"), 0).await, [raised; 2]);
    // The ERP goes down: one notice for all the others, and none is told to be over.
    let told = |turns: Vec<(Rule, Option<Notice>)>| -> Vec<Notice> {
        turns.into_iter().filter_map(|(_, notice)| notice).collect()
    };
    let all = stage.parked(0..900, "DOWN");
    assert_eq!(told(stage.judge(&all, 1).await), [Notice::Raised]);
    let open = stage.listed(Wanted::Open).await;
    assert_eq!((open.len(), open[0].subject.as_str(), open[0].amount), (3, "", 900));
    assert_eq!(open[0].code.as_deref(), Some("DOWN"));
    // Another code is another alert; both stand side by side, also once only a few of the tables are left.
    let other = stage.parked(900..910, "RIGHTS");
    assert_eq!(told(stage.judge(&[all, other.clone()].concat(), 2).await), [Notice::Raised]);
    let few = [stage.parked(0..3, "DOWN"), other].concat();
    assert_eq!(told(stage.judge(&few, 60).await), []);
    let open = stage.listed(Wanted::Open).await;
    assert_eq!(open.iter().map(|alert| alert.amount).collect::<Vec<_>>(), [10, 3, 1, 1]);
    stage.judge(&[], 61).await;
    assert_eq!(told(stage.judge(&[], 71).await), [Notice::Resolved; 4]);
}

#[tokio::test]
async fn alerts_of_what_nothing_is_known_stay_as_they_are() {
    let stage = Stage::new().await;
    let wrong = [stage.condition(Rule::Quarantine, ""), stage.condition(Rule::Differences, "FLAN")];
    stage.judge(&wrong, 0).await;
    let mut found = Findings::from(wrong[..1].to_vec());
    found.note_unknown(&stage.stream(), Some(Rule::Differences));
    // Longer than the hold, and than the pause between two notices.
    for minutes in [1, 20, 400] {
        let turns = stage.judge_found(found.clone(), minutes).await;
        assert!(turns.iter().all(|(rule, _)| *rule == Rule::Quarantine), "{turns:?}");
    }
    let differences = |alert: &Alert| alert.rule == Rule::Differences;
    let alert = stage.listed(Wanted::Open).await.into_iter().find(differences).unwrap();
    assert_eq!((alert.clear_since, alert.told_at), (None, Some(At(at(0).0))));
    // What is found again goes on, what is gone ends.
    assert_eq!(stage.judge(&wrong[..1], 401).await, [(Rule::Differences, None)]);
}

#[tokio::test]
async fn what_a_person_decides_is_in_the_audit_and_holds_for_the_own_tenant_alone() {
    let stage = Stage::new().await;
    stage.judge(&[stage.condition(Rule::Quarantine, "")], 0).await;
    let alert = stage.listed(Wanted::Open).await.remove(0);
    let other = Some(TenantId(Uuid::from_u128(9)));
    assert_eq!(stage.store.alert(other, alert.id).await.unwrap_err().code, Code::NotFound);
    assert_eq!(stage.store.alert(None, alert.id).await.unwrap_err().code, Code::NotFound);
    let seen = stage.store.acknowledge_alert(alert.clone(), at(1)).await.unwrap();
    assert_eq!(seen.acknowledged_by.as_deref(), Some("ana"));
    let silent = stage.store.silence_alert(alert.clone(), Some(at(90))).await.unwrap();
    assert_eq!(silent.silenced_until, Some(At(at(90).0)));
    let loud = stage.store.silence_alert(alert.clone(), None).await.unwrap();
    assert_eq!((loud.silenced_until, loud.silenced_by), (None, None));
    let query = crate::model::admin::AuditQuery { limit: 10, ..Default::default() };
    let entries = stage.store.audit(query).await.unwrap();
    let actions: Vec<&str> = entries.iter().map(|entry| entry.action.as_str()).collect();
    assert_eq!(actions[..3], ["alert.silence", "alert.silence", "alert.acknowledge"]);
    stage.judge(&[], 2).await;
    stage.judge(&[], 12).await;
    let error = stage.store.acknowledge_alert(alert, at(13)).await.unwrap_err();
    assert_eq!(error.code, Code::BadRequest, "it is resolved");
}

#[tokio::test]
async fn thresholds_are_replaced_whole_and_of_a_stream_without_a_session_nothing_is_known() {
    let stage = Stage::new().await;
    let threshold = |table: Option<&str>, value| Threshold {
        rule: Rule::Freshness,
        environment: Some(stage.environment),
        table: table.map(str::to_owned),
        value,
    };
    let all = vec![threshold(None, 5), threshold(Some("FLAN"), 0)];
    stage.store.set_thresholds(stage.tenant, all.clone()).await.unwrap();
    assert_eq!(stage.store.thresholds(stage.tenant).await.unwrap().0, all);
    let twice = vec![threshold(None, 5), threshold(None, 6)];
    let error = stage.store.set_thresholds(stage.tenant, twice).await.unwrap_err();
    assert_eq!(error.code, Code::AlreadyExists);
    assert_eq!(stage.store.thresholds(stage.tenant).await.unwrap().0, all, "nothing changed");
    let stream = stage.stream();
    assert_eq!(stage.store.stream_facts(at(8)).await.unwrap(), [], "it never had a session");
    let behind = stage.store.accepted_behind(stream.clone(), AcceptSeq(0)).await.unwrap();
    assert_eq!(behind, None);
    let silent = stage.store.silent_tables(stream, vec![("flan".into(), 5)], at(9)).await.unwrap();
    assert_eq!(silent, [], "nobody shares it there");
}

#[tokio::test]
async fn what_is_past_its_days_goes_and_what_is_open_stays() {
    let stage = Stage::new().await;
    stage.mailed_to(&["ana@loja.example"]).await;
    let wrong = [stage.condition(Rule::Quarantine, ""), stage.condition(Rule::AgentDead, "")];
    stage.judge(&wrong, 0).await;
    stage.judge(&wrong[..1], 1).await;
    stage.judge(&wrong[..1], 11).await;
    let day = 1_440;
    stage.store.forget_alerts(at(6 * day)).await.unwrap();
    assert_eq!(stage.listed(Wanted::All).await.len(), 2);
    stage.store.forget_alerts(at(91 * day)).await.unwrap();
    assert_eq!(stage.listed(Wanted::All).await.len(), 1);
    assert_eq!(stage.store.notice_counts().await.unwrap(), (0, 0));
}
