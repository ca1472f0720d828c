//! App: an agent as it runs: configuration, journal and source first, then the rooms, then the drain.
//!
//! Promises: what cannot work is told before anything starts; what is missing keeps it from reading and sending, not from
//! running; a failed journal ends the process, its supervisor starts it again; one data folder has one running agent
//! (`STORE_BUSY`).
//! Never: decides anything of rows or batches; it wires.
//!
//! `backup` copies a data folder and puts copies back; `doctor` looks a machine over.

pub mod backup;
pub mod doctor;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use protocol::{Code, Error, Result, names::TableName, proto::ingestion::DatabaseIdentity};
use runtime::{
    shutdown::{self, Shutdown, Trigger},
    task::{self, Task},
};

use crate::{
    admin::{self, Admin, CleanOrder},
    capture::Worker,
    config::{AgentConfig, ProfileName, SourceConfig},
    journal::{Journal, LinkPhase, LinkState, Recovery},
    pacing::Governor,
    source::{
        self, AnySource, BranchLayout, Finding, Profile, Source as _, SourceOptions, TableShape,
    },
    uplink::{self, UplinkConfig, proxy::Proxy},
    verify::Verifier,
};

/// How long the rooms may take to end.
pub const DRAIN: Duration = Duration::from_secs(10);

/// A room of the agent: runs until its shutdown.
pub type Room = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// What the rooms are made of.
#[derive(Clone, Debug)]
pub struct Parts {
    pub config: Arc<AgentConfig>,
    pub journal: Journal,
    pub source: Arc<AnySource>,
    /// The pace at which capture and verification read it in bulk.
    pub governor: Arc<Governor>,
}

impl Parts {
    /// Checks the configuration and opens the journal; the source is opened by its first call.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `SOURCE_UNSUPPORTED`, `STORE_BUSY`, `STORE_VERSION`, `JOURNAL_FAILED`, `DISK_FULL`.
    pub async fn open(mut config: AgentConfig) -> Result<Self> {
        config.validate()?;
        config.erp()?;
        config.unseal()?;
        if config.is_sealed_beside_its_key() {
            tracing::warn!(
                "the key of the sealed secrets lies beside them: whoever can read the data folder has both; \
                 systemd's LoadCredentialEncrypted=secrets.key:… keeps it apart"
            );
        }
        config.cloud.secret()?;
        let source = Arc::new(connect(&config.source)?);
        let journal = open_journal(&config).await?;
        config.open_mask_key()?;
        Ok(Self { config: Arc::new(config), journal, source, governor: Arc::default() })
    }

    /// The room that talks to the cloud.
    ///
    /// # Errors
    /// `CONFIG_INVALID`, `BAD_ID`.
    pub fn uplink(&self, shutdown: Shutdown) -> Result<Room> {
        let config = to_the_cloud(&self.config)?;
        let source = Arc::clone(&self.source);
        let identity = move || {
            let source = Arc::clone(&source);
            async move { source.identity().await.map(told) }
        };
        Ok(Box::pin(uplink::run(self.journal.clone(), config, identity, shutdown)))
    }

    /// The capture room.
    ///
    /// # Errors
    /// `CONFIG_INVALID` where the ERP has no name.
    pub fn capture(&self, shutdown: Shutdown) -> Result<Room> {
        let (source, journal) = (Arc::clone(&self.source), self.journal.clone());
        let config = Arc::clone(&self.config);
        let erp = config.erp()?;
        let worker = Worker::new(source, journal, config, erp, shutdown);
        Ok(Box::pin(worker.paced_by(Arc::clone(&self.governor)).run()))
    }

    /// The room that verifies.
    #[must_use]
    pub fn verify(&self, shutdown: Shutdown) -> Room {
        let (source, journal) = (Arc::clone(&self.source), self.journal.clone());
        let verifier = Verifier::new(source, journal, Arc::clone(&self.config), shutdown);
        Box::pin(verifier.paced_by(Arc::clone(&self.governor)).run())
    }
}

/// The way to the cloud as a configuration, opened, names it.
fn to_the_cloud(config: &AgentConfig) -> Result<UplinkConfig> {
    let cloud = &config.cloud;
    let cycle = Duration::from_secs(config.capture.cycle_seconds.max(1));
    Ok(UplinkConfig {
        registry_url: cloud.registry.clone(),
        client_id: cloud.client_id.parse()?,
        client_secret: cloud.secret()?,
        erp: config.erp()?,
        hosts: cloud.hosts.clone(),
        allow_private: cloud.allow_private,
        ca_pem: cloud.ca()?,
        proxy: cloud.proxy.as_ref().map(|proxy| Proxy::read(proxy.expose())).transpose()?,
        entities_every: uplink::ENTITIES_EVERY.min(cycle * 6),
        denied_retry: uplink::DENIED_RETRY,
        source_away: Duration::from_secs(config.capture.give_up_seconds),
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
    })
}

async fn open_journal(config: &AgentConfig) -> Result<Journal> {
    let (journal, recovery) = Journal::open(&config.data).await?;
    match recovery {
        Recovery::Fresh | Recovery::Resumed => {}
        Recovery::Replaced => {
            tracing::error!(
                "the journal was damaged and moved aside; rows are read again from the ERP"
            );
        }
    }
    Ok(journal)
}

/// The database as `Open` tells it.
fn told(identity: source::Identity) -> uplink::Identity {
    let database = DatabaseIdentity {
        kind: identity.kind.to_owned(),
        facts: identity.facts.into_iter().collect(),
        position: identity.position,
    };
    uplink::Identity { database, version: identity.version }
}

/// The database of a configuration. Nothing is opened before the first call.
///
/// # Errors
/// `CONFIG_INVALID`, `SOURCE_UNSUPPORTED`.
pub fn connect(config: &SourceConfig) -> Result<AnySource> {
    let profile = match config.profile {
        ProfileName::Rm => Profile::Rm,
        ProfileName::Protheus => Profile::Protheus {
            company_group: config.company_group.clone(),
            layout: BranchLayout {
                company: config.company_characters,
                unity: config.unity_characters,
            },
        },
        ProfileName::Datasul => Profile::Datasul,
        ProfileName::Logix => Profile::Logix,
        ProfileName::Generic => Profile::Generic,
    };
    let options = SourceOptions {
        stamp_zone: config.stamp_zone.clone(),
        overlap: config.overlap_seconds.map(Duration::from_secs),
        ca_file: config.ca_file.clone(),
    };
    source::connect(config.url.expose(), profile, &options)
}

/// Runs the rooms until the drain is asked for or one of them ends; then all drain.
///
/// # Errors
/// What ended the first room that failed; `JOURNAL_FAILED` where the journal failed for good.
pub async fn drive(
    journal: &Journal,
    trigger: Trigger,
    rooms: Vec<(&'static str, Room)>,
    mut shutdown: Shutdown,
) -> Result<()> {
    let tasks: Vec<(&'static str, Task<Result<()>>)> =
        rooms.into_iter().map(|(name, room)| (name, task::spawn(name, room))).collect();
    let first = async {
        while !tasks.iter().any(|(_, task)| task.is_finished()) {
            runtime::clock::sleep(Duration::from_millis(100)).await;
        }
    };
    let mut outcome = Ok(());
    tokio::select! {
        biased;
        () = shutdown.draining() => {}
        error = journal.failed() => outcome = Err(error),
        () = first => {}
    }
    trigger.drain();
    let end = runtime::clock::Mono::now() + DRAIN;
    for (name, task) in tasks {
        while !task.is_finished() && end > runtime::clock::Mono::now() {
            runtime::clock::sleep(Duration::from_millis(10)).await;
        }
        if !task.is_finished() {
            tracing::warn!(room = name, "did not end in time; what it held is read again");
            task.abort();
            continue;
        }
        let ended = task.join().await.and_then(|ended| ended);
        if outcome.is_ok() {
            outcome = ended;
        }
    }
    outcome
}

/// What `malote agent check` found.
#[derive(Debug)]
pub struct Checked {
    pub identity: source::Identity,
    pub shapes: Vec<TableShape>,
    /// Tables that cannot be shared as they are, and why.
    pub refused: Vec<(TableName, Error)>,
    pub findings: Vec<Finding>,
}

/// Looks at the source as a run would, and at the tables given; without any, at all that the login sees.
///
/// # Errors
/// `CONFIG_INVALID`, `SOURCE_*`: what keeps every table from being read.
pub async fn check(config: &AgentConfig, tables: &[TableName]) -> Result<Checked> {
    config.validate_source()?;
    let mut config = config.clone();
    config.unseal_source()?;
    let source = connect(&config.source)?;
    look(&source, &config, tables, None).await
}

/// As [`check`], of a source and an opened configuration; each table gets so much time, `None` = the source's own.
async fn look(
    source: &AnySource,
    config: &AgentConfig,
    tables: &[TableName],
    patience: Option<Duration>,
) -> Result<Checked> {
    let identity = within(patience, source.identity()).await?;
    let mut names = tables.to_vec();
    if names.is_empty() {
        names = config.allow.clone().unwrap_or_default();
        names.extend(config.tables.keys().cloned());
    }
    if names.is_empty() {
        names = within(patience, source.tables()).await?;
    }
    names.sort();
    names.dedup();
    let (mut shapes, mut refused) = (Vec::new(), Vec::new());
    for name in names {
        if !config.allows(&name) {
            let words = format!("table {name} is not in the local allow list");
            refused.push((name, Error::new(Code::TableNotAllowed, words)));
            continue;
        }
        match within(patience, source.describe(&config.spec(&name))).await {
            Ok(shape) => shapes.push(shape),
            Err(error) => refused.push((name, error)),
        }
    }
    let mut findings: Vec<Finding> = Vec::new();
    for shape in &shapes {
        match within(patience, source.findings(std::slice::from_ref(shape))).await {
            // What is said of all tables is said once.
            Ok(found) => {
                let told = findings.iter().any(|finding| finding.table.is_none());
                findings.extend(found.into_iter().filter(|new| new.table.is_some() || !told));
            }
            Err(error) if error.code == Code::SourceTimeout => {
                let (table, code) = (Some(shape.wire.clone()), Some(error.code));
                findings.push(Finding { table, code, words: error.message, concern: None });
            }
            Err(error) => return Err(error),
        }
    }
    if shapes.is_empty() && refused.is_empty() {
        let words = "the login sees no table of the database".to_owned();
        let code = Some(Code::TableMissing);
        findings.push(Finding { table: None, code, words, concern: None });
    }
    Ok(Checked { identity, shapes, refused, findings })
}

/// Waits for the database, but not for longer than that.
async fn within<T>(patience: Option<Duration>, work: impl Future<Output = Result<T>>) -> Result<T> {
    let Some(patience) = patience else { return work.await };
    let late = || {
        let words = format!("no answer came within {} s", patience.as_secs());
        Error::new(Code::SourceTimeout, words)
    };
    tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(late()))
}

/// Runs until the drain is asked for and done; without what the configuration needs, with the admin door alone.
///
/// # Errors
/// As [`Parts::open`] and [`drive`].
pub async fn run(config: AgentConfig, shutdown: Shutdown) -> Result<()> {
    runtime::telemetry::start_metrics();
    if !config.missing().is_empty() {
        return run_unconfigured(config, shutdown).await;
    }
    let parts = Parts::open(config).await?;
    let admin =
        Admin::bind(parts.journal.clone(), &parts.config.data, parts.config.admin.listen).await?;
    let (trigger, drain) = shutdown::channel();
    let rooms = vec![
        ("capture", parts.capture(drain.clone())?),
        ("uplink", parts.uplink(drain.clone())?),
        ("verify", parts.verify(drain.clone())),
        ("keep", keep(&parts.journal, &parts.config, drain.clone())),
        ("admin", Box::pin(admin.serve(drain)) as Room),
    ];
    drive(&parts.journal, trigger, rooms, shutdown).await
}

/// Neither source nor cloud is opened: the admin door tells what is missing until the drain.
async fn run_unconfigured(mut config: AgentConfig, shutdown: Shutdown) -> Result<()> {
    config.validate_given()?;
    config.unseal()?;
    if !config.source.url.is_empty() {
        connect(&config.source)?;
    }
    config.cloud.ca()?;
    let missing = config.missing();
    if !missing.contains(&"cloud.client_secret") {
        config.cloud.secret()?;
    }
    let journal = open_journal(&config).await?;
    config.open_mask_key()?;
    journal.set_link(LinkState { phase: LinkPhase::Stopped, ..LinkState::default() });
    let words = "not configured: nothing is read and nothing is sent; complete the configuration and start again";
    tracing::warn!(missing = missing.join(", "), "{words}");
    let admin = Admin::bind(journal.clone(), &config.data, config.admin.listen)
        .await?
        .unconfigured(missing, config.setup_link());
    let (trigger, drain) = shutdown::channel();
    let rooms = vec![
        ("keep", keep(&journal, &config, drain.clone())),
        ("admin", Box::pin(admin.serve(drain)) as Room),
    ];
    drive(&journal, trigger, rooms, shutdown).await
}

fn keep(journal: &Journal, config: &AgentConfig, drain: Shutdown) -> Room {
    let history = &config.history;
    let order =
        CleanOrder { days: history.keep_days, max_rows: history.clean_rows, dry_run: false };
    Box::pin(admin::keep(journal.clone(), order, history.every(), drain))
}
