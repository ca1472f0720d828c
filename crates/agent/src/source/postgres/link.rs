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
    postgres::{Address, CONNECT_TIME, WATCHDOG},
    task::Task,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::{Client, error::SqlState};

use super::{
    super::Identity,
    catalogue,
    fault::{address, fault, unconnected},
    lock,
};

const CONNECTIONS: usize = 3;
const STATEMENT_TIME: Duration = Duration::from_secs(5);
const PROBE_TIME: Duration = Duration::from_secs(30);
/// In this time a server has surely ended a connection that was closed.
const COUNTED_OUT: Duration = Duration::from_secs(2);
const SESSION: &str = "SET default_transaction_read_only = on; SET statement_timeout = 5000; SET lock_timeout = 2000; \
    SET idle_in_transaction_session_timeout = 10000; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'; \
    SET extra_float_digits = 3; SET bytea_output = 'hex'; SET row_security = off; SET TimeZone = 'UTC'";

#[derive(Debug)]
pub(super) struct Links {
    address: Address,
    /// Zone of stamps, where it is given.
    zone: Option<String>,
    idle: Arc<Mutex<Vec<Session>>>,
    permits: Arc<Semaphore>,
    /// The database as it was told to the server last.
    told: Mutex<Option<Identity>>,
}

#[derive(Debug)]
struct Session {
    client: Client,
    zone: String,
    /// Ends once the connection is closed.
    driver: Task<()>,
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
        let address = Address::of(("source.url", url), ca_file, "malote agent")?;
        Ok(Self {
            address,
            zone,
            idle: Arc::default(),
            permits: Arc::new(Semaphore::new(CONNECTIONS)),
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
        let idle = lock(&self.idle).pop();
        if let Some(Session { client, driver, .. }) = idle {
            drop(client);
            // Its end is logged by itself; one that hangs is cut by the network's own time-out.
            let _ = tokio::time::timeout(CONNECT_TIME, driver.join()).await;
        }
        let ask = async { catalogue::identity(&self.open().await?.0).await };
        tokio::time::timeout(CONNECT_TIME + WATCHDOG, ask).await.map_err(|_| self.silent())?
    }

    fn silent(&self) -> Error {
        let words = "the database does not answer in time";
        Error::new(Code::SourceUnreachable, words).at(address(self.address.config()))
    }

    async fn connect(&self) -> Result<Session> {
        let (client, zone, driver) = self.open().await?;
        self.same_database(&client).await?;
        Ok(Session { client, zone: self.zone.clone().unwrap_or(zone), driver })
    }

    /// A connection, not yet set up. Our own limit is what a login's often is as well, and one of ours that was closed is
    /// counted until the server has ended it: a refusal for their number is final only if it stays.
    async fn dial(&self) -> Result<(Client, Task<()>)> {
        let begun = Mono::now();
        loop {
            match self.address.dial().await {
                Err(cause) if too_many(&cause) && begun.elapsed() < COUNTED_OUT => {
                    clock::sleep(COUNTED_OUT / 40).await;
                }
                made => return made.map_err(|cause| unconnected(cause, self.address.config())),
            }
        }
    }

    /// A connection that is set up, and the zone that the database has by itself.
    async fn open(&self) -> Result<(Client, String, Task<()>)> {
        let (client, driver) = self.dial().await?;
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
        Ok((client, own, driver))
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
