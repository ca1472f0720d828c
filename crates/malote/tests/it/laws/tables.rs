//! Tables: codes and their pages, limits and their use, commands and their documents, packages and their licences.
//!
//! Promises: a table nobody checks rots, so each is checked both ways.
//! Never: edits a table.

use std::{collections::BTreeSet, fs, process::Command};

use protocol::Code;

use super::{obey, packages, tree};

#[test]
fn law_every_code_has_a_page_and_every_page_a_code() {
    let folder = tree::root().join("docs/codes");
    let pages: BTreeSet<String> = fs::read_dir(folder)
        .expect("docs/codes exists")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().trim_end_matches(".md").to_owned())
        .filter(|name| name != "README")
        .collect();
    let codes: BTreeSet<String> = Code::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    let broken: Vec<String> = codes
        .difference(&pages)
        .map(|code| format!("{code}: no page docs/codes/{code}.md"))
        .chain(pages.difference(&codes).map(|page| format!("docs/codes/{page}.md: no such code")))
        .collect();
    obey(
        "a page per code",
        "write what it means, why it comes, what to do; or remove the orphan",
        &broken,
    );
}

#[test]
fn law_codes_stand_in_alphabetical_order_with_hints_in_both_languages() {
    let texts: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut broken: Vec<String> = texts
        .windows(2)
        .filter(|pair| pair[0].replace('_', "") >= pair[1].replace('_', "") && pair[0] >= pair[1])
        .map(|pair| format!("{} stands before {}", pair[0], pair[1]))
        .collect();
    let silent = |code: &&Code| code.hint().is_empty() || code.hint_pt().is_empty();
    broken.extend(Code::ALL.iter().filter(silent).map(|code| format!("{code} lacks a hint")));
    obey("one closed table of codes", "put the line in its place and give both hints", &broken);
}

#[test]
fn law_every_limit_is_used() {
    let files = tree::rust_files();
    let limits = files.iter().find(|file| file.path == "crates/protocol/src/limits.rs");
    let limits = limits.expect("protocol has its limits");
    let name = |line: &str| Some(line.strip_prefix("pub const ")?.split(':').next()?.to_owned());
    let broken: Vec<String> = limits
        .text
        .lines()
        .filter_map(name)
        .filter(|name| {
            let holds = |text: &str| {
                text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .any(|word| word == name)
            };
            !files
                .iter()
                .any(|file| file.path != limits.path && file.production && holds(&file.text))
        })
        .map(|name| format!("limits::{name} is used by no program"))
        .collect();
    obey("every limit is used", "hold it where it can be exceeded, or remove it", &broken);
}

/// Lines of `sh` blocks that call this program, as the words behind its name.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
            continue;
        }
        let line = line.trim().trim_start_matches("$ ");
        let line = line.split(" #").next().unwrap_or(line);
        let call = ["malote ", "./malote ", "cargo run --release -- ", "target/release/malote "]
            .iter()
            .find_map(|head| line.strip_prefix(head));
        if let (true, Some(call)) = (fenced, call) {
            found.push(words_of(call));
        }
    }
    found
}

/// Words of a line of a shell; what stands between double quotes is one.
fn words_of(call: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in call.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// Whether the program knows command and flags; its own `--help` is asked.
fn known(words: &[String]) -> Result<(), String> {
    let path: Vec<&String> =
        words.iter().take_while(|word| !word.starts_with(['-', '\\'])).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_malote"))
        .args(&path)
        .arg("--help")
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err("no such command".to_owned());
    }
    let help = String::from_utf8_lossy(&output.stdout);
    for flag in words.iter().filter(|word| word.starts_with("--") && word.len() > 2) {
        let flag = flag.split('=').next().unwrap_or(flag);
        if !help.split(|c: char| c.is_whitespace() || c == ',' || c == '=').any(|word| word == flag)
        {
            return Err(format!("no such flag: {flag}"));
        }
    }
    Ok(())
}

#[test]
fn law_the_commands_of_the_documents_exist() {
    let root = tree::root();
    let mut broken = Vec::new();
    let documents = tree::all_files().into_iter().filter(|path| {
        let below = path.strip_prefix(&root).unwrap_or(path).to_string_lossy().into_owned();
        below.ends_with(".md") && (below.starts_with("README") || below.starts_with("docs/"))
    });
    for path in documents {
        let text = fs::read_to_string(&path).expect("UTF-8");
        for words in commands(&text) {
            if let Err(why) = known(&words) {
                let file = path.strip_prefix(&root).unwrap_or(&path).display();
                broken.push(format!("{file}: malote {}: {why}", words.join(" ")));
            }
        }
    }
    obey("documented commands exist", "mend the document, or add the command", &broken);
}

#[test]
fn commands_are_found_in_fenced_blocks_alone() {
    let text =
        "malote no\n```sh\n$ malote demo --rows 5 # five\ncargo run --release -- agent run\n```\n";
    assert_eq!(commands(text), [vec!["demo", "--rows", "5"], vec!["agent", "run"]]);
    assert!(known(&["demo".into(), "--rows".into()]).is_ok());
    assert!(known(&["nonsense".into()]).is_err());
    assert!(known(&["demo".into(), "--nonsense".into()]).is_err());
}

/// Names between backquotes in the last cell of a line of a table.
fn tests_of(line: &str) -> Vec<&str> {
    let last = line.strip_prefix("| ").and_then(|line| line.trim_end().strip_suffix(" |"));
    let last = last.and_then(|line| line.rsplit(" | ").next()).unwrap_or_default();
    last.split('`').skip(1).step_by(2).collect()
}

#[test]
fn law_every_test_that_the_table_of_failures_names_exists() {
    let page = fs::read_to_string(tree::root().join("docs/reference/failures.md")).expect("UTF-8");
    // By text, since tests within macros are tests too. `door::name` is one that a macro makes for each door.
    let files = tree::rust_files();
    let known = |name: &str| {
        let (door, name) = name.rsplit_once("::").unwrap_or(("", name));
        let of_door = |text: &str| {
            let made = format!("    {door} \"");
            door.is_empty() || text.lines().any(|line| line.starts_with(&made))
        };
        let mark = format!("fn {name}(");
        files.iter().any(|file| file.text.contains(&mark) && of_door(&file.text))
    };
    let numbered = |line: &&str| {
        line.strip_prefix("| F")
            .is_some_and(|rest| rest.starts_with(|sign: char| sign.is_ascii_digit()))
    };
    let rows: Vec<&str> = page.lines().filter(numbered).collect();
    assert!(rows.len() > 25, "the table is not found");
    let mut broken: Vec<String> = rows
        .iter()
        .filter(|row| tests_of(row).is_empty() && !row.contains("not there"))
        .map(|row| format!("{}: no test", row.split('|').nth(1).unwrap_or_default().trim()))
        .collect();
    let named = page.lines().flat_map(tests_of).filter(|name| !known(name));
    broken.extend(named.map(|name| format!("{name}: no such test")));
    obey(
        "the table of failures names tests that exist",
        "name the test as it is called now",
        &broken,
    );
}

#[test]
fn tests_are_read_from_the_last_cell_of_a_line() {
    assert_eq!(tests_of("| F1 | `a` | b | `one`, `two::three` |"), ["one", "two::three"]);
    assert_eq!(tests_of("| F1 | `a` | b | – |"), [""; 0]);
    assert_eq!(tests_of("a `word` in a sentence"), [""; 0]);
}

const LICENCES: [&str; 16] = [
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "OpenSSL",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
    "zlib-acknowledgement",
];

#[test]
fn law_packages_come_from_the_registry_under_licences_that_permit_use() {
    let registry = "registry+https://github.com/rust-lang/crates.io-index";
    let mut broken = Vec::new();
    for package in packages::packages() {
        let Some(source) = &package.source else { continue };
        let name = format!("{} {}", package.name, package.version);
        if source != registry {
            broken.push(format!("{name} comes from {source}"));
        }
        if !packages::permits(&package.licence, &LICENCES) {
            broken.push(format!("{name} is under \"{}\"", package.licence));
        }
    }
    obey(
        "licences and sources",
        "choose another package, or argue the licence into the list",
        &broken,
    );
}

#[test]
fn law_one_tls_stack() {
    const STRANGERS: [&str; 6] =
        ["openssl", "openssl-sys", "native-tls", "tokio-native-tls", "schannel", "rsa"];
    let found = packages::packages().into_iter().filter(|p| STRANGERS.contains(&p.name.as_str()));
    let broken: Vec<String> = found.map(|p| format!("{} {}", p.name, p.version)).collect();
    obey(
        "rustls with aws-lc-rs everywhere",
        "switch off the default features that bring it in",
        &broken,
    );
}

#[test]
fn law_the_repository_names_nobodys_machine() {
    // Put together here, so that this file does not name what it refuses.
    let homes: Vec<String> =
        ["root", "home", "work", "Users"].iter().map(|folder| format!("/{folder}/")).collect();
    let root = tree::root();
    let mut broken = Vec::new();
    for path in tree::all_files() {
        let below = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (at, line) in text.lines().enumerate() {
            let starts = |home: &String| {
                line.match_indices(home.as_str()).any(|(from, _)| {
                    let before = line[..from].chars().next_back();
                    before.is_none_or(|sign| !sign.is_alphanumeric() && !"./_-}~*".contains(sign))
                })
            };
            if let Some(home) = homes.iter().find(|home| starts(home)) {
                broken.push(format!("{below}:{} names {home}", at + 1));
            }
        }
    }
    obey("no path of a machine in the repository", "use a relative path or a variable", &broken);
}
