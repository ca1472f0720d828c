//! Hunt: replays the corpus of a target, then tries inputs made of it until its time is over.
//!
//! Promises: what fails is written to a file that the error names with the seed; a panic is a failure like any other.
//! Never: looks at coverage; a target's functions are also there for a fuzzer that does.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::clock::Mono;

use super::{Found, Target, fault, mutate::Mutator};
use crate::process;

/// The most memory that a process which hunts may ever have had in use.
pub const PEAK_BYTES: u64 = 256 * 1024 * 1024;

/// Names and contents of a target's corpus, by name.
///
/// # Errors
/// Where a file cannot be read.
pub fn corpus(folder: &Path, target: &Target) -> Found<Vec<(String, Vec<u8>)>> {
    let entries = fs::read_dir(folder.join(target.name)).map_err(fault("no corpus"))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    let read = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok((name, fs::read(path).map_err(fault("unreadable corpus"))?))
    };
    files.iter().map(read).collect()
}

/// Runs a target over its corpus.
///
/// # Errors
/// The first file that fails, and why.
pub fn replay(target: &Target, corpus: &[(String, Vec<u8>)]) -> Found<usize> {
    for (name, input) in corpus {
        tried(target, input).map_err(|why| format!("{}/{name}: {why}", target.name))?;
    }
    Ok(corpus.len())
}

/// Runs a target over inputs made of its corpus; tells how many.
///
/// # Errors
/// Why an input failed, its file, and the seed that makes it again.
pub fn hunt(
    target: &Target,
    corpus: &[(String, Vec<u8>)],
    seed: u64,
    time: Duration,
) -> Found<u64> {
    let seeds = corpus.iter().map(|(_, input)| input.clone()).collect();
    let mut mutator = Mutator::new(target.form, seeds, seed);
    let begun = Mono::now();
    let mut tries = 0;
    while begun.elapsed() < time {
        let input = mutator.make();
        tries += 1;
        tried(target, &input).map_err(|why| {
            let place = kept(target, &input);
            format!("{} (MALOTE_SEED={seed}, try {tries}, input in {place}): {why}", target.name)
        })?;
    }
    Ok(tries)
}

fn tried(target: &Target, input: &[u8]) -> Found {
    match panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input))) {
        Ok(found) => found,
        Err(panic) => {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("panic: {}", words.unwrap_or("without words")))
        }
    }
}

/// Where a failing input lies now; the input itself in hex where it cannot be written.
fn kept(target: &Target, input: &[u8]) -> String {
    let folder = std::env::temp_dir().join("malote-fuzz");
    let name = format!("{}-{}", target.name, runtime::entropy::uuid().simple());
    let path = folder.join(name);
    match fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input)) {
        Ok(()) => path.display().to_string(),
        Err(_) => input.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// The most memory this process ever had in use, as Linux counts it; `None` elsewhere.
#[must_use]
pub fn peak_bytes() -> Option<u64> {
    process::memory("self", "VmHWM").ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::Form;

    fn target(run: fn(&[u8]) -> Found) -> Target {
        Target { name: "a test", form: Form::Bytes, run, end: || {} }
    }

    #[test]
    fn what_fails_or_panics_is_told_with_its_seed_and_kept_in_a_file() {
        let corpus = [("a".to_owned(), b"good".to_vec())];
        let long = |input: &[u8]| if input.len() > 6 { Err("too long".into()) } else { Ok(()) };
        let broken = |input: &[u8]| {
            assert!(input.first() == Some(&b'g'), "lost its head");
            Ok(())
        };
        for (run, why) in [(long as fn(&[u8]) -> Found, "too long"), (broken, "lost its head")] {
            let words = hunt(&target(run), &corpus, 3, Duration::from_secs(20)).unwrap_err();
            assert!(words.contains("MALOTE_SEED=3") && words.contains(why), "{words}");
            let path = words.split("input in ").nth(1).unwrap().split(')').next().unwrap();
            assert!(tried(&target(run), &fs::read(path).unwrap()).is_err());
            fs::remove_file(path).unwrap();
        }
        assert_eq!(replay(&target(long), &corpus), Ok(1));
    }
}
