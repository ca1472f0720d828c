//! Trouble: what goes wrong in a world until it heals.
//!
//! Promises: each kind comes at its own times, drawn from the seed; all of it ends when the world heals.
//! Never: touches a file: what a crash leaves is what was committed.

use std::time::Duration;

use runtime::clock;

use super::{
    Sim, agents, cloud, here,
    machine::{Host, OUTSIDE},
    plan::Often,
};

/// Longest pause of a host.
const PAUSE: u64 = 120;
/// Furthest that a wall clock is off, seconds.
const CLOCK: u64 = 3_600;

/// Starts all kinds of trouble that the plan has.
pub fn start(sim: &Sim) {
    let faults = sim.plan.faults.clone();
    let server = sim.cloud.borrow().host;
    spawn(sim, faults.server_crash, || Box::pin(crash_server()));
    spawn(sim, faults.server_pause, move || Box::pin(pause(server, PAUSE / 2)));
    spawn(sim, faults.erp_away, || Box::pin(leave_erp()));
    spawn(sim, faults.reload, || Box::pin(reload()));
    spawn(sim, faults.clock, move || Box::pin(async move { step_clock(server) }));
    spawn(sim, faults.erp_clock, || Box::pin(async { set_erp_back() }));
    spawn(sim, faults.twin, || Box::pin(twin()));
    for host in sim.agents.borrow().own() {
        spawn(sim, faults.agent_crash, move || Box::pin(crash_agent(host)));
        spawn(sim, faults.agent_pause, move || Box::pin(pause(host, PAUSE)));
        spawn(sim, faults.clock, move || Box::pin(async move { step_clock(host) }));
        spawn(sim, sim.plan.net.partition, move || Box::pin(cut_off(host)));
    }
}

type Happening = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn spawn(sim: &Sim, often: Often, happens: impl Fn() -> Happening + Send + 'static) {
    let Some(mean) = often else { return };
    sim.spawn(
        OUTSIDE,
        Box::pin(async move {
            loop {
                let pause = here().up_to(mean * 2);
                clock::sleep(pause).await;
                if here().is_healing() {
                    return;
                }
                happens().await;
            }
        }),
    );
}

/// Seconds up to `most`, most of them few.
fn seconds(most: u64) -> Duration {
    let sim = here();
    let most = if sim.below(2) == 0 { most / 8 } else { most };
    Duration::from_millis(sim.below(most * 1_000 + 1))
}

async fn crash_server() {
    cloud::crash(&here());
    let down = seconds(40);
    clock::sleep(down).await;
    cloud::restart(&here());
    // It has some time to come up before it can crash again.
    clock::sleep(Duration::from_secs(1)).await;
}

async fn crash_agent(host: Host) {
    {
        let sim = here();
        if !sim.agents.borrow().is_running(host) {
            return;
        }
        sim.tell(format!("{} crashes", sim.machine.name(host)));
        agents::stop(&sim, host);
    }
    let down = seconds(60);
    clock::sleep(down).await;
    let sim = here();
    if !sim.agents.borrow().is_running(host) {
        sim.tell(format!("{} starts again", sim.machine.name(host)));
        agents::start(&sim, host);
    }
}

/// The first agent's machine is copied and both copies run, until somebody sees it and ends the second one.
async fn twin() {
    let (twin, first) = {
        let sim = here();
        let Some((twin, first)) = sim.agents.borrow().twin() else { return };
        agents::stop(&sim, first);
        match agents::copy(&sim) {
            Ok(()) => sim.tell(format!("{} is copied, and both run", sim.machine.name(first))),
            Err(cause) => sim.tell(format!("{} is not copied: {cause}", sim.machine.name(first))),
        }
        (twin, first)
    };
    for host in [first, twin] {
        let later = seconds(10);
        clock::sleep(later).await;
        let sim = here();
        if !sim.agents.borrow().is_running(host) && (host == first || !sim.is_healing()) {
            agents::start(&sim, host);
        }
    }
    let time = seconds(240);
    clock::sleep(time).await;
    {
        let sim = here();
        sim.tell("the copy is ended".to_owned());
        agents::stop(&sim, twin);
    }
    decide().await;
}

/// Whoever ended the copy ends the session too, once the server is there to be told.
pub async fn decide() {
    for _try in 0..100 {
        clock::sleep(Duration::from_secs(20)).await;
        if matches!(cloud::decide(0).await, Ok(true)) {
            return;
        }
    }
}

async fn pause(host: Host, most: u64) {
    let time = seconds(most);
    {
        let sim = here();
        sim.tell(format!("{} is paused for {time:?}", sim.machine.name(host)));
        sim.machine.pause(host, true);
    }
    let mut left = time;
    while !left.is_zero() && !here().is_healing() {
        let step = left.min(Duration::from_secs(5));
        clock::sleep(step).await;
        left = left.saturating_sub(step);
    }
    let sim = here();
    sim.tell(format!("{} goes on", sim.machine.name(host)));
    sim.machine.pause(host, false);
}

fn step_clock(host: Host) {
    let sim = here();
    let off =
        i64::try_from(sim.below(2 * CLOCK + 1)).unwrap_or(0) - i64::try_from(CLOCK).unwrap_or(0);
    sim.tell(format!("the clock of {} is off by {off} s", sim.machine.name(host)));
    sim.machine.set_offset(host, off * 1_000_000);
}

async fn cut_off(host: Host) {
    let time = seconds(180);
    {
        let sim = here();
        let cut = *[(true, true), (true, false), (false, true)]
            .get(usize::try_from(sim.below(3)).unwrap_or(0))
            .unwrap_or(&(true, true));
        sim.tell(format!(
            "{} is cut off (calls, answers: {cut:?}) for {time:?}",
            sim.machine.name(host)
        ));
        sim.lines.borrow_mut().cut.insert(host, cut);
    }
    clock::sleep(time).await;
    let sim = here();
    sim.tell(format!("{} is reached again", sim.machine.name(host)));
    sim.lines.borrow_mut().cut.remove(&host);
}

fn set_erp_back() {
    let sim = here();
    let stream = usize::try_from(sim.below(sim.doubles.len() as u64)).unwrap_or(0);
    let back = 1 + i64::try_from(sim.below(60)).unwrap_or(0);
    sim.tell(format!("the clock of erp{stream} is set back by {back} s"));
    sim.doubles[stream].held().clock -= back * 1_000_000;
}

async fn leave_erp() {
    let time = seconds(150);
    let stream = {
        let sim = here();
        let stream = usize::try_from(sim.below(sim.doubles.len() as u64)).unwrap_or(0);
        sim.tell(format!("erp{stream} is away for {time:?}"));
        sim.doubles[stream].held().away = true;
        stream
    };
    clock::sleep(time).await;
    let sim = here();
    sim.tell(format!("erp{stream} is back"));
    sim.doubles[stream].held().away = false;
}

async fn reload() {
    let stream = {
        let sim = here();
        let stream = usize::try_from(sim.below(sim.doubles.len() as u64)).unwrap_or(0);
        sim.tell(format!("a reload of stream {stream} is asked for"));
        stream
    };
    // On the server's host it would end with a crash of it; who asks learns that it failed and asks some other time.
    let _ = cloud::reload(stream).await;
}
