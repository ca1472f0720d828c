//! `malote agent`: runs the side in the customer's building, looks at the ERP before it, and shows how it goes.
//!
//! Promises: stdout is data, as a table or, with `--json`, one object; `check` reads the ERP and writes nothing;
//! `safe-bound` prints SQL for a DBA and runs none.
//! Never: prints a secret or a row's value; keys alone, where `sql` is asked for them.

mod backup;
mod logs;
mod prompt;
mod records;
mod secret;
mod status;
mod steer;

use std::path::PathBuf;

use agent::{
    admin::{AnswerDeletes, DeletesStatus, client::Client},
    app,
    config::AgentConfig,
    source::{Finding, Mask, SAFE_BOUND_SQL, TableShape},
};
use clap::{Args, Subcommand};
use protocol::{Code, Error, Result, names::TableName};
use runtime::{exit, shutdown, telemetry};
use serde_json::{Value, json};

use crate::{lang::Lang, out};
use logs::LogsCommand;
use records::{HistoryArgs, SqlArgs};
use secret::SecretCommand;
use status::show_deletes;
use steer::{PauseArgs, ResumeArgs};

/// `malote agent`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote agent check --config agent.toml FCFO FLAN
  malote agent run --config agent.toml
  malote agent status --config agent.toml --json
  malote agent reload FLAN --config agent.toml
  malote agent deletes confirm FLAN --dry-run --config agent.toml")]
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
    /// Show the running agent: each table's state and the last incidents; or what its configuration lacks (exit code 5).
    Status,
    /// Order the running agent to load one table again, or all.
    #[command(
        after_help = "A load removes nothing: what is staged stays, and rows that the ERP no longer has go with the next
comparison of the keys.

Examples:
  malote agent reload FLAN --config agent.toml
  malote agent reload --all --config agent.toml"
    )]
    Reload {
        /// The table.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        table: Option<TableName>,
        /// Every table of the plan.
        #[arg(long)]
        all: bool,
    },
    /// Keep the running agent from reading one table, or all; a restart does not end it.
    Pause(PauseArgs),
    /// Let a paused table, or the agent, go on.
    Resume(ResumeArgs),
    /// Read what was sent with one SELECT: GDataShareRecords, GTOTVSAPPCONCEITOHST.
    #[command(after_help = "Examples:
  malote agent sql \"SELECT TABLENAME, count(*) FROM GDataShareRecords GROUP BY 1\" --config agent.toml
  malote agent sql \"SELECT * FROM GTOTVSAPPCONCEITOHST WHERE STATUS = 'ERROR'\" --format csv --config agent.toml")]
    Sql(SqlArgs),
    /// Show how each table's batches and each job ended, the newest first.
    History(HistoryArgs),
    /// Rows that vanished in such number that a person has to say whether they go (see DELETES_CAPPED).
    #[command(subcommand)]
    Deletes(DeletesCommand),
    /// Secrets of the configuration, sealed in the data folder: {sealed:NAME} stands for one.
    #[command(subcommand)]
    Secret(SecretCommand),
    /// Copy the journal into a folder, beside a running agent. Rows need no backup: the ERP and the server hold them.
    Backup(backup::BackupArgs),
    /// Put a backup in the place of the journal; stop the agent first.
    Restore(backup::RestoreArgs),
    /// A detailed log of the running agent, on for a limited time and size.
    #[command(subcommand)]
    Logs(LogsCommand),
    /// Print the SQL of malote.safe_bound(), for the DBA of a PostgreSQL ERP to run (see BOUND_DEGRADED).
    #[command(after_help = "Example, run by a superuser once per database:
  malote agent safe-bound --login malote_agent | psql -v ON_ERROR_STOP=1 -d erp")]
    SafeBound {
        /// The agent's login, as pg_roles shows it, to be granted the use; else the grants are comments.
        #[arg(long, value_name = "ROLE")]
        login: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum DeletesCommand {
    /// Tables with deletes above the cap: how many, since when, and the answer so far.
    List,
    /// Let exactly that many go, once: they are deleted in the cloud with the next scan.
    #[command(after_help = "Look first, then confirm what you saw:
  malote agent deletes confirm FLAN --dry-run --config agent.toml
  malote agent deletes confirm FLAN --rows 999 --config agent.toml")]
    Confirm(AnswerArgs),
    /// Keep the rows in the cloud; only a larger number asks again.
    Refuse(AnswerArgs),
}

#[derive(Debug, Args)]
struct AnswerArgs {
    /// The table.
    table: TableName,
    /// Answer only if this many are counted still.
    #[arg(long, value_name = "NUMBER")]
    rows: Option<u64>,
    /// Show what would be answered, and answer nothing.
    #[arg(long)]
    dry_run: bool,
}

impl DeletesCommand {
    async fn run(self, client: &Client, json: bool, lang: Lang) -> Result<()> {
        let (confirm, args) = match self {
            Self::List => {
                show_deletes(&client.deletes().await?, json, lang);
                return Ok(());
            }
            Self::Confirm(args) => (true, args),
            Self::Refuse(args) => (false, args),
        };
        let AnswerArgs { table, rows, dry_run } = args;
        let answered =
            client.answer_deletes(&AnswerDeletes { table, confirm, rows, dry_run }).await?;
        if json {
            out::data(json!({"dryRun": dry_run, "deletes": answered}).to_string());
        }
        let DeletesStatus { table, rows, known, .. } = answered;
        let of = lang.pick(
            format!("{rows} of {known} rows of {table}"),
            format!("{rows} de {known} linhas de {table}"),
        );
        let (would, will) = if confirm {
            (
                lang.pick("would be deleted in the cloud", "seriam excluídas na nuvem"),
                lang.pick(
                    "confirmed: they are deleted with the next scan",
                    "confirmado: serão excluídas na próxima varredura",
                ),
            )
        } else {
            (
                lang.pick("would stay in the cloud", "ficariam na nuvem"),
                lang.pick(
                    "refused: they stay in the cloud, a larger number asks again",
                    "recusado: ficam na nuvem; um número maior pergunta de novo",
                ),
            )
        };
        out::talk(format!("{of}: {}", if dry_run { would } else { will }));
        Ok(())
    }
}

impl AgentCommand {
    pub(crate) fn stays(&self) -> bool {
        matches!(self.noun, AgentNoun::Run { dump_config: false })
    }

    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        let file = self.shared.config.as_deref();
        let load = || AgentConfig::load(file);
        let json = self.shared.json;
        match self.noun {
            AgentNoun::Run { dump_config: true } => {
                out::data(load()?.dump()?);
                Ok(exit::OK)
            }
            AgentNoun::Run { dump_config: false } => {
                let config = load()?;
                run(config, file.is_none())
                    .await
                    .map_err(|error| without_file(error, file.is_none()))
            }
            AgentNoun::Check { tables } => {
                let checked = Box::pin(app::check(&load()?, &tables)).await;
                let checked = checked.map_err(|error| without_file(error, file.is_none()))?;
                Ok(show_check(&checked, json, lang))
            }
            AgentNoun::Status => {
                let status = client(&load()?)?.status().await?;
                status::show(&status, json, lang)
            }
            AgentNoun::Reload { table, .. } => {
                client(&load()?)?.reload(table.as_ref()).await?;
                let words = lang.pick("ordered", "pedido feito");
                steer::ordered(("reload", table.as_ref()), json, words);
                Ok(exit::OK)
            }
            AgentNoun::Pause(args) => {
                args.run(&client(&load()?)?, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::Resume(args) => {
                args.run(&client(&load()?)?, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::Sql(args) => {
                args.run(&client(&load()?)?, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::History(args) => {
                let config = load()?;
                let client = client(&config)?;
                args.run(&client, &config.history, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::Deletes(command) => {
                command.run(&client(&load()?)?, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::Secret(command) => command.run(&load()?.data, json, lang).map(|()| exit::OK),
            AgentNoun::Backup(args) => args.run(&load()?, json, lang).await.map(|()| exit::OK),
            AgentNoun::Restore(args) => {
                args.run(&load()?.data, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::Logs(command) => {
                command.run(&client(&load()?)?, json, lang).await.map(|()| exit::OK)
            }
            AgentNoun::SafeBound { login } => {
                show_safe_bound(login.as_deref(), lang);
                Ok(exit::OK)
            }
        }
    }
}

fn client(config: &AgentConfig) -> Result<Client> {
    Client::open(&config.data, config.admin.listen)
}

/// A key that is missing is no riddle where no file was named.
fn without_file(mut error: Error, nameless: bool) -> Error {
    if nameless && error.code == Code::ConfigInvalid {
        error.message.push_str(" (no --config FILE was given)");
    }
    error
}

/// The script, its two grants made out to the login where one is named.
fn safe_bound(login: Option<&str>) -> String {
    let Some(login) = login else { return SAFE_BOUND_SQL.to_owned() };
    let role = format!("\"{}\"", login.replace('"', "\"\""));
    SAFE_BOUND_SQL.replace("-- GRANT ", "GRANT ").replace("the_agents_login", &role)
}

fn show_safe_bound(login: Option<&str>, lang: Lang) {
    out::data(safe_bound(login).trim_end());
    out::talk(lang.pick(
        "Run it as a superuser, once per ERP database: malote agent safe-bound --login ROLE | psql -v ON_ERROR_STOP=1 -d erp\n\
         It lets that login call one function that tells since when the oldest open transaction is open, and nothing else.",
        "Execute como superusuário, uma vez por base do ERP: malote agent safe-bound --login ROLE | psql -v ON_ERROR_STOP=1 -d erp\n\
         Permite a esse login chamar uma única função, que informa desde quando a transação aberta mais antiga está aberta, e nada mais.",
    ));
}

async fn run(config: AgentConfig, nameless: bool) -> Result<u8> {
    telemetry::start(&config.log.level, config.log.format);
    if nameless && !config.missing().is_empty() {
        tracing::warn!("no --config FILE was given");
    }
    if let Err(error) = runtime::priority::step_back(config.capture.nice) {
        tracing::warn!(%error, "the agent cannot step back behind other processes of this machine");
    }
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
            out::data(table_line(shape, lang));
        }
        for Finding { table, words, .. } in checked.findings.iter().filter(|f| f.code.is_none()) {
            out::data(format!("ok    {}{words}", place(table.as_ref())));
        }
        for (table, error) in &faults {
            let hint = lang.pick(error.code.hint(), error.code.hint_pt());
            let found = lang.pick("FOUND", "ACHADO");
            out::data(format!("{found} {}{error}\n      {hint}", place(*table)));
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
        .map(|column| {
            let mask = column.mask.as_ref().map(Mask::rule);
            json!({"name": column.name.as_str(), "type": column.wire_type().to_string(), "mask": mask})
        })
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

fn table_line(shape: &TableShape, lang: Lang) -> String {
    let stamp = shape.stamp.as_ref().map_or("-", |stamp| stamp.column.as_str());
    let soft = shape.soft_delete.as_ref().map_or("-", |(column, _)| column.as_str());
    let masks: Vec<String> = shape
        .columns
        .iter()
        .filter_map(|column| Some(format!("{} {}", column.name, column.mask.as_ref()?.rule())))
        .collect();
    let masked = lang.pick("masked", "mascaradas");
    let masks =
        if masks.is_empty() { String::new() } else { format!(", {masked}: {}", masks.join(", ")) };
    let (name, source, mode, key) =
        (&shape.wire, physical(shape), mode(shape), key(shape).join("+"));
    let columns = shape.columns.len();
    lang.pick(
        format!(
            "table {name} ({source}): {mode}, key {key}, stamp {stamp}, soft delete {soft}, {columns} columns{masks}"
        ),
        format!(
            "tabela {name} ({source}): {mode}, chave {key}, stamp {stamp}, exclusão lógica {soft}, {columns} colunas{masks}"
        ),
    )
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
            "agent reload --all",
            "agent status",
            "agent deletes list --json",
            "agent deletes confirm FLAN --rows 999 --dry-run --config a.toml",
            "agent deletes refuse FLAN",
            "agent pause",
            "agent pause FLAN --why x --who ana",
            "agent resume FLAN",
            "agent resume --all",
            "agent sql SELECT --format csv --limit 5",
            "agent history --concept FLAN --json",
            "agent history clean --dry-run --days 3 --max-rows 10 --config a.toml",
            "agent secret set erp --config a.toml",
            "agent secret list --json",
            "agent secret remove erp",
            "agent logs on",
            "agent logs on --level trace --for 2h --max-size 1GB --config a.toml",
            "agent logs show --lines 5 --follow",
            "agent logs off",
            "agent backup --to copy --with-keys --config a.toml",
            "agent restore --from copy --replace --dry-run",
            "agent restore",
        ] {
            Line::try_parse_from(words.split(' ')).unwrap();
        }
        assert!(Line::try_parse_from(["agent", "reload", ""]).is_err());
        assert!(Line::try_parse_from(["agent", "reload"]).is_err());
        assert!(Line::try_parse_from(["agent", "reload", "--all", "FLAN"]).is_err());
        assert!(Line::try_parse_from(["agent", "deletes", "confirm"]).is_err());
        // A value on the line would stand in the shell's history and in the list of processes.
        assert!(Line::try_parse_from(["agent", "secret", "set", "erp", "value"]).is_err());
    }

    #[test]
    fn the_script_for_a_dba_grants_to_the_named_login_alone() {
        assert_eq!(safe_bound(None), SAFE_BOUND_SQL);
        let granted = safe_bound(Some("Odd\"; DROP ROLE x; --"));
        let grants: Vec<&str> = granted.lines().filter(|line| line.starts_with("GRANT ")).collect();
        assert_eq!(grants.len(), 2, "{granted}");
        assert!(grants.iter().all(|line| line.ends_with(" TO \"Odd\"\"; DROP ROLE x; --\";")));
        assert!(!granted.contains("the_agents_login"));
    }

    #[test]
    fn a_missing_key_tells_that_no_file_was_given() {
        let missing = || Error::new(Code::ConfigInvalid, "source.url is missing");
        assert!(without_file(missing(), true).message.contains("no --config FILE"));
        assert_eq!(without_file(missing(), false).message, "source.url is missing");
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
        assert!(table_line(&checked.shapes[0], Lang::En).contains("SNAPSHOT_DIFF, key K"));
    }
}
