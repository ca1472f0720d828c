//! Refused: a command line that is wrong, told in Portuguese.
//!
//! Promises: says what clap found: which word is wrong, what would fit, how the command is used.
//! Never: speaks for a kind of fault it does not know; clap's own words stand there.

use clap::{
    Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

/// The words; `None` for help, version, and what is better told by clap itself.
pub(crate) fn told(error: &Error) -> Option<String> {
    let what = what(error)?;
    let mut text = format!("erro: {what}\n");
    let alike =
        [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::SuggestedValue];
    for found in alike.into_iter().filter_map(|kind| words(error, kind)) {
        text.push_str(&format!("\n  dica: existe '{found}', que é parecido\n"));
    }
    if let Some(usage) = words(error, ContextKind::Usage) {
        text.push_str(&format!("\n{}\n", usage.replacen("Usage:", "Uso:", 1)));
    }
    text.push_str("\nPara saber mais, use '--help'.\n");
    Some(text)
}

fn what(error: &Error) -> Option<String> {
    let word = |kind| words(error, kind).unwrap_or_default();
    let arg = words(error, ContextKind::InvalidArg);
    let arg = arg.unwrap_or_else(|| word(ContextKind::InvalidSubcommand));
    let value = word(ContextKind::InvalidValue);
    Some(match error.kind() {
        ErrorKind::UnknownArgument => format!("argumento '{arg}' desconhecido"),
        ErrorKind::InvalidSubcommand => format!("comando '{arg}' desconhecido"),
        ErrorKind::MissingSubcommand => {
            let valid = list("comandos", error, ContextKind::ValidSubcommand);
            format!("'{arg}' exige um comando{valid}")
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = each(error, ContextKind::InvalidArg).join("\n  ");
            format!("falta o que é obrigatório:\n  {missing}")
        }
        ErrorKind::InvalidValue if value.is_empty() => {
            format!("'{arg}' exige um valor{}", list("valores", error, ContextKind::ValidValue))
        }
        ErrorKind::InvalidValue => {
            let valid = list("valores", error, ContextKind::ValidValue);
            format!("valor '{value}' inválido para '{arg}'{valid}")
        }
        ErrorKind::ValueValidation => {
            let cause =
                std::error::Error::source(error).map(|cause| cause_words(&cause.to_string()));
            format!("valor '{value}' inválido para '{arg}': {}", cause.unwrap_or_default())
        }
        ErrorKind::ArgumentConflict => match each(error, ContextKind::PriorArg) {
            prior if prior.is_empty() || prior == [arg.clone()] => {
                format!("'{arg}' não pode ser usado mais de uma vez")
            }
            prior => format!("'{arg}' não pode ser usado junto com '{}'", prior.join("', '")),
        },
        ErrorKind::TooManyValues => format!("valor '{value}' sobra em '{arg}'"),
        _ => return None,
    })
}

/// Why a value does not fit; numbers are judged by clap and by Rust's own library.
fn cause_words(cause: &str) -> String {
    let known = [
        (" is not in ", " não está em "),
        ("invalid digit found in string", "não é um número inteiro"),
        ("number too large to fit in target type", "número grande demais"),
    ];
    known.iter().fold(cause.to_owned(), |cause, (en, pt)| cause.replace(en, pt))
}

fn words(error: &Error, kind: ContextKind) -> Option<String> {
    let found = each(error, kind);
    (!found.is_empty()).then(|| found.join(", "))
}

fn list(name: &str, error: &Error, kind: ContextKind) -> String {
    let found = words(error, kind).map(|found| format!("\n  [{name}: {found}]"));
    found.unwrap_or_default()
}

fn each(error: &Error, kind: ContextKind) -> Vec<String> {
    match error.get(kind) {
        Some(ContextValue::String(word)) => vec![word.clone()],
        Some(ContextValue::Strings(words)) => words.clone(),
        Some(ContextValue::StyledStr(word)) => vec![word.to_string()],
        Some(ContextValue::StyledStrs(words)) => words.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    }
}
