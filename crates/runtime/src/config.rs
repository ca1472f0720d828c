//! Configuration: defaults < file < environment < flags.
//!
//! Promises: unknown keys are refused by name; what is in force can be printed with its secrets redacted.
//! Never: reads a value twice; a process parses its configuration once, at the start.

use std::{collections::BTreeMap, fs, path::Path};

use protocol::{Code, Error, Result};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Reads a configuration: the file (if any), then variables `{prefix}_SECTION__KEY` over it.
/// A variable's value is read as TOML where it is TOML (numbers, booleans, lists), else as a string.
///
/// # Errors
/// `CONFIG_INVALID` with the key or line that is wrong.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, prefix: &str) -> Result<T> {
    let variables = std::env::vars_os()
        .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    load_from(file, prefix, variables)
}

/// As [`load`], with the environment given.
///
/// # Errors
/// As [`load`].
pub fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    variables: BTreeMap<String, String>,
) -> Result<T> {
    let mut tree = match file {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    let head = format!("{prefix}_");
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(&head) else { continue };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        put(&mut tree, &keys, parse(&text)).map_err(|error| error.at(&name))?;
    }
    serde_path_to_error::deserialize(Value::Table(tree)).map_err(|fault| {
        let (key, cause) = (fault.path().to_string(), fault.into_inner());
        let error = Error::new(Code::ConfigInvalid, cause.message().trim().to_owned());
        // The root itself is written as a single point.
        let error = if key == "." { error } else { error.at(key) };
        match file {
            Some(path) => error.at(path.display()),
            None => error,
        }
    })
}

/// One variable of the environment, where it is set and not empty.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).map_err(|cause| {
        let words = format!("cannot read the configuration file {}: {cause}", path.display());
        Error::new(Code::ConfigInvalid, words)
    })?;
    text.parse().map_err(|cause: toml::de::Error| {
        let place = cause.span().map(|span| place(&text, span.start)).unwrap_or_default();
        let words = format!("{}{place}: {}", path.display(), cause.message().trim());
        Error::new(Code::ConfigInvalid, words)
    })
}

/// `:line:column` of a byte, as compilers write it.
fn place(text: &str, byte: usize) -> String {
    let before = text.get(..byte).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!(":{line}:{column}")
}

fn parse(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

fn put(tree: &mut Table, keys: &[String], value: Value) -> Result<()> {
    match keys {
        [] => Ok(()),
        [last] => {
            tree.insert(last.clone(), value);
            Ok(())
        }
        [first, rest @ ..] => {
            let branch = tree.entry(first.clone()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(branch) = branch else {
                return Err(Error::new(
                    Code::ConfigInvalid,
                    format!("{first} is a value, not a section"),
                ));
            };
            put(branch, rest, value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Tree {
        name: String,
        part: Part,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Part {
        number: u32,
    }

    fn load(file: &str, variables: &[(&str, &str)]) -> Result<Tree> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.toml");
        fs::write(&path, file).unwrap();
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        load_from(Some(&path), "MALOTE_T", variables)
    }

    #[test]
    fn the_environment_goes_over_the_file() {
        let file = "name = 'a'\n[part]\nnumber = 1";
        let tree = load(file, &[("MALOTE_T_PART__NUMBER", "2"), ("OTHER_NAME", "z")]).unwrap();
        assert_eq!(tree, Tree { name: "a".into(), part: Part { number: 2 } });
    }

    #[test]
    fn unknown_keys_and_broken_files_are_refused_by_name() {
        let unknown = load("name = 'a'\ntypo = 1\n[part]\nnumber = 1", &[]).unwrap_err();
        assert_eq!(unknown.code, Code::ConfigInvalid);
        assert!(unknown.message.contains("typo"), "{unknown}");
        let broken = load("name = 'a'\nother = = 3", &[]).unwrap_err();
        assert_eq!(broken.code, Code::ConfigInvalid);
        assert!(broken.message.contains("x.toml:2:9: "), "{broken}");
        let wrong = load("name = 'a'\n[part]\nnumber = 'x'", &[]).unwrap_err();
        assert!(wrong.message.contains("x.toml: part.number: invalid type"), "{wrong}");
        let clash = load("name = 'a'\npart = 3", &[("MALOTE_T_PART__NUMBER", "2")]).unwrap_err();
        assert!(clash.message.contains("part"), "{clash}");
        let nowhere = Path::new("/nonexistent.toml");
        let missing = load_from::<Tree>(Some(nowhere), "X", BTreeMap::new()).unwrap_err();
        assert!(missing.message.contains("/nonexistent.toml: No such file"), "{missing}");
    }
}
