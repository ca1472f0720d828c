//! `malote agent secret`: what `{sealed:NAME}` in the configuration stands for.
//!
//! Promises: works beside a running agent and without one; a value comes from stdin or a prompt without echo.
//! Never: takes a value from the command line, prints one.

use std::{
    io::{self, IsTerminal as _, Read as _},
    path::Path,
};

use agent::config::vault::{Listed, SecretName, Vault};
use clap::Subcommand;
use protocol::{Code, Coded as _, Error, Result, limits};
use runtime::clock::Wall;
use secrecy::{SecretString, zeroize::Zeroizing};
use serde_json::json;

use super::prompt;
use crate::{lang::Lang, out};

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Seal a value under a name, in place of the one that was there. It is read from stdin, or typed unseen.
    #[command(after_help = "Examples:
  malote agent secret set erp --config agent.toml
  malote agent secret set erp --config agent.toml < password.txt

In the configuration:
  [source]
  url = \"postgres://malote:{sealed:erp}@host/database\"
  [cloud]
  client_secret = \"{sealed:cloud}\"")]
    Set {
        /// Letters, digits, '-', '_' and '.'.
        name: SecretName,
    },
    /// Names and dates of the sealed secrets; values are never shown.
    List,
    /// Forget a sealed secret.
    Remove {
        /// As the list shows it.
        name: SecretName,
    },
}

impl SecretCommand {
    pub(super) fn run(self, data: &Path, json: bool, lang: Lang) -> Result<()> {
        let vault = Vault::of(data);
        match self {
            Self::Set { name } => {
                let value = value(&name, lang)?;
                let replaced = vault.set(&name, &value, Wall::now())?;
                if json {
                    out::data(json!({"name": name, "replaced": replaced}).to_string());
                }
                out::talk(lang.pick(
                    format!("sealed; write {{sealed:{name}}} in the configuration. A running agent takes it with its next start"),
                    format!("selado; escreva {{sealed:{name}}} na configuração. Um agente em execução passa a usá-lo ao reiniciar"),
                ));
            }
            Self::List => show(&vault.list()?, json, lang),
            Self::Remove { name } => {
                vault.remove(&name)?;
                if json {
                    out::data(json!({"name": name, "removed": true}).to_string());
                }
                out::talk(lang.pick("removed", "removido"));
            }
        }
        Ok(())
    }
}

fn show(listed: &[Listed], as_json: bool, lang: Lang) {
    if as_json {
        out::data(json!({ "secrets": listed }).to_string());
    } else if listed.is_empty() {
        out::talk(lang.pick("none", "nenhum"));
    } else {
        for Listed { name, set } in listed {
            out::data(format!("{:<24} {set}", name.as_str()));
        }
    }
}

fn value(name: &SecretName, lang: Lang) -> Result<SecretString> {
    if io::stdin().is_terminal() {
        let question = lang.pick(
            format!("Value of {name} (it is not shown): "),
            format!("Valor de {name} (não é exibido): "),
        );
        return prompt::unseen(&question);
    }
    // One byte more than may be shows that there is more; a line break at the end may come on top.
    let most = limits::SEALED_BYTES as u64 + 3;
    let mut bytes = Zeroizing::new(Vec::new());
    let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.coded(Code::BadRequest, "cannot read the value from stdin")?;
    typed(&bytes)
}

/// The bytes as text, without the line break at the end.
pub(super) fn typed(bytes: &[u8]) -> Result<SecretString> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new(Code::BadRequest, "the value is not UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned().into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn one_line_break_at_the_end_is_none_of_the_value() {
        for (bytes, value) in [
            ("a", "a"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a b ", " a b "),
            ("\n", ""),
        ] {
            assert_eq!(typed(bytes.as_bytes()).unwrap().expose_secret(), value, "{bytes:?}");
        }
        assert_eq!(typed(&[255]).unwrap_err().code, Code::BadRequest);
    }
}
