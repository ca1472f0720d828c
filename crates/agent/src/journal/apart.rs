//! Tables and rows set apart: uplink says so, capture obeys.
//!
//! Promises: whatever is set apart has an incident; nothing here outlives the process but quarantined rows.
//! Never: decides when a table is tried again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Code, Result, hash::RowHash, key::KeyBytes, names::TableName};
use runtime::clock::{Mono, Wall};

use super::{Incident, Journal, Poisoned, people, spool};

/// A table that the server refuses whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Parked {
    pub code: Code,
    pub words: String,
    /// `None` = it waits until somebody acts.
    pub retry: Option<Retry>,
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

/// Tables that `uplink` asks `capture` to treat apart; kept in memory, since a new process tries again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Attention {
    pub parked: BTreeMap<TableName, Parked>,
    /// Times each was parked since a batch of it was accepted or somebody acted.
    pub times: BTreeMap<TableName, u32>,
    /// Parked before and tried again.
    pub trial: BTreeSet<TableName>,
    pub suspects: BTreeMap<TableName, Suspect>,
    /// The server found the last batch id too far ahead of its clock (`CLOCK_AHEAD`).
    pub clock_ahead: bool,
}

impl Attention {
    fn park(&mut self, table: TableName, parked: Parked) {
        *self.times.entry(table.clone()).or_default() += 1;
        self.trial.remove(&table);
        self.parked.insert(table, parked);
    }

    /// Tells whether the table was parked.
    fn try_again(&mut self, table: &TableName) -> bool {
        let parked = self.parked.remove(table).is_some();
        if parked {
            self.trial.insert(table.clone());
        }
        parked
    }

    /// A batch with these rows was accepted whole.
    pub(super) fn passed(&mut self, rows: &[(TableName, u64)]) {
        for (table, rows) in rows {
            self.times.remove(table);
            self.trial.remove(table);
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
    /// The server refuses this table: capture sends nothing of it until it is tried again.
    pub async fn park(&self, incident: Incident, retry: Option<Retry>) -> Result<()> {
        if let Some(table) = incident.table.clone() {
            let parked = Parked { code: incident.code, words: incident.words.clone(), retry };
            self.shared.attention.send_modify(|attention| attention.park(table, parked));
        }
        self.incident(incident).await
    }

    /// Tables that uplink parked since the start of the process. A start, a reload asked for by a person, its own time
    /// or a new plan (`PERMISSION_DENIED`) or a new reload generation (`PRIMARY_KEY_CHANGED`) lifts it.
    #[must_use]
    pub fn parked(&self) -> BTreeMap<TableName, Parked> {
        self.shared.attention.borrow().parked.clone()
    }

    /// How often in a row a table was parked although it was tried again.
    #[must_use]
    pub fn times_parked(&self, table: &TableName) -> u32 {
        self.shared.attention.borrow().times.get(table).copied().unwrap_or_default()
    }

    /// Somebody acted: the table is tried again, and its pauses start small.
    pub fn unpark(&self, table: &TableName) {
        self.shared.attention.send_if_modified(|attention| {
            attention.times.remove(table);
            attention.try_again(table)
        });
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

    /// A row that was refused alone: capture leaves it out while its hash stays this one. Opens an incident.
    pub async fn quarantine(&self, row: Poisoned, key_hash: String) -> Result<()> {
        self.run(move |desk| {
            people::quarantine(desk, &row.table, &row.key, row.hash)?;
            let Poisoned { table, code, words, at_micros, .. } = row;
            let key_hash = Some(key_hash);
            people::incident(
                desk,
                &Incident { table: Some(table), key_hash, code, words, at_micros },
            )
        })
        .await
    }

    /// Row images to leave out, by key.
    pub async fn quarantined(&self, table: &TableName) -> Result<BTreeMap<KeyBytes, RowHash>> {
        let table = table.clone();
        self.run(move |desk| people::quarantined(desk, &table)).await
    }

    /// These rows changed, so they may be sent again.
    pub async fn forgive(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| people::forgive(desk, &table, &keys)).await
    }
}
