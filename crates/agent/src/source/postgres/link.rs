//! Links: connections of one source, made when needed, at most three.
//!
//! Promises: a link that saw an error or was left half-way is closed, never used again; nothing waits for ever (F16).
//! Promises: the session is read-only with time-outs for statements and locks.

use std::{
    future::Future,
    ops::Deref,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    clock::{self, Mono},
    task, tls,
};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{
    Client, Config, NoTls, Socket,
    config::SslMode,
    error::SqlState,
    tls::{MakeTlsConnect, TlsConnect},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{
    super::Identity,
    catalogue,
    fault::{address, fault, unconnected},
    lock,
};

const CONNECTIONS: usize = 3;
const CONNECT_TIME: Duration = Duration::from_secs(10);
const STATEMENT_TIME: Duration = Duration::from_secs(5);
const PROBE_TIME: Duration = Duration::from_secs(30);
/// The server's own time-out comes first; this one is for a network that swallows packets.
const WATCHDOG: Duration = Duration::from_secs(15);
/// In this time a server has surely ended a connection that was closed.
const COUNTED_OUT: Duration = Duration::from_secs(2);
const SESSION: &str = "SET default_transaction_read_only = on; SET statement_timeout = 5000; SET lock_timeout = 2000; \
    SET idle_in_transaction_session_timeout = 10000; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET row_security = off; SET TimeZone = 'UTC'";

#[derive(Debug)]
pub(super) struct Links {
    config: Config,
    tls: Option<MakeTls>,
    /// Zone of stamps, where it is given.
    zone: Option<String>,
    idle: Arc<Mutex<Vec<Session>>>,
    /// Calls at once.
    permits: Arc<Semaphore>,
    /// Connections at once, those too that idle or are being closed.
    places: Arc<Semaphore>,
    /// The database as it was told to the server last.
    told: Mutex<Option<Identity>>,
}

#[derive(Clone)]
struct MakeTls(MakeRustlsConnect);

impl std::fmt::Debug for MakeTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MakeTls")
    }
}

#[derive(Debug)]
struct Session {
    client: Client,
    zone: String,
}

/// A connection in use. Dropped without [`Link::give_back`] it is closed.
#[derive(Debug)]
pub(super) struct Link {
    session: Session,
    home: Arc<Mutex<Vec<Session>>>,
    _permit: OwnedSemaphorePermit,
}

impl Links {
    pub(super) fn new(url: &str, zone: Option<String>, ca_file: Option<PathBuf>) -> Result<Self> {
        let (url, asked) = Asked::split(url)?;
        let mut config: Config =
            url.parse().coded(Code::ConfigInvalid, "source.url is not a PostgreSQL URL: postgres://user:password@host:port/database, and of parameters sslmode and sslrootcert")?;
        if config.get_user().is_none() {
            let words = "source.url names no user: postgres://user:password@host/database";
            return Err(Error::new(Code::ConfigInvalid, words));
        }
        config
            .application_name("malote agent")
            .connect_timeout(CONNECT_TIME)
            .tcp_user_timeout(WATCHDOG)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3)
            .ssl_mode(if asked.tls { SslMode::Require } else { SslMode::Disable });
        let tls = if asked.tls { Some(make_tls(asked.ca_file.or(ca_file))?) } else { None };
        Ok(Self {
            config,
            tls,
            zone,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
            places: Arc::new(Semaphore::new(CONNECTIONS)),
            told: Mutex::default(),
        })
    }

    /// A connection that works, as far as is known.
    pub(super) async fn take(&self) -> Result<Link> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.coded(Code::Internal, "the source is closed")?;
        let idle = loop {
            match lock(&self.idle).pop() {
                Some(session) if session.client.is_closed() => {}
                other => break other,
            }
        };
        let session = match idle {
            Some(session) => session,
            None => {
                let made = tokio::time::timeout(CONNECT_TIME + WATCHDOG, self.connect()).await;
                made.map_err(|_| self.silent())??
            }
        };
        Ok(Link { session, home: Arc::clone(&self.idle), _permit: permit })
    }

    /// The database behind the address as it is now.
    pub(super) async fn identity(&self) -> Result<Identity> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let _permit = permit.coded(Code::Internal, "the source is closed")?;
        // One that idles gives its place, so that there are never more than three.
        drop(lock(&self.idle).pop());
        let ask = async { catalogue::identity(&self.open().await?.0).await };
        tokio::time::timeout(CONNECT_TIME + WATCHDOG, ask).await.map_err(|_| self.silent())?
    }

    fn silent(&self) -> Error {
        let words = "the database does not answer in time";
        Error::new(Code::SourceUnreachable, words).at(address(&self.config))
    }

    async fn connect(&self) -> Result<Session> {
        let (client, zone) = self.open().await?;
        self.same_database(&client).await?;
        Ok(Session { client, zone: self.zone.clone().unwrap_or(zone) })
    }

    /// A connection, not yet set up, once there is a place for it. Our own limit is what a login's often is as well, and
    /// one of ours that was closed is counted until the server has ended it: a refusal for their number is final only if
    /// it stays.
    async fn dial(&self) -> Result<Client> {
        let begun = Mono::now();
        loop {
            let place = Arc::clone(&self.places).acquire_owned().await;
            let place = place.coded(Code::Internal, "the source is closed")?;
            let made = match self.tls.clone() {
                Some(MakeTls(tls)) => open(&self.config, tls, place).await,
                None => open(&self.config, NoTls, place).await,
            };
            match made {
                Err(cause) if too_many(&cause) && begun.elapsed() < COUNTED_OUT => {
                    clock::sleep(COUNTED_OUT / 40).await;
                }
                made => return made.map_err(|cause| unconnected(cause, &self.config)),
            }
        }
    }

    /// A connection that is set up, and the zone that the database has by itself.
    async fn open(&self) -> Result<(Client, String)> {
        let client = self.dial().await?;
        let zone = client.query_one("SELECT current_setting('TimeZone'), pg_is_in_recovery(), current_setting('server_encoding')", &[]).await;
        let row = zone.map_err(fault)?;
        if row.try_get::<_, bool>(1).map_err(fault)? {
            return Err(Error::new(Code::SourceStandby, "the database is in recovery: a standby"));
        }
        let own: String = row.try_get(0).map_err(fault)?;
        client.batch_execute(SESSION).await.map_err(fault)?;
        if row.try_get::<_, String>(2).map_err(fault)? == "SQL_ASCII" {
            // Such a server refuses a whole page for one byte that is not UTF-8; unconverted, the row alone is poison.
            client.batch_execute("SET client_encoding = 'SQL_ASCII'").await.map_err(fault)?;
        }
        Ok((client, own))
    }

    /// From now on connections lead to this database.
    pub(super) fn tell(&self, identity: Identity) {
        *lock(&self.told) = Some(identity);
        // Those made before may lead to another one.
        lock(&self.idle).clear();
    }

    /// The database was seen that far: one that is behind it is another one from now on.
    pub(super) fn reached(&self, position: Vec<u8>) {
        if let Some(told) = lock(&self.told).as_mut().filter(|told| told.position < position) {
            told.position = position;
        }
    }

    /// How far the database was seen.
    pub(super) fn position(&self) -> Option<Vec<u8>> {
        lock(&self.told).as_ref().map(|told| told.position.clone())
    }

    /// A new connection leads to the database that the server knows, not to one that was put in its place or set back
    /// (F51): what Open would be judged by is the same. A clone has the system id of its original, so the address counts.
    async fn same_database(&self, client: &Client) -> Result<()> {
        let Some(told) = lock(&self.told).clone() else { return Ok(()) };
        let now = catalogue::identity(client).await?;
        if told.facts == now.facts && told.position <= now.position {
            return Ok(());
        }
        let words =
            "the address leads to another database than before, or to one that was set back";
        Err(Error::new(Code::DatabaseChanged, words))
    }
}

impl Link {
    /// Back to the others, for the next call.
    pub(super) fn give_back(self) {
        let Self { session, home, _permit } = self;
        if !session.client.is_closed() {
            lock(&home).push(session);
        }
    }

    /// Zone of stamps without one.
    pub(super) fn zone(&self) -> &str {
        &self.session.zone
    }

    /// Waits for a call, but not for ever.
    pub(super) async fn within<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        within(WATCHDOG, call).await
    }

    /// As [`Link::within`], with the longer time of a probe, which the session is told too.
    pub(super) async fn probe<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let set = |time: Duration| format!("SET statement_timeout = {}", time.as_millis());
        self.batch_execute(&set(PROBE_TIME)).await.map_err(fault)?;
        let done = within(PROBE_TIME * 2, call).await;
        self.batch_execute(&set(STATEMENT_TIME)).await.map_err(fault)?;
        done
    }
}

impl Deref for Link {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.session.client
    }
}

async fn within<T>(time: Duration, call: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_| Error::new(Code::SourceTimeout, "the database fell silent");
    tokio::time::timeout(time, call).await.map_err(silent)?
}

fn too_many(cause: &tokio_postgres::Error) -> bool {
    cause.code() == Some(&SqlState::TOO_MANY_CONNECTIONS)
}

/// The place is free again once the connection has ended, not when its client is dropped.
async fn open<T>(
    config: &Config,
    tls: T,
    place: OwnedSemaphorePermit,
) -> Result<Client, tokio_postgres::Error>
where
    T: MakeTlsConnect<Socket> + Send,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    // It ends with the client or the server; both are seen by the client's next call.
    drop(task::spawn("source connection", async move {
        if let Err(cause) = connection.await {
            let state = cause.code().map_or("none", |state| state.code()).to_owned();
            tracing::debug!(state, "a connection to the source ended");
        }
        drop(place);
    }));
    Ok(client)
}

/// What of a URL's parameters is ours to read: whether TLS is wanted, and whom it trusts.
#[derive(Debug, Default)]
struct Asked {
    tls: bool,
    ca_file: Option<PathBuf>,
}

impl Asked {
    fn split(url: &str) -> Result<(String, Self)> {
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
                    let words = "source.url: sslmode is disable, require, verify-ca or verify-full; the last three check the \
                                 server's certificate";
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

fn make_tls(ca_file: Option<PathBuf>) -> Result<MakeTls> {
    tls::install_provider();
    let Some(file) = ca_file else {
        let made = MakeRustlsConnect::with_native_certs();
        let (tls, _) = made.map_err(|_| {
            Error::new(
                Code::ConfigInvalid,
                "this machine has no trusted authorities; name one in source.ca_file",
            )
        })?;
        return Ok(MakeTls(tls));
    };
    let words =
        format!("source.ca_file {}: no certificate in PEM form is read there", file.display());
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
    Ok(MakeTls(MakeRustlsConnect::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_asked_for_in_the_url_and_always_checks_the_certificate() {
        let split = |url| Asked::split(url).map(|(url, asked)| (url, asked.tls, asked.ca_file));
        assert_eq!(split("postgres://h/d").unwrap(), ("postgres://h/d".into(), false, None));
        let asked =
            split("postgres://h/d?sslmode=verify-full&options=x&sslrootcert=/ca.pem").unwrap();
        assert_eq!(asked, ("postgres://h/d?options=x".into(), true, Some("/ca.pem".into())));
        let refused = split("postgres://h/d?sslmode=prefer").unwrap_err();
        assert_eq!(refused.code, Code::ConfigInvalid);
    }

    #[test]
    fn a_url_that_is_wrong_is_told_before_anything_is_opened() {
        for bad in ["postgres://h:port/d", "postgres://h/d?nonsense=1"] {
            assert_eq!(Links::new(bad, None, None).unwrap_err().code, Code::ConfigInvalid, "{bad}");
        }
        let missing =
            Links::new("postgres://h/d?sslmode=require", None, Some("/nonexistent.pem".into()));
        assert_eq!(missing.unwrap_err().code, Code::ConfigInvalid);
    }
}
