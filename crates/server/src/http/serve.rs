//! Serving: the accept loop of HTTP with its limits.
//!
//! Promises: connections are bounded in number, in all and per address, in headers, in the time they take to begin and to
//! send a header, in age, and in streams; a server that drains is still connected to, so that it can say so.
//! Never: waits for a slow peer without a deadline.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use protocol::limits;
use runtime::{
    clock,
    shutdown::Shutdown,
    tls::{Speaks, Tls},
};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::peers::{ACCEPT_PAUSE, Count, Counted, Guarded, secured};

/// Connections at once: enough for a thousand senders that ask now and then.
const CONNECTIONS: usize = 512;
/// How long a request's header may take; also ends an idle keep-alive connection, and one that does not begin.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Of so many bytes hyper knows whether HTTP/1 or HTTP/2 is spoken, and puts its own deadlines on: the preface of
/// HTTP/2. A request of HTTP/1 that is shorter is answered within the same time as well.
const BEGINNING: usize = 24;
/// A connection of that age takes no further request: one of HTTP/2 that only answers pings is idle to nobody else.
const AGE: Duration = Duration::from_secs(10 * 60);
/// What an aged connection gets to finish what is under way.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

/// Serves until it is to close, which comes after the drain, then until the requests under way are answered.
pub(crate) async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    router: Router,
    proxies: Arc<[IpAddr]>,
    mut closing: Shutdown,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Arc::<Count<IpAddr>>::default();
    loop {
        let permit = tokio::select! {
            biased;
            () = closing.draining() => break,
            permit = Arc::clone(&room).acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            biased;
            () = closing.draining() => break,
            accepted = listener.accept() => accepted,
        };
        let (Ok(permit), Ok((stream, peer))) = (permit, accepted) else {
            clock::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let peer = peer.ip().to_canonical();
        let counted = Counted::among(&addresses, peer, limits::ADDRESS_HTTP_CONNECTIONS);
        // A trusted proxy brings many.
        if counted.is_none() && !proxies.contains(&peer) {
            metrics::counter!("malote_http_connections_refused_total").increment(1);
            continue;
        }
        let (tls, router, closing) = (tls.clone(), router.clone(), closing.clone());
        runtime::task::spawn("http-connection", async move {
            if let Some(wire) = secured(stream, tls, (Speaks::Http, HEADER_TIME)).await {
                connection(Guarded::new(wire, (), HEADER_TIME, BEGINNING), router, closing).await;
            }
            drop((counted, permit));
        });
    }
    drop(listener);
    // All permits back means that every connection has ended.
    let _ = room.acquire_many(u32::try_from(CONNECTIONS).unwrap_or(u32::MAX)).await;
}

async fn connection(stream: Guarded<()>, router: Router, mut closing: Shutdown) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(limits::HEADER_LIST_BYTES as usize);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::CONNECTION_STREAMS)
        .max_header_list_size(limits::HEADER_LIST_BYTES)
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    let serving = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        biased;
        ended = serving.as_mut() => Some(ended),
        () = closing.draining() => {
            serving.as_mut().graceful_shutdown();
            Some(serving.await)
        }
        () = clock::sleep(AGE) => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(LAST_ANSWERS, serving).await.ok()
        }
    };
    match ended {
        Some(Ok(())) => {}
        Some(Err(cause)) => {
            tracing::debug!(cause = cause.to_string(), "http connection ended");
        }
        None => tracing::debug!("an aged http connection is closed with a request under way"),
    }
}
