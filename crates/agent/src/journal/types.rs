//! What travels through the corridor: grants, messages of a batch, its seal, and what people see.
//!
//! Promises: plain data; a table is named as it was written.

use std::collections::BTreeMap;

use bytes::Bytes;
use protocol::{
    Code,
    hash::RowHash,
    ids::{BatchId, Epoch, Generation, MessageNumber},
    key::KeyBytes,
    names::TableName,
};

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
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize, serde::Deserialize)]
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
    /// Tables whose deletes, confirmed by a person, end with this batch.
    #[serde(default)]
    pub deletes_done: Vec<TableName>,
    /// Number of the last reload request that a table has answered by the end of this batch.
    #[serde(default)]
    pub reloads_done: Vec<(TableName, u64)>,
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
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When a parked table is tried again by itself; `None` = once a person acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// Why a paused table waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<String>,
    pub rows_sent: u64,
    pub deletes_sent: u64,
    pub quarantined: u64,
    /// Rows of the base load under way.
    pub loaded: Option<u64>,
}

/// SHA-256 of a row's key in hex: what logs and incidents know the row by.
#[must_use]
pub fn key_hash(key: &KeyBytes) -> String {
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&key.0);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
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

/// The cloud as the agent sees it; written by `uplink`, read by `admin`.
#[derive(Clone, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkState {
    pub phase: LinkPhase,
    pub epoch: Option<Epoch>,
    /// The server has no sessions: this agent keeps the cursor itself and must be the only one.
    pub foreign_server: bool,
    /// What stands in the way: code, words, and what to do.
    pub code: Option<String>,
    pub words: Option<String>,
    pub hint: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_try: Option<String>,
    /// Since when it stands in the way, in microseconds of Unix time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_micros: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LinkPhase {
    #[default]
    Connecting,
    /// This agent holds the lease and sends.
    Sending,
    /// Another agent holds it.
    Standby,
    /// The server refuses; a person has to act.
    Refused,
    Unreachable,
    Stopped,
}

/// A row alone in a message that the server refuses.
#[derive(Clone, Debug)]
pub struct Poisoned {
    pub table: TableName,
    pub key: KeyBytes,
    pub hash: RowHash,
    pub code: Code,
    pub words: String,
    pub at_micros: i64,
}
