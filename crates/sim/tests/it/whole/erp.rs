//! An ERP database as the tests see it: they change it and read it by their own few lines, never by the agent's.
//!
//! Promises: PostgreSQL's values are its own text output, SQLite's the stored value; one form per kind of column.

use std::collections::BTreeMap;

use rusqlite::types::ValueRef;

/// Key texts → a row's cells in the order of the table's columns.
pub(crate) type Rows = BTreeMap<Vec<String>, Vec<Option<String>>>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Bool,
    Bytes,
    Decimal,
    Float,
    Int,
    Text,
    /// Date and time without zone; `T` between them.
    Timestamp,
    /// With zone; read in UTC.
    Timestamptz,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    /// Place in the key, from 1; 0 = not of the key.
    pub(crate) key: usize,
}

pub(crate) enum Erp {
    Postgres(tokio_postgres::Client),
    Sqlite(rusqlite::Connection),
}

impl Erp {
    pub(crate) async fn postgres(url: &str) -> Self {
        let client = sim::servers::connect(url).await.unwrap();
        client.batch_execute("SET TimeZone = 'UTC'; SET extra_float_digits = 3").await.unwrap();
        Self::Postgres(client)
    }

    pub(crate) fn sqlite(path: &std::path::Path) -> Self {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
        connection.execute_batch("PRAGMA foreign_keys = ON").unwrap();
        Self::Sqlite(connection)
    }

    /// Runs statements; gives the database's words where it refuses.
    pub(crate) async fn run(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::Postgres(client) => client.batch_execute(sql).await.map_err(|error| {
                error
                    .as_db_error()
                    .map_or_else(|| error.to_string(), |error| error.message().to_owned())
            }),
            Self::Sqlite(connection) => {
                connection.execute_batch(sql).map_err(|error| error.to_string())
            }
        }
    }

    pub(crate) async fn columns(&self, table: &str) -> Vec<Column> {
        match self {
            Self::Postgres(client) => postgres_columns(client, table).await,
            Self::Sqlite(connection) => sqlite_columns(connection, table),
        }
    }

    pub(crate) async fn rows(&self, table: &str) -> (Vec<Column>, Rows) {
        let columns = self.columns(table).await;
        let cells = match self {
            Self::Postgres(client) => postgres_cells(client, table, &columns).await,
            Self::Sqlite(connection) => sqlite_cells(connection, table, &columns),
        };
        (columns.clone(), by_key(&columns, cells))
    }
}

/// Orders rows by their key; two rows of one key fail the test.
pub(crate) fn by_key(columns: &[Column], cells: Vec<Vec<Option<String>>>) -> Rows {
    let mut key: Vec<usize> = (0..columns.len()).filter(|at| columns[*at].key > 0).collect();
    key.sort_by_key(|at| columns[*at].key);
    let mut rows = Rows::new();
    for row in cells {
        let of_key = key.iter().map(|at| row[*at].clone().expect("a key is never NULL")).collect();
        assert!(rows.insert(of_key, row).is_none(), "two rows share a key");
    }
    rows
}

fn kind(declared: &str) -> Kind {
    let declared = declared.to_lowercase();
    let is = |names: &[&str]| names.iter().any(|name| declared.starts_with(name));
    if is(&["int", "bigint", "smallint"]) {
        Kind::Int
    } else if is(&["numeric", "decimal"]) {
        Kind::Decimal
    } else if is(&["double", "real", "float"]) {
        Kind::Float
    } else if is(&["timestamp with time zone", "timestamptz"]) {
        Kind::Timestamptz
    } else if is(&["timestamp", "datetime"]) {
        Kind::Timestamp
    } else if is(&["bool"]) {
        Kind::Bool
    } else if is(&["bytea", "blob"]) {
        Kind::Bytes
    } else {
        Kind::Text
    }
}

async fn postgres_columns(client: &tokio_postgres::Client, table: &str) -> Vec<Column> {
    let sql = "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod),
                      coalesce(array_position(i.indkey::int2[], a.attnum), -1) + 1
               FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary
               WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let found = client.query(sql, &[&format!("\"{table}\"")]).await.unwrap();
    let column = |row: &tokio_postgres::Row| Column {
        name: row.get(0),
        kind: kind(row.get(1)),
        key: usize::try_from(row.get::<_, i32>(2)).unwrap(),
    };
    found.iter().map(column).collect()
}

fn sqlite_columns(connection: &rusqlite::Connection, table: &str) -> Vec<Column> {
    let mut found = connection
        .prepare("SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid")
        .unwrap();
    let column = |row: &rusqlite::Row<'_>| {
        Ok(Column {
            name: row.get(0)?,
            kind: kind(&row.get::<_, String>(1)?),
            key: usize::from(row.get::<_, u16>(2)?),
        })
    };
    found.query_map([table], column).unwrap().map(Result::unwrap).collect()
}

async fn postgres_cells(
    client: &tokio_postgres::Client,
    table: &str,
    columns: &[Column],
) -> Vec<Vec<Option<String>>> {
    let list: Vec<String> = columns
        .iter()
        .map(|column| match column.kind {
            Kind::Bytes => format!("encode(\"{}\", 'hex')", column.name),
            _ => format!("\"{}\"::text", column.name),
        })
        .collect();
    let rows =
        client.query(&format!("SELECT {} FROM \"{table}\"", list.join(", ")), &[]).await.unwrap();
    let cell = |row: &tokio_postgres::Row, at: usize| {
        let text: Option<String> = row.get(at);
        text.map(|text| match columns[at].kind {
            Kind::Timestamp => text.replacen(' ', "T", 1),
            Kind::Timestamptz => text.replacen(' ', "T", 1).replace("+00", "Z"),
            _ => text,
        })
    };
    rows.iter().map(|row| (0..columns.len()).map(|at| cell(row, at)).collect()).collect()
}

pub(crate) fn sqlite_cells(
    connection: &rusqlite::Connection,
    table: &str,
    columns: &[Column],
) -> Vec<Vec<Option<String>>> {
    let list: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let mut found =
        connection.prepare(&format!("SELECT {} FROM \"{table}\"", list.join(", "))).unwrap();
    let row = |row: &rusqlite::Row<'_>| {
        (0..columns.len()).map(|at| Ok(sqlite_text(row.get_ref(at)?))).collect()
    };
    found.query_map([], row).unwrap().map(Result::unwrap).collect()
}

fn sqlite_text(value: ValueRef<'_>) -> Option<String> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Text(text) => Some(String::from_utf8(text.to_vec()).unwrap()),
        ValueRef::Blob(bytes) => Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect()),
    }
}
