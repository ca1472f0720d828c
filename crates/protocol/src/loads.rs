//! Base loads that end in a batch, as the metadata `x-base-load-done` of its Summary tells them: `TABLE:generation,…`
//! (`contracts.md` 5.6, ours).
//!
//! Promises: any table name travels: bytes outside letters, digits, `_`, `-`, `.` and `$` are written `%XX`; what is
//! written reads back as it was.

use crate::{Code, Error, Result, ids::Generation, limits, names::TableName};

const DIGITS: &[u8; 16] = b"0123456789ABCDEF";

/// One entry.
#[must_use]
pub fn done_entry(table: &TableName, generation: Generation) -> String {
    let mut entry = String::new();
    for byte in table.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"_-.$".contains(&byte) {
            entry.push(char::from(byte));
        } else {
            let (high, low) = (usize::from(byte >> 4), usize::from(byte & 15));
            entry.push('%');
            entry
                .extend([high, low].map(|digit| DIGITS.get(digit).map_or('0', |c| char::from(*c))));
        }
    }
    format!("{entry}:{}", generation.0)
}

/// Reads all entries.
///
/// # Errors
/// `INVALID_ARGUMENT` where one does not read, or there are more than a stream has tables.
pub fn done_entries(text: &str) -> Result<Vec<(TableName, Generation)>> {
    let bad = || Error::new(Code::InvalidArgument, "x-base-load-done must be TABLE:generation,…");
    let entries: Vec<&str> =
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
    if entries.len() > limits::STREAM_TABLES {
        return Err(bad());
    }
    let read = |entry: &str| {
        let (table, generation) = entry.rsplit_once(':')?;
        let table = name(table)?.parse().ok()?;
        let generation = generation.trim();
        let plain = generation.bytes().all(|byte| byte.is_ascii_digit());
        let generation = generation.parse().ok().filter(|_| plain)?;
        Some((table, Generation(generation)))
    };
    entries.into_iter().map(|entry| read(entry).ok_or_else(bad)).collect()
}

/// A name with its `%XX` undone.
fn name(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let digits = std::str::from_utf8(digits).ok()?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_name_reads_back_as_it_was_and_fits_a_header(
            names in proptest::collection::vec("[^\\p{Cc}]{1,40}", 1..6),
            generation in 0..i64::MAX,
        ) {
            let tables: Vec<TableName> =
                names.iter().filter_map(|name| name.parse().ok()).collect();
            let text: Vec<_> =
                tables.iter().map(|table| done_entry(table, Generation(generation))).collect();
            let text = text.join(",");
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
            let read = done_entries(&text).unwrap();
            let expected: Vec<_> =
                tables.into_iter().map(|table| (table, Generation(generation))).collect();
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "\\PC{0,60}") {
            let _ = done_entries(&text);
        }
    }

    #[test]
    fn plain_names_stay_as_they_are_and_nonsense_is_refused() {
        let done = done_entries("FLAN:2, TMOV:0").unwrap();
        assert_eq!(
            done,
            [("flan".parse().unwrap(), Generation(2)), ("tmov".parse().unwrap(), Generation(0))]
        );
        assert_eq!(done_entry(&"a,b:ç%".parse().unwrap(), Generation(7)), "a%2Cb%3A%C3%A7%25:7");
        assert_eq!(done_entry(&"SE1$x-1.y_2".parse().unwrap(), Generation(0)), "SE1$x-1.y_2:0");
        assert!(done_entries("").unwrap().is_empty());
        for bad in
            ["FLAN", "FLAN:", "FLAN:-1", "FLAN:+1", ":1", "FLAN:x", "a%2:1", "a%zz:1", "%FF:1"]
        {
            assert_eq!(done_entries(bad).unwrap_err().code, Code::InvalidArgument, "{bad}");
        }
    }
}
