//! Walk: how a read goes over a table of SQL Server without row versions.
//!
//! Promises: a page is no moment: the read goes from place to place of its index and sees each row as it is committed when
//! it gets there, so a row whose stamp rises under it comes twice and one that moves behind it is missed. It waits for
//! each held place it comes to, two seconds at most (`LOCK_TIMEOUT`), and is at times the one that a deadlock ends
//! (`DEADLOCK_PRIORITY LOW`).
//! Never: waits for a row that it does not come to; shows what is not committed.

use std::{collections::BTreeMap, time::Duration};

use agent::source::Page;
use protocol::{Code, Error, Result};
use runtime::clock;

use super::{
    Engine, Row, TableAt,
    source::{Double, Filling},
};
use crate::world::here;

/// `LOCK_TIMEOUT`, in tenths of a second.
const LONGEST: u32 = 20;

/// Place in an index: 0 and the key, or stamp and key.
pub(super) type Place = (i64, i64);

/// What a read walks along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Index {
    Key,
    Stamp,
}

impl Index {
    fn place(self, id: i64, stamp: Option<i64>) -> Option<Place> {
        match self {
            Self::Key => Some((0, id)),
            Self::Stamp => Some((stamp?, id)),
        }
    }
}

/// What a read is to show.
pub(super) struct Path<F> {
    pub(super) table: TableAt,
    pub(super) index: Index,
    pub(super) from: Place,
    /// A read of a base load.
    pub(super) load: bool,
    pub(super) wanted: F,
}

impl Engine {
    /// Rows of a path at one moment, in its order.
    pub(super) fn path<F: Fn(i64, &Row) -> bool>(
        &self,
        path: &Path<F>,
        now: i64,
    ) -> impl Iterator<Item = (i64, &Row)> {
        let rows =
            if path.load { self.loaded(path.table, now) } else { self.seen(path.table, now) };
        let mut found: Vec<(Place, i64, &Row)> = Vec::new();
        for (id, row) in rows {
            match path.index.place(*id, row.stamp) {
                Some(place) if place >= path.from && (path.wanted)(*id, row) => {
                    found.push((place, *id, row));
                }
                _ => {}
            }
        }
        found.sort_unstable_by_key(|(place, _, _)| *place);
        found.into_iter().map(|(_, id, row)| (id, row))
    }

    /// Up to so many places from `from` on; `None` = a transaction holds it.
    fn stretch<F: Fn(i64, &Row) -> bool>(
        &self,
        path: &Path<F>,
        (from, most, now): (Place, usize, i64),
    ) -> Vec<(Place, Option<(i64, Row)>)> {
        let rows =
            if path.load { self.loaded(path.table, now) } else { self.seen(path.table, now) };
        let mut places: BTreeMap<Place, Option<(i64, &Row)>> = BTreeMap::new();
        for (id, row) in rows {
            if let Some(place) = path.index.place(*id, row.stamp).filter(|place| *place >= from) {
                places.insert(place, Some((*id, row)));
            }
        }
        for open in self.open.values() {
            for ((table, id), draft) in &open.writes {
                let old = rows.get(id).and_then(|row| path.index.place(*id, row.stamp));
                let new = draft.as_ref().and_then(|(_, stamp, _)| path.index.place(*id, *stamp));
                let held = old.into_iter().chain(new).filter(|place| *place >= from);
                if *table == path.table {
                    places.extend(held.map(|place| (place, None)));
                }
            }
        }
        let owned = |(id, row): (i64, &Row)| (id, row.clone());
        places.into_iter().take(most).map(|(place, entry)| (place, entry.map(owned))).collect()
    }
}

impl Double {
    /// One page, from place to place.
    pub(super) async fn walk<F: Fn(i64, &Row) -> bool + Send + Sync>(
        &self,
        path: Path<F>,
        mut filling: Filling,
    ) -> Result<Page> {
        self.pass().await?;
        let (mut from, mut waited) = (path.from, 0);
        loop {
            let (most, now) = (1 + usize::try_from(here().below(40)).unwrap_or(0), self.now());
            let stretch = self.held().stretch(&path, (from, most, now));
            if stretch.is_empty() {
                return Ok(filling.page.finish(true));
            }
            let mut held = false;
            for (place, entry) in stretch {
                let Some((id, row)) = entry else {
                    held = true;
                    break;
                };
                if (path.wanted)(id, &row) && !filling.add(id, &row)? {
                    return Ok(filling.page.finish(false));
                }
                (from, waited) = ((place.0, place.1.saturating_add(1)), 0);
            }
            if held {
                waited += 1;
                wait(waited).await?;
            } else {
                let time = here().up_to(Duration::from_millis(4));
                clock::sleep(time).await;
            }
            if self.held().away {
                return Err(Error::new(Code::SourceUnreachable, "the ERP database went away"));
            }
        }
    }
}

/// A tenth of a second more for a held row.
async fn wait(waited: u32) -> Result<()> {
    if waited > LONGEST {
        return Err(Error::new(Code::SourceTimeout, "rows are held by another transaction"));
    }
    // Readers are in a deadlock where a writer waits for what they read: rarely.
    if here().below(100) == 0 {
        return Err(Error::new(Code::SourceFailed, "the read was ended to solve a deadlock"));
    }
    clock::sleep(Duration::from_millis(100)).await;
    Ok(())
}
