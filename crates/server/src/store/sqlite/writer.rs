//! The one writer thread of a SQLite file, with group commit.
//!
//! Promises: jobs run in the order of arrival; an answer leaves only after the commit that holds its effect; where the
//! commit fails every job of the group gets the failure, where the transaction does not begin every job that waits.
//! Never: keeps a job's effect whose work returned an error or panicked (where it cannot be taken back alone, nothing of
//! its group is kept); ends for a panic in a job.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Sender},
    },
};

use protocol::{Code, Error, Result};
use runtime::{failpoint, world};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::failed;

/// Jobs that share one commit: at about 60 KB each the group stays below 4 MB.
const GROUP: usize = 64;

/// Runs inside the group's transaction, or is told why there is none; its answer leaves after the commit.
type Job = Box<dyn FnOnce(std::result::Result<&mut Group<'_>, &Error>) -> Answer + Send>;
/// Called once with the commit's outcome.
type Answer = Box<dyn FnOnce(std::result::Result<(), &Error>) + Send>;

/// Jobs that share a transaction.
struct Group<'a> {
    transaction: Transaction<'a>,
    /// A job can neither be kept nor taken back alone: nothing of the group may be committed.
    doomed: bool,
}

/// Handle on the writer, which ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Way);

#[derive(Clone, Debug)]
enum Way {
    Thread(Sender<Job>),
    /// In a simulated world, which has one thread: jobs are done where they are asked for.
    Here(Arc<Mutex<Connection>>),
}

impl Writer {
    pub(crate) fn start(mut connection: Connection) -> Result<Self> {
        if world::is_on() {
            return Ok(Self(Way::Here(Arc::new(Mutex::new(connection)))));
        }
        let (jobs, queue) = mpsc::channel();
        runtime::task::thread("store-writer", move || {
            while let Ok(first) = queue.recv() {
                serve(&mut connection, first, || queue.try_recv().ok());
            }
        })?;
        Ok(Self(Way::Thread(jobs)))
    }

    /// Hands a job over; `None` where nobody does it any more.
    fn hand_over(&self, job: Job) -> Option<()> {
        match &self.0 {
            Way::Thread(jobs) => jobs.send(job).ok(),
            Way::Here(held) => {
                let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
                serve(&mut held, job, || None);
                Some(())
            }
        }
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, answered) = oneshot::channel();
        let job: Job = Box::new(move |group| {
            let result = match group {
                Ok(group) => in_savepoint(group, work),
                Err(error) => Err(told(error)),
            };
            Box::new(move |commit| {
                let answer = match (commit, result) {
                    (_, Err(own)) => Err(own),
                    (Ok(()), done) => done,
                    (Err(error), Ok(_)) => Err(told(error)),
                };
                // Nobody waits any more: the caller went away, the effect stays.
                let _ = tell.send(answer);
            })
        });
        let gone = || Error::new(Code::Draining, "the store is closed");
        self.hand_over(job).ok_or_else(gone)?;
        world::committed().await;
        answered.await.map_err(|_| gone())?
    }
}

/// A group's error as each of its jobs gets it; the cause is in the log.
fn told(error: &Error) -> Error {
    Error::new(error.code, error.message.clone())
}

fn in_savepoint<T>(
    group: &mut Group<'_>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<T> {
    let transaction = &group.transaction;
    transaction.execute_batch("SAVEPOINT intent").map_err(failed)?;
    // One fault of the program must not end the thread: then every later call would fail until a restart.
    let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
        .unwrap_or_else(|_| Err(Error::new(Code::Internal, "an intent of the store panicked")));
    let ended = match &result {
        Ok(_) => transaction.execute_batch("RELEASE intent"),
        // A full disk or a failed write rolls back the whole transaction: there is no savepoint to go back to.
        Err(_) if transaction.is_autocommit() => Ok(()),
        Err(_) => transaction.execute_batch("ROLLBACK TO intent; RELEASE intent"),
    };
    let Err(cause) = ended else { return result };
    group.doomed = true;
    result.and(Err(failed(cause)))
}

/// Does a group of jobs.
fn serve(connection: &mut Connection, first: Job, more: impl FnMut() -> Option<Job>) {
    let mut answers = Vec::new();
    let outcome = commit_group(connection, first, more, &mut answers);
    if let Err(error) = &outcome {
        tracing::warn!(code = %error.code, cause = error.cause(), jobs = answers.len(), "a group was not committed");
    }
    if !connection.is_autocommit() {
        renew(connection);
    }
    for answer in answers {
        answer(outcome.as_ref().copied());
    }
}

/// A connection whose transaction cannot be ended gives way to another: SQLite rolls back what a closed one left.
fn renew(stuck: &mut Connection) {
    let fresh = stuck.path().map(|path| super::connect(Path::new(path), false));
    match fresh {
        Some(Ok(fresh)) => *stuck = fresh,
        Some(Err(error)) => {
            tracing::error!(code = %error.code, cause = error.cause(), "the store cannot be opened again");
        }
        None => {}
    }
}

fn commit_group(
    connection: &mut Connection,
    first: Job,
    mut more: impl FnMut() -> Option<Job>,
    answers: &mut Vec<Answer>,
) -> Result<()> {
    let begun = failpoint::reach("store.begin", Code::DiskFull).and_then(|()| {
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)
    });
    let mut group = match begun {
        Ok(transaction) => Group { transaction, doomed: false },
        Err(error) => {
            // Whoever waits is told too: each with a try of its own would wait out the lock one after another.
            answers.push(first(Err(&error)));
            answers.extend(std::iter::from_fn(more).take(GROUP).map(|job| job(Err(&error))));
            return Err(error);
        }
    };
    answers.push(first(Ok(&mut group)));
    while answers.len() < GROUP && !group.doomed && !group.transaction.is_autocommit() {
        let Some(job) = more() else { break };
        answers.push(job(Ok(&mut group)));
    }
    if group.doomed {
        // Dropping the transaction rolls it back.
        return Err(Error::new(Code::StoreFailed, "a neighbour in the commit could not be undone"));
    }
    failpoint::reach("store.commit", Code::DiskFull)?;
    group.transaction.commit().map_err(failed)?;
    failpoint::reach("store.committed", Code::StoreFailed)
}

#[cfg(test)]
mod tests {
    use rusqlite::hooks::{AuthAction, AuthContext, Authorization, TransactionOperation};

    use super::*;

    fn table() -> (tempfile::TempDir, Connection) {
        let folder = tempfile::tempdir().unwrap();
        let connection = super::super::connect(&folder.path().join("x.sqlite"), false).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT").unwrap();
        (folder, connection)
    }

    #[tokio::test]
    async fn a_refused_intent_leaves_no_trace_and_its_neighbours_stay() {
        let (_folder, connection) = table();
        let writer = Writer::start(connection).unwrap();
        let insert = |n: i64, refuse: bool| {
            let writer = writer.clone();
            async move {
                writer
                    .run(move |tx| {
                        tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(failed)?;
                        if refuse { Err(Error::new(Code::BatchClosed, "no")) } else { Ok(n) }
                    })
                    .await
            }
        };
        let (a, b, c) = tokio::join!(insert(1, false), insert(2, true), insert(3, false));
        assert_eq!((a.unwrap(), b.unwrap_err().code, c.unwrap()), (1, Code::BatchClosed, 3));
        let rows: Vec<i64> = writer
            .run(|tx| {
                let mut statement = tx.prepare("SELECT n FROM t ORDER BY n").map_err(failed)?;
                let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
                rows.collect::<std::result::Result<_, _>>().map_err(failed)
            })
            .await
            .unwrap();
        assert_eq!(rows, [1, 3]);
    }

    #[tokio::test]
    async fn where_no_transaction_begins_whoever_waits_is_told_why_and_the_next_one_goes_on() {
        let (folder, connection) = table();
        connection.busy_timeout(std::time::Duration::ZERO).unwrap();
        let writer = Writer::start(connection).unwrap();
        let insert = |n: i64| {
            writer.run(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(failed))
        };
        let other = super::super::connect(&folder.path().join("x.sqlite"), false).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let (first, second) = tokio::join!(insert(1), insert(2));
        assert_eq!(first.unwrap_err().code, Code::StoreFailed);
        assert_eq!(second.unwrap_err().code, Code::StoreFailed);
        other.execute_batch("COMMIT").unwrap();
        assert_eq!(insert(1).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_panic_in_an_intent_is_an_error_of_its_own_and_leaves_no_trace() {
        let (_folder, connection) = table();
        let writer = Writer::start(connection).unwrap();
        let insert = |n: i64, fall: bool| {
            writer.run(move |tx| {
                tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(failed)?;
                assert!(!fall, "a fault of the program");
                Ok(n)
            })
        };
        let (a, b, c) = tokio::join!(insert(1, false), insert(2, true), insert(3, false));
        assert_eq!((a.unwrap(), b.unwrap_err().code, c.unwrap()), (1, Code::Internal, 3));
        // The number of the one that fell is free.
        assert_eq!(insert(2, false).await.unwrap(), 2);
    }

    #[tokio::test]
    async fn a_full_disk_is_told_to_every_job_of_the_group_and_keeps_nothing() {
        let (_folder, connection) = table();
        connection
            .execute_batch("CREATE TABLE blob (b BLOB) STRICT; PRAGMA max_page_count = 8")
            .unwrap();
        let writer = Writer::start(connection).unwrap();
        let error = writer
            .run(|tx| tx.execute("INSERT INTO blob VALUES (zeroblob(1000000))", []).map_err(failed))
            .await
            .unwrap_err();
        assert_eq!(error.code, Code::DiskFull);
        let count: i64 = writer
            .run(|tx| {
                tx.query_row("SELECT count(*) FROM blob", [], |row| row.get(0)).map_err(failed)
            })
            .await
            .unwrap();
        assert_eq!(count, 0);
    }

    /// Lets no statement pass that ends in one of these ways.
    fn refuse(connection: &Connection, refused: impl Fn(&AuthAction<'_>) -> bool + Send + 'static) {
        let judge = move |context: AuthContext<'_>| {
            if refused(&context.action) { Authorization::Deny } else { Authorization::Allow }
        };
        connection.authorizer(Some(judge)).unwrap();
    }

    fn takes_back_one(action: &AuthAction<'_>) -> bool {
        matches!(action, AuthAction::Savepoint { operation: TransactionOperation::Rollback, .. })
    }

    fn takes_back_all(action: &AuthAction<'_>) -> bool {
        matches!(action, AuthAction::Transaction { operation: TransactionOperation::Rollback })
    }

    /// A group of an intent that is kept and one that is refused, then one that comes later; and what is stored.
    async fn group_with_a_refusal(connection: Connection) -> ([Result<i64>; 3], Vec<i64>) {
        let writer = Writer::start(connection).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let insert = |tx: &Transaction<'_>, n: i64| {
            tx.execute("INSERT INTO t VALUES (?1)", [n]).map(|_| n).map_err(failed)
        };
        // The first intent holds the thread until the others wait behind it, so that they share its transaction.
        let first = writer.run(move |tx| {
            wait.recv().unwrap();
            insert(tx, 1)
        });
        let refused = writer.run(move |tx| {
            insert(tx, 2)?;
            Err::<i64, _>(Error::new(Code::BatchClosed, "no"))
        });
        let last = writer.run(move |tx| insert(tx, 3));
        let open = async { go.send(()).unwrap() };
        let (first, refused, last, ()) = tokio::join!(first, refused, last, open);
        let stored = writer.run(|tx| {
            let mut statement = tx.prepare("SELECT n FROM t ORDER BY n").map_err(failed)?;
            let rows = statement.query_map([], |row| row.get(0)).map_err(failed)?;
            rows.collect::<std::result::Result<Vec<i64>, _>>().map_err(failed)
        });
        ([first, refused, last], stored.await.unwrap())
    }

    #[tokio::test]
    async fn a_group_is_kept_but_for_what_was_refused() {
        let (_folder, connection) = table();
        let ([first, refused, last], stored) = group_with_a_refusal(connection).await;
        assert_eq!((first.unwrap(), last.unwrap(), stored), (1, 3, vec![1, 3]));
        assert_eq!(refused.unwrap_err().code, Code::BatchClosed);
    }

    #[tokio::test]
    async fn where_a_refused_intent_cannot_be_taken_back_nothing_of_its_group_is_kept() {
        let (_folder, connection) = table();
        refuse(&connection, takes_back_one);
        let ([first, refused, last], stored) = group_with_a_refusal(connection).await;
        assert_eq!(first.unwrap_err().code, Code::StoreFailed);
        assert_eq!(refused.unwrap_err().code, Code::BatchClosed);
        assert_eq!((last.unwrap(), stored), (3, vec![3]), "the writer goes on");
    }

    #[tokio::test]
    async fn where_a_group_cannot_be_rolled_back_either_it_is_not_committed() {
        let (_folder, connection) = table();
        refuse(&connection, |action| takes_back_one(action) || takes_back_all(action));
        let ([first, refused, last], stored) = group_with_a_refusal(connection).await;
        assert_eq!(first.unwrap_err().code, Code::StoreFailed);
        assert_eq!(refused.unwrap_err().code, Code::BatchClosed);
        assert_eq!((last.unwrap(), stored), (3, vec![3]), "the writer goes on");
    }

    #[tokio::test]
    async fn where_an_intent_cannot_be_closed_its_group_is_told_and_not_kept() {
        let (folder, connection) = table();
        refuse(&connection, |action| {
            matches!(action, AuthAction::Savepoint { operation: TransactionOperation::Release, .. })
        });
        let writer = Writer::start(connection).unwrap();
        let insert = |n: i64| {
            writer.run(move |tx| tx.execute("INSERT INTO t VALUES (?1)", [n]).map_err(failed))
        };
        for n in [1, 2] {
            assert_eq!(insert(n).await.unwrap_err().code, Code::StoreFailed);
        }
        let other = super::super::connect(&folder.path().join("x.sqlite"), true).unwrap();
        let kept = other.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
        assert_eq!(kept.unwrap(), 0);
    }
}
