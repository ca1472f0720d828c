//! What the cloud answers an agent over HTTP: registry, token, Entities; and apps-by-tenant, which others read.
//!
//! Promises: an answer that is not valid changes nothing and is told with a code; no answer leads the agent to a host
//! that the customer did not name; the plan that is kept is the one that came.
//! Never: answers more than one agent at a time.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use agent::{
    journal::Journal,
    uplink::{self, UplinkConfig},
};
use protocol::{
    Code,
    json::{Apps, Entities, Service, Token, find_service, service},
    proto::ingestion::DatabaseIdentity,
};
use runtime::{
    clock::{self, Mono},
    shutdown,
    task::{self, Task},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};

use super::{Found, Kept, asynchronous, fault, folder, holds};

/// In a registry stands for an address that may be called, and for one that may not.
const OURS: &str = "@OURS@";
const THEIRS: &str = "@THEIRS@";
/// Soon enough that a second reading of Entities shows the end of the first.
const EVERY: Duration = Duration::from_millis(5);
const WAIT: Duration = Duration::from_secs(20);
const GOOD_ENTITIES: &[u8] =
    br#"{"uploadVersion":2,"queries":[{"table":"FLAN","filter":null,"forceReload":false}]}"#;
const GOOD_TOKEN: &[u8] = br#"{"access_token":"good","expires_in":3600}"#;

/// What is answered, and how often it was asked for.
#[derive(Clone, Debug, Default)]
struct Script {
    registry: Vec<u8>,
    token: Vec<u8>,
    entities: Vec<u8>,
    asked: [u32; 3],
    bearer: String,
    /// Calls to the address that may not be called.
    strayed: u32,
}

struct World {
    runtime: Runtime,
    script: Arc<Mutex<Script>>,
    ours: SocketAddr,
    theirs: SocketAddr,
    _listening: [Task<()>; 2],
}

static WORLD: Kept<World> = Kept::new();

pub(super) fn end() {
    WORLD.end();
}

impl World {
    fn new() -> Found<Self> {
        let runtime = asynchronous()?;
        let script = Arc::new(Mutex::new(Script::default()));
        let bound = runtime.block_on(async {
            let ours = TcpListener::bind("127.0.0.1:0").await?;
            let theirs = TcpListener::bind("127.0.0.2:0").await?;
            let addresses = (ours.local_addr()?, theirs.local_addr()?);
            let listening = [
                task::spawn("answers", answering(ours, Arc::clone(&script))),
                task::spawn("a stranger", straying(theirs, Arc::clone(&script))),
            ];
            Ok::<_, std::io::Error>((addresses, listening))
        });
        let ((ours, theirs), listening) = bound.map_err(fault("no listener"))?;
        Ok(Self { runtime, script, ours, theirs, _listening: listening })
    }

    fn seen(&self) -> Script {
        self.script.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The text with addresses put in.
    fn filled(&self, bytes: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.replace(OURS, &format!("http://{}", self.ours));
        text.replace(THEIRS, &format!("http://{}", self.theirs)).into_bytes()
    }

    fn good_registry(&self) -> Vec<u8> {
        let one = |key: &str, path: &str| {
            format!(
                r#"{{"service":"{key}","endpoints":[{{"version":"1","address":"http://{}{path}"}}]}}"#,
                self.ours
            )
        };
        let all = [
            one(service::RAC_TOKEN, "/token"),
            one(service::ENTITIES, "/entities"),
            one(service::INGESTION, ""),
        ];
        format!("[{}]", all.join(",")).into_bytes()
    }

    /// An agent's uplink in a new folder over these answers until it is `told`: the plan it kept and the state of its link.
    fn told(&self, script: Script, told: impl Fn(&Script) -> bool) -> Found<Told> {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
        let folder = folder()?;
        self.runtime.block_on(async {
            let (journal, trigger, running) = self.agent(folder.path()).await?;
            let begun = Mono::now();
            let found = loop {
                let plan = journal.plan().await.map_err(fault("no plan"))?;
                let link = journal.link().borrow().clone();
                let (code, words) = (link.code.clone(), link.words.clone().unwrap_or_default());
                if plan.is_some() || (told(&self.seen()) && code.is_some()) {
                    break Ok(Told { plan, code, words });
                }
                if begun.elapsed() > WAIT {
                    break Err(format!("nothing is told of it: {link:?}"));
                }
                clock::sleep(Duration::from_millis(1)).await;
            };
            drop(trigger);
            running.abort();
            let ended = running.join().await;
            drop(journal);
            match ended {
                Ok(Err(error)) if found.is_ok() => Err(format!("the uplink ended: {error:?}")),
                _ => found,
            }
        })
    }

    async fn agent(
        &self,
        folder: &Path,
    ) -> Found<(Journal, shutdown::Trigger, Task<protocol::Result<()>>)> {
        let (journal, _) = Journal::open(folder).await.map_err(fault("no journal"))?;
        let config = UplinkConfig {
            registry_url: format!("http://{}/services", self.ours),
            client_id: "erp-1".parse().map_err(fault("no client"))?,
            client_secret: "s3cret".to_owned().into(),
            erp: "RM".parse().map_err(fault("no erp"))?,
            hosts: Vec::new(),
            allow_private: true,
            proxy: None,
            ca_pem: None,
            entities_every: EVERY,
            denied_retry: uplink::DENIED_RETRY,
            source_away: Duration::from_secs(60),
            agent_version: "test".into(),
        };
        let identity = || async {
            let database =
                DatabaseIdentity { kind: "sqlite".into(), ..DatabaseIdentity::default() };
            Ok(uplink::Identity { database, version: "3".into() })
        };
        let (trigger, shutdown) = shutdown::channel();
        let run = uplink::run(journal.clone(), config, identity, shutdown);
        Ok((journal, trigger, task::spawn("uplink", run)))
    }
}

struct Told {
    plan: Option<Entities>,
    code: Option<String>,
    words: String,
}

impl Told {
    /// A code of the closed table that is no fault of the program.
    fn is_plain(&self) -> Found {
        let Some(code) = &self.code else { return Ok(()) };
        let known =
            code.parse::<Code>().is_ok_and(|code| code.class() != protocol::error::Class::Bug);
        holds(known && !self.words.is_empty(), || format!("told as {code}: {}", self.words))
    }
}

/// Parsed, written and parsed again is the same.
fn there_and_back<T: Serialize + DeserializeOwned + PartialEq>(bytes: &[u8]) -> Found<Option<T>> {
    let Ok(read) = serde_json::from_slice::<T>(bytes) else { return Ok(None) };
    let text = serde_json::to_vec(&read).map_err(fault("read, and cannot be written"))?;
    let again: T = serde_json::from_slice(&text).map_err(fault("written, and cannot be read"))?;
    holds(again == read, || "reads back as another one".to_owned())?;
    Ok(Some(read))
}

/// Apps-by-tenant.
pub(super) fn apps(bytes: &[u8]) -> Found {
    there_and_back::<Apps>(bytes).map(|_| ())
}

/// The registry's list of services.
pub(super) fn registry(bytes: &[u8]) -> Found {
    WORLD.with(World::new, |world| {
        let body = world.filled(bytes);
        let read = there_and_back::<Vec<Service>>(&body)?;
        let script = Script {
            registry: body,
            token: GOOD_TOKEN.to_vec(),
            entities: GOOD_ENTITIES.to_vec(),
            ..Script::default()
        };
        let told = world.told(script, |script| script.asked.iter().sum::<u32>() > 0)?;
        told.is_plain()?;
        holds(world.seen().strayed == 0, || {
            "an address that is not allowed was called".to_owned()
        })?;
        if told.plan.is_some() {
            let services = read.ok_or("a list that does not read was followed")?;
            let ours = format!("http://{}", world.ours);
            for key in [service::RAC_TOKEN, service::ENTITIES] {
                let address = find_service(&services, key).map_err(fault("followed without"))?;
                holds(address.starts_with(&ours), || format!("{address} was followed"))?;
            }
        }
        Ok(())
    })
}

/// The token call's answer.
pub(super) fn token(bytes: &[u8]) -> Found {
    WORLD.with(World::new, |world| {
        let read = serde_json::from_slice::<Token>(bytes);
        let script = Script {
            registry: world.good_registry(),
            token: bytes.to_vec(),
            entities: GOOD_ENTITIES.to_vec(),
            ..Script::default()
        };
        let told = world.told(script, |script| script.asked[1] > 0)?;
        told.is_plain()?;
        if let Ok(token) = read {
            let secret = token.access_token.trim();
            let shown = secret.len() > 8 && told.words.contains(secret);
            holds(!shown, || "the token is shown".to_owned())?;
            let sent = world.seen().bearer;
            let sent = sent.strip_prefix("Bearer").unwrap_or_default();
            holds(told.plan.is_none() || sent.trim() == secret, || {
                "another token was sent".to_owned()
            })
        } else {
            holds(told.plan.is_none(), || "a token that does not read was used".to_owned())
        }
    })
}

/// The answer of Entities.
pub(super) fn entities(bytes: &[u8]) -> Found {
    WORLD.with(World::new, |world| {
        let read = there_and_back::<Entities>(bytes)?;
        let good = read.filter(|read| {
            let mut names: Vec<_> = read.queries.iter().map(|query| query.table.folded()).collect();
            names.sort_unstable();
            names.dedup();
            read.upload_version >= 2 && names.len() == read.queries.len()
        });
        let script = Script {
            registry: world.good_registry(),
            token: GOOD_TOKEN.to_vec(),
            entities: bytes.to_vec(),
            ..Script::default()
        };
        let told = world.told(script, |script| script.asked[2] > 1)?;
        told.is_plain()?;
        holds(told.plan == good, || format!("kept: {:?}", told.plan))
    })
}

async fn straying(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((caller, _)) = listener.accept().await {
        script.lock().unwrap_or_else(PoisonError::into_inner).strayed += 1;
        drop(caller);
    }
}

/// HTTP/1.1, one call a connection.
async fn answering(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((caller, _)) = listener.accept().await {
        let script = Arc::clone(&script);
        drop(task::spawn("an answer", async move {
            // Whoever hangs up wants no answer.
            let _ = answer(caller, &script).await;
        }));
    }
}

async fn answer(mut caller: TcpStream, script: &Mutex<Script>) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && caller.read(&mut byte).await? > 0 {
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let value = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    let length: usize = value("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut form = vec![0; length.min(64 * 1024)];
    caller.read_exact(&mut form).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let body = {
        let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
        let which = match path.as_str() {
            "/services" => Some(0),
            "/token" => Some(1),
            "/entities/RM" => Some(2),
            _ => None,
        };
        if let Some(count) = which.and_then(|which| script.asked.get_mut(which)) {
            *count += 1;
        }
        if which == Some(2) {
            script.bearer = value("authorization").unwrap_or_default();
        }
        let bodies = [&script.registry, &script.token, &script.entities];
        which.and_then(|which| bodies.get(which).map(|body| body.to_vec()))
    };
    let (status, body) = match body {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", Vec::new()),
    };
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    caller.write_all(head.as_bytes()).await?;
    caller.write_all(&body).await?;
    caller.shutdown().await
}
