//! Uplink: the cloud as the agent sees it: registry, token, entities, session, Write and Summary, reconcile.
//!
//! Promises: sends what the journal holds, as it is, in order, under the epoch it was granted; an outcome that is not
//! known is asked again with the same bytes; whatever goes wrong otherwise ends in one path: drop, Open, read again.
//! Never: reads the ERP or decides what is sent; sends after its lease may have lapsed.
//!
//! Rooms: `hosts` is the allow-list · `web` connects, `line` is what it connects by · `cloud` asks over HTTP · `rpc` calls over gRPC · `plan` follows
//! Entities · `session` holds the lease, `lease` keeps it alive · `sender` empties the spool · `decide` is the contract's table of answers ·
//! `rebuild` learns what is staged · `reconcile` asks it for verification · `fleet` reports and takes orders · `board`
//! tells people · `examine` looks the way over for a person.

mod board;
mod cloud;
mod decide;
pub mod examine;
mod fleet;
pub(crate) mod hosts;
mod lease;
mod line;
mod plan;
pub(crate) mod proxy;
mod rebuild;
mod reconcile;
mod rpc;
mod sender;
mod session;
mod web;

use std::{future::Future, sync::Arc, time::Duration};

use protocol::{Result, ids::ClientId, names::ErpName, proto::ingestion::DatabaseIdentity};
use runtime::shutdown::Shutdown;
use secrecy::SecretString;
use tokio::sync::Notify;

use crate::journal::Journal;

/// What uplink needs to know of the cloud and of itself.
#[derive(Clone, Debug)]
pub struct UplinkConfig {
    /// The one address typed by hand.
    pub registry_url: String,
    pub client_id: ClientId,
    pub client_secret: SecretString,
    pub erp: ErpName,
    /// Further hosts that the registry may name, as `host` or `host:port`; names below a host are meant with it.
    pub hosts: Vec<String>,
    /// Plain http and private addresses may be used (demo, tests, a server in the same building).
    pub allow_private: bool,
    /// What every call goes through.
    pub proxy: Option<proxy::Proxy>,
    /// A further root certificate, PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How often Entities is read: [`ENTITIES_EVERY`], or faster in demo and tests.
    pub entities_every: Duration,
    /// First pause before a table that was denied is tried again: [`DENIED_RETRY`], or shorter in tests.
    pub denied_retry: Duration,
    /// The lease is given back where nothing of the ERP database could be read for so long.
    pub source_away: Duration,
    /// Version of the agent, for people.
    pub agent_version: String,
}

/// How often Entities is read where nobody says otherwise.
pub const ENTITIES_EVERY: Duration = Duration::from_secs(30);
/// First pause before a denied table is tried again; it doubles up to [`DENIED_LONGEST`]. Each try that is denied costs
/// a batch, so it is not made often; a right that was given back tells nobody, so it is made.
pub const DENIED_RETRY: Duration = Duration::from_secs(60);
/// Longest pause between two tries of a denied table.
const DENIED_LONGEST: Duration = Duration::from_secs(15 * 60);

/// The ERP database as `Open` tells it; asked anew for each `Open`, since its log position moves.
#[derive(Clone, PartialEq, Debug)]
pub struct Identity {
    pub database: DatabaseIdentity,
    /// Version of the database, for people.
    pub version: String,
}

/// Runs until the drain, then ends the lease. `identity` asks the source; its errors are shown and asked again.
///
/// # Errors
/// Only what cannot be mended while running: the journal failed, or the configuration cannot be used.
pub async fn run<I, F>(
    journal: Journal,
    config: UplinkConfig,
    identity: I,
    shutdown: Shutdown,
) -> Result<()>
where
    I: Fn() -> F + Send + Sync + 'static,
    F: Future<Output = Result<Identity>> + Send + 'static,
{
    let cloud = Arc::new(cloud::Cloud::new(config.clone(), journal.clone())?);
    let board = Arc::new(board::Board::new(journal.clone()));
    let reread = Arc::new(Notify::new());
    let plan = plan::Plan {
        journal: journal.clone(),
        cloud: Arc::clone(&cloud),
        board: Arc::clone(&board),
        reread: Arc::clone(&reread),
        every: config.entities_every,
    };
    let plan = Box::pin(plan.follow(shutdown.clone()));
    let link = session::Link::new(
        session::Means { journal, cloud, board, reread, config, fleet: fleet::Fleet::default() },
        identity,
        shutdown,
    );
    tokio::select! {
        biased;
        result = Box::pin(link.run()) => result,
        // The plan ends with the drain; the link ends after it, once it gave its lease back.
        ended = async { plan.await; std::future::pending().await } => ended,
    }
}

#[cfg(test)]
mod tests;
