//! Bodies of gRPC calls at a running server: heads, compressed messages, bombs, and messages of any method.
//!
//! Promises: each call is answered or cut in time, never by a status that says nothing; the server goes on taking good
//! messages.
//! Never: calls beyond loopback.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use protocol::proto::totvs::{Table, table};
use secrecy::SecretString;
use server::{app::App, config::ServerConfig, model::catalog::Holder, service::catalog::NewEntity};
use tokio::runtime::Runtime;
use tonic::{
    body::Body,
    transport::{Channel, Endpoint},
};
use tower::{Service as _, ServiceExt as _};

use super::{Found, Kept, asynchronous, fault, folder, holds, set_up};

const METHODS: [&str; 8] = [
    "/com.totvs.ingestion.grpc.TableStream/Write",
    "/com.totvs.ingestion.grpc.TableStream/Summary",
    "/malote.ingestion.v1.Session/Open",
    "/malote.ingestion.v1.Session/Renew",
    "/malote.ingestion.v1.Session/Prepare",
    "/malote.ingestion.v1.Reconcile/Ranges",
    "/malote.ingestion.v1.Reconcile/Rows",
    HEALTH,
];
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const ENCODINGS: [&str; 4] = ["identity", "gzip", "zstd", "br"];
/// In the first byte of an input: a right head is put before the rest.
const HEADED: u8 = 0x20;
/// The call comes without a token.
const NAMELESS: u8 = 0x40;
/// The rest of the input comes so often: bombs of small files.
const REPEATED: u8 = 0x80;
const TIMES: usize = 16;
/// A write may wait 2 s for its predecessor; nothing waits longer than a call's time.
const ANSWER: Duration = Duration::from_secs(35);
/// How often a good message goes between.
const GOOD_EVERY: u64 = 50;

struct World {
    runtime: Runtime,
    app: Option<App>,
    channel: Channel,
    token: String,
    calls: u64,
    batch: i64,
    _folder: tempfile::TempDir,
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(app) = self.app.take() {
            self.runtime.block_on(app.stop());
        }
    }
}

impl World {
    fn new() -> Found<Self> {
        runtime::tls::install_provider();
        let (runtime, folder) = (asynchronous()?, folder()?);
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ServerConfig {
            data: folder.path().to_owned(),
            http_listen: free,
            grpc_listen: free,
            allow_private: true,
            ..ServerConfig::default()
        };
        let made = runtime.block_on(async {
            let app = App::start(&config).await?;
            let catalog = &app.services.catalog;
            let (tenant, _, installation) = set_up(catalog, "RM").await?;
            let place = catalog.place(tenant, "", "").await?;
            let entity = NewEntity { table: "FLAN".parse()?, filter: None, is_custom: false };
            catalog.add_entities(&place, vec![entity]).await?;
            let access = &app.services.access;
            let new = access.create_credential(tenant, Holder::Installation(installation)).await?;
            let secret = SecretString::from(new.reveal().to_owned());
            let now = runtime::clock::Wall::now();
            let token = access.issue(new.credential.client.as_str(), &secret, now).await?;
            Ok::<_, protocol::Error>((app, token.access_token, now.seconds()))
        });
        let (app, token, now) = made.map_err(fault("no server"))?;
        let target = format!("http://{}", app.grpc);
        let endpoint = Endpoint::from_shared(target).map_err(fault("no address"))?;
        let channel = runtime.block_on(async { endpoint.connect_lazy() });
        let (calls, batch) = (0, now - 50_000);
        Ok(Self { runtime, app: Some(app), channel, token, calls, batch, _folder: folder })
    }

    /// The status of a call with that body; `None` where the connection was cut.
    fn called(
        &mut self,
        (method, encoding): (&str, &str),
        named: bool,
        body: Vec<u8>,
    ) -> Found<Option<(i32, String)>> {
        let mut request = http::Request::post(method)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("grpc-encoding", encoding);
        if named {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request.body(Body::new(Full::new(bytes::Bytes::from(body))));
        let request = request.map_err(fault("no call"))?;
        let mut channel = self.channel.clone();
        let answer = async move {
            let channel = channel.ready().await.map_err(fault("the server is gone"))?;
            let Ok(answer) = channel.call(request).await else { return Ok(None) };
            let head = answer.headers().clone();
            let Ok(body) = answer.into_body().collect().await else { return Ok(None) };
            let trailers = body.trailers().cloned().unwrap_or_default();
            let word = |name: &str| {
                let found = head.get(name).or_else(|| trailers.get(name));
                found.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
            };
            let status = word("grpc-status").and_then(|text| text.parse().ok());
            let status: i32 = status.ok_or("an answer without a status")?;
            Ok(Some((status, word("grpc-message").unwrap_or_default())))
        };
        let answer = async { tokio::time::timeout(ANSWER, answer).await };
        self.runtime.block_on(answer).map_err(|_| format!("{method} is not answered"))?
    }

    /// A good message is taken, whatever came before it.
    fn takes_a_good_one(&mut self) -> Found {
        self.batch += 1;
        let column =
            |name: &str| table::schema::SchemaColumn { name: name.into(), r#type: "string".into() };
        let cell = table::RowColumn { name: "ID".into(), value: "1".into() };
        let key =
            table::schema::SchemaPrimaryKey { name: "FLAN".into(), columns: vec!["ID".into()] };
        let good = Table {
            table_name: "FLAN".into(),
            erp: "RM".into(),
            rows: vec![table::TableRow { columns: vec![cell] }],
            schema: Some(table::Schema {
                flexible: true,
                export_data: true,
                columns: vec![column("ID")],
                primary_key: Some(key),
            }),
            batch_id: self.batch,
            message_number: 1,
            record_count: 1,
            is_base_load: false,
        };
        let [write, ..] = METHODS;
        let answer = self.called((write, "identity"), true, headed(false, good.encode_to_vec()))?;
        // A session that the input opened has the stream for the next 30 s, and says so.
        let taken = answer.as_ref().is_some_and(|(status, words)| {
            *status == 0 || (*status == 9 && words.contains("EPOCH_REQUIRED"))
        });
        holds(taken, || format!("a good message is answered {answer:?}"))
    }
}

/// Flag and length before a message.
fn headed(packed: bool, message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [vec![u8::from(packed)], length.to_be_bytes().to_vec(), message].concat()
}

/// Words of a status 13 about a body that is no message: cut, of a wrong flag, not packed as it says. A sender repeats
/// the same bytes then, since a body that was damaged on its way says nothing about its rows.
const FRAMING: [&str; 4] = ["compress", "decompress", "Unexpected", "Missing"];

/// What a call may be answered: nothing that says no more than that something failed. Health is not our own service; it
/// calls a request that does not read a failure of its own.
fn plain(method: &str, status: i32, words: &str) -> Found {
    let framing = FRAMING.iter().any(|word| words.contains(word)) || method == HEALTH;
    holds((0..=16).contains(&status) && status != 2 && (status != 13 || framing), || {
        format!("answered {status}: {words}")
    })
}

/// The first byte chooses method, encoding and head, the rest is the body.
pub(super) fn frame(bytes: &[u8]) -> Found {
    let Some((&choice, rest)) = bytes.split_first() else { return Ok(()) };
    let pick = |of: &[&'static str], at: u8| {
        of.get(usize::from(at) % of.len()).copied().unwrap_or_default()
    };
    let (encoding, method) = (pick(&ENCODINGS, choice & 3), pick(&METHODS, choice >> 2 & 7));
    let rest = if choice & REPEATED == 0 { rest.to_vec() } else { rest.repeat(TIMES) };
    let body = if choice & HEADED == 0 { rest } else { headed(encoding != "identity", rest) };
    WORLD.with(World::new, |world| {
        world.calls += 1;
        let answer = world.called((method, encoding), choice & NAMELESS == 0, body)?;
        if let Some((status, words)) = answer {
            plain(method, status, &words)?;
            let secret = choice & NAMELESS != 0 && method != HEALTH;
            holds(!secret || status == 16, || format!("without a token: {status} {words}"))?;
        }
        if world.calls.is_multiple_of(GOOD_EVERY) {
            world.takes_a_good_one()?;
        }
        Ok(())
    })
}
