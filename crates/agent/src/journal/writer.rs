//! The journal's writer thread: jobs that wait together share one commit.
//!
//! Promises: an answer leaves only after the commit that holds its effect; what a failed job or commit did is gone from
//! the file and from memory alike.
//! Never: goes on after an I/O error: the thread ends and the process is to exit (a failed fsync may have lost pages
//! that the operating system calls clean; the spool is derived again from the ERP).

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
};

use protocol::{Code, Error, Result, ids::Epoch, names::TableName};
use runtime::{failpoint, world};
use rusqlite::{Connection, ErrorCode, OptionalExtension as _, params};
use tokio::sync::{oneshot, watch};

use super::{Grant, SpoolState, damage};

/// Jobs of one commit; a job is at most what capture appends at once.
const GROUP: usize = 64;

type Answer = Box<dyn FnOnce(Option<&Error>) + Send>;
type Job = Box<dyn FnOnce(&mut Desk) -> (Answer, Option<Code>) + Send>;

/// What the thread keeps in memory; copied before each job and put back where the job fails.
#[derive(Clone, Default, Debug)]
pub(super) struct State {
    pub grant: Option<Arc<Grant>>,
    /// Rises where the grant's holder must look, not where a completed batch merely moves its cursors.
    pub grant_serial: u64,
    pub plan_serial: u64,
    pub spool: SpoolState,
    pub spool_bytes: u64,
    /// All numbers up to this one are acknowledged …
    pub acked_up_to: i32,
    /// … and these above it.
    pub acked_above: std::collections::BTreeSet<i32>,
}

/// Watch channels fed after each commit.
#[derive(Debug)]
pub(super) struct Tell {
    pub granted: watch::Sender<Option<Arc<Grant>>>,
    pub spool: watch::Sender<SpoolState>,
    pub plan: watch::Sender<u64>,
    pub fault: watch::Sender<Option<String>>,
}

/// The connection with what belongs to it.
#[derive(Debug)]
pub(super) struct Desk {
    pub db: Connection,
    pub state: State,
    numbers: BTreeMap<TableName, i64>,
    /// A read or write met damage.
    damaged: bool,
}

impl Desk {
    pub(super) fn new(db: Connection) -> Self {
        Self { db, state: State::default(), numbers: BTreeMap::new(), damaged: false }
    }

    /// Number of a table name, made on first use.
    pub(super) fn number(&mut self, table: &TableName) -> Result<i64> {
        if let Some(number) = self.numbers.get(table) {
            return Ok(*number);
        }
        let found = self
            .db
            .prepare_cached("SELECT id FROM named WHERE folded = ?1")
            .and_then(|mut find| find.query_row([table.folded()], |row| row.get(0)).optional())
            .map_err(failed)?;
        let number = match found {
            Some(number) => number,
            None => self
                .db
                .prepare_cached("INSERT INTO named (folded, name) VALUES (?1, ?2)")
                .and_then(|mut add| add.insert([table.folded(), table.as_str()]))
                .map_err(failed)?,
        };
        self.numbers.insert(table.clone(), number);
        Ok(number)
    }

    pub(super) fn fact<T: rusqlite::types::FromSql>(&self, name: &str) -> Result<Option<T>> {
        self.db
            .prepare_cached("SELECT value FROM fact WHERE name = ?1")
            .and_then(|mut read| read.query_row([name], |row| row.get(0)).optional())
            .map_err(failed)
    }

    pub(super) fn set_fact(&self, name: &str, value: impl rusqlite::ToSql) -> Result<()> {
        self.run("INSERT OR REPLACE INTO fact VALUES (?1, ?2)", params![name, value]).map(|_| ())
    }

    pub(super) fn run(&self, sql: &str, values: impl rusqlite::Params) -> Result<usize> {
        self.db.prepare_cached(sql).and_then(|mut s| s.execute(values)).map_err(failed)
    }

    /// All rows of a query, mapped.
    pub(super) fn rows<T>(
        &self,
        sql: &str,
        values: impl rusqlite::Params,
        read: impl FnMut(&rusqlite::Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>> {
        let mut statement = self.db.prepare_cached(sql).map_err(failed)?;
        let rows = statement.query_map(values, read).map_err(failed)?;
        rows.collect::<rusqlite::Result<_>>().map_err(failed)
    }

    pub(super) fn epoch(&self) -> Result<Option<Epoch>> {
        Ok(self.fact::<i64>("epoch")?.map(|epoch| Epoch(epoch.cast_unsigned())))
    }

    fn job<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let before = self.state.clone();
        self.db.execute_batch("SAVEPOINT job").map_err(failed)?;
        let result = work(self);
        self.damaged |= result.as_ref().is_err_and(damage::is_damage);
        if result.is_ok() {
            self.db.execute_batch("RELEASE job").map_err(failed)?;
        } else {
            self.state = before;
            self.numbers.clear();
            // A full disk may have rolled the whole transaction back; then the commit fails and says so.
            let _ = self.db.execute_batch("ROLLBACK TO job; RELEASE job");
        }
        result
    }

    fn group(
        &mut self,
        first: Job,
        more: impl FnMut() -> Option<Job>,
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        let before = self.state.clone();
        let outcome = self.group_in_transaction(first, more, answers);
        if outcome.is_err() {
            self.state = before;
            self.numbers.clear();
            // Where the transaction is gone already there is nothing to roll back.
            let _ = self.db.execute_batch("ROLLBACK");
        }
        outcome
    }

    fn group_in_transaction(
        &mut self,
        first: Job,
        mut more: impl FnMut() -> Option<Job>,
        answers: &mut Vec<Answer>,
    ) -> Result<()> {
        // Where BEGIN fails the job still runs, so that its caller is answered; nothing of it can stay.
        let begun = failpoint::reach("journal.begin", Code::DiskFull)
            .and_then(|()| self.db.execute_batch("BEGIN IMMEDIATE").map_err(failed));
        let mut next = Some(first);
        let mut fault = None;
        while let Some(job) = next.take() {
            let (answer, code) = job(self);
            answers.push(answer);
            fault = fault.or(code.filter(|code| *code == Code::JournalFailed));
            if answers.len() < GROUP && fault.is_none() && begun.is_ok() {
                next = more();
            }
        }
        begun?;
        if fault.is_some() {
            return Err(Error::new(
                Code::JournalFailed,
                "the journal's file could not be written or read",
            ));
        }
        failpoint::reach("journal.commit", Code::JournalFailed)?;
        self.db.execute_batch("COMMIT").map_err(failed)?;
        failpoint::reach("journal.committed", Code::JournalFailed)
    }
}

impl Tell {
    fn publish(&self, state: &State, seen: (u64, u64)) {
        let (grants, plans) = seen;
        self.granted.send_if_modified(|held| {
            *held = state.grant.clone();
            state.grant_serial != grants
        });
        self.spool.send_if_modified(|held| {
            let differs = *held != state.spool;
            held.clone_from(&state.spool);
            differs
        });
        if state.plan_serial != plans {
            self.plan.send_replace(state.plan_serial);
        }
    }
}

/// Handle on the writer; it ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(super) struct Writer(Way);

#[derive(Clone, Debug)]
enum Way {
    Thread(Sender<Job>),
    /// In a simulated world, which has one thread: jobs are done where they are asked for. `None` after a fault.
    Here(Arc<Mutex<Option<Seat>>>),
}

/// All that the writer works with; the folder's lock is freed with it.
#[derive(Debug)]
struct Seat {
    desk: Desk,
    tell: Arc<Tell>,
    _lock: Arc<File>,
}

impl Writer {
    /// The thread holds the folder's lock too: the file closes a moment after the last handle went.
    pub(super) fn start(desk: Desk, tell: Arc<Tell>, lock: Arc<File>) -> Result<Self> {
        let mut seat = Seat { desk, tell, _lock: lock };
        if world::is_on() {
            return Ok(Self(Way::Here(Arc::new(Mutex::new(Some(seat))))));
        }
        let (jobs, queue) = mpsc::channel();
        runtime::task::thread("journal", move || {
            while let Ok(first) = queue.recv() {
                if seat.serve(first, || queue.try_recv().ok()).is_err() {
                    return seat.leave();
                }
            }
        })?;
        Ok(Self(Way::Thread(jobs)))
    }

    /// Hands a job over; `None` where nobody does it any more.
    fn hand_over(&self, job: Job) -> Option<()> {
        match &self.0 {
            Way::Thread(jobs) => jobs.send(job).ok(),
            Way::Here(seat) => {
                let mut held = seat.lock().unwrap_or_else(PoisonError::into_inner);
                if held.as_mut()?.serve(job, || None).is_err()
                    && let Some(seat) = held.take()
                {
                    seat.leave();
                }
                Some(())
            }
        }
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Desk) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |desk| {
            let result = desk.job(work);
            let code = result.as_ref().err().map(|error| error.code);
            let answer: Answer = Box::new(move |failed| {
                let answer = match failed {
                    // The job's own refusal says more than the group's failure.
                    Some(group) if result.is_ok() => {
                        Err(Error::new(group.code, group.message.clone()))
                    }
                    _ => result,
                };
                // Nobody waits any more: the caller went away, the effect stays.
                let _ = tell.send(answer);
            });
            (answer, code)
        });
        let gone = || Error::new(Code::JournalFailed, "the journal is closed after a fault");
        self.hand_over(job).ok_or_else(gone)?;
        world::committed().await;
        told.await.map_err(|_| gone())?
    }
}

impl Seat {
    /// Does a group of jobs. An error is one after which nothing may be written any more.
    fn serve(&mut self, first: Job, more: impl FnMut() -> Option<Job>) -> Result<(), ()> {
        let Self { desk, tell, .. } = self;
        let seen = (desk.state.grant_serial, desk.state.plan_serial);
        let mut answers = Vec::new();
        let outcome = desk.group(first, more, &mut answers);
        let error = outcome.err();
        let fatal = error.as_ref().filter(|error| error.code == Code::JournalFailed);
        // Before anybody hears of it: who hears may end the process.
        if fatal.is_some_and(|error| desk.damaged || damage::is_damage(error)) {
            damage::mark(&desk.db);
        }
        tell.publish(&desk.state, seen);
        for answer in answers {
            answer(error.as_ref());
        }
        let Some(error) = fatal else { return Ok(()) };
        tracing::error!(code = %error.code, cause = error.cause(), "journal failed; the process must end");
        tell.fault.send_replace(Some(error.to_string()));
        Err(())
    }

    /// Closing would checkpoint pages that may be lost already.
    fn leave(self) {
        std::mem::forget(self.desk.db);
    }
}

/// A full disk goes away by itself; every other failure of the file ends the thread.
pub(super) fn failed(cause: rusqlite::Error) -> Error {
    let code = match cause.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => Code::DiskFull,
        _ => Code::JournalFailed,
    };
    let words = match code {
        Code::DiskFull => "no room for the journal",
        _ => "the journal's file could not be written or read",
    };
    Error::new(code, words).because(cause)
}
