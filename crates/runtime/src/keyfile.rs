//! Key files: 256 random bits as 64 hex digits, in a file that its owner alone may read.
//!
//! Promises: made whole or not at all; one that others could read is tightened, or that it cannot be is told.
//! Never: prints a key; makes one where a file is.

use std::{fs, path::Path};

use protocol::{Code, Coded as _, Error, Result};
use secrecy::{ExposeSecret as _, SecretBox};
use zeroize::Zeroizing;

use crate::{entropy, files};

/// Bytes of a key.
pub const BYTES: usize = 32;

/// A key that prints as nothing and is wiped when it is dropped.
pub type Key = SecretBox<[u8; BYTES]>;

/// Reads a key; `what` names it in errors.
///
/// # Errors
/// `CONFIG_INVALID` where the file is missing, unreadable or no key.
pub fn read(path: &Path, what: &str) -> Result<Key> {
    let key = read_handed(path, what)?;
    // A key that others may read protects nothing; one that cannot be tightened is told.
    let words = || format!("cannot read {what}, {}", path.display());
    files::private(path).coded(Code::ConfigInvalid, words())?;
    Ok(key)
}

/// As [`read`], of a file that the system handed over and looks after itself.
///
/// # Errors
/// `CONFIG_INVALID` with the path.
pub fn read_handed(path: &Path, what: &str) -> Result<Key> {
    let words = || format!("cannot read {what}, {}", path.display());
    let text = Zeroizing::new(fs::read_to_string(path).coded(Code::ConfigInvalid, words())?);
    let key = from_hex(text.trim()).ok_or_else(|| {
        let words = format!("{what}, {}, does not hold 64 hex digits", path.display());
        Error::new(Code::ConfigInvalid, words)
    })?;
    Ok(SecretBox::new(Box::new(key)))
}

/// Makes a key, and the folder where it is missing. Whoever calls holds a lock against others that make one too.
///
/// # Errors
/// `JOURNAL_FAILED` where it cannot be kept.
pub fn make(path: &Path, what: &str) -> Result<Key> {
    let failed =
        || Error::new(Code::JournalFailed, format!("cannot keep {what}, {}", path.display()));
    if path.exists() {
        return Err(failed());
    }
    let folder = path.parent().ok_or_else(failed)?;
    files::folder(folder).map_err(|cause| failed().because(cause))?;
    let key: Key = SecretBox::new(Box::new(entropy::bytes()));
    let hex: Zeroizing<String> =
        Zeroizing::new(key.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect());
    files::replace(path, hex.as_bytes()).map_err(|cause| failed().because(cause))?;
    tracing::info!(file = %path.display(), "made {what}; keep a copy of it");
    Ok(key)
}

fn from_hex(text: &str) -> Option<[u8; BYTES]> {
    let mut key = [0; BYTES];
    if text.len() != BYTES * 2 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_private_and_whole_and_what_is_no_key_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/x.key");
        assert_eq!(read(&path, "the key").unwrap_err().code, Code::ConfigInvalid);
        let made = make(&path, "the key").unwrap();
        let kept = read(&path, "the key").unwrap();
        assert_eq!(kept.expose_secret(), made.expose_secret());
        assert_eq!(make(&path, "the key").unwrap_err().code, Code::JournalFailed);
        assert!(!format!("{made:?}").contains(&fs::read_to_string(&path).unwrap()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            read(&path, "the key").unwrap();
            assert_eq!(mode(), 0o600);
        }
        for bad in ["", "12", &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32)] {
            fs::write(&path, bad).unwrap();
            let refused = read(&path, "the key").unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{bad}");
            assert!(refused.message.contains("x.key"), "{refused}");
        }
    }
}
