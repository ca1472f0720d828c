//! Registry, token and entities: what the agent asks over HTTP before and beside sending.
//!
//! Promises: the last good registry is kept in memory and in the journal; the token is fetched once for all who wait,
//! renewed at 80 % of its life and after a refusal.
//! Never: logs the secret or the token; follows an address that `web` refuses.

use std::time::Duration;

use protocol::{
    Code, Coded as _, Error, Result, json,
    json::{Entities, Service, service},
    limits,
};
use reqwest::{RequestBuilder, StatusCode};
use runtime::{clock::Mono, failpoint};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

use super::{UplinkConfig, hosts::Hosts, web::Web};
use crate::journal::Journal;

/// How long a registry's answer is used before it is asked again; a failing call asks earlier.
const REGISTRY_LIFE: Duration = Duration::from_secs(3600);
/// A token's life as it is taken, whatever the answer says: none is fetched anew for each call, none is kept for ever.
const TOKEN_LEAST: Duration = Duration::from_secs(10);
const TOKEN_MOST: Duration = Duration::from_secs(86_400);
/// Upload version this agent sends with: gRPC with observability.
const UPLOAD_VERSION: u32 = 2;

#[derive(Debug)]
pub(super) struct Cloud {
    pub web: Web,
    config: UplinkConfig,
    journal: Journal,
    registry: Mutex<Option<(Vec<Service>, Mono)>>,
    token: Mutex<Option<Held>>,
}

#[derive(Debug)]
struct Held {
    token: SecretString,
    renew_at: Mono,
    number: u64,
}

/// A token with its number, so that a refusal throws away this one and not its successor.
#[derive(Clone, Debug)]
pub(super) struct Bearer {
    token: SecretString,
    number: u64,
}

impl Bearer {
    /// The value of `authorization`.
    pub(super) fn value(&self) -> String {
        format!("Bearer {}", self.token.expose_secret())
    }
}

impl Cloud {
    pub(super) fn new(config: UplinkConfig, journal: Journal) -> Result<Self> {
        let hosts = Hosts::new(&config.registry_url, &config.hosts)?;
        let (ca_pem, proxy) = (config.ca_pem.as_deref(), config.proxy.clone());
        let web = Web::new(hosts, config.allow_private, ca_pem, proxy)?;
        Ok(Self { web, config, journal, registry: Mutex::default(), token: Mutex::default() })
    }

    /// Address of a service.
    pub(super) async fn address(&self, key: &str) -> Result<String> {
        let mut held = self.registry.lock().await;
        let fresh = held.as_ref().filter(|(_, since)| since.elapsed() < REGISTRY_LIFE);
        if let Some((services, _)) = fresh {
            return json::find_service(services, key).map(str::to_owned);
        }
        match self.read_registry().await {
            Ok(services) => {
                let address = json::find_service(&services, key).map(str::to_owned);
                self.journal.save_registry(services.clone()).await?;
                *held = Some((services, Mono::now()));
                address
            }
            Err(error) => {
                let kept = match held.as_ref() {
                    Some((services, _)) => Some(services.clone()),
                    None => self.journal.registry().await?,
                };
                let Some(services) = kept else { return Err(error) };
                tracing::warn!(code = %error.code, words = error.message, "registry not read, the last good answer is used");
                json::find_service(&services, key).map(str::to_owned)
            }
        }
    }

    /// The next look at an address reads the registry again.
    pub(super) async fn registry_is_stale(&self) {
        if let Some((services, _)) = self.registry.lock().await.take() {
            // Journal and memory hold the same; the journal's copy serves while the registry is away.
            drop(services);
        }
    }

    async fn read_registry(&self) -> Result<Vec<Service>> {
        failpoint::pass("cloud.registry", Code::CloudUnreachable).await?;
        let place = |error: Error| error.at("registry");
        let request = self.web.get(&self.config.registry_url).map_err(place)?;
        let (status, body) = Web::send(request, limits::REGISTRY_BYTES).await.map_err(place)?;
        registry_in(status, &body, &self.config.registry_url)
    }

    pub(super) async fn bearer(&self) -> Result<Bearer> {
        let mut held = self.token.lock().await;
        if let Some(good) = held.as_ref().filter(|held| Mono::now() < held.renew_at) {
            return Ok(Bearer { token: good.token.clone(), number: good.number });
        }
        let (token, life) = self.fetch_token().await?;
        let number = held.as_ref().map_or(1, |held| held.number + 1);
        *held =
            Some(Held { token: token.clone(), renew_at: Mono::now() + life.mul_f64(0.8), number });
        Ok(Bearer { token, number })
    }

    /// The server refused this token.
    pub(super) async fn refused(&self, bearer: &Bearer) {
        let mut held = self.token.lock().await;
        if let Some(current) = held.as_mut().filter(|held| held.number == bearer.number) {
            current.renew_at = Mono::now();
        }
    }

    async fn fetch_token(&self) -> Result<(SecretString, Duration)> {
        failpoint::pass("cloud.token", Code::CloudUnreachable).await?;
        let address = self.address(service::RAC_TOKEN).await?;
        let request = self.web.post(&address)?.form(&token_form(&self.config));
        let (status, body) =
            Web::send(request, limits::REGISTRY_BYTES).await.map_err(|error| error.at("token"))?;
        let token = token_in(status, &body, (&self.config, address.as_str()))?;
        tracing::debug!(expires_in = token.expires_in, "token fetched");
        let life = Duration::from_secs(token.expires_in);
        Ok((token.access_token.into(), life.clamp(TOKEN_LEAST, TOKEN_MOST)))
    }

    /// The tables to send.
    pub(super) async fn entities(&self) -> Result<Entities> {
        failpoint::pass("cloud.entities", Code::CloudUnreachable).await?;
        let address = self.address(service::ENTITIES).await?;
        let address = format!("{}/{}", address.trim_end_matches('/'), self.config.erp);
        for last in [false, true] {
            let bearer = self.bearer().await?;
            let request = entities_request(&self.web, &address, &bearer.value())?;
            let (status, body) = Web::send(request, limits::ENTITIES_BYTES)
                .await
                .map_err(|error| error.at("entities"))?;
            if status == StatusCode::UNAUTHORIZED && !last {
                self.refused(&bearer).await;
                continue;
            }
            return entities_in(status, &body);
        }
        Err(Error::new(Code::Unauthenticated, "entities: a new token was refused too"))
    }
}

/// The services that an answer of the registry names.
pub(super) fn registry_in(status: StatusCode, body: &[u8], address: &str) -> Result<Vec<Service>> {
    let address = shown(address);
    if !status.is_success() {
        let error = answered(status, "registry");
        let code = match error.code {
            // Nothing of the kind is there: the address is wrong.
            Code::NotFound | Code::PermissionDenied | Code::Unauthenticated => {
                Code::RegistryInvalid
            }
            code => code,
        };
        return Err(Error::new(code, error.message).at(address));
    }
    serde_json::from_slice(body)
        .coded(Code::RegistryInvalid, "the answer is not the registry's list of services")
        .map_err(|error| error.at(address))
}

/// What is asked for a token with.
pub(super) fn token_form(config: &UplinkConfig) -> [(&'static str, &str); 4] {
    [
        ("grant_type", "client_credentials"),
        ("scope", "authorization_api"),
        ("client_id", config.client_id.as_str()),
        ("client_secret", config.client_secret.expose_secret()),
    ]
}

/// The token of an answer.
pub(super) fn token_in(
    status: StatusCode,
    body: &[u8],
    (config, address): (&UplinkConfig, &str),
) -> Result<json::Token> {
    if status.is_client_error() {
        // The body's one field `error` is a word of a short list; it may be shown.
        let words = String::from_utf8_lossy(body);
        let code =
            if words.contains("invalid_scope") { Code::InvalidScope } else { Code::InvalidClient };
        let words = format!("the token call of client {} was refused", config.client_id);
        return Err(Error::new(code, words).at(shown(address)));
    }
    if !status.is_success() {
        return Err(answered(status, "token").at(shown(address)));
    }
    let token = serde_json::from_slice::<json::Token>(body).ok().filter(travels);
    token.ok_or_else(|| {
        Error::new(Code::RegistryInvalid, "the token call's answer is not a token")
            .at(shown(address))
    })
}

/// Asks for the tables of an ERP.
pub(super) fn entities_request(
    web: &Web,
    address: &str,
    authorization: &str,
) -> Result<RequestBuilder> {
    let request = web.get(address)?.header("x-upload-version", UPLOAD_VERSION);
    Ok(request.header("authorization", authorization))
}

/// The tables that an answer names.
pub(super) fn entities_in(status: StatusCode, body: &[u8]) -> Result<Entities> {
    if status.is_success() {
        return read_entities(body);
    }
    Err(told(body).unwrap_or_else(|| answered(status, "entities")))
}

/// Whether a token can go into a header: what holds a line break or nothing at all never was one.
fn travels(token: &json::Token) -> bool {
    let text = &token.access_token;
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

fn read_entities(body: &[u8]) -> Result<Entities> {
    let entities: Entities = serde_json::from_slice(body)
        .coded(Code::EntitiesInvalid, "the answer of Entities is not valid")?;
    if entities.upload_version < UPLOAD_VERSION {
        let words = format!("the server asks for upload version {}", entities.upload_version);
        return Err(Error::new(Code::UploadVersion, words));
    }
    let mut names: Vec<_> = entities.queries.iter().map(|query| &query.table).collect();
    names.sort();
    if let Some(twice) =
        names.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first())
    {
        return Err(Error::new(
            Code::EntitiesInvalid,
            format!("Entities names table {twice} twice"),
        ));
    }
    Ok(entities)
}

/// An address without what a person may have typed before its host or behind its path.
pub(super) fn shown(address: &str) -> String {
    match reqwest::Url::parse(address) {
        Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        Err(_) => "an address that is no URL".to_owned(),
    }
}

/// The error body of an HTTP interface of Malote's, where the answer is one.
fn told(body: &[u8]) -> Option<Error> {
    let body: json::ErrorBody = serde_json::from_slice(body).ok()?;
    Some(Error::new(body.code.parse().ok()?, body.message).at("entities"))
}

fn answered(status: StatusCode, what: &str) -> Error {
    let code = match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        429 => Code::RateLimited,
        500.. => Code::CloudUnreachable,
        _ => Code::RegistryInvalid,
    };
    Error::new(code, format!("{what} answered {status}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_no_header_can_carry_is_none() {
        for (text, good) in [
            ("eyJ0eXAiOiJKV1QifQ.e30.c2ln", true),
            ("", false),
            (" a", false),
            ("a\r\nx-other: b", false),
            ("ção", false),
            ("a\0", false),
        ] {
            let token = serde_json::json!({ "access_token": text, "expires_in": 60 });
            assert_eq!(travels(&serde_json::from_value(token).unwrap()), good, "{text:?}");
        }
    }
}
