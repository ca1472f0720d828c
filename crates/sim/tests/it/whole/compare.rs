//! Compares an ERP table with its staged table, row by row and value by value.
//!
//! Promises: the staging file is read by SQL of its own, read-only, never through the server.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::erp::{Column, Erp, Kind, Rows, by_key, sqlite_cells};

/// Opens a staging file for reading.
pub(crate) fn staging(path: &Path) -> Option<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).ok()?;
    connection.busy_timeout(std::time::Duration::from_secs(10)).ok()?;
    Some(connection)
}

/// Live rows of a staged table in the columns of the source; `None` while the table is not there.
pub(crate) fn staged_rows(staging: &Connection, table: &str, columns: &[Column]) -> Option<Rows> {
    let there: bool = staging
        .query_row(
            "SELECT count(*) > 0 FROM sqlite_schema WHERE type = 'table' AND name = ?1",
            [table],
            |row| row.get(0),
        )
        .unwrap();
    if !there {
        return None;
    }
    let known: Vec<String> = {
        let mut names = staging.prepare("SELECT lower(name) FROM pragma_table_info(?1)").unwrap();
        names.query_map([table], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    // A column that no row ever had a value in may be absent; it is NULL everywhere.
    let place: Vec<bool> =
        columns.iter().map(|column| known.contains(&column.name.to_lowercase())).collect();
    let present: Vec<Column> = columns
        .iter()
        .zip(&place)
        .filter(|(_, there)| **there)
        .map(|(column, _)| column.clone())
        .collect();
    let view = format!(
        "CREATE TEMP VIEW IF NOT EXISTS \"live {table}\" AS SELECT * FROM \"{table}\" WHERE _deleted = 0"
    );
    staging.execute_batch(&view).unwrap();
    let cells = sqlite_cells(staging, &format!("live {table}"), &present);
    let widened = cells.into_iter().map(|row| {
        let mut row = row.into_iter();
        place.iter().map(|there| if *there { row.next().flatten() } else { None }).collect()
    });
    Some(by_key(columns, widened.collect()))
}

/// Differences in words, at most a few per table.
pub(crate) async fn differences(erp: &Erp, tables: &[&str], staging: &Connection) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        let (columns, source) = erp.rows(table).await;
        match staged_rows(staging, &table.to_lowercase(), &columns) {
            // A load of an empty table stages the table too: one that is not there was never loaded.
            None => found.push(format!("{table}: no staged table for {} rows", source.len())),
            Some(staged) => found.extend(table_differences(erp, table, &columns, &source, &staged)),
        }
    }
    found
}

fn table_differences(
    erp: &Erp,
    table: &str,
    columns: &[Column],
    source: &Rows,
    staged: &Rows,
) -> Vec<String> {
    let mut found = Vec::new();
    for (key, row) in source {
        match staged.get(key) {
            None => found.push(format!("{table} {key:?}: missing in staging")),
            Some(other) => {
                for ((column, left), right) in columns.iter().zip(row).zip(other) {
                    if !same(erp, column.kind, left.as_deref(), right.as_deref()) {
                        found.push(format!(
                            "{table} {key:?}.{}: {left:?} is staged as {right:?}",
                            column.name
                        ));
                    }
                }
            }
        }
    }
    found.extend(
        staged
            .keys()
            .filter(|key| !source.contains_key(*key))
            .map(|key| format!("{table} {key:?}: extra")),
    );
    let all = found.len();
    found.truncate(5);
    if all > 5 {
        found.push(format!("{table}: {all} differences in {} rows", source.len()));
    }
    found
}

/// Equal texts, but for what has more than one text: floats are compared as numbers, SQLite's free forms by meaning.
fn same(erp: &Erp, kind: Kind, source: Option<&str>, staged: Option<&str>) -> bool {
    let (Some(source), Some(staged)) = (source, staged) else { return source == staged };
    let number = |text: &str| text.parse::<f64>().ok().map(f64::to_bits);
    match (kind, erp) {
        (Kind::Float, _) | (Kind::Decimal, Erp::Sqlite(_)) => number(source) == number(staged),
        (Kind::Bool, _) => truth(source) == truth(staged),
        (Kind::Timestamp, Erp::Sqlite(_)) => {
            source.replacen(' ', "T", 1) == staged.replacen(' ', "T", 1)
        }
        _ => source == staged,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}
