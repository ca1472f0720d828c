//! Verifications: what was asked for, what is under way, and what came of it; the newest of each table stay.
//!
//! Promises: an order is on disk before it is answered; one that was cut short runs again; an incident is open while the
//! last whole verification of a table found differences that nobody mended, and one while the last one by the timetable
//! came to no end.
//! Never: compares anything; holds a key but the bounds of an order.

use std::collections::BTreeMap;

use protocol::{Code, Error, Result, ids::OrderId, key::KeyBytes, limits, names::TableName};
use runtime::clock::Wall;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use super::{Incident, Journal, KeySpan, people, session, spool, writer::Desk};

/// Fact: when the last run of the timetable began.
const ROUND: &str = "verify_round";

/// Who wants it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Origin {
    Schedule,
    Person,
    /// An order of the server.
    Cloud,
}

impl Origin {
    fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "SCHEDULE",
            Self::Person => "PERSON",
            Self::Cloud => "CLOUD",
        }
    }

    fn of(text: &str) -> Self {
        match text {
            "SCHEDULE" => Self::Schedule,
            "CLOUD" => Self::Cloud,
            _ => Self::Person,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Stage {
    Waiting,
    Running,
    /// The comparison ended; what it found is in its outcome.
    Done,
    /// It could not be ended; nothing is known.
    Failed,
}

impl Stage {
    fn of(text: &str) -> Self {
        match text {
            "WAITING" => Self::Waiting,
            "RUNNING" => Self::Running,
            "DONE" => Self::Done,
            _ => Self::Failed,
        }
    }
}

/// An order to compare a table with what is staged.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VerifyOrder {
    pub table: TableName,
    pub origin: Origin,
    /// Sends again what differs, then compares once more.
    pub repair: bool,
    /// The part of the table that is compared.
    pub span: KeySpan,
}

/// Rows by how they differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Differences {
    /// In the ERP, within the filter, and not staged.
    pub missing: u64,
    /// Staged, and not in the ERP.
    pub extra: u64,
    /// On both sides, with other values.
    pub differing: u64,
}

impl Differences {
    #[must_use]
    pub fn total(&self) -> u64 {
        self.missing + self.extra + self.differing
    }
}

/// What a comparison found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Rows of the ERP that were compared.
    pub rows: u64,
    pub ranges: u64,
    #[serde(flatten)]
    pub found: Differences,
    /// Rows that changed at every look, so that nothing can be said of them.
    pub unsettled: u64,
    /// Rows that cannot travel and have an incident of their own.
    pub skipped: u64,
    /// What a second comparison found after the repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Differences>,
}

impl Outcome {
    /// What differs now.
    #[must_use]
    pub fn remaining(&self) -> Differences {
        self.left.unwrap_or(self.found)
    }
}

/// How a table stood to what is staged when it was compared last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Standing {
    /// Rows that differed and were not repaired.
    pub differences: u64,
    /// `None`: none came to an end.
    pub at: Option<Wall>,
    /// Code: the last one by the timetable came to no end.
    pub unverified: Option<String>,
}

/// How far the one that runs is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub id: i64,
    /// `READ`, `ASK`, `COMPARE`, `WAIT`, `LOOK_AGAIN`, `REPAIR`.
    pub step: String,
    /// Rows of the step so far.
    pub rows: u64,
}

/// A verification as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verification {
    pub id: i64,
    pub table: TableName,
    pub origin: Origin,
    pub repair: bool,
    /// Only a part of the table is compared.
    pub part: bool,
    pub stage: Stage,
    pub asked: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

impl Verification {
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Failed)
    }
}

impl Journal {
    /// Asks for a verification, or with `repair` for a repair, of a table of the plan; gives the number under which
    /// [`Self::verification`] tells what became of it. One of the schedule is left out where the table has one that is
    /// not over.
    ///
    /// # Errors
    /// `NOT_FOUND` for a table that is not in the plan, `RATE_LIMITED` where too many wait.
    pub async fn order_verify(&self, order: VerifyOrder, at: Wall) -> Result<Option<i64>> {
        let id = self.run(move |desk| ask(desk, &order, None, at)).await?;
        if id.is_some() {
            self.verify_ordered();
        }
        Ok(id)
    }

    /// Changes with each order, and with the end of each.
    #[must_use]
    pub fn verify_orders(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.verify.subscribe()
    }

    /// One by its number; `None` = there is none, or it is older than what is kept.
    pub async fn verification(&self, id: i64) -> Result<Option<Verification>> {
        let found = self.run(move |desk| look(desk, "v.id = ?1", id, 1)).await?;
        Ok(found.into_iter().next().map(|found| self.with_progress(found)))
    }

    /// The newest first.
    pub async fn verifications(&self, limit: usize) -> Result<Vec<Verification>> {
        let found = self.run(move |desk| look(desk, "v.id > ?1", 0, limit)).await?;
        Ok(found.into_iter().map(|found| self.with_progress(found)).collect())
    }

    /// The last one of each table that is over.
    pub async fn verified(&self) -> Result<Vec<Verification>> {
        let last = "v.id > ?1 AND v.id IN (SELECT max(id) FROM verification
                    WHERE stage IN ('DONE', 'FAILED') GROUP BY table_id)";
        self.run(move |desk| look(desk, last, 0, usize::MAX)).await
    }

    /// What was left by the last verification of each table that says something of all of it: one that found nothing in a
    /// part says nothing of the rest.
    pub async fn standing(&self) -> Result<BTreeMap<TableName, Standing>> {
        self.run(standing).await
    }

    /// When the timetable's last run began; a journal that knows of none notes that moment as one, for there was nothing to
    /// miss before.
    pub async fn last_round(&self, now: Wall) -> Result<Wall> {
        self.run(move |desk| match desk.fact::<i64>(ROUND)? {
            Some(at) => Ok(Wall(at)),
            None => desk.set_fact(ROUND, now.0).map(|()| now),
        })
        .await
    }

    /// A run of the timetable begins.
    pub async fn note_round(&self, at: Wall) -> Result<()> {
        self.run(move |desk| desk.set_fact(ROUND, at.0)).await
    }

    /// The next one to run: one that was cut short, else those of people and of the server before the schedule's. It is
    /// under way from now on.
    pub async fn next_verification(&self, at: Wall) -> Result<Option<(i64, VerifyOrder)>> {
        self.run(move |desk| take(desk, at)).await
    }

    /// It is over, well or not.
    pub async fn end_verification(&self, id: i64, ended: Result<Outcome>, at: Wall) -> Result<()> {
        self.shared.verifying.send_replace(None);
        let over = self.run(move |desk| end(desk, id, &ended, at)).await;
        // An order of the server may be over with it.
        self.verify_ordered();
        over
    }

    /// Wakes whoever runs verifications or tells what became of orders.
    pub(super) fn verify_ordered(&self) {
        self.shared.verify.send_modify(|orders| *orders += 1);
    }

    /// Tells how far the one that runs is; kept in memory alone.
    pub fn tell_verifying(&self, progress: Progress) {
        self.shared.verifying.send_replace(Some(progress));
    }

    fn with_progress(&self, mut found: Verification) -> Verification {
        let progress = self.shared.verifying.borrow().clone();
        found.progress =
            progress.filter(|progress| progress.id == found.id && found.stage == Stage::Running);
        found
    }
}

/// Puts it down, for an order of the server where it belongs to one.
pub(super) fn ask(
    desk: &mut Desk,
    order: &VerifyOrder,
    of: Option<OrderId>,
    at: Wall,
) -> Result<Option<i64>> {
    let plan = session::plan(desk)?;
    if !plan.is_some_and(|plan| plan.queries.iter().any(|query| query.table == order.table)) {
        let words = format!("table {} is not in the plan", order.table);
        return Err(Error::new(Code::NotFound, words));
    }
    let table = desk.number(&order.table)?;
    let counted = |sql: &str, of: i64| -> Result<i64> {
        let found = desk.rows(sql, [of], |row| row.get(0))?;
        Ok(found.into_iter().next().unwrap_or_default())
    };
    let open =
        "SELECT count(*) FROM verification WHERE table_id = ?1 AND stage IN ('WAITING', 'RUNNING')";
    if order.origin == Origin::Schedule && counted(open, table)? > 0 {
        return Ok(None);
    }
    let waiting = "SELECT count(*) FROM verification WHERE stage = 'WAITING' AND id > ?1";
    let most = i64::try_from(limits::VERIFY_WAITING).unwrap_or(i64::MAX);
    if counted(waiting, 0)? >= most {
        let words = format!("{most} verifications wait already");
        return Err(Error::new(Code::RateLimited, words));
    }
    desk.run(
        "INSERT INTO verification (table_id, origin, repair, key_from, key_to, stage, asked_micros, fleet_order)
         VALUES (?1, ?2, ?3, ?4, ?5, 'WAITING', ?6, ?7)",
        params![
            table,
            order.origin.as_str(),
            order.repair,
            order.span.from.0,
            order.span.to.0,
            at.0,
            of.map(|order| order.to_string())
        ],
    )?;
    Ok(Some(desk.db.last_insert_rowid()))
}

fn look(desk: &mut Desk, which: &str, of: i64, limit: usize) -> Result<Vec<Verification>> {
    let sql = format!(
        "SELECT v.id, n.name, v.origin, v.repair, length(v.key_from) + length(v.key_to) > 0, v.stage, v.asked_micros,
                v.started_micros, v.finished_micros, v.outcome, v.code, v.words
         FROM verification v JOIN named n ON n.id = v.table_id WHERE {which} ORDER BY v.id DESC LIMIT ?2"
    );
    let time = |micros: Option<i64>| micros.map(|micros| Wall(micros).to_iso());
    let unfit = |error: Error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    };
    let read = |row: &rusqlite::Row<'_>| {
        let outcome: Option<String> = row.get(9)?;
        Ok(Verification {
            id: row.get(0)?,
            table: row.get::<_, String>(1)?.parse().map_err(unfit)?,
            origin: Origin::of(&row.get::<_, String>(2)?),
            repair: row.get(3)?,
            part: row.get(4)?,
            stage: Stage::of(&row.get::<_, String>(5)?),
            asked: Wall(row.get(6)?).to_iso(),
            started: time(row.get(7)?),
            finished: time(row.get(8)?),
            outcome: outcome.and_then(|json| serde_json::from_str(&json).ok()),
            code: row.get(10)?,
            words: row.get(11)?,
            progress: None,
        })
    };
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    desk.rows(&sql, params![of, limit], read)
}

fn standing(desk: &mut Desk) -> Result<BTreeMap<TableName, Standing>> {
    let sql =
        "SELECT n.name, length(v.key_from) + length(v.key_to) > 0, v.finished_micros, v.outcome
               FROM verification v JOIN named n ON n.id = v.table_id
               WHERE v.stage = 'DONE' AND v.outcome IS NOT NULL ORDER BY v.id DESC";
    let read = |row: &rusqlite::Row<'_>| {
        let name: String = row.get(0)?;
        Ok((name, row.get::<_, bool>(1)?, row.get(2)?, row.get::<_, String>(3)?))
    };
    let mut all = BTreeMap::new();
    for (name, part, at, outcome) in desk.rows(sql, [], read)? {
        let Ok(outcome) = serde_json::from_str::<Outcome>(&outcome) else { continue };
        let differences = outcome.remaining().total();
        if part && differences == 0 {
            continue;
        }
        let at = Some(Wall(at));
        all.entry(spool::stored(&name)?).or_insert(Standing { differences, at, unverified: None });
    }
    for (name, words) in people::told(desk, Code::NotVerified)? {
        let code = words.split(':').next().unwrap_or_default().to_owned();
        all.entry(name).or_default().unverified = Some(code);
    }
    Ok(all)
}

/// Reads all once, as the journal is opened.
pub(super) fn probe(desk: &mut Desk) -> Result<()> {
    look(desk, "v.id > ?1", 0, usize::MAX).map(|_| ())
}

fn take(desk: &mut Desk, at: Wall) -> Result<Option<(i64, VerifyOrder)>> {
    let sql = "SELECT v.id, n.name, v.origin, v.repair, v.key_from, v.key_to
               FROM verification v JOIN named n ON n.id = v.table_id WHERE v.stage IN ('WAITING', 'RUNNING')
               ORDER BY v.stage = 'RUNNING' DESC, v.origin = 'SCHEDULE', v.id LIMIT 1";
    let read = |row: &rusqlite::Row<'_>| {
        let span = KeySpan { from: KeyBytes(row.get(4)?), to: KeyBytes(row.get(5)?) };
        Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get(3)?, span))
    };
    let Some((id, name, origin, repair, span)) = desk.rows(sql, [], read)?.into_iter().next()
    else {
        return Ok(None);
    };
    let sql = "UPDATE verification SET stage = 'RUNNING', started_micros = ?2 WHERE id = ?1";
    desk.run(sql, params![id, at.0])?;
    let (table, origin) = (spool::stored(&name)?, Origin::of(&origin));
    Ok(Some((id, VerifyOrder { table, origin, repair, span })))
}

fn end(desk: &mut Desk, id: i64, ended: &Result<Outcome>, at: Wall) -> Result<()> {
    let Some(was) = look(desk, "v.id = ?1", id, 1)?.into_iter().next() else { return Ok(()) };
    match ended {
        Ok(outcome) => {
            let json = serde_json::to_string(outcome).map_err(|cause| {
                Error::new(Code::Internal, "an outcome cannot be written").because(cause)
            })?;
            let sql = "UPDATE verification SET stage = 'DONE', finished_micros = ?2, outcome = ?3 WHERE id = ?1";
            desk.run(sql, params![id, at.0, json])?;
            tell(desk, &was, outcome, at)?;
        }
        Err(error) => {
            let sql = "UPDATE verification SET stage = 'FAILED', finished_micros = ?2, code = ?3, words = ?4 WHERE id = ?1";
            desk.run(sql, params![id, at.0, error.code.as_str(), error.message])?;
            tell_failed(desk, &was, error, at)?;
        }
    }
    end_order(desk, id)?;
    let table = desk.number(&was.table)?;
    let kept = i64::try_from(limits::VERIFY_KEPT).unwrap_or(i64::MAX);
    // The last that says something of the whole table stays, however many came to nothing since.
    let sql = "DELETE FROM verification WHERE table_id = ?1 AND stage IN ('DONE', 'FAILED') AND id NOT IN (
                   SELECT id FROM verification WHERE table_id = ?1 AND stage IN ('DONE', 'FAILED')
                   ORDER BY id DESC LIMIT ?2)
               AND id IS NOT (SELECT max(id) FROM verification WHERE table_id = ?1 AND stage = 'DONE'
                   AND length(key_from) + length(key_to) = 0)";
    desk.run(sql, params![table, kept]).map(|_| ())
}

/// The last verification of an order of the server ends it: well where all ended and nothing differs any more.
fn end_order(desk: &Desk, id: i64) -> Result<()> {
    let sql = "SELECT g.stage, g.code, g.outcome, g.fleet_order FROM verification v
               JOIN verification g ON g.fleet_order = v.fleet_order WHERE v.id = ?1 ORDER BY g.id";
    let read = |row: &rusqlite::Row<'_>| {
        let ended = Ended {
            stage: Stage::of(&row.get::<_, String>(0)?),
            code: row.get(1)?,
            outcome: row.get(2)?,
        };
        Ok((ended, row.get::<_, String>(3)?))
    };
    let (group, orders): (Vec<Ended>, Vec<String>) =
        desk.rows(sql, [id], read)?.into_iter().unzip();
    let over = |one: &Ended| matches!(one.stage, Stage::Done | Stage::Failed);
    let Some(order) = orders.first().filter(|_| group.iter().all(over)) else { return Ok(()) };
    let sql = "UPDATE fleet_order SET outcome = ?2 WHERE id = ?1 AND outcome IS NULL";
    desk.run(sql, params![order, verdict(&group)]).map(|_| ())
}

/// How one of an order's verifications ended.
struct Ended {
    stage: Stage,
    code: Option<String>,
    outcome: Option<String>,
}

impl Ended {
    fn differs(&self) -> bool {
        let outcome = self.outcome.as_deref();
        let outcome = outcome.and_then(|json| serde_json::from_str::<Outcome>(json).ok());
        outcome.is_some_and(|outcome| outcome.remaining().total() > 0)
    }

    fn is_unready(&self) -> bool {
        self.code.as_deref() == Some(Code::TableNotReady.as_str())
    }
}

/// The code of an order, or nothing. Differences count before whatever kept other tables from being compared; that some of
/// many tables are paused or being loaded is no fault of the order.
fn verdict(group: &[Ended]) -> &str {
    if group.iter().any(Ended::differs) {
        return Code::DifferencesFound.as_str();
    }
    let all_unready = group.iter().all(Ended::is_unready);
    let mut failed = group.iter().filter(|one| all_unready || !one.is_unready());
    failed.find_map(|one| one.code.as_deref()).unwrap_or_default()
}

/// One open incident while the last verification of a table by the timetable came to no end. One that is left to another
/// night or to another agent is none.
fn tell_failed(desk: &mut Desk, was: &Verification, error: &Error, at: Wall) -> Result<()> {
    let left = matches!(error.code, Code::TableNotReady | Code::SessionHeld | Code::Fenced);
    if was.origin != Origin::Schedule || left {
        return Ok(());
    }
    let code = Code::NotVerified;
    people::close(desk, Some(&was.table), code)?;
    let words = format!("{}: {}", error.code, error.message);
    let table = Some(was.table.clone());
    people::incident(desk, &Incident { table, key_hash: None, code, words, at_micros: at.0 })
}

/// One open incident while a table differs; a look at a part says nothing of the rest.
fn tell(desk: &mut Desk, was: &Verification, outcome: &Outcome, at: Wall) -> Result<()> {
    let left = outcome.remaining();
    let code = Code::DifferencesFound;
    if !was.part {
        people::close(desk, Some(&was.table), Code::NotVerified)?;
    }
    if left.total() == 0 && was.part {
        return Ok(());
    }
    people::close(desk, Some(&was.table), code)?;
    if left.total() == 0 {
        return Ok(());
    }
    let Differences { missing, extra, differing } = left;
    let words =
        format!("{missing} rows are missing in the cloud, {extra} too many, {differing} differ");
    let table = Some(was.table.clone());
    people::incident(desk, &Incident { table, key_hash: None, code, words, at_micros: at.0 })
}
