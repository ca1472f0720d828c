//! Orders of the server are carried out once, whatever dies in between.

use protocol::ids::OrderId;
use uuid::Uuid;

use super::*;

const MINE: OrderId = OrderId(Uuid::from_u128(7));

async fn planned(place: &Place) -> Journal {
    let journal = place.open().await;
    let plan = r#"{"uploadVersion":2,"queries":[{"table":"FLAN","filter":null,"forceReload":false},
                   {"table":"TMOV","filter":null,"forceReload":false}]}"#;
    journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    journal
}

async fn done(journal: &Journal, id: OrderId, deed: Deed) -> Option<Code> {
    assert_eq!(journal.take_order(id, Wall(1)).await.unwrap(), Taken::New);
    journal.carry_out(id, deed).await.unwrap()
}

/// A batch was accepted with which the table had answered that request; `true` = an order ended with it.
async fn loaded(journal: &Journal, of: &str, number: u64) -> bool {
    let done = [(table(of), number)];
    journal.run(move |desk| crate::journal::orders::reloaded(desk, &done)).await.unwrap()
}

fn new() -> OrderId {
    OrderId(runtime::entropy::uuid())
}

#[tokio::test]
async fn an_order_is_carried_out_once_although_the_process_dies_after_each_step() {
    let place = Place::new();
    let journal = planned(&place).await;
    let reload = Deed::Reload(Some(table("FLAN")));
    assert_eq!(journal.take_order(MINE, Wall(1)).await.unwrap(), Taken::New);
    drop(journal);
    // Killed behind the id: it is not known to be done, and is done now.
    let journal = place.open().await;
    assert!(journal.untold_orders().await.unwrap().is_empty());
    assert!(journal.reload_requests().await.unwrap().is_empty());
    assert_eq!(journal.take_order(MINE, Wall(2)).await.unwrap(), Taken::Begun);
    assert_eq!(journal.carry_out(MINE, reload.clone()).await.unwrap(), None);
    let asked = journal.reload_requests().await.unwrap();
    drop(journal);
    // Killed while the table is loaded: the order waits for it, and asks for no second load.
    let journal = place.open().await;
    assert_eq!(journal.take_order(MINE, Wall(2)).await.unwrap(), Taken::Begun);
    assert_eq!(journal.carry_out(MINE, reload.clone()).await.unwrap(), None);
    assert_eq!(journal.reload_requests().await.unwrap(), asked);
    assert!(journal.untold_orders().await.unwrap().is_empty());
    assert!(!loaded(&journal, "FLAN", asked[&table("FLAN")] - 1).await, "that was another one");
    assert!(!loaded(&journal, "TMOV", asked[&table("FLAN")]).await);
    assert!(loaded(&journal, "FLAN", asked[&table("FLAN")]).await);
    drop(journal);
    // Killed before the server heard of it: it is told, and not done again.
    let journal = place.open().await;
    assert_eq!(journal.untold_orders().await.unwrap(), [OrderOutcome { id: MINE, code: None }]);
    assert_eq!(journal.take_order(MINE, Wall(3)).await.unwrap(), Taken::Ended);
    assert_eq!(journal.carry_out(MINE, reload.clone()).await.unwrap(), None);
    assert_eq!(journal.reload_requests().await.unwrap(), asked);
    journal.order_told(MINE).await.unwrap();
    assert!(journal.untold_orders().await.unwrap().is_empty());
    // A server that lost the answer gives it again.
    assert_eq!(journal.take_order(MINE, Wall(4)).await.unwrap(), Taken::Ended);
    assert_eq!(journal.untold_orders().await.unwrap().len(), 1);
    assert_eq!(done(&journal, new(), reload).await, None);
    assert!(journal.reload_requests().await.unwrap()[&table("FLAN")] > asked[&table("FLAN")]);
}

#[tokio::test]
async fn an_order_that_cannot_be_carried_out_keeps_its_code_and_changes_nothing() {
    let place = Place::new();
    let journal = planned(&place).await;
    let nowhere = Some(table("NOPE"));
    for deed in [Deed::Reload(nowhere.clone()), Deed::Retry(nowhere)] {
        assert_eq!(done(&journal, new(), deed.clone()).await, Some(Code::NotFound), "{deed:?}");
    }
    let ended = Deed::Ended(Some(Code::VerbUnsupported));
    assert_eq!(done(&journal, MINE, ended).await, Some(Code::VerbUnsupported));
    assert!(journal.reload_requests().await.unwrap().is_empty());
    assert_eq!((journal.halts(), journal.take_retries().len()), (Halts::default(), 0));
    let untold = journal.untold_orders().await.unwrap();
    assert_eq!(untold.len(), 3);
    drop(journal);
    assert_eq!(place.open().await.untold_orders().await.unwrap(), untold);
    let journal = place.open().await;
    assert_eq!(journal.carry_out(new(), Deed::Ended(None)).await.unwrap_err().code, Code::Internal);
}

#[tokio::test]
async fn pause_and_resume_by_order_are_those_of_people_beside_the_agent() {
    let place = Place::new();
    let journal = planned(&place).await;
    let halt = |who: &str| Halt::new(who, "why", Wall(7));
    let (flan, tmov) = (table("FLAN"), table("TMOV"));
    done(&journal, new(), Deed::Pause(Some(flan.clone()), halt("ana"))).await;
    done(&journal, new(), Deed::Pause(None, halt("rui"))).await;
    assert!(journal.is_halted(&tmov));
    assert_eq!(journal.halts().of(&flan).unwrap().who, "ana");
    drop(journal);
    let journal = place.open().await;
    assert_eq!(journal.halts().all.unwrap().who, "rui");
    done(&journal, new(), Deed::Resume(Some(flan.clone()))).await;
    assert_eq!(journal.halts().tables.len(), 0);
    done(&journal, new(), Deed::Resume(None)).await;
    assert!(!journal.is_halted(&flan) && !journal.is_halted(&tmov));
    assert_eq!(done(&journal, MINE, Deed::Resume(None)).await, None, "nothing is paused any more");
}

#[tokio::test]
async fn a_retry_lifts_what_is_parked_forgives_rows_and_tells_capture_once() {
    let place = Place::new();
    let journal = planned(&place).await;
    let (flan, tmov) = (table("FLAN"), table("TMOV"));
    let poisoned = Poisoned {
        table: flan.clone(),
        key: key("1"),
        hash: hash(1),
        code: Code::ValueUnfit,
        words: "refused".into(),
        at_micros: 1,
    };
    journal.quarantine(poisoned, key_hash(&key("1")), 0).await.unwrap();
    let parked = apart::Parked {
        code: Code::PermissionDenied,
        words: "no".into(),
        retry: None,
        schema: None,
    };
    journal.park(&tmov, parked, Wall(1)).await.unwrap();
    done(&journal, new(), Deed::Retry(None)).await;
    assert!(journal.parked().is_empty() && journal.quarantined(&flan).await.unwrap().is_empty());
    let wanted = BTreeMap::from([(flan.clone(), true), (tmov.clone(), false)]);
    assert_eq!(journal.take_retries(), wanted);
    assert!(journal.take_retries().is_empty(), "once");
    done(&journal, new(), Deed::Retry(Some(tmov.clone()))).await;
    assert_eq!(journal.take_retries(), BTreeMap::from([(tmov, false)]));
}

#[tokio::test]
async fn orders_that_were_told_are_remembered_up_to_a_number_and_untold_ones_all() {
    let place = Place::new();
    let journal = planned(&place).await;
    let most = protocol::limits::AGENT_ORDERS;
    for at in 0..most + 3 {
        let id = OrderId(Uuid::from_u128(at as u128 + 1));
        journal.take_order(id, Wall(i64::try_from(at).unwrap())).await.unwrap();
        journal.carry_out(id, Deed::Ended(None)).await.unwrap();
        if at > 0 {
            journal.order_told(id).await.unwrap();
        }
    }
    let first = OrderId(Uuid::from_u128(1));
    assert_eq!(journal.untold_orders().await.unwrap(), [OrderOutcome { id: first, code: None }]);
    let again = |number: u128| journal.take_order(OrderId(Uuid::from_u128(number)), Wall(0));
    assert_eq!(again(2).await.unwrap(), Taken::New, "the oldest that was told is forgotten");
    assert_eq!(again(most as u128 + 3).await.unwrap(), Taken::Ended);
}

#[tokio::test]
async fn f63_an_order_whose_id_is_damaged_makes_the_journal_begin_anew() {
    let sql = "INSERT INTO fleet_order VALUES (printf('%036d', 1), 1, '', 0);
               UPDATE fleet_order SET id = replace(id, '0', 'x')";
    let (_place, journal) = changed(sql).await;
    assert_eq!(journal.last_epoch().await.unwrap(), None);
}

/// Ends the next verification that waits.
async fn compared(journal: &Journal, missing: u64) {
    let found = Differences { missing, ..Differences::default() };
    ends(journal, Ok(Outcome { found, ..Outcome::default() })).await;
}

async fn ends(journal: &Journal, ended: Result<Outcome>) {
    let (id, order) = journal.next_verification(Wall(5)).await.unwrap().unwrap();
    assert_eq!(order.origin, Origin::Cloud);
    journal.end_verification(id, ended, Wall(6)).await.unwrap();
}

#[tokio::test]
async fn an_order_to_verify_is_over_with_the_last_of_its_tables_and_asked_for_once() {
    let place = Place::new();
    let journal = planned(&place).await;
    let all = Deed::Verify { table: None, repair: false, span: KeySpan::default() };
    assert_eq!(done(&journal, MINE, all.clone()).await, None);
    drop(journal);
    let journal = place.open().await;
    assert_eq!(journal.take_order(MINE, Wall(2)).await.unwrap(), Taken::Begun);
    journal.carry_out(MINE, all.clone()).await.unwrap();
    assert_eq!(journal.verifications(9).await.unwrap().len(), 2, "one for each table of the plan");
    compared(&journal, 0).await;
    assert!(journal.untold_orders().await.unwrap().is_empty(), "one table is left");
    compared(&journal, 0).await;
    let ended = OrderOutcome { id: MINE, code: None };
    assert_eq!(journal.untold_orders().await.unwrap(), [ended]);

    let other = new();
    let one = Deed::Verify { table: Some(table("FLAN")), repair: false, span: KeySpan::default() };
    assert_eq!(done(&journal, other, one).await, None);
    compared(&journal, 3).await;
    let differs = OrderOutcome { id: other, code: Some(Code::DifferencesFound) };
    assert!(journal.untold_orders().await.unwrap().contains(&differs));

    let nowhere =
        Deed::Verify { table: Some(table("NOPE")), repair: true, span: KeySpan::default() };
    assert_eq!(done(&journal, new(), nowhere).await, Some(Code::NotFound));
}

#[tokio::test]
async fn differences_count_before_what_kept_other_tables_from_being_compared() {
    let place = Place::new();
    let journal = planned(&place).await;
    let different = Differences { missing: 3, ..Differences::default() };
    let different = Outcome { found: different, ..Outcome::default() };
    let failed = |code| Err(Error::new(code, "w"));
    let equal = || Ok(Outcome::default());
    let order = async |ended: [Result<Outcome>; 2]| {
        let id = new();
        let all = Deed::Verify { table: None, repair: false, span: KeySpan::default() };
        done(&journal, id, all).await;
        for one in ended {
            ends(&journal, one).await;
        }
        let all = journal.untold_orders().await.unwrap();
        all.into_iter().find(|outcome| outcome.id == id).unwrap().code
    };
    use Code::{CloudUnreachable, DifferencesFound, TableNotReady};
    for (ended, code) in [
        ([failed(TableNotReady), Ok(different)], Some(DifferencesFound)),
        ([failed(CloudUnreachable), Ok(different)], Some(DifferencesFound)),
        ([failed(TableNotReady), failed(CloudUnreachable)], Some(CloudUnreachable)),
        ([failed(TableNotReady), equal()], None),
        ([failed(TableNotReady), failed(TableNotReady)], Some(TableNotReady)),
        ([equal(), equal()], None),
    ] {
        assert_eq!(order(ended).await, code);
    }
}

#[tokio::test]
async fn an_order_to_load_all_tables_is_over_with_the_last_of_them_or_when_the_rest_left_the_plan()
{
    let place = Place::new();
    let journal = planned(&place).await;
    let all = Deed::Reload(None);
    assert_eq!(done(&journal, MINE, all.clone()).await, None);
    let number = journal.reload_requests().await.unwrap()[&table("FLAN")];
    assert!(!loaded(&journal, "FLAN", number).await);
    assert!(loaded(&journal, "TMOV", number).await);
    assert_eq!(journal.untold_orders().await.unwrap(), [OrderOutcome { id: MINE, code: None }]);
    let second = new();
    assert_eq!(done(&journal, second, all).await, None);
    let number = journal.reload_requests().await.unwrap()[&table("FLAN")];
    assert!(!loaded(&journal, "FLAN", number).await);
    let plan =
        r#"{"uploadVersion":3,"queries":[{"table":"FLAN","filter":null,"forceReload":false}]}"#;
    journal.save_plan(serde_json::from_str(plan).unwrap()).await.unwrap();
    assert_eq!(journal.untold_orders().await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_order_to_load_a_table_that_cannot_be_loaded_ends_with_its_code_and_lifts_nothing_twice()
{
    let place = Place::new();
    let journal = planned(&place).await;
    let all = Deed::Reload(None);
    assert_eq!(done(&journal, MINE, all.clone()).await, None);
    let number = journal.reload_requests().await.unwrap()[&table("FLAN")];
    let parked = apart::Parked {
        code: Code::PermissionDenied,
        words: "no".to_owned(),
        retry: None,
        schema: None,
    };
    journal.park(&table("TMOV"), parked, Wall(2)).await.unwrap();
    // The other one is still waited for; that the order comes again lifts no park.
    assert!(journal.untold_orders().await.unwrap().is_empty());
    assert_eq!(journal.take_order(MINE, Wall(3)).await.unwrap(), Taken::Begun);
    assert_eq!(journal.carry_out(MINE, all).await.unwrap(), None);
    assert!(journal.parked().contains_key(&table("TMOV")));
    assert!(loaded(&journal, "FLAN", number).await);
    let code = Some(Code::PermissionDenied);
    assert_eq!(journal.untold_orders().await.unwrap(), [OrderOutcome { id: MINE, code }]);
}

#[tokio::test]
async fn a_pause_holds_for_a_table_that_the_plan_does_not_name_yet_and_a_resume_of_none_is_done() {
    let place = Place::new();
    let journal = planned(&place).await;
    let later = table("LATER");
    let halt = Halt::new("ana", "", Wall(0));
    assert_eq!(done(&journal, new(), Deed::Pause(Some(later.clone()), halt)).await, None);
    assert!(journal.is_halted(&later));
    for _twice in 0..2 {
        assert_eq!(done(&journal, new(), Deed::Resume(Some(later.clone()))).await, None);
    }
    assert!(!journal.is_halted(&later));
}
