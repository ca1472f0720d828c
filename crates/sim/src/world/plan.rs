//! Plan: what kind of world a seed makes: who is in it and which faults it has, and how strong (swarm testing: most
//! faults are off in most worlds, so that none hides another).
//!
//! Promises: drawn from the seed alone, before anything runs.
//! Never: changes while the world runs.

use std::time::Duration;

use crate::chance::Chance;

/// Whose reads and bounds the ERP has. What SQL Server and Oracle do is taken from their documents and was never compared
/// with a real one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A statement sees what was committed when it began; the bound knows every open transaction, idle ones included.
    Postgres,
    /// SQL Server without row versions: a read waits for rows that others hold, and is refused after two seconds.
    Locking,
    /// SQL Server with row versions: a statement sees what was committed when it began.
    Versioned,
    /// A statement sees what was committed when it began, as long as undo lasts; a transaction is known by the number of its
    /// first change, whose time is known to three seconds.
    Oracle,
}

/// Where a row's stamp comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stamps {
    /// `now()` of PostgreSQL: the start of the transaction.
    Transaction,
    /// The moment of the statement.
    Statement,
    /// An application server's clock, off by up to this many microseconds.
    Application(i64),
}

/// How often a fault comes: on average once in this time; `None` = never.
pub type Often = Option<Duration>;

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// With faults, before the world heals.
    pub time: Duration,
    /// Agents of each stream; a stream is a tenant with its own ERP.
    pub agents: Vec<usize>,
    pub erp: Erp,
    pub agent: Agent,
    pub net: Net,
    pub faults: Faults,
}

#[derive(Clone, Debug)]
pub struct Erp {
    pub kind: Kind,
    pub stamps: Stamps,
    /// Stamps are cut to this, microseconds.
    pub grain: i64,
    /// `e`, seconds.
    pub allowance: u64,
    pub rows: u64,
    pub writers: usize,
    /// Between two transactions of one writer.
    pub pause: Duration,
    /// Per cent of transactions that last 5 to 240 s.
    pub long: u64,
    /// Per cent of rows without a stamp.
    pub unstamped: u64,
    /// Deleted rows are marked, in half of the deletes.
    pub soft_delete: bool,
    /// Rows that one mass update changes; 0 = there is none.
    pub mass: u64,
    /// Per cent of written rows that have a value which cannot travel.
    pub poison: u64,
    /// Images that may be overwritten before a read of Oracle finds its snapshot gone.
    pub undo: u64,
    /// Tells what was committed, so that a pass that would show nothing is left out.
    pub tells_committed: bool,
}

#[derive(Clone, Debug)]
pub struct Agent {
    pub cycle: u64,
    pub key_scan: u64,
    /// Longest time of a statement.
    pub slow: Duration,
    pub rows_a_page: u64,
}

#[derive(Clone, Debug)]
pub struct Net {
    pub delay: Duration,
    /// Some calls take up to this much longer, which reorders them.
    pub jitter: Duration,
    /// Per thousand calls.
    pub lost: u64,
    pub answers_lost: u64,
    pub doubled: u64,
    pub partition: Often,
}

#[derive(Clone, Debug)]
pub struct Faults {
    pub agent_crash: Often,
    pub server_crash: Often,
    pub agent_pause: Often,
    pub server_pause: Often,
    pub clock: Often,
    pub erp_away: Often,
    /// Per 100,000 visits of a place that can fail.
    pub disk: u64,
    /// Longest time of a commit.
    pub commit: Duration,
    pub reload: Often,
    /// The ERP's clock is set back by up to a minute.
    pub erp_clock: Often,
    /// The first agent's machine is copied, with its journal, and both copies run for a while.
    pub twin: Often,
}

impl Plan {
    /// The world of a seed.
    #[must_use]
    pub fn of(seed: u64, time: Duration) -> Self {
        let mut chance = Chance::new(seed ^ 0x6d61_6c6f_7465);
        let agents = match chance.below(8) {
            0..3 => vec![1],
            3..5 => vec![2],
            5 => vec![3],
            6 => vec![1, 1],
            _ => vec![2, 1],
        };
        let (mut erp, agent) = (erp(&mut chance), agent(&mut chance));
        // Drawn apart, so that what came later does not make other worlds of the seeds before it.
        let mut apart = Chance::new(seed ^ 0x7363_6e21);
        erp.poison = if apart.percent(20) { 3 } else { 0 };
        erp.undo = *apart.pick(&[2, 40, 2_000]).unwrap_or(&40);
        let (net, mut faults) = (net(&mut chance), faults(&mut chance));
        faults.twin = often(&mut apart, 15, (300, 900));
        faults.erp_clock = often(&mut apart, 10, (300, 900));
        Self { seed, time, agents, erp, agent, net, faults }
    }

    /// How long the world of a seed has faults: most 25 minutes, some two hours, a few six.
    #[must_use]
    pub fn length(seed: u64) -> Duration {
        let minutes = match Chance::new(seed ^ 0x6c6f_6e67).below(100) {
            0 => 360,
            1..5 => 120,
            _ => 25,
        };
        Duration::from_secs(minutes * 60)
    }

    /// The same world without any fault, one agent in it.
    #[must_use]
    pub fn calm(mut self) -> Self {
        self.agents = vec![1];
        self.erp.poison = 0;
        let Net { delay, .. } = self.net;
        let jitter = Duration::ZERO;
        self.net = Net { delay, jitter, lost: 0, answers_lost: 0, doubled: 0, partition: None };
        self.faults = Faults {
            agent_crash: None,
            server_crash: None,
            agent_pause: None,
            server_pause: None,
            clock: None,
            erp_away: None,
            disk: 0,
            commit: Duration::ZERO,
            reload: None,
            erp_clock: None,
            twin: None,
        };
        self
    }

    /// What is on, in a line.
    #[must_use]
    pub fn words(&self) -> String {
        let Self { agents, erp, net, faults, .. } = self;
        let Erp { kind, stamps, grain, allowance, writers, long, soft_delete, .. } = erp;
        let mut on = Vec::new();
        let mut note = |is: bool, word: &'static str| {
            if is {
                on.push(word);
            }
        };
        note(faults.agent_crash.is_some(), "agent crashes");
        note(faults.server_crash.is_some(), "server crashes");
        note(faults.agent_pause.is_some(), "agent pauses");
        note(faults.server_pause.is_some(), "server pauses");
        note(faults.clock.is_some(), "clock steps");
        note(faults.erp_away.is_some(), "ERP away");
        note(faults.disk > 0, "disk errors");
        note(faults.reload.is_some(), "reloads");
        note(erp.poison > 0, "poison rows");
        note(faults.erp_clock.is_some(), "the ERP's clock set back");
        note(faults.twin.is_some(), "twins");
        note(net.partition.is_some(), "partitions");
        note(net.lost > 0, "lost calls");
        note(net.answers_lost > 0, "lost answers");
        note(net.doubled > 0, "doubled calls");
        note(!net.jitter.is_zero(), "reordering");
        format!(
            "agents {agents:?}, {kind:?}, stamps {stamps:?} grain {grain} us e {allowance} s, {writers} writers, {long} % long, soft delete {soft_delete}; {}",
            on.join(", ")
        )
    }
}

fn seconds(chance: &mut Chance, from: u64, to: u64) -> Duration {
    Duration::from_secs(from + chance.below(to - from + 1))
}

fn often(chance: &mut Chance, percent: u64, (from, to): (u64, u64)) -> Often {
    let on = chance.percent(percent);
    let time = seconds(chance, from, to);
    on.then_some(time)
}

fn erp(chance: &mut Chance) -> Erp {
    let kind = match chance.below(20) {
        0..11 => Kind::Postgres,
        11..14 => Kind::Locking,
        14..17 => Kind::Versioned,
        _ => Kind::Oracle,
    };
    let (stamps, skew) = match chance.below(4) {
        // Only PostgreSQL has a time of the transaction to stamp with.
        0 | 1 if kind == Kind::Postgres => (Stamps::Transaction, 0),
        0..3 => (Stamps::Statement, 0),
        _ => (Stamps::Application(1_900_000), 2),
    };
    let grain = match kind {
        Kind::Locking | Kind::Versioned => 3_333,
        _ => *chance.pick(&[1, 1, 1_000, 1_000_000]).unwrap_or(&1),
    };
    Erp {
        kind,
        stamps,
        grain,
        // Any grain above a microsecond costs a second of allowance at most; Oracle's own is two.
        allowance: skew + if kind == Kind::Oracle { 2 } else { u64::from(grain > 1) },
        rows: 20 + chance.below(280),
        writers: 1 + usize::try_from(chance.below(4)).unwrap_or(0),
        pause: Duration::from_millis(500 + chance.below(9_500)),
        long: chance.below(12),
        unstamped: if chance.percent(30) { 5 } else { 0 },
        soft_delete: chance.percent(50),
        mass: if chance.percent(25) { 100 + chance.below(400) } else { 0 },
        poison: 0,
        undo: u64::MAX,
        tells_committed: chance.percent(50),
    }
}

fn agent(chance: &mut Chance) -> Agent {
    Agent {
        cycle: 2 + chance.below(18),
        key_scan: 30 + chance.below(170),
        slow: Duration::from_millis(*chance.pick(&[5, 50, 400, 2_500]).unwrap_or(&5)),
        rows_a_page: *chance.pick(&[7, 50, 500]).unwrap_or(&500),
    }
}

fn net(chance: &mut Chance) -> Net {
    let mut per_mille = |percent: u64, most: u64| {
        let on = chance.percent(percent);
        let drawn = 1 + chance.below(most);
        if on { drawn } else { 0 }
    };
    let (lost, answers_lost, doubled) =
        (per_mille(30, 200), per_mille(30, 200), per_mille(30, 200));
    Net {
        delay: Duration::from_millis(1 + chance.below(120)),
        jitter: if chance.percent(30) {
            Duration::from_millis(50 + chance.below(3_000))
        } else {
            Duration::ZERO
        },
        lost,
        answers_lost,
        doubled,
        partition: often(chance, 25, (60, 600)),
    }
}

fn faults(chance: &mut Chance) -> Faults {
    Faults {
        agent_crash: often(chance, 40, (40, 600)),
        server_crash: often(chance, 30, (60, 600)),
        agent_pause: often(chance, 30, (60, 600)),
        server_pause: often(chance, 15, (120, 600)),
        clock: often(chance, 25, (60, 600)),
        erp_away: often(chance, 20, (120, 600)),
        disk: if chance.percent(25) { 20 + chance.below(200) } else { 0 },
        commit: Duration::from_millis(*chance.pick(&[0, 3, 40, 1_500]).unwrap_or(&0)),
        reload: often(chance, 20, (120, 600)),
        erp_clock: None,
        twin: None,
    }
}
