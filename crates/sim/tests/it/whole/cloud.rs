//! The cloud: a real `malote server` process with a tenant, an environment, an ERP and its tables.
//!
//! Promises: set up by the command line; the same ports, data and credentials after each start.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::clock;
use rusqlite::Connection;
use serde_json::Value;
use sim::{
    process::{self, Process},
    servers,
};
use tempfile::TempDir;

use super::compare;

const START: Duration = Duration::from_secs(30);

pub(crate) struct Cloud {
    pub(crate) folder: TempDir,
    process: Option<Process>,
    scheme: &'static str,
    client: reqwest::Client,
    http: u16,
    grpc: u16,
    pub(crate) erp: String,
    pub(crate) tenant: String,
    pub(crate) client_id: String,
    pub(crate) secret: String,
    /// Variables of the process from its next start on.
    pub(crate) variables: Vec<(String, String)>,
}

impl Cloud {
    pub(crate) async fn start(erp: &str, tables: &[&str]) -> Self {
        let ports = (servers::free_port().unwrap(), servers::free_port().unwrap());
        Self::start_at(ports, "", (erp, tables)).await
    }

    /// On those ports for HTTP and gRPC, with more lines in its configuration.
    pub(crate) async fn start_at(ports: (u16, u16), more: &str, shared: (&str, &[&str])) -> Self {
        runtime::tls::install_provider();
        Self::start_for(ports, more, shared, reqwest::Client::new()).await
    }

    /// As [`Cloud::start_at`], where the server speaks TLS itself under that authority.
    pub(crate) async fn start_under(
        ports: (u16, u16),
        more: &str,
        shared: (&str, &[&str]),
        authority: &Path,
    ) -> Self {
        runtime::tls::install_provider();
        let pem = reqwest::Certificate::from_pem(&fs::read(authority).unwrap()).unwrap();
        let client = reqwest::Client::builder().tls_certs_only([pem]).build().unwrap();
        Self::start_for(ports, more, shared, client).await
    }

    async fn start_for(
        (http, grpc): (u16, u16),
        more: &str,
        (erp, tables): (&str, &[&str]),
        client: reqwest::Client,
    ) -> Self {
        let folder = tempfile::Builder::new().prefix("malote-cloud-").tempdir().unwrap();
        let config = format!(
            "data = 'data'\nhttp_listen = '127.0.0.1:{http}'\ngrpc_listen = '127.0.0.1:{grpc}'\nallow_private = true\n{more}"
        );
        fs::write(folder.path().join("server.toml"), config).unwrap();
        let tables = tables.join(",");
        let setup =
            ["setup", "--tenant", "Loja São João", "--erp", erp, "--tables", &tables, "--json"];
        let made: Value = serde_json::from_str(&command(folder.path(), &setup)).unwrap();
        let word = |key: &str| made[key].as_str().unwrap().to_owned();
        let mut cloud = Self {
            process: None,
            scheme: if more.contains("[tls]") { "https" } else { "http" },
            client,
            http,
            grpc,
            erp: erp.to_owned(),
            tenant: word("tenantId"),
            client_id: word("clientId"),
            secret: word("clientSecret"),
            variables: Vec::new(),
            folder,
        };
        cloud.run().await;
        cloud
    }

    /// Starts the process again after [`Cloud::kill`] or [`Cloud::stop`].
    pub(crate) async fn run(&mut self) {
        self.launch();
        self.ready().await;
    }

    /// Starts the process and does not wait for it.
    pub(crate) fn launch(&mut self) {
        self.launch_with(&[]);
    }

    /// As [`Cloud::launch`], with more variables in its environment.
    pub(crate) fn launch_with(&mut self, more: &[(&str, &str)]) {
        let words = ["server", "run", "--config", "server.toml"];
        let variables = with(&self.variables, more);
        let started = Process::start_in(self.folder.path(), &self.log_file(), &words, &variables);
        self.process = Some(started.unwrap());
    }

    /// All that the server logged, from its first start on.
    pub(crate) fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// Whether the server ended by itself.
    pub(crate) fn ended(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.ended().unwrap().is_some())
    }

    pub(crate) async fn ready(&mut self) {
        let address = format!("{}/readyz", self.registry_base());
        let begun = clock::Mono::now();
        while !self
            .client
            .get(&address)
            .send()
            .await
            .is_ok_and(|answer| answer.status().is_success())
        {
            let process = self.process.as_mut().unwrap();
            let ended = process.ended().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < START,
                "no server: {}",
                process.log_end(20)
            );
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill().unwrap();
    }

    pub(crate) async fn stop(&mut self) {
        let status = self.process.take().unwrap().stop(Duration::from_secs(20)).await.unwrap();
        assert!(status.success(), "{status}");
    }

    /// Runs `malote server …` beside the running server.
    pub(crate) fn command(&self, words: &[&str]) -> String {
        command(self.folder.path(), words)
    }

    pub(crate) fn registry_base(&self) -> String {
        // The tests' certificate is for the name alone.
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        format!("{}://{host}:{}", self.scheme, self.http)
    }

    pub(crate) fn registry(&self) -> String {
        format!("{}/api/v1/services", self.registry_base())
    }

    pub(crate) fn grpc_target(&self) -> String {
        format!("127.0.0.1:{}", self.grpc)
    }

    /// Address of a service by its registry key.
    pub(crate) async fn service(&self, key: &str) -> String {
        let services: Value = serde_json::from_slice(
            &reqwest::get(self.registry()).await.unwrap().bytes().await.unwrap(),
        )
        .unwrap();
        let found = services.as_array().unwrap().iter().find(|service| service["service"] == key);
        found.unwrap()["endpoints"][0]["address"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn token(&self) -> String {
        self.token_of(&self.client_id, &self.secret).await
    }

    pub(crate) async fn token_of(&self, client_id: &str, secret: &str) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", "authorization_api"),
            ("client_id", client_id),
            ("client_secret", secret),
        ];
        let client = reqwest::Client::new();
        let answer = client.post(self.service("rac-token").await).form(&form).send().await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.folder.path().join("data/store.sqlite")
    }

    /// The ERP's staging file; made with the first rows.
    pub(crate) fn staging(&self) -> PathBuf {
        staging_of(self.folder.path(), &self.erp)
    }

    /// Waits until the staging file shows what is looked for.
    pub(crate) async fn staged<T>(&self, what: &str, look: impl Fn(&Connection) -> Option<T>) -> T {
        let begun = clock::Mono::now();
        loop {
            if let Some(found) = compare::staging(&self.staging()).as_ref().and_then(&look) {
                return found;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "not staged: {what}\n{}",
                self.log()
            );
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Bytes of memory that the process has in use, as Linux counts them.
    pub(crate) fn memory(&self) -> u64 {
        process::memory(self.process.as_ref().unwrap().id(), "VmRSS").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        self.process.as_ref().map(|process| process.log_end(30)).unwrap_or_default()
    }
}

/// Variables of an environment, with more behind them.
pub(crate) fn with(variables: &[(String, String)], more: &[(&str, &str)]) -> Vec<(String, String)> {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    variables.iter().cloned().chain(more).collect()
}

/// Staging file of an ERP of the one environment; an empty path while it is not there.
pub(crate) fn staging_of(folder: &Path, erp: &str) -> PathBuf {
    database(&folder.join("data"), erp)
}

/// The SQLite file of that name below a data folder.
pub(crate) fn database(data: &Path, name: &str) -> PathBuf {
    let mut found = Vec::new();
    databases(data, &mut found);
    let named = |path: &PathBuf| path.file_stem().is_some_and(|stem| *stem == *name);
    found.into_iter().find(named).unwrap_or_default()
}

fn command(folder: &Path, words: &[&str]) -> String {
    let mut all = vec!["server", "--config", "server.toml"];
    all.extend(words);
    process::command(folder, &all).unwrap()
}

fn databases(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            databases(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "sqlite") {
            found.push(path);
        }
    }
}
