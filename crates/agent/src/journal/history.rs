//! History: what became of each table's batches and of each job (`GTOTVSAPPCONCEITOHST`), and its cleaning.
//!
//! Promises: a row is written in the transaction that settles its batch; the last success of each concept stays, whatever
//! is cleaned; a cleaning takes the oldest first and in small steps, so that capture and uplink are not kept waiting.
//! Never: holds a row's value or key.

use protocol::{Code, Result, ids::BatchId, limits, names::TableName};
use runtime::clock::Wall;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Journal, spool, writer::Desk};

/// Rows of one step of a cleaning.
const STEP: u64 = 2_000;
/// Free pages given back to the file system in one step.
const STEP_PAGES: u32 = 1_000;
/// The cleaning itself, as a concept.
pub const CLEAN_JOB: &str = "job:history-clean";

/// How a table's part of a batch, or a job, ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRow {
    pub id: i64,
    /// A table by its wire name, or a job.
    pub concept: String,
    pub started: String,
    pub finished: String,
    /// `SUCCESS`, `ERROR`.
    pub status: String,
    pub records: u64,
    pub error: Option<String>,
    pub batch: Option<BatchId>,
}

/// What a cleaning may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clean {
    /// Rows that ended before go.
    pub before: Wall,
    /// At most so many.
    pub most: u64,
    /// Counts and takes nothing.
    pub dry_run: bool,
}

/// What a cleaning took, or would take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cleaned {
    pub removed: u64,
    /// Rows that stay.
    pub left: u64,
    pub dry_run: bool,
}

/// One thing that ended.
pub(super) struct Ended<'a> {
    pub concept: &'a str,
    pub started: i64,
    pub finished: i64,
    pub records: u64,
    pub batch: Option<BatchId>,
    /// Why it failed.
    pub error: Option<String>,
}

pub(super) fn add(desk: &Desk, ended: &Ended<'_>) -> Result<()> {
    let status = if ended.error.is_none() { "SUCCESS" } else { "ERROR" };
    // A clock that was set back must not show an end before the start.
    let finished = ended.finished.max(ended.started);
    let records = i64::try_from(ended.records).unwrap_or(i64::MAX);
    desk.run(
        "INSERT INTO history (concept, started_micros, finished_micros, status, records, error, batch)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            ended.concept,
            ended.started,
            finished,
            status,
            records,
            ended.error,
            ended.batch.map(|batch| batch.0)
        ],
    )
    .map(|_| ())
}

/// The open batch ends: a row for each of its tables.
pub(super) fn settle(desk: &Desk, failed: Option<(Code, &str)>, at: Wall) -> Result<()> {
    let Some(batch) = desk.state.spool.batch else { return Ok(()) };
    let opened = desk.rows("SELECT opened_micros FROM batch", [], |row| row.get::<_, i64>(0))?;
    // A batch of the time before this column was opened at an unknown moment.
    let started = opened.first().copied().filter(|opened| *opened > 0).unwrap_or(at.0);
    for (table, rows) in spool::rows_per_table(desk)? {
        let ended = Ended {
            concept: table.as_str(),
            started,
            finished: at.0,
            records: rows,
            batch: Some(batch),
            error: failed.map(|(code, words)| format!("{code}: {words}")),
        };
        add(desk, &ended)?;
    }
    Ok(())
}

/// A table failed outside a batch.
pub(super) fn failed(desk: &Desk, table: &TableName, error: String, at_micros: i64) -> Result<()> {
    let concept = table.as_str();
    let error = Some(error);
    add(
        desk,
        &Ended { concept, started: at_micros, finished: at_micros, records: 0, batch: None, error },
    )
}

fn recent(desk: &Desk, concept: Option<&str>, limit: usize) -> Result<Vec<HistoryRow>> {
    let sql = "SELECT id, concept, started_micros, finished_micros, status, records, error, batch FROM history
               WHERE ?1 IS NULL OR concept = ?1 COLLATE NOCASE ORDER BY id DESC LIMIT ?2";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    desk.rows(sql, params![concept, limit], |row| {
        Ok(HistoryRow {
            id: row.get(0)?,
            concept: row.get(1)?,
            started: Wall(row.get(2)?).to_iso(),
            finished: Wall(row.get(3)?).to_iso(),
            status: row.get(4)?,
            records: row.get::<_, i64>(5)?.cast_unsigned(),
            error: row.get(6)?,
            batch: row.get::<_, Option<i64>>(7)?.map(BatchId),
        })
    })
}

/// Rows that may go: old enough or above the bound, and not the last success of their concept.
const GOES: &str = "(h.finished_micros < ?1 OR h.id <= (SELECT coalesce(max(id), 0) FROM history) - ?2)
    AND h.id <> (SELECT coalesce(max(s.id), 0) FROM history s WHERE s.concept = h.concept AND s.status = 'SUCCESS')";

fn step(desk: &Desk, clean: Clean, most: u64) -> Result<u64> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let bound = i64::try_from(limits::HISTORY_ROWS).unwrap_or(i64::MAX);
    let oldest = format!("SELECT h.id FROM history h WHERE {GOES} ORDER BY h.id LIMIT ?3");
    let values = params![clean.before.0, bound, most];
    if clean.dry_run {
        let count = format!("SELECT count(*) FROM ({oldest})");
        let found = desk.rows(&count, values, |row| row.get::<_, i64>(0))?;
        return Ok(found.first().copied().unwrap_or_default().cast_unsigned());
    }
    Ok(desk.run(&format!("DELETE FROM history WHERE id IN ({oldest})"), values)? as u64)
}

fn count(desk: &Desk) -> Result<u64> {
    let found = desk.rows("SELECT count(*) FROM history", [], |row| row.get::<_, i64>(0))?;
    Ok(found.first().copied().unwrap_or_default().cast_unsigned())
}

impl Journal {
    /// The newest first; of one concept, or of all.
    pub async fn history(&self, concept: Option<String>, limit: usize) -> Result<Vec<HistoryRow>> {
        self.run(move |desk| recent(desk, concept.as_deref(), limit)).await
    }

    /// Takes rows that ended before a moment, oldest first. Start, end and outcome by that clock are kept as a row of the
    /// job.
    ///
    /// # Errors
    /// The journal's own; what was taken before stays taken.
    pub async fn history_clean(&self, clean: Clean, clock: impl Fn() -> Wall) -> Result<Cleaned> {
        let started = clock().0;
        let mut removed = 0;
        let outcome = self.clean_steps(clean, &mut removed).await;
        // A cleaning that found nothing leaves no trace: else it would fill what it empties.
        if !clean.dry_run && (removed > 0 || outcome.is_err()) {
            let (finished, error) = (clock().0, outcome.as_ref().err().map(ToString::to_string));
            let noted = self
                .run(move |desk| {
                    let (concept, records, batch) = (CLEAN_JOB, removed, None);
                    add(desk, &Ended { concept, started, finished, records, batch, error })
                })
                .await;
            // What stopped the cleaning says more than that it could not be noted.
            outcome.and_then(|left| noted.map(|()| left))
        } else {
            outcome
        }
        .map(|left| Cleaned { removed, left, dry_run: clean.dry_run })
    }

    /// How many rows stay.
    async fn clean_steps(&self, clean: Clean, removed: &mut u64) -> Result<u64> {
        loop {
            let most = clean.most.saturating_sub(*removed);
            let most = if clean.dry_run { most } else { most.min(STEP) };
            let some = self.run(move |desk| step(desk, clean, most)).await?;
            *removed += some;
            if clean.dry_run || some < STEP || *removed >= clean.most {
                break;
            }
        }
        let left = self.run(|desk| count(desk)).await?;
        Ok(if clean.dry_run { left.saturating_sub(*removed) } else { left })
    }

    /// Gives some free pages back to the file system; `false` where there are none, or the file is one of the time before
    /// it could.
    ///
    /// # Errors
    /// The journal's own.
    pub async fn shrink_step(&self) -> Result<bool> {
        self.run(|desk| {
            let free = |desk: &Desk| {
                desk.rows("PRAGMA freelist_count", [], |row| row.get::<_, i64>(0))
                    .map(|found| found.first().copied().unwrap_or_default())
            };
            let before = free(desk)?;
            if before == 0 {
                return Ok(false);
            }
            // A page is moved with each step of the statement.
            desk.rows(&format!("PRAGMA incremental_vacuum({STEP_PAGES})"), [], |_| Ok(()))?;
            Ok(free(desk)? < before)
        })
        .await
    }
}
