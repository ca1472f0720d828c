//! Fleet on a real store: reports, orders and their life, agents as they are told.

use std::collections::BTreeMap;

use protocol::proto::{
    fleet::{CaptureMode, TableReport, TableState},
    ingestion::{ReleaseRequest, RenewRequest},
};

use super::*;
use crate::{
    model::{
        fleet::{AgentLink, Doing},
        order::Verb,
    },
    service::{
        session::Sessions,
        trial::{NOW, Trial, at},
    },
};

fn fleet(trial: &Trial) -> Fleet {
    Fleet::new(trial.store.by("ana (laptop)"))
}

fn place(trial: &Trial) -> Place {
    let Caller { tenant, environment, erp, .. } = trial.caller.clone();
    Place { tenant, environment, erp }
}

fn table(name: &str, state: TableState) -> TableReport {
    TableReport {
        name: name.into(),
        state: state.into(),
        mode: CaptureMode::Timestamp.into(),
        lag_ms: 1_000,
        ..TableReport::default()
    }
}

fn report(epoch: Epoch, tables: Vec<TableReport>) -> ReportRequest {
    ReportRequest { erp: "RM".into(), epoch: epoch.0, tables, version: "1.2.3".into() }
}

fn wish(verb: Verb, table: Option<&str>) -> OrderWish {
    let table = table.map(|name| name.parse().unwrap());
    OrderWish { verb, table, args: BTreeMap::new() }
}

fn commands(epoch: Epoch) -> CommandsRequest {
    CommandsRequest { erp: "RM".into(), epoch: epoch.0 }
}

fn progress(id: &str, done: bool, code: &str) -> ProgressRequest {
    ProgressRequest { id: id.into(), done, code: code.into() }
}

async fn agents(trial: &Trial, now: Wall) -> Vec<AgentView> {
    fleet(trial).agents(trial.caller.tenant, Page::default(), now).await.unwrap()
}

/// Numbers and states of all orders, the newest first.
async fn states(trial: &Trial) -> Vec<(i64, OrderState)> {
    let found = fleet(trial).orders(place(trial), OrderQuery::default(), Page::default()).await;
    found.unwrap().into_iter().map(|order| (order.order.unwrap(), order.state)).collect()
}

async fn tables_of(trial: &Trial, query: TableQuery, page: Page, now: Wall) -> Vec<TableView> {
    fleet(trial).tables(place(trial), query, page, now).await.unwrap()
}

#[tokio::test]
async fn a_report_is_taken_from_the_holder_alone_and_replaces_the_one_before() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let epoch = trial.open(1, 1, NOW).await;
    let first = vec![table("FLAN", TableState::BaseLoad), table("tmov", TableState::Streaming)];
    fleet.report(&trial.caller, report(epoch, first), at(1)).await.unwrap();
    let parked = TableReport {
        parked_code: "KEY_IS_NULL".into(),
        quarantined: 3,
        differences: 5,
        verified_at: at(4).0,
        ..table("flan", TableState::Parked)
    };
    let second = vec![parked, table("SE1", TableState::Streaming)];
    fleet.report(&trial.caller, report(epoch, second.clone()), at(5)).await.unwrap();
    fleet.report(&trial.caller, report(epoch, second), at(15)).await.unwrap();
    let told = tables_of(&trial, TableQuery::default(), Page::default(), at(17)).await;
    let names: Vec<_> = told.iter().map(|table| table.table.to_string()).collect();
    assert_eq!(names, ["flan", "SE1"]);
    let flan = &told[0];
    assert_eq!(
        (flan.state, flan.since, flan.reported_at),
        (Doing::Parked, At(at(5).0), At(at(15).0))
    );
    assert_eq!((flan.parked_code.as_deref(), flan.quarantined), (Some("KEY_IS_NULL"), 3));
    assert_eq!((flan.differences, flan.verified_at), (5, Some(At(at(4).0))));
    assert_eq!((told[1].differences, told[1].verified_at), (0, None));
    assert_eq!(flan.lag_ms, 3_000, "it grew since the report");
    assert_eq!(flan.watermark, None);
    // An older epoch, one of nobody, and one whose lease lapsed.
    for (epoch, now) in [(Epoch(0), at(16)), (epoch.next(), at(16)), (epoch, at(31))] {
        let refused = fleet.report(&trial.caller, report(epoch, vec![]), now).await.unwrap_err();
        assert_eq!(refused.code, Code::Fenced, "{epoch}");
    }
    assert_eq!(tables_of(&trial, TableQuery::default(), Page::default(), at(32)).await.len(), 2);
    let mut foreign = report(epoch, vec![]);
    foreign.erp = "PROTHEUS".into();
    let refused = fleet.report(&trial.caller, foreign, at(16)).await.unwrap_err();
    assert_eq!(refused.code, Code::PermissionDenied);
}

#[tokio::test]
async fn tables_are_paged_searched_and_those_in_trouble_found() {
    let trial = Trial::new();
    let epoch = trial.open(1, 1, NOW).await;
    let weak = TableReport { degraded: "overlap".into(), ..table("B2", TableState::Streaming) };
    let rows = TableReport { quarantined: 1, ..table("C", TableState::Paused) };
    let other = TableReport { differences: 1, ..table("D", TableState::Streaming) };
    let parked = table("b1", TableState::Parked);
    let all = vec![table("A", TableState::Streaming), weak, rows, other, parked];
    fleet(&trial).report(&trial.caller, report(epoch, all), at(1)).await.unwrap();
    let names = async |query: TableQuery, page: Page| {
        let found = tables_of(&trial, query, page, at(1)).await;
        found.into_iter().map(|table| table.table.to_string()).collect::<Vec<_>>()
    };
    let all = TableQuery::default();
    assert_eq!(names(all.clone(), Page::default()).await, ["A", "b1", "B2", "C", "D"]);
    let page = Page { after: "B1".into(), limit: 1, ..Page::default() };
    assert_eq!(names(all.clone(), page).await, ["B2"]);
    assert_eq!(names(all, Page { search: "B".into(), ..Page::default() }).await, ["b1", "B2"]);
    let troubled = TableQuery { troubled: true, ..TableQuery::default() };
    assert_eq!(names(troubled, Page::default()).await, ["b1", "B2", "C", "D"]);
    let paused = TableQuery { state: Some(Doing::Paused), ..TableQuery::default() };
    assert_eq!(names(paused, Page::default()).await, ["C"]);
}

#[tokio::test]
async fn an_order_is_sent_begun_and_done_once_and_comes_again_until_it_is() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let given = fleet.order(place(&trial), wish(Verb::Reload, Some("flan")), false, NOW).await;
    let number = given.unwrap().order.order.unwrap();
    assert_eq!(states(&trial).await, [(number, OrderState::Waiting)]);
    let epoch = trial.open(1, 1, Wall::now()).await;
    let mut stream = fleet.commands(&trial.caller, commands(epoch), Wall::now()).await.unwrap();
    let command = stream.next().await.unwrap().unwrap();
    assert_eq!((command.verb, command.table.as_str()), (1, "flan"));
    assert_eq!(states(&trial).await, [(number, OrderState::Sent)]);
    // The stream is cut: it comes again with the next one, under the same id.
    drop(stream);
    let mut stream = fleet.commands(&trial.caller, commands(epoch), Wall::now()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), command);
    let tell = async |done: bool, code: &str| {
        let said = progress(&command.id, done, code);
        fleet.progress(&trial.caller, Some(epoch), said, Wall::now()).await
    };
    tell(false, "").await.unwrap();
    assert_eq!(states(&trial).await, [(number, OrderState::UnderWay)]);
    let refused = fleet.withdraw(place(&trial), number, NOW).await.unwrap_err();
    assert_eq!(refused.code, Code::OrderSent);
    tell(true, "").await.unwrap();
    tell(true, "").await.unwrap();
    tell(true, "NOT_FOUND").await.unwrap();
    assert_eq!(states(&trial).await, [(number, OrderState::Done)], "the first word holds");
    let mut stream = fleet.commands(&trial.caller, commands(epoch), Wall::now()).await.unwrap();
    assert!(stream.taken.is_empty());
    stream.end = Mono::now();
    assert_eq!(stream.next().await.unwrap(), None, "the stream had its time");
}

#[tokio::test]
async fn an_order_that_is_given_while_a_stream_is_open_comes_through_it() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let epoch = trial.open(1, 1, Wall::now()).await;
    let mut stream = fleet.commands(&trial.caller, commands(epoch), Wall::now()).await.unwrap();
    // As the command line does, by another handle on the store.
    let other = Fleet::new(trial.store.clone());
    let order = async { other.order(place(&trial), wish(Verb::Retry, None), false, NOW).await };
    let (next, given) = tokio::join!(stream.next(), order);
    assert_eq!(next.unwrap().unwrap().verb, 4);
    let given = given.unwrap().order;
    let failed = async |epoch| {
        let id = trial.text("SELECT id FROM fleet_order");
        let said = progress(&id, true, "VERB_UNSUPPORTED");
        fleet.progress(&trial.caller, epoch, said, Wall::now()).await
    };
    assert_eq!(failed(Some(Epoch(7))).await.unwrap_err().code, Code::Fenced);
    // An agent that tells no epoch is heard while the lease lives.
    failed(None).await.unwrap();
    let found = fleet.one_order(place(&trial), given.order.unwrap()).await.unwrap();
    assert_eq!(
        (found.state, found.code.as_deref()),
        (OrderState::Failed, Some("VERB_UNSUPPORTED"))
    );
}

#[tokio::test]
async fn a_stream_of_commands_is_for_the_holder_and_ends_with_its_lease() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let none = fleet.commands(&trial.caller, commands(Epoch(1)), NOW).await.unwrap_err();
    assert_eq!(none.code, Code::Fenced, "there is no lease at all");
    let epoch = trial.open(1, 1, Wall::now()).await;
    let mut stream = fleet.commands(&trial.caller, commands(epoch), Wall::now()).await.unwrap();
    let release = ReleaseRequest { erp: "RM".into(), epoch: epoch.0 };
    Sessions::new(trial.store.clone()).release(&trial.caller, release, Wall::now()).await.unwrap();
    fleet.order(place(&trial), wish(Verb::Reload, None), false, NOW).await.unwrap();
    assert_eq!(stream.next().await.unwrap_err().code, Code::Fenced);
    assert_eq!(states(&trial).await[0].1, OrderState::Waiting, "it waits for the next holder");
}

#[tokio::test]
async fn a_tenant_has_so_many_streams_and_each_place_is_given_back() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let epoch = trial.open(1, 1, NOW).await;
    let open = || fleet.commands(&trial.caller, commands(epoch), at(1));
    let mut streams = Vec::new();
    for _ in 0..limits::TENANT_COMMAND_STREAMS {
        streams.push(open().await.unwrap());
    }
    let refused = open().await.unwrap_err();
    assert!(refused.code == Code::RateLimited && refused.retry_after.is_some(), "{refused}");
    streams.pop();
    assert!(open().await.is_ok());
}

#[tokio::test]
async fn an_order_is_checked_counted_withdrawn_and_audited_and_a_dry_run_leaves_no_trace() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let give = async |wish: OrderWish, dry| fleet.order(place(&trial), wish, dry, NOW).await;
    let missing = give(wish(Verb::Reload, Some("NOPE")), false).await.unwrap_err();
    assert_eq!(missing.code, Code::NotFound);
    let dry = give(wish(Verb::Pause, Some("FLAN")), true).await.unwrap();
    assert!(!dry.applied && dry.order.order.is_none() && dry.order.who == "ana (laptop)");
    assert!(states(&trial).await.is_empty());
    let mut pause = wish(Verb::Pause, Some("FLAN"));
    pause.args.insert("why".into(), "month end".into());
    let number = give(pause, false).await.unwrap().order.order.unwrap();
    for _ in 0..2 {
        let withdrawn = fleet.withdraw(place(&trial), number, at(1)).await.unwrap();
        assert_eq!(
            (withdrawn.state, withdrawn.ended_at),
            (OrderState::Withdrawn, Some(At(at(1).0)))
        );
    }
    let none = fleet.withdraw(place(&trial), number + 1, NOW).await.unwrap_err();
    assert_eq!(none.code, Code::NotFound);
    let mut other = place(&trial);
    other.tenant = TenantId(uuid::Uuid::from_u128(99));
    assert_eq!(fleet.withdraw(other, number, NOW).await.unwrap_err().code, Code::NotFound);
    let told =
        trial.text("SELECT string_agg(who || '|' || action || '|' || detail, ' ') FROM audit");
    assert!(told.starts_with("ana (laptop)|fleet.order|PAUSE why=month end ana"), "{told}");
    for _ in 0..limits::STREAM_ORDERS_OPEN {
        give(wish(Verb::Retry, None), false).await.unwrap();
    }
    for dry in [true, false] {
        let full = give(wish(Verb::Retry, None), dry).await.unwrap_err();
        assert_eq!(full.code, Code::RateLimited);
    }
}

#[tokio::test]
async fn keys_of_an_order_reach_the_agent_alone_and_are_gone_once_it_has_ended() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let epoch = trial.open(1, 1, NOW).await;
    let part = |verb| OrderWish {
        args: [("from", "canary-1"), ("to", "canary-2")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..wish(verb, Some("FLAN"))
    };
    let told = BTreeMap::from([("part".to_owned(), "yes".to_owned())]);
    let give = async |wish: OrderWish, dry| {
        let given = fleet.order(place(&trial), wish, dry, NOW).await.unwrap().order;
        assert_eq!(given.args, told);
        given.order.unwrap_or_default()
    };
    let kept =
        |number: i64| trial.text(&format!("SELECT args FROM fleet_order WHERE seq = {number}"));
    give(part(Verb::Verify), true).await;
    let withdrawn = give(part(Verb::Verify), false).await;
    fleet.withdraw(place(&trial), withdrawn, at(1)).await.unwrap();
    let numbers = [give(part(Verb::Verify), false).await, give(part(Verb::Repair), false).await];
    let mut stream = fleet.commands(&trial.caller, commands(epoch), at(1)).await.unwrap();
    for (number, code) in numbers.into_iter().zip(["", "DIFFERENCES_FOUND"]) {
        let command = stream.next().await.unwrap().unwrap();
        assert_eq!((&*command.args["from"], &*command.args["to"]), ("canary-1", "canary-2"));
        let say = async |done, code| {
            let said = progress(&command.id, done, code);
            fleet.progress(&trial.caller, Some(epoch), said, at(2)).await.unwrap();
        };
        say(false, "").await;
        assert!(kept(number).contains("canary-1"), "it may have to be given again");
        for _again in 0..2 {
            say(true, code).await;
        }
        assert_eq!(kept(number), r#"{"part":"yes"}"#);
    }
    assert_eq!(kept(withdrawn), r#"{"part":"yes"}"#);
    let found = fleet.orders(place(&trial), OrderQuery::default(), Page::default()).await.unwrap();
    assert!(found.len() == 3 && found.iter().all(|order| order.args == told), "{found:?}");
    let audit = trial.text("SELECT string_agg(target || '|' || detail, ' ') FROM audit");
    assert!(audit.contains("VERIFY part=yes") && !audit.contains("canary"), "{audit}");
}

#[tokio::test]
async fn whoever_takes_a_stream_over_is_told_the_pauses_that_hold_once() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    let order = |verb, table| fleet.order(place(&trial), wish(verb, table), false, NOW);
    // What a new stream of commands brings, all of it carried out.
    let carried = async |epoch: Epoch, now: Wall| {
        let mut told = Vec::new();
        for order in fleet.commands(&trial.caller, commands(epoch), now).await.unwrap().taken {
            let done = progress(&order.id.to_string(), true, "");
            fleet.progress(&trial.caller, Some(epoch), done, now).await.unwrap();
            told.push((order.number, order.wish.verb));
        }
        told
    };
    let first = trial.open(1, 1, NOW).await;
    order(Verb::Pause, None).await.unwrap();
    order(Verb::Resume, None).await.unwrap();
    order(Verb::Pause, Some("FLAN")).await.unwrap();
    let all = [(1, Verb::Pause), (2, Verb::Resume), (3, Verb::Pause)];
    assert_eq!(carried(first, at(1)).await, all);
    assert_eq!(carried(first, at(2)).await, [], "its own journal knows them");
    let second = trial.open(2, 2, at(40)).await;
    assert_eq!(carried(second, at(41)).await, all[1..], "what is in force, in order");
    assert_eq!(carried(second, at(42)).await, []);
    order(Verb::Resume, Some("FLAN")).await.unwrap();
    assert_eq!(carried(second, at(43)).await, [(4, Verb::Resume)]);
    assert!(states(&trial).await.iter().all(|(_, state)| *state == OrderState::Done));
    let third = trial.open(1, 1, at(80)).await;
    let told = carried(third, at(81)).await;
    assert_eq!(told.last(), Some(&(4, Verb::Resume)), "the first one still pauses it");
    assert!(!told.contains(&(3, Verb::Pause)));
}

#[tokio::test]
async fn the_oldest_orders_that_ended_go_and_those_that_did_not_stay() {
    let trial = Trial::new();
    let fleet = fleet(&trial);
    fleet.order(place(&trial), wish(Verb::Retry, None), false, NOW).await.unwrap();
    let (tenant, environment) = (trial.caller.tenant, trial.caller.environment);
    trial.run(&format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
         INSERT INTO fleet_order (id, tenant_id, environment_id, erp, verb, args, who, ordered_at, state, ended_at)
         SELECT '0000000000000000000000000000' || CAST(10000000 + i AS TEXT), '{tenant}', '{environment}', 'RM', 'RELOAD', '{{}}', 'x', 1, 'withdrawn', 2 FROM n",
        limits::STREAM_ORDERS_KEPT + 5
    ));
    fleet.order(place(&trial), wish(Verb::Retry, None), false, NOW).await.unwrap();
    let kept = i64::try_from(limits::STREAM_ORDERS_KEPT).unwrap();
    assert_eq!(trial.count("SELECT count(*) FROM fleet_order WHERE state = 'withdrawn'"), kept);
    assert_eq!(trial.count("SELECT count(*) FROM fleet_order WHERE state = 'waiting'"), 2);
}

#[tokio::test]
async fn agents_are_told_by_what_they_asked_and_were_answered() {
    let trial = Trial::new();
    trial.open(1, 1, NOW).await;
    trial.ask(Trial::request(2, 2), at(5)).await;
    let mut clone = Trial::request(3, 3);
    let facts = &mut clone.database_identity.as_mut().unwrap().facts;
    facts.insert("file_id".into(), "8".into());
    trial.ask(clone, at(6)).await;
    let mut old = Trial::request(4, 4);
    old.versions.as_mut().unwrap().protocol = 9;
    trial.ask(old, at(7)).await;
    let told = agents(&trial, at(8)).await;
    let links: Vec<_> = told.iter().map(|agent| (agent.link, agent.code.as_deref())).collect();
    assert_eq!(
        links,
        [
            (AgentLink::Sending, None),
            (AgentLink::Standby, None),
            (AgentLink::Refused, Some("DATABASE_CHANGED")),
            (AgentLink::Refused, Some("VERSION_UNSUPPORTED")),
        ]
    );
    let differ: Vec<_> = told.iter().map(|agent| agent.differs.as_str()).collect();
    assert_eq!(differ, ["", "", "file_id", ""]);
    let holder = &told[0];
    assert_eq!(
        (holder.epoch, holder.since, holder.first_seen),
        (Some(Epoch(1)), Some(At(NOW.0)), At(NOW.0))
    );
    assert_eq!((holder.version.as_str(), holder.database.as_str()), ("1", "3"));
    assert!(holder.agent.starts_with("E/RM/") && told[1].epoch.is_none());
    let tables = vec![table("FLAN", TableState::Parked), table("TMOV", TableState::Streaming)];
    fleet(&trial).report(&trial.caller, report(Epoch(1), tables), at(9)).await.unwrap();
    let told = agents(&trial, at(10)).await;
    assert_eq!((told[0].tables, told[0].parked, told[1].tables), (2, 1, 0));
    assert_eq!((told[0].version.as_str(), told[0].last_report), ("1.2.3", Some(At(at(9).0))));
    // All fall silent; what waits for a person is told all the same.
    let late = agents(&trial, at(200)).await;
    assert!(late.iter().all(|agent| agent.link == AgentLink::Silent));
    assert_eq!(late[2].code.as_deref(), Some("DATABASE_CHANGED"));
    let page = Page { search: "e/rm/".into(), after: told[2].agent.clone(), ..Page::default() };
    let found = fleet(&trial).agents(trial.caller.tenant, page, at(10)).await.unwrap();
    assert_eq!(found.len(), 1);
    let stranger = TenantId(uuid::Uuid::from_u128(99));
    assert!(fleet(&trial).agents(stranger, Page::default(), at(10)).await.unwrap().is_empty());
}

#[tokio::test]
async fn f51_a_person_s_decision_ends_what_the_list_of_agents_shows() {
    let trial = Trial::new();
    let sessions = Sessions::new(trial.store.clone());
    trial.open(1, 1, NOW).await;
    // Its twin, from a copy of the same data folder.
    trial.ask(Trial::request(1, 2), at(1)).await;
    let told = &agents(&trial, at(2)).await[0];
    assert_eq!((told.link, told.code.as_deref()), (AgentLink::Refused, Some("INSTANCE_TWICE")));
    let renew = RenewRequest {
        erp: "RM".into(),
        epoch: 1,
        nonce: protocol::ids::Nonce(uuid::Uuid::from_u128(1)).to_string(),
        ..RenewRequest::default()
    };
    let refused = sessions.renew(&trial.caller, renew, at(2)).await.unwrap_err();
    assert_eq!(refused.code, Code::InstanceTwice);
    trial.store.release_by_operator(place(&trial)).await.unwrap();
    trial.open(1, 1, at(3)).await;
    let told = &agents(&trial, at(4)).await[0];
    assert_eq!((told.link, told.code.as_deref()), (AgentLink::Sending, None));
    let mut restored = Trial::request(1, 1);
    let facts = &mut restored.database_identity.as_mut().unwrap().facts;
    facts.insert("file_id".into(), "8".into());
    trial.ask(restored.clone(), at(40)).await;
    assert_eq!(agents(&trial, at(41)).await[0].code.as_deref(), Some("DATABASE_CHANGED"));
    let offer =
        trial.store.stream_views(trial.caller.tenant).await.unwrap().remove(0).offer.unwrap();
    sessions.accept_database(trial.caller.stream(), offer.fingerprint, false).await.unwrap();
    trial.ask(restored, at(42)).await;
    let told = &agents(&trial, at(43)).await[0];
    assert_eq!((told.link, told.code.as_deref()), (AgentLink::Sending, None));
}

#[tokio::test]
async fn so_many_instances_are_remembered_and_the_one_that_asks_and_the_holder_are_among_them() {
    let trial = Trial::new();
    let most = limits::STREAM_INSTANCES as u128;
    trial.open(1, 1, NOW).await;
    for number in 2..=most + 3 {
        trial.ask(Trial::request(number, number), at(1)).await;
    }
    let told = agents(&trial, at(2)).await;
    assert_eq!(told.len(), limits::STREAM_INSTANCES);
    let last = protocol::ids::InstanceId(uuid::Uuid::from_u128(most + 3));
    assert!(told.iter().any(|agent| agent.instance == last));
    assert!(told.iter().any(|agent| agent.link == AgentLink::Sending));
}
