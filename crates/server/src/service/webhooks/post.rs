//! Post: the server's way out to consumers (`correctness.md` k 6).
//!
//! Promises: https and public addresses, unless private ones are allowed for all or for that host; the address that was
//! checked is the one connected to; no redirect is followed; a call and its answer are bounded.
//! Never: uses a proxy of the environment; keeps or logs what a consumer answered beyond its status.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use protocol::{Code, Coded as _, Error, Result, limits};
use reqwest::{Response, Url, dns, header};
use runtime::{address::is_public, dial};

use super::{Calling, sign};
use crate::model::{
    delivery::Outcome,
    webhook::{Claim, Target},
};

/// The form of the body.
const CLOUD_EVENT: &str = "application/cloudevents+json; charset=utf-8";
const NOT_PUBLIC: &str = "the name leads to an address that is not public";

/// Which addresses may be called.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// Plain http and private addresses are allowed for every host.
    pub allow_private: bool,
    /// Hosts, by name or address, for which they are allowed.
    pub private_hosts: Vec<String>,
}

impl Reach {
    fn allows_private(&self, host: &str) -> bool {
        let host = bare(host);
        self.allow_private
            || self.private_hosts.iter().any(|listed| bare(listed).eq_ignore_ascii_case(host))
    }

    /// Reads an address and judges it as far as its text tells; names are judged when they are resolved.
    ///
    /// # Errors
    /// `BAD_REQUEST` where it is no address or holds a password, `ADDRESS_REFUSED` where it may not be called.
    pub(super) fn check(&self, text: &str) -> Result<Url> {
        let bad = |words: &str| Error::new(Code::BadRequest, words).at("url");
        let refused = |words: &str| {
            let way = "it needs allow_private = true, or its host in webhooks.private_hosts";
            Error::new(Code::AddressRefused, format!("{words}: {way}")).at("url")
        };
        if text.len() > limits::WEBHOOK_URL_BYTES {
            return Err(bad(&format!("has more than {} bytes", limits::WEBHOOK_URL_BYTES)));
        }
        let url = Url::parse(text).map_err(|_| bad("is not an address"))?;
        let host = url.host_str().filter(|host| !host.is_empty());
        let host = host.ok_or_else(|| bad("must begin with https:// and name a host"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("may not hold a user or a password"));
        }
        if url.fragment().is_some() {
            return Err(bad("may not have a fragment"));
        }
        let private = self.allows_private(host);
        match url.scheme() {
            "https" => {}
            "http" if private => {}
            "http" => return Err(refused("plain http is not called")),
            _ => return Err(bad("must begin with https://")),
        }
        let near = host.trim_end_matches('.').to_ascii_lowercase();
        let near = near == "localhost" || near.ends_with(".localhost");
        let literal = bare(host).parse::<IpAddr>();
        if !private && (near || literal.is_ok_and(|ip| !is_public(ip))) {
            return Err(refused("a private address is not called"));
        }
        Ok(url)
    }
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The client of one process.
#[derive(Clone, Debug)]
pub(super) struct Post {
    client: reqwest::Client,
    reach: Arc<Reach>,
}

impl Post {
    pub(super) fn new(calling: &Calling) -> Result<Self> {
        runtime::tls::install_provider();
        let reach = Arc::new(calling.reach.clone());
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("Malote/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(limits::WEBHOOK_CONNECT)
            .timeout(limits::WEBHOOK_TIMEOUT)
            .dns_resolver(Arc::new(Resolver { reach: Arc::clone(&reach) }));
        if let Some(pem) = &calling.ca_pem {
            let words = "webhooks.ca_file is not a certificate in PEM form";
            let certificate =
                reqwest::Certificate::from_pem(pem).coded(Code::ConfigInvalid, words)?;
            builder = builder.add_root_certificate(certificate);
        }
        let client = builder.build().coded(Code::Internal, "the HTTP client cannot be made")?;
        Ok(Self { client, reach })
    }

    /// One try; the words say why it was not the end.
    pub(super) async fn send(
        &self,
        claim: &Claim,
        signature: &str,
        body: String,
    ) -> (Outcome, Option<String>) {
        let Target(url) = &claim.url;
        let url = match self.reach.check(url) {
            Ok(url) => url,
            Err(error) => return (Outcome::Unanswered, Some(error.to_string())),
        };
        let call = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, CLOUD_EVENT)
            .header(sign::HEADER, signature)
            .header("X-Malote-Event", claim.event.kind.as_str())
            .header("X-Malote-Attempt", claim.attempt)
            .body(body);
        match call.send().await {
            Ok(answer) => answered(answer).await,
            Err(error) => (Outcome::Unanswered, Some(unanswered(&error))),
        }
    }
}

async fn answered(mut answer: Response) -> (Outcome, Option<String>) {
    let status = answer.status();
    let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = seconds.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
    let outcome = Outcome::Answered { status: status.as_u16(), retry_after };
    // A short body is read to its end, so that the connection serves the next delivery; the status is what counts.
    let mut read = 0;
    while read < limits::WEBHOOK_ANSWER_BYTES {
        match answer.chunk().await {
            Ok(Some(part)) => read += part.len(),
            Ok(None) | Err(_) => break,
        }
    }
    let words = match status.as_u16() {
        200..=299 => None,
        300..=399 => Some(format!(
            "the consumer answered {} and a redirect is not followed: set the address it leads to",
            status.as_u16()
        )),
        status => Some(format!("the consumer answered {status}")),
    };
    (outcome, words)
}

/// Why no status came; without the address, whose query may be secret.
fn unanswered(error: &reqwest::Error) -> String {
    if is_refused(error) {
        return Error::new(Code::AddressRefused, NOT_PUBLIC).to_string();
    }
    match dial::why(error) {
        _ if error.is_timeout() => "no answer came in time",
        Some(words) => words,
        None if error.is_request() && !error.is_connect() => {
            "what listens there does not answer in HTTP"
        }
        None => "the consumer does not answer",
    }
    .to_owned()
}

fn is_refused(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|cause| cause.to_string() == NOT_PUBLIC)
}

#[derive(Debug)]
struct Resolver {
    reach: Arc<Reach>,
}

impl dns::Resolve for Resolver {
    fn resolve(&self, name: dns::Name) -> dns::Resolving {
        let allowed = self.reach.allows_private(name.as_str());
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One private answer spoils the name: who mixes them is up to something.
            if !allowed && !found.iter().all(|address| is_public(address.ip())) {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, NOT_PUBLIC).into());
            }
            Ok(Box::new(found.into_iter()) as dns::Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(reach: &Reach, url: &str) -> Option<Code> {
        reach.check(url).err().map(|error| error.code)
    }

    #[test]
    fn only_https_to_public_hosts_is_called_unless_the_configuration_says_otherwise() {
        let closed = Reach::default();
        for url in ["https://etl.example/in", "https://etl.example:8443/a?b=c", "https://8.8.8.8/"]
        {
            assert_eq!(code(&closed, url), None, "{url}");
        }
        for url in [
            "http://etl.example/in",
            "http://127.0.0.1:9/",
            "https://127.0.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/",
            "https://[fd00::1]/",
            "https://[::ffff:10.0.0.1]/",
            // Other ways to write 127.0.0.1.
            "https://2130706433/",
            "https://0x7f.1/",
        ] {
            assert_eq!(code(&closed, url), Some(Code::AddressRefused), "{url}");
            let open = Reach { allow_private: true, ..Reach::default() };
            assert_eq!(code(&open, url), None, "{url}");
        }
        let listed = ["ETL.example", "10.0.0.1", "::1"].map(str::to_owned).to_vec();
        let listed = Reach { allow_private: false, private_hosts: listed };
        for url in ["http://etl.example/", "https://10.0.0.1/", "http://[::1]:80/"] {
            assert_eq!(code(&listed, url), None, "{url}");
        }
        assert_eq!(code(&listed, "http://x.etl.example/"), Some(Code::AddressRefused));
        assert_eq!(code(&listed, "https://10.0.0.2/"), Some(Code::AddressRefused));
    }

    #[test]
    fn what_is_no_address_or_holds_a_password_is_refused() {
        let open = Reach { allow_private: true, ..Reach::default() };
        let long = format!("https://etl.example/{}", "x".repeat(limits::WEBHOOK_URL_BYTES));
        for url in [
            "",
            "etl.example",
            "ftp://etl.example/",
            "https://",
            "https://a b/",
            "https://user@etl.example/",
            "https://:word@etl.example/",
            "https://etl.example/#part",
            "file:///etc/passwd",
            &long,
        ] {
            assert_eq!(code(&open, url), Some(Code::BadRequest), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_is_not_connected_to() {
        let reach = |private_hosts: &[&str]| {
            let private_hosts = private_hosts.iter().map(|host| (*host).to_owned()).collect();
            Resolver { reach: Arc::new(Reach { allow_private: false, private_hosts }) }
        };
        let resolve = async |resolver: &Resolver| {
            dns::Resolve::resolve(resolver, "localhost".parse().unwrap()).await
        };
        let error = resolve(&reach(&[])).await.err().unwrap();
        assert_eq!(error.to_string(), NOT_PUBLIC);
        assert!(resolve(&reach(&["localhost"])).await.unwrap().next().is_some());
    }
}
