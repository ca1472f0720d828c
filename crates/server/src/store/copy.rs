//! Copy: a whole store out of a SQLite file into an empty PostgreSQL one, and the proof that it is the same.
//!
//! Promises: everything or nothing, in one transaction; each table's rows are read again from where they were written and
//! compared, as a count and a digest that the order of rows does not change.
//! Never: changes the file; writes into a store that somebody has used.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use protocol::{Code, Error, Result};
use runtime::postgres::Address;
use rusqlite::Connection;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio_postgres::types::Type;

use super::{
    Whose,
    audit::{self, Deed},
    failed, is_current,
    postgres::{self, Room, Session, Way, in_transaction},
    sql::{Cell, Tx, cells_of_sqlite},
    sqlite,
};

/// A table that was copied.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Copied {
    pub table: String,
    pub rows: u64,
}

/// How many rows there are and what they are, whatever their order.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::store) struct Digest {
    rows: u64,
    sum: u128,
}

impl Digest {
    pub(in crate::store) fn add<'c>(&mut self, cells: impl Iterator<Item = Cell<'c>>) {
        let mut hasher = Sha256::new();
        for cell in cells {
            let number;
            let (kind, bytes): (u8, &[u8]) = match cell {
                Cell::Null(_) => (0, &[]),
                Cell::Bool(value) => {
                    number = i64::from(value).to_be_bytes();
                    (1, &number)
                }
                Cell::Int(value) => {
                    number = value.to_be_bytes();
                    (1, &number)
                }
                Cell::Text(value) => (2, value.as_bytes()),
                Cell::Blob(value) => (3, value),
            };
            hasher.update([kind]);
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        }
        let hash = hasher.finalize();
        let part = hash.first_chunk().map_or(0, |part| u128::from_be_bytes(*part));
        self.rows += 1;
        self.sum = self.sum.wrapping_add(part);
    }
}

/// A table as both schemas have it.
struct Table {
    name: String,
    columns: Vec<(String, Type)>,
    /// The column that numbers its rows by itself.
    identity: Option<String>,
}

/// What a server that was started on an empty store has made in it by itself: it gives way to what is copied.
const MADE_AT_START: [&str; 2] = ["retention_look", "signing_key"];

/// Copies the store of that file. No server may run on it.
///
/// # Errors
/// `STORE_VERSION` where one of both schemas is not current, `ALREADY_EXISTS` where the database holds a store,
/// `STORE_FAILED`, `DISK_FULL`; then the database is as it was.
pub async fn copy(from: &Path, to: &Address, who: &str) -> Result<Vec<Copied>> {
    let (session, from, who) = (ready(from, to).await?, from.to_owned(), who.to_owned());
    runtime::task::blocking(move || {
        in_transaction(&session, Way::Write, &Room::Store(Whose::All), |tx| {
            let copied = copy_all(&from, &session, tx)?;
            let rows: u64 = copied.iter().map(|copied| copied.rows).sum();
            let deed = Deed::global("store.copy", from.display());
            audit::note(tx, &who, deed.with(format!("{rows} rows")))?;
            Ok(copied)
        })
    })
    .await?
}

/// What [`copy`] would copy.
///
/// # Errors
/// As [`copy`], which it foresees as far as a look can tell.
pub async fn foreseen(from: &Path, to: &Address) -> Result<Vec<Copied>> {
    let (session, from) = (ready(from, to).await?, from.to_owned());
    runtime::task::blocking(move || {
        in_transaction(&session, Way::Read, &Room::Store(Whose::All), |tx| {
            let tables = tables(tx)?;
            made_at_start(tx, &tables)?;
            let file = sqlite::connect(&from, true)?;
            file.execute_batch("BEGIN").map_err(sqlite::failed)?;
            let file = Tx::sqlite(&file);
            let counted = |Table { name: table, .. }: Table| {
                let sql = format!("SELECT count(*) FROM {table}");
                let rows = file.query_row(&sql, [], |row| row.get::<i64>(0)).map_err(failed)?;
                Ok(Copied { table, rows: rows.unsigned_abs() })
            };
            tables.into_iter().map(counted).collect()
        })
    })
    .await?
}

/// A connection to the database, where both schemas are current.
async fn ready(from: &Path, to: &Address) -> Result<Session> {
    is_current(sqlite::state(from)?).map_err(|error| error.at(from.display()))?;
    is_current(postgres::state(to).await?).map_err(|error| error.at(to))?;
    Session::open(to).await
}

/// Tables of a store that nobody has used yet, with what a start left in them.
fn made_at_start<'t>(tx: &Tx<'_>, tables: &'t [Table]) -> Result<Vec<&'t Table>> {
    let mut made = Vec::new();
    for table in tables {
        let sql = format!("SELECT EXISTS (SELECT 1 FROM {})", table.name);
        if !tx.query_row(&sql, [], |row| row.get::<bool>(0)).map_err(failed)? {
            continue;
        }
        if !MADE_AT_START.contains(&table.name.as_str()) {
            let words = format!(
                "the database holds a store already, table {} has rows; copy into a new database",
                table.name
            );
            return Err(Error::new(Code::AlreadyExists, words));
        }
        made.push(table);
    }
    Ok(made)
}

fn copy_all(from: &Path, session: &Session, tx: &Tx<'_>) -> Result<Vec<Copied>> {
    let tables = tables(tx)?;
    for table in made_at_start(tx, &tables)? {
        tx.execute(&format!("DELETE FROM {}", table.name), []).map_err(failed)?;
    }
    let file = sqlite::connect(from, true)?;
    file.execute_batch("BEGIN").map_err(sqlite::failed)?;
    tables.into_iter().map(|table| copy_table(&file, (session, tx), table)).collect()
}

fn copy_table(
    file: &Connection,
    (session, tx): (&Session, &Tx<'_>),
    table: Table,
) -> Result<Copied> {
    let names = table.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let select = format!("SELECT {names} FROM {}", table.name);
    let into = format!("COPY {} ({names}) FROM STDIN BINARY", table.name);
    let types: Vec<Type> = table.columns.iter().map(|(_, kind)| kind.clone()).collect();
    let mut written = Digest::default();
    let mut statement = file.prepare(&select).map_err(sqlite::failed)?;
    let mut rows = statement.query([]).map_err(sqlite::failed)?;
    // COPY is not for tables whose policies hold for their owner too; in this transaction they do not.
    let forced = |word: &str| {
        let sql = format!("ALTER TABLE {} {word} ROW LEVEL SECURITY", table.name);
        session.batch(&sql).map_err(failed)
    };
    let is_forced = of_tenants(tx, &table.name)?;
    if is_forced {
        forced("NO FORCE")?;
    }
    session
        .copy_in(&into, &types, |write| {
            while let Some(row) = rows.next().map_err(super::sql::SqlError::Sqlite)? {
                let cells = cells_of_sqlite(row, types.len())?;
                written.add(cells.iter().copied());
                write(&cells)?;
            }
            Ok(())
        })
        .map_err(failed)?;
    if is_forced {
        forced("FORCE")?;
    }
    let read = session.digest(&select).map_err(failed)?;
    if read != written {
        let words = format!(
            "table {} is not the same behind the copy: {} rows were written, {} are there",
            table.name, written.rows, read.rows
        );
        return Err(Error::new(Code::StoreFailed, words));
    }
    if let Some(column) = &table.identity {
        let sql = format!(
            "SELECT setval(pg_get_serial_sequence('{}', '{column}'), max({column})) FROM {}",
            table.name, table.name
        );
        tx.query_row(&sql, [], |_| Ok(())).map_err(failed)?;
    }
    Ok(Copied { table: table.name, rows: written.rows })
}

/// Whether a table's rows belong to tenants.
fn of_tenants(tx: &Tx<'_>, table: &str) -> Result<bool> {
    let sql =
        "SELECT c.relforcerowsecurity FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'malote' AND c.relname = ?1";
    tx.query_row(sql, [table], |row| row.get(0)).map_err(failed)
}

/// The tables of the store, each behind those that it refers to.
fn tables(tx: &Tx<'_>) -> Result<Vec<Table>> {
    let sql = "SELECT table_name::text, column_name::text, data_type::text, is_identity = 'YES'
                 FROM information_schema.columns
                WHERE table_schema = 'malote' AND table_name <> 'migration' ORDER BY table_name, ordinal_position";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let columns = statement.query_map([], |row| {
        Ok((
            row.get::<String>(0)?,
            row.get::<String>(1)?,
            row.get::<String>(2)?,
            row.get::<bool>(3)?,
        ))
    });
    let mut tables: BTreeMap<String, Table> = BTreeMap::new();
    for (name, column, kind, numbers) in columns.map_err(failed)? {
        let table = tables.entry(name.clone()).or_insert_with(|| Table {
            name,
            columns: Vec::new(),
            identity: None,
        });
        let kind = match kind.as_str() {
            "bigint" => Type::INT8,
            "bytea" => Type::BYTEA,
            _ => Type::TEXT,
        };
        if numbers {
            table.identity = Some(column.clone());
        }
        table.columns.push((column, kind));
    }
    let sql = "SELECT c.relname::text, r.relname::text FROM pg_constraint k
                 JOIN pg_class c ON c.oid = k.conrelid JOIN pg_class r ON r.oid = k.confrelid
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE k.contype = 'f' AND n.nspname = 'malote' AND c.oid <> r.oid";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let refers = statement.query_map([], |row| Ok((row.get::<String>(0)?, row.get::<String>(1)?)));
    let mut waits: BTreeSet<(String, String)> = refers.map_err(failed)?.into_iter().collect();
    let mut ordered = Vec::new();
    while !tables.is_empty() {
        let free = tables.keys().find(|name| waits.iter().all(|(from, _)| from != *name)).cloned();
        let Some(name) = free else {
            return Err(Error::new(
                Code::Internal,
                "tables of the store refer to each other in a ring",
            ));
        };
        waits.retain(|(_, to)| *to != name);
        ordered.extend(tables.remove(&name));
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_rows_and_not_their_order() {
        let of = |rows: &[[Cell<'_>; 2]]| {
            let mut digest = Digest::default();
            rows.iter().for_each(|row| digest.add(row.iter().copied()));
            digest
        };
        let (a, b) = ([Cell::Int(1), Cell::Text("x")], [Cell::Int(2), Cell::Blob(b"x")]);
        assert_eq!(of(&[a, b]), of(&[b, a]));
        assert_ne!(of(&[a, a]), of(&[a, b]));
        assert_ne!(of(&[a]), of(&[[Cell::Text("1"), Cell::Text("x")]]), "a shape is told apart");
        assert_ne!(
            of(&[[Cell::Text("ab"), Cell::Text("c")]]),
            of(&[[Cell::Text("a"), Cell::Text("bc")]])
        );
    }

    #[tokio::test]
    async fn a_store_goes_over_whole_and_goes_on_there_and_not_into_one_that_is_taken() {
        use crate::{
            model::{
                admin::AuditQuery,
                catalog::{At, Environment, EnvironmentType, Page, Tenant},
            },
            store::{Store, trial},
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.sqlite");
        sqlite::migrate(&path).unwrap();
        let file = Store::open(&path).unwrap().by("ana");
        for number in 1..=3 {
            let id = protocol::ids::TenantId(uuid::Uuid::from_u128(number));
            let tenant = Tenant { id, name: format!("Loja {number} ação"), created_at: At(1) };
            file.add_tenant(tenant).await.unwrap();
            let id_of = protocol::ids::EnvironmentId(uuid::Uuid::from_u128(10 + number));
            let kind = EnvironmentType::Production;
            let environment =
                Environment { tenant: id, id: id_of, name: "prod".into(), kind, created_at: At(1) };
            file.add_environment(environment).await.unwrap();
        }
        let service = trial::apart(trial::made);
        let address = trial::owner_of(&service);
        // As a server leaves an empty store that it was started on.
        let database = trial::Database::Server(Box::new(service));
        database.run("INSERT INTO signing_key VALUES (repeat('k', 32), 'x', 'x', 1, NULL)");
        let foreseen = foreseen(&path, &address).await.unwrap();
        assert_eq!(database.first("SELECT count(*) FROM tenant").unwrap(), "0");
        let copied = copy(&path, &address, "ana").await.unwrap();
        assert_eq!(foreseen, copied);
        assert_eq!(database.first("SELECT count(*) FROM signing_key").unwrap(), "0");
        let rows = |table: &str| copied.iter().find(|copied| copied.table == table).unwrap().rows;
        assert_eq!((rows("tenant"), rows("environment"), rows("audit")), (3, 3, 6), "{copied:?}");
        let there = Store::connect(address.clone()).await.unwrap().by("ana");
        let page = || Page { limit: 10, ..Page::default() };
        assert_eq!(there.tenants(page()).await.unwrap(), file.tenants(page()).await.unwrap());
        assert_eq!(there.first_broken_audit().await.unwrap(), None);
        let id = protocol::ids::TenantId(uuid::Uuid::from_u128(1));
        there.rename_tenant(id, "Other".into()).await.unwrap();
        let newest = there.audit(AuditQuery { limit: 2, ..AuditQuery::default() }).await.unwrap();
        assert_eq!((newest[1].seq, newest[1].action.as_str()), (7, "store.copy"), "{newest:?}");
        assert_eq!(newest[0].seq, 8, "numbers go on behind those that came");
        assert_eq!(there.first_broken_audit().await.unwrap(), None);
        let refused = copy(&path, &address, "ana").await.unwrap_err();
        assert_eq!(refused.code, Code::AlreadyExists);
        let refused = super::foreseen(&path, &address).await.unwrap_err();
        assert_eq!(refused.code, Code::AlreadyExists);
    }
}
