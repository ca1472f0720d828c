//! App: a server as it runs. Checks everything before it answers the first call, and drains when asked to.
//!
//! Promises: a folder has one running server (`STORE_BUSY`); a port that is taken, a store of another version or an
//! address that may not be used is told before anything starts; a drain lets every call under way end and answers probes
//! meanwhile.
//! Never: migrates a store that has data by itself; opens a data folder in which a restore was cut off.
//!
//! `backup` copies a data folder and puts copies back; `copy` takes its store into a database; `doctor` looks a machine
//! over.

pub mod backup;
pub mod copy;
pub mod doctor;

use std::{
    fs::{File, TryLockError},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result, limits};
use runtime::{
    clock::Wall,
    files,
    shutdown::{self, Calls, Shutdown, Trigger},
    task::{self, Task},
    tls,
};
use tokio::net::TcpListener;

use crate::{
    config::{Addresses, ServerConfig},
    grpc, http,
    service::{Services, catalog},
    store::{
        Site,
        sqlite::{self, State},
    },
    tasks,
};

/// Somebody who only looks holds the data folder for a moment, and a process that is ending a little longer than its
/// supervisor thinks.
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// How long connections and tasks may take to end when no call is under way: longer only a peer takes that is gone.
pub(crate) const CLOSE: Duration = Duration::from_secs(5);

/// A running server.
#[derive(Debug)]
pub struct App {
    /// Where HTTP is bound.
    pub http: SocketAddr,
    /// Where gRPC is bound.
    pub grpc: SocketAddr,
    /// What senders dial.
    pub addresses: Addresses,
    /// For whoever runs in the same process (demo, tests).
    pub services: Services,
    trigger: Trigger,
    calls: Calls,
    closing: Trigger,
    parts: Vec<Task<()>>,
    _lock: File,
}

/// Runs until the drain is asked for and done.
///
/// # Errors
/// What keeps it from starting: `CONFIG_INVALID`, `ADDRESS_IN_USE`, `ADDRESS_REFUSED`, `STORE_BUSY`, `STORE_VERSION`,
/// `STORE_FAILED`.
pub async fn run(config: ServerConfig, mut shutdown: Shutdown) -> Result<()> {
    let app = App::start(&config).await?;
    tracing::info!(http = %app.http, grpc = %app.grpc, registry = app.addresses.http, "server is ready");
    shutdown.draining().await;
    app.stop().await;
    Ok(())
}

/// Opens the store for the command line, whether or not a server runs on it; a new folder is made ready first.
///
/// # Errors
/// `CONFIG_INVALID`, `STORE_VERSION`, `STORE_FAILED`.
pub async fn open(config: &ServerConfig) -> Result<Services> {
    make_folder(&config.data)?;
    let site = prepare(config)?;
    config.retention.check()?;
    // What a running server gives as the source of its events.
    let addresses = config.addresses(config.http_listen, config.grpc_listen);
    let source = addresses.map(|found| found.http).unwrap_or_default();
    let (calling, alerting) = (config.calling(&source)?, config.alerting(&source)?);
    let services = Services::over(site.open().await?, &config.data, String::new()).await?;
    let services = services.allowing_private(config.allow_private).keeping(config.retention);
    Ok(services.calling(calling).alerting(alerting).by(&command_line()))
}

/// Who acts on the command line, for the audit.
#[must_use]
pub fn command_line() -> String {
    match runtime::config::user() {
        Some(user) => format!("command line ({user})"),
        None => "command line".to_owned(),
    }
}

impl App {
    /// Starts a server; it answers when this returns.
    ///
    /// # Errors
    /// As [`run`].
    pub async fn start(config: &ServerConfig) -> Result<Self> {
        runtime::telemetry::start_metrics();
        config.retention.check()?;
        config.site()?;
        let (certificate, renewal) = tls::load(&config.tls)?.unzip();
        // What is refused before the store is opened leaves no new folder behind.
        let held = if config.data.exists() { Some(alone(&config.data).await?) } else { None };
        let http = bind("http_listen", config.http_listen).await?;
        let grpc = bind("grpc_listen", config.grpc_listen).await?;
        let bound = (address(&http)?, address(&grpc)?);
        let addresses = config.addresses(bound.0, bound.1)?;
        let calling = config.calling(&addresses.http)?;
        let alerting = config.alerting(&addresses.http)?;
        let lock = match held {
            Some(lock) => lock,
            None => alone(&config.data).await?,
        };
        let services = ready(config, &addresses).await?.calling(calling).alerting(alerting);
        let deliverer = services.webhooks.deliverer()?;
        let (trigger, shutdown) = shutdown::channel();
        let (closing, closed) = shutdown::channel();
        let calls = Calls::new(shutdown.clone());
        let desk = desk(&services, &addresses, (&calls, &shutdown));
        let proxies: Arc<[_]> = config.trusted_proxies.clone().into();
        let edges = (calls.clone(), closed.clone());
        let mut parts = vec![
            task::spawn(
                "http",
                http::serve(
                    (http, certificate.clone()),
                    http::router(desk),
                    Arc::clone(&proxies),
                    closed,
                ),
            ),
            task::spawn("grpc", grpc::serve((grpc, certificate), services.clone(), proxies, edges)),
            task::spawn("webhooks", tasks::webhooks::run(deliverer, shutdown.clone())),
        ];
        parts.extend(reconcilers(&services, &shutdown));
        let (look, mails) = (services.alerts.looking(), services.alerts.mailing());
        let period = services.alerts.period();
        let alerts = tasks::alerts::run(look, mails, period, shutdown.clone());
        parts.push(task::spawn("alerts", alerts));
        parts.extend(renewal.map(|renewal| task::spawn("tls", tls::follow(renewal, shutdown))));
        let (http, grpc) = bound;
        Ok(Self { http, grpc, addresses, services, trigger, calls, closing, parts, _lock: lock })
    }

    /// Drains: new calls are refused and probes answered while the calls under way end; then listeners and connections
    /// are closed.
    pub async fn stop(self) {
        self.trigger.drain();
        if tokio::time::timeout(limits::DRAIN, self.calls.ended()).await.is_err() {
            tracing::warn!(
                "calls were still under way after {} s; their senders repeat them",
                limits::DRAIN.as_secs()
            );
        }
        self.closing.drain();
        let parts = self.parts;
        let all = async {
            for part in &parts {
                ended(part).await;
            }
        };
        if tokio::time::timeout(CLOSE, all).await.is_err() {
            tracing::info!("some connections did not end by themselves and are cut");
            parts.iter().for_each(Task::abort);
        }
    }
}

/// The services over the store; a file is made where there is none.
async fn ready(config: &ServerConfig, addresses: &Addresses) -> Result<Services> {
    let site = prepare(config)?;
    let services = Services::over(site.open().await?, &config.data, addresses.issuer()).await?;
    Ok(services.allowing_private(config.allow_private).keeping(config.retention))
}

/// What the routes of HTTP work with.
fn desk(
    services: &Services,
    addresses: &Addresses,
    (calls, shutdown): (&Calls, &Shutdown),
) -> http::Desk {
    http::Desk {
        services: services.by("an unknown caller"),
        registry: catalog::registry(&addresses.http, &addresses.grpc).into(),
        issuer: addresses.issuer().into(),
        shutdown: shutdown.clone(),
        calls: calls.clone(),
    }
}

/// The tasks that bring about what the store says is due.
fn reconcilers(services: &Services, shutdown: &Shutdown) -> [Task<()>; 3] {
    let Services { staging, ingest, retention, .. } = services.clone();
    [
        task::spawn("apply", tasks::apply::run(staging, ingest.hint(), shutdown.clone())),
        task::spawn("retention", tasks::retention::run(retention, Wall::now, shutdown.clone())),
        task::spawn("silence", tasks::silence::run(ingest, shutdown.clone())),
    ]
}

/// Waits on a task without taking it, so that it can still be aborted.
async fn ended(task: &Task<()>) {
    while !task.is_finished() {
        runtime::clock::sleep(Duration::from_millis(10)).await;
    }
}

/// As [`lock`], for those who may not wait in their thread.
async fn alone(data: &Path) -> Result<File> {
    let data = data.to_owned();
    task::blocking(move || lock(&data)).await?
}

/// Takes the data folder for this process; the system frees it when the process ends, however it ends. Waits a second
/// for one who has it.
///
/// # Errors
/// `STORE_BUSY` where another process has it, `CONFIG_INVALID` where it cannot be written to.
pub fn lock(data: &Path) -> Result<File> {
    let place = || format!("data folder {}", data.display());
    make_folder(data)?;
    files::warn_of_open_folder(data);
    let path = data.join("server.lock");
    let file = files::private(&path)
        .and_then(|()| File::create(&path))
        .map_err(|cause| Error::new(Code::ConfigInvalid, format!("cannot write in it: {cause}")))
        .map_err(|error| error.at(place()))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(cause)) => {
                return Err(Error::new(Code::StoreBusy, "cannot lock it")
                    .at(place())
                    .because(cause));
            }
        }
    }
    Err(Error::new(Code::StoreBusy, "another server runs on it").at(place()))
}

fn make_folder(data: &Path) -> Result<()> {
    files::folder(data)
        .map_err(|cause| Error::new(Code::ConfigInvalid, format!("cannot make it: {cause}")))
        .map_err(|error| error.at(format!("data folder {}", data.display())))
}

/// A new store is made; an older or newer one is refused by its opener.
fn prepare(config: &ServerConfig) -> Result<Site> {
    runtime::backup::refuse_pending(&config.data)?;
    let site = config.site()?;
    // A database is made ready by `malote server migrate`: whoever serves may not be the one who owns it.
    if let Site::File(path) = &site
        && sqlite::state(path)? == State::Empty
    {
        sqlite::migrate(path)?;
        tracing::info!(store = %site, "a new store was made");
    }
    Ok(site)
}

async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|cause| {
        let code = match cause.kind() {
            io::ErrorKind::AddrInUse => Code::AddressInUse,
            _ => Code::ConfigInvalid,
        };
        Error::new(code, format!("cannot listen on {address}: {cause}")).at(key).because(cause)
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().coded(Code::Internal, "a listener has no address")
}

#[cfg(test)]
pub(crate) mod fixture;
pub mod inside;
#[cfg(test)]
mod tests;
