//! The server's store in PostgreSQL, as a person sets it up: by configuration and commands, over TLS, with a password.
//!
//! Promises: real processes; what is printed or logged never holds the password.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    path::Path,
    time::Duration,
};

use runtime::clock::{self, Mono};
use serde_json::Value;
use sim::{
    process,
    servers::{self, Postgres},
};

use crate::{
    doctor::of,
    tls::file,
    whole::{
        cloud::Cloud,
        sender::{self, Sender, Target},
    },
};

const WAIT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "canary-store-password";

/// The role that a server works as, where it is not the owner.
const SERVICE: &str = "malote_server";

/// A cluster with a database `malote`, whose owner of that name has to give its password, and the server's role too; it
/// speaks TLS as localhost.
async fn database() -> Postgres {
    let mut server = Postgres::start().await.unwrap();
    let owner = servers::connect(&server.url("postgres")).await.unwrap();
    for role in ["malote", SERVICE] {
        let made = format!("CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'");
        owner.batch_execute(&made).await.unwrap();
    }
    owner.batch_execute("CREATE DATABASE malote OWNER malote").await.unwrap();
    owner.batch_execute("ALTER SYSTEM SET ssl = on").await.unwrap();
    let told = owner.query_one("SELECT current_setting('data_directory')", &[]).await.unwrap();
    let data = told.get::<_, String>(0);
    let rules =
        "host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    put(Path::new(&data), "pg_hba.conf", rules.as_bytes());
    put(Path::new(&data), "server.crt", &fs::read(file("front.pem")).unwrap());
    put(Path::new(&data), "server.key", &fs::read(file("front.key")).unwrap());
    drop(owner);
    server.restart().await.unwrap();
    server
}

/// A file of the cluster, of the user it runs as.
fn put(data: &Path, name: &str, content: &[u8]) {
    let (path, about) = (data.join(name), fs::metadata(data).unwrap());
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    chown(&path, Some(about.uid()), Some(about.gid())).unwrap();
}

/// The program in the folder of a server, and all that it ever said.
struct Desk<'a> {
    folder: &'a Path,
    said: String,
}

impl Desk<'_> {
    /// Exit code, stdout and stderr of a command.
    fn run(&mut self, line: &str) -> (Option<i32>, String, String) {
        let words: Vec<&str> = line.split(' ').chain(["--config", "server.toml"]).collect();
        let done = process::answer(self.folder, &words, "").unwrap();
        let [out, err] = [done.stdout, done.stderr].map(|text| String::from_utf8(text).unwrap());
        self.said.push_str(&out);
        self.said.push_str(&err);
        (done.status.code(), out, err)
    }

    /// What a command that is done prints.
    fn done(&mut self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!(code, Some(0), "{line}: {out}{err}");
        out
    }

    fn records(&mut self, line: &str) -> Vec<Value> {
        let told = self.done(&format!("{line} --json"));
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// A command that is refused with that code; gives its words.
    fn refused(&mut self, line: &str, code: &str) -> String {
        let (exit, out, err) = self.run(line);
        assert!(exit == Some(1) && err.contains(code), "{line}: {out}{err}");
        err
    }

    /// Exit code and findings.
    fn doctor(&mut self) -> (Option<i32>, Vec<Value>, String) {
        let (code, out, err) = self.run("doctor --json --timeout 10");
        let told: Value = serde_json::from_str(&out).unwrap_or_default();
        let findings = told["findings"].as_array().cloned().unwrap_or_default();
        (code, findings, format!("{out}{err}"))
    }

    /// Waits until that many rows of FLAN are staged.
    async fn staged(&mut self, rows: usize) {
        let begun = Mono::now();
        loop {
            let (code, out, err) = self.run("server staging rows FLAN --json");
            if code == Some(0) && out.lines().count() == rows {
                return;
            }
            assert!(begun.elapsed() < WAIT, "{rows} rows are not staged: {out}{err}");
            clock::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Names the database in the server's configuration.
fn name(folder: &Path, port: u16) {
    let authority = file("ca.pem");
    let lines = format!(
        "[store]\nurl = 'postgres://malote@localhost:{port}/malote?sslmode=verify-full'\n\
         password_file = 'store.password'\nca_file = '{}'\n",
        authority.display()
    );
    let path = folder.join("server.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(path, config + &lines).unwrap();
    password(folder, PASSWORD);
}

/// The configuration names the server's role from now on.
fn as_service(folder: &Path) {
    let path = folder.join("server.toml");
    let config = fs::read_to_string(&path).unwrap();
    assert!(config.contains("//malote@"), "{config}");
    fs::write(path, config.replace("//malote@", &format!("//{SERVICE}@"))).unwrap();
}

fn password(folder: &Path, password: &str) {
    let path = folder.join("store.password");
    fs::write(&path, format!("{password}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_moves_into_a_database_by_command_and_goes_on_there() {
    let database = database().await;
    let mut cloud = Cloud::start("RM", &["FLAN"]).await;
    let batch = sender::staged_and_set_apart(&cloud).await;
    let folder = cloud.folder.path().to_owned();
    let mut desk = Desk { folder: &folder, said: String::new() };
    desk.staged(1).await;
    name(&folder, database.port());
    desk.refused("server copy-store", "STORE_BUSY");
    // A new database is made ready while the server still runs over its file.
    let steps = desk.records("server migrate").len();
    assert!(steps > 5, "{steps} steps");
    assert_eq!(desk.records("server migrate").len(), 0, "nothing is done twice");
    cloud.stop().await;

    let foreseen = desk.records("server copy-store --dry-run");
    let table = |records: &[Value], name: &str| {
        records.iter().find(|record| record["table"] == name).unwrap()["rows"].clone()
    };
    assert_eq!(table(&foreseen, "ingest_message"), 1, "{foreseen:?}");
    let (code, _, err) = desk.run("server tenant show");
    assert!(code == Some(1) && err.contains("NOT_FOUND"), "a dry run copies nothing: {err}");
    assert_eq!(desk.records("server copy-store"), foreseen);
    desk.refused("server copy-store", "ALREADY_EXISTS");
    assert!(cloud.store().exists(), "the file stays");
    let noted = desk.records("server audit list --search store.copy");
    assert_eq!(noted.len(), 1, "{noted:?}");
    // From here on a role works on it that owns nothing.
    desk.done(&format!("server migrate --role {SERVICE}"));
    as_service(&folder);

    cloud.run().await;
    let token = cloud.token().await;
    let columns = [("ID", "long"), ("N", "long")];
    let target =
        Target { grpc: cloud.grpc_target(), token, erp: "RM".into(), table: "FLAN".into() };
    let mut sender = Sender::new(target);
    let next = batch + 1;
    let row: &[(&str, &str)] = &[("ID", "3"), ("N", "3")];
    let message = sender.message((next, 1), (&columns, 1), &[row]);
    let answer = sender.write(&message).await.unwrap();
    assert!(answer.success, "{answer:?}");
    assert!(sender.summary(next, 1, 1).await.unwrap().success);
    let shown = desk.records("server batches list");
    assert_eq!(shown.len(), 2, "{shown:?}");
    desk.staged(2).await;

    let (code, findings, all) = desk.doctor();
    assert_eq!(code, Some(0), "{all}");
    assert!(of(&findings, "store", "mend").is_empty(), "{all}");
    let row_level = "row-level security holds for it: a transaction";
    for words in ["its schema is current", row_level, "is encrypted"] {
        let told =
            of(&findings, "store", "ok").iter().any(|found| found.to_string().contains(words));
        assert!(told, "{words}: {all}");
    }
    cloud.stop().await;
    let log = fs::read_to_string(cloud.log_file()).unwrap();
    assert!(!desk.said.contains(PASSWORD) && !log.contains(PASSWORD), "the password is shown");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_keeps_a_server_from_its_database_is_told_and_backups_are_the_databases_own() {
    let mut database = database().await;
    let home = tempfile::Builder::new().prefix("malote-store-").tempdir().unwrap();
    fs::write(home.path().join("server.toml"), "data = 'data'\nallow_private = true\n").unwrap();
    name(home.path(), database.port());
    let mut desk = Desk { folder: home.path(), said: String::new() };
    desk.done("server migrate");
    desk.done("server setup --tenant Loja --erp RM --tables FLAN");
    assert_eq!(desk.records("server entity list").len(), 1);
    assert!(!home.path().join("data/store.sqlite").exists());
    for line in ["server backup --to copy", "server restore --from copy"] {
        let words = desk.refused(line, "BAD_REQUEST");
        assert!(words.contains("pg_dump") && words.contains("master.key"), "{words}");
        let words = desk.refused(&format!("{line} --lang pt"), "BAD_REQUEST");
        assert!(words.contains("ferramentas do próprio banco"), "{words}");
    }
    assert!(!home.path().join("copy").exists());
    let shown = desk.done("server config");
    assert!(shown.contains("postgres://malote@localhost"), "{shown}");

    let broken = |desk: &mut Desk<'_>, words: &str| {
        let (code, findings, all) = desk.doctor();
        let told = of(&findings, "store", "mend");
        assert!(code == Some(4) && told.len() == 1, "{words}: {all}");
        assert!(told[0]["code"] == "STORE_FAILED" && told[0].to_string().contains(words), "{all}");
        let error = desk.refused("server tenant list", "STORE_FAILED");
        assert!(error.contains(words), "{error}");
    };
    password(home.path(), "canary-wrong-password");
    broken(&mut desk, "the password of user");
    password(home.path(), PASSWORD);
    let config = fs::read_to_string(home.path().join("server.toml")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(config.contains(from), "{config}");
        fs::write(home.path().join("server.toml"), config.replace(from, to)).unwrap();
    };
    with("password_file = 'store.password'", "");
    broken(&mut desk, "store.password_file names none");
    with("ca.pem", "other_ca.pem");
    broken(&mut desk, "name the authority in ca_file");
    with("postgres://malote@", "postgres://malote:canary-in-the-url@");
    for line in ["server config", "server tenant list", "server run"] {
        let words = desk.refused(line, "CONFIG_INVALID");
        assert!(words.contains("store.url") && words.contains("store.password_file"), "{words}");
    }
    let (code, findings, all) = desk.doctor();
    assert!(code == Some(4) && !of(&findings, "config", "mend").is_empty(), "{all}");
    fs::write(home.path().join("server.toml"), &config).unwrap();
    desk.done("server tenant list");
    database.stop_immediate().await.unwrap();
    broken(&mut desk, "nothing listens there");
    assert!(!desk.said.contains("canary"), "a password is shown: {}", desk.said);
}
