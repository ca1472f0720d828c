//! Demo: a small ERP, server and agent as they really run, an ERP day, and the proof that staging equals the source.
//!
//! Promises: exit code 0 only where every table agrees row by row and value by value; ends by itself.
//! Never: writes to a database it was given; leaves a file behind.

mod cloud;
mod direct;
mod erp;
mod progress;
mod run;
mod ship;
mod verdict;
mod verify;

use clap::Args;
use protocol::Result;
use runtime::{exit, shutdown, task, telemetry};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::lang::Lang;
use progress::{Phase, Progress};
use run::World;

/// `malote demo`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote demo
  malote demo --rows 1000 --json
  malote demo --source sqlite:erp.sqlite --once
  malote demo --source postgres://reader:password@host/erp

Exit code 0: equal; 3: different. MALOTE_LOG=info shows what server and agents log.")]
pub(crate) struct DemoCommand {
    /// Rows of the small ERP, spread over its tables.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=20_000_000))]
    rows: u64,
    /// Number the ERP's rows and its day are drawn from: the same seed, the same ERP.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep server and agent up afterwards, with addresses and credentials shown.
    #[arg(long)]
    stay: bool,
    /// Follow an existing database instead, read-only: sqlite:FILE or postgres://user:password@host/database.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// With --source: end after the base load was verified.
    #[arg(long, requires = "source")]
    once: bool,
    /// One JSON object a line on stdout: ready, leftOut, progress, step, difference, verified.
    #[arg(long)]
    json: bool,
}

impl DemoCommand {
    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        let level = runtime::config::variable("MALOTE_LOG").unwrap_or_else(|| "error".to_owned());
        telemetry::start(&level, telemetry::LogFormat::Auto);
        let (trigger, mut drain) = shutdown::channel();
        let signals = task::spawn("signals", shutdown::on_signal(trigger));
        let folder = run::folder()?;
        let mut show = Progress::new(lang, self.json);
        let world = match &self.source {
            Some(url) => World::of(url, folder.path()).await,
            None => World::own(&self, folder.path(), &show).await,
        };
        let result = match world {
            Ok(world) => {
                self.announce(&world, &show);
                world.tell_left_out(&show);
                let ended = tokio::select! {
                    ended = self.course(&world, &mut show) => ended.map(Some),
                    () = drain.draining() => Ok(None),
                };
                if self.follows_on() && matches!(ended, Ok(Some(_))) {
                    show.say("Following. Ctrl-C ends it.", "Acompanhando. Ctrl-C encerra.");
                    run::follow(&world, &drain, &mut show).await?;
                }
                let ended = ended.map(|code| code.unwrap_or(exit::INTERRUPTED));
                let stopped = world.stop().await;
                ended.and_then(|code| stopped.map(|()| code))
            }
            Err(error) => Err(error),
        };
        show.end();
        signals.abort();
        result
    }

    /// Server and agents stay up after the verdict until Ctrl-C.
    fn follows_on(&self) -> bool {
        self.stay || (self.source.is_some() && !self.once)
    }

    /// From the base load to the verdict.
    async fn course(&self, world: &World, show: &mut Progress) -> Result<u8> {
        let time = run::deadline(self.rows);
        show.say("Base load …", "Carga inicial …");
        let phase = if self.source.is_some() {
            Phase::BaseLoad
        } else {
            world.settle(Phase::BaseLoad, time, show).await?;
            show.say("A day in the ERP:", "Um dia no ERP:");
            run::play(world, show).await?;
            Phase::Day
        };
        let verdict = run::verdict(world, phase, time, show).await?;
        Ok(run::tell(&verdict, world.left_out.len(), show))
    }

    /// Addresses and credentials, for whoever wants to call along.
    fn announce(&self, world: &World, show: &Progress) {
        let cloud = &world.cloud;
        let grpc = cloud.app.grpc.to_string();
        let senders: Vec<Value> = world
            .ships
            .iter()
            .map(|ship| {
                json!({
                    "erp": ship.cargo.erp,
                    "clientId": ship.login.client_id,
                    "clientSecret": ship.login.secret.expose_secret(),
                    "admin": ship.admin.address,
                    "adminToken": ship.admin.token.expose_secret(),
                    "stagingFile": cloud.staging_file(&ship.cargo.erp),
                })
            })
            .collect();
        let mut ready = json!({
            "event": "ready",
            "registry": cloud.registry(),
            "http": cloud.app.addresses.http,
            "grpc": grpc,
            "tenantId": cloud.tenant,
            "environmentId": cloud.environment,
            "senders": senders,
        });
        // The first sender's credentials stand at the top as well: with one ERP there is nothing to choose.
        if let (Some(ready), Some(first)) = (ready.as_object_mut(), senders.first()) {
            for key in ["clientId", "clientSecret", "admin", "adminToken"] {
                ready.insert(key.to_owned(), first.get(key).cloned().unwrap_or_default());
            }
        }
        show.event(&ready);
        if self.stay {
            show_addresses(world, show, &grpc);
        }
    }
}

/// Where server, agents and staging are, and the credentials.
fn show_addresses(world: &World, show: &Progress, grpc: &str) {
    let cloud = &world.cloud;
    for (en, pt, value) in [
        ("registry", "registry", cloud.registry()),
        ("gRPC", "gRPC", grpc.to_owned()),
        ("tenant", "tenant", cloud.tenant.to_string()),
        ("environment", "ambiente", cloud.environment.to_string()),
    ] {
        show.say(format!("  {en:<12}  {value}"), format!("  {pt:<12}  {value}"));
    }
    for ship in &world.ships {
        let mut erp = ship.cargo.erp.as_str();
        for (en, pt, value) in [
            ("client id", "client id", ship.login.client_id.clone()),
            ("client secret", "client secret", ship.login.secret.expose_secret().to_owned()),
            ("agent's door", "porta do agente", ship.admin.address.clone()),
            ("its token", "token da porta", ship.admin.token.expose_secret().to_owned()),
            ("staging", "staging", cloud.staging_file(&ship.cargo.erp).display().to_string()),
        ] {
            show.say(
                format!("  {erp:<12}  {en:<13}  {value}"),
                format!("  {erp:<12}  {pt:<15}  {value}"),
            );
            erp = "";
        }
    }
}
