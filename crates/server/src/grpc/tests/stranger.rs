//! Every RPC × another tenant that knows all that is secret of a sender but its token (F66).
//!
//! Promises: an RPC that is not tried here fails the test.

use std::collections::{BTreeMap, BTreeSet};

use protocol::proto::{
    fleet::{ProgressRequest, ProgressResponse, ReportRequest, ReportResponse, TableReport},
    ingestion::{
        CursorEntry, PrepareRequest, PrepareResponse, RenewRequest, RenewResponse, RowsRequest,
        RowsResponse,
    },
};
use serde_json::json;

use super::{
    fleet::{PROGRESS, REPORT, commands},
    *,
};
use crate::{app::fixture::stored, grpc::matrix::rpcs, model::admin::Role};

const SESSION: [&str; 4] = [
    "/malote.ingestion.v1.Session/Open",
    "/malote.ingestion.v1.Session/Renew",
    "/malote.ingestion.v1.Session/Release",
    "/malote.ingestion.v1.Session/Prepare",
];
const RANGES: &str = "/malote.ingestion.v1.Reconcile/Ranges";
const ROWS: &str = "/malote.ingestion.v1.Reconcile/Rows";
const COMMANDS: &str = "/malote.fleet.v1.Agent/Commands";

/// What one tenant's sender holds, in the hands of whoever has `token`.
struct Known {
    channel: Channel,
    token: String,
    epoch: u64,
    /// Instance and nonce.
    id: String,
    batch: i64,
    order: String,
}

impl Known {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = with_token(message, &self.token);
        request.metadata_mut().insert("x-sender-epoch", self.epoch.into());
        request
    }

    /// A refusal, or what was answered in place of one.
    async fn tried<Q, A>(&self, path: &'static str, message: Q) -> Result<A, String>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        call(&self.channel, path, self.request(message), None)
            .await
            .map_err(|status| status.message().split(':').next().unwrap().to_owned())
    }

    fn summary(&self) -> BatchSummary {
        BatchSummary {
            erp: "RM".into(),
            batch_id: self.batch,
            message_count: 1,
            record_count: 2,
            timestamp_start: None,
            timestamp_end: None,
        }
    }

    fn prepare(&self, value: &[u8]) -> PrepareRequest {
        let entries = vec![CursorEntry { table: "FLAN".into(), value: value.to_vec() }];
        PrepareRequest { erp: "RM".into(), epoch: self.epoch, batch_id: self.batch, entries }
    }
}

/// What is stored of the fixture's tenant, rows by file and table.
fn of_owner(running: &Running) -> BTreeMap<String, Vec<String>> {
    let (tenant, environment) =
        (running.tenant.id.to_string(), running.place.environment.to_string());
    let mut all = stored(running.folder.path());
    for (place, rows) in &mut all {
        rows.retain(|row| place.contains(&environment) || row.contains(&tenant));
    }
    all.retain(|_, rows| !rows.is_empty());
    all
}

/// A sender with a session, an open batch with a message and a prepared entry, staged rows, and an order that it took.
async fn sender(running: &Running) -> Known {
    let (channel, token) = (channel(running).await, running.token().await);
    let id = runtime::entropy::uuid().to_string();
    let epoch = granted(&channel, &token, &id).await.epoch;
    let admin = running.admin("ana", Role::Operator, None).await;
    let path = "/tenants/Loja/environments/prod/erps/RM/orders";
    let order = json!({ "verb": "PAUSE", "table": "FLAN" });
    assert_eq!(running.act(("POST", path), &admin, Some(order)).await.0, 202);
    let mut stream = commands(&channel, &token, epoch).await.unwrap();
    let order = stream.message().await.unwrap().unwrap().id;
    let first = table(1, vec![row(1, "a"), row(2, "b")]);
    let known = Known { channel, token, epoch, id, batch: first.batch_id, order };
    let written: TableInputResponse = known.tried(WRITE, first).await.unwrap();
    assert!(written.success, "{written:?}");
    let _: PrepareResponse = known.tried(SESSION[3], known.prepare(b"mine")).await.unwrap();
    let (staging, stream) = (&running.app.services.staging, running.caller().stream());
    staging.catch_up(&stream, Wall::now()).await.unwrap();
    known
}

/// Each RPC with all that is known of the sender; what was refused how, by RPC.
async fn everything(known: &Known) -> BTreeMap<&'static str, String> {
    let mut told = BTreeMap::new();
    let second = table(2, vec![row(1, "theirs"), row(3, "theirs")]);
    let second = Table { batch_id: known.batch, ..second };
    let written = known.tried::<_, TableInputResponse>(WRITE, second).await;
    told.insert(WRITE, written.map_or_else(|refused| refused, |answer| answer.errors.concat()));
    let closed = known.tried::<_, BatchSummaryResponse>(SUMMARY, known.summary()).await;
    told.insert(SUMMARY, closed.map_or_else(|refused| refused, |answer| answer.errors.concat()));
    let renew = RenewRequest {
        erp: "RM".into(),
        epoch: known.epoch,
        nonce: known.id.clone(),
        ..RenewRequest::default()
    };
    told.insert(SESSION[1], known.tried::<_, RenewResponse>(SESSION[1], renew).await.unwrap_err());
    let release = ReleaseRequest { erp: "RM".into(), epoch: known.epoch };
    let released = known.tried::<_, ReleaseResponse>(SESSION[2], release).await;
    told.insert(SESSION[2], released.unwrap_err());
    let prepared = known.tried::<_, PrepareResponse>(SESSION[3], known.prepare(b"theirs")).await;
    told.insert(SESSION[3], prepared.unwrap_err());
    let ranges = RangesRequest { erp: "RM".into(), table: "FLAN".into(), ..Default::default() };
    let sums = known.tried::<_, RangesResponse>(RANGES, ranges).await;
    told.insert(RANGES, sums.map_or_else(|no| no, |sums| format!("{}", sums.sums[0].count)));
    let rows = RowsRequest { erp: "RM".into(), table: "FLAN".into(), ..Default::default() };
    let rows = known.tried::<_, RowsResponse>(ROWS, rows).await;
    told.insert(ROWS, rows.map_or_else(|no| no, |rows| format!("{}", rows.rows.len())));
    let tables = vec![TableReport { name: "FLAN".into(), ..TableReport::default() }];
    let report =
        ReportRequest { erp: "RM".into(), epoch: known.epoch, tables, version: "9".into() };
    told.insert(REPORT, known.tried::<_, ReportResponse>(REPORT, report).await.unwrap_err());
    let stream = commands(&known.channel, &known.token, known.epoch).await.unwrap_err();
    told.insert(COMMANDS, stream.message().split(':').next().unwrap().to_owned());
    let done = ProgressRequest { id: known.order.clone(), done: true, code: String::new() };
    told.insert(PROGRESS, known.tried::<_, ProgressResponse>(PROGRESS, done).await.unwrap_err());
    let granted = granted(&known.channel, &known.token, &known.id).await;
    assert_eq!((granted.last_batch, granted.cursor.len()), (0, 0), "a stream of its own");
    told.insert(SESSION[0], "its own".to_owned());
    told
}

#[tokio::test]
async fn another_tenant_that_knows_all_of_a_sender_neither_changes_nor_learns_anything_of_it() {
    let running = Running::start().await;
    let known = sender(&running).await;
    let before = of_owner(&running);
    assert!(before.values().flatten().count() > 10, "there is something to lose");
    let stranger = Known { token: running.stranger("RM").await, ..known };
    let told = everything(&stranger).await;
    let tried: BTreeSet<String> = told.keys().map(|rpc| (*rpc).to_owned()).collect();
    let all: BTreeSet<String> = rpcs().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(tried, all, "every RPC is tried");
    let after = of_owner(&running);
    assert_eq!(before, after, "{told:#?}");
    let shown = |rpc: &str| match rpc {
        PROGRESS => "NOT_FOUND",
        RANGES | ROWS => "0",
        _ if rpc == SESSION[0] => "its own",
        _ => "FENCED",
    };
    assert!(told.iter().all(|(rpc, how)| how == shown(rpc)), "{told:#?}");
}
