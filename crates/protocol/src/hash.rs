//! hash128 of a row, computed alike by the sender from the source and by the server from the stored columns.
//!
//! Promises: equal for equal rows, whatever the order of columns; NULL and the empty string differ (F27).
//! Never: depends on `DELETED`, on the spelling's case of a column name, on a column that is NULL.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::{key::KeyBytes, names::ColumnName};

/// First 16 bytes of SHA-256 over the columns that are not NULL (`contracts.md` 5.4).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RowHash(pub [u8; 16]);

impl fmt::Debug for RowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowHash({:032x})", u128::from_be_bytes(self.0))
    }
}

impl RowHash {
    /// Sum of a set of rows.
    #[must_use]
    pub fn xor(self, other: Self) -> Self {
        Self((u128::from_be_bytes(self.0) ^ u128::from_be_bytes(other.0)).to_be_bytes())
    }
}

/// Hashes the rows of one table: the order of columns is worked out once.
pub struct RowHasher {
    /// Position of a column among the cells, with its length-prefixed lower-case name; ascending by name.
    columns: Vec<(usize, Vec<u8>)>,
}

impl RowHasher {
    /// For cells in the order of `columns`; a column named `DELETED` is left out.
    #[must_use]
    pub fn new(columns: &[ColumnName]) -> Self {
        let mut order: Vec<_> = columns
            .iter()
            .enumerate()
            .filter(|(_, name)| !name.as_str().eq_ignore_ascii_case(crate::names::DELETED))
            .collect();
        order.sort_by(|(_, a), (_, b)| a.folded().cmp(b.folded()));
        let prefixed = |name: &ColumnName| KeyBytes::of([name.folded()]).0;
        Self { columns: order.into_iter().map(|(at, name)| (at, prefixed(name))).collect() }
    }

    /// `cell(i)` is the canonical text of column `i`, `None` where NULL.
    pub fn hash<'a>(&self, cell: impl Fn(usize) -> Option<&'a str>) -> RowHash {
        let mut digest = Sha256::new();
        for (at, name) in &self.columns {
            if let Some(value) = cell(*at) {
                digest.update(name);
                digest.update(u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
                digest.update(value.as_bytes());
            }
        }
        let full = digest.finalize();
        let mut head = [0; 16];
        head.copy_from_slice(&full[..16]);
        RowHash(head)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(columns: &[(&str, Option<&str>)]) -> RowHash {
        let names: Vec<ColumnName> =
            columns.iter().map(|(name, _)| name.parse().unwrap()).collect();
        RowHasher::new(&names).hash(|at| columns[at].1)
    }

    #[test]
    fn the_hash_is_pinned_and_ignores_order_case_nulls_and_the_deleted_mark() {
        let row = hash(&[("B", Some("2")), ("a", Some("1"))]);
        assert_eq!(format!("{row:?}"), "RowHash(6fa2d87f48fc7ddfb9c9c24286fcecde)");
        assert_eq!(row, hash(&[("A", Some("1")), ("b", Some("2")), ("c", None)]));
        assert_eq!(row, hash(&[("A", Some("1")), ("b", Some("2")), ("DELETED", Some("true"))]));
        assert_ne!(row, hash(&[("A", Some("1")), ("b", Some("2")), ("c", Some(""))]));
    }

    /// A row of up to five columns, NULL or with a text in which columns could be confused.
    fn row() -> impl Strategy<Value = Vec<Option<String>>> {
        let text = prop_oneof![
            Just(String::new()),
            "[ab|,;\\\\\0 ]{0,4}",
            any::<i32>().prop_map(|n| n.to_string()),
            ".{0,6}",
        ];
        proptest::collection::vec(proptest::option::of(text), 5)
    }

    proptest! {
        #[test]
        fn f27_f32_rows_have_one_hash_where_they_are_equal_and_only_there(a in row(), b in row(), at in 0usize..5) {
            let named = |row: &[Option<String>]| -> RowHash {
                let names: Vec<ColumnName> = ["c", "A", "e", "b", "d"].iter().map(|name| name.parse().unwrap()).collect();
                RowHasher::new(&names).hash(|at| row[at].as_deref())
            };
            prop_assert_eq!(named(&a) == named(&b), a == b);
            // NULL is not the empty text, and a column that is NULL is as good as one that is not there.
            let with = |value: Option<&str>| {
                let mut row = a.clone();
                row[at] = value.map(str::to_owned);
                named(&row)
            };
            prop_assert_ne!(with(None), with(Some("")));
            prop_assert_ne!(with(Some("1.0")), with(Some("1")));
            let fewer: Vec<(String, Option<&str>)> = ["c", "A", "e", "b", "d"].iter().zip(&a)
                .filter(|(_, value)| value.is_some())
                .map(|(name, value)| ((*name).to_owned(), value.as_deref()))
                .collect();
            let names: Vec<ColumnName> = fewer.iter().map(|(name, _)| name.parse().unwrap()).collect();
            prop_assert_eq!(RowHasher::new(&names).hash(|at| fewer[at].1), named(&a));
        }

        #[test]
        fn moving_a_byte_between_cells_changes_the_hash(a in ".{1,8}", b in ".{0,8}") {
            let mut chars = a.chars();
            let last = chars.next_back().unwrap();
            let moved = format!("{last}{b}");
            prop_assert_ne!(
                hash(&[("a", Some(&a)), ("b", Some(&b))]),
                hash(&[("a", Some(chars.as_str())), ("b", Some(&moved))])
            );
        }
    }
}
