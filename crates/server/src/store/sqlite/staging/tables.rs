//! Tables: what a staging file's tables look like, and their DDL.
//!
//! Promises: columns only appear; a column whose kind changes becomes text in canonical form, so that no value is lost.
//! Never: runs DDL from a name that was not quoted.

use std::collections::HashMap;

use protocol::{
    Code, Error, Result,
    ids::AcceptSeq,
    names::{DELETED, TableName},
    value::{ColumnType, TypeName},
    wire::TableView,
};
use rusqlite::{Connection, OptionalExtension as _, params, types::ValueRef};

use super::failed;
use crate::model::schema::{self, Storage};

/// A staging table as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedTable {
    pub name: TableName,
    /// Folded, in key order.
    pub key: Vec<String>,
    pub columns: Vec<StagedColumn>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedColumn {
    /// In the spelling that came first.
    pub name: String,
    pub folded: String,
    pub type_name: TypeName,
    pub storage: Storage,
}

impl StagedTable {
    /// Position of a column by its folded name.
    #[must_use]
    pub fn position(&self, folded: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.folded == folded)
    }

    /// Quoted for SQL.
    #[must_use]
    pub fn quoted(&self) -> String {
        quote(self.name.folded())
    }

    /// The columns, quoted, each with a comma before it.
    #[must_use]
    pub fn list(&self) -> String {
        self.columns.iter().map(|column| format!(", {}", quote(&column.name))).collect()
    }
}

/// An identifier for SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

const fn storage_name(storage: Storage) -> &'static str {
    match storage {
        Storage::Integer => "integer",
        Storage::Boolean => "boolean",
        Storage::Base64 => "base64",
        Storage::Text => "text",
    }
}

fn storage_of(name: &str) -> Storage {
    [Storage::Integer, Storage::Boolean, Storage::Base64]
        .into_iter()
        .find(|storage| storage_name(*storage) == name)
        .unwrap_or(Storage::Text)
}

/// All tables of a file, by name.
pub(super) fn all(connection: &Connection) -> Result<Vec<StagedTable>> {
    let mut statement = connection
        .prepare_cached("SELECT name FROM malote_tables ORDER BY name_folded")
        .map_err(failed)?;
    let names = statement.query_map([], |row| row.get::<_, String>(0)).map_err(failed)?;
    let mut tables = Vec::new();
    for name in names {
        if let Some(table) = find(connection, &name.map_err(failed)?.parse()?)? {
            tables.push(table);
        }
    }
    Ok(tables)
}

/// One table.
pub(super) fn find(connection: &Connection, name: &TableName) -> Result<Option<StagedTable>> {
    let found: Option<(String, String)> = connection
        .prepare_cached("SELECT name, key_columns FROM malote_tables WHERE name_folded = ?1")
        .map_err(failed)?
        .query_row([name.folded()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
        .map_err(failed)?;
    let Some((given, key)) = found else { return Ok(None) };
    let sql = "SELECT name, name_folded, type, storage FROM malote_columns WHERE table_folded = ?1 ORDER BY position";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let columns = statement
        .query_map([name.folded()], |row| {
            Ok(StagedColumn {
                name: row.get(0)?,
                folded: row.get(1)?,
                type_name: TypeName::parse(&row.get::<_, String>(2)?),
                storage: storage_of(&row.get::<_, String>(3)?),
            })
        })
        .map_err(failed)?;
    let columns = columns.collect::<rusqlite::Result<_>>().map_err(failed)?;
    let key = serde_json::from_str(&key).unwrap_or_default();
    Ok(Some(StagedTable { name: given.parse()?, key, columns }))
}

/// The table as a message needs it: made, or with columns added and widened.
pub(super) fn ensure(
    connection: &Connection,
    checked: &schema::Checked,
    view: &TableView<'_>,
    known: Option<StagedTable>,
) -> Result<StagedTable> {
    let mut table = match known {
        Some(table) => table,
        None => create(connection, checked)?,
    };
    let mut at: HashMap<String, usize> =
        table.columns.iter().enumerate().map(|(at, column)| (column.folded.clone(), at)).collect();
    for (name, type_text) in &view.schema.columns {
        let type_name = TypeName::parse(type_text);
        match at.get(&name.to_ascii_lowercase()) {
            Some(found) => {
                if let Some(column) = table.columns.get(*found).cloned() {
                    let column = retype(connection, &table, column, type_name)?;
                    table.columns.splice(found..=found, [column]);
                }
            }
            None => add(connection, &mut table, &mut at, (name, type_name))?,
        }
    }
    for name in unlisted(view) {
        if !at.contains_key(&name.to_ascii_lowercase()) {
            let type_name = TypeName::plain(ColumnType::String);
            add(connection, &mut table, &mut at, (name, type_name))?;
        }
    }
    Ok(table)
}

/// Columns that only rows have, as a flexible schema allows.
fn unlisted<'a>(view: &TableView<'a>) -> Vec<&'a str> {
    if !view.schema.flexible {
        return Vec::new();
    }
    let mut found: Vec<&str> = Vec::new();
    for cell in view.rows().flatten().filter(|cell| cell.column.is_none()) {
        if !cell.name.eq_ignore_ascii_case(DELETED) && !found.contains(&cell.name) {
            found.push(cell.name);
        }
    }
    found
}

fn create(connection: &Connection, checked: &schema::Checked) -> Result<StagedTable> {
    let table =
        StagedTable { name: checked.table.clone(), key: checked.key.clone(), columns: Vec::new() };
    run(
        connection,
        &format!(
            "CREATE TABLE {} (_key BLOB NOT NULL PRIMARY KEY, _seq INTEGER NOT NULL, _deleted INTEGER NOT NULL,
                              _batch INTEGER NOT NULL, _message INTEGER NOT NULL) STRICT",
            table.quoted()
        ),
    )?;
    index_tombstones(connection, &table)?;
    let key = serde_json::Value::from(table.key.clone()).to_string();
    connection
        .execute(
            "INSERT INTO malote_tables (name_folded, name, key_columns) VALUES (?1, ?2, ?3)",
            params![table.name.folded(), table.name.as_str(), key],
        )
        .map_err(failed)?;
    Ok(table)
}

/// Retention finds tombstones by it; live rows are not in it, so that loads do not pay for it.
pub(super) fn index_tombstones(connection: &Connection, table: &StagedTable) -> Result<()> {
    let index = quote(&format!("malote_deleted_{}", table.name.folded()));
    let sql = format!(
        "CREATE INDEX IF NOT EXISTS {index} ON {} (_seq) WHERE _deleted = 1",
        table.quoted()
    );
    run(connection, &sql)
}

/// Adds the columns that a table lacks; those it has stay as they are.
pub(super) fn extend<'a>(
    connection: &Connection,
    table: &mut StagedTable,
    columns: impl Iterator<Item = (&'a str, TypeName)>,
) -> Result<()> {
    let mut at: HashMap<String, usize> =
        table.columns.iter().enumerate().map(|(at, column)| (column.folded.clone(), at)).collect();
    for (name, type_name) in columns {
        if !name.eq_ignore_ascii_case(DELETED) && !at.contains_key(&name.to_ascii_lowercase()) {
            add(connection, table, &mut at, (name, type_name))?;
        }
    }
    Ok(())
}

/// Where the table's memory begins: of rows accepted before, what is staged cannot tell whether they are the newest.
pub(super) fn floor(connection: &Connection, table: &TableName) -> Result<AcceptSeq> {
    let sql = "SELECT floor_seq FROM malote_tables WHERE name_folded = ?1";
    let found = connection
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row([table.folded()], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    Ok(AcceptSeq(found.unwrap_or(0)))
}

/// See [`floor`]; it only rises.
pub(super) fn raise_floor(connection: &Connection, table: &TableName, to: AcceptSeq) -> Result<()> {
    let sql = "UPDATE malote_tables SET floor_seq = max(floor_seq, ?2) WHERE name_folded = ?1";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    statement.execute(params![table.folded(), to.0]).map_err(failed)?;
    Ok(())
}

/// Takes a table away, for a rebuild under another key.
pub(super) fn forget(connection: &Connection, table: &TableName) -> Result<()> {
    run(connection, &format!("DROP TABLE IF EXISTS {}", quote(table.folded())))?;
    for sql in [
        "DELETE FROM malote_columns WHERE table_folded = ?1",
        "DELETE FROM malote_tables WHERE name_folded = ?1",
    ] {
        connection.execute(sql, [table.folded()]).map_err(failed)?;
    }
    Ok(())
}

fn add(
    connection: &Connection,
    table: &mut StagedTable,
    at: &mut HashMap<String, usize>,
    (name, type_name): (&str, TypeName),
) -> Result<()> {
    let folded = name.to_ascii_lowercase();
    let column = StagedColumn {
        name: name.to_owned(),
        folded: folded.clone(),
        type_name,
        storage: Storage::of(type_name),
    };
    let position = table.columns.len();
    alter(connection, table, &format!("ADD COLUMN {} {}", quote(name), column.storage.sqlite()))?;
    connection
        .execute(
            "INSERT INTO malote_columns (table_folded, position, name_folded, name, type, storage)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                table.name.folded(),
                i64::try_from(position).unwrap_or(i64::MAX),
                folded,
                name,
                type_name.to_string(),
                storage_name(column.storage)
            ],
        )
        .map_err(failed)?;
    table.columns.push(column);
    at.insert(folded, position);
    Ok(())
}

fn retype(
    connection: &Connection,
    table: &StagedTable,
    mut column: StagedColumn,
    type_name: TypeName,
) -> Result<StagedColumn> {
    if column.type_name == type_name {
        return Ok(column);
    }
    column.type_name = type_name;
    if column.storage != Storage::Text && column.storage != Storage::of(type_name) {
        widen(connection, table, &column)?;
        column.storage = Storage::Text;
    }
    connection
        .execute(
            "UPDATE malote_columns SET type = ?3, storage = ?4 WHERE table_folded = ?1 AND name_folded = ?2",
            params![table.name.folded(), column.folded, type_name.to_string(), storage_name(column.storage)],
        )
        .map_err(failed)?;
    Ok(column)
}

/// Turns a typed column into text; its values keep their canonical form.
fn widen(connection: &Connection, table: &StagedTable, column: &StagedColumn) -> Result<()> {
    // No column of an ERP is named so: names hold no control characters.
    let spare = &quote("\u{1}widened");
    let (old, whole) = (quote(&column.name), table.quoted());
    alter(connection, table, &format!("ADD COLUMN {spare} TEXT"))?;
    {
        let mut read = connection
            .prepare(&format!("SELECT _key, {old} FROM {whole} WHERE {old} IS NOT NULL"))
            .map_err(failed)?;
        let mut write = connection
            .prepare(&format!("UPDATE {whole} SET {spare} = ?2 WHERE _key = ?1"))
            .map_err(failed)?;
        let mut rows = read.query([]).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let text = canonical(column.storage, row.get_ref(1).map_err(failed)?);
            write
                .execute(params![row.get::<_, Vec<u8>>(0).map_err(failed)?, text])
                .map_err(failed)?;
        }
    }
    alter(connection, table, &format!("DROP COLUMN {old}"))?;
    alter(connection, table, &format!("RENAME COLUMN {spare} TO {old}"))
}

/// The canonical text of a stored value; `None` where NULL.
pub(super) fn canonical(storage: Storage, value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(integer) => Some(schema::unfit(storage, integer)),
        ValueRef::Blob(bytes) => Some(schema::unfit_blob(bytes)),
        ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Real(real) => Some(real.to_string()),
    }
}

fn alter(connection: &Connection, table: &StagedTable, change: &str) -> Result<()> {
    run(connection, &format!("ALTER TABLE {} {change}", table.quoted()))
}

fn run(connection: &Connection, sql: &str) -> Result<()> {
    connection.execute(sql, []).map(|_| ()).map_err(|cause| {
        if is_fatal(&cause) {
            failed(cause)
        } else {
            unfit("the table cannot take this shape").because(cause)
        }
    })
}

/// Whether a database error is the machine's and not the row's: the whole message waits and is tried again.
pub(super) fn is_fatal(cause: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{
        ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch, Unknown,
    };
    !matches!(
        cause.sqlite_error_code(),
        Some(ConstraintViolation | ParameterOutOfRange | TooBig | TypeMismatch | Unknown)
    )
}

pub(super) fn unfit(words: &str) -> Error {
    Error::new(Code::ValueUnfit, words)
}
