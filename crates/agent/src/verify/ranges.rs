//! Ranges: a table parted by keys, with the sum of its rows in each part, and which parts differ from what is staged.
//!
//! Promises: a row falls into its range by its key's bytes, in whatever order rows come; memory hangs on the number of
//! ranges alone.
//! Never: reads; keeps a row.

use std::ops::Range;

use protocol::{hash::RowHash, key::KeyBytes, limits};

use crate::journal::{KeySpan, StagedSum};

/// The ranges of one comparison.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Ranges {
    span: KeySpan,
    /// Ascending; n bounds make n + 1 ranges, of which those outside the span are not compared.
    bounds: Vec<KeyBytes>,
    sums: Vec<StagedSum>,
}

impl Ranges {
    /// The span, parted at these keys as far as they lie within.
    #[must_use]
    pub(super) fn new(span: KeySpan, inner: Vec<KeyBytes>) -> Self {
        let mut bounds = inner;
        bounds.retain(|key| *key > span.from && span.holds(key));
        bounds.extend([&span.from, &span.to].into_iter().filter(|key| !key.0.is_empty()).cloned());
        bounds.sort();
        bounds.dedup();
        let sums = vec![StagedSum::default(); bounds.len() + 1];
        Self { span, bounds, sums }
    }

    /// Adds a row of the ERP; one outside the span is none of this comparison's.
    pub(super) fn add(&mut self, key: &KeyBytes, hash: RowHash) {
        if let Some(sum) = self.place(key).and_then(|at| self.sums.get_mut(at)) {
            sum.add(hash);
        }
    }

    /// The range of a key; `None` = outside the span.
    #[must_use]
    pub(super) fn place(&self, key: &KeyBytes) -> Option<usize> {
        self.span.holds(key).then(|| self.bounds.partition_point(|bound| bound <= key))
    }

    /// Rows added so far.
    #[must_use]
    pub(super) fn rows(&self) -> u64 {
        self.sums.iter().map(|sum| sum.count).sum()
    }

    /// Ranges within the span.
    #[must_use]
    pub(super) fn count(&self) -> usize {
        (0..self.sums.len()).filter(|at| self.is_within(*at)).count()
    }

    /// The ranges within the span, parted so that the cloud answers for each part quickly: neighbours, as many as have
    /// about [`limits::VERIFY_ASKED_ROWS`] rows together, and one at least.
    #[must_use]
    pub(super) fn parts(&self) -> Vec<Range<usize>> {
        let mut parts: Vec<Range<usize>> = Vec::new();
        let mut rows = 0;
        for (at, sum) in self.sums.iter().enumerate().filter(|(at, _)| self.is_within(*at)) {
            rows += sum.count;
            match parts.last_mut() {
                Some(part)
                    if rows <= limits::VERIFY_ASKED_ROWS
                        && part.len() < limits::VERIFY_ASKED_RANGES =>
                {
                    part.end = at + 1;
                }
                _ => {
                    rows = sum.count;
                    parts.push(at..at + 1);
                }
            }
        }
        parts
    }

    /// The keys of a part, and the bounds between its ranges.
    #[must_use]
    pub(super) fn question(&self, part: &Range<usize>) -> (KeySpan, Vec<KeyBytes>) {
        let last = part.end.saturating_sub(1);
        let (from, to) = (self.span_of(part.start).from, self.span_of(last).to);
        let inner = self.bounds.get(part.start..last).unwrap_or_default();
        (KeySpan { from, to }, inner.to_vec())
    }

    /// Those of a part whose sums are not the staged ones.
    #[must_use]
    pub(super) fn differing(&self, part: &Range<usize>, staged: &[StagedSum]) -> Vec<usize> {
        let told = part.clone().zip(staged.iter().map(Some).chain(std::iter::repeat(None)));
        told.filter(|(at, staged)| self.sums.get(*at) != *staged).map(|(at, _)| at).collect()
    }

    /// The keys of a range.
    #[must_use]
    pub(super) fn span_of(&self, at: usize) -> KeySpan {
        let from = at.checked_sub(1).and_then(|before| self.bounds.get(before));
        KeySpan {
            from: from.cloned().unwrap_or_default(),
            to: self.bounds.get(at).cloned().unwrap_or_default(),
        }
    }

    fn is_within(&self, at: usize) -> bool {
        let below = at == 0 && !self.span.from.0.is_empty();
        let above = at == self.bounds.len() && !self.span.to.0.is_empty();
        !below && !above
    }
}

/// Bounds as they are found one by one, thinned out wherever they become too many for one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    keys: Vec<KeyBytes>,
    /// Rows between two of them.
    step: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { keys: Vec::new(), step: limits::VERIFY_RANGE_ROWS }
    }
}

impl Bounds {
    /// Rows to the next one.
    #[must_use]
    pub(super) fn step(&self) -> usize {
        self.step
    }

    /// The last one; empty = none yet.
    #[must_use]
    pub(super) fn last(&self) -> KeyBytes {
        self.keys.last().cloned().unwrap_or_default()
    }

    pub(super) fn push(&mut self, key: KeyBytes) {
        self.keys.push(key);
        let bytes = |keys: &[KeyBytes]| keys.iter().map(|key| key.0.len() + 8).sum::<usize>();
        // Two more may come: the ends of the span.
        while self.keys.len() + 2 > limits::RECONCILE_BOUNDS
            || (bytes(&self.keys) > limits::VERIFY_BOUNDS_BYTES && self.keys.len() > 1)
        {
            let mut at = 0;
            // The last of a pair stays, so that the next one follows at the doubled step.
            self.keys.retain(|_| {
                at += 1;
                at % 2 == 0
            });
            self.step = self.step.saturating_mul(2);
        }
    }

    #[must_use]
    pub(super) fn into_keys(self) -> Vec<KeyBytes> {
        self.keys
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use protocol::hash::RowHasher;

    use super::*;

    fn key(number: u8) -> KeyBytes {
        KeyBytes::of([number.to_string().as_str()])
    }

    fn hash(key: u8, version: u8) -> RowHash {
        let cells = [key.to_string(), version.to_string()];
        let names = ["K", "V"].map(|name| name.parse().unwrap());
        RowHasher::new(&names).hash(|at| cells.get(at).map(String::as_str))
    }

    fn rows() -> impl Strategy<Value = BTreeMap<u8, u8>> {
        proptest::collection::btree_map(any::<u8>(), 0u8..3, 0..60)
    }

    /// As a server sums: rows of the span, by the bounds alone.
    fn sums((span, bounds): &(KeySpan, Vec<KeyBytes>), rows: &BTreeMap<u8, u8>) -> Vec<StagedSum> {
        let mut sums = vec![StagedSum::default(); bounds.len() + 1];
        for (number, version) in rows.iter().filter(|(number, _)| span.holds(&key(**number))) {
            let at = bounds.iter().filter(|bound| **bound <= key(*number)).count();
            sums[at].add(hash(*number, *version));
        }
        sums
    }

    fn differing(ranges: &Ranges, rows: &BTreeMap<u8, u8>) -> Vec<usize> {
        let of = |part: &Range<usize>| ranges.differing(part, &sums(&ranges.question(part), rows));
        ranges.parts().iter().flat_map(of).collect()
    }

    proptest! {
        #[test]
        fn a_range_differs_exactly_where_a_row_of_it_does_in_whatever_order_rows_come(
            erp in rows(), staged in rows(), equal in any::<bool>(),
            inner in proptest::collection::vec(any::<u8>(), 0..9),
            ends in (proptest::option::of(any::<u8>()), proptest::option::of(any::<u8>())),
            backwards in any::<bool>(),
        ) {
            let staged = if equal { erp.clone() } else { staged };
            let (from, to) = (ends.0.map(key).unwrap_or_default(), ends.1.map(key).unwrap_or_default());
            prop_assume!(to.0.is_empty() || from < to);
            let span = KeySpan { from, to };
            let mut ranges = Ranges::new(span.clone(), inner.into_iter().map(key).collect());
            prop_assert!(ranges.bounds.is_sorted_by(|a, b| a < b));
            let mut order: Vec<_> = erp.iter().collect();
            if backwards {
                order.reverse();
            }
            for (number, version) in order {
                ranges.add(&key(*number), hash(*number, *version));
            }
            let found = differing(&ranges, &staged);
            let wanted: std::collections::BTreeSet<usize> = (0..=u8::MAX)
                .filter(|number| erp.get(number) != staged.get(number) && span.holds(&key(*number)))
                .filter_map(|number| ranges.place(&key(number)))
                .collect();
            prop_assert_eq!(&found, &wanted.into_iter().collect::<Vec<_>>());
            let within = erp.keys().filter(|number| span.holds(&key(**number))).count();
            prop_assert_eq!(ranges.rows(), within as u64);
            for number in 0..=u8::MAX {
                if let Some(at) = ranges.place(&key(number)) {
                    prop_assert!(ranges.span_of(at).holds(&key(number)));
                }
            }
        }

        #[test]
        fn bounds_stay_within_one_question_and_apart_by_the_same_number_of_rows(count in 0usize..3_000, long in any::<bool>()) {
            let text = |at: usize| format!("{at:06}{}", "x".repeat(if long { 5_000 } else { 0 }));
            // Every key of a table is looked for `step` rows behind the last one.
            let mut bounds = Bounds::default();
            let mut place = 0;
            loop {
                place += bounds.step() / limits::VERIFY_RANGE_ROWS;
                if place > count {
                    break;
                }
                bounds.push(KeyBytes::of([text(place).as_str()]));
                let last = bounds.last().values().unwrap().first().copied().map(str::to_owned);
                place = last.unwrap()[..6].parse().unwrap();
            }
            let (step, keys) = (bounds.step() / limits::VERIFY_RANGE_ROWS, bounds.into_keys());
            prop_assert!(keys.len() + 2 <= limits::RECONCILE_BOUNDS);
            let wanted: Vec<KeyBytes> =
                (1..).map(|at| at * step).take_while(|at| *at <= count).map(|at| KeyBytes::of([text(at).as_str()])).collect();
            prop_assert_eq!(keys, wanted);
        }
    }

    #[test]
    fn a_span_leaves_out_what_lies_before_and_behind_it() {
        let span = KeySpan { from: key(3), to: key(6) };
        let mut ranges = Ranges::new(span, vec![key(1), key(4), key(9)]);
        assert_eq!((ranges.bounds.len(), ranges.count()), (3, 2));
        for number in 1..10 {
            ranges.add(&key(number), hash(number, 0));
        }
        assert_eq!(ranges.rows(), 3);
        let staged = (1..10).map(|number| (number, u8::from(number == 2 || number == 8)));
        assert!(differing(&ranges, &staged.collect()).is_empty());
    }

    #[test]
    fn a_large_table_is_asked_for_in_parts_that_a_server_answers_quickly() {
        let key = |at: u64| KeyBytes::of([format!("{at:06}").as_str()]);
        let step = u64::try_from(limits::VERIFY_RANGE_ROWS).unwrap();
        let filled = |inner: u64, rows: &dyn Fn(u64) -> u64| {
            let span = KeySpan { from: key(0), to: KeyBytes::default() };
            let mut ranges = Ranges::new(span, (1..=inner).map(key).collect());
            for (at, sum) in ranges.sums.iter_mut().enumerate() {
                sum.count = rows(at as u64);
            }
            ranges
        };
        let most = limits::VERIFY_ASKED_ROWS;
        for ranges in [
            filled(999, &|_| step),
            filled(700, &|at| if at % 7 == 0 { 3 * most } else { at }),
            filled(300, &|_| 0),
            filled(0, &|_| 0),
        ] {
            let parts = ranges.parts();
            let all: Vec<usize> = parts.iter().cloned().flatten().collect();
            assert_eq!(all, (1..ranges.sums.len()).collect::<Vec<_>>(), "each range once");
            let mut reached = key(0);
            for part in &parts {
                let rows: u64 = ranges.sums[part.clone()].iter().map(|sum| sum.count).sum();
                assert!(part.len() == 1 || rows <= most, "{part:?} {rows}");
                assert!(part.len() <= limits::VERIFY_ASKED_RANGES, "{part:?}");
                let (span, bounds) = ranges.question(part);
                assert_eq!((bounds.len(), &span.from), (part.len() - 1, &reached));
                assert!(bounds.iter().all(|bound| *bound > span.from && span.holds(bound)));
                reached = span.to;
            }
            assert_eq!(reached, KeyBytes::default(), "to the end of the span");
        }
        let usual = filled(99, &|_| step);
        assert_eq!(usual.parts().len(), 10, "a million rows");
    }

    #[test]
    fn a_range_that_nobody_answered_for_differs() {
        let mut ranges = Ranges::new(KeySpan::default(), vec![key(4)]);
        ranges.add(&key(1), hash(1, 0));
        let part = 0..2;
        assert_eq!(ranges.differing(&part, &[]), [0, 1]);
    }
}
