//! Connections: accepted, numbered, counted.
//!
//! Promises: a peer that does not begin HTTP/2 in time is cut; connections are bounded in all, per address and per
//! tenant; what a connection took is given back when it ends.
//! Never: trusts an address that a header names.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use protocol::{ids::TenantId, limits};
use runtime::{
    clock,
    tls::{Speaks, Tls},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tonic::transport::server::Connected;

use crate::peers::{ACCEPT_PAUSE, Count, Counted, Guarded, secured};

/// Connections at once, of all tenants.
const CONNECTIONS: usize = 1_024;
/// How long the HTTP/2 preface may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Preface and the head of the first frame.
const HANDSHAKE_BYTES: usize = 24 + 9;

/// Numbers are unique in the process, also over two servers in it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// Who is connected.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    all: Arc<Count<()>>,
    addresses: Arc<Count<IpAddr>>,
    tenants: Arc<Count<TenantId>>,
}

/// An accepted connection, shared by its calls.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) id: u64,
    _among_all: Counted<()>,
    /// `None` for a trusted proxy, which brings many senders.
    _of_address: Option<Counted<IpAddr>>,
    of_tenants: Arc<Count<TenantId>>,
    tenants: Mutex<BTreeMap<TenantId, Counted<TenantId>>>,
    calls: Arc<Semaphore>,
}

impl Connection {
    /// `None` where there is no room for one more.
    pub(crate) fn open(counts: &Counts, peer: IpAddr, proxies: &[IpAddr]) -> Option<Arc<Self>> {
        let among_all = Counted::among(&counts.all, (), CONNECTIONS)?;
        let of_address = match proxies.contains(&peer.to_canonical()) {
            true => None,
            false => Some(Counted::among(&counts.addresses, peer, limits::ADDRESS_CONNECTIONS)?),
        };
        Some(Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            _among_all: among_all,
            _of_address: of_address,
            of_tenants: Arc::clone(&counts.tenants),
            tenants: Mutex::default(),
            calls: Arc::new(Semaphore::new(limits::CONNECTION_CALLS)),
        }))
    }

    /// A place among the calls at work on this connection.
    pub(super) fn call_slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.calls).try_acquire_owned().ok()
    }

    /// Counts this connection among the tenant's, once.
    pub(super) fn admit(&self, tenant: TenantId) -> bool {
        let Ok(mut tenants) = self.tenants.lock() else { return false };
        if tenants.contains_key(&tenant) {
            return true;
        }
        let counted = Counted::among(&self.of_tenants, tenant, limits::TENANT_CONNECTIONS);
        let admitted = counted.is_some();
        tenants.extend(counted.map(|counted| (tenant, counted)));
        admitted
    }
}

/// Accepts for ever; what is over a limit is closed at once. Handshakes of TLS go on beside each other: a slow one holds
/// up nobody.
pub(super) fn incoming(
    (listener, tls): (TcpListener, Option<Tls>),
    proxies: Arc<[IpAddr]>,
) -> impl Stream<Item = io::Result<Guarded<Arc<Connection>>>> {
    let door = Door {
        listener,
        tls,
        proxies,
        counts: Counts::default(),
        shaking: FuturesUnordered::new(),
    };
    stream::unfold(door, |mut door| async move {
        loop {
            tokio::select! {
                // Before any more: however many dial, whoever has shaken hands is let in.
                biased;
                Some(shaken) = door.shaking.next() => {
                    if let Some(guarded) = shaken {
                        return Some((Ok(guarded), door));
                    }
                }
                accepted = door.listener.accept() => match accepted {
                    Err(_) => clock::sleep(ACCEPT_PAUSE).await,
                    Ok((stream, peer)) => door.begin(stream, peer.ip()),
                },
            }
        }
    })
}

/// Where connections come in.
struct Door {
    listener: TcpListener,
    tls: Option<Tls>,
    proxies: Arc<[IpAddr]>,
    counts: Counts,
    /// Connections, counted already, whose handshake is under way.
    shaking: FuturesUnordered<BoxFuture<'static, Option<Guarded<Arc<Connection>>>>>,
}

impl Door {
    fn begin(&self, stream: TcpStream, peer: IpAddr) {
        let Some(connection) = Connection::open(&self.counts, peer, &self.proxies) else {
            metrics::counter!("malote_grpc_connections_refused_total").increment(1);
            return;
        };
        let tls = self.tls.clone();
        self.shaking.push(Box::pin(async move {
            let wire = secured(stream, tls, (Speaks::Grpc, HANDSHAKE)).await?;
            Some(Guarded::new(wire, connection, HANDSHAKE, HANDSHAKE_BYTES))
        }));
    }
}

impl Connected for Guarded<Arc<Connection>> {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(self.held())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_per_address_and_tenant_and_given_back() {
        let counts = Counts::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        let tenant = TenantId(runtime::entropy::uuid());
        let mut open: Vec<_> = (0..limits::ADDRESS_CONNECTIONS)
            .filter_map(|_| Connection::open(&counts, peer, &[]))
            .collect();
        assert_eq!(open.len(), limits::ADDRESS_CONNECTIONS);
        assert!(Connection::open(&counts, peer, &[]).is_none());
        assert!(
            Connection::open(&counts, peer, &[peer]).is_some(),
            "a trusted proxy is not counted by address"
        );
        assert!(
            open.iter()
                .take(limits::TENANT_CONNECTIONS)
                .all(|one| one.admit(tenant) && one.admit(tenant))
        );
        assert!(!open[limits::TENANT_CONNECTIONS].admit(tenant));
        open.remove(0);
        assert!(Connection::open(&counts, peer, &[]).is_some());
        assert!(open[limits::TENANT_CONNECTIONS - 1].admit(tenant));
    }

    #[test]
    fn calls_of_one_connection_are_bounded() {
        let one = Connection::open(&Counts::default(), IpAddr::from([127, 0, 0, 1]), &[]).unwrap();
        let slots: Vec<_> = std::iter::from_fn(|| one.call_slot()).collect();
        assert_eq!(slots.len(), limits::CONNECTION_CALLS);
        drop(slots);
        assert!(one.call_slot().is_some());
    }
}
