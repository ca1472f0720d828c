//! Worker: waits for a grant, reads batch after batch under it, starts over with the next one.
//!
//! Promises: one batch is open at a time; whatever happens to a batch, the tables go on from the grant's entries.
//! Never: goes on with what it held in memory after a batch was lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, Generation},
    limits,
    names::{ErpName, TableName},
};
use runtime::{
    clock::{Mono, Wall},
    shutdown::Shutdown,
};
use tokio::sync::watch;

use super::{
    ahead,
    batcher::{Batcher, batch_id},
    cycle::{Cycle, Fault, Tools},
    erp_clock::ErpClock,
    room::Room,
    schedule::Schedule,
    table::{self, Table},
};
use crate::{
    config::AgentConfig,
    journal::{Coming, Grant, Halt, Incident, Journal, Parked, Paused, Seal, Unread},
    pacing::Governor,
    source::Source,
};

/// How often orders of the admin door are looked for while nothing happens.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Pause after the journal refused something, before the next grant is looked for.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// The capture of one stream.
pub struct Worker<S> {
    pub(super) source: Arc<S>,
    pub(super) journal: Journal,
    pub(super) config: Arc<AgentConfig>,
    erp: ErpName,
    shutdown: Shutdown,
    pub(super) schedule: Schedule,
    /// A run of the recurrence is over: nothing is read before the next one.
    pub(super) resting: bool,
    pub(super) room: Room,
    governor: Arc<Governor>,
    pub(super) erp_clock: ErpClock,
}

/// What is held under one grant.
pub(super) struct Session {
    epoch: Epoch,
    pub(super) tables: Vec<Table>,
    /// Entries of tables that are not in the plan now, or are not read yet.
    pub(super) cursors: BTreeMap<TableName, Vec<u8>>,
    /// Tables of the plan that uplink has to learn first.
    pub(super) unlearned: BTreeSet<TableName>,
    /// Base loads that ended without a row to send: told with the next batch.
    loads_done: Vec<(TableName, Generation)>,
    /// The table whose turn is first.
    first: usize,
    /// This cycle is for the tables that go alone.
    apart: bool,
    /// Whether reading is stopped for want of room; `None` = not looked yet.
    paused: Option<bool>,
    pub(super) plan: watch::Receiver<u64>,
    pub(super) planned: bool,
    pub(super) orders: BTreeMap<TableName, u64>,
}

impl<S: Source> Worker<S> {
    #[must_use]
    pub fn new(
        source: Arc<S>,
        journal: Journal,
        config: Arc<AgentConfig>,
        erp: ErpName,
        shutdown: Shutdown,
    ) -> Self {
        let room = Room::of(config.data.clone());
        let schedule = Schedule::default();
        let governor = Arc::default();
        let erp_clock = ErpClock::default();
        Self {
            source,
            journal,
            config,
            erp,
            shutdown,
            schedule,
            resting: false,
            room,
            governor,
            erp_clock,
        }
    }

    /// At the pace that others who read the same source in bulk keep too.
    #[must_use]
    pub fn paced_by(mut self, governor: Arc<Governor>) -> Self {
        self.governor = governor;
        self
    }

    /// Runs until the shutdown.
    ///
    /// # Errors
    /// `JOURNAL_FAILED` where the journal is closed, `CONFIG_INVALID` where the schedule cannot be read.
    pub async fn run(mut self) -> Result<()> {
        self.schedule = Schedule::of(&self.config.capture)?;
        self.resting = self.schedule.recurs();
        let mut granted = self.journal.granted();
        loop {
            let grant = {
                let mut draining = self.shutdown.clone();
                tokio::select! {
                    biased;
                    () = draining.draining() => return Ok(()),
                    grant = granted.wait_for(Option::is_some) => {
                        let grant = grant.map_err(|_| closed())?.clone();
                        let Some(grant) = grant else { continue };
                        grant
                    }
                }
            };
            let mut draining = self.shutdown.clone();
            let mut changed = granted.clone();
            let ended = tokio::select! {
                biased;
                () = draining.draining() => return Ok(()),
                _ = changed.changed() => continue,
                ended = self.session(&grant) => ended,
            };
            match ended {
                Fault::Session(error) if error.code == Code::Fenced => {}
                Fault::Session(error) | Fault::Table(error) => {
                    tracing::error!(%error, cause = error.cause(), "capture lost its batch");
                    self.drop_batch(&error, granted.clone()).await;
                    if error.code == Code::DiskFull {
                        self.tell_full(&error).await;
                    }
                }
            }
            self.next_grant(&mut granted).await;
        }
    }

    /// What is open is dropped, tried until it is: left as it is, capture would wait for uplink to empty it, and uplink for
    /// capture to seal it. Where uplink ended the grant meanwhile, the batch went with it. Where the journal is ill itself
    /// its own watch ends the process.
    async fn drop_batch(&self, error: &Error, mut granted: watch::Receiver<Option<Arc<Grant>>>) {
        let mut draining = self.shutdown.clone();
        let dropped = async {
            while let Err(failed) =
                self.journal.drop_batch(error.code, &error.message, Wall::now()).await
            {
                if failed.code == Code::JournalFailed {
                    return;
                }
                tracing::warn!(code = %failed.code, "the open batch cannot be dropped yet");
                runtime::clock::sleep(FAULT_PAUSE).await;
            }
        };
        tokio::select! {
            biased;
            () = draining.draining() => {}
            () = dropped => {}
            _ = granted.changed() => {}
        }
    }

    /// The spool found no room; on a disk that is full to the last byte this may find none either.
    async fn tell_full(&self, error: &Error) {
        let incident = Incident {
            table: None,
            key_hash: None,
            code: error.code,
            words: error.message.clone(),
            at_micros: Wall::now().0,
        };
        if let Err(untold) = self.journal.incident_once(incident).await {
            tracing::warn!(code = %untold.code, "the incident could not be kept");
        }
    }

    /// Whether there is room to read on; says so where that changes. The lease is uplink's and stays.
    async fn has_room(&self, session: &mut Session) -> Result<bool> {
        let lacks = self.room.lacks();
        if session.paused == Some(lacks.is_some()) {
            return Ok(lacks.is_none());
        }
        session.paused = Some(lacks.is_some());
        let paused = lacks.map(|free| Paused {
            code: Code::DiskFull,
            words: format!(
                "{} MB free for the data folder, reading needs {}: it goes on once there is room",
                free / 1_048_576,
                limits::DISK_FREE_BYTES / 1_048_576
            ),
            since: Wall::now(),
        });
        match &paused {
            Some(paused) => {
                tracing::error!(code = %paused.code, words = paused.words, "reading stopped")
            }
            None => tracing::info!("there is room to read"),
        }
        match self.journal.pause(paused).await {
            // It is known and shown all the same; only the incident could not be kept.
            Err(error) if error.code == Code::DiskFull => Ok(lacks.is_none()),
            told => told.map(|()| lacks.is_none()),
        }
    }

    /// Waits until the grant is another one; a fault is not repeated at full speed.
    async fn next_grant(&mut self, granted: &mut watch::Receiver<Option<Arc<Grant>>>) {
        let mut draining = self.shutdown.clone();
        tokio::select! {
            biased;
            () = draining.draining() => {}
            _ = granted.changed() => {}
            () = runtime::clock::sleep(FAULT_PAUSE) => {}
        }
    }

    /// Batch after batch; ends by a fault of the session alone.
    async fn session(&mut self, grant: &Grant) -> Fault {
        let mut session = Session {
            epoch: grant.epoch,
            tables: Vec::new(),
            cursors: grant.cursors.clone(),
            unlearned: BTreeSet::new(),
            loads_done: Vec::new(),
            first: 0,
            // The first cycle of a session is the others'.
            apart: true,
            paused: None,
            plan: self.journal.plan_changed(),
            planned: false,
            orders: BTreeMap::new(),
        };
        let mut spool = self.journal.spool();
        // A batch resent from before the start comes first.
        if spool.wait_for(|state| state.batch.is_none()).await.is_err() {
            return Fault::Session(closed());
        }
        if self.resting && self.schedule.recurs() {
            // The run before is over, or the process starts between two runs: the plan is shown and its time waited for.
            let shown = match self.show(&mut session).await {
                Ok(()) => self.rest(&mut session).await,
                fault => fault,
            };
            if let Err(fault) = shown {
                return fault;
            }
        }
        loop {
            let done = match self.cycle(&mut session).await {
                Ok(true) => Ok(()),
                Ok(false) => self.rest(&mut session).await,
                Err(fault) => Err(fault),
            };
            if let Err(fault) = done {
                return fault;
            }
        }
    }

    /// Reads and seals one batch. True = there is more to read at once.
    async fn cycle(&self, session: &mut Session) -> Result<bool, Fault> {
        self.refresh(session).await.map_err(Fault::Session)?;
        for table in &mut session.tables {
            table.ahead.take_if(|ahead| ahead.is_old());
        }
        if !self.has_room(session).await.map_err(Fault::Session)? {
            self.tell(session).await.map_err(Fault::Session)?;
            runtime::clock::sleep(LOOK).await;
            return Ok(false);
        }
        let now = Wall::now().0;
        let start = session.tables.iter().filter(|table| table.park.is_none());
        let start =
            start.filter(|table| table.cursor.loaded).filter_map(|table| table.cursor.micros).min();
        let start = start.map(|start| start.min(now));
        let last =
            self.journal.granted().borrow().as_ref().map_or(BatchId(0), |grant| grant.last_batch);
        // A clock the server found ahead must not number batches: the next id is above the last one, that is enough.
        let ahead = self.journal.is_clock_ahead();
        let id = if ahead { last.next() } else { batch_id(start.unwrap_or(now), last) };
        let batch = Batcher::new(id, self.erp.clone());
        let tools = Tools {
            source: &*self.source,
            journal: &self.journal,
            config: &self.config,
            epoch: session.epoch,
            room: &self.room,
            governor: &self.governor,
            erp_clock: &self.erp_clock,
        };
        let mut cycle = Cycle::new(tools, batch);
        let cut = self.turns(session, &mut cycle).await?;
        for table in &mut session.tables {
            let allowance = table.seen.as_ref().map_or(Duration::ZERO, |seen| seen.allowance());
            if let Some(pass) = table.pass.take() {
                table.pass = pass.cut(&mut table.cursor, allowance);
            }
        }
        cycle.batch.finish();
        cycle.spool().await?;
        if !session.tables.iter().any(Table::loads) {
            // Nothing is read in bulk that would look by itself.
            cycle.pacing().look_while_idle().await;
        }
        session.loads_done.append(&mut cycle.loads_done);
        if cycle.is_open() {
            self.end(session, &cycle.batch, start).await?;
        }
        self.tell_asked(session).await.map_err(Fault::Session)?;
        self.tell(session).await.map_err(Fault::Session)?;
        metrics::counter!("malote_agent_cycles_total").increment(1);
        let mono = Mono::now();
        let halts = self.journal.halts();
        let mut going = session.tables.iter().filter(|t| halts.of(&t.query.table).is_none());
        let more = cut || going.any(|table| table.has_more(mono));
        Ok(more || (!session.apart && !self.journal.alone().is_empty()))
    }

    /// The tables of this cycle, the one whose turn is first at the head. Those that go alone have every second cycle:
    /// what is refused of them costs the others nothing.
    fn round(&self, session: &mut Session) -> Vec<usize> {
        let (suspects, alone) = (self.journal.suspects(), self.journal.alone());
        let mut retries = self.journal.take_retries();
        let count = session.tables.len();
        let goes_alone = |table: &Table| alone.contains(&table.query.table);
        let now = Wall::now();
        let opens = self.schedule.loads_from(now);
        let may_load = opens == Some(now);
        self.journal.tell_coming(Coming { cycle: None, loads: opens.filter(|_| !may_load) });
        session.apart = !session.apart && session.tables.iter().any(goes_alone);
        self.hear(session);
        for table in &mut session.tables {
            (table.delta_done, table.scan_done, table.may_load) = (false, false, may_load);
            table.suspect = suspects.contains_key(&table.query.table);
            if let Some(rows) = retries.remove(&table.query.table) {
                table.try_again(rows);
            }
        }
        let place = |at: usize| (at + session.first) % count;
        let mine =
            |at: &usize| session.tables.get(*at).is_some_and(|t| goes_alone(t) == session.apart);
        let mut all: Vec<usize> = (0..count).map(place).filter(mine).collect();
        // Behind the one whose turn it is, changes go before base loads, after whose chunks the database rests.
        let loads = |at: &usize| session.tables.get(*at).is_some_and(Table::loads);
        all.get_mut(1..).unwrap_or_default().sort_by_key(loads);
        all
    }

    /// Round after round over the tables until none has more or the batch is over. True = cut.
    async fn turns(&self, session: &mut Session, cycle: &mut Cycle<'_, S>) -> Result<bool, Fault> {
        let parked = self.journal.parked();
        let mut waiting = self.round(session);
        let mut silent: Option<Error> = None;
        while !waiting.is_empty() {
            let mut next = Vec::new();
            for (place, at) in waiting.iter().copied().enumerate() {
                if cycle.is_over() {
                    session.first = at;
                    return Ok(place < waiting.len());
                }
                let Some(table) = session.tables.get_mut(at) else { continue };
                if self.journal.is_halted(&table.query.table) {
                    continue;
                }
                if let Some(parked) = parked.get(&table.query.table) {
                    table.refused(parked, Mono::now());
                    self.look_at_refused(cycle, table, parked).await?;
                    continue;
                }
                table.admitted();
                if table.rests(Mono::now()) {
                    continue;
                }
                if let Some(error) = &silent {
                    // One time-out a cycle is enough to know that the database does not answer.
                    self.put_aside(cycle, table, error).await?;
                    continue;
                }
                match cycle.turn(table).await {
                    Ok(more) => {
                        if self.journal.tell_unread(None) {
                            tracing::info!("the ERP database is read again");
                        }
                        next.extend(more.then_some(at));
                    }
                    Err(Fault::Table(error)) if error.code == Code::DatabaseChanged => {
                        // Whether it may go on from the same cursors is the server's to judge, with the next session.
                        return Err(Fault::Session(error));
                    }
                    Err(Fault::Table(error)) => {
                        self.put_aside(cycle, table, &error).await?;
                        silent = self.unread(error);
                    }
                    Err(fault) => return Err(fault),
                }
            }
            waiting = next;
        }
        Ok(false)
    }

    /// Tells uplink where it is the database that cannot be read, not this table. The error, where no table can.
    fn unread(&self, error: Error) -> Option<Error> {
        let whole =
            matches!(error.code, Code::SourceUnreachable | Code::SourceFile | Code::SourceTls);
        if whole || matches!(error.code, Code::SourceTimeout | Code::SourceStandby) {
            let (code, words) = (error.code, error.message.clone());
            if self.journal.tell_unread(Some(Unread { since: Mono::now(), code, words })) {
                tracing::warn!(code = %error.code, words = error.message, hint = error.code.hint(), "the ERP database cannot be read");
            }
        }
        whole.then_some(error)
    }

    /// A table that the server refuses for what it is: under another schema it is tried again.
    async fn look_at_refused(
        &self,
        cycle: &mut Cycle<'_, S>,
        table: &mut Table,
        parked: &Parked,
    ) -> Result<(), Fault> {
        if !table.is_to_look_at(Mono::now()) {
            return Ok(());
        }
        let seen = match cycle.describe(table).await {
            Ok(seen) => seen,
            // It is not to be had just now.
            Err(Fault::Table(_)) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        if parked.schema.is_some_and(|refused| refused != seen.mark()) {
            let name = &table.query.table;
            tracing::info!(table = %name, "another schema: the parked table is tried again");
            self.journal.forgive_all(name).await.map_err(Fault::Session)?;
            self.journal.unpark(name);
        }
        Ok(())
    }

    async fn put_aside(
        &self,
        cycle: &Cycle<'_, S>,
        table: &mut Table,
        error: &Error,
    ) -> Result<(), Fault> {
        if error.code == Code::SchemaChanged && table.park.is_none() {
            // Described and read again with the next cycle; the second time in a row it rests.
            (table.seen, table.pass, table.read) = (None, None, None);
        }
        let news = table.park(error, Mono::now());
        if !news {
            return Ok(());
        }
        tracing::warn!(table = %table.query.table, %error, cause = error.cause(), hint = error.code.hint(), "table parked");
        if error.is_transient() {
            return Ok(());
        }
        let name = &table.query.table;
        self.journal.not_loaded(name, error.code).await.map_err(Fault::Session)?;
        cycle.incident(table, None, error.code, &error.message).await
    }

    /// Seals the batch and waits until it is accepted.
    async fn end(
        &self,
        session: &mut Session,
        batch: &Batcher,
        start: Option<i64>,
    ) -> Result<(), Fault> {
        let id = batch.id();
        let moved: Vec<_> = session
            .tables
            .iter()
            .filter_map(|table| Some((table.query.table.clone(), table.moved()?)))
            .collect();
        let seal = Seal {
            messages: batch.messages(),
            records: batch.records(),
            start,
            end: Wall::now().0.max(start.unwrap_or(i64::MIN)),
            cursors: moved.clone(),
            loads_done: std::mem::take(&mut session.loads_done),
            deletes_done: session.tables.iter_mut().filter_map(Table::deletes_done).collect(),
            reloads_done: session.tables.iter().filter_map(Table::reload_done).collect(),
        };
        self.journal.seal(id, seal).await.map_err(Fault::Session)?;
        let mut spool = self.journal.spool();
        let over = async {
            let over = spool.wait_for(|state| state.batch != Some(id)).await;
            over.map(|state| state.completed).map_err(|_| Fault::Session(closed()))
        };
        let next = session.tables.get(session.first);
        let ahead = async {
            let table = next.filter(|table| !self.journal.is_halted(&table.query.table))?;
            let now = Wall::now();
            if self.schedule.loads_from(now) != Some(now) {
                return None;
            }
            ahead::read(&*self.source, table).await
        };
        let (over, ahead) = tokio::join!(over, ahead);
        if over? != Some(id) {
            return Err(Fault::Session(Error::new(Code::Fenced, "the batch was dropped")));
        }
        if let Some(table) = session.tables.get_mut(session.first) {
            table.ahead = ahead;
        }
        let mut moved: BTreeMap<_, _> = moved.into_iter().collect();
        for table in &mut session.tables {
            if let Some(entry) = moved.remove(&table.query.table) {
                table.stored = entry;
            }
            if let Some(back) = table.met() {
                self.erp_clock.is_met(&table.query.table, back);
            }
            let name = table.query.table.to_string();
            metrics::counter!("malote_agent_rows_total", "table" => name)
                .increment(table.pending.0);
            table.accepted();
        }
        metrics::counter!("malote_agent_batches_total").increment(1);
        Ok(())
    }

    pub(super) async fn tell(&self, session: &Session) -> Result<()> {
        let now = Wall::now();
        let opens = self.schedule.loads_from(now);
        let read = session.tables.iter().map(|table| {
            let mut status = table.status(now);
            if table.cursor.load.is_some() && opens != Some(now) {
                let from = opens.map_or_else(|| "never".to_owned(), Wall::to_iso);
                status.paused = Some(format!("the base load waits for its hours, from {from}"));
            }
            status
        });
        let unread = session.unlearned.iter().map(|name| table::unread(name.clone()));
        let mut statuses: Vec<_> = read.chain(unread).collect();
        if let Some(paused) = self.journal.paused() {
            for status in statuses.iter_mut().filter(|status| status.parked.is_none()) {
                status.state = "PAUSED".into();
                status.paused = Some(format!("{}: {}", paused.code, paused.words));
            }
        }
        let halts = self.journal.halts();
        for status in &mut statuses {
            if let Some(Halt { who, why, since }) = halts.of(&status.table) {
                status.state = "PAUSED".into();
                status.paused = Some(format!("by {who} since {}: {why}", since.to_iso()));
            }
        }
        for status in &statuses {
            let name = status.table.to_string();
            let parked = if status.parked.is_some() { 1.0 } else { 0.0 };
            metrics::gauge!("malote_agent_table_parked", "table" => name.clone()).set(parked);
            if let Some(lag) = status.lag_ms {
                metrics::gauge!("malote_agent_lag_seconds", "table" => name).set(seconds(lag));
            }
        }
        match self.journal.save_status(statuses).await {
            // A picture that finds no room is no reason to lose the session.
            Err(error) if error.code == Code::DiskFull => Ok(()),
            saved => saved,
        }
    }
}

fn closed() -> Error {
    Error::new(Code::JournalFailed, "the journal is closed")
}

#[expect(clippy::cast_precision_loss, reason = "a lag shown to people")]
fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}
