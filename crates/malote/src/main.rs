//! `malote`: the one binary. A door: command line in, exit code out.
//!
//! Promises: stdout is data, stderr is talk; a failure shows code, words and what to do; exit codes are
//! `runtime::exit`'s.
//! Never: decides anything of integration; `server::app` and `agent::app` wire and look over, `demo` and `doctor` show.

mod agent_cli;
mod demo;
mod doctor;
mod help;
mod lang;
mod out;
mod server_cli;
mod verify_cli;

use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use lang::Lang;
use protocol::{Code, Coded as _, Result};

/// Carries ERP data to the cloud in numbered batches with a summary, and can always say which one is missing.
#[derive(Debug, Parser)]
#[command(name = "malote", version, propagate_version = true, arg_required_else_help = true)]
struct Malote {
    /// Language of what people read; else MALOTE_LANG or LANG.
    #[arg(long, global = true, value_enum, value_name = "LANGUAGE")]
    lang: Option<Lang>,
    #[command(subcommand)]
    noun: Noun,
}

#[derive(Debug, Subcommand)]
enum Noun {
    /// Show and prove it all on this machine: a small ERP, server and agent, then row against row.
    Demo(demo::DemoCommand),
    /// Run the side beside the ERP, or look at it.
    Agent(agent_cli::AgentCommand),
    /// Run the cloud side, or set it up.
    Server(server_cli::ServerCommand),
    /// Compare tables of the ERP with what is staged of them, and repair what differs.
    Verify(verify_cli::VerifyCommand),
    /// Look over what an agent or a server stands on, and say what has to be mended.
    Doctor(doctor::DoctorCommand),
}

fn main() -> ExitCode {
    let lang = Lang::of(Lang::said(std::env::args_os()));
    let malote = match read(lang) {
        Ok(malote) => malote,
        Err(asked) => {
            // Help and version are answers on stdout, all else is a wrong command line on stderr.
            if let Some(words) = help::told(&asked).filter(|_| lang == Lang::Pt) {
                out::talk(words.trim_end());
            } else {
                let _ = asked.print();
            }
            return ExitCode::from(if asked.use_stderr() {
                runtime::exit::USAGE
            } else {
                runtime::exit::OK
            });
        }
    };
    let lang = Lang::of(malote.lang);
    match run(malote.noun, lang) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::debug!(code = %error.code, cause = error.cause(), "command failed");
            out::talk(lang.explain(&error));
            ExitCode::from(runtime::exit::FAILED)
        }
    }
}

/// The command line, with help in the language of the person.
fn read(lang: Lang) -> std::result::Result<Malote, clap::Error> {
    let mut command = match lang {
        Lang::En => Malote::command(),
        Lang::Pt => help::in_portuguese(Malote::command()),
    };
    let mut matches = command.try_get_matches_from_mut(std::env::args_os())?;
    Malote::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

impl Noun {
    /// Whether it runs until it is stopped.
    fn stays(&self) -> bool {
        match self {
            Self::Demo(_) | Self::Verify(_) | Self::Doctor(_) => false,
            Self::Agent(command) => command.stays(),
            Self::Server(command) => command.stays(),
        }
    }
}

fn run(noun: Noun, lang: Lang) -> Result<u8> {
    if noun.stays() {
        runtime::heap::settle();
    }
    runtime::tls::install_provider();
    let machine = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .coded(Code::Internal, "cannot start the runtime")?;
    machine.block_on(async {
        match noun {
            Noun::Demo(command) => Box::pin(command.run(lang)).await,
            Noun::Agent(command) => Box::pin(command.run(lang)).await,
            Noun::Server(command) => Box::pin(command.run(lang)).await,
            Noun::Verify(command) => Box::pin(command.run(lang)).await,
            Noun::Doctor(command) => Box::pin(command.run(lang)).await,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use clap::{Command, CommandFactory as _};

    use super::*;

    /// Every command below this one, with its words on the line.
    fn below(command: &Command, path: &str, all: &mut Vec<(String, Command)>) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            below(sub, &path, all);
            all.push((path, sub.clone()));
        }
    }

    #[test]
    fn every_command_says_what_it_does_in_words_of_its_own_and_explains_its_arguments() {
        let mut all = Vec::new();
        below(&Malote::command(), "malote", &mut all);
        assert!(all.len() > 40, "{}", all.len());
        let mut told: BTreeMap<String, String> = BTreeMap::new();
        let mut broken = Vec::new();
        for (path, command) in &all {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            if about.is_empty() {
                broken.push(format!("{path}: says nothing"));
            } else if let Some(other) = told.insert(about, path.clone()) {
                broken.push(format!("{path}: says what {other} says"));
            }
            let silent = command.get_arguments().filter(|arg| arg.get_help().is_none());
            broken.extend(silent.map(|arg| format!("{path}: {} is not explained", arg.get_id())));
        }
        assert!(broken.is_empty(), "\n  {}", broken.join("\n  "));
    }
}
