//! Apply: ledger messages become staged rows, in order of acceptance.
//!
//! Promises: applying again changes nothing; the last image of a key within a message wins (F54); a tombstone keeps
//! its place, so that an older image never resurrects its row (F55); a poison row goes to quarantine by itself.
//! Never: puts a value into words.

use std::collections::HashMap;

use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, Generation, MessageNumber},
    limits,
    names::TableName,
    wire::{Cell, TableView},
};
use runtime::{clock::Wall, failpoint};

use super::{
    Space, SpaceTx,
    dialect::Dialect,
    gather::{Gathered, Sender},
    image::{Maker, unfit},
    tables::{self, StagedTable},
    upsert::{self, Upsert},
};
use crate::{
    model::{
        batch::BatchState,
        schema::{self, Checked},
    },
    store::{
        ingest::{LedgerBatch, LedgerMessage, Standing},
        sql::{failed, params},
    },
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

impl Space {
    /// Takes away all that is staged, so that it can be made again from the first message of the ledger on.
    ///
    /// # Errors
    /// The store's own; nothing is taken away then.
    pub async fn begin_anew(&self) -> Result<()> {
        self.write(begin_anew).await
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
        self.write(move |tx| {
                begin_anew(tx)?;
                for (table, generation) in &lost {
                    let sql = "INSERT INTO malote_lost (name_folded, generation) VALUES (?1, ?2)
                               ON CONFLICT (name_folded) DO UPDATE SET generation = excluded.generation";
                    tx.execute(sql, params![table.folded(), generation.0]).map_err(failed)?;
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
        self.write(move |tx| apply(tx, &messages, &batches, now)).await
    }
}

fn begin_anew(tx: &SpaceTx<'_>) -> Result<()> {
    for table in tables::all(tx)? {
        tables::forget(tx, &table.name)?;
    }
    let sql =
        "DELETE FROM malote_batches; DELETE FROM malote_quarantine; DELETE FROM malote_applied;
               DELETE FROM malote_lost; UPDATE malote_progress SET applied_seq = 0;";
    tx.batch(sql).map_err(failed)
}

fn apply(
    tx: &SpaceTx<'_>,
    messages: &[LedgerMessage],
    batches: &[LedgerBatch],
    now: Wall,
) -> Result<Applied> {
    failpoint::reach("staging.apply", Code::StoreFailed)?;
    let sql = "SELECT applied_seq FROM malote_progress";
    let before: i64 = tx.query_row(sql, [], |row| row.get(0)).map_err(failed)?;
    let mut round = Round {
        tx,
        messages,
        tables: HashMap::new(),
        gathered: Gathered::default(),
        applied: Applied { up_to: AcceptSeq(before), ..Applied::default() },
        now,
    };
    for (at, message) in messages.iter().enumerate().filter(|(_, at)| at.seq.0 > before) {
        round.message(at, message)?;
        round.applied.messages += 1;
        round.applied.up_to = round.applied.up_to.max(message.seq);
    }
    let refused = round.gathered.flush_all(tx)?;
    round.refuse(&refused)?;
    let applied = round.applied;
    let sql = "UPDATE malote_progress SET applied_seq = ?1";
    tx.execute(sql, [applied.up_to.0]).map_err(failed)?;
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
    tx: &SpaceTx<'_>,
    (seq, batch, number): (AcceptSeq, BatchId, MessageNumber),
    sha256: &[u8; 32],
) -> Result<()> {
    let sql = "INSERT INTO malote_applied (one, applied_seq, batch, message, sha256) VALUES (1, ?1, ?2, ?3, ?4)
               ON CONFLICT (one) DO UPDATE SET applied_seq = excluded.applied_seq, batch = excluded.batch,
                   message = excluded.message, sha256 = excluded.sha256";
    tx.execute(sql, params![seq.0, batch.0, number.0, *sha256]).map_err(failed)?;
    Ok(())
}

/// A batch is shown as closed only when its last row is staged, and stays so: what another server read of it before may
/// be older.
fn mirror(tx: &SpaceTx<'_>, batch: &LedgerBatch, applied: AcceptSeq) -> Result<()> {
    let state = if batch.last_seq <= applied { batch.state } else { BatchState::Open };
    let completed = batch.closed_at.filter(|_| state == BatchState::Complete).map(Wall::to_iso);
    let sql = format!(
        "INSERT INTO malote_batches (batch, state, completed_at) VALUES (?1, ?2, {})
         ON CONFLICT (batch) DO UPDATE SET state = excluded.state, completed_at = excluded.completed_at
          WHERE malote_batches.state = 'open'",
        tx.dialect().instant()
    );
    tx.execute(&sql, params![batch.batch.0, state.as_str(), completed]).map_err(failed)?;
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

/// What a round knows while it goes from message to message.
struct Round<'r> {
    tx: &'r SpaceTx<'r>,
    messages: &'r [LedgerMessage],
    /// Tables as they stand, by their folded names.
    tables: HashMap<String, StagedTable>,
    /// Rows that are written together; none with SQLite.
    gathered: Gathered,
    applied: Applied,
    now: Wall,
}

impl Round<'_> {
    /// Applies one message.
    fn message(&mut self, at: usize, message: &LedgerMessage) -> Result<()> {
        failpoint::reach("staging.message", Code::StoreFailed)?;
        let (tx, now) = (self.tx, self.now);
        let origin = Origin::of(message);
        let read =
            TableView::scan(&message.body).and_then(|view| Ok((schema::check(&view)?, view)));
        let (checked, view) = match read {
            Ok(read) => read,
            Err(error) => {
                self.applied.quarantined += 1;
                return quarantine(tx, origin, (-1, None), &error, now);
            }
        };
        let folded = checked.table.folded();
        let known = self.tables.remove(folded).filter(|_| !message.rebuild);
        let table = match known {
            Some(table) if tables::is_ready(&table, &view) => table,
            known => {
                let refused = self.gathered.flush(tx, folded)?;
                self.refuse(&refused)?;
                match shape(tx, (origin, message.rebuild), (&checked, &view), known) {
                    Ok(table) => table,
                    Err(error) if error.code == Code::ValueUnfit => {
                        for (row, cells) in (0i64..).zip(view.rows()) {
                            quarantine(tx, origin, (row, Some(cells)), &error, now)?;
                        }
                        self.applied.quarantined += view.row_count();
                        return Ok(());
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        let quarantined = match tx.dialect() {
            Dialect::Sqlite => every_row(tx, &table, origin, &view, now)?,
            Dialect::Postgres { .. } => self.gather(&table, (at, origin), &view)?,
        };
        self.applied.quarantined += quarantined;
        self.applied.rows += view.row_count() - quarantined;
        self.tables.insert(folded.to_owned(), table);
        Ok(())
    }

    /// Takes the rows of a message to those that are written together; returns how many went to quarantine instead.
    fn gather(
        &mut self,
        table: &StagedTable,
        (message, origin): (usize, Origin<'_>),
        view: &TableView<'_>,
    ) -> Result<usize> {
        let maker = Maker::new(table, &view.schema.columns);
        let mut quarantined = 0;
        for (row, cells) in (0i64..).zip(view.rows()) {
            match maker.image(cells.iter().copied()) {
                Ok(image) => {
                    self.gathered.add(table, (origin, Sender { message, row }), image);
                }
                Err(error) => {
                    quarantine(self.tx, origin, (row, Some(cells)), &error, self.now)?;
                    quarantined += 1;
                }
            }
        }
        Ok(quarantined)
    }

    /// Rows that the database refused stand in quarantine.
    fn refuse(&mut self, refused: &[Sender]) -> Result<()> {
        for sender in refused {
            let Some(message) = self.messages.get(sender.message) else { continue };
            let view = TableView::scan(&message.body)?;
            let row = usize::try_from(sender.row).unwrap_or(usize::MAX);
            let error = unfit(upsert::REFUSED);
            let origin = Origin::of(message);
            quarantine(self.tx, origin, (sender.row, view.rows().nth(row)), &error, self.now)?;
            self.applied.rows = self.applied.rows.saturating_sub(1);
            self.applied.quarantined += 1;
        }
        Ok(())
    }
}

/// Stages the rows of a message; returns how many went to quarantine instead.
pub(super) fn every_row(
    tx: &SpaceTx<'_>,
    table: &StagedTable,
    origin: Origin<'_>,
    view: &TableView<'_>,
    now: Wall,
) -> Result<usize> {
    let sql = upsert::of_one(table);
    let mut upsert = Upsert::prepare(tx, (table, &sql), (origin, &view.schema.columns))?;
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

/// DDL of a message in a part of its own: a shape that cannot be made leaves the table as it was.
pub(super) fn shape(
    tx: &SpaceTx<'_>,
    (origin, rebuild): (Origin<'_>, bool),
    (checked, view): (&Checked, &TableView<'_>),
    known: Option<StagedTable>,
) -> Result<StagedTable> {
    tx.attempt(|| {
        if rebuild {
            tables::forget(tx, &checked.table)?;
        }
        let known = match known {
            Some(known) => Some(known),
            None => tables::find(tx, &checked.table)?,
        };
        let table = tables::ensure(tx, checked, view, known)?;
        if rebuild {
            tables::raise_floor(tx, &checked.table, origin.seq)?;
        }
        Ok(table)
    })
}

fn quarantine(
    tx: &SpaceTx<'_>,
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
    let sql = "INSERT INTO malote_quarantine (batch, message, row_at, table_folded, code, reason, cells, at, accept_seq)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (batch, message, row_at) DO NOTHING";
    let values = params![
        origin.batch.0,
        origin.number.0,
        at,
        origin.table,
        error.code.as_str(),
        error.message,
        serde_json::Value::Object(cells).to_string(),
        now.0,
        origin.seq.0
    ];
    tx.execute(sql, values).map_err(failed)?;
    Ok(())
}
