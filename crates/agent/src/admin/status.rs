//! Status: what the agent knows of itself, as JSON (`GET /v1/status`) and as the client reads it.
//!
//! Promises: states and codes as they are elsewhere; a key is shown by its hash alone.

use std::collections::BTreeMap;

use protocol::{Result, ids::BatchId, names::TableName};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};

use super::{
    door::Behind,
    logs::{self, LogStatus},
    steer::{self, HaltStatus},
};
use crate::journal::{
    Answer, CappedDeletes, Incident, Journal, LinkState, Paused, Slowed, SpoolState, TableStatus,
    Verification,
};

/// Incidents shown.
const INCIDENTS: usize = 50;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether the configuration holds all it needs; if not, nothing is read and nothing is sent.
    pub configured: bool,
    /// Where to go on where it does not: the registry, or this door.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configurator_url: Option<String>,
    /// Keys of the configuration that are missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    pub version: String,
    pub instance: String,
    pub link: LinkState,
    pub spool: SpoolStatus,
    pub tables: Vec<TableStatus>,
    /// Tables the server refuses: code and words.
    pub parked: BTreeMap<TableName, (String, String)>,
    /// Tables that go one row a message until a refused row is found.
    pub suspects: Vec<TableName>,
    /// Why nothing is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedStatus>,
    /// When the next cycle runs; absent while one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<String>,
    /// Base loads wait until then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loads_from: Option<String>,
    /// Base loads and scans are slowed, since the ERP database answers slowly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowed: Option<SlowedStatus>,
    /// What a person paused.
    #[serde(default)]
    pub halts: Vec<HaltStatus>,
    /// Deletes above the cap, by table.
    #[serde(default)]
    pub deletes: Vec<DeletesStatus>,
    /// The last verification of each table that is over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verified: Vec<Verification>,
    /// The detailed log, while it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed_log: Option<LogStatus>,
    /// The newest first.
    pub incidents: Vec<IncidentStatus>,
}

/// Reading is stopped, the lease is kept.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PausedStatus {
    pub code: String,
    pub words: String,
    pub hint: String,
    pub since: String,
}

impl From<Paused> for PausedStatus {
    fn from(paused: Paused) -> Self {
        Self {
            code: paused.code.to_string(),
            words: paused.words,
            hint: paused.code.hint().to_owned(),
            since: paused.since.to_iso(),
        }
    }
}

/// Bulk reading is slowed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowedStatus {
    /// Of the full pace.
    pub percent: u32,
    pub since: String,
}

impl From<Slowed> for SlowedStatus {
    fn from(Slowed { percent, since }: Slowed) -> Self {
        Self { percent, since: since.to_iso() }
    }
}

/// Deletes that wait for a person, or were answered and are not done yet.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletesStatus {
    pub table: TableName,
    /// Rows that are gone from the ERP and wait.
    pub rows: u64,
    /// Rows the cloud holds of the table.
    pub known: u64,
    /// How many go unasked.
    pub cap: u64,
    pub since: String,
    /// `WAITING`, `CONFIRMED`, `REFUSED`.
    pub answer: Answer,
}

impl DeletesStatus {
    pub(super) fn of(table: TableName, capped: CappedDeletes) -> Self {
        let CappedDeletes { rows, known, cap, since_micros, answer } = capped;
        Self { table, rows, known, cap, since: Wall(since_micros).to_iso(), answer }
    }
}

/// Deletes above the cap, by table.
pub(super) fn deletes(journal: &Journal) -> Vec<DeletesStatus> {
    let capped = journal.capped().into_iter();
    capped.map(|(table, capped)| DeletesStatus::of(table, capped)).collect()
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SpoolStatus {
    pub batch: Option<BatchId>,
    pub appended: u32,
    pub acked: u32,
    pub unacked_bytes: u64,
    pub sealed: bool,
    pub completed: Option<BatchId>,
    pub dropped: u64,
}

impl From<SpoolState> for SpoolStatus {
    fn from(state: SpoolState) -> Self {
        let SpoolState { batch, appended, acked, unacked_bytes, sealed, completed, dropped } =
            state;
        Self { batch, appended, acked, unacked_bytes, sealed, completed, dropped }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IncidentStatus {
    pub table: Option<TableName>,
    pub key_hash: Option<String>,
    pub code: String,
    pub words: String,
    pub hint: String,
    pub at: String,
}

impl From<Incident> for IncidentStatus {
    fn from(incident: Incident) -> Self {
        Self {
            table: incident.table,
            key_hash: incident.key_hash,
            code: incident.code.to_string(),
            words: incident.words,
            hint: incident.code.hint().to_owned(),
            at: Wall(incident.at_micros).to_iso(),
        }
    }
}

/// Tables as they stand where nothing has gone through since then: their statuses are as old as that.
fn late(mut tables: Vec<TableStatus>, since: Option<i64>, now: Wall) -> Vec<TableStatus> {
    let Some(since) = since else { return tables };
    let waited = now.0.saturating_sub(since).max(0) / 1_000;
    for lag in tables.iter_mut().filter_map(|table| table.lag_ms.as_mut()) {
        *lag = (*lag).max(waited);
    }
    tables
}

/// The picture of this moment.
pub(super) async fn status(behind: &Behind) -> Result<Status> {
    let Behind { journal, unconfigured, log } = behind;
    let unconfigured = unconfigured.as_deref();
    let missing = unconfigured.into_iter().flat_map(|why| &why.missing);
    let parked = journal
        .parked()
        .into_iter()
        .map(|(table, parked)| (table, (parked.code.to_string(), parked.words)));
    let link = journal.link().borrow().clone();
    let since = link.since_micros;
    let spool = journal.spool().borrow().clone().into();
    Ok(Status {
        configured: unconfigured.is_none(),
        configurator_url: unconfigured.map(|why| why.link.clone()),
        missing: missing.map(|key| (*key).to_owned()).collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        instance: journal.instance().to_string(),
        link,
        spool,
        tables: late(journal.statuses().await?, since, Wall::now()),
        parked: parked.collect(),
        suspects: journal.suspects().into_keys().collect(),
        paused: journal.paused().map(Into::into),
        next_run: journal.coming().cycle.map(Wall::to_iso),
        loads_from: journal.coming().loads.map(Wall::to_iso),
        slowed: journal.slowed().map(Into::into),
        halts: steer::halts(journal.halts()),
        deletes: deletes(journal),
        verified: journal.verified().await?,
        detailed_log: logs::on(log),
        incidents: journal.incidents(INCIDENTS).await?.into_iter().map(Into::into).collect(),
    })
}
