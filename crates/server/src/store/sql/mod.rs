//! SQL, store floor: statements as the intents write them, whichever engine runs them.
//!
//! Promises: one text of a statement serves both engines (docs/design/0008); what is read is what was bound: whole
//! numbers of 64 bits, text, bytes, 0 and 1 for truth values.
//! Never: puts a value into a text; lets an engine's types out of here.

mod text;
mod value;

use protocol::{Code, Error};

pub(in crate::store) use text::{Numbered, numbered};
pub(in crate::store) use value::{Cell, FromCell, OfPostgres, ToCell, cells_of_sqlite};

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
}

impl Statement<'_, '_> {
    /// Rows that were changed.
    pub(in crate::store) fn execute(&mut self, values: impl Params) -> SqlResult<usize> {
        match self {
            Self::Sqlite(statement) => {
                bind(statement, &values.bound())?;
                statement.raw_execute().map_err(SqlError::Sqlite)
            }
            Self::Postgres(session, sql) => session.execute(sql, &values.bound()),
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
            Self::Postgres(session, sql) => {
                let rows = session.query(sql, &values.bound())?;
                read(&Row(Found::Postgres(rows.first().ok_or(SqlError::NoRow)?)))
            }
        }
    }

    /// Every row; whoever may have many of them pages.
    pub(in crate::store) fn query_map<T>(
        &mut self,
        values: impl Params,
        mut read: impl FnMut(&Row<'_>) -> SqlResult<T>,
    ) -> SqlResult<Vec<T>> {
        match self {
            Self::Sqlite(statement) => {
                bind(statement, &values.bound())?;
                let (mut rows, mut all) = (statement.raw_query(), Vec::new());
                while let Some(row) = rows.next().map_err(SqlError::Sqlite)? {
                    all.push(read(&Row(Found::Sqlite(row)))?);
                }
                Ok(all)
            }
            Self::Postgres(session, sql) => {
                let rows = session.query(sql, &values.bound())?;
                rows.iter().map(|row| read(&Row(Found::Postgres(row)))).collect()
            }
        }
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

/// One row of an answer.
pub(in crate::store) struct Row<'r>(Found<'r>);

enum Found<'r> {
    Sqlite(&'r rusqlite::Row<'r>),
    Postgres(&'r tokio_postgres::Row),
}

impl Row<'_> {
    /// Column `at`, from 0 on.
    pub(in crate::store) fn get<T: FromCell>(&self, at: usize) -> SqlResult<T> {
        let cell = match self.0 {
            Found::Sqlite(row) => value::of_sqlite(row.get_ref(at).map_err(SqlError::Sqlite)?),
            Found::Postgres(row) => {
                let found: value::OfPostgres<'_> = row.try_get(at).map_err(SqlError::Postgres)?;
                Some(found.0)
            }
        };
        cell.and_then(T::from_cell).ok_or_else(|| SqlError::column(at, "it is of another shape"))
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
