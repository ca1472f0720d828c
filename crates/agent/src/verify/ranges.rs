//! Ranges: a table parted by keys, with the sum of its rows in each part, and which parts differ from what is staged.
//!
//! Promises: a row falls into its range by its key's bytes, in whatever order rows come; memory hangs on the number of
//! ranges alone.
//! Never: reads; keeps a row.

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

    #[must_use]
    pub(super) fn bounds(&self) -> &[KeyBytes] {
        &self.bounds
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

    /// Those whose sums are not the staged ones.
    #[must_use]
    pub(super) fn differing(&self, staged: &[StagedSum]) -> Vec<usize> {
        let differs = |at: &usize| self.is_within(*at) && self.sums.get(*at) != staged.get(*at);
        (0..self.sums.len()).filter(differs).collect()
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

    fn sums(ranges: &Ranges, rows: &BTreeMap<u8, u8>) -> Vec<StagedSum> {
        // As a server sums: every row, by the bounds alone.
        let mut sums = vec![StagedSum::default(); ranges.bounds().len() + 1];
        for (number, version) in rows {
            let at = ranges.bounds().iter().filter(|bound| **bound <= key(*number)).count();
            sums[at].add(hash(*number, *version));
        }
        sums
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
            prop_assert!(ranges.bounds().is_sorted_by(|a, b| a < b));
            let mut order: Vec<_> = erp.iter().collect();
            if backwards {
                order.reverse();
            }
            for (number, version) in order {
                ranges.add(&key(*number), hash(*number, *version));
            }
            let found = ranges.differing(&sums(&ranges, &staged));
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
        assert_eq!((ranges.bounds().len(), ranges.count()), (3, 2));
        for number in 1..10 {
            ranges.add(&key(number), hash(number, 0));
        }
        assert_eq!(ranges.rows(), 3);
        let staged = (1..10).map(|number| (number, u8::from(number == 2 || number == 8)));
        assert!(ranges.differing(&sums(&ranges, &staged.collect())).is_empty());
    }
}
