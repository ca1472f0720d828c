//! Storage: how a column of a staging table is kept, and which values it gives back as they came (`design.md` 3.3).
//!
//! Promises: what [`fit`] passes comes back digit for digit from SQLite's STRICT tables and from PostgreSQL's types.
//! Never: changes a value so that it fits.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::civil::Date;
use protocol::value::{ColumnType, TypeName};

/// Digits before and behind the point that PostgreSQL's `numeric` has.
const NUMERIC_DIGITS: (usize, usize) = (131_072, 16_383);

/// What keeps staging tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    Sqlite,
    Postgres,
}

/// How a column is kept. SQLite has the first three and text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Storage {
    Integer,
    Boolean,
    Base64,
    Numeric,
    Date,
    Timestamp,
    Timestamptz,
    Text,
}

impl Storage {
    pub const ALL: [Self; 8] = [
        Self::Integer,
        Self::Boolean,
        Self::Base64,
        Self::Numeric,
        Self::Date,
        Self::Timestamp,
        Self::Timestamptz,
        Self::Text,
    ];

    /// Values that are base64 of raw text (`;enc=b64`) stay as they came.
    #[must_use]
    pub const fn of(type_name: TypeName, engine: Engine) -> Self {
        match (type_name.column_type, engine) {
            _ if type_name.encoded => Self::Text,
            (ColumnType::Long | ColumnType::Integer, _) => Self::Integer,
            (ColumnType::Boolean, _) => Self::Boolean,
            (ColumnType::Base64, _) => Self::Base64,
            (ColumnType::Decimal, Engine::Postgres) => Self::Numeric,
            (ColumnType::Date, Engine::Postgres) => Self::Date,
            (ColumnType::Timestamp, Engine::Postgres) => Self::Timestamp,
            (ColumnType::Timestamptz, Engine::Postgres) => Self::Timestamptz,
            _ => Self::Text,
        }
    }

    #[must_use]
    pub const fn sqlite(self) -> &'static str {
        match self {
            Self::Integer | Self::Boolean => "INTEGER",
            Self::Base64 => "BLOB",
            _ => "TEXT",
        }
    }

    /// As the relation of columns names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Base64 => "base64",
            Self::Numeric => "numeric",
            Self::Date => "date",
            Self::Timestamp => "timestamp",
            Self::Timestamptz => "timestamptz",
            Self::Text => "text",
        }
    }

    /// What a value is not that does not fit.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Integer => "a 64-bit integer",
            Self::Boolean => "a boolean",
            Self::Base64 => "base64",
            Self::Numeric => "a decimal",
            Self::Date => "a date",
            Self::Timestamp | Self::Timestamptz => "a timestamp",
            Self::Text => "text",
        }
    }

    /// Whether a value that does not fit makes a text of its column, as the same column is text with SQLite. Of the
    /// others both engines refuse it alike.
    #[must_use]
    pub const fn gives_way(self) -> bool {
        matches!(self, Self::Numeric | Self::Date | Self::Timestamp | Self::Timestamptz)
    }
}

/// A value as it is bound; what PostgreSQL alone has a type for is bound as text and read by the database.
#[derive(Clone, PartialEq, Debug)]
pub enum Fitted<'a> {
    Integer(i64),
    Boolean(bool),
    Text(&'a str),
    Blob(Vec<u8>),
}

/// Fits a canonical text into its column; `None` where it would not come back the same.
#[must_use]
pub fn fit(storage: Storage, value: &str) -> Option<Fitted<'_>> {
    let text = |fits: bool| fits.then_some(Fitted::Text(value));
    match storage {
        Storage::Text => text(true),
        Storage::Boolean => match value {
            "true" => Some(Fitted::Boolean(true)),
            "false" => Some(Fitted::Boolean(false)),
            _ => None,
        },
        Storage::Integer => {
            let canonical = is_whole(value.strip_prefix('-').unwrap_or(value)) && value != "-0";
            canonical.then(|| value.parse().ok().map(Fitted::Integer)).flatten()
        }
        Storage::Base64 => {
            let bytes = STANDARD.decode(value).ok()?;
            (STANDARD.encode(&bytes) == value).then_some(Fitted::Blob(bytes))
        }
        Storage::Numeric => text(is_numeric(value)),
        Storage::Date => text(is_date(value)),
        Storage::Timestamp => text(is_timestamp(value)),
        Storage::Timestamptz => text(value.strip_suffix('Z').is_some_and(is_timestamp)),
    }
}

/// Digits without a zero before them.
fn is_whole(digits: &str) -> bool {
    match digits.as_bytes() {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

/// Plain notation with a digit before the point; the scale is kept, the sign of zero is not.
fn is_numeric(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (digits, None),
    };
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_zero = digits.bytes().all(|b| b == b'0' || b == b'.');
    is_whole(whole)
        && fraction.is_none_or(all_digits)
        && whole.len() <= NUMERIC_DIGITS.0
        && fraction.unwrap_or_default().len() <= NUMERIC_DIGITS.1
        && !(is_zero && value.starts_with('-'))
}

/// A day of the years 1 to 9999.
fn is_date(value: &str) -> bool {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = *value.as_bytes() else { return false };
    let digits = [y0, y1, y2, y3, m0, m1, d0, d1];
    if !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let of = |part: &[u8]| part.iter().fold(0_i16, |sum, digit| sum * 10 + i16::from(digit - b'0'));
    let narrow = |part: &[u8]| i8::try_from(of(part)).unwrap_or_default();
    let year = of(&[y0, y1, y2, y3]);
    year > 0 && Date::new(year, narrow(&[m0, m1]), narrow(&[d0, d1])).is_ok()
}

/// Date and time of day, microseconds at most, without zeros at the end.
fn is_timestamp(value: &str) -> bool {
    let Some((date, time)) = value.split_once('T') else { return false };
    let (time, fraction) = match time.split_once('.') {
        Some((time, fraction)) => (time, Some(fraction)),
        None => (time, None),
    };
    let [h0, h1, b':', m0, m1, b':', s0, s1] = *time.as_bytes() else { return false };
    let digits = [h0, h1, m0, m1, s0, s1];
    let fraction_fits = fraction.is_none_or(|fraction| {
        (1..=6).contains(&fraction.len())
            && !fraction.ends_with('0')
            && fraction.bytes().all(|b| b.is_ascii_digit())
    });
    digits.iter().all(u8::is_ascii_digit)
        && [h0, h1] <= *b"23"
        && m0 <= b'5'
        && s0 <= b'5'
        && fraction_fits
        && is_date(date)
}

/// The canonical text again.
#[must_use]
pub fn unfit(storage: Storage, integer: i64) -> String {
    match storage {
        Storage::Boolean => if integer == 0 { "false" } else { "true" }.to_owned(),
        _ => integer.to_string(),
    }
}

/// Canonical text of a binary column.
#[must_use]
pub fn unfit_blob(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}
