//! Rebuild: learns from `Reconcile` what is staged where another sender fed the stream last.
//!
//! Promises: known rows are those of the server, or none; a server without `Reconcile` leaves none, so that all rows
//! are sent again.
//! Never: runs while a batch is open.

use protocol::{
    Code, Error, Result,
    hash::RowHash,
    key::KeyBytes,
    names::{ErpName, TableName},
    proto::ingestion::{RowsRequest, RowsResponse},
};
use runtime::{backoff::Backoff, clock::Wall};

use super::{
    rpc::{CallError, ROWS, Rpc},
    sender::PAUSES,
};
use crate::journal::{Incident, Journal};

/// Reads keys and hashes of every table of the plan.
pub(super) async fn rebuild(journal: &Journal, rpc: &Rpc, erp: &ErpName) -> Result<()> {
    journal.known_clear_all().await?;
    let Some(plan) = journal.plan().await? else { return Ok(()) };
    tracing::info!(tables = plan.queries.len(), "another sender was last: reading what is staged");
    for query in &plan.queries {
        match table(journal, rpc, erp, &query.table).await {
            Ok(()) => {}
            Err(CallError::Before(error)) => return Err(error),
            Err(call) => match call.grpc() {
                // Nothing staged yet, or not this tenant's: there is nothing to know.
                Some(tonic::Code::NotFound | tonic::Code::PermissionDenied) => {}
                Some(tonic::Code::Unimplemented) => return blind(journal).await,
                _ => return Err(call.error()),
            },
        }
    }
    Ok(())
}

/// Deletes that happened before are not found until the tables are loaded again; people are told.
async fn blind(journal: &Journal) -> Result<()> {
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
    loop {
        let request = RowsRequest {
            erp: erp.to_string(),
            table: table.to_string(),
            range: None,
            after: std::mem::take(&mut after),
        };
        let page: RowsResponse = match rpc.call(ROWS, request.clone()).await {
            Ok(page) => page,
            Err(call)
                if call.error().is_transient()
                    && !call.is_unimplemented()
                    && backoff.tries() < 10 =>
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
