//! Halt: tables, or all of them, that a person paused; capture does not read them.
//!
//! Promises: durable before it is answered, with who, why and when; each halt is lifted by itself.
//! Never: ends by itself; touches what is spooled, the lease or a cursor.

use std::collections::BTreeMap;

use protocol::{Code, Error, Result, names::TableName};
use runtime::clock::Wall;
use rusqlite::params;

use super::{Journal, spool, writer::Desk};

/// Stands for all tables; names are numbered from 1.
const ALL: i64 = 0;
/// Longest name or reason that is kept, in characters.
const WORDS: usize = 200;

/// Who paused, why and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Halt {
    pub who: String,
    pub why: String,
    pub since: Wall,
}

impl Halt {
    /// Words for people, in one line each.
    #[must_use]
    pub fn new(who: &str, why: &str, since: Wall) -> Self {
        let line = |text: &str| -> String {
            let flat: String = text.trim().chars().take(WORDS).collect();
            flat.replace(char::is_control, " ")
        };
        Self { who: line(who), why: line(why), since }
    }
}

/// What is paused.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Halts {
    pub all: Option<Halt>,
    pub tables: BTreeMap<TableName, Halt>,
}

impl Halts {
    /// The halt that keeps a table from being read.
    #[must_use]
    pub fn of(&self, table: &TableName) -> Option<&Halt> {
        self.tables.get(table).or(self.all.as_ref())
    }

    pub(super) fn place(&mut self, table: Option<TableName>, halt: Option<Halt>) {
        match (table, halt) {
            (None, halt) => self.all = halt,
            (Some(table), Some(halt)) => {
                self.tables.insert(table, halt);
            }
            (Some(table), None) => {
                self.tables.remove(&table);
            }
        }
    }
}

pub(super) fn all(desk: &Desk) -> Result<Halts> {
    let sql = "SELECT n.name, h.who, h.why, h.at_micros FROM halt h LEFT JOIN named n ON n.id = h.table_id";
    let rows = desk.rows(sql, [], |row| {
        let halt = Halt { who: row.get(1)?, why: row.get(2)?, since: Wall(row.get(3)?) };
        Ok((row.get::<_, Option<String>>(0)?, halt))
    })?;
    let mut halts = Halts::default();
    for (name, halt) in rows {
        halts.place(name.as_deref().map(spool::stored).transpose()?, Some(halt));
    }
    Ok(halts)
}

fn number(desk: &mut Desk, table: Option<&TableName>) -> Result<i64> {
    table.map_or(Ok(ALL), |table| desk.number(table))
}

pub(super) fn put(desk: &mut Desk, table: Option<&TableName>, halt: &Halt) -> Result<()> {
    let number = number(desk, table)?;
    let values = params![number, halt.who, halt.why, halt.since.0];
    desk.run("INSERT OR REPLACE INTO halt VALUES (?1, ?2, ?3, ?4)", values).map(|_| ())
}

pub(super) fn lift(desk: &mut Desk, table: Option<&TableName>) -> Result<()> {
    let number = number(desk, table)?;
    if desk.run("DELETE FROM halt WHERE table_id = ?1", [number])? > 0 {
        return Ok(());
    }
    let words = match table {
        Some(table) => format!("table {table} is not paused by itself"),
        None => "the agent as a whole is not paused".to_owned(),
    };
    Err(Error::new(Code::NotFound, words))
}

impl Journal {
    /// `malote agent pause`: a table, or all. A halt that stands is told anew.
    pub async fn halt(&self, table: Option<TableName>, halt: Halt) -> Result<()> {
        let (of, kept) = (table.clone(), halt.clone());
        self.run(move |desk| put(desk, of.as_ref(), &kept)).await?;
        self.shared.attention.send_modify(|told| told.halts.place(table, Some(halt)));
        Ok(())
    }

    /// `malote agent resume`: lifts the halt of a table, or the one of all.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such halt.
    pub async fn lift_halt(&self, table: Option<TableName>) -> Result<()> {
        let of = table.clone();
        self.run(move |desk| lift(desk, of.as_ref())).await?;
        self.shared.attention.send_modify(|told| told.halts.place(table, None));
        Ok(())
    }

    /// Lifts every halt.
    pub async fn lift_halts(&self) -> Result<()> {
        self.run(|desk| desk.run("DELETE FROM halt", []).map(|_| ())).await?;
        self.shared.attention.send_modify(|told| told.halts = Halts::default());
        Ok(())
    }

    #[must_use]
    pub fn halts(&self) -> Halts {
        self.shared.attention.borrow().halts.clone()
    }

    /// Whether capture leaves a table alone.
    #[must_use]
    pub fn is_halted(&self, table: &TableName) -> bool {
        self.shared.attention.borrow().halts.of(table).is_some()
    }
}
