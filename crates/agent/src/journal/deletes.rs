//! Deletes that wait for a person: what a key scan counted above the cap, and the answer (F29).
//!
//! Promises: an answer holds for the number it was given for, and a confirmation for one deletion; a larger count asks
//! again; the incident is open as long as nobody answered.
//! Never: deletes anything; capture does, and says when it is done.

use std::collections::BTreeMap;

use protocol::{Code, Error, Result, names::TableName};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};

use super::{Incident, Journal, people, spool, writer::Desk};

/// What a complete scan counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counted {
    /// Known rows that are gone, each looked at once more.
    pub gone: u64,
    pub known: u64,
    /// How many may go unasked.
    pub cap: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Answer {
    /// None yet.
    Waiting,
    /// They go out with the next scan.
    Confirmed,
    /// They stay, and nobody is asked again for as many.
    Refused,
}

/// Deletes of a table above the cap.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CappedDeletes {
    pub rows: u64,
    pub known: u64,
    pub cap: u64,
    /// First seen above the cap.
    pub since_micros: i64,
    pub answer: Answer,
}

/// A person's answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub table: TableName,
    pub answer: Answer,
    /// The number the person saw; `None` = whatever is counted now.
    pub rows: Option<u64>,
    /// Looks what would be answered, and answers nothing.
    pub dry_run: bool,
}

impl Journal {
    /// Tables whose deletes are above the cap.
    #[must_use]
    pub fn capped(&self) -> BTreeMap<TableName, CappedDeletes> {
        self.shared.attention.borrow().capped.clone()
    }

    /// A complete scan counted more than may go unasked. Gives the answer that holds for that many; where none does, the
    /// count is kept and an incident opened.
    pub async fn count_deletes(
        &self,
        table: &TableName,
        counted: Counted,
        at: Wall,
    ) -> Result<Answer> {
        let name = table.clone();
        let capped = self.run(move |desk| count(desk, &name, counted, at)).await?;
        self.keep(table, Some(capped));
        Ok(capped.answer)
    }

    /// What was missing is back, or so few that nobody is asked: nothing waits, and the incident closes. Confirmed deletes
    /// are settled by the batch that holds the last of them.
    pub async fn settle_deletes(&self, table: &TableName) -> Result<()> {
        if !self.shared.attention.borrow().capped.contains_key(table) {
            return Ok(());
        }
        let name = table.clone();
        self.run(move |desk| settle(desk, &name)).await?;
        self.keep(table, None);
        Ok(())
    }

    /// What a person says. Capture is woken.
    ///
    /// # Errors
    /// `NOT_FOUND` where nothing waits, `DELETES_CAPPED` where another number is counted by now.
    pub async fn answer_deletes(&self, verdict: Verdict) -> Result<CappedDeletes> {
        let (table, dry_run) = (verdict.table.clone(), verdict.dry_run);
        let capped = self.run(move |desk| answer(desk, &verdict)).await?;
        if !dry_run {
            self.keep(&table, Some(capped));
        }
        Ok(capped)
    }

    fn keep(&self, table: &TableName, capped: Option<CappedDeletes>) {
        self.shared.attention.send_modify(|attention| {
            match capped {
                Some(capped) => attention.capped.insert(table.clone(), capped),
                None => attention.capped.remove(table),
            };
        });
    }
}

pub(super) fn settle(desk: &mut Desk, table: &TableName) -> Result<()> {
    let number = desk.number(table)?;
    desk.run("DELETE FROM fact WHERE name = ?1", [fact(number)])?;
    people::close(desk, Some(table), Code::DeletesCapped)
}

fn fact(table: i64) -> String {
    format!("deletes/{table}")
}

/// All of the file. One that cannot be read is left out: the next scan counts again.
pub(super) fn all(desk: &Desk) -> Result<BTreeMap<TableName, CappedDeletes>> {
    let sql = "SELECT n.name, f.value FROM fact f JOIN named n ON f.name = 'deletes/' || n.id";
    let rows =
        desk.rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    rows.into_iter()
        .filter_map(|(name, json)| Some((name, serde_json::from_str(&json).ok()?)))
        .map(|(name, capped)| Ok((spool::stored(&name)?, capped)))
        .collect()
}

fn read(desk: &mut Desk, table: &TableName) -> Result<Option<CappedDeletes>> {
    let number = desk.number(table)?;
    Ok(desk.fact::<String>(&fact(number))?.and_then(|json| serde_json::from_str(&json).ok()))
}

fn write(desk: &mut Desk, table: &TableName, capped: CappedDeletes) -> Result<()> {
    let number = desk.number(table)?;
    let json = serde_json::to_string(&capped).map_err(|cause| {
        Error::new(Code::Internal, "a count of deletes cannot be written").because(cause)
    })?;
    desk.set_fact(&fact(number), json)
}

fn count(desk: &mut Desk, table: &TableName, counted: Counted, at: Wall) -> Result<CappedDeletes> {
    let before = read(desk, table)?;
    let answered = |capped: &CappedDeletes| capped.answer != Answer::Waiting;
    if let Some(held) = before.filter(|capped| answered(capped) && counted.gone <= capped.rows) {
        return Ok(held);
    }
    let Counted { gone, known, cap } = counted;
    let waits = before.filter(|capped| !answered(capped));
    let since_micros = waits.map_or(at.0, |capped| capped.since_micros);
    let capped = CappedDeletes { rows: gone, known, cap, since_micros, answer: Answer::Waiting };
    write(desk, table, capped)?;
    if waits.is_none_or(|waits| waits.rows != gone) {
        let words = format!("{gone} of {known} rows vanished, {cap} may go without a person");
        let code = Code::DeletesCapped;
        tracing::warn!(%table, %code, words, hint = code.hint(), "deletes wait for a person");
        // One open incident, with the count as it is now.
        people::close(desk, Some(table), Code::DeletesCapped)?;
        let incident = Incident {
            table: Some(table.clone()),
            key_hash: None,
            code: Code::DeletesCapped,
            words,
            at_micros: at.0,
        };
        people::incident(desk, &incident)?;
    }
    Ok(capped)
}

fn answer(desk: &mut Desk, verdict: &Verdict) -> Result<CappedDeletes> {
    let Verdict { table, answer, rows, dry_run } = verdict;
    let Some(mut capped) = read(desk, table)? else {
        return Err(Error::new(Code::NotFound, format!("no deletes of table {table} wait")));
    };
    if let Some(rows) = rows.filter(|rows| *rows != capped.rows) {
        let words = format!("{} rows of {table} are counted by now, not {rows}", capped.rows);
        return Err(Error::new(Code::DeletesCapped, words));
    }
    capped.answer = *answer;
    if !dry_run {
        write(desk, table, capped)?;
        if *answer == Answer::Refused {
            people::close(desk, Some(table), Code::DeletesCapped)?;
        }
        // Ends capture's pause.
        desk.state.plan_serial += 1;
    }
    Ok(capped)
}
