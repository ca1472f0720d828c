//! Stamps of SQLite: texts `YYYY-MM-DD HH:MM:SS[.f]` (also with `T`, with `Z`) or integer epochs, both UTC.
//!
//! Promises: a bound in text form has whole seconds, rounded down, and the blank: it sorts before every spelling of the
//! same instant, so that a read from it leaves none out.

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
    Text,
    /// Integer; so many of them a second.
    Epoch {
        per_second: i64,
    },
}

/// Looks at one stamp of the table. Without any, the style does not matter yet.
pub(super) fn sample(
    connection: &Connection,
    shape: &TableShape,
    stamp: &StampShape,
) -> Result<Style> {
    let (column, table) = (quoted(&stamp.column), quoted(&shape.physical.1));
    let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
    let read = connection.query_row(&sql, [], |row| Ok(style(row.get_ref(0)?)));
    match read.optional().map_err(fault)? {
        None => Ok(Style::Text),
        Some(Some(style)) => Ok(style),
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
            fits.then_some(Style::Text)
        }
        _ => None,
    }
}

/// Condition for rows that no delta meets: without a stamp, or with one in another form than the table's, which SQLite
/// keeps in any column and sorts elsewhere.
pub(super) fn apart(column: &str, style: Style) -> String {
    let unfit = match style {
        Style::Text => format!(
            "typeof({column}) <> 'text' OR {column} NOT GLOB \
             '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][ T][0-9][0-9]:[0-9][0-9]:[0-9][0-9]*' \
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

/// Microseconds of a watermark that [`bound_form`] made.
pub(super) fn instant(watermark: &Watermark) -> Result<i64> {
    watermark.0.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_microsecond).map_err(|cause| {
        Error::new(Code::StampUnfit, "the watermark is not an instant").because(cause)
    })
}

/// `YYYY-MM-DD HH:MM:SS`, rounded down.
pub(super) fn text_form(micros: i64) -> String {
    let mut text = String::new();
    push_timestamp(&mut text, micros.div_euclid(1_000_000) * 1_000_000, false);
    text.replace('T', " ")
}
