//! Stage: server and agent as the processes that users run, in a folder of their own.
//!
//! Promises: both end with the stage.

use std::{fmt::Write as _, fs, path::Path, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::clock::{self, Mono};
use sim::{
    process::{self, Process},
    servers,
};

use super::{
    cores::{self, Halves},
    line::Line,
    measure::{counter, talk},
};

/// Cycle of the agent, the least that can be set.
pub(crate) const CYCLE: u64 = 1;
/// How often the server is asked how far it is.
const LOOK: Duration = Duration::from_millis(25);
/// How long nothing may move before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How hard an agent reads, and what stands on a machine of its own.
#[derive(Clone, Copy)]
pub(crate) struct Gait<'a> {
    pub(crate) cycle_seconds: u64,
    pub(crate) duty_percent: u32,
    pub(crate) apart: Apart,
    /// The server's store, where it is no file.
    pub(crate) store: Option<&'a str>,
}

impl Gait<'_> {
    /// As hard as can be, all on one machine.
    pub(crate) const HARD: Self =
        Self { cycle_seconds: CYCLE, duty_percent: 100, apart: Apart::Nothing, store: None };
}

/// What has cores and a disk of its own, as far as one machine can show that.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    Nothing,
    Server(Halves),
    /// The agent shares the ERP's cores, and writes elsewhere.
    ServerAndJournal(Halves),
    ServerAndAgent(Halves),
}

/// A server in a folder of its own.
pub(crate) struct Cloud {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) http: u16,
    pub(crate) grpc: u16,
    pub(crate) server: Process,
    web: reqwest::Client,
}

/// Client id and secret of one stream.
pub(crate) struct Credentials {
    pub(crate) id: String,
    pub(crate) secret: String,
}

/// Server and agent.
pub(crate) struct Stage {
    pub(crate) cloud: Cloud,
    pub(crate) agent: Process,
    admin: u16,
    /// Where the agent's data are, if it stands beside the ERP and the server does not.
    _near: tempfile::TempDir,
    /// What agent and server talk over, where the way is long.
    _lines: Vec<Line>,
}

impl Cloud {
    /// Makes the streams, each with those tables, and starts the server, which publishes these ports (HTTP, gRPC)
    /// or else its own. Its store is a file, or that database.
    pub(crate) fn start(
        (folder, http, grpc): (tempfile::TempDir, u16, u16),
        published: Option<(u16, u16)>,
        (streams, tables): (&[String], &[String]),
        store: Option<&str>,
    ) -> Result<(Self, Vec<Credentials>)> {
        let mut text = format!(
            "data = 'server-data'\nhttp_listen = '127.0.0.1:{http}'\ngrpc_listen = '127.0.0.1:{grpc}'\nallow_private = true\n"
        );
        if let Some((http, grpc)) = published {
            let _ = write!(
                text,
                "public_http = 'http://127.0.0.1:{http}'\npublic_grpc = 'http://127.0.0.1:{grpc}'\n"
            );
        }
        if let Some(url) = store {
            let _ = write!(text, "[store]\nurl = '{url}'\n");
        }
        keep(folder.path(), "server.toml", &text)?;
        if store.is_some() {
            process::command(folder.path(), &["server", "migrate", "--config", "server.toml"])?;
        }
        let made = streams.iter().map(|erp| setup(folder.path(), erp, tables));
        let made = made.collect::<Result<Vec<_>>>()?;
        let server = run(folder.path(), "server")?;
        let web = reqwest::Client::new();
        Ok((Self { folder, http, grpc, server, web }, made))
    }

    /// The text of `/metrics`; empty while the server does not answer.
    pub(crate) async fn metrics(&self) -> String {
        metrics(&self.web, self.http).await
    }

    /// Waits until so many rows were staged since the server's start.
    pub(crate) async fn staged(&self, rows: u64) -> Result<()> {
        let (mut last, mut moved) = (0, Mono::now());
        loop {
            let now = counter(&self.metrics().await, "malote_rows_staged_total");
            if now >= rows {
                return Ok(());
            }
            if now != last {
                (last, moved) = (now, Mono::now());
            }
            if moved.elapsed() > PATIENCE {
                let log = |name: &str| fs::read_to_string(self.folder.path().join(name));
                talk(&log("server.log").unwrap_or_default());
                talk(&log("agent.log").unwrap_or_default());
                let words = format!("{now} of {rows} rows are staged and nothing moves");
                return Err(Error::new(Code::Timeout, words));
            }
            clock::sleep(LOOK).await;
        }
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.server.stop(Duration::from_secs(60)).await.map(|_| ())
    }
}

impl Stage {
    /// Follows tables of that database by their column `changed_at`; with a round trip the way to the cloud is that
    /// long, also where it is zero.
    pub(crate) async fn start(
        source: &str,
        tables: &[String],
        round_trip: Option<Duration>,
    ) -> Result<Self> {
        Self::start_at(source, tables, round_trip, Gait::HARD).await
    }

    /// As [`Stage::start`], reading as hard as that.
    pub(crate) async fn start_at(
        source: &str,
        tables: &[String],
        round_trip: Option<Duration>,
        Gait { cycle_seconds, duty_percent, apart, store }: Gait<'_>,
    ) -> Result<Self> {
        let near = folder(None)?;
        let (folder, http, grpc) = place_on((apart != Apart::Nothing).then_some(cores::MEMORY))?;
        let mut lines = Vec::new();
        if let Some(time) = round_trip {
            lines = vec![Line::to(http, time).await?, Line::to(grpc, time).await?];
        }
        let published = match lines.as_slice() {
            [http, grpc] => Some((http.port, grpc.port)),
            _ => None,
        };
        let streams = ["BENCH".to_owned()];
        let (cloud, made) =
            Cloud::start((folder, http, grpc), published, (&streams, tables), store)?;
        let registry = published.map_or(http, |(http, _)| http);
        let admin = servers::free_port()?;
        let Some(Credentials { id, secret }) = made.first() else {
            return Err(Error::new(Code::Internal, "no credentials were made"));
        };
        let data = match apart {
            Apart::Server(_) => near.path().join("agent-data"),
            Apart::Nothing | Apart::ServerAndJournal(_) | Apart::ServerAndAgent(_) => {
                "agent-data".into()
            }
        };
        let mut text = format!(
            "data = '{}'\n[cloud]\nregistry = 'http://127.0.0.1:{registry}'\nclient_id = '{id}'\nclient_secret = '{secret}'\n\
             allow_private = true\n[source]\nurl = '{source}'\nprofile = 'generic'\nerp = 'BENCH'\n\
             [capture]\ncycle_seconds = {cycle_seconds}\nduty_percent = {duty_percent}\n[admin]\nlisten = '127.0.0.1:{admin}'\n",
            data.display(),
        );
        for table in tables {
            let _ = writeln!(text, "[tables.{table}]\nstamp = 'changed_at'");
        }
        keep(cloud.folder.path(), "agent.toml", &text)?;
        let agent = run(cloud.folder.path(), "agent")?;
        match apart {
            Apart::Nothing => {}
            Apart::Server(halves) | Apart::ServerAndJournal(halves) => {
                halves.give_the_other(cloud.server.id())?;
            }
            Apart::ServerAndAgent(halves) => {
                halves.give_the_other(cloud.server.id())?;
                halves.give_the_other(agent.id())?;
            }
        }
        Ok(Self { cloud, agent, admin, _near: near, _lines: lines })
    }

    /// Cycles the agent has read.
    pub(crate) async fn cycles(&self) -> u64 {
        counter(&metrics(&self.cloud.web, self.admin).await, "malote_agent_cycles_total")
    }

    pub(crate) async fn stop(mut self) -> Result<()> {
        self.agent.stop(Duration::from_secs(20)).await?;
        self.cloud.stop().await
    }
}

/// A new folder with two ports that are free now.
pub(crate) fn place() -> Result<(tempfile::TempDir, u16, u16)> {
    place_on(None)
}

/// As [`place`], on that disk.
fn place_on(disk: Option<&str>) -> Result<(tempfile::TempDir, u16, u16)> {
    Ok((folder(disk)?, servers::free_port()?, servers::free_port()?))
}

fn folder(disk: Option<&str>) -> Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("malote-bench-");
    let made = disk.map_or_else(|| builder.tempdir(), |disk| builder.tempdir_in(disk));
    made.coded(Code::Internal, "no folder")
}

fn setup(folder: &Path, erp: &str, tables: &[String]) -> Result<Credentials> {
    let tables = tables.join(",");
    let words = ["server", "setup", "--tenant", "Bench", "--erp", erp, "--tables", &tables];
    let mut words = words.to_vec();
    words.extend(["--json", "--config", "server.toml"]);
    let made = process::command(folder, &words)?;
    let made: serde_json::Value =
        serde_json::from_str(&made).coded(Code::Internal, "setup says no JSON")?;
    let word = |key: &str| made[key].as_str().unwrap_or_default().to_owned();
    Ok(Credentials { id: word("clientId"), secret: word("clientSecret") })
}

fn keep(folder: &Path, name: &str, text: &str) -> Result<()> {
    fs::write(folder.join(name), text).coded(Code::Internal, "cannot write")
}

fn run(folder: &Path, name: &str) -> Result<Process> {
    let log = folder.join(format!("{name}.log"));
    let file = format!("{name}.toml");
    Process::start(folder, &log, &[name, "run", "--config", &file])
}

async fn metrics(web: &reqwest::Client, port: u16) -> String {
    match web.get(format!("http://127.0.0.1:{port}/metrics")).send().await {
        Ok(answer) => answer.text().await.unwrap_or_default(),
        Err(_) => String::new(),
    }
}
