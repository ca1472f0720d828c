//! ERP: a semantic double of a database with many writers, as far as reading it depends on it.
//!
//! Promises: transactions are atomic and isolated (read committed); a writer waits for nobody, it leaves a row alone that
//! another one holds; stamps are set as the plan says, never from the commit. The bound is the start of the oldest open
//! transaction that this kind of database tells of: idle ones included in PostgreSQL, from the first change on elsewhere;
//! Oracle tells a change number alone, whose time is known to three seconds (`scn`).
//! Never: is asked by what it checks for anything but its rows.

mod scn;
pub mod source;
mod walk;
pub mod work;

use std::collections::BTreeMap;

use super::{
    machine::Host,
    plan::{Erp, Kind, Stamps},
};
use scn::Scn;

/// A committed row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    pub name: String,
    /// Rises with every committed image of any row.
    pub version: i64,
    pub stamp: Option<i64>,
    /// Marked as deleted.
    pub marked: bool,
}

impl Row {
    /// It has a value that cannot travel: U+0000, which no PostgreSQL column takes.
    #[must_use]
    pub fn is_poison(&self) -> bool {
        !self.marked && self.name.ends_with('\0')
    }
}

/// What a transaction did to a row; `None` = it deleted it.
type Draft = Option<(String, Option<i64>, bool)>;

/// A table of this ERP: `T` without a mark of deleted rows, `U` with one where the plan has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TableAt(pub usize);

/// Names on the wire.
pub const TABLES: [&str; 2] = ["T", "U"];

/// A transaction by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Tx(pub u64);

#[derive(Debug)]
struct Open {
    begun: i64,
    /// Its first change, by Oracle's count.
    wrote: Option<Scn>,
    /// Of the application server that it comes from.
    skew: i64,
    writes: BTreeMap<(TableAt, i64), Draft>,
}

/// One image that became visible.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Committed {
    pub table: TableAt,
    pub id: i64,
    /// `None` = the row is gone.
    pub row: Option<Row>,
    /// Number of its commit.
    pub commit: u64,
}

/// The database of one tenant.
#[derive(Debug)]
pub struct Engine {
    pub tenant: usize,
    plan: Erp,
    tables: [BTreeMap<i64, Row>; 2],
    open: BTreeMap<Tx, Open>,
    next: u64,
    version: i64,
    scns: scn::Scns,
    /// Images that commits replaced or took away, each of which costs undo.
    pub(super) overwritten: u64,
    /// Statements under way, by the host that asked.
    pub(super) busy: BTreeMap<Host, usize>,
    /// Commits so far; the log's position too.
    pub commits: u64,
    /// Its clock less the true time, microseconds.
    pub clock: i64,
    /// Nobody can reach it.
    pub away: bool,
    /// States of before, for a replica that lags behind: when, and the rows.
    pub(super) past: Vec<(i64, [BTreeMap<i64, Row>; 2])>,
}

impl Engine {
    #[must_use]
    pub fn new(tenant: usize, plan: Erp) -> Self {
        Self {
            tenant,
            plan,
            tables: [BTreeMap::new(), BTreeMap::new()],
            open: BTreeMap::new(),
            next: 1,
            version: 0,
            scns: scn::Scns::default(),
            overwritten: 0,
            busy: BTreeMap::new(),
            commits: 0,
            clock: 0,
            away: false,
            past: Vec::new(),
        }
    }

    #[must_use]
    pub fn rows(&self, table: TableAt) -> &BTreeMap<i64, Row> {
        &self.tables[usize::from(table.0 == 1)]
    }

    #[must_use]
    pub fn plan(&self) -> &Erp {
        &self.plan
    }

    /// Whether deleted rows of the table may be marked.
    #[must_use]
    pub fn marks(&self, table: TableAt) -> bool {
        table.0 == 1 && self.plan.soft_delete
    }

    /// `e` in microseconds.
    #[must_use]
    pub fn allowance(&self) -> i64 {
        if runtime::mutant::is("no_allowance") {
            return 0;
        }
        i64::try_from(self.plan.allowance).unwrap_or(0) * 1_000_000
    }

    /// Opens a transaction.
    pub fn begin(&mut self, now: i64, skew: i64) -> Tx {
        let tx = Tx(self.next);
        self.next += 1;
        self.open.insert(tx, Open { begun: now, wrote: None, skew, writes: BTreeMap::new() });
        tx
    }

    fn is_free(&self, tx: Tx, row: (TableAt, i64)) -> bool {
        !self.open.iter().any(|(other, open)| *other != tx && open.writes.contains_key(&row))
    }

    fn stamp(&self, now: i64, open: &Open) -> i64 {
        let exact = match self.plan.stamps {
            Stamps::Transaction => open.begun,
            Stamps::Statement => now,
            Stamps::Application(_) => now + open.skew,
        };
        exact.div_euclid(self.plan.grain) * self.plan.grain
    }

    /// Puts a row; `false` = another transaction holds it.
    pub fn put(
        &mut self,
        (now, tx): (i64, Tx),
        row: (TableAt, i64),
        name: String,
        (stamped, marked): (bool, bool),
    ) -> bool {
        if !self.is_free(tx, row) {
            return false;
        }
        let stamp = self.open.get(&tx).map(|open| self.stamp(now, open)).filter(|_| stamped);
        self.write(now, tx, row, Some((name, stamp, marked)))
    }

    /// Deletes a row for good; `false` = another transaction holds it.
    pub fn delete(&mut self, (now, tx): (i64, Tx), row: (TableAt, i64)) -> bool {
        self.is_free(tx, row) && self.write(now, tx, row, None)
    }

    fn write(&mut self, now: i64, tx: Tx, row: (TableAt, i64), draft: Draft) -> bool {
        let scn = self.scns.next(now);
        let Some(open) = self.open.get_mut(&tx) else { return false };
        open.wrote.get_or_insert(scn);
        open.writes.insert(row, draft);
        true
    }

    /// What the transaction did becomes visible, all at once.
    pub fn commit(&mut self, now: i64, tx: Tx) -> Vec<Committed> {
        let Some(open) = self.open.remove(&tx) else { return Vec::new() };
        self.remember(now);
        self.commits += u64::from(!open.writes.is_empty());
        self.scns.next(now);
        let commit = self.commits;
        let mut seen = Vec::new();
        for ((table, id), draft) in open.writes {
            self.version += 1;
            let version = self.version;
            let row = draft.map(|(name, stamp, marked)| Row { name, version, stamp, marked });
            let rows = &mut self.tables[usize::from(table.0 == 1)];
            let before = match &row {
                Some(row) => rows.insert(id, row.clone()),
                None => rows.remove(&id),
            };
            self.overwritten += u64::from(before.is_some());
            seen.push(Committed { table, id, row, commit });
        }
        seen
    }

    pub fn roll_back(&mut self, tx: Tx) {
        self.open.remove(&tx);
    }

    /// `B`: start of the oldest open transaction, at most `now`; and whether one holds it back.
    #[must_use]
    pub fn bound(&self, now: i64) -> (i64, bool) {
        let kind = self.plan.kind;
        let all = kind == Kind::Postgres && !runtime::mutant::is("bound_of_writers_only");
        let start = |open: &Open| match (kind, open.wrote) {
            (_, None) if all => Some(open.begun),
            (_, None) => None,
            (Kind::Oracle, Some(wrote)) => Some(self.scns.earliest(wrote)),
            (_, Some(_)) => Some(open.begun),
        };
        let oldest = self.open.values().filter_map(start).min();
        (oldest.map_or(now, |begun| begun.min(now)), oldest.is_some_and(|begun| begun < now))
    }

    /// Whether a transaction is open that began when the clock showed more.
    #[must_use]
    pub fn is_open_from_later_than(&self, now: i64) -> bool {
        self.open.values().any(|open| open.begun > now)
    }

    /// Kept for mutants alone.
    fn remember(&mut self, now: i64) {
        if runtime::mutant::is("lagging_replica") || runtime::mutant::is("late_chunk") {
            self.past.push((now, self.tables.clone()));
            let surplus = self.past.len().saturating_sub(200);
            self.past.drain(..surplus);
        }
    }

    /// Rows as a read sees them.
    #[must_use]
    pub fn seen(&self, table: TableAt, now: i64) -> &BTreeMap<i64, Row> {
        let lag = if runtime::mutant::is("lagging_replica") { 8_000_000 } else { 0 };
        self.seen_then(table, now - lag)
    }

    /// Rows of a base load as it sees them.
    #[must_use]
    pub fn loaded(&self, table: TableAt, now: i64) -> &BTreeMap<i64, Row> {
        // Another task read them and sends them two cycles later.
        let lag = if runtime::mutant::is("late_chunk") { 20_000_000 } else { 0 };
        self.seen_then(table, now - lag)
    }

    fn seen_then(&self, table: TableAt, then: i64) -> &BTreeMap<i64, Row> {
        let behind = self.past.iter().find(|(until, _)| *until > then);
        match behind {
            Some((_, tables)) => &tables[usize::from(table.0 == 1)],
            None => self.rows(table),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::plan::Plan;

    const T: TableAt = TableAt(0);

    #[test]
    fn a_transaction_is_seen_whole_and_holds_the_bound_from_its_begin() {
        let mut plan = Plan::of(1, std::time::Duration::ZERO).erp;
        (plan.kind, plan.stamps, plan.grain) = (Kind::Postgres, Stamps::Transaction, 1);
        let mut engine = Engine::new(0, plan);
        let idle = engine.begin(10, 0);
        let tx = engine.begin(20, 0);
        assert!(engine.put((30, tx), (T, 1), "a".into(), (true, false)));
        assert!(!engine.put((31, idle), (T, 1), "b".into(), (true, false)), "the row is held");
        assert!(engine.rows(T).is_empty());
        assert_eq!(engine.bound(40), (10, true));
        let seen = engine.commit(50, tx);
        assert_eq!((seen.len(), engine.rows(T)[&1].stamp), (1, Some(20)));
        engine.roll_back(idle);
        assert_eq!(engine.bound(60), (60, false));
    }
}
