//! Ship: one ERP on its way: the agent that sends it, the source as `verify` reads it, and where it arrives.
//!
//! Promises: the agent is the one that `malote agent run` runs; a ship that is stopped has released its session.
//! Never: looks into the agent's journal.

use std::{net::SocketAddr, path::Path, time::Duration};

use agent::{
    config::{AgentConfig, CaptureConfig, CloudConfig, Deletes, ProfileName, SourceConfig},
    source::{AnySource, Source as _, TableShape, TableSpec},
};
use protocol::{
    Result,
    names::{ErpName, TableName},
};
use runtime::{
    shutdown::{self, Trigger},
    task::{self, Task},
};
use secrecy::ExposeSecret as _;

use super::{
    cloud::{Cloud, Login, Standing},
    erp,
};

/// Time between two cycles of the demo's agents: the least that can be set.
pub(crate) const CYCLE: Duration = Duration::from_secs(1);

/// An ERP database and what its tables mean.
#[derive(Clone, Debug)]
pub(crate) struct Cargo {
    pub(crate) erp: ErpName,
    pub(crate) url: String,
    pub(crate) profile: ProfileName,
    /// The demo's own ERP may lose any number of rows; somebody's database is capped as usual.
    pub(crate) deletes: Deletes,
}

impl Cargo {
    pub(crate) fn of(kind: erp::Kind, path: &Path) -> Result<Self> {
        let profile = match kind {
            erp::Kind::Rm => ProfileName::Rm,
            erp::Kind::Protheus => ProfileName::Protheus,
        };
        let url = format!("sqlite:{}", path.display());
        Ok(Self { erp: kind.erp().parse()?, url, profile, deletes: Deletes::Always })
    }

    pub(crate) fn generic(url: &str) -> Result<Self> {
        let profile = ProfileName::Generic;
        Ok(Self { erp: "GENERIC".parse()?, url: url.to_owned(), profile, deletes: Deletes::Capped })
    }

    /// The database through a connection of its own.
    pub(crate) fn connect(&self) -> Result<AnySource> {
        agent::app::connect(&self.source())
    }

    fn source(&self) -> SourceConfig {
        SourceConfig {
            url: self.url.clone().into(),
            profile: self.profile,
            erp: Some(self.erp.clone()),
            company_group: erp::COMPANY_GROUP.to_owned(),
            company_characters: erp::LAYOUT.0,
            unity_characters: erp::LAYOUT.1,
            ..SourceConfig::default()
        }
    }

    fn config(&self, cloud: &Cloud, login: &Login, data: &Path) -> AgentConfig {
        AgentConfig {
            data: data.to_owned(),
            cloud: CloudConfig {
                registry: cloud.registry(),
                client_id: login.client_id.clone(),
                client_secret: Some(login.secret.expose_secret().to_owned().into()),
                allow_private: true,
                ..CloudConfig::default()
            },
            source: self.source(),
            capture: CaptureConfig {
                cycle_seconds: CYCLE.as_secs(),
                key_scan_seconds: CYCLE.as_secs(),
                duty_percent: 100,
                deletes: self.deletes,
            },
            admin: agent::config::AdminConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)) },
            ..AgentConfig::default()
        }
    }
}

/// What a look at the source found.
pub(crate) struct Found {
    pub(crate) shapes: Vec<TableShape>,
    /// Tables that cannot be shared, with the reason.
    pub(crate) left_out: Vec<(TableName, protocol::Error)>,
}

/// Describes the tables; those without a key, or unreadable ones, are left out with their reason.
pub(crate) async fn look(source: &AnySource, tables: Vec<TableName>) -> Result<Found> {
    let mut found = Found { shapes: Vec::new(), left_out: Vec::new() };
    for wire in tables {
        let spec = TableSpec {
            wire: wire.clone(),
            key: None,
            stamp: None,
            no_stamp: false,
            soft_delete: None,
            types: Vec::new(),
            allowance: None,
        };
        match source.describe(&spec).await {
            Ok(shape) => found.shapes.push(shape),
            Err(error) if error.is_transient() => return Err(error),
            Err(error) => found.left_out.push((wire, error)),
        }
    }
    Ok(found)
}

/// Where a ship stands; `waiting` is what keeps it from being quiet, in words.
pub(crate) struct State {
    pub(crate) standing: Standing,
    pub(crate) waiting: Vec<String>,
}

pub(crate) struct Ship {
    pub(crate) cargo: Cargo,
    pub(crate) login: Login,
    pub(crate) source: AnySource,
    pub(crate) shapes: Vec<TableShape>,
    /// Data folder of the agent.
    data: std::path::PathBuf,
    trigger: Trigger,
    task: Task<Result<()>>,
}

impl Ship {
    /// Starts the agent of one ERP.
    pub(crate) fn launch(
        cargo: Cargo,
        cloud: &Cloud,
        login: Login,
        (source, shapes): (AnySource, Vec<TableShape>),
        folder: &Path,
    ) -> Self {
        let data = folder.join(format!("agent-{}", cargo.erp.as_str().to_ascii_lowercase()));
        let config = cargo.config(cloud, &login, &data);
        let (trigger, drain) = shutdown::channel();
        let task =
            task::spawn("agent", async move { Box::pin(agent::app::run(config, drain)).await });
        Self { cargo, login, source, shapes, data, trigger, task }
    }

    /// Where it stands now.
    pub(crate) async fn state(&self, cloud: &Cloud) -> Result<State> {
        let standing = cloud.standing(&self.login.place).await?;
        let mut waiting = Vec::new();
        if self.task.is_finished() {
            // An agent goes on by itself through whatever happens to it; an end is a fault.
            waiting.push(format!("the agent of {} has ended", self.cargo.erp));
        }
        if standing.is_open {
            waiting.push(format!("{}: a batch is open", self.cargo.erp));
        }
        if standing.last.0 == 0 {
            waiting.push(format!("{}: no batch is complete yet", self.cargo.erp));
        }
        if standing.applied < standing.accepted {
            waiting.push(format!("{}: staging is behind the ledger", self.cargo.erp));
        }
        Ok(State { standing, waiting })
    }

    /// Drains the agent and waits for its end.
    pub(crate) async fn stop(self) -> Result<()> {
        self.trigger.drain();
        self.task.join().await?
    }
}
