mod fleet;
mod stranger;

use std::time::Duration;

use prost::Message;
use protocol::{
    limits,
    proto::{
        ingestion::{
            DatabaseIdentity, Granted, OpenRequest, OpenResponse, RangesRequest, RangesResponse,
            ReleaseRequest, ReleaseResponse, Versions, open_response,
        },
        totvs::{
            BatchSummary, BatchSummaryResponse, Table, TableInputResponse,
            table::{
                RowColumn, Schema, TableRow,
                schema::{SchemaColumn, SchemaPrimaryKey},
            },
        },
    },
};
use runtime::clock::Wall;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::{
    Code, Request, Response, Status,
    client::Grpc,
    codec::CompressionEncoding,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use crate::app::fixture::Running;

pub(super) const WRITE: &str = "/com.totvs.ingestion.grpc.TableStream/Write";
const SUMMARY: &str = "/com.totvs.ingestion.grpc.TableStream/Summary";

pub(super) async fn channel(running: &Running) -> Channel {
    Endpoint::from_shared(format!("http://{}", running.app.grpc)).unwrap().connect().await.unwrap()
}

/// One call, as a generated client makes it.
pub(super) async fn call<Q, A>(
    channel: &Channel,
    path: &'static str,
    request: Request<Q>,
    zip: Option<CompressionEncoding>,
) -> Result<A, Status>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut client = Grpc::new(channel.clone());
    if let Some(zip) = zip {
        client = client.send_compressed(zip);
    }
    client.ready().await.unwrap();
    let answer = client.unary(request, path.parse().unwrap(), ProstCodec::<Q, A>::default()).await;
    answer.map(Response::into_inner)
}

pub(super) fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

pub(super) async fn write(
    channel: &Channel,
    table: Table,
    token: &str,
) -> Result<TableInputResponse, Status> {
    call(channel, WRITE, with_token(table, token), None).await
}

pub(super) fn row(id: usize, text: &str) -> TableRow {
    let cell = |name: &str, value: &str| RowColumn { name: name.into(), value: value.into() };
    TableRow { columns: vec![cell("IDLAN", &id.to_string()), cell("HISTORICO", text)] }
}

pub(super) fn table(number: i32, rows: Vec<TableRow>) -> Table {
    let column = |name: &str, kind: &str| SchemaColumn { name: name.into(), r#type: kind.into() };
    Table {
        table_name: "FLAN".into(),
        erp: "RM".into(),
        record_count: i32::try_from(rows.len()).unwrap(),
        rows,
        schema: Some(Schema {
            flexible: true,
            export_data: true,
            columns: vec![column("IDLAN", "long"), column("HISTORICO", "string")],
            primary_key: Some(SchemaPrimaryKey {
                name: "FLAN".into(),
                columns: vec!["IDLAN".into()],
            }),
        }),
        batch_id: Wall::now().seconds() / 1_000 * 1_000,
        message_number: number,
        is_base_load: false,
    }
}

/// A message of exactly this many encoded bytes.
pub(super) fn sized(bytes: usize) -> Table {
    let mut one = table(1, vec![row(1, "")]);
    while one.encoded_len() < bytes {
        // The last bytes one by one: the length fields grow too.
        let missing = bytes - one.encoded_len();
        one.rows[0].columns[1].value.push_str(&"x".repeat(missing.saturating_sub(32).max(1)));
    }
    assert_eq!(one.encoded_len(), bytes);
    one
}

/// Opens the session of a new instance; its epoch.
async fn opened(channel: &Channel, token: &str) -> u64 {
    let id = runtime::entropy::uuid().to_string();
    granted(channel, token, &id).await.epoch
}

/// Opens the session of the instance of that id, which is its nonce as well.
async fn granted(channel: &Channel, token: &str, id: &str) -> Granted {
    let request = OpenRequest {
        erp: "RM".into(),
        instance_id: id.to_owned(),
        nonce: id.to_owned(),
        database_identity: Some(DatabaseIdentity { kind: "sqlite".into(), ..Default::default() }),
        versions: Some(Versions { protocol: 1, agent: "1".into(), database: "3".into() }),
    };
    let path = "/malote.ingestion.v1.Session/Open";
    let answer: OpenResponse = call(channel, path, with_token(request, token), None).await.unwrap();
    match answer.result.unwrap() {
        open_response::Result::Granted(granted) => granted,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_is_written_and_summed_and_a_business_outcome_is_status_ok() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let first = table(1, vec![row(1, "a"), row(2, "b")]);
    assert!(write(&channel, first.clone(), &token).await.unwrap().success);
    assert!(write(&channel, first.clone(), &token).await.unwrap().success, "an exact repeat");
    let other = Table { rows: vec![row(1, "z"), row(2, "b")], ..first.clone() };
    let conflict = write(&channel, other, &token).await.unwrap();
    assert!(
        !conflict.success && conflict.errors[0].starts_with("MESSAGE_CONFLICT: "),
        "{conflict:?}"
    );
    let summary = |messages: i32, rows: i32| BatchSummary {
        erp: "RM".into(),
        batch_id: first.batch_id,
        message_count: messages,
        record_count: rows,
        timestamp_start: None,
        timestamp_end: None,
    };
    let missing: BatchSummaryResponse =
        call(&channel, SUMMARY, with_token(summary(2, 3), &token), None).await.unwrap();
    assert!(!missing.success && missing.errors[0].starts_with("MESSAGES_MISSING: "), "{missing:?}");
    let done: BatchSummaryResponse =
        call(&channel, SUMMARY, with_token(summary(1, 2), &token), None).await.unwrap();
    assert!(done.success, "{done:?}");
}

#[tokio::test]
async fn a_message_of_exactly_five_mebibytes_passes_and_one_byte_more_is_out_of_range() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let over = write(&channel, sized(limits::MESSAGE_BYTES + 1), &token).await.unwrap_err();
    assert!(matches!(over.code(), Code::OutOfRange | Code::ResourceExhausted), "{over:?}");
    assert!(over.details().is_empty(), "without retry info it means too large");
    let exact = write(&channel, sized(limits::MESSAGE_BYTES), &token).await.unwrap();
    assert!(exact.success, "{exact:?}");
}

#[tokio::test]
async fn gzip_and_zstd_are_taken_and_a_bomb_is_stopped_at_the_limit() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    for (number, zip) in [(1, CompressionEncoding::Gzip), (2, CompressionEncoding::Zstd)] {
        let good: TableInputResponse =
            call(&channel, WRITE, with_token(table(number, vec![row(1, "a")]), &token), Some(zip))
                .await
                .unwrap();
        assert!(good.success, "{good:?}");
        let bomb: Result<TableInputResponse, Status> =
            call(&channel, WRITE, with_token(sized(60_000_000), &token), Some(zip)).await;
        let status = bomb.unwrap_err();
        assert!(matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted), "{status:?}");
    }
}

#[tokio::test]
async fn a_message_that_would_decode_to_24_times_its_size_is_refused() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let empty = RowColumn { name: "a".into(), value: String::new() };
    let hostile = table(1, vec![TableRow { columns: vec![empty; 1_000_000] }]);
    assert!(hostile.encoded_len() <= limits::MESSAGE_BYTES);
    let status = write(&channel, hostile, &token).await.unwrap_err();
    assert!(status.message().starts_with("MESSAGE_TOO_LARGE: "), "{status:?}");
    assert_eq!(status.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn calls_without_a_good_token_never_reach_a_service() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let cut = token[..token.len() - 4].to_owned();
    let bad = [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Basic eDp5".into()),
        Some(format!("Bearer {cut}")),
    ];
    for path in [
        WRITE,
        SUMMARY,
        "/malote.ingestion.v1.Session/Open",
        "/malote.ingestion.v1.Reconcile/Rows",
        "/no.Such/Method",
    ] {
        for value in &bad {
            let mut request = Request::new(table(1, vec![row(1, "a")]));
            if let Some(value) = value {
                request.metadata_mut().insert("authorization", value.parse().unwrap());
            }
            let status =
                call::<Table, TableInputResponse>(&channel, path, request, None).await.unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{path} {value:?}: {status:?}");
            assert!(status.message().starts_with("UNAUTHENTICATED: "), "{status:?}");
        }
    }
    let unknown = call::<Table, TableInputResponse>(
        &channel,
        "/no.Such/Method",
        with_token(Table::default(), &token),
        None,
    )
    .await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
    let method = "/com.totvs.ingestion.grpc.TableStream/Erase";
    let unknown = call::<Table, TableInputResponse>(
        &channel,
        method,
        with_token(Table::default(), &token),
        None,
    )
    .await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn a_revoked_client_and_another_erp_are_refused() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    assert!(write(&channel, table(1, vec![row(1, "a")]), &token).await.unwrap().success);
    let foreign = running.stranger("PROTHEUS").await;
    let denied = write(&channel, table(1, vec![row(1, "a")]), &foreign).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
    assert!(denied.message().starts_with("PERMISSION_DENIED: "), "{denied:?}");
    let unlisted = Table { table_name: "GUSER".into(), ..table(2, vec![row(1, "a")]) };
    assert_eq!(write(&channel, unlisted, &token).await.unwrap_err().code(), Code::PermissionDenied);
    running
        .app
        .services
        .access
        .revoke_credential(running.tenant.id, &running.client)
        .await
        .unwrap();
    let revoked = write(&channel, table(2, vec![row(2, "b")]), &token).await.unwrap_err();
    assert_eq!(revoked.code(), Code::Unauthenticated, "{revoked:?}");
}

#[tokio::test]
async fn malformed_metadata_and_garbage_are_invalid_arguments() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    for epoch in ["0", "-1", "x", "1.5"] {
        let mut request = with_token(table(1, vec![row(1, "a")]), &token);
        request.metadata_mut().insert("x-sender-epoch", epoch.parse().unwrap());
        let status =
            call::<Table, TableInputResponse>(&channel, WRITE, request, None).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{epoch}: {status:?}");
    }
    let mut request =
        with_token(BatchSummary { erp: "RM".into(), ..BatchSummary::default() }, &token);
    request.metadata_mut().insert("x-base-load-done", "FLAN".parse().unwrap());
    let status = call::<BatchSummary, BatchSummaryResponse>(&channel, SUMMARY, request, None)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    // The second field of a Summary is a number, not text.
    let garbage =
        OpenRequest { erp: "RM".into(), instance_id: "x".into(), ..OpenRequest::default() };
    let request = with_token(garbage, &token);
    let status = call::<OpenRequest, BatchSummaryResponse>(&channel, SUMMARY, request, None)
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().starts_with("INVALID_ARGUMENT: "), "{status:?}");
    // The third field of a Table is a row, not text.
    let garbage = OpenRequest {
        erp: "FLAN".into(),
        instance_id: "RM".into(),
        nonce: "zz".into(),
        ..OpenRequest::default()
    };
    let status =
        call::<OpenRequest, TableInputResponse>(&channel, WRITE, with_token(garbage, &token), None)
            .await
            .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
}

pub(super) fn open_request() -> OpenRequest {
    let facts = [("file_id".to_owned(), "1".to_owned()), ("random_id".to_owned(), "2".to_owned())];
    OpenRequest {
        erp: "RM".into(),
        instance_id: runtime::entropy::uuid().to_string(),
        nonce: runtime::entropy::uuid().to_string(),
        database_identity: Some(DatabaseIdentity {
            kind: "sqlite".into(),
            facts: facts.into(),
            position: Vec::new(),
        }),
        versions: Some(Versions {
            agent: "0.1.0".into(),
            protocol: limits::PROTOCOL_VERSION,
            database: "3".into(),
        }),
    }
}

#[tokio::test]
async fn a_session_fences_writes_without_its_epoch_and_reconcile_answers() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let opened: OpenResponse = call(
        &channel,
        "/malote.ingestion.v1.Session/Open",
        with_token(open_request(), &token),
        None,
    )
    .await
    .unwrap();
    let Some(open_response::Result::Granted(granted)) = opened.result else { panic!("{opened:?}") };
    let without = write(&channel, table(1, vec![row(1, "a")]), &token).await.unwrap_err();
    assert_eq!(without.code(), Code::FailedPrecondition);
    assert!(without.message().starts_with("EPOCH_REQUIRED: "), "{without:?}");
    let mut request = with_token(table(1, vec![row(1, "a")]), &token);
    request.metadata_mut().insert("x-sender-epoch", granted.epoch.to_string().parse().unwrap());
    assert!(
        call::<Table, TableInputResponse>(&channel, WRITE, request, None).await.unwrap().success
    );
    let second: OpenResponse = call(
        &channel,
        "/malote.ingestion.v1.Session/Open",
        with_token(open_request(), &token),
        None,
    )
    .await
    .unwrap();
    assert!(matches!(second.result, Some(open_response::Result::Held(_))), "{second:?}");
    let release = ReleaseRequest { erp: "RM".into(), epoch: granted.epoch };
    let _: ReleaseResponse =
        call(&channel, "/malote.ingestion.v1.Session/Release", with_token(release, &token), None)
            .await
            .unwrap();
    let (erp, table) = ("RM".into(), "FLAN".into());
    let ranges = RangesRequest { erp, table, ..RangesRequest::default() };
    let sums: RangesResponse =
        call(&channel, "/malote.ingestion.v1.Reconcile/Ranges", with_token(ranges, &token), None)
            .await
            .unwrap();
    assert_eq!(sums.sums.len(), 1, "{sums:?}");
}

#[tokio::test]
async fn a_tenant_has_eight_connections_and_is_told_to_wait_for_a_ninth() {
    let running = Running::start().await;
    let token = running.token().await;
    let mut open = Vec::new();
    for number in 1..=limits::TENANT_CONNECTIONS {
        let channel = channel(&running).await;
        let message = table(i32::try_from(number).unwrap(), vec![row(number, "a")]);
        assert!(write(&channel, message, &token).await.unwrap().success);
        open.push(channel);
    }
    let ninth = channel(&running).await;
    let status = write(&ninth, table(9, vec![row(9, "a")]), &token).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        !status.details().is_empty() && status.metadata().contains_key("retry-after"),
        "{status:?}"
    );
    let stranger = running.stranger("RM").await;
    let other = write(&ninth, table(1, vec![row(1, "a")]), &stranger).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied, "another tenant is served on it: {other:?}");
    drop(open);
    let until = async {
        while write(&ninth, table(9, vec![row(9, "a")]), &token).await.is_err() {
            runtime::clock::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until)
        .await
        .expect("ended connections give their places back");
}

#[tokio::test]
async fn reflection_names_the_services_and_health_serves() {
    use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
    use tonic_reflection::pb::{v1, v1alpha};
    let running = Running::start().await;
    let channel = channel(&running).await;
    let ask = v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(v1::server_reflection_request::MessageRequest::ListServices(
            String::new(),
        )),
    };
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    let v1::server_reflection_response::MessageResponse::ListServicesResponse(list) = answer else {
        panic!("{answer:?}")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in [
        "com.totvs.ingestion.grpc.TableStream",
        "malote.ingestion.v1.Session",
        "malote.ingestion.v1.Reconcile",
        "grpc.health.v1.Health",
    ] {
        assert!(names.iter().any(|found| found == name), "{name} in {names:?}");
    }
    let ask = v1alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(
            v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                "com.totvs.ingestion.grpc.TableStream".into(),
            ),
        ),
    };
    let mut client =
        v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answers =
        client.server_reflection_info(tokio_stream::once(ask)).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response.unwrap();
    assert!(
        matches!(
            answer,
            v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_)
        ),
        "{answer:?}"
    );
    for service in ["", "com.totvs.ingestion.grpc.TableStream", "malote.ingestion.v1.Session"] {
        let request = Request::new(HealthCheckRequest { service: service.into() });
        let health: HealthCheckResponse =
            call(&channel, "/grpc.health.v1.Health/Check", request, None).await.unwrap();
        assert_eq!(health.status, 1, "{service:?}");
    }
}

#[tokio::test]
async fn oversized_headers_and_peers_that_never_begin_are_cut() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    let mut request = with_token(table(1, vec![row(1, "a")]), &token);
    request.metadata_mut().insert("x-large", "x".repeat(64 * 1024).parse().unwrap());
    assert!(call::<Table, TableInputResponse>(&channel, WRITE, request, None).await.is_err());
    let mut silent = tokio::net::TcpStream::connect(running.app.grpc).await.unwrap();
    silent.write_all(b"PRI * HTT").await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(8), silent.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "a peer that never ends its preface is cut");
    assert!(
        write(&self::channel(&running).await, table(1, vec![row(1, "a")]), &token)
            .await
            .unwrap()
            .success
    );
}

#[tokio::test]
async fn a_drain_ends_open_connections_soon_and_frees_the_ports() {
    let running = Running::start().await;
    let (channel, token) = (channel(&running).await, running.token().await);
    assert!(write(&channel, table(1, vec![row(1, "a")]), &token).await.unwrap().success);
    let (http, grpc) = (running.app.http, running.app.grpc);
    tokio::time::timeout(crate::app::CLOSE, running.app.stop())
        .await
        .expect("an idle connection holds nothing up");
    for address in [http, grpc] {
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "{address} is closed");
    }
}
