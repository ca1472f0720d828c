//! Schema, model floor: what a table message must be before it is judged, and how its columns are kept.
//!
//! Promises: what [`check`] passes can be staged: every column has a name of its own in any case, every row its key;
//! a value that a typed column cannot give back digit for digit is told as unfit, never changed.
//! Never: names a value in its words.

mod storage;

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    Code, Error, Result,
    names::{ColumnName, DELETED, STAGING_COLUMNS, TableName},
    value::TypeName,
    wire::{Cell, TableView},
};

pub use storage::{Engine, Fitted, Storage, fit, unfit, unfit_blob};

/// Staging relations of Malote's own and of SQLite; no table of an ERP may hide them.
const RESERVED_PREFIXES: [&str; 2] = ["malote_", "sqlite_"];

/// A message whose form is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Checked {
    pub table: TableName,
    /// Folded, in key order.
    pub key: Vec<String>,
}

/// Checks names, key, columns and rows of a message.
///
/// # Errors
/// `INVALID_ARGUMENT` or `BAD_NAME` where it is malformed, `RECORD_COUNT_MISMATCH`, `MISSING_KEY_COLUMN`.
pub fn check(view: &TableView<'_>) -> Result<Checked> {
    let table: TableName = view.table_name.parse()?;
    let place = |error: Error| error.at(format_args!("table {table}"));
    if is_reserved_table(&table) {
        return Err(place(invalid("the name is reserved for Malote's own relations".to_owned())));
    }
    let columns = columns(view).map_err(place)?;
    let key = key(view, &columns).map_err(place)?;
    let rows = i32::try_from(view.row_count()).unwrap_or(i32::MAX);
    if view.record_count != rows {
        let words = format!("recordCount is {}, the message has {rows} rows", view.record_count);
        return Err(place(Error::new(Code::RecordCountMismatch, words)));
    }
    rows_fit(view, &columns, &key).map_err(place)?;
    Ok(Checked { table, key })
}

/// Whether no table can be staged under this name.
#[must_use]
pub fn is_reserved_table(table: &TableName) -> bool {
    RESERVED_PREFIXES.iter().any(|prefix| table.folded().starts_with(prefix))
}

fn columns(view: &TableView<'_>) -> Result<BTreeSet<String>> {
    let mut columns = BTreeSet::new();
    for (given, _) in &view.schema.columns {
        let name: ColumnName = given.parse()?;
        if name.as_str() != *given {
            return Err(invalid(format!("column {name} has blanks around its name")));
        }
        if is_reserved(name.folded()) {
            return Err(invalid(format!("column {name} is named like a column of Malote's")));
        }
        if !columns.insert(name.folded().to_owned()) {
            return Err(invalid(format!("column {name} comes twice in the schema")));
        }
    }
    Ok(columns)
}

fn is_reserved(folded: &str) -> bool {
    folded.eq_ignore_ascii_case(DELETED) || STAGING_COLUMNS.contains(&folded)
}

fn key(view: &TableView<'_>, columns: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut key: Vec<String> = Vec::new();
    for column in &view.schema.key {
        let folded = column.to_ascii_lowercase();
        if !columns.contains(&folded) {
            return Err(invalid(format!("key column {column} is not in the schema")));
        }
        if key.contains(&folded) {
            return Err(invalid(format!("key column {column} comes twice")));
        }
        key.push(folded);
    }
    if key.is_empty() { Err(invalid("the schema has no primary key".to_owned())) } else { Ok(key) }
}

/// Every row has its key, no column twice, and no name that cannot be staged.
fn rows_fit(view: &TableView<'_>, columns: &BTreeSet<String>, key: &[String]) -> Result<()> {
    let place = |name: &String| {
        let named = |(given, _): &(&str, &str)| given.eq_ignore_ascii_case(name);
        view.schema.columns.iter().position(named)
    };
    let key: Vec<(usize, &String)> =
        key.iter().filter_map(|name| Some((place(name)?, name))).collect();
    // In which row each column of the schema was seen last, counted from 1.
    let mut seen = vec![0; columns.len()];
    for (at, row) in (1..).zip(view.rows()) {
        row_fits(row, at, &mut seen, view.schema.flexible)
            .and_then(|()| match key.iter().find(|(place, _)| seen.get(*place) != Some(&at)) {
                None => Ok(()),
                Some((_, name)) => {
                    let words = format!("key column {name} is missing");
                    Err(Error::new(Code::MissingKeyColumn, words))
                }
            })
            .map_err(|error| error.at(format_args!("row {at}")))?;
    }
    Ok(())
}

fn row_fits(row: &[Cell<'_>], at: usize, seen: &mut [usize], flexible: bool) -> Result<()> {
    let twice = |name: &str| invalid(format!("column {name} comes twice"));
    // Names beside the schema: the mark of deleted rows, and what a flexible schema lets rows bring.
    let mut beside: BTreeSet<String> = BTreeSet::new();
    for Cell { name, value, column } in row {
        if let Some(slot) = column.and_then(|column| seen.get_mut(usize::from(column))) {
            if *slot == at {
                return Err(twice(name));
            }
            *slot = at;
            continue;
        }
        if name.eq_ignore_ascii_case(DELETED) {
            if deleted(value).is_none() {
                return Err(invalid("DELETED is neither true nor false".to_owned()));
            }
        } else if flexible {
            let column: ColumnName = name.parse()?;
            if is_reserved(column.folded()) || column.as_str() != *name {
                let words = format!("column {column} cannot be created under this name");
                return Err(invalid(words));
            }
        } else {
            let words = format!("column {name} is not in a schema that is not flexible");
            return Err(invalid(words));
        }
        if !beside.insert(name.to_ascii_lowercase()) {
            return Err(twice(name));
        }
    }
    Ok(())
}

/// The mark of a deleted row; `None` where the text is no boolean.
#[must_use]
pub fn deleted(value: &str) -> Option<bool> {
    if value.eq_ignore_ascii_case("true") {
        Some(true)
    } else if value.is_empty() || value.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
    }
}

fn invalid(message: String) -> Error {
    Error::new(Code::InvalidArgument, message)
}

/// Types of a message's columns by folded name; a column that only a row has is a string.
#[must_use]
pub fn types(view: &TableView<'_>) -> BTreeMap<String, TypeName> {
    view.schema
        .columns
        .iter()
        .map(|(name, type_name)| (name.to_ascii_lowercase(), TypeName::parse(type_name)))
        .collect()
}

#[cfg(test)]
mod tests;
