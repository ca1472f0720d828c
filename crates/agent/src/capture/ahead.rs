//! Ahead: the next chunk of a base load, read while the cloud still accepts the batch before it.
//!
//! Promises: a page read ahead is taken by the next turn of its table, within ten seconds, or thrown away; there it goes
//! before anything that is read later: rows are sent in the order of their reads (I11).
//! Never: reads changes or compares ahead: those follow a bound that is taken when their batch begins. Never tells an
//! error: whoever reads without it meets the same one.

use std::{sync::Arc, time::Duration};

use runtime::clock::Mono;

use super::table::{Seen, Table};
use crate::source::{Page, PageKey, Source};

/// A page that is not taken soon is not held: a table may be paused or parked meanwhile.
const KEPT: Duration = Duration::from_secs(10);

/// A chunk in memory, with what it was read for.
pub(super) struct Ahead {
    seen: Arc<Seen>,
    after: PageKey,
    page: Page,
    took: Duration,
    read: Mono,
}

impl Ahead {
    /// The page and the time it took, where it is what this table wants now.
    pub(super) fn page(
        self,
        seen: &Arc<Seen>,
        after: Option<&PageKey>,
    ) -> Option<(Page, Duration)> {
        let fits = Arc::ptr_eq(&self.seen, seen) && after == Some(&self.after);
        (fits && !self.is_old()).then_some((self.page, self.took))
    }

    pub(super) fn is_old(&self) -> bool {
        self.read.elapsed() > KEPT
    }
}

/// Reads the chunk that a table under load wants next. Its first chunk is not read ahead: the bound goes before it.
pub(super) async fn read<S: Source>(source: &S, table: &Table) -> Option<Ahead> {
    if !table.loads() || table.park.is_some() || table.suspect {
        return None;
    }
    let seen = Arc::clone(table.seen.as_ref()?);
    let after = table.cursor.load.as_ref()?.after.clone()?;
    let started = Mono::now();
    let page = source.chunk(&seen.shape, Some(&after), seen.filter.as_ref(), table.limit());
    let page = page.await.ok()?;
    Some(Ahead { seen, after, page, took: started.elapsed(), read: started })
}
