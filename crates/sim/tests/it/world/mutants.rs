//! Mutants: wrong variants of designs, each of which some world must show (`correctness.md` 3a, 4.2 T1m).
//!
//! Promises: each is found within 200 seeds, or the test fails with its name; what protects twice is taken away twice, and
//! one half alone is seen to do no harm.
//! Never: counts a world that did not begin.

use super::{each, world};

/// Seeds within which a mutant has to be found.
const WITHIN: u64 = 200;

/// Their names; with `+` between them those that are wrong together only.
const MUTANTS: [&str; 26] = [
    "naive_watermark",
    "overlap_60s",
    "bound_of_writers_only",
    "bound_after_rows",
    "no_allowance",
    "lagging_replica",
    "no_fence",
    "no_dedupe",
    "no_fence+no_dedupe",
    "raw_seconds",
    "late_chunk",
    "blind_delete",
    "cursor_before_summary",
    "key_in_hot_group",
    "cut_moves_to_bound",
    "greater_not_equal",
    "summary_early+summary_without_counts",
    "ack_before_commit",
    "resend_reencoded+any_content",
    "incomplete_scan+blind_delete",
    "recent_by_key",
    "load_ends_early",
    "load_bound_at_end",
    "no_gap_check",
    "no_unstamped_scan",
    "no_key_scan",
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
    let all = each(&MUTANTS, |mutant| found(mutant));
    let alive: Vec<&str> = MUTANTS
        .iter()
        .zip(&all)
        .filter_map(|(mutant, found)| found.is_none().then_some(*mutant))
        .collect();
    assert!(alive.is_empty(), "not found within {WITHIN} seeds: {alive:?}");
}

#[test]
fn what_is_guarded_twice_does_no_harm_by_half() {
    // An early summary alone is left out: it stores nothing wrong, but its batches are dropped again and again.
    let halves = ["incomplete_scan", "resend_reencoded"];
    let seeds: Vec<(u64, &str)> =
        halves.iter().flat_map(|half| (1..=4).map(move |seed| (seed, *half))).collect();
    let outcomes = each(&seeds, |(seed, half)| world(*seed, half).faults);
    for ((seed, half), faults) in seeds.iter().zip(outcomes) {
        assert_eq!(faults, Vec::<String>::new(), "{half}, seed {seed}");
    }
}
