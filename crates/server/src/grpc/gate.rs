//! Gate: what every call passes before its body is read.
//!
//! Promises: calls per connection, connections per tenant and the time of a call are bounded; a service of senders is
//! reached with a [`Caller`] or not at all, and its body counts in the caller's budget; a server that drains takes no new
//! call and counts those under way.
//! Never: logs a header.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use protocol::{Code, Error, Result, limits};
use runtime::{
    clock::{Mono, Wall},
    shutdown::Calls,
};
use tonic::body::Body;

use super::{
    Answering,
    connection::Connection,
    intake::{self, Counted},
    status,
};
use crate::service::{
    Caller,
    access::Access,
    budget::{Budget, Room},
};

/// When a call that found no free slot should come again.
const SLOT_WAIT: Duration = Duration::from_millis(200);
/// When a tenant with too many connections should try one more.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// Services that anyone may call, at any time: they tell nothing of a tenant.
const OPEN: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/grpc.reflection.v1alpha.ServerReflection/",
];

/// What the gate works with; as a layer it puts itself before every service.
#[derive(Clone, Debug)]
pub(super) struct Keeper {
    pub(super) access: Access,
    pub(super) budget: Budget,
    pub(super) calls: Calls,
}

#[derive(Clone, Debug)]
pub(crate) struct Gate<S> {
    keeper: Keeper,
    inner: S,
}

impl<S> tower::Layer<S> for Keeper {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { keeper: self.clone(), inner }
    }
}

/// The caller that the gate let in.
pub(super) fn caller(extensions: &tonic::Extensions) -> Result<Caller> {
    extensions
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Error::new(Code::Internal, "a call came around the gate"))
}

/// The room that the gate's body takes for its message.
pub(super) fn room<B>(request: &http::Request<B>) -> Result<Room> {
    request
        .extensions()
        .get::<Room>()
        .cloned()
        .ok_or_else(|| Error::new(Code::Internal, "a call came around the gate"))
}

impl<S> tower::Service<http::Request<Body>> for Gate<S>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        // The one that was polled ready answers; its clone waits for the next call.
        let ready = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, ready);
        let keeper = self.keeper.clone();
        Box::pin(async move {
            let begun = Mono::now();
            let method = label(request.uri().path());
            let response = match tokio::time::timeout(
                limits::CALL_TIMEOUT,
                pass(keeper, inner, request),
            )
            .await
            {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => status::of(error).into_http(),
                Err(_) => {
                    let words =
                        format!("the call took longer than {} s", limits::CALL_TIMEOUT.as_secs());
                    status::of(Error::new(Code::Timeout, words)).into_http()
                }
            };
            note(method, &response, begun.elapsed());
            Ok(response)
        })
    }
}

async fn pass<S>(
    keeper: Keeper,
    mut inner: S,
    mut request: http::Request<Body>,
) -> Result<http::Response<Body>>
where
    S: tower::Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    let connection = request
        .extensions()
        .get::<Arc<Connection>>()
        .cloned()
        .ok_or_else(|| Error::new(Code::Internal, "a call came without a connection"))?;
    let _slot = connection.call_slot().ok_or_else(|| {
        let words = format!("{} calls are at work on this connection", limits::CONNECTION_CALLS);
        Error::new(Code::RateLimited, words).retry_in(SLOT_WAIT)
    })?;
    let mut admitted = None;
    if !OPEN.iter().any(|service| request.uri().path().starts_with(service)) {
        let call = keeper.calls.begin()?;
        let mut caller = keeper.access.authenticate(token(&request)?, Wall::now()).await?;
        if !connection.admit(caller.tenant) {
            let words = format!("the tenant has {} connections", limits::TENANT_CONNECTIONS);
            return Err(Error::new(Code::RateLimited, words).retry_in(CONNECTION_WAIT));
        }
        caller.connection = connection.id;
        let room;
        (request, room) = counted(request, &caller, &keeper.budget);
        request.extensions_mut().insert(caller);
        admitted = Some((call, room));
    }
    let answered = inner.call(request).await;
    drop(admitted);
    match answered {
        Ok(response) => Ok(response),
        Err(never) => match never {},
    }
}

/// The request with its message counted from its first byte on, and the room that the call holds for it.
fn counted(
    mut request: http::Request<Body>,
    caller: &Caller,
    budget: &Budget,
) -> (http::Request<Body>, Option<Room>) {
    let Some(share) = intake::share(request.uri().path()) else { return (request, None) };
    let room = budget.room(caller.tenant, share);
    request.extensions_mut().insert(room.clone());
    let held = room.clone();
    (request.map(|body| Body::new(Counted::new(body, room, share))), Some(held))
}

fn token(request: &http::Request<Body>) -> Result<&str> {
    let missing = || {
        Error::new(
            Code::Unauthenticated,
            "metadata authorization: Bearer {token} is missing or malformed",
        )
    };
    let mut values = request.headers().get_all(http::header::AUTHORIZATION).iter();
    let value = values.next().and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
    let (scheme, token) = value.split_once(' ').ok_or_else(missing)?;
    if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() {
        Ok(token.trim())
    } else {
        Err(missing())
    }
}

/// A bounded set of labels, whatever path is called.
fn label(path: &str) -> &'static str {
    const METHODS: [&str; 12] = [
        "TableStream/Write",
        "TableStream/Summary",
        "Session/Open",
        "Session/Renew",
        "Session/Release",
        "Session/Prepare",
        "Reconcile/Ranges",
        "Reconcile/Rows",
        "Agent/Report",
        "Agent/Commands",
        "Agent/Progress",
        "Health/Check",
    ];
    METHODS.into_iter().find(|method| path.ends_with(method)).unwrap_or("other")
}

/// Errors come as headers alone, so the status is there; a success has it in its trailers.
fn note(method: &'static str, response: &http::Response<Body>, time: Duration) {
    let status =
        response.headers().get("grpc-status").and_then(|value| value.to_str().ok()).unwrap_or("0");
    let status = tonic::Code::from_bytes(status.as_bytes());
    tracing::debug!(method, status = ?status, ms = time.as_millis(), "grpc");
    metrics::counter!("malote_grpc_calls_total", "method" => method, "status" => format!("{status:?}")).increment(1);
    metrics::histogram!("malote_grpc_seconds", "method" => method).record(time.as_secs_f64());
}
