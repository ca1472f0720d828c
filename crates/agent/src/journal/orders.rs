//! Orders: what somebody ordered through the server, kept so that each order is carried out once.
//!
//! Promises: an order is on disk before anything is done for it; what it does to the journal and its outcome are one
//! transaction, so that a kill between the two neither loses nor repeats it; an outcome stays until the server took it.
//! Never: asks the server; carries out what is not the journal's own work.

use std::collections::BTreeMap;

use protocol::{Code, Error, Result, ids::OrderId, json::Entities, limits, names::TableName};
use runtime::{clock::Wall, failpoint};
use rusqlite::params;

use super::{
    Halt, Journal, KeySpan, Origin, VerifyOrder,
    apart::Attention,
    halt, people, session, spool, verify,
    writer::{Desk, failed},
};

/// What is to be done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Load a table again, or (`None`) all of the plan; the order is over when the last of them was loaded.
    Reload(Option<TableName>),
    /// Leave a table, or all, alone.
    Pause(Option<TableName>, Halt),
    /// Lift the halt of a table, or every halt.
    Resume(Option<TableName>),
    /// Try again what was set apart of a table, or of all: the table itself and its refused rows.
    Retry(Option<TableName>),
    /// Compare a table, or all of the plan, with what is staged; the order is over when the last of them is.
    Verify { table: Option<TableName>, repair: bool, span: KeySpan },
    /// Whatever it was is done already, or failed with that code.
    Ended(Option<Code>),
}

/// How an order stood when it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    New,
    /// It came before, and its outcome is not known.
    Begun,
    /// It was carried out; its outcome is told again.
    Ended,
}

/// What became of an order, for the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderOutcome {
    pub id: OrderId,
    /// Why it failed.
    pub code: Option<Code>,
}

impl Journal {
    /// Keeps an order's id, before anything is done for it.
    pub async fn take_order(&self, id: OrderId, at: Wall) -> Result<Taken> {
        self.run(move |desk| take(desk, id, at)).await
    }

    /// Carries an order out that was taken, once: one that has an outcome is left as it is. Gives the code it failed with.
    ///
    /// # Errors
    /// The journal's own; then nothing was done and the order can be carried out again.
    pub async fn carry_out(&self, id: OrderId, deed: Deed) -> Result<Option<Code>> {
        let told = deed.clone();
        let done = self.run(move |desk| carry_out(desk, id, deed)).await?;
        if matches!(told, Deed::Verify { .. }) {
            self.verify_ordered();
        }
        if let Some(retries) = done.retries {
            self.shared.attention.send_modify(|attention| attention.follow(told, retries));
        }
        Ok(done.code)
    }

    /// A table cannot be loaded until a person acts: orders that wait for it end with that code.
    pub async fn not_loaded(&self, table: &TableName, code: Code) -> Result<()> {
        let table = table.clone();
        if self.run(move |desk| not_loaded(desk, &table, code)).await? {
            self.verify_ordered();
        }
        Ok(())
    }

    /// Outcomes that the server did not take yet, the oldest first.
    pub async fn untold_orders(&self) -> Result<Vec<OrderOutcome>> {
        self.run(|desk| untold(desk)).await
    }

    /// The server took the outcome.
    pub async fn order_told(&self, id: OrderId) -> Result<()> {
        self.run(move |desk| told(desk, id)).await
    }

    /// Tables to try again at once since the last look; `true` = refused rows of it too.
    #[must_use]
    pub fn take_retries(&self) -> BTreeMap<TableName, bool> {
        let mut taken = BTreeMap::new();
        self.shared.attention.send_if_modified(|attention| {
            taken = std::mem::take(&mut attention.retries);
            false
        });
        taken
    }
}

impl Attention {
    /// What the file holds by now, in memory.
    fn follow(&mut self, deed: Deed, retries: BTreeMap<TableName, bool>) {
        match deed {
            Deed::Reload(table) => {
                self.acted_on(table.as_ref());
            }
            Deed::Pause(table, halt) => self.halts.place(table, Some(halt)),
            Deed::Resume(None) => self.halts = super::Halts::default(),
            Deed::Resume(table) => self.halts.place(table, None),
            Deed::Retry(table) => {
                for table in self.acted_on(table.as_ref()) {
                    self.retries.entry(table).or_default();
                }
                self.retries.extend(retries);
            }
            Deed::Verify { .. } | Deed::Ended(_) => {}
        }
    }

    /// Somebody acted on a table, or on all of them: gives those that were parked.
    fn acted_on(&mut self, table: Option<&TableName>) -> Vec<TableName> {
        let parked = self.parked.keys().filter(|of| table.is_none_or(|table| table == *of));
        let parked: Vec<TableName> = parked.cloned().collect();
        for table in &parked {
            self.acted(table);
        }
        parked
    }
}

fn take(desk: &Desk, id: OrderId, at: Wall) -> Result<Taken> {
    failpoint::reach("journal.order", Code::DiskFull)?;
    let sql = "INSERT OR IGNORE INTO fleet_order (id, at_micros) VALUES (?1, ?2)";
    if desk.run(sql, params![id.to_string(), at.0])? > 0 {
        return Ok(Taken::New);
    }
    // Whoever gives it again did not hear what became of it.
    let again = "UPDATE fleet_order SET told = 0 WHERE id = ?1 AND outcome IS NOT NULL";
    Ok(if desk.run(again, [id.to_string()])? > 0 { Taken::Ended } else { Taken::Begun })
}

/// What was done.
struct Done {
    code: Option<Code>,
    /// `None` = nothing was done now.
    retries: Option<BTreeMap<TableName, bool>>,
}

fn carry_out(desk: &mut Desk, id: OrderId, deed: Deed) -> Result<Done> {
    let sql = "SELECT outcome, at_micros FROM fleet_order WHERE id = ?1";
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, Option<String>>(0)?, Wall(row.get(1)?)));
    let Some((outcome, at)) = desk.rows(sql, [id.to_string()], read)?.pop() else {
        return Err(Error::new(Code::Internal, "an order was not taken before it is carried out"));
    };
    if let Some(outcome) = outcome {
        return Ok(Done { code: code_of(&outcome), retries: None });
    }
    let acted = match deed {
        Deed::Verify { table, repair, span } => {
            verify_all(desk, (id, at), table, (repair, span)).map(|()| (None, false))
        }
        Deed::Reload(table) => match waits(desk, id)? {
            // It came again: nothing is asked for or lifted once more.
            true => Ok((None, false)),
            false => reload_all(desk, id, table.as_ref()).map(|over| (Some(BTreeMap::new()), over)),
        },
        deed => act(desk, deed).map(|retries| (Some(retries), true)),
    };
    let (code, retries) = match acted {
        // Its verifications or its loads end it.
        Ok((retries, false)) => return Ok(Done { code: None, retries }),
        Ok((retries, true)) => (None, retries),
        // It can be done later, and is not done by halves: the whole job is taken back.
        Err(error) if matches!(error.code, Code::JournalFailed | Code::DiskFull) => {
            return Err(error);
        }
        Err(error) => {
            tracing::warn!(order = %id, %error, "an order cannot be carried out");
            (Some(error.code), None)
        }
    };
    let text = code.map_or("", Code::as_str);
    desk.run("UPDATE fleet_order SET outcome = ?2 WHERE id = ?1", params![id.to_string(), text])?;
    Ok(Done { code, retries })
}

/// Does it, or nothing of it: whatever can be refused is looked at first.
fn act(desk: &mut Desk, deed: Deed) -> Result<BTreeMap<TableName, bool>> {
    let mut retries = BTreeMap::new();
    match deed {
        // Also of a table that the plan does not name yet: the server knows it.
        Deed::Pause(table, halt) => {
            halt::put(desk, table.as_ref(), &halt)?;
        }
        // Whoever wants it to go on has that also where it does.
        Deed::Resume(Some(table)) => match halt::lift(desk, Some(&table)) {
            Err(error) if error.code == Code::NotFound => {}
            lifted => lifted?,
        },
        Deed::Resume(None) => {
            desk.run("DELETE FROM halt", [])?;
        }
        Deed::Retry(table) => {
            planned(desk, table.as_ref())?;
            retries = retry(desk, table)?;
        }
        Deed::Ended(Some(code)) => return Err(Error::new(code, "the order was not carried out")),
        // Their ends are told by what they are waited for.
        Deed::Verify { .. } | Deed::Reload(_) | Deed::Ended(None) => {}
    }
    Ok(retries)
}

/// Whether an order waits for loads that were asked for.
fn waits(desk: &Desk, id: OrderId) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM reload_order WHERE fleet_order = ?1)";
    Ok(desk.rows(sql, [id.to_string()], |row| row.get::<_, bool>(0))?.pop().unwrap_or_default())
}

/// Asks for the loads. Gives whether there is nothing to wait for.
fn reload_all(desk: &mut Desk, id: OrderId, table: Option<&TableName>) -> Result<bool> {
    let mine = id.to_string();
    planned(desk, table)?;
    let (number, tables) = people::request_reload(desk, table)?;
    for table in &tables {
        let table = desk.number(table)?;
        let sql = "INSERT INTO reload_order (fleet_order, table_id, number) VALUES (?1, ?2, ?3)";
        desk.run(sql, params![mine, table, number])?;
    }
    Ok(tables.is_empty())
}

/// Tables have answered the requests up to those numbers. Gives whether an order ended with it.
pub(super) fn reloaded(desk: &mut Desk, done: &[(TableName, u64)]) -> Result<bool> {
    // Each batch tells what its tables ever answered; hardly ever somebody waits for it.
    let sql = "SELECT EXISTS (SELECT 1 FROM reload_order)";
    if !desk.rows(sql, [], |row| row.get::<_, bool>(0))?.pop().unwrap_or_default() {
        return Ok(false);
    }
    let mut ended = false;
    for (table, number) in done {
        let table = desk.number(table)?;
        let sql =
            "DELETE FROM reload_order WHERE table_id = ?1 AND number <= ?2 RETURNING fleet_order";
        let orders = desk.rows(sql, params![table, number.cast_signed()], |row| row.get(0))?;
        ended |= end_loaded(desk, orders)?;
    }
    Ok(ended)
}

/// The table cannot be loaded until a person acts: nobody is kept waiting for that. Gives whether an order ended with it.
pub(super) fn not_loaded(desk: &mut Desk, table: &TableName, code: Code) -> Result<bool> {
    let table = desk.number(table)?;
    let sql = "UPDATE reload_order SET code = ?2 WHERE table_id = ?1 AND code IS NULL RETURNING fleet_order";
    let orders = desk.rows(sql, params![table, code.as_str()], |row| row.get(0))?;
    end_loaded(desk, orders)
}

/// What left the plan is not waited for. Gives whether an order ended with it.
pub(super) fn follow_plan(desk: &mut Desk, plan: &Entities) -> Result<bool> {
    let sql =
        "SELECT DISTINCT o.table_id, n.name FROM reload_order o JOIN named n ON n.id = o.table_id";
    let waited = desk.rows(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
    let mut ended = false;
    for (table, name) in waited {
        let name = spool::stored(&name)?;
        if plan.queries.iter().any(|query| query.table == name) {
            continue;
        }
        let sql = "DELETE FROM reload_order WHERE table_id = ?1 RETURNING fleet_order";
        let orders = desk.rows(sql, [table], |row| row.get(0))?;
        ended |= end_loaded(desk, orders)?;
    }
    Ok(ended)
}

/// Ends those of the orders that wait for no load any more.
fn end_loaded(desk: &Desk, orders: Vec<String>) -> Result<bool> {
    let mut ended = false;
    for order in orders {
        let sql = "UPDATE fleet_order SET outcome = coalesce((SELECT min(code) FROM reload_order WHERE fleet_order = ?1), '')
                    WHERE id = ?1 AND outcome IS NULL
                      AND NOT EXISTS (SELECT 1 FROM reload_order WHERE fleet_order = ?1 AND code IS NULL)";
        if desk.run(sql, [&order])? > 0 {
            desk.run("DELETE FROM reload_order WHERE fleet_order = ?1", [&order])?;
            ended = true;
        }
    }
    Ok(ended)
}

/// One verification for each table, or none; an order that comes again finds those it has.
fn verify_all(
    desk: &mut Desk,
    (id, at): (OrderId, Wall),
    table: Option<TableName>,
    (repair, span): (bool, KeySpan),
) -> Result<()> {
    let mine = id.to_string();
    let has = "SELECT count(*) FROM verification WHERE fleet_order = ?1";
    if desk.rows(has, [&mine], |row| row.get::<_, i64>(0))?.pop().unwrap_or_default() > 0 {
        return Ok(());
    }
    let all = || session::plan(desk).map(|plan| plan.map(|plan| plan.queries).unwrap_or_default());
    let tables: Vec<TableName> = match table {
        Some(table) => vec![table],
        None => all()?.into_iter().map(|query| query.table).collect(),
    };
    if tables.is_empty() {
        return Err(Error::new(Code::NotFound, "there is no plan yet, so no table to compare"));
    }
    for table in tables {
        let order = VerifyOrder { table, origin: Origin::Cloud, repair, span: span.clone() };
        if let Err(error) = verify::ask(desk, &order, Some(id), at) {
            desk.run("DELETE FROM verification WHERE fleet_order = ?1", [mine])?;
            return Err(error);
        }
    }
    Ok(())
}

/// A table that is named must be one of the plan, where there is a plan.
fn planned(desk: &Desk, table: Option<&TableName>) -> Result<()> {
    let Some(table) = table else { return Ok(()) };
    match session::plan(desk)? {
        Some(plan) if !plan.queries.iter().any(|query| query.table == *table) => {
            Err(Error::new(Code::NotFound, format!("table {table} is not in the plan")))
        }
        _ => Ok(()),
    }
}

/// Forgets which rows were refused, and names the tables that have something to try again.
fn retry(desk: &mut Desk, table: Option<TableName>) -> Result<BTreeMap<TableName, bool>> {
    let sql = "SELECT name FROM named WHERE id IN (SELECT table_id FROM quarantine
                 UNION SELECT table_id FROM incident WHERE key_hash IS NOT NULL)";
    let refused = desk.rows(sql, [], |row| row.get::<_, String>(0))?;
    let mut tables = BTreeMap::new();
    for status in people::statuses(desk)? {
        if status.parked.is_some() {
            tables.insert(status.table, false);
        }
    }
    for name in refused {
        tables.insert(spool::stored(&name)?, true);
    }
    if let Some(table) = table {
        let rows = tables.get(&table).copied().unwrap_or_default();
        tables = BTreeMap::from([(table, rows)]);
    }
    for table in tables.keys() {
        people::forgive_all(desk, table)?;
    }
    Ok(tables)
}

fn code_of(outcome: &str) -> Option<Code> {
    (!outcome.is_empty()).then(|| outcome.parse().unwrap_or(Code::Internal))
}

/// Read whole when the journal is opened, too.
pub(super) fn untold(desk: &Desk) -> Result<Vec<OrderOutcome>> {
    let sql = "SELECT id, outcome FROM fleet_order WHERE outcome IS NOT NULL AND told = 0 ORDER BY at_micros, id";
    desk.rows(sql, [], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?
        .into_iter()
        .map(|(id, outcome)| {
            let damaged = |_| Error::new(Code::JournalFailed, "an order's id is damaged");
            Ok(OrderOutcome { id: id.parse().map_err(damaged)?, code: code_of(&outcome) })
        })
        .collect()
}

fn told(desk: &Desk, id: OrderId) -> Result<()> {
    let sql = "UPDATE fleet_order SET told = 1 WHERE id = ?1 AND outcome IS NOT NULL";
    desk.run(sql, [id.to_string()])?;
    let surplus = "DELETE FROM fleet_order WHERE told = 1 AND id NOT IN (
                     SELECT id FROM fleet_order WHERE told = 1 ORDER BY at_micros DESC, id LIMIT ?1)";
    let kept = i64::try_from(limits::AGENT_ORDERS).unwrap_or(i64::MAX);
    desk.db.execute(surplus, [kept]).map_err(failed).map(|_| ())
}
