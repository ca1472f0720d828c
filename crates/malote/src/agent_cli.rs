//! `malote agent`: runs the side in the customer's building, looks at the ERP before it, and shows how it goes.
//!
//! Promises: stdout is data, as a table or, with `--json`, one object; `check` reads the ERP and writes nothing;
//! `safe-bound` prints SQL for a DBA and runs none.
//! Never: prints a secret or a row's value; keys alone, where `sql` is asked for them.

mod records;
mod steer;

use std::{collections::BTreeSet, path::PathBuf};

use agent::{
    admin::{AnswerDeletes, DeletesStatus, IncidentStatus, Status, client::Client},
    app,
    config::AgentConfig,
    journal::{Answer, LinkState, TableStatus},
    source::{Finding, Mask, SAFE_BOUND_SQL, TableShape},
};
use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, names::TableName};
use runtime::{exit, shutdown, telemetry};
use serde_json::{Value, json};

use crate::{lang::Lang, out};
use records::{HistoryArgs, SqlArgs};
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
    /// Show the running agent: each table's state and the last incidents.
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
                run(load()?).await.map_err(|error| without_file(error, file.is_none()))
            }
            AgentNoun::Check { tables } => {
                let checked = Box::pin(app::check(&load()?, &tables)).await;
                let checked = checked.map_err(|error| without_file(error, file.is_none()))?;
                Ok(show_check(&checked, json, lang))
            }
            AgentNoun::Status => {
                let status = client(&load()?)?.status().await?;
                if json {
                    let text = serde_json::to_string(&status);
                    out::data(text.coded(Code::Internal, "cannot print the status")?);
                } else {
                    show_status(&status, lang);
                }
                Ok(exit::OK)
            }
            AgentNoun::Reload { table, .. } => {
                client(&load()?)?.reload(table.as_ref()).await?;
                out::talk(lang.pick("ordered", "pedido feito"));
                Ok(exit::OK)
            }
            AgentNoun::Pause(args) => args.run(&client(&load()?)?, lang).await.map(|()| exit::OK),
            AgentNoun::Resume(args) => args.run(&client(&load()?)?, lang).await.map(|()| exit::OK),
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

fn table_line(shape: &TableShape) -> String {
    let stamp = shape.stamp.as_ref().map_or("-", |stamp| stamp.column.as_str());
    let soft = shape.soft_delete.as_ref().map_or("-", |(column, _)| column.as_str());
    let masks: Vec<String> = shape
        .columns
        .iter()
        .filter_map(|column| Some(format!("{} {}", column.name, column.mask.as_ref()?.rule())))
        .collect();
    let masks =
        if masks.is_empty() { String::new() } else { format!(", masked: {}", masks.join(", ")) };
    format!(
        "table {} ({}): {}, key {}, stamp {stamp}, soft delete {soft}, {} columns{masks}",
        shape.wire,
        physical(shape),
        mode(shape),
        key(shape).join("+"),
        shape.columns.len(),
    )
}

/// The hint of a code in the reader's language; a code this version does not know has none.
fn hint(code: &str, lang: Lang) -> Option<&'static str> {
    let code: Code = code.parse().ok()?;
    Some(lang.pick(code.hint(), code.hint_pt()))
}

fn next_try(at: &str, lang: Lang) -> String {
    format!(" ({} {at})", lang.pick("next try", "próxima tentativa"))
}

/// The link and what stands in its way.
fn link_lines(link: &LinkState, lang: Lang) -> Vec<String> {
    let phase = serde_json::to_value(link.phase).unwrap_or_default();
    let mut head = format!("link         {}", phase.as_str().unwrap_or_default());
    if link.foreign_server {
        head.push_str(lang.pick(", foreign server mode", ", modo de servidor alheio"));
    }
    let mut lines = vec![head];
    if let Some(code) = &link.code {
        let next = link.next_try.as_ref();
        let next = next.map(|at| next_try(at, lang)).unwrap_or_default();
        let words = link.words.as_deref().unwrap_or_default();
        lines.push(format!("             {code}: {words}{next}"));
        lines.extend(hint(code, lang).map(|hint| format!("             {hint}")));
    }
    lines
}

/// Deletes above the cap as the status tells them, with the way out.
fn capped_line(deletes: &DeletesStatus, lang: Lang) -> String {
    let DeletesStatus { table, rows, known, since, answer, .. } = deletes;
    let head = lang.pick(
        format!("DELETES_CAPPED: {rows} of {known} rows vanished, since {since}"),
        format!("DELETES_CAPPED: sumiram {rows} de {known} linhas, desde {since}"),
    );
    let tail = match answer {
        Answer::Waiting => format!("malote agent deletes confirm|refuse {table}"),
        Answer::Confirmed => lang.pick("confirmed", "confirmado").to_owned(),
        Answer::Refused => lang.pick("refused, they stay", "recusado, elas ficam").to_owned(),
    };
    format!("{head}: {tail}")
}

fn show_deletes(deletes: &[DeletesStatus], as_json: bool, lang: Lang) {
    if as_json {
        out::data(json!({ "deletes": deletes }).to_string());
    } else if deletes.is_empty() {
        out::talk(lang.pick("none", "nenhuma"));
    } else {
        for line in deletes {
            out::data(format!("{:<12} {}", line.table.as_str(), capped_line(line, lang)));
        }
    }
}

/// When the next cycle runs, and since when base loads wait.
fn coming_lines(status: &Status, lang: Lang) -> Vec<String> {
    let run = status.next_run.as_ref();
    let run = run.map(|at| format!("{:<12} {at}", lang.pick("next run", "próximo")));
    let loads = status.loads_from.as_ref().map(|at| {
        let words = lang.pick("base loads wait until", "cargas iniciais esperam até");
        format!("             {words} {at}")
    });
    run.into_iter().chain(loads).collect()
}

/// What the columns of the tables' lines are. Sendings count, not rows: one that goes twice counts twice.
fn table_heading(status: &Status, lang: Lang) -> Option<String> {
    if status.tables.is_empty() {
        return None;
    }
    Some(lang.pick(
        format!(
            "\n{:<12} {:<10} {:<13} {:<10} {:<10} {:<10} QUARANTINED (sent and deletes since the agent started)",
            "TABLE", "STATE", "MODE", "LAG", "SENT", "DELETES"
        ),
        format!(
            "\n{:<12} {:<10} {:<13} {:<10} {:<10} {:<10} QUARENTENA (enviadas e exclusões desde o início do agente)",
            "TABELA", "ESTADO", "MODO", "ATRASO", "ENVIADAS", "EXCLUSÕES"
        ),
    ))
}

fn sent_line(status: &TableStatus) -> String {
    let lag = status.lag_ms.map_or_else(|| "-".to_owned(), |lag| format!("{} s", lag / 1_000));
    // The counter holds deletes too: they are rows of the messages.
    let changed = status.rows_sent.saturating_sub(status.deletes_sent);
    format!(
        "{:<12} {:<10} {:<13} {lag:<10} {changed:<10} {:<10} {}",
        status.table.as_str(),
        status.state,
        status.mode,
        status.deletes_sent,
        status.quarantined
    )
}

/// What was left out or went wrong, the newest first; below each code, once, what to do.
fn incident_lines(incidents: &[IncidentStatus], lang: Lang) -> Vec<String> {
    let mut lines = Vec::new();
    if !incidents.is_empty() {
        lines.push(lang.pick("\nINCIDENTS", "\nOCORRÊNCIAS").to_owned());
    }
    let mut told = BTreeSet::new();
    for IncidentStatus { table, key_hash, code, words, at, .. } in incidents {
        let key = key_hash.as_ref().map(|hash| {
            let head: String = hash.chars().take(16).collect();
            format!(" {} {head}…", lang.pick("key", "chave"))
        });
        lines.push(format!(
            "{at} {}{code}: {words}{}",
            place(table.as_ref()),
            key.unwrap_or_default()
        ));
        if told.insert(code)
            && let Some(hint) = hint(code, lang)
        {
            lines.push(format!("             {hint}"));
        }
    }
    lines
}

fn show_status(status: &Status, lang: Lang) {
    for line in link_lines(&status.link, lang) {
        out::data(line);
    }
    if let Some(paused) = &status.paused {
        let since = lang.pick("since", "desde");
        out::data(format!("PAUSED {since} {}: {}: {}", paused.since, paused.code, paused.words));
    }
    for line in coming_lines(status, lang) {
        out::data(line);
    }
    let (waiting, halts) = (&status.deletes, &status.halts);
    for halt in halts.iter().filter(|halt| halt.table.is_none()) {
        out::data(format!("PAUSED {}", steer::line(halt, lang)));
    }
    table_heading(status, lang).into_iter().for_each(out::data);
    for status in &status.tables {
        out::data(sent_line(status));
        for words in waiting.iter().filter(|waits| waits.table == status.table) {
            out::data(format!("             {}", capped_line(words, lang)));
        }
        for words in [&status.degraded, &status.held_by].into_iter().flatten() {
            out::data(format!("             {words}"));
        }
        if let Some((code, words)) = &status.parked {
            let next = status.next_try.as_ref();
            let next = next.map(|at| next_try(at, lang)).unwrap_or_default();
            out::data(format!("             {code}: {words}{next}"));
            if let Some(hint) = hint(code, lang) {
                out::data(format!("             {hint}"));
            }
        }
        let halt = halts.iter().find(|halt| halt.table.as_ref() == Some(&status.table));
        if let Some(halt) = halt {
            out::data(format!("             {}", steer::line(halt, lang)));
        } else if let Some(words) =
            status.paused.as_ref().filter(|_| halts.iter().all(|halt| halt.table.is_some()))
        {
            out::data(format!("             {words}"));
        }
    }
    incident_lines(&status.incidents, lang).into_iter().for_each(out::data);
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

    #[test]
    fn the_status_begins_with_the_link_and_what_to_do_about_it_in_the_readers_language() {
        let text = r#"{"configured":true,"version":"1","instance":"i","link":{"phase":"REFUSED","epoch":null,
            "foreignServer":false,"code":"INVALID_CLIENT","words":"client id or secret is wrong","hint":"x"},
            "spool":{"batch":null,"appended":0,"acked":0,"unackedBytes":0,"sealed":false,"completed":null,"dropped":0},
            "tables":[],"parked":{},"suspects":[],"incidents":[]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        let lines = link_lines(&status.link, Lang::Pt);
        assert_eq!(lines[0], "link         REFUSED");
        assert_eq!(lines[1], "             INVALID_CLIENT: client id or secret is wrong");
        assert_eq!(lines[2].trim(), Code::InvalidClient.hint_pt());
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
        ] {
            Line::try_parse_from(words.split(' ')).unwrap();
        }
        assert!(Line::try_parse_from(["agent", "reload", ""]).is_err());
        assert!(Line::try_parse_from(["agent", "reload"]).is_err());
        assert!(Line::try_parse_from(["agent", "reload", "--all", "FLAN"]).is_err());
        assert!(Line::try_parse_from(["agent", "deletes", "confirm"]).is_err());
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
    fn deletes_above_the_cap_are_told_with_number_moment_and_way_out_in_both_languages() {
        let mut deletes = DeletesStatus {
            table: "FLAN".parse().unwrap(),
            rows: 999,
            known: 1_000,
            cap: 500,
            since: "2026-01-02T03:04:05Z".into(),
            answer: Answer::Waiting,
        };
        assert_eq!(
            capped_line(&deletes, Lang::En),
            "DELETES_CAPPED: 999 of 1000 rows vanished, since 2026-01-02T03:04:05Z: malote agent deletes confirm|refuse FLAN"
        );
        deletes.answer = Answer::Refused;
        assert!(capped_line(&deletes, Lang::Pt).ends_with("recusado, elas ficam"));
    }

    #[test]
    fn the_status_says_why_the_agent_does_not_send_and_when_it_tries_next() {
        assert_eq!(link_lines(&LinkState::default(), Lang::En), ["link         CONNECTING"]);
        let link = LinkState {
            code: Some("INSTANCE_TWICE".into()),
            words: Some("w".into()),
            next_try: Some("2026-01-02T03:04:05Z".into()),
            ..LinkState::default()
        };
        let lines = link_lines(&link, Lang::Pt);
        assert_eq!(lines[1].trim(), "INSTANCE_TWICE: w (próxima tentativa 2026-01-02T03:04:05Z)");
        assert!(lines[2].contains("cópias da mesma pasta"), "{lines:?}");
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
        assert!(table_line(&checked.shapes[0]).contains("SNAPSHOT_DIFF, key K"));
    }
}
