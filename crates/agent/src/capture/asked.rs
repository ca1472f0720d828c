//! Asked: what verification asks of a table: a round at once, and rows sent again whatever is known of them.
//!
//! Promises: a round counts once changes were read to their end and a scan that began behind the question is complete,
//! in batches that were accepted; rows are given up only once they were sent or looked at.
//! Never: deletes by itself: a row that the ERP does not have is left to the scan and its cap (F29).

use std::collections::BTreeSet;

use protocol::{Result, key::KeyBytes};
use runtime::clock::Mono;

use super::{
    cycle::{Cycle, Fault, Kind, LOOK_UP, Turn},
    table::{Seen, Table},
    worker::{Session, Worker},
};
use crate::source::Source;

/// Batches that end before a round counts: what was on its way when it was asked for is through.
const CYCLES: u32 = 2;

/// A round under way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Round {
    number: u64,
    cycles: u32,
    scan: RoundScan,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RoundScan {
    /// One that is under way began before the question.
    Wanted,
    Begun,
    Complete,
}

/// Rows to be sent again.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Again {
    #[default]
    Nothing,
    /// From behind this key on; `None` = from the first.
    Behind(Option<KeyBytes>),
    /// The last of them is in the batch under way.
    Sent,
}

impl Table {
    /// Takes over what is asked, at the begin of a cycle.
    pub(super) fn ask(&mut self, round: Option<u64>, again: bool) {
        if self.round.map(|round| round.number) != round {
            self.round = round.map(|number| Round { number, cycles: 0, scan: RoundScan::Wanted });
        }
        match (again, &self.again) {
            (true, Again::Nothing) => self.again = Again::Behind(None),
            (false, _) => self.again = Again::Nothing,
            (true, _) => {}
        }
    }

    /// A scan begins although its time has not come.
    #[must_use]
    pub(super) fn wants_scan(&self) -> bool {
        self.round.is_some_and(|round| round.scan == RoundScan::Wanted)
    }

    pub(super) fn scan_begun(&mut self) {
        if let Some(round) = self.round.as_mut() {
            round.scan = RoundScan::Begun;
        }
    }

    pub(super) fn scan_ended(&mut self) {
        if let Some(round) = self.round.as_mut().filter(|round| round.scan == RoundScan::Begun) {
            round.scan = RoundScan::Complete;
        }
    }

    /// A cycle ended and its batch, if there was one, was accepted. Gives the round that is over with it.
    fn round_over(&mut self) -> Option<u64> {
        let quiet = self.pass.is_none() && self.park.is_none() && self.again == Again::Nothing;
        let round = self.round.as_mut()?;
        round.cycles += 1;
        let over = round.scan == RoundScan::Complete && round.cycles >= CYCLES && quiet;
        over.then_some(round.number)
    }
}

impl<S: Source> Cycle<'_, S> {
    /// Sends the next of the rows that verification found different, as they are now.
    pub(super) async fn send_again(&mut self, table: &mut Table, seen: &Seen) -> Turn {
        let Again::Behind(after) = table.again.clone() else { return Ok(()) };
        let (journal, before) = (self.tools.journal, Mono::now());
        let keys = journal.repairs(&table.query.table, after, LOOK_UP).await;
        let keys = keys.map_err(Fault::Session)?;
        if keys.is_empty() {
            table.again = Again::Sent;
            return Ok(());
        }
        let (live, answered) = self.look_up(seen, &keys).await?;
        let mut asked: BTreeSet<KeyBytes> = keys.iter().take(answered).cloned().collect();
        for row in 0..live.len() {
            if asked.remove(&seen.key(&live, row)) {
                self.send(table, seen, (&live, row), Kind::Found).await?;
            }
        }
        self.tell_poison(table, &live).await?;
        if !asked.is_empty() {
            let gone = asked.into_iter().collect();
            let noted = journal.note_unsure(&table.query.table, gone).await;
            noted.map_err(Fault::Session)?;
        }
        table.again = Again::Behind(keys.into_iter().nth(answered.saturating_sub(1)));
        self.spool().await?;
        self.pacing().rest(before.elapsed()).await;
        Ok(())
    }
}

impl<S: Source> Worker<S> {
    /// What the tables are asked, as a cycle begins.
    pub(super) fn hear(&self, session: &mut Session) {
        for table in &mut session.tables {
            let name = &table.query.table;
            let (round, again) = (self.journal.round_of(name), !self.journal.is_repaired(name));
            table.ask(round, again);
        }
    }

    /// Whether a table that can be read is waited for, so that nothing is to be waited for here.
    pub(super) fn is_waited_for(&self, session: &Session) -> bool {
        let now = Mono::now();
        self.journal.has_rounds()
            && session.tables.iter().any(|table| {
                let name = &table.query.table;
                let asked =
                    self.journal.round_of(name).is_some() || !self.journal.is_repaired(name);
                let can = table.cursor.load.is_none() && !table.rests(now);
                asked && can && !self.journal.is_halted(name)
            })
    }

    /// What is done of it, as a cycle ends.
    pub(super) async fn tell_asked(&self, session: &mut Session) -> Result<()> {
        for table in &mut session.tables {
            if table.again == Again::Sent {
                self.journal.repaired(&table.query.table).await?;
                table.again = Again::Nothing;
            }
            if let Some(number) = table.round_over() {
                table.round = None;
                self.journal.end_round(&table.query.table, number);
            }
        }
        Ok(())
    }
}
