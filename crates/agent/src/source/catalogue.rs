//! Catalogue: a table as its database describes it, before a profile reads meaning into it.
//!
//! Promises: names in the database's spelling, columns in their order; equal fingerprints mean equal descriptions.

use protocol::value::TypeName;
use sha2::{Digest as _, Sha256};

/// A table, view or anything else that rows are read from.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub schema: Option<String>,
    pub table: String,
    pub columns: Vec<FoundColumn>,
    /// Columns of the primary key, in its order; empty = none.
    pub primary: Vec<String>,
    /// Unique indexes over plain columns, without a predicate.
    pub unique: Vec<(String, Vec<String>)>,
    pub fingerprint: [u8; 16],
}

#[derive(Clone, Debug)]
pub(super) struct FoundColumn {
    pub name: String,
    pub type_name: TypeName,
    /// The database's own words for the type, fit for a cast there.
    pub native: String,
    /// The database's number of the type, where it has one.
    pub native_id: u32,
    pub nullable: bool,
    /// Why it cannot order changes; `None` = it can.
    pub stamp_unfit: Option<&'static str>,
    /// Why it cannot be part of a key; `None` = it can.
    pub key_unfit: Option<&'static str>,
}

impl Found {
    pub(super) fn position(&self, name: &str) -> Option<usize> {
        let exact = self.columns.iter().position(|column| column.name == name);
        exact.or_else(|| {
            self.columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
        })
    }

    pub(super) fn column(&self, name: &str) -> Option<&FoundColumn> {
        self.columns.get(self.position(name)?)
    }
}

/// 16 bytes of SHA-256 over length-prefixed parts.
pub(super) fn fingerprint<'a>(parts: impl IntoIterator<Item = &'a str>) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let mut short = [0; 16];
    for (to, from) in short.iter_mut().zip(digest) {
        *to = from;
    }
    short
}
