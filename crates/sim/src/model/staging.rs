//! Staging: what the tables hold after the accepted messages, in the order of acceptance.
//!
//! Promises: the last accepted image of a key wins; a deleted row keeps its place and loses its values.
//! Never: cares for batches; what was accepted is applied, complete or not.

use std::collections::BTreeMap;

/// A row of a message: cells by lower-case column name; an absent column is NULL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub key: Vec<String>,
    pub cells: BTreeMap<String, String>,
    pub deleted: bool,
}

/// A staged row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staged {
    /// Empty where deleted.
    pub cells: BTreeMap<String, String>,
    pub deleted: bool,
    pub batch: i64,
    pub message: i32,
    /// Place of the image: (accept_seq, row of the message).
    pub place: (i64, usize),
}

/// The staged tables of one environment and ERP: table → key → row.
#[derive(Clone, Default, Debug)]
pub struct Staging {
    pub tables: BTreeMap<String, BTreeMap<Vec<String>, Staged>>,
}

impl Staging {
    /// Applies one accepted message.
    pub fn apply(&mut self, table: &str, batch: i64, message: i32, accept_seq: i64, rows: &[Row]) {
        let table = self.tables.entry(table.to_lowercase()).or_default();
        for (at, row) in rows.iter().enumerate() {
            let place = (accept_seq, at);
            if table.get(&row.key).is_some_and(|staged| staged.place >= place) {
                continue;
            }
            let cells = if row.deleted { BTreeMap::new() } else { row.cells.clone() };
            table.insert(
                row.key.clone(),
                Staged { cells, deleted: row.deleted, batch, message, place },
            );
        }
    }

    /// Takes a table away, for a load under another key.
    pub fn forget(&mut self, table: &str) {
        self.tables.remove(&table.to_lowercase());
    }

    /// Rows that are there: not deleted.
    #[must_use]
    pub fn live(&self, table: &str) -> BTreeMap<Vec<String>, BTreeMap<String, String>> {
        let rows = self.tables.get(&table.to_lowercase()).into_iter().flatten();
        rows.filter(|(_, row)| !row.deleted)
            .map(|(key, row)| (key.clone(), row.cells.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(key: &str, value: &str, deleted: bool) -> Row {
        Row { key: vec![key.into()], cells: [("v".to_owned(), value.to_owned())].into(), deleted }
    }

    #[test]
    fn the_last_image_wins_and_a_delete_is_not_overtaken() {
        let mut staging = Staging::default();
        staging.apply(
            "T",
            1,
            1,
            1,
            &[row("a", "1", false), row("a", "2", false), row("b", "1", false)],
        );
        staging.apply("t", 1, 2, 2, &[row("b", "", true)]);
        staging.apply("T", 1, 1, 1, &[row("a", "1", false), row("b", "1", false)]);
        let live = staging.live("T");
        assert_eq!(live.len(), 1);
        assert_eq!(live[&vec!["a".to_owned()]]["v"], "2");
        assert!(staging.tables["t"][&vec!["b".to_owned()]].deleted);
    }
}
