//! Delivery, model floor: what follows a try to tell an event (`correctness.md` i, `contracts.md` 5.7).
//!
//! Promises: total, one step for every outcome; any 2xx ends a delivery, all else repeats it with growing pauses until
//! the last try is used up; what is used up is `dead`, never gone.
//! Never: reads a clock, draws a number, calls anybody.
//!
//! | state \ event | claimed | 2xx | other answer, or none | lease over |
//! |---|---|---|---|---|
//! | ready, due | leased, try + 1 | – | – | – |
//! | leased | – | done | ready after a pause, or dead | as other |
//! | done, dead | – (a replay makes it ready, try 0) | – | – | – |

use std::time::Duration;

use protocol::{Code, Error, Result, limits};
use runtime::clock::Wall;

/// Failures in a row after which an address is left in peace between two tries: one refused event is no outage.
const RESTS_AFTER: u32 = 3;

/// State of a delivery (`contracts.md` 7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Ready,
    Leased,
    Done,
    Dead,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Leased => "leased",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// From the store's own word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Ready, Self::Leased, Self::Done, Self::Dead]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

impl std::str::FromStr for State {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let words = "a delivery is ready, leased, done or dead";
        Self::parse(text).ok_or_else(|| Error::new(Code::BadRequest, words))
    }
}

/// How often and how soon a delivery is tried.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// Tries until a delivery is dead.
    pub attempts: u32,
    /// Longest pause before the second try; it doubles with each further one, up to an hour.
    pub first_retry_seconds: u32,
}

impl Default for Schedule {
    fn default() -> Self {
        Self { attempts: 10, first_retry_seconds: 60 }
    }
}

impl Schedule {
    /// # Errors
    /// `CONFIG_INVALID` where nothing would ever be tried, or without a pause.
    pub fn check(self) -> Result<()> {
        if self.attempts == 0 || self.first_retry_seconds == 0 {
            let words = "webhooks.attempts and webhooks.first_retry_seconds must be 1 or more";
            return Err(Error::new(Code::ConfigInvalid, words));
        }
        Ok(())
    }

    /// The pause after so many tries: half of the step for sure, the rest by `chance` (`0.0..1.0`).
    fn pause(self, tries: u32, chance: f64) -> Duration {
        let first = Duration::from_secs(u64::from(self.first_retry_seconds));
        let doubled = first.saturating_mul(1u32 << tries.saturating_sub(1).min(16));
        let step = doubled.min(limits::WEBHOOK_PAUSE);
        step / 2 + (step / 2).mul_f64(chance.clamp(0.0, 1.0))
    }
}

/// What a try came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A status came, and perhaps when to come again.
    Answered { status: u16, retry_after: Option<Duration> },
    /// No status came.
    Unanswered,
    /// The process that tried has not written down what it came to.
    Unknown,
}

impl Outcome {
    #[must_use]
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// How long the consumer asks to be left in peace; what lies beyond the longest pause is not believed.
    fn asked(self) -> Duration {
        match self {
            Self::Answered { status: 429 | 503, retry_after: Some(after) } => {
                after.min(limits::WEBHOOK_PAUSE)
            }
            _ => Duration::ZERO,
        }
    }
}

/// What becomes of a delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    Done,
    Again { not_before: Wall },
    Dead,
}

/// What follows the `tries`th try of a delivery that may be tried `schedule.attempts` times.
#[must_use]
pub fn after(tries: u32, outcome: Outcome, schedule: Schedule, (now, chance): (Wall, f64)) -> Next {
    if outcome.is_good() {
        return Next::Done;
    }
    if tries >= schedule.attempts {
        return Next::Dead;
    }
    let pause = schedule.pause(tries, chance).max(outcome.asked());
    Next::Again { not_before: later(now, pause) }
}

/// How an address stands, whatever the delivery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Health {
    /// Tries in a row that failed.
    pub failures: u32,
    /// Nothing is tried before.
    pub not_before: Wall,
}

/// An address that fails again and again is tried once in a while, so that what waits for it does not use up its tries;
/// one that answers is tried as fast as it answers.
#[must_use]
pub fn health(
    before: Health,
    outcome: Outcome,
    schedule: Schedule,
    (now, chance): (Wall, f64),
) -> Health {
    if outcome.is_good() {
        return Health::default();
    }
    let failures = before.failures.saturating_add(1);
    let rest = if failures < RESTS_AFTER { Duration::ZERO } else { schedule.pause(1, chance) };
    Health { failures, not_before: later(now, rest.max(outcome.asked())) }
}

fn later(now: Wall, by: Duration) -> Wall {
    Wall(now.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall(1_800_000_000_000_000);
    const MINUTE: i64 = 60_000_000;

    fn status(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    fn waits(tries: u32, outcome: Outcome, chance: f64) -> Option<i64> {
        match after(tries, outcome, Schedule::default(), (NOW, chance)) {
            Next::Again { not_before } => Some(not_before.0 - NOW.0),
            Next::Done | Next::Dead => None,
        }
    }

    #[test]
    fn any_2xx_ends_it_and_all_else_repeats_it() {
        let next = |outcome| after(1, outcome, Schedule::default(), (NOW, 0.0));
        for good in [200, 202, 204, 299] {
            assert_eq!(next(status(good)), Next::Done, "{good}");
        }
        for bad in [100, 199, 300, 301, 308, 400, 404, 410, 429, 500, 599] {
            assert!(matches!(next(status(bad)), Next::Again { .. }), "{bad}");
        }
        for none in [Outcome::Unanswered, Outcome::Unknown] {
            assert!(matches!(next(none), Next::Again { .. }));
        }
    }

    #[test]
    fn pauses_double_from_a_minute_to_an_hour_and_the_last_try_is_the_tenth() {
        let longest: Vec<i64> =
            (1..10).map(|tries| waits(tries, Outcome::Unanswered, 1.0).unwrap() / MINUTE).collect();
        assert_eq!(longest, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(waits(1, Outcome::Unanswered, 0.0), Some(MINUTE / 2), "half of it for sure");
        for tries in [10, 11, u32::MAX] {
            let dead = after(tries, Outcome::Unanswered, Schedule::default(), (NOW, 0.0));
            assert_eq!(dead, Next::Dead);
        }
        assert_eq!(after(10, status(200), Schedule::default(), (NOW, 0.0)), Next::Done);
    }

    #[test]
    fn who_asks_for_more_time_gets_it_up_to_an_hour() {
        let asks = |status, seconds| Outcome::Answered {
            status,
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(waits(1, asks(429, 600), 0.0), Some(10 * MINUTE));
        assert_eq!(waits(1, asks(503, 1), 0.0), Some(MINUTE / 2), "less than its own pause");
        assert_eq!(waits(1, asks(503, u64::MAX), 0.0), Some(60 * MINUTE));
        assert_eq!(waits(1, asks(500, 600), 0.0), Some(MINUTE / 2), "no meaning there");
        let rest = health(Health::default(), asks(429, 600), Schedule::default(), (NOW, 0.0));
        assert_eq!(rest, Health { failures: 1, not_before: Wall(NOW.0 + 10 * MINUTE) });
    }

    #[test]
    fn an_address_rests_after_its_third_failure_in_a_row_and_a_success_forgets_them() {
        let step = |before, outcome| health(before, outcome, Schedule::default(), (NOW, 1.0));
        let mut health = Health::default();
        let mut rests = Vec::new();
        for _ in 0..4 {
            health = step(health, Outcome::Unanswered);
            rests.push(health.not_before.0 - NOW.0);
        }
        assert_eq!(rests, [0, 0, MINUTE, MINUTE]);
        assert_eq!(step(health, status(204)), Health::default());
    }

    #[test]
    fn a_schedule_without_a_try_or_a_pause_is_refused() {
        for (attempts, first_retry_seconds, good) in [(1, 1, true), (0, 60, false), (10, 0, false)]
        {
            assert_eq!(Schedule { attempts, first_retry_seconds }.check().is_ok(), good);
        }
    }

    proptest! {
        #[test]
        fn a_delivery_that_never_succeeds_is_dead_after_exactly_its_tries_and_never_earlier(
            attempts in 1u32..40, first in 1u32..100_000, chance in 0.0f64..1.0, bad in 300u16..600,
        ) {
            let schedule = Schedule { attempts, first_retry_seconds: first };
            let (mut tries, mut now) = (0, NOW);
            loop {
                tries += 1;
                match after(tries, status(bad), schedule, (now, chance)) {
                    Next::Again { not_before } => {
                        prop_assert!(not_before > now, "a pause is never zero");
                        let longest = i64::try_from(limits::WEBHOOK_PAUSE.as_micros()).unwrap();
                        prop_assert!(not_before.0 - now.0 <= longest);
                        now = not_before;
                    }
                    Next::Dead => break,
                    Next::Done => prop_assert!(false),
                }
            }
            prop_assert_eq!(tries, attempts);
        }
    }
}
