//! Packages: what the program is built from, as `cargo metadata` tells it.
//!
//! Promises: each licence expression is read, not searched; `OR` needs one side, `AND` both.
//! Never: asks an advisory database (out of reach where the tests run).

use std::process::Command;

use serde_json::Value;

use super::tree;

pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: String,
    /// `None` = of this workspace.
    pub(crate) source: Option<String>,
}

/// Packages of the lock file that are built on this machine's platform.
pub(crate) fn packages() -> Vec<Package> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let run = |mut command: Command| {
        let output = command.current_dir(tree::root()).output().expect("cargo runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let mut rustc = Command::new("rustc");
    rustc.arg("-vV");
    let version = run(rustc);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect("a host");
    let mut metadata = Command::new(cargo);
    metadata.args(["metadata", "--locked", "--format-version=1", "--filter-platform", host]);
    let tree: Value = serde_json::from_str(&run(metadata)).expect("JSON");
    let used: Vec<&str> = tree["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .filter_map(|n| n["id"].as_str())
        .collect();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let all = tree["packages"].as_array().expect("packages").iter();
    all.filter(|package| package["id"].as_str().is_some_and(|id| used.contains(&id)))
        .map(|package| Package {
            name: text(&package["name"]),
            version: text(&package["version"]),
            licence: text(&package["license"]),
            source: package["source"].as_str().map(str::to_owned),
        })
        .collect()
}

/// Whether the expression is satisfied by `allowed` alone.
pub(crate) fn permits(expression: &str, allowed: &[&str]) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    let fits = any(&words, &mut at, allowed);
    fits && at == words.len()
}

fn any(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut fits = every(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        fits |= every(words, at, allowed);
    }
    fits
}

fn every(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let mut fits = one(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        fits &= one(words, at, allowed);
    }
    fits
}

fn one(words: &[&str], at: &mut usize, allowed: &[&str]) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let fits = any(words, at, allowed);
        let closed = words.get(*at) == Some(&")");
        *at += 1;
        return fits && closed;
    }
    if words.get(*at) == Some(&"WITH") {
        // An exception only adds rights to the licence before it.
        *at += 2;
    }
    allowed.contains(word)
}

#[test]
fn a_licence_expression_is_read_with_its_brackets() {
    let allowed = ["MIT", "Apache-2.0", "ISC"];
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/Apache-2.0",
        "ISC AND (GPL-2.0 OR MIT)",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(permits(good, &allowed), "{good}");
    }
    for bad in
        ["", "GPL-3.0", "MIT AND GPL-3.0", "(MIT", "ISC AND (GPL-2.0 AND MIT)", "MIT nonsense"]
    {
        assert!(!permits(bad, &allowed), "{bad}");
    }
}
