//! PostgreSQL: how a database is reached, whether as a source of rows or as a store: its address with time-outs, whether
//! TLS is wanted and whom it trusts.
//!
//! Promises: TLS, where it is asked for, checks the certificate; a network that swallows packets ends a connection (F16).
//! Never: shows a password; knows what is asked over a connection.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio_postgres::{
    Client, Config, NoTls, Socket,
    config::{Host, SslMode},
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    task::{self, Task},
    tls,
};

/// For a connection to be made.
pub const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For packets to be acknowledged; a server's own time-outs come first.
pub const WATCHDOG: Duration = Duration::from_secs(15);

/// Where a database is. Cheap to clone.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: Option<MakeRustlsConnect>,
}

impl std::fmt::Debug for Address {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Address").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Address {
    /// Of a URL that stands under that key of a configuration, for a program of that name; `ca_file` (key `<section>.ca_file`)
    /// names whom TLS trusts where the URL does not, else whoever the machine trusts.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, which names the key.
    pub fn of((key, url): (&str, &str), ca_file: Option<PathBuf>, program: &str) -> Result<Self> {
        let (url, asked) = Asked::split(key, url)?;
        let words = || {
            format!(
                "{key} is not a PostgreSQL URL: postgres://user@host:port/database, and of parameters sslmode and \
                 sslrootcert"
            )
        };
        let mut config: Config = url.parse().coded(Code::ConfigInvalid, words())?;
        if config.get_user().is_none() {
            let words = format!("{key} names no user: postgres://user@host/database");
            return Err(Error::new(Code::ConfigInvalid, words));
        }
        config
            .application_name(program)
            .connect_timeout(CONNECT_TIME)
            .tcp_user_timeout(WATCHDOG)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .ssl_mode(if asked.tls { SslMode::Require } else { SslMode::Disable });
        let tls = if asked.tls { Some(make_tls(key, asked.ca_file.or(ca_file))?) } else { None };
        Ok(Self { config, tls })
    }

    /// With a password that stands elsewhere than in the URL.
    #[must_use]
    pub fn with_password(mut self, password: &str) -> Self {
        self.config.password(password);
        self
    }

    /// Without TLS.
    #[must_use]
    pub const fn plain(config: Config) -> Self {
        Self { config, tls: None }
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Whether connections are encrypted; then the certificate is checked as well.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether every host that it names is this machine, so that nothing goes over a network.
    #[must_use]
    pub fn is_near(&self) -> bool {
        let near = |host: &Host| match host {
            Host::Tcp(name) => {
                let address = name.parse::<IpAddr>().map(|address| address.to_canonical());
                name.eq_ignore_ascii_case("localhost")
                    || address.is_ok_and(|address| address.is_loopback())
            }
            #[cfg(unix)]
            Host::Unix(_) => true,
        };
        let addresses = self.config.get_hostaddrs();
        self.config.get_hosts().iter().all(near) && addresses.iter().all(IpAddr::is_loopback)
    }

    /// A new connection, and the task that ends once it is closed.
    ///
    /// # Errors
    /// The database's or the network's.
    pub async fn dial(&self) -> std::result::Result<(Client, Task<()>), tokio_postgres::Error> {
        match self.tls.clone() {
            Some(tls) => open(&self.config, tls).await,
            None => open(&self.config, NoTls).await,
        }
    }
}

impl std::fmt::Display for Address {
    /// Host, port and database, as people know it.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(path)) => path.display().to_string(),
            None => "localhost".to_owned(),
        };
        let port = self.config.get_ports().first().copied().unwrap_or(5432);
        let database = self.config.get_dbname().or(self.config.get_user()).unwrap_or_default();
        write!(out, "postgres://{host}:{port}/{database}")
    }
}

/// Whether a text that should be a URL holds a password, well-formed or not.
#[must_use]
pub fn holds_password(url: &str) -> bool {
    // As the parser of URLs reads it: user and password are all before the first @.
    let login = url.split_once('@').map_or("", |(login, _)| login);
    let login = login.split_once("://").map_or(login, |(_, login)| login);
    let mut words = url.split(['?', '&', ' ', '\t', '\n']);
    login.contains(':')
        || words.any(|word| word.trim_start().starts_with("password"))
        || url.parse::<Config>().is_ok_and(|config| config.get_password().is_some())
}

async fn open<T>(
    config: &Config,
    tls: T,
) -> std::result::Result<(Client, Task<()>), tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket> + Send,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    // It ends with the client or the server; both are seen by the client's next call.
    let driver = task::spawn("database connection", async move {
        if let Err(cause) = connection.await {
            let state = cause.code().map_or("none", |state| state.code()).to_owned();
            tracing::debug!(state, "a connection to a database ended");
        }
    });
    Ok((client, driver))
}

/// What of a URL's parameters is ours to read: whether TLS is wanted, and whom it trusts.
#[derive(Debug, Default)]
struct Asked {
    tls: bool,
    ca_file: Option<PathBuf>,
}

impl Asked {
    fn split(key: &str, url: &str) -> Result<(String, Self)> {
        let Some((head, query)) = url.split_once('?') else {
            return Ok((url.to_owned(), Self::default()));
        };
        let mut asked = Self::default();
        let mut rest = Vec::new();
        for pair in query.split('&') {
            match pair.split_once('=') {
                Some(("sslmode", "disable")) => {}
                Some(("sslmode", "require" | "verify-ca" | "verify-full")) => asked.tls = true,
                Some(("sslmode", _)) => {
                    let words = format!(
                        "{key}: sslmode is disable, require, verify-ca or verify-full; the last three check the server's \
                         certificate"
                    );
                    return Err(Error::new(Code::ConfigInvalid, words));
                }
                Some(("sslrootcert", file)) => asked.ca_file = Some(file.into()),
                _ => rest.push(pair),
            }
        }
        let url =
            if rest.is_empty() { head.to_owned() } else { format!("{head}?{}", rest.join("&")) };
        Ok((url, asked))
    }
}

fn make_tls(key: &str, ca_file: Option<PathBuf>) -> Result<MakeRustlsConnect> {
    tls::install_provider();
    let section = key.rsplit_once('.').map_or(key, |(section, _)| section);
    let Some(file) = ca_file else {
        let made = MakeRustlsConnect::with_native_certs();
        let (tls, _) = made.map_err(|_| {
            Error::new(
                Code::ConfigInvalid,
                format!("this machine has no trusted authorities; name one in {section}.ca_file"),
            )
        })?;
        return Ok(tls);
    };
    let words =
        format!("{section}.ca_file {}: no certificate in PEM form is read there", file.display());
    let mut roots = rustls::RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(&file).coded(Code::ConfigInvalid, words.clone())?;
    for certificate in certificates {
        let certificate = certificate.coded(Code::ConfigInvalid, words.clone())?;
        roots.add(certificate).coded(Code::ConfigInvalid, words.clone())?;
    }
    if roots.is_empty() {
        return Err(Error::new(Code::ConfigInvalid, words));
    }
    let config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_asked_for_in_the_url_and_always_checks_the_certificate() {
        let split = |url| {
            Asked::split("source.url", url).map(|(url, asked)| (url, asked.tls, asked.ca_file))
        };
        assert_eq!(split("postgres://h/d").unwrap(), ("postgres://h/d".into(), false, None));
        let asked =
            split("postgres://h/d?sslmode=verify-full&options=x&sslrootcert=/ca.pem").unwrap();
        assert_eq!(asked, ("postgres://h/d?options=x".into(), true, Some("/ca.pem".into())));
        let refused = split("postgres://h/d?sslmode=prefer").unwrap_err();
        assert_eq!(refused.code, Code::ConfigInvalid);
    }

    #[test]
    fn a_password_is_found_wherever_a_url_may_have_one() {
        for with in [
            "postgres://u:p@h/d",
            "postgres://u:p@ss@h/d",
            "postgres://u:@h",
            "postgresql://u:p/w@h:5432/d?sslmode=require",
            "postgres://u@h/d?password=p",
            "postgres://u@h/d?sslmode=disable&pass%77ord=p",
            "host=h user=u password=p",
            "u:p@h",
        ] {
            assert!(holds_password(with), "{with}");
        }
        let without =
            ["", "postgres://u@h:5432/d", "postgres://h:5432/d?sslmode=verify-full", "host=h"];
        for without in without {
            assert!(!holds_password(without), "{without}");
        }
    }

    #[test]
    fn an_address_is_shown_without_its_password_and_knows_what_is_near() {
        let of = |url| Address::of(("store.url", url), None, "test").unwrap();
        let address = of("postgres://u@db.example:5433/d").with_password("canary");
        assert_eq!(address.to_string(), "postgres://db.example:5433/d");
        assert_eq!(address.config().get_password(), Some(&b"canary"[..]));
        assert!(!format!("{address:?} {address} {:?}", address.config()).contains("canary"));
        assert!(!address.is_near() && !address.is_encrypted());
        for near in ["postgres://u@LOCALHOST/d", "postgres://u@127.0.0.1/d", "postgres://u@%2Fx/d"]
        {
            assert!(of(near).is_near(), "{near}");
        }
        assert!(!of("postgres://u@localhost,10.0.0.1/d").is_near());
    }

    #[test]
    fn a_url_that_is_wrong_is_told_by_its_key_before_anything_is_opened() {
        for bad in ["postgres://h:port/d", "postgres://u@h/d?nonsense=1", "postgres://h/d"] {
            let refused = Address::of(("store.url", bad), None, "test").unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{bad}");
            assert!(refused.message.contains("store.url"), "{refused}");
        }
        let missing = Address::of(
            ("source.url", "postgres://u@h/d?sslmode=require"),
            Some("/nonexistent.pem".into()),
            "test",
        );
        let refused = missing.unwrap_err();
        assert!(refused.message.contains("source.ca_file"), "{refused}");
    }
}
