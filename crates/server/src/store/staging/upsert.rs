//! Upsert: rows go into their table one by one, each against what is staged under its key.
//!
//! Promises: an older image never replaces a newer one; a row that the table refuses leaves the transaction as it was.
//! Never: changes a table.

use protocol::{Result, wire::Cell as Sent};

use super::{
    SpaceTx,
    apply::Origin,
    dialect::shape,
    image::Maker,
    tables::{StagedTable, refused},
};
use crate::{
    model::schema::Fitted,
    store::sql::{Cell, Statement, failed},
};

/// What is said of a row that its table did not take.
pub(super) const REFUSED: &str = "the table refused the row";

/// Columns before those of the ERP.
const OWN: usize = 5;

/// The statement of one table and column set, with the places its cells go to.
pub(super) struct Upsert<'a> {
    tx: SpaceTx<'a>,
    statement: Statement<'a, 'a>,
    table: &'a StagedTable,
    maker: Maker<'a>,
    origin: Origin<'a>,
}

/// Its text; `from` gives the new images.
pub(super) fn text(table: &StagedTable, from: &str) -> String {
    let sets: String = table
        .columns
        .iter()
        .map(|column| {
            let name = table.column(column);
            format!(", {name} = excluded.{name}")
        })
        .collect();
    format!(
        "INSERT INTO {} AS malote_held (_key, _seq, _deleted, _batch, _message{}) {from}
         ON CONFLICT (_key) DO UPDATE SET _seq = excluded._seq, _deleted = excluded._deleted,
                _batch = excluded._batch, _message = excluded._message{sets}
          WHERE malote_held._seq < excluded._seq",
        table.quoted(),
        table.list(),
    )
}

/// As [`text`], of one image that is bound.
pub(super) fn of_one(table: &StagedTable) -> String {
    let placed = |(at, column): (usize, &super::StagedColumn)| {
        format!(", {}", table.dialect.placed(column.storage, at))
    };
    let places: String = (OWN + 1..).zip(&table.columns).map(placed).collect();
    text(table, &format!("VALUES (?1, ?2, ?3, ?4, ?5{places})"))
}

impl<'a> Upsert<'a> {
    /// `sql` is [`of_one`] of the table; `columns` as [`Maker::new`] takes them.
    pub(super) fn prepare(
        tx: &SpaceTx<'a>,
        (table, sql): (&'a StagedTable, &'a str),
        (origin, columns): (Origin<'a>, &[(&str, &str)]),
    ) -> Result<Self> {
        let statement = tx.prepare(sql).map_err(failed)?;
        Ok(Self { tx: *tx, statement, table, maker: Maker::new(table, columns), origin })
    }

    /// Stages a row; `false` where a newer image of it is staged already.
    pub(super) fn row<'c>(
        &mut self,
        at: i64,
        cells: impl Iterator<Item = Sent<'c>>,
    ) -> Result<bool> {
        let image = self.maker.image(cells)?;
        let mut bound: Vec<Cell<'_>> = Vec::with_capacity(OWN + image.values.len());
        bound.extend([
            Cell::Blob(&image.key.0),
            Cell::Int(self.origin.row_seq(at)),
            Cell::Bool(image.deleted),
            Cell::Int(self.origin.batch.0),
            Cell::Int(self.origin.number.0.into()),
        ]);
        for (column, value) in self.table.columns.iter().zip(&image.values) {
            bound.push(match value {
                None => Cell::Null(shape(column.storage)),
                Some(Fitted::Integer(integer)) => Cell::Int(*integer),
                Some(Fitted::Boolean(truth)) => Cell::Bool(*truth),
                Some(Fitted::Text(text)) => Cell::Text(text),
                Some(Fitted::Blob(bytes)) => Cell::Blob(bytes),
            });
        }
        let statement = &mut self.statement;
        let mut run = || {
            let changed = statement.execute(bound.as_slice());
            changed.map(|changed| changed > 0).map_err(|cause| refused(cause, REFUSED))
        };
        // With SQLite a statement that is refused is the only thing that is undone.
        if self.tx.session().is_some() { self.tx.attempt(run) } else { run() }
    }
}
