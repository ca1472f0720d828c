//! Content: the rows of one table message, read for people.
//!
//! Promises: a value is told as it travelled, NULL apart from the empty string; a page is bounded in rows and bytes and
//! says where the next one begins.
//! Never: shows a value in `Debug`; reads a store.

use std::fmt;

use protocol::{
    Result,
    names::{DELETED, TableName},
    wire::{Cell, TableView},
};

use super::schema;

/// A page of a message's rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Content {
    pub table: TableName,
    /// Columns of the key, in its order.
    pub key: Vec<String>,
    /// Columns of the schema in its order, then those that only rows of the page have.
    pub columns: Vec<String>,
    pub rows: Vec<SentRow>,
    /// Place of the last row told, where others follow it.
    pub next: Option<usize>,
}

/// A row as it was sent.
#[derive(Clone, PartialEq, Eq)]
pub struct SentRow {
    /// Place in its message, from 0.
    pub row: usize,
    pub deleted: bool,
    /// Name and value; `None` where NULL. Of a deleted row only what came.
    pub cells: Vec<(String, Option<String>)>,
}

impl fmt::Debug for SentRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SentRow({}, {} cells)", self.row, self.cells.len())
    }
}

impl SentRow {
    /// What is done with the row: `upsert` or `delete`.
    #[must_use]
    pub const fn operation(&self) -> &'static str {
        if self.deleted { "delete" } else { "upsert" }
    }

    /// Value of a column, in any case of its name.
    #[must_use]
    pub fn value(&self, column: &str) -> Option<&str> {
        let found = self.cells.iter().find(|(name, _)| name.eq_ignore_ascii_case(column));
        found.and_then(|(_, value)| value.as_deref())
    }
}

/// Rows behind place `after`, at most `limit` and about `bytes` of them (but one at least).
///
/// # Errors
/// `INVALID_ARGUMENT` or `BAD_NAME` where the bytes are no table message.
pub fn read(body: &[u8], after: Option<usize>, (limit, bytes): (usize, usize)) -> Result<Content> {
    let view = TableView::scan(body)?;
    let table = view.table_name.parse()?;
    let mut columns: Vec<String> =
        view.schema.columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let listed = columns.len();
    let (mut rows, mut taken, mut next) = (Vec::new(), 0, None);
    let first = after.map_or(0, |after| after.saturating_add(1));
    for (at, cells) in view.rows().enumerate().skip(first) {
        if rows.len() >= limit || (taken > bytes && !rows.is_empty()) {
            next = rows.last().map(|row: &SentRow| row.row);
            break;
        }
        taken += cells.iter().map(|cell| cell.name.len() + cell.value.len() + 8).sum::<usize>();
        let row = sent(at, cells, columns.get(..listed).unwrap_or_default());
        for (name, _) in &row.cells {
            if !columns.iter().any(|column| column.eq_ignore_ascii_case(name)) {
                columns.push(name.clone());
            }
        }
        rows.push(row);
    }
    let key = view.schema.key.iter().map(|column| (*column).to_owned()).collect();
    Ok(Content { table, key, columns, rows, next })
}

/// A listed column that a live row lacks is NULL (`contracts.md` 5.4).
fn sent(row: usize, cells: &[Cell<'_>], listed: &[String]) -> SentRow {
    let mut deleted = false;
    let mut came: Vec<(&str, &str)> = Vec::new();
    for &Cell { name, value, .. } in cells {
        if name.eq_ignore_ascii_case(DELETED) {
            deleted = schema::deleted(value).unwrap_or(false);
        } else {
            came.push((name, value));
        }
    }
    let mut of_row = Vec::with_capacity(listed.len().max(came.len()));
    for column in listed {
        let at = came.iter().position(|(name, _)| name.eq_ignore_ascii_case(column));
        match at.map(|at| came.remove(at)) {
            Some((_, value)) => of_row.push((column.clone(), Some(value.to_owned()))),
            None if deleted => {}
            None => of_row.push((column.clone(), None)),
        }
    }
    of_row.extend(came.into_iter().map(|(name, value)| (name.to_owned(), Some(value.to_owned()))));
    SentRow { row, deleted, cells: of_row }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use protocol::{
        Code,
        proto::totvs::{
            Table,
            table::{
                RowColumn, Schema, TableRow,
                schema::{SchemaColumn, SchemaPrimaryKey},
            },
        },
    };

    use super::*;

    fn message(rows: &[&[(&str, &str)]]) -> Vec<u8> {
        let cell = |(name, value): &(&str, &str)| RowColumn {
            name: (*name).into(),
            value: (*value).into(),
        };
        let column = |name: &str| SchemaColumn { name: name.into(), r#type: "string".into() };
        Table {
            table_name: "FLAN".into(),
            rows: rows
                .iter()
                .map(|row| TableRow { columns: row.iter().map(cell).collect() })
                .collect(),
            schema: Some(Schema {
                flexible: true,
                columns: ["ID", "S"].map(column).to_vec(),
                primary_key: Some(SchemaPrimaryKey {
                    name: "FLAN".into(),
                    columns: vec!["ID".into()],
                }),
                ..Schema::default()
            }),
            ..Table::default()
        }
        .encode_to_vec()
    }

    fn shown(row: &SentRow) -> String {
        let cell = |(name, value): &(String, Option<String>)| {
            format!("{name}={}", value.as_deref().unwrap_or("NULL"))
        };
        let cells: Vec<String> = row.cells.iter().map(cell).collect();
        format!("{} {} {}", row.row, row.operation(), cells.join(" "))
    }

    #[test]
    fn values_come_as_they_travelled_and_null_is_told_apart_from_empty() {
        let body = message(&[
            &[("S", ""), ("ID", "1")],
            &[("id", "2"), ("Extra", "e")],
            &[("ID", "3"), ("DELETED", "true")],
        ]);
        let page = read(&body, None, (10, 1024)).unwrap();
        let rows: Vec<String> = page.rows.iter().map(shown).collect();
        assert_eq!(rows, ["0 upsert ID=1 S=", "1 upsert ID=2 S=NULL Extra=e", "2 delete ID=3"]);
        assert_eq!(page.columns, ["ID", "S", "Extra"]);
        assert_eq!((page.key, page.next), (vec!["ID".to_owned()], None));
        assert_eq!(page.rows[1].value("ID"), Some("2"));
    }

    #[test]
    fn pages_are_cut_by_rows_and_by_bytes_and_follow_each_other() {
        let large = "x".repeat(100);
        let rows: Vec<[(&str, &str); 2]> =
            ["1", "2", "3", "4", "5"].map(|id| [("ID", id), ("S", large.as_str())]).to_vec();
        let rows: Vec<&[(&str, &str)]> = rows.iter().map(|row| row.as_slice()).collect();
        let body = message(&rows);
        for bounds in [(2, 1_000_000), (100, 150), (100, 0)] {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                let page = read(&body, after, bounds).unwrap();
                assert!(page.rows.len() <= 2, "{bounds:?}");
                seen.extend(page.rows.iter().map(|row| row.row));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            assert_eq!(seen, [0, 1, 2, 3, 4], "{bounds:?}");
        }
        assert!(read(&body, Some(usize::MAX), (2, 1)).unwrap().rows.is_empty());
    }

    #[test]
    fn bytes_that_are_no_message_are_refused() {
        assert_eq!(read(b"\x0f", None, (1, 1)).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn debug_shows_no_value() {
        let page = read(&message(&[&[("ID", "canary")]]), None, (1, 1)).unwrap();
        assert!(!format!("{page:?}").contains("canary"));
    }
}
