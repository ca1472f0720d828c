//! Help: the words of the command line in Portuguese: what `--help` prints, and how a wrong line is told.
//!
//! Promises: every text of the tree has its twin in the tables below; commands, options, values and examples are the
//! same in both languages.
//! Never: changes what a command line means.

/// English and Portuguese, pair by pair, in the order of the English texts.
macro_rules! twins {
    ($($en:literal $pt:literal;)+) => { &[$(($en, $pt)),+] };
}

mod agent;
mod alert;
mod care;
mod fleet;
mod program;
mod refused;
mod server;
mod verify;
mod webhook;

use clap::{
    Arg, Command,
    builder::{PossibleValue, Str, StyledStr},
};

pub(crate) use refused::told;

type Twins = &'static [(&'static str, &'static str)];

const TABLES: [Twins; 8] = [
    agent::TWINS,
    alert::TWINS,
    care::TWINS,
    fleet::TWINS,
    program::TWINS,
    server::TWINS,
    verify::TWINS,
    webhook::TWINS,
];

/// The Portuguese twin of a text.
fn twin(text: &str) -> Option<&'static str> {
    let find = |table: Twins| {
        let at = table.binary_search_by(|(en, _)| (*en).cmp(text)).ok()?;
        table.get(at).map(|(_, pt)| *pt)
    };
    TABLES.into_iter().find_map(find)
}

/// A text in Portuguese; one that is the same in both languages has no twin.
fn said(text: &str) -> String {
    twin(text).unwrap_or(text).to_owned()
}

/// The whole tree in Portuguese, with what clap itself adds to it.
pub(crate) fn in_portuguese(command: Command) -> Command {
    let mut command = command.bin_name("malote");
    // Before that there is neither `--help` nor `help` to be translated, and no option of the commands above.
    command.build();
    spoken(command)
}

fn spoken(command: Command) -> Command {
    let text = |styled: Option<&StyledStr>| styled.map(ToString::to_string);
    let (about, long) = (text(command.get_about()), text(command.get_long_about()));
    let after = text(command.get_after_help());
    let mut command = command.mut_args(argument).mut_subcommands(spoken);
    if let Some(about) = about {
        command = command.about(said(&about));
    }
    if let Some(long) = long {
        command = command.long_about(said(&long));
    }
    if let Some(after) = after {
        command = command.after_help(lines(&after, &mut said));
    }
    command = command.subcommand_value_name("COMANDO");
    let usage = usage(&mut command);
    let template = template(&command);
    command.override_usage(usage).help_template(template)
}

fn argument(arg: Arg) -> Arg {
    let text = |styled: Option<&StyledStr>| styled.map(|text| said(&text.to_string()));
    let help = text(arg.get_help()).unwrap_or_default();
    let long = text(arg.get_long_help());
    if !arg.get_action().takes_values() {
        let arg = arg.help(help);
        return match long {
            Some(long) => arg.long_help(long),
            None => arg,
        };
    }
    let names = arg.get_value_names().unwrap_or_default().to_vec();
    let names = names.into_iter().map(|name| twin(&name).map_or(name, Str::from));
    // What clap writes in brackets is English; it is hidden there and written here.
    let (default, values, explained) = (default(&arg), values(&arg), explained(&arg));
    let short = joined(" ", [Some(help.clone()), default.clone(), values.clone()]);
    let long = (long.is_some() || explained.is_some())
        .then(|| joined("\n\n", [long.or(Some(help)), explained.or(values), default]));
    let arg =
        arg.value_names(names).help(short).hide_default_value(true).hide_possible_values(true);
    match long {
        Some(long) => arg.long_help(long),
        None => arg,
    }
}

fn joined(between: &str, parts: [Option<String>; 3]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(between)
}

fn default(arg: &Arg) -> Option<String> {
    let shown = !arg.is_hide_default_value_set() && !arg.get_default_values().is_empty();
    let values = arg.get_default_values().iter().map(|value| value.to_string_lossy());
    shown.then(|| format!("[padrão: {}]", values.collect::<Vec<_>>().join(" ")))
}

fn values(arg: &Arg) -> Option<String> {
    let values = arg.get_possible_values();
    let names: Vec<&str> = values.iter().map(PossibleValue::get_name).collect();
    (!names.is_empty()).then(|| format!("[valores: {}]", names.join(", ")))
}

/// The values one below the other, where they are explained.
fn explained(arg: &Arg) -> Option<String> {
    let line = |value: &PossibleValue| {
        let help = value.get_help()?;
        Some(format!("\n- {}: {}", value.get_name(), said(&help.to_string())))
    };
    let lines: String = arg.get_possible_values().iter().filter_map(line).collect();
    (!lines.is_empty()).then(|| format!("Valores:{lines}"))
}

/// The text below the options, piece by piece: an indented line is a command and stays, but for the remark behind it;
/// lines that are not indented are read as one, for they are wrapped anew.
fn lines(text: &str, say: &mut dyn FnMut(&str) -> String) -> String {
    let mut told: Vec<String> = Vec::new();
    let mut prose: Vec<&str> = Vec::new();
    for line in text.lines().map(Some).chain([None]) {
        if let Some(line) = line.filter(|line| !line.is_empty() && !line.starts_with(' ')) {
            prose.push(line);
            continue;
        }
        if !prose.is_empty() {
            told.push(say(&prose.join(" ")));
            prose.clear();
        }
        if let Some(line) = line {
            let remark = line.split_once("    # ");
            told.push(match remark {
                Some((command, remark)) => format!("{command}    # {}", say(remark)),
                None => line.to_owned(),
            });
        }
    }
    told.join("\n")
}

/// `malote server [OPÇÕES] <COMANDO>`, without a title.
fn usage(command: &mut Command) -> String {
    let usage = command.render_usage().ansi().to_string();
    // The title's colour ends before the blank.
    let usage = usage.split_once("Usage:").and_then(|(_, behind)| behind.split_once(' '));
    let usage = usage.map(|(_, usage)| usage).unwrap_or_default();
    usage.replace("[OPTIONS]", "[OPÇÕES]").replace("\n       ", "\n     ")
}

fn template(command: &Command) -> String {
    let (of_usage, of_part) = (command.get_styles().get_usage(), command.get_styles().get_header());
    let mut template =
        format!("{{before-help}}{{about-with-newline}}\n{of_usage}Uso:{of_usage:#} {{usage}}");
    let parts = [
        (command.has_subcommands(), "Comandos", "{subcommands}"),
        (command.get_arguments().any(Arg::is_positional), "Argumentos", "{positionals}"),
        (command.get_arguments().any(|arg| !arg.is_positional()), "Opções", "{options}"),
    ];
    for (_, head, tag) in parts.into_iter().filter(|(there, ..)| *there) {
        template.push_str(&format!("\n\n{of_part}{head}:{of_part:#}\n{tag}"));
    }
    template + "{after-help}"
}

#[cfg(test)]
mod tests;
