//! Client of the admin door, for `malote agent status`, `reload` and the others beside a running agent.
//!
//! Promises: finds address and token in the data folder; says where no agent runs, and how to start it.
//! Never: calls an address that is not loopback.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result, json::ErrorBody, names::TableName};
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use super::{
    ADDRESS_FILE, AnswerDeletes, CleanOrder, DeletesStatus, LogOrder, LogPage, LogStatus,
    PauseOrder, ResumeOrder, Select, Status, VerifyTables, token,
};
use crate::journal::{Cleaned, HistoryRow, Selected, Verification};

/// The agent is on this machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which part of the detailed log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogPart {
    /// The last lines.
    Last(usize),
    /// What stands behind that byte.
    From(u64),
}

#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    address: SocketAddr,
    token: SecretString,
    folder: PathBuf,
}

impl Client {
    /// For the agent whose data lies in `folder`; `listen` is its configured address, used where the running agent
    /// has not told another.
    ///
    /// # Errors
    /// `AGENT_AWAY` where no agent ever ran there, `CONFIG_INVALID` where the token cannot be read,
    /// `ADDRESS_REFUSED` where the address is not loopback.
    pub fn open(folder: &Path, listen: SocketAddr) -> Result<Self> {
        let token = token::read(folder).map_err(|error| match error.code {
            Code::NotFound => Error::new(Code::AgentAway, error.message).at(folder.display()),
            _ => error,
        })?;
        let told = fs::read_to_string(folder.join(ADDRESS_FILE)).ok();
        let address = told.and_then(|text| text.trim().parse().ok()).unwrap_or(listen);
        if !address.ip().is_loopback() {
            return Err(
                Error::new(Code::AddressRefused, "the admin address is not loopback").at(address)
            );
        }
        runtime::tls::install_provider();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()
            .coded(Code::Internal, "the HTTP client cannot be made")?;
        Ok(Self { http, address, token, folder: folder.to_owned() })
    }

    /// `malote agent status`.
    ///
    /// # Errors
    /// `AGENT_AWAY` where no agent answers; what the agent answers.
    pub async fn status(&self) -> Result<Status> {
        let body = self.send(self.http.get(self.url("/v1/status"))).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a status")
    }

    /// `malote agent reload`: one table, or all of the plan.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` for a table that is not in the plan.
    pub async fn reload(&self, table: Option<&TableName>) -> Result<()> {
        let body = json!({ "table": table });
        self.send(self.http.post(self.url("/v1/reload")).json(&body)).await.map(|_| ())
    }

    /// `malote agent pause`.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` for a table that is not in the plan.
    pub async fn pause(&self, order: &PauseOrder) -> Result<()> {
        self.send(self.http.post(self.url("/v1/pause")).json(order)).await.map(|_| ())
    }

    /// `malote agent resume`.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` where nothing of the kind is paused.
    pub async fn resume(&self, order: &ResumeOrder) -> Result<()> {
        self.send(self.http.post(self.url("/v1/resume")).json(order)).await.map(|_| ())
    }

    /// `malote agent deletes list`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn deletes(&self) -> Result<Vec<DeletesStatus>> {
        let body = self.send(self.http.get(self.url("/v1/deletes"))).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a list")
    }

    /// `malote agent deletes confirm` and `refuse`; gives what was, or with `dry_run` would be, answered.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` where nothing waits, `DELETES_CAPPED` where another number is counted by now.
    pub async fn answer_deletes(&self, answer: &AnswerDeletes) -> Result<DeletesStatus> {
        let body = self.send(self.http.post(self.url("/v1/deletes")).json(answer)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a count")
    }

    /// `malote verify`: gives what was ordered, table by table.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` for a table that is not in the plan, `RATE_LIMITED` where too many wait.
    pub async fn verify(&self, order: &VerifyTables) -> Result<Vec<Verification>> {
        let body = self.send(self.http.post(self.url("/v1/verify")).json(order)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a list")
    }

    /// How one of them stands.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` where there is none of that number.
    pub async fn verification(&self, id: i64) -> Result<Verification> {
        let body = self.send(self.http.get(self.url(&format!("/v1/verify/{id}")))).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is no verification")
    }

    /// `malote agent sql`.
    ///
    /// # Errors
    /// As [`Client::status`]; `BAD_REQUEST`, `TIMEOUT`.
    pub async fn select(&self, sql: &str, limit: usize) -> Result<Selected> {
        let body = Select { sql: sql.to_owned(), limit: Some(limit) };
        let body = self.send(self.http.post(self.url("/v1/sql")).json(&body)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not rows")
    }

    /// `malote agent history`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn history(&self, concept: Option<&str>, limit: usize) -> Result<Vec<HistoryRow>> {
        let mut query = vec![("limit", limit.to_string())];
        query.extend(concept.map(|concept| ("concept", concept.to_owned())));
        let url = reqwest::Url::parse_with_params(&self.url("/v1/history"), &query)
            .coded(Code::Internal, "the admin address is no URL")?;
        let body = self.send(self.http.get(url)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a history")
    }

    /// `malote agent history clean`.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn history_clean(&self, order: &CleanOrder) -> Result<Cleaned> {
        let url = self.url("/v1/history/clean");
        let body = self.send(self.http.post(url).json(order)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a count")
    }

    /// `malote agent logs on`.
    ///
    /// # Errors
    /// As [`Client::status`]; `BAD_REQUEST` out of bounds, `DISK_FULL` where the file would not leave enough room.
    pub async fn log_on(&self, order: &LogOrder) -> Result<LogStatus> {
        let body = self.send(self.http.post(self.url("/v1/logs")).json(order)).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a log")
    }

    /// `malote agent logs off`; gives what was on.
    ///
    /// # Errors
    /// As [`Client::status`].
    pub async fn log_off(&self) -> Result<Option<LogStatus>> {
        let body = self.send(self.http.delete(self.url("/v1/logs"))).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a log")
    }

    /// `malote agent logs show`: the last lines, or what follows a place in the file.
    ///
    /// # Errors
    /// As [`Client::status`]; `NOT_FOUND` where nothing was ever recorded.
    pub async fn log_page(&self, part: LogPart) -> Result<LogPage> {
        let query = match part {
            LogPart::Last(lines) => format!("lines={lines}"),
            LogPart::From(place) => format!("from={place}"),
        };
        let body = self.send(self.http.get(self.url(&format!("/v1/logs?{query}")))).await?;
        serde_json::from_slice(&body).coded(Code::Internal, "the agent's answer is not a log")
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Vec<u8>> {
        let away = |cause: reqwest::Error| {
            let words = format!("no agent answers for data folder {}", self.folder.display());
            Error::new(Code::AgentAway, words).because(cause).at(self.address)
        };
        let answer = request.bearer_auth(self.token.expose_secret()).send().await.map_err(away)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(away)?;
        if status.is_success() {
            return Ok(body.into());
        }
        let told: Option<ErrorBody> = serde_json::from_slice(&body).ok();
        let code = told.as_ref().and_then(|told| told.code.parse().ok()).unwrap_or(Code::Internal);
        let words =
            told.map_or_else(|| format!("the agent answered {status}"), |told| told.message);
        Err(Error::new(code, words))
    }
}
