//! Mutants: wrong variants of designs, each of which some world must show (`correctness.md` 3a, 4.2 T1m).
//!
//! Promises: each is found within 200 seeds, or the test fails with its name; what protects twice is taken away twice, and
//! one half alone is seen to do no harm.
//! Never: counts a world that did not begin.

use super::{TIME, each, world};

/// Seeds within which a mutant has to be found.
const WITHIN: u64 = 200;

/// Their names, and the invariants as which they may show (a row that is lost is I9 where the cursor passes it, and I8 at
/// the end where that is not looked at, since the ERP's clock was set back); with `+` between names those that are wrong
/// together only.
const MUTANTS: [(&str, &str); 31] = [
    ("naive_watermark", "I8 I9"),
    ("overlap_60s", "I8 I9"),
    ("bound_of_writers_only", "I8 I9"),
    ("bound_after_rows", "I8 I9"),
    ("no_allowance", "I8 I9"),
    ("scn_time_exact", "I8 I9"),
    ("lagging_replica", "I7 I9"),
    ("no_fence", "I5"),
    ("no_dedupe", "I3"),
    ("no_fence+no_dedupe", "I3 I5"),
    ("raw_seconds", "I8"),
    ("late_chunk", "I7 I8 I9"),
    ("blind_delete", "I8"),
    ("cursor_before_summary", "I10"),
    ("key_in_hot_group", "I8 I9"),
    ("cut_moves_to_bound", "I8 I9"),
    ("greater_not_equal", "I8 I9"),
    ("summary_early+summary_without_counts", "I4"),
    ("ack_before_commit", "I1"),
    ("resend_reencoded+any_content", "I1 I2"),
    ("incomplete_scan+blind_delete", "I8"),
    ("recent_by_key", "I8 I9"),
    ("load_ends_early", "I8 I9"),
    ("load_bound_at_end", "I8 I9"),
    ("no_gap_check", "I3"),
    ("no_unstamped_scan", "I8"),
    ("no_key_scan", "I8"),
    ("clock_unnoticed", "I8"),
    ("skips_untold", "I18"),
    ("epoch_stays", "I5"),
    ("known_before_summary", "I8"),
];

/// The first seed in which the mutant is found, and what was found.
fn found(mutant: &str) -> Option<(u64, String)> {
    (1..=WITHIN).find_map(|seed| {
        let fault = world((seed, TIME), mutant).faults.into_iter().next()?;
        Some((seed, fault))
    })
}

#[test]
fn every_mutant_is_found_within_two_hundred_seeds_as_what_it_breaks() {
    let all = each(&MUTANTS, |(mutant, _)| found(mutant));
    let wrong: Vec<String> = MUTANTS
        .iter()
        .zip(all)
        .filter_map(|((mutant, invariants), found)| {
            let Some((seed, fault)) = found else { return Some(format!("{mutant}: not found")) };
            let shown = fault.split(':').next().unwrap_or_default();
            let fits = invariants.split(' ').any(|invariant| invariant == shown);
            (!fits).then(|| format!("{mutant}, seed {seed}: {fault}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_guarded_twice_does_no_harm_by_half() {
    // An early summary alone is left out: it stores nothing wrong, but its batches are dropped again and again.
    let halves = ["incomplete_scan", "resend_reencoded"];
    let seeds: Vec<(u64, &str)> =
        halves.iter().flat_map(|half| (1..=4).map(move |seed| (seed, *half))).collect();
    let outcomes = each(&seeds, |(seed, half)| world((*seed, TIME), half).faults);
    for ((seed, half), faults) in seeds.iter().zip(outcomes) {
        assert_eq!(faults, Vec::<String>::new(), "{half}, seed {seed}");
    }
}
