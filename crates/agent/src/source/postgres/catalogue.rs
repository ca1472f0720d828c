//! Catalogue of a PostgreSQL database.
//!
//! Promises: names resolve by the session's search path unless they hold a schema; the spelling given goes first, then
//! any case, if one table alone has it.

use std::collections::BTreeMap;

use protocol::{
    Code, Error, Result,
    value::{ColumnType, TypeName},
};
use tokio_postgres::types::PgLsn;

use super::{
    super::{
        Identity, TableShape,
        catalogue::{Found, FoundColumn, fingerprint},
        dialect::quoted_table,
    },
    fault,
    link::Link,
};

/// One line per column and per unique index; also what the fingerprint is made of.
const DESCRIPTION: &str = "
SELECT 'c', a.attnum::text, a.attname::text, bt.oid::bigint, format_type(bt.oid, -1),
       a.attnotnull, coalesce(c.collname, ''), a.attrelid::bigint
  FROM pg_attribute a
  JOIN pg_type t ON t.oid = a.atttypid
  JOIN pg_type bt ON bt.oid = CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
  LEFT JOIN pg_collation c ON c.oid = a.attcollation
 WHERE a.attrelid = to_regclass($1)::oid AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT CASE WHEN i.indisprimary THEN 'p' ELSE 'u' END, k.place::text, a.attname::text, 0, ic.relname::text,
       true, '', i.indrelid::bigint
  FROM pg_index i
  JOIN pg_class ic ON ic.oid = i.indexrelid
 CROSS JOIN LATERAL unnest(i.indkey::smallint[]) WITH ORDINALITY AS k(attnum, place)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
 WHERE i.indrelid = to_regclass($1)::oid AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
   AND i.indexprs IS NULL AND k.place <= i.indnkeyatts
";

/// Columns that the login may not read.
const UNREADABLE: &str = "
SELECT a.attname::text FROM pg_attribute a
 WHERE a.attrelid = to_regclass($1)::oid AND a.attnum > 0 AND NOT a.attisdropped
   AND NOT has_column_privilege(a.attrelid, a.attnum, 'SELECT')
 ORDER BY a.attnum";

/// Names of the columns of a described table that the login may not read.
pub(super) async fn unreadable(link: &Link, shape: &TableShape) -> Result<Vec<String>> {
    let rows = link.query(UNREADABLE, &[&name_of(shape)]).await.map_err(fault)?;
    rows.iter().map(|row| row.try_get(0).map_err(fault)).collect()
}

const TABLES: &str = "
SELECT n.nspname::text, c.relname::text, n.nspname = ANY (current_schemas(false))
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'malote') AND n.nspname NOT LIKE 'pg!_%' ESCAPE '!'
   AND has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')
 ORDER BY 1, 2
";

/// The candidates for a name, the best first.
const FIND: &str = "
SELECT n.nspname::text, c.relname::text, c.relname = $2
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND lower(c.relname) = lower($2)
   AND CASE WHEN $1 = '' THEN n.nspname = ANY (current_schemas(false)) ELSE lower(n.nspname) = lower($1) END
 ORDER BY c.relname <> $2, n.nspname <> $1, array_position(current_schemas(false), n.nspname), c.relname
";

pub(super) fn name_of(shape: &TableShape) -> String {
    quoted_table(shape.physical.0.as_deref(), &shape.physical.1)
}

/// Tables the login can read; a schema stands before a name that the search path does not reach.
pub(super) async fn tables(link: &Link) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for row in link.query(TABLES, &[]).await.map_err(fault)? {
        let schema: String = row.try_get(0).map_err(fault)?;
        let table: String = row.try_get(1).map_err(fault)?;
        let near: bool = row.try_get(2).map_err(fault)?;
        names.push(if near { table } else { format!("{schema}.{table}") });
    }
    Ok(names)
}

pub(super) async fn describe(link: &Link, wanted: &str) -> Result<Found> {
    let (schema, table) = wanted.split_once('.').unwrap_or(("", wanted));
    let rows = link.query(FIND, &[&schema, &table]).await.map_err(fault)?;
    let candidates = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect::<Result<Vec<(String, String, bool)>, tokio_postgres::Error>>()
        .map_err(fault)?;
    let Some((schema, table, exact)) = candidates.first() else {
        return Err(Error::new(Code::TableMissing, format!("there is no table {wanted}")));
    };
    let rival = candidates.get(1).is_some_and(|(other, name, _)| other == schema && name != table);
    if rival && !exact {
        let words = format!("two tables are called {wanted} in some case");
        return Err(Error::new(Code::TableMissing, words));
    }
    load(link, Some(schema), table).await
}

pub(super) async fn load(link: &Link, schema: Option<&str>, table: &str) -> Result<Found> {
    let lines = description(link, &quoted_table(schema, table)).await?;
    let mut columns: Vec<(i32, FoundColumn)> = Vec::new();
    let mut keys: BTreeMap<(bool, String), Vec<(i32, String)>> = BTreeMap::new();
    for line in &lines {
        if line.kind == "c" {
            columns.push((line.place, column(line)));
        } else {
            let key = keys.entry((line.kind == "p", line.type_or_index.clone())).or_default();
            key.push((line.place, line.name.clone()));
        }
    }
    if columns.is_empty() {
        let words = format!("there is no table {table}, or it has no column that can be read");
        return Err(Error::new(Code::TableMissing, words));
    }
    columns.sort_by_key(|(place, _)| *place);
    let mut found = Found {
        schema: schema.map(str::to_owned),
        table: table.to_owned(),
        columns: columns.into_iter().map(|(_, column)| column).collect(),
        primary: Vec::new(),
        unique: Vec::new(),
        fingerprint: print_of(&lines),
    };
    for ((primary, index), mut parts) in keys {
        parts.sort();
        let names: Vec<String> = parts.into_iter().map(|(_, name)| name).collect();
        if primary {
            found.primary.clone_from(&names);
        }
        found.unique.push((index, names));
    }
    Ok(found)
}

pub(super) async fn fingerprint_of(link: &Link, shape: &TableShape) -> Result<Option<[u8; 16]>> {
    let lines = description(link, &name_of(shape)).await?;
    Ok((!lines.is_empty()).then(|| print_of(&lines)))
}

struct Line {
    kind: String,
    place: i32,
    name: String,
    type_id: i64,
    type_or_index: String,
    not_null: bool,
    collation: String,
    relation: i64,
}

async fn description(link: &Link, name: &str) -> Result<Vec<Line>> {
    use tokio_postgres::types::Type;
    let rows = link.query_typed(DESCRIPTION, &[(&name, Type::TEXT)]).await.map_err(fault)?;
    let line = |row: &tokio_postgres::Row| -> Result<Line, tokio_postgres::Error> {
        Ok(Line {
            kind: row.try_get(0)?,
            place: row.try_get::<_, String>(1)?.parse().unwrap_or(0),
            name: row.try_get(2)?,
            type_id: row.try_get(3)?,
            type_or_index: row.try_get(4)?,
            not_null: row.try_get(5)?,
            collation: row.try_get(6)?,
            relation: row.try_get(7)?,
        })
    };
    let lines: Result<Vec<_>, _> = rows.iter().map(line).collect();
    lines.map_err(fault)
}

fn print_of(lines: &[Line]) -> [u8; 16] {
    let text = |line: &Line| {
        let Line { kind, place, name, type_id, type_or_index, not_null, collation, relation } =
            line;
        format!(
            "{kind}\0{place}\0{name}\0{type_id}\0{type_or_index}\0{not_null}\0{collation}\0{relation}"
        )
    };
    let mut texts: Vec<String> = lines.iter().map(text).collect();
    texts.sort();
    fingerprint(texts.iter().map(String::as_str))
}

fn column(line: &Line) -> FoundColumn {
    let type_id = u32::try_from(line.type_id).unwrap_or(0);
    let column_type = super::cell::type_of(type_id);
    let stamp_unfit = match type_id {
        1114 | 1184 => None,
        1082 => Some("a date alone is too coarse"),
        _ => Some("a stamp is a timestamp or a timestamptz"),
    };
    let key_unfit =
        (!super::cell::is_key(type_id)).then_some("its type has no order that Malote reads");
    FoundColumn {
        name: line.name.clone(),
        type_name: TypeName::plain(column_type.unwrap_or(ColumnType::String)),
        native: line.type_or_index.clone(),
        native_id: type_id,
        nullable: !line.not_null,
        stamp_unfit,
        key_unfit,
    }
}

pub(super) async fn identity(link: &tokio_postgres::Client) -> Result<Identity> {
    let sql = "SELECT (SELECT system_identifier::text FROM pg_control_system()), \
               (SELECT timeline_id::text FROM pg_control_checkpoint()), \
               (SELECT oid::bigint::text FROM pg_database WHERE datname = current_database()), \
               host(inet_server_addr()), inet_server_port()::text, \
               CASE WHEN pg_has_role('pg_read_all_settings', 'USAGE') THEN current_setting('data_directory') END, \
               current_setting('server_version'), pg_is_in_recovery()";
    let row = link.query_one(sql, &[]).await.map_err(fault)?;
    if row.try_get::<_, bool>(7).map_err(fault)? {
        return Err(Error::new(Code::SourceStandby, "the database is in recovery: a standby"));
    }
    let names = [
        "system_identifier",
        "timeline",
        "database_oid",
        "server_addr",
        "server_port",
        "data_directory",
    ];
    let mut facts = Vec::new();
    for (at, name) in names.into_iter().enumerate() {
        if let Some(fact) = row.try_get::<_, Option<String>>(at).map_err(fault)? {
            facts.push((name.to_owned(), fact));
        }
    }
    let version: String = row.try_get(6).map_err(fault)?;
    let position = position(link).await?;
    Ok(Identity { kind: "postgres", facts, position, version: format!("PostgreSQL {version}") })
}

/// How far the log is on disk: it is never less after that, but in a copy that was put back.
pub(super) async fn position(link: &tokio_postgres::Client) -> Result<Vec<u8>> {
    let row = link.query_one("SELECT pg_current_wal_flush_lsn()", &[]).await.map_err(fault)?;
    let position: PgLsn = row.try_get(0).map_err(fault)?;
    Ok(u64::from(position).to_be_bytes().to_vec())
}
