//! Rounds: verification asks capture to go through a table now, and to send rows of it again.
//!
//! Promises: a round is done once changes and a scan that began behind the question were accepted; rows to be sent again
//! are on disk until they were.
//! Never: reads; outlives the process but for the rows to be sent again.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{Result, key::KeyBytes, names::TableName};
use rusqlite::params;

use super::{Journal, known::ZERO, spool, writer::Desk};

/// What is asked of capture.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Rounds {
    last: u64,
    asked: BTreeMap<TableName, u64>,
    /// Tables whose list of rows to be sent again is complete.
    again: BTreeSet<TableName>,
}

impl Rounds {
    pub(super) fn new(again: BTreeSet<TableName>) -> Self {
        Self { again, ..Self::default() }
    }
}

impl Journal {
    /// Asks for a round of a table; gives its number.
    #[must_use]
    pub fn ask_round(&self, table: &TableName) -> u64 {
        let mut number = 0;
        self.shared.rounds.send_modify(|rounds| {
            rounds.last += 1;
            number = rounds.last;
            rounds.asked.insert(table.clone(), number);
        });
        number
    }

    /// The round asked of a table and not done.
    #[must_use]
    pub fn round_of(&self, table: &TableName) -> Option<u64> {
        self.shared.rounds.borrow().asked.get(table).copied()
    }

    /// Whether capture has something to do that it was asked for.
    #[must_use]
    pub fn has_rounds(&self) -> bool {
        let rounds = self.shared.rounds.borrow();
        !rounds.asked.is_empty() || !rounds.again.is_empty()
    }

    /// Capture went through, or nobody waits any more.
    pub fn end_round(&self, table: &TableName, number: u64) {
        self.shared.rounds.send_if_modified(|rounds| {
            let open = rounds.asked.get(table) == Some(&number);
            if open {
                rounds.asked.remove(table);
            }
            open
        });
    }

    /// Adds rows of a table to those that are to be sent again, by their keys.
    pub async fn add_repairs(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            keys.iter().try_for_each(|key| {
                let sql = "INSERT OR IGNORE INTO repair VALUES (?1, ?2)";
                desk.run(sql, params![table, key.0]).map(|_| ())
            })
        })
        .await
    }

    /// All were added: capture begins.
    pub fn begin_repair(&self, table: &TableName) {
        self.shared.rounds.send_modify(|rounds| {
            rounds.again.insert(table.clone());
        });
    }

    #[must_use]
    pub fn is_repaired(&self, table: &TableName) -> bool {
        !self.shared.rounds.borrow().again.contains(table)
    }

    /// Keys of rows to be sent again, ascending behind `after`.
    pub async fn repairs(
        &self,
        table: &TableName,
        after: Option<KeyBytes>,
        limit: usize,
    ) -> Result<Vec<KeyBytes>> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let from = after.unwrap_or_default().0;
            let sql =
                "SELECT key FROM repair WHERE table_id = ?1 AND key > ?2 ORDER BY key LIMIT ?3";
            desk.rows(sql, params![table, from, limit], |row| Ok(KeyBytes(row.get(0)?)))
        })
        .await
    }

    /// The batch with the last of them was accepted, or they are given up.
    pub async fn repaired(&self, table: &TableName) -> Result<()> {
        let name = table.clone();
        self.run(move |desk| {
            let table = desk.number(&name)?;
            desk.run("DELETE FROM repair WHERE table_id = ?1", [table]).map(|_| ())
        })
        .await?;
        self.shared.rounds.send_if_modified(|rounds| rounds.again.remove(table));
        Ok(())
    }

    /// Rows that the ERP does not have and that may be staged: where nothing is known of them they become known with
    /// hash zero, so that the next scan misses them and they go, under the cap, as any row that vanished.
    pub async fn note_unsure(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            keys.iter().try_for_each(|key| {
                let sql = "INSERT OR IGNORE INTO known (table_id, key, hash) VALUES (?1, ?2, ?3)";
                desk.run(sql, params![table, key.0, ZERO.0]).map(|_| ())
            })
        })
        .await
    }

    /// The known key that stands `step` behind `after`, so that ranges of about that many rows can be made.
    pub async fn known_behind(
        &self,
        table: &TableName,
        after: KeyBytes,
        step: usize,
    ) -> Result<Option<KeyBytes>> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            let skip = i64::try_from(step.saturating_sub(1)).unwrap_or(i64::MAX);
            let sql = "SELECT key FROM known WHERE table_id = ?1 AND key > ?2 ORDER BY key LIMIT 1 OFFSET ?3";
            let found = desk.rows(sql, params![table, after.0, skip], |row| row.get(0))?;
            Ok(found.into_iter().next().map(KeyBytes))
        })
        .await
    }
}

/// Tables with rows to be sent again.
pub(super) fn again(desk: &Desk) -> Result<BTreeSet<TableName>> {
    let sql = "SELECT name FROM named WHERE id IN (SELECT table_id FROM repair)";
    let names = desk.rows(sql, [], |row| row.get::<_, String>(0))?;
    names.iter().map(|name| spool::stored(name)).collect()
}
