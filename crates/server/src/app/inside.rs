//! Inside: a server that is called without a socket, by the process it runs in.
//!
//! Promises: the same store, services, gates, routes and reconcilers as behind sockets; only what carries bytes
//! (listeners, HTTP/2, TLS) is left out. Made for the simulator (`crates/sim`).
//! Never: calls webhooks: their way out is a socket.

use std::{fs::File, net::IpAddr, sync::Arc};

use axum::Router;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use protocol::{Code, Error, Result};
use runtime::{
    shutdown::{self, Calls, Trigger},
    task::Task,
    world::Carried,
};
use tonic::{body::Body, service::Routes};
use tower::ServiceExt as _;

use super::{desk, lock, ready, reconcilers};
use crate::{
    config::{Addresses, ServerConfig},
    grpc::{self, Connection, Counts, Gate},
    http,
    service::Services,
};

/// Where a connection comes from that has no socket.
const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A running server.
#[derive(Debug)]
pub struct Inside {
    pub services: Services,
    router: Router,
    gate: Gate<Routes>,
    counts: Arc<Counts>,
    _trigger: Trigger,
    _parts: [Task<()>; 3],
    _lock: File,
}

/// One connection of a sender. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Peer {
    router: Router,
    gate: Gate<Routes>,
    connection: Arc<Connection>,
}

impl Inside {
    /// Starts a server under the addresses that its registry is to name.
    ///
    /// # Errors
    /// `STORE_BUSY`, `STORE_VERSION`, `STORE_FAILED`, `CONFIG_INVALID`.
    pub async fn start(config: &ServerConfig, addresses: &Addresses) -> Result<Self> {
        let lock = lock(&config.data)?;
        let services = ready(config, addresses).await?;
        let (trigger, shutdown) = shutdown::channel();
        let calls = Calls::new(shutdown.clone());
        let router = http::router(desk(&services, addresses, (&calls, &shutdown)));
        let gate = grpc::inside(&services, calls);
        let parts = reconcilers(&services, &shutdown);
        let counts = Arc::default();
        Ok(Self { services, router, gate, counts, _trigger: trigger, _parts: parts, _lock: lock })
    }

    /// A connection of a sender.
    ///
    /// # Errors
    /// `RATE_LIMITED` where there are too many.
    pub fn connect(&self) -> Result<Peer> {
        let connection = Connection::open(&self.counts, HERE, &[])
            .ok_or_else(|| Error::new(Code::RateLimited, "no room for one more connection"))?;
        Ok(Peer { router: self.router.clone(), gate: self.gate.clone(), connection })
    }
}

impl Peer {
    /// Answers a call over gRPC.
    ///
    /// # Errors
    /// `INTERNAL` where the answer's body breaks off.
    pub async fn grpc(&self, request: ::http::Request<Bytes>) -> Result<::http::Response<Carried>> {
        let mut request = request.map(|bytes| Body::new(Full::new(bytes)));
        request.extensions_mut().insert(Arc::clone(&self.connection));
        let answer = match self.gate.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        whole(answer).await
    }

    /// Answers a call over HTTP.
    ///
    /// # Errors
    /// As [`Self::grpc`].
    pub async fn http(&self, request: ::http::Request<Bytes>) -> Result<::http::Response<Carried>> {
        let request = request.map(axum::body::Body::from);
        let answer = match self.router.clone().oneshot(request).await {
            Ok(answer) => answer,
            Err(never) => match never {},
        };
        whole(answer).await
    }
}

async fn whole<B>(answer: ::http::Response<B>) -> Result<::http::Response<Carried>>
where
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Display,
{
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(|cause| {
        Error::new(Code::Internal, format!("the answer's body broke off: {cause}"))
    })?;
    let trailers = body.trailers().cloned();
    Ok(::http::Response::from_parts(head, Carried { bytes: body.to_bytes(), trailers }))
}
