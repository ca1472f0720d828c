//! `malote doctor`: shows what agent or server found out about the machine they stand on.
//!
//! Promises: stdout is data, a line a finding or, with `--json`, one object; the exit code says whether something has to
//! be mended; a configuration that cannot be read is a finding too.
//! Never: looks at anything itself; what is looked at is the agent's and the server's own knowledge.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use agent::{app::doctor as of_agent, config::AgentConfig, uplink::examine};
use clap::Args;
use protocol::{Code, Error, Result};
use runtime::{
    exit,
    finding::{Finding, Grade, Wish},
    telemetry,
};
use serde_json::{Value, json};
use server::{app::doctor as of_server, config::ServerConfig};

use crate::{lang::Lang, out};

/// Sections and keys that an agent's configuration has and a server's has not.
const AGENTS: [&str; 9] =
    ["admin", "allow", "capture", "cloud", "history", "mask", "source", "tables", "verify"];
/// The other way round.
const SERVERS: [&str; 9] = [
    "alerts",
    "grpc_listen",
    "http_listen",
    "public_grpc",
    "public_http",
    "retention",
    "store",
    "trusted_proxies",
    "webhooks",
];

/// `malote doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote doctor --config agent.toml
  malote doctor --config server.toml --json
  malote doctor --config agent.toml --only registry,token,clock

Whether the file is an agent's or a server's is read from its keys. It runs beside a running process and without one.
Exit code 0: nothing has to be mended; 4: something has to be.")]
pub(crate) struct DoctorCommand {
    /// Configuration of an agent or a server, as the process reads it; variables of the environment count as well.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// One JSON object on stdout, in both languages.
    #[arg(long)]
    json: bool,
    /// Topics to look at, as the first word of each line names them; left out: all.
    #[arg(long, value_name = "TOPICS", value_delimiter = ',')]
    only: Vec<String>,
    /// Longest time for each call over the network, and for each look at a table.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

/// Whose machine it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Agent,
    Server,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Server => "server",
        }
    }

    fn topics(self) -> Vec<&'static str> {
        match self {
            Self::Agent => of_agent::TOPICS.into_iter().chain(examine::TOPICS).collect(),
            Self::Server => of_server::TOPICS.to_vec(),
        }
    }
}

impl DoctorCommand {
    pub(crate) async fn run(self, lang: Lang) -> Result<u8> {
        // What the rooms log while they are looked at is for their own processes.
        telemetry::start("error", telemetry::LogFormat::Auto);
        let side = side_of(&self.config)?;
        let unknown = self.only.iter().find(|topic| !side.topics().contains(&topic.as_str()));
        if let Some(unknown) = unknown {
            let words = format!(
                "there is no topic `{unknown}` of {}; there are {}",
                side.name(),
                side.topics().join(", ")
            );
            return Err(Error::new(Code::BadRequest, words).at("--only"));
        }
        let patience = Duration::from_secs(self.timeout);
        let findings = match side {
            Side::Agent => match AgentConfig::load(Some(&self.config)) {
                Ok(config) => {
                    let wish = Wish { only: self.only, patience };
                    Box::pin(of_agent::doctor(&config, &wish)).await
                }
                Err(error) => vec![unread(&self.config, &error)],
            },
            Side::Server => match ServerConfig::load(Some(&self.config)) {
                Ok(config) => {
                    let wish = Wish { only: self.only, patience };
                    Box::pin(of_server::doctor(&config, &wish)).await
                }
                Err(error) => vec![unread(&self.config, &error)],
            },
        };
        if self.json {
            out::data(as_json(side, &findings).to_string());
        } else {
            lines(&findings, lang).into_iter().for_each(out::data);
            out::talk(verdict(&findings, lang));
        }
        Ok(match worst(&findings) {
            Grade::Mend => exit::FINDINGS,
            Grade::Ok | Grade::Note | Grade::Warning => exit::OK,
        })
    }
}

fn unread(path: &Path, error: &Error) -> Finding {
    Finding::error("config", path.display(), error)
}

/// Read from the keys; a file with none of either, or that is no TOML, by its name.
fn side_of(path: &Path) -> Result<Side> {
    let words = format!("cannot read {}", path.display());
    let text = std::fs::read_to_string(path)
        .map_err(|cause| Error::new(Code::ConfigInvalid, words).because(cause))?;
    let table: toml::Table = text.parse().unwrap_or_default();
    let has_any = |of: &[&str]| of.iter().any(|key| table.contains_key(*key));
    let named = path.file_name().is_some_and(|name| name.to_string_lossy().contains("agent"));
    let is_agents = has_any(&AGENTS) || (named && !has_any(&SERVERS));
    Ok(if is_agents { Side::Agent } else { Side::Server })
}

fn worst(findings: &[Finding]) -> Grade {
    findings.iter().map(|finding| finding.grade).max().unwrap_or(Grade::Ok)
}

fn count(findings: &[Finding], grade: Grade) -> usize {
    findings.iter().filter(|finding| finding.grade == grade).count()
}

fn as_json(side: Side, findings: &[Finding]) -> Value {
    json!({
        "of": side.name(),
        "mend": count(findings, Grade::Mend),
        "warnings": count(findings, Grade::Warning),
        "findings": findings,
    })
}

/// What has to be mended comes last, where people look.
fn lines(findings: &[Finding], lang: Lang) -> Vec<String> {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.grade);
    let width = findings.iter().map(|finding| finding.topic.len()).max().unwrap_or(0);
    sorted.into_iter().map(|finding| line(finding, width, lang)).collect()
}

fn line(finding: &Finding, width: usize, lang: Lang) -> String {
    let Finding { topic, of, grade, found, todo, code } = finding;
    let mark = match grade {
        Grade::Ok => "ok     ",
        Grade::Note => lang.pick("note   ", "nota   "),
        Grade::Warning => lang.pick("WARNING", "AVISO  "),
        Grade::Mend => lang.pick("MEND   ", "CORRIGIR"),
    };
    let code = code.map(|code| format!("{code}: ")).unwrap_or_default();
    let said = lang.pick(&found.en, &found.pt);
    let mut line = format!("{topic:<width$}  {mark} {of}: {code}{said}");
    if let Some(todo) = todo {
        let todo = lang.pick(&todo.en, &todo.pt);
        line.push_str(&format!("\n{:<width$}  -> {todo}", ""));
    }
    line
}

fn verdict(findings: &[Finding], lang: Lang) -> String {
    let of = |grade| count(findings, grade) as u64;
    let (mend, warn) = (of(Grade::Mend), of(Grade::Warning));
    let warnings = lang.count(warn, ["warning", "warnings"], ["aviso", "avisos"]);
    if mend == 0 {
        return lang.pick(
            format!("nothing has to be mended, {warnings}"),
            format!("nada a corrigir, {warnings}"),
        );
    }
    let mend = lang.count(mend, ["thing", "things"], ["ponto", "pontos"]);
    lang.pick(format!("{mend} to mend, {warnings}"), format!("{mend} a corrigir, {warnings}"))
}

#[cfg(test)]
mod tests {
    use runtime::finding::words;

    use super::*;

    fn findings() -> Vec<Finding> {
        let todo = || words("do this", "faça isto");
        vec![
            Finding::error("token", "https://x", &Error::new(Code::InvalidClient, "refused")),
            Finding::ok("disk", "data", words("9 MiB are free", "9 MiB livres")),
            Finding::warning("table", "FLAN", (words("no index", "sem índice"), todo())),
        ]
    }

    #[test]
    fn a_file_is_known_by_its_keys_and_else_by_its_name() {
        let home = tempfile::tempdir().unwrap();
        let of = |name: &str, text: &str| {
            let path = home.path().join(name);
            std::fs::write(&path, text).unwrap();
            side_of(&path).unwrap()
        };
        assert_eq!(of("a.toml", "[source]\nurl = 'x'"), Side::Agent);
        assert_eq!(of("b.toml", "http_listen = '127.0.0.1:1'"), Side::Server);
        assert_eq!(of("c.toml", "[verify]\nat = '02:00'"), Side::Agent);
        assert_eq!(of("agent-cloud.toml", "http_listen = '127.0.0.1:1'"), Side::Server);
        assert_eq!(of("agent.toml", "data = 'x'"), Side::Agent);
        assert_eq!(of("server.toml", "data = 'x'"), Side::Server);
        assert_eq!(of("agent.toml", "no TOML"), Side::Agent);
        assert_eq!(side_of(&home.path().join("none")).unwrap_err().code, Code::ConfigInvalid);
    }

    #[test]
    fn what_has_to_be_mended_stands_last_with_what_to_do_in_the_language_of_the_person() {
        let told = lines(&findings(), Lang::Pt);
        assert!(told[0].starts_with("disk ") && told[0].contains("9 MiB livres"), "{told:?}");
        assert!(told[1].contains("AVISO") && told[1].contains("-> faça isto"), "{told:?}");
        let last = told.last().unwrap();
        assert!(last.contains("INVALID_CLIENT: refused"), "{last}");
        assert!(last.contains(Code::InvalidClient.hint_pt()), "{last}");
        assert_eq!(verdict(&findings(), Lang::En), "1 thing to mend, 1 warning");
        assert_eq!(verdict(&findings()[1..], Lang::Pt), "nada a corrigir, 1 aviso");
    }

    #[test]
    fn json_has_both_languages_and_counts() {
        let told = as_json(Side::Agent, &findings());
        assert_eq!((told["mend"].as_u64(), told["warnings"].as_u64()), (Some(1), Some(1)));
        assert_eq!(told["findings"][1]["found"]["pt"], "9 MiB livres");
        assert_eq!(told["findings"][0]["grade"], "mend");
    }

    #[test]
    fn no_topic_stands_twice() {
        for side in [Side::Agent, Side::Server] {
            let mut topics = side.topics();
            topics.sort_unstable();
            let all = topics.len();
            topics.dedup();
            assert_eq!(all, topics.len(), "{topics:?}");
        }
    }
}
