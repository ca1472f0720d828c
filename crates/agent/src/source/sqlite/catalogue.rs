//! Catalogue of a SQLite file.
//!
//! Never: trusts a declared type for a value; it only says how values are read (`cell`).

use protocol::{
    Code, Error, Result,
    value::{ColumnType, TypeName},
};
use rusqlite::{Connection, OptionalExtension as _};

use super::{
    super::catalogue::{Found, FoundColumn, fingerprint},
    fault,
};

/// Tables and views, Malote's and SQLite's own left out.
pub(super) fn tables(connection: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') \
               AND name NOT LIKE 'sqlite#_%' ESCAPE '#' AND lower(name) <> 'malote_identity' ORDER BY name";
    list(connection, sql, [])
}

/// The table of that name: in that case, else in any case where there is one.
pub(super) fn find(connection: &Connection, name: &str) -> Result<String> {
    let sql = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') \
               AND lower(name) = lower(?1) ORDER BY name <> ?1";
    let mut names = list(connection, sql, [name])?;
    if names.is_empty() {
        return Err(Error::new(Code::TableMissing, format!("there is no table {name}")));
    }
    Ok(names.swap_remove(0))
}

pub(super) fn fingerprint_of(connection: &Connection, table: &str) -> Result<Option<[u8; 16]>> {
    let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema \
               WHERE lower(tbl_name) = lower(?1) AND type <> 'trigger' ORDER BY 1";
    let parts = list(connection, sql, [table])?;
    Ok((!parts.is_empty()).then(|| fingerprint(parts.iter().map(String::as_str))))
}

pub(super) fn load(connection: &Connection, table: &str) -> Result<Found> {
    let print = fingerprint_of(connection, table)?
        .ok_or_else(|| Error::new(Code::TableMissing, format!("there is no table {table}")))?;
    let mut statement = connection
        .prepare("SELECT name, type, \"notnull\", pk FROM pragma_table_xinfo(?1) WHERE hidden <> 1 ORDER BY cid")
        .map_err(fault)?;
    let rows = statement.query_map([table], |row| {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get::<_, bool>(2)?,
            row.get::<_, i64>(3)?,
        ))
    });
    let columns: Vec<_> = rows.map_err(fault)?.collect::<rusqlite::Result<_>>().map_err(fault)?;
    let mut primary: Vec<(i64, String)> = columns
        .iter()
        .filter(|(.., place)| *place > 0)
        .map(|(name, _, _, place)| (*place, name.clone()))
        .collect();
    primary.sort();
    let row_id = primary.len() == 1;
    let columns = columns
        .into_iter()
        .map(|(name, declared, not_null, place)| {
            let is_row_id = row_id && place > 0 && declared.eq_ignore_ascii_case("integer");
            column(name, declared, !(not_null || is_row_id))
        })
        .collect();
    Ok(Found {
        schema: None,
        table: table.to_owned(),
        columns,
        primary: primary.into_iter().map(|(_, name)| name).collect(),
        unique: unique(connection, table)?,
        fingerprint: print,
    })
}

/// The id that somebody gave the database in table `malote_identity`.
pub(super) fn random_id(connection: &Connection) -> Result<Option<String>> {
    let sql =
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND lower(name) = 'malote_identity'";
    if list(connection, sql, [])?.is_empty() {
        return Ok(None);
    }
    let read =
        connection.query_row("SELECT random_id FROM malote_identity LIMIT 1", [], |row| row.get(0));
    read.optional().map_err(fault)
}

fn unique(connection: &Connection, table: &str) -> Result<Vec<(String, Vec<String>)>> {
    let sql =
        "SELECT name FROM pragma_index_list(?1) WHERE \"unique\" = 1 AND partial = 0 ORDER BY name";
    let mut indexes = Vec::new();
    for index in list(connection, sql, [table])? {
        let sql = "SELECT coalesce(name, '') FROM pragma_index_info(?1) ORDER BY seqno";
        let columns = list(connection, sql, [index.as_str()])?;
        if !columns.iter().any(String::is_empty) {
            indexes.push((index, columns));
        }
    }
    Ok(indexes)
}

fn list<P: rusqlite::Params>(connection: &Connection, sql: &str, params: P) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sql).map_err(fault)?;
    let rows = statement.query_map(params, |row| row.get(0)).map_err(fault)?;
    rows.collect::<rusqlite::Result<_>>().map_err(fault)
}

fn column(name: String, declared: String, nullable: bool) -> FoundColumn {
    let column_type = type_of(&declared);
    let stamp_unfit = match column_type {
        ColumnType::String | ColumnType::Long | ColumnType::Decimal => {
            declared.eq_ignore_ascii_case("date").then_some("a date alone is too coarse")
        }
        _ => Some("a stamp is a text 'YYYY-MM-DD HH:MM:SS' or an integer epoch"),
    };
    let key_unfit = declared.trim().is_empty().then_some("it has no declared type");
    FoundColumn {
        name,
        type_name: TypeName::plain(column_type),
        native: declared,
        native_id: 0,
        nullable,
        stamp_unfit,
        key_unfit,
    }
}

/// Type by the declaration's words, in the order in which SQLite itself looks at them.
pub(super) fn type_of(declared: &str) -> ColumnType {
    let upper = declared.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| upper.contains(word));
    if has(&["BOOL"]) {
        ColumnType::Boolean
    } else if has(&["INT"]) {
        ColumnType::Long
    } else if has(&["CHAR", "CLOB", "TEXT"]) {
        ColumnType::String
    } else if has(&["BLOB", "BINARY"]) {
        ColumnType::Base64
    } else if has(&["REAL", "FLOA", "DOUB"]) {
        ColumnType::Double
    } else if has(&["DEC", "NUM", "MONEY"]) {
        ColumnType::Decimal
    } else {
        ColumnType::String
    }
}
