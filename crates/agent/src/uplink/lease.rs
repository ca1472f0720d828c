//! Lease: what keeps a grant alive: the calls that renew it and give it back.
//!
//! Promises: it counts from when the call that granted it was sent, by the monotonic clock; a renewal says how far the
//! database's log was seen, and the first one of a process which database it is.
//! Never: sends rows; decides what follows when it is lost.

use std::{future::Future, time::Duration};

use protocol::{
    Code, Error, Result,
    ids::Epoch,
    limits,
    proto::ingestion::{
        DatabaseIdentity, ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse,
    },
};
use runtime::{
    clock::{self, Mono},
    failpoint,
};
use tokio::sync::watch;

use super::{
    Identity,
    board::phase_of,
    rpc::{CallError, RELEASE, RENEW, Rpc},
    session::Link,
};
use crate::journal::LinkPhase;

/// Away for longer, the addresses are asked again and the batch is read again.
const AWAY: Duration = Duration::from_secs(60);

/// A lease as the server granted it; `None` = a server without sessions.
pub(super) struct Lease {
    pub epoch: Epoch,
    pub ttl: Duration,
    /// When the call that granted it was sent.
    pub since: Mono,
    /// Granted to the nonce of a process that died: renewed with our own as soon as the journal knows the epoch.
    pub inherited: bool,
}

impl<I, F> Link<I>
where
    I: Fn() -> F + Send + Sync,
    F: Future<Output = Result<Identity>> + Send,
{
    /// Renews. The first one of a process also tells which database this is: nobody looked at that since the grant (F51).
    pub(super) async fn renew(
        &self,
        rpc: &Rpc,
        epoch: Epoch,
        database: Option<DatabaseIdentity>,
    ) -> Result<Lease, CallError> {
        let request = RenewRequest {
            erp: self.means.config.erp.to_string(),
            epoch: epoch.0,
            nonce: self.nonce.to_string(),
            database_identity: database,
            position: self.means.journal.position().unwrap_or_default(),
        };
        let since = Mono::now();
        let lost = |error| CallError::Before(error);
        failpoint::pass("session.renew", Code::CloudUnreachable).await.map_err(lost)?;
        let answer: RenewResponse = rpc.call(RENEW, request).await?;
        failpoint::pass("session.renewed", Code::CloudUnreachable).await.map_err(lost)?;
        let ttl = Duration::from_secs(answer.ttl_seconds.into());
        Ok(Lease { epoch, ttl, since, inherited: false })
    }

    pub(super) async fn release(&self, rpc: &Rpc, epoch: Epoch) {
        let request = ReleaseRequest { erp: self.means.config.erp.to_string(), epoch: epoch.0 };
        if let Err(call) = rpc.call::<_, ReleaseResponse>(RELEASE, request).await {
            tracing::debug!(error = %call.error(), "lease not given back, it lapses by itself");
        }
    }

    /// Waits until the journal knows that epoch.
    async fn granted(&self, epoch: Epoch) {
        let mut granted = self.means.journal.granted();
        // Where the journal is closed the sender ends with it.
        let _ = granted
            .wait_for(|grant| grant.as_ref().is_some_and(|grant| grant.epoch == epoch))
            .await;
    }

    /// Renews until the lease is lost.
    pub(super) async fn keep(
        &self,
        rpc: &Rpc,
        mut lease: Lease,
        kept: watch::Sender<Mono>,
    ) -> Error {
        let mut away = false;
        loop {
            if lease.inherited {
                self.granted(lease.epoch).await;
            } else {
                let pause = if away { Duration::from_secs(1) } else { limits::SESSION_RENEW };
                clock::sleep(pause.min(lease.ttl / 3)).await;
            }
            // Where the first renewal fails the next ones come at their usual pace.
            lease.inherited = false;
            match self.renew(rpc, lease.epoch, None).await {
                Ok(renewed) => {
                    kept.send_replace(valid_until(&renewed));
                    lease = renewed;
                    if std::mem::take(&mut away) {
                        self.means.board.sending(lease.epoch, false);
                    }
                }
                Err(call) if call.grpc() == Some(tonic::Code::FailedPrecondition) => {
                    return call.error();
                }
                Err(call) => {
                    let error = call.error();
                    if lease.since.elapsed() > AWAY {
                        return error;
                    }
                    if !std::mem::replace(&mut away, true) {
                        // A right that was taken away is not a cloud that is away.
                        let phase = match phase_of(&error) {
                            LinkPhase::Refused => LinkPhase::Refused,
                            _ => LinkPhase::Unreachable,
                        };
                        self.means.board.waiting(phase, &error, None);
                    }
                }
            }
        }
    }
}

pub(super) fn valid_until(lease: &Lease) -> Mono {
    lease.since + lease.ttl.saturating_sub(limits::SESSION_MARGIN)
}
