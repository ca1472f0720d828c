//! Cloud: the one server of a world, as it starts, crashes and starts again on the same files.
//!
//! Promises: the real services, gates and reconcilers; a crash drops them between two steps, and what was committed is
//! there afterwards.
//! Never: answers while it is down.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use protocol::{Error, Result, ids::ClientId};
use server::{
    app::inside::{Inside, Peer},
    config::{Addresses, ServerConfig},
    model::catalog::{EnvironmentType, Holder, Place},
    service::catalog::NewEntity,
};

use super::{Sim, erp::TABLES, here, machine::Host};

/// Where the registry is.
pub const REGISTRY: &str = "http://cloud.example:7480/api/v1/services";

/// What a tenant's agents are set up with.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub place: Place,
    pub client: ClientId,
    pub secret: String,
}

/// The server's side of a world.
#[derive(Debug)]
pub struct Cloud {
    pub host: Host,
    pub data: PathBuf,
    pub tenants: Vec<Tenant>,
    running: Option<Inside>,
    /// Connections of agents, by host.
    peers: BTreeMap<Host, Peer>,
}

impl Cloud {
    #[must_use]
    pub fn new(host: Host, data: PathBuf) -> Self {
        Self { host, data, tenants: Vec::new(), running: None, peers: BTreeMap::new() }
    }

    /// An agent's process ended, and its connections with it.
    pub fn hang_up(&mut self, host: Host) {
        self.peers.remove(&host);
    }

    #[must_use]
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }
}

/// The connection of a host; `None` while the server is down.
pub(super) fn peer(sim: &Sim, from: Host) -> Option<Peer> {
    let mut cloud = sim.cloud.borrow_mut();
    if let Some(peer) = cloud.peers.get(&from) {
        return Some(peer.clone());
    }
    let peer = cloud.running.as_ref()?.connect().ok()?;
    cloud.peers.insert(from, peer.clone());
    Some(peer)
}

/// Starts the server on its files. Runs on its host.
///
/// # Errors
/// What keeps it from starting.
pub async fn start() -> Result<()> {
    let config = config();
    let addresses = Addresses {
        http: "http://cloud.example:7480".to_owned(),
        grpc: "http://cloud.example:7481".to_owned(),
    };
    let inside = Inside::start(&config, &addresses).await?;
    let sim = here();
    sim.tell("the server is up".to_owned());
    sim.cloud.borrow_mut().running = Some(inside);
    Ok(())
}

fn config() -> ServerConfig {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    ServerConfig {
        data: here().cloud.borrow().data.clone(),
        http_listen: free,
        grpc_listen: free,
        allow_private: true,
        ..ServerConfig::default()
    }
}

/// Ends the server without a word.
pub fn crash(sim: &Sim) {
    sim.tell("the server crashes".to_owned());
    let host = sim.cloud.borrow().host;
    sim.machine.crash(host);
    let gone = {
        let mut cloud = sim.cloud.borrow_mut();
        (cloud.running.take(), std::mem::take(&mut cloud.peers))
    };
    drop(gone);
    sim.check.borrow_mut().close();
}

/// Starts the server again, until it is up.
pub fn restart(sim: &Sim) {
    let host = sim.cloud.borrow().host;
    sim.spawn(
        host,
        Box::pin(async {
            while let Err(error) = start().await {
                here().tell(format!("the server does not start: {error}"));
                runtime::clock::sleep(std::time::Duration::from_secs(1)).await;
            }
            here().check.borrow_mut().all_is_stored();
        }),
    );
}

/// Sets up a tenant for each stream.
///
/// # Errors
/// The services' own.
pub async fn set_up(count: usize) -> Result<()> {
    for at in 0..count {
        let services = {
            let sim = here();
            let cloud = sim.cloud.borrow();
            cloud.running.as_ref().map(|inside| inside.services.clone())
        };
        let services = services.ok_or_else(|| {
            Error::new(protocol::Code::Internal, "the server of the world is not up")
        })?;
        let catalog = &services.catalog;
        let tenant = catalog.create_tenant(&format!("tenant{at}")).await?;
        let environment =
            catalog.create_environment(tenant.id, "prod", EnvironmentType::Production).await?;
        let erp = "RM".parse()?;
        let installation =
            catalog.create_installation(tenant.id, "rm", erp, Some(environment.id)).await?;
        let place = catalog.place(tenant.id, "", "").await?;
        let mut entities = Vec::new();
        for table in TABLES {
            entities.push(NewEntity { table: table.parse()?, filter: None, is_custom: false });
        }
        catalog.add_entities(&place, entities).await?;
        let holder = Holder::Installation(installation.id);
        let new = services.access.create_credential(tenant.id, holder).await?;
        let secret = new.reveal().to_owned();
        let made = Tenant { place, client: new.credential.client.clone(), secret };
        here().cloud.borrow_mut().tenants.push(made);
    }
    Ok(())
}

/// An operator asks for a reload of everything.
///
/// # Errors
/// The services' own; none where the server is down, since nobody can ask then.
pub async fn reload(stream: usize) -> Result<()> {
    let asked = {
        let sim = here();
        let cloud = sim.cloud.borrow();
        let services = cloud.running.as_ref().map(|inside| inside.services.clone());
        services.zip(cloud.tenants.get(stream).map(|tenant| tenant.place.clone()))
    };
    if let Some((services, place)) = asked {
        services.catalog.reload(&place, None, false).await?;
    }
    Ok(())
}

/// A person who sees that two processes are one agent, and has ended one of them, ends the session.
///
/// # Errors
/// The services' own; none where the server is down. `true` = it was seen that nothing waits for a person any more.
pub async fn decide(stream: usize) -> Result<bool> {
    let asked = {
        let sim = here();
        let cloud = sim.cloud.borrow();
        let services = cloud.running.as_ref().map(|inside| inside.services.clone());
        services.zip(cloud.tenants.get(stream).map(|tenant| tenant.place.clone()))
    };
    let Some((services, place)) = asked else { return Ok(false) };
    let streams = services.overview.streams(place.tenant).await?;
    if streams.iter().any(|seen| seen.erp == place.erp && seen.disputed) {
        here().tell(format!("a person ends the session of stream {stream}"));
        services.overview.release(place).await?;
    }
    Ok(true)
}
