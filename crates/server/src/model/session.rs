//! Session, model floor: who may send a stream, and under which epoch.
//!
//! Promises: one live epoch at a time; an epoch never comes back; two copies of one instance are both stopped, and stay
//! stopped until a person decides once both were heard in turns.
//! Never: reads a clock, waits for the former sender to agree.
//!
//! | event \ state | free | held by the caller | held by another, live | lapsed | disputed, live |
//! |---|---|---|---|---|---|
//! | open | grant | same nonce: grant; other nonce: `InstanceTwice`, disputed | `SessionHeld` | grant | `InstanceTwice` |
//! | renew | `Fenced` | nonce in force or new: done; a replaced nonce: `InstanceTwice`, disputed | `Fenced` | `Fenced` | `InstanceTwice` |
//! | release | own again: done; else `Fenced` | done | `Fenced` | own: done; else `Fenced` | as undisputed |
//!
//! A second nonce may be a process that follows one that died, and a call of the dead may come late; so they stop the
//! instance for the life of the lease alone. Where both go on being heard (`Heard`), both live: they are twins, and
//! whatever this table would grant them is `InstanceTwice`.
//!
//! "Another" is another epoch where the event has one, another instance where it is an open.

use protocol::{
    Code,
    ids::{Epoch, InstanceId, Nonce},
    limits,
};
use runtime::{clock::Wall, mutant};
use uuid::Uuid;

/// Nonces remembered per epoch: each is one restart within one lease.
const FORMER: usize = 8;
/// Nonces remembered per instance.
const HEARD: usize = 8;
/// How often each of two nonces comes back after the other one before both are taken for alive: calls of a process that
/// died come late once or twice.
const RETURNS: u8 = 4;
/// How often one comes back after others, whichever they are: a copy that dies and starts again has new ones each time.
const ALONE: u8 = 12;

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum State {
    /// Nobody sends. Set at birth (epoch 0) and by a release.
    Free { epoch: Epoch },
    /// One instance sends. Set by an open, prolonged by a renewal.
    Held(Held),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    pub epoch: Epoch,
    pub instance: InstanceId,
    pub nonce: Nonce,
    /// Nonces that a later one replaced under this epoch, oldest first.
    pub former: Vec<Nonce>,
    pub until: Wall,
    /// Two copies were seen: nobody is prolonged until the lease lapses or a person decides.
    pub disputed: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    Open { by: InstanceId, nonce: Nonce },
    Renew { epoch: Epoch, nonce: Nonce },
    Release { epoch: Epoch },
}

/// What the service owes after the step; the durable ones join the transaction of the new state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effect {
    /// Durable: whatever batch is open takes no more messages.
    Abandon,
    /// Answer: how long the caller may send, and under which epoch.
    Grant { epoch: Epoch, until: Wall },
}

/// The next state, which is to be stored also where the answer is a refusal, and the answer.
pub type Step = (State, Result<Vec<Effect>, Code>);

/// The nonces that an instance was heard with since a person decided last, the latest first, each with how often it came
/// back after another one.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard(Vec<(Nonce, u8)>);

impl Heard {
    fn hear(&mut self, nonce: Nonce) {
        let returns = match self.0.iter().position(|(heard, _)| *heard == nonce) {
            Some(0) => return,
            Some(place) => self.0.remove(place).1.saturating_add(1),
            None => 0,
        };
        self.0.insert(0, (nonce, returns));
        self.0.truncate(HEARD);
    }

    /// Whether two processes live that are both this instance.
    #[must_use]
    pub fn are_twins(&self) -> bool {
        self.0.iter().filter(|(_, returns)| *returns >= RETURNS).count() > 1
            || self.0.iter().any(|(_, returns)| *returns >= ALONE)
    }

    /// For the store: 16 bytes of each nonce, and one of its returns.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let one = |(nonce, returns): &(Nonce, u8)| {
            nonce.0.as_bytes().iter().copied().chain([*returns]).collect::<Vec<u8>>()
        };
        self.0.iter().flat_map(one).collect()
    }

    /// Of what [`Heard::to_bytes`] gave.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let one = |entry: &[u8; 17]| {
            let (nonce, returns) = entry.split_first_chunk::<16>()?;
            Some((Nonce(Uuid::from_bytes(*nonce)), *returns.first()?))
        };
        Self(bytes.as_chunks::<17>().0.iter().filter_map(one).collect())
    }
}

impl State {
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        match self {
            Self::Free { epoch } | Self::Held(Held { epoch, .. }) => *epoch,
        }
    }

    /// No lease is given for longer than its life: one that ends later was written before the wall clock stepped back,
    /// and would keep everybody out for as long as the step was. Counted from now it still outlasts what its holder
    /// was promised (F40).
    fn within(self, now: Wall) -> Self {
        match self {
            Self::Held(held) => Self::Held(Held { until: held.until.min(lapse(now)), ..held }),
            free @ Self::Free { .. } => free,
        }
    }

    /// Whether somebody holds a lease that has not lapsed.
    #[must_use]
    pub fn is_live(&self, now: Wall) -> bool {
        matches!(self, Self::Held(held) if now < held.until)
    }
}

/// What a holder's word of its database comes to, beside what is stored of it; identities are encoded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Database {
    AsKnown,
    /// The same one, its log further on.
    Moved(Vec<u8>),
    /// Another one, or one that was set back (F51).
    Another(Vec<u8>),
}

/// The instance that an event is of, where that can be known.
#[must_use]
pub fn speaker(state: &State, event: Event) -> Option<InstanceId> {
    match (state, event) {
        (_, Event::Open { by, .. }) => Some(by),
        (State::Held(held), Event::Renew { epoch, .. }) if held.epoch == epoch => {
            Some(held.instance)
        }
        _ => None,
    }
}

/// As [`step`], of an event whose speaker was heard before with those nonces. Twins are granted nothing.
pub fn step_of(state: State, event: Event, heard: &mut Heard, now: Wall) -> Step {
    if let (Event::Open { nonce, .. } | Event::Renew { nonce, .. }, Some(_)) =
        (event, speaker(&state, event))
    {
        heard.hear(nonce);
    }
    let before = state.clone();
    match step(state, event, now) {
        (_, Ok(_)) if heard.are_twins() => (before, Err(Code::InstanceTwice)),
        step => step,
    }
}

pub fn step(state: State, event: Event, now: Wall) -> Step {
    let state = state.within(now);
    match event {
        Event::Open { by, nonce } => open(state, by, nonce, now),
        Event::Renew { epoch, nonce } => renew(state, epoch, nonce, now),
        // Free already: the answer was lost and the sender repeats itself.
        Event::Release { epoch } if epoch == state.epoch() && epoch != Epoch(0) => {
            (State::Free { epoch }, Ok(vec![]))
        }
        Event::Release { .. } => (state, Err(Code::Fenced)),
    }
}

fn open(state: State, by: InstanceId, nonce: Nonce, now: Wall) -> Step {
    let before = state.epoch();
    let stays = mutant::is("epoch_stays") && before != Epoch(0);
    let epoch = if stays { before } else { before.next() };
    match state {
        State::Held(held) if now < held.until && held.instance != by => {
            (State::Held(held), Err(Code::SessionHeld))
        }
        State::Held(held) if now < held.until && (held.disputed || held.nonce != nonce) => {
            (State::Held(Held { disputed: true, ..held }), Err(Code::InstanceTwice))
        }
        State::Free { .. } | State::Held(_) => {
            let until = lapse(now);
            let held =
                Held { epoch, instance: by, nonce, former: Vec::new(), until, disputed: false };
            (State::Held(held), Ok(vec![Effect::Abandon, Effect::Grant { epoch, until }]))
        }
    }
}

fn renew(state: State, epoch: Epoch, nonce: Nonce, now: Wall) -> Step {
    let mut held = match state {
        State::Held(held) if held.epoch == epoch && now < held.until => held,
        other => return (other, Err(Code::Fenced)),
    };
    if held.disputed || held.former.contains(&nonce) {
        held.disputed = true;
        return (State::Held(held), Err(Code::InstanceTwice));
    }
    if held.nonce != nonce {
        held.former.push(held.nonce);
        let surplus = held.former.len().saturating_sub(FORMER);
        held.former.drain(..surplus);
        held.nonce = nonce;
    }
    held.until = lapse(now);
    let grant = Effect::Grant { epoch, until: held.until };
    (State::Held(held), Ok(vec![grant]))
}

fn lapse(now: Wall) -> Wall {
    let ttl = i64::try_from(limits::SESSION_TTL.as_micros()).unwrap_or(i64::MAX);
    Wall(now.0.saturating_add(ttl))
}

#[cfg(test)]
mod tests {
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
        assert_eq!(grid, include_str!("session.golden.txt"), "got:\n{grid}");
    }

    #[test]
    fn a_sender_that_was_taken_over_can_neither_renew_nor_release() {
        let (state, _) =
            step(held(A, N1, false), Event::Open { by: B, nonce: N2 }, Wall(31 * SECOND));
        assert_eq!(state.epoch(), Epoch(6));
        for event in
            [Event::Renew { epoch: Epoch(5), nonce: N1 }, Event::Release { epoch: Epoch(5) }]
        {
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
        for turn in 0..40 {
            let nonce = if turn % 2 == 0 { N1 } else { N2 };
            // Leases lapse in between.
            let (next, answer) = step_of(state, open(nonce), &mut heard, Wall(turn * 20 * SECOND));
            heard = Heard::of_bytes(&heard.to_bytes());
            state = next;
            granted.extend(answer.is_ok().then_some(turn));
        }
        assert_eq!(
            granted,
            [0, 2, 4, 6, 8],
            "each lapse served one of them, until both had come back"
        );
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
    fn late_calls_of_processes_that_died_make_no_twins() {
        let nonce = |number| Nonce(Uuid::from_u128(number));
        let mut heard = Heard::default();
        for process in 0..100u128 {
            for word in
                [process, process, process.saturating_sub(1), process, process.saturating_sub(2)]
            {
                heard.hear(nonce(word));
            }
            assert!(!heard.are_twins(), "process {process}: {heard:?}");
        }
        assert!(heard.0.len() <= HEARD);
    }

    #[test]
    fn a_copy_that_dies_and_starts_again_is_found_by_the_one_that_lives() {
        let mut heard = Heard::default();
        for start in 0..12u128 {
            heard.hear(N1);
            assert!(!heard.are_twins(), "{start}");
            heard.hear(Nonce(Uuid::from_u128(100 + start)));
        }
        heard.hear(N1);
        assert!(heard.are_twins());
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
}
