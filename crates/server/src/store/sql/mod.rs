//! SQL, store floor: statements as the intents write them, whichever engine runs them.
//!
//! Promises: one text of a statement serves both engines (docs/design/0008); what is read is what was bound: whole
//! numbers of 64 bits, text, bytes, 0 and 1 for truth values.
//! Never: puts a value into a text; lets an engine's types out of here.

mod text;
mod value;

use protocol::{Code, Error, Result};

pub(in crate::store) use text::{Numbered, numbered};
pub(in crate::store) use value::{Cell, FromCell, OfPostgres, Shape, ToCell, cells_of_sqlite};

use super::postgres::Session;

/// What an engine says of a statement that it did not do.
#[derive(Debug)]
pub(in crate::store) enum SqlError {
    Sqlite(rusqlite::Error),
    Postgres(tokio_postgres::Error),
    /// There is no row where one must be.
    NoRow,
    /// A statement of the transaction failed, and PostgreSQL keeps nothing of one in which any did.
    Undone,
    /// A column is not of the shape it is read as, or does not parse.
    Column {
        at: usize,
        why: String,
    },
}

pub(in crate::store) type SqlResult<T> = std::result::Result<T, SqlError>;

/// A constraint that refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::store) enum Broken {
    /// A primary key or a unique index.
    Unique,
    ForeignKey,
}

impl SqlError {
    pub(in crate::store) fn column(at: usize, why: impl ToString) -> Self {
        Self::Column { at, why: why.to_string() }
    }

    pub(in crate::store) fn broken(&self) -> Option<Broken> {
        use rusqlite::ffi::{
            SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE,
        };
        use tokio_postgres::error::SqlState;
        match self {
            Self::Sqlite(cause) => match cause.sqlite_error()?.extended_code {
                SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY => Some(Broken::Unique),
                SQLITE_CONSTRAINT_FOREIGNKEY => Some(Broken::ForeignKey),
                _ => None,
            },
            Self::Postgres(cause) => match cause.code() {
                Some(code) if *code == SqlState::UNIQUE_VIOLATION => Some(Broken::Unique),
                Some(code) if *code == SqlState::FOREIGN_KEY_VIOLATION => Some(Broken::ForeignKey),
                _ => None,
            },
            Self::NoRow | Self::Undone | Self::Column { .. } => None,
        }
    }

    /// Whether the machine is at fault, and not what was asked of it: the same may go well another time.
    pub(in crate::store) fn is_the_machines(&self) -> bool {
        use rusqlite::ErrorCode::{
            ConstraintViolation, ParameterOutOfRange, TooBig, TypeMismatch, Unknown,
        };
        use tokio_postgres::error::SqlState;
        match self {
            Self::Sqlite(cause) => !matches!(
                cause.sqlite_error_code(),
                Some(ConstraintViolation | ParameterOutOfRange | TooBig | TypeMismatch | Unknown)
            ),
            // Classes: data, constraint, syntax or access rule, limit of the program, feature.
            Self::Postgres(cause) => cause.code().is_none_or(|state| {
                *state == SqlState::INSUFFICIENT_PRIVILEGE
                    || !["22", "23", "42", "54", "0A"].contains(&state.code().split_at(2).0)
            }),
            Self::NoRow | Self::Undone | Self::Column { .. } => true,
        }
    }
}

impl std::fmt::Display for SqlError {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(cause) => cause.fmt(out),
            // The server's own words may quote a value; its class and code never do.
            Self::Postgres(cause) => match cause.as_db_error() {
                Some(told) => write!(out, "SQLSTATE {}", told.code().code()),
                None => cause.fmt(out),
            },
            Self::NoRow => out.write_str("no row came"),
            Self::Undone => out.write_str("a statement before it failed"),
            Self::Column { at, why } => write!(out, "column {at}: {why}"),
        }
    }
}

impl std::error::Error for SqlError {}

/// Gives an engine's error its code: a full disk is told apart, all else is `STORE_FAILED`.
pub(in crate::store) fn failed(cause: SqlError) -> Error {
    match cause {
        SqlError::Sqlite(cause) => super::sqlite::failed(cause),
        SqlError::Postgres(cause) => super::postgres::failed(cause),
        other => Error::new(Code::StoreFailed, "the store could not do this").because(other),
    }
}

/// A transaction of either engine: an intent's, or a read's snapshot.
#[derive(Clone, Copy)]
pub(in crate::store) struct Tx<'c>(Side<'c>);

#[derive(Clone, Copy)]
enum Side<'c> {
    Sqlite(&'c rusqlite::Connection),
    Postgres(&'c Session),
}

impl<'c> Tx<'c> {
    pub(in crate::store) const fn sqlite(connection: &'c rusqlite::Connection) -> Self {
        Self(Side::Sqlite(connection))
    }

    pub(in crate::store) const fn postgres(session: &'c Session) -> Self {
        Self(Side::Postgres(session))
    }

    pub(in crate::store) fn prepare_cached<'s>(
        &self,
        sql: &'s str,
    ) -> SqlResult<Statement<'c, 's>> {
        Ok(match self.0 {
            Side::Sqlite(connection) => {
                Statement::Sqlite(connection.prepare_cached(sql).map_err(SqlError::Sqlite)?)
            }
            Side::Postgres(session) => Statement::Postgres(session, sql),
        })
    }

    /// As [`Self::prepare_cached`], over tables whose columns may change: what one connection knows of such a statement,
    /// another may have made wrong.
    pub(in crate::store) fn prepare<'s>(&self, sql: &'s str) -> SqlResult<Statement<'c, 's>> {
        match self.0 {
            // SQLite looks at the schema before each run.
            Side::Sqlite(_) => self.prepare_cached(sql),
            Side::Postgres(session) => Ok(Statement::Once(session, sql)),
        }
    }

    /// Statements without values.
    pub(in crate::store) fn batch(&self, sql: &str) -> SqlResult<()> {
        match self.0 {
            Side::Sqlite(connection) => connection.execute_batch(sql).map_err(SqlError::Sqlite),
            Side::Postgres(session) => session.batch(sql),
        }
    }

    /// Runs a part of the transaction that may fail by itself: what it did is taken back then, and the rest goes on.
    pub(in crate::store) fn attempt<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.part(|| {
            let result = work();
            let keep = result.is_ok();
            (result, keep)
        })
    }

    /// As [`Self::attempt`], but nothing of it is kept either way.
    pub(in crate::store) fn try_out<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.part(|| (work(), false))
    }

    fn part<T>(&self, work: impl FnOnce() -> (Result<T>, bool)) -> Result<T> {
        // Names of savepoints hide those around them until they are released.
        self.batch("SAVEPOINT part").map_err(failed)?;
        let (result, keep) = work();
        let end = if keep { "RELEASE part" } else { "ROLLBACK TO part; RELEASE part" };
        match self.0 {
            Side::Postgres(session) if !keep => session.take_back(end),
            _ => self.batch(end),
        }
        .map_err(failed)?;
        result
    }

    /// The connection, where it is one to PostgreSQL.
    pub(in crate::store) const fn session(&self) -> Option<&'c Session> {
        match self.0 {
            Side::Sqlite(_) => None,
            Side::Postgres(session) => Some(session),
        }
    }

    pub(in crate::store) fn execute(&self, sql: &str, values: impl Params) -> SqlResult<usize> {
        self.prepare_cached(sql)?.execute(values)
    }

    pub(in crate::store) fn query_row<T>(
        &self,
        sql: &str,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        self.prepare_cached(sql)?.query_row(values, read)
    }
}

/// A statement that is prepared once per connection.
pub(in crate::store) enum Statement<'c, 's> {
    Sqlite(rusqlite::CachedStatement<'c>),
    Postgres(&'c Session, &'s str),
    /// Prepared at each run.
    Once(&'c Session, &'s str),
}

impl Statement<'_, '_> {
    /// Rows that were changed.
    pub(in crate::store) fn execute(&mut self, values: impl Params) -> SqlResult<usize> {
        match self {
            Self::Sqlite(statement) => {
                bind(statement, &values.bound())?;
                statement.raw_execute().map_err(SqlError::Sqlite)
            }
            Self::Postgres(session, sql) => session.execute(sql, &values.bound(), true),
            Self::Once(session, sql) => session.execute(sql, &values.bound(), false),
        }
    }

    /// The first row.
    ///
    /// # Errors
    /// [`SqlError::NoRow`] where none comes; see [`Optional`].
    pub(in crate::store) fn query_row<T>(
        &mut self,
        values: impl Params,
        read: impl FnOnce(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<T> {
        match self {
            Self::Sqlite(statement) => {
                bind(statement, &values.bound())?;
                let mut rows = statement.raw_query();
                let row = rows.next().map_err(SqlError::Sqlite)?.ok_or(SqlError::NoRow)?;
                read(&Row(Found::Sqlite(row)))
            }
            Self::Postgres(..) | Self::Once(..) => {
                let rows = self.of_postgres(&values)?;
                read(&Row(Found::Postgres(rows.first().ok_or(SqlError::NoRow)?)))
            }
        }
    }

    /// Rows one after another, until `each` has enough of them: `false`. With PostgreSQL they come all at once.
    pub(in crate::store) fn each(
        &mut self,
        values: impl Params,
        mut each: impl FnMut(&Row<'_>) -> SqlResult<bool>,
    ) -> SqlResult<()> {
        match self {
            Self::Sqlite(statement) => {
                bind(statement, &values.bound())?;
                let mut rows = statement.raw_query();
                while let Some(row) = rows.next().map_err(SqlError::Sqlite)? {
                    if !each(&Row(Found::Sqlite(row)))? {
                        break;
                    }
                }
            }
            Self::Postgres(..) | Self::Once(..) => {
                for row in &self.of_postgres(&values)? {
                    if !each(&Row(Found::Postgres(row)))? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    fn of_postgres(&self, values: &impl Params) -> SqlResult<Vec<tokio_postgres::Row>> {
        match self {
            Self::Sqlite(_) => Ok(Vec::new()),
            Self::Postgres(session, sql) => session.query(sql, &values.bound(), true),
            Self::Once(session, sql) => session.query(sql, &values.bound(), false),
        }
    }

    /// Every row; whoever may have many of them pages.
    pub(in crate::store) fn query_map<T>(
        &mut self,
        values: impl Params,
        mut read: impl FnMut(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        let mut all = Vec::new();
        self.each(values, |row| {
            all.push(read(row)?);
            Ok(true)
        })?;
        Ok(all)
    }
}

fn bind(statement: &mut rusqlite::Statement<'_>, values: &Bound<'_>) -> SqlResult<()> {
    let wanted = statement.parameter_count();
    let given = match values {
        Bound::Places(cells) => {
            for (at, cell) in (1..).zip(cells) {
                statement.raw_bind_parameter(at, cell).map_err(SqlError::Sqlite)?;
            }
            cells.len()
        }
        Bound::Names(cells) => {
            for (name, cell) in cells {
                let at = statement.parameter_index(name).map_err(SqlError::Sqlite)?;
                let at = at.ok_or_else(|| {
                    SqlError::Sqlite(rusqlite::Error::InvalidParameterName((*name).to_owned()))
                })?;
                statement.raw_bind_parameter(at, cell).map_err(SqlError::Sqlite)?;
            }
            cells.len()
        }
    };
    if given == wanted {
        return Ok(());
    }
    Err(SqlError::Sqlite(rusqlite::Error::InvalidParameterCount(given, wanted)))
}

/// What is bound to a statement: in the order of its places, or by name.
pub(in crate::store) enum Bound<'a> {
    Places(Vec<Cell<'a>>),
    Names(Vec<(&'a str, Cell<'a>)>),
}

/// Whatever can be bound to a statement.
pub(in crate::store) trait Params {
    fn bound(&self) -> Bound<'_>;
}

impl Params for &[&dyn ToCell] {
    fn bound(&self) -> Bound<'_> {
        Bound::Places(self.iter().map(|value| value.to_cell()).collect())
    }
}

impl Params for &[(&str, &dyn ToCell)] {
    fn bound(&self) -> Bound<'_> {
        Bound::Names(self.iter().map(|(name, value)| (*name, value.to_cell())).collect())
    }
}

impl Params for [&dyn ToCell; 0] {
    fn bound(&self) -> Bound<'_> {
        Bound::Places(Vec::new())
    }
}

impl Params for &[Cell<'_>] {
    fn bound(&self) -> Bound<'_> {
        Bound::Places(self.to_vec())
    }
}

macro_rules! arrays {
    ($($len:literal)+) => {$(
        impl<T: ToCell> Params for [T; $len] {
            fn bound(&self) -> Bound<'_> {
                Bound::Places(self.iter().map(ToCell::to_cell).collect())
            }
        }
    )+};
}
arrays! { 1 2 3 4 }

/// Values in the order of a statement's places (`?1`, `?2`, …).
macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::store::sql::ToCell),*] as &[&dyn $crate::store::sql::ToCell]
    };
}

/// Values by the names of a statement's places (`:name`).
macro_rules! named_params {
    ($($name:literal: $value:expr),* $(,)?) => {
        &[$(($name, &$value as &dyn $crate::store::sql::ToCell)),*]
            as &[(&str, &dyn $crate::store::sql::ToCell)]
    };
}

pub(in crate::store) use {named_params, params};

const OTHER_SHAPE: &str = "it is of another shape";

/// One row of an answer.
pub(in crate::store) struct Row<'r>(Found<'r>);

enum Found<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// Column `at`, from 0 on.
    pub(in crate::store) fn get<T: FromCell>(&self, at: usize) -> SqlResult<T> {
        T::from_cell(self.cell(at)?).ok_or_else(|| SqlError::column(at, OTHER_SHAPE))
    }

    /// Bytes that came with it; none of a row that is read where it lies.
    pub(in crate::store) fn size(&self) -> usize {
        match self.0 {
            Found::Sqlite(_) => 0,
            Found::Postgres(row) => row.raw_size_bytes(),
        }
    }

    /// What is kept in column `at`, from 0 on.
    pub(in crate::store) fn cell(&self, at: usize) -> SqlResult<Cell<'_>> {
        let cell = match self.0 {
            Found::Sqlite(row) => value::of_sqlite(row.get_ref(at).map_err(SqlError::Sqlite)?),
            Found::Postgres(row) => {
                let found: value::OfPostgres<'_> = row.try_get(at).map_err(SqlError::Postgres)?;
                Some(found.0)
            }
        };
        cell.ok_or_else(|| SqlError::column(at, OTHER_SHAPE))
    }
}

/// Turns a missing row into `None`.
pub(in crate::store) trait Optional<T> {
    fn optional(self) -> SqlResult<Option<T>>;
}

impl<T> Optional<T> for SqlResult<T> {
    fn optional(self) -> SqlResult<Option<T>> {
        match self {
            Ok(found) => Ok(Some(found)),
            Err(SqlError::NoRow) => Ok(None),
            Err(cause) => Err(cause),
        }
    }
}
