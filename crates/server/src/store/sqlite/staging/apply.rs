//! Apply: ledger messages become staged rows, in order of acceptance.
//!
//! Promises: applying again changes nothing; the last image of a key within a message wins (F54); a tombstone keeps
//! its place, so that an older image never resurrects its row (F55); a poison row goes to quarantine by itself.
//! Never: puts a value into words.

use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, Generation, MessageNumber},
    key::KeyBytes,
    limits,
    names::{DELETED, TableName},
    wire::{Cell, TableView},
};
use runtime::{clock::Wall, failpoint};
use rusqlite::{CachedStatement, Transaction, params};

use super::{
    StagingFile, failed,
    tables::{self, StagedTable, is_fatal, unfit},
};
use crate::{
    model::{
        batch::BatchState,
        schema::{self, Checked, Fitted, Storage},
    },
    store::ingest::{LedgerBatch, LedgerMessage, Standing},
};

/// Rows of one message share its number of acceptance: `_seq` = accept_seq × this + row.
const ROWS_PER_SEQ: i64 = 16_384;

const _: () = assert!(limits::MESSAGE_ROWS < ROWS_PER_SEQ as usize);

/// The highest `_seq` that a row of that message can have.
pub(super) const fn last_row_seq(of: AcceptSeq) -> i64 {
    of.0.saturating_mul(ROWS_PER_SEQ).saturating_add(ROWS_PER_SEQ - 1)
}

/// What an apply did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    pub up_to: AcceptSeq,
    pub messages: usize,
    pub rows: usize,
    pub quarantined: usize,
}

impl StagingFile {
    /// Takes away all that is staged, so that it can be made again from the first message of the ledger on.
    ///
    /// # Errors
    /// The store's own; nothing is taken away then.
    pub async fn begin_anew(&self) -> Result<()> {
        self.file.write(begin_anew).await
    }

    /// As [`Self::begin_anew`], but goes on behind a message: what lies below is not in the ledger any more. `lost` are
    /// the tables that lack rows until the load of their generation is done.
    ///
    /// # Errors
    /// The store's own; nothing is taken away then.
    pub async fn begin_behind(
        &self,
        standing: Standing,
        lost: Vec<(TableName, Generation)>,
    ) -> Result<()> {
        self.file
            .write(move |tx| {
                begin_anew(tx)?;
                for (table, generation) in &lost {
                    let sql = "INSERT OR REPLACE INTO malote_lost (name_folded, generation) VALUES (?1, ?2)";
                    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
                    statement.execute(params![table.folded(), generation.0]).map_err(failed)?;
                }
                let sql = "UPDATE malote_progress SET applied_seq = ?1";
                tx.execute(sql, [standing.applied.0]).map_err(failed)?;
                let Some((batch, number, sha256)) = standing.last else { return Ok(()) };
                mark(tx, (standing.applied, batch, number), &sha256)
            })
            .await
    }

    /// Applies messages and mirrors batch states in one transaction.
    ///
    /// # Errors
    /// The store's own; nothing of it is kept then.
    pub async fn apply(
        &self,
        messages: Vec<LedgerMessage>,
        batches: Vec<LedgerBatch>,
        now: Wall,
    ) -> Result<Applied> {
        self.file.write(move |tx| apply(tx, &messages, &batches, now)).await
    }
}

fn begin_anew(tx: &Transaction<'_>) -> Result<()> {
    for table in tables::all(tx)? {
        tables::forget(tx, &table.name)?;
    }
    let sql =
        "DELETE FROM malote_batches; DELETE FROM malote_quarantine; DELETE FROM malote_applied;
               DELETE FROM malote_lost; UPDATE malote_progress SET applied_seq = 0;";
    tx.execute_batch(sql).map_err(failed)
}

fn apply(
    tx: &Transaction<'_>,
    messages: &[LedgerMessage],
    batches: &[LedgerBatch],
    now: Wall,
) -> Result<Applied> {
    failpoint::reach("staging.apply", Code::StoreFailed)?;
    let sql = "SELECT applied_seq FROM malote_progress";
    let before: i64 = tx.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    let mut applied = Applied { up_to: AcceptSeq(before), ..Applied::default() };
    let mut known: Option<StagedTable> = None;
    for message in messages.iter().filter(|message| message.seq.0 > before) {
        let (rows, quarantined) = one(tx, message, &mut known, now)?;
        applied.rows += rows;
        applied.quarantined += quarantined;
        applied.messages += 1;
        applied.up_to = applied.up_to.max(message.seq);
    }
    tx.execute("UPDATE malote_progress SET applied_seq = ?1", [applied.up_to.0]).map_err(failed)?;
    if let Some(last) = messages.iter().find(|message| message.seq == applied.up_to) {
        mark(tx, (last.seq, last.batch, last.number), &last.sha256)?;
    }
    for batch in batches {
        mirror(tx, batch, applied.up_to)?;
    }
    failpoint::reach("staging.applied", Code::DiskFull)?;
    Ok(applied)
}

/// Notes which message the number of acceptance stands for.
fn mark(
    tx: &Transaction<'_>,
    (seq, batch, number): (AcceptSeq, BatchId, MessageNumber),
    sha256: &[u8; 32],
) -> Result<()> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO malote_applied (one, applied_seq, batch, message, sha256) VALUES (1, ?1, ?2, ?3, ?4)",
    )
    .map_err(failed)?
    .execute(params![seq.0, batch.0, number.0, sha256])
    .map_err(failed)?;
    Ok(())
}

/// A batch is shown as closed only when its last row is staged.
fn mirror(tx: &Transaction<'_>, batch: &LedgerBatch, applied: AcceptSeq) -> Result<()> {
    let state = if batch.last_seq <= applied { batch.state } else { BatchState::Open };
    let completed = batch.closed_at.filter(|_| state == BatchState::Complete).map(Wall::to_iso);
    tx.prepare_cached(
        "INSERT INTO malote_batches (batch, state, completed_at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET state = excluded.state, completed_at = excluded.completed_at",
    )
    .map_err(failed)?
    .execute(params![batch.batch.0, state.as_str(), completed])
    .map_err(failed)?;
    Ok(())
}

/// Where a row comes from: its place in the order of acceptance, and the message that brought it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    pub(super) seq: AcceptSeq,
    pub(super) batch: BatchId,
    pub(super) number: MessageNumber,
    /// Folded.
    pub(super) table: &'a str,
}

impl<'a> Origin<'a> {
    fn of(message: &'a LedgerMessage) -> Self {
        let LedgerMessage { seq, batch, number, ref table, .. } = *message;
        Self { seq, batch, number, table }
    }

    /// A row's place in the order of acceptance, as `_seq` keeps it.
    pub(super) const fn row_seq(&self, at: i64) -> i64 {
        self.seq.0.saturating_mul(ROWS_PER_SEQ).saturating_add(at)
    }
}

/// Applies one message; returns rows staged and rows quarantined.
fn one(
    tx: &Transaction<'_>,
    message: &LedgerMessage,
    known: &mut Option<StagedTable>,
    now: Wall,
) -> Result<(usize, usize)> {
    failpoint::reach("staging.message", Code::StoreFailed)?;
    let origin = Origin::of(message);
    let read = TableView::scan(&message.body).and_then(|view| Ok((schema::check(&view)?, view)));
    let (checked, view) = match read {
        Ok(read) => read,
        Err(error) => {
            quarantine(tx, origin, (-1, None), &error, now)?;
            return Ok((0, 1));
        }
    };
    let table = match shape(tx, (origin, message.rebuild), (&checked, &view), known.take()) {
        Ok(table) => table,
        Err(error) if error.code == Code::ValueUnfit => {
            for (at, cells) in (0i64..).zip(view.rows()) {
                quarantine(tx, origin, (at, Some(cells)), &error, now)?;
            }
            return Ok((0, view.row_count()));
        }
        Err(error) => return Err(error),
    };
    let quarantined = every_row(tx, &table, origin, &view, now)?;
    *known = Some(table);
    Ok((view.row_count() - quarantined, quarantined))
}

/// Stages the rows of a message; returns how many went to quarantine instead.
pub(super) fn every_row(
    tx: &Transaction<'_>,
    table: &StagedTable,
    origin: Origin<'_>,
    view: &TableView<'_>,
    now: Wall,
) -> Result<usize> {
    let mut upsert = Upsert::prepare(tx, table, (origin, &view.schema.columns))?;
    let mut quarantined = 0;
    for (at, cells) in (0i64..).zip(view.rows()) {
        if let Err(error) = upsert.row(at, cells.iter().copied()) {
            if error.code != Code::ValueUnfit {
                return Err(error);
            }
            quarantine(tx, origin, (at, Some(cells)), &error, now)?;
            quarantined += 1;
        }
    }
    Ok(quarantined)
}

/// DDL of a message in a savepoint of its own: a shape that cannot be made leaves the table as it was.
pub(super) fn shape(
    tx: &Transaction<'_>,
    (origin, rebuild): (Origin<'_>, bool),
    (checked, view): (&Checked, &TableView<'_>),
    known: Option<StagedTable>,
) -> Result<StagedTable> {
    tx.execute_batch("SAVEPOINT shape").map_err(failed)?;
    let made = (|| {
        if rebuild {
            tables::forget(tx, &checked.table)?;
        }
        let known = known.filter(|known| known.name == checked.table && !rebuild);
        let known = match known {
            Some(known) => Some(known),
            None => tables::find(tx, &checked.table)?,
        };
        let table = tables::ensure(tx, checked, view, known)?;
        if rebuild {
            tables::raise_floor(tx, &checked.table, origin.seq)?;
        }
        Ok(table)
    })();
    let end = if made.is_ok() { "RELEASE shape" } else { "ROLLBACK TO shape; RELEASE shape" };
    tx.execute_batch(end).map_err(failed)?;
    made
}

/// The statement of one table and column set, with the places its cells go to.
pub(super) struct Upsert<'a> {
    statement: CachedStatement<'a>,
    table: &'a StagedTable,
    key: Vec<usize>,
    /// Position in the table of each column of the message's schema.
    places: Vec<Option<usize>>,
    origin: Origin<'a>,
}

impl<'a> Upsert<'a> {
    /// `columns` are those of the message's schema, by which its cells are numbered; none where cells are found by name.
    pub(super) fn prepare(
        tx: &'a Transaction<'_>,
        table: &'a StagedTable,
        (origin, columns): (Origin<'a>, &[(&str, &str)]),
    ) -> Result<Self> {
        let numbers: String = (6..6 + table.columns.len()).map(|at| format!(", ?{at}")).collect();
        let sets: String = table
            .columns
            .iter()
            .map(|column| {
                let name = tables::quote(&column.name);
                format!(", {name} = excluded.{name}")
            })
            .collect();
        let sql = format!(
            "INSERT INTO {} AS malote_held (_key, _seq, _deleted, _batch, _message{}) VALUES (?1, ?2, ?3, ?4, ?5{numbers})
             ON CONFLICT (_key) DO UPDATE SET _seq = excluded._seq, _deleted = excluded._deleted,
                    _batch = excluded._batch, _message = excluded._message{sets}
              WHERE malote_held._seq < excluded._seq",
            table.quoted(),
            table.list(),
        );
        let statement = tx.prepare_cached(&sql).map_err(failed)?;
        let key = table.key.iter().filter_map(|name| table.position(name)).collect();
        let place = |(name, _): &(&str, &str)| table.position(&name.to_ascii_lowercase());
        let places = columns.iter().map(place).collect();
        Ok(Self { statement, table, key, places, origin })
    }

    /// Stages a row; `false` where a newer image of it is staged already.
    pub(super) fn row<'c>(
        &mut self,
        at: i64,
        cells: impl Iterator<Item = Cell<'c>>,
    ) -> Result<bool> {
        let mut values: Vec<Option<&str>> = vec![None; self.table.columns.len()];
        let mut deleted = false;
        for cell in cells {
            match self.position(&cell) {
                Some(place) => {
                    if let Some(slot) = values.get_mut(place) {
                        *slot = Some(cell.value);
                    }
                }
                None => deleted = schema::deleted(cell.value).unwrap_or(false),
            }
        }
        let mut key = KeyBytes::default();
        for place in &self.key {
            match values.get(*place) {
                Some(Some(value)) => key.push(value),
                _ => return Err(unfit("a key column is missing")),
            }
        }
        if deleted {
            for (place, value) in values.iter_mut().enumerate() {
                if !self.key.contains(&place) {
                    *value = None;
                }
            }
        }
        self.bind(at, &key, deleted, &values)?;
        self.statement.raw_execute().map(|changed| changed > 0).map_err(|cause| {
            if is_fatal(&cause) {
                failed(cause)
            } else {
                unfit("the table refused the row").because(cause)
            }
        })
    }

    /// `None` is the mark of deleted rows: every other name has a column by now.
    fn position(&self, cell: &Cell<'_>) -> Option<usize> {
        match cell.column {
            Some(column) => self.places.get(usize::from(column)).copied().flatten(),
            None if cell.name.eq_ignore_ascii_case(DELETED) => None,
            None => self.table.position(&cell.name.to_ascii_lowercase()),
        }
    }

    fn bind(
        &mut self,
        at: i64,
        key: &KeyBytes,
        deleted: bool,
        values: &[Option<&str>],
    ) -> Result<()> {
        let bound = |cause| failed(cause);
        let seq = self.origin.row_seq(at);
        let statement = &mut self.statement;
        statement.clear_bindings();
        statement.raw_bind_parameter(1, key.0.as_slice()).map_err(bound)?;
        statement.raw_bind_parameter(2, seq).map_err(bound)?;
        statement.raw_bind_parameter(3, deleted).map_err(bound)?;
        statement.raw_bind_parameter(4, self.origin.batch.0).map_err(bound)?;
        statement.raw_bind_parameter(5, self.origin.number.0).map_err(bound)?;
        for (place, (column, value)) in (6..).zip(self.table.columns.iter().zip(values)) {
            let Some(value) = value else { continue };
            let Some(fitted) = schema::fit(column.storage, value) else {
                let kind = match column.storage {
                    Storage::Text => "text",
                    Storage::Integer => "a 64-bit integer",
                    Storage::Boolean => "a boolean",
                    Storage::Base64 => "base64",
                };
                return Err(unfit(&format!(
                    "column {} is not {kind} in canonical form",
                    column.name
                )));
            };
            match fitted {
                Fitted::Null => {}
                Fitted::Integer(integer) => {
                    statement.raw_bind_parameter(place, integer).map_err(bound)?
                }
                Fitted::Text(text) => statement.raw_bind_parameter(place, text).map_err(bound)?,
                Fitted::Blob(bytes) => statement.raw_bind_parameter(place, bytes).map_err(bound)?,
            }
        }
        Ok(())
    }
}

fn quarantine(
    tx: &Transaction<'_>,
    origin: Origin<'_>,
    (at, cells): (i64, Option<&[Cell<'_>]>),
    error: &Error,
    now: Wall,
) -> Result<()> {
    let cells: serde_json::Map<String, serde_json::Value> = cells
        .unwrap_or_default()
        .iter()
        .map(|cell| (cell.name.to_owned(), cell.value.into()))
        .collect();
    tx.prepare_cached(
        "INSERT OR IGNORE INTO malote_quarantine (batch, message, row_at, table_folded, code, reason, cells, at,
                accept_seq)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )
    .map_err(failed)?
    .execute(params![
        origin.batch.0,
        origin.number.0,
        at,
        origin.table,
        error.code.as_str(),
        error.message,
        serde_json::Value::Object(cells).to_string(),
        now.0,
        origin.seq.0
    ])
    .map_err(failed)?;
    Ok(())
}
