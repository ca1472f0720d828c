//! Session, PostgreSQL: one connection, its prepared statements, and waiting for it on a thread that may block.
//!
//! Promises: a statement is prepared once per connection and shape of its values.
//! Never: runs on a thread of the async runtime; is used again once a transaction of it could not be ended.

use std::{
    cell::{Cell as Flag, RefCell},
    collections::HashMap,
    pin::pin,
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use runtime::postgres::Address;
use tokio::runtime::Handle;
use tokio_postgres::{
    Client, Row, Statement,
    binary_copy::BinaryCopyInWriter,
    types::{ToSql, Type},
};

use super::{dialled, failed};
use crate::store::copy::Digest;
use crate::store::sql::{Bound, Cell, Numbered, OfPostgres, SqlError, SqlResult, numbered};

/// Statements that a connection keeps prepared; an intent's text is one of some three hundred.
const KEPT: usize = 512;

/// What a connection is told at its beginning. Dates and times are read as ISO 8601 writes them, whatever the database or
/// the role prefers. A process that stops within a transaction (a paused machine) loses it, and with it the locks that
/// others wait for; who waits for one is told to come again.
const SETTINGS: &str = "SET search_path TO malote; SET DateStyle TO ISO; SET TimeZone TO 'UTC';
    SET idle_in_transaction_session_timeout TO '30s'; SET lock_timeout TO '20s'";

/// Bytes that are given to the network at once.
const CHUNK: usize = 256 * 1024;

/// A statement as it was bound: its text, and the types its values have.
type Shape = (String, Vec<Option<Type>>);

/// A connection. What it does, it does while its thread waits.
pub(in crate::store) struct Session {
    client: Client,
    runtime: Handle,
    texts: RefCell<HashMap<String, Arc<Numbered>>>,
    known: RefCell<HashMap<Shape, Statement>>,
    at_rest: Flag<bool>,
    /// A statement of the transaction failed.
    failed: Flag<bool>,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session").field("at_rest", &self.at_rest).finish_non_exhaustive()
    }
}

impl Session {
    pub(in crate::store) async fn open(address: &Address) -> protocol::Result<Self> {
        let (client, _driver) = dialled(address).await?;
        Self::over(client).await
    }

    /// Of a connection whose task somebody else holds.
    pub(in crate::store) async fn over(client: Client) -> protocol::Result<Self> {
        client.batch_execute(SETTINGS).await.map_err(failed)?;
        Ok(Self {
            client,
            runtime: Handle::current(),
            texts: RefCell::default(),
            known: RefCell::default(),
            at_rest: Flag::new(true),
            failed: Flag::new(false),
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Whether no transaction is open.
    pub(super) fn is_at_rest(&self) -> bool {
        self.at_rest.get() && !self.is_closed()
    }

    /// Begins a transaction.
    pub(in crate::store) fn begin(&self, how: &str) -> SqlResult<()> {
        self.at_rest.set(false);
        self.failed.set(false);
        self.batch(how)
    }

    /// Keeps all that was done since.
    ///
    /// # Errors
    /// [`SqlError::Undone`] where a statement failed, whatever its caller made of that: the database would take the word for
    /// a `ROLLBACK`, and say that all is well.
    pub(in crate::store) fn commit(&self) -> SqlResult<()> {
        if self.failed.get() {
            self.roll_back()?;
            return Err(SqlError::Undone);
        }
        self.batch("COMMIT")?;
        self.at_rest.set(true);
        Ok(())
    }

    pub(in crate::store) fn roll_back(&self) -> SqlResult<()> {
        self.batch("ROLLBACK")?;
        self.at_rest.set(true);
        Ok(())
    }

    /// An error of a statement as it is passed on; the transaction is lost with it.
    fn lost(&self, cause: tokio_postgres::Error) -> SqlError {
        self.failed.set(true);
        SqlError::Postgres(cause)
    }

    pub(in crate::store) fn batch(&self, sql: &str) -> SqlResult<()> {
        let done = self.runtime.block_on(self.client.batch_execute(sql));
        done.map_err(|cause| self.lost(cause))
    }

    /// Goes back to a savepoint by that statement, whose transaction then goes on as if nothing behind it had failed.
    pub(in crate::store) fn take_back(&self, sql: &str) -> SqlResult<()> {
        self.batch(sql)?;
        self.failed.set(false);
        Ok(())
    }

    /// `keep`: whether the statement stays prepared.
    pub(in crate::store) fn query(
        &self,
        sql: &str,
        values: &Bound<'_>,
        keep: bool,
    ) -> SqlResult<Vec<Row>> {
        let (statement, cells) = self.prepared(sql, values, keep)?;
        let cells: Vec<&(dyn ToSql + Sync)> = cells.iter().map(|cell| cell as _).collect();
        let rows = self.runtime.block_on(self.client.query(&statement, &cells));
        rows.map_err(|cause| self.lost(cause))
    }

    /// `keep`: whether the statement stays prepared.
    pub(in crate::store) fn execute(
        &self,
        sql: &str,
        values: &Bound<'_>,
        keep: bool,
    ) -> SqlResult<usize> {
        let (statement, cells) = self.prepared(sql, values, keep)?;
        let cells: Vec<&(dyn ToSql + Sync)> = cells.iter().map(|cell| cell as _).collect();
        let changed = self.runtime.block_on(self.client.execute(&statement, &cells));
        let changed = changed.map_err(|cause| self.lost(cause))?;
        Ok(usize::try_from(changed).unwrap_or(usize::MAX))
    }

    /// Writes rows into a table by `COPY … FROM STDIN BINARY`; `rows` is given the way to write one.
    pub(in crate::store) fn copy_in(
        &self,
        sql: &str,
        types: &[Type],
        rows: impl FnOnce(&mut dyn FnMut(&[Cell<'_>]) -> SqlResult<()>) -> SqlResult<()>,
    ) -> SqlResult<()> {
        let sink = self.runtime.block_on(self.client.copy_in(sql)).map_err(SqlError::Postgres)?;
        let mut writer = pin!(BinaryCopyInWriter::new(sink, types));
        rows(&mut |cells| {
            let cells: Vec<&(dyn ToSql + Sync)> = cells.iter().map(|cell| cell as _).collect();
            self.runtime.block_on(writer.as_mut().write(&cells)).map_err(SqlError::Postgres)
        })?;
        self.runtime.block_on(writer.finish()).map(|_| ()).map_err(SqlError::Postgres)
    }

    /// Writes rows into a table by `COPY … FROM STDIN`, as lines in its text form.
    pub(in crate::store) fn copy_lines(&self, sql: &str, lines: Bytes) -> SqlResult<()> {
        let copied = self.runtime.block_on(async {
            let sink = self.client.copy_in(sql).await?;
            let (mut sink, mut rest) = (pin!(sink), lines);
            while !rest.is_empty() {
                sink.send(rest.split_to(rest.len().min(CHUNK))).await?;
            }
            sink.finish().await
        });
        copied.map(|_| ()).map_err(|cause| self.lost(cause))
    }

    /// What a statement without values gives, row for row and none of them kept.
    pub(in crate::store) fn digest(&self, sql: &str) -> SqlResult<Digest> {
        self.runtime.block_on(async {
            let none: [&(dyn ToSql + Sync); 0] = [];
            let rows = self.client.query_raw(sql, none).await.map_err(SqlError::Postgres)?;
            let mut rows = pin!(rows);
            let mut digest = Digest::default();
            while let Some(row) = rows.next().await {
                let row = row.map_err(SqlError::Postgres)?;
                let cell = |at| row.try_get::<_, OfPostgres<'_>>(at).map(|found| found.0);
                let cells: Result<Vec<Cell<'_>>, _> = (0..row.len()).map(cell).collect();
                digest.add(cells.map_err(SqlError::Postgres)?.into_iter());
            }
            Ok(digest)
        })
    }

    /// A statement with its values in the order of its places.
    fn prepared<'v>(
        &self,
        sql: &str,
        values: &Bound<'v>,
        keep: bool,
    ) -> SqlResult<(Statement, Vec<Cell<'v>>)> {
        let text = if keep { self.text(sql) } else { Arc::new(numbered(sql)) };
        let cells = in_order(&text, values)?;
        let types: Vec<Option<Type>> = cells.iter().map(|cell| cell.postgres_type()).collect();
        let shape = (sql.to_owned(), types);
        if let Some(statement) = self.known.borrow().get(&shape) {
            return Ok((statement.clone(), cells));
        }
        let types: Vec<Type> =
            shape.1.iter().map(|kind| kind.clone().unwrap_or(Type::UNKNOWN)).collect();
        let prepared = self.runtime.block_on(self.client.prepare_typed(&text.text, &types));
        let statement = prepared.map_err(|cause| {
            // A statement has no values in its text.
            tracing::error!(statement = text.text, cause = %cause, "a statement is not understood");
            self.lost(cause)
        })?;
        if !keep {
            return Ok((statement, cells));
        }
        let mut known = self.known.borrow_mut();
        if known.len() >= KEPT {
            known.clear();
        }
        known.insert(shape, statement.clone());
        Ok((statement, cells))
    }

    fn text(&self, sql: &str) -> Arc<Numbered> {
        let mut texts = self.texts.borrow_mut();
        if let Some(text) = texts.get(sql) {
            return Arc::clone(text);
        }
        if texts.len() >= KEPT {
            texts.clear();
        }
        let text = Arc::new(numbered(sql));
        texts.insert(sql.to_owned(), Arc::clone(&text));
        text
    }
}

fn in_order<'v>(text: &Numbered, values: &Bound<'v>) -> SqlResult<Vec<Cell<'v>>> {
    let names = match values {
        Bound::Places(cells) => return Ok(cells.clone()),
        Bound::Names(names) => names,
    };
    if names.len() != text.names.len() {
        return Err(SqlError::column(
            names.len(),
            "not as many values as the statement has places",
        ));
    }
    let value = |name: &String| {
        let found = names.iter().find(|(given, _)| given == name);
        found
            .map(|(_, cell)| *cell)
            .ok_or_else(|| SqlError::column(0, format!("{name} is not bound")))
    };
    text.names.iter().map(value).collect()
}
