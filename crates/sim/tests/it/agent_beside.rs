//! The agent's process as people meet it beside any cloud: not configured, its detailed log, secrets that are typed.
//!
//! Promises: real processes; nothing waits for a time and hopes.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use runtime::{clock, exit};
use serde_json::Value;
use sim::{
    process::{self, Process},
    servers,
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// How a command ended: exit code, stdout, stderr.
fn agent(folder: &Path, words: &[&str], stdin: &str) -> (u8, String, String) {
    let mut all = if words.contains(&"--lang") { vec![] } else { vec!["--lang", "en"] };
    all.push("agent");
    all.extend(words);
    all.extend(["--config", "agent.toml"]);
    let done = process::answer(folder, &all, stdin).unwrap();
    let [out, err] = [done.stdout, done.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (u8::try_from(done.status.code().unwrap()).unwrap(), out, err)
}

/// An agent that lacks what the configuration does not name.
struct Agent {
    folder: TempDir,
    process: Process,
    address: String,
}

impl Agent {
    async fn start(config: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("malote-agent-").tempdir().unwrap();
        let address = format!("127.0.0.1:{}", servers::free_port().unwrap());
        let config = format!("data = 'data'\n{config}\n[admin]\nlisten = '{address}'\n");
        fs::write(folder.path().join("agent.toml"), config).unwrap();
        let process = run(folder.path());
        let mut agent = Self { folder, process, address };
        agent.answers().await;
        agent
    }

    async fn answers(&mut self) {
        self.until("the door answers", |agent| agent.status().0 != exit::FAILED).await;
    }

    async fn until(&mut self, what: &str, is: impl Fn(&Self) -> bool) {
        let begun = clock::Mono::now();
        while !is(self) {
            let ended = self.process.ended().unwrap();
            assert!(ended.is_none(), "{what}: {}", self.process.log_end(20));
            assert!(begun.elapsed() < PATIENCE, "not so: {what}\n{}", self.process.log_end(20));
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    fn command(&self, words: &[&str]) -> (u8, String, String) {
        agent(self.folder.path(), words, "")
    }

    fn status(&self) -> (u8, Value) {
        let (code, out, _) = self.command(&["status", "--json"]);
        (code, serde_json::from_str(&out).unwrap_or_default())
    }

    async fn stop(&mut self) {
        let ended = self.process.stop(PATIENCE).await.unwrap();
        assert_eq!(ended.code(), Some(i32::from(exit::OK)));
    }
}

fn run(folder: &Path) -> Process {
    let words = ["agent", "run", "--config", "agent.toml"];
    Process::start(folder, &folder.join("agent.log"), &words).unwrap()
}

#[tokio::test]
async fn an_agent_without_configuration_runs_says_so_and_ends_when_it_is_asked_to() {
    let mut agent = Agent::start("").await;
    let (code, status) = agent.status();
    assert_eq!((code, &status["configured"]), (exit::UNCONFIGURED, &Value::Bool(false)));
    assert_eq!(status["link"]["phase"], "STOPPED");
    let own = format!("http://{}/", agent.address);
    assert_eq!(status["configuratorUrl"], own.as_str());
    let missing: Vec<&str> =
        status["missing"].as_array().unwrap().iter().map(|key| key.as_str().unwrap()).collect();
    let keys =
        ["cloud.registry", "cloud.client_id", "cloud.client_secret", "source.url", "source.erp"];
    assert_eq!(missing, keys);
    let (code, out, _) = agent.command(&["status"]);
    assert_eq!(code, exit::UNCONFIGURED);
    for words in ["NOT CONFIGURED", "source.url", &own, "start the agent again"] {
        assert!(out.contains(words), "no {words} in {out}");
    }
    let (_, out, _) = agent.command(&["status", "--lang", "pt"]);
    assert!(out.contains("NÃO CONFIGURADO") && out.contains("inicie o agente de novo"), "{out}");
    // The folder is taken, as by any agent.
    let (code, _, err) = agent.command(&["run"]);
    assert_eq!(code, exit::FAILED);
    assert!(err.contains("ADDRESS_IN_USE") || err.contains("STORE_BUSY"), "{err}");
    agent.stop().await;
    let log = fs::read_to_string(agent.folder.path().join("agent.log")).unwrap();
    assert!(log.contains("not configured") && log.contains("cloud.client_secret"), "{log}");
}

#[tokio::test]
async fn an_agent_that_lacks_one_key_links_its_registry_and_calls_nobody() {
    let [cloud, erp] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [to_cloud, to_erp] = [&cloud, &erp].map(|listener| listener.local_addr().unwrap());
    let config = format!(
        "[cloud]\nregistry = 'http://me:canary@{to_cloud}/api'\nclient_id = 'me'\nallow_private = true\n\
         [source]\nurl = 'postgres://u:canary@{to_erp}/d'\nerp = 'LOGIX'\n[capture]\ncycle_seconds = 1"
    );
    let mut agent = Agent::start(&config).await;
    let (code, status) = agent.status();
    assert_eq!(code, exit::UNCONFIGURED);
    assert_eq!(status["missing"], serde_json::json!(["cloud.client_secret"]));
    assert_eq!(status["configuratorUrl"], format!("http://{to_cloud}/api"));
    assert!(!status.to_string().contains("canary"), "{status}");
    agent.stop().await;
    for listener in [cloud, erp] {
        listener.set_nonblocking(true).unwrap();
        let called = listener.accept().unwrap_err();
        assert_eq!(called.kind(), std::io::ErrorKind::WouldBlock, "somebody was called");
    }
}

#[test]
fn a_wrong_key_ends_the_start_whatever_is_missing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    for (config, words) in [
        ("typo = 1", "typo"),
        ("[capture]\nduty_percent = 0", "duty_percent"),
        ("[source]\nurl = 'mysql://h/d'", "not supported"),
        ("[source]\nurl = 'postgres://u:{sealed:erp}@h/d'", "no secret erp"),
        ("[cloud]\nclient_secret = 'x{sealed:erp}'", "cloud.client_secret"),
        ("[cloud]\nclient_secret_file = 'nowhere'", "cloud.client_secret_file"),
        ("[cloud]\nclient_id = 'a b'", "cloud.client_id"),
    ] {
        let config = format!("data = 'data'\n{config}\n");
        fs::write(folder.path().join("agent.toml"), config).unwrap();
        let (code, _, err) = agent(folder.path(), &["run"], "");
        assert_eq!(code, exit::FAILED, "{words}: {err}");
        let code = if words == "not supported" { "SOURCE_UNSUPPORTED" } else { "CONFIG_INVALID" };
        assert!(err.contains(code) && err.contains(words), "no {words} in {err}");
    }
}

#[tokio::test]
async fn a_detailed_log_ends_by_itself_with_its_time_with_a_command_and_with_the_agent() {
    let mut agent = Agent::start("").await;
    let on = |agent: &Agent| !agent.status().1["detailedLog"].is_null();
    let file = agent.folder.path().join("data/detail.log");
    let (code, _, err) = agent.command(&["logs", "show"]);
    assert!(code == exit::FAILED && err.contains("NOT_FOUND"), "{err}");
    let (_, _, err) = agent.command(&["logs", "on", "--max-size", "1KB"]);
    assert!(err.contains("BAD_REQUEST"), "{err}");
    assert!(!on(&agent) && !file.exists());

    let (code, out, err) =
        agent.command(&["logs", "on", "--for", "1h", "--max-size", "64KB", "--json"]);
    assert_eq!(code, exit::OK, "{err}");
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["detailedLog"]["maxBytes"], 64_000);
    assert!(err.contains("is on until 20"), "{err}");
    agent
        .until("the log is written", |agent| {
            agent.status().1["detailedLog"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0)
        })
        .await;
    assert!(agent.command(&["status"]).1.contains("detailed log (debug) is on until 20"));
    assert!(agent.command(&["logs", "show", "--lines", "9"]).1.contains("the detailed log is on"));
    #[cfg(unix)]
    {
        let mode = fs::metadata(&file).unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    }
    // Whoever follows it leaves with it.
    let shown = agent.folder.path().join("shown");
    let words = ["agent", "logs", "show", "--follow", "--config", "agent.toml"];
    let mut follows = Process::start(agent.folder.path(), &shown, &words).unwrap();
    agent
        .until("it is shown", |_| fs::read_to_string(&shown).is_ok_and(|text| !text.is_empty()))
        .await;
    assert!(follows.ended().unwrap().is_none());
    assert!(agent.command(&["logs", "off"]).2.contains("bytes were written"));
    let begun = clock::Mono::now();
    while follows.ended().unwrap().is_none() {
        assert!(begun.elapsed() < PATIENCE, "it follows a log that is off");
        clock::sleep(Duration::from_millis(50)).await;
    }
    assert!(follows.ended().unwrap().unwrap().success());
    assert!(!on(&agent));
    assert!(agent.command(&["logs", "off"]).2.contains("it was off"));

    agent.command(&["logs", "on", "--for", "1s"]);
    agent.until("its time is over", |agent| !on(agent)).await;
    agent.command(&["logs", "on", "--for", "1h"]);
    assert!(on(&agent));
    agent.process.kill().unwrap();
    agent.process = run(agent.folder.path());
    agent.answers().await;
    assert!(!on(&agent), "a start resumes it");
    assert!(
        agent.command(&["logs", "show"]).1.contains("the detailed log is on"),
        "it stays to be read"
    );
    agent.stop().await;
}

#[cfg(unix)]
#[test]
fn a_secret_that_is_typed_is_not_shown_and_the_terminal_is_as_it_was() {
    use std::io::{Read as _, Write as _};

    use rustix::{
        pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
        termios::{LocalModes, tcgetattr},
    };
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("agent.toml"), "data = 'data'").unwrap();
    for (keys, sealed) in [("canary-typee\x7fd\n", true), ("canary-\x03", false)] {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let name = ptsname(&person, Vec::new()).unwrap();
        let terminal =
            fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let shows = || tcgetattr(&terminal).unwrap().local_modes.contains(LocalModes::ECHO);
        assert!(shows());
        let mut child = Command::new(process::binary().unwrap())
            .args(["--lang", "en", "agent", "secret", "set", "erp", "--config", "agent.toml"])
            .current_dir(folder.path())
            .stdin(Stdio::from(terminal.try_clone().unwrap()))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = child.stderr.take().unwrap();
        let mut question = Vec::new();
        while !question.ends_with(b": ") {
            let mut byte = [0];
            assert_eq!(told.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&question));
            question.push(byte[0]);
        }
        assert!(!shows());
        let mut person = fs::File::from(person);
        person.write_all(keys.as_bytes()).unwrap();
        assert_eq!(child.wait().unwrap().success(), sealed);
        assert!(shows(), "the terminal stays silent");
        drop(terminal);
        let mut screen = Vec::new();
        // A terminal that nobody has open any more ends with an error.
        let _ = person.read_to_end(&mut screen);
        let screen = String::from_utf8_lossy(&screen);
        assert!(!screen.contains("canary"), "{screen}");
    }
    let (_, out, _) = agent(folder.path(), &["secret", "list"], "");
    assert!(out.starts_with("erp "), "{out}");
    let vault = agent::config::vault::Vault::of(&folder.path().join("data"));
    let mut config =
        agent::config::AgentConfig { data: folder.path().join("data"), ..Default::default() };
    config.source.url = "postgres://u:{sealed:erp}@h/d".to_owned().into();
    config.unseal().unwrap();
    assert_eq!(config.source.url.expose(), "postgres://u:canary-typed@h/d");
    vault.remove(&"erp".parse().unwrap()).unwrap();
}
