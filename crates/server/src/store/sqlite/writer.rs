//! The one writer thread of a SQLite file, with group commit.
//!
//! Promises: jobs run in the order of arrival; an answer leaves only after the commit that holds its effect; where the
//! commit fails every job of the group gets the failure, where the transaction does not begin every job that waits.
//! Never: keeps a job's effect whose work returned an error or panicked; ends for a panic in a job.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, Sender},
};

use protocol::{Code, Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior};
use tokio::sync::oneshot;

use super::failed;

/// Jobs that share one commit: at about 60 KB each the group stays below 4 MB.
const GROUP: usize = 64;

/// Runs inside the group's transaction, or is told why there is none; its answer leaves after the commit.
type Job = Box<dyn FnOnce(std::result::Result<&mut Transaction<'_>, &Error>) -> Answer + Send>;
/// Called once with the commit's outcome.
type Answer = Box<dyn FnOnce(std::result::Result<(), &Error>) + Send>;

/// Handle on the thread. The thread ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    jobs: Sender<Job>,
}

impl Writer {
    pub(crate) fn start(connection: Connection) -> Result<Self> {
        let (jobs, queue) = mpsc::channel();
        runtime::task::thread("store-writer", move || serve(connection, &queue))?;
        Ok(Self { jobs })
    }

    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (tell, answered) = oneshot::channel();
        let job: Job = Box::new(move |transaction| {
            let result = match transaction {
                Ok(transaction) => in_savepoint(transaction, work),
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
        self.jobs.send(job).map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

/// A group's error as each of its jobs gets it; the cause is in the log.
fn told(error: &Error) -> Error {
    Error::new(error.code, error.message.clone())
}

fn in_savepoint<T>(
    transaction: &mut Transaction<'_>,
    work: impl FnOnce(&Transaction<'_>) -> Result<T>,
) -> Result<T> {
    transaction.execute_batch("SAVEPOINT intent").map_err(failed)?;
    // One fault of the program must not end the thread: then every later call would fail until a restart.
    let result = catch_unwind(AssertUnwindSafe(|| work(transaction)))
        .unwrap_or_else(|_| Err(Error::new(Code::Internal, "an intent of the store panicked")));
    match &result {
        Ok(_) => transaction.execute_batch("RELEASE intent").map_err(failed)?,
        // A full disk or a failed write rolls back the whole transaction: there is no savepoint to go back to.
        Err(_) if transaction.is_autocommit() => {}
        Err(_) => {
            let undone = transaction.execute_batch("ROLLBACK TO intent; RELEASE intent");
            if undone.is_err() {
                // What cannot be taken back alone takes its group with it: the commit then fails for all.
                transaction.execute_batch("ROLLBACK").map_err(failed)?;
            }
        }
    }
    result
}

fn serve(mut connection: Connection, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let mut answers = Vec::new();
        let outcome = commit_group(&mut connection, first, queue, &mut answers);
        if let Err(error) = &outcome {
            tracing::warn!(code = %error.code, cause = error.chain(), jobs = answers.len(), "a group was not committed");
        }
        for answer in answers {
            answer(outcome.as_ref().copied());
        }
    }
}

fn commit_group(
    connection: &mut Connection,
    first: Job,
    queue: &Receiver<Job>,
    answers: &mut Vec<Answer>,
) -> Result<()> {
    let begun =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed);
    let mut transaction = match begun {
        Ok(transaction) => transaction,
        Err(error) => {
            // Whoever waits is told too: each with a try of its own would wait out the lock one after another.
            answers.push(first(Err(&error)));
            answers.extend(queue.try_iter().take(GROUP).map(|job| job(Err(&error))));
            return Err(error);
        }
    };
    answers.push(first(Ok(&mut transaction)));
    while answers.len() < GROUP && !transaction.is_autocommit() {
        let Ok(job) = queue.try_recv() else { break };
        answers.push(job(Ok(&mut transaction)));
    }
    transaction.commit().map_err(failed)
}

#[cfg(test)]
mod tests {
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
}
