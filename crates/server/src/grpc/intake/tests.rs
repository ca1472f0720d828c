use std::{convert::Infallible, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use http_body_util::StreamBody;
use prost::Message as _;
use protocol::proto::{
    ingestion::{PrepareRequest, PrepareResponse, RenewRequest, RenewResponse},
    totvs::{Table, TableInputResponse},
};
use runtime::task::{self, Task};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code as Grpc, Request, codec::CompressionEncoding, transport::Channel};
use tonic_prost::ProstCodec;
use tower::ServiceExt as _;

use super::{
    super::tests::{WRITE, call, channel, row, sized, table, with_token, write},
    *,
};
use crate::app::fixture::Running;

const PREPARE: &str = "/malote.ingestion.v1.Session/Prepare";
const WAIT: Duration = Duration::from_secs(20);

/// What came back of a call that sends its body piece by piece.
struct Answer {
    status: Grpc,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// Told to come again, by status, header and details.
    fn says_wait(&self) -> bool {
        self.status == Grpc::ResourceExhausted
            && self.headers.contains_key("retry-after")
            && self.headers.contains_key("grpc-status-details-bin")
    }

    fn success(&self) -> bool {
        self.status == Grpc::Ok
            && TableInputResponse::decode(&self.body[HEAD..]).is_ok_and(|answer| answer.success)
    }
}

/// A call whose body is what is put into the sender.
fn slow(channel: &Channel, path: &str, token: &str) -> (mpsc::Sender<Vec<u8>>, Task<Answer>) {
    let (put, pieces) = mpsc::channel::<Vec<u8>>(8);
    let frames = ReceiverStream::new(pieces)
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::from(piece))));
    let request = http::Request::post(path)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("authorization", format!("Bearer {token}"))
        .body(Body::new(StreamBody::new(frames)))
        .unwrap();
    let channel = channel.clone();
    let answer = task::spawn("slow", async move {
        let response = channel.oneshot(request).await.unwrap();
        let headers = response.headers().clone();
        let collected = http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
        let trailers = collected.trailers().cloned().unwrap_or_default();
        let status = headers.get("grpc-status").or(trailers.get("grpc-status"));
        let status = Grpc::from_bytes(status.unwrap().as_bytes());
        Answer { status, headers, body: collected.to_bytes().to_vec() }
    });
    (put, answer)
}

fn framed(message: &impl prost::Message) -> Vec<u8> {
    let length = u32::try_from(message.encoded_len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message.encode_to_vec()].concat()
}

/// What the tenant of the fixture holds.
fn held(running: &Running, share: Share) -> usize {
    running.app.services.budget.held(running.tenant.id, share)
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let wait = async {
        while !is() {
            runtime::clock::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(WAIT, wait).await.expect(what);
}

#[tokio::test]
async fn slow_bodies_of_a_tenant_stay_within_its_budget_and_hold_nobody_else_up() {
    let running = Running::start().await;
    let token = running.token().await;
    let whole = framed(&sized(limits::MESSAGE_BYTES));
    let (first, rest) = whole.split_at(1_000);
    let (mut bodies, mut answers) = (Vec::new(), FuturesUnordered::new());
    for _ in 0..4 {
        let channel = channel(&running).await;
        for _ in 0..10 {
            let (put, answer) = slow(&channel, WRITE, &token);
            put.send(first.to_vec()).await.unwrap();
            bodies.push(put);
            answers.push(answer.join());
        }
    }
    let fit = limits::TENANT_IN_FLIGHT_BYTES / (limits::MESSAGE_BYTES * limits::DECODE_FACTOR);
    for refused in 1..=bodies.len() - fit {
        let answer = tokio::time::timeout(WAIT, answers.next()).await;
        let answer = answer.unwrap_or_else(|_| panic!("only {} are refused", refused - 1));
        assert!(answer.unwrap().unwrap().says_wait());
    }
    let bytes = held(&running, Share::Writes);
    assert_eq!(bytes, fit * limits::MESSAGE_BYTES * limits::DECODE_FACTOR);
    let channel = channel(&running).await;
    let none = write(&channel, table(1, vec![row(1, "a")]), &token).await;
    assert!(none.is_ok_and(|answer| answer.success), "what is small fits beside them");
    let stranger = running.stranger("PROTHEUS").await;
    let other = write(&channel, table(1, vec![row(1, "a")]), &stranger).await.unwrap_err();
    assert_eq!(other.code(), Grpc::PermissionDenied, "a tenant with room is judged: {other:?}");

    for body in &bodies {
        // Whoever was refused takes no more.
        let _ = body.send(rest.to_vec()).await;
    }
    drop(bodies);
    while let Some(answer) = answers.next().await {
        let answer = answer.unwrap();
        assert!(answer.status == Grpc::Ok && !answer.success(), "other content under number 1");
    }
    until("the room is given back", || held(&running, Share::Writes) == 0).await;
}

#[tokio::test]
async fn a_message_comes_in_any_pieces_and_alone() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let message = framed(&table(1, vec![row(1, "a")]));
    let (put, answer) = slow(&channel, WRITE, &token);
    for byte in &message {
        put.send(vec![*byte]).await.unwrap();
    }
    drop(put);
    assert!(answer.join().await.unwrap().success());
    for more in [&message[..], b"\0"] {
        let (put, answer) = slow(&channel, WRITE, &token);
        put.send([&message[..], more].concat()).await.unwrap();
        let answer = tokio::time::timeout(WAIT, answer.join()).await.unwrap().unwrap();
        assert_eq!(answer.status, Grpc::InvalidArgument, "a second message is refused at once");
    }
    assert_eq!(held(&running, Share::Writes), 0);
}

#[tokio::test]
async fn packed_messages_count_as_unpacked_while_their_end_is_awaited() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let (mut bodies, mut answers) = (Vec::new(), FuturesUnordered::new());
    for _ in 0..4 {
        let (put, body) = mpsc::channel::<Table>(1);
        put.send(sized(limits::MESSAGE_BYTES)).await.unwrap();
        bodies.push(put);
        let mut client =
            tonic::client::Grpc::new(channel.clone()).send_compressed(CompressionEncoding::Gzip);
        let mut request = Request::new(ReceiverStream::new(body));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        answers.push(async move {
            client.ready().await.unwrap();
            let codec = ProstCodec::<Table, TableInputResponse>::default();
            client.client_streaming(request, WRITE.parse().unwrap(), codec).await
        });
    }
    let answer = tokio::time::timeout(WAIT, answers.next()).await.expect("one is refused");
    let refused = answer.unwrap().unwrap_err();
    assert_eq!(refused.code(), Grpc::ResourceExhausted, "{refused:?}");
    assert!(refused.message().starts_with("RATE_LIMITED: "), "{refused:?}");
    drop(bodies);
    while let Some(answer) = answers.next().await {
        assert!(answer.unwrap().into_inner().success);
    }
}

#[tokio::test]
async fn prepare_and_reconcile_have_a_budget_of_their_own_and_small_calls_need_none() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let head = framed(&sized(limits::MESSAGE_BYTES))[..HEAD].to_vec();
    let mut writes = Vec::new();
    for _ in 0..3 {
        let (put, answer) = slow(&channel, WRITE, &token);
        put.send(head.clone()).await.unwrap();
        writes.push((put, answer));
    }
    let (put, _prepare) = slow(&channel, PREPARE, &token);
    put.send(head.clone()).await.unwrap();
    let one = limits::MESSAGE_BYTES * limits::DECODE_FACTOR;
    until("bodies are on their way", || {
        held(&running, Share::Writes) == 3 * one && held(&running, Share::Control) == one
    })
    .await;
    let (second, refused) = slow(&channel, PREPARE, &token);
    second.send(head).await.unwrap();
    assert!(refused.join().await.unwrap().says_wait());

    let prepare = PrepareRequest { erp: "RM".into(), epoch: 1, batch_id: 1, entries: Vec::new() };
    let fenced = call::<_, PrepareResponse>(&channel, PREPARE, with_token(prepare, &token), None);
    assert!(fenced.await.unwrap_err().message().starts_with("FENCED: "), "it was judged");
    let renew = |nonce: String| {
        let request = RenewRequest { erp: "RM".into(), epoch: 1, nonce, ..RenewRequest::default() };
        let request = with_token(request, &token);
        call::<_, RenewResponse>(&channel, "/malote.ingestion.v1.Session/Renew", request, None)
    };
    let fenced = renew(runtime::entropy::uuid().to_string()).await.unwrap_err();
    assert!(fenced.message().starts_with("FENCED: "), "{fenced:?}");
    let large = renew("x".repeat(limits::CONTROL_BYTES)).await.unwrap_err();
    assert_eq!(large.code(), Grpc::OutOfRange, "{large:?}");
}
