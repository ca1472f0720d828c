//! Quarantine: rows that could not be staged are looked at, tried again, or given up.
//!
//! Promises: what is tried again keeps its place in the order of acceptance; what is given up stays in the audit with
//! its reason, noted before the row goes; a dry run tells the same and changes nothing.
//! Never: puts a value into the audit, a log or words.

use std::fmt;

use protocol::{Code, Error, Result, key::KeyBytes, limits, names::TableName};
use runtime::clock::Wall;
use sha2::{Digest as _, Sha256};

use super::{Staging, look::hex};
pub use crate::store::staging::{Outcome, Quarantined, RowAt, Which};
use crate::{
    model::catalog::{Page, Place},
    store::staging::{Held, Retry, Space, Waiting},
};

/// A row in quarantine with all that is known of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Shown {
    pub row: Quarantined,
    /// Columns of the key with their values, in its order; none where the key cannot be told.
    pub key: Vec<(String, String)>,
    /// SHA-256 of the key's bytes in hex, as an agent names a row.
    pub key_hash: Option<String>,
    /// As they came.
    pub columns: Vec<(String, String)>,
}

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shown({})", self.row.id())
    }
}

/// What became of rows that were tried again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Retried {
    /// False for a dry run.
    pub applied: bool,
    pub rows: Vec<Tried>,
    /// Where the next call begins; `None` = all were tried.
    pub next: Option<String>,
}

/// One row that was tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tried {
    pub id: String,
    pub table: String,
    pub outcome: Outcome,
}

/// Which rows are meant; exactly one of the three is given.
///
/// # Errors
/// `BAD_REQUEST`, `BAD_ID`.
pub fn which(row: Option<&str>, table: Option<TableName>, all: bool) -> Result<Which> {
    match (row, table, all) {
        (Some(row), None, false) => RowAt::read(row).map(Which::One),
        (None, Some(table), false) => Ok(Which::Table(table)),
        (None, None, true) => Ok(Which::All),
        _ => {
            Err(Error::new(Code::BadRequest, "name a row, a table, or all, and one of them alone"))
        }
    }
}

/// The code of that name.
///
/// # Errors
/// `BAD_REQUEST` where there is none.
pub fn code(word: &str) -> Result<Code> {
    let words = || Error::new(Code::BadRequest, format!("there is no code {word:?}"));
    word.to_ascii_uppercase().parse().map_err(|()| words())
}

impl Staging {
    /// Rows in quarantine, of a table or a code where they are named, the newest batch first, behind the one that
    /// `page.after` names.
    ///
    /// # Errors
    /// `BAD_ID` where `page.after` names none.
    pub async fn quarantined(
        &self,
        place: &Place,
        which: (Option<TableName>, Option<Code>),
        page: Page,
    ) -> Result<Vec<Quarantined>> {
        let after = behind(&page.after)?;
        match self.found(place.environment, &place.erp).await? {
            Some(space) => space.quarantine(which, (after, page.limit)).await,
            None => Ok(Vec::new()),
        }
    }

    /// One row in quarantine, with its columns as they came.
    ///
    /// # Errors
    /// `BAD_ID`, `NOT_FOUND`.
    pub async fn quarantined_row(&self, place: &Place, id: &str) -> Result<Shown> {
        let at = RowAt::read(id)?;
        let space = self.quarantine_space(place, id).await?;
        let held = space.held(at).await?.ok_or_else(|| missing(id))?;
        let named = self.key_of(place, &space, &held).await?;
        let Held { row, cells } = held;
        let key: Option<Vec<(String, String)>> = named
            .iter()
            .map(|column| cells.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).cloned())
            .collect();
        let key = key.unwrap_or_default();
        let bytes = KeyBytes::of(key.iter().map(|(_, value)| value.as_str()));
        let key_hash = (!key.is_empty()).then(|| hex(&Sha256::digest(&bytes.0)));
        Ok(Shown { row, key, key_hash, columns: cells })
    }

    /// Tries rows again against what is staged now, at most a page of them behind `after`, in the order of acceptance.
    ///
    /// # Errors
    /// `BAD_ID`, `NOT_FOUND` where the one row named is not there; the stores' own, after which the rest can be tried.
    pub async fn retry(
        &self,
        place: &Place,
        which: Which,
        (after, dry_run): (&str, bool),
        now: Wall,
    ) -> Result<Retried> {
        let after = behind(after)?;
        let done = Retried { applied: !dry_run, ..Retried::default() };
        let what = match &which {
            Which::One(at) => format!("row {}", at.id()),
            Which::Table(table) => format!("table {table}"),
            Which::All => "every table".to_owned(),
        };
        let waiting = match self.found(place.environment, &place.erp).await? {
            Some(space) => {
                Some((space.waiting(which.clone(), (after, limits::ADMIN_PAGE + 1)).await?, space))
            }
            None => None,
        };
        let Some((mut waiting, space)) = waiting.filter(|(waiting, _)| !waiting.is_empty()) else {
            return match which {
                Which::One(at) => Err(missing(&at.id())),
                Which::Table(_) | Which::All => Ok(done),
            };
        };
        let more = waiting.len() > limits::ADMIN_PAGE as usize;
        waiting.truncate(limits::ADMIN_PAGE as usize);
        if !dry_run {
            self.store.note_retry(place.clone(), what, waiting.len()).await?;
        }
        let next = waiting.last().filter(|_| more).map(|last| last.at.id());
        let mut rows = Vec::new();
        for of_message in
            waiting.chunk_by(|a, b| (a.at.batch, a.at.message) == (b.at.batch, b.at.message))
        {
            rows.extend(self.retry_message(place, &space, of_message, (dry_run, now)).await?);
        }
        Ok(Retried { rows, next, ..done })
    }

    /// Gives a row up: it leaves quarantine unstaged, and the audit keeps why.
    ///
    /// # Errors
    /// `BAD_ID`, `NOT_FOUND`, `BAD_REQUEST` without a reason.
    pub async fn discard(
        &self,
        place: &Place,
        id: &str,
        (reason, dry_run): (&str, bool),
    ) -> Result<Quarantined> {
        let (at, reason) = (RowAt::read(id)?, reason.trim());
        if reason.is_empty()
            || reason.len() > limits::REASON_BYTES
            || reason.chars().any(char::is_control)
        {
            let words = format!(
                "a reason has 1 to {} bytes and no control characters",
                limits::REASON_BYTES
            );
            return Err(Error::new(Code::BadRequest, words));
        }
        let space = self.quarantine_space(place, id).await?;
        let row = space.held(at).await?.ok_or_else(|| missing(id))?.row;
        if !dry_run {
            let of = (format!("row {id}"), row.table.clone());
            self.store.note_discard(place.clone(), of, reason.to_owned()).await?;
            if !space.discard(at).await? {
                return Err(missing(id));
            }
        }
        Ok(row)
    }

    async fn quarantine_space(&self, place: &Place, id: &str) -> Result<std::sync::Arc<Space>> {
        self.found(place.environment, &place.erp).await?.ok_or_else(|| missing(id))
    }

    async fn key_of(&self, place: &Place, space: &Space, held: &Held) -> Result<Vec<String>> {
        let table: TableName = held.row.table.parse()?;
        match space.table(table).await? {
            Some(table) => Ok(table.key),
            None => self.store.key_columns(place.clone(), held.row.table.clone()).await,
        }
    }

    /// Rows of one message share its body and one transaction.
    async fn retry_message(
        &self,
        place: &Place,
        space: &Space,
        waiting: &[Waiting],
        (dry_run, now): (bool, Wall),
    ) -> Result<Vec<Tried>> {
        let Some(first) = waiting.first() else { return Ok(Vec::new()) };
        let (batch, number, table) = (first.at.batch, first.at.message, first.table.clone());
        let kept = self.store.kept(place.clone(), batch, number).await?;
        let tried = |at: RowAt, outcome| Tried { id: at.id(), table: table.clone(), outcome };
        let Some(seq) = first.seq.or_else(|| kept.as_ref().map(|kept| kept.seq)) else {
            let reason =
                "the ledger has no trace of its message any more; discard it and reload the table";
            let outcome = Outcome::Refused { code: Code::BodyRemoved, reason: reason.to_owned() };
            return Ok(waiting.iter().map(|row| tried(row.at, outcome.clone())).collect());
        };
        let key = self.store.key_columns(place.clone(), table.clone()).await?;
        let retry = Retry {
            batch,
            number,
            seq,
            table: table.clone(),
            rebuild: kept.as_ref().is_some_and(|kept| kept.rebuild),
            body: kept.and_then(|kept| kept.body),
            key,
            rows: waiting.iter().map(|row| row.at.row).collect(),
        };
        let told = space.retry(retry, dry_run, now).await?;
        Ok(told.into_iter().map(|(at, outcome)| tried(at, outcome)).collect())
    }
}

fn behind(after: &str) -> Result<Option<RowAt>> {
    if after.is_empty() { Ok(None) } else { RowAt::read(after).map(Some) }
}

fn missing(id: &str) -> Error {
    Error::new(Code::NotFound, format!("there is no row {id} in quarantine"))
}

#[cfg(test)]
mod tests;
