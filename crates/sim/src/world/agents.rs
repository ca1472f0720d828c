//! Agents: the agents of a world, as they start, crash and start again on the same journals.
//!
//! Promises: capture, journal and uplink are the real ones, wired as `agent::app` wires them; only the source is a
//! double. A process that ends by itself is started again, as its supervisor would.
//! Never: talks to the server past the network.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use agent::{
    app::{self, Room},
    capture::Worker,
    config::{AgentConfig, CaptureConfig, Deletes},
    journal::Journal,
    source::Source as _,
    uplink::{self, UplinkConfig},
};
use protocol::{Result, proto::ingestion::DatabaseIdentity};
use runtime::{clock, shutdown};

use super::{
    Sim,
    cloud::REGISTRY,
    here,
    machine::{Host, OUTSIDE},
};

/// An agent of a stream.
#[derive(Clone, Debug)]
pub struct Seat {
    pub stream: usize,
    pub data: PathBuf,
    pub running: bool,
    /// A copy of the first agent's machine, which runs at times.
    pub twin: bool,
}

/// All agents of a world, by host.
#[derive(Debug, Default)]
pub struct Agents(pub BTreeMap<Host, Seat>);

impl Agents {
    #[must_use]
    pub fn stream_of(&self, host: Host) -> Option<usize> {
        self.0.get(&host).map(|seat| seat.stream)
    }

    /// The twin, and whose copy it is.
    #[must_use]
    pub fn twin(&self) -> Option<(Host, Host)> {
        let twin = self.0.iter().find(|(_, seat)| seat.twin).map(|(host, _)| *host)?;
        let first = self.0.iter().find(|(_, seat)| !seat.twin).map(|(host, _)| *host)?;
        Some((twin, first))
    }

    /// All that are there from the begin on.
    #[must_use]
    pub fn own(&self) -> Vec<Host> {
        self.0.iter().filter(|(_, seat)| !seat.twin).map(|(host, _)| *host).collect()
    }

    #[must_use]
    pub fn hosts(&self) -> Vec<Host> {
        self.0.keys().copied().collect()
    }

    #[must_use]
    pub fn is_running(&self, host: Host) -> bool {
        self.0.get(&host).is_some_and(|seat| seat.running)
    }
}

/// Starts an agent's process on its host.
pub fn start(sim: &Sim, host: Host) {
    let seat = {
        let mut agents = sim.agents.borrow_mut();
        let Some(seat) = agents.0.get_mut(&host) else { return };
        seat.running = true;
        seat.clone()
    };
    sim.spawn(
        host,
        Box::pin(async move {
            let ended = process(seat).await;
            let sim = here();
            let words = match ended {
                Ok(()) => "ended".to_owned(),
                Err(error) => error.to_string(),
            };
            sim.tell(format!("the agent's process ends: {words}"));
            // From outside, since what is left of the process goes with it.
            sim.spawn(OUTSIDE, Box::pin(again(host)));
        }),
    );
}

/// The supervisor: what is left of the process is ended, and it is started again.
async fn again(host: Host) {
    stop(&here(), host);
    clock::sleep(Duration::from_secs(2)).await;
    let sim = here();
    let stays = sim.agents.borrow().own().contains(&host) || !sim.is_healing();
    if stays && !sim.agents.borrow().is_running(host) {
        start(&sim, host);
    }
}

/// Copies the first agent's machine as it is, with its journal; whoever ran there was ended before.
///
/// # Errors
/// What the copy meets.
pub fn copy(sim: &Sim) -> std::io::Result<()> {
    let agents = sim.agents.borrow();
    let Some((twin, first)) = agents.twin() else { return Ok(()) };
    let (Some(from), Some(to)) = (agents.0.get(&first), agents.0.get(&twin)) else { return Ok(()) };
    if to.data.exists() {
        std::fs::remove_dir_all(&to.data)?;
    }
    std::fs::create_dir_all(&to.data)?;
    for entry in std::fs::read_dir(&from.data)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            std::fs::copy(entry.path(), to.data.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Ends an agent's process without a word.
pub fn stop(sim: &Sim, host: Host) {
    sim.machine.crash(host);
    sim.cloud.borrow_mut().hang_up(host);
    if let Some(seat) = sim.agents.borrow_mut().0.get_mut(&host) {
        seat.running = false;
    }
}

async fn process(seat: Seat) -> Result<()> {
    let (journal, _) = Journal::open(&seat.data).await?;
    let (source, uplink, config) = {
        let sim = here();
        let source = Arc::new(sim.doubles[seat.stream].clone());
        (source, uplink_config(&sim, seat.stream)?, config(&sim, &seat))
    };
    let (trigger, drain) = shutdown::channel();
    let (_stop, shutdown) = shutdown::channel();
    let asked = Arc::clone(&source);
    let identity = move || {
        let source = Arc::clone(&asked);
        async move { source.identity().await.map(told) }
    };
    let erp = uplink.erp.clone();
    let sending = uplink::run(journal.clone(), uplink, identity, drain.clone());
    let reading = Worker::new(source, journal.clone(), Arc::new(config), erp, drain).run();
    let rooms = vec![("uplink", Box::pin(sending) as Room), ("capture", Box::pin(reading))];
    app::drive(&journal, trigger, rooms, shutdown).await
}

fn uplink_config(sim: &Sim, stream: usize) -> Result<UplinkConfig> {
    let tenant = sim.cloud.borrow().tenants[stream].clone();
    Ok(UplinkConfig {
        registry_url: REGISTRY.to_owned(),
        client_id: tenant.client,
        client_secret: tenant.secret.into(),
        erp: "RM".parse()?,
        hosts: Vec::new(),
        allow_private: true,
        proxy: None,
        ca_pem: None,
        entities_every: Duration::from_secs(30),
        denied_retry: uplink::DENIED_RETRY,
        source_away: protocol::limits::SOURCE_AWAY,
        agent_version: "world".to_owned(),
    })
}

fn config(sim: &Sim, seat: &Seat) -> AgentConfig {
    let capture = CaptureConfig {
        cycle_seconds: sim.plan.agent.cycle,
        key_scan_seconds: sim.plan.agent.key_scan,
        duty_percent: 100,
        // Nobody is there to confirm.
        deletes: Deletes::Always,
        ..CaptureConfig::default()
    };
    AgentConfig { data: seat.data.clone(), capture, ..AgentConfig::default() }
}

fn told(identity: agent::source::Identity) -> uplink::Identity {
    let database = DatabaseIdentity {
        kind: identity.kind.to_owned(),
        facts: identity.facts.into_iter().collect(),
        position: identity.position,
    };
    uplink::Identity { database, version: identity.version }
}
