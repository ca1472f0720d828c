//! The server as a process: how it ends when it is asked to.
//!
//! A call is under way when the server's own gauge says so; nothing here waits for a time and hopes.

use std::{fs, time::Duration};

use protocol::proto::totvs::{
    Table, TableInputResponse,
    table::{
        RowColumn, Schema, TableRow,
        schema::{SchemaColumn, SchemaPrimaryKey},
    },
};
use runtime::{clock, task};
use serde_json::Value;
use sim::{
    process::{self, Process},
    servers,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

const WRITE: &str = "/com.totvs.ingestion.grpc.TableStream/Write";
const PATIENCE: Duration = Duration::from_secs(20);

/// A server process with one tenant that shares table T of RM.
struct Server {
    folder: TempDir,
    process: Process,
    http: u16,
    grpc: u16,
    made: Value,
}

impl Server {
    async fn start() -> Self {
        runtime::tls::install_provider();
        let folder = tempfile::Builder::new().prefix("malote-server-").tempdir().unwrap();
        let (http, grpc) = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let config = format!(
            "data = 'data'\nhttp_listen = '127.0.0.1:{http}'\ngrpc_listen = '127.0.0.1:{grpc}'\nallow_private = true\n"
        );
        fs::write(folder.path().join("server.toml"), config).unwrap();
        let setup = "server setup --config server.toml --tenant Loja --erp RM --tables T --json";
        let words: Vec<&str> = setup.split(' ').collect();
        let made = process::command(folder.path(), &words).unwrap();
        let made = serde_json::from_str(&made).unwrap();
        let process = launch(&folder);
        let mut server = Self { folder, process, http, grpc, made };
        server.ready().await;
        server
    }

    async fn again(&mut self) {
        self.process = launch(&self.folder);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let begun = clock::Mono::now();
        while self.probe("readyz").await.0 != 200 {
            assert!(begun.elapsed() < PATIENCE, "not ready: {}", self.process.log_end(20));
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Status and body over a connection of its own; status 0 where there is none.
    async fn probe(&self, path: &str) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let address = format!("http://127.0.0.1:{}/{path}", self.http);
        match client.get(address).send().await {
            Ok(answer) => (answer.status().as_u16(), answer.text().await.unwrap_or_default()),
            Err(_) => (0, String::new()),
        }
    }

    async fn until(&self, path: &str, what: &str, is: impl Fn(&(u16, String)) -> bool) {
        let begun = clock::Mono::now();
        loop {
            let found = self.probe(path).await;
            if is(&found) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{path} never shows {what}: {found:?}");
            clock::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until that many calls are under way in the server.
    async fn under_way(&self, calls: usize) {
        let line = format!("malote_calls_under_way {calls}");
        self.until("metrics", &line, |(_, text)| text.lines().any(|found| found == line)).await;
    }

    async fn draining(&self) {
        self.until("readyz", "DRAINING", |(status, body)| {
            *status == 503 && body.contains("\"DRAINING\"")
        })
        .await;
    }

    async fn token(&self) -> String {
        let word = |key: &str| self.made[key].as_str().unwrap().to_owned();
        let form = [
            ("grant_type", "client_credentials".to_owned()),
            ("scope", "authorization_api".to_owned()),
            ("client_id", word("clientId")),
            ("client_secret", word("clientSecret")),
        ];
        let address = format!("http://127.0.0.1:{}/totvs.rac/connect/token", self.http);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(address).form(&form).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    async fn channel(&self) -> Channel {
        Endpoint::from_shared(format!("http://127.0.0.1:{}", self.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// Waits until the process has ended by itself.
    async fn end(&mut self) -> Option<i32> {
        let begun = clock::Mono::now();
        loop {
            if let Some(status) = self.process.ended().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on: {}", self.process.log_end(20));
            clock::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn launch(folder: &TempDir) -> Process {
    let log = folder.path().join("server.log");
    let words = ["server", "run", "--config", "server.toml"];
    Process::start(folder.path(), &log, &words).unwrap()
}

fn message(number: i32) -> Table {
    let cell = RowColumn { name: "ID".into(), value: number.to_string() };
    Table {
        table_name: "T".into(),
        erp: "RM".into(),
        rows: vec![TableRow { columns: vec![cell] }],
        schema: Some(Schema {
            flexible: true,
            export_data: false,
            columns: vec![SchemaColumn { name: "ID".into(), r#type: "long".into() }],
            primary_key: Some(SchemaPrimaryKey { name: "T".into(), columns: vec!["ID".into()] }),
        }),
        batch_id: clock::Wall::now().seconds() / 10_000 * 10_000,
        message_number: number,
        record_count: 1,
        is_base_load: false,
    }
}

type Outcome = Result<TableInputResponse, Status>;

/// A Write whose body comes when it is put into `body`.
async fn write_from(channel: Channel, token: String, body: ReceiverStream<Table>) -> Outcome {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|_| Status::unavailable("no connection"))?;
    let mut request = Request::new(body);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let codec = ProstCodec::<Table, TableInputResponse>::default();
    let path = PathAndQuery::from_static(WRITE);
    client.client_streaming(request, path, codec).await.map(tonic::Response::into_inner)
}

async fn write(channel: &Channel, token: &str, table: Table) -> Outcome {
    let (put, body) = mpsc::channel(1);
    put.send(table).await.unwrap();
    drop(put);
    write_from(channel.clone(), token.to_owned(), ReceiverStream::new(body)).await
}

/// A Write under way: the server has its head, its body is still to come.
fn begin(channel: &Channel, token: &str) -> (mpsc::Sender<Table>, task::Task<Outcome>) {
    let (put, body) = mpsc::channel(1);
    let body = ReceiverStream::new(body);
    (put, task::spawn("write", write_from(channel.clone(), token.to_owned(), body)))
}

fn is_draining(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|status| {
        status.code() == Code::Unavailable && status.message().starts_with("DRAINING: ")
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_asked_to_stop_ends_its_calls_and_tells_new_ones_that_it_drains() {
    let mut server = Server::start().await;
    let (channel, token) = (server.channel().await, server.token().await);
    let (put, call) = begin(&channel, &token);
    server.under_way(1).await;
    server.process.signal("TERM").unwrap();
    server.draining().await;
    assert_eq!(server.probe("healthz").await.0, 200);
    let registry = server.probe("api/v1/services").await;
    assert!(registry.0 == 503 && registry.1.contains("\"DRAINING\""), "{registry:?}");
    for channel in [channel.clone(), server.channel().await] {
        let refused = write(&channel, &token, message(2)).await;
        assert!(is_draining(&refused), "{refused:?}");
    }
    assert_eq!(server.probe("readyz").await.0, 503, "it drains for as long as a call is under way");
    put.send(message(1)).await.unwrap();
    drop(put);
    let answer = call.join().await.unwrap().unwrap();
    assert!(answer.success, "{answer:?}");
    assert_eq!(server.end().await, Some(0), "{}", server.process.log_end(20));

    server.again().await;
    let (channel, token) = (server.channel().await, server.token().await);
    for number in [1, 2] {
        let answer = write(&channel, &token, message(number)).await.unwrap();
        assert!(answer.success, "message {number}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_waits_for_its_predecessor_gets_its_answer_from_a_server_that_drains() {
    let mut server = Server::start().await;
    let (channel, token) = (server.channel().await, server.token().await);
    assert!(write(&channel, &token, message(1)).await.unwrap().success);
    let (put, call) = begin(&channel, &token);
    put.send(message(3)).await.unwrap();
    drop(put);
    server.under_way(1).await;
    server.process.signal("TERM").unwrap();
    server.draining().await;
    let refused = write(&channel, &token, message(2)).await;
    assert!(is_draining(&refused), "{refused:?}");
    let answer = call.join().await.unwrap().unwrap();
    assert!(answer.errors[0].starts_with("SEQUENCE_GAP: "), "{answer:?}");
    assert_eq!(server.end().await, Some(0), "{}", server.process.log_end(20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_the_server_at_once() {
    let mut server = Server::start().await;
    let (channel, token) = (server.channel().await, server.token().await);
    let (_put, call) = begin(&channel, &token);
    server.under_way(1).await;
    server.process.signal("TERM").unwrap();
    server.draining().await;
    server.process.signal("TERM").unwrap();
    assert_eq!(server.end().await, Some(130));
    assert!(call.join().await.unwrap().is_err(), "the call was cut");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_command_refuses_has_its_code_on_stderr_nothing_on_stdout_and_exit_code_1() {
    let server = Server::start().await;
    let (channel, token) = (server.channel().await, server.token().await);
    let first = message(1);
    assert!(write(&channel, &token, first.clone()).await.unwrap().success);
    let run = |line: String| {
        let mut command = std::process::Command::new(process::binary().unwrap());
        let words = line.split(' ');
        command.current_dir(server.folder.path()).arg("server").args(words);
        let done = command.args(["--config", "server.toml", "--lang", "en"]).output().unwrap();
        let [out, err] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        (done.status.code(), out, err)
    };
    let (code, out, _) = run(format!("batches show {} --json", first.batch_id));
    let shown: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &shown["number"], &shown["table"]), (Some(0), &1.into(), &"T".into()));
    for (line, expected) in [
        ("batches show 99", "NOT_FOUND"),
        ("batches show 99 --json", "NOT_FOUND"),
        ("entity add malote_batches", "NAME_RESERVED"),
        ("entity add OTHER Malote_Quarantine --json", "NAME_RESERVED"),
    ] {
        let (code, out, err) = run(line.to_owned());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{line}: {err}");
        assert!(err.starts_with(&format!("error: {expected}: ")), "{line}: {err}");
    }
    let (_, listed, _) = run("entity list --json".to_owned());
    assert_eq!(listed.lines().count(), 1, "nothing was shared: {listed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_that_a_command_revokes_is_refused_by_the_running_server_within_a_minute() {
    let server = Server::start().await;
    let (channel, token) = (server.channel().await, server.token().await);
    let web = reqwest::Client::builder().no_proxy().build().unwrap();
    let shared = format!("http://127.0.0.1:{}/api/carol-definitions/v1/entities/RM", server.http);
    let asked = || async { web.get(&shared).bearer_auth(&token).send().await.unwrap().status() };
    assert_eq!(asked().await, 200);
    assert!(write(&channel, &token, message(1)).await.unwrap().success);
    // Another process than the one that knows the credential.
    let client = server.made["clientId"].as_str().unwrap();
    let words = ["server", "credential", "revoke", client, "--config", "server.toml"];
    process::command(server.folder.path(), &words).unwrap();
    let begun = clock::Mono::now();
    let (mut rest, mut rpc, mut number) = (None, None, 1);
    while rest.is_none() || rpc.is_none() {
        assert!(
            begun.elapsed() < protocol::limits::CLIENT_CACHE * 2,
            "REST {rest:?}, gRPC {rpc:?}"
        );
        if rest.is_none() && asked().await == 401 {
            rest = Some(begun.elapsed());
        }
        number += 1;
        match write(&channel, &token, message(number)).await {
            Ok(answer) => assert!(answer.success && rpc.is_none(), "{answer:?} after {rpc:?}"),
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                rpc = rpc.or(Some(begun.elapsed()));
            }
        }
        clock::sleep(Duration::from_millis(500)).await;
    }
}

#[cfg(target_env = "gnu")]
#[tokio::test]
async fn a_process_that_stays_gives_memory_back_to_the_system_and_is_still_the_one_that_was_started()
 {
    let server = Server::start().await;
    let read = |what: &str| fs::read(format!("/proc/{}/{what}", server.process.id())).unwrap();
    let has = |what: &str, word: &str| {
        read(what).split(|byte| *byte == 0).any(|part| part == word.as_bytes())
    };
    assert!(
        has("environ", "MALLOC_ARENA_MAX=2") && has("environ", "MALLOC_TRIM_THRESHOLD_=131072")
    );
    assert!(has("cmdline", "server") && has("cmdline", "run") && has("cmdline", "--config"));
}
