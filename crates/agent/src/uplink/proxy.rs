//! Proxy: the way out of a network that lets nothing out but through an HTTP proxy (CONNECT), for REST and gRPC alike.
//!
//! Promises: user and password go to the proxy alone, never into words or a log; the proxy's own address may be private.
//! Never: takes a proxy from the environment; resolves a name that the proxy is to resolve.

use std::io;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Uri};
use hyper_util::{client::legacy::connect::proxy::Tunnel, rt::TokioIo};
use protocol::{Code, Coded as _, Error, Result};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tower::Service;

use crate::config::secret;

/// A proxy as the configuration names it.
#[derive(Clone, Debug)]
pub struct Proxy {
    host: String,
    port: u16,
    login: Option<(String, SecretString)>,
}

impl Proxy {
    /// Reads `http://user:password@host:port`; user and password are percent-encoded, as in any address.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, without a part of the text.
    pub fn read(text: &str) -> Result<Self> {
        let wrong = |words: &str| Error::new(Code::ConfigInvalid, words).at("cloud.proxy");
        if !secret::is_plain_address(text) {
            let words = "user and password must not hold @ / ? or #: write %40 %2F %3F %23, or {sealed:NAME} for the password";
            return Err(wrong(words));
        }
        let form = || wrong("must be http://host:port or http://user:password@host:port");
        let url = Url::parse(text.trim()).map_err(|_| form())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(form)?;
        let beyond = !matches!(url.path(), "" | "/") || url.query().is_some();
        if url.scheme() != "http" || beyond {
            return Err(form());
        }
        let decoded = |part: &str| secret::percent_decoded(part).ok_or_else(form);
        let login = if url.username().is_empty() {
            None
        } else {
            let password = decoded(url.password().unwrap_or_default())?;
            Some((decoded(url.username())?, password.into()))
        };
        Ok(Self { host: host.to_owned(), port: url.port().unwrap_or(3128), login })
    }

    /// `host:port`, for people.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether a name is the proxy's own, which may lead to a private address.
    pub(super) fn is_named(&self, host: &str) -> bool {
        host.eq_ignore_ascii_case(&self.host)
    }

    /// For REST.
    pub(super) fn of_rest(&self) -> Result<reqwest::Proxy> {
        let proxy = reqwest::Proxy::all(format!("http://{}", self.place()))
            .coded(Code::ConfigInvalid, "cloud.proxy is no address")?;
        Ok(match &self.login {
            Some((user, password)) => proxy.basic_auth(user, password.expose_secret()),
            None => proxy,
        })
    }

    /// For gRPC: connects to whatever it is asked for, through the proxy.
    pub(super) fn tunnel(
        &self,
    ) -> Result<
        impl Service<
            Uri,
            Response = TokioIo<TcpStream>,
            Error = impl std::error::Error + Send + Sync + 'static,
            Future: Send,
        > + Clone
        + Send
        + 'static,
    > {
        let place: Uri = format!("http://{}", self.place())
            .parse()
            .coded(Code::ConfigInvalid, "cloud.proxy is no address")?;
        let (host, port) = (self.host.clone(), self.port);
        let connector = tower::service_fn(move |_: Uri| {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            async move {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let tunnel = Tunnel::new(place, connector);
        Ok(match self.authorization()? {
            Some(header) => tunnel.with_auth(header),
            None => tunnel,
        })
    }

    fn authorization(&self) -> Result<Option<HeaderValue>> {
        let Some((user, password)) = &self.login else { return Ok(None) };
        let text = STANDARD.encode(format!("{user}:{}", password.expose_secret()));
        let header = HeaderValue::try_from(format!("Basic {text}"));
        let mut header = header.coded(Code::Internal, "the proxy's login is no header")?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// What the proxy itself refused, found among the causes by the libraries' words; they have no kinds for it.
pub(super) fn refused(error: &(dyn std::error::Error + 'static)) -> Option<&'static str> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let words = cause.to_string();
        if words.contains("proxy auth") {
            return Some("the proxy (cloud.proxy) refuses user or password, or asks for them");
        }
        if words.contains("tunnel") && words.contains("unsuccessful") {
            return Some(
                "the proxy (cloud.proxy) refuses the login, or does not let this address through",
            );
        }
        next = cause.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_or_without_login_is_read_and_a_wrong_one_is_refused_without_its_text() {
        let plain = Proxy::read("http://proxy.example:8080").unwrap();
        assert_eq!((plain.place().as_str(), plain.login.is_none()), ("proxy.example:8080", true));
        let known = Proxy::read("http://ana:p%40ss%3A@10.0.0.1").unwrap();
        assert_eq!(known.place(), "10.0.0.1:3128");
        assert_eq!(known.login.as_ref().unwrap().1.expose_secret(), "p@ss:");
        assert!(!format!("{known:?}").contains("p@ss"), "{known:?}");
        let header = known.authorization().unwrap().unwrap();
        assert!(header.is_sensitive());
        assert_eq!(header, format!("Basic {}", STANDARD.encode("ana:p@ss:")));
        for text in [
            "",
            "proxy:3128",
            "https://proxy:3128",
            "socks5://proxy:1",
            "http://proxy:3128/canary",
            "http://ana:canary@x@proxy",
            "http://",
        ] {
            let refused = Proxy::read(text).unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{text}");
            assert!(!refused.message.contains("canary"), "{refused}");
        }
    }
}
