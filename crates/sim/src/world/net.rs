//! Net: calls on their way between agents and server: late, lost, doubled, out of order, or into a wall.
//!
//! Promises: a call that gets no answer may have been carried out or not, and its sender cannot tell; a copy of a call
//! may come minutes later; a partition swallows calls, or only their answers.
//! Never: changes a byte of a call. Frames, windows and TLS are not here: tests with real sockets have them.

use std::{collections::BTreeMap, io, rc::Rc, time::Duration};

use bytes::Bytes;
use prost::Message as _;
use protocol::proto::{
    ingestion::{OpenResponse, open_response},
    totvs,
};
use runtime::{
    clock,
    world::{Carried, Carrying},
};
use server::app::inside::Peer;
use tokio::sync::oneshot;

use super::{
    Sim,
    check::Call,
    cloud, here,
    machine::{Host, OUTSIDE},
};

/// Whoever waits for an answer that was lost is told by then that the connection broke.
const SILENCE: Duration = Duration::from_secs(60);
/// A copy of a call comes within this.
const LATE: Duration = Duration::from_secs(120);

type Answer = io::Result<http::Response<Carried>>;

/// Which lines are cut, by host: calls, answers.
#[derive(Debug, Default)]
pub struct Lines {
    pub cut: BTreeMap<Host, (bool, bool)>,
}

/// What is to become of a call.
#[derive(Clone, Copy, Debug)]
struct Fate {
    there: Duration,
    back: Duration,
    lost: bool,
    answer_lost: bool,
    /// A break is told at once, or never.
    told: bool,
    copy: Option<Duration>,
}

fn fate(sim: &Sim, from: Host) -> Fate {
    let (net, healing) = (&sim.plan.net, sim.is_healing());
    let per_mille = |most: u64| !healing && most > 0 && sim.below(1_000) < most;
    let delay = || {
        let jitter = if !healing && !net.jitter.is_zero() && sim.below(5) == 0 {
            sim.up_to(net.jitter)
        } else {
            Duration::ZERO
        };
        net.delay / 2 + sim.up_to(net.delay / 4) + jitter
    };
    let cut = sim.lines.borrow().cut.get(&from).copied().unwrap_or_default();
    Fate {
        there: delay(),
        back: delay(),
        lost: cut.0 || per_mille(net.lost),
        answer_lost: cut.1 || per_mille(net.answers_lost),
        told: sim.below(2) == 0,
        copy: per_mille(net.doubled).then(|| sim.up_to(LATE)),
    }
}

/// Carries a call of the host that runs now.
pub(super) fn carry(sim: &Rc<Sim>, request: http::Request<Bytes>) -> Carrying {
    let from = sim.machine.current();
    let fate = fate(sim, from);
    let (tell, told) = oneshot::channel();
    let lost = if fate.lost { ", it is lost" } else { "" };
    sim.tell(format!("calls {}{lost}", words(&request)));
    if let Some(late) = fate.copy.filter(|_| !fate.lost) {
        let (copy, to_nobody) = (copy_of(&request), None);
        let there = fate.there + late;
        sim.spawn(OUTSIDE, Box::pin(deliver(from, copy, Fate { there, ..fate }, to_nobody)));
    }
    sim.spawn(OUTSIDE, Box::pin(deliver(from, request, fate, Some(tell))));
    Box::pin(async move { told.await.unwrap_or_else(|_| Err(broken())) })
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection broke")
}

fn copy_of(request: &http::Request<Bytes>) -> http::Request<Bytes> {
    let mut copy = http::Request::new(request.body().clone());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    copy
}

async fn deliver(
    from: Host,
    request: http::Request<Bytes>,
    fate: Fate,
    tell: Option<oneshot::Sender<Answer>>,
) {
    clock::sleep(fate.there).await;
    if fate.lost {
        return lose(fate, tell).await;
    }
    let sim = here();
    let Some(peer) = cloud::peer(&sim, from) else {
        sim.tell(format!("nobody answers {}", words(&request)));
        let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "nothing listens there");
        if let Some(tell) = tell {
            let _ = tell.send(Err(refused));
        }
        return;
    };
    let server = sim.cloud.borrow().host;
    sim.spawn(server, Box::pin(answer(from, peer, request, (fate, tell))));
}

/// Whoever waits hears of the break at once or when it gave up long ago.
async fn lose(fate: Fate, tell: Option<oneshot::Sender<Answer>>) {
    if !fate.told {
        clock::sleep(SILENCE).await;
    }
    drop(tell);
}

/// On the server's host: what it does with a call that reached it.
async fn answer(
    from: Host,
    peer: Peer,
    request: http::Request<Bytes>,
    (fate, tell): (Fate, Option<oneshot::Sender<Answer>>),
) {
    let is_grpc = request.headers().get("te").is_some();
    let call = is_grpc.then(|| call_of(from, &request)).flatten();
    let words = words(&request);
    if let Some(call) = &call {
        here().check.borrow_mut().delivered(call);
    }
    let answered = if is_grpc { peer.grpc(request).await } else { peer.http(request).await };
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => {
            here().check.borrow_mut().fault("server", error.to_string());
            return;
        }
    };
    {
        let sim = here();
        let (success, outcome) = outcome(is_grpc, &answered);
        let lost = if fate.answer_lost { ", the answer is lost" } else { "" };
        let copy = if tell.is_none() { "a copy of " } else { "" };
        sim.tell(format!("answers {copy}{words}: {outcome}{lost}"));
        if let Some(call) = &call {
            let mut check = sim.check.borrow_mut();
            check.answered(call, success);
            if let Some(epoch) = granted(call, answered.body()) {
                check.granted(call.stream, epoch);
            }
        }
        sim.spawn(OUTSIDE, Box::pin(bring(answered, (fate, tell))));
    }
}

async fn bring(
    answered: http::Response<Carried>,
    (fate, tell): (Fate, Option<oneshot::Sender<Answer>>),
) {
    clock::sleep(fate.back).await;
    if fate.answer_lost {
        return lose(fate, tell).await;
    }
    if let Some(tell) = tell {
        // Nobody waits any more: the caller gave up or crashed.
        let _ = tell.send(Ok(answered));
    }
}

fn call_of(from: Host, request: &http::Request<Bytes>) -> Option<Call> {
    let stream = here().agents.borrow().stream_of(from)?;
    let epoch = request.headers().get("x-sender-epoch");
    Some(Call {
        stream,
        path: request.uri().path().to_owned(),
        message: message(request.body()),
        epoch: epoch.and_then(|epoch| epoch.to_str().ok()?.parse().ok()),
    })
}

/// The epoch that an Open was answered with.
fn granted(call: &Call, body: &Carried) -> Option<u64> {
    let opened = call.path.ends_with("/Open").then(|| OpenResponse::decode(message(&body.bytes)));
    match opened?.ok()?.result? {
        open_response::Result::Granted(granted) => Some(granted.epoch),
        _ => None,
    }
}

/// The one message of a body, without its frame.
fn message(body: &Bytes) -> Bytes {
    body.get(5..).map(Bytes::copy_from_slice).unwrap_or_default()
}

/// A call in a few words.
fn words(request: &http::Request<Bytes>) -> String {
    let path = request.uri().path();
    let epoch = request.headers().get("x-sender-epoch").and_then(|epoch| epoch.to_str().ok());
    let epoch = epoch.map(|epoch| format!(" epoch {epoch}")).unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    match name {
        "Write" => match totvs::Table::decode(message(request.body())) {
            Ok(table) => format!(
                "Write {} batch {} message {} rows {}{}{epoch}",
                table.table_name,
                table.batch_id,
                table.message_number,
                table.rows.len(),
                if table.is_base_load { " of a base load" } else { "" },
            ),
            Err(_) => "Write of nonsense".to_owned(),
        },
        "Summary" => match totvs::BatchSummary::decode(message(request.body())) {
            Ok(summary) => format!(
                "Summary batch {} messages {} records {}{epoch}",
                summary.batch_id, summary.message_count, summary.record_count
            ),
            Err(_) => "Summary of nonsense".to_owned(),
        },
        _ => name.to_owned(),
    }
}

/// Whether the server took the call, and what it said.
fn outcome(is_grpc: bool, answered: &http::Response<Carried>) -> (bool, String) {
    if !is_grpc {
        return (answered.status().is_success(), answered.status().as_u16().to_string());
    }
    let trailers = answered.body().trailers.as_ref();
    let of = |name: &str| {
        let value = answered.headers().get(name).or_else(|| trailers?.get(name));
        value.and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let status = of("grpc-status").unwrap_or_else(|| "0".to_owned());
    if status != "0" {
        let words = of("grpc-message").unwrap_or_default();
        return (false, format!("status {status} {words}"));
    }
    // Both answers of the contract have `success` and `errors` in these places.
    match totvs::TableInputResponse::decode(message(&answered.body().bytes)) {
        Ok(said) if said.success => (true, "success".to_owned()),
        Ok(said) if !said.errors.is_empty() => (false, said.errors.join("; ")),
        _ => (false, "answered".to_owned()),
    }
}
