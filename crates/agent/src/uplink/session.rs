//! Session: the lease of the stream, from the agent's side (`correctness.md` 3 e).
//!
//! Promises: a start asks with the journal's epoch and the database as it is now, and keeps its spool where the server
//! agrees; a grant that a dead process of this journal never learned is taken over; sending stops before the lease may
//! lapse, by the monotonic clock; the lease is given back on shutdown.
//! Never: sends as a standby; opens a session while the database's identity cannot be had.

use std::{future::Future, sync::Arc, time::Duration};

use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, Nonce},
    json::service,
    limits,
    names::TableName,
    proto::ingestion::{
        Granted, OpenRequest, OpenResponse, Versions, open_response::Result as Opened,
    },
};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono, Wall},
    failpoint,
    shutdown::Shutdown,
};
use tokio::sync::{Notify, watch};

use super::{
    Identity, UplinkConfig,
    board::{Board, phase_of},
    cloud::Cloud,
    fleet::{self, Fleet},
    lease::{Lease, valid_until},
    rebuild, reconcile,
    rpc::{OPEN, Rpc},
    sender::{Sender, Stop},
};
use crate::journal::{Grant, Incident, Journal, LinkPhase};

/// When a refused Open is asked again: a person may have acted.
const REFUSED_RETRY: Duration = Duration::from_secs(30);
/// After the lease was given back for want of an ERP database: longer than a standby's pause between two tries.
const HOLD_DOWN: Duration = Duration::from_secs(10);
/// What a sealed batch gets on shutdown to be finished.
const FINISH: Duration = Duration::from_secs(5);
/// The lease is given back within this or lapses by itself.
const GIVE_BACK: Duration = Duration::from_secs(2);

/// What a session works with.
pub(super) struct Means {
    pub journal: Journal,
    pub cloud: Arc<Cloud>,
    pub board: Arc<Board>,
    pub reread: Arc<Notify>,
    pub config: UplinkConfig,
    pub fleet: Fleet,
}

pub(super) struct Link<I> {
    pub(super) means: Means,
    identity: I,
    shutdown: Shutdown,
    pub(super) nonce: Nonce,
    rpc: Option<Rpc>,
    /// Epoch to give back.
    held: Option<Epoch>,
    /// The journal's epoch was not yet asked for.
    starting: bool,
    /// A process of this journal died between its Open and the journal's word of the grant: the server knows the lease
    /// by that nonce and would call ours a second copy until it lapses. Used until one Open is answered.
    inherits: Option<Nonce>,
    pauses: Backoff,
}

enum Start {
    Resumed(Lease),
    Granted(Lease, Granted),
    Held(Duration),
    Foreign,
}

/// How a time of holding the lease ended.
enum End {
    /// The batch was dropped; a new session is wanted at once.
    Dropped,
    Lost(Error),
    /// Nothing of the ERP database can be read: somebody else may be able to.
    Unread(Error),
}

impl<I, F> Link<I>
where
    I: Fn() -> F + Send + Sync,
    F: Future<Output = Result<Identity>> + Send,
{
    pub(super) fn new(means: Means, identity: I, shutdown: Shutdown) -> Self {
        let pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        let nonce = Nonce(runtime::entropy::uuid());
        Self {
            means,
            identity,
            shutdown,
            nonce,
            rpc: None,
            held: None,
            starting: true,
            inherits: None,
            pauses,
        }
    }

    pub(super) async fn run(mut self) -> Result<()> {
        let stop = finished(self.shutdown.clone(), self.means.journal.clone());
        tokio::pin!(stop);
        let result = loop {
            let failed = tokio::select! {
                biased;
                () = &mut stop => break Ok(()),
                failed = self.once() => failed,
            };
            if let Err(error) = failed {
                break Err(error);
            }
        };
        if let (Some(epoch), Some(rpc)) = (self.held, &self.rpc) {
            // Where this fails the lease lapses by itself.
            let _ = tokio::time::timeout(GIVE_BACK, self.release(rpc, epoch)).await;
        }
        self.means.board.stopped();
        result
    }

    /// One try: a lease, or a pause.
    async fn once(&mut self) -> Result<()> {
        match self.try_once().await {
            Ok(()) => Ok(()),
            Err(error) if error.code == Code::JournalFailed => Err(error),
            Err(error) => {
                if error.code == Code::InstanceTwice {
                    self.means.journal.saw_twice().await?;
                }
                let phase = phase_of(&error);
                let pause = match phase {
                    // A wrong password that is tried again and again locks accounts.
                    _ if error.code == Code::SourceLogin => REFUSED_RETRY,
                    LinkPhase::Refused => REFUSED_RETRY.min(self.pauses.next_pause() * 4),
                    _ => self.pauses.next_pause(),
                };
                self.means.board.waiting(phase, &error, Some(pause));
                self.standby(&error).await?;
                if phase == LinkPhase::Unreachable {
                    // It may have moved.
                    self.rpc = None;
                    self.means.cloud.registry_is_stale().await;
                }
                clock::sleep(pause).await;
                Ok(())
            }
        }
    }

    async fn try_once(&mut self) -> Result<()> {
        self.wait_for_plan().await;
        let rpc = self.rpc().await?;
        let end = match self.start(&rpc).await? {
            Start::Held(retry) => {
                let error = Error::new(Code::SessionHeld, "another agent sends this stream");
                let pause = retry.mul_f64(0.8 + 0.4 * runtime::entropy::fraction());
                self.means.board.waiting(LinkPhase::Standby, &error, Some(pause));
                self.standby(&error).await?;
                clock::sleep(pause).await;
                return Ok(());
            }
            Start::Foreign => return self.hold_foreign(&rpc).await,
            Start::Resumed(lease) => {
                tracing::info!(epoch = %lease.epoch, "session resumed");
                self.means.journal.resume(lease.epoch, Wall::now()).await?;
                Box::pin(self.hold(&rpc, lease, None)).await?
            }
            Start::Granted(lease, granted) => {
                tracing::info!(epoch = %lease.epoch, "session granted");
                let grant = grant_of(&lease, granted)?;
                Box::pin(self.hold(&rpc, lease, Some(grant))).await?
            }
        };
        match end {
            End::Dropped => {
                if let Some(epoch) = self.held.take() {
                    self.release(&rpc, epoch).await;
                }
                self.pauses.pause().await;
            }
            End::Lost(error) => {
                self.held = None;
                return Err(error);
            }
            End::Unread(error) => self.give_up(&rpc, &error).await?,
        }
        Ok(())
    }

    /// The lease goes back, and this agent asks for it again only after a standby had its turn (F41).
    async fn give_up(&mut self, rpc: &Rpc, error: &Error) -> Result<()> {
        self.means.board.waiting(LinkPhase::Standby, error, Some(HOLD_DOWN));
        self.standby(error).await?;
        if let Some(epoch) = self.held.take() {
            self.release(rpc, epoch).await;
        }
        self.means.journal.tell_unread(None);
        clock::sleep(HOLD_DOWN).await;
        Ok(())
    }

    /// Resolves once nothing of the ERP database could be read for too long.
    async fn unread(&self) -> Error {
        let mut unread = self.means.journal.unread();
        loop {
            let found = unread.borrow_and_update().clone();
            let Some(found) = found else {
                if unread.changed().await.is_err() {
                    // The journal is closed; the sender ends with it.
                    std::future::pending::<()>().await;
                }
                continue;
            };
            let away = self.means.config.source_away;
            let left = away.saturating_sub(found.since.elapsed());
            if left.is_zero() {
                return Error::new(found.code, found.words);
            }
            tokio::select! {
                biased;
                _ = unread.changed() => {}
                () = clock::sleep(left) => {}
            }
        }
    }

    /// Nothing is opened before it is known what to send.
    async fn wait_for_plan(&self) {
        let mut changed = self.means.journal.plan_changed();
        while !matches!(self.means.journal.plan().await, Ok(Some(_)) | Err(_)) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    async fn rpc(&mut self) -> Result<Rpc> {
        if let Some(rpc) = &self.rpc {
            return Ok(rpc.clone());
        }
        let target = self.means.cloud.address(service::INGESTION).await?;
        let line = self.means.cloud.web.line(&target)?;
        let rpc = Rpc::new(line, &target, Arc::clone(&self.means.cloud));
        self.rpc = Some(rpc.clone());
        Ok(rpc)
    }

    async fn start(&mut self, rpc: &Rpc) -> Result<Start> {
        if self.starting {
            let journal = &self.means.journal;
            let epoch = journal.last_epoch().await?;
            // A copy may have sent under it.
            let resumes = !journal.was_seen_twice().await?;
            if let Some(epoch) = epoch.filter(|_| resumes) {
                let database = (self.identity)().await?.database;
                match self.renew(rpc, epoch, Some(database)).await {
                    Ok(lease) => {
                        self.starting = false;
                        self.held = Some(epoch);
                        return Ok(Start::Resumed(lease));
                    }
                    Err(call) if call.is_unimplemented() => return Ok(Start::Foreign),
                    // Lapsed or another's: the spool is of no use any more.
                    Err(call)
                        if call.grpc() == Some(tonic::Code::FailedPrecondition)
                            && call.error().code != Code::InstanceTwice => {}
                    Err(call) => return Err(call.error()),
                }
            }
            self.starting = false;
            self.inherits = self.means.journal.unanswered().await?;
        }
        if let Some(nonce) = self.inherits {
            return self.open(rpc, nonce).await;
        }
        self.means.journal.opening(self.nonce).await?;
        self.open(rpc, self.nonce).await
    }

    async fn open(&mut self, rpc: &Rpc, nonce: Nonce) -> Result<Start> {
        let identity = (self.identity)().await?;
        let config = &self.means.config;
        let request = OpenRequest {
            erp: config.erp.to_string(),
            instance_id: self.means.journal.instance().to_string(),
            nonce: nonce.to_string(),
            database_identity: Some(identity.database),
            versions: Some(Versions {
                agent: config.agent_version.clone(),
                protocol: limits::PROTOCOL_VERSION,
                database: identity.version,
            }),
        };
        let since = Mono::now();
        failpoint::pass("session.open", Code::CloudUnreachable).await?;
        let answer = rpc.call(OPEN, request).await;
        failpoint::pass("session.opened", Code::CloudUnreachable).await?;
        let answer: OpenResponse = match answer {
            Ok(answer) => answer,
            Err(call) if call.is_unimplemented() => return Ok(Start::Foreign),
            Err(call) => return Err(call.error()),
        };
        self.inherits = None;
        match answer.result {
            Some(Opened::Granted(granted)) => {
                let epoch = Epoch(granted.epoch);
                self.held = Some(epoch);
                let ttl = Duration::from_secs(granted.ttl_seconds.into());
                let inherited = nonce != self.nonce;
                Ok(Start::Granted(Lease { epoch, ttl, since, inherited }, granted))
            }
            Some(Opened::Held(held)) => Ok(Start::Held(
                Duration::from_secs(held.retry_after_seconds.into())
                    .max(Duration::from_millis(500)),
            )),
            Some(Opened::Refused(refused)) => Err(Error::new(
                refused.code.parse().unwrap_or(Code::PermissionDenied),
                refused.message,
            )),
            None => Err(Error::new(Code::CloudUnreachable, "Open answered nothing")),
        }
    }

    /// Sends while the lease is kept. With a new grant the journal learns it first.
    async fn hold(&mut self, rpc: &Rpc, lease: Lease, grant: Option<Grant>) -> Result<End> {
        let epoch = lease.epoch;
        let (kept, valid) = watch::channel(valid_until(&lease));
        let journal = self.means.journal.clone();
        let mut sender = self.sender(rpc, Some(epoch), Some(valid));
        let work = async {
            if let Some(grant) = grant {
                if journal.is_set_back(&grant).await? {
                    set_back(&journal).await?;
                } else if journal.known_is_foreign(grant.last_batch).await? {
                    journal
                        .revoke(
                            Code::SessionHeld,
                            "another sender fed the stream last",
                            Wall::now(),
                        )
                        .await?;
                    journal.lose_known().await?;
                }
                journal.grant(grant, Wall::now()).await?;
            }
            self.means.board.sending(epoch, false);
            self.send(&mut sender, rpc).await
        };
        let stop = tokio::select! {
            // A lease that is lost ends the sending, whatever else came of it.
            biased;
            lost = self.keep(rpc, lease, kept) => return Ok(End::Lost(lost)),
            unread = self.unread() => return Ok(End::Unread(unread)),
            failed = self.steered(rpc, epoch) => return Err(failed),
            stop = work => stop?,
        };
        if sender.completed {
            self.pauses.reset();
        }
        Ok(match stop {
            Stop::Dropped => End::Dropped,
            Stop::Fenced(error) => End::Lost(error),
        })
    }

    /// Sends, and beside it learns what is staged of tables that are not known, and asks for verification.
    async fn send(&self, sender: &mut Sender, rpc: &Rpc) -> Result<Stop> {
        let Means { journal, config, .. } = &self.means;
        tokio::select! {
            biased;
            stop = sender.run() => stop,
            failed = rebuild::follow(journal, rpc, &config.erp) => Err(failed),
            failed = reconcile::answer(journal, rpc, &config.erp) => Err(failed),
        }
    }

    /// Reports and carries out orders for as long as the lease is held. Ends by a fault of the journal alone.
    async fn steered(&self, rpc: &Rpc, epoch: Epoch) -> Error {
        let Means { journal, config, fleet, .. } = &self.means;
        let line = fleet::Line {
            journal: journal.clone(),
            rpc: rpc.clone(),
            erp: config.erp.to_string(),
            epoch,
            version: config.agent_version.clone(),
        };
        Box::pin(fleet.follow(&line)).await
    }

    fn sender(
        &self,
        rpc: &Rpc,
        epoch: Option<Epoch>,
        valid: Option<watch::Receiver<Mono>>,
    ) -> Sender {
        Sender {
            journal: self.means.journal.clone(),
            rpc: rpc.clone(),
            erp: self.means.config.erp.clone(),
            epoch,
            valid,
            board: Arc::clone(&self.means.board),
            reread: Arc::clone(&self.means.reread),
            denied_retry: self.means.config.denied_retry,
            completed: false,
        }
    }

    /// A server without sessions: cursor and last batch are the journal's, and this agent is the only one.
    async fn hold_foreign(&mut self, rpc: &Rpc) -> Result<()> {
        let journal = self.means.journal.clone();
        let last = journal.last_epoch().await?;
        let mut epoch = last.unwrap_or_default();
        let spooled = self.starting && last.is_some() && journal.spool().borrow().batch.is_some();
        self.starting = false;
        if spooled {
            journal.resume(epoch, Wall::now()).await?;
        }
        tracing::info!(
            "the server has no sessions: this agent must be the only sender of the stream"
        );
        let mut fresh = !spooled;
        loop {
            if std::mem::replace(&mut fresh, true) {
                epoch = epoch.next();
                let last_batch = journal.last_batch().await?.unwrap_or(BatchId(0));
                let cursors = journal.cursors().await?;
                journal.grant(Grant { epoch, last_batch, cursors }, Wall::now()).await?;
            }
            self.means.board.sending(epoch, true);
            let mut sender = self.sender(rpc, None, None);
            let stop = self.send(&mut sender, rpc).await?;
            if sender.completed {
                self.pauses.reset();
            }
            if let Stop::Fenced(error) = stop {
                return Err(error);
            }
            self.pauses.pause().await;
        }
    }

    /// No grant, no spool; said once.
    async fn standby(&self, error: &Error) -> Result<()> {
        let journal = &self.means.journal;
        let granted = journal.granted().borrow().is_some();
        // Until the journal's epoch was asked for, its spool may still be good.
        let spooled = !self.starting && journal.spool().borrow().batch.is_some();
        if granted || spooled {
            return match journal.revoke(error.code, &error.message, Wall::now()).await {
                // Tried again with the next pause.
                Err(full) if full.code == Code::DiskFull => Ok(()),
                revoked => revoked,
            };
        }
        Ok(())
    }
}

/// The server knows less than it did: what is spooled continues what it does not have, what is known may not be staged.
async fn set_back(journal: &Journal) -> Result<()> {
    let words = "the server came back from an older copy; what it lacks is read again";
    tracing::error!(code = %Code::CloudSetBack, words, hint = Code::CloudSetBack.hint());
    journal.revoke(Code::CloudSetBack, words, Wall::now()).await?;
    journal.lose_known().await?;
    let incident = Incident {
        table: None,
        key_hash: None,
        code: Code::CloudSetBack,
        words: words.to_owned(),
        at_micros: Wall::now().0,
    };
    journal.incident(incident).await
}

fn grant_of(lease: &Lease, granted: Granted) -> Result<Grant> {
    let entry = |entry: protocol::proto::ingestion::CursorEntry| {
        let table: TableName = entry.table.parse()?;
        Ok((table, entry.value))
    };
    Ok(Grant {
        epoch: lease.epoch,
        last_batch: BatchId(granted.last_batch),
        cursors: granted.cursor.into_iter().map(entry).collect::<Result<_>>()?,
    })
}

/// The drain was asked for, and the sealed batch, if any, is through or had its time.
async fn finished(mut shutdown: Shutdown, journal: Journal) {
    shutdown.draining().await;
    let mut spool = journal.spool();
    let sending = journal.link().borrow().phase == LinkPhase::Sending;
    if sending {
        let done = spool.wait_for(|state| state.batch.is_none() || !state.sealed);
        // Late or closed: the rows are read again by whoever sends next.
        let _ = tokio::time::timeout(FINISH, done).await;
    }
}
