//! Names that travel: ERP, table and column.
//!
//! Promises: a name that exists is bounded, has no control characters and compares in any (ASCII) case.
//! Never: quotes itself for SQL; whoever renders SQL quotes.

use std::{
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::{Code, Error},
    limits,
};

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $max:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $name { given: String, folded: String }

        impl $name {
            /// As it was written.
            #[must_use]
            pub fn as_str(&self) -> &str { &self.given }

            /// In lower case: the form that is compared and that names staging objects.
            #[must_use]
            pub fn folded(&self) -> &str { &self.folded }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let given = text.trim();
                if given.is_empty() {
                    return Err(Error::new(Code::BadName, concat!($what, " is empty")));
                }
                if given.len() > $max {
                    return Err(Error::new(Code::BadName, format!(
                        concat!($what, " has {} bytes, at most {} are allowed"), given.len(), $max)));
                }
                if given.chars().any(char::is_control) {
                    return Err(Error::new(Code::BadName, concat!($what, " holds a control character")));
                }
                Ok(Self { given: given.to_owned(), folded: given.to_ascii_lowercase() })
            }
        }
        impl PartialEq for $name { fn eq(&self, other: &Self) -> bool { self.folded == other.folded } }
        impl Eq for $name {}
        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> { Some(self.cmp(other)) }
        }
        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering { self.folded.cmp(&other.folded) }
        }
        impl Hash for $name { fn hash<H: Hasher>(&self, state: &mut H) { self.folded.hash(state); } }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.given) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{:?}", self.given) }
        }
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> { s.serialize_str(&self.given) }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

names! {
    /// Wire name of a table: `FLAN`, `SE1`. Compared in any case; its lower case names the staging table.
    TableName, "table name", limits::TABLE_NAME_BYTES;
    /// Column of a table. Two columns of one table never differ in case alone.
    ColumnName, "column name", limits::COLUMN_NAME_BYTES;
}

/// The proto field `erp`: `RM`, `PROTHEUS`, `DATASUL`, `LOGIX` or another of 1 to 32 letters, digits, `_`, `-`.
/// Kept in upper case, the form of the documents.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct ErpName(String);

impl ErpName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ErpName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        if (1..=limits::ERP_NAME_BYTES).contains(&text.len()) && text.bytes().all(plain) {
            Ok(Self(text.to_ascii_uppercase()))
        } else {
            Err(Error::new(Code::BadName, "erp must be 1 to 32 letters, digits, '_' or '-'"))
        }
    }
}

impl<'de> Deserialize<'de> for ErpName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for ErpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ErpName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Extra column that marks a deleted row on the wire (document 001, 1.2).
pub const DELETED: &str = "DELETED";

/// Columns that staging adds to every table (`contracts.md` 5.7); an ERP column of that name is refused.
pub const STAGING_COLUMNS: [&str; 5] = ["_key", "_seq", "_deleted", "_batch", "_message"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_in_any_case_and_keep_their_spelling() {
        let upper: TableName = "FLAN".parse().unwrap();
        let lower: TableName = " flan ".parse().unwrap();
        assert_eq!(upper, lower);
        assert_eq!(upper.as_str(), "FLAN");
        assert_eq!(upper.folded(), "flan");
    }

    #[test]
    fn names_that_are_empty_too_long_or_hold_control_characters_are_refused() {
        for bad in ["", "  ", "a\u{0}b", "a\nb", &"x".repeat(129)] {
            assert_eq!(bad.parse::<TableName>().unwrap_err().code, Code::BadName, "{bad:?}");
            assert_eq!(bad.parse::<ColumnName>().unwrap_err().code, Code::BadName, "{bad:?}");
        }
    }

    #[test]
    fn an_erp_is_kept_in_upper_case_and_refuses_other_signs() {
        assert_eq!("rm".parse::<ErpName>().unwrap().as_str(), "RM");
        for bad in ["", "R M", "../x", "é", &"x".repeat(33)] {
            assert_eq!(bad.parse::<ErpName>().unwrap_err().code, Code::BadName, "{bad:?}");
        }
    }
}
