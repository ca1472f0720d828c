//! Tables and rows set apart: uplink says so, capture obeys.
//!
//! Promises: whatever is set apart has an incident; nothing here outlives the process but quarantined rows.
//! Never: decides when a table is tried again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Code, Result, hash::RowHash, key::KeyBytes, names::TableName};
use runtime::clock::{Mono, Wall};

use super::{CappedDeletes, Halts, Incident, Journal, Poisoned, people, spool};

/// A table that the server refuses whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parked {
    pub code: Code,
    pub words: String,
    /// `None` = it waits until somebody acts.
    pub retry: Option<Retry>,
    /// [`schema_mark`] of what was refused: the table is tried again under another schema.
    pub schema: Option<u64>,
}

/// What a schema is known by.
#[must_use]
pub fn schema_mark<'a>(
    columns: impl Iterator<Item = (&'a str, &'a str)>,
    key: impl Iterator<Item = &'a str>,
) -> u64 {
    let parts = columns.flat_map(|(name, kind)| [name, kind]).chain([""]).chain(key);
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&KeyBytes::of(parts).0);
    digest.iter().take(8).fold(0, |mark, byte| (mark << 8) | u64::from(*byte))
}

/// Rows of a table that were refused alone since a batch of it was accepted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Refusals {
    /// With none of the table's rows taken between them.
    pub in_a_row: u32,
    pub all: u32,
    /// Rows of the table that the batch held before the last one refused.
    taken: u64,
}

/// Why nothing is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Paused {
    pub code: Code,
    pub words: String,
    pub since: Wall,
}

/// What capture does next, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Coming {
    /// The next cycle; `None` = one is under way, or there is no grant.
    pub cycle: Option<Wall>,
    /// Base loads wait until then.
    pub loads: Option<Wall>,
}

/// Base loads and scans are slowed, since the ERP database answers slowly.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slowed {
    /// Of the full pace.
    pub percent: u32,
    pub since: Wall,
}

/// When a parked table is tried again by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Retry {
    pub due: Mono,
    /// The same moment for people.
    pub at: Wall,
}

/// A table whose message the server called malformed or too large: it goes one row a message until the row is found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suspect {
    pub code: Code,
    pub words: String,
    /// Rows that may still hold the culprit.
    pub rows_left: u64,
}

/// The ERP database as capture finds it: nothing of it could be read since then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unread {
    pub since: Mono,
    pub code: Code,
    pub words: String,
}

/// Tables that `uplink` asks `capture` to treat apart; kept in memory, since a new process tries again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Attention {
    pub parked: BTreeMap<TableName, Parked>,
    /// Times each was parked since a batch of it was accepted or somebody acted.
    pub times: BTreeMap<TableName, u32>,
    /// Parked before and tried again.
    pub trial: BTreeSet<TableName>,
    pub suspects: BTreeMap<TableName, Suspect>,
    pub refusals: BTreeMap<TableName, Refusals>,
    pub paused: Option<Paused>,
    /// As the file holds them.
    pub halts: Halts,
    pub coming: Coming,
    pub slowed: Option<Slowed>,
    /// As the file holds it.
    pub capped: BTreeMap<TableName, CappedDeletes>,
    /// The server found the last batch id too far ahead of its clock (`CLOCK_AHEAD`).
    pub clock_ahead: bool,
    /// Tables that somebody wants to be tried again at once; `true` = their refused rows too.
    pub retries: BTreeMap<TableName, bool>,
}

impl Attention {
    fn park(&mut self, table: TableName, parked: Parked) {
        *self.times.entry(table.clone()).or_default() += 1;
        self.trial.remove(&table);
        self.parked.insert(table, parked);
    }

    /// Tells whether the table was parked.
    fn try_again(&mut self, table: &TableName) -> bool {
        self.refusals.remove(table);
        let parked = self.parked.remove(table).is_some();
        if parked {
            self.trial.insert(table.clone());
        }
        parked
    }

    /// Somebody acted: the table is tried again, and its pauses start small.
    pub(super) fn acted(&mut self, table: &TableName) -> bool {
        self.times.remove(table);
        self.try_again(table)
    }

    fn refused(&mut self, table: TableName, taken: u64) -> Refusals {
        let refusals = self.refusals.entry(table).or_default();
        // What was read again comes in the same order: more rows taken than before means one between the two.
        let between = taken > refusals.taken;
        refusals.in_a_row = if between { 1 } else { refusals.in_a_row.saturating_add(1) };
        refusals.all = refusals.all.saturating_add(1);
        refusals.taken = taken;
        *refusals
    }

    /// A batch with these rows was accepted whole.
    pub(super) fn passed(&mut self, rows: &[(TableName, u64)]) {
        for (table, rows) in rows {
            self.times.remove(table);
            self.trial.remove(table);
            self.refusals.remove(table);
            if let Some(suspect) = self.suspects.get_mut(table) {
                suspect.rows_left = suspect.rows_left.saturating_sub(*rows);
                if suspect.rows_left == 0 {
                    self.suspects.remove(table);
                }
            }
        }
    }
}

impl Journal {
    /// The server refuses this table: capture sends nothing of it until it is tried again. Opens an incident.
    pub async fn park(&self, table: &TableName, parked: Parked, at: Wall) -> Result<()> {
        let incident = Incident {
            table: Some(table.clone()),
            key_hash: None,
            code: parked.code,
            words: parked.words.clone(),
            at_micros: at.0,
        };
        let code = parked.code;
        self.shared.attention.send_modify(|attention| attention.park(table.clone(), parked));
        self.not_loaded(table, code).await?;
        self.incident(incident).await
    }

    /// Tells people what comes next.
    pub fn tell_coming(&self, coming: Coming) {
        self.shared.attention.send_modify(|attention| attention.coming = coming);
    }

    #[must_use]
    pub fn coming(&self) -> Coming {
        self.shared.attention.borrow().coming
    }

    /// Tells uplink how far the log of the ERP database was seen.
    pub fn tell_position(&self, position: Option<Vec<u8>>) {
        self.shared.position.send_replace(position);
    }

    #[must_use]
    pub fn position(&self) -> Option<Vec<u8>> {
        self.shared.position.borrow().clone()
    }

    /// Tells people at which pace bulk reading goes, in percent; `None`: at the full one.
    pub fn tell_slowed(&self, percent: Option<u32>, now: Wall) {
        self.shared.attention.send_if_modified(|attention| {
            let since = attention.slowed.map_or(now, |slowed| slowed.since);
            let slowed = percent.map(|percent| Slowed { percent, since });
            let news = slowed != attention.slowed;
            attention.slowed = slowed;
            news
        });
    }

    #[must_use]
    pub fn slowed(&self) -> Option<Slowed> {
        self.shared.attention.borrow().slowed
    }

    /// Tables that uplink parked since the start of the process. A start, a reload asked for by a person, another schema
    /// or what its code says lifts it: its own time or any change of the plan (`PERMISSION_DENIED`), a new reload
    /// generation (`PRIMARY_KEY_CHANGED`), else a change of its own entry in the plan.
    #[must_use]
    pub fn parked(&self) -> BTreeMap<TableName, Parked> {
        self.shared.attention.borrow().parked.clone()
    }

    /// Whether uplink parked it and nobody lifted that.
    #[must_use]
    pub fn is_parked(&self, table: &TableName) -> bool {
        self.shared.attention.borrow().parked.contains_key(table)
    }

    /// How often in a row a table was parked although it was tried again.
    #[must_use]
    pub fn times_parked(&self, table: &TableName) -> u32 {
        self.shared.attention.borrow().times.get(table).copied().unwrap_or_default()
    }

    /// Somebody acted: the table is tried again, and its pauses start small.
    pub fn unpark(&self, table: &TableName) {
        self.shared.attention.send_if_modified(|attention| attention.acted(table));
    }

    /// Its time came: the table is tried again.
    pub fn try_again(&self, table: &TableName) {
        self.shared.attention.send_if_modified(|attention| attention.try_again(table));
    }

    /// Tables that go in batches of their own until one was accepted: what is refused of them costs the others nothing.
    #[must_use]
    pub fn alone(&self) -> BTreeSet<TableName> {
        let attention = self.shared.attention.borrow();
        attention.trial.iter().chain(attention.suspects.keys()).cloned().collect()
    }

    /// The server called a message of this table malformed or too large: until the culprit is found, or until as many
    /// rows of the table went through as the open batch holds, capture sends it one row a message.
    /// Call it before the batch is dropped.
    pub async fn suspect(&self, table: &TableName, code: Code, words: &str) -> Result<()> {
        let rows = self.run(|desk| spool::rows_per_table(desk)).await?;
        let rows_left =
            rows.iter().find(|(of, _)| of == table).map_or(1, |(_, rows)| (*rows).max(1));
        let suspect = Suspect { code, words: words.to_owned(), rows_left };
        self.shared.attention.send_modify(|attention| {
            attention.suspects.insert(table.clone(), suspect);
        });
        Ok(())
    }

    /// Tables that capture sends one row a message.
    #[must_use]
    pub fn suspects(&self) -> BTreeMap<TableName, Suspect> {
        self.shared.attention.borrow().suspects.clone()
    }

    /// A row that was refused alone: capture leaves it out while its hash stays this one. Opens an incident. `taken` are
    /// the rows of its table that the server took of the same batch.
    pub async fn quarantine(
        &self,
        row: Poisoned,
        key_hash: String,
        taken: u64,
    ) -> Result<Refusals> {
        let name = row.table.clone();
        self.run(move |desk| {
            people::quarantine(desk, &row.table, &row.key, row.hash)?;
            let Poisoned { table, code, words, at_micros, .. } = row;
            let key_hash = Some(key_hash);
            people::incident(
                desk,
                &Incident { table: Some(table), key_hash, code, words, at_micros },
            )
        })
        .await?;
        let mut refusals = Refusals::default();
        self.shared.attention.send_modify(|attention| refusals = attention.refused(name, taken));
        Ok(refusals)
    }

    /// Row images to leave out, by key.
    pub async fn quarantined(&self, table: &TableName) -> Result<BTreeMap<KeyBytes, RowHash>> {
        let table = table.clone();
        self.run(move |desk| people::quarantined(desk, &table)).await
    }

    /// SHA-256, in hex, of the keys of the table's rows that have an open incident.
    pub async fn skipped(&self, table: &TableName) -> Result<BTreeSet<String>> {
        let table = table.clone();
        self.run(move |desk| people::skipped(desk, &table)).await
    }

    /// A row that was skipped went out: its incidents are over.
    pub async fn close_row(&self, table: &TableName, key_hash: String) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::close_row(desk, &table, &key_hash)).await
    }

    /// The table is read again: what stood in its way is mended.
    pub async fn mended(&self, table: &TableName, code: Code) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::close(desk, Some(&table), code)).await
    }

    /// The table is read again, by whichever way it came to that.
    pub async fn read_again(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::read_again(desk, &table)).await
    }

    /// All rows of the table may be sent again: somebody acted, and they are tried as they are.
    pub async fn forgive_all(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::forgive_all(desk, &table)).await
    }

    /// These rows changed, so they may be sent again.
    pub async fn forgive(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::forgive(desk, &table, &keys)).await
    }
}
