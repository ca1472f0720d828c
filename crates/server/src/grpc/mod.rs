//! gRPC: table messages and Summaries as document 001 has them, sessions, reconcile and the fleet as Malote adds them,
//! reflection and health.
//!
//! Promises: a caller is known before a byte of the body is read; every limit of HTTP/2 is set here, none is left to a
//! library's default; an error is `CODE: words`, with retry info where the caller shall wait.
//! Never: decides a rule (the services do); reads tenant or environment from a message.

mod codec;
mod connection;
mod fleet;
mod gate;
mod ingestion;
mod intake;
mod metadata;
mod status;
mod table_stream;

use std::{convert::Infallible, future::Future, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use protocol::{Error, limits, proto};
use runtime::{
    shutdown::{Calls, Shutdown},
    tls::Tls,
};
use tokio::net::TcpListener;
use tonic::{
    body::Body,
    codec::{Codec, CompressionEncoding},
    server::Grpc,
    service::Routes,
    transport::Server,
};

pub(crate) use connection::{Connection, Counts};
pub(crate) use gate::Gate;

use crate::service::Services;

/// A rapid reset of streams is cut off after this many that wait (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that the server itself reset for errors, per connection.
const ERROR_RESETS: usize = 1_024;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(10);
/// A connection is asked to come again after this, so that load spreads over replicas.
const CONNECTION_AGE: Duration = Duration::from_secs(30 * 60);
/// Flow control: a stream may send one whole message ahead, a connection what a tenant may have in flight.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Requests of reflection and health are some names.
const SMALL_MESSAGE: usize = 16 * 1024;

/// An answer on its way.
type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Serves until it is to close, which comes after the drain and the calls under way.
pub(crate) async fn serve(
    (listener, tls): (TcpListener, Option<Tls>),
    services: Services,
    proxies: Arc<[IpAddr]>,
    (calls, mut closing): (Calls, Shutdown),
) {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<table_stream::TableStream>().await;
    health.set_serving::<ingestion::Session>().await;
    health.set_serving::<ingestion::Reconcile>().await;
    let mut routes = of_senders(&services)
        .add_service(fleet::Agent::new(services.fleet.clone(), calls.clone()))
        .add_service(health_service.max_decoding_message_size(SMALL_MESSAGE));
    match (reflection().build_v1(), reflection().build_v1alpha()) {
        (Ok(v1), Ok(v1alpha)) => {
            routes = routes
                .add_service(v1.max_decoding_message_size(SMALL_MESSAGE))
                .add_service(v1alpha.max_decoding_message_size(SMALL_MESSAGE));
        }
        (Err(cause), _) | (_, Err(cause)) => {
            tracing::error!(%cause, "reflection is off: the descriptors do not read")
        }
    }
    let drained = calls.clone();
    let stop = async move {
        drained.draining().await;
        health.set_not_serving::<table_stream::TableStream>().await;
        health.set_not_serving::<ingestion::Session>().await;
        health.set_not_serving::<ingestion::Reconcile>().await;
        health.set_not_serving::<fleet::Agent>().await;
        health.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        closing.draining().await;
    };
    let keeper = gate::Keeper { access: services.access, budget: services.budget, calls };
    let served = limited()
        .layer(keeper)
        .add_routes(routes)
        .serve_with_incoming_shutdown(connection::incoming((listener, tls), proxies), stop)
        .await;
    if let Err(cause) = served {
        tracing::error!(%cause, "gRPC ended");
    }
}

fn of_senders(services: &Services) -> Routes {
    Routes::new(table_stream::TableStream::new(services.clone()))
        .add_service(ingestion::Session::new(services.clone()))
        .add_service(ingestion::Reconcile::new(services.clone()))
}

/// What a caller of the same process reaches: the services of senders behind their gate, without a socket.
pub(crate) fn inside(services: &Services, calls: Calls) -> Gate<Routes> {
    let Services { access, budget, .. } = services.clone();
    tower::Layer::layer(&gate::Keeper { access, budget, calls }, of_senders(services))
}

/// The limits of `correctness.md` k 5. Calls per connection, time-outs and the handshake are bounded in `gate` and
/// `connection`, where the refusal can carry a code and retry info.
fn limited() -> Server {
    Server::builder()
        .max_concurrent_streams(limits::CONNECTION_STREAMS)
        .http2_max_header_list_size(limits::HEADER_LIST_BYTES)
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_local_error_reset_streams(Some(ERROR_RESETS))
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .http2_adaptive_window(Some(false))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_connection_age(CONNECTION_AGE)
}

fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Runs one unary call: the message is bounded while it is read and while it is unpacked.
async fn unary<C, W, F>(codec: C, request: http::Request<Body>, mut work: W) -> http::Response<Body>
where
    C: Codec,
    C::Decode: Send + Sync,
    C::Encode: Send,
    W: FnMut(tonic::Request<C::Decode>) -> F + Send,
    F: Future<Output = Result<C::Encode, Error>> + Send,
{
    let service = tower::service_fn(move |request: tonic::Request<C::Decode>| {
        let answer = work(request);
        async move { answer.await.map(tonic::Response::new).map_err(status::of) }
    });
    Grpc::new(codec)
        .max_decoding_message_size(intake::most(request.uri().path()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .unary(service, request)
        .await
}

/// The answer to a method that the service does not have.
fn unknown_method() -> http::Response<Body> {
    tonic::Status::unimplemented("METHOD_NOT_ALLOWED: the service has no such method").into_http()
}

#[cfg(test)]
mod matrix;
#[cfg(test)]
mod tests;
