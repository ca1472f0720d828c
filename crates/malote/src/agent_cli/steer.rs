//! `malote agent pause` and `resume`: a person keeps tables from being read.
//!
//! Promises: who, why and when stand in the status until somebody resumes.
//! Never: stops what is spooled already.

use agent::admin::{HaltStatus, PauseOrder, ResumeOrder, client::Client};
use clap::Args;
use protocol::{Code, Error, Result, limits, names::TableName};
use serde_json::json;

use crate::{lang::Lang, out};

#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The table; left out: all.
    table: Option<TableName>,
    /// Why, for those who look at the status.
    #[arg(long, value_name = "WORDS", default_value = "")]
    why: String,
    /// Who pauses; else the user of this machine.
    #[arg(long, value_name = "NAME")]
    who: Option<String>,
}

impl PauseArgs {
    pub(super) async fn run(self, client: &Client, as_json: bool, lang: Lang) -> Result<()> {
        let who = self.who.or_else(runtime::config::user).unwrap_or_else(|| "unknown".to_owned());
        for (name, text) in [("--why", &self.why), ("--who", &who)] {
            if text.len() > limits::ORDER_ARGUMENT_BYTES {
                let words = format!("{name} has more than {} bytes", limits::ORDER_ARGUMENT_BYTES);
                return Err(Error::new(Code::BadRequest, words));
            }
        }
        let order = PauseOrder { table: self.table, who, why: self.why };
        client.pause(&order).await?;
        let words = lang.pick(
            "paused; what is read already still goes out",
            "pausado; o que já foi lido ainda é enviado",
        );
        ordered(("pause", order.table.as_ref()), as_json, words);
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The table; left out: what was paused as a whole. Tables paused by themselves stay so.
    #[arg(conflicts_with = "all")]
    table: Option<TableName>,
    /// Lift every pause, those of single tables too.
    #[arg(long)]
    all: bool,
}

impl ResumeArgs {
    pub(super) async fn run(self, client: &Client, as_json: bool, lang: Lang) -> Result<()> {
        let order = ResumeOrder { table: self.table, all: self.all };
        client.resume(&order).await?;
        ordered(("resume", order.table.as_ref()), as_json, lang.pick("goes on", "retomado"));
        Ok(())
    }
}

/// The agent took an order; without a table it is for all.
pub(super) fn ordered((verb, table): (&str, Option<&TableName>), as_json: bool, words: &str) {
    if as_json {
        out::data(json!({ "ordered": verb, "table": table }).to_string());
    }
    out::talk(words);
}

/// A pause as the status tells it.
pub(super) fn line(halt: &HaltStatus, lang: Lang) -> String {
    let HaltStatus { who, why, since, .. } = halt;
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    lang.pick(
        format!("paused by {who} since {since}{why}"),
        format!("pausado por {who} desde {since}{why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_tells_who_when_and_why_in_both_languages() {
        let mut halt = HaltStatus {
            table: None,
            who: "ana".into(),
            why: "month end".into(),
            since: "2026-01-02T03:04:05Z".into(),
        };
        assert_eq!(line(&halt, Lang::En), "paused by ana since 2026-01-02T03:04:05Z: month end");
        halt.why.clear();
        assert_eq!(line(&halt, Lang::Pt), "pausado por ana desde 2026-01-02T03:04:05Z");
    }
}
