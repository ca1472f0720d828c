//! Canonical key bytes: the name of a row, compared as bytes (`contracts.md` 5.4).
//!
//! Promises: injective; each canonical value in key order as 4 bytes of length (big end first) and UTF-8.
//! Never: folds case or blanks; where the source holds two spellings for one, the sender says so by a delete.

use std::fmt;

use crate::error::{Code, Error, Result};

/// The key of one row.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KeyBytes(pub Vec<u8>);

impl KeyBytes {
    /// From canonical values in key order.
    #[must_use]
    pub fn of<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut key = Self::default();
        values.into_iter().for_each(|value| key.push(value));
        key
    }

    /// Adds the next value.
    pub fn push(&mut self, value: &str) {
        push_part(&mut self.0, value);
    }

    /// The canonical values again.
    ///
    /// # Errors
    /// `BAD_REQUEST` where the bytes are not a key.
    pub fn values(&self) -> Result<Vec<&str>> {
        let mut rest = self.0.as_slice();
        let mut values = Vec::new();
        while !rest.is_empty() {
            let (part, tail) = split_part(rest).ok_or_else(|| {
                Error::new(Code::BadRequest, "key bytes are cut short or not UTF-8")
            })?;
            values.push(part);
            rest = tail;
        }
        Ok(values)
    }
}

fn push_part(out: &mut Vec<u8>, value: &str) {
    // A message has at most 5 MB, so a length always fits; saturation keeps the form total.
    let length = u32::try_from(value.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(value.as_bytes());
}

fn split_part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<4>()?;
    let (part, tail) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*head)).ok()?)?;
    Some((std::str::from_utf8(part).ok()?, tail))
}

/// Shows the length only: a key is a row's value and stays out of logs.
impl fmt::Debug for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyBytes({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_length_prefixed_big_end_first() {
        assert_eq!(KeyBytes::of(["1", "ab"]).0, b"\0\0\0\x011\0\0\0\x02ab");
        assert!(KeyBytes(vec![0, 0, 0, 9, b'x']).values().is_err());
        assert!(KeyBytes(vec![0, 0]).values().is_err());
    }

    proptest! {
        #[test]
        fn f35_keys_are_equal_where_their_canonical_values_are_and_only_there(
            a in proptest::collection::vec("[aAbÁ01. \0]{0,3}", 1..4),
            b in proptest::collection::vec("[aAbÁ01. \0]{0,3}", 1..4),
        ) {
            let key = |values: &[String]| KeyBytes::of(values.iter().map(String::as_str));
            prop_assert_eq!(key(&a) == key(&b), a == b);
            // No case, no blank and no notation is folded here: who sends two spellings of one key has two keys.
            let first = |value: &str| key(&[vec![value.to_owned()], a.clone()].concat());
            for (one, other) in [("x", "X"), ("x", "x "), ("1", "1.0"), ("", " "), ("a", "á")] {
                prop_assert_ne!(first(one), first(other));
            }
        }

        #[test]
        fn a_key_reads_back_and_so_is_injective(values in proptest::collection::vec(".*", 0..5)) {
            let key = KeyBytes::of(values.iter().map(String::as_str));
            prop_assert_eq!(key.values().unwrap(), values);
        }
    }
}
