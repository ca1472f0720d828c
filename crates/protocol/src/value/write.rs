//! Writers of canonical text, one per kind of source value.
//!
//! Promises: appends to a caller's buffer, so that a page of rows costs one allocation.
//! Never: rounds; a writer that cannot keep a value says so by returning `false` and appends nothing.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

const DAY_MICROS: i64 = 86_400_000_000;

/// Digits of the greatest `u64`.
const DIGITS: usize = 20;

/// Integers of any width up to 64 bits.
pub fn push_i64(out: &mut String, value: i64) {
    if value < 0 {
        out.push('-');
    }
    push_padded(out, value.unsigned_abs(), 1);
}

/// In decimal, with zeros before it up to that many digits (20 at most). Written by hand since every cell with digits in
/// it comes through here: the formatting of the standard library took a ninth of an agent's time in a base load.
pub fn push_padded(out: &mut String, mut value: u64, width: usize) {
    let mut digits = [b'0'; DIGITS];
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        if value == 0 && count >= width {
            break;
        }
        // A remainder of ten is a digit.
        *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
        count += 1;
    }
    let written = digits.get(DIGITS - count..).and_then(|digits| std::str::from_utf8(digits).ok());
    out.push_str(written.unwrap_or_default());
}

/// The shortest text that reads back to the same value, in plain notation; `NaN`, `Infinity`, `-Infinity` by name.
pub fn push_f64(out: &mut String, value: f64) {
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if value == 0.0 {
        out.push_str(if value.is_sign_negative() { "-0" } else { "0" });
    } else {
        let _ = write!(out, "{value}");
    }
}

/// As [`push_f64`], shortest for single precision.
pub fn push_f32(out: &mut String, value: f32) {
    if value.is_nan() || value.is_infinite() || value == 0.0 {
        push_f64(out, f64::from(value));
    } else {
        let _ = write!(out, "{value}");
    }
}

pub fn push_bool(out: &mut String, value: bool) {
    out.push_str(if value { "true" } else { "false" });
}

pub fn push_base64(out: &mut String, bytes: &[u8]) {
    STANDARD.encode_string(bytes, out);
}

/// 16 bytes, lower case with dashes.
pub fn push_uuid(out: &mut String, bytes: [u8; 16]) {
    let _ = write!(out, "{}", uuid::Uuid::from_bytes(bytes).hyphenated());
}

/// `YYYY-MM-DD` from days since 1970-01-01. Years beyond 9999 or before 1 carry their sign and as many digits as
/// they have (ISO 8601's expanded form): year 0 is 1 BC.
pub fn push_date(out: &mut String, days: i64) {
    let (year, month, day) = civil(days);
    match year {
        0..=9999 => {}
        10_000.. => out.push('+'),
        _ => out.push('-'),
    }
    push_padded(out, year.unsigned_abs(), 4);
    for part in [month, day] {
        out.push('-');
        push_padded(out, part.unsigned_abs(), 2);
    }
}

/// `HH:MM:SS[.f]` from nanoseconds since midnight, without trailing zeros; 24:00:00 is kept.
pub fn push_time(out: &mut String, nanos: i64) {
    if nanos < 0 {
        out.push('-');
    }
    let nanos = nanos.unsigned_abs();
    let (seconds, fraction) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    push_padded(out, seconds / 3600, 2);
    for part in [seconds / 60 % 60, seconds % 60] {
        out.push(':');
        push_padded(out, part, 2);
    }
    if fraction != 0 {
        out.push('.');
        push_padded(out, fraction, 9);
        out.truncate(out.trim_end_matches('0').len());
    }
}

/// `YYYY-MM-DDTHH:MM:SS[.f]` from microseconds since 1970-01-01T00:00:00, with `Z` where the column keeps an instant.
pub fn push_timestamp(out: &mut String, micros: i64, instant: bool) {
    push_date(out, micros.div_euclid(DAY_MICROS));
    out.push('T');
    push_time(out, micros.rem_euclid(DAY_MICROS) * 1000);
    if instant {
        out.push('Z');
    }
}

/// A decimal in plain notation with exactly its digits, from text in plain or scientific notation.
/// Keeps the scale (`1.50` stays `1.50`), drops a `+`, leading zeros and the sign of zero, puts a digit before the point.
/// Returns `false`, and appends nothing, where the text is not a decimal or its exponent is beyond ±20,000.
#[must_use]
pub fn push_decimal(out: &mut String, text: &str) -> bool {
    let (negative, body) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match body.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => match exponent.parse::<i32>() {
            Ok(exponent) if exponent.abs() <= 20_000 => (mantissa, exponent),
            _ => return false,
        },
        None => (body, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return false;
    }
    let digits = format!("{whole}{fraction}");
    let point = i64::try_from(whole.len()).unwrap_or(i64::MAX).saturating_add(i64::from(exponent));
    let zero = digits.bytes().all(|b| b == b'0');
    if negative && !zero {
        out.push('-');
    }
    push_digits(out, &digits, point);
    true
}

/// Digits with the decimal point after `point` of them; `point` may lie outside.
fn push_digits(out: &mut String, digits: &str, point: i64) {
    let Ok(point) = usize::try_from(point) else {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', usize::try_from(-point).unwrap_or(0)));
        out.push_str(digits);
        return;
    };
    let (whole, fraction) =
        if point >= digits.len() { (digits, "") } else { digits.split_at(point) };
    let padding = point.saturating_sub(digits.len());
    let trimmed = whole.trim_start_matches('0');
    if trimmed.is_empty() {
        out.push('0');
    } else {
        out.push_str(trimmed);
        out.extend(std::iter::repeat_n('0', padding));
    }
    if !fraction.is_empty() {
        out.push('.');
        out.push_str(fraction);
    }
}

/// Proleptic Gregorian (year, month, day) of a day number; the era method, exact over the whole range of `i64` days
/// that a database can hold.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn dates_cover_the_edges_of_the_calendar() {
        for (days, expected) in [
            (0, "1970-01-01"),
            (-1, "1969-12-31"),
            (11_016, "2000-02-29"),
            (2_932_896, "9999-12-31"),
            (2_932_897, "+10000-01-01"),
            (-719_162, "0001-01-01"),
            (-719_163, "0000-12-31"),
            (-719_529, "-0001-12-31"),
        ] {
            assert_eq!(text(|out| push_date(out, days)), expected);
        }
    }

    #[test]
    fn times_drop_trailing_zeros_and_keep_midnight_of_the_next_day() {
        assert_eq!(text(|out| push_time(out, 0)), "00:00:00");
        assert_eq!(text(|out| push_time(out, 86_400_000_000_000)), "24:00:00");
        assert_eq!(text(|out| push_time(out, 3_661_120_000_000)), "01:01:01.12");
        assert_eq!(text(|out| push_timestamp(out, -1, true)), "1969-12-31T23:59:59.999999Z");
        assert_eq!(
            text(|out| push_timestamp(out, 1_718_000_000_000_000, false)),
            "2024-06-10T06:13:20"
        );
    }

    #[test]
    fn the_least_and_the_greatest_integers_keep_their_digits() {
        for value in [i64::MIN, -1, 0, 9, 10, i64::MAX] {
            assert_eq!(text(|out| push_i64(out, value)), value.to_string());
        }
        assert_eq!(text(|out| push_padded(out, u64::MAX, 1)), u64::MAX.to_string());
    }

    #[test]
    fn decimals_keep_every_digit_and_lose_only_notation() {
        for (given, expected) in [
            ("1234.50", "1234.50"),
            ("+1", "1"),
            ("-0", "0"),
            ("-0.00", "0.00"),
            ("007", "7"),
            (".5", "0.5"),
            ("5.", "5"),
            ("1E-3", "0.001"),
            ("1.5e3", "1500"),
            ("1.2345e2", "123.45"),
            ("12e0", "12"),
            ("0e5", "0"),
            ("99999999999999999999999999999999999999", "99999999999999999999999999999999999999"),
        ] {
            assert_eq!(text(|out| assert!(push_decimal(out, given), "{given}")), expected);
        }
        for bad in ["", "-", ".", "1,5", "1e", "1e99999", "NaN", "0x1", "1 ", "--1"] {
            assert!(!push_decimal(&mut String::new(), bad), "{bad}");
        }
    }

    #[test]
    fn doubles_use_names_for_what_has_no_digits() {
        assert_eq!(text(|out| push_f64(out, f64::NAN)), "NaN");
        assert_eq!(text(|out| push_f64(out, f64::NEG_INFINITY)), "-Infinity");
        assert_eq!(text(|out| push_f64(out, -0.0)), "-0");
        assert_eq!(text(|out| push_f32(out, 0.1)), "0.1");
        assert_eq!(text(|out| push_f64(out, 1e21)), "1000000000000000000000");
    }

    proptest! {
        #[test]
        fn a_double_reads_back_to_the_same_bits(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let written = text(|out| push_f64(out, value));
            prop_assert_eq!(written.parse::<f64>().unwrap().to_bits(), bits);
        }

        #[test]
        fn the_canonical_form_of_a_decimal_is_its_own_canonical_form(given in "[+-]?[0-9]{1,40}(\\.[0-9]{0,20})?([eE][+-]?[0-9]{1,2})?") {
            let once = text(|out| assert!(push_decimal(out, &given)));
            let twice = text(|out| assert!(push_decimal(out, &once)));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn integers_are_written_as_the_standard_library_does(value: i64, width in 0usize..20, shift in 0u32..64) {
            let value = value >> shift;
            prop_assert_eq!(text(|out| push_i64(out, value)), value.to_string());
            let padded = text(|out| push_padded(out, value.unsigned_abs(), width.max(1)));
            prop_assert_eq!(padded, format!("{:0width$}", value.unsigned_abs()));
        }

        #[test]
        fn days_are_in_calendar_order(days in -2_000_000i64..2_000_000) {
            prop_assert!(civil(days) < civil(days + 1));
        }
    }
}
