//! What was asked for, what is under way, what came of it; questions, rounds and rows to be sent again.

use futures_util::future::try_join_all;
use protocol::limits;

use super::*;

async fn planned(place: &Place) -> Journal {
    let journal = place.open().await;
    let text = r#"{"uploadVersion":2,"queries":[{"table":"FLAN","filter":null,"forceReload":false},
                   {"table":"SE1","filter":null,"forceReload":false}]}"#;
    journal.save_plan(serde_json::from_str(text).unwrap()).await.unwrap();
    journal
}

fn order(of: &str, origin: Origin) -> VerifyOrder {
    VerifyOrder { table: table(of), origin, repair: false, span: KeySpan::default() }
}

fn outcome(missing: u64, left: Option<u64>) -> Outcome {
    let of = |missing| Differences { missing, ..Differences::default() };
    Outcome { rows: 9, found: of(missing), left: left.map(of), ..Outcome::default() }
}

async fn ordered(journal: &Journal, order: VerifyOrder) -> i64 {
    journal.order_verify(order, Wall(7)).await.unwrap().unwrap()
}

async fn next(journal: &Journal) -> Option<(i64, VerifyOrder)> {
    journal.next_verification(Wall(8)).await.unwrap()
}

#[tokio::test]
async fn people_come_before_the_schedule_and_what_was_cut_short_before_both() {
    let place = Place::new();
    let journal = planned(&place).await;
    let night = ordered(&journal, order("FLAN", Origin::Schedule)).await;
    let twice = journal.order_verify(order("FLAN", Origin::Schedule), Wall(7)).await.unwrap();
    assert_eq!(twice, None, "one of the schedule is enough");
    let span = KeySpan { from: key("a"), to: key("b") };
    let part = VerifyOrder { repair: true, span, ..order("SE1", Origin::Person) };
    let asked = ordered(&journal, part.clone()).await;
    assert_eq!(next(&journal).await, Some((asked, part.clone())));
    let shown = journal.verification(asked).await.unwrap().unwrap();
    assert_eq!((shown.stage, shown.part, shown.repair), (Stage::Running, true, true));
    drop(journal);
    let journal = place.open().await;
    ordered(&journal, order("FLAN", Origin::Cloud)).await;
    assert_eq!(next(&journal).await, Some((asked, part)), "it runs again");
    journal.end_verification(asked, Ok(outcome(0, None)), Wall(9)).await.unwrap();
    let (cloud, _) = next(&journal).await.unwrap();
    journal.end_verification(cloud, Ok(outcome(0, None)), Wall(9)).await.unwrap();
    assert_eq!(next(&journal).await.unwrap().0, night);
    journal.end_verification(night, Ok(outcome(0, None)), Wall(9)).await.unwrap();
    assert_eq!(next(&journal).await, None);
    let refused = journal.order_verify(order("NOWHERE", Origin::Person), Wall(7)).await;
    assert_eq!(refused.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn an_incident_is_open_while_a_whole_verification_left_differences() {
    let place = Place::new();
    let journal = planned(&place).await;
    let found = async |journal: &Journal| {
        let all = journal.incidents(9).await.unwrap();
        all.into_iter().filter(|one| one.code == Code::DifferencesFound).collect::<Vec<_>>()
    };
    let run = async |ended: Result<Outcome>, part: bool| {
        let from = if part { key("a") } else { KeyBytes::default() };
        let span = KeySpan { from, to: KeyBytes::default() };
        let id = ordered(&journal, VerifyOrder { span, ..order("FLAN", Origin::Person) }).await;
        next(&journal).await.unwrap();
        journal.end_verification(id, ended, Wall(9)).await.unwrap();
        id
    };
    run(Ok(outcome(3, None)), false).await;
    let open = found(&journal).await;
    assert_eq!((open.len(), open[0].table.clone()), (1, Some(table("FLAN"))));
    assert!(open[0].words.starts_with("3 rows are missing"), "{}", open[0].words);
    run(Ok(outcome(4, None)), false).await;
    assert_eq!(found(&journal).await.len(), 1, "one is enough");
    run(Ok(outcome(0, None)), true).await;
    let failed = run(Err(Error::new(Code::CloudUnreachable, "away")), false).await;
    assert_eq!(found(&journal).await.len(), 1, "neither says that all is well");
    let shown = journal.verification(failed).await.unwrap().unwrap();
    assert_eq!((shown.stage, shown.code.as_deref()), (Stage::Failed, Some("CLOUD_UNREACHABLE")));
    assert_eq!(journal.verified().await.unwrap()[0].id, failed);
    run(Ok(outcome(4, Some(0))), false).await;
    assert_eq!(found(&journal).await, []);
}

#[tokio::test]
async fn an_incident_is_open_while_the_last_one_by_the_timetable_came_to_no_end() {
    let place = Place::new();
    let journal = planned(&place).await;
    let open = async || {
        let all = journal.incidents(9).await.unwrap();
        let open = all.into_iter().filter(|one| one.code == Code::NotVerified);
        open.map(|one| (one.table.unwrap(), one.words)).collect::<Vec<_>>()
    };
    let run = async |origin: Origin, ended: Result<Outcome>, part: bool| {
        let from = if part { key("a") } else { KeyBytes::default() };
        let span = KeySpan { from, to: KeyBytes::default() };
        let id = ordered(&journal, VerifyOrder { span, ..order("FLAN", origin) }).await;
        next(&journal).await.unwrap();
        journal.end_verification(id, ended, Wall(9)).await.unwrap();
    };
    let away = || Err(Error::new(Code::CloudUnreachable, "away"));
    // A person sees it fail; and what is left to another night, or to another agent, is no fault.
    run(Origin::Person, away(), false).await;
    for code in [Code::TableNotReady, Code::SessionHeld, Code::Fenced] {
        run(Origin::Schedule, Err(Error::new(code, "w")), false).await;
    }
    assert_eq!(open().await, []);
    let words = "CLOUD_UNREACHABLE: away".to_owned();
    for _night in 0..2 {
        run(Origin::Schedule, away(), false).await;
        assert_eq!(open().await, [(table("FLAN"), words.clone())]);
    }
    let standing = journal.standing().await.unwrap();
    let unverified = Some("CLOUD_UNREACHABLE".to_owned());
    let never = Standing { unverified, ..Standing::default() };
    assert_eq!(standing.get(&table("FLAN")), Some(&never), "what the server is told");
    run(Origin::Person, Ok(outcome(0, None)), true).await;
    run(Origin::Person, away(), false).await;
    assert_eq!(open().await.len(), 1, "neither says that it comes to an end");
    run(Origin::Schedule, Ok(outcome(1, None)), false).await;
    assert_eq!(open().await, [], "what it found has an incident of its own");
    let standing = journal.standing().await.unwrap();
    let found = standing.get(&table("FLAN")).map(|of| (of.differences, of.unverified.clone()));
    assert_eq!(found, Some((1, None)));
}

#[tokio::test]
async fn what_the_last_whole_one_found_stands_however_many_fail_since() {
    let place = Place::new();
    let journal = planned(&place).await;
    let run = async |ended: Result<Outcome>| {
        let id = ordered(&journal, order("FLAN", Origin::Schedule)).await;
        next(&journal).await.unwrap();
        journal.end_verification(id, ended, Wall(9)).await.unwrap();
    };
    run(Ok(outcome(3, None))).await;
    for _night in 0..limits::VERIFY_KEPT + 2 {
        run(Err(Error::new(Code::CloudUnreachable, "away"))).await;
    }
    let standing = journal.standing().await.unwrap();
    let of = standing.get(&table("FLAN")).unwrap();
    assert_eq!((of.differences, of.at), (3, Some(Wall(9))));
    assert!(of.unverified.is_some());
}

#[tokio::test]
async fn the_newest_of_each_table_stay_and_too_many_that_wait_are_refused() {
    let place = Place::new();
    let journal = planned(&place).await;
    let other = ordered(&journal, order("SE1", Origin::Person)).await;
    next(&journal).await.unwrap();
    journal.end_verification(other, Ok(outcome(0, None)), Wall(9)).await.unwrap();
    for _run in 0..limits::VERIFY_KEPT + 3 {
        let id = ordered(&journal, order("FLAN", Origin::Person)).await;
        next(&journal).await.unwrap();
        journal.end_verification(id, Ok(outcome(0, None)), Wall(9)).await.unwrap();
    }
    let all = journal.verifications(usize::MAX).await.unwrap();
    assert_eq!(all.len(), limits::VERIFY_KEPT + 1);
    assert!(all[0].id > all[1].id, "the newest first");
    assert!(journal.verification(other).await.unwrap().is_some());
    assert_eq!(journal.verifications(2).await.unwrap().len(), 2);
    let orders = (0..limits::VERIFY_WAITING)
        .map(|_| journal.order_verify(order("FLAN", Origin::Person), Wall(7)));
    try_join_all(orders).await.unwrap();
    let refused = journal.order_verify(order("FLAN", Origin::Person), Wall(7)).await;
    assert_eq!(refused.unwrap_err().code, Code::RateLimited);
}

#[tokio::test]
async fn a_question_is_answered_by_whoever_takes_it_and_fails_where_it_is_dropped() {
    let place = Place::new();
    let journal = place.open().await;
    let rows = vec![(key("a"), hash(1))];
    let (asking, answering) = (journal.clone(), journal.clone());
    let page = StagedPage { rows, more: false };
    let told = page.clone();
    let answers = runtime::task::spawn("answers", async move {
        let asked = answering.asked().await.unwrap();
        let span = KeySpan { from: key("a"), to: KeyBytes::default() };
        let wanted = Question::Rows { table: table("FLAN"), span, after: key("b") };
        assert_eq!(asked.question, wanted);
        asked.answer(Ok(Told::Rows(told)));
        // One sum too few, then none at all.
        answering.asked().await.unwrap().answer(Ok(Told::Sums(vec![StagedSum::default()])));
        drop(answering.asked().await);
    });
    let span = KeySpan { from: key("a"), to: KeyBytes::default() };
    assert_eq!(asking.staged_rows(&table("FLAN"), span, key("b")).await.unwrap(), page);
    for words in ["other sums", "the session ended"] {
        let parted = (KeySpan::default(), vec![key("a")]);
        let failed = asking.staged_sums(&table("FLAN"), parted).await.unwrap_err();
        assert_eq!(failed.code, Code::CloudUnreachable);
        assert!(failed.message.contains(words), "{failed}");
    }
    answers.join().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_takes_ends_with_an_error() {
    let place = Place::new();
    let journal = place.open().await;
    let whole = (KeySpan::default(), Vec::new());
    let failed = journal.staged_sums(&table("FLAN"), whole).await.unwrap_err();
    assert_eq!(failed.code, Code::CloudUnreachable);
}

#[tokio::test]
async fn rows_to_be_sent_again_outlive_the_process_and_unsure_ones_take_no_known_one_s_place() {
    let place = Place::new();
    let journal = place.open().await;
    let flan = table("FLAN");
    journal.add_repairs(&flan, ["c", "a", "b", "a"].map(key).to_vec()).await.unwrap();
    assert!(journal.is_repaired(&flan), "the list is not complete yet");
    drop(journal);
    let journal = place.open().await;
    assert!(!journal.is_repaired(&flan) && journal.has_rounds());
    assert_eq!(journal.repairs(&flan, None, 2).await.unwrap(), ["a", "b"].map(key));
    assert_eq!(journal.repairs(&flan, Some(key("b")), 9).await.unwrap(), [key("c")]);
    journal.repaired(&flan).await.unwrap();
    assert!(journal.is_repaired(&flan) && !journal.has_rounds());
    assert_eq!(journal.repairs(&flan, None, 9).await.unwrap(), []);
    journal.known_load(&flan, vec![(key("a"), hash(1))]).await.unwrap();
    journal.note_unsure(&flan, vec![key("a"), key("b")]).await.unwrap();
    let known = journal.known(&flan, vec![key("a"), key("b")]).await.unwrap();
    assert_eq!(known, [Some(hash(1)), Some(hash(0))]);
}

#[tokio::test]
async fn a_round_ends_by_its_own_number_alone() {
    let place = Place::new();
    let journal = place.open().await;
    let flan = table("FLAN");
    let first = journal.ask_round(&flan);
    let second = journal.ask_round(&flan);
    journal.end_round(&flan, first);
    assert_eq!(journal.round_of(&flan), Some(second), "somebody asked again meanwhile");
    journal.end_round(&flan, second);
    assert!(journal.round_of(&flan).is_none() && !journal.has_rounds());
}

#[tokio::test]
async fn bounds_are_known_keys_so_many_apart() {
    let place = Place::new();
    let journal = place.open().await;
    let flan = table("FLAN");
    let rows = (10..20).map(|n| (key(&n.to_string()), hash(1))).collect();
    journal.known_load(&flan, rows).await.unwrap();
    let mut found = Vec::new();
    let mut after = KeyBytes::default();
    while let Some(key) = journal.known_behind(&flan, after, 3).await.unwrap() {
        after = key.clone();
        found.push(key);
    }
    assert_eq!(found, ["12", "15", "18"].map(key));
}
