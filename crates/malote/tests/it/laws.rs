//! The laws of the house, as tests (`design.md` 8, `style.md` 4): they tell what to do instead.
//!
//! Promises: a broken law names file and line, all of them at once.
//! Never: rests on the order of tests or on build output.

mod imports;
mod packages;
mod syntax;
mod tables;
mod tree;

use tree::File;

/// Fails with the whole list and the way out.
fn obey(law: &str, instead: &str, broken: &[String]) {
    assert!(broken.is_empty(), "\nlaw: {law}\ninstead: {instead}\n  {}\n", broken.join("\n  "));
}

fn broken_by<T>(files: &[File], judge: impl Fn(&File) -> T) -> Vec<String>
where
    T: IntoIterator<Item = (usize, String)>,
{
    let tell = |file: &File| {
        let lines: Vec<String> = judge(file)
            .into_iter()
            .map(|(line, words)| format!("{}:{line} {words}", file.path))
            .collect();
        lines
    };
    files.iter().flat_map(tell).collect()
}

#[test]
fn law_every_file_begins_with_a_card() {
    let broken = broken_by(&tree::rust_files(), |file| {
        // `<file>/tests.rs` goes with the card of its file.
        let card = file.text.starts_with("//! ") || file.path.ends_with("/tests.rs");
        (!card).then(|| (1, "has no card".to_owned()))
    });
    obey(
        "a card at the head of every file",
        "begin with `//! Room: what it is`, then `Promises:` and `Never:`",
        &broken,
    );
}

#[test]
fn law_a_file_has_at_most_600_lines_without_its_tests() {
    let broken = broken_by(&tree::rust_files(), |file| {
        let found = syntax::walk(file);
        let tests: usize = found.test_modules.iter().map(|(from, to)| to + 1 - from).sum();
        let lines = file.text.lines().count() - tests;
        (file.production && lines > 600).then(|| (600, format!("has {lines} lines")))
    });
    obey(
        "file ≤ 600 lines without tests",
        "split the noun by verb into files of their own",
        &broken,
    );
}

#[test]
fn law_tests_over_200_lines_lie_beside_the_file() {
    let broken = broken_by(&tree::rust_files(), |file| {
        let long = |(from, to): &(usize, usize)| (to + 1 - from > 200).then_some(*from);
        let lines: Vec<usize> = syntax::walk(file).test_modules.iter().filter_map(long).collect();
        lines.into_iter().map(|line| (line, "test module of more than 200 lines".to_owned()))
    });
    obey("tests over 200 lines move beside", "put them into `<file>/tests.rs`", &broken);
}

#[test]
fn law_a_function_has_at_most_70_lines_and_5_parameters() {
    let broken = broken_by(&tree::rust_files(), |file| {
        let mut found: Vec<(usize, String)> = Vec::new();
        let in_src = file.path.contains("/src/");
        for function in syntax::walk(file).functions.iter().filter(|_| in_src) {
            if function.lines > 70 {
                found.push((
                    function.line,
                    format!("{} has {} lines", function.name, function.lines),
                ));
            }
            if function.parameters > 5 {
                found.push((
                    function.line,
                    format!("{} takes {} parameters", function.name, function.parameters),
                ));
            }
        }
        found
    });
    obey(
        "function ≤ 70 lines, ≤ 5 parameters",
        "give the second routine in it a name; put parameters that travel together into a struct",
        &broken,
    );
}

const REFUSED: [&str; 14] = [
    "manager", "managers", "helper", "helpers", "handler", "handlers", "util", "utils", "base",
    "common", "impl", "impls", "misc", "stuff",
];

/// `FooBarBaz` and `foo_bar_baz` as lower-case words; digits stay with their letters.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before_lower = false;
    for sign in name.chars() {
        if sign == '_' || (sign.is_uppercase() && before_lower) {
            words.push(String::new());
        }
        before_lower = sign.is_lowercase() || sign.is_numeric();
        if sign != '_' {
            words.last_mut().expect("one word at least").extend(sign.to_lowercase());
        }
    }
    words
}

fn refused(name: &str) -> Option<String> {
    let words = words(name);
    // "base load" is the glossary's word for the first copy of a table.
    let base_load = |at: usize| {
        words[at] == "base" && words.get(at + 1).is_some_and(|next| next.starts_with("load"))
    };
    let found =
        (0..words.len()).find(|at| REFUSED.contains(&words[*at].as_str()) && !base_load(*at));
    found.map(|at| words[at].clone())
}

#[test]
fn names_are_split_into_words_and_the_base_load_keeps_its_name() {
    assert_eq!(words("FooBar_baz64X"), ["foo", "bar", "baz64", "x"]);
    assert_eq!(refused("LinkManager").as_deref(), Some("manager"));
    assert_eq!(refused("sql_utils").as_deref(), Some("utils"));
    for good in ["BaseLoad", "base_load", "Database", "Base64", "Implied"] {
        assert_eq!(refused(good), None, "{good}");
    }
}

#[test]
fn law_no_name_admits_anything() {
    let broken = broken_by(&tree::rust_files(), |file| {
        let stem =
            file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
        let own = refused(&stem).map(|word| (1, format!("file name holds \"{word}\"")));
        let tell = |(name, line): (String, usize)| {
            refused(&name).map(|word| (line, format!("{name} holds \"{word}\"")))
        };
        let names: Vec<_> = syntax::walk(file).names.into_iter().filter_map(tell).collect();
        own.into_iter().chain(names)
    });
    obey(
        "no Manager, Helper, Handler, Util, Base, Common, Impl in names",
        "name the one thing it is or does; what has no such name is two things",
        &broken,
    );
}

#[test]
fn law_a_lint_is_expected_with_a_reason_never_allowed() {
    let marks = [["#", "[allow("].concat(), ["#", "![allow("].concat()];
    let broken = broken_by(&tree::rust_files(), |file| {
        let found: Vec<_> = file
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| marks.iter().any(|mark| line.contains(mark)))
            .map(|(at, _)| (at + 1, "allows a lint".to_owned()))
            .collect();
        found
    });
    obey("no `allow`", "mend it, or `#[expect(lint, reason = \"…\")]` where it is made", &broken);
}

#[test]
fn law_tests_wait_on_states_and_never_sleep() {
    let broken = broken_by(&tree::rust_files(), |file| {
        let sleeps = |named: &&syntax::Named| {
            let tail = named.segments.iter().rev().take(2).map(String::as_str).collect::<Vec<_>>();
            named.test && matches!(tail.as_slice(), ["sleep", "thread" | "time"])
        };
        let found = syntax::walk(file);
        found.paths.iter().filter(sleeps).map(|n| (n.line, "sleeps".to_owned())).collect::<Vec<_>>()
    });
    obey(
        "tests wait on states",
        "wait for the state the test needs (a watch channel, a row, a port), with a deadline",
        &broken,
    );
}

#[test]
fn law_a_select_has_its_order() {
    let found = |text: &str| -> Vec<usize> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let begins = |line: &str| line.ends_with("select! {");
        let next = |at: usize| {
            let rest = lines.iter().skip(at + 1);
            rest.copied().find(|line| !line.starts_with("//")).unwrap_or_default()
        };
        (0..lines.len()).filter(|at| begins(lines[*at]) && next(*at) != "biased;").collect()
    };
    let (without, with) = (["tokio::select", "! {\n    x"], ["select", "! {\n // why\n biased;"]);
    assert_eq!((found(&without.concat()).len(), found(&with.concat()).len()), (1, 0));
    let simulated = ["agent", "server", "runtime"];
    let mine = |file: &&File| file.production && simulated.contains(&file.krate.as_str());
    let files = tree::rust_files();
    let broken: Vec<String> = files
        .iter()
        .filter(mine)
        .flat_map(|file| {
            found(&file.text).into_iter().map(|at| format!("{}:{}", file.path, at + 1))
        })
        .collect();
    obey(
        "every select! begins with biased",
        "write `biased;` and order the branches: the drain first, then what must not wait (without, tokio draws one, and no seed repeats it)",
        &broken,
    );
}

#[test]
fn law_f13_no_sql_reads_what_is_not_committed() {
    let asks =
        [["no", "lock"], ["read", "past"], ["read uncom", "mitted"], ["read_uncom", "mitted"]];
    let asks = asks.map(|parts| parts.concat());
    let found = |path: &str, text: &str| -> Vec<String> {
        let line = |(at, line): (usize, &str)| {
            let lower = line.to_lowercase();
            let said = line.trim_start().starts_with("//") || line.trim_start().starts_with("--");
            (!said && asks.iter().any(|ask| lower.contains(ask)))
                .then(|| format!("{path}:{} reads uncommitted rows", at + 1))
        };
        text.lines().enumerate().filter_map(line).collect()
    };
    let sql = ["SELECT A FROM T WITH (NO", "LOCK)"].concat();
    assert_eq!(found("x.sql", &sql).len(), 1, "the law can fail");
    let files = tree::all_files();
    let read =
        |path: &std::path::PathBuf| Some((path.clone(), std::fs::read_to_string(path).ok()?));
    let sources =
        files.iter().filter(|path| path.extension().is_some_and(|e| e == "rs" || e == "sql"));
    let broken: Vec<String> = sources
        .filter_map(read)
        .flat_map(|(path, text)| found(&path.display().to_string(), &text))
        .collect();
    obey("no dirty reads (F13)", "read committed rows under the bound of `Source`", &broken);
}

#[test]
fn law_every_module_file_is_mounted() {
    let files = tree::rust_files();
    let broken: Vec<String> = files
        .iter()
        .filter(|file| file.path.contains("/src/") && !file.module.is_empty())
        // Cargo itself finds the roots of further programs.
        .filter(|file| file.module.len() != 2 || file.module.first().is_none_or(|top| top != "bin"))
        .filter(|file| {
            let mark = format!("mod {};", file.module.last().expect("not empty"));
            let parent = &file.module[..file.module.len() - 1];
            let mounted = |other: &&File| {
                other.krate == file.krate && other.module == parent && other.text.contains(&mark)
            };
            !files.iter().any(|other| mounted(&other))
        })
        .map(|file| format!("{} is mounted by no `mod`", file.path))
        .collect();
    obey("no dead file", "mount it where it belongs, or remove it", &broken);
}
