//! World: runs simulated worlds by their seeds, one with its trace or many with a summary.
//!
//! Promises: what a test found comes again under the same seed, time and build; a seed that fails is named and the exit
//! code is not zero.
//! Never: touches anything outside a folder of its own that is gone afterwards.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use protocol::{Code, Error, Result};
use runtime::clock::Mono;
use sim::world::{
    plan::Plan,
    run::{Order, run},
};

const USAGE: &str = "usage: world (--seed N | --seeds A..B) [--minutes M | --hours H] [--mutant NAME] [--calm] [--erp-clock]";

/// What is asked for on the command line.
struct Options {
    seeds: (u64, u64),
    loud: bool,
    /// `None` = each seed's own.
    time: Option<Duration>,
    mutant: String,
    calm: bool,
    /// The ERPs' clocks are set back at times.
    erp_clock: bool,
}

fn main() -> ExitCode {
    runtime::tls::install_provider();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match read(&words).and_then(|options| go(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            talk(&format!("{error}"));
            ExitCode::FAILURE
        }
    }
}

fn read(words: &[String]) -> Result<Options> {
    let usage = || Error::new(Code::BadRequest, USAGE);
    let minutes = |count: u64| Duration::from_secs(count * 60);
    let mut options = Options {
        seeds: (0, 0),
        loud: false,
        time: None,
        mutant: String::new(),
        calm: false,
        erp_clock: false,
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        if word == "--calm" {
            options.calm = true;
            continue;
        }
        if word == "--erp-clock" {
            options.erp_clock = true;
            continue;
        }
        let value = words.next().ok_or_else(usage)?;
        let number = || value.parse::<u64>().map_err(|_| usage());
        match word {
            "--seed" => (options.seeds, options.loud) = ((number()?, number()? + 1), true),
            "--seeds" => {
                let (from, to) = value.split_once("..").ok_or_else(usage)?;
                let bound = |text: &str| text.parse().map_err(|_| usage());
                options.seeds = (bound(from)?, bound(to)?);
            }
            "--minutes" => options.time = Some(minutes(number()?)),
            "--hours" => options.time = Some(minutes(number()? * 60)),
            "--mutant" => value.clone_into(&mut options.mutant),
            _ => return Err(usage()),
        }
    }
    if options.seeds.0 >= options.seeds.1 { Err(usage()) } else { Ok(options) }
}

fn go(options: &Options) -> Result<bool> {
    let begun = Mono::now();
    let (mut failed, mut kinds) = (Vec::new(), BTreeMap::<String, u32>::new());
    let (mut lasted, mut seen) = (Duration::ZERO, (0, 0, 0));
    for seed in options.seeds.0..options.seeds.1 {
        let plan = Plan::of(seed, options.time.unwrap_or_else(|| Plan::length(seed)));
        let mut plan = if options.calm { plan.calm() } else { plan };
        if options.erp_clock {
            plan.faults.erp_clock = Some(Duration::from_secs(300));
        }
        let order = Order { plan, mutant: options.mutant.clone(), loud: options.loud };
        let outcome = run(order)?;
        lasted += outcome.lasted;
        seen = (seen.0 + outcome.seen.0, seen.1 + outcome.seen.1, seen.2 + outcome.seen.2);
        if let Some(first) = outcome.faults.first() {
            let kind = first.split(':').next().unwrap_or_default().to_owned();
            *kinds.entry(kind).or_default() += 1;
            talk(&format!("seed {seed}: {first}"));
            failed.push(seed);
        }
    }
    let worlds = options.seeds.1 - options.seeds.0;
    talk(&format!(
        "{worlds} worlds, {:.1} simulated hours in {:.1} s; {} messages, {} rows, {} batches; {} failed {kinds:?}",
        lasted.as_secs_f64() / 3_600.0,
        begun.elapsed().as_secs_f64(),
        seen.0,
        seen.1,
        seen.2,
        failed.len()
    ));
    Ok(failed.is_empty())
}

#[expect(clippy::print_stdout, reason = "what the command is for")]
fn talk(line: &str) {
    println!("{line}");
}
