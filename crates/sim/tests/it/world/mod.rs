//! Worlds that seeds make: the same seed is the same world, and in none is anything untrue (tier T1, T1m).
//!
//! Promises: a seed that fails is named with what was not true; `cargo run -p sim --bin world -- --seed N` shows it. Seeds
//! that once failed stand in `seeds.txt` and are run for ever.
//! Never: draws a seed by chance: `MALOTE_WORLD_SEEDS` says how many, from 1 on; a run that takes its time has some of
//! the day's beside them, from `MALOTE_WORLD_FIRST` on where it is set, and tells their first number.

mod mutants;

use std::{
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use runtime::config;
use sim::world::{
    plan::Plan,
    run::{Order, Outcome, run},
};

/// Simulated time with faults of the worlds in which a mutant is looked for, and of seeds that failed before each had a
/// length of its own.
pub(crate) const TIME: Duration = Duration::from_secs(30 * 60);
/// Worlds of a run of the tests.
const SEEDS: u64 = 300;
/// And, in a run that takes its time, worlds that none before this day had.
const TODAYS: u64 = 100;

pub(crate) fn world((seed, time): (u64, Duration), mutant: &str) -> Outcome {
    runtime::tls::install_provider();
    let order = Order { plan: Plan::of(seed, time), mutant: mutant.to_owned(), loud: false };
    run(order).expect("the world begins")
}

/// Runs over a list with as many threads as there are cores; what comes of it, in the list's order.
pub(crate) fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _core in 0..cores {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(at) else { return };
                    let came = work(item);
                    done.lock().unwrap().push((at, came));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, came)| came).collect()
}

fn all_hold(seeds: &[(u64, Duration)]) {
    let outcomes = each(seeds, |seed| world(*seed, ""));
    let failed: Vec<String> = seeds
        .iter()
        .zip(&outcomes)
        .filter_map(|((seed, _), outcome)| {
            Some(format!("seed {seed}: {}", outcome.faults.first()?))
        })
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), seeds.len(), failed.join("\n"));
    let completed: u64 = outcomes.iter().map(|outcome| outcome.seen.2).sum();
    assert!(completed > 10 * seeds.len() as u64, "worlds in which nothing happens prove nothing");
}

#[test]
fn the_same_seed_is_the_same_world_line_for_line() {
    // Two worlds, each twice, all four beside each other.
    let traces = each(&[3_u64, 3, 4, 4], |seed| world((*seed, TIME), "").trace);
    for pair in traces.chunks(2) {
        let [first, second] = pair else { panic!("two of each") };
        let differs = first.iter().zip(second).find(|(one, other)| one != other);
        assert!(differs.is_none(), "{differs:#?}");
        assert_eq!(first.len(), second.len());
        assert!(first.len() > 1_000, "{} lines", first.len());
    }
    assert_ne!(traces[0], traces[2]);
}

#[test]
fn a_calm_world_comes_to_rest_with_all_that_the_erp_has() {
    runtime::tls::install_provider();
    let plan = Plan::of(1, Duration::from_secs(600)).calm();
    let outcome = run(Order { plan, mutant: String::new(), loud: false }).unwrap();
    assert_eq!(outcome.faults, Vec::<String>::new(), "{}", outcome.trace.join("\n"));
    assert!(outcome.seen.2 > 5, "{:?}", outcome.seen);
}

#[test]
fn seeds_that_once_failed_hold() {
    let kept = include_str!("seeds.txt").lines().filter(|line| !line.starts_with('#'));
    let seed = |line: &str| {
        let mut words = line.split_whitespace();
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        (number(), Duration::from_secs(number() * 60))
    };
    let seeds: Vec<_> = kept.map(seed).collect();
    all_hold(&seeds);
}

#[test]
fn in_no_world_is_anything_untrue() {
    let number = |name: &str| config::variable(name).and_then(|text| text.parse::<u64>().ok());
    let mut seeds: Vec<u64> = (1..=number("MALOTE_WORLD_SEEDS").unwrap_or(SEEDS)).collect();
    if config::variable("MALOTE_TEST_FULL").is_some() {
        let days = u64::try_from(runtime::clock::Wall::now().seconds()).unwrap() / 86_400;
        let first = number("MALOTE_WORLD_FIRST").unwrap_or(days * 1_000);
        println!("MALOTE_WORLD_FIRST={first}");
        seeds.extend(first..first + TODAYS);
    }
    all_hold(&seeds.into_iter().map(|seed| (seed, Plan::length(seed))).collect::<Vec<_>>());
}
