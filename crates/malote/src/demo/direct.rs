//! Direct: compares the demo's own ERP with its staging files by SQL written here, beside `verify`, which reads through
//! the agent's `Source`: a fault of `Source` cannot hide itself.
//!
//! Promises: every live row, every column, both ways; keys and texts are formed here, from the declared types.
//! Never: uses the agent, the server or `protocol::value`.

use std::{collections::BTreeMap, path::Path};

use protocol::{Code, Coded as _, Result, key::KeyBytes};
use rusqlite::{Connection, OpenFlags, Row, Statement, types::ValueRef};

use super::{
    erp::{COMPANY_GROUP, Erp, Kind, TABLES, Table},
    verdict::{Keys, Kind as Differs, Verdict},
};

/// Compares all tables of one ERP with its staging file. Blocking.
pub(crate) fn compare(erp: &Erp, kind: Kind, staging: &Path) -> Result<Verdict> {
    let read = |path: &Path| -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        // One state of the file for all tables.
        connection.execute_batch("BEGIN")?;
        Ok(connection)
    };
    let source = read(&erp.path(kind)).coded(Code::SourceFailed, "cannot read the small ERP")?;
    let staged = read(staging).coded(Code::StoreFailed, "cannot read the staging file")?;
    let mut sum = Verdict::default();
    for table in TABLES.iter().filter(|table| table.kind == kind) {
        let one = table_verdict(table, &source, &staged);
        sum.add(one.coded(Code::StoreFailed, format!("cannot compare {}", table.wire))?);
    }
    Ok(sum)
}

/// How a column's values are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Bool,
    Moment,
    Plain,
}

struct Column {
    name: String,
    form: Form,
}

fn table_verdict(
    table: &Table,
    source: &Connection,
    staged: &Connection,
) -> rusqlite::Result<Verdict> {
    let live = match table.kind {
        Kind::Rm => "",
        Kind::Protheus => " WHERE D_E_L_E_T_ = ' '",
    };
    let mut rows = source.prepare(&format!("SELECT * FROM {}{live}", table.physical))?;
    let columns = columns(&rows);
    let known = staged_columns(staged, table)?;
    let selected: Vec<String> = columns
        .iter()
        .map(|column| match known.get(&column.name.to_ascii_lowercase()) {
            Some(name) => format!("\"{name}\""),
            None => "NULL".to_owned(),
        })
        .collect();
    let name = table.wire.to_ascii_lowercase();
    let find =
        format!("SELECT {} FROM \"{name}\" WHERE _key = ? AND _deleted = 0", selected.join(", "));
    let mut verdict = Verdict { tables: 1, ..Verdict::default() };
    if known.is_empty() {
        return all_missing(table, &columns, &mut rows, verdict);
    }
    let mut find = staged.prepare(&find)?;
    let mut keys = Keys::default();
    let mut source_rows = rows.query([])?;
    while let Some(row) = source_rows.next()? {
        verdict.rows += 1;
        let key = key(table, &columns, row)?;
        let hash = Keys::hash(&key);
        if !keys.insert(hash) {
            verdict.differs(table.wire, &hash, Differs::KeyTwice, Vec::new());
        }
        let mut found = find.query([&key.0])?;
        let Some(other) = found.next()? else {
            verdict.differs(table.wire, &hash, Differs::Missing, Vec::new());
            continue;
        };
        let unlike = unlike(&columns, row, other)?;
        if !unlike.is_empty() {
            verdict.differs(table.wire, &hash, Differs::Values, unlike);
        }
    }
    let mut extra = staged.prepare(&format!("SELECT _key FROM \"{name}\" WHERE _deleted = 0"))?;
    let mut staged_keys = extra.query([])?;
    while let Some(row) = staged_keys.next()? {
        let hash = Keys::hash(&KeyBytes(row.get(0)?));
        if !keys.contains(&hash) {
            verdict.differs(table.wire, &hash, Differs::Extra, Vec::new());
        }
    }
    Ok(verdict)
}

fn all_missing(
    table: &Table,
    columns: &[Column],
    rows: &mut Statement<'_>,
    mut verdict: Verdict,
) -> rusqlite::Result<Verdict> {
    let mut rows = rows.query([])?;
    while let Some(row) = rows.next()? {
        verdict.rows += 1;
        let hash = Keys::hash(&key(table, columns, row)?);
        verdict.differs(table.wire, &hash, Differs::Missing, Vec::new());
    }
    Ok(verdict)
}

fn columns(statement: &Statement<'_>) -> Vec<Column> {
    let form = |declared: &str| match declared.to_ascii_uppercase().as_str() {
        "BOOLEAN" => Form::Bool,
        "DATETIME" | "TIMESTAMP" => Form::Moment,
        _ => Form::Plain,
    };
    statement
        .columns()
        .iter()
        .map(|column| Column {
            name: column.name().to_owned(),
            form: column.decl_type().map_or(Form::Plain, form),
        })
        .collect()
}

/// Lower-case name → name as staging spells it; empty where the table is not staged.
fn staged_columns(
    staged: &Connection,
    table: &Table,
) -> rusqlite::Result<BTreeMap<String, String>> {
    let mut names = staged.prepare("SELECT name FROM pragma_table_info(?)")?;
    let found =
        names.query_map([table.wire.to_ascii_lowercase()], |row| row.get::<_, String>(0))?;
    found.map(|name| name.map(|name| (name.to_ascii_lowercase(), name))).collect()
}

/// 4 bytes of length, big end first, and the text, for each value of the key.
fn key(table: &Table, columns: &[Column], row: &Row<'_>) -> rusqlite::Result<KeyBytes> {
    let mut values = Vec::new();
    for name in table.key {
        let at = columns.iter().position(|column| column.name == *name).unwrap_or(0);
        values.push(text(Form::Plain, row.get_ref(at)?).unwrap_or_default());
    }
    if table.kind == Kind::Protheus {
        values.insert(0, COMPANY_GROUP.to_owned());
        values = vec![values.join("|")];
    }
    let mut bytes = Vec::new();
    for value in values {
        bytes.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend(value.as_bytes());
    }
    Ok(KeyBytes(bytes))
}

fn unlike(columns: &[Column], left: &Row<'_>, right: &Row<'_>) -> rusqlite::Result<Vec<String>> {
    let mut names = Vec::new();
    for (at, column) in columns.iter().enumerate() {
        if text(column.form, left.get_ref(at)?) != text(column.form, right.get_ref(at)?) {
            names.push(column.name.clone());
        }
    }
    Ok(names)
}

/// One text for each value, the same for the ERP's storage form and staging's.
fn text(form: Form, value: ValueRef<'_>) -> Option<String> {
    match (form, value) {
        (_, ValueRef::Null) => None,
        (Form::Bool, ValueRef::Integer(number)) => Some((number != 0).to_string()),
        (_, ValueRef::Integer(number)) => Some(number.to_string()),
        (_, ValueRef::Real(number)) => Some(number.to_string()),
        (Form::Moment, ValueRef::Text(bytes)) => {
            let text = String::from_utf8_lossy(bytes).replacen(' ', "T", 1);
            let trimmed = if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.')
            } else {
                &text
            };
            Some(trimmed.to_owned())
        }
        (_, ValueRef::Text(bytes)) => Some(String::from_utf8_lossy(bytes).into_owned()),
        (_, ValueRef::Blob(bytes)) => {
            Some(bytes.iter().fold("x'".to_owned(), |all, byte| format!("{all}{byte:02x}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A staging file made from the ERP by SQL, so that it is equal by construction.
    fn staged_by_hand(erp: &Erp, kind: Kind, path: &Path) {
        let source = Connection::open(erp.path(kind)).unwrap();
        let staging = Connection::open(path).unwrap();
        staging.execute_batch("BEGIN").unwrap();
        for table in TABLES.iter().filter(|table| table.kind == kind) {
            let live = if kind == Kind::Protheus { " WHERE D_E_L_E_T_ = ' '" } else { "" };
            let mut rows =
                source.prepare(&format!("SELECT * FROM {}{live}", table.physical)).unwrap();
            let columns = columns(&rows);
            let names: Vec<String> =
                columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
            let wire = table.wire.to_ascii_lowercase();
            staging
                .execute_batch(&format!(
                    "CREATE TABLE \"{wire}\" ({}, _key BLOB PRIMARY KEY, _deleted INTEGER)",
                    names.join(", ")
                ))
                .unwrap();
            let marks = vec!["?"; columns.len() + 1].join(", ");
            let sql = format!("INSERT INTO \"{wire}\" VALUES ({marks}, 0)");
            let mut rows = rows.query([]).unwrap();
            while let Some(row) = rows.next().unwrap() {
                let mut cells: Vec<rusqlite::types::Value> =
                    (0..columns.len()).map(|at| row.get(at).unwrap()).collect();
                cells.push(key(table, &columns, row).unwrap().0.into());
                staging.execute(&sql, rusqlite::params_from_iter(cells)).unwrap();
            }
        }
        staging.execute_batch("COMMIT").unwrap();
    }

    #[test]
    fn equal_files_are_equal_and_each_kind_of_difference_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let erp = Erp::make(folder.path(), 600, 5).unwrap();
        for kind in Kind::BOTH {
            let path = folder.path().join(format!("staging-{}", kind.erp()));
            staged_by_hand(&erp, kind, &path);
            let verdict = compare(&erp, kind, &path).unwrap();
            assert!(verdict.is_equal() && verdict.rows > 100, "{verdict:?}");
        }
        let path = folder.path().join("staging-RM");
        let staging = Connection::open(&path).unwrap();
        staging
            .execute_batch(
                "UPDATE flan SET HISTORICO = NULL WHERE IDLAN = 2 AND CODCOLIGADA = 1;
                 UPDATE fcfo SET _deleted = 1 WHERE rowid = 1;
                 INSERT INTO tmov (_key, _deleted) VALUES (x'00', 0);
                 DROP TABLE gcoligada;",
            )
            .unwrap();
        let verdict = compare(&erp, Kind::Rm, &path).unwrap();
        let kinds: Vec<_> =
            verdict.first.iter().map(|found| (found.table.as_str(), found.kind)).collect();
        assert_eq!(
            kinds,
            [
                ("GCOLIGADA", Differs::Missing),
                ("FCFO", Differs::Missing),
                ("TMOV", Differs::Extra),
                ("FLAN", Differs::Values)
            ]
        );
        assert_eq!(verdict.first.last().unwrap().columns, ["HISTORICO"]);
        assert_eq!(verdict.differences, 4);
    }

    #[test]
    fn a_value_has_one_text_on_both_sides() {
        assert_eq!(text(Form::Bool, ValueRef::Integer(1)), Some("true".into()));
        assert_eq!(text(Form::Plain, ValueRef::Real(0.1)), Some("0.1".into()));
        let moment = |given: &str| text(Form::Moment, ValueRef::Text(given.as_bytes())).unwrap();
        assert_eq!(moment("2024-01-02 03:04:05.250"), "2024-01-02T03:04:05.25");
        assert_eq!(moment("2024-01-02 03:04:00.000"), moment("2024-01-02T03:04:00"));
        assert_eq!(moment("2024-01-02 03:04:10"), "2024-01-02T03:04:10");
        assert_eq!(text(Form::Plain, ValueRef::Text(b"")), Some(String::new()));
        assert_eq!(text(Form::Plain, ValueRef::Null), None);
    }
}
