//! Stream: the data sharing of one ERP of one environment, as acceptance sees it.
//!
//! Promises: a stream names its tenant first; nothing of it comes from a message.
//! Never: is stored by itself; `store` keeps its row.

use protocol::{
    ids::{BatchId, EnvironmentId, Epoch, MessageNumber, TenantId},
    names::ErpName,
};
use runtime::clock::Wall;

/// Name of a stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId {
    pub tenant: TenantId,
    pub environment: EnvironmentId,
    pub erp: ErpName,
}

/// What the stream's row tells the judge, under its lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    pub epoch: Epoch,
    /// A lease is live now.
    pub live: bool,
    pub open: Option<Open>,
    pub last_batch: BatchId,
}

/// The open batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open {
    pub batch: BatchId,
    /// The number that is accepted next.
    pub next: MessageNumber,
    pub rows: i64,
    /// When its newest message was accepted.
    pub last_at: Wall,
}
