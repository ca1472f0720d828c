//! Pauses of a person outlive the process.

use super::*;

fn halt(who: &str) -> Halt {
    Halt::new(who, "why", Wall(7))
}

#[tokio::test]
async fn a_pause_outlives_the_process_and_is_lifted_by_itself() {
    let place = Place::new();
    let journal = place.open().await;
    let (flan, tmov) = (table("FLAN"), table("TMOV"));
    journal.halt(Some(flan.clone()), halt("ana")).await.unwrap();
    journal.halt(Some(tmov.clone()), halt("eva")).await.unwrap();
    journal.halt(None, halt("rui")).await.unwrap();
    journal.halt(None, halt("leo")).await.unwrap();
    let told = journal.halts();
    drop(journal);
    let journal = place.open().await;
    assert_eq!(journal.halts(), told);
    assert_eq!(told.of(&table("flan")).unwrap().who, "ana", "its own goes before that of all");
    assert_eq!(told.of(&table("OTHER")).unwrap().who, "leo", "a pause is told anew");
    journal.lift_halt(Some(flan.clone())).await.unwrap();
    assert!(journal.is_halted(&flan), "all are paused still");
    journal.lift_halt(None).await.unwrap();
    assert!(!journal.is_halted(&flan) && journal.is_halted(&tmov));
    assert_eq!(journal.lift_halt(None).await.unwrap_err().code, Code::NotFound);
    assert_eq!(journal.lift_halt(Some(flan)).await.unwrap_err().code, Code::NotFound);
    drop(journal);
    let journal = place.open().await;
    assert_eq!(journal.halts().tables.len(), 1);
    journal.lift_halts().await.unwrap();
    drop(journal);
    assert_eq!(place.open().await.halts(), Halts::default());
}

#[test]
fn words_of_a_pause_are_one_bounded_line() {
    let halt = Halt::new(" a\nb ", &"é".repeat(1_000), Wall(0));
    assert_eq!((halt.who.as_str(), halt.why.chars().count()), ("a b", 200));
}
