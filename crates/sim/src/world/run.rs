//! Run: one world from its begin to its rest.
//!
//! Promises: ends with the first thing that is not true, or once the healed world is at rest: staging equals every ERP
//! and no batch is open; a world that does not come to rest is a fault as well.
//! Never: leaves anything in the thread it ran in.

use std::{path::Path, rc::Rc, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::clock;
use tempfile::TempDir;

use super::{
    Door, Sim, agents,
    agents::{Agents, Seat},
    check::{Check, told},
    cloud::{self, Cloud},
    erp::{
        Engine,
        source::Double,
        work::{fill, last_changes, user},
    },
    machine::{Machine, OUTSIDE},
    plan::Plan,
    put, trouble,
};
use crate::chance::Chance;

/// How long a healed world may take to come to rest: leases, silences and the longest key scan lie well below.
const REST: Duration = Duration::from_secs(45 * 60);
/// How often the staging files are looked at.
const LOOK: Duration = Duration::from_secs(20);

/// What to run.
#[derive(Clone, Debug)]
pub struct Order {
    pub plan: Plan,
    /// Wrong variant of a design in the place of the right one; empty = none.
    pub mutant: String,
    /// The trace is printed as it happens.
    pub loud: bool,
}

/// What became of a world.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was not true, by the number of its invariant.
    pub faults: Vec<String>,
    pub trace: Vec<String>,
    /// Simulated time in all.
    pub lasted: Duration,
    /// Table messages and rows accepted, batches completed.
    pub seen: (u64, u64, u64),
}

/// Runs a world on this thread.
///
/// # Errors
/// What keeps it from beginning.
pub fn run(order: Order) -> Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .coded(Code::Internal, "no runtime for a world")?;
    let outcome = runtime.block_on(world(order));
    put(None);
    outcome
}

fn folder() -> Result<TempDir> {
    // What a world writes lives in memory where the machine has a place for that: its disk is simulated.
    let memory = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("malote-world-");
    let made = if memory.is_dir() { builder.tempdir_in(memory) } else { builder.tempdir() };
    made.coded(Code::Internal, "no folder for a world")
}

async fn world(order: Order) -> Result<Outcome> {
    let Order { plan, mutant, loud } = order;
    let machine = Machine::new(plan.seed);
    let folder = folder()?;
    let server = machine.add_host("server", 0);
    let mut seats = Agents::default();
    for (stream, count) in plan.agents.iter().enumerate() {
        for _agent in 0..*count {
            let at = seats.0.len();
            let data = folder.path().join(format!("agent{at}"));
            let host = machine.add_host(&format!("agent{at}"), 0);
            seats.0.insert(host, Seat { stream, data, running: false, twin: false });
        }
    }
    if plan.faults.twin.is_some() {
        let data = folder.path().join("twin");
        let seat = Seat { stream: 0, data, running: false, twin: true };
        seats.0.insert(machine.add_host("twin", 0), seat);
    }
    let doubles = (0..plan.agents.len())
        .map(|tenant| Double::new(Engine::new(tenant, plan.erp.clone())))
        .collect();
    let sim = Rc::new(Sim {
        cloud: Cloud::new(server, folder.path().join("server")).into(),
        chance: Chance::new(plan.seed ^ 0x77).into(),
        check: Check::default().into(),
        agents: seats.into(),
        lines: Default::default(),
        trace: Default::default(),
        healing: false.into(),
        machine,
        plan,
        doubles,
        folder,
        mutant,
        loud,
    });
    put(Some(Rc::clone(&sim)));
    let installed = runtime::world::install(Rc::new(Door(Rc::clone(&sim))));
    let ended = sim.machine.drive(scenario(&sim)).await;
    let lasted = sim.machine.elapsed();
    // Whatever still runs goes before its world does.
    for host in [OUTSIDE, server].into_iter().chain(sim.agents.borrow().hosts()) {
        sim.machine.crash(host);
    }
    cloud::crash(&sim);
    put(None);
    drop(installed);
    ended?;
    let (faults, seen) = {
        let check = sim.check.borrow();
        (check.faults().to_vec(), check.seen)
    };
    Ok(Outcome { faults, trace: sim.trace(), lasted, seen })
}

async fn scenario(sim: &Rc<Sim>) -> Result<()> {
    sim.tell(format!("seed {}: {}", sim.plan.seed, sim.plan.words()));
    // Nothing fails before the world has begun.
    sim.healing.set(true);
    begin(sim).await?;
    sim.healing.set(false);
    trouble::start(sim);
    let end = sim.plan.time;
    while sim.machine.elapsed() < end {
        if !go_on(sim, LOOK).await {
            return Ok(());
        }
    }
    heal(sim);
    let mut last = String::new();
    let begun = sim.machine.elapsed();
    while sim.machine.elapsed() - begun < REST {
        if !go_on(sim, LOOK).await {
            return Ok(());
        }
        let unsettled = sim.check.borrow_mut().unsettled();
        match unsettled {
            None => {
                sim.check.borrow_mut().all_is_stored();
                let took = sim.machine.elapsed() - begun;
                sim.tell(format!("the world is at rest after {took:?}"));
                last_day(sim).await;
                return Ok(());
            }
            Some(words) => last = words,
        }
    }
    sim.check.borrow_mut().fault("I8", format!("no rest after {REST:?}: {last}"));
    Ok(())
}

/// What a healed world at rest still has to show: changes of its ERPs are staged within two cycles, rows that vanish
/// within the interval of key scans (I8).
async fn last_day(sim: &Rc<Sim>) {
    for double in &sim.doubles {
        last_changes(double, &mut sim.chance());
    }
    let agent = &sim.plan.agent;
    // A cycle is the pause between two passes; what a pass itself takes comes on top, and calls to the cloud with it.
    let pass = Duration::from_secs(5) + agent.slow * 40 + sim.plan.net.delay * 20;
    let cycles = (Duration::from_secs(agent.cycle) + pass) * 2;
    let scan = Duration::from_secs(agent.key_scan) + cycles;
    let begun = sim.machine.elapsed();
    for (most, all) in [(cycles, false), (scan, true)] {
        loop {
            if !go_on(sim, Duration::from_secs(1)).await {
                return;
            }
            let took = sim.machine.elapsed() - begun;
            let mut check = sim.check.borrow_mut();
            let left = if all {
                check.unsettled().map(|words| ("I8", words)).or_else(|| untold(sim))
            } else {
                check.behind().map(|words| ("I8", words))
            };
            drop(check);
            match left {
                None => {
                    sim.tell(format!("staged after {took:?} of {most:?}, vanished rows: {all}"));
                    break;
                }
                Some((invariant, words)) if took > most => {
                    let words = format!("{took:?} after the last change of a quiet world: {words}");
                    return sim.check.borrow_mut().fault(invariant, words);
                }
                Some(_) => {}
            }
        }
    }
}

fn untold(sim: &Sim) -> Option<(&'static str, String)> {
    let journals: Vec<_> = {
        let agents = sim.agents.borrow();
        agents.0.values().map(|seat| (seat.stream, seat.data.join("journal.sqlite"))).collect()
    };
    told::untold(&sim.doubles, &journals).map(|words| ("I18", words))
}

/// Lets the world go on; false = something is not true.
async fn go_on(sim: &Sim, time: Duration) -> bool {
    clock::sleep(time).await;
    let mut check = sim.check.borrow_mut();
    check.sweep();
    check.look_at_staging();
    for words in sim.machine.take_panics() {
        check.fault("panic", words);
    }
    let faults = check.faults().to_vec();
    drop(check);
    for words in &faults {
        sim.tell(format!("NOT TRUE: {words}"));
    }
    faults.is_empty()
}

async fn begin(sim: &Rc<Sim>) -> Result<()> {
    let host = sim.cloud.borrow().host;
    let (tell, told) = tokio::sync::oneshot::channel();
    let count = sim.doubles.len();
    sim.spawn(
        host,
        Box::pin(async move {
            let up = match cloud::start().await {
                Ok(()) => cloud::set_up(count).await,
                Err(error) => Err(error),
            };
            drop(tell.send(up));
        }),
    );
    told.await
        .map_err(|_| Error::new(Code::Internal, "the server of the world did not start"))??;
    let streams = {
        let cloud = sim.cloud.borrow();
        let keys = cloud.tenants.iter().map(|tenant| {
            let place = &tenant.place;
            [place.tenant.to_string(), place.environment.to_string(), place.erp.to_string()]
        });
        sim.doubles.iter().cloned().zip(keys).collect()
    };
    *sim.check.borrow_mut() = Check::new(&sim.folder.path().join("server"), streams);
    for double in &sim.doubles {
        fill(double, &mut sim.chance());
        for _user in 0..sim.plan.erp.writers {
            sim.spawn(OUTSIDE, Box::pin(user(double.clone(), sim.chance())));
        }
    }
    for host in sim.agents.borrow().own() {
        let late = sim.up_to(Duration::from_secs(5));
        sim.spawn(
            OUTSIDE,
            Box::pin(async move {
                clock::sleep(late).await;
                agents::start(&super::here(), host);
            }),
        );
    }
    Ok(())
}

/// Everything works again, and nobody writes into an ERP.
fn heal(sim: &Sim) {
    sim.tell("the world heals".to_owned());
    sim.healing.set(true);
    sim.lines.borrow_mut().cut.clear();
    for double in &sim.doubles {
        double.held().away = false;
    }
    if let Some((twin, _)) = sim.agents.borrow().twin() {
        sim.spawn(
            OUTSIDE,
            Box::pin(async move {
                agents::stop(&super::here(), twin);
                trouble::decide().await;
            }),
        );
    }
    let server = sim.cloud.borrow().host;
    for host in sim.agents.borrow().hosts().into_iter().chain([server]) {
        sim.machine.pause(host, false);
    }
}
