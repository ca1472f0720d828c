//! ERP clock: notices that the clock of the ERP database was set back (F10).
//!
//! Promises: by what surely passed between two bounds, however slow the calls were; whoever asks later learns how often it
//! happened.
//! Never: reads a clock; says how far it went back.

use std::sync::{Mutex, PoisonError};

use runtime::clock::Mono;

/// Clocks that are kept, by slewing or by small steps, differ by less. Below it the allowance of stamps is wider.
const KEPT: i64 = 50_000;

/// What the clock showed last, and how often it was set back since this process began.
#[derive(Debug, Default)]
pub(super) struct ErpClock(Mutex<State>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    last: Option<(i64, Mono)>,
    steps: u64,
}

/// What a bound tells of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Steps {
    /// How often it was set back, with this time.
    pub(super) count: u64,
    /// It was between this bound and the one before.
    pub(super) now: bool,
}

impl ErpClock {
    /// Notes that it showed `at`, microseconds since 1970, at some moment between these two.
    pub(super) fn note(&self, at: i64, asked: Mono, answered: Mono) -> Steps {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = state.last.is_some_and(|(before, then)| {
            let passed = i64::try_from((asked - then).as_micros()).unwrap_or(i64::MAX);
            // Rates of clocks differ; by a thousandth no machine's does.
            let least = before.saturating_add(passed - passed / 1_000);
            at < least.saturating_sub(KEPT)
        });
        state.last = Some((at, answered));
        state.steps += u64::from(now);
        Steps { count: state.steps, now }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_step_back_is_noticed_although_the_clock_is_ahead_of_the_last_bound_again() {
        let (clock, begin) = (ErpClock::default(), Mono::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        assert_eq!(clock.note(100_000_000, at(0), at(0)), Steps::default());
        assert_eq!(clock.note(105_000_000, at(5), at(5)), Steps::default());
        // Five seconds later it shows three more.
        assert_eq!(clock.note(108_000_000, at(10), at(10)), Steps { count: 1, now: true });
        assert_eq!(clock.note(113_000_000, at(15), at(15)), Steps { count: 1, now: false });
        assert_eq!(clock.note(913_000_000, at(20), at(20)), Steps { count: 1, now: false });
        assert_eq!(clock.note(100_000_000, at(25), at(25)), Steps { count: 2, now: true });
    }

    proptest! {
        #[test]
        fn a_clock_that_is_kept_is_never_taken_for_one_that_was_set_back(
            calls in prop::collection::vec((0u64..100_000_000, 0u64..5_000_000, 0u64..5_000_000, -20_000i64..20_000), 1..60),
        ) {
            let (clock, begin) = (ErpClock::default(), Mono::now());
            let mut now = 0;
            for (pause, before, behind, off) in calls {
                let (asked, seen, answered) = (now + pause, now + pause + before, now + pause + before + behind);
                let at = 1_000_000_000 + i64::try_from(seen).unwrap() + off;
                let moment = |micros| begin + Duration::from_micros(micros);
                prop_assert!(!clock.note(at, moment(asked), moment(answered)).now);
                now = answered;
            }
        }
    }
}
