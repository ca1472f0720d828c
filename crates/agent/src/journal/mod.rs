//! Journal: what the agent owes, on disk (SQLite), and the only corridor between its rooms.
//!
//! Promises: a spooled table message keeps its number and its bytes until the batch is closed or dropped.
//! Promises: the state of snapshot-diff (known rows) changes only with an accepted Summary; what a dropped batch may
//! have left in staging stays known, with hash zero, so that its delete is still found.
//! Never: calls the ERP or the cloud, reads a clock, hands out a transaction. Never a reason not to start: a corrupt
//! journal is moved aside and told.
//!
//! SEAM (fixed on day one): `capture` writes batches and reads grants, plan and known rows; `uplink` writes grants and
//! plan, sends the spool and closes batches, carries out what the server orders; `admin` reads status and asks for reloads.

mod apart;
mod asking;
pub mod backup;
mod damage;
mod deletes;
mod detail;
mod halt;
mod history;
mod known;
mod open;
mod orders;
mod people;
mod read;
mod rounds;
mod session;
mod spool;
mod types;
mod verify;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use protocol::{
    Code, Error, Result,
    hash::RowHash,
    ids::{BatchId, Epoch, InstanceId, MessageNumber, Nonce},
    json::{Entities, Service},
    key::KeyBytes,
    names::TableName,
};
use runtime::clock::Wall;
use tokio::sync::{Semaphore, watch};

use apart::Attention;
pub use apart::{Coming, Parked, Paused, Refusals, Retry, Slowed, Suspect, Unread, schema_mark};
pub use asking::{Asked, KeySpan, Question, StagedPage, StagedSum, Told};
pub use deletes::{Answer, CappedDeletes, Counted, Verdict};
pub use detail::{DETAIL_LOG, detail_order};
pub use halt::{Halt, Halts};
pub use history::{CLEAN_JOB, Clean, Cleaned, HistoryRow};
pub use known::Walked;
pub use orders::{Deed, OrderOutcome, Taken};
pub use read::Selected;
pub use types::{
    Grant, Incident, LinkPhase, LinkState, Poisoned, Recovery, Seal, SpoolMessage, SpoolState,
    TableStatus, key_hash,
};
pub use verify::{
    Differences, Origin, Outcome, Progress, Stage, Standing, Verification, VerifyOrder,
};
use writer::{Desk, Tell, Writer};

/// Handle on the journal's one writer thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Journal {
    writer: Writer,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    instance: InstanceId,
    path: PathBuf,
    reading: Semaphore,
    tell: Arc<Tell>,
    link: watch::Sender<LinkState>,
    attention: watch::Sender<Attention>,
    unread: watch::Sender<Option<Unread>>,
    position: watch::Sender<Option<Vec<u8>>>,
    pictures: watch::Sender<u64>,
    rounds: watch::Sender<rounds::Rounds>,
    questions: asking::Questions,
    /// Counts orders to verify.
    verify: watch::Sender<u64>,
    verifying: watch::Sender<Option<Progress>>,
}

impl Journal {
    /// Opens or makes `{folder}/journal.sqlite`, locks the folder against a second process (`STORE_BUSY`).
    ///
    /// # Errors
    /// `STORE_BUSY`, `STORE_VERSION` for a newer program's journal, `JOURNAL_FAILED`, `DISK_FULL`.
    pub async fn open(folder: &Path) -> Result<(Self, Recovery)> {
        let folder = folder.to_owned();
        let path = folder.join(open::FILE);
        let opened = runtime::task::blocking(move || open::open(&folder)).await??;
        let tell = Arc::new(Tell {
            granted: watch::Sender::new(None),
            spool: watch::Sender::new(opened.desk.state.spool.clone()),
            plan: watch::Sender::new(0),
            fault: watch::Sender::new(None),
        });
        let damage::Found { capped, halts, again } = opened.found;
        let shared = Shared {
            instance: opened.instance,
            path,
            reading: Semaphore::new(1),
            tell: Arc::clone(&tell),
            link: watch::Sender::new(LinkState::default()),
            attention: watch::Sender::new(Attention { capped, halts, ..Attention::default() }),
            unread: watch::Sender::new(None),
            position: watch::Sender::new(None),
            pictures: watch::Sender::new(0),
            rounds: watch::Sender::new(rounds::Rounds::new(again)),
            questions: asking::Questions::new(),
            verify: watch::Sender::new(0),
            verifying: watch::Sender::new(None),
        };
        let writer = Writer::start(opened.desk, tell, opened.lock)?;
        Ok((Self { writer, shared: Arc::new(shared) }, opened.recovery))
    }

    /// Kept with the agent's data; made at birth.
    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.shared.instance
    }

    /// Resolves once the file failed for good (I/O error, damage): the process must end with a code that is not zero;
    /// its supervisor starts it again and the spool is read again from the ERP.
    pub async fn failed(&self) -> Error {
        let mut fault = self.shared.tell.fault.subscribe();
        let words = match fault.wait_for(Option::is_some).await {
            Ok(words) => words.clone().unwrap_or_default(),
            Err(_) => "the journal is closed".to_owned(),
        };
        Error::new(Code::JournalFailed, words)
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.run(work).await
    }
}

/// Plan and registry: uplink writes, capture reads.
impl Journal {
    /// Keeps the last good answer of Entities. Bumps `plan_changed` where it differs.
    pub async fn save_plan(&self, entities: Entities) -> Result<()> {
        let over = self
            .run(move |desk| {
                session::save_plan(desk, &entities)?;
                orders::follow_plan(desk, &entities)
            })
            .await?;
        if over {
            self.verify_ordered();
        }
        Ok(())
    }

    pub async fn plan(&self) -> Result<Option<Entities>> {
        self.run(|desk| session::plan(desk)).await
    }

    #[must_use]
    pub fn plan_changed(&self) -> watch::Receiver<u64> {
        self.shared.tell.plan.subscribe()
    }

    /// Keeps the last good answer of the registry.
    pub async fn save_registry(&self, services: Vec<Service>) -> Result<()> {
        self.run(move |desk| session::save_registry(desk, &services)).await
    }

    pub async fn registry(&self) -> Result<Option<Vec<Service>>> {
        self.run(|desk| session::registry(desk)).await
    }
}

/// Session: uplink writes, capture reads.
impl Journal {
    /// Epoch of the last grant, for `Renew` at the start.
    pub async fn last_epoch(&self) -> Result<Option<Epoch>> {
        self.run(|desk| desk.epoch()).await
    }

    /// Nonce of an Open that was sent and whose grant, if there was one, did not reach this journal.
    pub async fn unanswered(&self) -> Result<Option<Nonce>> {
        self.run(|desk| session::unanswered(desk)).await
    }

    /// An Open goes out with this nonce. Forgotten with the grant that follows.
    pub async fn opening(&self, nonce: Nonce) -> Result<()> {
        self.run(move |desk| session::opening(desk, nonce)).await
    }

    /// The server saw this instance twice. Forgotten with the grant that follows.
    pub async fn saw_twice(&self) -> Result<()> {
        self.run(|desk| session::saw_twice(desk)).await
    }

    /// Whether it did since the last grant: then the journal's epoch is no place to go on.
    pub async fn was_seen_twice(&self) -> Result<bool> {
        self.run(|desk| session::was_seen_twice(desk)).await
    }

    /// Highest batch id this journal was granted or opened, at least the second it was restored in; `None` = never.
    pub async fn last_batch(&self) -> Result<Option<BatchId>> {
        self.run(|desk| {
            let own = desk.fact("granted_batch")?.max(desk.fact("opened_batch")?);
            Ok(own.max(desk.fact(backup::RESTORED)?).map(BatchId))
        })
        .await
    }

    /// Where `last`, the session's last batch, is not one this journal completed, was granted or opened since: another
    /// sender fed the stream, and the known rows no longer tell what is staged. So too where a copy of this journal may have.
    pub async fn known_is_foreign(&self, last: BatchId) -> Result<bool> {
        self.run(move |desk| session::foreign(desk, last)).await
    }

    /// Whether a grant shows that the server came back from an older copy: the known rows no longer tell what is staged,
    /// also where its last batch is this journal's own.
    pub async fn is_set_back(&self, grant: &Grant) -> Result<bool> {
        let grant = grant.clone();
        self.run(move |desk| session::set_back(desk, &grant)).await
    }

    /// Cursor entries of the last grant, moved on by completed batches (for a server without sessions).
    pub async fn cursors(&self) -> Result<BTreeMap<TableName, Vec<u8>>> {
        self.run(|desk| Ok(session::cursors(desk)?.into_iter().collect())).await
    }

    /// A new session: drops the open batch, writes the epoch, tells `granted`.
    pub async fn grant(&self, grant: Grant, at: Wall) -> Result<()> {
        self.run(move |desk| session::grant(desk, grant, at)).await
    }

    /// `Renew` of the journal's epoch was accepted at the start: a sealed batch stays in the spool and is resent; one
    /// that was not sealed is dropped (capture's place in it was lost). The grant told holds the cursors as they will
    /// be once the spool is complete; capture opens its next batch when `spool().batch` is `None`.
    pub async fn resume(&self, epoch: Epoch, at: Wall) -> Result<()> {
        self.run(move |desk| session::resume(desk, epoch, at)).await
    }

    /// Standby: no grant, the open batch is dropped.
    pub async fn revoke(&self, code: Code, words: &str, at: Wall) -> Result<()> {
        tracing::info!(%code, words, "standing by");
        let words = words.to_owned();
        self.run(move |desk| session::revoke(desk, (code, &words), at)).await
    }

    /// `None` = standby, not yet connected, or between a dropped batch and the next grant. Tells a change where a new
    /// grant begins or ends; what it holds follows each completed batch (cursors, last batch) without telling.
    #[must_use]
    pub fn granted(&self) -> watch::Receiver<Option<Arc<Grant>>> {
        self.shared.tell.granted.subscribe()
    }
}

/// Spool: capture writes, uplink sends.
impl Journal {
    /// Opens the one batch under the grant's epoch. `FENCED` where the grant changed meanwhile.
    pub async fn open_batch(&self, epoch: Epoch, batch: BatchId, at: Wall) -> Result<()> {
        self.run(move |desk| spool::open_batch(desk, epoch, batch, at)).await
    }

    /// Durable when it returns. Numbers rise by one from 1. `FENCED` where the batch was dropped meanwhile;
    /// `JOURNAL_FAILED`, `DISK_FULL`. All messages or none are kept.
    pub async fn append(&self, batch: BatchId, messages: Vec<SpoolMessage>) -> Result<()> {
        self.run(move |desk| spool::append(desk, batch, &messages)).await
    }

    /// Ends the batch; uplink sends Prepare and Summary once all is acked.
    pub async fn seal(&self, batch: BatchId, seal: Seal) -> Result<()> {
        self.run(move |desk| spool::seal(desk, batch, &seal)).await
    }

    /// Spooled messages numbered above `after` that are not acked, in order, at most `max_bytes` (one at least).
    /// `JOURNAL_CORRUPT` where a record's CRC32C does not fit its bytes.
    pub async fn unacked(
        &self,
        batch: BatchId,
        after: MessageNumber,
        max_bytes: usize,
    ) -> Result<Vec<SpoolMessage>> {
        self.run(move |desk| spool::unacked(desk, batch, after, max_bytes)).await
    }

    pub async fn acked(&self, batch: BatchId, numbers: Vec<MessageNumber>) -> Result<()> {
        self.run(move |desk| spool::acked(desk, batch, &numbers)).await
    }

    /// The server does not have the messages from `from` on after all; they count as not acked.
    pub async fn unack(&self, batch: BatchId, from: MessageNumber) -> Result<()> {
        self.run(move |desk| spool::unack(desk, batch, from)).await
    }

    /// The seal, once `capture` wrote it.
    pub async fn sealed(&self, batch: BatchId) -> Result<Option<Seal>> {
        self.run(move |desk| spool::sealed(desk, batch)).await
    }

    /// The Summary was accepted: in one transaction the known rows change, the cursors move, confirmed deletes are
    /// settled, the history told, the spool is emptied.
    pub async fn complete(&self, batch: BatchId, at: Wall) -> Result<()> {
        let (rows, settled, over) = self
            .run(move |desk| {
                let rows = spool::rows_per_table(desk)?;
                let seal = spool::complete(desk, batch, at)?;
                seal.deletes_done.iter().try_for_each(|table| deletes::settle(desk, table))?;
                let over = orders::reloaded(desk, &seal.reloads_done)?;
                Ok((rows, seal.deletes_done, over))
            })
            .await?;
        if over {
            self.verify_ordered();
        }
        self.shared.attention.send_modify(|attention| {
            attention.passed(&rows);
            attention.capped.retain(|table, _| !settled.contains(table));
        });
        Ok(())
    }

    /// Throws the open batch away; what it may have staged stays known with hash zero. Ends the grant: uplink asks
    /// for the next one.
    pub async fn drop_batch(&self, code: Code, words: &str, at: Wall) -> Result<()> {
        tracing::warn!(%code, words, "batch dropped; its rows are read again");
        if code == Code::ClockAhead {
            self.shared.attention.send_modify(|attention| attention.clock_ahead = true);
        }
        let words = words.to_owned();
        self.run(move |desk| session::revoke(desk, (code, &words), at)).await
    }

    /// This machine's clock runs ahead of the server's: batch ids follow the last one. Holds for this process.
    #[must_use]
    pub fn is_clock_ahead(&self) -> bool {
        self.shared.attention.borrow().clock_ahead
    }

    #[must_use]
    pub fn spool(&self) -> watch::Receiver<SpoolState> {
        self.shared.tell.spool.subscribe()
    }
}

/// Known rows: key and hash of what staging holds (snapshot-diff and key scan).
impl Journal {
    /// Hash of each key, `None` = not known. Hash zero = perhaps staged.
    pub async fn known(
        &self,
        table: &TableName,
        keys: Vec<KeyBytes>,
    ) -> Result<Vec<Option<RowHash>>> {
        let table = table.clone();
        self.run(move |desk| known::look_up(desk, &table, &keys)).await
    }

    pub async fn known_count(&self, table: &TableName) -> Result<u64> {
        let table = table.clone();
        self.run(move |desk| known::count(desk, &table)).await
    }

    /// Forgets all known rows of a table.
    pub async fn known_clear(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            desk.run("DELETE FROM known WHERE table_id = ?1", [table]).map(|_| ())
        })
        .await
    }

    /// The known rows do not follow the session: forgets all of them, those of withdrawn tables too. From now on
    /// [`Self::to_learn`] names each table of the plan until it was learned.
    pub async fn lose_known(&self) -> Result<()> {
        self.run(|desk| known::lose(desk)).await
    }

    /// Tables of the plan whose known rows do not follow the session; capture leaves them out.
    pub async fn to_learn(&self) -> Result<BTreeSet<TableName>> {
        self.plan_to_learn().await.map(|(_, tables)| tables)
    }

    /// The plan together with [`Self::to_learn`] of it.
    pub async fn plan_to_learn(&self) -> Result<(Option<Entities>, BTreeSet<TableName>)> {
        self.run(known::plan_to_learn).await
    }

    /// What [`Self::known_load`] brought of this table is all that is staged. Told as a change of the plan.
    pub async fn learned(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| known::learned(desk, &table)).await
    }

    /// Rebuild from `Reconcile`: adds rows as known.
    pub async fn known_load(
        &self,
        table: &TableName,
        rows: Vec<(KeyBytes, RowHash)>,
    ) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| {
            let table = desk.number(&table)?;
            rows.iter().try_for_each(|(key, hash)| known::put(desk, table, (key, *hash), None))
        })
        .await
    }

    /// Starts a key scan of a table: forgets what was seen before.
    pub async fn scan_begin(&self, table: &TableName) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| known::scan_begin(desk, &table)).await
    }

    /// Keys seen in the ERP by the scan under way (not durable; a restart begins the scan again).
    pub async fn scan_seen(&self, table: &TableName, keys: Vec<KeyBytes>) -> Result<()> {
        let table = table.clone();
        self.run(move |desk| known::scan_seen(desk, &table, &keys)).await
    }

    /// Compares known keys with the complete scan, ascending behind `after`, at most `limit` of them: whoever else
    /// needs the journal has a turn between two calls.
    pub async fn scan_walk(
        &self,
        table: &TableName,
        after: Option<KeyBytes>,
        limit: usize,
    ) -> Result<Walked> {
        let table = table.clone();
        self.run(move |desk| known::scan_walk(desk, &table, after, limit)).await
    }

    /// Known keys the complete scan did not see, ascending behind `after`.
    pub async fn scan_missing(
        &self,
        table: &TableName,
        after: Option<KeyBytes>,
        limit: usize,
    ) -> Result<Vec<KeyBytes>> {
        let table = table.clone();
        self.run(move |desk| known::scan_missing(desk, &table, after, limit)).await
    }
}

/// What people see and ask for.
impl Journal {
    /// The whole picture; replaces the last one.
    pub async fn save_status(&self, statuses: Vec<TableStatus>) -> Result<()> {
        self.run(move |desk| people::save_status(desk, &statuses)).await?;
        self.shared.pictures.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Changes with every picture that is saved.
    #[must_use]
    pub fn pictures(&self) -> watch::Receiver<u64> {
        self.shared.pictures.subscribe()
    }

    pub async fn statuses(&self) -> Result<Vec<TableStatus>> {
        self.run(|desk| people::statuses(desk)).await
    }

    pub async fn incident(&self, incident: Incident) -> Result<()> {
        self.run(move |desk| people::incident(desk, &incident)).await
    }

    /// Opens an incident, or tells the open one anew: one of its table and code is enough.
    pub async fn incident_once(&self, incident: Incident) -> Result<()> {
        self.run(move |desk| {
            people::close(desk, incident.table.as_ref(), incident.code)?;
            people::incident(desk, &incident)
        })
        .await
    }

    /// Capture stops reading and says why, or goes on. The incident is open as long.
    pub async fn pause(&self, paused: Option<Paused>) -> Result<()> {
        self.shared.attention.send_modify(|attention| attention.paused.clone_from(&paused));
        match paused {
            Some(Paused { code, words, since }) => {
                let at_micros = since.0;
                let incident = Incident { table: None, key_hash: None, code, words, at_micros };
                self.incident_once(incident).await
            }
            None => self.run(|desk| people::close(desk, None, Code::DiskFull)).await,
        }
    }

    /// Capture tells whether it can read the ERP database: the first of a row of failures stays, a page read ends it. Tells
    /// whether that is news.
    pub fn tell_unread(&self, found: Option<Unread>) -> bool {
        self.shared.unread.send_if_modified(|unread| {
            let news = found.is_none() != unread.is_none();
            if news {
                *unread = found;
            }
            news
        })
    }

    /// Since when nothing of the ERP database can be read.
    #[must_use]
    pub fn unread(&self) -> watch::Receiver<Option<Unread>> {
        self.shared.unread.subscribe()
    }

    /// Why capture does not read.
    #[must_use]
    pub fn paused(&self) -> Option<Paused> {
        self.shared.attention.borrow().paused.clone()
    }

    /// The newest first.
    pub async fn incidents(&self, limit: usize) -> Result<Vec<Incident>> {
        self.run(move |desk| people::incidents(desk, limit)).await
    }

    /// `malote agent reload`: one request per table (`None` = all of the plan), numbered higher than the last.
    pub async fn request_reload(&self, table: Option<TableName>) -> Result<()> {
        let lifted = table.clone();
        self.run(move |desk| people::request_reload(desk, table.as_ref())).await?;
        match lifted {
            Some(table) => self.unpark(&table),
            None => self.parked().keys().for_each(|table| self.unpark(table)),
        }
        Ok(())
    }

    /// Local reload number per table; `capture` keeps the last one it ran in the table's cursor.
    pub async fn reload_requests(&self) -> Result<BTreeMap<TableName, u64>> {
        self.run(|desk| people::reload_requests(desk)).await
    }

    /// How uplink stands with the cloud.
    pub fn set_link(&self, link: LinkState) {
        self.shared.link.send_if_modified(|held| {
            let differs = *held != link;
            *held = link;
            differs
        });
    }

    #[must_use]
    pub fn link(&self) -> watch::Receiver<LinkState> {
        self.shared.link.subscribe()
    }
}

#[cfg(test)]
mod tests;
