//! Governor: how fast the ERP database may be read in bulk, by how fast it answers.
//!
//! Promises: where the database answers slower than it is used to, base loads and scans take smaller pages and longer
//! rests, half the pace at each look; where it answers as before, the pace comes back by a tenth at each look, and twofold
//! while nothing is read in bulk, which could slow it again; it never falls below a sixteenth, so that nothing stops
//! altogether; a database that is slower for good is believed in time, and
//! a line whose times differ by themselves is not taken for a slow one.
//! Never: reads a clock, asks the database, waits.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::names::TableName;

/// The pace when nothing is held back, in thousandths.
pub const FULL: u32 = 1_000;
/// The slowest pace.
const LEAST: u32 = FULL / 16;
/// A probe is slow above so many times of what the database is used to, and by at least that much: below it is the noise of
/// a network.
const PROBE: (f64, f64) = (1.5, 0.002);
/// As [`PROBE`], for reading a thousand rows: their width differs within a table.
const PAGE: (f64, f64) = (3.0, 0.050);
/// It answers as before below so many times of what it is used to.
const CALM: f64 = 1.2;
/// How much of a new time is taken into the mean.
const WEIGHT: f64 = 0.3;
/// How much of a new time is taken into what the database is used to, once that is known by a hundred looks; and by how
/// much that grows with each look at most: to twice the time within some 350 looks.
const LEARN: f64 = 0.01;
const RISE: f64 = 1.002;

/// A time that is measured again and again: its mean of late, and what it is used to be.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Beat {
    mean: f64,
    used_to: f64,
    looks: f64,
}

impl Beat {
    const fn of(seconds: f64) -> Self {
        Self { mean: seconds, used_to: seconds, looks: 1.0 }
    }

    /// The mean of all times at first; later ones count a hundredth, so that times that differ by themselves are met in
    /// their middle and a slow one among them is no news.
    fn note(&mut self, seconds: f64) {
        self.mean += WEIGHT * (seconds - self.mean);
        self.looks += 1.0;
        let learnt = self.used_to + LEARN.max(1.0 / self.looks) * (seconds - self.used_to);
        self.used_to = if self.looks < WARM { learnt } else { learnt.min(self.used_to * RISE) };
    }

    fn is_slow(&self, (times, least): (f64, f64)) -> bool {
        self.mean > self.used_to * times && self.mean - self.used_to > least
    }

    fn is_calm(&self, (_, least): (f64, f64)) -> bool {
        self.mean < self.used_to * CALM || self.mean - self.used_to < least / 2.0
    }
}

/// Looks after which it is known what the database is used to.
const WARM: f64 = 10.0;

/// What a look changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shift {
    Nothing,
    /// From the full pace to a slower one.
    Slows,
    /// Back to the full pace.
    Free,
}

/// The pace of one source, and the times it is found by.
#[derive(Clone, PartialEq, Debug)]
struct State {
    pace: u32,
    probe: Option<Beat>,
    pages: BTreeMap<TableName, Beat>,
    /// A page was slow since the last look.
    slow_page: bool,
}

impl State {
    fn probe(&mut self, took: Duration, in_bulk: bool) -> Shift {
        let seconds = took.as_secs_f64();
        let beat = self.probe.get_or_insert(Beat::of(seconds));
        beat.note(seconds);
        let slow = std::mem::take(&mut self.slow_page) || beat.is_slow(PROBE);
        let before = self.pace;
        if slow {
            self.pace = (self.pace / 2).max(LEAST);
        } else if beat.is_calm(PROBE) {
            let back = if in_bulk { self.pace / 10 + 1 } else { self.pace };
            self.pace = (self.pace + back).min(FULL);
        }
        match (before, self.pace) {
            (FULL, pace) if pace < FULL => Shift::Slows,
            (before, FULL) if before < FULL => Shift::Free,
            _ => Shift::Nothing,
        }
    }

    fn page(&mut self, table: &TableName, took: Duration, rows: usize) {
        // What a statement costs by itself would make the rows of a small page look slow.
        let Ok(rows) = u32::try_from(rows) else { return };
        if rows < 200 {
            return;
        }
        let thousand = took.as_secs_f64() * 1_000.0 / f64::from(rows);
        let beat = self.pages.entry(table.clone()).or_insert(Beat::of(thousand));
        beat.note(thousand);
        self.slow_page |= beat.is_slow(PAGE);
    }
}

/// The governor of one source.
#[derive(Debug)]
pub struct Governor(Mutex<State>);

impl Default for Governor {
    fn default() -> Self {
        let pages = BTreeMap::new();
        Self(Mutex::new(State { pace: FULL, probe: None, pages, slow_page: false }))
    }
}

impl Governor {
    /// The pace, in thousandths of the full one.
    pub fn pace(&self) -> u32 {
        self.state().pace
    }

    /// Notes what a probe took, and sets the pace; `in_bulk`: whether anything is read in bulk meanwhile.
    pub(super) fn probe(&self, took: Duration, in_bulk: bool) -> Shift {
        self.state().probe(took, in_bulk)
    }

    /// Notes what a page of that many rows took.
    pub(crate) fn page(&self, table: &TableName, took: Duration, rows: usize) {
        self.state().page(table, took, rows);
    }

    /// The rest after so much reading, at a duty of so many percent and the pace of now.
    pub(super) fn rest(&self, took: Duration, duty_percent: u32) -> Duration {
        let share = f64::from(duty_percent.clamp(1, 100)) / 100.0;
        let share = share * f64::from(self.pace()) / f64::from(FULL);
        took.mul_f64((1.0 - share) / share)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(millis: f64) -> Duration {
        Duration::from_secs_f64(millis / 1_000.0)
    }

    fn probed(governor: &Governor, millis: f64, times: usize) -> Vec<Shift> {
        let changes = (0..times).map(|_| governor.probe(ms(millis), true));
        changes.filter(|change| *change != Shift::Nothing).collect()
    }

    #[test]
    fn it_slows_where_the_database_does_and_comes_back_slowly() {
        let governor = Governor::default();
        assert_eq!(probed(&governor, 10.0, 50), []);
        assert_eq!(governor.pace(), FULL);
        assert_eq!(probed(&governor, 30.0, 3), [Shift::Slows], "told once");
        assert!(governor.pace() <= FULL / 4, "{}", governor.pace());
        probed(&governor, 30.0, 20);
        assert_eq!(governor.pace(), LEAST, "and no slower");
        assert_eq!(probed(&governor, 10.0, 10), [], "not at once");
        assert!(governor.pace() < FULL / 4, "{}", governor.pace());
        assert_eq!(probed(&governor, 10.0, 40), [Shift::Free]);
        assert_eq!(governor.pace(), FULL);
    }

    #[test]
    fn it_comes_back_in_a_few_looks_while_nothing_is_read_in_bulk() {
        let governor = Governor::default();
        probed(&governor, 10.0, 50);
        probed(&governor, 30.0, 20);
        assert_eq!(governor.pace(), LEAST);
        let looks = (1..).find(|_| governor.probe(ms(10.0), false) == Shift::Free).unwrap();
        assert!(looks <= 12, "{looks}, of which the first ones still see the mean of before");
        probed(&governor, 30.0, 20);
        governor.probe(ms(30.0), false);
        assert_eq!(governor.pace(), LEAST, "and not while it answers slowly");
    }

    #[test]
    fn noise_of_a_quick_network_does_not_slow_it() {
        let governor = Governor::default();
        for round in 0..1_000 {
            governor.probe(ms(if round % 3 == 0 { 0.2 } else { 1.1 }), true);
            assert_eq!(governor.pace(), FULL, "{round}");
        }
    }

    #[test]
    fn a_line_whose_times_differ_by_themselves_does_not_slow_it() {
        let governor = Governor::default();
        let mut slowed = 0;
        for round in 0..2_000_u32 {
            // 20 to 60 ms in an order that looks random.
            governor.probe(ms(f64::from(20 + round.wrapping_mul(2_654_435_761) % 41)), true);
            slowed += u32::from(round > 100 && governor.pace() < FULL);
        }
        assert!(slowed < 40, "{slowed} of 2,000 looks");
        assert!(probed(&governor, 150.0, 5).contains(&Shift::Slows), "what is slow is seen");
    }

    #[test]
    fn a_database_that_is_slower_for_good_is_believed_in_time() {
        let governor = Governor::default();
        probed(&governor, 10.0, 50);
        let changes = probed(&governor, 20.0, 1_000);
        assert_eq!(changes, [Shift::Slows, Shift::Free]);
    }

    #[test]
    fn pages_that_become_slow_slow_it_too_and_small_ones_say_nothing() {
        let (governor, table) = (Governor::default(), "FLAN".parse().unwrap());
        let read = |millis: f64, rows: usize| {
            governor.page(&table, ms(millis), rows);
            governor.probe(ms(1.0), true);
            governor.pace()
        };
        for _ in 0..20 {
            assert_eq!(read(40.0, 1_000), FULL);
            assert_eq!(read(40.0, 10), FULL);
        }
        let paces: Vec<u32> = (0..6).map(|_| read(400.0, 1_000)).collect();
        assert!(paces.last().is_some_and(|pace| *pace < FULL / 2), "{paces:?}");
    }

    #[test]
    fn a_rest_grows_as_the_pace_falls() {
        let governor = Governor::default();
        assert_eq!(governor.rest(ms(100.0), 100), Duration::ZERO);
        assert_eq!(governor.rest(ms(100.0), 25), ms(300.0));
        probed(&governor, 10.0, 50);
        probed(&governor, 1_000.0, 1);
        assert_eq!(governor.pace(), 500);
        assert_eq!(governor.rest(ms(100.0), 25), ms(700.0));
    }

    proptest! {
        #[test]
        fn whatever_it_sees_it_neither_stops_nor_hurries(
            times in prop::collection::vec((0.0f64..5_000.0, 0.0f64..5_000.0, 0usize..5_000), 1..300),
        ) {
            let (governor, table) = (Governor::default(), "FLAN".parse().unwrap());
            for (page, probe, rows) in times {
                governor.page(&table, ms(page), rows);
                governor.probe(ms(probe), rows % 2 == 0);
                prop_assert!((LEAST..=FULL).contains(&governor.pace()));
                let rest = governor.rest(ms(100.0), 25);
                prop_assert!(rest >= ms(299.9) && rest < Duration::from_secs(10), "{rest:?}");
            }
        }
    }
}
