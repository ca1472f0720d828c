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
use runtime::{telemetry::LogFormat, tls::TlsFiles};
use serde::{Deserialize, Serialize};

use crate::{
    model::{alert::Pace, delivery::Schedule, retention::Policy},
    service::{
        alerts::Settings,
        webhooks::{Calling, Reach},
    },
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
    pub log: LogConfig,
    /// Certificate and key of both listeners, where no front ends TLS; empty = they speak without.
    pub tls: TlsFiles,
    /// How long what the ledger holds is kept, in days after the end of a batch; 0 = for ever.
    pub retention: Policy,
    pub webhooks: WebhookConfig,
    pub alerts: AlertConfig,
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

    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.data.join("store.sqlite")
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
