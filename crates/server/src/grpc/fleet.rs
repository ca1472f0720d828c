//! Agent: reports, commands and their progress (`contracts.md` 5.6).
//!
//! Promises: the stream is the caller's tenant and environment, whatever the message says; a stream of commands ends by
//! itself, and at once where the server drains.
//! Never: keeps state, decides who may report.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, stream};
use protocol::{
    Result,
    proto::fleet::{Command, CommandsRequest, ProgressRequest, ProgressResponse},
};
use runtime::{clock::Wall, shutdown::Calls};
use tonic::{
    Request, Response, Status,
    body::Body,
    codec::CompressionEncoding,
    server::{Grpc, NamedService},
};

use super::{Answering, codec::SparseCodec, gate, intake, metadata, status, unary, unknown_method};
use crate::service::fleet::{Commands, Fleet};

/// Commands as they go out.
type Outgoing = Pin<Box<dyn Stream<Item = Result<Command, Status>> + Send>>;

/// The service of agents.
#[derive(Clone, Debug)]
pub(super) struct Agent {
    fleet: Fleet,
    calls: Calls,
}

impl NamedService for Agent {
    const NAME: &'static str = "malote.fleet.v1.Agent";
}

impl Agent {
    pub(super) fn new(fleet: Fleet, calls: Calls) -> Self {
        Self { fleet, calls }
    }

    async fn progress(self, request: Request<ProgressRequest>) -> Result<ProgressResponse> {
        let caller = gate::caller(request.extensions())?;
        let epoch = metadata::epoch(request.metadata())?;
        self.fleet.progress(&caller, epoch, request.into_inner(), Wall::now()).await
    }

    async fn commands(self, request: Request<CommandsRequest>) -> Result<Outgoing> {
        let caller = gate::caller(request.extensions())?;
        let commands = self.fleet.commands(&caller, request.into_inner(), Wall::now()).await?;
        Ok(outgoing(commands, self.calls))
    }
}

/// One command after another, until the stream had its time, its lease is another's, or the server drains.
fn outgoing(commands: Commands, calls: Calls) -> Outgoing {
    let next = |state: Option<(Commands, Calls)>| async move {
        let (mut commands, calls) = state?;
        let next = tokio::select! {
            biased;
            () = calls.draining() => return None,
            next = commands.next() => next,
        };
        match next {
            Ok(command) => Some((Ok(command?), Some((commands, calls)))),
            Err(error) => Some((Err(status::of(error)), None)),
        }
    };
    Box::pin(stream::unfold(Some((commands, calls)), next))
}

impl tower::Service<http::Request<Body>> for Agent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Answering {
        let this = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/malote.fleet.v1.Agent/Report" => {
                    let report = move |request: Request<_>| {
                        let fleet = this.fleet.clone();
                        async move {
                            let caller = gate::caller(request.extensions())?;
                            fleet.report(&caller, request.into_inner(), Wall::now()).await
                        }
                    };
                    unary(SparseCodec::default(), request, report).await
                }
                "/malote.fleet.v1.Agent/Progress" => {
                    let progress = move |request| this.clone().progress(request);
                    unary(SparseCodec::default(), request, progress).await
                }
                "/malote.fleet.v1.Agent/Commands" => streamed(this, request).await,
                _ => unknown_method(),
            })
        })
    }
}

async fn streamed(agent: Agent, request: http::Request<Body>) -> http::Response<Body> {
    let service = tower::service_fn(move |request: Request<CommandsRequest>| {
        let agent = agent.clone();
        async move { agent.commands(request).await.map(Response::new).map_err(status::of) }
    });
    Grpc::new(SparseCodec::default())
        .max_decoding_message_size(intake::most(request.uri().path()))
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd)
        .server_streaming(service, request)
        .await
}
