//! `malote agent`: runs the side in the customer's building, looks at the ERP before it, and shows how it goes.
//!
//! Promises: stdout is data, as a table or, with `--json`, one object; `check` reads the ERP and writes nothing.
//! Never: prints a secret or a row's value.

use std::path::PathBuf;

use agent::{
    admin::{Status, client::Client},
    app,
    config::AgentConfig,
    source::{Finding, TableShape},
};
use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, names::TableName};
use runtime::{exit, shutdown, telemetry};
use serde_json::{Value, json};

use crate::{lang::Lang, out};

/// `malote agent`.
#[derive(Debug, Args)]
pub(crate) struct AgentCommand {
    #[command(flatten)]
    shared: Shared,
    #[command(subcommand)]
    noun: AgentNoun,
}

/// What every command of the agent takes.
#[derive(Debug, Args)]
struct Shared {
    /// Configuration file (agent.toml); each key also as MALOTE_AGENT_… in the environment.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// One JSON object on stdout.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AgentNoun {
    /// Run the agent until SIGTERM or Ctrl-C.
    Run {
        /// Print the configuration in force, secrets redacted, and end.
        #[arg(long)]
        dump_config: bool,
    },
    /// Look at the ERP database as a run would: what is found of each table, and what stands in the way.
    Check {
        /// Tables to look at; else those of the configuration; else all that the login sees.
        tables: Vec<TableName>,
    },
    /// Show the running agent: each table's state and the last incidents.
    Status,
    /// Order the running agent to load one table again, or all.
    Reload {
        /// The table; left out: all of the plan.
        table: Option<TableName>,
    },
}

impl AgentCommand {
    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        let config = AgentConfig::load(self.shared.config.as_deref())?;
        let json = self.shared.json;
        match self.noun {
            AgentNoun::Run { dump_config: true } => {
                out::data(config.dump()?);
                Ok(exit::OK)
            }
            AgentNoun::Run { dump_config: false } => run(config).await,
            AgentNoun::Check { tables } => {
                let checked = Box::pin(app::check(&config, &tables)).await?;
                Ok(show_check(&checked, json, lang))
            }
            AgentNoun::Status => {
                let status = client(&config)?.status().await?;
                if json {
                    let text = serde_json::to_string(&status);
                    out::data(text.coded(Code::Internal, "cannot print the status")?);
                } else {
                    show_status(&status);
                }
                Ok(exit::OK)
            }
            AgentNoun::Reload { table } => {
                client(&config)?.reload(table.as_ref()).await?;
                out::talk(lang.pick("ordered", "pedido feito"));
                Ok(exit::OK)
            }
        }
    }
}

fn client(config: &AgentConfig) -> Result<Client> {
    Client::open(&config.data, config.admin.listen)
}

async fn run(config: AgentConfig) -> Result<u8> {
    telemetry::start(&config.log.level, config.log.format);
    let (trigger, shutdown) = shutdown::channel();
    let signals = runtime::task::spawn("signals", shutdown::on_signal(trigger));
    let ended = Box::pin(app::run(config, shutdown)).await;
    signals.abort();
    ended.map(|()| exit::OK)
}

/// What stands in the way of sharing a table, or weakens a promise.
fn faults(checked: &app::Checked) -> Vec<(Option<&TableName>, Error)> {
    let refused = checked
        .refused
        .iter()
        .map(|(table, error)| (Some(table), Error::new(error.code, error.message.clone())));
    let found = checked.findings.iter().filter_map(|finding| {
        let code = finding.code?;
        Some((finding.table.as_ref(), Error::new(code, finding.words.clone())))
    });
    refused.chain(found).collect()
}

fn show_check(checked: &app::Checked, as_json: bool, lang: Lang) -> u8 {
    let faults = faults(checked);
    if as_json {
        let tables: Vec<Value> = checked.shapes.iter().map(table_json).collect();
        let findings: Vec<Value> = faults
            .iter()
            .map(|(table, error)| {
                let hint = lang.pick(error.code.hint(), error.code.hint_pt());
                json!({"table": table, "code": error.code.as_str(), "words": error.message, "hint": hint})
            })
            .collect();
        let database = json!({"kind": checked.identity.kind, "version": checked.identity.version});
        out::data(
            json!({"database": database, "tables": tables, "findings": findings}).to_string(),
        );
    } else {
        out::data(format!("{} {}", checked.identity.kind, checked.identity.version));
        for shape in &checked.shapes {
            out::data(table_line(shape));
        }
        for Finding { table, words, .. } in checked.findings.iter().filter(|f| f.code.is_none()) {
            out::data(format!("ok    {}{words}", place(table.as_ref())));
        }
        for (table, error) in &faults {
            let hint = lang.pick(error.code.hint(), error.code.hint_pt());
            out::data(format!("FOUND {}{error}\n      {hint}", place(*table)));
        }
    }
    if faults.is_empty() { exit::OK } else { exit::FINDINGS }
}

fn place(table: Option<&TableName>) -> String {
    table.map(|table| format!("{table}: ")).unwrap_or_default()
}

fn physical(shape: &TableShape) -> String {
    match &shape.physical {
        (Some(schema), table) => format!("{schema}.{table}"),
        (None, table) => table.clone(),
    }
}

fn mode(shape: &TableShape) -> &'static str {
    if shape.stamp.is_some() { "TIMESTAMP" } else { "SNAPSHOT_DIFF" }
}

fn key(shape: &TableShape) -> Vec<&str> {
    shape
        .key
        .iter()
        .filter_map(|at| shape.columns.get(*at))
        .map(|column| column.name.as_str())
        .collect()
}

fn table_json(shape: &TableShape) -> Value {
    let columns: Vec<Value> = shape
        .columns
        .iter()
        .map(|column| json!({"name": column.name.as_str(), "type": column.type_name.to_string()}))
        .collect();
    json!({
        "table": shape.wire.as_str(),
        "source": physical(shape),
        "mode": mode(shape),
        "key": key(shape),
        "stamp": shape.stamp.as_ref().map(|stamp| stamp.column.as_str()),
        "softDelete": shape.soft_delete.as_ref().map(|(column, _)| column.as_str()),
        "columns": columns,
    })
}

fn table_line(shape: &TableShape) -> String {
    let stamp = shape.stamp.as_ref().map_or("-", |stamp| stamp.column.as_str());
    let soft = shape.soft_delete.as_ref().map_or("-", |(column, _)| column.as_str());
    format!(
        "table {} ({}): {}, key {}, stamp {stamp}, soft delete {soft}, {} columns",
        shape.wire,
        physical(shape),
        mode(shape),
        key(shape).join("+"),
        shape.columns.len(),
    )
}

fn show_status(status: &Status) {
    for status in &status.tables {
        let lag = status.lag_ms.map_or_else(|| "-".to_owned(), |lag| format!("{} s", lag / 1_000));
        out::data(format!(
            "{:<12} {:<10} {:<13} lag {lag:<8} rows {} deletes {} quarantined {}",
            status.table.as_str(),
            status.state,
            status.mode,
            status.rows_sent,
            status.deletes_sent,
            status.quarantined
        ));
        for words in [&status.degraded, &status.held_by].into_iter().flatten() {
            out::data(format!("             {words}"));
        }
        if let Some((code, words)) = &status.parked {
            out::data(format!("             {code}: {words}"));
        }
    }
    for incident in &status.incidents {
        let at = &incident.at;
        out::data(format!(
            "{at} {}{}: {}",
            place(incident.table.as_ref()),
            incident.code,
            incident.words
        ));
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        agent: AgentCommand,
    }

    fn checked(folder: &std::path::Path, tables: &[&str]) -> app::Checked {
        let path = folder.join("erp.db");
        let db = rusqlite::Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE IF NOT EXISTS T (K INTEGER PRIMARY KEY, V TEXT)").unwrap();
        let mut config = AgentConfig::default();
        config.source.url = format!("sqlite:{}", path.display()).into();
        let tables: Vec<TableName> = tables.iter().map(|name| name.parse().unwrap()).collect();
        let machine = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        machine.block_on(app::check(&config, &tables)).unwrap()
    }

    #[test]
    fn the_command_line_takes_its_options_before_and_behind_the_verb() {
        for words in [
            "agent run --config a.toml",
            "agent --config a.toml check FLAN TMOV --json",
            "agent reload FLAN",
            "agent status",
        ] {
            Line::try_parse_from(words.split(' ')).unwrap();
        }
        assert!(Line::try_parse_from(["agent", "reload", ""]).is_err());
    }

    #[test]
    fn a_missing_table_is_a_finding_and_the_exit_code_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let checked = checked(folder.path(), &["T", "NOWHERE"]);
        assert_eq!(key(&checked.shapes[0]), ["K"]);
        let faults = faults(&checked);
        assert!(
            faults.iter().any(|(_, error)| error.code == protocol::Code::TableMissing),
            "{faults:?}"
        );
        assert_eq!(show_check(&checked, true, Lang::En), exit::FINDINGS);
        assert!(table_line(&checked.shapes[0]).contains("SNAPSHOT_DIFF, key K"));
    }
}
