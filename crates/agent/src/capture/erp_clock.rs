//! ERP clock: notices that the clock of the ERP database was set back (F10).
//!
//! Promises: by what surely passed between two bounds, however slow the calls were; whoever asks later learns how far it
//! went back in all, and a table learns it again until a batch was accepted that holds what it made of it. A step counts
//! once more when every transaction that began before it has surely ended.
//! Never: reads a clock; takes a rate that differs for a step.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::names::TableName;
use runtime::clock::Mono;

use crate::source::Bound;

/// Microseconds. Clocks that are kept, by slewing or by small steps, differ by less.
const KEPT: i64 = 50_000;

/// What the clock showed last, and how far it was set back since this process began.
#[derive(Debug, Default)]
pub(super) struct ErpClock(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What it showed, and between which moments.
    last: Option<(i64, Mono, Mono)>,
    back: u64,
    waits: Option<Wait>,
    /// How much of it each table has met for good.
    met: BTreeMap<TableName, u64>,
}

/// Transactions from before a step.
#[derive(Clone, Copy, Debug)]
struct Wait {
    /// None of them began later, by the clock as it was.
    ceiling: i64,
    /// Of the steps that they began before.
    back: u64,
}

impl ErpClock {
    /// Notes a bound that was asked for and answered at these moments. Gives the microseconds of all steps back so far.
    pub(super) fn note(&self, bound: &Bound, asked: Mono, answered: Mono) -> u64 {
        let mut state = self.held();
        let micros = |time: Duration| i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
        if let Some((before, begin, end)) = state.last {
            let passed = micros(asked - end);
            // Rates of clocks differ; by a thousandth no machine's does.
            let least = before.saturating_add(passed - passed / 1_000);
            let back = least.saturating_sub(bound.at_micros);
            if back > KEPT {
                let back = back.unsigned_abs();
                let most = before.saturating_add(micros(answered - begin)).saturating_add(KEPT);
                let wait = state.waits.unwrap_or(Wait { ceiling: most, back: 0 });
                let ceiling = wait.ceiling.max(most);
                state.waits = Some(Wait { ceiling, back: wait.back.saturating_add(back) });
                state.back = state.back.saturating_add(back);
            }
        }
        // The oldest open transaction began behind it, so the clock has come there again too.
        if let Some(over) = state.waits.take_if(|wait| bound.micros > wait.ceiling) {
            state.back = state.back.saturating_add(over.back);
        }
        state.last = Some((bound.at_micros, asked, answered));
        state.back
    }

    /// How much of it a table has met, as far as batches were accepted.
    pub(super) fn met(&self, table: &TableName) -> u64 {
        self.held().met.get(table).copied().unwrap_or_default()
    }

    /// A batch was accepted that holds what the table made of them.
    pub(super) fn is_met(&self, table: &TableName, back: u64) {
        let mut state = self.held();
        // Nothing to keep while it goes on as it should.
        if back > 0 && state.met.get(table) != Some(&back) {
            state.met.insert(table.clone(), back);
        }
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_step_back_is_noticed_although_the_clock_is_ahead_of_the_last_bound_again() {
        let (clock, begin) = (ErpClock::default(), Mono::now());
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let note =
            |shows: i64, then: u64| clock.note(&Bound::at(shows * 1_000_000), at(then), at(then));
        let seconds = |micros: u64| (micros + 20_000) / 1_000_000;
        assert_eq!((note(100, 0), note(105, 5)), (0, 0));
        assert_eq!(seconds(note(107, 10)), 3, "five seconds later it shows two more");
        assert_eq!(seconds(note(109, 12)), 3);
        assert_eq!(seconds(note(112, 15)), 6, "what began before the step has ended");
        assert_eq!((seconds(note(913, 20)), seconds(note(100, 25))), (6, 824));
    }

    #[test]
    fn a_transaction_from_before_the_step_is_waited_for_although_the_clock_has_caught_up() {
        let (clock, begin) = (ErpClock::default(), Mono::now());
        let note = |shows: i64, oldest: i64, then: u64| {
            let bound = Bound { micros: oldest * 1_000_000, ..Bound::at(shows * 1_000_000) };
            let now = begin + Duration::from_secs(then);
            clock.note(&bound, now, now)
        };
        assert_eq!(note(1_000, 1_000, 0), 0);
        // It begins at 1,003; four minutes back at the next look.
        let step = note(765, 765, 5);
        assert!(step > 0);
        assert_eq!(note(1_000, 1_000, 240), step);
        let still = (note(1_010, 1_003, 250), note(1_900, 1_003, 1_140));
        assert_eq!(still, (step, step), "it is open");
        assert_eq!((note(1_905, 1_905, 1_145), note(1_910, 1_910, 1_150)), (2 * step, 2 * step));
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
                prop_assert_eq!(clock.note(&Bound::at(at), moment(asked), moment(answered)), 0);
                now = answered;
            }
        }
    }
}
