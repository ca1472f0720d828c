//! World: where a simulator puts itself in the place of machine and network (`crates/sim`).
//!
//! Promises: where none is installed in this thread, a look costs one load of a counter and nothing else changes. Where
//! one is, wall clock, entropy, tasks, calls to the cloud, failures of the disk and its delays are the world's.
//! Never: installs anything by itself; holds a rule of the world, which are all the simulator's.
//!
//! It is a trait object in a thread's own place, since the crate that pretends to be the world stands above this one.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;

/// A task's work; what it gives goes another way.
pub type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call on its way through the simulated network.
pub type Carrying = Pin<Box<dyn Future<Output = io::Result<http::Response<Carried>>> + Send>>;

/// The whole body of an answer.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    pub bytes: Bytes,
    pub trailers: Option<http::HeaderMap>,
}

/// What a process asks of the machine it runs on.
pub trait World {
    /// Wall clock of the host that runs now, microseconds since 1970.
    fn wall_micros(&self) -> i64;

    /// Fills bytes that look random and are repeated by the seed.
    fn fill(&self, bytes: &mut [u8]);

    /// Takes a task over for the host that runs now; gives its number.
    fn spawn(&self, name: &'static str, work: Work) -> u64;

    /// Ends a task; its work is dropped before it runs again.
    fn abort(&self, number: u64);

    /// Carries a call of the host that runs now to whoever has the request's authority.
    fn carry(&self, request: http::Request<Bytes>) -> Carrying;

    /// What a commit takes until it is known to be on the disk of the host that runs now.
    fn commit_takes(&self) -> Duration;

    /// Whether the named failpoint fails at this visit.
    fn fails(&self, place: &'static str) -> bool;

    /// Wrong variants of designs that stand in their place, with `+` between them; `""` = none.
    fn mutant(&self) -> &str {
        ""
    }
}

static INSTALLED: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CURRENT: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Takes the world away again when it is dropped.
#[must_use = "the world is in place for as long as this is held"]
pub struct Installed(Rc<dyn World>);

impl std::fmt::Debug for Installed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Installed")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            if current.as_ref().is_some_and(|held| Rc::ptr_eq(held, &self.0)) {
                *current = None;
            }
        });
        INSTALLED.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Puts a world in the place of this thread's machine.
pub fn install(world: Rc<dyn World>) -> Installed {
    INSTALLED.fetch_add(1, Ordering::Relaxed);
    CURRENT.with(|current| *current.borrow_mut() = Some(Rc::clone(&world)));
    Installed(world)
}

/// The world of this thread, if one is installed.
#[must_use]
pub fn current() -> Option<Rc<dyn World>> {
    if INSTALLED.load(Ordering::Relaxed) == 0 {
        return None;
    }
    CURRENT.with(|current| current.borrow().clone())
}

/// Whether this thread runs in a simulated world.
#[must_use]
pub fn is_on() -> bool {
    current().is_some()
}

/// Carries a call, where a world is installed; takes it from the caller only then.
///
/// # Errors
/// What the simulated network says: the host is down, the connection broke.
pub fn carry(request: http::Request<Bytes>) -> Carrying {
    match current() {
        Some(world) => world.carry(request),
        None => Box::pin(std::future::ready(Err(io::Error::other("no world carries this call")))),
    }
}

/// Waits as long as a commit takes; at once where no world is installed, since a real one was waited for.
pub async fn committed() {
    let takes = current().map(|world| world.commit_takes());
    if let Some(takes) = takes.filter(|takes| !takes.is_zero()) {
        tokio::time::sleep(takes).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::Wall, entropy, failpoint};

    struct Still;

    impl World for Still {
        fn wall_micros(&self) -> i64 {
            42
        }
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(7);
        }
        fn spawn(&self, _name: &'static str, _work: Work) -> u64 {
            0
        }
        fn abort(&self, _number: u64) {}
        fn carry(&self, _request: http::Request<Bytes>) -> Carrying {
            Box::pin(std::future::ready(Ok(http::Response::default())))
        }
        fn commit_takes(&self) -> Duration {
            Duration::ZERO
        }
        fn fails(&self, place: &'static str) -> bool {
            place == "here"
        }
    }

    #[test]
    fn a_world_is_there_for_its_thread_alone_and_only_while_it_is_installed() {
        let installed = install(Rc::new(Still));
        assert_eq!((Wall::now(), entropy::bytes::<2>()), (Wall(42), [7, 7]));
        assert!(failpoint::reach("here", protocol::Code::Internal).is_err());
        assert!(failpoint::reach("there", protocol::Code::Internal).is_ok());
        let elsewhere = std::thread::scope(|scope| scope.spawn(is_on).join().unwrap());
        assert!(is_on() && !elsewhere);
        drop(installed);
        assert!(!is_on() && Wall::now() > Wall(42));
    }
}
