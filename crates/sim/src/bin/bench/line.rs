//! Line: a TCP relay that takes its time, as a wide area network does.
//!
//! Promises: bytes come out as they went in, in order, half a round trip later; time is all it costs: whatever is under
//! way is held, and the next bytes are taken meanwhile.
//! Never: loses, splits off or holds back a connection.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use protocol::{Code, Coded as _, Result};
use runtime::{
    clock::{self, Mono},
    task::{self, Task},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

/// Bytes taken at once.
const PIECE: usize = 64 * 1024;

/// Ends with its drop.
pub(crate) struct Line {
    pub(crate) port: u16,
    accepting: Task<()>,
}

impl Line {
    /// A line from a free port to a port of this machine.
    ///
    /// # Errors
    /// Where no port is free.
    pub(crate) async fn to(far: u16, round_trip: Duration) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await;
        let listener = listener.coded(Code::Internal, "no free port")?;
        let port = listener.local_addr().coded(Code::Internal, "no free port")?.port();
        let accepting = task::spawn("line", async move {
            while let Ok((near, _)) = listener.accept().await {
                drop(task::spawn("call on the line", call(near, far, round_trip / 2)));
            }
        });
        Ok(Self { port, accepting })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn call(near: TcpStream, far: u16, delay: Duration) {
    // Who calls before the far end listens is hung up on and calls again.
    let Ok(far) = TcpStream::connect(("127.0.0.1", far)).await else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    tokio::join!(pass(near_in, far_out, delay), pass(far_in, near_out, delay));
}

/// Passes one direction until it ends.
async fn pass(from: OwnedReadHalf, to: OwnedWriteHalf, delay: Duration) {
    let (sent, under_way) = mpsc::unbounded_channel();
    tokio::join!(take(from, sent, delay), give(to, under_way));
}

async fn take(
    mut from: OwnedReadHalf,
    sent: mpsc::UnboundedSender<(Mono, Bytes)>,
    delay: Duration,
) {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE);
        let Ok(1..) = from.read_buf(&mut piece).await else { return };
        if sent.send((Mono::now() + delay, piece.freeze())).is_err() {
            return;
        }
    }
}

async fn give(mut to: OwnedWriteHalf, mut under_way: mpsc::UnboundedReceiver<(Mono, Bytes)>) {
    while let Some((due, piece)) = under_way.recv().await {
        let left = due - Mono::now();
        if !left.is_zero() {
            clock::sleep(left).await;
        }
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
    // The other end may have gone first.
    let _ = to.shutdown().await;
}
