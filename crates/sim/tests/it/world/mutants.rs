//! Mutants: wrong variants of designs, each of which some world must show (`correctness.md` 3a, 4.2 T1m).
//!
//! Promises: each is found within 200 seeds, or the test fails with its name; what protects twice is taken away twice, and
//! one half alone is seen to do no harm.
//! Never: counts a world that did not begin.

use super::{each, world};

/// Seeds within which a mutant has to be found.
const WITHIN: u64 = 200;

/// Name, and the invariant by which it is found first in most worlds.
const MUTANTS: [(&str, &str); 27] = [
    ("naive_watermark", "I9"),
    ("overlap_60s", "I9"),
    ("bound_of_writers_only", "I9"),
    ("bound_after_rows", "I9"),
    ("no_allowance", "I9"),
    ("lagging_replica", "I9"),
    ("no_fence", "I5"),
    ("no_dedupe", "I7"),
    ("no_fence+no_dedupe", "I7"),
    ("raw_seconds", "I8"),
    ("late_chunk", "I7"),
    ("blind_delete", "I8"),
    ("cursor_before_summary", "I10"),
    ("key_in_hot_group", "I9"),
    ("cut_moves_to_bound", "I9"),
    ("greater_not_equal", "I8"),
    ("summary_early+summary_without_counts", "I4"),
    ("ack_before_commit", "I1"),
    ("resend_reencoded+any_content", "I1"),
    ("known_before_summary", "I8"),
    ("incomplete_scan+blind_delete", "I8"),
    ("recent_by_key", "I9"),
    ("load_ends_early", "I9"),
    ("load_bound_at_end", "I9"),
    ("no_gap_check", "I3"),
    ("no_unstamped_scan", "I8"),
    ("no_key_scan", "I8"),
];

/// The first seed in which the mutant is found, and what was found.
fn found(mutant: &str) -> Option<(u64, String)> {
    (1..=WITHIN).find_map(|seed| {
        let fault = world(seed, mutant).faults.into_iter().next()?;
        Some((seed, fault))
    })
}

#[test]
fn every_mutant_is_found_within_two_hundred_seeds() {
    let all = each(&MUTANTS, |(mutant, _)| found(mutant));
    let alive: Vec<&str> = MUTANTS
        .iter()
        .zip(&all)
        .filter_map(|((mutant, _), found)| found.is_none().then_some(*mutant))
        .collect();
    assert!(alive.is_empty(), "not found within {WITHIN} seeds: {alive:?}");
}

#[test]
fn what_is_guarded_twice_does_no_harm_by_half() {
    let halves = ["summary_early", "incomplete_scan", "resend_reencoded"];
    let seeds: Vec<(u64, &str)> =
        halves.iter().flat_map(|half| (1..=5).map(move |seed| (seed, *half))).collect();
    let outcomes = each(&seeds, |(seed, half)| world(*seed, half).faults);
    for ((seed, half), faults) in seeds.iter().zip(outcomes) {
        assert_eq!(faults, Vec::<String>::new(), "{half}, seed {seed}");
    }
}
