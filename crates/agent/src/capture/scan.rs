//! Scan: what comparison with the known rows finds: changes of tables without stamp, rows whose stamp is NULL (old ones,
//! and those whose stamp the ERP emptied to have them sent again), and deletes.
//!
//! Promises: deletes come from a complete scan alone, each key read again in a fresh snapshot right before its delete
//! goes out (F29); above the cap none goes until a person confirms that many.
//! Never: takes a half-read list of keys for the whole.

use std::{collections::BTreeSet, time::Duration};

use protocol::{Code, Error, hash::RowHash, key::KeyBytes};
use runtime::{
    clock::{Mono, Wall},
    mutant,
};

use super::{
    cycle::{Cycle, Fault, Kind, LOOK_UP, Turn, ends},
    table::{Seen, Table},
};
use crate::{
    config::Deletes,
    journal::{Answer, Counted},
    source::{Page, PageKey, Source},
};

/// Known keys compared in one go; what the sender asks of the journal meanwhile waits no longer than that takes.
const WALK: usize = 10_000;
/// How long a table rests at least whose deletes wait for a person.
const CAPPED_REST: Duration = Duration::from_secs(60);

/// Where a table's scan stands.
#[derive(Debug)]
pub(super) enum Scan {
    Idle {
        not_before: Mono,
    },
    /// Reading all rows, or their keys.
    Reading {
        after: Option<PageKey>,
        started: Mono,
        busy: Duration,
    },
    /// All keys were read: live rows without a stamp are compared, since no delta meets them.
    Unstamped {
        after: Option<PageKey>,
        started: Mono,
        busy: Duration,
    },
    /// The scan was complete: is what it did not see too much to go unasked?
    Complete {
        started: Mono,
        busy: Duration,
    },
    /// It may be: what it did not see is looked at and counted, ascending by key.
    Counting {
        after: Option<KeyBytes>,
        gone: u64,
        known: u64,
        started: Mono,
        busy: Duration,
    },
    /// What the scan did not see is looked at, ascending by key, and what is gone is deleted.
    Suspects {
        after: Option<KeyBytes>,
        started: Mono,
        busy: Duration,
    },
}

impl Scan {
    #[must_use]
    pub(super) fn is_under_way(&self) -> bool {
        !matches!(self, Self::Idle { .. })
    }
}

/// How many deletes one scan may find: 1 % of the known rows or 10,000, whichever is more, but never more than half
/// of a table above 200 rows. (10,000 alone would let a table of 9,000 rows vanish unasked; 1 % alone would ask a person
/// for two rows of a hundred.)
#[must_use]
pub(super) fn cap(known: u64) -> u64 {
    (known / 100).max(10_000.min(known / 2)).max(100)
}

/// The wall clock, seconds since 1970.
fn seconds() -> u64 {
    u64::try_from(Wall::now().seconds()).unwrap_or_default()
}

impl<S: Source> Cycle<'_, S> {
    /// One page of the scan, or its suspects.
    pub(super) async fn scan(&mut self, table: &mut Table, seen: &Seen) -> Turn {
        let now = Mono::now();
        match std::mem::replace(&mut table.scan, Scan::Idle { not_before: now }) {
            Scan::Idle { not_before }
                if not_before > now && !self.is_confirmed(table) && !table.wants_scan()
                    || mutant::is("no_key_scan") =>
            {
                table.scan = Scan::Idle { not_before };
                table.scan_done = true;
                Ok(())
            }
            Scan::Idle { .. } => {
                let every = Duration::from_secs(self.tools.config.capture.compare_seconds);
                if seen.shape.stamp.is_some() {
                    table.cursor.note_comparison(every, seconds());
                }
                let begun = self.tools.journal.scan_begin(&table.query.table).await;
                begun.map_err(Fault::Session)?;
                table.scan_begun();
                self.scan_page(table, seen, None, (now, Duration::ZERO)).await
            }
            Scan::Reading { after, started, busy } => {
                self.scan_page(table, seen, after, (started, busy)).await
            }
            Scan::Unstamped { after, started, busy } => {
                self.unstamped_page(table, seen, after, (started, busy)).await
            }
            Scan::Complete { started, busy } => self.judge(table, seen, (started, busy)).await,
            Scan::Counting { after, gone, known, started, busy } => {
                self.count_page(table, seen, (after, gone, known), (started, busy)).await
            }
            Scan::Suspects { after, started, busy } => {
                self.suspects(table, seen, after, (started, busy)).await
            }
        }
    }

    async fn scan_page(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        after: Option<PageKey>,
        (started, busy): (Mono, Duration),
    ) -> Turn {
        let (source, limit, before) = (self.tools.source, table.limit(), Mono::now());
        // Of a stamped table the keys suffice, unless its columns changed.
        let stamped = seen.shape.stamp.is_some();
        let whole = !stamped || table.cursor.compare;
        let filter = seen.filter.as_ref().filter(|_| !stamped);
        let page = if whole {
            source.chunk(&seen.shape, after.as_ref(), filter, limit).await
        } else {
            source.keys(&seen.shape, after.as_ref(), limit).await
        };
        let page = page.map_err(Fault::Table)?;
        let took = before.elapsed();
        table.took(took, page.len());
        if whole {
            self.tools.governor.page(&table.query.table, took, page.len());
        }
        let keys: Vec<KeyBytes> = (0..page.len()).map(|row| seen.key(&page, row)).collect();
        if !seen.shape.shared_key && keys.windows(2).any(|pair| pair.first() == pair.last()) {
            let words = "two rows share the declared key";
            return Err(Fault::Table(Error::new(Code::KeyNotUnique, words)));
        }
        if whole {
            self.send_changed(table, seen, &page, &keys).await?;
        }
        self.tell_poison(table, &page).await?;
        let told = self.tools.journal.scan_seen(&table.query.table, keys).await;
        told.map_err(Fault::Session)?;
        let busy = busy + took;
        table.scan = if ends(&page)? || mutant::is("incomplete_scan") {
            let nullable = seen.shape.stamp.as_ref().is_some_and(|stamp| stamp.nullable);
            if nullable && !mutant::is("no_unstamped_scan") {
                Scan::Unstamped { after: None, started, busy }
            } else {
                Scan::Complete { started, busy }
            }
        } else {
            let after = page.last().map(|place| place.key.clone());
            Scan::Reading { after, started, busy }
        };
        self.spool().await?;
        self.pacing().rest(took).await;
        Ok(())
    }

    async fn unstamped_page(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        after: Option<PageKey>,
        (started, busy): (Mono, Duration),
    ) -> Turn {
        let (source, before) = (self.tools.source, Mono::now());
        let page = source
            .unstamped(&seen.shape, after.as_ref(), table.limit())
            .await
            .map_err(Fault::Table)?;
        let took = before.elapsed();
        let keys: Vec<KeyBytes> = (0..page.len()).map(|row| seen.key(&page, row)).collect();
        self.send_changed(table, seen, &page, &keys).await?;
        self.tell_poison(table, &page).await?;
        let busy = busy + took;
        table.scan = if ends(&page)? {
            Scan::Complete { started, busy }
        } else {
            Scan::Unstamped { after: page.last().map(|place| place.key.clone()), started, busy }
        };
        self.spool().await?;
        self.pacing().rest(took).await;
        Ok(())
    }

    /// Sends the rows whose image differs from the known one; hash zero differs from all.
    async fn send_changed(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        page: &Page,
        keys: &[KeyBytes],
    ) -> Turn {
        let known = self.known(table, keys).await?;
        for (row, known) in known.iter().enumerate() {
            // What the filter kept out of the load was never sent and stays out.
            let due = match known {
                Some(known) => *known != seen.hash(page, row),
                None => seen.passes(page, row),
            };
            if due {
                self.send(table, seen, (page, row), Kind::Found).await?;
            }
        }
        Ok(())
    }

    async fn known(&self, table: &Table, keys: &[KeyBytes]) -> Turn<Vec<Option<RowHash>>> {
        let known = self.tools.journal.known(&table.query.table, keys.to_vec()).await;
        known.map_err(Fault::Session)
    }

    async fn missing(
        &self,
        table: &Table,
        after: Option<KeyBytes>,
        limit: usize,
    ) -> Turn<Vec<KeyBytes>> {
        let missing = self.tools.journal.scan_missing(&table.query.table, after, limit).await;
        missing.map_err(Fault::Session)
    }

    /// What the complete scan did not see may be looked at and go, where it is not too much.
    async fn judge(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        (started, busy): (Mono, Duration),
    ) -> Turn {
        let (known, missed) = self.walk(table).await?;
        if missed == 0 {
            self.settle(table).await?;
            table.deletes_sent();
            self.end(table, seen, started, busy);
            return Ok(());
        }
        let always = self.tools.config.deletes(&table.query.table) == Deletes::Always;
        if always || missed <= cap(known) {
            self.settle(table).await?;
            return self.suspects(table, seen, None, (started, busy)).await;
        }
        table.scan = Scan::Counting { after: None, gone: 0, known, started, busy };
        Ok(())
    }

    /// How many rows are known, and how many of them the complete scan did not see.
    async fn walk(&self, table: &Table) -> Turn<(u64, u64)> {
        let (mut known, mut missed, mut after) = (0, 0, None);
        loop {
            let walked = self.tools.journal.scan_walk(&table.query.table, after, WALK).await;
            let walked = walked.map_err(Fault::Session)?;
            (known, missed) = (known + walked.known, missed + walked.missed);
            if walked.known < WALK as u64 {
                return Ok((known, missed));
            }
            after = walked.last;
        }
    }

    /// Looks at a page of what is missing: live rows (their filter no longer fits, say) do not count. At the end it is
    /// known how many are gone, and a person is asked or has answered.
    async fn count_page(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        (after, gone, known): (Option<KeyBytes>, u64, u64),
        (started, busy): (Mono, Duration),
    ) -> Turn {
        let keys = self.missing(table, after, LOOK_UP).await?;
        let before = Mono::now();
        let (mut gone, mut answered) = (gone, 0);
        if !keys.is_empty() {
            let (live, looked_at) = self.look_up(seen, &keys).await?;
            gone += looked_at.saturating_sub(live.len() + live.poison().len()) as u64;
            answered = looked_at;
        }
        let took = before.elapsed();
        let busy = busy + took;
        self.pacing().rest(took).await;
        if answered < keys.len() || keys.len() >= LOOK_UP {
            let after = keys.into_iter().nth(answered.saturating_sub(1));
            table.scan = Scan::Counting { after, gone, known, started, busy };
            return Ok(());
        }
        let counted = Counted { gone, known, cap: cap(known) };
        if counted.gone <= counted.cap {
            self.settle(table).await?;
            return self.suspects(table, seen, None, (started, busy)).await;
        }
        let journal = self.tools.journal;
        let answer = journal.count_deletes(&table.query.table, counted, Wall::now()).await;
        if answer.map_err(Fault::Session)? == Answer::Confirmed {
            table.confirmed = true;
            return self.suspects(table, seen, None, (started, busy)).await;
        }
        self.end(table, seen, started, busy);
        // The rows may come back soon; a person's answer ends the rest.
        table.scan = Scan::Idle { not_before: Mono::now() + CAPPED_REST.max(busy * 3) };
        Ok(())
    }

    /// Nothing of the table is above the cap.
    async fn settle(&self, table: &Table) -> Turn {
        self.tools.journal.settle_deletes(&table.query.table).await.map_err(Fault::Session)
    }

    fn is_confirmed(&self, table: &Table) -> bool {
        let capped = self.tools.journal.capped();
        capped.get(&table.query.table).is_some_and(|capped| capped.answer == Answer::Confirmed)
    }

    /// Reads suspects again: those still missing are deleted, live ones that changed are sent.
    async fn suspects(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        after: Option<KeyBytes>,
        (started, busy): (Mono, Duration),
    ) -> Turn {
        let keys = self.missing(table, after, LOOK_UP).await?;
        if keys.is_empty() {
            table.deletes_sent();
            self.end(table, seen, started, busy);
            return Ok(());
        }
        let (gone, answered) = self.look_again(table, seen, &keys).await?;
        for key in gone {
            self.send_delete(table, seen, &key)?;
        }
        if answered == keys.len() && keys.len() < LOOK_UP {
            table.deletes_sent();
            self.end(table, seen, started, busy);
        } else {
            let after = keys.into_iter().nth(answered.saturating_sub(1));
            table.scan = Scan::Suspects { after, started, busy };
        }
        Ok(())
    }

    /// Sends the live ones that changed; gives those that are gone and how many of the first keys were looked at.
    async fn look_again(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        keys: &[KeyBytes],
    ) -> Turn<(Vec<KeyBytes>, usize)> {
        if mutant::is("blind_delete") {
            return Ok((keys.to_vec(), keys.len()));
        }
        let (live, answered) = self.look_up(seen, keys).await?;
        let keys = keys.get(..answered).unwrap_or(keys);
        let found: Vec<KeyBytes> = (0..live.len()).map(|row| seen.key(&live, row)).collect();
        let asked: BTreeSet<&KeyBytes> = keys.iter().collect();
        let known = self.known(table, &found).await?;
        for (row, (key, known)) in found.iter().zip(known).enumerate() {
            if asked.contains(key) && known != Some(seen.hash(&live, row)) {
                self.send(table, seen, (&live, row), Kind::Found).await?;
            }
        }
        self.tell_poison(table, &live).await?;
        let found: BTreeSet<&KeyBytes> = found.iter().collect();
        let mut gone: Vec<KeyBytes> =
            keys.iter().filter(|key| !found.contains(key)).cloned().collect();
        if !live.poison().is_empty() {
            // A row that cannot travel is not gone; only one key alone tells which it is.
            let mut surely = Vec::new();
            for key in gone {
                let alone = std::slice::from_ref(&key);
                let page =
                    self.tools.source.by_keys(&seen.shape, alone).await.map_err(Fault::Table)?;
                if page.is_empty() && page.poison().is_empty() {
                    surely.push(key);
                }
            }
            gone = surely;
        }
        Ok((gone, answered))
    }

    /// The scan is over. Tables without stamp rest three times as long as they were read; key scans by the clock.
    fn end(&self, table: &mut Table, seen: &Seen, started: Mono, busy: Duration) {
        let not_before = if seen.shape.stamp.is_some() {
            started + Duration::from_secs(self.tools.config.capture.key_scan_seconds)
        } else {
            Mono::now() + busy * 3
        };
        table.scan = Scan::Idle { not_before };
        table.scan_done = true;
        table.scan_ended();
        if table.cursor.compare {
            table.cursor.was_compared(seconds());
        }
        if seen.shape.stamp.is_none() {
            table.scanned();
        }
        table.begin_what_waited();
    }
}

#[cfg(test)]
mod tests {
    use super::cap;

    #[test]
    fn f29_the_cap_is_a_hundredth_or_ten_thousand_and_never_most_of_a_table() {
        let caps = [0, 100, 200, 1_000, 100_000, 5_000_000].map(cap);
        assert_eq!(caps, [100, 100, 100, 500, 10_000, 50_000]);
    }
}
