//! TableStream: Write and Summary of document 001.
//!
//! Promises: a business outcome is status OK with `success = false` and `CODE: words` in `errors[]`.
//! Never: decodes a table message here.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use protocol::{
    Error, GrpcStatus, Result,
    proto::totvs::{BatchSummary, BatchSummaryResponse, TableInputResponse},
};
use runtime::clock::Wall;
use tonic::{Request, body::Body, server::NamedService};

use super::{
    Answering,
    codec::{RawCodec, SparseCodec},
    gate, metadata, status, unary, unknown_method,
};
use crate::service::{Services, ingest};

/// The documented service.
#[derive(Clone, Debug)]
pub(super) struct TableStream {
    services: Services,
}

impl NamedService for TableStream {
    const NAME: &'static str = "com.totvs.ingestion.grpc.TableStream";
}

impl TableStream {
    pub(super) fn new(services: Services) -> Self {
        Self { services }
    }

    async fn write(self, request: Request<ingest::Message>) -> Result<TableInputResponse> {
        let caller = gate::caller(request.extensions())?;
        let epoch = metadata::epoch(request.metadata())?;
        let done =
            self.services.ingest.write(&caller, epoch, request.into_inner(), Wall::now()).await;
        let (success, errors) = outcome(done)?;
        Ok(TableInputResponse { success, errors })
    }

    async fn summary(self, request: Request<BatchSummary>) -> Result<BatchSummaryResponse> {
        let caller = gate::caller(request.extensions())?;
        let epoch = metadata::epoch(request.metadata())?;
        let loads = metadata::base_loads_done(request.metadata())?;
        let done = self
            .services
            .ingest
            .summary(&caller, epoch, &loads, request.get_ref(), Wall::now())
            .await;
        let (success, errors) = outcome(done)?;
        Ok(BatchSummaryResponse { success, errors })
    }
}

fn outcome(done: Result<()>) -> Result<(bool, Vec<String>)> {
    match done {
        Ok(()) => Ok((true, Vec::new())),
        Err(error) if is_business(&error) => Ok((false, vec![error.to_string()])),
        Err(error) => Err(error),
    }
}

fn is_business(error: &Error) -> bool {
    error.code.grpc() == GrpcStatus::Ok
}

impl tower::Service<http::Request<Body>> for TableStream {
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
                "/com.totvs.ingestion.grpc.TableStream/Write" => match gate::room(&request) {
                    Ok(room) => {
                        let codec = RawCodec::new(room);
                        unary(codec, request, move |request| this.clone().write(request)).await
                    }
                    Err(error) => status::of(error).into_http(),
                },
                "/com.totvs.ingestion.grpc.TableStream/Summary" => {
                    unary(SparseCodec::default(), request, move |request| {
                        this.clone().summary(request)
                    })
                    .await
                }
                _ => unknown_method(),
            })
        })
    }
}
