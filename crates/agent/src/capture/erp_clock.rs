//! ERP clock: notices that the clock of the ERP database was set back (F10).
//!
//! Promises: by what surely passed between two bounds, however slow the calls were; whoever asks later learns how often it
//! happened, and a table learns it again until a batch was accepted that holds what it made of it.
//! Never: reads a clock; says how far it went back.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use protocol::names::TableName;
use runtime::clock::Mono;

/// Clocks that are kept, by slewing or by small steps, differ by less. Below it the allowance of stamps is wider.
const KEPT: i64 = 50_000;

/// What the clock showed last, and how often it was set back since this process began.
#[derive(Debug, Default)]
pub(super) struct ErpClock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<(i64, Mono)>,
    steps: u64,
    /// How many of them each table has met for good.
    met: BTreeMap<TableName, u64>,
}

impl ErpClock {
    /// Notes that it showed `at`, microseconds since 1970, at some moment between these two; gives how often it was set
    /// back so far.
    pub(super) fn note(&self, at: i64, asked: Mono, answered: Mono) -> u64 {
        let mut state = self.held();
        let back = state.last.is_some_and(|(before, then)| {
            let passed = i64::try_from((asked - then).as_micros()).unwrap_or(i64::MAX);
            // Rates of clocks differ; by a thousandth no machine's does.
            let least = before.saturating_add(passed - passed / 1_000);
            at < least.saturating_sub(KEPT)
        });
        state.last = Some((at, answered));
        state.steps += u64::from(back);
        state.steps
    }

    /// How many a table has met, as far as batches were accepted.
    pub(super) fn met(&self, table: &TableName) -> u64 {
        self.held().met.get(table).copied().unwrap_or_default()
    }

    /// A batch was accepted that holds what the table made of them.
    pub(super) fn is_met(&self, table: &TableName, steps: u64) {
        let mut state = self.held();
        // Nothing to keep while it goes on as it should.
        if steps > 0 && state.met.get(table) != Some(&steps) {
            state.met.insert(table.clone(), steps);
        }
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
        let note = |shows: i64, then: u64| clock.note(shows * 1_000_000, at(then), at(then));
        assert_eq!((note(100, 0), note(105, 5)), (0, 0));
        assert_eq!(note(108, 10), 1, "five seconds later it shows three more");
        assert_eq!((note(113, 15), note(913, 20), note(100, 25)), (1, 1, 2));
    }

    #[test]
    fn a_table_is_told_of_a_step_again_until_a_batch_with_it_was_accepted() {
        let (clock, table) = (ErpClock::default(), "t".parse().unwrap());
        assert_eq!(clock.met(&table), 0);
        clock.is_met(&table, 2);
        assert_eq!((clock.met(&table), clock.met(&"u".parse().unwrap())), (2, 0));
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
                prop_assert_eq!(clock.note(at, moment(asked), moment(answered)), 0);
                now = answered;
            }
        }
    }
}
