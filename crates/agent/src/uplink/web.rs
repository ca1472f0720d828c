//! The agent's way out: one HTTP client and one gRPC connector that connect only where they may (`correctness.md` k 6).
//!
//! Promises: only hosts of the local list; https and public addresses unless private ones are allowed; the address
//! that was checked is the one connected to; no redirects; answers are bounded.
//! Never: uses a proxy of the environment, logs a body.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use http::Uri;
use hyper_util::rt::TokioIo;
use protocol::{Code, Coded as _, Error, Result, limits};
use reqwest::{RequestBuilder, StatusCode, Url, dns};
use runtime::{address::is_public, clock::Wall, dial, world};
use tokio::net::TcpStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{
    hosts::Hosts,
    line::{self, Line},
    proxy::{self, Proxy},
};

const CONNECT: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);
/// Flow control: what the sender keeps in flight.
const WINDOW: u32 = 16 * 1024 * 1024;

/// An answer, and what beside it tells of the other side.
pub(super) struct Seen {
    pub status: StatusCode,
    pub body: Vec<u8>,
    /// The other side's clock, to the second.
    pub date: Option<Wall>,
    /// Its certificate (DER), where TLS was spoken.
    pub certificate: Option<Vec<u8>>,
}

/// Who may be called.
#[derive(Clone, Debug)]
pub(super) struct Web {
    client: reqwest::Client,
    hosts: Arc<Hosts>,
    allow_private: bool,
    ca_pem: Option<Arc<[u8]>>,
    proxy: Option<Proxy>,
}

fn client(
    allow_private: bool,
    ca_pem: Option<&[u8]>,
    proxy: Option<&Proxy>,
) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .timeout(limits::CALL_TIMEOUT)
        .tls_info(true)
        .dns_resolver(Arc::new(Resolver { allow_private, proxy: proxy.cloned() }));
    if let Some(proxy) = proxy {
        builder = builder.proxy(proxy.of_rest()?);
    }
    if let Some(pem) = ca_pem {
        let certificate = reqwest::Certificate::from_pem(pem)
            .coded(Code::ConfigInvalid, "the CA certificate is not PEM")?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().coded(Code::Internal, "the HTTP client cannot be made")
}

impl Web {
    /// With a proxy between, names are resolved by it, so where they lead is its to judge; hosts, schemes and addresses
    /// written as numbers are checked all the same.
    pub(super) fn new(
        hosts: Hosts,
        allow_private: bool,
        ca_pem: Option<&[u8]>,
        proxy: Option<Proxy>,
    ) -> Result<Self> {
        runtime::tls::install_provider();
        let client = client(allow_private, ca_pem, proxy.as_ref())?;
        let (hosts, ca_pem) = (Arc::new(hosts), ca_pem.map(Into::into));
        Ok(Self { client, hosts, allow_private, ca_pem, proxy })
    }

    /// A GET to a checked address.
    pub(super) fn get(&self, address: &str) -> Result<RequestBuilder> {
        Ok(self.client.get(self.checked(address)?))
    }

    /// A POST to a checked address.
    pub(super) fn post(&self, address: &str) -> Result<RequestBuilder> {
        Ok(self.client.post(self.checked(address)?))
    }

    /// Sends and reads the whole answer, at most `limit` bytes.
    pub(super) async fn send(
        request: RequestBuilder,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>)> {
        Self::look(request, limit).await.map(|seen| (seen.status, seen.body))
    }

    /// As [`Self::send`], with what beside the answer tells of the other side.
    pub(super) async fn look(request: RequestBuilder, limit: usize) -> Result<Seen> {
        let (client, request) = request.build_split();
        let request = request.coded(Code::Internal, "the call cannot be made")?;
        // Not the whole URL: it may hold what a person typed.
        let place = request.url().origin().ascii_serialization();
        if world::is_on() {
            let (status, body) = line::fetch(request).await.map_err(|error| error.at(&place))?;
            let body = body.to_vec();
            return Ok(Seen { status, body, date: None, certificate: None });
        }
        let lost = |cause| unreachable(cause, &place);
        let mut answer = client.execute(request).await.map_err(lost)?;
        let status = answer.status();
        let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| {
            let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?;
            Some(Wall(at.as_microsecond()))
        });
        let tls = answer.extensions().get::<reqwest::tls::TlsInfo>();
        let certificate = tls.and_then(|tls| tls.peer_certificate()).map(<[u8]>::to_vec);
        let mut body = Vec::new();
        while let Some(part) = answer.chunk().await.map_err(lost)? {
            if body.len() + part.len() > limit {
                return Err(Error::new(
                    Code::BodyTooLarge,
                    format!("the answer has more than {limit} bytes"),
                ));
            }
            body.extend_from_slice(&part);
        }
        Ok(Seen { status, body, date, certificate })
    }

    fn checked(&self, address: &str) -> Result<Url> {
        let url = Url::parse(address)
            .coded(Code::RegistryInvalid, "an address is not a URL")
            .map_err(|error| error.at(address))?;
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        self.check(url.scheme(), host, port).map_err(|error| error.at(address))?;
        Ok(url)
    }

    /// Scheme, allow-list, and addresses written as numbers; names are checked when they are resolved.
    fn check(&self, scheme: &str, host: &str, port: u16) -> Result<()> {
        if scheme != "https" && !(scheme == "http" && self.allow_private) {
            return Err(Error::new(Code::AddressRefused, "only https may be used"));
        }
        self.hosts.check(host, port, self.allow_private)?;
        let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match literal {
            Ok(ip) if !self.allow_private && !is_public(ip) => {
                Err(Error::new(Code::AddressRefused, "the address is not public"))
            }
            _ => Ok(()),
        }
    }

    /// A line to a gRPC target `https://host[:port]`.
    pub(super) fn line(&self, target: &str) -> Result<Line> {
        if world::is_on() {
            return self.checked_target(target).map(Line::World);
        }
        self.channel(target).map(Line::Dialled)
    }

    fn checked_target(&self, target: &str) -> Result<Uri> {
        let uri: Uri = target
            .parse()
            .coded(Code::RegistryInvalid, "the gRPC target is not a URL")
            .map_err(|error| error.at(target))?;
        let scheme = uri.scheme_str().unwrap_or_default();
        self.check(scheme, uri.host().unwrap_or_default(), port_of(&uri))
            .map_err(|error| error.at(target))?;
        Ok(uri)
    }

    /// A channel to a gRPC target; connects when it is first used, and again when it broke.
    fn channel(&self, target: &str) -> Result<Channel> {
        let uri = self.checked_target(target)?;
        let scheme = uri.scheme_str().unwrap_or_default().to_owned();
        let mut endpoint = Endpoint::from(uri)
            .connect_timeout(CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE_ANSWER)
            .keep_alive_while_idle(true)
            .initial_connection_window_size(WINDOW)
            .http2_max_header_list_size(limits::HEADER_LIST_BYTES);
        if scheme == "https" {
            let mut tls = ClientTlsConfig::new().with_enabled_roots();
            if let Some(pem) = &self.ca_pem {
                tls = tls.ca_certificate(Certificate::from_pem(pem));
            }
            endpoint = endpoint.tls_config(tls).coded(Code::Internal, "TLS cannot be set up")?;
        }
        if let Some(proxy) = &self.proxy {
            return Ok(endpoint.connect_with_connector_lazy(proxy.tunnel()?));
        }
        let allow_private = self.allow_private;
        let connector = tower::service_fn(move |uri: Uri| async move {
            let host = uri.host().unwrap_or_default();
            let addresses = resolve(host, port_of(&uri), allow_private).await?;
            let stream = TcpStream::connect(addresses.as_slice()).await?;
            stream.set_nodelay(true)?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 })
}

/// Why no answer came from that place.
fn unreachable(cause: reqwest::Error, place: &str) -> Error {
    if let Some(refused) = refused_by(&cause) {
        return refused.at(place);
    }
    let words = match dial::why(&cause).or_else(|| proxy::refused(&cause)) {
        _ if cause.is_timeout() => "no answer came in time",
        Some(words) => words,
        None if cause.is_request() && !cause.is_connect() => {
            "what listens there does not answer in HTTP; is it the port of gRPC, or one of https?"
        }
        None => "the server does not answer",
    };
    Error::new(Code::CloudUnreachable, words).at(place).because(cause.without_url())
}

/// The refusal of the resolver, found among the causes.
fn refused_by(error: &(dyn std::error::Error + 'static)) -> Option<Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.to_string() == NOT_PUBLIC {
            return Some(Error::new(Code::AddressRefused, NOT_PUBLIC));
        }
        next = cause.source();
    }
    None
}

const NOT_PUBLIC: &str = "the name leads to an address that is not public";

pub(super) async fn resolve(
    host: &str,
    port: u16,
    allow_private: bool,
) -> io::Result<Vec<SocketAddr>> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    // One private answer spoils the name: who mixes them is up to something.
    if !allow_private && !found.iter().all(|address| is_public(address.ip())) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, NOT_PUBLIC));
    }
    Ok(found)
}

#[derive(Debug)]
struct Resolver {
    allow_private: bool,
    proxy: Option<Proxy>,
}

impl dns::Resolve for Resolver {
    fn resolve(&self, name: dns::Name) -> dns::Resolving {
        let named = self.proxy.as_ref().is_some_and(|proxy| proxy.is_named(name.as_str()));
        let allow_private = self.allow_private || named;
        let found: BoxFuture<'static, _> = Box::pin(async move {
            let addresses = resolve(name.as_str(), 0, allow_private).await?;
            Ok(Box::new(addresses.into_iter()) as dns::Addrs)
        });
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_unreachable_server_is_told_with_its_address_and_with_what_stands_in_the_way() {
        let private = ["127.0.0.1", "no-such-host.invalid"].map(str::to_owned);
        let web =
            Web::new(Hosts::new("http://127.0.0.1", &private).unwrap(), true, None, None).unwrap();
        let error =
            async |address: &str| Web::send(web.get(address).unwrap(), 10).await.unwrap_err();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = format!("http://{}", listener.local_addr().unwrap());
        let answers = async {
            // What a gRPC port begins with: an empty SETTINGS frame of HTTP/2.
            use tokio::io::AsyncWriteExt as _;
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            stream.shutdown().await.unwrap();
            stream
        };
        let address = format!("{place}/x?secret");
        let (wrong_port, _stream) = tokio::join!(error(&address), answers);
        drop(listener);
        let silent = error(&address).await;
        let nowhere = error("http://no-such-host.invalid/x").await;
        for (error, words) in [
            (wrong_port, format!("{place}: what listens there does not answer in HTTP")),
            (silent, format!("{place}: nothing listens there")),
            (nowhere, "http://no-such-host.invalid: the name leads to no address".to_owned()),
        ] {
            assert_eq!(error.code, Code::CloudUnreachable);
            assert!(error.message.starts_with(&words), "{error}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }

    #[tokio::test]
    async fn plain_http_private_numbers_and_names_that_lead_there_are_refused() {
        let listed =
            ["127.0.0.1", "10.0.0.1:7481", "localhost:1", "[::1]:7480", "x"].map(str::to_owned);
        let hosts = Hosts::new("https://example.com", &listed).unwrap();
        let web = Web::new(hosts.clone(), false, None, None).unwrap();
        assert!(web.get("https://example.com/").is_ok() && web.channel("https://x").is_ok());
        assert_eq!(web.get("https://other.example/").unwrap_err().code, Code::AddressRefused);
        assert_eq!(web.channel("https://other.example").unwrap_err().code, Code::AddressRefused);
        for address in
            ["http://example.com/", "https://127.0.0.1/x", "https://[::1]:7480/", "ftp://x/"]
        {
            assert_eq!(web.get(address).unwrap_err().code, Code::AddressRefused, "{address}");
        }
        for target in ["http://example.com", "https://10.0.0.1:7481"] {
            assert_eq!(web.channel(target).unwrap_err().code, Code::AddressRefused, "{target}");
        }
        let request = web.get("https://localhost:1/").unwrap();
        assert_eq!(Web::send(request, 10).await.unwrap_err().code, Code::AddressRefused);
        assert_eq!(web.get("no url").unwrap_err().code, Code::RegistryInvalid);
        assert!(Web::new(hosts, true, None, None).unwrap().get("http://127.0.0.1:1/").is_ok());
    }
}
