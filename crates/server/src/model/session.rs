//! Session, model floor: who may send a stream, and under which epoch.
//!
//! Promises: one live epoch at a time; an epoch never comes back; two copies of one instance are both stopped, and stay
//! stopped until a person decides once both were heard.
//! Never: reads a clock, waits for the former sender to agree.
//!
//! | event \ state | free | held by the caller | held by another, live | lapsed | disputed, live |
//! |---|---|---|---|---|---|
//! | open | grant | same nonce: grant; other nonce: `InstanceTwice`, disputed | `SessionHeld` | grant | `InstanceTwice` |
//! | renew | `Fenced` | nonce in force or new: done; a replaced nonce: `InstanceTwice`, disputed | `Fenced` | `Fenced` | `InstanceTwice` |
//! | release | own again: done; else `Fenced` | done | `Fenced` | own: done; else `Fenced` | as undisputed |
//!
//! A second nonce may be a process that follows one that died, so it stops the instance for the life of the lease alone.
//! Where the first one is heard again after it, both live: the instance is `twins`, whoever holds the lease later, and an
//! open of twins is `InstanceTwice` wherever this table grants one.
//!
//! "Another" is another epoch where the event has one, another instance where it is an open.

use protocol::{
    Code,
    ids::{Epoch, InstanceId, Nonce},
    limits,
};
use runtime::{clock::Wall, mutant};

/// Nonces remembered per epoch: each is one restart within one lease.
const FORMER: usize = 8;

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
    /// A second copy was seen: nobody is prolonged until the lease lapses or a person decides.
    pub disputed: bool,
    /// Both copies were heard in this step. Kept with the instance and not with the lease, so never read back.
    pub twins: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// `twins`: two live processes were heard as that instance, and no person decided since.
    Open {
        by: InstanceId,
        nonce: Nonce,
        twins: bool,
    },
    Renew {
        epoch: Epoch,
        nonce: Nonce,
    },
    Release {
        epoch: Epoch,
    },
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

impl Held {
    /// Whether a nonce, heard now, proves that its process lives beside one that was heard after it.
    fn are_both_heard(&self, nonce: Nonce) -> bool {
        self.former.contains(&nonce) || (self.disputed && self.nonce == nonce)
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

pub fn step(state: State, event: Event, now: Wall) -> Step {
    let state = state.within(now);
    match event {
        Event::Open { by, nonce, twins } => open(state, (by, nonce, twins), now),
        Event::Renew { epoch, nonce } => renew(state, epoch, nonce, now),
        // Free already: the answer was lost and the sender repeats itself.
        Event::Release { epoch } if epoch == state.epoch() && epoch != Epoch(0) => {
            (State::Free { epoch }, Ok(vec![]))
        }
        Event::Release { .. } => (state, Err(Code::Fenced)),
    }
}

fn open(state: State, (by, nonce, twins): (InstanceId, Nonce, bool), now: Wall) -> Step {
    let before = state.epoch();
    let stays = mutant::is("epoch_stays") && before != Epoch(0);
    let epoch = if stays { before } else { before.next() };
    match state {
        State::Held(held) if now < held.until && held.instance != by => {
            (State::Held(held), Err(Code::SessionHeld))
        }
        State::Held(held) if now < held.until && (held.disputed || held.nonce != nonce) => {
            let twins = held.are_both_heard(nonce);
            (State::Held(Held { disputed: true, twins, ..held }), Err(Code::InstanceTwice))
        }
        state if twins => (state, Err(Code::InstanceTwice)),
        State::Free { .. } | State::Held(_) => {
            let until = lapse(now);
            let held = Held {
                epoch,
                instance: by,
                nonce,
                former: Vec::new(),
                until,
                disputed: false,
                twins: false,
            };
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
        held.twins = held.are_both_heard(nonce);
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
    use uuid::Uuid;

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
            twins: false,
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
            ("open", Event::Open { by: A, nonce: N1, twins: false }),
            ("open anew", Event::Open { by: A, nonce: N2, twins: false }),
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
        let (state, _) = step(
            held(A, N1, false),
            Event::Open { by: B, nonce: N2, twins: false },
            Wall(31 * SECOND),
        );
        assert_eq!(state.epoch(), Epoch(6));
        for event in
            [Event::Renew { epoch: Epoch(5), nonce: N1 }, Event::Release { epoch: Epoch(5) }]
        {
            let (after, answer) = step(state.clone(), event, Wall(32 * SECOND));
            assert_eq!((after, answer), (state.clone(), Err(Code::Fenced)));
        }
    }

    #[test]
    fn a_nonce_that_a_later_one_replaced_is_heard_again_so_both_copies_are_twins() {
        let renew = |nonce| Event::Renew { epoch: Epoch(5), nonce };
        let (state, answer) = step(held(A, N1, false), renew(N2), Wall(0));
        assert!(answer.is_ok());
        let (state, answer) = step(state, renew(N1), Wall(SECOND));
        assert_eq!(answer, Err(Code::InstanceTwice));
        let (state, answer) = step(state, renew(N2), Wall(2 * SECOND));
        assert_eq!(answer, Err(Code::InstanceTwice));
        let open = |by, twins| Event::Open { by, nonce: N2, twins };
        let lapsed = Wall(30 * SECOND);
        let (_, answer) = step(state.clone(), open(A, true), lapsed);
        assert_eq!(answer, Err(Code::InstanceTwice), "no lapse ends it");
        let (_, answer) = step(State::Free { epoch: Epoch(5) }, open(A, true), lapsed);
        assert_eq!(answer, Err(Code::InstanceTwice), "nor a release");
        let (_, answer) = step(state, open(B, false), lapsed);
        assert!(answer.is_ok(), "another instance is not concerned");
    }

    #[test]
    fn a_second_nonce_is_no_twin_until_the_first_is_heard_after_it() {
        let open = |nonce| Event::Open { by: A, nonce, twins: false };
        let both = |state: &State| matches!(state, State::Held(held) if held.twins);
        let (state, answer) = step(held(A, N1, false), open(N2), Wall(0));
        assert_eq!((answer, both(&state)), (Err(Code::InstanceTwice), false));
        let (state, _) = step(state, open(N2), Wall(SECOND));
        assert!(!both(&state), "the first may be dead");
        let (after, answer) = step(state.clone(), open(N2), Wall(30 * SECOND));
        assert!(answer.is_ok() && !both(&after), "then the lapse is enough");
        for event in [open(N1), Event::Renew { epoch: Epoch(5), nonce: N1 }] {
            let (heard, answer) = step(state.clone(), event, Wall(2 * SECOND));
            assert_eq!((answer, both(&heard)), (Err(Code::InstanceTwice), true));
        }
    }

    #[test]
    fn f40_a_wall_clock_that_steps_back_holds_a_lease_up_for_its_life_and_no_longer() {
        const HOUR: i64 = 3_600 * SECOND;
        let (given, _) = step(
            State::Free { epoch: Epoch(4) },
            Event::Open { by: A, nonce: N1, twins: false },
            Wall(9 * HOUR),
        );
        // Hours back: another one is kept out for the life of a lease, then it is let in.
        let by_another = Event::Open { by: B, nonce: N2, twins: false };
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
                    0 => Event::Open { by: instance, nonce, twins: false },
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
