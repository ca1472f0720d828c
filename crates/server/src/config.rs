//! Configuration of `malote server`: one file, each key also as `MALOTE_SERVER_…` in the environment.
//!
//! Promises: unknown keys are refused; an address that senders will dial is https and public, or `allow_private` says
//! that it need not be.
//! Never: holds a secret (the master key is a file of its own in the data folder).

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    postgres::{Address, holds_password},
    telemetry::LogFormat,
    tls::TlsFiles,
};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    model::{alert::Pace, delivery::Schedule, retention::Policy},
    service::{
        alerts::Settings,
        webhooks::{Calling, Reach},
    },
    store::Site,
};

/// Prefix of the environment's variables.
const PREFIX: &str = "MALOTE_SERVER";

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerConfig {
    /// Folder of the store, the staging files and the key file.
    pub data: PathBuf,
    /// Where HTTP listens: registry, token, entities, health, metrics.
    pub http_listen: SocketAddr,
    /// Where gRPC listens: table messages, sessions, reconcile.
    pub grpc_listen: SocketAddr,
    /// The HTTP address that senders dial, as the certificate or a proxy with TLS names it: `https://malote.example`.
    /// Empty: the listening address (needs `allow_private` where it is private or has no TLS). Also the issuer of tokens.
    pub public_http: String,
    /// The gRPC address that senders dial: `https://ingest.malote.example`. Empty: as above.
    pub public_grpc: String,
    /// Allows plain http and private addresses in the two above.
    pub allow_private: bool,
    /// Addresses of proxies before HTTP and gRPC: they bring many senders, so connections per address are not bounded for
    /// them.
    pub trusted_proxies: Vec<IpAddr>,
    pub store: StoreConfig,
    pub log: LogConfig,
    /// Certificate and key of both listeners, where no front ends TLS; empty = they speak without.
    pub tls: TlsFiles,
    /// How long what the ledger holds is kept, in days after the end of a batch; 0 = for ever.
    pub retention: Policy,
    pub webhooks: WebhookConfig,
    pub alerts: AlertConfig,
}

/// Where ledger, catalog and queues are kept.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// PostgreSQL: `postgres://user@host:port/database`, with `sslmode` and `sslrootcert`; without a password. Empty: a
    /// SQLite file in the data folder.
    #[serde(deserialize_with = "url")]
    pub url: String,
    /// File that holds the user's password alone.
    pub password_file: Option<PathBuf>,
    /// PEM file of the authority whose certificate the database has; else whom this machine trusts.
    pub ca_file: Option<PathBuf>,
}

const WITH_PASSWORD: &str =
    "it holds a password: put that into a file of its own and name the file in store.password_file";

fn check_url(url: &str) -> std::result::Result<(), &'static str> {
    if holds_password(url) {
        return Err(WITH_PASSWORD);
    }
    match url.split_once("://") {
        Some(("postgres" | "postgresql", _)) => Ok(()),
        _ if url.is_empty() => Ok(()),
        _ => Err("it is not a PostgreSQL URL: postgres://user@host:port/database"),
    }
}

/// Whatever is read is shown again (`malote server config`), so that a password is refused before it is kept.
fn url<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<String, D::Error> {
    let url = String::deserialize(from)?;
    check_url(&url).map_err(D::Error::custom)?;
    Ok(url)
}

/// When and how people are told that something is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AlertConfig {
    /// Seconds between two looks.
    pub look_seconds: u32,
    /// Minutes for which what was wrong must be gone before its alert is resolved; doubled each time it comes back.
    pub hold_minutes: u32,
    /// Hours after which an open alert that nobody acknowledged is told again.
    pub again_hours: u32,
    /// MiB that must be free on the disk of the data folder; 0: nobody is told of it.
    pub disk_free_mb: u32,
    /// PEM file of a further authority whose certificate the mail server may have.
    pub mail_ca_file: Option<PathBuf>,
}

impl Default for AlertConfig {
    fn default() -> Self {
        Self {
            look_seconds: 30,
            hold_minutes: 10,
            again_hours: 6,
            disk_free_mb: 1_024,
            mail_ca_file: None,
        }
    }
}

/// How consumers are told of batches.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WebhookConfig {
    /// Tries until a delivery is dead.
    pub attempts: u32,
    /// Longest pause before the second try; it doubles with each further one, up to an hour.
    pub first_retry_seconds: u32,
    /// Hosts, by name or address, that may be called by plain http and at private addresses; `allow_private` allows all.
    pub private_hosts: Vec<String>,
    /// PEM file of a further authority whose certificates consumers may have.
    pub ca_file: Option<PathBuf>,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        let Schedule { attempts, first_retry_seconds } = Schedule::default();
        Self { attempts, first_retry_seconds, private_hosts: Vec::new(), ca_file: None }
    }
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, or a filter such as `info,server=debug`.
    pub level: String,
    /// `auto` (text on a terminal, else JSON), `text` or `json`.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Auto }
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("malote-data"),
            http_listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 7481)),
            public_http: String::new(),
            public_grpc: String::new(),
            allow_private: false,
            trusted_proxies: Vec::new(),
            store: StoreConfig::default(),
            log: LogConfig::default(),
            tls: TlsFiles::default(),
            retention: Policy::default(),
            webhooks: WebhookConfig::default(),
            alerts: AlertConfig::default(),
        }
    }
}

impl ServerConfig {
    /// Reads defaults < file < environment.
    ///
    /// # Errors
    /// `CONFIG_INVALID` with the key that is wrong.
    pub fn load(file: Option<&Path>) -> Result<Self> {
        runtime::config::load(file, PREFIX)
    }

    /// What is in force, as TOML. There is nothing to redact: the file has no secret.
    #[must_use]
    pub fn dump(&self) -> String {
        toml::to_string(self).unwrap_or_default()
    }

    /// The file of a store that is no database of its own.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        self.data.join("store.sqlite")
    }

    /// Where the store is.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn site(&self) -> Result<Site> {
        let StoreConfig { url, password_file, ca_file } = &self.store;
        let invalid = |key: &str, words: &str| Error::new(Code::ConfigInvalid, words).at(key);
        if url.is_empty() {
            // What was meant for a database would otherwise be kept in a file, in silence.
            for (key, file) in [("store.password_file", password_file), ("store.ca_file", ca_file)]
            {
                if file.is_some() {
                    return Err(invalid(key, "it is for a database, and store.url names none"));
                }
            }
            return Ok(Site::File(self.store_file()));
        }
        check_url(url).map_err(|words| invalid("store.url", words))?;
        let address = Address::of(("store.url", url), ca_file.clone(), "malote server")?;
        if address.config().get_password().is_some() {
            return Err(invalid("store.url", WITH_PASSWORD));
        }
        if ca_file.is_some() && !address.is_encrypted() {
            let words = "store.url asks for no TLS, so nobody's certificate is looked at; add ?sslmode=verify-full to it";
            return Err(invalid("store.ca_file", words));
        }
        let Some(file) = password_file else { return Ok(Site::Postgres(Box::new(address))) };
        let words = || format!("store.password_file {}: it cannot be read", file.display());
        let password = std::fs::read_to_string(file).coded(Code::ConfigInvalid, words())?;
        let password = password.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            let key = format!("store.password_file {}", file.display());
            return Err(invalid(&key, "it is empty"));
        }
        Ok(Site::Postgres(Box::new(address.with_password(password))))
    }

    /// How webhooks are called; `source` is this server's address.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn calling(&self, source: &str) -> Result<Calling> {
        let WebhookConfig { attempts, first_retry_seconds, private_hosts, ca_file } =
            &self.webhooks;
        let schedule = Schedule { attempts: *attempts, first_retry_seconds: *first_retry_seconds };
        schedule.check()?;
        let reach =
            Reach { allow_private: self.allow_private, private_hosts: private_hosts.clone() };
        let ca_pem = authority("webhooks.ca_file", ca_file.as_deref())?;
        Ok(Calling { source: source.to_owned(), schedule, reach, ca_pem })
    }

    /// How alerts are made and told; `source` is this server's address.
    ///
    /// # Errors
    /// `CONFIG_INVALID`.
    pub fn alerting(&self, source: &str) -> Result<Settings> {
        let AlertConfig { look_seconds, hold_minutes, again_hours, disk_free_mb, mail_ca_file } =
            &self.alerts;
        for (key, value) in [
            ("alerts.look_seconds", look_seconds),
            ("alerts.hold_minutes", hold_minutes),
            ("alerts.again_hours", again_hours),
        ] {
            if *value == 0 {
                return Err(Error::new(Code::ConfigInvalid, "must be 1 or more").at(key));
            }
        }
        let minutes = |count: u64| Duration::from_secs(count * 60);
        let pace = Pace {
            hold: minutes(u64::from(*hold_minutes)),
            again: minutes(u64::from(*again_hours) * 60),
        };
        Ok(Settings {
            source: source.to_owned(),
            pace,
            disk_free_mb: *disk_free_mb,
            period: Duration::from_secs(u64::from(*look_seconds)),
            ca_pem: authority("alerts.mail_ca_file", mail_ca_file.as_deref())?,
        })
    }

    /// The addresses to publish, without a slash at the end, given those that were bound.
    ///
    /// # Errors
    /// `ADDRESS_REFUSED`, `CONFIG_INVALID`.
    pub fn addresses(&self, http: SocketAddr, grpc: SocketAddr) -> Result<Addresses> {
        let scheme = if self.tls.are_named()? { "https" } else { "http" };
        if self.http_listen == self.grpc_listen && self.http_listen.port() != 0 {
            let words = "it is http_listen too; each needs a port of its own";
            return Err(Error::new(Code::ConfigInvalid, words).at("grpc_listen"));
        }
        let of = |key: &str, given: &str, bound: SocketAddr| {
            let address = if given.is_empty() {
                if bound.ip().is_unspecified() {
                    let words = "the server listens on every address, so this must name the one that agents call";
                    return Err(Error::new(Code::ConfigInvalid, words).at(key));
                }
                format!("{scheme}://{bound}")
            } else {
                given.trim_end_matches('/').to_owned()
            };
            check(&address, self.allow_private).map_err(|error| error.at(key))?;
            Ok(address)
        };
        Ok(Addresses {
            http: of("public_http", &self.public_http, http)?,
            grpc: of("public_grpc", &self.public_grpc, grpc)?,
        })
    }
}

/// The bytes of a file with an authority's certificate.
fn authority(key: &str, path: Option<&Path>) -> Result<Option<Vec<u8>>> {
    let Some(path) = path else { return Ok(None) };
    let read = std::fs::read(path).coded(Code::ConfigInvalid, "cannot be read");
    let read = read.and_then(runtime::tls::with_certificate);
    read.map(Some).map_err(|error| error.at(format!("{key} {}", path.display())))
}

/// What senders dial.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Addresses {
    pub http: String,
    pub grpc: String,
}

impl Addresses {
    /// Issuer of tokens (`contracts.md` 3.2).
    #[must_use]
    pub fn issuer(&self) -> String {
        format!("{}/totvs.rac", self.http)
    }
}

fn check(address: &str, allow_private: bool) -> Result<()> {
    check_address(address, allow_private)?;
    let invalid = |why: &str| Error::new(Code::ConfigInvalid, format!("{address}: {why}"));
    let uri: http::Uri = address.parse().map_err(|_| invalid("not an address"))?;
    if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
        return Err(invalid("must have no path"));
    }
    Ok(())
}

/// An address that this process or a sender will call, with or without a path.
///
/// # Errors
/// `CONFIG_INVALID` where it is none, `ADDRESS_REFUSED` for plain http and private addresses unless they are allowed.
pub(crate) fn check_address(address: &str, allow_private: bool) -> Result<()> {
    let invalid = |why: &str| Error::new(Code::ConfigInvalid, format!("{address}: {why}"));
    let refused = |why: &str| Error::new(Code::AddressRefused, format!("{address}: {why}"));
    let uri: http::Uri = address.parse().map_err(|_| invalid("not an address"))?;
    let host = uri.host().ok_or_else(|| invalid("must begin with https:// and name a host"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_private => {}
        Some("http") => return Err(refused("plain http needs allow_private = true")),
        _ => return Err(invalid("must begin with https://")),
    }
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let private = host.eq_ignore_ascii_case("localhost") || literal.is_ok_and(is_private);
    if private && !allow_private {
        return Err(refused("a private address needs allow_private = true"));
    }
    Ok(())
}

fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_unspecified()
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(public: &str, allow_private: bool) -> ServerConfig {
        ServerConfig {
            public_http: public.into(),
            public_grpc: public.into(),
            allow_private,
            ..ServerConfig::default()
        }
    }

    #[test]
    fn what_is_dumped_reads_back_alike() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        let config = ServerConfig { allow_private: true, ..ServerConfig::default() };
        std::fs::write(&path, config.dump()).unwrap();
        assert_eq!(
            runtime::config::load_from::<ServerConfig>(Some(&path), "NONE", Default::default())
                .unwrap(),
            config
        );
        std::fs::write(&path, "htp_listen = '127.0.0.1:1'").unwrap();
        let error =
            runtime::config::load_from::<ServerConfig>(Some(&path), "NONE", Default::default())
                .unwrap_err();
        assert!(error.message.contains("htp_listen"), "{error}");
    }

    /// A configuration of that text and those variables.
    fn read(text: &str, variables: &[(&str, &str)]) -> Result<ServerConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("server.toml");
        std::fs::write(&path, text).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        runtime::config::load_from(Some(&path), PREFIX, variables.collect())
    }

    #[test]
    fn a_store_is_a_file_unless_a_url_names_a_database() {
        let file = ServerConfig::default();
        assert!(matches!(file.site(), Ok(Site::File(path)) if path.ends_with("store.sqlite")));
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("password");
        std::fs::write(&password, "canary pass\r\n").unwrap();
        let named = [
            ("MALOTE_SERVER_STORE__URL", "postgres://malote@db.example/malote"),
            ("MALOTE_SERVER_STORE__PASSWORD_FILE", password.to_str().unwrap()),
        ];
        let config = read("", &named).unwrap();
        let Site::Postgres(address) = config.site().unwrap() else { panic!("no database") };
        assert_eq!(address.config().get_password(), Some(&b"canary pass"[..]));
        let site = config.site().unwrap();
        assert_eq!(site.to_string(), "postgres://db.example:5432/malote");
        assert!(!format!("{site} {site:?} {config:?} {}", config.dump()).contains("canary"));
        assert_eq!(read(&config.dump(), &[]).unwrap(), config, "the dump reads back alike");
    }

    #[test]
    fn a_url_with_a_password_is_refused_by_its_key_and_never_shown() {
        for url in [
            "postgres://malote:canary@db.example/malote",
            "postgres://malote:canary@db.example:port/malote",
            "postgresql://malote@db.example/malote?password=canary",
            "host=db.example user=malote password=canary",
        ] {
            let by_file = read(&format!("[store]\nurl = '{url}'"), &[]).unwrap_err();
            let by_variable = read("", &[("MALOTE_SERVER_STORE__URL", url)]).unwrap_err();
            let store = StoreConfig { url: url.into(), ..StoreConfig::default() };
            let made = ServerConfig { store, ..ServerConfig::default() }.site().unwrap_err();
            for error in [&by_file, &by_variable, &made] {
                assert_eq!(error.code, Code::ConfigInvalid, "{url}");
                assert!(error.message.contains("store.url"), "{error}");
                assert!(error.message.contains("store.password_file"), "{error}");
                assert!(!format!("{error:?}").contains("canary"), "{error:?}");
            }
            assert!(by_file.message.contains("server.toml"), "{by_file}");
            assert!(by_variable.message.contains("MALOTE_SERVER_STORE__URL"), "{by_variable}");
        }
    }

    #[test]
    fn keys_of_the_store_that_would_count_for_nothing_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let empty = folder.path().join("empty");
        std::fs::write(&empty, "\n").unwrap();
        let [empty, none] =
            [empty, folder.path().join("none")].map(|path| path.display().to_string());
        let url = "url = 'postgres://malote@db.example/malote'";
        let pem = include_str!("../../sim/tests/it/tls/ca.pem");
        let authority = folder.path().join("ca.pem");
        std::fs::write(&authority, pem).unwrap();
        let authority = authority.display();
        for (keys, key) in [
            ("password_file = 'x'".to_owned(), "store.password_file"),
            ("ca_file = 'x'".to_owned(), "store.ca_file"),
            (format!("{url}\npassword_file = '{none}'"), "store.password_file"),
            (format!("{url}\npassword_file = '{empty}'"), "store.password_file"),
            (format!("{url}\nca_file = '{authority}'"), "store.ca_file"),
            ("url = 'postgres://db.example/malote'".to_owned(), "store.url"),
            ("url = 'postgres://malote@db.example/malote?sslmode=prefer'".to_owned(), "store.url"),
        ] {
            let refused = read(&format!("[store]\n{keys}"), &[]).unwrap().site().unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{keys}");
            assert!(refused.message.contains(key), "{refused}");
        }
        let other = read("[store]\nurl = 'mysql://malote@db.example/malote'", &[]).unwrap_err();
        assert!(other.message.contains("store.url"), "{other}");
        let asked = format!(
            "[store]\nurl = 'postgres://malote@db.example/malote?sslmode=verify-full'\nca_file = '{authority}'"
        );
        let Site::Postgres(address) = read(&asked, &[]).unwrap().site().unwrap() else {
            panic!("no database")
        };
        assert!(address.is_encrypted());
    }

    #[test]
    fn an_address_that_nobody_can_call_is_not_published_and_no_port_serves_two() {
        let all = SocketAddr::from(([0, 0, 0, 0], 7480));
        let refused = config("", true).addresses(all, all).unwrap_err().to_string();
        assert!(refused.contains("public_http"), "{refused}");
        assert!(config("https://malote.example", false).addresses(all, all).is_ok());
        let same = ServerConfig { grpc_listen: all, http_listen: all, ..config("", true) };
        let refused = same.addresses(all, all).unwrap_err().to_string();
        assert!(refused.contains("grpc_listen"), "{refused}");
    }

    #[test]
    fn plain_and_private_addresses_need_to_be_allowed() {
        let bound = SocketAddr::from(([127, 0, 0, 1], 7480));
        for address in [
            "",
            "http://malote.example",
            "https://10.0.0.1",
            "https://[::1]:7480",
            "https://localhost",
            "https://[::ffff:127.0.0.1]",
        ] {
            assert_eq!(
                config(address, false).addresses(bound, bound).unwrap_err().code,
                Code::AddressRefused,
                "{address}"
            );
            assert!(config(address, true).addresses(bound, bound).is_ok(), "{address}");
        }
        for address in [
            "malote.example",
            "ftp://malote.example",
            "https://malote.example/path",
            "https://",
            "https://a b",
        ] {
            assert_eq!(
                config(address, true).addresses(bound, bound).unwrap_err().code,
                Code::ConfigInvalid,
                "{address}"
            );
        }
        let addresses = config("https://malote.example/", false).addresses(bound, bound).unwrap();
        assert_eq!(addresses.issuer(), "https://malote.example/totvs.rac");
    }
}
