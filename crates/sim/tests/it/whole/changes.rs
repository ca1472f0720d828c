//! Random changes: inserts, updates and deletes on whatever tables there are, repeated by a seed.
//!
//! Promises: each statement commits by itself; what a constraint refuses is left out and not counted.

use sim::chance::Chance;

use super::erp::{Column, Erp, Kind, Rows};

/// Statements that took effect.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) inserts: u32,
    pub(crate) updates: u32,
    pub(crate) deletes: u32,
}

/// Tries `count` changes on each table.
pub(crate) async fn change(erp: &Erp, tables: &[&str], count: u32, chance: &mut Chance) -> Done {
    let mut done = Done::default();
    for table in tables {
        let (columns, rows) = erp.rows(table).await;
        for _ in 0..count {
            let keys: Vec<&Vec<String>> = rows.keys().collect();
            let Some(key) = chance.pick(&keys) else { break };
            let (sql, counter) = match chance.below(10) {
                0..3 => (insert(table, &columns, &rows, key, chance), &mut done.inserts),
                3..8 => (update(table, &columns, key, chance), &mut done.updates),
                _ => (delete(table, &columns, key), &mut done.deletes),
            };
            if let Some(sql) = sql
                && erp.run(&sql).await.is_ok()
            {
                *counter += 1;
            }
        }
    }
    done
}

fn at_key(columns: &[Column], key: &[String]) -> String {
    let mut of_key: Vec<&Column> = columns.iter().filter(|column| column.key > 0).collect();
    of_key.sort_by_key(|column| column.key);
    let equal = |(column, value): (&&Column, &String)| {
        format!("\"{}\" = {}", column.name, literal(Some(value)))
    };
    of_key.iter().zip(key).map(equal).collect::<Vec<_>>().join(" AND ")
}

fn literal(value: Option<&String>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| format!("'{}'", value.replace('\'', "''")))
}

/// Another value of that kind: accents, quotes, emoji, edges.
fn value(kind: Kind, chance: &mut Chance) -> String {
    let number = chance.below(1_000_000);
    match kind {
        Kind::Int => (number % 30_000).to_string(),
        Kind::Decimal => format!("{}.{:02}", number % 1000, number % 100),
        Kind::Float => format!("-{}.{}", number % 90, number),
        Kind::Bool => number.is_multiple_of(2).to_string(),
        Kind::Bytes => format!("\\x{:08x}", number),
        Kind::Timestamp => {
            format!("2024-{:02}-{:02} {:02}:00:00", number % 12 + 1, number % 28 + 1, number % 24)
        }
        Kind::Timestamptz => format!("2024-{:02}-11 10:11:12.{number:06}+03", number % 12 + 1),
        Kind::Text => ["", " ", "ção", "O'Brien", "tab\there", "Ω🐝"]
            .get(usize::try_from(number % 8).unwrap())
            .map_or_else(|| format!("v{number}"), |text| (*text).to_owned()),
    }
}

/// A copy of a row under a new key.
fn insert(
    table: &str,
    columns: &[Column],
    rows: &Rows,
    key: &[String],
    chance: &mut Chance,
) -> Option<String> {
    let mut cells = rows.get(key)?.clone();
    let at = (0..columns.len()).find(|at| columns[*at].key == 1)?;
    cells[at] = Some(match columns[at].kind {
        Kind::Int => (10_000_000 + chance.below(1_000_000)).to_string(),
        kind => value(kind, chance),
    });
    let names: Vec<String> = columns.iter().map(|column| format!("\"{}\"", column.name)).collect();
    let values: Vec<String> = cells.iter().map(|cell| literal(cell.as_ref())).collect();
    Some(format!("INSERT INTO \"{table}\" ({}) VALUES ({})", names.join(", "), values.join(", ")))
}

fn update(table: &str, columns: &[Column], key: &[String], chance: &mut Chance) -> Option<String> {
    let free: Vec<&Column> = columns.iter().filter(|column| column.key == 0).collect();
    let column = chance.pick(&free)?;
    let new = if chance.percent(15) {
        "NULL".to_owned()
    } else {
        literal(Some(&value(column.kind, chance)))
    };
    Some(format!(
        "UPDATE \"{table}\" SET \"{}\" = {new} WHERE {}",
        column.name,
        at_key(columns, key)
    ))
}

fn delete(table: &str, columns: &[Column], key: &[String]) -> Option<String> {
    Some(format!("DELETE FROM \"{table}\" WHERE {}", at_key(columns, key)))
}
