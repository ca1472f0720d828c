//! Pace: how many rows a page asks for, so that no page holds the ERP database for long.
//!
//! Promises: pages grow until one takes 200 ms, no further; one that took longer makes the next smaller.
//! Never: waits; `pacing` lets the database rest.

use std::time::Duration;

use super::ReadLimit;

/// Canonical text of a page.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Rows of a page.
pub const PAGE_ROWS: usize = 5_000;
const FIRST_ROWS: usize = 500;
pub const LEAST_ROWS: usize = 50;
/// A chunk may take this much of the ERP's time (`correctness.md` 3 b).
const CHUNK_TIME: Duration = Duration::from_millis(200);

/// The pages of one table.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rows: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rows: FIRST_ROWS }
    }
}

impl Pace {
    /// What the next page may hold, and no more than `most` rows.
    #[must_use]
    pub fn limit(&self, most: usize) -> ReadLimit {
        ReadLimit { rows: self.rows.min(most), bytes: PAGE_BYTES }
    }

    /// A page of that many rows took that long.
    pub fn took(&mut self, time: Duration, rows: usize) {
        if time > CHUNK_TIME {
            self.rows = (self.rows / 2).max(LEAST_ROWS);
        } else if time < CHUNK_TIME / 2 && rows >= self.rows {
            self.rows = (self.rows * 2).min(PAGE_ROWS);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_while_they_are_quick_and_full_and_shrink_where_one_was_slow() {
        let mut pace = Pace::default();
        let rows = |pace: &Pace| pace.limit(usize::MAX).rows;
        pace.took(Duration::from_millis(1), 499);
        assert_eq!(rows(&pace), 500, "a page that was not full tells nothing");
        for _page in 0..9 {
            pace.took(Duration::from_millis(1), PAGE_ROWS);
        }
        assert_eq!((rows(&pace), pace.limit(7).rows), (PAGE_ROWS, 7));
        for _page in 0..9 {
            pace.took(Duration::from_secs(1), PAGE_ROWS);
        }
        assert_eq!(rows(&pace), LEAST_ROWS);
    }
}
