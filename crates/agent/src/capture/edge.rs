//! Edge: where a cursor may move after a delta page (`correctness.md` 3 a).
//!
//! Promises: a cursor moves to `B` only when every row below `B - e` was seen; a cut keeps (stamp, key) only below that
//! edge, above it the hot group is read again whole (F07, F71).
//! Never: compares stamps or keys; the database did.

use std::time::Duration;

use runtime::mutant;

use super::cursor::{Cursor, Cut};
use crate::source::{Bound, From, PageKey, Watermark};

/// A delta pass under one bound; may go on in the next batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Pass {
    pub(super) bound: Bound,
    /// `B` in the stamp column's form.
    pub(super) edge: Watermark,
    /// Where the next page starts.
    pub(super) from: From,
    /// Last row sent: its place, and whether it lies below the edge.
    last: Option<(Watermark, PageKey, bool)>,
}

/// Where a delta starts by the cursor. Without a watermark there is none.
#[must_use]
pub(super) fn start(cursor: &Cursor, allowance: Duration) -> Option<From> {
    let watermark = cursor.watermark.clone()?;
    let kept = cursor.cut.as_ref().filter(|cut| micros(allowance) <= cut.allowance);
    Some(match kept {
        Some(cut) => From::After(watermark, cut.key.clone()),
        None => From::At(watermark),
    })
}

impl Pass {
    #[must_use]
    pub(super) fn new(bound: Bound, edge: Watermark, from: From) -> Self {
        Self { bound, edge, from, last: None }
    }

    /// Whether a whole pass after `read` saw all that this one can show. Then it may finish without a read: what is not
    /// committed by now has a stamp of at least `B - e`.
    #[must_use]
    pub(super) fn shows_nothing_since(&self, read: Option<&String>) -> bool {
        read.is_some() && read == self.bound.committed.as_ref()
    }

    /// A page was sent that ended at this place.
    pub(super) fn advance(&mut self, stamp: Watermark, key: PageKey, below_edge: bool) {
        self.from = From::After(stamp.clone(), key.clone());
        self.last = Some((stamp, key, below_edge));
    }

    /// The pass reached the end: everything not seen has a stamp of at least `B - e`.
    pub(super) fn finish(&self, cursor: &mut Cursor) {
        if mutant::is("naive_watermark") {
            if let Some((stamp, key, _)) = &self.last {
                cursor.watermark = Some(stamp.clone());
                cursor.cut = Some(Cut { key: key.clone(), allowance: u64::MAX });
            }
            return;
        }
        cursor.watermark = Some(self.edge.clone());
        cursor.micros = Some(self.bound.micros);
        cursor.cut = None;
    }

    /// The batch ends before the pass does. Gives the pass back where it must go on under the same bound.
    #[must_use]
    pub(super) fn cut(self, cursor: &mut Cursor, allowance: Duration) -> Option<Self> {
        match &self.last {
            // Nothing was sent in this batch: the cursor stays and so does the place.
            None => Some(self),
            Some((_, _, true)) if mutant::is("cut_moves_to_bound") => {
                self.finish(cursor);
                None
            }
            Some((stamp, key, below)) if *below || mutant::is("key_in_hot_group") => {
                cursor.watermark = Some(stamp.clone());
                cursor.cut = Some(Cut { key: key.clone(), allowance: micros(allowance) });
                None
            }
            Some(_) => {
                self.finish(cursor);
                Some(self)
            }
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const E: Duration = Duration::from_micros(3);

    fn mark(stamp: i64) -> Watermark {
        Watermark(stamp.to_string())
    }

    fn key(key: u32) -> PageKey {
        PageKey(vec![key.to_string()])
    }

    #[test]
    fn f07_a_cut_below_the_edge_goes_on_behind_its_last_key_and_nothing_is_taken_off() {
        let mut cursor = Cursor { watermark: Some(mark(1)), ..Cursor::default() };
        let mut pass = Pass::new(Bound::at(100), mark(100), start(&cursor, E).unwrap());
        pass.advance(mark(50), key(7), true);
        assert_eq!(pass.cut(&mut cursor, E), None);
        assert_eq!(start(&cursor, E), Some(From::After(mark(50), key(7))));
        let raised = E + Duration::from_micros(1);
        assert_eq!(
            start(&cursor, raised),
            Some(From::At(mark(50))),
            "a raised allowance drops the key"
        );
    }

    #[test]
    fn f71_a_cut_in_the_hot_group_moves_to_the_bound_and_goes_on_under_it() {
        let mut cursor = Cursor { watermark: Some(mark(1)), ..Cursor::default() };
        let mut pass = Pass::new(Bound::at(100), mark(100), start(&cursor, E).unwrap());
        pass.advance(mark(99), key(7), false);
        let on = pass.cut(&mut cursor, E).unwrap();
        assert_eq!((&on.from, on.bound.micros), (&From::After(mark(99), key(7)), 100));
        assert_eq!(
            start(&cursor, E),
            Some(From::At(mark(100))),
            "a crash reads the hot group again whole"
        );
        on.finish(&mut cursor);
        assert_eq!(cursor.watermark, Some(mark(100)));
    }

    #[test]
    fn a_pass_that_sent_nothing_moves_nothing() {
        let before = Cursor { watermark: Some(mark(1)), ..Cursor::default() };
        let mut cursor = before.clone();
        let pass = Pass::new(Bound::at(9), mark(9), start(&cursor, E).unwrap());
        assert!(pass.cut(&mut cursor, E).is_some());
        assert_eq!(cursor, before);
        assert_eq!(start(&Cursor::default(), E), None);
    }

    proptest! {
        /// A quiet table is read in batches of any size, with crashes that forget the pass in memory: every row comes.
        #[test]
        fn f07_f71_no_row_is_lost_however_groups_and_batches_and_crashes_fall(
            stamps in proptest::collection::vec(0i64..6, 1..40),
            batch in 1usize..7,
            crashes in proptest::collection::vec(any::<bool>(), 60),
        ) {
            let mut rows: Vec<(i64, u32)> =
                stamps.iter().zip(0u32..).map(|(stamp, key)| (*stamp, key)).collect();
            rows.sort_unstable();
            let edge = |now: i64| now - 3;
            let mut cursor = Cursor { watermark: Some(mark(-9)), ..Cursor::default() };
            let mut sent = std::collections::BTreeSet::new();
            let mut held: Option<Pass> = None;
            for (now, crash) in (0i64..).zip(crashes) {
                let mut pass = held.take().unwrap_or_else(|| {
                    Pass::new(Bound::at(now), mark(now), start(&cursor, E).unwrap())
                });
                let below = edge(pass.bound.micros);
                let read = |from: &From| -> Vec<(i64, u32)> {
                    let after = |row: &(i64, u32)| match from {
                        From::At(w) => row.0 >= w.0.parse::<i64>().unwrap() - 3,
                        From::After(w, k) => *row > (w.0.parse().unwrap(), k.0[0].parse().unwrap()),
                    };
                    rows.iter().copied().filter(after).collect()
                };
                let found = read(&pass.from);
                for (stamp, id) in found.iter().take(batch) {
                    sent.insert(*id);
                    pass.advance(mark(*stamp), key(*id), *stamp < below);
                }
                if found.len() <= batch { pass.finish(&mut cursor) } else { held = pass.cut(&mut cursor, E) }
                if crash { held = None }
            }
            prop_assert_eq!(sent.len(), rows.len());
        }
    }
}
