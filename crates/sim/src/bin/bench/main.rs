//! Bench: measures the whole as its users run it, and prints figures with what they were measured on.
//!
//! Promises: every figure comes from the run that prints it; a comparison runs in the same run on the same data.
//! Never: judges; the README says what was hoped for.

mod accept;
mod cores;
mod cycles;
mod impact;
mod line;
mod measure;
mod pouch;
mod sender;
mod share;
mod stage;

use std::process::ExitCode;

use protocol::{Code, Coded as _, Error, Result};

const USAGE: &str = "usage: bench/run share [--rows N] [--wide] [--store postgres] [--only cycles|tenth|load|far] \
                     or bench/run accept [--rows N] [--streams N] or bench/run impact [--rows N] [--together] [--only polls|load]";

/// What is asked for on the command line.
struct Options {
    rows: u64,
    wide: bool,
    /// One part of `share` or `impact`.
    only: Option<String>,
    /// Streams that `accept` sends at once.
    streams: u64,
    /// Whether `impact` has all on the same cores and disk.
    together: bool,
    /// Whether the server of `share` has its store in PostgreSQL: the load alone is measured so.
    in_database: bool,
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
    let usage = || Error::new(Code::BadRequest, USAGE);
    let what = words.next().ok_or_else(usage)?;
    if what == "bare" {
        // What `accept` starts beside itself.
        let port = words.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        return runtime.coded(Code::Internal, "no runtime")?.block_on(sender::serve_bare(port));
    }
    let mut options = Options {
        rows: 1_000_000,
        wide: false,
        only: None,
        streams: 4,
        together: false,
        in_database: false,
    };
    while let Some(word) = words.next() {
        match word {
            "--rows" => {
                let number = words.next().and_then(|text| text.parse().ok());
                options.rows = number.ok_or_else(usage)?;
            }
            "--streams" => {
                let number = words.next().and_then(|text| text.parse().ok());
                options.streams = number.ok_or_else(usage)?;
            }
            "--wide" => options.wide = true,
            "--store" => {
                words.next().filter(|engine| *engine == "postgres").ok_or_else(usage)?;
                options.in_database = true;
            }
            "--together" => options.together = true,
            "--only" => {
                let parts: &[&str] = if what == "impact" { &impact::PARTS } else { &share::PARTS };
                let part = words.next().filter(|part| parts.contains(part));
                options.only = Some(part.ok_or_else(usage)?.to_owned());
            }
            _ => return Err(usage()),
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.coded(Code::Internal, "no runtime")?;
    match what {
        "share" => runtime.block_on(Box::pin(share::run(&options))),
        "accept" => runtime.block_on(Box::pin(accept::run(&options))),
        "impact" => runtime.block_on(Box::pin(impact::run(&options))),
        _ => Err(usage()),
    }
}
