//! Machine: all hosts of a world on one thread: their tasks, clocks, randomness and crashes.
//!
//! Promises: whatever runs next is drawn from the seed among the tasks that may run, whoever woke them in whatever
//! order; so the order in which tokio's own lists wake tasks decides nothing. A crash drops every task of its host at
//! once; a paused host's tasks are not polled, and its time goes on (SIGSTOP).
//! Never: runs without tokio's paused clock, which is the queue of events: time moves when nobody may run.

use std::{
    any::Any,
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use runtime::{clock::Mono, world::Work};

use crate::chance::Chance;

/// Begin of every world: 2027-01-15T08:00:00Z.
pub const BEGIN_MICROS: i64 = 1_800_000_000_000_000;

/// Polls without a step of the clock before the world is taken for one that runs in a circle.
const CIRCLE: u64 = 3_000_000;

/// The scenario itself.
const MAIN: u64 = 0;

/// A host, by its place in the list of hosts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Host(pub usize);

/// Nobody's machine: where the scenario, the network and the faults live.
pub const OUTSIDE: Host = Host(0);

#[derive(Debug)]
struct State {
    name: String,
    /// Wall clock less the true time, microseconds.
    offset: i64,
    paused: bool,
}

/// A task; its work is elsewhere while it runs.
struct Slot {
    host: Host,
    work: Option<Work>,
    waker: Waker,
}

/// Who may run.
#[derive(Default)]
struct Ready {
    tasks: Mutex<(BTreeSet<u64>, Option<Waker>)>,
    polling: AtomicBool,
}

impl Ready {
    fn held(&self) -> MutexGuard<'_, (BTreeSet<u64>, Option<Waker>)> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, task: u64) {
        let mut held = self.held();
        held.0.insert(task);
        if !self.polling.load(Ordering::Relaxed)
            && let Some(root) = &held.1
        {
            root.wake_by_ref();
        }
    }
}

struct Alarm {
    task: u64,
    ready: Arc<Ready>,
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ready.add(self.task);
    }
}

/// The machine of a world.
pub struct Machine {
    ready: Arc<Ready>,
    tasks: RefCell<BTreeMap<u64, Slot>>,
    next: Cell<u64>,
    current: Cell<Host>,
    hosts: RefCell<Vec<State>>,
    order: RefCell<Chance>,
    entropy: RefCell<Chance>,
    begun: Mono,
    /// Panics of tasks, which are faults of the program.
    panics: RefCell<Vec<String>>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machine")
    }
}

impl Machine {
    /// Inside a runtime whose clock is paused.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let outside = State { name: "world".to_owned(), offset: 0, paused: false };
        Self {
            ready: Arc::default(),
            tasks: RefCell::default(),
            next: Cell::new(MAIN + 1),
            current: Cell::new(OUTSIDE),
            hosts: RefCell::new(vec![outside]),
            order: RefCell::new(Chance::new(chance.draw())),
            entropy: RefCell::new(Chance::new(chance.draw())),
            begun: Mono::now(),
            panics: RefCell::default(),
        }
    }

    pub fn add_host(&self, name: &str, offset: i64) -> Host {
        let mut hosts = self.hosts.borrow_mut();
        hosts.push(State { name: name.to_owned(), offset, paused: false });
        Host(hosts.len() - 1)
    }

    /// Time since the world began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The true time, microseconds since 1970.
    #[must_use]
    pub fn true_micros(&self) -> i64 {
        BEGIN_MICROS + i64::try_from(self.elapsed().as_micros()).unwrap_or(i64::MAX / 2)
    }

    /// What the wall clock of the host that runs shows.
    #[must_use]
    pub fn wall_micros(&self) -> i64 {
        let Host(at) = self.current.get();
        self.true_micros() + self.hosts.borrow().get(at).map_or(0, |host| host.offset)
    }

    #[must_use]
    pub fn current(&self) -> Host {
        self.current.get()
    }

    #[must_use]
    pub fn name(&self, host: Host) -> String {
        self.hosts.borrow().get(host.0).map(|host| host.name.clone()).unwrap_or_default()
    }

    pub fn set_offset(&self, host: Host, micros: i64) {
        if let Some(state) = self.hosts.borrow_mut().get_mut(host.0) {
            state.offset = micros;
        }
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        let mut entropy = self.entropy.borrow_mut();
        for part in bytes.chunks_mut(8) {
            let drawn = entropy.draw().to_le_bytes();
            part.iter_mut().zip(drawn).for_each(|(to, from)| *to = from);
        }
    }

    /// What panicked since the last look.
    pub fn take_panics(&self) -> Vec<String> {
        std::mem::take(&mut *self.panics.borrow_mut())
    }

    pub fn spawn_on(&self, host: Host, work: Work) -> u64 {
        let task = self.next.get();
        self.next.set(task + 1);
        let waker = Waker::from(Arc::new(Alarm { task, ready: Arc::clone(&self.ready) }));
        self.tasks.borrow_mut().insert(task, Slot { host, work: Some(work), waker });
        self.ready.add(task);
        task
    }

    pub fn abort(&self, task: u64) {
        let gone = self.tasks.borrow_mut().remove(&task);
        drop(gone);
    }

    /// Every task of the host is gone before anybody runs again.
    pub fn crash(&self, host: Host) {
        let mut tasks = self.tasks.borrow_mut();
        let mine: Vec<u64> =
            tasks.iter().filter(|(_, slot)| slot.host == host).map(|(task, _)| *task).collect();
        let gone: Vec<Slot> = mine.iter().filter_map(|task| tasks.remove(task)).collect();
        drop(tasks);
        let before = self.current.replace(host);
        drop(gone);
        self.current.set(before);
    }

    pub fn pause(&self, host: Host, paused: bool) {
        if let Some(state) = self.hosts.borrow_mut().get_mut(host.0) {
            state.paused = paused;
        }
        if let Some(root) = &self.ready.held().1 {
            root.wake_by_ref();
        }
    }

    #[must_use]
    pub fn is_paused(&self, host: Host) -> bool {
        self.hosts.borrow().get(host.0).is_some_and(|state| state.paused)
    }

    /// Runs everything until the scenario ends.
    pub async fn drive<T>(&self, main: impl Future<Output = T>) -> T {
        let mut main = pin!(main);
        let waker = Waker::from(Arc::new(Alarm { task: MAIN, ready: Arc::clone(&self.ready) }));
        self.ready.add(MAIN);
        let (mut polls, mut at) = (0, self.elapsed());
        let root = poll_fn(move |context| {
            self.ready.polling.store(true, Ordering::Relaxed);
            self.ready.held().1 = Some(context.waker().clone());
            let done = loop {
                let Some(task) = self.pick() else { break Poll::Pending };
                let now = self.elapsed();
                polls = if now == at { polls + 1 } else { 0 };
                at = now;
                assert!(polls < CIRCLE, "the world runs in a circle at {now:?}");
                if task != MAIN {
                    self.poll(task);
                } else if let Poll::Ready(out) =
                    main.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    break Poll::Ready(out);
                }
            };
            self.ready.polling.store(false, Ordering::Relaxed);
            done
        });
        tokio::task::unconstrained(root).await
    }

    /// The next task, by chance among all that may run.
    fn pick(&self) -> Option<u64> {
        let mut held = self.ready.held();
        let (tasks, hosts) = (self.tasks.borrow(), self.hosts.borrow());
        held.0.retain(|task| *task == MAIN || tasks.contains_key(task));
        let may = |task: &&u64| {
            let host = tasks.get(*task).map_or(OUTSIDE, |slot| slot.host);
            hosts.get(host.0).is_some_and(|state| !state.paused)
        };
        let count = held.0.iter().filter(may).count();
        let place = match count {
            0 => return None,
            1 => 0,
            many => self.order.borrow_mut().below(many as u64),
        };
        let task = *held.0.iter().filter(may).nth(usize::try_from(place).unwrap_or(0))?;
        held.0.remove(&task);
        Some(task)
    }

    fn poll(&self, task: u64) {
        let taken = self
            .tasks
            .borrow_mut()
            .get_mut(&task)
            .and_then(|slot| Some((slot.work.take()?, slot.host, slot.waker.clone())));
        let Some((mut work, host, waker)) = taken else { return };
        let before = self.current.replace(host);
        let mut context = Context::from_waker(&waker);
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {
                if let Some(slot) = self.tasks.borrow_mut().get_mut(&task) {
                    slot.work = Some(work);
                    self.current.set(before);
                    return;
                }
            }
            Ok(Poll::Ready(())) => {}
            Err(cause) => self.panics.borrow_mut().push(words(&*cause)),
        }
        let slot = self.tasks.borrow_mut().remove(&task);
        drop((slot, work));
        self.current.set(before);
    }
}

fn words(cause: &(dyn Any + Send)) -> String {
    let text = cause.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| cause.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
