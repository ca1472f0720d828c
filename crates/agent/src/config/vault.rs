//! Vault: secrets of the configuration, sealed in the data folder under a key file beside them.
//!
//! Promises: a value opens only under the key, the name and the date it was sealed with (AES-256-GCM); a change is whole
//! or not there, also beside a running agent or another command.
//! Never: shows a value but to the configuration; takes a key that is not the one the vault was sealed under.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hmac,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::{Code, Coded as _, Error, Result, limits};
use runtime::{
    clock::Wall,
    files,
    keyfile::{self, Key},
};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use serde::{Deserialize, Serialize};

pub(crate) const FILE: &str = "secrets.json";
pub(crate) const KEY_FILE: &str = "secrets.key";
const LOCK_FILE: &str = "secrets.lock";
/// As the key file is called in errors.
const KEY: &str = "the key of the sealed secrets";
const VERSION: u32 = 1;
const NONCE: usize = 12;
const MARK: usize = 8;

/// Name of a sealed secret: letters, digits, `-`, `_` and `.`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(String);

impl SecretName {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let sign = |sign: u8| sign.is_ascii_alphanumeric() || b"-_.".contains(&sign);
        if text.is_empty() || text.len() > limits::SEALED_NAME_BYTES || !text.bytes().all(sign) {
            // What stands there may be a secret itself, put into the wrong place.
            let words = format!(
                "the name of a secret has 1 to {} letters, digits, '-', '_' or '.'",
                limits::SEALED_NAME_BYTES
            );
            return Err(Error::new(Code::BadName, words));
        }
        Ok(Self(text.to_owned()))
    }
}

impl TryFrom<String> for SecretName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    /// Tells one key from another.
    key: String,
    secrets: BTreeMap<SecretName, Sealed>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    /// When it was set, ISO 8601.
    set: String,
    /// Nonce, text and tag, base64.
    value: String,
}

/// What may be known of a secret.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    pub name: SecretName,
    /// ISO 8601.
    pub set: String,
}

/// The sealed secrets of a data folder. Nothing is opened before the first call.
#[derive(Clone, Debug)]
pub struct Vault {
    folder: PathBuf,
    /// The key, where the system hands it over: what is sealed then opens on this machine alone.
    handed: Option<PathBuf>,
}

/// Folder of what systemd hands to a service (`LoadCredentialEncrypted=secrets.key:…`).
const HANDED: &str = "CREDENTIALS_DIRECTORY";

impl Vault {
    #[must_use]
    pub fn of(folder: &Path) -> Self {
        let handed = runtime::config::variable(HANDED).map(|of| Path::new(&of).join(KEY_FILE));
        Self { folder: folder.to_owned(), handed: handed.filter(|path| path.exists()) }
    }

    /// Whether secrets are sealed under a key that lies beside them: whoever has the folder has both.
    #[must_use]
    pub fn is_beside_its_key(&self) -> bool {
        self.handed.is_none() && self.read().is_ok_and(|kept| !kept.secrets.is_empty())
    }

    fn key(&self) -> Result<Key> {
        match &self.handed {
            Some(path) => keyfile::read_handed(path, KEY),
            None => keyfile::read(&self.path(KEY_FILE), KEY),
        }
    }

    fn key_path(&self) -> PathBuf {
        self.handed.clone().unwrap_or_else(|| self.path(KEY_FILE))
    }

    /// Seals a value under a name; makes folder and key where there are none. Tells whether it took another's place.
    ///
    /// # Errors
    /// `BAD_REQUEST` for a value that is empty or too long, or one name too many; `CONFIG_INVALID` where the file or
    /// the key is not as it should be; `JOURNAL_FAILED` where nothing can be kept.
    pub fn set(&self, name: &SecretName, value: &SecretString, now: Wall) -> Result<bool> {
        let length = value.expose_secret().len();
        if length == 0 || length > limits::SEALED_BYTES {
            let most = limits::SEALED_BYTES;
            let words = format!("a secret has 1 to {most} bytes, this one {length}");
            return Err(Error::new(Code::BadRequest, words));
        }
        let _lock = self.lock()?;
        let mut kept = self.read()?;
        if !kept.secrets.contains_key(name) && kept.secrets.len() >= limits::SEALED_SECRETS {
            let words = format!("{} secrets are sealed already", limits::SEALED_SECRETS);
            return Err(Error::new(Code::BadRequest, words));
        }
        let keys = self.keys_for(&mut kept)?;
        let set = now.to_iso();
        let sealed = Sealed { value: keys.seal(name, &set, value)?, set };
        let replaced = kept.secrets.insert(name.clone(), sealed).is_some();
        self.write(&kept)?;
        Ok(replaced)
    }

    /// Names and dates; the key is not needed.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the file cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let secrets = self.read()?.secrets.into_iter();
        Ok(secrets.map(|(name, sealed)| Listed { name, set: sealed.set }).collect())
    }

    /// Forgets a secret; the key is not needed.
    ///
    /// # Errors
    /// `NOT_FOUND`; as [`Vault::list`]; `JOURNAL_FAILED` where the file cannot be written.
    pub fn remove(&self, name: &SecretName) -> Result<()> {
        if !self.path(FILE).exists() {
            return Err(self.unknown(name, Code::NotFound));
        }
        let _lock = self.lock()?;
        let mut kept = self.read()?;
        if kept.secrets.remove(name).is_none() {
            return Err(self.unknown(name, Code::NotFound));
        }
        self.write(&kept)
    }

    /// The value, for the configuration alone.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with name, path and way out: unknown, key missing or another one, damaged.
    pub(super) fn open(&self, name: &SecretName) -> Result<SecretString> {
        let kept = self.read()?;
        let sealed =
            kept.secrets.get(name).ok_or_else(|| self.unknown(name, Code::ConfigInvalid))?;
        let keys = self.keys(&kept).map_err(|error| error.at(format!("sealed secret {name}")))?;
        keys.open(name, sealed).ok_or_else(|| {
            let words = format!(
                "sealed secret {name} in {} is damaged; set it again: malote agent secret set {name}",
                self.path(FILE).display()
            );
            Error::new(Code::ConfigInvalid, words)
        })
    }

    fn unknown(&self, name: &SecretName, code: Code) -> Error {
        let file = self.path(FILE);
        let words = format!(
            "no secret {name} is sealed in {}; malote agent secret list shows those that are, malote agent secret set \
             {name} adds it",
            file.display()
        );
        Error::new(code, words)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Held while file and key change; readers need none, since files are replaced whole.
    fn lock(&self) -> Result<fs::File> {
        let path = self.path(LOCK_FILE);
        let words = format!("cannot lock the sealed secrets, {}", path.display());
        files::folder(&self.folder)
            .and_then(|()| files::private(&path))
            .and_then(|()| fs::File::options().write(true).open(&path))
            .and_then(|file| file.lock().map(|()| file))
            .coded(Code::JournalFailed, words)
    }

    fn read(&self) -> Result<Kept> {
        read(&self.path(FILE))
    }

    fn write(&self, kept: &Kept) -> Result<()> {
        let path = self.path(FILE);
        let text = serde_json::to_vec_pretty(kept)
            .coded(Code::Internal, "cannot write the sealed secrets as JSON")?;
        let words = format!("cannot keep the sealed secrets in {}", path.display());
        files::replace(&path, &text).coded(Code::JournalFailed, words)
    }

    /// The keys the file was sealed under.
    fn keys(&self, kept: &Kept) -> Result<Keys> {
        let again = "restore the right one, or remove both files and set the secrets again";
        keys_of(kept, (&self.path(FILE), &self.key_path()), self.key(), again)
    }

    /// As [`Vault::keys`]; where nothing is sealed any key will do, and one is made where there is none.
    fn keys_for(&self, kept: &mut Kept) -> Result<Keys> {
        if !kept.secrets.is_empty() {
            return self.keys(kept);
        }
        let path = self.key_path();
        let key = if path.exists() { self.key() } else { keyfile::make(&path, KEY) }?;
        let keys = Keys::of(&key);
        (kept.version, kept.key) = (VERSION, keys.mark.clone());
        Ok(keys)
    }
}

/// Whether what is sealed in a file opens under a key that lies elsewhere.
///
/// # Errors
/// `CONFIG_INVALID` where the key is missing or another one, or either file is not as it should be.
pub(crate) fn fits(sealed: &Path, key: &Path) -> Result<()> {
    let kept = read(sealed)?;
    if kept.secrets.is_empty() {
        return Ok(());
    }
    let again = "put the right one there first";
    keys_of(&kept, (sealed, key), keyfile::read(key, KEY), again).map(drop)
}

fn read(path: &Path) -> Result<Kept> {
    let bytes = match fs::read(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        read => read.coded(Code::ConfigInvalid, format!("cannot read {}", path.display()))?,
    };
    let kept: Kept = serde_json::from_slice(&bytes).map_err(|cause| {
        let words = format!(
            "{} is damaged; restore it, or remove it and set its secrets again",
            path.display()
        );
        // Not what stands there, which may be anything: where.
        let place = format!("line {}, column {}", cause.line(), cause.column());
        Error::new(Code::ConfigInvalid, words).because(place)
    })?;
    if kept.version != VERSION {
        let words = format!(
            "{} has version {}, this program knows {VERSION}",
            path.display(),
            kept.version
        );
        return Err(Error::new(Code::ConfigInvalid, words));
    }
    Ok(kept)
}

/// The keys a file was sealed under; `again` is the way out where it was not.
fn keys_of(
    kept: &Kept,
    (file, path): (&Path, &Path),
    key: Result<Key>,
    again: &str,
) -> Result<Keys> {
    let key = key.map_err(|mut error| {
        error.message.push_str(&format!("; {} was sealed under it: {again}", file.display()));
        error
    })?;
    let keys = Keys::of(&key);
    if keys.mark != kept.key {
        let words = format!(
            "{} was sealed under another key than {} holds; {again}",
            file.display(),
            path.display()
        );
        return Err(Error::new(Code::ConfigInvalid, words));
    }
    Ok(keys)
}

/// What is derived from the key file.
struct Keys {
    sealing: SecretBox<[u8; keyfile::BYTES]>,
    mark: String,
}

impl Keys {
    fn of(key: &Key) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose_secret());
        let derived = |label: &[u8]| hmac::sign(&key, label);
        let mut sealing = Box::new([0; keyfile::BYTES]);
        sealing.copy_from_slice(derived(b"malote agent sealing 1").as_ref());
        let mark = derived(b"malote agent mark 1");
        let mark = STANDARD.encode(mark.as_ref().get(..MARK).unwrap_or_default());
        Self { sealing: SecretBox::new(sealing), mark }
    }

    fn cipher(&self) -> Result<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.sealing.expose_secret())
            .map_err(|_| Error::new(Code::Internal, "cannot make the sealing key"))
    }

    fn seal(&self, name: &SecretName, set: &str, value: &SecretString) -> Result<String> {
        let mut sealed = value.expose_secret().as_bytes().to_vec();
        let nonce = self
            .cipher()?
            .seal_in_place_append_tag(label(name, set), &mut sealed)
            .map_err(|_| Error::new(Code::Internal, "cannot seal a secret"))?;
        let mut whole = nonce.as_ref().to_vec();
        whole.append(&mut sealed);
        Ok(STANDARD.encode(whole))
    }

    fn open(&self, name: &SecretName, sealed: &Sealed) -> Option<SecretString> {
        let whole = STANDARD.decode(&sealed.value).ok()?;
        let (nonce, text) = whole.split_at_checked(NONCE)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut buffer = zeroize::Zeroizing::new(text.to_vec());
        let cipher = self.cipher().ok()?;
        let plain = cipher.open_in_place(nonce, label(name, &sealed.set), &mut buffer).ok()?;
        Some(std::str::from_utf8(plain).ok()?.to_owned().into())
    }
}

/// What a value is bound to. No name and no date holds a NUL.
fn label(name: &SecretName, set: &str) -> Aad<Vec<u8>> {
    Aad::from([name.as_str().as_bytes(), set.as_bytes()].join(&0))
}

#[cfg(test)]
mod tests;
