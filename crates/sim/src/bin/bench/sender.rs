//! Sender: a client of the documented TableStream, and a bare server that takes the same calls.
//!
//! Promises: nothing of the agent is used; an answer that is not a success ends the bench; several Writes are under way
//! on a connection, begun in the order of their numbers.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes};
use protocol::{
    Code, Coded as _, Error, Result, limits,
    proto::totvs::{BatchSummary, BatchSummaryResponse, TableInputResponse},
};
use runtime::{clock::Mono, task};
use tokio::sync::Semaphore;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{BoxFuture, Service, http, http::uri::PathAndQuery},
    metadata::MetadataValue,
    server::{NamedService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::{ProstCodec, ProstDecoder, ProstEncoder};

use super::pouch::{Pouch, ROWS};

const WRITE: &str = "/com.totvs.ingestion.grpc.TableStream/Write";
const SUMMARY: &str = "/com.totvs.ingestion.grpc.TableStream/Summary";
/// Writes under way on one connection.
const IN_FLIGHT: usize = 16;
/// Messages of a batch.
const BATCH: u64 = 500;
/// As the server's own, so that the bare one has the same room.
const WINDOWS: (u32, u32) = (1024 * 1024, 16 * 1024 * 1024);

/// Bytes as they are one way, the contract's answer the other.
struct Raw;

struct RawBytes;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = TableInputResponse;
    type Encoder = RawBytes;
    type Decoder = ProstDecoder<TableInputResponse>;
    fn encoder(&mut self) -> RawBytes {
        RawBytes
    }
    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::default())
    }
}

impl Encoder for RawBytes {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawBytes {
    type Item = Bytes;
    type Error = Status;
    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One stream's connection.
#[derive(Clone)]
pub(crate) struct Sender {
    grpc: Grpc<Channel>,
    bearer: MetadataValue<tonic::metadata::Ascii>,
    erp: String,
}

impl Sender {
    /// # Errors
    /// Where nothing listens there.
    pub(crate) async fn connect(port: u16, token: &str, erp: &str) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        let endpoint = endpoint.coded(Code::Internal, "no address")?.tcp_nodelay(true);
        let channel = endpoint.connect().await.coded(Code::Internal, "no connection")?;
        let bearer = format!("Bearer {token}").parse().coded(Code::Internal, "no token")?;
        Ok(Self { grpc: Grpc::new(channel), bearer, erp: erp.to_owned() })
    }

    /// Sends that many messages in batches from that id on; gives the time of each Write.
    pub(crate) async fn send(
        mut self,
        table: &str,
        messages: u64,
        first_batch: i64,
    ) -> Result<Vec<Duration>> {
        let pouch = Pouch::new(&self.erp, table);
        let room = Arc::new(Semaphore::new(IN_FLIGHT));
        let (mut times, mut done) = (Vec::new(), 0);
        for batch in first_batch.. {
            let count = BATCH.min(messages - done);
            let mut writes = Vec::new();
            for (number, at) in (1..).zip(done..done + count) {
                let permit = Arc::clone(&room).acquire_owned().await;
                let message = pouch.message((batch, number), at * ROWS);
                let mut sender = self.clone();
                writes.push(task::spawn("write", async move {
                    let begun = Mono::now();
                    let answer: TableInputResponse = sender.call(message, WRITE, Raw).await?;
                    drop(permit);
                    accepted(answer.success, answer.errors).map(|()| begun.elapsed())
                }));
            }
            for write in writes {
                times.push(write.join().await??);
            }
            done += count;
            let count = i32::try_from(count).unwrap_or_default();
            let summary = BatchSummary {
                erp: self.erp.clone(),
                batch_id: batch,
                message_count: count,
                record_count: count * i32::try_from(ROWS).unwrap_or_default(),
                timestamp_start: None,
                timestamp_end: None,
            };
            let codec = ProstCodec::<BatchSummary, BatchSummaryResponse>::default();
            let answer = self.call(summary, SUMMARY, codec).await?;
            accepted(answer.success, answer.errors)?;
            if done >= messages {
                break;
            }
        }
        Ok(times)
    }

    async fn call<C>(
        &mut self,
        message: C::Encode,
        path: &'static str,
        codec: C,
    ) -> Result<C::Decode>
    where
        C: Codec,
        C::Encode: Send + Sync + 'static,
        C::Decode: Send + Sync + 'static,
    {
        self.grpc.ready().await.coded(Code::Internal, "the connection broke")?;
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", self.bearer.clone());
        let answer = self.grpc.unary(request, PathAndQuery::from_static(path), codec).await;
        Ok(answer.coded(Code::Internal, format!("{path} failed"))?.into_inner())
    }
}

fn accepted(success: bool, errors: Vec<String>) -> Result<()> {
    if success {
        return Ok(());
    }
    Err(Error::new(Code::Internal, format!("not accepted: {}", errors.join(", "))))
}

/// The contract's answer one way, bytes as they are the other.
struct Taken;

impl Codec for Taken {
    type Encode = TableInputResponse;
    type Decode = Bytes;
    type Encoder = ProstEncoder<TableInputResponse>;
    type Decoder = RawBytes;
    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::default())
    }
    fn decoder(&mut self) -> RawBytes {
        RawBytes
    }
}

/// A server that takes the calls, answers success and keeps nothing.
#[derive(Clone)]
struct Bare;

impl NamedService for Bare {
    const NAME: &'static str = "com.totvs.ingestion.grpc.TableStream";
}

impl UnaryService<Bytes> for Bare {
    type Response = TableInputResponse;
    type Future = Ready<Result<Response<TableInputResponse>, Status>>;

    fn call(&mut self, _: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(TableInputResponse { success: true, errors: Vec::new() })))
    }
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            Ok(tonic::server::Grpc::new(Taken)
                .max_decoding_message_size(limits::MESSAGE_BYTES)
                .unary(Self, request)
                .await)
        })
    }
}

/// Serves the bare server on that port until the process ends.
///
/// # Errors
/// Where the port is taken.
pub(crate) async fn serve_bare(port: u16) -> Result<()> {
    Server::builder()
        .initial_stream_window_size(WINDOWS.0)
        .initial_connection_window_size(WINDOWS.1)
        .add_service(Bare)
        .serve(([127, 0, 0, 1], port).into())
        .await
        .coded(Code::Internal, "the bare server ended")
}
