//! Rebuild: learns from `Reconcile` what is staged of each table whose known rows do not follow the session: all of them
//! where another sender fed the stream last, and whichever enters the plan later.
//!
//! Promises: known rows are those of the server, or none; a server without `Reconcile` leaves none, so that all rows
//! are sent again; a table that cannot be learned is tried again while the others go on.
//! Never: learns a table that capture reads (it leaves such a table out until it is learned).

use std::{collections::BTreeSet, time::Duration};

use protocol::{
    Code, Error, Result,
    hash::RowHash,
    key::KeyBytes,
    names::{ErpName, TableName},
    proto::ingestion::{RowsRequest, RowsResponse},
};
use runtime::{
    backoff::Backoff,
    clock::{self, Wall},
    failpoint,
};

use super::{
    rpc::{CallError, ROWS, Rpc},
    sender::PAUSES,
};
use crate::journal::{Incident, Journal};

/// Pauses before a table that could not be learned is asked for again.
const AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Tries of one page before the other tables have their turn.
const TRIES: u32 = 3;

/// Learns tables as they enter the plan, for as long as the session is held. Ends by a fault of the journal alone.
pub(super) async fn follow(journal: &Journal, rpc: &Rpc, erp: &ErpName) -> Error {
    let mut changed = journal.plan_changed();
    let mut pauses = Backoff::new(AGAIN.0, AGAIN.1);
    loop {
        changed.mark_unchanged();
        let left = match learn(journal, rpc, erp).await {
            Ok(left) => left,
            Err(error) => return error,
        };
        let pause = (left > 0).then(|| pauses.next_pause());
        if pause.is_none() {
            pauses.reset();
        }
        tokio::select! {
            biased;
            changed = changed.changed() => {
                if changed.is_err() {
                    return Error::new(Code::JournalFailed, "the journal is closed");
                }
            }
            () = clock::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
        }
    }
}

/// One round over the tables to learn; gives how many are left.
async fn learn(journal: &Journal, rpc: &Rpc, erp: &ErpName) -> Result<usize> {
    let tables = journal.to_learn().await?;
    if tables.is_empty() {
        return Ok(0);
    }
    tracing::info!(tables = tables.len(), "reading what is staged of tables that are not known");
    let (mut left, mut blind) = (0, BTreeSet::new());
    for name in tables {
        match table(journal, rpc, erp, &name).await {
            Ok(()) => {}
            Err(CallError::Before(error)) if error.code == Code::JournalFailed => {
                return Err(error);
            }
            // Nothing is staged yet.
            Err(call) if call.grpc() == Some(tonic::Code::NotFound) => {}
            Err(call) if call.is_unimplemented() => {
                blind.insert(name.clone());
            }
            Err(call) => {
                let error = call.error();
                tracing::warn!(table = %name, code = %error.code, words = error.message, "what is staged is not known; the table waits");
                left += 1;
                continue;
            }
        }
        journal.learned(&name).await?;
    }
    tell_blind(journal, &blind).await?;
    Ok(left)
}

/// Where a table was loaded before, deletes of meanwhile are not found until it is loaded again; people are told.
async fn tell_blind(journal: &Journal, blind: &BTreeSet<TableName>) -> Result<()> {
    let grant = journal.granted().borrow().clone();
    let loaded =
        |grant: &crate::journal::Grant| blind.iter().any(|table| grant.cursors.contains_key(table));
    if !grant.is_some_and(|grant| loaded(&grant)) {
        return Ok(());
    }
    let words =
        "the server cannot tell what is staged: rows are sent again, older deletes may stay unseen";
    let incident = Incident {
        table: None,
        key_hash: None,
        code: Code::VersionUnsupported,
        words: words.to_owned(),
        at_micros: Wall::now().0,
    };
    journal.incident(incident).await
}

async fn table(
    journal: &Journal,
    rpc: &Rpc,
    erp: &ErpName,
    table: &TableName,
) -> Result<(), CallError> {
    let mut after = Vec::new();
    let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
    // What an earlier try left half read.
    journal.known_clear(table).await.map_err(CallError::Before)?;
    loop {
        let request = RowsRequest {
            erp: erp.to_string(),
            table: table.to_string(),
            range: None,
            after: std::mem::take(&mut after),
        };
        let unread = |error| CallError::Before(error);
        failpoint::pass("cloud.rows", Code::CloudUnreachable).await.map_err(unread)?;
        let page: RowsResponse = match rpc.call(ROWS, request.clone()).await {
            Ok(page) => page,
            Err(call)
                if call.error().is_transient()
                    && !call.is_unimplemented()
                    && backoff.tries() < TRIES =>
            {
                after = request.after;
                backoff.pause().await;
                continue;
            }
            Err(call) => return Err(call),
        };
        backoff.reset();
        after = page.rows.last().map(|row| row.key.clone()).unwrap_or_default();
        let rows = page
            .rows
            .into_iter()
            .map(|row| {
                let hash = row.hash128.try_into().map(RowHash);
                Ok((KeyBytes(row.key), hash.map_err(|_| bad_page())?))
            })
            .collect::<Result<Vec<_>>>()
            .map_err(CallError::Before)?;
        journal.known_load(table, rows).await.map_err(CallError::Before)?;
        if !page.more || after.is_empty() {
            return Ok(());
        }
    }
}

fn bad_page() -> Error {
    Error::new(Code::CloudUnreachable, "Reconcile answered a hash that has not 16 bytes")
}
