//! `malote verify`: has the agent compare tables with what is staged of them, and send again what differs.
//!
//! Promises: runs beside the agent, through its admin door; stdout is the result, stderr how it goes; the exit code tells
//! whether all is equal.
//! Never: shows a key or a value; ends a verification by leaving (Ctrl-C): the agent goes on with it.

use std::{path::PathBuf, time::Duration};

use agent::{
    admin::{VerifyTables, client::Client},
    config::AgentConfig,
    journal::{Differences, Outcome, Progress, Stage, Verification},
};
use clap::Args;
use protocol::{Result, names::TableName};
use runtime::{clock, exit};
use serde_json::json;

use crate::{lang::Lang, out};

/// How often it is asked how it goes.
const LOOK: Duration = Duration::from_millis(500);

/// `malote verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code 0: equal; 3: differences remain; 1: a table could not be verified.

Examples:
  malote verify --config agent.toml
  malote verify FLAN --config agent.toml --json
  malote verify FLAN --from 1 --from 100 --to 1 --to 200 --config agent.toml
  malote verify FLAN --repair --dry-run --config agent.toml
  malote verify FLAN --repair --config agent.toml"
)]
pub(crate) struct VerifyCommand {
    /// Tables to compare; left out: all of the plan.
    tables: Vec<TableName>,
    /// Configuration file (agent.toml); each key also as MALOTE_AGENT_… in the environment.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Send again what differs, then compare once more.
    #[arg(long)]
    repair: bool,
    /// First key of the part of one table that is compared: once per key column.
    #[arg(long, value_name = "VALUE", requires = "tables", allow_negative_numbers = true)]
    from: Vec<String>,
    /// Key behind the part: once per key column; keys are ordered by their bytes, shorter values first.
    #[arg(long, value_name = "VALUE", requires = "tables", allow_negative_numbers = true)]
    to: Vec<String>,
    /// With --repair: tell what would be sent and deleted, and repair nothing.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// Wait for the end; this is the default.
    #[arg(long, conflicts_with = "no_wait")]
    wait: bool,
    /// Order it and leave; malote agent status shows what came of it.
    #[arg(long)]
    no_wait: bool,
    /// One JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl VerifyCommand {
    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        let config = AgentConfig::load(self.config.as_deref())?;
        let client = Client::open(&config.data, config.admin.listen)?;
        let order = VerifyTables {
            tables: self.tables,
            repair: self.repair && !self.dry_run,
            from: self.from,
            to: self.to,
        };
        let mut ordered = client.verify(&order).await?;
        if self.no_wait && !self.wait {
            if self.json {
                out::data(json!({ "verifications": ordered }).to_string());
            }
            let tables = ordered.len() as u64;
            let tables = lang.count(tables, ["table", "tables"], ["tabela", "tabelas"]);
            out::talk(lang.pick(format!("ordered: {tables}"), format!("pedido feito: {tables}")));
            return Ok(exit::OK);
        }
        for one in &mut ordered {
            *one = follow(&client, one.clone(), lang).await?;
            if !self.json {
                lines(one, self.dry_run, lang).iter().for_each(out::data);
            }
        }
        if self.json {
            let told = json!({ "dryRun": self.dry_run, "verifications": ordered });
            out::data(told.to_string());
        }
        Ok(verdict(&ordered))
    }
}

/// Until it is over; tells each step once, and now and then how many rows it is at.
async fn follow(client: &Client, mut one: Verification, lang: Lang) -> Result<Verification> {
    let (mut told, mut looks) = (None, 0u32);
    while !one.is_over() {
        if let Some(progress) = &one.progress {
            let news = told.as_ref() != Some(&progress.step);
            if news || looks.is_multiple_of(20) {
                out::talk(format!("{}: {}", one.table, step(progress, lang)));
            }
            told = Some(progress.step.clone());
        }
        looks = looks.wrapping_add(1);
        clock::sleep(LOOK).await;
        one = client.verification(one.id).await?;
    }
    Ok(one)
}

fn step(progress: &Progress, lang: Lang) -> String {
    let rows = lang.count(progress.rows, ["row", "rows"], ["linha", "linhas"]);
    match progress.step.as_str() {
        "READ" => lang.pick(format!("reading, {rows}"), format!("lendo, {rows}")),
        "ASK" => lang.pick("asking the cloud", "perguntando à nuvem").to_owned(),
        "COMPARE" => lang.pick(
            format!("comparing ranges that differ, {rows} read"),
            format!("comparando faixas que diferem, {rows} lidas"),
        ),
        "WAIT" => lang
            .pick(
                "waiting until what is on its way arrived",
                "esperando chegar o que está a caminho",
            )
            .to_owned(),
        "LOOK_AGAIN" => {
            lang.pick(format!("looking again, {rows}"), format!("olhando de novo, {rows}"))
        }
        "REPAIR" => {
            lang.pick(format!("sending again, {rows}"), format!("enviando de novo, {rows}"))
        }
        other => other.to_owned(),
    }
}

/// What a verification came to, with the way out.
fn lines(one: &Verification, dry_run: bool, lang: Lang) -> Vec<String> {
    let head = |words: String| format!("{:<12} {words}", one.table.as_str());
    let Some(outcome) = one.outcome.filter(|_| one.stage == Stage::Done) else {
        let code = one.code.as_deref().unwrap_or_default();
        let words = one.words.as_deref().unwrap_or_default();
        let not = lang.pick("NOT VERIFIED", "NÃO VERIFICADA");
        let mut lines = vec![head(format!("{not}: {code}: {words}"))];
        let hint = code.parse::<protocol::Code>().ok();
        lines.extend(hint.map(|code| head_less(lang.pick(code.hint(), code.hint_pt()))));
        return lines;
    };
    let mut lines = vec![head(result(&outcome, lang))];
    let Differences { extra, .. } = outcome.remaining();
    if outcome.left.is_some() && extra > 0 {
        let words = lang.pick(
            "rows above the cap wait for a person: malote agent deletes list",
            "linhas acima do limite esperam por uma pessoa: malote agent deletes list",
        );
        lines.push(head_less(words));
    } else if outcome.left.is_none() && outcome.found.total() > 0 {
        lines.push(head_less(&way_out(one, &outcome.found, dry_run, lang)));
    }
    lines
}

fn head_less(words: &str) -> String {
    format!("{:<12} {words}", "")
}

fn way_out(one: &Verification, found: &Differences, dry_run: bool, lang: Lang) -> String {
    let Differences { missing, extra, differing } = found;
    let sent = missing + differing;
    let table = &one.table;
    if dry_run {
        return lang.pick(
            format!("--repair would send {sent} and delete {extra}, under the cap of deletes"),
            format!("--repair enviaria {sent} e excluiria {extra}, sob o limite de exclusões"),
        );
    }
    lang.pick(
        format!("malote verify {table} --repair sends again what differs"),
        format!("malote verify {table} --repair envia de novo o que difere"),
    )
}

/// In one line, also for the status.
pub(crate) fn result(outcome: &Outcome, lang: Lang) -> String {
    let rows = lang.count(outcome.rows, ["row", "rows"], ["linha", "linhas"]);
    let kinds = |differences: &Differences| {
        let Differences { missing, extra, differing } = differences;
        lang.pick(
            format!("{missing} missing, {extra} too many, {differing} differ"),
            format!("{missing} faltam, {extra} sobram, {differing} diferem"),
        )
    };
    let mut words = match (&outcome.left, outcome.found.total()) {
        (None, 0) => lang.pick(format!("equal, {rows}"), format!("igual, {rows}")),
        (None, _) => lang.pick(
            format!("DIFFERENT, {rows}: {}", kinds(&outcome.found)),
            format!("DIFERENTE, {rows}: {}", kinds(&outcome.found)),
        ),
        (Some(left), _) if left.total() == 0 => lang.pick(
            format!("repaired, {rows}: {}; now equal", kinds(&outcome.found)),
            format!("reparada, {rows}: {}; agora igual", kinds(&outcome.found)),
        ),
        (Some(left), _) => lang.pick(
            format!(
                "DIFFERENT, {rows}: {}; after the repair {}",
                kinds(&outcome.found),
                kinds(left)
            ),
            format!(
                "DIFERENTE, {rows}: {}; depois do reparo {}",
                kinds(&outcome.found),
                kinds(left)
            ),
        ),
    };
    if outcome.unsettled > 0 {
        let count = outcome.unsettled;
        words.push_str(&lang.pick(
            format!("; {count} changed at every look"),
            format!("; {count} mudaram a cada olhada"),
        ));
    }
    if outcome.skipped > 0 {
        let count = outcome.skipped;
        words.push_str(&lang.pick(
            format!("; {count} cannot travel (incidents)"),
            format!("; {count} não podem viajar (ocorrências)"),
        ));
    }
    words
}

fn verdict(all: &[Verification]) -> u8 {
    let failed = all.iter().any(|one| one.stage != Stage::Done);
    let different =
        |one: &Verification| one.outcome.is_some_and(|outcome| outcome.remaining().total() > 0);
    match (failed, all.iter().any(different)) {
        (true, _) => exit::FAILED,
        (false, true) => exit::DIFFERENT,
        (false, false) => exit::OK,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        verify: VerifyCommand,
    }

    fn done(found: [u64; 3], left: Option<[u64; 3]>) -> Verification {
        let kinds =
            |[missing, extra, differing]: [u64; 3]| Differences { missing, extra, differing };
        let (found, left) = (kinds(found), left.map(kinds));
        let text = r#"{"id":1,"table":"FLAN","origin":"PERSON","repair":false,"part":false,"stage":"DONE","asked":"x"}"#;
        let one: Verification = serde_json::from_str(text).unwrap();
        Verification {
            outcome: Some(Outcome { rows: 9, found, left, ..Outcome::default() }),
            ..one
        }
    }

    fn keys<const N: usize>(values: [&str; N]) -> Vec<String> {
        values.map(str::to_owned).to_vec()
    }

    fn failed() -> Verification {
        let code = Some("CLOUD_UNREACHABLE".into());
        let words = Some("no answer".into());
        Verification { stage: Stage::Failed, outcome: None, code, words, ..done([0; 3], None) }
    }

    #[test]
    fn the_command_line_takes_what_goes_together_and_nothing_else() {
        for words in [
            "verify",
            "verify A B --repair --json",
            "verify A --repair --dry-run --wait",
            "verify A --from 1 --repair",
        ] {
            Line::try_parse_from(words.split(' ')).unwrap();
        }
        let part = "verify A --from 1 --from -5 --to 1 --to 9";
        let verify = Line::try_parse_from(part.split(' ')).unwrap().verify;
        assert_eq!(
            (verify.tables.len(), verify.from, verify.to),
            (1, keys(["1", "-5"]), keys(["1", "9"]))
        );
        for words in ["verify A --dry-run", "verify --wait --no-wait", "verify --from 1"] {
            assert!(Line::try_parse_from(words.split(' ')).is_err(), "{words}");
        }
    }

    #[test]
    fn the_exit_code_tells_equal_different_and_not_verified_apart() {
        let (equal, different) = (done([0; 3], None), done([1, 0, 0], None));
        let mended = done([1, 2, 3], Some([0; 3]));
        assert_eq!(verdict(&[]), exit::OK);
        assert_eq!(verdict(&[equal.clone(), mended]), exit::OK);
        assert_eq!(verdict(&[equal.clone(), different.clone()]), exit::DIFFERENT);
        assert_eq!(verdict(&[done([1, 2, 3], Some([0, 1, 0]))]), exit::DIFFERENT);
        assert_eq!(verdict(&[different, failed()]), exit::FAILED);
    }

    #[test]
    fn what_was_found_is_told_with_the_way_out_in_both_languages() {
        let told = |one: &Verification, dry_run, lang| lines(one, dry_run, lang).join("\n");
        assert_eq!(told(&done([0; 3], None), false, Lang::Pt), "FLAN         igual, 9 linhas");
        let different = done([1, 2, 3], None);
        let english = told(&different, false, Lang::En);
        assert!(
            english
                .starts_with("FLAN         DIFFERENT, 9 rows: 1 missing, 2 too many, 3 differ\n")
        );
        assert!(english.ends_with("malote verify FLAN --repair sends again what differs"));
        assert!(told(&different, true, Lang::En).contains("would send 4 and delete 2"));
        let capped = done([0, 2, 0], Some([0, 2, 0]));
        assert!(told(&capped, false, Lang::Pt).contains("malote agent deletes list"));
        let mended = done([1, 0, 0], Some([0; 3]));
        assert!(told(&mended, false, Lang::En).ends_with("now equal"));
        let failed = told(&failed(), false, Lang::En);
        assert!(failed.contains("NOT VERIFIED: CLOUD_UNREACHABLE: no answer\n"), "{failed}");
        assert!(failed.ends_with(protocol::Code::CloudUnreachable.hint()));
    }
}
