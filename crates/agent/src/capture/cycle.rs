//! Cycle: one batch's reading, table by table in turns.
//!
//! Promises: the bound is taken before any read of changes; a table's chunk goes before the delta that is read after it;
//! no table waits for another's base load longer than one page and its rest.
//! Never: hands on ahead of the journal: above 32 MB unacknowledged it waits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use protocol::{
    Code, Error, Result,
    ids::{Epoch, Generation},
    key::KeyBytes,
    limits,
    loads::done_entry,
    names::TableName,
};
use runtime::{
    clock::{Mono, Wall},
    mutant,
};

use super::{
    ahead::Ahead,
    asked::Again,
    batcher::Batcher,
    cursor::Change,
    edge::{self, Pass},
    erp_clock::ErpClock,
    load,
    room::Room,
    scan::Scan,
    table::{Seen, Table, page_key_bytes},
};
use crate::{
    config::AgentConfig,
    journal::{Incident, Journal, key_hash},
    pacing::{Governor, Pacing},
    source::{Bound, Page, Source, TableShape},
};

/// Spooled bytes the cloud may be behind before reading waits.
const UNACKED_BYTES: u64 = 32 * 1024 * 1024;
/// How long one table may read deltas before the next one has its turn.
const SLICE: Duration = Duration::from_millis(500);
/// Keys of one look-up.
pub(super) const LOOK_UP: usize = 1_000;

/// Who has to bear a fault: one table, or the batch and so the session.
#[derive(Debug)]
pub(super) enum Fault {
    Table(Error),
    Session(Error),
}

pub(super) type Turn<T = ()> = Result<T, Fault>;

/// How a row goes out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Load,
    Delta,
    /// Found by comparison, or re-read by key.
    Found,
}

/// What a cycle works with.
pub(super) struct Tools<'a, S> {
    pub(super) source: &'a S,
    pub(super) journal: &'a Journal,
    pub(super) config: &'a AgentConfig,
    pub(super) epoch: Epoch,
    pub(super) room: &'a Room,
    pub(super) governor: &'a Governor,
    pub(super) erp_clock: &'a ErpClock,
}

/// One cycle.
pub(super) struct Cycle<'a, S> {
    pub(super) tools: Tools<'a, S>,
    pub(super) batch: Batcher,
    /// Base loads whose last rows are in this batch.
    pub(super) loads_done: Vec<(TableName, Generation)>,
    loads_bytes: usize,
    pub(super) started: Mono,
    opened: bool,
    bound: Option<Bound>,
    /// All steps back of the ERP's clock up to its bound, microseconds.
    back: u64,
}

impl<'a, S: Source> Cycle<'a, S> {
    /// How fast is read in bulk.
    pub(super) fn pacing(&self) -> Pacing<'a, S> {
        let Tools { source, journal, config, governor, .. } = self.tools;
        Pacing { source, journal, governor, duty_percent: config.capture.duty_percent }
    }

    pub(super) fn new(tools: Tools<'a, S>, batch: Batcher) -> Self {
        let started = Mono::now();
        Self {
            tools,
            batch,
            loads_done: Vec::new(),
            loads_bytes: 0,
            started,
            opened: false,
            bound: None,
            back: 0,
        }
    }

    /// Messages were spooled: the batch has to be sealed.
    #[must_use]
    pub(super) fn is_open(&self) -> bool {
        self.opened
    }

    /// The batch takes no further page.
    #[must_use]
    pub(super) fn is_over(&self) -> bool {
        self.batch.is_full()
            || self.loads_bytes >= limits::LOADS_DONE_BYTES
            || self.started.elapsed() >= limits::BATCH_READING
            || self.tools.room.lacks().is_some()
    }

    /// The next cycle's time has come: a comparison goes on with it, so that changes wait no longer for a long one.
    fn is_next_due(&self) -> bool {
        let cycle = self.tools.config.capture.cycle_seconds.max(1);
        self.started.elapsed() >= Duration::from_secs(cycle)
    }

    /// One piece of work on a table; false = it has nothing more for this cycle.
    pub(super) async fn turn(&mut self, table: &mut Table) -> Turn<bool> {
        // For this turn or for none: what is read from here on goes behind it.
        let ahead = table.ahead.take();
        table.governed = self.pacing().pace();
        let seen = self.describe(table).await?;
        let stamped = seen.shape.stamp.is_some();
        if stamped {
            self.bound(table).await?;
        }
        if table.loads() {
            self.chunk(table, &seen, ahead).await?;
        }
        if stamped && !table.delta_done {
            self.delta(table, &seen).await?;
        }
        if table.cursor.load.is_none() {
            self.send_again(table, &seen).await?;
            if !table.scan_done {
                self.scan(table, &seen).await?;
            }
        }
        self.spool().await?;
        if let Some(code) = table.well() {
            let name = &table.query.table;
            tracing::info!(table = %name, %code, "the table is read again");
            self.tools.journal.mended(name, code).await.map_err(Fault::Session)?;
        }
        if table.is_well_at_last() && !self.tools.journal.is_parked(&table.query.table) {
            self.tools.journal.read_again(&table.query.table).await.map_err(Fault::Session)?;
        }
        let comparing = !table.scan_done && table.scan.is_under_way();
        let again = matches!(table.again, Again::Behind(_)) && table.cursor.load.is_none();
        let scanning = (comparing || again) && !self.is_next_due();
        Ok(table.loads() || (stamped && !table.delta_done) || scanning)
    }

    pub(super) async fn describe(&mut self, table: &mut Table) -> Turn<Arc<Seen>> {
        if let Some(seen) = &table.seen {
            return Ok(Arc::clone(seen));
        }
        let name = &table.query.table;
        if !self.tools.config.allows(name) {
            let words = format!("table {name} is not in the local allow list");
            return Err(Fault::Table(Error::new(Code::TableNotAllowed, words)));
        }
        let spec = self.tools.config.spec(name);
        let shape = self.tools.source.describe(&spec).await.map_err(Fault::Table)?;
        if spec.key.is_some() {
            self.refuse_twins(&shape).await?;
        }
        let seen = Arc::new(Seen::new(shape, &table.query).map_err(Fault::Table)?);
        if table.cursor.load.is_none() && table.cursor.is_under_another_key(&seen.shape) {
            // Nothing of it would be taken, and a refusal costs the others their batch.
            let words = "the table has another key than the one it is staged under; an operator has to order a rebuild";
            return Err(Fault::Table(Error::new(Code::PrimaryKeyChanged, words)));
        }
        match table.cursor.describe(&seen.shape) {
            Change::Nothing | Change::Stamp => {}
            Change::Columns => table.scan = Scan::Idle { not_before: Mono::now() },
            Change::Key => {
                // What is known stands under the old key and would look vanished.
                self.tools.journal.known_clear(name).await.map_err(Fault::Session)?;
                table.scan = Scan::Idle { not_before: Mono::now() };
                (table.pass, table.read) = (None, None);
            }
        }
        // Where the places became void the load is due now, before anything else of the table is read: rows under another
        // key are taken as part of a load alone.
        load::settle(&mut table.cursor, &table.wish);
        let (columns, stamped) = (seen.shape.columns.len(), seen.shape.stamp.is_some());
        tracing::debug!(table = %name, columns, stamped, loads = table.loads(), "table described");
        table.quarantined = self.tools.journal.quarantined(name).await.map_err(Fault::Session)?;
        table.skipped(self.tools.journal.skipped(name).await.map_err(Fault::Session)?);
        table.seen = Some(Arc::clone(&seen));
        Ok(seen)
    }

    /// A declared key that two rows share would make one of them vanish in staging.
    async fn refuse_twins(&self, shape: &TableShape) -> Turn {
        let findings = self.tools.source.findings(std::slice::from_ref(shape)).await;
        let mut findings = findings.map_err(Fault::Table)?.into_iter();
        match findings.find(|finding| finding.code == Some(Code::KeyNotUnique)) {
            Some(finding) => Err(Fault::Table(Error::new(Code::KeyNotUnique, finding.words))),
            None => Ok(()),
        }
    }

    /// Live rows of the first of these keys, as many as a page takes, and how many keys it answers (at least one).
    pub(super) async fn look_up(&self, seen: &Seen, keys: &[KeyBytes]) -> Turn<(Page, usize)> {
        let mut count = keys.len();
        loop {
            let some = keys.get(..count).unwrap_or(keys);
            let page = self.tools.source.by_keys(&seen.shape, some).await.map_err(Fault::Table)?;
            if page.is_complete() || count <= 1 {
                return Ok((page, some.len()));
            }
            count /= 2;
        }
    }

    /// The cycle's bound, taken before its first read of any stamped table.
    async fn bound(&mut self, table: &mut Table) -> Turn<Bound> {
        if self.bound.is_none() {
            let asked = Mono::now();
            let bound = self.tools.source.bound().await.map_err(Fault::Table)?;
            self.back = self.tools.erp_clock.note(&bound, asked, Mono::now());
            self.bound = Some(bound);
            self.tools.journal.tell_position(self.tools.source.position());
        }
        let bound = self.bound.clone().unwrap_or(Bound::at(0));
        table.bounded(&bound, self.back);
        Ok(bound)
    }

    async fn chunk(&mut self, table: &mut Table, seen: &Arc<Seen>, ahead: Option<Ahead>) -> Turn {
        if seen.shape.stamp.is_some() && table.cursor.watermark.is_none() {
            let bound = self.bound(table).await?;
            let edge = self.tools.source.watermark(&seen.shape, &bound).map_err(Fault::Table)?;
            table.cursor.watermark = Some(edge);
            table.cursor.micros = Some(bound.micros);
        }
        let after = table.cursor.load.as_ref().and_then(|load| load.after.clone());
        let (page, took) = match ahead.and_then(|ahead| ahead.page(seen, after.as_ref())) {
            Some(read) => read,
            None => {
                let (started, source) = (Mono::now(), self.tools.source);
                let filter = seen.filter.as_ref();
                let page = source.chunk(&seen.shape, after.as_ref(), filter, table.limit()).await;
                (page.map_err(Fault::Table)?, started.elapsed())
            }
        };
        table.took(took, page.len());
        self.tools.governor.page(&table.query.table, took, page.len());
        tell_read(table, &page, took, "of a base load");
        for row in 0..page.len() {
            self.send(table, seen, (&page, row), Kind::Load).await?;
        }
        self.tell_poison(table, &page).await?;
        if let Some(load) = &mut table.cursor.load {
            load.rows += page.len() as u64;
            if let Some(place) = page.last() {
                load.after = Some(place.key.clone());
            }
        }
        if ends(&page)? || mutant::is("load_ends_early") {
            if mutant::is("load_bound_at_end") {
                let bound = self.tools.source.bound().await.map_err(Fault::Table)?;
                let edge = self.tools.source.watermark(&seen.shape, &bound);
                table.cursor.watermark = Some(edge.map_err(Fault::Table)?);
            }
            if table.cursor.load.as_ref().is_some_and(|load| load.rows == 0) {
                // The end of an empty table's load travels too: its request ends, and staging has the table.
                self.batch.turn_to(&table.query.table, &seen.schema, true, table.suspect);
                self.batch.tell_empty();
            }
            let generation = load::finish(&mut table.cursor);
            if let Some(generation) = generation {
                self.loads_bytes += done_entry(&table.query.table, generation).len() + 1;
                self.loads_done.push((table.query.table.clone(), generation));
            }
            // What was just sent is known only once the batch is accepted.
            table.scan_done = true;
        }
        self.spool().await?;
        self.pacing().rest(took).await;
        Ok(())
    }

    async fn delta(&mut self, table: &mut Table, seen: &Seen) -> Turn {
        let mut pass = match table.pass.take() {
            Some(pass) => pass,
            None => {
                let bound = self.bound(table).await?;
                let edge =
                    self.tools.source.watermark(&seen.shape, &bound).map_err(Fault::Table)?;
                let Some(from) = edge::start(&table.cursor, seen.allowance()) else {
                    // A table that had no stamp when it was loaded: its next load sets the start.
                    table.cursor.loaded = false;
                    table.delta_done = true;
                    return Ok(());
                };
                let pass = Pass::new(bound, edge, from);
                if pass.shows_nothing_since(table.read.take().as_ref()) {
                    pass.finish(&mut table.cursor);
                    table.read = pass.bound.committed;
                    table.delta_done = true;
                    return Ok(());
                }
                pass
            }
        };
        let started = Mono::now();
        let outcome = loop {
            match self.delta_page(table, seen, &mut pass).await {
                Ok(true) => {
                    // A message that is not full yet does not wait for what is compared next.
                    self.batch.finish();
                    self.spool().await?;
                    if mutant::is("bound_after_rows") {
                        let bound = self.tools.source.bound().await.map_err(Fault::Table)?;
                        let edge = self.tools.source.watermark(&seen.shape, &bound);
                        (pass.bound, pass.edge) = (bound, edge.map_err(Fault::Table)?);
                    }
                    pass.finish(&mut table.cursor);
                    table.recent.turn();
                    table.read = pass.bound.committed;
                    table.delta_done = true;
                    return Ok(());
                }
                Ok(false) if started.elapsed() >= SLICE || self.is_over() => break Ok(()),
                Ok(false) => {}
                Err(fault) => break Err(fault),
            }
        };
        table.pass = Some(pass);
        outcome
    }

    /// Sends one page; true = the pass reached its end.
    async fn delta_page(&mut self, table: &mut Table, seen: &Seen, pass: &mut Pass) -> Turn<bool> {
        let started = Mono::now();
        let source = self.tools.source;
        let page = source
            .delta(&seen.shape, &pass.from, &pass.bound, table.limit())
            .await
            .map_err(Fault::Table)?;
        tell_read(table, &page, started.elapsed(), "of changes");
        let end = ends(&page)?;
        let mut deleted = Vec::new();
        for row in 0..page.len() {
            if page.is_deleted(row) && seen.shape.shared_key {
                deleted.push(row);
            } else {
                self.send(table, seen, (&page, row), Kind::Delta).await?;
            }
        }
        self.shared_deletes(table, seen, &page, &deleted).await?;
        self.tell_poison(table, &page).await?;
        if let Some(place) = page.last() {
            let words = "a row of a delta has no stamp";
            let stamp = place.stamp.cloned();
            let stamp = stamp.ok_or_else(|| Fault::Table(Error::new(Code::StampUnfit, words)))?;
            pass.advance(stamp, place.key.clone(), place.below_edge);
        }
        self.spool().await?;
        Ok(end)
    }

    /// Deleted rows whose key a live row may share: a delete goes only where no live row has the key (F72).
    async fn shared_deletes(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        page: &Page,
        rows: &[usize],
    ) -> Turn {
        let fresh: Vec<usize> =
            rows.iter().copied().filter(|row| !is_recent(table, seen, page, *row)).collect();
        let mut by_key: BTreeMap<KeyBytes, Vec<usize>> = BTreeMap::new();
        for row in fresh {
            by_key.entry(seen.key(page, row)).or_default().push(row);
        }
        let keys: Vec<KeyBytes> = by_key.keys().cloned().collect();
        let mut keys = keys.as_slice();
        while !keys.is_empty() {
            let (live, answered) = self.look_up(seen, keys.get(..LOOK_UP).unwrap_or(keys)).await?;
            let (these, rest) = keys.split_at(answered);
            keys = rest;
            for row in 0..live.len() {
                by_key.remove(&seen.key(&live, row));
                self.send(table, seen, (&live, row), Kind::Found).await?;
            }
            self.tell_poison(table, &live).await?;
            // A live row that cannot travel has no wire key here; no delete may take its place.
            if !live.poison().is_empty() {
                continue;
            }
            let gone: Vec<usize> =
                these.iter().filter_map(|key| by_key.remove(key)).flatten().collect();
            for row in gone {
                self.send(table, seen, (page, row), Kind::Delta).await?;
            }
        }
        Ok(())
    }

    /// Puts one row into the batch, unless an accepted batch carried this very image or the server refused it.
    pub(super) async fn send(
        &mut self,
        table: &mut Table,
        seen: &Seen,
        (page, row): (&Page, usize),
        kind: Kind,
    ) -> Turn {
        let (key, hash) = (seen.key(page, row), seen.hash(page, row));
        let deleted = page.is_deleted(row);
        if kind == Kind::Delta && is_recent(table, seen, page, row) {
            if let Some(stamp) = page.stamp(row).filter(|_| !page.below_edge(row)) {
                table.recent.keep(key, stamp.clone(), image(hash, deleted));
            }
            return Ok(());
        }
        match table.quarantined.get(&key) {
            Some(refused) if *refused == hash && !deleted => return Ok(()),
            Some(_) => {
                table.quarantined.remove(&key);
                let name = &table.query.table;
                let forgiven = self.tools.journal.forgive(name, vec![key.clone()]).await;
                forgiven.map_err(Fault::Session)?;
                let closed = self.tools.journal.close_row(name, key_hash(&key)).await;
                closed.map_err(Fault::Session)?;
            }
            None => {}
        }
        let known = Some((key.clone(), (!deleted).then_some(hash)));
        self.batch.turn_to(&table.query.table, &seen.schema, kind == Kind::Load, table.suspect);
        let cell =
            |at: usize| page.cell(row, at).filter(|_| !deleted || seen.shape.key.contains(&at));
        if !self.batch.push(cell, deleted, known) {
            let cells = (0..seen.shape.columns.len()).filter_map(|at| page.cell(row, at));
            let bytes: usize = cells.map(str::len).sum();
            let most = protocol::limits::SENDER_MESSAGE_BYTES;
            let words =
                format!("the row has {bytes} bytes of values, a whole message at most {most}");
            return self.tell(table, &key, Code::RowTooLarge, &words).await;
        }
        if let Some(key_hash) = table.is_back(&key) {
            let closed = self.tools.journal.close_row(&table.query.table, key_hash).await;
            closed.map_err(Fault::Session)?;
        }
        count(table, deleted);
        table.recent.forget(&key);
        if let (Kind::Delta, Some(stamp), false) = (kind, page.stamp(row), page.below_edge(row)) {
            table.recent.keep(key, stamp.clone(), image(hash, deleted));
        }
        Ok(())
    }

    /// Sends a delete that names the key alone.
    pub(super) fn send_delete(&mut self, table: &mut Table, seen: &Seen, key: &KeyBytes) -> Turn {
        let values = key.values().map_err(Fault::Table)?;
        let cell = |at: usize| {
            let part = seen.shape.key.iter().position(|column| *column == at)?;
            values.get(part).copied()
        };
        self.batch.turn_to(&table.query.table, &seen.schema, false, table.suspect);
        self.batch.push(cell, true, Some((key.clone(), None)));
        count(table, true);
        table.recent.forget(key);
        Ok(())
    }

    pub(super) async fn tell_poison(&mut self, table: &mut Table, page: &Page) -> Turn {
        for poison in page.poison() {
            self.tell(table, &page_key_bytes(&poison.key), poison.code, &poison.words).await?;
        }
        Ok(())
    }

    /// A row is skipped: an incident, once.
    async fn tell(&mut self, table: &mut Table, key: &KeyBytes, code: Code, words: &str) -> Turn {
        let hash = key_hash(key);
        if !table.tell(&hash) || mutant::is("skips_untold") {
            return Ok(());
        }
        self.incident(table, Some(hash), code, words).await
    }

    pub(super) async fn incident(
        &self,
        table: &Table,
        key_hash: Option<String>,
        code: Code,
        words: &str,
    ) -> Turn {
        let name = table.query.table.clone();
        tracing::warn!(table = %name, %code, words, key_hash, hint = code.hint(), "incident");
        let at_micros = Wall::now().0;
        let incident =
            Incident { table: Some(name), key_hash, code, words: words.to_owned(), at_micros };
        self.tools.journal.incident(incident).await.map_err(Fault::Session)
    }

    /// Hands finished messages to the journal; waits while the cloud is too far behind.
    pub(super) async fn spool(&mut self) -> Turn {
        let messages = self.batch.take();
        if messages.is_empty() {
            return Ok(());
        }
        let (journal, id) = (self.tools.journal, self.batch.id());
        if !self.opened {
            journal.open_batch(self.tools.epoch, id, Wall::now()).await.map_err(Fault::Session)?;
            self.opened = true;
        }
        let mut spool = journal.spool();
        let room = spool
            .wait_for(|state| state.batch != Some(id) || state.unacked_bytes <= UNACKED_BYTES)
            .await
            .is_ok();
        if !room {
            return Err(Fault::Session(Error::new(Code::JournalFailed, "the journal is closed")));
        }
        journal.append(id, messages).await.map_err(Fault::Session)
    }
}

/// A page that holds nothing and is not the last one would be read again for ever.
pub(super) fn ends(page: &Page) -> Turn<bool> {
    if !page.is_complete() && page.last().is_none() {
        let words = "a page is empty although more rows follow";
        return Err(Fault::Table(Error::new(Code::Internal, words)));
    }
    Ok(page.is_complete())
}

/// For the detailed log: how many rows of which table in what time, and nothing of them.
pub(super) fn tell_read(table: &Table, page: &Page, took: Duration, what: &'static str) {
    let (rows, ms) = (page.len(), took.as_millis());
    tracing::debug!(table = %table.query.table, rows, ms, complete = page.is_complete(), "page {what} read");
}

fn count(table: &mut Table, deleted: bool) {
    table.pending.0 += 1;
    table.pending.1 += u64::from(deleted);
}

fn is_recent(table: &Table, seen: &Seen, page: &Page, row: usize) -> bool {
    let Some(stamp) = page.stamp(row) else { return false };
    let image = image(seen.hash(page, row), page.is_deleted(row));
    table.recent.holds(&seen.key(page, row), stamp, image)
}

/// A deleted row and a live one with the same values are two images.
fn image(hash: protocol::hash::RowHash, deleted: bool) -> protocol::hash::RowHash {
    if deleted { hash.xor(protocol::hash::RowHash([0xff; 16])) } else { hash }
}
