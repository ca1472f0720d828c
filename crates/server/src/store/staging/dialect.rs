//! Dialect: how a staging table and its columns are named, typed and told in either engine (`design.md` 3.3).
//!
//! Promises: every name is quoted, and one that the engine cannot take whole gets another that no other name gets; what
//! a column tells is the canonical text it was given.
//! Never: puts a value into a text.

use std::sync::Arc;

use protocol::{ids::EnvironmentId, names::ErpName};
use sha2::{Digest as _, Sha256};

use super::tables::StagedColumn;
use crate::{
    model::schema::{Engine, Storage},
    store::sql::Shape,
};

/// Longer names are cut by PostgreSQL.
const NAME_BYTES: usize = 63;

/// Bytes of a longer name that stay, before its hash.
const HEAD_BYTES: usize = 46;

/// Names that each table of PostgreSQL has already.
const SYSTEM_COLUMNS: [&str; 6] = ["cmax", "cmin", "ctid", "tableoid", "xmax", "xmin"];

/// Rows of a walk's first page, and of the largest one.
const FIRST_ROWS: i64 = 16;
const MOST_ROWS: i64 = 4_096;

/// What a page of a walk may take, about.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Of which engine a staging space is, and which of its schemas holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::store) enum Dialect {
    Sqlite,
    Postgres { schema: Arc<str> },
}

impl Dialect {
    /// The schema of an environment and ERP: `staging_`, the environment's id without dashes, the ERP's name in lower
    /// case.
    pub(in crate::store) fn postgres(environment: EnvironmentId, erp: &ErpName) -> Self {
        let erp = erp.as_str().to_ascii_lowercase();
        let name = taken(format!("staging_{}_{erp}", environment.0.simple()));
        Self::Postgres { schema: name.into() }
    }

    pub(super) const fn engine(&self) -> Engine {
        match self {
            Self::Sqlite => Engine::Sqlite,
            Self::Postgres { .. } => Engine::Postgres,
        }
    }

    /// A relation of the space, by its name in lower case.
    pub(super) fn relation(&self, folded: &str) -> String {
        match self {
            Self::Sqlite => quote(folded),
            Self::Postgres { schema } => {
                format!("{}.{}", quote(schema), quote(&taken(folded.to_owned())))
            }
        }
    }

    /// An index: it lies where its table does.
    pub(super) fn index(&self, name: String) -> String {
        match self {
            Self::Sqlite => quote(&name),
            Self::Postgres { .. } => quote(&taken(name)),
        }
    }

    /// A column as a statement names it.
    pub(super) fn column(&self, name: &str) -> String {
        match self {
            Self::Sqlite => quote(name),
            Self::Postgres { .. } => quote(&taken(name.to_owned())),
        }
    }

    /// A column as it is read: numbers with a fraction, dates and times come as the text that was written.
    pub(super) fn told(&self, column: &StagedColumn) -> String {
        let name = self.column(&column.name);
        match (self, column.storage) {
            (Self::Sqlite, _)
            | (_, Storage::Integer | Storage::Boolean | Storage::Base64 | Storage::Text) => name,
            (_, Storage::Numeric | Storage::Date) => format!("{name}::text"),
            (_, Storage::Timestamp) => format!("replace({name}::text, ' ', 'T')"),
            // Sessions have the time zone UTC.
            (_, Storage::Timestamptz) => {
                format!("replace(replace({name}::text, ' ', 'T'), '+00', 'Z')")
            }
        }
    }

    /// Place number `at` of a statement, for a value of that column.
    pub(super) fn placed(&self, storage: Storage, at: usize) -> String {
        match (self, storage) {
            (Self::Sqlite, _)
            | (_, Storage::Integer | Storage::Boolean | Storage::Base64 | Storage::Text) => {
                format!("?{at}")
            }
            (_, Storage::Numeric | Storage::Date | Storage::Timestamp | Storage::Timestamptz) => {
                format!("?{at}::text::{}", self.type_name(storage))
            }
        }
    }

    pub(super) const fn type_name(&self, storage: Storage) -> &'static str {
        match (self, storage) {
            (Self::Sqlite, _) => storage.sqlite(),
            (_, Storage::Integer) => "bigint",
            (_, Storage::Boolean) => "boolean",
            (_, Storage::Base64) => "bytea",
            (_, Storage::Numeric) => "numeric",
            (_, Storage::Date) => "date",
            (_, Storage::Timestamp) => "timestamp",
            (_, Storage::Timestamptz) => "timestamptz",
            (_, Storage::Text) => "text",
        }
    }

    /// A table without columns of the ERP.
    pub(super) fn created(&self, relation: &str) -> String {
        let [bytes, number, truth, end] = match self {
            Self::Sqlite => ["BLOB", "INTEGER", "INTEGER", " STRICT"],
            Self::Postgres { .. } => ["bytea", "bigint", "boolean", ""],
        };
        format!(
            "CREATE TABLE {relation} (_key {bytes} NOT NULL PRIMARY KEY, _seq {number} NOT NULL,
                                      _deleted {truth} NOT NULL, _batch {number} NOT NULL,
                                      _message {number} NOT NULL){end}"
        )
    }

    /// Condition of rows that are there; SQLite's index of tombstones is found by the very words of [`Self::gone`].
    pub(super) const fn live(&self) -> &'static str {
        match self {
            Self::Sqlite => "_deleted = 0",
            Self::Postgres { .. } => "NOT _deleted",
        }
    }

    /// Condition of tombstones.
    pub(super) const fn gone(&self) -> &'static str {
        match self {
            Self::Sqlite => "_deleted = 1",
            Self::Postgres { .. } => "_deleted",
        }
    }

    /// How many rows of a walk are asked for at once, after those so many of which had so many bytes: SQLite gives one
    /// after another, PostgreSQL all of them, so that a page grows only while it is small.
    pub(super) fn at_once(&self, asked: i64, bytes: usize) -> i64 {
        match self {
            Self::Sqlite => i64::MAX,
            Self::Postgres { .. } if bytes.saturating_mul(4) <= PAGE_BYTES => {
                asked.saturating_mul(4).clamp(FIRST_ROWS, MOST_ROWS)
            }
            Self::Postgres { .. } => (asked / 2).clamp(FIRST_ROWS, MOST_ROWS),
        }
    }

    /// An instant as the relation of batches keeps it, of a place that holds ISO 8601.
    pub(super) const fn instant(&self) -> &'static str {
        match self {
            Self::Sqlite => "?3",
            Self::Postgres { .. } => "?3::text::timestamptz",
        }
    }
}

/// What a NULL of that column is of.
pub(super) const fn shape(storage: Storage) -> Shape {
    match storage {
        Storage::Integer => Shape::Int,
        Storage::Boolean => Shape::Bool,
        Storage::Base64 => Shape::Blob,
        _ => Shape::Text,
    }
}

/// An identifier for SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name as PostgreSQL takes it whole: one that is too long, or that every table has, ends in a hash of itself.
fn taken(name: String) -> String {
    if name.len() <= NAME_BYTES && !SYSTEM_COLUMNS.contains(&name.as_str()) {
        return name;
    }
    let hash = Sha256::digest(name.as_bytes());
    let hash: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let head = name.floor_char_boundary(HEAD_BYTES);
    format!("{}_{hash}", name.get(..head).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn names_that_postgresql_cannot_take_get_another_and_no_two_the_same() {
        let of = Dialect::Postgres { schema: "s".into() };
        assert_eq!(of.column("Valor \"x"), "\"Valor \"\"x\"");
        assert_eq!(of.column("XMIN"), "\"XMIN\"");
        assert!(of.column("xmin").starts_with("\"xmin_"), "{}", of.column("xmin"));
        let long = "ã".repeat(60);
        let (a, b) = (of.column(&format!("{long}1")), of.column(&format!("{long}2")));
        assert!(a != b && a.len() <= NAME_BYTES + 2, "{a}");
        assert_eq!(Dialect::Sqlite.column(&long), format!("\"{long}\""));
        let relation = of.relation(&long.to_lowercase());
        assert!(relation.starts_with("\"s\".\"ã"), "{relation}");
    }

    #[test]
    fn a_page_of_a_walk_grows_while_it_is_small() {
        let of = Dialect::Postgres { schema: "s".into() };
        let (mut asked, mut pages) = (of.at_once(0, 0), Vec::new());
        for bytes_of_row in [200, 200, 200, 200, 200, 200_000, 200_000] {
            pages.push(asked);
            asked = of.at_once(asked, usize::try_from(asked).unwrap() * bytes_of_row);
        }
        assert_eq!(pages, [16, 64, 256, 1_024, 4_096, 4_096, 2_048]);
        assert_eq!(of.at_once(16, usize::MAX), 16);
        assert_eq!(Dialect::Sqlite.at_once(0, 0), i64::MAX);
    }

    #[test]
    fn each_environment_and_erp_has_a_schema_of_its_own() {
        let of = |id: u128, erp: &str| {
            let erp: ErpName = erp.parse().unwrap();
            match Dialect::postgres(EnvironmentId(Uuid::from_u128(id)), &erp) {
                Dialect::Postgres { schema } => schema.to_string(),
                Dialect::Sqlite => unreachable!(),
            }
        };
        assert_eq!(of(7, "rm"), "staging_00000000000000000000000000000007_rm");
        let long = "x".repeat(31);
        let (a, b) = (of(7, &format!("{long}1")), of(7, &format!("{long}2")));
        assert!(a != b && a.len() <= NAME_BYTES, "{a}");
    }
}
