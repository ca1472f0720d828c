//! Token of the admin door: 256 random bits in a file that its owner alone may read.
//!
//! Promises: made at the first start and kept; compared by digest, so that the time taken tells nothing.
//! Never: is logged or printed.

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    path::Path,
};

use protocol::{Code, Coded as _, Error, Result};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const FILE: &str = "admin.token";

/// Digest of the token in force.
#[derive(Clone, Copy, Debug)]
pub(super) struct AdminToken([u8; 32]);

impl AdminToken {
    /// Reads the token, or makes it.
    pub(super) fn obtain(folder: &Path) -> Result<Self> {
        let token = match read(folder) {
            Err(error) if error.code == Code::NotFound => make(folder)?,
            read => read?,
        };
        Ok(Self(digest(token.expose_secret())))
    }

    pub(super) fn fits(&self, given: &str) -> bool {
        digest(given) == self.0
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// The token of a data folder.
pub(super) fn read(folder: &Path) -> Result<SecretString> {
    match fs::read_to_string(folder.join(FILE)) {
        Ok(text) if text.trim().is_empty() => Err(Error::new(
            Code::ConfigInvalid,
            format!("{FILE} is empty; remove it and start the agent again"),
        )),
        Ok(text) => Ok(text.trim().to_owned().into()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Err(Error::new(
            Code::NotFound,
            format!("no {FILE} in the data folder: the agent never ran there"),
        )),
        Err(cause) => {
            let words = format!("cannot read {}", folder.join(FILE).display());
            Err(Error::new(Code::ConfigInvalid, words).because(cause))
        }
    }
}

fn make(folder: &Path) -> Result<SecretString> {
    let token = runtime::entropy::secret();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(folder.join(FILE))
        .and_then(|mut file| {
            file.write_all(token.expose_secret().as_bytes())?;
            file.sync_all()
        })
        .coded(Code::JournalFailed, "cannot keep the admin token in the data folder")?;
    Ok(token)
}
