//! A line: a TCP relay of the tests between two parties, which can fall silent as a firewall makes it.
//!
//! Promises: a silent line swallows what comes and closes nothing, so neither end is told; a connection that lost a
//! byte stays dead when the line is open again, new ones work.
//! Never: changes a byte that it passes.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use runtime::task::{self, Task};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

const OPEN: i64 = i64::MAX / 2;

/// Ends with its drop.
pub(crate) struct Line {
    pub(crate) port: u16,
    traffic: Arc<Traffic>,
    accepting: Task<()>,
    far: Arc<Mutex<String>>,
}

struct Traffic {
    /// Bytes from the far end that still pass; at zero or below the line is silent both ways.
    left: AtomicI64,
    /// Bytes that were swallowed.
    swallowed: AtomicU64,
    /// Raised when the line falls silent.
    silent: watch::Sender<bool>,
    /// How long each piece is held, microseconds.
    held: AtomicU64,
}

impl Line {
    /// A line from a free port to `far`.
    pub(crate) async fn to(far: String) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let traffic = Arc::new(Traffic {
            left: AtomicI64::new(OPEN),
            swallowed: AtomicU64::new(0),
            silent: watch::Sender::new(false),
            held: AtomicU64::new(0),
        });
        let shared = Arc::clone(&traffic);
        let far = Arc::new(Mutex::new(far));
        let end = Arc::clone(&far);
        let accepting = task::spawn("line", async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (far, traffic) = (end.lock().unwrap().clone(), Arc::clone(&shared));
                drop(task::spawn("call on the line", call(near, far, traffic)));
            }
        });
        Self { port, traffic, accepting, far }
    }

    /// New connections lead there.
    pub(crate) fn turn_to(&self, far: String) {
        *self.far.lock().unwrap() = far;
    }

    /// Holds each piece for so long from now on.
    pub(crate) fn hold(&self, time: Duration) {
        self.traffic.held.store(u64::try_from(time.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// Falls silent after that many more bytes from the far end: in the middle of whatever it says.
    pub(crate) fn silent_after(&self, bytes: u32) {
        self.traffic.left.store(i64::from(bytes), Ordering::SeqCst);
        if bytes == 0 {
            self.traffic.silent.send_replace(true);
        }
    }

    /// Waits until the line fell silent.
    pub(crate) async fn fell_silent(&self) {
        self.traffic.silent.subscribe().wait_for(|silent| *silent).await.unwrap();
    }

    pub(crate) fn open_again(&self) {
        self.traffic.left.store(OPEN, Ordering::SeqCst);
        self.traffic.silent.send_replace(false);
    }

    pub(crate) fn swallowed(&self) -> u64 {
        self.traffic.swallowed.load(Ordering::SeqCst)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

async fn call(near: TcpStream, far: String, traffic: Arc<Traffic>) {
    // A caller of a silent line is connected and hears nothing.
    let Ok(far) = TcpStream::connect(far).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let dead = Arc::new(AtomicBool::new(false));
    let up = pass(near_in, far_out, (Arc::clone(&traffic), Arc::clone(&dead)), Way::Up);
    let down = pass(far_in, near_out, (traffic, dead), Way::Down);
    // Both sockets stay until both directions are over: the end of one side of a dead call is not told to the other.
    let _ends = tokio::join!(up, down);
}

/// Passes one direction until it ends.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    (traffic, dead): (Arc<Traffic>, Arc<AtomicBool>),
    way: Way,
) -> OwnedWriteHalf {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(got @ 1..) = from.read(&mut bytes).await {
        let held = traffic.held.load(Ordering::SeqCst);
        if held > 0 {
            runtime::clock::sleep(Duration::from_micros(held)).await;
        }
        let passes = if dead.load(Ordering::SeqCst) { 0 } else { traffic.passes(got, way) };
        if passes < got {
            dead.store(true, Ordering::SeqCst);
            traffic.swallowed.fetch_add((got - passes) as u64, Ordering::SeqCst);
        }
        if passes > 0 && to.write_all(&bytes[..passes]).await.is_err() {
            break;
        }
    }
    if !dead.load(Ordering::SeqCst) {
        let _ = to.shutdown().await;
    }
    to
}

impl Traffic {
    /// How many of these bytes pass.
    fn passes(&self, got: usize, way: Way) -> usize {
        let all = i64::try_from(got).unwrap();
        let left = match way {
            Way::Up => self.left.load(Ordering::SeqCst),
            Way::Down => self.left.fetch_sub(all, Ordering::SeqCst),
        };
        if left <= 0 {
            return 0;
        }
        if way == Way::Down && left <= all {
            self.silent.send_replace(true);
            return usize::try_from(left).unwrap();
        }
        got
    }
}
