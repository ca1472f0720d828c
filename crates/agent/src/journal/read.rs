//! Read: one SELECT of a person over what was sent, on a connection of its own that can only read.
//!
//! Promises: no table but the two views' is readable, so neither spool, plan nor secrets; one statement, two seconds, a
//! bounded number of rows and bytes; capture and uplink do not wait for it.
//! Never: runs on the writer's connection; writes, attaches, or loads an extension.

use std::{collections::BTreeSet, path::Path, time::Duration};

use protocol::{Code, Error, Result, limits};
use runtime::clock::Mono;
use rusqlite::{
    Connection, OpenFlags,
    fallible_iterator::FallibleIterator as _,
    functions::FunctionFlags,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    types::ValueRef,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Journal;

/// How long a statement may run.
const PATIENCE: Duration = Duration::from_secs(2);
/// Steps of SQLite's machine between two looks at the clock.
const STEPS: i32 = 2_000;
/// The longest text or blob an expression may make.
const TEXT_BYTES: i32 = 1_000_000;

const VIEWS: &str = "
CREATE TEMP VIEW GDataShareRecords AS
SELECT n.name AS TABLENAME, malote_key(k.key) AS RECORDKEY,
       CASE WHEN k.hash = zeroblob(16) THEN NULL ELSE lower(hex(k.hash)) END AS RECORDHASH,
       k.batch AS BATCHID, k.message AS MESSAGENUMBER,
       strftime('%Y-%m-%dT%H:%M:%fZ', k.sent_micros / 1000000.0, 'unixepoch') AS SENTON
  FROM main.known k JOIN main.named n ON n.id = k.table_id;
CREATE TEMP VIEW GTOTVSAPPCONCEITOHST AS
SELECT id AS ID, concept AS CONCEITO,
       strftime('%Y-%m-%dT%H:%M:%fZ', started_micros / 1000000.0, 'unixepoch') AS STARTEDON,
       strftime('%Y-%m-%dT%H:%M:%fZ', finished_micros / 1000000.0, 'unixepoch') AS FINISHEDON,
       status AS STATUS, records AS RECORDS, error AS ERROR
  FROM main.history;";
/// What is readable: the views, and what they are made of.
const READABLE: [&str; 5] =
    ["gdatasharerecords", "gtotvsappconceitohst", "known", "named", "history"];

/// What a SELECT gave.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selected {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    /// There was more.
    pub truncated: bool,
}

impl Journal {
    /// Runs one SELECT over `GDataShareRecords` and `GTOTVSAPPCONCEITOHST`.
    ///
    /// # Errors
    /// `BAD_REQUEST` for anything else, `TIMEOUT` after two seconds.
    pub async fn select(&self, sql: String, most_rows: usize) -> Result<Selected> {
        let most = most_rows.min(limits::SQL_ROWS);
        // One at a time: a reader costs memory of its own.
        let turn = self.shared.reading.acquire().await;
        let path = self.shared.path.clone();
        let selected = runtime::task::blocking(move || select(&path, &sql, most)).await?;
        drop(turn);
        selected
    }
}

fn select(path: &Path, sql: &str, most: usize) -> Result<Selected> {
    let db = open(path).map_err(refused)?;
    let begun = Mono::now();
    db.progress_handler(STEPS, Some(move || begun.elapsed() > PATIENCE)).map_err(refused)?;
    let mut batch = rusqlite::Batch::new(&db, sql);
    let only = "give one SELECT over GDataShareRecords or GTOTVSAPPCONCEITOHST";
    let first = batch.next().map_err(refused)?;
    let mut statement = first.ok_or_else(|| Error::new(Code::BadRequest, only))?;
    if batch.next().map_err(refused)?.is_some() {
        return Err(Error::new(Code::BadRequest, format!("more than one statement; {only}")));
    }
    if !statement.readonly() || statement.column_count() == 0 {
        return Err(Error::new(Code::BadRequest, only));
    }
    if statement.parameter_count() > 0 {
        return Err(Error::new(Code::BadRequest, "parameters have no value here"));
    }
    let columns = statement.column_names().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let width = columns.len();
    let mut selected = Selected { columns, rows: Vec::new(), truncated: false };
    let mut bytes = 0;
    let mut rows = statement.query([]).map_err(refused)?;
    while let Some(row) = rows.next().map_err(refused)? {
        let cells = (0..width).map(|at| row.get_ref(at).map(value));
        let cells: Vec<Value> = cells.collect::<rusqlite::Result<_>>().map_err(refused)?;
        bytes += cells.iter().map(size).sum::<usize>();
        if selected.rows.len() >= most || bytes > limits::SQL_BYTES {
            selected.truncated = true;
            break;
        }
        selected.rows.push(cells);
    }
    Ok(selected)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(PATIENCE)?;
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, TEXT_BYTES)?;
    db.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    db.create_scalar_function("malote_key", 1, flags, |call| {
        let bytes = call.get_raw(0).as_blob_or_null()?.unwrap_or_default().to_vec();
        Ok(protocol::key::KeyBytes(bytes).values().ok().map(|parts| parts.join("|")))
    })?;
    db.execute_batch(VIEWS)?;
    let names = "SELECT lower(name) FROM main.sqlite_master WHERE type = 'table'";
    let real: BTreeSet<String> =
        db.prepare(names)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    db.authorizer(Some(move |context: AuthContext<'_>| allow(&context, &real)))?;
    Ok(db)
}

/// Reading what [`READABLE`] names, and computing; no other table is readable under any name.
fn allow(context: &AuthContext<'_>, real: &BTreeSet<String>) -> Authorization {
    let readable = |table: &str, column: &str| {
        let table = table.to_ascii_lowercase();
        // Of what a WITH names no column is asked for here, at most its rows are counted.
        let named_by_with = column.is_empty()
            && !real.contains(&table)
            && !["sqlite_", "pragma_"].iter().any(|head| table.starts_with(head));
        READABLE.contains(&table.as_str()) || named_by_with
    };
    match context.action {
        AuthAction::Select | AuthAction::Recursive => Authorization::Allow,
        AuthAction::Read { table_name, column_name } if readable(table_name, column_name) => {
            Authorization::Allow
        }
        AuthAction::Function { function_name }
            if !function_name.eq_ignore_ascii_case("load_extension") =>
        {
            Authorization::Allow
        }
        _ => Authorization::Deny,
    }
}

fn value(cell: ValueRef<'_>) -> Value {
    match cell {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned().into(),
        ValueRef::Blob(bytes) => {
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
    }
}

fn size(value: &Value) -> usize {
    value.as_str().map_or(8, str::len)
}

/// SQLite's words are of the statement, which is the asker's own.
fn refused(cause: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode::{DatabaseBusy, OperationInterrupted};
    match cause.sqlite_error_code() {
        Some(OperationInterrupted | DatabaseBusy) => {
            Error::new(Code::Timeout, "the statement took more than two seconds")
        }
        _ => Error::new(Code::BadRequest, format!("the statement is refused: {cause}")),
    }
}
