//! The embedded store: one SQLite file, one writer thread, a few readers.
//!
//! Promises: intents that wait together share one commit (group commit), each in a savepoint of its own, so that a
//! refused one leaves no trace; an answer is given only after the commit is on disk (`synchronous = FULL`).
//! Never: blocks an async thread; runs two writers on one file (the data folder is locked by its opener).

pub mod backup;
mod migrate;
mod shrink;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use rusqlite::{Connection, OpenFlags, Transaction};
use tokio::sync::Semaphore;

pub use migrate::{State, migrate, state, version};
pub(in crate::store) use shrink::shrink;
pub(crate) use writer::Writer;

/// How long a statement waits for another process's lock (a backup, a reader's checkpoint).
const BUSY: Duration = Duration::from_secs(10);
/// Reads that may run at once: more than the cores only queue inside SQLite.
const READERS: usize = 4;

/// What a connection keeps of its file, as SQLite wants it told: minus KiB. Readers mostly go once over message bodies,
/// which none of them reads again.
const WRITER_CACHE: i32 = -16_000;
const READER_CACHE: i32 = -2_000;

/// One SQLite file with its writer thread and readers; staging files are opened the same way.
#[derive(Debug)]
pub(crate) struct SqliteFile {
    path: PathBuf,
    writer: Writer,
    readers: Arc<Semaphore>,
    idle: std::sync::Mutex<Vec<Connection>>,
}

impl SqliteFile {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn open(path: &Path) -> Result<Self> {
        let writer = Writer::start(connect(path, false)?)?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers: Arc::new(Semaphore::new(READERS)),
            idle: std::sync::Mutex::default(),
        })
    }

    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.run(work).await
    }

    pub(crate) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_long(move |connection, _| work(connection)).await
    }

    /// As [`Self::read`], for work that looks now and then whether anybody still waits for it. A place among the readers is
    /// taken until the work has ended, which may be after whoever asked has gone.
    pub(crate) async fn read_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Cut) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let readers = Arc::clone(&self.readers);
        let permit = readers.acquire_owned().await.coded(Code::Draining, "the store is closing")?;
        let pooled = self.idle.lock().ok().and_then(|mut idle| idle.pop());
        let path = self.path.clone();
        // Dropped with this call, however it ends.
        let asking = Asking::default();
        let cut = asking.cut();
        let (connection, result) = runtime::task::blocking(move || {
            let _permit = permit;
            let connection = match pooled {
                Some(connection) => connection,
                None => connect(&path, true)?,
            };
            let result = snapshot(&connection, |connection| work(connection, &cut));
            Ok::<_, Error>((connection, result))
        })
        .await??;
        if let Ok(mut idle) = self.idle.lock() {
            idle.push(connection);
        }
        result
    }
}

/// Whether whoever asked for a read has gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut(Arc<AtomicBool>);

impl Cut {
    #[must_use]
    pub(crate) fn is_cut(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Somebody waits for a read; dropping it, also with the call that was cut off, says that nobody does.
#[derive(Debug, Default)]
pub(in crate::store) struct Asking(Cut);

impl Asking {
    /// What whoever does the work looks at.
    pub(in crate::store) fn cut(&self) -> Cut {
        self.0.clone()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// One read transaction, so that several statements see one state.
fn snapshot<T>(connection: &Connection, work: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
    connection.execute_batch("BEGIN").map_err(failed)?;
    let result = work(connection);
    connection.execute_batch("COMMIT").map_err(failed)?;
    result
}

/// Opens a connection as every file of the server wants it; only the file's owner may read it.
pub(crate) fn connect(path: &Path, read_only: bool) -> Result<Connection> {
    if !read_only {
        runtime::files::database(path)
            .coded(Code::StoreFailed, format!("cannot make the file {}", path.display()))?;
    }
    let flags = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX
    } else {
        OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
    };
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    connection.busy_timeout(BUSY).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(64);
    if !read_only {
        let pages: i64 =
            connection.pragma_query_value(None, "page_count", |row| row.get(0)).map_err(failed)?;
        if pages == 0 {
            // A file that has tables keeps its way of freeing pages, and asking it would take its write lock.
            connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL").map_err(failed)?;
        }
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4000;",
        )
        .map_err(failed)?;
    }
    connection
        .execute_batch("PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;")
        .map_err(failed)?;
    let cache = if read_only { READER_CACHE } else { WRITER_CACHE };
    connection.pragma_update(None, "cache_size", cache).map_err(failed)?;
    Ok(connection)
}

/// Gives a database error its code: a full disk is told apart, all else is `STORE_FAILED`.
pub(crate) fn failed(cause: rusqlite::Error) -> Error {
    let code = match cause.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => Code::DiskFull,
        _ => Code::StoreFailed,
    };
    // SQLite's short text of a result code is one of a fixed list; its long one may quote a value.
    let words = match &cause {
        rusqlite::Error::SqliteFailure(failure, _) => format!(
            "the store could not do this: {}",
            rusqlite::ffi::code_to_str(failure.extended_code)
        ),
        _ => "the store could not do this".to_owned(),
    };
    Error::new(code, words).because(cause)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn file() -> (tempfile::TempDir, Arc<SqliteFile>) {
        let folder = tempfile::tempdir().unwrap();
        let file = SqliteFile::open(&folder.path().join("file.sqlite")).unwrap();
        (folder, Arc::new(file))
    }

    #[tokio::test]
    async fn a_read_that_nobody_waits_for_learns_it_and_keeps_its_place_until_it_has_ended() {
        let (_folder, file) = file();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let (let_go, held) = mpsc::channel::<()>();
        let (told, cuts) = mpsc::channel();
        let asked = Arc::clone(&file);
        let reading = runtime::task::spawn("reading", async move {
            let work = move |_: &Connection, cut: &Cut| {
                begun.send(cut.is_cut()).unwrap();
                held.recv().unwrap();
                told.send(cut.is_cut()).unwrap();
                Ok(())
            };
            asked.read_long(work).await
        });
        assert_eq!(begins.recv().await, Some(false), "somebody waits");
        reading.abort();
        assert!(reading.join().await.is_err());
        assert_eq!(file.readers.available_permits(), READERS - 1, "it is still at work");
        let_go.send(()).unwrap();
        assert_eq!(cuts.recv_timeout(BUSY), Ok(true), "nobody waits");
        let all = u32::try_from(READERS).unwrap();
        let all = tokio::time::timeout(BUSY, file.readers.acquire_many(all)).await;
        assert!(all.unwrap().is_ok(), "its place is free again");
    }
}
