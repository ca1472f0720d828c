//! Mails of alerts from the real server process, taken by a mail server that is not ours: aiosmtpd, with and without TLS
//! and login.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use runtime::clock;
use serde_json::Value;
use sim::{process, servers};
use tempfile::TempDir;

use crate::{
    foreign::python,
    tls,
    whole::{
        cloud::Cloud,
        sender::{Sender, Target},
    },
};

const WAIT: Duration = Duration::from_secs(40);
/// Quick looks, so that a test sees them.
const QUICK: &str = "[alerts]\nlook_seconds = 1\ndisk_free_mb = 0\n";
const LOGIN: (&str, &str) = ("malote", "canary-Senha#1");

/// The mail server's process; ends when dropped.
struct MailServer(Child);

impl MailServer {
    fn start(folder: &TempDir, (port, mode): (u16, &str), login: bool) -> Self {
        let script = servers::crate_folder().join("tests/python/mail_server.py");
        let mut command = Command::new(python());
        command.arg("-B").arg(script).arg(folder.path()).arg(port.to_string()).arg(mode);
        if mode != "none" {
            command.arg(tls::file("front.pem")).arg(tls::file("front.key"));
        }
        if login {
            command.args([LOGIN.0, LOGIN.1]);
        }
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listens");
        Self(child)
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and the folder in which mails are laid down.
struct Scene {
    cloud: Cloud,
    desk: TempDir,
}

impl Scene {
    async fn new(more: &str) -> Self {
        let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
        let more = format!("{QUICK}{more}");
        let cloud = Cloud::start_at(ports, &more, ("RM", &["FLAN"])).await;
        // However slow the machine is.
        cloud.command(&["alert", "threshold", "set", "batch-stalled", "0"]);
        Self { cloud, desk: tempfile::tempdir().unwrap() }
    }

    /// `malote server alert …`, with its JSON.
    fn alert(&self, words: &[&str]) -> Vec<Value> {
        let all: Vec<&str> = ["alert"].iter().chain(words).chain(&["--json"]).copied().collect();
        let told = self.cloud.command(&all);
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A command of alerts that may fail: whether it did not, and what it said.
    fn answer(&self, words: &[&str], input: &str) -> (bool, String) {
        let head = ["server", "--config", "server.toml", "alert"];
        let all: Vec<&str> = head.iter().chain(words).copied().collect();
        let done = process::answer(self.cloud.folder.path(), &all, input).unwrap();
        (done.status.success(), String::from_utf8_lossy(&done.stderr).into_owned())
    }

    fn goes_through(&self, (host, port, tls): (&str, u16, &str), password: Option<&str>) {
        let port = port.to_string();
        let mut words = vec!["mail", "set", "--host", host, "--port", &port, "--tls", tls];
        words.extend(["--from", "Malote <malote@loja.example>"]);
        if password.is_some() {
            words.extend(["--user", LOGIN.0]);
        }
        let (done, told) = self.answer(&words, password.unwrap_or_default());
        assert!(done, "{told}");
    }

    fn mails(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.desk.path().join("mails")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits until so many mails were taken.
    async fn mailed(&self, count: usize) -> Vec<Value> {
        let begun = clock::Mono::now();
        loop {
            let mails = self.mails();
            if mails.len() >= count {
                return mails;
            }
            let late = begun.elapsed() > WAIT;
            assert!(!late, "{} of {count} mails: {mails:#?}\n{}", mails.len(), self.cloud.log());
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until an alert of that rule is listed in that state.
    async fn listed(&self, rule: &str, state: &str) -> Value {
        let begun = clock::Mono::now();
        loop {
            let found = self.alert(&["list", "--state", state]);
            if let Some(alert) = found.iter().find(|alert| alert["rule"] == rule) {
                return alert.clone();
            }
            assert!(begun.elapsed() < WAIT, "no {rule}: {found:#?}\n{}", self.cloud.log());
            clock::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gives a batch up: the next one begins before its summary.
    async fn give_up(&self) {
        let (grpc, token) = (self.cloud.grpc_target(), self.cloud.token().await);
        let target = Target { grpc, token, erp: "RM".into(), table: "FLAN".into() };
        let mut sender = Sender::new(target);
        write(&mut sender, 2_000).await;
        write(&mut sender, 3_000).await;
    }

    /// The last batch is complete after all.
    async fn complete(&self) {
        let (grpc, token) = (self.cloud.grpc_target(), self.cloud.token().await);
        let target = Target { grpc, token, erp: "RM".into(), table: "FLAN".into() };
        let answer = Sender::new(target).summary(3_000, 1, 1).await.unwrap();
        assert!(answer.success, "{:?}", answer.errors);
    }

    /// As if that had been so much earlier.
    fn earlier(&self, sql: &str) {
        let store = rusqlite::Connection::open(self.cloud.store()).unwrap();
        store.busy_timeout(WAIT).unwrap();
        store.execute(sql, []).unwrap();
    }
}

async fn write(sender: &mut Sender, batch: i64) {
    let columns = [("ID", "string"), ("S", "string")];
    let rows: [&[(&str, &str)]; 1] = [&[("ID", "1"), ("S", "x")]];
    let message = sender.message((batch, 1), (&columns, 1), &rows);
    let answer = sender.write(&message).await.unwrap();
    assert!(answer.success, "{:?}", answer.errors);
}

#[tokio::test]
async fn an_alert_and_its_end_are_mailed_once_each_in_the_language_of_the_address() {
    let scene = Scene::new("").await;
    let port = servers::free_port().unwrap();
    let _server = MailServer::start(&scene.desk, (port, "none"), false);
    scene.goes_through(("127.0.0.1", port, "none"), None);
    scene.alert(&["route", "add", "ana@loja.example", "--language", "pt"]);
    scene.give_up().await;
    let mail = scene.mailed(1).await[0].clone();
    assert_eq!(
        (&mail["from"], &mail["to"][0]),
        (&"malote@loja.example".into(), &"ana@loja.example".into())
    );
    assert_eq!(mail["sender"], "Malote <malote@loja.example>");
    let subject = mail["subject"].as_str().unwrap();
    assert!(
        subject.starts_with("[Malote] ALERTA: production/RM: 1 pacote(s) incompleto(s)"),
        "{subject}"
    );
    assert!(mail["text"].as_str().unwrap().contains("Veja os pacotes e o log do agente"), "{mail}");
    assert!(mail["id"].as_str().unwrap().starts_with("<malote-") && mail["date"] == true, "{mail}");
    let alert = scene.listed("batch-incomplete", "open").await;
    let id = alert["id"].as_str().unwrap();
    scene.alert(&["acknowledge", id]);
    scene.complete().await;
    // It clears. As if it had done so ten minutes ago, and the mail had gone out a minute ago.
    let begun = clock::Mono::now();
    while scene.alert(&["show", id])[0]["clearSince"].is_null() {
        assert!(begun.elapsed() < WAIT, "{}", scene.cloud.log());
        clock::sleep(Duration::from_millis(100)).await;
    }
    scene.earlier("UPDATE alert_notice SET ended_at = ended_at - 60000000 WHERE state = 'done'");
    scene.earlier(
        "UPDATE alert SET clear_since = clear_since - 600000000 WHERE clear_since IS NOT NULL",
    );
    let mails = scene.mailed(2).await;
    let subject = mails[1]["subject"].as_str().unwrap();
    assert!(subject.starts_with("[Malote] RESOLVIDO: production/RM"), "{subject}");
    scene.listed("batch-incomplete", "resolved").await;
    assert_eq!(scene.mails().len(), 2);
    let log = fs::read_to_string(scene.cloud.log_file()).unwrap();
    assert!(log.contains("alert is resolved") && !log.contains("ana@"), "{log}");
}

#[tokio::test]
async fn starttls_tls_and_a_login_are_spoken_and_what_is_wrong_with_them_is_told() {
    let authority = tls::file("ca.pem");
    let scene = Scene::new(&format!("mail_ca_file = '{}'\n", authority.display())).await;
    for mode in ["starttls", "tls"] {
        let port = servers::free_port().unwrap();
        let _server = MailServer::start(&scene.desk, (port, mode), true);
        let before = scene.mails().len();
        scene.goes_through(("localhost", port, mode), Some(LOGIN.1));
        let (done, told) = scene.answer(&["test", "ana@loja.example", "--language", "pt"], "");
        assert!(done, "{mode}: {told}");
        let mail = scene.mailed(before + 1).await[before].clone();
        assert_eq!((&mail["login"], &mail["tls"]), (&true.into(), &true.into()), "{mode}: {mail}");
        assert_eq!(mail["subject"], "[Malote] teste dos alertas");
        let test = ["test", "ana@loja.example"];
        scene.goes_through(("localhost", port, mode), Some("wrong"));
        let (done, told) = scene.answer(&test, "");
        assert!(
            !done && told.contains("MAIL_UNSENT: the login failed: the mail server answered 535"),
            "{told}"
        );
        scene.goes_through(("localhost", port, mode), None);
        let (done, told) = scene.answer(&test, "");
        assert!(!done && told.contains("the mail server answered 530"), "{mode}: {told}");
        // The certificate is made out to localhost alone.
        scene.goes_through(("127.0.0.1", port, mode), Some(LOGIN.1));
        let (done, told) = scene.answer(&test, "");
        assert!(!done && told.contains("its certificate is made out to another name"), "{told}");
    }
    // One that offers no STARTTLS gets neither login nor mail.
    let port = servers::free_port().unwrap();
    let _server = MailServer::start(&scene.desk, (port, "none"), true);
    scene.goes_through(("localhost", port, "starttls"), Some(LOGIN.1));
    let (done, told) = scene.answer(&["test", "ana@loja.example"], "");
    assert!(!done && told.contains("does not offer STARTTLS"), "{told}");
    assert_eq!(scene.mails().len(), 2);
    let all = [
        scene.cloud.command(&["alert", "mail", "show", "--json"]),
        scene.cloud.command(&["audit", "list", "--json"]),
        fs::read_to_string(scene.cloud.log_file()).unwrap(),
    ];
    assert!(all.iter().all(|told| !told.contains("canary")), "{all:#?}");
}

#[tokio::test]
async fn an_address_without_a_mailbox_is_given_up_at_once_and_keeps_no_other_one_waiting() {
    let scene = Scene::new("").await;
    let port = servers::free_port().unwrap();
    let _server = MailServer::start(&scene.desk, (port, "none"), false);
    scene.goes_through(("127.0.0.1", port, "none"), None);
    // The first in line is the one that is refused.
    scene.alert(&["route", "add", "nobody@loja.example"]);
    scene.alert(&["route", "add", "rui@loja.example"]);
    scene.give_up().await;
    let mails = scene.mailed(1).await;
    assert_eq!(mails[0]["to"][0], "rui@loja.example");
    let begun = clock::Mono::now();
    loop {
        let routes = scene.alert(&["route", "list"]);
        if routes[0]["dead"] == 1 && routes[1]["waiting"] == 0 {
            let reason = routes[0]["lastError"].as_str().unwrap();
            assert!(reason.ends_with("takes no mail to that address: it answered 550"), "{reason}");
            break;
        }
        assert!(begun.elapsed() < WAIT, "{routes:#?}\n{}", scene.cloud.log());
        clock::sleep(Duration::from_millis(100)).await;
    }
    let (done, told) = scene.answer(&["test", "nobody@loja.example"], "");
    assert!(!done && told.contains("MAIL_UNSENT") && told.contains("it answered 550"), "{told}");
    let log = fs::read_to_string(scene.cloud.log_file()).unwrap();
    assert!(!log.contains("no such mailbox") && !log.contains("nobody@"), "{log}");
}

#[tokio::test]
async fn a_mail_outlives_the_server_and_a_mail_server_that_was_away_and_is_sent_once() {
    let mut scene = Scene::new("").await;
    let port = servers::free_port().unwrap();
    scene.goes_through(("127.0.0.1", port, "none"), None);
    scene.alert(&["route", "add", "ana@loja.example"]);
    scene.give_up().await;
    scene.listed("batch-incomplete", "open").await;
    let begun = clock::Mono::now();
    let tried = |scene: &Scene| scene.alert(&["route", "list"])[0]["lastError"].is_string();
    while !tried(&scene) {
        assert!(begun.elapsed() < WAIT, "{}", scene.cloud.log());
        clock::sleep(Duration::from_millis(100)).await;
    }
    scene.cloud.kill();
    scene.cloud.run().await;
    let _server = MailServer::start(&scene.desk, (port, "none"), false);
    // Who mends the mail server has what waits tried at once.
    scene.goes_through(("127.0.0.1", port, "none"), None);
    let mails = scene.mailed(1).await;
    let subject = mails[0]["subject"].as_str().unwrap();
    assert!(subject.contains("1 batch(es) incomplete"), "{subject}");
    let begun = clock::Mono::now();
    while scene.alert(&["route", "list"])[0]["waiting"] != 0 {
        assert!(begun.elapsed() < WAIT, "{}", scene.cloud.log());
        clock::sleep(Duration::from_millis(100)).await;
    }
    // Killed between sending and noting that: the lease lapses, and the same mail is sent once more.
    scene.cloud.kill();
    scene.earlier(
        "UPDATE alert_notice SET state = 'leased', receipt = '00000000-0000-4000-8000-000000000000', lease_until = 0, \
         ended_at = NULL",
    );
    scene.cloud.run().await;
    scene.goes_through(("127.0.0.1", port, "none"), None);
    let begun = clock::Mono::now();
    while scene.mails().len() < 2 {
        // A lapsed lease is a failed try, which rests before the next one.
        scene.earlier("UPDATE alert_notice SET not_before = 0 WHERE state = 'ready'");
        assert!(begun.elapsed() < WAIT, "{}", scene.cloud.log());
        clock::sleep(Duration::from_millis(200)).await;
    }
    let mails = scene.mails();
    assert_eq!((mails.len(), &mails[0]["id"]), (2, &mails[1]["id"]), "who gets it twice can tell");
}
