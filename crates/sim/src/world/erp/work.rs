//! Work: what the ERP's users do all day: short and long transactions, mass updates, deletes, keys that change.
//!
//! Promises: some transactions are open for minutes before their first write, some write and wait; one in ten is rolled
//! back. Once the world heals every transaction ends and none begins.
//! Never: looks at what the agent has read.

use std::time::Duration;

use runtime::clock;

use super::{Committed, Engine, TABLES, TableAt, Tx, source::Double};
use crate::{
    chance::Chance,
    world::{here, plan::Stamps},
};

/// Puts the rows that were there before the agent.
pub fn fill(double: &Double, chance: &mut Chance) {
    let now = double.now();
    let mut engine = double.held();
    let (rows, unstamped) = (engine.plan().rows, engine.plan().unstamped);
    // Some years old, in a few transactions, so that groups of equal stamps are there.
    let mut tx = engine.begin(now - 1_000_000_000_000, 0);
    for at in 0..rows {
        if chance.percent(5) {
            engine.commit(now, tx);
            let age = i64::try_from(chance.below(900_000_000_000)).unwrap_or(0);
            tx = engine.begin(now - 1_000_000 - age, 0);
        }
        let table = TableAt(usize::from(chance.percent(30)));
        let id = i64::try_from(at).unwrap_or(0);
        let name = format!("t{}:{}", engine.tenant, words(chance));
        let stamped = !chance.percent(unstamped * 4);
        engine.put((now - 1_000_000, tx), (table, id), name, (stamped, false));
    }
    engine.commit(now, tx);
}

/// One user, until the world heals.
pub async fn user(double: Double, mut chance: Chance) {
    loop {
        let plan = double.held().plan().clone();
        let pause = plan.pause.mul_f64(fraction(&mut chance) * 2.0);
        clock::sleep(pause).await;
        if here().is_healing() {
            return;
        }
        let skew = match plan.stamps {
            Stamps::Application(most) => {
                let drawn = chance.below(u64::try_from(2 * most).unwrap_or(1) + 1);
                i64::try_from(drawn).unwrap_or(0) - most
            }
            _ => 0,
        };
        let now = double.now();
        let tx = double.held().begin(now, skew);
        let long = chance.percent(plan.long);
        let time = if long {
            Duration::from_secs(5 + chance.below(236))
        } else {
            Duration::from_millis(chance.below(1_500))
        };
        // The wait lies before the first write, behind the last one, or on both sides.
        let before = time.mul_f64(*chance.pick(&[0.0, 0.5, 1.0]).unwrap_or(&0.5));
        wait(before).await;
        write(&double, tx, &mut chance);
        wait(time.saturating_sub(before)).await;
        end(&double, tx, chance.percent(90));
    }
}

/// Waits, but no longer than the world is at work.
async fn wait(time: Duration) {
    let mut left = time;
    while !left.is_zero() && !here().is_healing() {
        let step = left.min(Duration::from_secs(5));
        clock::sleep(step).await;
        left = left.saturating_sub(step);
    }
}

fn write(double: &Double, tx: Tx, chance: &mut Chance) {
    let now = double.now();
    let mut engine = double.held();
    let (mass, unstamped) = (engine.plan().mass, engine.plan().unstamped);
    let count = if mass > 0 && chance.percent(3) { mass } else { 1 + chance.below(6) };
    for _row in 0..count {
        let table = TableAt(usize::from(chance.percent(30)));
        let there: Vec<i64> = engine.rows(table).keys().copied().collect();
        let mut name = format!("t{}:{}", engine.tenant, words(chance));
        let poison = engine.plan().poison;
        if poison > 0 && chance.percent(poison) {
            name.push('\0');
        }
        let stamped = !chance.percent(unstamped);
        let old = chance.pick(&there).copied();
        // Few enough keys that some come back.
        let fresh = i64::try_from(chance.below(1_000)).unwrap_or(0);
        match (chance.below(10), old) {
            (0..2, _) | (_, None) => {
                engine.put((now, tx), (table, fresh), name, (stamped, false));
            }
            (2, Some(old)) if engine.marks(table) && chance.percent(50) => {
                engine.put((now, tx), (table, old), name, (true, true));
            }
            (2, Some(old)) => {
                engine.delete((now, tx), (table, old));
            }
            // Another key: one row goes, one comes.
            (3, Some(old)) => {
                if engine.delete((now, tx), (table, old)) {
                    engine.put((now, tx), (table, fresh), name, (stamped, false));
                }
            }
            (_, Some(old)) => {
                engine.put((now, tx), (table, old), name, (stamped, false));
            }
        }
    }
}

/// The changes of a quiet world's last day: each kind of them, in one short transaction.
pub fn last_changes(double: &Double, chance: &mut Chance) {
    let now = double.now();
    let tx = double.held().begin(now, 0);
    mend(&mut double.held(), (now, tx));
    for table in [TableAt(0), TableAt(1)] {
        let mut engine = double.held();
        let tenant = engine.tenant;
        let there: Vec<i64> = engine.rows(table).keys().copied().collect();
        let marks = engine.marks(table);
        for at in 0..3 {
            let name = format!("t{tenant}:last {at}");
            engine.put((now, tx), (table, 2_000 + at), name.clone(), (true, false));
            if let Some(old) = chance.pick(&there) {
                engine.put((now, tx), (table, *old), name, (true, marks && at == 0));
            }
            if let Some(old) = chance.pick(&there) {
                engine.delete((now, tx), (table, *old));
            }
        }
    }
    end(double, tx, true);
}

/// Half of the poison rows get values that can travel.
fn mend(engine: &mut Engine, at: (i64, Tx)) {
    for table in [TableAt(0), TableAt(1)] {
        let poison = engine.rows(table).iter().filter(|(_, row)| row.is_poison());
        let ids: Vec<i64> = poison.map(|(id, _)| *id).step_by(2).collect();
        for id in ids {
            let name = format!("t{}:mended", engine.tenant);
            engine.put(at, (table, id), name, (true, false));
        }
    }
}

fn end(double: &Double, tx: Tx, commits: bool) {
    let sim = here();
    if !commits {
        double.held().roll_back(tx);
        return;
    }
    let (tenant, seen) = {
        let now = double.now();
        let mut engine = double.held();
        (engine.tenant, engine.commit(now, tx))
    };
    for committed in seen {
        let Committed { table, id, row, .. } = &committed;
        let name = TABLES[table.0];
        match row {
            Some(row) => {
                let mark = match (row.marked, row.is_poison()) {
                    (true, _) => " marked deleted",
                    (false, true) => " with poison",
                    (false, false) => "",
                };
                sim.tell(format!(
                    "erp{tenant} commits {name} {id} v{} stamp {:?}{mark}",
                    row.version, row.stamp
                ));
            }
            None => sim.tell(format!("erp{tenant} deletes {name} {id}")),
        }
        sim.check.borrow_mut().committed(tenant, &committed);
    }
}

fn words(chance: &mut Chance) -> String {
    const WORDS: [&str; 8] = ["ação", "nota", "título", "Ωmega", "a|b", "  x ", "\u{1F69A}", "1,5"];
    let count = 1 + chance.below(3);
    let drawn: Vec<&str> = (0..count).filter_map(|_| chance.pick(&WORDS).copied()).collect();
    format!("{} {}", drawn.join(" "), chance.below(1_000))
}

#[expect(clippy::cast_precision_loss, reason = "a thousandth more or less of a pause")]
fn fraction(chance: &mut Chance) -> f64 {
    chance.below(1_000) as f64 / 1_000.0
}
