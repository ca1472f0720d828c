//! Ship: one ERP on its way: the agent that sends it, the source as `verify` reads it, and where it arrives.
//!
//! Promises: the agent is the one that `malote agent run` runs; a ship that is stopped has released its session.
//! Never: looks into the agent's journal.

use std::{net::SocketAddr, path::Path, time::Duration};

use agent::{
    admin::{Status, client::Client},
    config::{AgentConfig, CaptureConfig, CloudConfig, Deletes, ProfileName, SourceConfig},
    journal::TableStatus,
    source::{AnySource, Source as _, TableShape, TableSpec},
};
use protocol::{
    Code, Error, Result,
    names::{ErpName, TableName},
};
use runtime::{
    clock::{self, Mono},
    shutdown::{self, Trigger},
    task::{self, Task},
};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    cloud::{Cloud, Login, Standing},
    erp,
};

/// Time between two cycles of the demo's agents: the least that can be set.
pub(crate) const CYCLE: Duration = Duration::from_secs(1);

/// How long an agent may take to open its door.
const START: Duration = Duration::from_secs(30);

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
        // A file that is only followed is not locked either.
        let reads_only = url.starts_with("sqlite:") && !url.contains('?');
        let url = if reads_only { format!("{url}?mode=ro") } else { url.to_owned() };
        let profile = ProfileName::Generic;
        Ok(Self { erp: "GENERIC".parse()?, url, profile, deletes: Deletes::Capped })
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
                ..CaptureConfig::default()
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
    pub(crate) left_out: Vec<(TableName, Error)>,
}

/// Describes the tables; those without a key, or unreadable ones, are left out with their reason.
pub(crate) async fn look(source: &AnySource, tables: Vec<TableName>) -> Result<Found> {
    let mut found = Found { shapes: Vec::new(), left_out: Vec::new() };
    for wire in tables {
        let spec = TableSpec::of(wire.clone());
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
    pub(crate) admin: AdminDoor,
    trigger: Trigger,
    task: Task<Result<()>>,
}

/// The agent's admin door, as its own command line finds it.
pub(crate) struct AdminDoor {
    pub(crate) address: String,
    pub(crate) token: SecretString,
    client: Client,
}

impl AdminDoor {
    /// Waits until the agent has opened it.
    async fn wait(data: &Path, agent: &Task<Result<()>>) -> Result<Self> {
        let begun = Mono::now();
        loop {
            let read = |name: &str| {
                std::fs::read_to_string(data.join(name)).ok().filter(|text| !text.is_empty())
            };
            if let (Some(address), Some(token)) = (read("admin.address"), read("admin.token")) {
                let client = Client::open(data, SocketAddr::from(([127, 0, 0, 1], 0)))?;
                let token = token.trim().to_owned().into();
                return Ok(Self { address: format!("http://{}", address.trim()), token, client });
            }
            if agent.is_finished() || begun.elapsed() > START {
                return Err(Error::new(
                    Code::Unavailable,
                    "the agent did not start; MALOTE_LOG=info tells more",
                ));
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Ship {
    /// Starts the agent of one ERP.
    pub(crate) async fn launch(
        cargo: Cargo,
        cloud: &Cloud,
        login: Login,
        (source, shapes): (AnySource, Vec<TableShape>),
        folder: &Path,
    ) -> Result<Self> {
        let data = folder.join(format!("agent-{}", cargo.erp.as_str().to_ascii_lowercase()));
        let config = cargo.config(cloud, &login, &data);
        let (trigger, drain) = shutdown::channel();
        let erp = cargo.erp.clone();
        let task = task::spawn("agent", async move {
            let ended = Box::pin(agent::app::run(config, drain)).await;
            if let Err(error) = &ended {
                tracing::error!(%erp, code = %error.code, cause = error.cause(), "{}", error.message);
            }
            ended
        });
        let admin = AdminDoor::wait(&data, &task).await?;
        Ok(Self { cargo, login, source, shapes, admin, trigger, task })
    }

    /// Where it stands now.
    pub(crate) async fn state(&self, cloud: &Cloud) -> Result<State> {
        if self.task.is_finished() {
            // An agent goes on by itself through whatever happens to it; an end is a fault.
            return Err(Error::new(
                Code::Internal,
                format!("the agent of {} has ended; see the log", self.cargo.erp),
            ));
        }
        let standing = cloud.standing(&self.login.place).await?;
        let mut waiting = self.tables_under_way(&self.admin.client.status().await?);
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

    /// Tables that are not where they shall be; a parked one is: it waits for a person, and the comparison tells.
    fn tables_under_way(&self, status: &Status) -> Vec<String> {
        let erp = &self.cargo.erp;
        let under_way = |shape: &TableShape| {
            let found = status.tables.iter().find(|found| found.table == shape.wire);
            match found.map(|found| found.state.as_str()) {
                Some("STREAMING" | "PARKED") => None,
                Some(state) => Some(format!("{erp}: {} is in {state}", shape.wire)),
                None => Some(format!("{erp}: {} is not begun", shape.wire)),
            }
        };
        self.shapes.iter().filter_map(under_way).collect()
    }

    /// Tables that the agent parked, with code and words.
    pub(crate) async fn parked(&self) -> Result<Vec<(TableName, String)>> {
        let status = self.admin.client.status().await?;
        let told = |table: TableStatus| {
            table.parked.map(|(code, words)| (table.table, format!("{code}: {words}")))
        };
        let refused = status
            .parked
            .into_iter()
            .map(|(table, (code, words))| (table, format!("{code}: {words}")));
        Ok(status.tables.into_iter().filter_map(told).chain(refused).collect())
    }

    /// Drains the agent and waits for its end.
    pub(crate) async fn stop(self) -> Result<()> {
        self.trigger.drain();
        self.task.join().await?
    }
}
