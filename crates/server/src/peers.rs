//! Peers: what HTTP and gRPC ask of a connection before they know who speaks.
//!
//! Promises: a peer that does not begin in time is cut; what is counted is given back.
//! Never: trusts an address that a header names.

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use runtime::{
    clock,
    tls::{Speaks, Tls, Wire},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// After a failed accept (no file descriptors left) the loop must not spin.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How many of a kind are in use.
#[derive(Debug)]
pub(crate) struct Count<K>(Mutex<HashMap<K, usize>>);

impl<K> Default for Count<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> Count<K> {
    /// Whether there was room for one more.
    fn take(&self, key: K, most: usize) -> bool {
        let Ok(mut counts) = self.0.lock() else { return false };
        let count = counts.entry(key).or_default();
        let fits = *count < most;
        *count += usize::from(fits);
        fits
    }

    fn give_back(&self, key: &K) {
        let Ok(mut counts) = self.0.lock() else { return };
        if let Some(count) = counts.get_mut(key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                counts.remove(key);
            }
        }
    }
}

/// One that is counted until it is dropped, however that comes.
#[derive(Debug)]
pub(crate) struct Counted<K: Hash + Eq> {
    counts: Arc<Count<K>>,
    key: K,
}

impl<K: Hash + Eq + Copy> Counted<K> {
    /// `None` where there are as many already.
    pub(crate) fn among(counts: &Arc<Count<K>>, key: K, most: usize) -> Option<Self> {
        counts.take(key, most).then(|| Self { counts: Arc::clone(counts), key })
    }
}

impl<K: Hash + Eq> Drop for Counted<K> {
    fn drop(&mut self) {
        self.counts.give_back(&self.key);
    }
}

/// With TLS where the server speaks it; `None` where the peer did not come through the handshake in time.
pub(crate) async fn secured(
    stream: TcpStream,
    tls: Option<Tls>,
    (speaks, within): (Speaks, Duration),
) -> Option<Wire> {
    // An answer is written at once; a failure to set this costs only time.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return Some(Wire::Plain(stream)) };
    match tokio::time::timeout(within, tls.accept(stream, speaks)).await {
        Ok(Ok(wire)) => Some(wire),
        Ok(Err(cause)) => {
            tracing::debug!(%cause, "no TLS handshake");
            None
        }
        Err(_) => None,
    }
}

type Deadline = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream that must begin in time, with what is held as long as it is open.
pub(crate) struct Guarded<T> {
    stream: Wire,
    held: T,
    deadline: Option<Deadline>,
    /// Bytes that are still to come before the deadline.
    missing: usize,
}

impl<T> Guarded<T> {
    /// `within` that time `begin` bytes have to come.
    pub(crate) fn new(stream: Wire, held: T, within: Duration, begin: usize) -> Self {
        let deadline = Some(Box::pin(clock::sleep(within)) as Deadline);
        Self { stream, held, deadline, missing: begin }
    }

    pub(crate) fn held(&self) -> &T {
        &self.held
    }
}

impl<T: Unpin> AsyncRead for Guarded<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        if self.deadline.is_some() {
            self.missing = self.missing.saturating_sub(into.filled().len() - before);
            if self.missing == 0 {
                self.deadline = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
