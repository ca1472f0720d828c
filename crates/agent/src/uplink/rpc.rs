//! Calls over gRPC: the spooled bytes as they are, everything else by message type.
//!
//! Promises: the bytes sent are the bytes given (an exact repeat is exact); every call has a deadline and the token.
//! Never: decides what an answer means.

use std::{sync::Arc, time::Duration};

use bytes::{BufMut as _, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use protocol::{
    Code, Error, Result,
    ids::Epoch,
    limits,
    proto::{
        ingestion::{PrepareRequest, PrepareResponse},
        totvs,
    },
};
use runtime::{dial, failpoint};
use tonic::{
    Request, Status, Streaming,
    client::Grpc,
    codec::{Codec, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tonic_prost::{ProstCodec, ProstDecoder};

use super::{
    cloud::{Bearer, Cloud},
    decide::Outcome,
    line::Line,
    proxy,
};

pub(super) const WRITE: &str = "/com.totvs.ingestion.grpc.TableStream/Write";
pub(super) const SUMMARY: &str = "/com.totvs.ingestion.grpc.TableStream/Summary";
pub(super) const OPEN: &str = "/malote.ingestion.v1.Session/Open";
pub(super) const RENEW: &str = "/malote.ingestion.v1.Session/Renew";
pub(super) const RELEASE: &str = "/malote.ingestion.v1.Session/Release";
const PREPARE: &str = "/malote.ingestion.v1.Session/Prepare";
pub(super) const RANGES: &str = "/malote.ingestion.v1.Reconcile/Ranges";
pub(super) const ROWS: &str = "/malote.ingestion.v1.Reconcile/Rows";
pub(super) const REPORT: &str = "/malote.fleet.v1.Agent/Report";
pub(super) const COMMANDS: &str = "/malote.fleet.v1.Agent/Commands";
pub(super) const PROGRESS: &str = "/malote.fleet.v1.Agent/Progress";

/// Writes spooled messages without reading them.
#[derive(Clone, Copy, Debug, Default)]
struct RawCodec;

#[derive(Clone, Copy, Debug)]
struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Bytes;
    type Error = Status;
    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(item.len());
        out.put(item);
        Ok(())
    }
}

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = totvs::TableInputResponse;
    type Encoder = RawEncoder;
    type Decoder = ProstDecoder<totvs::TableInputResponse>;
    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }
    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(tonic::codec::BufferSettings::default())
    }
}

/// A message as `ProstCodec` wants it.
pub(super) trait Wire: Message + Send + Sync + 'static {}
impl<T: Message + Send + Sync + 'static> Wire for T {}

/// One connection to the ingestion service.
#[derive(Clone, Debug)]
pub(super) struct Rpc {
    grpc: Grpc<Line>,
    /// Address of the service, for people.
    target: Arc<str>,
    cloud: Arc<Cloud>,
}

impl Rpc {
    pub(super) fn new(line: Line, target: &str, cloud: Arc<Cloud>) -> Self {
        Self { grpc: Grpc::new(line), target: target.into(), cloud }
    }

    pub(super) async fn bearer(&self) -> Result<Bearer> {
        self.cloud.bearer().await
    }

    pub(super) async fn token_refused(&self, bearer: &Bearer) {
        self.cloud.refused(bearer).await;
    }

    /// A Write of spooled bytes.
    pub(super) async fn write(self, bytes: Bytes, bearer: Bearer, epoch: Option<Epoch>) -> Outcome {
        let call = async {
            failpoint::pass("cloud.write", Code::CloudUnreachable).await?;
            let answer = self.unary(request(bytes, &bearer, epoch), WRITE, RawCodec).await;
            failpoint::pass("cloud.written", Code::CloudUnreachable).await?;
            Ok(answer.map(|answer| (answer.success, answer.errors)))
        };
        answered(call.await)
    }

    /// The Summary, with the base loads that end in its batch.
    pub(super) async fn summary(
        &self,
        summary: totvs::BatchSummary,
        bearer: &Bearer,
        epoch: Option<Epoch>,
        loads_done: &str,
    ) -> Outcome {
        let mut request = request(summary, bearer, epoch);
        if !loads_done.is_empty() {
            match loads_done.parse() {
                Ok(value) => request.metadata_mut().insert("x-base-load-done", value),
                // Entries are written in ASCII alone, so this is a bug: it must not look like success.
                Err(_) => {
                    return outcome(&Status::internal("INTERNAL: the loads done are no header"));
                }
            };
        }
        let codec = ProstCodec::<totvs::BatchSummary, totvs::BatchSummaryResponse>::default();
        let call = async {
            failpoint::pass("cloud.summary", Code::CloudUnreachable).await?;
            let answer = self.clone().unary(request, SUMMARY, codec).await;
            failpoint::pass("cloud.summarized", Code::CloudUnreachable).await?;
            Ok(answer.map(|answer| (answer.success, answer.errors)))
        };
        answered(call.await)
    }

    /// The cursor's entries, once and under this token: a call that asks for a token by itself may be waited for by who
    /// asks for one too.
    pub(super) async fn prepare(self, entries: PrepareRequest, bearer: Bearer) -> Outcome {
        let request = request(entries, &bearer, None);
        let codec = ProstCodec::<PrepareRequest, PrepareResponse>::default();
        let call = async {
            failpoint::pass("cloud.prepare", Code::CloudUnreachable).await?;
            let answer = self.unary(request, PREPARE, codec).await;
            failpoint::pass("cloud.prepared", Code::CloudUnreachable).await?;
            Ok(answer.map(|_| (true, Vec::new())))
        };
        answered(call.await)
    }

    /// A call of Malote's own.
    pub(super) async fn call<Q, A>(
        &self,
        path: &'static str,
        message: Q,
    ) -> std::result::Result<A, CallError>
    where
        Q: Wire + Clone,
        A: Wire + Default,
    {
        self.call_under(path, message, None).await
    }

    /// As [`Rpc::call`], with the session's epoch where the message itself has no place for it.
    pub(super) async fn call_under<Q, A>(
        &self,
        path: &'static str,
        message: Q,
        epoch: Option<Epoch>,
    ) -> std::result::Result<A, CallError>
    where
        Q: Wire + Clone,
        A: Wire + Default,
    {
        self.authorized(|bearer| {
            let request = request(message.clone(), &bearer, epoch);
            self.clone().unary(request, path, ProstCodec::<Q, A>::default())
        })
        .await
    }

    /// A call that is answered by one message after another, for as long as both sides like.
    pub(super) async fn stream<Q, A>(
        &self,
        path: &'static str,
        message: Q,
    ) -> std::result::Result<Streaming<A>, CallError>
    where
        Q: Wire + Clone,
        A: Wire + Default,
    {
        self.authorized(|bearer| {
            let request = request(message.clone(), &bearer, None);
            self.clone().streaming(request, path, ProstCodec::<Q, A>::default())
        })
        .await
    }

    /// A refused token is renewed and the call repeated once.
    async fn authorized<A, F>(
        &self,
        call: impl Fn(Bearer) -> F,
    ) -> std::result::Result<A, CallError>
    where
        F: Future<Output = std::result::Result<A, Status>>,
    {
        let mut renewed = false;
        loop {
            let bearer = self.bearer().await.map_err(CallError::Before)?;
            match call(bearer.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(status) if status.code() == tonic::Code::Unauthenticated && !renewed => {
                    renewed = true;
                    self.token_refused(&bearer).await;
                }
                Err(status) => return Err(CallError::Status(status)),
            }
        }
    }

    async fn unary<C>(
        mut self,
        mut request: Request<C::Encode>,
        path: &'static str,
        codec: C,
    ) -> std::result::Result<C::Decode, Status>
    where
        C: Codec + Send,
        C::Encode: Send + Sync + 'static,
        C::Decode: Send + Sync + 'static,
    {
        request.set_timeout(limits::CALL_TIMEOUT);
        let target = Arc::clone(&self.target);
        let unconnected = |cause: &(dyn std::error::Error + 'static)| {
            dial::why(cause)
                .or_else(|| proxy::refused(cause))
                .map(|why| Status::unavailable(format!("{target}: {why}")))
        };
        let call = async {
            if let Err(cause) = self.grpc.ready().await {
                let status = unconnected(&*cause);
                return Err(status.unwrap_or_else(|| Status::unavailable(chain(&*cause))));
            }
            let answer = self.grpc.unary(request, PathAndQuery::from_static(path), codec).await;
            answer.map_err(|status| unconnected(&status).unwrap_or(status))
        };
        match tokio::time::timeout(limits::CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("TIMEOUT: no answer in time")),
        }
    }

    /// Its begin has a deadline; what follows comes when there is something to say.
    async fn streaming<Q, A>(
        mut self,
        request: Request<Q>,
        path: &'static str,
        codec: ProstCodec<Q, A>,
    ) -> std::result::Result<Streaming<A>, Status>
    where
        Q: Wire,
        A: Wire + Default,
    {
        let call = async {
            let ready = self.grpc.ready().await;
            ready.map_err(|cause| Status::unavailable(chain(&*cause)))?;
            self.grpc.server_streaming(request, PathAndQuery::from_static(path), codec).await
        };
        match tokio::time::timeout(limits::CALL_TIMEOUT, call).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded("TIMEOUT: no answer in time")),
        }
    }
}

/// Why a call of Malote's own has no answer.
#[derive(Debug)]
pub(super) enum CallError {
    /// No token could be had.
    Before(Error),
    Status(Status),
}

impl CallError {
    pub(super) fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == tonic::Code::Unimplemented)
    }

    pub(super) fn grpc(&self) -> Option<tonic::Code> {
        match self {
            Self::Before(_) => None,
            Self::Status(status) => Some(status.code()),
        }
    }

    /// As the contract's table of answers takes it. Without a token nothing was sent, so it is tried again.
    pub(super) fn outcome(&self) -> Outcome {
        match self {
            Self::Before(error) => Outcome::Status {
                grpc: tonic::Code::Unavailable,
                words: error.to_string(),
                retry_after: error.retry_after,
            },
            Self::Status(status) => outcome(status),
        }
    }

    /// As an error of this program, for people.
    pub(super) fn error(&self) -> Error {
        match self {
            Self::Before(error) => Error::new(error.code, error.message.clone()),
            Self::Status(status) => {
                let words = status.message();
                let code = super::decide::code_of(words);
                let text = words
                    .split_once(": ")
                    .filter(|_| code.is_some())
                    .map_or(words, |(_, text)| text);
                let code = code.unwrap_or(match status.code() {
                    tonic::Code::Unauthenticated => Code::Unauthenticated,
                    tonic::Code::PermissionDenied => Code::PermissionDenied,
                    tonic::Code::FailedPrecondition => Code::Fenced,
                    tonic::Code::NotFound => Code::NotFound,
                    tonic::Code::InvalidArgument => Code::BadRequest,
                    _ => Code::CloudUnreachable,
                });
                Error::new(code, if text.is_empty() { "the server does not answer" } else { text })
            }
        }
    }
}

fn request<T>(message: T, bearer: &Bearer, epoch: Option<Epoch>) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    // A token is base64url and dots; one that is not would be refused by the server anyway.
    if let Ok(mut value) = bearer.value().parse::<tonic::metadata::AsciiMetadataValue>() {
        value.set_sensitive(true);
        metadata.insert("authorization", value);
    }
    if let Some(epoch) = epoch {
        metadata.insert("x-sender-epoch", epoch.0.into());
    }
    request
}

fn outcome(status: &Status) -> Outcome {
    let words = status.message().to_owned();
    Outcome::Status {
        grpc: status.code(),
        words,
        retry_after: retry_after(status.metadata(), status.details()),
    }
}

/// What a call of the contract came to: its `success` and `errors[]`, a status, or an error before it was sent.
fn answered(call: Result<std::result::Result<(bool, Vec<String>), Status>>) -> Outcome {
    match call {
        Ok(Ok((true, _))) => Outcome::Success,
        Ok(Ok((false, errors))) => Outcome::Refused(errors),
        Ok(Err(status)) => outcome(&status),
        Err(error) => CallError::Before(error).outcome(),
    }
}

/// Whatever the server asks for, a sender that holds a lease is not silent for longer.
const RETRY_MOST: Duration = Duration::from_secs(5 * 60);

/// `retry-after` in seconds, or `google.rpc.RetryInfo` among the details.
fn retry_after(metadata: &MetadataMap, details: &[u8]) -> Option<Duration> {
    let told = told_retry(metadata, details)?;
    Some(told.min(RETRY_MOST))
}

fn told_retry(metadata: &MetadataMap, details: &[u8]) -> Option<Duration> {
    let seconds =
        metadata.get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
    seconds.map(Duration::from_secs).or_else(|| {
        let status = RpcStatus::decode(details).ok()?;
        let any =
            status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
        let delay = RetryInfo::decode(any.value.as_slice()).ok()?.retry_delay?;
        Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?))
    })
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<prost_types::Duration>,
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut words = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        next = cause.source();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_wait_is_read_from_the_header_or_the_details() {
        let mut metadata = MetadataMap::new();
        metadata.insert("retry-after", "2".parse().unwrap());
        assert_eq!(retry_after(&metadata, &[]), Some(Duration::from_secs(2)));
        let delay = prost_types::Duration { seconds: 3, nanos: 500_000_000 };
        let info = RetryInfo { retry_delay: Some(delay) };
        let any = prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".into(),
            value: info.encode_to_vec(),
        };
        let details = RpcStatus { details: vec![any] }.encode_to_vec();
        assert_eq!(retry_after(&MetadataMap::new(), &details), Some(Duration::from_millis(3500)));
        assert_eq!(retry_after(&MetadataMap::new(), b"\xff"), None);
        metadata.insert("retry-after", u64::MAX.to_string().parse().unwrap());
        assert_eq!(retry_after(&metadata, &[]), Some(RETRY_MOST));
    }
}
