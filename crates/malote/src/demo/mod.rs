//! Demo: a small ERP, server and agent as they really run, an ERP day, and the proof that staging equals the source.
//!
//! Promises: exit code 0 only where every table agrees row by row and value by value; ends by itself.
//! Never: writes to a database it was given; leaves a file behind.

mod direct;
mod erp;
mod verdict;

use clap::Args;
use protocol::Result;

use crate::lang::Lang;

/// `malote demo`.
#[derive(Debug, Args)]
pub(crate) struct DemoCommand {
    /// Rows of the small ERP, spread over its tables.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(100..=20_000_000))]
    rows: u64,
    /// Number the ERP's rows and its day are drawn from: the same seed, the same ERP.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep server and agent up afterwards, with addresses and credentials shown.
    #[arg(long)]
    stay: bool,
    /// Follow an existing database instead, read-only: sqlite:FILE or postgres://user:password@host/database.
    #[arg(long, value_name = "URL")]
    source: Option<String>,
    /// With --source: end after the base load was verified.
    #[arg(long, requires = "source")]
    once: bool,
    /// One JSON object a line on stdout: ready, progress, verified.
    #[arg(long)]
    json: bool,
}

impl DemoCommand {
    pub(crate) async fn run(self, _lang: Lang) -> Result<u8> {
        Err(protocol::Error::new(protocol::Code::Internal, "not here yet"))
    }
}
