//! A SQLite value as canonical text, by the column's type.
//!
//! Promises: what does not fit its column's type is told, never bent; text travels unchanged.

use protocol::value::{self, ColumnType, TypeName};
use rusqlite::types::ValueRef;

/// Appends the text; `Ok(false)` = NULL, `Err` = why it cannot travel.
pub(super) fn write(
    out: &mut String,
    cell: ValueRef<'_>,
    wanted: TypeName,
) -> Result<bool, &'static str> {
    if matches!(cell, ValueRef::Null) {
        return Ok(false);
    }
    if wanted.encoded {
        return encoded(out, cell);
    }
    match (wanted.column_type, cell) {
        (ColumnType::Base64, ValueRef::Blob(bytes)) => value::push_base64(out, bytes),
        (ColumnType::Base64, _) => return Err("not binary data in a binary column"),
        (_, ValueRef::Blob(_)) => return Err("binary data in a column of another type"),
        (ColumnType::Boolean, ValueRef::Integer(bit @ (0 | 1))) => value::push_bool(out, bit == 1),
        (ColumnType::Boolean, _) => return Err("a boolean that is neither 0 nor 1"),
        (ColumnType::Long | ColumnType::Integer, ValueRef::Integer(number)) => {
            value::push_i64(out, number);
        }
        (ColumnType::Long | ColumnType::Integer, _) => {
            return Err("not an integer in an integer column");
        }
        (ColumnType::Double, ValueRef::Real(number)) => value::push_f64(out, number),
        (ColumnType::Double | ColumnType::Decimal, ValueRef::Integer(number)) => {
            value::push_i64(out, number);
        }
        (ColumnType::Double, _) => return Err("not a number in a floating-point column"),
        (ColumnType::Decimal, ValueRef::Real(number)) if number.is_finite() => {
            // The file keeps a float; its shortest text is the number that was written. -0 has no decimal.
            value::push_f64(out, if number == 0.0 { 0.0 } else { number });
        }
        (ColumnType::Decimal, ValueRef::Text(bytes)) => {
            if !value::push_decimal(out, text(bytes)?) {
                return Err("not a number in a decimal column");
            }
        }
        (ColumnType::Decimal, _) => return Err("an infinite number in a decimal column"),
        (_, ValueRef::Integer(number)) => value::push_i64(out, number),
        (_, ValueRef::Real(number)) => value::push_f64(out, number),
        (_, ValueRef::Text(bytes)) => out.push_str(text(bytes)?),
        (_, ValueRef::Null) => return Ok(false),
    }
    Ok(true)
}

fn text(bytes: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "text that is not UTF-8")?;
    if text.contains('\0') { Err("text with the character U+0000") } else { Ok(text) }
}

fn encoded(out: &mut String, cell: ValueRef<'_>) -> Result<bool, &'static str> {
    match cell {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => value::push_base64(out, bytes),
        _ => return Err("a number in a column declared as raw bytes"),
    }
    Ok(true)
}
