//! Fuzz: each door's corpus, then a time of hostile inputs made of it (`correctness.md` 4.2, T9; F45, F63, F64, F68, F69).
//!
//! A second for each door; 30 with `MALOTE_TEST_FULL`. `MALOTE_SEED` makes the inputs of a failure again, and the file
//! that it names goes into `tests/corpus`, where it is replayed for ever.

use std::{collections::BTreeSet, fs, path::PathBuf, time::Duration};

use runtime::config;
use sim::{
    chance::Chance,
    fuzz::{TARGETS, Target, hunt},
    servers,
};

fn corpus() -> PathBuf {
    servers::crate_folder().join("tests/corpus")
}

fn keeps_its_promises(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    // Only this test's own use of memory is looked at; where Linux does not allow it, the process's.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let found = tried(target);
    (target.end)();
    let told = found.unwrap_or_else(|why| panic!("{why}"));
    let peak = hunt::peak_bytes();
    println!("{name}: {told}; peak {:?} MB", peak.map(|bytes| bytes >> 20));
    assert!(peak.is_none_or(|bytes| bytes <= hunt::PEAK_BYTES), "{name} used {peak:?} bytes");
}

fn tried(target: &Target) -> Result<String, String> {
    let seed = Chance::from_environment().seed();
    println!("MALOTE_SEED={seed}");
    let corpus = hunt::corpus(&corpus(), target)?;
    let replayed = hunt::replay(target, &corpus)?;
    let full = config::variable("MALOTE_TEST_FULL").is_some();
    let time = Duration::from_secs(if full { 30 } else { 1 });
    let tries = hunt::hunt(target, &corpus, seed, time)?;
    Ok(format!("{replayed} files, then {tries} inputs of seed {seed}"))
}

macro_rules! doors {
    ($($door:ident $name:literal)+) => {
        const DOORS: &[&str] = &[$($name),+];
        $(mod $door {
            #[test]
            fn keeps_its_promises() {
                super::keeps_its_promises($name);
            }
        })+
    };
}

doors! {
    agent_config "agent-config"
    apps "apps"
    claims "claims"
    entities "entities"
    entity_list "entity-list"
    filter "filter"
    filter_run "filter-run"
    frame "frame"
    key "key"
    registry "registry"
    scan "scan"
    server_config "server-config"
    spool "spool"
    summary "summary"
    table "table"
    token "token"
}

#[test]
fn every_door_has_a_corpus_and_every_corpus_a_door() {
    let doors: BTreeSet<String> = DOORS.iter().map(|&name| name.to_owned()).collect();
    let targets: BTreeSet<String> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    let folders = fs::read_dir(corpus()).unwrap().flatten();
    let folders = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(doors, targets);
    assert_eq!(targets, folders);
}
