//! Staging, store floor: one staging space per environment and ERP, with real typed tables (`design.md` 3.3): a SQLite
//! file, or a schema of the store's PostgreSQL database.
//!
//! Promises: rows and the apply cursor change in one transaction of the space; a row never goes back to an older image
//! (I7); a row that cannot be staged stands in quarantine and stops nothing; the space knows which ledger it was made from.
//! Never: holds what the ledger does not: a space that is lost, or of another ledger, is made again from it.

mod analysts;
mod apply;
mod dialect;
mod gather;
mod image;
mod quarantine;
mod read;
mod tables;
mod tombstones;
mod upsert;

use std::{
    collections::HashMap,
    ops::Deref,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use protocol::{
    Code, Coded as _, Result,
    ids::{AcceptSeq, BatchId, EnvironmentId},
    names::ErpName,
};
use runtime::failpoint;
use rusqlite::{Connection, TransactionBehavior};

pub use apply::Applied;
use dialect::Dialect;
pub use quarantine::{Held, Outcome, Quarantined, Retry, RowAt, Waiting, Which};
pub use read::{Span, StagedRow, Sum};
pub use tables::{StagedColumn, StagedTable};

use super::{
    Engine, Store,
    postgres::{Postgres, Room},
    sql::Tx,
    sqlite::{self, Asking, Cut, SqliteFile, shrink},
};

/// Relations of Malote's own in every staging space.
const OF_SQLITE: &str = include_str!("../../migrations/staging/sqlite.sql");
const OF_POSTGRES: &str = include_str!("../../migrations/staging/postgres.sql");

/// Columns that files of older programs lack.
const LATER: [(&str, &str, &str); 2] = [
    ("malote_tables", "floor_seq", "INTEGER NOT NULL DEFAULT 0"),
    ("malote_quarantine", "accept_seq", "INTEGER"),
];

type OpenSpaces = HashMap<(EnvironmentId, ErpName), Arc<Space>>;

/// The staging spaces of a store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Spaces {
    site: Site,
    open: Arc<Mutex<OpenSpaces>>,
}

/// Where spaces are.
#[derive(Clone, Debug)]
enum Site {
    /// Files below this folder.
    Files(PathBuf),
    Schemas(Arc<Postgres>),
}

/// One staging space.
#[derive(Debug)]
pub struct Space {
    home: Home,
    dialect: Dialect,
}

#[derive(Debug)]
enum Home {
    File(SqliteFile),
    Schema(Arc<Postgres>),
}

/// A transaction of a space.
#[derive(Clone, Copy)]
struct SpaceTx<'t> {
    tx: Tx<'t>,
    dialect: &'t Dialect,
}

impl<'t> Deref for SpaceTx<'t> {
    type Target = Tx<'t>;

    fn deref(&self) -> &Tx<'t> {
        &self.tx
    }
}

impl<'t> SpaceTx<'t> {
    const fn dialect(&self) -> &'t Dialect {
        self.dialect
    }
}

/// How far a space is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    pub applied: AcceptSeq,
    /// Newest complete batch that is staged whole; 0 = none.
    pub complete_batch: BatchId,
}

impl Spaces {
    /// Those of a store: beside its file, files in the data folder; in its database, schemas.
    #[must_use]
    pub fn of(store: &Store, data: &Path) -> Self {
        let site = match &store.engine {
            Engine::Sqlite(_) => Site::Files(data.join("staging")),
            Engine::Postgres(database) => Site::Schemas(Arc::clone(database)),
        };
        Self { site, open: Arc::default() }
    }

    /// Where the staging file of an environment and ERP lies in a data folder.
    #[must_use]
    pub fn path(data: &Path, environment: EnvironmentId, erp: &ErpName) -> PathBuf {
        file(&data.join("staging"), environment, erp)
    }

    /// The schema of an environment and ERP in a database.
    #[must_use]
    pub fn schema(environment: EnvironmentId, erp: &ErpName) -> String {
        match Dialect::postgres(environment, erp) {
            Dialect::Postgres { schema } => schema.to_string(),
            Dialect::Sqlite => String::new(),
        }
    }

    /// The space, made where it is not there yet.
    ///
    /// # Errors
    /// `STORE_FAILED` where it cannot be opened.
    pub async fn make(&self, environment: EnvironmentId, erp: &ErpName) -> Result<Arc<Space>> {
        let key = (environment, erp.clone());
        let database = match &self.site {
            Site::Schemas(database) => database,
            Site::Files(root) => {
                let (path, open) = (file(root, environment, erp), Arc::clone(&self.open));
                let make = move || {
                    // One at a time: a file has one writer.
                    let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(space) = open.get(&key) {
                        return Ok(Arc::clone(space));
                    }
                    let space = Arc::new(Space::open(&path)?);
                    open.insert(key, Arc::clone(&space));
                    Ok(space)
                };
                return runtime::task::blocking(make).await?;
            }
        };
        if let Some(space) = self.known(&key) {
            return Ok(space);
        }
        let space = Space::of_schema(database, environment, erp);
        space.prepare().await?;
        Ok(self.keep(key, space))
    }

    /// The space, if there is one.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub async fn find(
        &self,
        environment: EnvironmentId,
        erp: &ErpName,
    ) -> Result<Option<Arc<Space>>> {
        let database = match &self.site {
            Site::Files(root) if file(root, environment, erp).exists() => {
                return self.make(environment, erp).await.map(Some);
            }
            Site::Files(_) => return Ok(None),
            Site::Schemas(database) => database,
        };
        let key = (environment, erp.clone());
        if let Some(space) = self.known(&key) {
            return Ok(Some(space));
        }
        let space = Space::of_schema(database, environment, erp);
        Ok(space.is_made().await?.then(|| self.keep(key, space)))
    }

    fn known(&self, key: &(EnvironmentId, ErpName)) -> Option<Arc<Space>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    fn keep(&self, key: (EnvironmentId, ErpName), space: Space) -> Arc<Space> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(open.entry(key).or_insert_with(|| Arc::new(space)))
    }
}

fn file(root: &Path, environment: EnvironmentId, erp: &ErpName) -> PathBuf {
    // An ERP's name has letters, digits, '_' and '-' alone, so it is a file name.
    root.join(environment.to_string()).join(format!("{erp}.sqlite"))
}

impl Space {
    /// One of a database, made or not.
    fn of_schema(database: &Arc<Postgres>, environment: EnvironmentId, erp: &ErpName) -> Self {
        let home = Home::Schema(Arc::clone(database));
        Self { home, dialect: Dialect::postgres(environment, erp) }
    }

    fn open(path: &Path) -> Result<Self> {
        if let Some(folder) = path.parent() {
            runtime::files::folder(folder)
                .coded(Code::StoreFailed, "cannot make the staging folder")?;
        }
        let mut connection = sqlite::connect(path, false)?;
        prepare(&mut connection)?;
        drop(connection);
        Ok(Self { home: Home::File(SqliteFile::open(path)?), dialect: Dialect::Sqlite })
    }

    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SpaceTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let dialect = self.dialect.clone();
        match &self.home {
            Home::File(file) => {
                let work = move |tx: &rusqlite::Transaction<'_>| {
                    work(&SpaceTx { tx: Tx::sqlite(tx), dialect: &dialect })
                };
                file.write(work).await
            }
            Home::Schema(database) => {
                let room = Room::Space(self.schema());
                let work = move |tx: &Tx<'_>| work(&SpaceTx { tx: *tx, dialect: &dialect });
                Box::pin(database.write(room, work)).await
            }
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SpaceTx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_long(move |tx, _| work(tx)).await
    }

    /// As [`Self::read`], for work that looks now and then whether anybody still waits for it.
    async fn read_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SpaceTx<'_>, &Cut) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let dialect = self.dialect.clone();
        match &self.home {
            Home::File(file) => {
                let work = move |connection: &Connection, cut: &Cut| {
                    work(&SpaceTx { tx: Tx::sqlite(connection), dialect: &dialect }, cut)
                };
                file.read_long(work).await
            }
            Home::Schema(database) => {
                let room = Room::Space(self.schema());
                // Dropped with this call, however it ends.
                let asking = Asking::default();
                let cut = asking.cut();
                let work = move |tx: &Tx<'_>| work(&SpaceTx { tx: *tx, dialect: &dialect }, &cut);
                Box::pin(database.read(room, work)).await
            }
        }
    }

    /// Gives some free pages back to the file system; `false` where there are none, or where the database sees to it.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shrink_step(&self) -> Result<bool> {
        match &self.home {
            Home::File(file) => file.write(shrink).await,
            Home::Schema(_) => Ok(false),
        }
    }

    /// Name of its schema; empty of a file.
    fn schema(&self) -> Arc<str> {
        match &self.dialect {
            Dialect::Sqlite => "".into(),
            Dialect::Postgres { schema } => Arc::clone(schema),
        }
    }

    /// Makes the schema and what is Malote's own in it. Whoever writes into a space has it alone, so that two replicas
    /// that make it at once do it one after another.
    async fn prepare(&self) -> Result<()> {
        let make = format!(
            "CREATE SCHEMA IF NOT EXISTS {}; {OF_POSTGRES}",
            dialect::quote(&self.schema())
        );
        self.write(move |tx| tx.batch(&make).map_err(super::sql::failed)).await
    }

    /// Tenants that a transaction of it finds in the store.
    #[cfg(test)]
    pub(crate) async fn sees_of_the_store(&self) -> Result<i64> {
        let sql = "SELECT count(*) FROM malote.tenant";
        let count = |tx: &SpaceTx<'_>| tx.query_row(sql, [], |row| row.get(0));
        self.read(move |tx| count(tx).map_err(super::sql::failed)).await
    }

    async fn is_made(&self) -> Result<bool> {
        let relation = self.dialect.relation("malote_progress");
        let find = move |tx: &SpaceTx<'_>| {
            let sql = "SELECT to_regclass(?1) IS NOT NULL";
            tx.query_row(sql, [relation], |row| row.get(0)).map_err(super::sql::failed)
        };
        self.read(find).await
    }
}

/// One transaction: a second process may open the file at the same moment.
fn prepare(connection: &mut Connection) -> Result<()> {
    let failed = sqlite::failed;
    failpoint::reach("staging.make", Code::StoreFailed)?;
    let tx =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    tx.execute_batch(OF_SQLITE).map_err(failed)?;
    for (table, column, kind) in LATER {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2)";
        let known: bool = tx.query_row(sql, [table, column], |row| row.get(0)).map_err(failed)?;
        if !known {
            let sql = format!("ALTER TABLE {table} ADD COLUMN {column} {kind}");
            tx.execute_batch(&sql).map_err(failed)?;
        }
    }
    tx.commit().map_err(failed)
}
