//! World: agents, a server and their ERPs on one thread, with a network, clocks and disks that fail as a seed says.
//!
//! Promises: agent and server are the real code over real SQLite files; the same seed gives the same world, line for
//! line of its trace; what must always be true is checked at every step, then the world heals and has to come to rest
//! (`correctness.md` 4, tier T1; `docs/design/0007-simulator.md`).
//! Never: opens a socket, waits for a real clock, draws from the machine's entropy.
//!
//! Rooms: `plan` draws the world · `machine` runs its hosts · `net` carries calls · `cloud` and `agents` start the real
//! programs · `erp` is the database · `trouble` breaks things · `check` tells what is not true · `run` is the scenario.

pub mod agents;
pub mod check;
pub mod cloud;
pub mod erp;
pub mod machine;
pub mod net;
pub mod plan;
pub mod run;
pub mod trouble;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use runtime::world::{Carrying, Work};
use tempfile::TempDir;

use crate::chance::Chance;
use agents::Agents;
use check::Check;
use cloud::Cloud;
use erp::source::Double;
use machine::{Host, Machine, OUTSIDE};
use net::Lines;
use plan::Plan;

thread_local! {
    static HERE: RefCell<Option<Rc<Sim>>> = const { RefCell::new(None) };
}

/// All there is of one world.
#[derive(Debug)]
pub struct Sim {
    pub machine: Machine,
    pub plan: Plan,
    pub check: RefCell<Check>,
    pub doubles: Vec<Double>,
    pub cloud: RefCell<Cloud>,
    pub agents: RefCell<Agents>,
    pub lines: RefCell<Lines>,
    pub folder: TempDir,
    pub mutant: String,
    chance: RefCell<Chance>,
    trace: RefCell<Vec<String>>,
    loud: bool,
    healing: Cell<bool>,
}

/// The world of this thread.
///
/// # Panics
/// Outside of a world: only its own rooms ask.
#[must_use]
#[expect(clippy::expect_used, reason = "a room of the world runs in a world or not at all")]
pub fn here() -> Rc<Sim> {
    HERE.with(|here| here.borrow().clone()).expect("a world is there")
}

/// Puts the world into its thread; `None` takes it away.
fn put(sim: Option<Rc<Sim>>) {
    HERE.with(|here| *here.borrow_mut() = sim);
}

impl Sim {
    /// A line of the trace: time, host, what happens.
    pub fn tell(&self, words: String) {
        let at = self.machine.elapsed();
        let host = self.machine.name(self.machine.current());
        let line = format!("{:>9.3} {host:<8} {words}", at.as_secs_f64());
        if self.loud {
            print(&line);
        }
        self.trace.borrow_mut().push(line);
    }

    /// The trace so far.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.trace.borrow().clone()
    }

    #[must_use]
    pub fn is_healing(&self) -> bool {
        self.healing.get()
    }

    pub fn below(&self, end: u64) -> u64 {
        self.chance.borrow_mut().below(end)
    }

    pub fn chance(&self) -> Chance {
        Chance::new(self.chance.borrow_mut().draw())
    }

    /// A time of up to `most`.
    pub fn up_to(&self, most: Duration) -> Duration {
        Duration::from_micros(self.below(u64::try_from(most.as_micros()).unwrap_or(0) + 1))
    }

    /// Half of what a statement of the ERP takes.
    pub fn slowness(&self) -> Duration {
        // Most are quick, however slow the slowest are.
        let most = if self.below(4) == 0 { self.plan.agent.slow } else { Duration::from_millis(3) };
        self.up_to(most)
    }

    /// Starts a task of the world's own.
    pub fn spawn(&self, host: Host, work: Work) -> u64 {
        self.machine.spawn_on(host, work)
    }
}

#[expect(clippy::print_stdout, reason = "a trace that was asked for")]
fn print(line: &str) {
    println!("{line}");
}

/// What the programs see of the world.
struct Door(Rc<Sim>);

impl runtime::world::World for Door {
    fn wall_micros(&self) -> i64 {
        self.0.machine.wall_micros()
    }

    fn fill(&self, bytes: &mut [u8]) {
        self.0.machine.fill(bytes);
    }

    fn spawn(&self, _name: &'static str, work: Work) -> u64 {
        self.0.machine.spawn_on(self.0.machine.current(), work)
    }

    fn abort(&self, number: u64) {
        self.0.machine.abort(number);
    }

    fn carry(&self, request: http::Request<Bytes>) -> Carrying {
        net::carry(&self.0, request)
    }

    fn commit_takes(&self) -> Duration {
        let most = self.0.plan.faults.commit;
        // One in eight is slow: a disk that others use too.
        if most.is_zero() || self.0.is_healing() || self.0.below(8) > 0 {
            return Duration::ZERO;
        }
        self.0.up_to(most)
    }

    fn fails(&self, place: &'static str) -> bool {
        let Plan { faults, .. } = &self.0.plan;
        let disk = ["store.", "journal.", "staging.", "ledger.", "lease."];
        let quiet = faults.disk == 0 || self.0.is_healing();
        if quiet
            || self.0.machine.current() == OUTSIDE
            || !disk.iter().any(|room| place.starts_with(room))
        {
            return false;
        }
        let fails = self.0.below(100_000) < faults.disk;
        if fails {
            self.0.tell(format!("disk fails at {place}"));
        }
        fails
    }

    fn mutant(&self) -> &str {
        &self.0.mutant
    }
}
