//! The world: an ERP database, the cloud, and a real `malote agent` process between them.
//!
//! Promises: the agent keeps its data over kills; a wait that runs out shows what differs and what was logged.

use std::{fs, os::unix::process::ExitStatusExt as _, time::Duration};

use runtime::clock;
use sim::{
    process::{self, Process},
    servers,
};

use super::{
    cloud::{self, Cloud},
    compare,
    erp::Erp,
};

/// What is followed and how.
pub(crate) struct Plan {
    source: String,
    tables: Vec<&'static str>,
    declared: String,
    key_scan_seconds: u32,
    duty_percent: u32,
    deletes: &'static str,
    give_up_seconds: u32,
    compare_seconds: u32,
    overlap: String,
    registry: Option<String>,
    cloud: String,
    sealed: Vec<(String, String)>,
}

impl Plan {
    pub(crate) fn new(source: &str, tables: &[&'static str]) -> Self {
        Self {
            source: source.to_owned(),
            tables: tables.to_vec(),
            declared: String::new(),
            key_scan_seconds: 2,
            duty_percent: 100,
            deletes: "capped",
            give_up_seconds: 60,
            compare_seconds: 86_400,
            overlap: String::new(),
            registry: None,
            cloud: String::new(),
            sealed: Vec::new(),
        }
    }

    /// Seals a secret before the agent starts; under the name `cloud` it is the client secret.
    pub(crate) fn sealed(mut self, name: &str, value: &str) -> Self {
        self.sealed.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another way to the cloud's registry, with more lines for the agent's `[cloud]`.
    pub(crate) fn cloud(mut self, registry: String, lines: &str) -> Self {
        self.registry = Some(registry);
        self.cloud = lines.to_owned();
        self
    }

    /// No cap on deletes, for a test that empties a table on purpose.
    pub(crate) fn deletes_always(mut self) -> Self {
        self.deletes = "always";
        self
    }

    /// All rows of tables with a stamp are compared that often.
    pub(crate) fn compares_every(mut self, seconds: u32) -> Self {
        self.compare_seconds = seconds;
        self
    }

    /// The window of a weak bound.
    pub(crate) fn overlaps(mut self, seconds: u32) -> Self {
        self.overlap = format!("overlap_seconds = {seconds}");
        self
    }

    /// The lease goes back where the database cannot be read for so long.
    pub(crate) fn gives_up_after(mut self, seconds: u32) -> Self {
        self.give_up_seconds = seconds;
        self
    }

    /// Reads in bulk for so many hundredths of the time.
    pub(crate) fn duty(mut self, percent: u32) -> Self {
        self.duty_percent = percent;
        self
    }

    /// Leaves the watermark alone: no scan comes to find what it missed.
    pub(crate) fn no_scans(mut self) -> Self {
        self.key_scan_seconds = 3_600;
        self
    }

    /// More of the agent's configuration, whole sections.
    pub(crate) fn more(mut self, sections: &str) -> Self {
        self.declared.push_str(sections);
        self
    }

    /// Declares a stamp column.
    pub(crate) fn stamp(mut self, table: &str, column: &str) -> Self {
        if self.tables.contains(&table) {
            self.declared.push_str(&format!("[tables.{table}]\nstamp = '{column}'\n"));
        }
        self
    }
}

pub(crate) struct World {
    pub(crate) erp: Erp,
    pub(crate) cloud: Cloud,
    agent: Option<Process>,
    tables: Vec<&'static str>,
    /// Variables of the agent from its next start on.
    pub(crate) variables: Vec<(String, String)>,
}

impl World {
    pub(crate) async fn start(plan: Plan, erp: Erp) -> Self {
        let cloud = Cloud::start("LOGIX", &plan.tables).await;
        Self::over(cloud, plan, erp)
    }

    /// As [`World::start`], over a cloud that runs.
    pub(crate) fn over(cloud: Cloud, plan: Plan, erp: Erp) -> Self {
        let admin = servers::free_port().unwrap();
        let config = format!(
            "data = 'agent-data'
[cloud]
registry = '{}'
client_id = '{}'
client_secret = '{}'
allow_private = true
{}
[source]
url = '{}'
profile = 'generic'
erp = 'LOGIX'
{}
[capture]
cycle_seconds = 1
key_scan_seconds = {}
duty_percent = {}
deletes = '{}'
give_up_seconds = {}
compare_seconds = {}
[admin]
listen = '127.0.0.1:{admin}'
{}",
            plan.registry.unwrap_or_else(|| cloud.registry()),
            cloud.client_id,
            if plan.sealed.iter().any(|(name, _)| name == "cloud") {
                "{sealed:cloud}"
            } else {
                &cloud.secret
            },
            plan.cloud,
            plan.source,
            plan.overlap,
            plan.key_scan_seconds,
            plan.duty_percent,
            plan.deletes,
            plan.give_up_seconds,
            plan.compare_seconds,
            plan.declared
        );
        fs::write(cloud.folder.path().join("agent.toml"), config).unwrap();
        for (name, value) in &plan.sealed {
            let words = ["agent", "secret", "set", name, "--config", "agent.toml"];
            let done = process::answer(cloud.folder.path(), &words, value).unwrap();
            assert!(done.status.success(), "{done:?}");
        }
        let variables = Vec::new();
        let mut world = Self { erp, cloud, agent: None, tables: plan.tables, variables };
        world.start_agent();
        world
    }

    pub(crate) fn start_agent(&mut self) {
        self.start_agent_with(&[]);
    }

    /// As [`World::start_agent`], with more variables in its environment.
    pub(crate) fn start_agent_with(&mut self, more: &[(&str, &str)]) {
        let folder = self.cloud.folder.path();
        let words = ["agent", "run", "--config", "agent.toml"];
        let variables = cloud::with(&self.variables, more);
        let started = Process::start_in(folder, &self.agent_log(), &words, &variables);
        self.agent = Some(started.unwrap());
    }

    /// All that the agent logged, from its first start on.
    pub(crate) fn agent_log(&self) -> std::path::PathBuf {
        self.cloud.folder.path().join("agent.log")
    }

    /// Whether the agent ended by itself.
    pub(crate) fn agent_ended(&mut self) -> bool {
        self.agent.as_mut().is_some_and(|agent| agent.ended().unwrap().is_some())
    }

    pub(crate) fn kill_agent(&mut self) {
        self.agent.take().unwrap().kill().unwrap();
    }

    /// Process id of the agent.
    pub(crate) fn agent_id(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// Sends the agent a signal by name, `STOP` or `CONT`.
    pub(crate) fn signal_agent(&self, name: &str) {
        self.agent.as_ref().unwrap().signal(name).unwrap();
    }

    /// Takes the data folder of an agent that does not run: instance, known rows and spool are gone.
    pub(crate) fn lose_journal(&self) {
        let data = self.cloud.folder.path().join("agent-data");
        assert!(self.agent.is_none() && data.exists());
        fs::remove_dir_all(data).unwrap();
    }

    /// Asks the agent to end and waits for it.
    pub(crate) async fn stop_agent(&mut self) {
        let status = self.agent.take().unwrap().stop(Duration::from_secs(30)).await.unwrap();
        assert!(status.success(), "{status}");
    }

    /// As [`World::stop_agent`], also where it began just now: as long as a process does not hear signals yet, one ends it
    /// without a word.
    pub(crate) async fn end_agent(&mut self) {
        let status = self.agent.take().unwrap().stop(Duration::from_secs(30)).await.unwrap();
        assert!(status.success() || status.signal() == Some(15), "{status}");
    }

    /// Waits until every table is equal and tells how many rows were compared.
    pub(crate) async fn equal(&mut self, within: Duration) -> usize {
        let begun = clock::Mono::now();
        loop {
            let found = self.differences().await;
            if found.is_empty() {
                let mut rows = 0;
                for table in &self.tables {
                    rows += self.erp.rows(table).await.1.len();
                }
                return rows;
            }
            assert!(begun.elapsed() < within, "{}\n{}", found.join("\n"), self.logs());
            self.alive();
            clock::sleep(Duration::from_millis(300)).await;
        }
    }

    /// As [`World::equal`], starting whatever ended by itself again.
    pub(crate) async fn equal_at_last(&mut self, within: Duration) {
        let begun = clock::Mono::now();
        loop {
            if self.cloud.ended() {
                self.cloud.launch();
            }
            if self.agent_ended() {
                self.start_agent();
            }
            let found = self.differences().await;
            if found.is_empty() {
                return;
            }
            assert!(begun.elapsed() < within, "{}\n{}", found.join("\n"), self.logs());
            clock::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Where staging and the source differ at this moment, in words.
    pub(crate) async fn differences(&self) -> Vec<String> {
        match compare::staging(&self.cloud.staging()) {
            Some(staging) => compare::differences(&self.erp, &self.tables, &staging).await,
            None => vec!["nothing is staged".to_owned()],
        }
    }

    /// Waits until a row with that first key column is staged.
    pub(crate) async fn staged_has(&mut self, table: &str, id: &str, within: Duration) {
        self.staged_reaches(&format!("SELECT count(*) FROM {table} WHERE id = '{id}'"), 1, within)
            .await;
    }

    /// Waits until a count over the staged rows reaches a number.
    pub(crate) async fn staged_reaches(&mut self, count: &str, number: i64, within: Duration) {
        let begun = clock::Mono::now();
        loop {
            let looked = clock::Mono::now();
            let counted = self.staged_count(count);
            if counted >= number {
                return;
            }
            assert!(
                begun.elapsed() < within,
                "{count} is {counted}, not {number}\n{}",
                self.logs()
            );
            self.alive();
            // Counting many rows must not take the time that staging them needs.
            clock::sleep(Duration::from_millis(20) + looked.elapsed() * 3).await;
        }
    }

    /// A count over the staged rows; 0 while they are out of reach.
    pub(crate) fn staged_count(&self, count: &str) -> i64 {
        let staging = compare::staging(&self.cloud.staging());
        staging.and_then(|staging| staging.query_row(count, [], |row| row.get(0)).ok()).unwrap_or(0)
    }

    /// Epoch of the stream: how many sessions were granted.
    pub(crate) fn epoch(&self) -> i64 {
        let store = compare::staging(&self.cloud.store()).unwrap();
        let sql = "SELECT epoch FROM ingest_stream WHERE erp = 'LOGIX'";
        store.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// Waits until that many sessions were granted.
    pub(crate) async fn reaches_epoch(&mut self, epoch: i64, within: Duration) {
        let begun = clock::Mono::now();
        while self.epoch() < epoch {
            assert!(
                begun.elapsed() < within,
                "epoch {}, not {epoch}\n{}",
                self.epoch(),
                self.logs()
            );
            self.alive();
            clock::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Rows of a table in all accepted messages.
    pub(crate) fn ledger_rows(&self, table: &str) -> u64 {
        let store = compare::staging(&self.cloud.store()).unwrap();
        let sql = "SELECT coalesce(sum(row_count), 0) FROM ingest_message WHERE name_folded = ?1";
        let rows: i64 = store.query_row(sql, [table], |row| row.get(0)).unwrap();
        rows.cast_unsigned()
    }

    /// Messages of a table in the accepted ones that look as told.
    pub(crate) fn ledger_messages(&self, table: &str, of: &str) -> u64 {
        let store = compare::staging(&self.cloud.store()).unwrap();
        let sql = format!("SELECT count(*) FROM ingest_message WHERE name_folded = ?1 AND {of}");
        let found: i64 = store.query_row(&sql, [table], |row| row.get(0)).unwrap();
        found.cast_unsigned()
    }

    /// Asks for loads and waits until the server counts each of them as done.
    pub(crate) async fn reloaded(&mut self, words: &[&str], within: Duration) {
        let mut order = vec!["reload"];
        order.extend(words);
        self.cloud.command(&order);
        let begun = clock::Mono::now();
        while self.cloud.command(&["entity", "list"]).contains("asked (") {
            assert!(begun.elapsed() < within, "the load does not end\n{}", self.logs());
            self.alive();
            clock::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until `malote agent status --json` lacks that text.
    pub(crate) async fn status_lacks(&mut self, text: &str, within: Duration) {
        let begun = clock::Mono::now();
        while self.agent_status().contains(text) {
            assert!(begun.elapsed() < within, "still {text}\n{}", self.logs());
            self.alive();
            clock::sleep(Duration::from_millis(200)).await;
        }
    }

    /// What `malote agent check` says; it fails where it has findings, so stdout and stderr count alike.
    pub(crate) fn agent_check(&self) -> String {
        self.agent_command(&["check", "--json"])
    }

    /// Waits until `malote agent status --json` holds that text.
    pub(crate) async fn status_says(&mut self, text: &str, within: Duration) {
        let begun = clock::Mono::now();
        loop {
            let status = self.agent_status();
            if status.contains(text) {
                return;
            }
            assert!(begun.elapsed() < within, "no {text} in {status}\n{}", self.logs());
            self.alive();
            clock::sleep(Duration::from_millis(200)).await;
        }
    }

    pub(crate) fn agent_status(&self) -> String {
        self.agent_command(&["status", "--json"])
    }

    /// What the agent did, as `malote agent history --json` tells it.
    pub(crate) fn agent_history(&self) -> String {
        self.agent_command(&["history", "--json"])
    }

    /// What a command of the agent writes, or why it failed.
    pub(crate) fn agent_command(&self, words: &[&str]) -> String {
        let mut all = vec!["agent"];
        all.extend(words);
        all.extend(["--config", "agent.toml"]);
        match process::command(self.cloud.folder.path(), &all) {
            Ok(output) => output,
            Err(error) => error.message,
        }
    }

    /// An agent or server that ended by itself fails the test at once.
    fn alive(&mut self) {
        let ended = self.agent.as_mut().and_then(|agent| agent.ended().unwrap());
        assert!(ended.is_none(), "the agent ended by itself: {ended:?}\n{}", self.logs());
    }

    pub(crate) fn logs(&self) -> String {
        let agent = self.agent.as_ref().map(|agent| agent.log_end(30)).unwrap_or_default();
        format!("--- agent\n{agent}\n--- server\n{}", self.cloud.log())
    }
}
