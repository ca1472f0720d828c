//! A PostgreSQL value in binary form as canonical text.
//!
//! Promises: exact for every type listed here; every other type is selected as the database's own text.
//! Never: takes a decimal through a float.

use protocol::value::{self, ColumnType, TypeName};
use tokio_postgres::types::{FromSql, Type};

/// Days and microseconds from 1970 to PostgreSQL's 2000.
const EPOCH_DAYS: i64 = 10_957;
const EPOCH_MICROS: i64 = EPOCH_DAYS * 86_400_000_000;

/// The bytes of a cell, whatever its type.
pub(super) struct Raw<'a>(pub &'a [u8]);

impl<'a> FromSql<'a> for Raw<'a> {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// Type on the wire of the types that are read in binary form; `None` = selected as text.
pub(super) fn type_of(type_id: u32) -> Option<ColumnType> {
    Some(match type_id {
        16 => ColumnType::Boolean,
        17 => ColumnType::Base64,
        21 | 23 => ColumnType::Integer,
        20 | 26 => ColumnType::Long,
        700 | 701 => ColumnType::Double,
        1700 => ColumnType::Decimal,
        19 | 25 | 1042 | 1043 => ColumnType::String,
        1082 => ColumnType::Date,
        1083 | 1266 => ColumnType::Time,
        1114 => ColumnType::Timestamp,
        1184 => ColumnType::Timestamptz,
        2950 => ColumnType::Uuid,
        114 | 3802 => ColumnType::Json,
        _ => return None,
    })
}

/// Whether values of the type have an order: geometry, json and xml have none.
pub(super) fn is_key(type_id: u32) -> bool {
    !matches!(type_id, 114 | 142 | 600..=604 | 628 | 718)
}

/// How a column is selected.
pub(super) fn selected(quoted: &str, type_id: u32) -> String {
    if type_of(type_id).is_some() { quoted.to_owned() } else { format!("{quoted}::text") }
}

/// A parameter (text) as a value of the column's type: the database reads the canonical text again.
pub(super) fn cast(param: &str, native: &str, type_id: u32) -> String {
    match type_id {
        17 => format!("decode({param}::text, 'base64')"),
        _ => format!("{param}::text::{native}"),
    }
}

/// Canonical text in the spelling PostgreSQL reads: years before 1 are BC, years after 9999 have no sign.
pub(super) fn spelled(canonical: &str, type_id: u32) -> String {
    if !matches!(type_id, 1082 | 1114 | 1184) || canonical.ends_with("Infinity") {
        return canonical.to_owned();
    }
    if let Some(late) = canonical.strip_prefix('+') {
        return late.to_owned();
    }
    let (negative, rest) = match canonical.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, canonical),
    };
    match rest.split_once('-') {
        Some((year, tail)) if negative || year == "0000" => {
            let year: u32 = year.parse().unwrap_or(0);
            format!("{:04}-{} BC", year.saturating_add(1), tail.replace('Z', "+00"))
        }
        _ => canonical.to_owned(),
    }
}

/// Appends the canonical text of a cell.
pub(super) fn write(
    out: &mut String,
    raw: &[u8],
    type_id: u32,
    wanted: TypeName,
) -> Result<(), &'static str> {
    const CUT: &str = "the database sent a value of another form";
    if wanted.encoded {
        let bytes = if type_id == 3802 { raw.get(1..).ok_or(CUT)? } else { raw };
        value::push_base64(out, bytes);
        return Ok(());
    }
    match type_id {
        16 => value::push_bool(out, raw == [1]),
        17 => value::push_base64(out, raw),
        21 => value::push_i64(out, i16::from_be_bytes(fixed(raw)?).into()),
        23 => value::push_i64(out, i32::from_be_bytes(fixed(raw)?).into()),
        20 => value::push_i64(out, i64::from_be_bytes(fixed(raw)?)),
        26 => value::push_i64(out, u32::from_be_bytes(fixed(raw)?).into()),
        700 => value::push_f32(out, f32::from_be_bytes(fixed(raw)?)),
        701 => value::push_f64(out, f64::from_be_bytes(fixed(raw)?)),
        1700 => numeric(out, raw)?,
        1082 => date(out, i32::from_be_bytes(fixed(raw)?)),
        1083 => time(out, i64::from_be_bytes(fixed(raw)?)),
        1266 => {
            let (micros, zone) = raw.split_at_checked(8).ok_or(CUT)?;
            time(out, i64::from_be_bytes(fixed(micros)?));
            offset(out, -i32::from_be_bytes(fixed(zone)?));
        }
        1114 => timestamp(out, i64::from_be_bytes(fixed(raw)?), false),
        1184 => timestamp(out, i64::from_be_bytes(fixed(raw)?), true),
        2950 => value::push_uuid(out, fixed(raw)?),
        3802 => text(out, raw.get(1..).ok_or(CUT)?)?,
        _ => text(out, raw)?,
    }
    Ok(())
}

fn fixed<const N: usize>(raw: &[u8]) -> Result<[u8; N], &'static str> {
    raw.try_into().map_err(|_| "the database sent a value of another length")
}

fn text(out: &mut String, raw: &[u8]) -> Result<(), &'static str> {
    let text = std::str::from_utf8(raw).map_err(|_| "text that is not UTF-8")?;
    if text.contains('\0') {
        return Err("text with the character U+0000");
    }
    out.push_str(text);
    Ok(())
}

fn date(out: &mut String, days: i32) {
    match days {
        i32::MAX => out.push_str("Infinity"),
        i32::MIN => out.push_str("-Infinity"),
        _ => value::push_date(out, i64::from(days) + EPOCH_DAYS),
    }
}

fn time(out: &mut String, micros: i64) {
    value::push_time(out, micros.saturating_mul(1_000));
}

fn timestamp(out: &mut String, micros: i64, instant: bool) {
    match micros {
        i64::MAX => out.push_str("Infinity"),
        i64::MIN => out.push_str("-Infinity"),
        _ => value::push_timestamp(out, micros.saturating_add(EPOCH_MICROS), instant),
    }
}

/// Seconds east of Greenwich as `+HH:MM[:SS]`.
fn offset(out: &mut String, seconds: i32) {
    let sign = if seconds < 0 { '-' } else { '+' };
    let seconds = u64::from(seconds.unsigned_abs());
    out.push(sign);
    value::push_padded(out, seconds / 3600, 2);
    out.push(':');
    value::push_padded(out, seconds / 60 % 60, 2);
    if !seconds.is_multiple_of(60) {
        out.push(':');
        value::push_padded(out, seconds % 60, 2);
    }
}

/// Groups of four digits, the weight of the first, a sign and the scale: written with exactly that scale.
fn numeric(out: &mut String, raw: &[u8]) -> Result<(), &'static str> {
    const CUT: &str = "the database sent a decimal that is cut short";
    let mut words = raw.chunks(2).map(|pair| fixed(pair).map(u16::from_be_bytes));
    let mut word = || words.next().unwrap_or(Err(CUT));
    let (count, weight, sign, scale) = (word()?, word()?, word()?, word()?);
    let name = match sign {
        0x0000 | 0x4000 => None,
        0xC000 => Some("NaN"),
        0xD000 => Some("Infinity"),
        0xF000 => Some("-Infinity"),
        _ => return Err("the database sent a decimal of unknown sign"),
    };
    if let Some(name) = name {
        out.push_str(name);
        return Ok(());
    }
    let groups = (0..count).map(|_| word()).collect::<Result<Vec<u16>, _>>()?;
    let weight = i32::from(weight.cast_signed());
    let group = |place: i32| {
        let at = usize::try_from(weight - place).ok();
        u64::from(at.and_then(|at| groups.get(at)).copied().unwrap_or(0))
    };
    if sign == 0x4000 {
        out.push('-');
    }
    if weight < 0 {
        out.push('0');
    } else {
        value::push_padded(out, group(weight), 1);
        (0..weight).rev().for_each(|place| value::push_padded(out, group(place), 4));
    }
    if scale > 0 {
        out.push('.');
        let digits = out.len();
        let needed = i32::from(scale).div_euclid(4) + 1;
        (1..=needed).for_each(|place| value::push_padded(out, group(-place), 4));
        out.truncate(digits + usize::from(scale));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(words: &[u16]) -> Result<String, &'static str> {
        let raw: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        let mut out = String::new();
        numeric(&mut out, &raw).map(|()| out)
    }

    #[test]
    fn decimals_keep_their_scale() {
        assert_eq!(number(&[2, 0, 0, 2, 1, 5000]).unwrap(), "1.50");
        assert_eq!(number(&[1, 1, 0x4000, 0, 12]).unwrap(), "-120000");
        assert_eq!(number(&[1, 0xFFFE, 0, 8, 42]).unwrap(), "0.00000042");
        assert_eq!(number(&[0, 0, 0, 0]).unwrap(), "0");
        assert_eq!(number(&[0, 0, 0, 3]).unwrap(), "0.000");
        assert_eq!(number(&[0, 0, 0xC000, 0]).unwrap(), "NaN");
        assert!(number(&[5, 0, 0, 0, 1]).is_err() && number(&[0]).is_err());
    }

    #[test]
    fn dates_are_spelled_back_for_the_database() {
        for (canonical, spelling) in [
            ("2024-02-29", "2024-02-29"),
            ("+10000-01-01", "10000-01-01"),
            ("0000-12-31", "0001-12-31 BC"),
            ("-0001-12-31", "0002-12-31 BC"),
            ("-Infinity", "-Infinity"),
        ] {
            assert_eq!(spelled(canonical, 1082), spelling);
        }
        assert_eq!(spelled("-0043-03-15T00:00:00Z", 1184), "0044-03-15T00:00:00+00 BC");
        assert_eq!(spelled("-1", 23), "-1");
    }

    proptest! {
        #[test]
        fn no_bytes_from_a_server_make_it_panic(raw in proptest::collection::vec(any::<u8>(), 0..40), of in 0usize..20) {
            let types = [16, 17, 19, 20, 21, 23, 25, 26, 114, 700, 701, 1042, 1043, 1082, 1083, 1114, 1184, 1266, 1700, 2950, 3802];
            let mut out = String::new();
            let _ = write(&mut out, &raw, types[of % types.len()], TypeName::plain(ColumnType::String));
        }
    }
}
