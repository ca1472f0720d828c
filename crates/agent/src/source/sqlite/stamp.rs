//! Stamps of SQLite: texts `YYYY-MM-DD HH:MM:SS[.f]` (also with `T`, with `Z`) or integer epochs, both UTC.
//!
//! Promises: a bound in text form has whole seconds, rounded down, and the table's own sign between day and time: it sorts
//! before every spelling of the same instant with that sign, so that a read from it leaves none out. Texts with the other
//! sign sort by day first; they are apart from the deltas, and the scan compares them.

use protocol::{Code, Error, Result, value::push_timestamp};
use rusqlite::{Connection, OptionalExtension as _, types::ValueRef};

use super::{
    super::{Bound, StampShape, TableShape, Watermark, dialect::quoted},
    fault,
};

/// Seconds pass 10^11 in the year 5138, milliseconds pass it in 1973.
const SECONDS: i64 = 100_000_000_000;
const MILLIS: i64 = 100_000_000_000_000;

/// How a table writes its stamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Style {
    Text {
        sign: char,
    },
    /// Integer; so many of them a second.
    Epoch {
        per_second: i64,
    },
}

impl Style {
    /// As a table's shape holds it.
    #[must_use]
    pub(super) fn form(self) -> String {
        match self {
            Self::Text { sign: 'T' } => "T".to_owned(),
            Self::Text { .. } => "blank".to_owned(),
            Self::Epoch { per_second } => per_second.to_string(),
        }
    }

    /// `None` where the shape was made before the table had a stamp.
    fn of(form: &str) -> Option<Self> {
        match form {
            "" => None,
            "T" => Some(Self::Text { sign: 'T' }),
            "blank" => Some(Self::Text { sign: ' ' }),
            number => Some(Self::Epoch { per_second: number.parse().ok()? }),
        }
    }
}

/// The style that the table was described with. A table that had no stamp then and has one now is to be described again
/// (`SCHEMA_CHANGED`); as long as it has none the style does not matter.
pub(super) fn known(
    connection: &Connection,
    shape: &TableShape,
    stamp: &StampShape,
) -> Result<Style> {
    if let Some(style) = Style::of(&stamp.form) {
        return Ok(style);
    }
    match sample(connection, shape, stamp)? {
        None => Ok(Style::Text { sign: ' ' }),
        Some(_) => {
            let words = format!("table {} has its first stamps now", shape.wire);
            Err(Error::new(Code::SchemaChanged, words))
        }
    }
}

/// Looks at one stamp of the table. Without any, the style is not known yet.
pub(super) fn sample(
    connection: &Connection,
    shape: &TableShape,
    stamp: &StampShape,
) -> Result<Option<Style>> {
    let (column, table) = (quoted(&stamp.column), quoted(&shape.physical.1));
    let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
    let read = connection.query_row(&sql, [], |row| Ok(style(row.get_ref(0)?)));
    match read.optional().map_err(fault)? {
        None => Ok(None),
        Some(Some(style)) => Ok(Some(style)),
        Some(None) => {
            let words = format!(
                "table {}: column {} holds neither 'YYYY-MM-DD HH:MM:SS' nor an integer epoch",
                shape.wire, stamp.column
            );
            Err(Error::new(Code::StampUnfit, words))
        }
    }
}

fn style(value: ValueRef<'_>) -> Option<Style> {
    match value {
        ValueRef::Integer(number) => Some(Style::Epoch {
            per_second: match number.saturating_abs() {
                ..SECONDS => 1,
                SECONDS..MILLIS => 1_000,
                _ => 1_000_000,
            },
        }),
        ValueRef::Text(bytes) => {
            let text = std::str::from_utf8(bytes).ok()?;
            let shape = |(at, sign): (usize, char)| match at {
                4 | 7 => sign == '-',
                10 => sign == ' ' || sign == 'T',
                13 | 16 => sign == ':',
                _ => sign.is_ascii_digit(),
            };
            let (head, tail) = text.split_at_checked(19)?;
            let tail = tail.strip_suffix('Z').unwrap_or(tail);
            let fraction = tail.strip_prefix('.').unwrap_or(tail);
            let fits = head.chars().enumerate().all(shape)
                && fraction.bytes().all(|b| b.is_ascii_digit())
                && (tail.is_empty() || tail.starts_with('.'));
            let sign = text.chars().nth(10)?;
            fits.then_some(Style::Text { sign })
        }
        _ => None,
    }
}

/// Condition for rows that no delta meets: without a stamp, or with one in another form than the table's, which SQLite
/// keeps in any column and sorts elsewhere.
pub(super) fn apart(column: &str, style: Style) -> String {
    let unfit = match style {
        Style::Text { sign } => format!(
            "typeof({column}) <> 'text' OR {column} NOT GLOB \
             '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]{sign}[0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' \
             OR substr({column}, 20) GLOB '*[^0-9.Z]*'"
        ),
        Style::Epoch { per_second } => {
            let (low, high) = match per_second {
                1 => (0, SECONDS),
                1_000 => (SECONDS, MILLIS),
                _ => (MILLIS, i64::MAX),
            };
            format!("typeof({column}) <> 'integer' OR abs({column}) NOT BETWEEN {low} AND {high}")
        }
    };
    format!("({column} IS NULL OR {unfit})")
}

/// `B` as an instant; every style is rendered from it.
pub(super) fn bound_form(shape: &TableShape, bound: &Bound) -> Result<Watermark> {
    if shape.stamp.is_none() {
        let words = format!("table {} has no stamp", shape.wire);
        return Err(Error::new(Code::StampUnfit, words));
    }
    let mut text = String::new();
    push_timestamp(&mut text, bound.micros, true);
    Ok(Watermark(text))
}

/// Microseconds of a watermark: one that [`bound_form`] made, or a stamp of the column that a cut left.
pub(super) fn instant(watermark: &Watermark, style: Style) -> Result<i64> {
    let text = &watermark.0;
    if let (Style::Epoch { per_second }, Ok(number)) = (style, text.parse::<i64>()) {
        return Ok(number.saturating_mul(1_000_000 / per_second));
    }
    let zoned = if text.ends_with('Z') { text.clone() } else { format!("{text}Z") };
    zoned.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond).map_err(|cause| {
        Error::new(Code::StampUnfit, "the watermark is not an instant").because(cause)
    })
}

/// `YYYY-MM-DD HH:MM:SS`, rounded down, with that sign between day and time.
pub(super) fn text_form(micros: i64, sign: char) -> String {
    let mut text = String::new();
    push_timestamp(&mut text, micros.div_euclid(1_000_000) * 1_000_000, false);
    text.replace('T', sign.encode_utf8(&mut [0; 4]))
}
