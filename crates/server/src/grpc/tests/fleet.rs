//! The fleet's service over the wire.

use protocol::proto::fleet::{
    Command, CommandsRequest, ProgressRequest, ProgressResponse, ReportRequest, ReportResponse,
    TableReport,
};
use serde_json::json;
use tonic::Streaming;

use super::*;
use crate::model::admin::Role;

pub(super) const REPORT: &str = "/malote.fleet.v1.Agent/Report";
const COMMANDS: &str = "/malote.fleet.v1.Agent/Commands";
pub(super) const PROGRESS: &str = "/malote.fleet.v1.Agent/Progress";

pub(super) async fn commands(
    channel: &Channel,
    token: &str,
    epoch: u64,
) -> Result<Streaming<Command>, Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let request = with_token(CommandsRequest { erp: "RM".into(), epoch }, token);
    let codec = ProstCodec::<CommandsRequest, Command>::default();
    client
        .server_streaming(request, COMMANDS.parse().unwrap(), codec)
        .await
        .map(Response::into_inner)
}

#[tokio::test]
async fn an_agent_reports_is_ordered_and_tells_how_it_went() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let admin = running.admin("ana", Role::Operator, None).await;
    let place = "/tenants/Loja/environments/prod/erps/RM";
    let epoch = opened(&channel, &token).await;
    let tables = (0..limits::STREAM_TABLES).map(|at| TableReport {
        name: format!("TABLE_OF_THE_ERP_{at}"),
        watermark: "x".repeat(100),
        ..TableReport::default()
    });
    let report =
        |epoch, tables| ReportRequest { erp: "RM".into(), epoch, tables, version: "1.2.3".into() };
    let whole = with_token(report(epoch, tables.collect()), &token);
    let _: ReportResponse = call(&channel, REPORT, whole, None).await.unwrap();
    let old = with_token(report(epoch + 1, vec![]), &token);
    let fenced = call::<_, ReportResponse>(&channel, REPORT, old, None).await.unwrap_err();
    assert_eq!(fenced.code(), Code::FailedPrecondition);
    assert!(fenced.message().starts_with("FENCED: "), "{fenced:?}");
    assert_eq!(
        commands(&channel, &token, epoch + 1).await.unwrap_err().code(),
        Code::FailedPrecondition
    );
    let mut stream = commands(&channel, &token, epoch).await.unwrap();
    let order = json!({ "verb": "PAUSE", "table": "FLAN", "args": { "why": "month end" } });
    let path = format!("{place}/orders");
    let (status, given) = running.act(("POST", &path), &admin, Some(order)).await;
    assert_eq!((status, &given["state"]), (202, &json!("waiting")), "{given}");
    let command = stream.message().await.unwrap().unwrap();
    assert_eq!((command.verb, command.table.as_str()), (2, "FLAN"));
    assert_eq!(
        (command.args["who"].as_str(), command.args["why"].as_str()),
        ("ana (test)", "month end")
    );
    let one = format!("{path}/{}", given["order"]);
    let (status, refused) = running.act(("DELETE", &one), &admin, None).await;
    assert_eq!((status, &refused["code"]), (409, &json!("ORDER_SENT")));
    let progress = |id: &str, epoch: Option<u64>| {
        let said = ProgressRequest { id: id.into(), done: true, code: String::new() };
        let mut request = with_token(said, &token);
        if let Some(epoch) = epoch {
            request.metadata_mut().insert("x-sender-epoch", epoch.into());
        }
        call::<_, ProgressResponse>(&channel, PROGRESS, request, None)
    };
    let other = runtime::entropy::uuid().to_string();
    assert_eq!(progress(&other, None).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(progress("x", None).await.unwrap_err().code(), Code::InvalidArgument);
    let late = progress(&command.id, Some(epoch + 1)).await.unwrap_err();
    assert_eq!(late.code(), Code::FailedPrecondition);
    progress(&command.id, Some(epoch)).await.unwrap();
    let (_, done) = running.act(("GET", &one), &admin, None).await;
    assert_eq!(done["state"], "done");
    let stranger = running.stranger("RM").await;
    let said = ProgressRequest { id: command.id, done: true, code: "INTERNAL".into() };
    let said = with_token(said, &stranger);
    let theirs = call::<_, ProgressResponse>(&channel, PROGRESS, said, None).await.unwrap_err();
    assert_eq!(theirs.code(), Code::NotFound, "an order of another tenant");
}

#[tokio::test]
async fn a_report_above_the_limits_is_refused() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let epoch = opened(&channel, &token).await;
    let named = |name: String| TableReport { name, ..TableReport::default() };
    let many = (0..=limits::STREAM_TABLES).map(|at| named(format!("T{at}"))).collect();
    let long = vec![TableReport {
        held_by: "x".repeat(limits::FLEET_TEXT_BYTES + 1),
        ..named("T".into())
    }];
    for tables in [many, long, vec![named(String::new())]] {
        let report = ReportRequest { erp: "RM".into(), epoch, tables, version: "1".into() };
        let report = with_token(report, &token);
        let refused = call::<_, ReportResponse>(&channel, REPORT, report, None).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn a_stream_of_commands_does_not_hold_up_a_server_that_stops() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let epoch = opened(&channel, &token).await;
    let mut stream = commands(&channel, &token, epoch).await.unwrap();
    let begun = runtime::clock::Mono::now();
    let (ended, ()) = tokio::join!(stream.message(), running.app.stop());
    assert!(ended.unwrap().is_none(), "it ends like any stream");
    assert!(begun.elapsed() < crate::app::CLOSE, "{:?}", begun.elapsed());
}
