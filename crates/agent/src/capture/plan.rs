//! Plan: what the cloud wants read, taken over between two cycles.
//!
//! Promises: a table that comes back goes on where it was accepted last; a load asked for is a new try of what capture
//! parked; a section of the configuration that no table of the database bears is told.
//! Never: reads rows; drops a place that was accepted.

use std::collections::BTreeMap;

use protocol::{Code, Result, names::TableName};
use runtime::clock::{Mono, Wall};

use super::{
    load,
    table::Table,
    worker::{Session, Worker},
};
use crate::{journal::Incident, source::Source};

impl<S: Source> Worker<S> {
    /// A section of the configuration for a table that the database does not have is most likely misspelt, and what it
    /// masks or leaves out then holds for nothing: people are told. Sections of shared tables are looked at as they are
    /// described.
    async fn look_at_declared(&self, plan: &protocol::json::Entities) -> Result<()> {
        let shared = |name: &TableName| plan.queries.iter().any(|query| query.table == *name);
        for name in self.config.tables.keys().filter(|name| !shared(name)) {
            let code = Code::TableMissing;
            match self.source.describe(&self.config.spec(name)).await {
                Err(error) if error.code == code => {
                    let words = format!(
                        "the configuration has a section tables.{name}, but the database has no such table: nothing it \
                         masks or leaves out holds for another one"
                    );
                    tracing::warn!(table = %name, %code, words, hint = code.hint(), "misspelt?");
                    let at_micros = Wall::now().0;
                    let table = Some(name.clone());
                    let incident = Incident { table, key_hash: None, code, words, at_micros };
                    self.journal.incident_once(incident).await?;
                }
                _ => self.journal.mended(name, code).await?,
            }
        }
        Ok(())
    }

    /// Takes over the plan and the orders where they changed.
    pub(super) async fn refresh(&self, session: &mut Session) -> Result<()> {
        let orders = self.journal.reload_requests().await?;
        let changed = session.plan.has_changed().unwrap_or(false);
        if session.planned && !changed && orders == session.orders {
            for table in &mut session.tables {
                // A request that came while a load was under way is due after its end.
                load::settle(&mut table.cursor, &table.wish);
            }
            return Ok(());
        }
        session.plan.mark_unchanged();
        let (plan, unlearned) = self.journal.plan_to_learn().await?;
        let Some(plan) = plan else { return Ok(()) };
        (session.planned, session.unlearned) = (true, unlearned);
        self.look_at_declared(&plan).await?;
        let mut held: BTreeMap<TableName, Table> =
            session.tables.drain(..).map(|table| (table.query.table.clone(), table)).collect();
        let now = Mono::now();
        for query in plan.queries {
            let name = query.table.clone();
            if session.unlearned.contains(&name) {
                continue;
            }
            let local = orders.get(&name).copied().unwrap_or_default();
            let mut table = held.remove(&name).unwrap_or_else(|| {
                let cursor = session.cursors.get(&name).cloned().unwrap_or_default();
                let mut table = Table::new(query.clone(), cursor, now);
                table.has_met(self.erp_clock.met(&name));
                table
            });
            table.replan(query, local);
            let ordered = session.orders.get(&name).copied().unwrap_or_default() < local;
            if load::settle(&mut table.cursor, &table.wish)
                || (ordered && !session.orders.is_empty())
            {
                // A load asked for is a new try of what capture parked. What the server refused is uplink's: a load that
                // never got through is due in every session.
                table.park = None;
            }
            session.tables.push(table);
        }
        // Withdrawn tables stop; should one come back it goes on where it was accepted last.
        session.cursors.extend(held.into_iter().map(|(name, table)| (name, table.stored)));
        session.orders = orders;
        Ok(())
    }
}
