//! The card's grid, and who is taken for whose twin.

use proptest::{collection::vec, prelude::*};

use super::*;

const A: InstanceId = InstanceId(Uuid::from_u128(1));
const B: InstanceId = InstanceId(Uuid::from_u128(2));
const N1: Nonce = Nonce(Uuid::from_u128(11));
const N2: Nonce = Nonce(Uuid::from_u128(12));
const SECOND: i64 = 1_000_000;

fn held(instance: InstanceId, nonce: Nonce, disputed: bool) -> State {
    let former = Vec::new();
    State::Held(Held {
        epoch: Epoch(5),
        instance,
        nonce,
        former,
        until: Wall(30 * SECOND),
        disputed,
    })
}

fn short((state, answer): Step) -> String {
    let answer = match answer {
        Ok(effects) if effects.contains(&Effect::Abandon) => "grant".to_owned(),
        Ok(_) => "done".to_owned(),
        Err(code) => code.to_string(),
    };
    let state = match state {
        State::Free { epoch } => format!("free {epoch}"),
        State::Held(held) => {
            format!("held {}{}", held.epoch, if held.disputed { "!" } else { "" })
        }
    };
    format!("{answer} -> {state}")
}

#[test]
fn the_grid_of_the_card_is_golden() {
    let states = [
        ("free", State::Free { epoch: Epoch(5) }, 0),
        ("own", held(A, N1, false), 0),
        ("other", held(B, N1, false), 0),
        ("lapsed", held(B, N1, false), 30 * SECOND),
        ("disputed", held(A, N1, true), 0),
    ];
    let events = [
        ("open", Event::Open { by: A, nonce: N1 }),
        ("open anew", Event::Open { by: A, nonce: N2 }),
        ("renew", Event::Renew { epoch: Epoch(5), nonce: N1 }),
        ("renew anew", Event::Renew { epoch: Epoch(5), nonce: N2 }),
        ("renew old", Event::Renew { epoch: Epoch(4), nonce: N1 }),
        ("release", Event::Release { epoch: Epoch(5) }),
        ("release old", Event::Release { epoch: Epoch(4) }),
    ];
    let mut grid = String::new();
    for (event_name, event) in events {
        for (name, state, now) in &states {
            let step = short(step(state.clone(), event, Wall(*now)));
            grid.push_str(&format!("{event_name} | {name}: {step}\n"));
        }
    }
    assert_eq!(grid, include_str!("../session.golden.txt"), "got:\n{grid}");
}

#[test]
fn a_sender_that_was_taken_over_can_neither_renew_nor_release() {
    let (state, _) = step(held(A, N1, false), Event::Open { by: B, nonce: N2 }, Wall(31 * SECOND));
    assert_eq!(state.epoch(), Epoch(6));
    for event in [Event::Renew { epoch: Epoch(5), nonce: N1 }, Event::Release { epoch: Epoch(5) }] {
        let (after, answer) = step(state.clone(), event, Wall(32 * SECOND));
        assert_eq!((after, answer), (state.clone(), Err(Code::Fenced)));
    }
}

#[test]
fn a_nonce_that_a_later_one_replaced_stops_both_copies_until_the_lease_lapses() {
    let renew = |nonce| Event::Renew { epoch: Epoch(5), nonce };
    let (state, answer) = step(held(A, N1, false), renew(N2), Wall(0));
    assert!(answer.is_ok());
    let (state, answer) = step(state, renew(N1), Wall(SECOND));
    assert_eq!(answer, Err(Code::InstanceTwice));
    let (state, answer) = step(state, renew(N2), Wall(2 * SECOND));
    assert_eq!(answer, Err(Code::InstanceTwice));
    let (_, answer) = step(state, Event::Open { by: A, nonce: N2 }, Wall(30 * SECOND));
    assert!(answer.is_ok());
}

#[test]
fn two_processes_that_are_heard_in_turns_stay_stopped_until_a_person_decides() {
    let mut heard = Heard::default();
    let open = |nonce| Event::Open { by: A, nonce };
    let mut state = State::Free { epoch: Epoch(4) };
    let mut granted = Vec::new();
    for turn in 0..100 {
        let nonce = if turn % 2 == 0 { N1 } else { N2 };
        // Leases lapse in between.
        let (next, answer) = step_of(state, open(nonce), &mut heard, Wall(turn * 20 * SECOND));
        heard = Heard::of_bytes(&heard.to_bytes());
        state = next;
        granted.extend(answer.is_ok().then_some(turn));
    }
    // The first one is late until the turn 10, the second one from there until the turn 19.
    let served: Vec<i64> = (0..=24).step_by(2).collect();
    assert_eq!(granted, served, "each lapse served one of them, until both had come back");
    let (_, answer) = step_of(
        state.clone(),
        Event::Open { by: B, nonce: N2 },
        &mut Heard::default(),
        Wall(1 << 50),
    );
    assert!(answer.is_ok(), "another instance is not concerned");
    let (_, answer) = step_of(state, open(N1), &mut Heard::default(), Wall(1 << 50));
    assert!(answer.is_ok(), "nor is the one of which a person decided");
}

#[test]
fn late_calls_of_processes_that_died_make_no_twins_however_many_they_are() {
    let nonce = |number| Nonce(Uuid::from_u128(number));
    let mut heard = Heard::default();
    for process in 0..100u128 {
        // It lives for a minute; what is left of the two before it comes with each of its words.
        for second in 0..60 {
            for word in [process, process.saturating_sub(1), process.saturating_sub(2)] {
                let now = i64::try_from(process).unwrap() * 60 + second;
                heard.hear(nonce(word), Wall(now * SECOND));
            }
        }
        assert!(!heard.are_twins(), "process {process}: {heard:?}");
        assert_eq!(heard.0[0].nonce, nonce(process));
    }
    assert!(heard.0.len() <= HEARD);
}

#[test]
fn a_copy_that_dies_and_starts_again_is_found_by_the_one_that_lives() {
    let mut heard = Heard::default();
    let mut found = None;
    for start in 0..100u32 {
        let now = i64::from(start) * 40;
        heard.hear(N1, Wall(now * SECOND));
        if heard.are_twins() {
            found = found.or(Some(start));
        }
        heard.hear(Nonce(Uuid::from_u128(100 + u128::from(start))), Wall((now + 20) * SECOND));
    }
    // Four turns may be late calls, the next one is the first that counts.
    assert_eq!(found, Some(4 + 12));
}

#[test]
fn nobody_is_late_for_ever_when_the_wall_clock_steps_back() {
    let mut heard = Heard::default();
    for turn in 0..20 {
        heard.hear(if turn % 2 == 0 { N1 } else { N2 }, Wall(-turn * SECOND));
    }
    assert!(heard.are_twins());
}

#[test]
fn what_was_kept_without_a_time_counts_as_replaced_long_ago() {
    let voices: Vec<u8> = [N1, N2]
        .into_iter()
        .zip([3, 2])
        .flat_map(|(nonce, returns)| nonce.0.into_bytes().into_iter().chain([returns]))
        .collect();
    let heard = Heard::of_bytes(&voices);
    let kept = [(N1, 3), (N2, 2)];
    assert_eq!(heard.0, kept.map(|(nonce, returns)| Voice { nonce, returns, replaced: Wall(0) }));
    assert_eq!(Heard::of_bytes(&heard.to_bytes()), heard);
    assert_eq!(Heard::of_bytes(&[]), Heard::default());
}

#[test]
fn what_was_said_under_another_epoch_counts_for_nobody() {
    let renew = Event::Renew { epoch: Epoch(4), nonce: N2 };
    let mut heard = Heard::default();
    let (_, answer) = step_of(held(A, N1, false), renew, &mut heard, Wall(0));
    assert_eq!((answer, heard), (Err(Code::Fenced), Heard::default()));
}

#[test]
fn f40_a_wall_clock_that_steps_back_holds_a_lease_up_for_its_life_and_no_longer() {
    const HOUR: i64 = 3_600 * SECOND;
    let (given, _) =
        step(State::Free { epoch: Epoch(4) }, Event::Open { by: A, nonce: N1 }, Wall(9 * HOUR));
    // Hours back: another one is kept out for the life of a lease, then it is let in.
    let by_another = Event::Open { by: B, nonce: N2 };
    let (seen, answer) = step(given.clone(), by_another, Wall(HOUR));
    assert_eq!(answer, Err(Code::SessionHeld));
    assert!(seen.is_live(Wall(HOUR + 29 * SECOND)));
    let (_, answer) = step(seen, by_another, Wall(HOUR + 30 * SECOND));
    assert!(answer.is_ok());
    // The holder itself goes on, and is told no more than a life.
    let renew = Event::Renew { epoch: Epoch(5), nonce: N1 };
    let (renewed, answer) = step(given.clone(), renew, Wall(HOUR));
    let until = Wall(HOUR + 30 * SECOND);
    assert_eq!(answer, Ok(vec![Effect::Grant { epoch: Epoch(5), until }]));
    assert_eq!(renewed.epoch(), Epoch(5));
    // Hours forth: it lapsed, and whoever asks first is given the next epoch.
    let (_, answer) = step(given, by_another, Wall(20 * HOUR));
    assert!(answer.is_ok());
}

proptest! {
    #[test]
    fn the_epoch_never_falls_and_a_grant_always_raises_it(
        events in vec((0u8..3, 0u64..8, 1u128..4, 0i64..20), 0..60)
    ) {
        let mut state = State::Free { epoch: Epoch(0) };
        let mut now = 0;
        for (kind, epoch, who, wait) in events {
            now += wait * SECOND;
            let (instance, nonce) = (InstanceId(Uuid::from_u128(who)), Nonce(Uuid::from_u128(who * 7)));
            let event = match kind {
                0 => Event::Open { by: instance, nonce },
                1 => Event::Renew { epoch: Epoch(epoch), nonce },
                _ => Event::Release { epoch: Epoch(epoch) },
            };
            let before = state.epoch();
            let (next, answer) = step(state, event, Wall(now));
            let granted = answer.is_ok_and(|effects| effects.contains(&Effect::Abandon));
            prop_assert_eq!(next.epoch(), if granted { before.next() } else { before });
            state = next;
        }
    }
}
