//! Table: what capture holds of one table between cycles.
//!
//! Promises: everything here can be forgotten and made again from the plan, the catalogue and the cursor entry.
//! Never: reads; the cycle does.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Class, Code, Error, Result,
    filter::Filter,
    hash::{RowHash, RowHasher},
    json::EntityQuery,
    key::KeyBytes,
    names::TableName,
    proto::totvs::table::{
        Schema,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};
use runtime::{
    backoff::Backoff,
    clock::{Mono, Wall},
    mutant,
};

use super::{
    ahead::Ahead,
    asked::{Again, Round},
    cursor::Cursor,
    edge::Pass,
    load::Wish,
    recent::RecentRows,
    scan::Scan,
};
use crate::{
    journal::{Parked, TableStatus, key_hash, schema_mark},
    pacing::FULL,
    source::{Bound, LEAST_ROWS, PAGE_ROWS, Pace, Page, PageKey, ReadLimit, TableShape},
};

/// Encoded bytes a page may become: names count too, so tables with many columns get fewer rows.
const PAGE_ENCODED: usize = 8 * 1024 * 1024;
/// How often a table that waits for a person is tried again.
const OPERATOR_RETRY: Duration = Duration::from_secs(60);
/// Rows told as skipped, remembered so that each is told once.
const TOLD: usize = 10_000;

/// A described table with what follows from its shape.
pub(super) struct Seen {
    pub(super) shape: TableShape,
    pub(super) schema: Schema,
    pub(super) filter: Option<Filter>,
    hasher: RowHasher,
    max_rows: usize,
}

impl Seen {
    /// # Errors
    /// `FILTER_REFUSED`.
    pub(super) fn new(shape: TableShape, query: &EntityQuery) -> Result<Self> {
        let filter = shape.filter(query.filter.as_deref())?;
        let overhead: usize =
            shape.columns.iter().map(|column| column.name.as_str().len() + 8).sum();
        Ok(Self {
            schema: schema(&shape),
            hasher: shape.hasher(),
            max_rows: (PAGE_ENCODED / overhead.max(1)).clamp(1, PAGE_ROWS),
            filter,
            shape,
        })
    }

    #[must_use]
    pub(super) fn key(&self, page: &Page, row: usize) -> KeyBytes {
        self.shape.key_bytes(page, row)
    }

    #[must_use]
    pub(super) fn hash(&self, page: &Page, row: usize) -> RowHash {
        self.hasher.hash(|at| page.cell(row, at))
    }

    /// What the schema is known by where the server refused it.
    #[must_use]
    pub(super) fn mark(&self) -> u64 {
        let columns = &self.schema.columns;
        let key = self.schema.primary_key.iter().flat_map(|key| &key.columns);
        schema_mark(
            columns.iter().map(|column| (column.name.as_str(), column.r#type.as_str())),
            key.map(String::as_str),
        )
    }

    /// Whether a row passes the filter of the load.
    #[must_use]
    pub(super) fn passes(&self, page: &Page, row: usize) -> bool {
        self.shape.passes(self.filter.as_ref(), page, row)
    }

    #[must_use]
    pub(super) fn allowance(&self) -> Duration {
        self.shape.stamp.as_ref().map_or(Duration::ZERO, |stamp| stamp.allowance)
    }
}

fn schema(shape: &TableShape) -> Schema {
    let column = |column: &crate::source::ColumnShape| SchemaColumn {
        name: column.name.to_string(),
        r#type: column.wire_type().to_string(),
    };
    let key = shape.key.iter().filter_map(|at| shape.columns.get(*at));
    Schema {
        flexible: true,
        export_data: true,
        columns: shape.columns.iter().map(column).collect(),
        primary_key: Some(SchemaPrimaryKey {
            name: shape.wire.folded().to_owned(),
            columns: key.map(|column| column.name.to_string()).collect(),
        }),
    }
}

/// Why a table rests, and until when.
#[derive(Debug)]
pub(super) struct Park {
    pub(super) code: Code,
    pub(super) words: String,
    pub(super) until: Mono,
}

/// One table of the plan.
pub(super) struct Table {
    pub(super) query: EntityQuery,
    pub(super) wish: Wish,
    pub(super) seen: Option<Arc<Seen>>,
    pub(super) cursor: Cursor,
    /// The entry as the server holds it.
    pub(super) stored: Vec<u8>,
    pub(super) pass: Option<Pass>,
    /// What was committed before the last pass that was read to its end; an equal state shows nothing new.
    pub(super) read: Option<String>,
    /// The next chunk, read while the batch before it was accepted.
    pub(super) ahead: Option<Ahead>,
    pub(super) recent: RecentRows,
    pub(super) scan: Scan,
    /// Verification waits for it.
    pub(super) round: Option<Round>,
    /// Rows that verification wants to be sent again.
    pub(super) again: Again,
    pub(super) park: Option<Park>,
    /// Rows the server refused, by key: they go again once they changed.
    pub(super) quarantined: BTreeMap<KeyBytes, RowHash>,
    /// Parked by the server's word; capture's own tries do not end that.
    refused: bool,
    /// When the server's refusal is tried again.
    retry: Option<Wall>,
    /// When a refused table's schema is looked at next.
    look: Option<Mono>,
    /// One row a message, until the refused one is found.
    pub(super) suspect: bool,
    /// A person confirmed the deletes that go out now.
    pub(super) confirmed: bool,
    /// The last of them is in the batch under way.
    confirmed_sent: bool,
    /// Base loads may be read in this cycle.
    pub(super) may_load: bool,
    /// How large its pages may be, in thousandths: less while the database answers slowly.
    pub(super) governed: u32,
    /// The delta of this cycle is done.
    pub(super) delta_done: bool,
    /// The scan of this cycle is done or must wait for the next one.
    pub(super) scan_done: bool,
    /// Rows and deletes in the batch under way.
    pub(super) pending: (u64, u64),
    sent: (u64, u64),
    told: HashSet<String>,
    pace: Pace,
    backoff: Backoff,
    weak: (Option<String>, Option<String>),
    /// A turn went well since the session began, and it was not parked since.
    is_well: bool,
    /// How far the ERP's clock had been set back when it was last compared for that; and whether a transaction from before
    /// was open at its last bound.
    steps: (u64, bool),
    /// All rows are compared once the scan under way has ended.
    compares_again: bool,
}

impl Table {
    #[must_use]
    pub(super) fn new(query: EntityQuery, stored: Vec<u8>, now: Mono) -> Self {
        Self {
            wish: Wish::of(&query, 0),
            query,
            seen: None,
            cursor: Cursor::decode(&stored).unwrap_or_default(),
            stored,
            pass: None,
            read: None,
            ahead: None,
            recent: RecentRows::default(),
            scan: Scan::Idle { not_before: now },
            round: None,
            again: Again::default(),
            park: None,
            quarantined: BTreeMap::new(),
            refused: false,
            retry: None,
            look: None,
            suspect: false,
            confirmed: false,
            confirmed_sent: false,
            may_load: true,
            governed: FULL,
            delta_done: false,
            scan_done: false,
            pending: (0, 0),
            sent: (0, 0),
            told: HashSet::new(),
            pace: Pace::default(),
            backoff: Backoff::new(Duration::from_secs(1), OPERATOR_RETRY),
            weak: (None, None),
            is_well: false,
            steps: (0, false),
            compares_again: false,
        }
    }

    /// Another filter is parsed again; the rest of the plan's entry is taken as it is.
    pub(super) fn replan(&mut self, query: EntityQuery, local: u64) {
        if query.filter != self.query.filter {
            self.seen = None;
            self.read = None;
            self.park = None;
        }
        let wish = Wish::of(&query, local);
        if (wish.generation, wish.local) != (self.wish.generation, self.wish.local) {
            // A reload tries refused rows again, so the journal's list of them is another one.
            self.seen = None;
        }
        (self.wish, self.query) = (wish, query);
    }

    #[must_use]
    pub(super) fn limit(&self) -> ReadLimit {
        let most = self.seen.as_ref().map_or(PAGE_ROWS, |seen| seen.max_rows);
        let most = if self.suspect { most.min(200) } else { most };
        let limit = self.pace.limit(most);
        let governed = limit.rows.saturating_mul(self.governed as usize) / FULL as usize;
        ReadLimit { rows: governed.max(LEAST_ROWS.min(limit.rows)), ..limit }
    }

    /// A chunk was read; the next one's size follows.
    pub(super) fn took(&mut self, time: Duration, rows: usize) {
        self.pace.took(time, rows);
    }

    /// Puts the table aside. Tells whether that is news.
    pub(super) fn park(&mut self, error: &Error, now: Mono) -> bool {
        let pause = match error.class() {
            Class::Transient => error.retry_after.unwrap_or_else(|| self.backoff.next_pause()),
            Class::Caller | Class::Operator | Class::Bug => OPERATOR_RETRY,
        };
        let news = self.park.as_ref().is_none_or(|park| park.code != error.code);
        self.is_well = false;
        self.park =
            Some(Park { code: error.code, words: error.message.clone(), until: now + pause });
        // Described again before the next try: the person may have changed the table.
        self.seen = None;
        self.read = None;
        news
    }

    /// The server refuses the table: nothing of it is read.
    pub(super) fn refused(&mut self, parked: &Parked, now: Mono) {
        (self.refused, self.is_well) = (true, false);
        self.retry = parked.retry.map(|retry| retry.at);
        self.park = Some(Park { code: parked.code, words: parked.words.clone(), until: now });
        self.seen = None;
    }

    /// Whether a refused table's schema is to be looked at: at once, then now and then.
    pub(super) fn is_to_look_at(&mut self, now: Mono) -> bool {
        let due = self.look.is_none_or(|look| look <= now);
        if due {
            self.look = Some(now + OPERATOR_RETRY);
        }
        due
    }

    /// The server's refusal, if there was one, is over.
    pub(super) fn admitted(&mut self) {
        self.look = None;
        if std::mem::take(&mut self.refused) {
            self.park = None;
            // Described again, and with it the rows left out: some may have been forgiven.
            self.seen = None;
        }
    }

    /// A person wants the table to be tried again now; with its refused rows, all rows of it are compared.
    pub(super) fn try_again(&mut self, rows: bool) {
        self.park = None;
        self.backoff.reset();
        // Described again, and with it the rows left out.
        self.seen = None;
        self.read = None;
        if rows {
            self.cursor.compare = self.cursor.loaded;
            self.scan = Scan::Idle { not_before: Mono::now() };
        }
    }

    /// When a parked table is tried again, for people.
    fn next_try(&self, now: Wall) -> Option<String> {
        let park = self.park.as_ref()?;
        if self.refused {
            return self.retry.map(Wall::to_iso);
        }
        let left = i64::try_from((park.until - Mono::now()).as_micros()).unwrap_or(i64::MAX);
        // Whole seconds: the same moment reads the same in every picture.
        Some(Wall((now.0.saturating_add(left)) / 1_000_000 * 1_000_000).to_iso())
    }

    #[must_use]
    pub(super) fn rests(&self, now: Mono) -> bool {
        self.park.as_ref().is_some_and(|park| park.until > now)
    }

    /// The first whole turn that went well in this session, or since it was parked: a park before it may be of another
    /// process, or lifted by a person.
    pub(super) fn is_well_at_last(&mut self) -> bool {
        !std::mem::replace(&mut self.is_well, true)
    }

    /// A whole turn went well. Gives what the table was parked for until now.
    pub(super) fn well(&mut self) -> Option<Code> {
        self.backoff.reset();
        self.park.take().map(|park| park.code)
    }

    /// Steps back of the ERP's clock that it has met for good, microseconds in all.
    pub(super) const fn has_met(&mut self, back: u64) {
        self.steps.0 = back;
    }

    /// Those that it met, in the batch that is under way at the latest; `None` while a transaction from before is open, or
    /// the comparison waits for a scan.
    pub(super) fn met(&self) -> Option<u64> {
        (!self.steps.1 && !self.compares_again).then_some(self.steps.0)
    }

    /// Before a read under this bound; the ERP's clock was set back by so many microseconds in all.
    pub(super) fn bounded(&mut self, bound: &Bound, back: u64) {
        // What is well below the allowance of its stamps, a delta reads again anyway.
        let allowance = self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.allowance());
        let least = u64::try_from(allowance.as_micros() / 2).unwrap_or(u64::MAX);
        let stepped = back.saturating_sub(self.steps.0) > least;
        let passed = self.cursor.micros.map_or(0, |micros| micros.saturating_sub(bound.at_micros));
        let passed = u64::try_from(passed).is_ok_and(|passed| passed > least);
        let over = self.steps.1 && !bound.from_before_a_step;
        self.steps.1 = bound.from_before_a_step;
        if (stepped || passed || over) && !mutant::is("clock_unnoticed") {
            self.steps.0 = back;
            self.clock_went_back(bound);
        }
        if let Some(words) = bound.degraded.as_ref().filter(|_| self.weak.0.is_none()) {
            let (table, code) = (&self.query.table, Code::BoundDegraded);
            tracing::warn!(%table, %code, words, hint = code.hint(), "the safe bound is not known");
        }
        self.weak = (bound.degraded.clone(), bound.held_by.clone());
    }

    /// What was written since has stamps that the cursor has passed: all rows are compared, now and again when the last
    /// transaction from before has ended (F10).
    fn clock_went_back(&mut self, bound: &Bound) {
        let table = &self.query.table;
        tracing::warn!(%table, "the clock of the ERP database was set back: all rows are compared");
        self.cursor.micros = self.cursor.micros.map(|micros| micros.min(bound.micros));
        self.read = None;
        // A scan under way ends first: a clock that steps again and again would never let one end.
        self.compares_again = self.scan.is_under_way();
        if !self.compares_again {
            self.compare_all();
        }
    }

    fn compare_all(&mut self) {
        self.cursor.compare = true;
        self.scan = Scan::Idle { not_before: Mono::now() };
    }

    /// A scan ended, and what it was to wait for begins.
    pub(super) fn begin_what_waited(&mut self) {
        if std::mem::take(&mut self.compares_again) {
            self.compare_all();
        }
    }

    /// A complete scan ended: everything up to now was seen.
    pub(super) fn scanned(&mut self) {
        self.cursor.micros = Some(Wall::now().0);
    }

    /// Whether the row is to be told as skipped: once, by its key's hash.
    pub(super) fn tell(&mut self, key_hash: &str) -> bool {
        if self.told.len() >= TOLD {
            self.told.clear();
        }
        self.told.insert(key_hash.to_owned())
    }

    /// Takes over which rows have an open incident; those that the server refused are counted by themselves.
    pub(super) fn skipped(&mut self, mut open: BTreeSet<String>) {
        for key in self.quarantined.keys() {
            open.remove(&key_hash(key));
        }
        self.told = open.into_iter().take(TOLD).collect();
    }

    /// The hash of a row's key, where the row was skipped before.
    pub(super) fn is_back(&mut self, key: &KeyBytes) -> Option<String> {
        if self.told.is_empty() {
            return None;
        }
        self.told.take(&key_hash(key))
    }

    /// All deletes of the scan are in the batch.
    pub(super) fn deletes_sent(&mut self) {
        self.confirmed_sent = std::mem::take(&mut self.confirmed);
    }

    /// The table, where deletes that a person confirmed end with the batch.
    pub(super) fn deletes_done(&mut self) -> Option<TableName> {
        std::mem::take(&mut self.confirmed_sent).then(|| self.query.table.clone())
    }

    /// The table with the number of the last reload request that it has answered.
    pub(super) fn reload_done(&self) -> Option<(TableName, u64)> {
        (self.cursor.local > 0).then(|| (self.query.table.clone(), self.cursor.local))
    }

    /// The batch was accepted.
    pub(super) fn accepted(&mut self) {
        self.sent.0 += self.pending.0;
        self.sent.1 += self.pending.1;
        self.pending = (0, 0);
    }

    /// The entry, where it differs from what the server holds.
    #[must_use]
    pub(super) fn moved(&self) -> Option<Vec<u8>> {
        let entry = self.cursor.encode();
        (entry != self.stored).then_some(entry)
    }

    /// A base load is under way and may be read.
    #[must_use]
    pub(super) fn loads(&self) -> bool {
        self.may_load && self.cursor.load.is_some()
    }

    /// Something is left to read at once.
    #[must_use]
    pub(super) fn has_more(&self, now: Mono) -> bool {
        let rests = self.rests(now);
        let again = matches!(self.again, Again::Behind(_)) && self.cursor.load.is_none();
        !rests && (self.loads() || self.pass.is_some() || self.scan.is_under_way() || again)
    }

    #[must_use]
    pub(super) fn status(&self, now: Wall) -> TableStatus {
        let stamped = self.seen.as_ref().map(|seen| seen.shape.stamp.is_some());
        let state = match (&self.park, &self.cursor.load, self.cursor.loaded) {
            (Some(_), _, _) => "PARKED",
            (None, Some(_), false) | (None, None, false) => "BASE_LOAD",
            (None, Some(_), true) => "RELOAD",
            (None, None, true) => "STREAMING",
        };
        let stamped = stamped.unwrap_or(self.cursor.watermark.is_some());
        TableStatus {
            table: self.query.table.clone(),
            state: state.into(),
            mode: if stamped { "TIMESTAMP" } else { "SNAPSHOT_DIFF" }.into(),
            watermark: self.cursor.watermark.as_ref().map(|mark| mark.0.clone()),
            lag_ms: self.cursor.micros.map(|micros| now.0.saturating_sub(micros).max(0) / 1_000),
            degraded: self.weak.0.clone().filter(|_| stamped),
            held_by: self.weak.1.clone().filter(|_| stamped),
            parked: self.park.as_ref().map(|park| (park.code.to_string(), park.words.clone())),
            hint: self.park.as_ref().map(|park| park.code.hint().to_owned()),
            next_try: self.next_try(now),
            paused: None,
            rows_sent: self.sent.0,
            deletes_sent: self.sent.1,
            quarantined: (self.told.len() + self.quarantined.len()) as u64,
            loaded: self.cursor.load.as_ref().map(|load| load.rows),
        }
    }
}

/// Of a table of the plan that is not read yet, since uplink asks the server what is staged of it.
#[must_use]
pub(super) fn unread(table: TableName) -> TableStatus {
    TableStatus {
        table,
        state: "PAUSED".into(),
        mode: "SNAPSHOT_DIFF".into(),
        watermark: None,
        lag_ms: None,
        held_by: None,
        degraded: None,
        parked: None,
        hint: None,
        next_try: None,
        paused: Some("asking the server what is staged, before it is read".into()),
        rows_sent: 0,
        deletes_sent: 0,
        quarantined: 0,
        loaded: None,
    }
}

#[must_use]
pub(super) fn page_key_bytes(key: &PageKey) -> KeyBytes {
    KeyBytes::of(key.0.iter().map(String::as_str))
}
