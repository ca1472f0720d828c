//! Keys: the master key in its file beside the store, what is derived from it, and signing keys sealed under it.
//!
//! Promises: the file is made whole or not at all, readable by its owner alone; a signing key opens only under the
//! master key and the `kid` it was sealed with.
//! Never: writes a key unsealed, prints one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    aead::{
        AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, RandomizedNonceKey, UnboundKey,
    },
    encoding::AsDer as _,
    hmac,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use protocol::{
    Code, Coded as _, Error, Result,
    ids::{AdminTokenId, ClientId},
};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};

use crate::model::{
    access::{ClientRecord, SealedKey},
    carol::Envelope,
};

const FILE: &str = "master.key";
const NONCE: usize = 12;

/// Where the key file of a data folder lies.
pub(super) fn path(data: &Path) -> PathBuf {
    data.join(FILE)
}

pub(super) fn is_there(data: &Path) -> bool {
    path(data).exists()
}

/// Whether the key file of a data folder opens what a store has sealed.
///
/// # Errors
/// `CONFIG_INVALID` where it is missing, readable by others or another one's.
pub(crate) fn fits(data: &Path, sealed: &[SealedKey]) -> Result<()> {
    if sealed.is_empty() {
        return Ok(());
    }
    if !is_there(data) {
        let words = format!("there is no key file {}", path(data).display());
        return Err(Error::new(
            Code::ConfigInvalid,
            format!("{words}, and what the store has sealed opens with it alone"),
        ));
    }
    let master = MasterKey::open(data)?;
    sealed.iter().try_for_each(|key| master.unseal(key).map(drop))
}

/// 256 random bits; everything else is derived or sealed with them.
pub(crate) struct MasterKey {
    secrets: SecretBox<[u8; 32]>,
    sealing: SecretBox<[u8; 32]>,
}

impl Clone for MasterKey {
    fn clone(&self) -> Self {
        Self {
            secrets: SecretBox::new(Box::new(*self.secrets.expose_secret())),
            sealing: SecretBox::new(Box::new(*self.sealing.expose_secret())),
        }
    }
}

impl MasterKey {
    /// Reads the key file of a data folder; makes it where it is missing.
    pub(crate) fn open(data: &Path) -> Result<Self> {
        let path = path(data);
        if !path.exists() {
            create(data, &path)?;
        }
        refuse_readable_by_others(&path)?;
        let bytes = fs::read(&path)
            .coded(Code::ConfigInvalid, format!("cannot read the key file {}", path.display()))?;
        let master: [u8; 32] = bytes.try_into().map_err(|_| {
            Error::new(
                Code::ConfigInvalid,
                format!("the key file {} must hold 32 bytes", path.display()),
            )
        })?;
        Ok(Self::from_bytes(&master))
    }

    fn from_bytes(master: &[u8; 32]) -> Self {
        let derive = |label: &[u8]| SecretBox::new(Box::new(mac(master, &[label])));
        Self { secrets: derive(b"malote client secrets 1"), sealing: derive(b"malote sealing 1") }
    }

    /// What the store keeps of a secret.
    pub(crate) fn secret_hmac(&self, client: &ClientId, secret: &SecretString) -> [u8; 32] {
        self.hmac_of(client.as_str(), secret)
    }

    /// Compares in constant time; without a record the work is the same and the answer no.
    pub(super) fn verify_secret(
        &self,
        client: &str,
        secret: &SecretString,
        record: Option<&ClientRecord>,
    ) -> bool {
        let given = self.hmac_of(client, secret);
        let kept = record.map_or(&[0; 32][..], |record| &record.secret_hmac);
        let equal: bool = subtle::ConstantTimeEq::ct_eq(&given[..], kept).into();
        equal && record.is_some()
    }

    fn hmac_of(&self, client: &str, secret: &SecretString) -> [u8; 32] {
        mac(
            self.secrets.expose_secret(),
            &[client.as_bytes(), b"\0", secret.expose_secret().as_bytes()],
        )
    }

    /// What the store keeps of an administrator's token. No client id has a blank, so none takes this one's place.
    pub(super) fn admin_hmac(&self, token: AdminTokenId, secret: &SecretString) -> [u8; 32] {
        self.hmac_of(&format!("admin token {token}"), secret)
    }

    fn cipher(&self) -> Result<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, self.sealing.expose_secret())
            .map_err(|_| Error::new(Code::Internal, "cannot make the sealing key"))
    }

    /// Seals a secret under a key of its own, and that key under this one; both only open with `label`.
    pub(in crate::service) fn envelope(
        &self,
        label: &str,
        secret: &SecretString,
    ) -> Result<Envelope> {
        let own = SecretBox::new(Box::new(runtime::entropy::bytes::<32>()));
        let mut sealed = secret.expose_secret().as_bytes().to_vec();
        // The key seals this one text, so its nonce need not differ.
        own_key(&own)?
            .seal_in_place_append_tag(only_nonce(), Aad::from(label.as_bytes()), &mut sealed)
            .map_err(|_| Error::new(Code::Internal, "cannot seal a secret"))?;
        Ok(Envelope { key: self.seal(label, own.expose_secret())?, secret: sealed })
    }

    /// The secret of an envelope that was sealed with `label`.
    pub(in crate::service) fn opened(
        &self,
        label: &str,
        envelope: &Envelope,
    ) -> Result<SecretString> {
        let own = SecretBox::new(Box::new(
            <[u8; 32]>::try_from(self.open_sealed(label, &envelope.key)?).map_err(|_| foreign())?,
        ));
        let mut buffer = envelope.secret.clone();
        let plain = own_key(&own)?
            .open_in_place(only_nonce(), Aad::from(label.as_bytes()), &mut buffer)
            .map_err(|_| foreign())?;
        Ok(String::from_utf8(plain.to_vec()).map_err(|_| foreign())?.into())
    }

    fn seal(&self, kid: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = plain.to_vec();
        let nonce = self
            .cipher()?
            .seal_in_place_append_tag(Aad::from(kid.as_bytes()), &mut sealed)
            .map_err(|_| Error::new(Code::Internal, "cannot seal a key"))?;
        let mut out = nonce.as_ref().to_vec();
        out.append(&mut sealed);
        Ok(out)
    }

    /// The PKCS #8 bytes of a sealed signing key.
    pub(super) fn unseal(&self, key: &SealedKey) -> Result<Vec<u8>> {
        self.open_sealed(&key.kid, &key.sealed)
    }

    fn open_sealed(&self, label: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE).ok_or_else(foreign)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| foreign())?;
        let mut buffer = sealed.to_vec();
        let plain = self
            .cipher()?
            .open_in_place(nonce, Aad::from(label.as_bytes()), &mut buffer)
            .map_err(|_| foreign())?;
        Ok(plain.to_vec())
    }
}

fn foreign() -> Error {
    Error::new(
        Code::ConfigInvalid,
        "master.key is not the key file of this store; restore the right one",
    )
}

fn own_key(key: &SecretBox<[u8; 32]>) -> Result<LessSafeKey> {
    UnboundKey::new(&CHACHA20_POLY1305, key.expose_secret())
        .map(LessSafeKey::new)
        .map_err(|_| Error::new(Code::Internal, "cannot make the key of an envelope"))
}

fn only_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE])
}

fn mac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.sign().as_ref());
    out
}

/// Makes an RSA key of 2048 bits, sealed.
pub(super) fn new_signing_key(master: &MasterKey) -> Result<SealedKey> {
    let failed = |_| Error::new(Code::Internal, "cannot make a signing key");
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    let pkcs8 = pair.as_der().map_err(failed)?;
    let kid = runtime::entropy::uuid().simple().to_string();
    let sealed = master.seal(&kid, pkcs8.as_ref())?;
    Ok(SealedKey { kid, sealed, public_der: pair.public_key().as_ref().to_vec() })
}

/// Writes the file under another name first and links it, so that two processes that start at once agree on one key.
fn create(data: &Path, path: &Path) -> Result<()> {
    let failed = || format!("cannot make the key file {}", path.display());
    let draft = data.join(format!("{FILE}.{}", runtime::entropy::uuid().simple()));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut file| {
        file.write_all(&runtime::entropy::bytes::<32>())?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    let removed = fs::remove_file(&draft);
    written.coded(Code::ConfigInvalid, failed())?;
    removed.coded(Code::ConfigInvalid, failed())
}

#[cfg(unix)]
fn refuse_readable_by_others(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path)
        .coded(Code::ConfigInvalid, format!("cannot read the key file {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Error::new(
            Code::ConfigInvalid,
            format!(
                "others may read the key file {} (mode {:o}); set it to 600",
                path.display(),
                mode & 0o777
            ),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_readable_by_others(_path: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_file_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let client: ClientId = "erp".parse().unwrap();
        let secret = SecretString::from("s");
        let first = MasterKey::open(folder.path()).unwrap().secret_hmac(&client, &secret);
        assert_eq!(MasterKey::open(folder.path()).unwrap().secret_hmac(&client, &secret), first);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let path = folder.path().join(FILE);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            assert_eq!(MasterKey::open(folder.path()).err().unwrap().code, Code::ConfigInvalid);
        }
    }

    #[test]
    fn an_envelope_opens_only_with_its_own_master_key_and_label() {
        let master = MasterKey::from_bytes(&[1; 32]);
        let sealed = master.envelope("carol token of a", &"canary".into()).unwrap();
        assert_eq!(master.opened("carol token of a", &sealed).unwrap().expose_secret(), "canary");
        assert!(master.opened("carol token of b", &sealed).is_err());
        assert!(MasterKey::from_bytes(&[2; 32]).opened("carol token of a", &sealed).is_err());
        let other = master.envelope("carol token of a", &"canary".into()).unwrap();
        assert_ne!(other.secret, sealed.secret, "each has a key of its own");
        let mixed = Envelope { key: other.key, secret: sealed.secret.clone() };
        assert!(master.opened("carol token of a", &mixed).is_err());
        assert!(!sealed.secret.windows(6).any(|part| part == b"canary"));
    }

    #[test]
    fn a_signing_key_opens_only_with_its_own_master_key_and_kid() {
        let master = MasterKey::from_bytes(&[1; 32]);
        let key = new_signing_key(&master).unwrap();
        assert_eq!(key.kid.len(), 32);
        assert!(master.unseal(&key).is_ok());
        assert!(MasterKey::from_bytes(&[2; 32]).unseal(&key).is_err());
        let other_kid = SealedKey { kid: "0".repeat(32), ..key.clone() };
        assert!(master.unseal(&other_kid).is_err());
        let cut = SealedKey { sealed: vec![1, 2, 3], ..key };
        assert!(master.unseal(&cut).is_err());
    }
}
