//! Comparison: one table against what is staged of it, and the repair of what differs.
//!
//! Promises: a difference was seen twice with a round of capture between the looks, so that nothing merely on its way
//! counts; without an end there is an error and no number; what is repaired goes the ways of every row, deletes under
//! their cap.
//! Never: sends anything itself; logs a key.

use std::time::Duration;

use protocol::{Code, Error, Result, filter::Filter, hash::RowHasher, key::KeyBytes};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono},
};

use super::{
    ranges::{Bounds, Ranges},
    reader::Reader,
    scratch::{Judged, Met, Scratch},
};
use crate::{
    config::AgentConfig,
    journal::{
        Journal, KeySpan, LinkPhase, Outcome, Progress, StagedPage, StagedSum, VerifyOrder,
        key_hash,
    },
    pacing::{Governor, Pacing},
    source::{Page, Poison, Source, TableShape},
};

/// Looks at suspects before those that always change are left out.
const LOOKS: u32 = 3;
/// Keys of one look-up in the ERP.
const LOOK_UP: usize = 1_000;
/// Keys handed to the journal at once.
const HANDED: usize = 10_000;
/// How often it is looked whether what is waited for has come …
const LOOK: Duration = Duration::from_millis(200);
/// … and whether it still can.
const STANDING: Duration = Duration::from_secs(5);
/// So long a session may be gone while a round is waited for.
const AWAY: Duration = Duration::from_secs(60);
/// A key behind all keys: no value is as long as its first four bytes say.
const BEYOND: [u8; 4] = [u8::MAX; 4];
/// Tries of one question to the cloud, those of one that is to be asked later, and the pauses between them.
const TRIES: u32 = 2;
const TRIES_LATER: u32 = 20;
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// A table as it is read.
struct Ground {
    shape: TableShape,
    hasher: RowHasher,
    filter: Option<Filter>,
}

impl Ground {
    fn met(&self, page: &Page, row: usize) -> Met {
        Met {
            key: self.shape.key_bytes(page, row),
            hash: self.hasher.hash(|at| page.cell(row, at)),
            passes: self.shape.passes(self.filter.as_ref(), page, row),
        }
    }

    fn all(&self, page: &Page) -> Vec<Met> {
        (0..page.len()).map(|row| self.met(page, row)).collect()
    }
}

/// What a comparison came to, and the rows that differ.
struct Compared {
    outcome: Outcome,
    scratch: Option<Scratch>,
}

/// One order at work.
pub(super) struct Comparison<'a, S> {
    pub(super) source: &'a S,
    pub(super) journal: &'a Journal,
    pub(super) config: &'a AgentConfig,
    pub(super) governor: &'a Governor,
    pub(super) id: i64,
    pub(super) order: &'a VerifyOrder,
}

impl<S: Source> Comparison<'_, S> {
    /// Compares and, where the order says so, repairs and compares once more.
    pub(super) async fn run(&self) -> Result<Outcome> {
        let Compared { mut outcome, scratch } = self.compare().await?;
        let Some(scratch) = scratch.filter(|_| self.order.repair && outcome.found.total() > 0)
        else {
            return Ok(outcome);
        };
        self.repair(&scratch).await?;
        drop(scratch);
        let after = self.compare().await?.outcome;
        outcome.left = Some(after.found);
        (outcome.unsettled, outcome.skipped) = (after.unsettled, after.skipped);
        Ok(outcome)
    }

    /// A table that changes its columns meanwhile is begun anew, once.
    async fn compare(&self) -> Result<Compared> {
        match self.compare_once().await {
            Err(error) if error.code == Code::SchemaChanged => self.compare_once().await,
            compared => compared,
        }
    }

    async fn compare_once(&self) -> Result<Compared> {
        self.standing().await?;
        self.answered().await?;
        let ground = self.describe().await?;
        self.fits(&ground)?;
        let mut ranges = Ranges::new(self.order.span.clone(), self.bounds().await?);
        let unreadable = self.sum(&ground, &mut ranges).await?;
        let places = self.differing(&ranges).await?;
        let mut outcome = Outcome {
            rows: ranges.rows(),
            ranges: ranges.count() as u64,
            skipped: unreadable,
            ..Outcome::default()
        };
        tracing::debug!(table = %self.order.table, rows = outcome.rows, ranges = outcome.ranges, differing = places.len(), "sums compared");
        if places.is_empty() {
            return Ok(Compared { outcome, scratch: None });
        }
        let (scratch, parts) = (Scratch::new().await?, (&ranges, places.as_slice()));
        self.gather(&ground, parts, &scratch).await?;
        self.fetch(parts, &scratch).await?;
        if scratch.compare().await? > 0 {
            for _look in 0..LOOKS {
                self.round().await?;
                self.look_again(&ground, parts, &scratch).await?;
                if scratch.judge().await? == 0 {
                    break;
                }
            }
        }
        let Judged { found, skipped, unsettled } = scratch.judged().await?;
        outcome.skipped += skipped;
        (outcome.found, outcome.unsettled) = (found, unsettled);
        Ok(Compared { outcome, scratch: Some(scratch) })
    }

    fn tell(&self, step: &str, rows: u64) {
        self.journal.tell_verifying(Progress { id: self.id, step: step.to_owned(), rows });
    }

    async fn describe(&self) -> Result<Ground> {
        let table = &self.order.table;
        let plan = self.journal.plan().await?;
        let query =
            plan.and_then(|plan| plan.queries.into_iter().find(|query| query.table == *table));
        let query = query.ok_or_else(|| unplanned(self.order))?;
        let shape = self.source.describe(&self.config.spec(table)).await?;
        let filter = shape.filter(query.filter.as_deref())?;
        Ok(Ground { hasher: shape.hasher(), filter, shape })
    }

    /// A bound of a part has a value for each key column.
    fn fits(&self, ground: &Ground) -> Result<()> {
        let (span, columns) = (&self.order.span, ground.shape.page_key.len());
        for bound in [&span.from, &span.to].into_iter().filter(|bound| !bound.0.is_empty()) {
            let values = bound.values()?.len();
            if values != columns {
                let key = ground.shape.page_key.join(", ");
                let words =
                    format!("a bound has {values} values, the key {columns} columns: {key}");
                return Err(Error::new(Code::BadRequest, words));
            }
        }
        Ok(())
    }

    /// Every so many known rows, where the next range begins.
    async fn bounds(&self) -> Result<Vec<KeyBytes>> {
        let mut bounds = Bounds::default();
        loop {
            let found =
                self.journal.known_behind(&self.order.table, bounds.last(), bounds.step()).await?;
            let Some(key) = found else { return Ok(bounds.into_keys()) };
            bounds.push(key);
        }
    }

    /// Reads the table and sums it, range by range. Of rows that the filter keeps back those are staged that are known.
    /// Gives how many rows are there that cannot travel: they are in no sum, so that they make no range differ.
    async fn sum(&self, ground: &Ground, ranges: &mut Ranges) -> Result<u64> {
        let mut reader = self.reader(ground);
        let mut unreadable = 0;
        while let Some(page) = reader.next().await? {
            // One with NULL in its key lies in no part.
            let within = |poison: &&Poison| {
                let key = KeyBytes::of(poison.key.0.iter().map(String::as_str));
                poison.code == Code::KeyIsNull || self.order.span.holds(&key)
            };
            unreadable += page.poison().iter().filter(within).count() as u64;
            let rows = ground.all(&page);
            let kept: Vec<KeyBytes> =
                rows.iter().filter(|row| !row.passes).map(|row| row.key.clone()).collect();
            let mut known = Vec::new();
            if !kept.is_empty() {
                known = self.journal.known(&self.order.table, kept).await?;
            }
            let mut known = known.into_iter();
            for row in &rows {
                if row.passes || known.next().flatten().is_some() {
                    ranges.add(&row.key, row.hash);
                }
            }
            self.tell("READ", ranges.rows());
        }
        Ok(unreadable)
    }

    /// Reads the table once more and keeps the rows of ranges that differ.
    async fn gather(
        &self,
        ground: &Ground,
        (ranges, places): (&Ranges, &[usize]),
        scratch: &Scratch,
    ) -> Result<()> {
        let mut reader = self.reader(ground);
        let mut read = 0;
        while let Some(page) = reader.next().await? {
            let mut rows = ground.all(&page);
            rows.retain(|row| {
                ranges.place(&row.key).is_some_and(|at| places.binary_search(&at).is_ok())
            });
            read += page.len() as u64;
            scratch.put_met(rows).await?;
            self.tell("COMPARE", read);
        }
        Ok(())
    }

    fn pacing(&self) -> Pacing<'_, S> {
        Pacing {
            source: self.source,
            journal: self.journal,
            governor: self.governor,
            duty_percent: self.config.capture.duty_percent,
        }
    }

    fn reader<'b>(&'b self, ground: &'b Ground) -> Reader<'b, S> {
        Reader::new(self.pacing(), &ground.shape)
    }

    /// Reads what is staged of those ranges.
    async fn fetch(&self, (ranges, places): (&Ranges, &[usize]), scratch: &Scratch) -> Result<()> {
        for at in places {
            let (span, mut after) = (ranges.span_of(*at), KeyBytes::default());
            loop {
                let page = self.staged(&span, &after).await?;
                let more = page.more;
                after = last(&page);
                scratch.put_staged(page.rows).await?;
                if !more {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether anybody tells what is staged, before the ERP is read for nothing: a question whose answer is empty on every
    /// server, and soon there.
    async fn answered(&self) -> Result<()> {
        self.tell("ASK", 0);
        let beyond = KeyBytes(BEYOND.to_vec());
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            if self.journal.link().borrow().phase == LinkPhase::Refused {
                return Err(self.away());
            }
            let span = KeySpan { from: beyond.clone(), to: KeyBytes::default() };
            match self.journal.staged_rows(&self.order.table, span, beyond.clone()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.code == Code::CloudUnreachable && !self.is_granted() => {
                    return Err(self.away());
                }
                Err(error) => self.ask_again(error, &mut pauses).await?,
            }
        }
    }

    /// Ranges whose sums are not the staged ones. They are asked for part by part, so that each answer is there within a
    /// call's time; that one part is of a later moment than another is no harm, for what differs is looked at again.
    async fn differing(&self, ranges: &Ranges) -> Result<Vec<usize>> {
        let (mut places, mut rows) = (Vec::new(), 0);
        for part in ranges.parts() {
            self.tell("ASK", rows);
            let staged = self.staged_sums(ranges.question(&part)).await?;
            rows += staged.iter().map(|sum| sum.count).sum::<u64>();
            places.extend(ranges.differing(&part, &staged));
        }
        Ok(places)
    }

    async fn staged_sums(
        &self,
        (span, bounds): (KeySpan, Vec<KeyBytes>),
    ) -> Result<Vec<StagedSum>> {
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let parted = (span.clone(), bounds.clone());
            match self.journal.staged_sums(&self.order.table, parted).await {
                Ok(sums) => return Ok(sums),
                Err(error) => self.ask_again(error, &mut pauses).await?,
            }
        }
    }

    async fn staged(&self, span: &KeySpan, after: &KeyBytes) -> Result<StagedPage> {
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let (span, after) = (span.clone(), after.clone());
            match self.journal.staged_rows(&self.order.table, span, after).await {
                Ok(page) => return Ok(page),
                Err(error) => self.ask_again(error, &mut pauses).await?,
            }
        }
    }

    /// Waits where the same question may be answered later, else gives the error back.
    async fn ask_again(&self, error: Error, pauses: &mut Backoff) -> Result<()> {
        // A server that is there and stages what was sent before gets longer than one that does not answer.
        let tries = if error.code == Code::Unavailable { TRIES_LATER } else { TRIES };
        if !error.is_transient() || pauses.tries() + 1 >= tries {
            return Err(error);
        }
        self.standing().await?;
        pauses.pause().await;
        Ok(())
    }

    /// Looks at the open suspects on both sides as they are now.
    async fn look_again(
        &self,
        ground: &Ground,
        (ranges, places): (&Ranges, &[usize]),
        scratch: &Scratch,
    ) -> Result<()> {
        scratch.begin_look().await?;
        for at in places {
            let span = ranges.span_of(*at);
            let mut after = KeyBytes::default();
            // Pages without a suspect are passed over.
            while !scratch.open(span.clone(), after.clone(), 1).await?.is_empty() {
                let page = self.staged(&span, &after).await?;
                let more = page.more;
                after = last(&page);
                scratch.see_staged(page.rows).await?;
                if !more {
                    break;
                }
            }
        }
        self.look_at_erp(ground, scratch).await
    }

    async fn look_at_erp(&self, ground: &Ground, scratch: &Scratch) -> Result<()> {
        let table = &self.order.table;
        let skipped = self.journal.skipped(table).await?;
        let (mut after, mut looked) = (KeyBytes::default(), 0);
        loop {
            let keys = scratch.open(KeySpan::default(), after, LOOK_UP).await?;
            if keys.is_empty() {
                return Ok(());
            }
            let before = Mono::now();
            let (page, answered) = self.look_up(ground, &keys).await?;
            let keys = keys.get(..answered).unwrap_or(&keys);
            let rows = ground.all(&page);
            let mut unfit: Vec<KeyBytes> =
                keys.iter().filter(|key| skipped.contains(&key_hash(key))).cloned().collect();
            if !page.poison().is_empty() {
                let poison = self.poison_of(ground, keys, &rows).await?;
                scratch.pass_over(poison.clone()).await?;
                unfit.extend(poison);
            }
            scratch.skip(unfit).await?;
            scratch.see_met(rows).await?;
            looked += keys.len() as u64;
            self.tell("LOOK_AGAIN", looked);
            after = keys.last().cloned().unwrap_or_default();
            self.pacing().rest(before.elapsed()).await;
        }
    }

    /// Live rows of the first of these keys, as many as a page takes, and how many keys it answers (at least one).
    async fn look_up(&self, ground: &Ground, keys: &[KeyBytes]) -> Result<(Page, usize)> {
        let mut count = keys.len();
        loop {
            let some = keys.get(..count).unwrap_or(keys);
            let page = self.source.by_keys(&ground.shape, some).await?;
            if page.is_complete() || count <= 1 {
                return Ok((page, some.len()));
            }
            count /= 2;
        }
    }

    /// Rows that are there and cannot travel; only one key alone tells which they are.
    async fn poison_of(
        &self,
        ground: &Ground,
        keys: &[KeyBytes],
        rows: &[Met],
    ) -> Result<Vec<KeyBytes>> {
        let mut found = Vec::new();
        let seen: std::collections::BTreeSet<&KeyBytes> = rows.iter().map(|row| &row.key).collect();
        for key in keys.iter().filter(|key| !seen.contains(key)) {
            let alone = self.source.by_keys(&ground.shape, std::slice::from_ref(key)).await?;
            if !alone.poison().is_empty() {
                found.push(key.clone());
            }
        }
        Ok(found)
    }

    /// Has capture send what differs, and waits until it is accepted.
    async fn repair(&self, scratch: &Scratch) -> Result<()> {
        let table = &self.order.table;
        let done = || self.journal.is_repaired(table);
        // What a process that ended left behind goes first.
        self.until(done).await?;
        let (mut after, mut handed) = (KeyBytes::default(), 0);
        loop {
            let keys = scratch.different(after, HANDED).await?;
            let Some(last) = keys.last().cloned() else { break };
            handed += keys.len() as u64;
            self.journal.add_repairs(table, keys).await?;
            after = last;
        }
        self.tell("REPAIR", handed);
        tracing::info!(%table, rows = handed, "rows that differ are sent again");
        self.journal.begin_repair(table);
        self.until(done).await?;
        // Rows that the ERP does not have are found, and deleted where the cap lets them, by the scan of a round.
        self.round().await?;
        self.tell("REPAIR", handed);
        Ok(())
    }

    /// Waits until capture went through the table from now on.
    async fn round(&self) -> Result<()> {
        let table = &self.order.table;
        self.tell("WAIT", 0);
        let number = self.journal.ask_round(table);
        let ended = self.until(|| self.journal.round_of(table) != Some(number)).await;
        self.journal.end_round(table, number);
        ended
    }

    /// Waits for capture, for as long as it can still come to it.
    async fn until(&self, done: impl Fn() -> bool) -> Result<()> {
        let (mut looked, mut gone) = (Mono::now(), None);
        while !done() {
            clock::sleep(LOOK).await;
            if looked.elapsed() < STANDING {
                continue;
            }
            looked = Mono::now();
            self.standing().await?;
            if self.is_granted() {
                gone = None;
            } else if gone.get_or_insert(looked).elapsed() > AWAY {
                return Err(self.away());
            }
        }
        Ok(())
    }

    fn is_granted(&self) -> bool {
        self.journal.granted().borrow().is_some()
    }

    fn away(&self) -> Error {
        let link = self.journal.link().borrow().clone();
        let code = link.code.and_then(|code| code.parse().ok()).unwrap_or(Code::CloudUnreachable);
        Error::new(code, link.words.unwrap_or_else(|| "the agent has no session".to_owned()))
    }

    /// Whether the table is one that capture keeps equal now.
    async fn standing(&self) -> Result<()> {
        let (table, journal) = (&self.order.table, self.journal);
        let planned = journal.plan().await?;
        if !planned.is_some_and(|plan| plan.queries.iter().any(|query| query.table == *table)) {
            return Err(unplanned(self.order));
        }
        if !self.config.allows(table) {
            let words = format!("table {table} is not in the local allow list");
            return Err(Error::new(Code::TableNotAllowed, words));
        }
        if journal.link().borrow().phase == LinkPhase::Standby {
            return Err(self.away());
        }
        if let Some(parked) = journal.parked().remove(table) {
            return Err(Error::new(parked.code, parked.words));
        }
        let unready = |words: String| Error::new(Code::TableNotReady, words);
        if journal.is_halted(table) {
            return Err(unready(format!("table {table} is paused")));
        }
        let statuses = journal.statuses().await?;
        let Some(status) = statuses.into_iter().find(|status| status.table == *table) else {
            return Err(unready(format!("table {table} was not read yet")));
        };
        if let Some((code, words)) = status.parked {
            return Err(Error::new(code.parse().unwrap_or(Code::TableNotReady), words));
        }
        if status.state != "STREAMING" {
            let why = status.paused.map(|why| format!(", {why}")).unwrap_or_default();
            return Err(unready(format!("table {table} is in state {}{why}", status.state)));
        }
        Ok(())
    }
}

fn unplanned(order: &VerifyOrder) -> Error {
    Error::new(Code::NotFound, format!("table {} is not in the plan", order.table))
}

fn last(page: &StagedPage) -> KeyBytes {
    page.rows.last().map(|(key, _)| key.clone()).unwrap_or_default()
}
