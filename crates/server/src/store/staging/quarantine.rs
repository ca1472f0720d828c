//! Quarantine: rows that could not be staged, and what becomes of them.
//!
//! Promises: a row that is tried again takes the place in the order that its message was accepted in, so that a newer
//! image, a tombstone or a table made anew since stands against it; a row leaves only when its image is staged, when
//! what is staged is newer, or when a person discards it.
//! Never: changes the type of a column that is staged; shows a value in `Debug`.

use std::fmt;

use bytes::Bytes;
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, MessageNumber},
    key::KeyBytes,
    names::TableName,
    value::{ColumnType, TypeName},
    wire::{Cell, TableView},
};
use runtime::clock::Wall;

use super::{
    Space, SpaceTx,
    apply::{Origin, every_row, shape},
    image::unfit,
    tables::{self, StagedTable},
    upsert::{self, Upsert},
};
use crate::{
    model::schema::{self, Checked},
    store::sql::{Optional as _, Row, SqlResult, failed, params},
};

/// A row that could not be staged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Quarantined {
    /// Folded.
    pub table: String,
    pub batch: BatchId,
    pub message: MessageNumber,
    /// Place in its message, from 0; -1 = the whole message.
    pub row: i64,
    pub code: String,
    pub reason: String,
    pub at: Wall,
}

impl Quarantined {
    /// Names the row among those of its file.
    #[must_use]
    pub fn id(&self) -> String {
        RowAt { batch: self.batch, message: self.message, row: self.row }.id()
    }
}

/// The place of a row in the ledger, as [`Quarantined::id`] writes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RowAt {
    pub batch: BatchId,
    pub message: MessageNumber,
    pub row: i64,
}

impl RowAt {
    /// As [`Self::read`] takes it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}.{}.{}", self.batch, self.message, self.row)
    }

    /// # Errors
    /// `BAD_ID`.
    pub fn read(text: &str) -> Result<Self> {
        let bad = || Error::new(Code::BadId, "a row in quarantine is named batch.message.row");
        let mut parts = text.splitn(3, '.');
        let mut part = || parts.next().and_then(|part| part.parse::<i64>().ok()).ok_or_else(bad);
        let (batch, message, row) = (BatchId(part()?), part()?, part()?);
        let message = MessageNumber(i32::try_from(message).map_err(|_| bad())?);
        Ok(Self { batch, message, row })
    }
}

/// A row in quarantine with its columns as they came; none of a whole message.
#[derive(Clone, PartialEq, Eq)]
pub struct Held {
    pub row: Quarantined,
    pub cells: Vec<(String, String)>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, {} cells)", self.row.id(), self.cells.len())
    }
}

/// Which rows are tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Which {
    One(RowAt),
    Table(TableName),
    All,
}

/// A row that waits in quarantine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Waiting {
    pub at: RowAt,
    /// Folded.
    pub table: String,
    /// `None` where an older program wrote the row.
    pub seq: Option<AcceptSeq>,
}

/// Rows of one message that are tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    pub batch: BatchId,
    pub number: MessageNumber,
    pub seq: AcceptSeq,
    /// Folded.
    pub table: String,
    /// The message, where its body is kept.
    pub body: Option<Bytes>,
    /// The message was to make its table anew.
    pub rebuild: bool,
    /// Key the table stands under by the ledger, folded.
    pub key: Vec<String>,
    /// Places in the message.
    pub rows: Vec<i64>,
}

/// What became of a row that was tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is staged.
    Applied,
    /// What is staged is newer: nothing is lacking, and the row left quarantine.
    Superseded,
    /// It stays, for this reason.
    Refused { code: Code, reason: String },
}

impl Outcome {
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Superseded => "superseded",
            Self::Refused { .. } => "refused",
        }
    }
}

/// A row with its columns as they came.
type Came = (RowAt, Vec<(String, String)>);

type Read<'a> = Result<(Checked, TableView<'a>)>;

impl Space {
    /// Rows in quarantine, newest batch first, behind one where it is named.
    ///
    /// # Errors
    /// The store's own.
    pub async fn quarantine(
        &self,
        (table, code): (Option<TableName>, Option<Code>),
        (after, limit): (Option<RowAt>, u32),
    ) -> Result<Vec<Quarantined>> {
        self.read(move |tx| {
                let sql = "SELECT table_folded, batch, message, row_at, code, reason, at FROM malote_quarantine
                            WHERE (batch < ?2 OR (batch = ?2 AND (message, row_at) > (?3, ?4)))
                              AND (?5 IS NULL OR table_folded = ?5) AND (?6 IS NULL OR code = ?6)
                            ORDER BY batch DESC, message, row_at LIMIT ?1";
                let first =
                    RowAt { batch: BatchId(i64::MAX), message: MessageNumber(0), row: i64::MIN };
                let after = after.unwrap_or(first);
                let mut statement = tx.prepare_cached(sql).map_err(failed)?;
                let (table, code) = (table.as_ref().map(TableName::folded), code.map(Code::as_str));
                let values =
                    params![limit, after.batch.0, after.message.0, after.row, table, code];
                statement.query_map(values, quarantined).map_err(failed)
            })
            .await
    }

    /// Rows in quarantine.
    ///
    /// # Errors
    /// The store's own.
    pub async fn quarantine_count(&self) -> Result<i64> {
        self.read(|tx| {
            let sql = "SELECT count(*) FROM malote_quarantine";
            let mut statement = tx.prepare_cached(sql).map_err(failed)?;
            statement.query_row([], |row| row.get(0)).map_err(failed)
        })
        .await
    }

    /// One row in quarantine.
    ///
    /// # Errors
    /// The store's own.
    pub async fn held(&self, at: RowAt) -> Result<Option<Held>> {
        self.read(move |tx| held(tx, at)).await
    }

    /// Rows in quarantine in the order of acceptance, behind one where it is named.
    ///
    /// # Errors
    /// The store's own.
    pub async fn waiting(
        &self,
        which: Which,
        (after, limit): (Option<RowAt>, u32),
    ) -> Result<Vec<Waiting>> {
        self.read(move |tx| {
                let first = RowAt { batch: BatchId(0), message: MessageNumber(0), row: i64::MIN };
                let after = after.unwrap_or(first);
                let (table, one) = match &which {
                    Which::One(at) => (None, Some(*at)),
                    Which::Table(table) => (Some(table.folded().to_owned()), None),
                    Which::All => (None, None),
                };
                let sql = "SELECT batch, message, row_at, table_folded, accept_seq FROM malote_quarantine
                            WHERE (batch, message, row_at) > (?1, ?2, ?3) AND (?4 IS NULL OR table_folded = ?4)
                              AND (?5 IS NULL OR (batch, message, row_at) = (?5, ?6, ?7))
                            ORDER BY batch, message, row_at LIMIT ?8";
                let mut statement = tx.prepare_cached(sql).map_err(failed)?;
                statement
                    .query_map(
                        params![
                            after.batch.0,
                            after.message.0,
                            after.row,
                            table,
                            one.map(|at| at.batch.0),
                            one.map(|at| at.message.0),
                            one.map(|at| at.row),
                            limit
                        ],
                        |row| {
                            let at = RowAt {
                                batch: BatchId(row.get(0)?),
                                message: MessageNumber(row.get(1)?),
                                row: row.get(2)?,
                            };
                            let seq = row.get::<Option<i64>>(4)?.map(AcceptSeq);
                            Ok(Waiting { at, table: row.get(3)?, seq })
                        },
                    )
                    .map_err(failed)
            })
            .await
    }

    /// Tries rows of one message again, in one transaction; a dry run tells the same and keeps nothing. Rows that left
    /// quarantine meanwhile are not told.
    ///
    /// # Errors
    /// The store's own; nothing of it is kept then.
    pub async fn retry(
        &self,
        retry: Retry,
        dry_run: bool,
        now: Wall,
    ) -> Result<Vec<(RowAt, Outcome)>> {
        self.write(move |tx| {
            let work = || again(tx, &retry, now);
            if dry_run { tx.try_out(work) } else { work() }
        })
        .await
    }

    /// Takes a row out of quarantine unstaged; `false` where it is not there.
    ///
    /// # Errors
    /// The store's own.
    pub async fn discard(&self, at: RowAt) -> Result<bool> {
        self.write(move |tx| leave(tx, at)).await
    }

    /// Messages that stand in quarantine whole: what they brought is in their bodies alone.
    ///
    /// # Errors
    /// The store's own.
    pub async fn whole_messages(&self) -> Result<Vec<(BatchId, MessageNumber)>> {
        self.read(|tx| {
            let sql = "SELECT batch, message FROM malote_quarantine WHERE row_at = -1";
            let mut statement = tx.prepare_cached(sql).map_err(failed)?;
            let read = |row: &Row<'_>| Ok((BatchId(row.get(0)?), MessageNumber(row.get(1)?)));
            statement.query_map([], read).map_err(failed)
        })
        .await
    }
}

fn quarantined(row: &Row<'_>) -> SqlResult<Quarantined> {
    Ok(Quarantined {
        table: row.get(0)?,
        batch: BatchId(row.get(1)?),
        message: MessageNumber(row.get(2)?),
        row: row.get(3)?,
        code: row.get(4)?,
        reason: row.get(5)?,
        at: Wall(row.get(6)?),
    })
}

fn held(tx: &SpaceTx<'_>, at: RowAt) -> Result<Option<Held>> {
    let sql = "SELECT table_folded, batch, message, row_at, code, reason, at, cells FROM malote_quarantine
                WHERE (batch, message, row_at) = (?1, ?2, ?3)";
    let read = |row: &Row<'_>| Ok((quarantined(row)?, row.get::<String>(7)?));
    let values = params![at.batch.0, at.message.0, at.row];
    let found = tx.query_row(sql, values, read).optional().map_err(failed)?;
    let Some((row, cells)) = found else { return Ok(None) };
    let bad =
        || Error::new(Code::StoreFailed, format!("the columns of {} cannot be read", row.id()));
    let read: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&cells).map_err(|_| bad())?;
    let cells = read
        .into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(value) => Ok((name, value)),
            _ => Err(bad()),
        })
        .collect::<Result<_>>()?;
    Ok(Some(Held { row, cells }))
}

fn leave(tx: &SpaceTx<'_>, at: RowAt) -> Result<bool> {
    let sql = "DELETE FROM malote_quarantine WHERE (batch, message, row_at) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let left = statement.execute(params![at.batch.0, at.message.0, at.row]).map_err(failed)?;
    Ok(left > 0)
}

fn again(tx: &SpaceTx<'_>, retry: &Retry, now: Wall) -> Result<Vec<(RowAt, Outcome)>> {
    let mut waiting = Vec::new();
    for row in &retry.rows {
        let at = RowAt { batch: retry.batch, message: retry.number, row: *row };
        if let Some(held) = held(tx, at)? {
            waiting.push((at, held.cells));
        }
    }
    let read = retry.body.as_deref().map(read);
    let outcomes = match stands(tx, retry, (read.as_ref(), &waiting)) {
        Ok(Some(table)) => each(tx, retry, (read.as_ref(), &waiting), (&table, now))?,
        Ok(None) => vec![Outcome::Superseded; waiting.len()],
        Err(error) => vec![refused(error)?; waiting.len()],
    };
    let told: Vec<_> = waiting.into_iter().map(|(at, _)| at).zip(outcomes).collect();
    for (at, outcome) in &told {
        match outcome {
            Outcome::Applied | Outcome::Superseded => {
                leave(tx, *at)?;
            }
            Outcome::Refused { code, reason } => {
                let sql = "UPDATE malote_quarantine SET code = ?4, reason = ?5
                            WHERE (batch, message, row_at) = (?1, ?2, ?3)";
                let values = params![at.batch.0, at.message.0, at.row, code.as_str(), reason];
                tx.prepare_cached(sql).map_err(failed)?.execute(values).map_err(failed)?;
            }
        }
    }
    Ok(told)
}

fn read(body: &[u8]) -> Read<'_> {
    let view = TableView::scan(body)?;
    Ok((schema::check(&view)?, view))
}

/// What is the row's own fault keeps it in quarantine; the machine's fault ends the try.
fn refused(error: Error) -> Result<Outcome> {
    match error.code {
        Code::StoreFailed | Code::DiskFull | Code::Internal => Err(error),
        code => Ok(Outcome::Refused { code, reason: error.message }),
    }
}

/// The table with every column that the rows have; `None` where it was made anew since, so that a row that is not staged
/// may have been taken away on purpose.
fn stands(
    tx: &SpaceTx<'_>,
    retry: &Retry,
    (read, rows): (Option<&Read<'_>>, &[Came]),
) -> Result<Option<StagedTable>> {
    let name: TableName = retry.table.parse()?;
    let message = read.and_then(|read| read.as_ref().ok());
    let Some(mut table) = tables::find(tx, &name)? else {
        let Some((checked, view)) = message else {
            let words = "the table is not staged, and the message that could make it is gone";
            return Err(Error::new(Code::BodyRemoved, words));
        };
        if checked.key != retry.key {
            return Err(unfit("the table stands under another key by now"));
        }
        return shape(tx, (retry.origin(), false), (checked, view), None).map(Some);
    };
    if retry.seq < tables::floor(tx, &name)? {
        return Ok(None);
    }
    let listed = message.into_iter().flat_map(|(_, view)| {
        view.schema.columns.iter().map(|(name, kind)| (*name, TypeName::parse(kind)))
    });
    let text = TypeName::plain(ColumnType::String);
    let came = rows.iter().flat_map(|(_, cells)| cells).map(|(name, _)| (name.as_str(), text));
    let whole = message.filter(|_| rows.iter().any(|(at, _)| at.row < 0));
    let sent = whole.into_iter().flat_map(|(_, view)| view.rows().flatten());
    let columns = listed.chain(came).chain(sent.map(|cell| (cell.name, text)));
    tx.attempt(|| {
        tables::extend(tx, &mut table, columns)?;
        let came = rows.iter().flat_map(|(_, cells)| cells);
        let came = came.map(|(name, value)| Cell { name, value, column: None });
        tables::give_way(tx, &mut table, (&[], came))?;
        if let Some((_, view)) = whole {
            let sent = (view.schema.columns.as_slice(), view.rows().flatten().copied());
            tables::give_way(tx, &mut table, sent)?;
        }
        Ok(())
    })?;
    Ok(Some(table))
}

fn each(
    tx: &SpaceTx<'_>,
    retry: &Retry,
    (read, rows): (Option<&Read<'_>>, &[Came]),
    (table, now): (&StagedTable, Wall),
) -> Result<Vec<Outcome>> {
    let origin = retry.origin();
    let sql = upsert::of_one(table);
    let mut upsert = Upsert::prepare(tx, (table, &sql), (origin, &[]))?;
    rows.iter()
        .map(|(at, cells)| {
            let cells = cells.iter().map(|(name, value)| Cell { name, value, column: None });
            let staged = match (at.row < 0, read) {
                (false, _) if newer(tx, table, (origin, at.row), cells.clone())? => Ok(false),
                (false, _) => upsert.row(at.row, cells),
                (true, Some(Ok((_, view)))) if !retry.rebuild => {
                    every_row(tx, table, origin, view, now).map(|_| true)
                }
                (true, Some(Ok(_))) => Err(unfit(
                    "the message was to make its table anew; order a reload with a rebuild instead",
                )),
                (true, Some(Err(error))) => Err(Error::new(error.code, error.message.clone())),
                (true, None) => Err(Error::new(
                    Code::BodyRemoved,
                    "the message's body was removed by retention",
                )),
            };
            match staged {
                Ok(true) => Ok(Outcome::Applied),
                Ok(false) => Ok(Outcome::Superseded),
                Err(error) => refused(error),
            }
        })
        .collect()
}

/// Whether a newer image of the row is staged, be the row itself fit or not.
fn newer<'c>(
    tx: &SpaceTx<'_>,
    table: &StagedTable,
    (origin, at): (Origin<'_>, i64),
    cells: impl Iterator<Item = Cell<'c>> + Clone,
) -> Result<bool> {
    let values: Option<Vec<&str>> = table
        .key
        .iter()
        .map(|column| {
            let found = cells.clone().find(|cell| cell.name.eq_ignore_ascii_case(column));
            found.map(|cell| cell.value)
        })
        .collect();
    let Some(values) = values else { return Ok(false) };
    let sql = format!("SELECT _seq FROM {} WHERE _key = ?1", table.quoted());
    let mut statement = tx.prepare(&sql).map_err(failed)?;
    let staged = statement.query_row([KeyBytes::of(values).0], |row| row.get::<i64>(0)).optional();
    let staged = staged.map_err(failed)?;
    Ok(staged.is_some_and(|staged| staged > origin.row_seq(at)))
}

impl Retry {
    fn origin(&self) -> Origin<'_> {
        Origin { seq: self.seq, batch: self.batch, number: self.number, table: &self.table }
    }
}
