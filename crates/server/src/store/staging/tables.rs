//! Tables: what the tables of a staging space look like, and their DDL.
//!
//! Promises: columns only appear; a column whose kind changes becomes text in canonical form, so that no value is lost.
//! Never: runs DDL from a name that was not quoted.

use std::collections::{BTreeSet, HashMap};

use super::{
    SpaceTx,
    dialect::{Dialect, quote},
    image::unfit,
};
use crate::{
    model::schema::{self, Storage, fit},
    store::sql::{Cell, Optional as _, Row, SqlError, failed, params},
};
use protocol::{
    Error, Result,
    ids::AcceptSeq,
    names::{DELETED, TableName},
    value::{ColumnType, TypeName},
    wire::{Cell as Sent, TableView},
};

/// A staging table as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StagedTable {
    pub name: TableName,
    /// Folded, in key order.
    pub key: Vec<String>,
    pub columns: Vec<StagedColumn>,
    pub(super) dialect: Dialect,
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

    /// As statements name it.
    #[must_use]
    pub(super) fn quoted(&self) -> String {
        self.dialect.relation(self.name.folded())
    }

    /// The columns as they are written, each with a comma before it.
    #[must_use]
    pub(super) fn list(&self) -> String {
        self.columns.iter().map(|column| format!(", {}", self.column(column))).collect()
    }

    /// The columns as they are read, each with a comma before it.
    #[must_use]
    pub(super) fn told(&self) -> String {
        self.columns.iter().map(|column| format!(", {}", self.dialect.told(column))).collect()
    }

    pub(super) fn column(&self, column: &StagedColumn) -> String {
        self.dialect.column(&column.name)
    }
}

fn storage_of(name: &str) -> Storage {
    let known = Storage::ALL.into_iter().find(|storage| storage.as_str() == name);
    known.unwrap_or(Storage::Text)
}

/// All tables of a space, by name.
pub(super) fn all(tx: &SpaceTx<'_>) -> Result<Vec<StagedTable>> {
    let sql = "SELECT name FROM malote_tables ORDER BY name_folded";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let names = statement.query_map([], |row| row.get::<String>(0)).map_err(failed)?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        tables.extend(find(tx, &name.parse()?)?);
    }
    Ok(tables)
}

/// One table.
pub(super) fn find(tx: &SpaceTx<'_>, name: &TableName) -> Result<Option<StagedTable>> {
    let sql = "SELECT name, key_columns FROM malote_tables WHERE name_folded = ?1";
    let read = |row: &Row<'_>| Ok((row.get::<String>(0)?, row.get::<String>(1)?));
    let found = tx.query_row(sql, [name.folded()], read).optional().map_err(failed)?;
    let Some((given, key)) = found else { return Ok(None) };
    let sql = "SELECT name, name_folded, type, storage FROM malote_columns WHERE table_folded = ?1 ORDER BY position";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let columns = statement.query_map([name.folded()], |row| {
        Ok(StagedColumn {
            name: row.get(0)?,
            folded: row.get(1)?,
            type_name: TypeName::parse(&row.get::<String>(2)?),
            storage: storage_of(&row.get::<String>(3)?),
        })
    });
    let columns = columns.map_err(failed)?;
    let key = serde_json::from_str(&key).unwrap_or_default();
    Ok(Some(StagedTable { name: given.parse()?, key, columns, dialect: tx.dialect().clone() }))
}

/// The table as a message needs it: made, or with columns added and widened, so that every value fits that would not be
/// refused by the other engine too.
pub(super) fn ensure(
    tx: &SpaceTx<'_>,
    checked: &schema::Checked,
    view: &TableView<'_>,
    known: Option<StagedTable>,
) -> Result<StagedTable> {
    let mut table = match known {
        Some(table) => table,
        None => create(tx, checked)?,
    };
    let mut at: HashMap<String, usize> =
        table.columns.iter().enumerate().map(|(at, column)| (column.folded.clone(), at)).collect();
    for (name, type_text) in &view.schema.columns {
        let type_name = TypeName::parse(type_text);
        match at.get(&name.to_ascii_lowercase()) {
            Some(found) => retype(tx, &mut table, *found, type_name)?,
            None => add(tx, &mut table, &mut at, (name, type_name))?,
        }
    }
    for name in unlisted(view) {
        if !at.contains_key(&name.to_ascii_lowercase()) {
            let type_name = TypeName::plain(ColumnType::String);
            add(tx, &mut table, &mut at, (name, type_name))?;
        }
    }
    give_way(tx, &mut table, (&view.schema.columns, view.rows().flatten().copied()))?;
    Ok(table)
}

/// Makes texts of columns that a value does not fit, where the other engine keeps them as text in any case. `columns`
/// are those by which cells are numbered.
pub(super) fn give_way<'a>(
    tx: &SpaceTx<'_>,
    table: &mut StagedTable,
    cells: (&[(&str, &str)], impl Iterator<Item = Sent<'a>>),
) -> Result<()> {
    for place in misfits(table, cells) {
        widen(tx, table, place)?;
    }
    Ok(())
}

/// Places of the columns that [`give_way`] makes texts of.
fn misfits<'a>(
    table: &StagedTable,
    (columns, cells): (&[(&str, &str)], impl Iterator<Item = Sent<'a>>),
) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    if !table.columns.iter().any(|column| column.storage.gives_way()) {
        return found;
    }
    let place = |name: &str| table.position(&name.to_ascii_lowercase());
    let places: Vec<Option<usize>> = columns.iter().map(|(name, _)| place(name)).collect();
    for cell in cells {
        let place = match cell.column {
            Some(column) => places.get(usize::from(column)).copied().flatten(),
            None => place(cell.name),
        };
        let Some(place) = place else { continue };
        let storage = table.columns.get(place).map_or(Storage::Text, |column| column.storage);
        if storage.gives_way() && fit(storage, cell.value).is_none() {
            found.insert(place);
        }
    }
    found
}

/// Whether a message finds every column it needs as it is.
pub(super) fn is_ready(table: &StagedTable, view: &TableView<'_>) -> bool {
    let listed = view.schema.columns.iter().all(|(name, type_text)| {
        let found = table.columns.iter().find(|column| column.name.eq_ignore_ascii_case(name));
        found.is_some_and(|column| column.type_name == TypeName::parse(type_text))
    });
    let known = |name: &&str| table.position(&name.to_ascii_lowercase()).is_some();
    listed
        && unlisted(view).iter().all(known)
        && misfits(table, (&view.schema.columns, view.rows().flatten().copied())).is_empty()
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

fn create(tx: &SpaceTx<'_>, checked: &schema::Checked) -> Result<StagedTable> {
    let table = StagedTable {
        name: checked.table.clone(),
        key: checked.key.clone(),
        columns: Vec::new(),
        dialect: tx.dialect().clone(),
    };
    run(tx, &table.dialect.created(&table.quoted()))?;
    index_tombstones(tx, &table)?;
    let key = serde_json::Value::from(table.key.clone()).to_string();
    let sql = "INSERT INTO malote_tables (name_folded, name, key_columns) VALUES (?1, ?2, ?3)";
    tx.execute(sql, params![table.name.folded(), table.name.as_str(), key]).map_err(failed)?;
    Ok(table)
}

/// Retention finds tombstones by it; live rows are not in it, so that loads do not pay for it.
pub(super) fn index_tombstones(tx: &SpaceTx<'_>, table: &StagedTable) -> Result<()> {
    let dialect = &table.dialect;
    let index = dialect.index(format!("malote_deleted_{}", table.name.folded()));
    let (name, gone) = (table.quoted(), dialect.gone());
    run(tx, &format!("CREATE INDEX IF NOT EXISTS {index} ON {name} (_seq) WHERE {gone}"))
}

/// Adds the columns that a table lacks; those it has stay as they are.
pub(super) fn extend<'a>(
    tx: &SpaceTx<'_>,
    table: &mut StagedTable,
    columns: impl Iterator<Item = (&'a str, TypeName)>,
) -> Result<()> {
    let mut at: HashMap<String, usize> =
        table.columns.iter().enumerate().map(|(at, column)| (column.folded.clone(), at)).collect();
    for (name, type_name) in columns {
        if !name.eq_ignore_ascii_case(DELETED) && !at.contains_key(&name.to_ascii_lowercase()) {
            add(tx, table, &mut at, (name, type_name))?;
        }
    }
    Ok(())
}

/// Where the table's memory begins: of rows accepted before, what is staged cannot tell whether they are the newest.
pub(super) fn floor(tx: &SpaceTx<'_>, table: &TableName) -> Result<AcceptSeq> {
    let sql = "SELECT floor_seq FROM malote_tables WHERE name_folded = ?1";
    let found = tx.query_row(sql, [table.folded()], |row| row.get(0)).optional();
    Ok(AcceptSeq(found.map_err(failed)?.unwrap_or(0)))
}

/// See [`floor`]; it only rises.
pub(super) fn raise_floor(tx: &SpaceTx<'_>, table: &TableName, to: AcceptSeq) -> Result<()> {
    let sql = "UPDATE malote_tables SET floor_seq = ?2 WHERE name_folded = ?1 AND floor_seq < ?2";
    tx.execute(sql, params![table.folded(), to.0]).map_err(failed)?;
    Ok(())
}

/// Takes a table away, for a rebuild under another key.
pub(super) fn forget(tx: &SpaceTx<'_>, table: &TableName) -> Result<()> {
    run(tx, &format!("DROP TABLE IF EXISTS {}", tx.dialect().relation(table.folded())))?;
    for sql in [
        "DELETE FROM malote_columns WHERE table_folded = ?1",
        "DELETE FROM malote_tables WHERE name_folded = ?1",
    ] {
        tx.execute(sql, [table.folded()]).map_err(failed)?;
    }
    Ok(())
}

fn add(
    tx: &SpaceTx<'_>,
    table: &mut StagedTable,
    at: &mut HashMap<String, usize>,
    (name, type_name): (&str, TypeName),
) -> Result<()> {
    let folded = name.to_ascii_lowercase();
    let storage = Storage::of(type_name, table.dialect.engine());
    let column = StagedColumn { name: name.to_owned(), folded: folded.clone(), type_name, storage };
    let position = table.columns.len();
    let kind = table.dialect.type_name(storage);
    alter(tx, table, &format!("ADD COLUMN {} {kind}", table.column(&column)))?;
    let sql =
        "INSERT INTO malote_columns (table_folded, position, name_folded, name, type, storage)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![
        table.name.folded(),
        i64::try_from(position).unwrap_or(i64::MAX),
        folded,
        name,
        type_name.to_string(),
        storage.as_str()
    ];
    tx.execute(sql, values).map_err(failed)?;
    table.columns.push(column);
    at.insert(folded, position);
    Ok(())
}

fn retype(
    tx: &SpaceTx<'_>,
    table: &mut StagedTable,
    place: usize,
    type_name: TypeName,
) -> Result<()> {
    let engine = table.dialect.engine();
    let Some(column) = table.columns.get_mut(place) else { return Ok(()) };
    if column.type_name == type_name {
        return Ok(());
    }
    column.type_name = type_name;
    let storage = column.storage;
    if storage != Storage::Text && storage != Storage::of(type_name, engine) {
        return widen(tx, table, place);
    }
    note(tx, table, place)
}

/// Writes down how a column is kept by now.
fn note(tx: &SpaceTx<'_>, table: &StagedTable, place: usize) -> Result<()> {
    let Some(column) = table.columns.get(place) else { return Ok(()) };
    let sql = "UPDATE malote_columns SET type = ?3, storage = ?4 WHERE table_folded = ?1 AND name_folded = ?2";
    let values = params![
        table.name.folded(),
        column.folded,
        column.type_name.to_string(),
        column.storage.as_str()
    ];
    tx.execute(sql, values).map_err(failed)?;
    Ok(())
}

/// Turns a typed column into text; its values keep their canonical form.
fn widen(tx: &SpaceTx<'_>, table: &mut StagedTable, place: usize) -> Result<()> {
    let Some(column) = table.columns.get(place) else { return Ok(()) };
    match &table.dialect {
        Dialect::Sqlite => rewrite(tx, table, column)?,
        dialect @ Dialect::Postgres { .. } => {
            let (name, told) = (table.column(column), dialect.told(column));
            let text = match column.storage {
                // Its lines are broken after 76 characters.
                Storage::Base64 => format!("replace(encode({told}, 'base64'), E'\\n', '')"),
                _ => format!("{told}::text"),
            };
            alter(tx, table, &format!("ALTER COLUMN {name} TYPE text USING {text}"))?;
        }
    }
    if let Some(column) = table.columns.get_mut(place) {
        column.storage = Storage::Text;
    }
    note(tx, table, place)
}

/// As [`widen`], row by row.
fn rewrite(tx: &SpaceTx<'_>, table: &StagedTable, column: &StagedColumn) -> Result<()> {
    // No column of an ERP is named so: names hold no control characters.
    let spare = &quote("\u{1}widened");
    let (old, whole) = (table.column(column), table.quoted());
    alter(tx, table, &format!("ADD COLUMN {spare} TEXT"))?;
    {
        let read = format!("SELECT _key, {old} FROM {whole} WHERE {old} IS NOT NULL");
        let write = format!("UPDATE {whole} SET {spare} = ?2 WHERE _key = ?1");
        let mut read = tx.prepare(&read).map_err(failed)?;
        let mut write = tx.prepare(&write).map_err(failed)?;
        read.each([], |row| {
            let text = canonical(column.storage, row.cell(1)?);
            write.execute(params![row.get::<Vec<u8>>(0)?, text])?;
            Ok(true)
        })
        .map_err(failed)?;
    }
    alter(tx, table, &format!("DROP COLUMN {old}"))?;
    alter(tx, table, &format!("RENAME COLUMN {spare} TO {old}"))
}

/// The canonical text of a stored value; `None` where NULL.
pub(super) fn canonical(storage: Storage, value: Cell<'_>) -> Option<String> {
    match value {
        Cell::Null(_) => None,
        Cell::Bool(truth) => Some(schema::unfit(Storage::Boolean, i64::from(truth))),
        Cell::Int(integer) => Some(schema::unfit(storage, integer)),
        Cell::Blob(bytes) => Some(schema::unfit_blob(bytes)),
        Cell::Text(text) => Some(text.to_owned()),
    }
}

fn alter(tx: &SpaceTx<'_>, table: &StagedTable, change: &str) -> Result<()> {
    run(tx, &format!("ALTER TABLE {} {change}", table.quoted()))
}

fn run(tx: &SpaceTx<'_>, sql: &str) -> Result<()> {
    tx.batch(sql).map_err(|cause| refused(cause, "the table cannot take this shape"))
}

/// What a table did not take, in those words, unless the machine was at fault.
pub(super) fn refused(cause: SqlError, words: &str) -> Error {
    if cause.is_the_machines() { failed(cause) } else { unfit(words).because(cause) }
}
