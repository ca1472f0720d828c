//! `malote server`: runs the cloud side, and sets it up. The store may be in use by a running server meanwhile.
//!
//! Promises: stdout is data, as a table or, with `--json`, one object a line; ids and names are taken alike where they
//! are unambiguous; a secret is shown once, when it is made.
//! Never: decides; the services do.

mod admin;
mod alert;
mod analyst;
mod backup;
mod carol;
mod catalog;
mod copy;
mod entity;
mod fleet;
mod key;
mod lists;
mod migrate;
mod quarantine;
mod retention;
mod setup;
mod staging;
mod watch;
mod webhook;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result};
use runtime::{exit, shutdown, telemetry};
use server::{
    app,
    config::ServerConfig,
    model::catalog::{Page, Place, Tenant},
    service::Services,
    store::Site,
};

use crate::{lang::Lang, out};
use lists::Form;

/// `malote server`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server setup --config server.toml --tenant Acme --erp RM --tables FCFO,FLAN
  malote server run --config server.toml
  malote server staging list --config server.toml
  malote server batches list --config server.toml --json

--tenant, --environment and --erp may be left out where there is one.")]
pub(crate) struct ServerCommand {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    noun: ServerNoun,
}

/// What every command of the server takes.
#[derive(Debug, Args)]
struct Shared {
    /// Configuration file (server.toml); each key also as MALOTE_SERVER_… in the environment.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; wins over the configuration.
    #[arg(long, global = true, value_name = "FOLDER")]
    data: Option<PathBuf>,
    /// One JSON object a line on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum ServerNoun {
    /// Run the server until SIGTERM or Ctrl-C.
    Run {
        /// Print the configuration in force and end.
        #[arg(long)]
        dump_config: bool,
    },
    /// Bring the store to this program's schema; stop the server first.
    Migrate(migrate::Migrate),
    /// Print the configuration in force.
    Config {
        /// Print the defaults instead, as a file to begin with.
        #[arg(long)]
        defaults: bool,
    },
    /// Copy store and staging into a folder, beside a running server.
    Backup(backup::BackupArgs),
    /// Put a backup in the place of what the data folder holds; stop the server first.
    Restore(backup::RestoreArgs),
    /// Copy the store of the data folder into the database of store.url; stop the server first.
    CopyStore(copy::CopyArgs),
    /// Make tenant, environment, installation, tables and credentials in one go; what is there is used.
    Setup(setup::Setup),
    /// Customers.
    #[command(subcommand)]
    Tenant(catalog::TenantCommand),
    /// Products of the platform that a tenant has.
    #[command(subcommand)]
    App(catalog::AppCommand),
    /// Workspaces of a tenant.
    #[command(subcommand)]
    Environment(catalog::EnvironmentCommand),
    /// ERP set-ups and their tie to an environment.
    #[command(subcommand)]
    Installation(catalog::InstallationCommand),
    /// Client ids and secrets.
    #[command(subcommand)]
    Credential(catalog::CredentialCommand),
    /// With which credentials a tenant's senders reach Carol.
    #[command(subcommand)]
    Carol(carol::CarolCommand),
    /// Tables to be shared.
    #[command(subcommand)]
    Entity(entity::EntityCommand),
    /// Ask for a table to be sent again whole.
    Reload(entity::Reload),
    /// Keys that sign senders' tokens.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Who may administer over the network.
    #[command(subcommand)]
    Admin(admin::AdminCommand),
    /// What administrators did.
    #[command(subcommand)]
    Audit(admin::AuditCommand),
    /// Who sends, and what waits for a decision.
    #[command(subcommand)]
    Session(watch::SessionCommand),
    /// Agents, their tables, and orders to them.
    #[command(subcommand)]
    Fleet(fleet::FleetCommand),
    /// Batches and their messages.
    #[command(subcommand)]
    Batches(watch::BatchesCommand),
    /// Staged tables, their rows and what stands in quarantine.
    #[command(subcommand)]
    Staging(staging::StagingCommand),
    /// Rows that could not be staged: look, try again, give up.
    #[command(subcommand)]
    Quarantine(quarantine::QuarantineCommand),
    /// Remove what is past the days it is kept.
    #[command(subcommand)]
    Retention(retention::RetentionCommand),
    /// What is wrong, and where people are told of it.
    #[command(subcommand)]
    Alert(alert::AlertCommand),
    /// Where consumers are told of batches, and how each telling stands.
    #[command(subcommand)]
    Webhook(webhook::WebhookCommand),
}

/// The tenant a command is about.
#[derive(Debug, Args)]
struct OfTenant {
    /// Tenant, by id or name; may be left out where there is one.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID|NAME")]
    tenant: String,
}

/// The environment and ERP a command is about.
#[derive(Debug, Args)]
struct OfPlace {
    #[command(flatten)]
    of: OfTenant,
    /// Environment, by id or name; may be left out where there is one.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ID|NAME")]
    environment: String,
    /// RM, PROTHEUS, DATASUL, LOGIX or another; may be left out where the environment has one.
    #[arg(long, default_value = "", hide_default_value = true)]
    erp: String,
}

/// Which part of a list.
#[derive(Debug, Args)]
struct Paging {
    /// At most this many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on behind this one (the first column of the last line).
    #[arg(long, default_value = "", hide_default_value = true, value_name = "LAST")]
    after: String,
    /// Only what holds this in its name.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "PART")]
    search: String,
}

/// Which part of a list of rows; rows have no name to search.
#[derive(Debug, Args)]
struct RowPaging {
    /// At most this many.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// Go on behind this row (the first column of the last line).
    #[arg(long, default_value = "", hide_default_value = true, value_name = "ROW")]
    after: String,
}

impl RowPaging {
    fn page(&self) -> Page {
        Page { after: self.after.clone(), limit: self.limit, ..Page::default() }
    }
}

impl Paging {
    fn page(&self) -> Page {
        Page { after: self.after.clone(), limit: self.limit, search: self.search.clone() }
    }
}

impl OfTenant {
    async fn find(&self, services: &Services) -> Result<Tenant> {
        services.catalog.tenant(&self.tenant).await
    }
}

impl OfPlace {
    async fn find(&self, services: &Services) -> Result<Place> {
        let tenant = self.of.find(services).await?;
        services.catalog.place(tenant.id, &self.environment, &self.erp).await
    }
}

impl ServerNoun {
    /// May make the store; any other command in a wrong folder would leave an empty one there.
    fn begins(&self) -> bool {
        matches!(self, Self::Setup(_) | Self::Tenant(catalog::TenantCommand::Create { .. }))
    }
}

fn must_be_there(config: &ServerConfig, lang: Lang) -> Result<()> {
    // A database that has no store yet is told by its schema.
    let Site::File(store) = config.site()? else { return Ok(()) };
    // A folder that may not be looked into is no missing store.
    let cannot = || format!("cannot look for the store {}", store.display());
    if store.try_exists().coded(Code::StoreFailed, cannot())? {
        return Ok(());
    }
    let store = store.display();
    let words = lang.pick(
        format!(
            "there is no store {store}; name the server's --config or --data, or begin with `malote server setup`"
        ),
        format!(
            "não há armazenamento em {store}; indique o --config ou o --data do servidor, ou comece com `malote server setup`"
        ),
    );
    Err(Error::new(Code::NotFound, words))
}

impl ServerCommand {
    pub(crate) fn stays(&self) -> bool {
        matches!(self.noun, ServerNoun::Run { dump_config: false })
    }

    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        let mut config = ServerConfig::load(self.shared.config.as_deref())?;
        if let Some(data) = &self.shared.data {
            config.data.clone_from(data);
        }
        let form = Form { json: self.shared.json, lang };
        match self.noun {
            ServerNoun::Run { dump_config: false } => return serve(config).await,
            ServerNoun::Run { dump_config: true } | ServerNoun::Config { defaults: false } => {
                out::data(config.dump().trim_end())
            }
            ServerNoun::Config { defaults: true } => {
                out::data(ServerConfig::default().dump().trim_end())
            }
            ServerNoun::Migrate(args) => Box::pin(args.run(&config, form)).await?,
            ServerNoun::Backup(args) => {
                telemetry::start("warn", config.log.format);
                Box::pin(args.run(&config, form)).await?;
            }
            ServerNoun::Restore(args) => {
                telemetry::start("warn", config.log.format);
                Box::pin(args.run(&config, form)).await?;
            }
            ServerNoun::CopyStore(args) => {
                telemetry::start("warn", config.log.format);
                Box::pin(args.run(&config, form)).await?;
            }
            noun => {
                telemetry::start("warn", config.log.format);
                if !noun.begins() {
                    must_be_there(&config, lang)?;
                }
                let services = Box::pin(app::open(&config)).await?;
                Box::pin(with_store(noun, &services, form)).await?;
            }
        }
        Ok(exit::OK)
    }
}

async fn with_store(noun: ServerNoun, services: &Services, form: Form) -> Result<()> {
    match noun {
        ServerNoun::Setup(command) => command.run(services, form).await,
        ServerNoun::Tenant(command) => command.run(services, form).await,
        ServerNoun::App(command) => command.run(services, form).await,
        ServerNoun::Environment(command) => command.run(services, form).await,
        ServerNoun::Installation(command) => command.run(services, form).await,
        ServerNoun::Credential(command) => command.run(services, form).await,
        ServerNoun::Carol(command) => command.run(services, form).await,
        ServerNoun::Entity(command) => command.run(services, form).await,
        ServerNoun::Reload(command) => command.run(services, form).await,
        ServerNoun::Key(command) => command.run(services, form).await,
        ServerNoun::Admin(command) => command.run(services, form).await,
        ServerNoun::Audit(command) => command.run(services, form).await,
        ServerNoun::Session(command) => command.run(services, form).await,
        ServerNoun::Fleet(command) => command.run(services, form).await,
        ServerNoun::Batches(command) => command.run(services, form).await,
        ServerNoun::Staging(command) => command.run(services, form).await,
        ServerNoun::Quarantine(command) => command.run(services, form).await,
        ServerNoun::Retention(command) => command.run(services, form).await,
        ServerNoun::Alert(command) => command.run(services, form).await,
        ServerNoun::Webhook(command) => command.run(services, form).await,
        ServerNoun::Run { .. }
        | ServerNoun::Migrate(_)
        | ServerNoun::Config { .. }
        | ServerNoun::Backup(_)
        | ServerNoun::Restore(_)
        | ServerNoun::CopyStore(_) => Ok(()),
    }
}

async fn serve(config: ServerConfig) -> Result<u8> {
    let level = telemetry::check(&config.log.level);
    level.map_err(|words| Error::new(Code::ConfigInvalid, words).at("log.level"))?;
    telemetry::start(&config.log.level, config.log.format);
    let (trigger, shutdown) = shutdown::channel();
    let signals = runtime::task::spawn("signals", shutdown::on_signal(trigger));
    let ended = Box::pin(app::run(config, shutdown)).await;
    signals.abort();
    ended.map(|()| exit::OK)
}

#[cfg(test)]
mod tests;
