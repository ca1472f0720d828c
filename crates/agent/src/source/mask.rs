//! Mask: what of a column's value may leave the building, and the key behind hashed values.
//!
//! Promises: a masked value is made from the canonical text alone, the same text and key give the same mask; a hash
//! cannot be undone or guessed at without the key; of digits less than all are shown, whatever the value's length.
//! Never: prints the key; lets a value pass where the key is missing.

use std::{fmt, path::Path, sync::Arc};

use aws_lc_rs::hmac;
use protocol::{
    Code, Error, Result,
    names::ColumnName,
    value::{ColumnType, TypeName},
};
use runtime::keyfile;
use secrecy::ExposeSecret as _;

/// Digits shown where the declaration names no number.
const USUAL_DIGITS: u8 = 4;
/// More would show a whole phone number.
const MOST_DIGITS: u8 = 8;
/// Bytes of a hash that travel: as text 32 hex digits.
const HASH_BYTES: usize = 16;
/// As the key file is called in errors.
const KEY: &str = "the key of the masks";

/// A declared mask: `hash`, `null`, `last` or `last:N`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum MaskRule {
    /// HMAC-SHA-256 under the installation's key.
    Hash,
    /// NULL in every row; the value is not even read.
    Null,
    /// The last digits.
    Last(u8),
}

impl TryFrom<String> for MaskRule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || {
            format!(
                "a mask is hash, null, last or last:N with N from 1 to {MOST_DIGITS}, not {text:?}"
            )
        };
        match text.split_once(':') {
            None => match text.as_str() {
                "hash" => Ok(Self::Hash),
                "null" => Ok(Self::Null),
                "last" => Ok(Self::Last(USUAL_DIGITS)),
                _ => Err(wrong()),
            },
            Some(("last", digits)) => {
                let digits = digits.parse().ok().filter(|n| (1..=MOST_DIGITS).contains(n));
                digits.map(Self::Last).ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }
}

impl From<MaskRule> for String {
    fn from(rule: MaskRule) -> Self {
        match rule {
            MaskRule::Hash => "hash".into(),
            MaskRule::Null => "null".into(),
            MaskRule::Last(digits) => format!("last:{digits}"),
        }
    }
}

/// A mask in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mask {
    Null,
    Last(u8),
    /// `None` = the key was not opened: good to describe a table, not to read one.
    Hash(Option<MaskKey>),
}

impl Mask {
    /// Whether rows can be read under it.
    pub(super) fn ready(&self) -> Result<()> {
        match self {
            Self::Hash(None) => {
                Err(Error::new(Code::ConfigInvalid, "the key of the masks is not opened"))
            }
            Self::Hash(Some(_)) | Self::Null | Self::Last(_) => Ok(()),
        }
    }

    /// Appends what may be seen of the text; false = nothing.
    pub(super) fn write(&self, text: &str, out: &mut String) -> bool {
        match self {
            Self::Null | Self::Hash(None) => false,
            Self::Hash(Some(key)) => {
                key.digest(text.as_bytes(), out);
                true
            }
            Self::Last(most) => {
                let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
                let shown = usize::from(*most).min(digits.len() / 2);
                out.push('*');
                out.extend(digits.iter().skip(digits.len() - shown));
                true
            }
        }
    }

    /// The type of what is left, where it is another one than the column's.
    pub(super) fn type_name(&self) -> Option<TypeName> {
        match self {
            Self::Null => None,
            Self::Last(_) | Self::Hash(_) => Some(TypeName::plain(ColumnType::String)),
        }
    }

    /// What tells one mask from another: under a new key the same values have other hashes.
    #[must_use]
    pub fn mark(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Last(digits) => format!("last:{digits}"),
            Self::Hash(key) => {
                let mut mark = "hash:".to_owned();
                if let Some(key) = key {
                    // Under a prefix that no canonical value has, so that no value's hash is told.
                    key.digest(b"\0mark", &mut mark);
                }
                mark
            }
        }
    }

    /// The rule behind it, for people.
    #[must_use]
    pub fn rule(&self) -> String {
        match self {
            Self::Hash(_) => "hash".into(),
            Self::Null | Self::Last(_) => self.mark(),
        }
    }
}

/// 256 random bits that hashed values depend on. Equal keys are equal; it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct MaskKey(Arc<[u8; keyfile::BYTES]>);

impl fmt::Debug for MaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MaskKey([redacted])")
    }
}

impl MaskKey {
    /// Reads the key, or makes it where `make` says so and there is none.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where it is missing, unreadable or no key; `JOURNAL_FAILED` where it cannot be made.
    pub fn open(path: &Path, make: bool) -> Result<Self> {
        let missing = make && !path.exists();
        let key = if missing { keyfile::make(path, KEY) } else { keyfile::read(path, KEY) }?;
        Ok(Self(Arc::new(*key.expose_secret())))
    }

    fn digest(&self, text: &[u8], out: &mut String) {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.as_ref());
        let tag = hmac::sign(&key, text);
        push_hex(tag.as_ref().get(..HASH_BYTES).unwrap_or_default(), out);
    }
}

fn push_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    for byte in bytes {
        out.extend([DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

/// What the customer declares of a table's columns.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Disclosure {
    /// The only columns that travel; `None` = all.
    pub only: Option<Vec<ColumnName>>,
    /// Columns that do not travel.
    pub exclude: Vec<ColumnName>,
    /// Columns of which a mask travels.
    pub masks: Vec<(ColumnName, Mask)>,
}

impl Disclosure {
    /// Whether the column travels at all.
    pub(super) fn shows(&self, column: &ColumnName) -> bool {
        let listed = self.only.as_ref().is_none_or(|only| only.contains(column));
        listed && !self.exclude.contains(column)
    }

    pub(super) fn mask(&self, column: &ColumnName) -> Option<&Mask> {
        self.masks.iter().find(|(of, _)| of == column).map(|(_, mask)| mask)
    }

    /// Every column that is named.
    pub(super) fn named(&self) -> impl Iterator<Item = &ColumnName> {
        let only = self.only.iter().flatten();
        only.chain(&self.exclude).chain(self.masks.iter().map(|(name, _)| name))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(byte: u8) -> MaskKey {
        MaskKey(Arc::new([byte; keyfile::BYTES]))
    }

    fn masked(mask: &Mask, text: &str) -> Option<String> {
        let mut out = String::new();
        mask.write(text, &mut out).then_some(out)
    }

    #[test]
    fn a_rule_reads_back_and_what_is_no_rule_is_refused() {
        for text in ["hash", "null", "last:1", "last:8"] {
            assert_eq!(String::from(MaskRule::try_from(text.to_owned()).unwrap()), text);
        }
        assert_eq!(MaskRule::try_from("last".to_owned()), Ok(MaskRule::Last(4)));
        for bad in ["", "Hash", "last:0", "last:9", "last:x", "md5", "hash:1"] {
            assert!(MaskRule::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn digits_are_shown_without_their_number_and_never_more_than_half() {
        let last = Mask::Last(4);
        for (text, shown) in [
            ("123.456.789-09", "*8909"),
            ("12345678", "*5678"),
            ("1234", "*34"),
            ("1", "*"),
            ("", "*"),
            ("ana@x", "*"),
        ] {
            assert_eq!(masked(&last, text).unwrap(), shown, "{text}");
        }
        assert_eq!(masked(&Mask::Null, "x"), None);
        assert_eq!(masked(&Mask::Hash(None), "x"), None, "without a key nothing passes");
        assert_eq!(Mask::Hash(None).ready().unwrap_err().code, Code::ConfigInvalid);
    }

    #[test]
    fn a_hash_hangs_on_value_and_key_alone_and_is_the_published_hmac() {
        let mask = |byte| Mask::Hash(Some(key(byte)));
        let one = masked(&mask(1), "Ana").unwrap();
        assert_eq!(one.len(), 32);
        assert_eq!(masked(&mask(1), "Ana").unwrap(), one);
        assert_ne!(masked(&mask(2), "Ana").unwrap(), one);
        assert_ne!(masked(&mask(1), "ana").unwrap(), one);
        assert_ne!(mask(1).mark(), mask(2).mark());
        assert!(!format!("{:?}", mask(1)).contains("1, 1"));
        // RFC 4231, case 2, has a key of another length; case 1's key is padded with zeros, as HMAC pads it.
        let mut rfc = [0; keyfile::BYTES];
        rfc[..20].fill(0x0b);
        let rfc = Mask::Hash(Some(MaskKey(Arc::new(rfc))));
        assert_eq!(masked(&rfc, "Hi There").unwrap(), "b0344c61d8db38535ca8afceaf0bf12b");
    }

    #[test]
    fn a_key_is_made_only_where_it_may_be_and_read_ever_after() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/mask.key");
        assert_eq!(MaskKey::open(&path, false).unwrap_err().code, Code::ConfigInvalid);
        let made = MaskKey::open(&path, true).unwrap();
        assert_eq!(MaskKey::open(&path, true).unwrap(), made);
        assert_eq!(MaskKey::open(&path, false).unwrap(), made);
        std::fs::write(&path, "12").unwrap();
        assert_eq!(MaskKey::open(&path, true).unwrap_err().code, Code::ConfigInvalid);
    }

    proptest! {
        #[test]
        fn no_mask_holds_a_value_of_letters_or_all_its_digits(text in "[a-z]{3,20}|[0-9]{3,20}", most in 1u8..=8) {
            prop_assert!(!masked(&Mask::Last(most), &text).unwrap().contains(&text));
            // A short one may stand in a hash by chance.
            if text.len() >= 12 {
                prop_assert!(!masked(&Mask::Hash(Some(key(7))), &text).unwrap().contains(&text));
            }
        }
    }
}
