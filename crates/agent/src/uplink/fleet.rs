//! Fleet: what the agent tells the server of itself, and the orders it takes from there (`contracts.md` 5.6).
//!
//! Promises: reports every 10 s and on change; an order is in the journal before anything is done for it, is carried out
//! once, and what became of it is told until the server took it; a server without this service is met in silence.
//! Never: keeps the sender waiting; acts but through the journal.
//!
//! Rooms: `report` is the picture and what counts as its change · `act` reads an order.

mod act;
mod report;

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use protocol::{
    Code, Error, Result,
    ids::{Epoch, OrderId},
    limits,
    proto::fleet::{
        Command, CommandsRequest, ProgressRequest, ProgressResponse, ReportRequest, ReportResponse,
    },
};
use runtime::{
    backoff::Backoff,
    clock::{self, Mono, Wall},
    failpoint,
};
use tokio::sync::Notify;

use super::{
    rpc::{COMMANDS, CallError, PROGRESS, REPORT, Rpc},
    sender::PAUSES,
};
use crate::journal::{Journal, OrderOutcome, Taken};
use report::{Picture, Standings};

/// A stream of commands that lasted as long begins the pauses anew.
const LASTED: Duration = Duration::from_secs(10);

/// What outlives a session: whether the server knows the service at all.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// It did not; asked again then.
    absent: Mutex<Option<Mono>>,
}

/// A session's line to the service.
pub(super) struct Line {
    pub journal: Journal,
    pub rpc: Rpc,
    pub erp: String,
    pub epoch: Epoch,
    /// Of the agent.
    pub version: String,
}

/// Why a part of the room ended.
enum End {
    Absent,
    /// The journal failed.
    Failed(Error),
}

impl Fleet {
    /// Runs for as long as the session is held. Ends by a fault of the journal alone.
    pub(super) async fn follow(&self, line: &Line) -> Error {
        let untold = Notify::new();
        loop {
            self.until_asked_again().await;
            let end = tokio::select! {
                biased;
                end = line.report() => end,
                end = line.obey(&untold) => end,
                end = line.tell(&untold) => end,
            };
            match end {
                End::Failed(error) => return error,
                End::Absent => self.note_absent(),
            }
        }
    }

    async fn until_asked_again(&self) {
        let due = *self.absent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(due) = due {
            clock::sleep(due - Mono::now()).await;
        }
    }

    fn note_absent(&self) {
        let again = Mono::now() + limits::FLEET_ABSENT;
        let before = self.absent.lock().unwrap_or_else(PoisonError::into_inner).replace(again);
        if before.is_none() {
            tracing::info!(
                "the server has no fleet service: it is told nothing and orders nothing"
            );
        }
    }
}

impl Line {
    /// Tells the picture as it changes, and every 10 s.
    async fn report(&self) -> End {
        let mut news = self.journal.pictures();
        let mut pauses = Backoff::new(PAUSES.0, limits::FLEET_REPORT);
        let mut told: Option<(Picture, Mono)> = None;
        let mut verified = self.journal.verify_orders();
        let mut standing = None;
        loop {
            news.mark_unchanged();
            if verified.has_changed().unwrap_or(true) {
                standing = None;
                verified.mark_unchanged();
            }
            let picture = match self.picture(&mut standing).await {
                Ok(picture) => picture,
                Err(error) if error.code == Code::JournalFailed => return End::Failed(error),
                Err(_) => {
                    pauses.pause().await;
                    continue;
                }
            };
            let age = told.as_ref().map(|(told, at)| (told, at.elapsed()));
            if report::is_due(age, &picture) {
                match self.send(&picture).await {
                    Ok(ReportResponse {}) => {
                        pauses.reset();
                        told = Some((picture, Mono::now()));
                    }
                    Err(call) if call.is_unimplemented() => return End::Absent,
                    Err(call) => {
                        tracing::debug!(error = %call.error(), "the server took no report");
                        pauses.pause().await;
                        continue;
                    }
                }
            }
            let since = told.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
            tokio::select! {
                biased;
                changed = news.changed() => {
                    if changed.is_err() {
                        return End::Failed(closed());
                    }
                }
                _ = verified.changed() => standing = None,
                () = clock::sleep(limits::FLEET_REPORT.saturating_sub(since)) => {}
            }
            let since = told.as_ref().map_or(Duration::ZERO, |(_, at)| at.elapsed());
            clock::sleep(limits::FLEET_REPORT_GAP.saturating_sub(since)).await;
        }
    }

    /// `standing` is kept by the caller until a verification ends.
    async fn picture(&self, standing: &mut Option<Standings>) -> Result<Picture> {
        let standing = match standing {
            Some(known) => known,
            None => standing.insert(self.journal.standing().await?),
        };
        let mut statuses = self.journal.statuses().await?;
        if let Some(paused) = self.journal.paused() {
            // Nobody ordered that, so it is told as what it is: nothing is read for the lack of something.
            let halts = self.journal.halts();
            for status in statuses.iter_mut().filter(|of| halts.of(&of.table).is_none()) {
                status.state = "PARKED".into();
                status.parked = Some((paused.code.to_string(), paused.words.clone()));
            }
        }
        Ok(report::picture(statuses, &self.journal.parked(), standing))
    }

    async fn send(&self, picture: &Picture) -> Result<ReportResponse, CallError> {
        let request = ReportRequest {
            erp: self.erp.clone(),
            epoch: self.epoch.0,
            tables: picture.tables(),
            version: self.version.clone(),
        };
        self.rpc.call(REPORT, request).await
    }

    /// Takes orders, from one stream of commands after another.
    async fn obey(&self, untold: &Notify) -> End {
        let mut pauses = Backoff::new(PAUSES.0, limits::FLEET_REPORT);
        loop {
            let begun = Mono::now();
            match self.commands(untold).await {
                Ok(()) => {}
                Err(Cut::Call(call)) if call.is_unimplemented() => return End::Absent,
                Err(Cut::Call(call)) => {
                    tracing::debug!(error = %call.error(), "the stream of commands was cut");
                }
                Err(Cut::Journal(error)) if error.code == Code::JournalFailed => {
                    return End::Failed(error);
                }
                Err(Cut::Journal(error)) => {
                    tracing::warn!(code = %error.code, words = error.message, "an order waits");
                }
            }
            if begun.elapsed() > LASTED {
                pauses.reset();
            }
            pauses.pause().await;
        }
    }

    /// One stream of commands, to its end.
    async fn commands(&self, untold: &Notify) -> Result<(), Cut> {
        let request = CommandsRequest { erp: self.erp.clone(), epoch: self.epoch.0 };
        let mut commands =
            self.rpc.stream::<_, Command>(COMMANDS, request).await.map_err(Cut::Call)?;
        loop {
            let next = commands.message().await;
            match next.map_err(|status| Cut::Call(CallError::Status(status)))? {
                Some(command) => self.take(&command, untold).await.map_err(Cut::Journal)?,
                None => return Ok(()),
            }
        }
    }

    /// An order: kept, carried out, and its outcome left to be told.
    async fn take(&self, command: &Command, untold: &Notify) -> Result<()> {
        let Ok(id) = command.id.parse::<OrderId>() else {
            tracing::warn!("an order without a good id is left alone");
            return Ok(());
        };
        if self.journal.take_order(id, Wall::now()).await? != Taken::Ended {
            failpoint::pass("fleet.taken", Code::CloudUnreachable).await?;
            // A word for people who wait; nothing hangs on it.
            let _ = self.progress(id, None).await;
            let deed = act::deed(command, &self.journal.detail_log(), Wall::now());
            let code = self.journal.carry_out(id, deed).await?;
            tracing::warn!(order = %id, verb = command.verb, table = command.table, ?code, "ordered through the server");
            failpoint::pass("fleet.carried", Code::CloudUnreachable).await?;
        }
        untold.notify_one();
        Ok(())
    }

    /// Tells what became of orders until the server took it.
    async fn tell(&self, untold: &Notify) -> End {
        let mut pauses = Backoff::new(PAUSES.0, limits::FLEET_REPORT);
        // An order to verify is over when its last verification is.
        let mut verified = self.journal.verify_orders();
        loop {
            match self.tell_all().await {
                Ok(()) => {
                    pauses.reset();
                    tokio::select! {
                        biased;
                        () = untold.notified() => {}
                        changed = verified.changed() => {
                            if changed.is_err() {
                                return End::Failed(closed());
                            }
                        }
                    }
                }
                Err(Cut::Call(call)) if call.is_unimplemented() => return End::Absent,
                Err(Cut::Journal(error)) if error.code == Code::JournalFailed => {
                    return End::Failed(error);
                }
                Err(Cut::Call(_) | Cut::Journal(_)) => pauses.pause().await,
            }
        }
    }

    async fn tell_all(&self) -> Result<(), Cut> {
        for outcome in self.journal.untold_orders().await.map_err(Cut::Journal)? {
            let told = self.progress(outcome.id, Some(outcome)).await;
            // An order that the server does not know any more is nobody's.
            if let Err(call) = told
                && call.grpc() != Some(tonic::Code::NotFound)
            {
                return Err(Cut::Call(call));
            }
            self.journal.order_told(outcome.id).await.map_err(Cut::Journal)?;
        }
        Ok(())
    }

    async fn progress(&self, id: OrderId, outcome: Option<OrderOutcome>) -> Result<(), CallError> {
        let code = outcome.and_then(|outcome| outcome.code);
        let request = ProgressRequest {
            id: id.to_string(),
            done: outcome.is_some(),
            code: code.map_or_else(String::new, |code| code.to_string()),
        };
        // The message names no session.
        let answer = self.rpc.call_under(PROGRESS, request, Some(self.epoch)).await;
        answer.map(|ProgressResponse {}| ())
    }
}

/// Why a part of the work stopped.
enum Cut {
    Call(CallError),
    Journal(Error),
}

fn closed() -> Error {
    Error::new(Code::JournalFailed, "the journal is closed")
}
