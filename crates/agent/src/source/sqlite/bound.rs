//! The bound of SQLite: since when can a transaction be open that has not committed yet?
//!
//! SQLite has one writer at a time. Where the file may be written, the write lock is asked for and let go: if it was
//! free, whoever writes now began after that instant. Where it may not (no right, or `?mode=ro`), only commits can be
//! seen: an open writer began after the last commit, so after the last look that had not seen it yet.
//!
//! Promises: an instant at or below the start of every transaction that a later read may not see, or a window and why.
//! Never: takes a connection that SQLite opened for reading alone for a free lock; on such a one BEGIN IMMEDIATE succeeds
//! whatever others do.

use std::time::Duration;

use runtime::clock::Wall;
use rusqlite::{Connection, ErrorCode};

use super::Bound;

const READS_ONLY: &str = "the file is open for reading alone and no commit was seen yet";
const HELD: &str = "a process holds the write lock";

/// What was seen of writers so far.
#[derive(Debug, Default)]
pub(super) struct Prober {
    connection: Option<Connection>,
    /// Last instant before which no transaction can have begun that is open now.
    free_at: Option<i64>,
    /// Version of the data, and the last instant before it was seen to be this one.
    seen: Option<(i64, i64)>,
    /// Connections made so far: versions of two of them are not comparable.
    opened: u64,
}

/// What one look told.
enum Look {
    Free,
    Held,
    /// Only commits can be seen.
    ReadsOnly,
    Failed,
}

impl Prober {
    /// Looks once. `open` is called where no connection is held.
    pub(super) fn look(
        &mut self,
        overlap: Duration,
        open: impl FnOnce() -> Option<Connection>,
    ) -> Bound {
        // The instant comes first: whoever writes after a free lock was seen began after this.
        let now = Wall::now().0;
        let overlap_micros = i64::try_from(overlap.as_micros()).unwrap_or(i64::MAX);
        let window = now.saturating_sub(overlap_micros);
        let (look, committed) = match self.ask(now, open) {
            Some((look, version)) => {
                (look, version.map(|version| format!("{}.{version}", self.opened)))
            }
            None => {
                // What a replaced or vanished file told no longer counts.
                (self.connection, self.seen, self.free_at) = (None, None, None);
                (Look::Failed, None)
            }
        };
        let bound = move |micros: i64, degraded: Option<&str>, held_by: Option<&str>| Bound {
            at_micros: now,
            micros: micros.min(now),
            degraded: degraded.map(|why| format!("{why}; {} s of overlap", overlap.as_secs())),
            held_by: held_by.map(str::to_owned),
            committed,
            from_before_a_step: false,
        };
        match look {
            Look::Free => {
                self.free_at = Some(now);
                bound(now, None, None)
            }
            Look::Held => match self.free_at {
                Some(free_at) => bound(free_at, None, Some(HELD)),
                None => {
                    bound(window, Some("a writer was at work since before the start"), Some(HELD))
                }
            },
            Look::ReadsOnly => match self.free_at {
                Some(free_at) => bound(free_at, None, None),
                None => bound(window, Some(READS_ONLY), None),
            },
            Look::Failed => bound(window, Some("the file cannot be asked for its writers"), None),
        }
    }

    /// The look and the version of the data; `None` where the file cannot be asked.
    fn ask(
        &mut self,
        now: i64,
        open: impl FnOnce() -> Option<Connection>,
    ) -> Option<(Look, Option<i64>)> {
        let held = self.connection.take();
        if held.is_none() {
            (self.opened, self.seen) = (self.opened + 1, None);
        }
        let connection = held.or_else(open)?;
        let reads_only = connection.is_readonly("main").ok()?;
        let look = if reads_only { Look::ReadsOnly } else { lock(&connection)? };
        // After the lock: a transaction that ended in between is seen in one of the two.
        let version = connection.query_row("PRAGMA data_version", [], |row| row.get::<_, i64>(0));
        self.connection = Some(connection);
        let version = match version {
            Ok(version) => version,
            // Without WAL a writer that is committing shuts readers out.
            Err(cause) if is_busy(&cause) => return Some((look, None)),
            Err(_) => return None,
        };
        if let Some((known, at)) = self.seen
            && known != version
        {
            // The commit came after `at`, and whoever is open now began after that commit.
            self.free_at = Some(self.free_at.map_or(at, |free_at| free_at.max(at)));
        }
        self.seen = Some((version, now));
        Some((look, Some(version)))
    }
}

fn lock(connection: &Connection) -> Option<Look> {
    let taken = connection
        .busy_timeout(Duration::ZERO)
        .and_then(|()| connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK"));
    match taken {
        Ok(()) => Some(Look::Free),
        Err(cause) if is_busy(&cause) => Some(Look::Held),
        Err(_) => None,
    }
}

fn is_busy(cause: &rusqlite::Error) -> bool {
    matches!(cause.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}
