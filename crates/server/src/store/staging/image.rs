//! Image: a row of a message as its table keeps it. Decides, and does no IO.
//!
//! Promises: a column that is absent is NULL; a deleted row keeps its key alone; a value that would not come back the
//! same is told as unfit.
//! Never: puts a value into words.

use protocol::{Code, Error, Result, key::KeyBytes, names::DELETED, wire::Cell as Sent};

use super::{dialect::Dialect, tables::StagedTable};
use crate::model::schema::{self, Fitted, Storage, fit};

/// Longer keys are refused by PostgreSQL's index.
const INDEXED_BYTES: usize = 2_600;

/// A row as it is staged; `values` in the order of the table's columns.
#[derive(Debug)]
pub(super) struct Image<'c> {
    pub(super) key: KeyBytes,
    pub(super) deleted: bool,
    pub(super) values: Vec<Option<Fitted<'c>>>,
}

/// Makes images of one table's rows.
#[derive(Debug)]
pub(super) struct Maker<'a> {
    table: &'a StagedTable,
    key: Vec<usize>,
    /// Position in the table of each column of the message's schema.
    places: Vec<Option<usize>>,
}

impl<'a> Maker<'a> {
    /// `columns` are those of the message's schema, by which its cells are numbered; none where cells are found by name.
    pub(super) fn new(table: &'a StagedTable, columns: &[(&str, &str)]) -> Self {
        let key = table.key.iter().filter_map(|name| table.position(name)).collect();
        let place = |(name, _): &(&str, &str)| table.position(&name.to_ascii_lowercase());
        Self { table, key, places: columns.iter().map(place).collect() }
    }

    /// # Errors
    /// `VALUE_UNFIT`.
    pub(super) fn image<'c>(&self, cells: impl Iterator<Item = Sent<'c>>) -> Result<Image<'c>> {
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
        let is_indexed = matches!(self.table.dialect, Dialect::Postgres { .. });
        if is_indexed && key.0.len() > INDEXED_BYTES {
            let words = format!("the key has {} bytes, of {INDEXED_BYTES} at most", key.0.len());
            return Err(unfit(&words));
        }
        if deleted {
            for (place, value) in values.iter_mut().enumerate() {
                if !self.key.contains(&place) {
                    *value = None;
                }
            }
        }
        let values = values.into_iter().enumerate().map(|(place, value)| self.fitted(place, value));
        Ok(Image { key, deleted, values: values.collect::<Result<_>>()? })
    }

    /// `None` is the mark of deleted rows: every other name has a column by now.
    fn position(&self, cell: &Sent<'_>) -> Option<usize> {
        match cell.column {
            Some(column) => self.places.get(usize::from(column)).copied().flatten(),
            None if cell.name.eq_ignore_ascii_case(DELETED) => None,
            None => self.table.position(&cell.name.to_ascii_lowercase()),
        }
    }

    fn fitted<'c>(&self, place: usize, value: Option<&'c str>) -> Result<Option<Fitted<'c>>> {
        let (Some(value), Some(column)) = (value, self.table.columns.get(place)) else {
            return Ok(None);
        };
        let takes_nul = matches!(self.table.dialect, Dialect::Sqlite);
        if column.storage == Storage::Text && !takes_nul && value.contains('\0') {
            let words = format!(
                "column {} holds the character U+0000, which PostgreSQL does not take; its sender can give the column \
                 ;enc=b64",
                column.name
            );
            return Err(unfit(&words));
        }
        fit(column.storage, value).map(Some).ok_or_else(|| {
            let kind = column.storage.words();
            unfit(&format!("column {} is not {kind} in canonical form", column.name))
        })
    }
}

pub(super) fn unfit(words: &str) -> Error {
    Error::new(Code::ValueUnfit, words)
}
