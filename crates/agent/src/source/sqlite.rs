//! SQLite as a source.
//!
//! Promises: rows are read through a read-only connection, each page in its own short read transaction.
//! Promises: the bound is exact, see `bound`; with `?mode=ro` not even the write lock is asked for.
//! Never: makes or changes an object in the ERP's file; `malote_identity` is read where somebody made it.

mod bound;
mod catalogue;
mod cell;
mod read;
mod stamp;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{Code, Error, Result, filter::Filter, key::KeyBytes, names::TableName};
use runtime::{clock::Mono, task};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use self::{
    bound::Prober,
    read::{Read, Start},
};
use super::{
    Bound, Finding, From, Identity, LOOK_UP_BYTES, Page, PageKey, Profile, ReadLimit, Source,
    SourceOptions, TableShape, TableSpec, Watermark, catalogue::Found,
};

/// Pages are short; a database that takes longer is a symptom.
const PAGE_TIME: Duration = Duration::from_secs(5);
const PROBE_TIME: Duration = Duration::from_secs(30);
/// How long a read waits for a writer of a file without WAL.
const LOCK_TIME: Duration = Duration::from_secs(2);
/// Stamps of `CURRENT_TIMESTAMP` have whole seconds.
const ALLOWANCE: Duration = Duration::from_secs(2);
const OVERLAP: Duration = Duration::from_secs(600);

/// A database file of the ERP.
#[derive(Clone, Debug)]
pub struct SqliteSource {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    profile: Profile,
    overlap: Duration,
    reader: Mutex<Option<Connection>>,
    prober: Mutex<Prober>,
    /// How the file is opened to look for writers.
    probe: OpenFlags,
    found: Mutex<HashMap<String, Arc<Found>>>,
    /// The file as it was told to the server last.
    told: Mutex<Option<String>>,
}

impl SqliteSource {
    /// A source over that file (`path` or `path?mode=ro`); opened by the first call. With `mode=ro` the write lock is
    /// never asked for, and writers are known by their commits alone.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a stamp zone other than UTC or another parameter.
    pub fn new(file: &str, profile: Profile, options: &SourceOptions) -> Result<Self> {
        let probe = match file.rsplit_once('?') {
            None | Some((_, "mode=rw")) => OpenFlags::SQLITE_OPEN_READ_WRITE,

            Some((_, "mode=ro")) => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Some(_) => {
                let words = "SQLite's URL takes ?mode=ro and no other parameter";
                return Err(Error::new(Code::ConfigInvalid, words));
            }
        };
        let path = PathBuf::from(file.rsplit_once('?').map_or(file, |(path, _)| path));
        if options.stamp_zone.as_ref().is_some_and(|zone| !zone.eq_ignore_ascii_case("utc")) {
            return Err(Error::new(Code::ConfigInvalid, "SQLite's stamps are read as UTC"));
        }
        let inner = Inner {
            path,
            profile,
            overlap: options.overlap.unwrap_or(OVERLAP),
            reader: Mutex::default(),
            prober: Mutex::default(),
            probe,
            found: Mutex::default(),
            told: Mutex::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs work on the reading connection, in one read transaction with a deadline.
    async fn read<T: Send + 'static>(
        &self,
        time: Duration,
        work: impl FnOnce(&Inner, &Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        task::blocking(move || {
            let mut slot = lock(&inner.reader);
            if let Err(error) = inner.same_file() {
                // An open connection would read the file that is gone, for ever.
                *slot = None;
                return Err(error);
            }
            let connection = match slot.take() {
                Some(connection) => connection,
                None => inner
                    .open(OpenFlags::SQLITE_OPEN_READ_ONLY)
                    .map_err(|error| inner.named(error))?,
            };
            let begun = Mono::now();
            connection
                .progress_handler(2_000, Some(move || begun.elapsed() > time))
                .map_err(fault)?;
            let done = connection.execute_batch("BEGIN").map_err(fault);
            let done = done.and_then(|()| work(&inner, &connection));
            let ended = connection.execute_batch("ROLLBACK");
            // After an error the connection is opened anew: the file may have been replaced.
            if done.is_ok() && ended.is_ok() {
                *slot = Some(connection);
            }
            done.map_err(|error| inner.named(error))
        })
        .await?
    }

    async fn page(&self, read: Read) -> Result<Page> {
        self.read(PAGE_TIME, move |inner, connection| {
            let found = inner.known(connection, read.shape())?;
            read.run(connection, &found)
        })
        .await
    }
}

impl Inner {
    /// With the file's path, where the file is what is wrong and the words do not name it yet.
    fn named(&self, error: Error) -> Error {
        let path = self.path.display().to_string();
        let missing = error.code == Code::SourceFile && !error.message.contains(&path);
        if missing { error.at(path) } else { error }
    }

    fn open(&self, flags: OpenFlags) -> Result<Connection> {
        if !self.path.is_file() {
            let words = format!("there is no file {}", self.path.display());
            return Err(Error::new(Code::SourceFile, words));
        }
        let connection =
            Connection::open_with_flags(&self.path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX);
        let connection = connection.map_err(fault)?;
        // Closing must leave the ERP's write-ahead log to the ERP.
        connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map_err(fault)?;
        connection.busy_timeout(LOCK_TIME).map_err(fault)?;
        connection.execute_batch("PRAGMA case_sensitive_like = ON").map_err(fault)?;
        Ok(connection)
    }

    /// What the catalogue says of a described table, still the same.
    fn known(&self, connection: &Connection, shape: &TableShape) -> Result<Arc<Found>> {
        let (_, table) = &shape.physical;
        if catalogue::fingerprint_of(connection, table)? != Some(shape.fingerprint) {
            let words = format!("table {} is not what it was when it was described", shape.wire);
            return Err(Error::new(Code::SchemaChanged, words));
        }
        let known = lock(&self.found).get(table).cloned();
        if let Some(found) = known.filter(|found| found.fingerprint == shape.fingerprint) {
            return Ok(found);
        }
        let found = Arc::new(catalogue::load(connection, table)?);
        lock(&self.found).insert(table.clone(), Arc::clone(&found));
        Ok(found)
    }

    /// The file was not put in the place of the one that the server knows (F51).
    fn same_file(&self) -> Result<()> {
        let told = lock(&self.told).clone();
        match told {
            Some(told) if file_id(&self.path)? != told => {
                let words = format!("{} is another file than before", self.path.display());
                Err(Error::new(Code::DatabaseChanged, words))
            }
            _ => Ok(()),
        }
    }

    fn bound(&self) -> Bound {
        lock(&self.prober).look(self.overlap, || self.open(self.probe).ok())
    }
}

impl Source for SqliteSource {
    async fn identity(&self) -> Result<Identity> {
        let file = file_id(&self.inner.path)?;
        {
            // What follows is read from this file, and the server judges whether it may follow the one before.
            let mut told = lock(&self.inner.told);
            if told.as_ref().is_some_and(|told| *told != file) {
                *lock(&self.inner.reader) = None;
                *lock(&self.inner.prober) = Prober::default();
            }
            *told = Some(file.clone());
        }
        self.read(PAGE_TIME, move |_, connection| {
            let mut facts = vec![("file_id".to_owned(), file)];
            if let Some(random) = catalogue::random_id(connection)? {
                facts.push(("random_id".to_owned(), random));
            }
            let version = format!("SQLite {}", rusqlite::version());
            Ok(Identity { kind: "sqlite", facts, position: Vec::new(), version })
        })
        .await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.read(PROBE_TIME, |inner, connection| {
            let names = catalogue::tables(connection)?;
            Ok(names.iter().filter_map(|name| inner.profile.wire(name)?.parse().ok()).collect())
        })
        .await
    }

    async fn describe(&self, spec: &TableSpec) -> Result<TableShape> {
        let spec = spec.clone();
        self.read(PROBE_TIME, move |inner, connection| {
            let wanted = inner.profile.physical(&spec.wire);
            let table = catalogue::find(connection, &wanted)
                .map_err(|error| error.at(format_args!("table {}", spec.wire)))?;
            let found = Arc::new(catalogue::load(connection, &table)?);
            let mut shape = inner.profile.shape(&spec, &found, ALLOWANCE)?;
            if let Some(stamp) = shape.stamp.clone() {
                let style = stamp::sample(connection, &shape, &stamp)?;
                if let (Some(style), Some(stamp)) = (style, &mut shape.stamp) {
                    stamp.form = style.form();
                }
            }
            // Whatever the declaration says, a value of another kind may stand there.
            shape.stamp.iter_mut().for_each(|stamp| stamp.nullable = true);
            lock(&inner.found).insert(table, found);
            Ok(shape)
        })
        .await
    }

    async fn bound(&self) -> Result<Bound> {
        let inner = Arc::clone(&self.inner);
        task::blocking(move || inner.same_file().map(|()| inner.bound())).await?
    }

    fn watermark(&self, shape: &TableShape, bound: &Bound) -> Result<Watermark> {
        stamp::bound_form(shape, bound)
    }

    async fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        filter: Option<&Filter>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let start = Start::Chunk { after: after.cloned(), filter: filter.cloned() };
        self.page(Read::new(shape, start, limit)).await
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        let start = Start::Delta { from: from.clone(), edge: bound.micros };
        self.page(Read::new(shape, start, limit)).await
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(Read::new(shape, Start::Keys { after: after.cloned() }, limit)).await
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(Read::new(shape, Start::Unstamped { after: after.cloned() }, limit)).await
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        let limit = ReadLimit { rows: usize::MAX, bytes: LOOK_UP_BYTES };
        self.page(Read::new(shape, Start::ByKeys(keys.to_vec()), limit)).await
    }

    async fn row_count(&self, shape: &TableShape) -> Result<Option<u64>> {
        let shape = shape.clone();
        self.read(PROBE_TIME, move |_, connection| read::row_count(connection, &shape)).await
    }

    async fn findings(&self, shapes: &[TableShape]) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        let stamped = shapes.iter().any(|shape| shape.stamp.is_some());
        if let Some(words) = self.bound().await?.degraded.filter(|_| stamped) {
            let code = Some(Code::BoundDegraded);
            findings.push(Finding { table: None, code, words, concern: None });
        }
        for shape in shapes {
            let (owned, place) = (shape.clone(), shape.wire.clone());
            let of_table = self.read(PROBE_TIME, move |inner, connection| {
                let found = inner.known(connection, &owned)?;
                read::findings(connection, &owned, &found)
            });
            match of_table.await {
                Ok(found) => findings.extend(found),
                Err(error) => findings.push(Finding {
                    table: Some(place),
                    code: Some(error.code),
                    words: error.message,
                    concern: None,
                }),
            }
        }
        Ok(findings)
    }
}

/// Device and number of the file, where the system has them.
fn file_id(path: &PathBuf) -> Result<String> {
    let about = std::fs::metadata(path).map_err(|cause| {
        Error::new(Code::SourceFile, format!("cannot look at {}: {cause}", path.display()))
    })?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        Ok(format!("{}:{}", about.dev(), about.ino()))
    }
    #[cfg(not(unix))]
    {
        // Elsewhere the path and the time of making stand in.
        let made =
            about.created().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        Ok(format!("{}:{}", path.display(), made.unwrap_or_default().as_millis()))
    }
}

/// SQLite's words under our code. They name objects, never values.
fn fault(cause: rusqlite::Error) -> Error {
    let code = match cause.sqlite_error_code() {
        Some(
            ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked,
        ) => Code::SourceTimeout,
        Some(ErrorCode::CannotOpen | ErrorCode::NotADatabase) => Code::SourceFile,
        Some(ErrorCode::DatabaseCorrupt) => Code::SourceFailed,
        Some(ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied) => {
            Code::SourceRights
        }
        _ => Code::SourceFailed,
    };
    // SQLite's short text of a result code is one of a fixed list; its long one may quote a statement.
    let words = match &cause {
        rusqlite::Error::SqliteFailure(failure, _) => {
            format!("SQLite: {}", rusqlite::ffi::code_to_str(failure.extended_code))
        }
        _ => "SQLite reports an error".to_owned(),
    };
    Error::new(code, words).because(cause)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic while the lock was held leaves nothing half done that matters: connections are opened anew.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
