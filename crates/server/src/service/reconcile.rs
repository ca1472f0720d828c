//! Reconcile, service floor: what is staged, in sums and in keys (`contracts.md` 5.6).
//!
//! Promises: key and hash are those of `protocol`, over the stored columns' canonical text; deleted rows do not count.
//! Never: answers beyond its limits, or keeps a caller waiting for longer than its call lasts.

use std::time::Duration;

use protocol::{
    Code, Error, Result, limits,
    names::{ErpName, TableName},
    proto::ingestion::{
        RangeSum, RangesRequest, RangesResponse, RowHash, RowsRequest, RowsResponse,
    },
};

use runtime::clock::{Mono, Wall};

use super::{Caller, staging::Staging};
use crate::store::staging::{Span, Sum};

/// When a question should come again that had to wait too long.
const LATER: Duration = Duration::from_secs(2);

/// Reconciliation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Reconcile {
    staging: Staging,
    /// How long a call waits until what was accepted before it is staged.
    patience: Duration,
}

impl Reconcile {
    #[must_use]
    pub fn new(staging: Staging) -> Self {
        Self { staging, patience: limits::RECONCILE_CATCH_UP }
    }

    /// Sums of the ranges that ascending bounds make; where the request names a range, of the keys within it alone.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` where bounds do not ascend or are too many, `PERMISSION_DENIED` for another ERP, `UNAVAILABLE`
    /// where what was accepted before is not staged soon.
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
        self.staged_until_now(caller).await?;
        let range = request.range.unwrap_or_default();
        let span = Span { from: range.from, to: range.to, after: Vec::new() };
        let (sums, batch) = match self.staging.found(caller.environment, &erp).await? {
            Some(space) => {
                let (sums, progress) = space.ranges(table, (span, bounds)).await?;
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
    /// `PERMISSION_DENIED` for another ERP, `UNAVAILABLE` as [`Self::ranges`].
    pub async fn rows(&self, caller: &Caller, request: RowsRequest) -> Result<RowsResponse> {
        let (erp, table) = place(caller, &request.erp, &request.table)?;
        let range = request.range.unwrap_or_default();
        if request.after.is_empty() {
            // What was accepted counts as staged: a sender that rebuilds its known rows must not miss it.
            self.staged_until_now(caller).await?;
        }
        let span = Span { from: range.from, to: range.to, after: request.after };
        let Some(space) = self.staging.found(caller.environment, &erp).await? else {
            return Ok(RowsResponse::default());
        };
        let (rows, more) = space.hashes(table, span).await?;
        let rows = rows
            .into_iter()
            .map(|(key, hash)| RowHash { key: key.0, hash128: hash.0.to_vec() })
            .collect();
        Ok(RowsResponse { rows, more })
    }

    /// Waits until all is staged that was accepted before this call, for as long as the call has time for it. What is
    /// staged meanwhile stays, so whoever asks again finds less to wait for.
    async fn staged_until_now(&self, caller: &Caller) -> Result<()> {
        let (stream, begun) = (caller.stream(), Mono::now());
        let accepted = self.staging.accepted(&stream).await?;
        loop {
            let applied = self.staging.apply(&stream, Wall::now()).await?;
            if applied.messages == 0 || applied.up_to >= accepted {
                return Ok(());
            }
            if begun.elapsed() >= self.patience {
                let words = "what was sent before is still being staged";
                return Err(Error::new(Code::Unavailable, words).retry_in(LATER));
            }
        }
    }
}

fn place(caller: &Caller, erp: &str, table: &str) -> Result<(ErpName, TableName)> {
    let erp: ErpName = erp.parse()?;
    caller.may_send(&erp)?;
    Ok((erp, table.parse()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::trial::stage::{Cells, Stage};

    #[tokio::test]
    async fn a_call_that_has_no_time_to_wait_says_later_and_what_was_staged_meanwhile_stays() {
        let stage = Stage::new();
        let columns: Cells<'_> = &[("ID", "integer"), ("S", "string")];
        let long = "x".repeat(50_000);
        let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
        for (number, ids) in (1..).zip(ids.chunks(60)) {
            let cells: Vec<_> = ids.iter().map(|id| [("ID", &**id), ("S", &*long)]).collect();
            let rows: Vec<Cells<'_>> = cells.iter().map(<[_; 2]>::as_slice).collect();
            stage.send((100, number), columns, &rows).await;
        }
        // 15 MB: more than one round, and no time for a second one.
        let staging = stage.staging.clone();
        let hasty = Reconcile { staging, patience: Duration::ZERO };
        let caller = &stage.trial.caller;
        let (erp, table) = ("RM".to_owned(), "FLAN".to_owned());
        let rows = RowsRequest { erp: erp.clone(), table: table.clone(), ..RowsRequest::default() };
        let sums = RangesRequest { erp, table, ..RangesRequest::default() };
        let mut refused = 0;
        while let Err(error) = hasty.rows(caller, rows.clone()).await {
            assert_eq!((error.code, error.retry_after), (Code::Unavailable, Some(LATER)));
            assert!(error.is_transient());
            refused += 1;
        }
        assert!((1..5).contains(&refused), "{refused}");
        assert_eq!(hasty.ranges(caller, sums).await.unwrap().sums[0].count, 300);
    }
}
