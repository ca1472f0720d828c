//! Canonical value text: the one form in which a value travels, is hashed and is compared (`contracts.md` 5.4).
//!
//! Promises: lossless for every type of [`ColumnType`]; the same value always gives the same text.
//! Never: goes through a float for a decimal, changes character data, turns a naive time into UTC.

mod write;

use std::fmt;

use crate::limits;

pub use write::{
    push_base64, push_bool, push_date, push_decimal, push_f32, push_f64, push_i64, push_padded,
    push_time, push_timestamp, push_uuid,
};

/// Type names of `schema.columns`, Carol's and Malote's exact ones. An unknown name is `String`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ColumnType {
    Base64,
    Boolean,
    Date,
    Decimal,
    Double,
    Geopoint,
    Integer,
    Json,
    Long,
    Nested,
    Object,
    String,
    Time,
    Timestamp,
    Timestamptz,
    Uuid,
}

impl ColumnType {
    pub const ALL: [Self; 16] = [
        Self::Base64,
        Self::Boolean,
        Self::Date,
        Self::Decimal,
        Self::Double,
        Self::Geopoint,
        Self::Integer,
        Self::Json,
        Self::Long,
        Self::Nested,
        Self::Object,
        Self::String,
        Self::Time,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Uuid,
    ];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Base64 => "base64",
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::Decimal => "decimal",
            Self::Double => "double",
            Self::Geopoint => "geopoint",
            Self::Integer => "integer",
            Self::Json => "json",
            Self::Long => "long",
            Self::Nested => "nested",
            Self::Object => "object",
            Self::String => "string",
            Self::Time => "time",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Uuid => "uuid",
        }
    }
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A column's type as it travels: the type and whether values are base64 of raw bytes (`;enc=b64`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TypeName {
    pub column_type: ColumnType,
    /// Values are base64 of the raw bytes: text that holds U+0000 or is not Unicode (`contracts.md` 5.6).
    pub encoded: bool,
}

const ENCODED: &str = ";enc=b64";

impl TypeName {
    #[must_use]
    pub const fn plain(column_type: ColumnType) -> Self {
        Self { column_type, encoded: false }
    }

    /// Whether [`Self::parse`] reads it as what it says.
    #[must_use]
    pub fn is_known(text: &str) -> bool {
        let read = Self::parse(text);
        text.trim().eq_ignore_ascii_case(&read.to_string())
    }

    /// Reads a type name in any case; what is not known is a string (`contracts.md` 5.4).
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let (name, encoded) =
            match text.len().checked_sub(ENCODED.len()).and_then(|at| text.split_at_checked(at)) {
                Some((head, tail)) if tail.eq_ignore_ascii_case(ENCODED) => (head, true),
                _ => (text, false),
            };
        let known = ColumnType::ALL
            .into_iter()
            .find(|known| known.as_str().eq_ignore_ascii_case(name.trim()));
        Self { column_type: known.unwrap_or(ColumnType::String), encoded }
    }
}

impl fmt::Display for TypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.column_type, if self.encoded { ENCODED } else { "" })
    }
}

const _: () = assert!("timestamptz".len() + ENCODED.len() <= limits::TYPE_NAME_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_names_read_back_in_any_case_and_unknown_ones_are_strings() {
        for known in ColumnType::ALL {
            for encoded in [false, true] {
                let name = TypeName { column_type: known, encoded };
                assert_eq!(TypeName::parse(&name.to_string()), name);
                assert_eq!(TypeName::parse(&name.to_string().to_uppercase()), name);
            }
        }
        assert_eq!(TypeName::parse("varchar"), TypeName::plain(ColumnType::String));
        assert_eq!(TypeName::parse(""), TypeName::plain(ColumnType::String));
        assert_eq!(
            TypeName::parse("é;enc=b64"),
            TypeName { column_type: ColumnType::String, encoded: true }
        );
    }
}
