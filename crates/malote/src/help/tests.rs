use std::collections::BTreeSet;

use clap::{CommandFactory as _, FromArgMatches as _};

use super::*;
use crate::{Malote, lang::Lang};

/// Names and abbreviations that Brazilian administrators write as they are.
const SAME: [&str; 10] = [
    "CAROL_TENANT",
    "CONNECTOR",
    "ENDPOINT",
    "ERP",
    "SEQ",
    "SQL",
    "TENANT",
    "TLS",
    "URL",
    "WEBHOOK",
];

fn english() -> Command {
    let mut command = Malote::command().bin_name("malote");
    command.build();
    command
}

/// Every text of the tree that people read.
fn texts(command: &Command, all: &mut BTreeSet<String>) {
    let mut add = |styled: Option<&StyledStr>| all.extend(styled.map(ToString::to_string));
    add(command.get_about());
    add(command.get_long_about());
    for arg in command.get_arguments() {
        add(arg.get_help());
        add(arg.get_long_help());
    }
    for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
        all.extend(arg.get_value_names().unwrap_or_default().iter().map(ToString::to_string));
        let values = arg.get_possible_values();
        all.extend(values.iter().filter_map(|value| Some(value.get_help()?.to_string())));
    }
    if let Some(after) = command.get_after_help() {
        lines(&after.to_string(), &mut |text| {
            all.insert(text.to_owned());
            String::new()
        });
    }
    command.get_subcommands().for_each(|below| texts(below, all));
}

#[test]
fn every_text_has_a_portuguese_twin_of_its_own_and_none_is_left_over() {
    let mut all = BTreeSet::new();
    texts(&english(), &mut all);
    assert!(all.len() > 200, "{}", all.len());
    let pairs = || TABLES.into_iter().flatten();
    let known: BTreeSet<&str> = pairs().map(|(en, _)| *en).chain(SAME).collect();
    let mut broken = Vec::new();
    let missing = all.iter().filter(|text| !known.contains(text.as_str()));
    broken.extend(missing.map(|text| format!("has no twin: {text}")));
    let left = known.iter().filter(|text| !all.contains(**text));
    broken.extend(left.map(|text| format!("nobody says it any more: {text}")));
    broken.extend(pairs().filter(|(en, pt)| en == pt).map(|(en, _)| format!("is English: {en}")));
    assert!(broken.is_empty(), "\n  {}", broken.join("\n  "));
    assert_eq!(known.len(), pairs().count() + SAME.len(), "a text stands twice");
}

#[test]
fn the_tables_are_sorted() {
    for table in TABLES {
        let wrong = table.windows(2).find(|pair| pair[0].0 >= pair[1].0);
        assert_eq!(wrong, None);
    }
}

/// The short and the long help of every command.
fn helps(command: &mut Command, all: &mut Vec<(String, String)>) {
    let name = command.get_bin_name().unwrap_or_default().to_owned();
    all.push((name.clone(), command.render_help().to_string()));
    all.push((name, command.render_long_help().to_string()));
    command.get_subcommands_mut().for_each(|below| helps(below, all));
}

#[test]
fn no_help_in_portuguese_holds_a_word_of_claps_own() {
    let mut all = Vec::new();
    helps(&mut in_portuguese(Malote::command()), &mut all);
    assert!(all.len() > 100, "{}", all.len());
    let foreign = [
        "Usage:",
        "Options:",
        "OPTIONS",
        "Commands:",
        "COMMAND",
        "Arguments:",
        "[default",
        "ossible values",
        "Print ",
    ];
    for (name, help) in &all {
        let found = foreign.iter().find(|words| help.contains(**words));
        assert_eq!(found, None, "{name}:\n{help}");
    }
}

/// What a line that asks for help is answered, whatever the width of the terminal.
fn asked(line: &str) -> String {
    let mut command = in_portuguese(Malote::command().term_width(120));
    command.try_get_matches_from_mut(line.split(' ')).unwrap_err().to_string()
}

#[test]
fn help_in_portuguese_has_usage_parts_values_and_defaults() {
    let all = asked("malote server --help");
    assert!(all.contains("\nUso: malote server [OPÇÕES] <COMANDO>\n\nComandos:\n  run "), "{all}");
    assert!(all.contains("\n\nOpções:\n      --config <ARQUIVO>  Arquivo de conf"), "{all}");
    assert!(all.contains("\n\nExemplos:\n  malote server setup --config"), "{all}");
    let list = asked("malote server batches show --help");
    assert!(list.contains("\n\nArgumentos:\n  <PACOTE>  O número do pacote"), "{list}");
    assert!(list.contains("No máximo esta quantidade [padrão: 100]"), "{list}");
    assert!(list.contains("[valores: en, pt]"), "{list}");
    let sql = asked("malote agent sql --help");
    assert!(sql.contains("Valores:\n          - table: Colunas lado a lado"), "{sql}");
    let history = asked("malote agent history -h");
    assert!(
        history
            .contains("\nUso: malote agent history [OPÇÕES]\n     malote agent history <COMANDO>"),
        "{history}"
    );
}

#[test]
fn a_line_means_the_same_in_both_languages() {
    for line in [
        "malote demo --rows 1000 --json",
        "malote --lang pt agent sql SELECT --format csv",
        "malote server entity add A B --filter x --tenant T --limit 3",
        "malote server batches list --limit 5 --state open --erp RM",
        "malote server reload --all",
        "malote server reload A --all",
        "malote help server batches",
        "malote agent --help",
        "malote server",
        "malote nothing",
    ] {
        let read = |mut command: Command| {
            let matches = command.try_get_matches_from_mut(line.split(' '));
            let malote = matches.and_then(|mut matches| Malote::from_arg_matches_mut(&mut matches));
            malote.map(|malote| format!("{malote:?}")).map_err(|error| error.kind())
        };
        assert_eq!(read(in_portuguese(Malote::command())), read(Malote::command()), "{line}");
    }
}

#[test]
fn help_asked_for_by_a_command_is_the_help_of_that_command() {
    assert_eq!(asked("malote help server setup"), asked("malote server setup --help"));
    assert!(
        asked("malote server setup -h")
            .contains("Uso: malote server setup [OPÇÕES] --tenant <TENANT>")
    );
}

#[test]
fn below_the_options_commands_stay_and_all_else_is_said() {
    let text = "Examples:\n  malote x    # why\n  malote y\n\nOne\ntwo.";
    let mut asked = Vec::new();
    let told = lines(text, &mut |text| {
        asked.push(text.to_owned());
        text.to_uppercase()
    });
    assert_eq!(asked, ["Examples:", "why", "One two."]);
    assert_eq!(told, "EXAMPLES:\n  malote x    # WHY\n  malote y\n\nONE TWO.");
}

#[test]
fn a_wrong_line_is_told_in_portuguese() {
    let said = |line: &str| {
        let mut command = in_portuguese(Malote::command());
        told(&command.try_get_matches_from_mut(line.split(' ')).unwrap_err())
    };
    for (line, words) in [
        ("malote demo --row 5", "erro: argumento '--row' desconhecido\n\n  dica: existe '--rows'"),
        ("malote serve", "erro: comando 'serve' desconhecido\n\n  dica: existe 'server'"),
        ("malote demo --rows", "erro: '--rows <LINHAS>' exige um valor\n"),
        (
            "malote demo --rows 1",
            "erro: valor '1' inválido para '--rows <LINHAS>': 1 não está em 100..=",
        ),
        ("malote demo --lang fr", "inválido para '--lang <IDIOMA>'\n  [valores: en, pt]\n"),
        ("malote demo --rows x", "': não é um número inteiro\n"),
        ("malote demo --once", "erro: falta o que é obrigatório:\n  --source <URL>\n"),
        ("malote demo --seed 1 --seed 2", "'--seed <SEMENTE>' não pode ser usado mais de uma vez"),
        ("malote server reload A --all", "não pode ser usado junto com"),
        ("malote server tenant create a b", "erro: argumento 'b' desconhecido"),
    ] {
        let told = said(line).unwrap();
        assert!(told.contains(words), "{line}:\n{told}");
        // Where a value is wrong clap shows no usage.
        assert!(told.contains("\n\nUso: malote") != told.contains(" valor"), "{line}:\n{told}");
        assert!(told.ends_with("\nPara saber mais, use '--help'.\n"), "{told}");
    }
    assert_eq!(said("malote demo --help"), None);
    assert_eq!(said("malote server"), None);
}

#[test]
fn the_language_is_known_before_the_line_is_read() {
    let said = |line: &str| Lang::said(line.split(' ').map(Into::into));
    assert_eq!(said("malote server --lang pt --help"), Some(Lang::Pt));
    assert_eq!(said("malote --lang=en server"), Some(Lang::En));
    for none in
        ["malote --language pt", "malote --lang", "malote --lang fr", "malote x -- --lang pt"]
    {
        assert_eq!(said(none), None, "{none}");
    }
}
