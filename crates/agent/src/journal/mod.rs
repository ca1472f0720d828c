//! Journal: what the agent owes, on disk (SQLite), and the only corridor between its rooms.
//!
//! Promises: a spooled table message keeps its number and its bytes until the batch is closed or dropped.
//! Promises: the state of snapshot-diff (known rows) changes only with an accepted Summary; what a dropped batch may
//! have left in staging stays known, with hash zero, so that its delete is still found.
//! Never: calls the ERP or the cloud, reads a clock, hands out a transaction. Never a reason not to start: a corrupt
//! journal is moved aside and told.
//!
//! SEAM (fixed on day one): `capture` writes batches and reads grants, plan and known rows; `uplink` writes grants and
//! plan, sends the spool and closes batches; `admin` reads status and asks for reloads.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use bytes::Bytes;
use protocol::{
    Code, Result,
    hash::RowHash,
    ids::{BatchId, Epoch, Generation, InstanceId, MessageNumber},
    json::Entities,
    key::KeyBytes,
    names::TableName,
};
use tokio::sync::watch;

/// The server's grant to this process, as `uplink` wrote it. A new grant always means: no batch is open, and every
/// table resumes at its cursor entry here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub epoch: Epoch,
    /// Highest batch id of the stream; raised by `open_batch`.
    pub last_batch: BatchId,
    /// One entry per table; opaque bytes that `capture` wrote.
    pub cursors: BTreeMap<TableName, Vec<u8>>,
}

/// One table message of the open batch.
#[derive(Clone, Debug)]
pub struct SpoolMessage {
    pub number: MessageNumber,
    pub table: TableName,
    pub rows: u32,
    pub bytes: Bytes,
    /// What the rows make known once the batch is complete: key and hash, `None` = the key is gone.
    /// Empty on messages that `uplink` reads back.
    pub known: Vec<(KeyBytes, Option<RowHash>)>,
}

/// The end of a batch: what its Summary and Prepare say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seal {
    pub messages: u32,
    pub records: u32,
    /// Range of the batch, microseconds since 1970 UTC; a base load alone has no start.
    pub start: Option<i64>,
    pub end: i64,
    /// Cursor entries of the tables that changed.
    pub cursors: Vec<(TableName, Vec<u8>)>,
    /// Base loads whose last rows are in this batch (`x-base-load-done`).
    pub loads_done: Vec<(TableName, Generation)>,
}

/// Where the open batch stands; a hint for waiting, the tables are the truth.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SpoolState {
    /// Open batch.
    pub batch: Option<BatchId>,
    pub appended: u32,
    pub acked: u32,
    pub unacked_bytes: u64,
    pub sealed: bool,
    /// Last batch whose Summary was accepted.
    pub completed: Option<BatchId>,
    /// Batches dropped since the start of the process.
    pub dropped: u64,
}

/// State of a table as people see it; written by `capture`, read by `admin`.
#[derive(Clone, PartialEq, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TableStatus {
    pub table: TableName,
    /// `BASE_LOAD`, `STREAMING`, `RELOAD`, `PAUSED`, `PARKED`.
    pub state: String,
    /// `TIMESTAMP`, `SNAPSHOT_DIFF`.
    pub mode: String,
    pub watermark: Option<String>,
    pub lag_ms: Option<i64>,
    pub held_by: Option<String>,
    pub degraded: Option<String>,
    /// Code and words of a parked table.
    pub parked: Option<(String, String)>,
    pub rows_sent: u64,
    pub deletes_sent: u64,
    pub quarantined: u64,
    /// Rows of the base load under way.
    pub loaded: Option<u64>,
}

/// A row or table that could not be sent (I18: everything skipped has an open incident).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Incident {
    pub table: Option<TableName>,
    /// SHA-256 of the key in hex: a key is a row's value and stays out of logs.
    pub key_hash: Option<String>,
    pub code: Code,
    pub words: String,
    pub at_micros: i64,
}

/// What was found when the journal was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Recovery {
    /// New folder.
    Fresh,
    /// Opened; holds perhaps a batch to resend.
    Resumed,
    /// Damaged: moved aside, a fresh one is in use; everything is read again.
    Replaced,
}

/// Handle on the journal's one writer thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal;

impl Journal {
    /// Opens or makes `{folder}/journal.sqlite`, locks the folder against a second process (`STORE_BUSY`).
    pub async fn open(folder: &Path) -> Result<(Self, Recovery)> {
        todo!()
    }
    /// Kept with the agent's data; made at birth.
    pub fn instance(&self) -> InstanceId {
        todo!()
    }

    // --- plan: uplink writes, capture reads ---
    /// Keeps the last good answer of Entities. Bumps `plan_changed` where it differs.
    pub async fn save_plan(&self, entities: Entities) -> Result<()> {
        todo!()
    }
    pub async fn plan(&self) -> Result<Option<Entities>> {
        todo!()
    }
    pub fn plan_changed(&self) -> watch::Receiver<u64> {
        todo!()
    }

    // --- session: uplink writes, capture reads ---
    /// Epoch of the last grant, for `Renew` at the start.
    pub async fn last_epoch(&self) -> Result<Option<Epoch>> {
        todo!()
    }
    /// Highest batch id this journal ever opened; `None` = never. Differs from the session's = known rows are foreign.
    pub async fn last_batch(&self) -> Result<Option<BatchId>> {
        todo!()
    }
    /// A new session: drops the open batch, writes the epoch, tells `granted`.
    pub async fn grant(&self, grant: Grant) -> Result<()> {
        todo!()
    }
    /// `Renew` of the journal's epoch was accepted at the start: the spool stays and is resent; capture goes on once it
    /// is complete. `grant.cursors` are those the journal knows.
    pub async fn resume(&self, epoch: Epoch) -> Result<()> {
        todo!()
    }
    /// Standby: no grant, the open batch is dropped.
    pub async fn revoke(&self, code: Code, words: &str) -> Result<()> {
        todo!()
    }
    /// `None` = standby or not yet connected.
    pub fn granted(&self) -> watch::Receiver<Option<Arc<Grant>>> {
        todo!()
    }

    // --- spool: capture writes, uplink sends ---
    /// Opens the one batch under the grant's epoch. `FENCED` where the grant changed meanwhile.
    pub async fn open_batch(&self, epoch: Epoch, batch: BatchId) -> Result<()> {
        todo!()
    }
    /// Durable when it returns. Numbers rise by one from 1. `FENCED` where the batch was dropped meanwhile;
    /// `JOURNAL_FAILED`, `DISK_FULL`.
    pub async fn append(&self, batch: BatchId, messages: Vec<SpoolMessage>) -> Result<()> {
        todo!()
    }
    /// Ends the batch; uplink sends Prepare and Summary once all is acked.
    pub async fn seal(&self, batch: BatchId, seal: Seal) -> Result<()> {
        todo!()
    }
    /// Spooled messages numbered above `after` that are not acked, in order, at most `max_bytes` (one at least).
    /// `JOURNAL_CORRUPT` where a record's CRC32C does not fit its bytes.
    pub async fn unacked(&self, batch: BatchId, after: MessageNumber, max_bytes: usize) -> Result<Vec<SpoolMessage>> {
        todo!()
    }
    pub async fn acked(&self, batch: BatchId, numbers: Vec<MessageNumber>) -> Result<()> {
        todo!()
    }
    /// The seal, once `capture` wrote it.
    pub async fn sealed(&self, batch: BatchId) -> Result<Option<Seal>> {
        todo!()
    }
    /// The Summary was accepted: in one transaction the known rows change, the cursors move, the spool is emptied.
    pub async fn complete(&self, batch: BatchId) -> Result<()> {
        todo!()
    }
    /// Throws the open batch away; what it may have staged stays known with hash zero.
    pub async fn drop_batch(&self, code: Code, words: &str) -> Result<()> {
        todo!()
    }
    pub fn spool(&self) -> watch::Receiver<SpoolState> {
        todo!()
    }

    // --- known rows: key and hash of what staging holds (snapshot-diff and key scan) ---
    /// Hash of each key, `None` = not known. Hash zero = perhaps staged.
    pub async fn known(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<Vec<Option<RowHash>>> {
        todo!()
    }
    pub async fn known_count(&self, table: &TableName) -> Result<u64> {
        todo!()
    }
    /// Forgets all known rows of a table.
    pub async fn known_clear(&self, table: &TableName) -> Result<()> {
        todo!()
    }
    /// Rebuild from `Reconcile`: adds rows as known.
    pub async fn known_load(&self, table: &TableName, rows: Vec<(KeyBytes, RowHash)>) -> Result<()> {
        todo!()
    }
    /// Starts a key scan of a table: forgets what was seen before.
    pub async fn scan_begin(&self, table: &TableName) -> Result<()> {
        todo!()
    }
    /// Keys seen in the ERP by the scan under way (not durable; a restart begins the scan again).
    pub async fn scan_seen(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        todo!()
    }
    /// Known keys the complete scan did not see, ascending behind `after`.
    pub async fn scan_missing(&self, table: &TableName, after: Option<KeyBytes>, limit: usize) -> Result<Vec<KeyBytes>> {
        todo!()
    }

    // --- people ---
    pub async fn save_status(&self, statuses: Vec<TableStatus>) -> Result<()> {
        todo!()
    }
    pub async fn statuses(&self) -> Result<Vec<TableStatus>> {
        todo!()
    }
    pub async fn incident(&self, incident: Incident) -> Result<()> {
        todo!()
    }
    pub async fn incidents(&self, limit: usize) -> Result<Vec<Incident>> {
        todo!()
    }
    /// `malote agent reload`: one request per table (empty = all), each with a local number one higher than the last.
    pub async fn request_reload(&self, table: Option<TableName>) -> Result<()> {
        todo!()
    }
    /// Local reload number per table; `capture` keeps the last one it ran in the table's cursor.
    pub async fn reload_requests(&self) -> Result<BTreeMap<TableName, u64>> {
        todo!()
    }
}
