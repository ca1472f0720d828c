//! Reconcile, service floor: what is staged, in sums and in keys (`contracts.md` 5.6).
//!
//! Promises: key and hash are those of `protocol`, over the stored columns' canonical text; deleted rows do not count.
//! Never: answers beyond its limits.

use protocol::{
    Code, Error, Result, limits,
    names::{ErpName, TableName},
    proto::ingestion::{
        RangeSum, RangesRequest, RangesResponse, RowHash, RowsRequest, RowsResponse,
    },
};

use runtime::clock::Wall;

use super::{Caller, staging::Staging};
use crate::store::sqlite::staging::{Span, Sum};

/// Reconciliation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reconcile {
    staging: Staging,
}

impl Reconcile {
    #[must_use]
    pub fn new(staging: Staging) -> Self {
        Self { staging }
    }

    /// Sums of the ranges that ascending bounds make.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where bounds do not ascend or are too many, `PERMISSION_DENIED` for another ERP.
    pub async fn ranges(&self, caller: &Caller, request: RangesRequest) -> Result<RangesResponse> {
        let (erp, table) = place(caller, &request.erp, &request.table)?;
        if request.bounds.len() > limits::RECONCILE_BOUNDS {
            let words = format!(
                "{} bounds, the limit is {}",
                request.bounds.len(),
                limits::RECONCILE_BOUNDS
            );
            return Err(Error::new(Code::InvalidArgument, words));
        }
        let bounds: Vec<Vec<u8>> = request.bounds.into_iter().collect();
        if !bounds.is_sorted_by(|a, b| a < b) {
            return Err(Error::new(Code::InvalidArgument, "bounds do not ascend"));
        }
        self.staging.catch_up(&caller.stream(), Wall::now()).await?;
        let (sums, batch) = match self.staging.found(caller.environment, &erp).await? {
            Some(file) => {
                let (sums, progress) = file.ranges(table, bounds).await?;
                (sums, progress.complete_batch.0)
            }
            None => (vec![Sum::default(); bounds.len() + 1], 0),
        };
        let sum = |sum: Sum| RangeSum { count: sum.count, xor128: sum.xor.0.to_vec() };
        Ok(RangesResponse { sums: sums.into_iter().map(sum).collect(), applied_batch: batch })
    }

    /// Keys and hashes of a range, a page at a time.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another ERP.
    pub async fn rows(&self, caller: &Caller, request: RowsRequest) -> Result<RowsResponse> {
        let (erp, table) = place(caller, &request.erp, &request.table)?;
        let range = request.range.unwrap_or_default();
        if request.after.is_empty() {
            // What was accepted counts as staged: a sender that rebuilds its known rows must not miss it.
            self.staging.catch_up(&caller.stream(), Wall::now()).await?;
        }
        let span = Span { from: range.from, to: range.to, after: request.after };
        let Some(file) = self.staging.found(caller.environment, &erp).await? else {
            return Ok(RowsResponse::default());
        };
        let (rows, more) = file.hashes(table, span).await?;
        let rows = rows
            .into_iter()
            .map(|(key, hash)| RowHash { key: key.0, hash128: hash.0.to_vec() })
            .collect();
        Ok(RowsResponse { rows, more })
    }
}

fn place(caller: &Caller, erp: &str, table: &str) -> Result<(ErpName, TableName)> {
    let erp: ErpName = erp.parse()?;
    caller.may_send(&erp)?;
    Ok((erp, table.parse()?))
}
