//! Line: what a gRPC call goes over: a channel, or the network of a simulated world where one is installed.
//!
//! Promises: over both go the same requests, made by the same code; a simulated one is whole when it leaves, since that
//! network knows calls and not frames.
//! Never: decides what may be called; `web` does, before a line is made.

use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Uri;
use http_body_util::{BodyExt as _, Full};
use protocol::{Code, Coded as _, Result};
use runtime::world;
use tonic::{body::Body, transport::Channel};
use tower::Service;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A line to one service.
#[derive(Clone, Debug)]
pub(super) enum Line {
    Dialled(Channel),
    /// Scheme and authority of the service.
    World(Uri),
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Failure>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self {
            Self::Dialled(channel) => channel.poll_ready(context).map_err(Into::into),
            Self::World(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Dialled(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { Ok(answer.await?) })
            }
            Self::World(service) => Box::pin(carried(service.clone(), request)),
        }
    }
}

/// Carries one whole call.
async fn carried(
    service: Uri,
    request: http::Request<Body>,
) -> Result<http::Response<Body>, Failure> {
    let (mut head, body) = request.into_parts();
    let mut parts = service.into_parts();
    parts.path_and_query = head.uri.into_parts().path_and_query;
    head.uri = Uri::from_parts(parts)?;
    let body: Bytes = body.collect().await?.to_bytes();
    let (head, carried) = world::carry(http::Request::from_parts(head, body)).await?.into_parts();
    let trailers = carried.trailers.map(Ok);
    let body = Full::new(carried.bytes).with_trailers(std::future::ready(trailers));
    Ok(http::Response::from_parts(head, Body::new(body)))
}

/// Carries one whole call over HTTP; the answer's status and body.
pub(super) async fn fetch(request: reqwest::Request) -> Result<(http::StatusCode, Bytes)> {
    let mut to_carry = http::Request::new(Bytes::new());
    if let Some(body) = request.body().and_then(reqwest::Body::as_bytes) {
        *to_carry.body_mut() = Bytes::copy_from_slice(body);
    }
    *to_carry.method_mut() = request.method().clone();
    *to_carry.headers_mut() = request.headers().clone();
    *to_carry.uri_mut() =
        request.url().as_str().parse().coded(Code::Internal, "an address that is no URI")?;
    let answer = tokio::time::timeout(protocol::limits::CALL_TIMEOUT, world::carry(to_carry));
    let answer = answer.await.coded(Code::CloudUnreachable, "no answer came in time")?;
    let (head, carried) =
        answer.coded(Code::CloudUnreachable, "the server does not answer")?.into_parts();
    Ok((head.status, carried.bytes))
}
