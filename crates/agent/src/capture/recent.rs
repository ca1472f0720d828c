//! Recent rows: what an accepted batch already carried and the next read finds again because of the allowance.
//!
//! Promises: bounded; may be lost at any time, which only resends.
//! Never: keeps a row whose batch was dropped (the whole capture state is forgotten then).

use std::collections::HashMap;

use protocol::{hash::RowHash, key::KeyBytes};
use runtime::mutant;

use crate::source::Watermark;

/// Rows a table keeps; about 150 bytes each.
const ROWS: usize = 20_000;

/// Rows of one table near the edge: those of the last whole pass, and those of the pass under way.
#[derive(Debug, Default)]
pub(super) struct RecentRows {
    last: HashMap<KeyBytes, (Watermark, RowHash)>,
    next: HashMap<KeyBytes, (Watermark, RowHash)>,
}

impl RecentRows {
    /// Whether this very image was sent by an earlier pass.
    #[must_use]
    pub(super) fn holds(&self, key: &KeyBytes, stamp: &Watermark, hash: RowHash) -> bool {
        let same = |(at, known): &(Watermark, RowHash)| {
            at == stamp && *known == hash || mutant::is("recent_by_key")
        };
        self.last.get(key).is_some_and(same)
    }

    /// The row will be read again: remember its image.
    pub(super) fn keep(&mut self, key: KeyBytes, stamp: Watermark, hash: RowHash) {
        if self.next.len() < ROWS || self.next.contains_key(&key) {
            self.next.insert(key, (stamp, hash));
        } else {
            self.forget(&key);
        }
    }

    /// Another image of the row went out by another way.
    pub(super) fn forget(&mut self, key: &KeyBytes) {
        self.last.remove(key);
        self.next.remove(key);
    }

    /// The pass is complete: rows it did not meet will not be read again.
    pub(super) fn turn(&mut self) {
        self.last = std::mem::take(&mut self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> KeyBytes {
        KeyBytes::of([text])
    }

    #[test]
    fn a_row_is_known_from_the_pass_before_by_key_stamp_and_image() {
        let (stamp, hash) = (Watermark("1".into()), RowHash([1; 16]));
        let mut recent = RecentRows::default();
        recent.keep(key("a"), stamp.clone(), hash);
        assert!(!recent.holds(&key("a"), &stamp, hash), "the pass under way does not count");
        recent.turn();
        assert!(recent.holds(&key("a"), &stamp, hash));
        assert!(!recent.holds(&key("a"), &Watermark("2".into()), hash));
        assert!(!recent.holds(&key("a"), &stamp, RowHash([2; 16])));
        recent.forget(&key("a"));
        assert!(!recent.holds(&key("a"), &stamp, hash));
    }

    #[test]
    fn rows_that_a_pass_does_not_meet_are_forgotten_and_the_number_is_bounded() {
        let stamp = Watermark("1".into());
        let mut recent = RecentRows::default();
        for at in 0..ROWS + 5 {
            recent.keep(key(&at.to_string()), stamp.clone(), RowHash::default());
        }
        recent.turn();
        assert_eq!(recent.last.len(), ROWS);
        recent.turn();
        assert!(recent.last.is_empty());
    }
}
