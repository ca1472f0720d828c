//! A scripted server: registry, token and entities over HTTP, and an ingestion service that obeys the contract but for
//! the faults it was told.
//!
//! Promises: accepts in order, answers repeats alike, counts what it saw.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

use axum::{Form, Json, Router, http::StatusCode, routing};
use futures_util::future::BoxFuture;
use prost::Message;
use protocol::{hash::RowHash, key::KeyBytes, proto::ingestion as session, proto::totvs};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, NamedService},
    service::Routes,
};
use tonic_prost::ProstCodec;
use tower::Service;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// Stored, and the answer is lost.
    LostAnswer,
    Unavailable,
    RateLimited,
    Unauthenticated,
    /// Acknowledged but not stored: the Summary finds it missing.
    Forget,
    Gap,
    GapAlways,
    Conflict,
    Fenced,
    Denied,
    Invalid,
    /// Answered once a full window of Writes is in flight.
    Slow,
    /// Never answered.
    Hang,
    /// `success = false` with these words.
    Says(&'static str),
    /// A status, with seconds to wait where they are given.
    Status(tonic::Code, &'static str, Option<u32>),
}

/// The status of a scripted fault.
fn told(code: tonic::Code, words: &str, wait: Option<u32>) -> Status {
    let mut status = Status::new(code, words);
    if let Some(seconds) = wait {
        status.metadata_mut().insert("retry-after", seconds.to_string().parse().unwrap());
    }
    status
}

#[derive(Clone, Default, Debug)]
pub(super) struct Seen {
    pub script: VecDeque<(i32, Fault)>,
    /// Answers to the next Summaries and Prepares.
    pub summary_script: VecDeque<Fault>,
    pub prepare_script: VecDeque<Fault>,
    /// Every Write, in the order of arrival.
    pub writes: Vec<(i64, i32)>,
    pub stored: BTreeMap<i64, BTreeMap<i32, Vec<u8>>>,
    pub summaries: Vec<(totvs::BatchSummary, String)>,
    pub prepared: BTreeMap<String, Vec<u8>>,
    pub committed: BTreeMap<String, Vec<u8>>,
    pub released: Vec<u64>,
    pub conflicts: u32,
    pub in_flight: usize,
    pub most_in_flight: usize,
    pub epochs_seen: u32,
    pub epoch: u64,
    pub last_batch: i64,
    pub opens: u32,
    pub tokens: u32,
    pub entities: u32,
    pub deaf: bool,
    /// Nothing is served: HTTP answers 503 and gRPC UNAVAILABLE.
    pub gone: bool,
    /// Calls while it was gone.
    pub missed: u32,
    pub ttl: u32,
    /// Opens that find the server away.
    pub away: u32,
    /// The next grant is made and its answer never given.
    pub lose_grant: bool,
    /// Nonce of whoever holds the lease; another one is refused. `None` = free.
    pub nonce: Option<String>,
    held: bool,
    refuse: Option<String>,
    secret: String,
    upload_version: u32,
    staged: Vec<(KeyBytes, RowHash)>,
    /// Tables that Entities names.
    pub planned: Vec<&'static str>,
    /// A table whose every message is malformed.
    pub malformed: Option<&'static str>,
    /// Calls of `Rows`, by table.
    pub rows_asked: BTreeMap<String, u32>,
    pub fleet: super::steered::Seen,
}

#[derive(Clone)]
pub(super) struct Double {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<u64>,
    http: SocketAddr,
    sessions: bool,
}

impl Double {
    pub(super) async fn start() -> Self {
        Self::with(true, false).await
    }

    /// With the fleet's service.
    pub(super) async fn steering() -> Self {
        Self::with(true, true).await
    }

    /// Without `Session` and `Reconcile`.
    pub(super) async fn foreign() -> Self {
        Self::with(false, false).await
    }

    async fn with(sessions: bool, fleet: bool) -> Self {
        let http = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let grpc = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let seen = Seen {
            secret: "s3cret".into(),
            upload_version: 2,
            ttl: 30,
            planned: vec!["FLAN", "TMOV"],
            ..Seen::default()
        };
        let double = Self {
            seen: Arc::new(Mutex::new(seen)),
            changed: watch::Sender::new(0),
            http: http.local_addr().unwrap(),
            sessions,
        };
        let target = format!("http://{}", grpc.local_addr().unwrap());
        let router = double.router(&target);
        runtime::task::spawn("double http", async move { axum::serve(http, router).await });
        let mut routes = Routes::new(TableStream(double.clone()));
        if sessions {
            routes =
                routes.add_service(Session(double.clone())).add_service(Reconcile(double.clone()));
        }
        if fleet {
            routes = routes.add_service(super::steered::Agent(double.clone()));
        }
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(grpc);
        let server = tonic::transport::Server::builder().add_routes(routes);
        runtime::task::spawn("double grpc", server.serve_with_incoming(incoming));
        double
    }

    pub(super) fn registry(&self) -> String {
        format!("http://{}/services", self.http)
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// What was seen up to now.
    pub(super) fn look(&self) -> Seen {
        self.seen().clone()
    }

    pub(super) fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    pub(super) async fn until(&self, holds: impl Fn(&Seen) -> bool) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.seen()) {
            changed.changed().await.unwrap();
        }
    }

    pub(super) fn script(&self, number: i32, fault: Fault) {
        self.seen().script.push_back((number, fault));
    }

    pub(super) fn clear(&self) {
        self.seen().script.clear();
    }

    pub(super) fn hold(&self, held: bool) {
        self.seen().held = held;
    }

    pub(super) fn refuse(&self, code: &str) {
        self.seen().refuse = Some(code.to_owned());
    }

    pub(super) fn secret(&self, secret: &str) {
        self.seen().secret = secret.to_owned();
    }

    pub(super) fn upload_version(&self, version: u32) {
        self.seen().upload_version = version;
    }

    /// Another agent had the stream meanwhile.
    pub(super) fn taken_over(&self, staged: Vec<(KeyBytes, RowHash)>) {
        let mut seen = self.seen();
        seen.epoch += 1;
        seen.nonce = None;
        seen.last_batch += 1_000;
        seen.staged = staged;
    }

    fn router(&self, target: &str) -> Router {
        let place = |path: &str| format!("http://{}{path}", self.http);
        let services = json!([
            {"service": "rac-token", "endpoints": [{"version": "1", "address": place("/token")}]},
            {"service": "provisioning-carol-definitions-entities",
             "endpoints": [{"version": "1", "address": place("/entities")}]},
            {"service": "smartlink-ingestion", "endpoints": [{"version": "1", "address": target}]},
        ]);
        let token = self.clone();
        let entities = self.clone();
        let gone = self.clone();
        let here = move |request: axum::extract::Request, next: axum::middleware::Next| {
            let gone = gone.clone();
            async move {
                if gone.is_gone() {
                    return axum::response::IntoResponse::into_response(
                        StatusCode::SERVICE_UNAVAILABLE,
                    );
                }
                next.run(request).await
            }
        };
        Router::new()
            .route("/services", routing::get(move || async move { Json(services) }))
            .route(
                "/token",
                routing::post(move |Form(form): Form<BTreeMap<String, String>>| async move {
                    token.token(&form)
                }),
            )
            .route("/entities/RM", routing::get(move || async move { entities.entities() }))
            .layer(axum::middleware::from_fn(here))
    }

    /// Whether it serves nobody; a call that asks is counted.
    fn is_gone(&self) -> bool {
        let mut seen = self.seen();
        seen.missed += u32::from(seen.gone);
        seen.gone
    }

    fn token(&self, form: &BTreeMap<String, String>) -> (StatusCode, Json<Value>) {
        let mut seen = self.seen();
        if form["client_secret"] != seen.secret || form["grant_type"] != "client_credentials" {
            return (StatusCode::BAD_REQUEST, Json(json!({"error": "invalid_client"})));
        }
        seen.tokens += 1;
        let token = json!({"access_token": format!("token-{}", seen.tokens), "expires_in": 3600});
        (StatusCode::OK, Json(token))
    }

    fn entities(&self) -> Json<Value> {
        let mut seen = self.seen();
        seen.entities += 1;
        let (version, planned) = (seen.upload_version, seen.planned.clone());
        drop(seen);
        self.tell();
        let table = |name: &str| json!({"table": name, "filter": null, "forceReload": false});
        let queries: Vec<Value> = planned.into_iter().map(table).collect();
        Json(json!({"uploadVersion": version, "queries": queries}))
    }

    fn fault(&self, number: i32) -> Option<Fault> {
        let mut seen = self.seen();
        let at = seen.script.iter().position(|(of, _)| *of == number)?;
        let fault = seen.script[at].1;
        if fault != Fault::GapAlways {
            seen.script.remove(at);
        }
        drop(seen);
        self.tell();
        Some(fault)
    }

    async fn write(
        self,
        request: Request<totvs::Table>,
    ) -> Result<Response<totvs::TableInputResponse>, Status> {
        self.check_epoch(&request)?;
        let table = request.into_inner();
        {
            let mut seen = self.seen();
            seen.writes.push((table.batch_id, table.message_number));
            seen.in_flight += 1;
            seen.most_in_flight = seen.most_in_flight.max(seen.in_flight);
        }
        self.tell();
        let answer = self.accept(&table).await;
        self.seen().in_flight -= 1;
        self.tell();
        answer.map(|errors| {
            Response::new(totvs::TableInputResponse { success: errors.is_empty(), errors })
        })
    }

    async fn accept(&self, table: &totvs::Table) -> Result<Vec<String>, Status> {
        let number = table.message_number;
        let gap = |expected: i32| {
            Ok(vec![format!(
                "SEQUENCE_GAP: batch 1 of RM expects message {expected}, got {number}"
            )])
        };
        if self.seen().malformed == Some(table.table_name.as_str()) {
            return Err(Status::invalid_argument("INVALID_ARGUMENT: for a test"));
        }
        let mut lost = false;
        match self.fault(number) {
            Some(Fault::Unavailable) => return Err(Status::unavailable("UNAVAILABLE: for a test")),
            Some(Fault::RateLimited) => {
                let mut status = Status::resource_exhausted("RATE_LIMITED: for a test");
                status.metadata_mut().insert("retry-after", "0".parse().unwrap());
                return Err(status);
            }
            Some(Fault::Unauthenticated) => {
                return Err(Status::unauthenticated("UNAUTHENTICATED: for a test"));
            }
            Some(Fault::Gap | Fault::GapAlways) => return gap(2),
            Some(Fault::Conflict) => return Ok(vec!["MESSAGE_CONFLICT: for a test".into()]),
            Some(Fault::Fenced) => return Err(Status::failed_precondition("FENCED: for a test")),
            Some(Fault::Denied) => {
                return Err(Status::permission_denied("PERMISSION_DENIED: for a test"));
            }
            Some(Fault::Invalid) => {
                return Err(Status::invalid_argument("INVALID_ARGUMENT: for a test"));
            }
            Some(Fault::Hang) => return std::future::pending().await,
            Some(Fault::Says(words)) => return Ok(words.lines().map(str::to_owned).collect()),
            Some(Fault::Status(code, words, wait)) => return Err(told(code, words, wait)),
            Some(Fault::Forget) => {
                // Makes room for the numbers behind it, as a server that lost an acknowledged message would.
                self.store(table, Vec::new());
                return Ok(Vec::new());
            }
            Some(Fault::Slow) => {
                self.until(|seen| seen.in_flight >= protocol::limits::SENDER_IN_FLIGHT).await
            }
            Some(Fault::LostAnswer) => lost = true,
            None => {}
        }
        let reached = self.until(|seen| {
            seen.stored.get(&table.batch_id).map_or(0, BTreeMap::len) + 1 >= number as usize
        });
        if tokio::time::timeout(Duration::from_millis(300), reached).await.is_err() {
            let next = self.seen().stored.get(&table.batch_id).map_or(0, BTreeMap::len) + 1;
            return gap(i32::try_from(next).unwrap());
        }
        let bytes = table.encode_to_vec();
        self.store(table, bytes);
        if lost { Err(Status::unavailable("connection reset")) } else { Ok(Vec::new()) }
    }

    fn store(&self, table: &totvs::Table, bytes: Vec<u8>) {
        let mut seen = self.seen();
        seen.last_batch = seen.last_batch.max(table.batch_id);
        let batch = seen.stored.entry(table.batch_id).or_default();
        let before = batch.insert(table.message_number, bytes.clone());
        if before.is_some_and(|before| !before.is_empty() && before != bytes) {
            seen.conflicts += 1;
        }
    }

    fn check_epoch<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let Some(value) = request.metadata().get("x-sender-epoch") else {
            return if self.sessions {
                Err(Status::failed_precondition("EPOCH_REQUIRED: none"))
            } else {
                Ok(())
            };
        };
        let mut seen = self.seen();
        seen.epochs_seen += 1;
        if value.to_str().unwrap() == seen.epoch.to_string() {
            Ok(())
        } else {
            Err(Status::failed_precondition("FENCED: another epoch"))
        }
    }

    fn summary(
        &self,
        request: Request<totvs::BatchSummary>,
    ) -> Result<Response<totvs::BatchSummaryResponse>, Status> {
        self.check_epoch(&request)?;
        let loads = request
            .metadata()
            .get("x-base-load-done")
            .map_or("", |v| v.to_str().unwrap())
            .to_owned();
        let summary = request.into_inner();
        let mut seen = self.seen();
        match seen.summary_script.pop_front() {
            Some(Fault::Says(words)) => {
                let errors = vec![words.to_owned()];
                return Ok(Response::new(totvs::BatchSummaryResponse { success: false, errors }));
            }
            Some(Fault::Status(code, words, wait)) => return Err(told(code, words, wait)),
            _ => {}
        }
        let stored = seen.stored.get(&summary.batch_id).cloned().unwrap_or_default();
        if let Some((lost, _)) = stored.iter().find(|(_, bytes)| bytes.is_empty()) {
            let last = summary.message_count;
            let lost = *lost;
            seen.stored.entry(summary.batch_id).or_default().retain(|number, _| *number < lost);
            let errors =
                vec![format!("MESSAGES_MISSING: batch 1 of RM lacks messages {lost} to {last}")];
            return Ok(Response::new(totvs::BatchSummaryResponse { success: false, errors }));
        }
        assert_eq!(
            stored.len(),
            summary.message_count as usize,
            "the Summary comes after the last Write"
        );
        let prepared = std::mem::take(&mut seen.prepared);
        seen.committed.extend(prepared);
        seen.summaries.push((summary, loads));
        Ok(Response::new(totvs::BatchSummaryResponse { success: true, errors: Vec::new() }))
    }

    async fn open(
        &self,
        request: &session::OpenRequest,
    ) -> Result<Response<session::OpenResponse>, Status> {
        {
            let mut seen = self.seen();
            if seen.away > 0 {
                seen.away -= 1;
                return Err(Status::unavailable("UNAVAILABLE: for a test"));
            }
        }
        let answer = self.opened(request);
        self.tell();
        if std::mem::take(&mut self.seen().lose_grant) {
            return std::future::pending().await;
        }
        Ok(Response::new(answer))
    }

    fn opened(&self, request: &session::OpenRequest) -> session::OpenResponse {
        use session::open_response::Result as Opened;
        let mut seen = self.seen();
        seen.opens += 1;
        let twice = seen.nonce.as_ref().is_some_and(|nonce| *nonce != request.nonce);
        let result = if let Some(code) = seen.refuse.clone() {
            Opened::Refused(session::Refused { code, message: "for a test".into() })
        } else if seen.held {
            Opened::Held(session::Held { retry_after_seconds: 0 })
        } else if twice {
            let code = "INSTANCE_TWICE".to_owned();
            Opened::Refused(session::Refused { code, message: "for a test".into() })
        } else {
            seen.epoch += 1;
            seen.nonce = Some(request.nonce.clone());
            let cursor = seen
                .committed
                .iter()
                .map(|(table, value)| session::CursorEntry {
                    table: table.clone(),
                    value: value.clone(),
                })
                .collect();
            let (epoch, last_batch, ttl_seconds) = (seen.epoch, seen.last_batch, seen.ttl);
            Opened::Granted(session::Granted { epoch, cursor, last_batch, ttl_seconds })
        };
        session::OpenResponse { result: Some(result) }
    }

    fn rows(&self, request: &session::RowsRequest) -> session::RowsResponse {
        let mut seen = self.seen();
        *seen.rows_asked.entry(request.table.clone()).or_default() += 1;
        let of = |(key, hash): &(KeyBytes, RowHash)| session::RowHash {
            key: key.0.clone(),
            hash128: hash.0.to_vec(),
        };
        let rows = if request.table == "FLAN" && request.after.is_empty() {
            seen.staged.iter().map(of).collect()
        } else {
            Vec::new()
        };
        session::RowsResponse { rows, more: false }
    }

    fn renewed(&self, request: &session::RenewRequest) -> Result<session::RenewResponse, Status> {
        let mut seen = self.seen();
        if seen.deaf {
            Err(Status::unavailable("UNAVAILABLE: for a test"))
        } else if request.epoch == seen.epoch {
            seen.nonce = Some(request.nonce.clone());
            drop(seen);
            self.tell();
            let seen = self.seen();
            Ok(session::RenewResponse { ttl_seconds: seen.ttl })
        } else {
            Err(Status::failed_precondition("FENCED: another epoch"))
        }
    }

    fn prepare(
        &self,
        request: session::PrepareRequest,
    ) -> Result<Response<session::PrepareResponse>, Status> {
        if let Some(Fault::Status(code, words, wait)) = self.seen().prepare_script.pop_front() {
            return Err(told(code, words, wait));
        }
        let entries = request.entries.into_iter().map(|entry| (entry.table, entry.value));
        self.seen().prepared.extend(entries);
        self.tell();
        Ok(Response::new(session::PrepareResponse {}))
    }
}

type Answering = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

async fn unary<Q, A, F>(
    request: http::Request<Body>,
    answer: impl Fn(Request<Q>) -> F,
) -> http::Response<Body>
where
    Q: Message + Default + Send + Sync + 'static,
    A: Message + Default + Send + Sync + 'static,
    F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
{
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default());
    grpc.unary(tower::service_fn(answer), request).await
}

macro_rules! services {
    ($($name:ident $path:literal { $($method:literal => |$double:ident, $request:ident: $kind:ty| $answer:expr;)+ })+) => {$(
        #[derive(Clone)]
        struct $name(Double);

        impl NamedService for $name {
            const NAME: &'static str = $path;
        }

        impl Service<http::Request<Body>> for $name {
            type Response = http::Response<Body>;
            type Error = Infallible;
            type Future = Answering;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, request: http::Request<Body>) -> Answering {
                let double = self.0.clone();
                Box::pin(async move {
                    if double.is_gone() {
                        return Ok(Status::unavailable("UNAVAILABLE: gone").into_http());
                    }
                    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                    Ok(match method.as_str() {
                        $($method => unary(request, move |$request: Request<$kind>| {
                            let $double = double.clone();
                            async move { $answer }
                        }).await,)+
                        _ => Status::unimplemented("no such method").into_http(),
                    })
                })
            }
        }
    )+};
}

services! {
    TableStream "com.totvs.ingestion.grpc.TableStream" {
        "Write" => |double, request: totvs::Table| double.write(request).await;
        "Summary" => |double, request: totvs::BatchSummary| double.summary(request);
    }
    Session "malote.ingestion.v1.Session" {
        "Open" => |double, request: session::OpenRequest| double.open(request.get_ref()).await;
        "Renew" => |double, request: session::RenewRequest| double.renewed(request.get_ref()).map(Response::new);
        "Prepare" => |double, request: session::PrepareRequest| double.prepare(request.into_inner());
        "Release" => |double, request: session::ReleaseRequest| {
            double.seen().released.push(request.get_ref().epoch);
            double.seen().nonce = None;
            Ok(Response::new(session::ReleaseResponse {}))
        };
    }
    Reconcile "malote.ingestion.v1.Reconcile" {
        "Rows" => |double, request: session::RowsRequest| Ok(Response::new(double.rows(request.get_ref())));
    }
}
