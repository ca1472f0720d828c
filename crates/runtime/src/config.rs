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
    let mut given = BTreeMap::new();
    for (name, text) in variables {
        let Some(path) = name.strip_prefix(&head) else { continue };
        let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
        put(&mut tree, &keys, parse(&text)).map_err(|error| error.at(&name))?;
        given.insert(keys.join("."), name);
    }
    serde_path_to_error::deserialize(Value::Table(tree)).map_err(|fault| {
        let (key, cause) = (fault.path().to_string(), fault.into_inner());
        let words = in_words(cause.message().trim());
        let error = Error::new(Code::ConfigInvalid, words.clone());
        // The root itself is written as a single point.
        let root = key == ".";
        // An unknown key is told by its section and named in the words.
        let unknown = words.split('`').nth(1).filter(|_| words.starts_with("unknown"));
        let whole =
            unknown.map(|name| if root { name.to_owned() } else { format!("{key}.{name}") });
        let variable = given.get(&key).or_else(|| given.get(&whole?));
        let error = if root { error } else { error.at(key) };
        if let Some(variable) = variable {
            return error.at(variable);
        }
        match file {
            Some(path) => error.at(path.display()),
            None => error,
        }
    })
}

/// The reader's words without the names of a program's types.
fn in_words(text: &str) -> String {
    const PLAIN: [(&str, &str); 8] = [
        ("unknown variant", "unknown value"),
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected usize", "expected a whole number"),
        ("expected a sequence", "expected a list"),
        ("invalid socket address syntax", "not an IP address with a port, such as 127.0.0.1:7490"),
        ("expected path string", "expected a path"),
        ("expected a map", "expected a section"),
    ];
    let plain = PLAIN.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to));
    // `expected struct Name` is a section.
    match plain.split_once("expected struct ") {
        Some((head, tail)) => {
            let rest = tail.find(|sign: char| !sign.is_alphanumeric()).map_or("", |at| &tail[at..]);
            format!("{head}expected a section{rest}")
        }
        None => plain,
    }
}

/// One variable of the environment, where it is set and not empty.
#[must_use]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Who runs this process, as far as environment and operating system tell: a note for people, no proof.
#[must_use]
pub fn user() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .filter_map(variable)
        .find(|name| !name.chars().any(char::is_control))
        .or_else(account)
}

/// The account's name, or its number where it has none.
#[cfg(unix)]
fn account() -> Option<String> {
    let id = std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").ok()?).to_string();
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == id).then(|| name.to_owned())
    });
    Some(named.unwrap_or_else(|| format!("uid {id}")))
}

#[cfg(not(unix))]
const fn account() -> Option<String> {
    None
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
    fn what_came_from_the_environment_is_told_by_its_variable_in_words_for_people() {
        let file = "name = 'a'\n[part]\nnumber = 1";
        let wrong = load(file, &[("MALOTE_T_PART__NUMBER", "abc")]).unwrap_err();
        assert!(wrong.message.starts_with("MALOTE_T_PART__NUMBER: part.number: "), "{wrong}");
        assert!(wrong.message.ends_with("expected a whole number"), "{wrong}");
        let unknown = load(file, &[("MALOTE_T_PART__NUMBR", "1")]).unwrap_err();
        assert!(
            unknown.message.starts_with("MALOTE_T_PART__NUMBR: part.numbr: unknown"),
            "{unknown}"
        );
        let section = load("name = 'a'\npart = 3", &[]).unwrap_err();
        assert!(section.message.ends_with("expected a section"), "{section}");
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
