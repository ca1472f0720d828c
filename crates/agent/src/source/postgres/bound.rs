//! Bound: since when the oldest transaction that may still commit is open (`correctness.md` 3 a).
//!
//! Promises: the instant is taken before anything else is looked at; running transactions are looked at before prepared
//! ones, so that one that is being prepared is seen in one of the two; idle ones without a write count (F02).
//! Never: takes "I see no other session" for "there is none" (F05): then a window of overlap is used and said.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use protocol::Result;

use super::{super::Bound, fault, instant, link::Link, lock};

const OVERLAP: Duration = Duration::from_secs(600);
/// A transaction that begins while the sessions are looked at began later than `b`, by less than this many microseconds.
const STARTING: i64 = 2_000_000;

/// What may be asked. The function looks with its owner's eyes: it is worth what that role sees.
const RIGHTS: &str = "
SELECT has_schema_privilege(f.namespace, 'USAGE') AND has_function_privilege(f.oid, 'EXECUTE'),
       f.prosecdef AND pg_has_role(f.proowner, 'pg_read_all_stats', 'USAGE'),
       pg_has_role('pg_read_all_stats', 'USAGE') OR (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
  FROM (SELECT 1) one
  LEFT JOIN (SELECT p.oid, p.prosecdef, p.proowner, n.oid AS namespace
               FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
              WHERE n.nspname = 'malote' AND p.proname = 'safe_bound' AND p.pronargs = 0) f ON true
";
const BLIND_OWNER: &str = "the owner of malote.safe_bound() does not see other sessions";

/// Microseconds since 1970, exactly.
macro_rules! micros {
    ($of:literal) => {
        concat!("(extract(epoch FROM ", $of, ") * 1000000)::bigint")
    };
}

const SAFE: &str = concat!(
    "SELECT ",
    micros!("at"),
    ", ",
    micros!("bound"),
    ", open_count FROM malote.safe_bound()"
);

/// All that may write in this database: clients and workers. Autovacuum and senders of the log write no rows.
const SESSIONS: &str = concat!(
    "SELECT ",
    micros!("statement_timestamp()"),
    ", ",
    micros!("a.xact_start"),
    ", a.pid, ",
    "coalesce(a.application_name, ''), coalesce(a.usename::text, ''), coalesce(a.state, '') = 'disabled' ",
    "FROM (SELECT 1) one LEFT JOIN pg_stat_activity a ON a.datname = current_database() ",
    "AND a.pid <> pg_backend_pid() AND (a.xact_start IS NOT NULL OR a.state = 'disabled') ",
    "AND coalesce(a.backend_type, '') NOT IN ('autovacuum worker', 'autovacuum launcher', 'walsender') ",
    "ORDER BY a.xact_start NULLS LAST"
);

/// The snapshot comes after `b`. It changes with every transaction that wrote something and ended.
const PREPARED: &str = concat!(
    "SELECT p.gid, ",
    micros!("p.prepared"),
    ", pg_current_snapshot()::text FROM (SELECT 1) one ",
    "LEFT JOIN pg_prepared_xacts p ON p.database = current_database()"
);

#[derive(Debug)]
pub(super) struct BoundState {
    overlap: i64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// `B` of the last poll: whatever was prepared since began after it.
    last: Option<i64>,
    /// Prepared transactions, each with an instant before its start.
    held: BTreeMap<String, i64>,
    /// Longest transaction seen, microseconds.
    longest: i64,
}

/// What a look at the sessions gives.
struct Seen {
    at: i64,
    bound: i64,
    /// Start of the youngest open transaction.
    latest: i64,
    degraded: Option<String>,
    held_by: Option<String>,
}

impl BoundState {
    pub(super) fn new(overlap: Option<Duration>) -> Self {
        let overlap = overlap.unwrap_or(OVERLAP).as_micros();
        Self { overlap: i64::try_from(overlap).unwrap_or(i64::MAX), state: Mutex::default() }
    }

    /// `b` and `B`. Each statement is its own transaction, since `pg_stat_activity` freezes inside one.
    pub(super) async fn take(&self, link: &Link) -> Result<Bound> {
        let rights = link.query_one(RIGHTS, &[]).await.map_err(fault)?;
        let callable: bool = rights.try_get::<_, Option<bool>>(0).map_err(fault)?.unwrap_or(false);
        let sound: bool = rights.try_get::<_, Option<bool>>(1).map_err(fault)?.unwrap_or(false);
        let sees_all: bool = rights.try_get(2).map_err(fault)?;
        let mut seen = if callable && sound {
            self.by_function(link).await?
        } else {
            self.by_sessions(link, sees_all).await?
        };
        if callable && !sound && !sees_all {
            seen.degraded = Some(BLIND_OWNER.to_owned());
        }
        let prepared = link.query(PREPARED, &[]).await.map_err(fault)?;
        let (mut gids, mut committed) = (Vec::new(), None);
        for row in &prepared {
            committed = Some(row.try_get::<_, String>(2).map_err(fault)?);
            if let Some(gid) = row.try_get::<_, Option<String>>(0).map_err(fault)? {
                gids.push((gid, row.try_get::<_, i64>(1).map_err(fault)?));
            }
        }
        Ok(Bound { committed, ..self.settle(seen, &gids) })
    }

    async fn by_function(&self, link: &Link) -> Result<Seen> {
        let row = link.query_one(SAFE, &[]).await.map_err(fault)?;
        let (at, bound): (i64, i64) =
            (row.try_get(0).map_err(fault)?, row.try_get(1).map_err(fault)?);
        let open: i64 = row.try_get(2).map_err(fault)?;
        let held_by = (bound < at)
            .then(|| format!("{open} open transactions, the oldest since {}", instant(bound)));
        // The function does not tell which of them is the youngest.
        Ok(Seen { at, bound, latest: bound, degraded: None, held_by })
    }

    async fn by_sessions(&self, link: &Link, sees_all: bool) -> Result<Seen> {
        let rows = link.query(SESSIONS, &[]).await.map_err(fault)?;
        let mut seen = Seen { at: 0, bound: i64::MAX, latest: 0, degraded: None, held_by: None };
        let mut hidden = false;
        for row in &rows {
            seen.at = row.try_get(0).map_err(fault)?;
            let start: Option<i64> = row.try_get(1).map_err(fault)?;
            hidden |= row.try_get::<_, bool>(5).map_err(fault)?;
            seen.latest = seen.latest.max(start.unwrap_or_default());
            if let Some(start) = start.filter(|start| *start < seen.bound) {
                let (pid, program): (i32, String) =
                    (row.try_get(2).map_err(fault)?, row.try_get(3).map_err(fault)?);
                let user: String = row.try_get(4).map_err(fault)?;
                seen.bound = start;
                seen.held_by =
                    Some(format!("session {pid} of {user} ({program}) since {}", instant(start)));
            }
        }
        seen.bound = seen.bound.min(seen.at);
        if !sees_all {
            seen.degraded = Some("the login does not see other sessions".to_owned());
        } else if hidden {
            seen.degraded =
                Some("a session hides its activity (track_activities = off)".to_owned());
        }
        Ok(seen)
    }

    fn settle(&self, mut seen: Seen, gids: &[(String, i64)]) -> Bound {
        let mut state = lock(&self.state);
        state.longest = state.longest.max(seen.at.saturating_sub(seen.bound));
        let window = self.overlap.max(state.longest.saturating_mul(3));
        state.held.retain(|gid, _| gids.iter().any(|(known, _)| known == gid));
        for (gid, prepared) in gids {
            let first = match (state.held.get(gid), state.last) {
                (Some(held), _) => *held,
                (None, Some(last)) => last,
                (None, None) => {
                    // Prepared before this process looked for the first time: its start is not known.
                    seen.degraded.get_or_insert_with(|| {
                        "a transaction was prepared before the agent started".to_owned()
                    });
                    prepared.saturating_sub(window)
                }
            };
            state.held.insert(gid.clone(), first);
            if first < seen.bound {
                seen.bound = first;
                seen.held_by =
                    Some(format!("a prepared transaction since {} or later", instant(first)));
            }
        }
        if let Some(words) = &mut seen.degraded {
            seen.bound = seen.bound.min(seen.at.saturating_sub(window));
            words.push_str(&format!("; {} s of overlap are used", window / 1_000_000));
        }
        state.last = Some(seen.bound);
        Bound {
            at_micros: seen.at,
            micros: seen.bound,
            degraded: seen.degraded,
            held_by: seen.held_by,
            committed: None,
            from_before_a_step: seen.latest > seen.at.saturating_add(STARTING),
        }
    }
}
