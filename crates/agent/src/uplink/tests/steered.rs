//! Reports and orders against a server that has the fleet's service, and one that does not know it.

use std::{
    convert::Infallible,
    future::ready,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream};
use protocol::proto::fleet::{
    Command, CommandsRequest, ProgressRequest, ProgressResponse, ReportRequest, ReportResponse,
    TableState, Verb,
};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
};
use tonic_prost::ProstCodec;

use super::*;
use crate::journal::TableStatus;

/// What the service saw, and what it does.
#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    pub asked: u32,
    pub reports: Vec<ReportRequest>,
    /// Given with every stream of commands.
    pub orders: Vec<Command>,
    pub streams: u32,
    pub progress: Vec<ProgressRequest>,
    /// Epochs that came with it.
    pub epochs: Vec<String>,
    /// Streams that are cut behind their orders.
    pub cut: u32,
    /// Outcomes that are not taken.
    pub deaf: u32,
    /// The service is not there.
    pub absent: bool,
}

#[derive(Clone)]
pub(super) struct Agent(pub(super) Double);

impl NamedService for Agent {
    const NAME: &'static str = "malote.fleet.v1.Agent";
}

type Orders = Pin<Box<dyn Stream<Item = std::result::Result<Command, Status>> + Send>>;

impl Agent {
    fn there(&self) -> std::result::Result<(), Status> {
        self.0.seen().fleet.asked += 1;
        let absent = self.0.seen().fleet.absent;
        self.0.tell();
        if absent { Err(Status::unimplemented("no such service")) } else { Ok(()) }
    }

    fn report(
        self,
        request: Request<ReportRequest>,
    ) -> std::result::Result<Response<ReportResponse>, Status> {
        self.there()?;
        self.0.seen().fleet.reports.push(request.into_inner());
        self.0.tell();
        Ok(Response::new(ReportResponse {}))
    }

    fn commands(
        self,
        _: Request<CommandsRequest>,
    ) -> std::result::Result<Response<Orders>, Status> {
        self.there()?;
        let mut seen = self.0.seen();
        seen.fleet.streams += 1;
        let orders = stream::iter(seen.fleet.orders.clone()).map(Ok);
        let cut = seen.fleet.cut > 0;
        seen.fleet.cut = seen.fleet.cut.saturating_sub(1);
        drop(seen);
        self.0.tell();
        let end = if cut {
            stream::iter([Err(Status::unavailable("cut for a test"))]).boxed()
        } else {
            stream::pending().boxed()
        };
        Ok(Response::new(Box::pin(orders.chain(end))))
    }

    fn progress(
        self,
        request: Request<ProgressRequest>,
    ) -> std::result::Result<Response<ProgressResponse>, Status> {
        self.there()?;
        let epoch = request.metadata().get("x-sender-epoch").unwrap().to_str().unwrap().to_owned();
        let said = request.into_inner();
        let mut seen = self.0.seen();
        if said.done && seen.fleet.deaf > 0 {
            seen.fleet.deaf -= 1;
            return Err(Status::unavailable("UNAVAILABLE: for a test"));
        }
        let known = seen.fleet.orders.iter().any(|order| order.id == said.id);
        seen.fleet.epochs.push(epoch);
        seen.fleet.progress.push(said.clone());
        if said.done {
            seen.fleet.orders.retain(|order| order.id != said.id);
        }
        drop(seen);
        self.0.tell();
        if known {
            Ok(Response::new(ProgressResponse {}))
        } else {
            Err(Status::not_found("NOT_FOUND: gone"))
        }
    }
}

impl tower::Service<http::Request<Body>> for Agent {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match method.as_str() {
                "Report" => {
                    let service =
                        tower::service_fn(move |request| ready(this.clone().report(request)));
                    Grpc::new(ProstCodec::default()).unary(service, request).await
                }
                "Progress" => {
                    let service =
                        tower::service_fn(move |request| ready(this.clone().progress(request)));
                    Grpc::new(ProstCodec::default()).unary(service, request).await
                }
                _ => {
                    let service =
                        tower::service_fn(move |request| ready(this.clone().commands(request)));
                    let codec = ProstCodec::<Command, CommandsRequest>::default();
                    Grpc::new(codec).server_streaming(service, request).await
                }
            })
        })
    }
}

fn order(verb: Verb, table: &str) -> Command {
    Command {
        id: runtime::entropy::uuid().to_string(),
        verb: verb.into(),
        table: table.into(),
        args: BTreeMap::new(),
    }
}

fn status(state: &str) -> TableStatus {
    serde_json::from_value(serde_json::json!({
        "table": "FLAN", "state": state, "mode": "TIMESTAMP", "watermark": null, "lagMs": 5, "heldBy": null,
        "degraded": null, "parked": null, "rowsSent": 0, "deletesSent": 0, "quarantined": 0, "loaded": null,
    }))
    .unwrap()
}

/// A double that gives these orders, and a stage that obeys.
async fn ordered(orders: Vec<Command>, change: impl FnOnce(&mut Seen)) -> Stage {
    let double = Double::steering().await;
    {
        let mut seen = double.seen();
        seen.fleet.orders = orders;
        change(&mut seen.fleet);
    }
    let stage = Stage::start(double).await;
    stage.grant(0).await;
    stage
}

#[tokio::test]
async fn a_report_goes_out_at_the_begin_and_where_a_state_changes() {
    let mut stage = ordered(vec![], |_| {}).await;
    let double = stage.double.clone();
    within(double.until(|seen| !seen.fleet.reports.is_empty())).await;
    let first = double.look().fleet.reports.remove(0);
    assert_eq!((first.erp.as_str(), first.epoch, first.version.as_str()), ("RM", 1, "test"));
    stage.journal.save_status(vec![status("STREAMING")]).await.unwrap();
    let told = |state: TableState| {
        move |seen: &super::double::Seen| {
            let last = seen.fleet.reports.last();
            last.is_some_and(|report| report.tables.iter().any(|table| table.state() == state))
        }
    };
    let begun = runtime::clock::Mono::now();
    within(double.until(told(TableState::Streaming))).await;
    stage.journal.save_status(vec![status("PARKED")]).await.unwrap();
    within(double.until(told(TableState::Parked))).await;
    assert!(begun.elapsed() < protocol::limits::FLEET_REPORT, "not only with the next 10 s");
    assert!(double.look().fleet.reports.len() <= 4, "one for each change");
    stage.stop().await.unwrap();
}

#[tokio::test]
async fn an_order_is_done_once_although_its_stream_is_cut_and_its_outcome_not_heard_at_first() {
    let reload = order(Verb::Reload, "FLAN");
    // Nobody loads here, so the other one's outcome is what is told.
    let retry = order(Verb::Retry, "TMOV");
    let orders = vec![reload, retry.clone()];
    let stage = ordered(orders, |seen| (seen.cut, seen.deaf) = (3, 2)).await;
    let double = stage.double.clone();
    let done = |seen: &super::double::Seen| seen.fleet.progress.iter().any(|said| said.done);
    within(double.until(done)).await;
    within(double.until(|seen| seen.fleet.streams > 3)).await;
    let seen = double.look().fleet;
    let outcomes: Vec<_> = seen.progress.iter().filter(|said| said.done).collect();
    assert!(
        outcomes.iter().all(|said| said.id == retry.id && said.code.is_empty()),
        "{outcomes:?}"
    );
    assert!(seen.epochs.iter().all(|epoch| epoch == "1"), "{:?}", seen.epochs);
    let asked = stage.journal.reload_requests().await.unwrap();
    assert_eq!(asked[&table_name("FLAN")], 1, "asked for once");
}

#[tokio::test]
async fn an_order_that_was_only_taken_when_the_process_died_is_done_by_the_next_one() {
    let mut stage = ordered(vec![], |_| {}).await;
    let pause = order(Verb::Pause, "TMOV");
    let id = pause.id.parse().unwrap();
    stage.planned(2).await;
    stage.journal.take_order(id, runtime::clock::Wall(1)).await.unwrap();
    stage.kill().await;
    stage.double.seen().fleet.orders.push(pause);
    stage.launch();
    let double = stage.double.clone();
    within(double.until(|seen| seen.fleet.progress.iter().any(|said| said.done))).await;
    assert!(stage.journal.is_halted(&table_name("TMOV")));
    assert!(!stage.journal.is_halted(&table_name("FLAN")));
    within(async {
        while !stage.journal.untold_orders().await.unwrap().is_empty() {
            runtime::clock::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_order_that_the_server_forgot_is_told_once_and_laid_aside() {
    let mut stage = ordered(vec![], |_| {}).await;
    let id = protocol::ids::OrderId(runtime::entropy::uuid());
    stage.journal.take_order(id, runtime::clock::Wall(1)).await.unwrap();
    let ended = crate::journal::Deed::Ended(Some(Code::VerbUnsupported));
    stage.journal.carry_out(id, ended).await.unwrap();
    stage.kill().await;
    stage.launch();
    let double = stage.double.clone();
    within(double.until(|seen| !seen.fleet.progress.is_empty())).await;
    let said = double.look().fleet.progress.remove(0);
    assert_eq!(
        (said.id, said.done, said.code.as_str()),
        (id.to_string(), true, "VERB_UNSUPPORTED")
    );
    within(async {
        while !stage.journal.untold_orders().await.unwrap().is_empty() {
            runtime::clock::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn orders_that_do_not_read_or_are_not_known_do_not_stop_those_behind_them() {
    let nameless = Command { id: "x".into(), ..order(Verb::Reload, "") };
    let unknown = Command { verb: 77, ..order(Verb::Reload, "") };
    let unset = order(Verb::Unspecified, "FLAN");
    let orders = vec![nameless, unknown.clone(), unset, order(Verb::Retry, "")];
    let stage = ordered(orders, |_| {}).await;
    let double = stage.double.clone();
    let ended = |seen: &super::double::Seen| {
        seen.fleet.progress.iter().filter(|said| said.done).count() == 3
    };
    within(double.until(ended)).await;
    let said = double.look().fleet.progress;
    let codes: Vec<_> = said.iter().filter(|said| said.done).map(|said| &*said.code).collect();
    assert_eq!(codes, ["VERB_UNSUPPORTED", "VERB_UNSUPPORTED", ""]);
    assert_eq!(said[0].id, unknown.id);
}

#[tokio::test]
async fn a_server_without_the_service_is_met_in_silence_and_left_in_peace() {
    let stage = ordered(vec![], |seen| seen.absent = true).await;
    let double = stage.double.clone();
    within(double.until(|seen| seen.fleet.asked > 0)).await;
    // The next sessions ask it nothing.
    for epoch in 1..3 {
        stage
            .journal
            .drop_batch(Code::SequenceGap, "a test", runtime::clock::Wall(0))
            .await
            .unwrap();
        let grant = stage.grant(epoch).await;
        let batch = stage.write(&grant, 2).await;
        stage.complete(batch).await;
    }
    // A report and a stream of commands may have been on their way together.
    let asked = double.look().fleet.asked;
    assert!(asked <= 2, "{asked}");
    assert_eq!(stage.journal.link().borrow().code, None, "nothing stands in the way");
}
