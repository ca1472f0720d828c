//! Examine: the way to the cloud, step by step, for a person: proxy, names, registry, allow-list, certificates, clocks,
//! token, tables, gRPC.
//!
//! Promises: each step is made as a running agent makes it, through the same allow-list and the same proxy; a step that
//! fails does not keep what needs it not from being looked at; nothing is changed anywhere.
//! Never: opens a session; shows a secret or a token.

use std::{future::Future, io, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::uri::PathAndQuery;
use protocol::{
    Code, Error, Result, json,
    json::{Entities, Service, service},
    limits,
    names::TableName,
};
use reqwest::Url;
use runtime::{
    certificate,
    clock::{Mono, Wall},
    dial,
    finding::{Finding, Words, words},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tokio::net::TcpStream;
use tonic_prost::ProstCodec;

use super::{
    UplinkConfig,
    cloud::{entities_in, entities_request, registry_in, shown, token_form, token_in},
    hosts::{self, Hosts},
    proxy,
    web::{Seen, Web, resolve},
};

/// What may be looked at here.
pub const TOPICS: [&str; 9] =
    [PROXY, DNS, REGISTRY, HOSTS, certificate::TOPIC, CLOCK, TOKEN, ENTITIES, GRPC];
const PROXY: &str = "proxy";
const DNS: &str = "dns";
const REGISTRY: &str = "registry";
const HOSTS: &str = "hosts";
const CLOCK: &str = "clock";
const TOKEN: &str = "token";
const ENTITIES: &str = "entities";
const GRPC: &str = "grpc";

/// Services that an agent calls.
const USED: [&str; 3] = [service::RAC_TOKEN, service::ENTITIES, service::INGESTION];
/// Clocks that differ by less are alike.
const ALIKE: Duration = Duration::from_secs(60);
/// By more, tokens and certificates begin to fail.
const APART: Duration = Duration::from_secs(600);

/// What was found, and the tables that the cloud asks for, where it told.
#[derive(Debug, Default)]
pub struct Examined {
    pub findings: Vec<Finding>,
    pub tables: Option<Vec<TableName>>,
}

/// Looks the way to the cloud over; no step takes longer than `patience`.
pub async fn examine(config: &UplinkConfig, patience: Duration) -> Examined {
    let mut look = Look { config, patience, examined: Examined::default() };
    let made = Hosts::new(&config.registry_url, &config.hosts).and_then(|hosts| {
        Web::new(hosts, config.allow_private, config.ca_pem.as_deref(), config.proxy.clone())
    });
    match made {
        Ok(web) => look.all(&web).await,
        Err(error) => look.tell(Finding::error(HOSTS, "cloud.hosts", &error)),
    }
    look.examined
}

struct Look<'a> {
    config: &'a UplinkConfig,
    patience: Duration,
    examined: Examined,
}

/// Seconds, to a tenth.
fn took(begun: Mono) -> String {
    format!("{:.1} s", begun.elapsed().as_secs_f64())
}

fn both(text: impl Into<String>) -> Words {
    let text = text.into();
    words(text.clone(), text)
}

impl Look<'_> {
    fn tell(&mut self, finding: Finding) {
        self.examined.findings.push(finding);
    }

    /// A step, with its own end.
    async fn step<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let late = || Error::new(Code::CloudUnreachable, "no answer came in time");
        tokio::time::timeout(self.patience, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn all(&mut self, web: &Web) {
        self.proxy().await;
        let registry = self.config.registry_url.clone();
        self.name(&registry).await;
        let (mut open, mut named) = (Vec::new(), Vec::from_iter(host_of(&registry)));
        let Some(services) = self.registry(web).await else { return self.listed(&named).await };
        for key in USED {
            match json::find_service(&services, key) {
                Ok(address) => {
                    named.extend(host_of(address));
                    if self.allowed(web, key, address).await {
                        open.push((key, address.to_owned()));
                    }
                }
                Err(error) => self.tell(Finding::error(REGISTRY, shown(&registry), &error)),
            }
        }
        self.listed(&named).await;
        let address = |wanted: &str| {
            open.iter().find(|(key, _)| *key == wanted).map(|(_, address)| address.clone())
        };
        let token = match address(service::RAC_TOKEN) {
            Some(address) => self.token(web, &address).await,
            None => None,
        };
        if let (Some(address), Some(token)) = (address(service::ENTITIES), &token) {
            self.entities(web, &address, token).await;
        }
        if let Some(target) = address(service::INGESTION) {
            self.grpc(web, &target).await;
        }
    }

    async fn proxy(&mut self) {
        let Some(proxy) = &self.config.proxy else {
            let found = words("none is configured", "nenhum configurado");
            return self.tell(Finding::ok(PROXY, "cloud.proxy", found));
        };
        let (place, begun) = (proxy.place(), Mono::now());
        let dialled = self
            .step(async {
                TcpStream::connect(&place).await.map_err(|cause| {
                    let why = dial::why(&cause).unwrap_or("it cannot be connected to");
                    Error::new(Code::CloudUnreachable, why).because(cause)
                })
            })
            .await;
        self.tell(match dialled {
            Ok(_) => {
                let time = took(begun);
                let found = words(format!("connected in {time}"), format!("conectado em {time}"));
                Finding::ok(PROXY, place, found)
            }
            Err(error) => Finding::error(PROXY, place, &error),
        });
    }

    /// Where a name leads. With a proxy between, that is the proxy's to find out.
    async fn name(&mut self, address: &str) {
        let (Some(host), None) = (host_of(address), &self.config.proxy) else { return };
        if self.examined.findings.iter().any(|found| found.topic == DNS && found.of == host) {
            return;
        }
        let (begun, allow) = (Mono::now(), self.config.allow_private);
        let found = self.step(async { resolve(&host, 0, allow).await.map_err(unreached) }).await;
        self.tell(match found {
            Ok(addresses) => {
                let mut seen: Vec<_> = addresses.iter().map(|at| at.ip().to_string()).collect();
                seen.sort();
                seen.dedup();
                Finding::ok(DNS, host, both(format!("{} ({})", seen.join(", "), took(begun))))
            }
            Err(error) => Finding::error(DNS, host, &error),
        });
    }

    /// Hosts that the customer allows and that stand for nothing an agent calls today: whether they could be called.
    async fn listed(&mut self, named: &[String]) {
        for (host, port) in hosts::unnamed(&self.config.hosts, named) {
            let place = format!("{host}:{port}");
            if self.config.proxy.is_some() {
                let found = words(
                    "the registry does not name it; not tried, since the proxy would dial it",
                    "o registry não o indica; não foi testado, pois quem o chamaria é o proxy",
                );
                self.tell(Finding::note(HOSTS, place, found));
                continue;
            }
            let (begun, allow) = (Mono::now(), self.config.allow_private);
            let dialled = self
                .step(async {
                    let addresses = resolve(&host, port, allow).await.map_err(unreached)?;
                    TcpStream::connect(addresses.as_slice()).await.map_err(unreached)
                })
                .await;
            self.tell(match dialled {
                Ok(_) => {
                    let time = took(begun);
                    let found = words(
                        format!("the registry does not name it; connected in {time}"),
                        format!("o registry não o indica; conectado em {time}"),
                    );
                    Finding::note(HOSTS, place, found)
                }
                Err(error) => {
                    let why = error.message;
                    let found = words(
                        format!("the registry does not name it; not reached: {why}"),
                        format!("o registry não o indica; não alcançado: {why}"),
                    );
                    let todo = words(
                        "Nothing calls it today; open it in the firewall before the cloud moves there.",
                        "Hoje nada o chama; libere-o no firewall antes que a nuvem passe a usá-lo.",
                    );
                    Finding::note(HOSTS, place, found).advised(todo)
                }
            });
        }
    }

    async fn registry(&mut self, web: &Web) -> Option<Vec<Service>> {
        let (address, begun) = (self.config.registry_url.clone(), Mono::now());
        let place = shown(&address);
        let read = async {
            let seen = Web::look(web.get(&address)?, limits::REGISTRY_BYTES).await?;
            let services = registry_in(seen.status, &seen.body, &address)?;
            Ok((services, seen))
        };
        match self.step(read).await {
            Ok((services, seen)) => {
                let (count, time) = (services.len(), took(begun));
                let found = words(
                    format!("{count} services in {time}"),
                    format!("{count} serviços em {time}"),
                );
                self.tell(Finding::ok(REGISTRY, &place, found));
                self.beside(&place, &seen);
                Some(services)
            }
            Err(error) => {
                self.tell(Finding::error(REGISTRY, place, &error));
                None
            }
        }
    }

    /// What an answer tells beside itself: the certificate and the clock of the other side.
    fn beside(&mut self, place: &str, seen: &Seen) {
        let now = Wall::now();
        let origin = Url::parse(place).map(|url| url.origin().ascii_serialization());
        let origin = origin.unwrap_or_else(|_| place.to_owned());
        let known = |topic: &str, findings: &[Finding]| {
            findings.iter().any(|found| found.topic == topic && found.of == origin)
        };
        if let Some(der) = &seen.certificate
            && !known(certificate::TOPIC, &self.examined.findings)
        {
            self.tell(certificate::finding(&origin, der, now));
        }
        if let Some(date) = seen.date
            && !known(CLOCK, &self.examined.findings)
        {
            self.tell(clocks(&origin, date, now));
        }
    }

    /// Whether an address of the registry may be called at all.
    async fn allowed(&mut self, web: &Web, key: &str, address: &str) -> bool {
        let place = shown(address);
        if let Err(error) = web.get(address) {
            let mut finding = Finding::error(HOSTS, place, &error);
            if error.code == Code::AddressRefused {
                let host = Url::parse(address).ok().and_then(|url| {
                    let host = url.host_str()?.to_owned();
                    Some(url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}")))
                });
                let host = host.unwrap_or_default();
                finding.todo = Some(words(
                    format!(
                        "If that host is meant, list \"{host}\" in cloud.hosts; plain http and private addresses need cloud.allow_private = true."
                    ),
                    format!(
                        "Se esse host é o certo, inclua \"{host}\" em cloud.hosts; http simples e endereços privados exigem cloud.allow_private = true."
                    ),
                ));
            }
            self.tell(finding);
            return false;
        }
        self.name(address).await;
        let found = words(format!("{key} may be called"), format!("{key} pode ser chamado"));
        self.tell(Finding::ok(HOSTS, place, found));
        true
    }

    async fn token(&mut self, web: &Web, address: &str) -> Option<SecretString> {
        let (place, begun, config) = (shown(address), Mono::now(), self.config);
        let read = async {
            let request = web.post(address)?.form(&token_form(config));
            let seen = Web::look(request, limits::REGISTRY_BYTES).await?;
            let token = token_in(seen.status, &seen.body, (config, address))?;
            Ok((token, seen))
        };
        match self.step(read).await {
            Ok((token, seen)) => {
                let (life, time) = (token.expires_in, took(begun));
                let found = words(
                    format!("granted for {life} s, in {time}"),
                    format!("concedido por {life} s, em {time}"),
                );
                self.tell(Finding::ok(TOKEN, &place, found));
                self.beside(&place, &seen);
                let times = times_of(&token.access_token, Wall::now());
                times.into_iter().for_each(|found| self.tell(found));
                Some(token.access_token.into())
            }
            Err(error) => {
                self.tell(Finding::error(TOKEN, place, &error));
                None
            }
        }
    }

    async fn entities(&mut self, web: &Web, address: &str, token: &SecretString) {
        let address = format!("{}/{}", address.trim_end_matches('/'), self.config.erp);
        let bearer = format!("Bearer {}", token.expose_secret());
        let read = async {
            let request = entities_request(web, &address, &bearer)?;
            let seen = Web::look(request, limits::ENTITIES_BYTES).await?;
            entities_in(seen.status, &seen.body)
        };
        match self.step(read).await {
            Ok(entities) => self.tables(&address, entities),
            Err(error) => self.tell(Finding::error(ENTITIES, shown(&address), &error)),
        }
    }

    fn tables(&mut self, address: &str, entities: Entities) {
        let names: Vec<TableName> = entities.queries.into_iter().map(|query| query.table).collect();
        let (erp, count) = (&self.config.erp, names.len());
        let found = words(
            format!("{count} tables of {erp} are shared"),
            format!("{count} tabelas de {erp} compartilhadas"),
        );
        let todo = words(
            "Share tables at the server: malote server entity add.",
            "Compartilhe tabelas no servidor: malote server entity add.",
        );
        let of = shown(address);
        self.tell(match count {
            0 => Finding::warning(ENTITIES, of, (found, todo)),
            _ => Finding::ok(ENTITIES, of, found),
        });
        self.examined.tables = Some(names);
    }

    async fn grpc(&mut self, web: &Web, target: &str) {
        let (place, begun) = (shown(target), Mono::now());
        if target.starts_with("https")
            && let Ok(request) = web.get(target)
            && let Ok(seen) = self.step(Web::look(request, limits::REGISTRY_BYTES)).await
        {
            self.beside(&place, &seen);
        }
        let told = self.step(health(web, target)).await;
        let time = took(begun);
        self.tell(match told {
            Ok(Health::Serving) => {
                let found = words(format!("it serves ({time})"), format!("atende ({time})"));
                Finding::ok(GRPC, place, found)
            }
            Ok(Health::Silent) => {
                let found = words(
                    format!("it answers ({time}) and tells nothing of its health"),
                    format!("responde ({time}) e nada diz da sua saúde"),
                );
                Finding::note(GRPC, place, found)
            }
            Ok(Health::NotServing) => {
                let found = words("it does not serve now", "não atende no momento");
                let todo = words(
                    "It drains or starts; look again in a minute.",
                    "Está encerrando ou iniciando; verifique de novo em um minuto.",
                );
                Finding::warning(GRPC, place, (found, todo))
            }
            Err(error) => Finding::error(GRPC, place, &error),
        });
    }
}

fn host_of(address: &str) -> Option<String> {
    Url::parse(address).ok()?.host_str().map(str::to_owned)
}

/// Why a name or an address came to nothing.
fn unreached(cause: io::Error) -> Error {
    let code = match cause.kind() {
        io::ErrorKind::PermissionDenied => Code::AddressRefused,
        _ => Code::CloudUnreachable,
    };
    let why = dial::why(&cause).map_or_else(|| cause.to_string(), str::to_owned);
    Error::new(code, why).because(cause)
}

/// How far two clocks are apart.
fn clocks(of: &str, theirs: Wall, own: Wall) -> Finding {
    let apart = own.since(theirs).max(theirs.since(own));
    let seconds = apart.as_secs();
    let (en, pt) =
        if own >= theirs { ("ahead of", "adiantado em") } else { ("behind", "atrasado em") };
    let found = words(
        format!("this machine's clock is {seconds} s {en} it"),
        format!("o relógio desta máquina está {pt} {seconds} s"),
    );
    let todo = words(
        "Let both machines follow a time server (NTP).",
        "Faça as duas máquinas seguirem um servidor de tempo (NTP).",
    );
    if apart < ALIKE {
        let found = words("the clocks are alike", "os relógios coincidem");
        return Finding::ok(CLOCK, of, found);
    }
    if apart < APART {
        return Finding::warning(CLOCK, of, (found, todo));
    }
    Finding::mend(CLOCK, of, (found, todo))
}

#[derive(Deserialize)]
struct Claims {
    iat: Option<i64>,
    exp: Option<i64>,
}

/// Whether this machine takes a token for good at this moment. What is no JWT tells nothing.
fn times_of(token: &str, now: Wall) -> Option<Finding> {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())?;
    let Claims { iat, exp } = serde_json::from_slice(&claims).ok()?;
    let (begins, ends) = (iat?, exp?);
    let ahead = begins.saturating_sub(now.seconds());
    let over = now.seconds().saturating_sub(ends);
    let alike = i64::try_from(ALIKE.as_secs()).unwrap_or(i64::MAX);
    if ahead <= alike && over <= 0 {
        return None;
    }
    let found = words(
        "by this machine's clock the token is not in force",
        "pelo relógio desta máquina o token não está em vigor",
    );
    let todo = words("Set this machine's clock (NTP).", "Acerte o relógio desta máquina (NTP).");
    Some(Finding::mend(CLOCK, "token", (found, todo)))
}

/// What a server says of its health (`grpc.health.v1`).
enum Health {
    Serving,
    NotServing,
    /// It has no such service.
    Silent,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthAsked {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct HealthTold {
    #[prost(int32, tag = "1")]
    status: i32,
}

async fn health(web: &Web, target: &str) -> Result<Health> {
    let lost = |cause: &(dyn std::error::Error + 'static)| {
        let why = dial::why(cause).or_else(|| proxy::refused(cause));
        Error::new(Code::CloudUnreachable, why.unwrap_or("the server does not answer"))
    };
    let mut grpc = tonic::client::Grpc::new(web.line(target)?);
    grpc.ready().await.map_err(|cause| lost(&*cause))?;
    let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let asked = tonic::Request::new(HealthAsked { service: String::new() });
    match grpc.unary(asked, path, ProstCodec::<HealthAsked, HealthTold>::default()).await {
        Ok(told) if told.get_ref().status == 1 => Ok(Health::Serving),
        Ok(_) => Ok(Health::NotServing),
        Err(status) if status.code() == tonic::Code::Unavailable => Err(lost(&status)),
        Err(_) => Ok(Health::Silent),
    }
}

#[cfg(test)]
mod tests {
    use runtime::finding::Grade;

    use super::*;

    #[test]
    fn clocks_that_differ_are_told_by_how_much_and_which_way() {
        let at = |seconds: i64| Wall(seconds * 1_000_000);
        for (theirs, own, grade, word) in [
            (1_000, 1_030, Grade::Ok, "alike"),
            (1_000, 1_120, Grade::Warning, "120 s ahead"),
            (1_120, 1_000, Grade::Warning, "120 s behind"),
            (10_000, 1_000, Grade::Mend, "9000 s behind"),
        ] {
            let found = clocks("x", at(theirs), at(own));
            assert_eq!(found.grade, grade, "{found:?}");
            assert!(found.found.en.contains(word), "{found:?}");
        }
    }

    #[test]
    fn a_token_of_another_time_is_told_and_what_is_no_jwt_is_left_alone() {
        let token = |iat: i64, exp: i64| {
            let claims = URL_SAFE_NO_PAD.encode(format!("{{\"iat\":{iat},\"exp\":{exp}}}"));
            format!("head.{claims}.mark")
        };
        let now = Wall(1_000_000_000);
        for (text, wrong) in [
            (token(990, 4_600), false),
            (token(1_050, 4_600), false),
            (token(1_500, 4_600), true),
            (token(10, 900), true),
            ("opaque".to_owned(), false),
            ("a.b.c".to_owned(), false),
        ] {
            assert_eq!(times_of(&text, now).is_some(), wrong, "{text}");
        }
    }
}
