//! Secret: text of the configuration that is never printed, and `{sealed:NAME}`, which stands for one in the vault.
//!
//! Promises: what is printed is what was written, passwords blotted out and placeholders as they stand, also once they
//! are opened; an opened password is percent-encoded, so that an address cannot mean another host.
//! Never: takes a placeholder where its value could be printed.

use std::fmt;

use protocol::{Code, Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::vault::{SecretName, Vault};

const OPENING: &str = "{sealed:";

/// Text that is never printed whole: of an address the password is hidden, of all else everything.
#[derive(Clone, Default)]
pub struct Secret {
    value: SecretString,
    /// How it is printed, where it was opened from a placeholder.
    shown: Option<String>,
}

impl Secret {
    #[must_use]
    pub fn expose(&self) -> &str {
        self.value.expose_secret()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.expose().trim().is_empty()
    }

    fn shown(&self) -> String {
        self.shown.clone().unwrap_or_else(|| redacted(self.expose()))
    }

    /// With the value in the place of a placeholder that is the whole text.
    ///
    /// # Errors
    /// As [`Vault::open`]; `CONFIG_INVALID` for one within more text.
    pub(super) fn opened_whole(&self, vault: &Vault) -> Result<Self> {
        let text = self.expose().trim();
        if !text.contains(OPENING) {
            return Ok(self.clone());
        }
        let name = whole(text).ok_or_else(|| wrong("{sealed:NAME} must be the whole value"))?;
        let value = vault.open(&known(name)?)?;
        Ok(Self { value, shown: Some(self.shown()) })
    }

    /// With the value, percent-encoded, in the place of a placeholder that is the password of an address.
    ///
    /// # Errors
    /// As [`Vault::open`]; `CONFIG_INVALID` for one in another place, whose value would be printed.
    pub(super) fn opened_address(&self, vault: &Vault) -> Result<Self> {
        let text = self.expose();
        if !text.contains(OPENING) {
            return Ok(self.clone());
        }
        let (head, name, tail) = address(text).ok_or_else(|| {
            wrong("{sealed:NAME} stands for the whole password, as in postgres://user:{sealed:NAME}@host/database")
        })?;
        let password = vault.open(&known(name)?)?;
        let whole = [head, &percent_encoded(password.expose_secret()), tail].concat();
        Ok(Self { value: whole.into(), shown: Some(self.shown()) })
    }
}

/// Whether user and password of an address cannot be mistaken for another part of it: one '@', and before it none of the
/// signs that end the part of an address in which it stands.
pub(crate) fn is_plain_address(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("://") else { return true };
    match rest.split_once('@') {
        Some((login, place)) => !login.contains(['/', '?', '#']) && !place.contains('@'),
        None => true,
    }
}

fn wrong(words: &str) -> Error {
    Error::new(Code::ConfigInvalid, words)
}

fn known(name: &str) -> Result<SecretName> {
    name.parse().map_err(|error: Error| wrong(&error.message))
}

/// The name of a placeholder that is the whole text.
fn whole(text: &str) -> Option<&str> {
    let name = text.strip_prefix(OPENING)?.strip_suffix('}')?;
    (!name.contains(['{', '}'])).then_some(name)
}

/// `scheme://user:`, the placeholder's name, and what begins with `@`.
fn address(text: &str) -> Option<(&str, &str, &str)> {
    let (head, rest) = text.split_once(OPENING)?;
    let (name, tail) = rest.split_once('}')?;
    let (_, login) = head.split_once("://")?;
    let user = login.strip_suffix(':')?;
    let plain = !user.contains([':', '@', '/', '?', '#']) && !tail.contains(OPENING);
    (plain && tail.starts_with('@')).then_some((head, name, tail))
}

/// The text of a percent-encoded part of an address; `None` where it is not UTF-8 or an escape is cut.
pub(crate) fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        if *byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            let digits = std::str::from_utf8(digits).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = tail;
        } else {
            out.push(*byte);
            rest = tail;
        }
    }
    String::from_utf8(out).ok()
}

fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What may be printed of it.
pub(super) fn redacted(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    // Only what surely is no password is shown: scheme, user, and what stands behind the last '@' and before a '?'.
    let Some((scheme, rest)) = text.split_once("://") else {
        let placeholder = whole(text.trim()).is_some_and(|name| known(name).is_ok());
        let open = placeholder || text.starts_with("sqlite:");
        return if open { text.to_owned() } else { "[redacted]".to_owned() };
    };
    if let Some((head, name, tail)) = address(text).filter(|(_, name, _)| known(name).is_ok()) {
        let place = tail.split('?').next().unwrap_or_default();
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        return format!("{head}{OPENING}{name}}}@{place}");
    }
    // The last '@' of all: a password that was not percent-encoded may hold any sign, '?' and '/' too.
    match rest.rsplit_once('@') {
        Some((login, place)) => {
            let user = login.split([':', '/', '?', '#', '@']).next().unwrap_or_default();
            let place = place.split('?').next().unwrap_or_default();
            format!("{scheme}://{user}:[redacted]@{place}")
        }
        None => format!("{scheme}://{}", rest.split('?').next().unwrap_or_default()),
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self { value: text.into(), shown: None }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.shown())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use runtime::clock::Wall;

    use super::*;

    #[test]
    fn addresses_hide_their_password_and_show_their_placeholder() {
        for (text, shown) in [
            ("postgres://u:p@ss@h/d", "postgres://u:[redacted]@h/d"),
            ("sqlite:/x/erp.db", "sqlite:/x/erp.db"),
            ("postgres://h/d", "postgres://h/d"),
            ("postgres://u:{sealed:erp}@h/d?x=y", "postgres://u:{sealed:erp}@h/d"),
            ("postgres://u:{sealed:e rp}@h/d", "postgres://u:[redacted]@h/d"),
            ("postgres://u:a{sealed:erp}@h/d", "postgres://u:[redacted]@h/d"),
            ("postgres://u:{sealed:erp}@p@h/d", "postgres://u:{sealed:erp}@h/d"),
            ("{sealed:cloud}", "{sealed:cloud}"),
            ("{sealed:}", "[redacted]"),
            ("x{sealed:cloud}", "[redacted]"),
        ] {
            assert_eq!(redacted(text), shown, "{text}");
        }
    }

    #[test]
    fn a_placeholder_is_opened_encoded_in_an_address_and_whole_elsewhere_and_shown_as_it_was_written()
     {
        let home = tempfile::tempdir().unwrap();
        let vault = Vault::of(home.path());
        let hard = "canary@ho/st:1?{sealed:x}%20 ção";
        vault.set(&"erp".parse().unwrap(), &hard.into(), Wall(0)).unwrap();
        let url = Secret::from("postgres://u:{sealed:erp}@h:5432/d?sslmode=disable".to_owned());
        let opened = url.opened_address(&vault).unwrap();
        assert_eq!(
            opened.expose(),
            "postgres://u:canary%40ho%2Fst%3A1%3F%7Bsealed%3Ax%7D%2520%20%C3%A7%C3%A3o@h:5432/d?sslmode=disable"
        );
        let read: tokio_postgres::Config = opened.expose().parse().unwrap();
        assert_eq!(read.get_password(), Some(hard.as_bytes()));
        assert_eq!(format!("{opened:?}"), "postgres://u:{sealed:erp}@h:5432/d");
        let secret = Secret::from(" {sealed:erp} ".to_owned()).opened_whole(&vault).unwrap();
        assert_eq!(secret.expose(), hard);
        assert!(!format!("{secret:?}").contains("canary"));
        // What has no placeholder is as it was.
        let plain = Secret::from("postgres://u:p@h/d".to_owned());
        assert_eq!(plain.opened_address(&vault).unwrap().expose(), plain.expose());
    }

    #[test]
    fn a_placeholder_in_a_place_where_it_would_be_printed_or_without_a_name_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let vault = Vault::of(home.path());
        vault.set(&"erp".parse().unwrap(), &"canary".into(), Wall(0)).unwrap();
        for text in [
            "{sealed:erp}",
            "sqlite:{sealed:erp}",
            "postgres://{sealed:erp}@h/d",
            "postgres://{sealed:erp}:{sealed:erp}@h/d",
            "postgres://u:a{sealed:erp}@h/d",
            "postgres://u:{sealed:erp}b@h/d",
            "postgres://u:{sealed:erp@h/d",
            "postgres://u:p@{sealed:erp}/d",
            "postgres://u:p@h/{sealed:erp}",
            "postgres://h/d?password={sealed:erp}",
            "postgres://u:{sealed:}@h/d",
            "postgres://u:{sealed:a b}@h/d",
        ] {
            let refused = Secret::from(text.to_owned()).opened_address(&vault).unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{text}");
        }
        for text in ["x{sealed:erp}", "{sealed:erp}x", "{sealed:}", "{sealed:erp"] {
            let refused = Secret::from(text.to_owned()).opened_whole(&vault).unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{text}");
        }
        let unknown = Secret::from("{sealed:other}".to_owned()).opened_whole(&vault).unwrap_err();
        assert_eq!(unknown.code, Code::ConfigInvalid);
        assert!(unknown.message.contains("no secret other"), "{unknown}");
    }
}
