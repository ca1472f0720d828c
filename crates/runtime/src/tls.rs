//! TLS: one provider for the whole process, and the listeners of a server that no front ends TLS for.
//!
//! Promises: the provider is installed before the first connection, so that two in one tree cannot clash; certificate and key are read and matched before a port answers; renewed files are taken up within a minute
//! without a restart, and connections that stand go on; files that do not fit leave the ones in force as they are, told
//! in the log.
//! Never: speaks below TLS 1.2; asks the peer for a certificate (senders show a token).

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use protocol::{Code, Error, Result};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{clock, shutdown::Shutdown};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(60);

/// Installs aws-lc-rs as the process's provider. Repeats do no harm.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The bytes of a file that is to name authorities, once a certificate is seen in them.
///
/// # Errors
/// `CONFIG_INVALID` where there is none, or a broken one.
pub fn with_certificate(pem: Vec<u8>) -> Result<Vec<u8>> {
    match CertificateDer::pem_slice_iter(&pem).next() {
        Some(Ok(_)) => Ok(pem),
        _ => Err(Error::new(Code::ConfigInvalid, "no certificate in PEM form is read there")),
    }
}

/// Where certificate and key are; both or none.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsFiles {
    /// PEM file with the server's certificate and, behind it, those between it and the authority.
    pub certificate_file: PathBuf,
    /// PEM file with the certificate's private key.
    pub key_file: PathBuf,
}

/// What a listener speaks above TLS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Speaks {
    /// HTTP/2 and HTTP/1.1.
    Http,
    /// HTTP/2 alone.
    Grpc,
}

/// Certificate and key in force; cheap to clone.
#[derive(Clone, Debug)]
pub struct Tls(watch::Receiver<Arc<Loaded>>);

/// Keeps [`Tls`] in step with the files.
#[derive(Debug)]
pub struct Renewal {
    files: TlsFiles,
    /// Bytes of the files as they were tried last.
    seen: (Vec<u8>, Vec<u8>),
    loaded: watch::Sender<Arc<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    http: Arc<rustls::ServerConfig>,
    grpc: Arc<rustls::ServerConfig>,
}

impl TlsFiles {
    /// Whether the listeners speak TLS.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where one of the two is named without the other.
    pub fn are_named(&self) -> Result<bool> {
        let empty = |path: &Path| path.as_os_str().is_empty();
        match (empty(&self.certificate_file), empty(&self.key_file)) {
            (true, true) => Ok(false),
            (false, false) => Ok(true),
            (lacks_certificate, _) => {
                let key = if lacks_certificate { "tls.certificate_file" } else { "tls.key_file" };
                let words = "tls.certificate_file and tls.key_file go together";
                Err(Error::new(Code::ConfigInvalid, words).at(key))
            }
        }
    }

    fn read(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        let read = |key: &str, path: &Path| {
            fs::read(path).map_err(|cause| {
                let words = format!("cannot read {}: {cause}", path.display());
                Error::new(Code::ConfigInvalid, words).at(key)
            })
        };
        Ok((
            read("tls.certificate_file", &self.certificate_file)?,
            read("tls.key_file", &self.key_file)?,
        ))
    }

    fn load(&self, (certificates, key): &(Vec<u8>, Vec<u8>)) -> Result<Loaded> {
        let invalid = |key: &str, path: &Path, why: &str| {
            let words = format!("{}: {why}", path.display());
            Error::new(Code::ConfigInvalid, words).at(key)
        };
        let bad_certificate =
            |why: &str| invalid("tls.certificate_file", &self.certificate_file, why);
        let bad_key = |why: &str| invalid("tls.key_file", &self.key_file, why);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<std::result::Result<_, _>>()
            .map_err(|_| bad_certificate("a certificate in it is damaged"))?;
        if chain.is_empty() {
            return Err(bad_certificate("there is no certificate in it (PEM)"));
        }
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| bad_key("there is no private key in it (PEM, without a password)"))?;
        let one = |protocols: &[&str]| {
            let config = rustls::ServerConfig::builder().with_no_client_auth();
            let mut config = config
                .with_single_cert(chain.clone(), key.clone_key())
                .map_err(|cause| bad_key("it does not fit the certificate").because(cause))?;
            config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
            Ok::<_, Error>(Arc::new(config))
        };
        Ok(Loaded { http: one(&["h2", "http/1.1"])?, grpc: one(&["h2"])? })
    }
}

/// Reads certificate and key; `None` where none are named.
///
/// # Errors
/// `CONFIG_INVALID` with the key of the configuration, the file and what is wrong with it.
pub fn load(files: &TlsFiles) -> Result<Option<(Tls, Renewal)>> {
    if !files.are_named()? {
        return Ok(None);
    }
    let seen = files.read()?;
    let (loaded, current) = watch::channel(Arc::new(files.load(&seen)?));
    Ok(Some((Tls(current), Renewal { files: files.clone(), seen, loaded })))
}

impl Tls {
    /// Takes a connection's handshake.
    ///
    /// # Errors
    /// The peer's: it speaks no TLS, or none that fits.
    pub async fn accept(&self, stream: TcpStream, speaks: Speaks) -> io::Result<Wire> {
        let config = {
            let loaded = self.0.borrow();
            match speaks {
                Speaks::Http => Arc::clone(&loaded.http),
                Speaks::Grpc => Arc::clone(&loaded.grpc),
            }
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        Ok(Wire::Tls(Box::new(stream)))
    }
}

/// Follows the files until the drain.
pub async fn follow(mut renewal: Renewal, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            biased;
            () = shutdown.draining() => return,
            () = clock::sleep(LOOK) => renewal.look(),
        }
    }
}

impl Renewal {
    /// Takes up what changed; a pair that does not fit may be half of a renewal and is looked at again when it changes.
    fn look(&mut self) {
        let found = match self.files.read() {
            Ok(found) if found == self.seen => return,
            found => found,
        };
        let loaded = found.and_then(|found| {
            let loaded = self.files.load(&found);
            self.seen = found;
            loaded
        });
        match loaded {
            Ok(loaded) => {
                self.loaded.send_replace(Arc::new(loaded));
                tracing::info!(file = %self.files.certificate_file.display(), "a renewed certificate is in force");
            }
            Err(error) => {
                tracing::error!(code = %error.code, chain = error.chain(), hint = error.code.hint(), "the renewed certificate cannot be used, the one before stays in force");
            }
        }
    }
}

/// A connection with or without TLS.
#[derive(Debug)]
pub enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

macro_rules! each {
    ($wire:expr, $stream:ident => $call:expr) => {
        match $wire.get_mut() {
            Wire::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Wire::Tls($stream) => {
                let $stream = Pin::new($stream.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(context, into))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(folder: &Path, (certificate, key): (&str, &str)) -> TlsFiles {
        let (certificate_file, key_file) = (folder.join("server.pem"), folder.join("server.key"));
        fs::write(&certificate_file, certificate).unwrap();
        fs::write(&key_file, key).unwrap();
        TlsFiles { certificate_file, key_file }
    }

    const FIRST: (&str, &str) =
        (include_str!("../tests/data/first.pem"), include_str!("../tests/data/first.key"));
    const SECOND: (&str, &str) =
        (include_str!("../tests/data/second.pem"), include_str!("../tests/data/second.key"));

    /// Whether a caller that trusts that certificate alone comes through the handshake, and what was agreed on.
    async fn call(tls: &Tls, speaks: Speaks, trusted: &str) -> Option<Vec<u8>> {
        install_provider();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(trusted.as_bytes()).unwrap()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
        let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let (called, _) = tokio::join!(connector.connect(name, near), tls.accept(far, speaks));
        let agreed = called.ok()?.get_ref().1.alpn_protocol().unwrap_or_default().to_vec();
        Some(agreed)
    }

    #[tokio::test]
    async fn each_listener_speaks_its_own_protocols() {
        let folder = tempfile::tempdir().unwrap();
        let (tls, _renewal) = load(&files(folder.path(), FIRST)).unwrap().unwrap();
        assert_eq!(call(&tls, Speaks::Grpc, FIRST.0).await.unwrap(), b"h2");
        // The server's order counts, and HTTP/2 is its first.
        assert_eq!(call(&tls, Speaks::Http, FIRST.0).await.unwrap(), b"h2");
        assert_eq!(call(&tls, Speaks::Grpc, SECOND.0).await, None);
    }

    #[tokio::test]
    async fn renewed_files_are_taken_up_and_half_a_renewal_leaves_the_old_ones() {
        let folder = tempfile::tempdir().unwrap();
        let named = files(folder.path(), FIRST);
        let (tls, mut renewal) = load(&named).unwrap().unwrap();
        fs::write(&named.certificate_file, SECOND.0).unwrap();
        renewal.look();
        assert!(call(&tls, Speaks::Grpc, FIRST.0).await.is_some(), "the key is still the old one");
        fs::remove_file(&named.key_file).unwrap();
        renewal.look();
        assert!(call(&tls, Speaks::Grpc, FIRST.0).await.is_some());
        fs::write(&named.key_file, SECOND.1).unwrap();
        renewal.look();
        assert!(call(&tls, Speaks::Grpc, SECOND.0).await.is_some());
        assert_eq!(call(&tls, Speaks::Grpc, FIRST.0).await, None);
    }

    #[test]
    fn a_file_without_a_certificate_names_no_authority() {
        let pem = include_bytes!("../tests/data/first.pem").to_vec();
        assert_eq!(with_certificate(pem.clone()).unwrap(), pem);
        for bad in [&b""[..], b"ext", include_bytes!("../tests/data/first.key")] {
            let refused = with_certificate(bad.to_vec()).unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid);
        }
    }

    #[test]
    fn files_that_do_not_serve_are_told_by_key_and_path() {
        let folder = tempfile::tempdir().unwrap();
        let named = files(folder.path(), ("no PEM", "no PEM"));
        let wrong = |files: &TlsFiles| load(files).map(|_| ()).unwrap_err();
        let error = wrong(&named);
        assert_eq!(error.code, Code::ConfigInvalid);
        assert!(error.to_string().contains("tls.certificate_file"), "{error}");
        assert!(error.to_string().contains("server.pem"), "{error}");
        let missing = TlsFiles { key_file: folder.path().join("none.key"), ..named.clone() };
        assert!(wrong(&missing).to_string().contains("none.key"), "{}", wrong(&missing));
        let half = TlsFiles { key_file: PathBuf::new(), ..named };
        assert!(wrong(&half).to_string().contains("tls.key_file"), "{}", wrong(&half));
        assert!(load(&TlsFiles::default()).unwrap().is_none());
        install_provider();
        for (pair, said) in
            [((FIRST.0, SECOND.1), "does not fit"), ((FIRST.0, "no PEM"), "private key")]
        {
            let error = wrong(&files(folder.path(), pair));
            assert!(error.to_string().contains(said), "{error}");
        }
    }
}
