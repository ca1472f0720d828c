//! Bench: measures the whole as its users run it, and prints figures with what they were measured on.
//!
//! Promises: every figure comes from the run that prints it; a comparison runs in the same run on the same data.
//! Never: judges; the README says what was hoped for.

mod measure;
mod share;

use std::process::ExitCode;

use protocol::{Code, Error, Result};

/// What is asked for on the command line.
struct Options {
    rows: u64,
    wide: bool,
}

fn main() -> ExitCode {
    runtime::tls::install_provider();
    let words: Vec<String> = std::env::args().skip(1).collect();
    match go(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            measure::talk(&format!("{error}: {}", error.chain()));
            ExitCode::FAILURE
        }
    }
}

fn go(words: &[String]) -> Result<()> {
    let mut words = words.iter().map(String::as_str);
    let usage = || Error::new(Code::BadRequest, "usage: bench/run share [--rows N] [--wide]");
    let what = words.next().ok_or_else(usage)?;
    let mut options = Options { rows: 1_000_000, wide: false };
    while let Some(word) = words.next() {
        match word {
            "--rows" => {
                let number = words.next().and_then(|text| text.parse().ok());
                options.rows = number.ok_or_else(usage)?;
            }
            "--wide" => options.wide = true,
            _ => return Err(usage()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|cause| Error::new(Code::Internal, "no runtime").because(cause))?;
    match what {
        "share" => runtime.block_on(share::run(&options)),
        _ => Err(usage()),
    }
}
