//! Session, model floor: who may send a stream, and under which epoch.
//!
//! Promises: one live epoch at a time; an epoch never comes back; two copies of one instance are both stopped, and stay
//! stopped until a person decides once both were heard in turns.
//! Never: reads a clock, waits for the former sender to agree.
//!
//! | event \ state | free | held by the caller | held by another, live | lapsed | disputed, live |
//! |---|---|---|---|---|---|
//! | open | grant | same nonce: grant; other nonce: `InstanceTwice`, disputed | `SessionHeld` | grant; once a replaced nonce of the same instance: `InstanceTwice` | `InstanceTwice` |
//! | renew | `Fenced` | nonce in force or new: done; a replaced nonce: `InstanceTwice`, disputed | `Fenced` | `Fenced` | `InstanceTwice` |
//! | release | own again: done; else `Fenced` | done | `Fenced` | own: done; else `Fenced` | as undisputed |
//!
//! A second nonce may be a process that follows one that died, and a call of the dead may come late; so they stop the
//! instance for the life of the lease alone. Where both go on being heard (`Heard`) for longer than a call can be late, both
//! live: they are twins, and whatever this table would grant them is `InstanceTwice`.
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
/// For how long after it was replaced a nonce may be heard again without anything following from it, in microseconds:
/// calls of a process that died come late, however many they are, but none outlives the patience of the lines it is on.
const LATE: i64 = 150 * 1_000_000;
/// How often each of two nonces comes back after the other one before both are taken for alive.
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

/// What an instance was heard with since a person decided last, the latest first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Heard(Vec<Voice>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Voice {
    nonce: Nonce,
    /// How often it came back after another one.
    returns: u8,
    /// When another one followed it last; of the latest, when it was heard first.
    replaced: Wall,
}

impl Voice {
    /// Bytes in the store: the nonce, its returns, and when it was replaced.
    const LEN: usize = 16 + 1 + 8;
    /// As it once was, without a time.
    const TIMELESS: usize = 16 + 1;

    /// Whether a call with it may still be one that was made before it was replaced.
    const fn may_be_late(&self, now: Wall) -> bool {
        let age = now.0.saturating_sub(self.replaced.0);
        self.returns == 0 && 0 <= age && age < LATE
    }

    fn to_bytes(self) -> impl Iterator<Item = u8> {
        let nonce = self.nonce.0.into_bytes();
        nonce.into_iter().chain([self.returns]).chain(self.replaced.0.to_le_bytes())
    }

    /// `None` where they are too few; of those without a time, as though it was replaced long ago.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (nonce, rest) = bytes.split_first_chunk::<16>()?;
        let (returns, time) = rest.split_first()?;
        let replaced = time.first_chunk().map_or(0, |time| i64::from_le_bytes(*time));
        let nonce = Nonce(Uuid::from_bytes(*nonce));
        Some(Self { nonce, returns: *returns, replaced: Wall(replaced) })
    }
}

impl Heard {
    fn hear(&mut self, nonce: Nonce, now: Wall) {
        let mut voice = Voice { nonce, returns: 0, replaced: now };
        match self.0.iter().position(|voice| voice.nonce == nonce) {
            Some(0) => return,
            Some(place) => {
                let former = self.0.remove(place);
                if former.may_be_late(now) {
                    self.0.insert(place, former);
                    return;
                }
                voice.returns = former.returns.saturating_add(1);
            }
            None => {}
        }
        if let Some(former) = self.0.first_mut() {
            former.replaced = now;
        }
        self.0.insert(0, voice);
        self.0.truncate(HEARD);
    }

    /// Whether two processes live that are both this instance.
    #[must_use]
    pub fn are_twins(&self) -> bool {
        self.0.iter().filter(|voice| voice.returns >= RETURNS).count() > 1
            || self.0.iter().any(|voice| voice.returns >= ALONE)
    }

    /// For the store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|voice| voice.to_bytes()).collect()
    }

    /// Of what [`Heard::to_bytes`] gave. No more than [`HEARD`] voices are kept, so the two lengths share no multiple.
    #[must_use]
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let timed = bytes.len().is_multiple_of(Voice::LEN);
        let len = if timed { Voice::LEN } else { Voice::TIMELESS };
        Self(bytes.chunks_exact(len).filter_map(Voice::of_bytes).collect())
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
        heard.hear(nonce, now);
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
        // It lives, and so does or did the one that replaced it. Told once, so that it knows of the other.
        State::Held(mut held) if held.instance == by && held.former.contains(&nonce) => {
            held.former.retain(|former| *former != nonce);
            (State::Held(held), Err(Code::InstanceTwice))
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
mod tests;
