//! Impact: what an agent costs the ERP database it reads: pgbench at half of its greatest rate, alone, beside an agent that
//! polls, and beside one that makes a base load.
//!
//! Promises: the ways are measured in turns, since the machine is not as fast at one time as at another; the agent and the
//! server run on the same machine, so what they take of its cores is in the figures.

use std::{process::Command, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    clock::{self, Mono},
    task,
};
use sim::servers::{self, Postgres};

use super::{
    Options,
    measure::{counter, figure, rate, talk},
    share,
    stage::{Gait, Stage},
};

/// Scale of pgbench: 1,000,000 accounts.
const SCALE: &str = "10";
const CLIENTS: &str = "8";
/// How long the greatest rate is looked for, and how long each way is measured.
const SEARCH: u64 = 15;
const TIME: u64 = 30;
/// How often each way is measured.
const ROUNDS: usize = 3;
/// What follows a base load (comparison of keys, rows within the allowance of the clock) is over by then.
const SETTLE: Duration = Duration::from_secs(15);
/// As an agent is installed.
const GAIT: Gait = Gait { cycle_seconds: 5, duty_percent: 25 };

/// What pgbench says of one run.
#[derive(Clone, Copy)]
struct Run {
    /// Mean, in milliseconds, from when a transaction was due.
    latency: f64,
    tps: f64,
}

/// Measures the three ways.
///
/// # Errors
/// Where something cannot start or no row moves for a minute.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let settings = ["shared_buffers=512MB", "max_wal_size=4GB", "fsync=on", "full_page_writes=on"];
    let postgres = Postgres::start_with(&settings).await?;
    let url = postgres.create_database("impact").await?;
    prepare(&url, options.rows).await?;
    talk("looking for the greatest rate");
    let most = pgbench(&url, (SEARCH, None)).await?;
    let half = most.tps / 2.0;
    let (mut alone, mut polled, mut loaded, mut rows) = (vec![], vec![], vec![], vec![]);
    for round in 1..=ROUNDS {
        talk(&format!("round {round} of {ROUNDS}: alone"));
        alone.push(pgbench(&url, (TIME, Some(half))).await?);
        talk("beside an agent that polls");
        polled.push(beside_polling(&url, half).await?);
        talk("beside a base load");
        let (run, staged) = beside_load(&url, half).await?;
        loaded.push(run);
        rows.push(staged);
    }
    figure("pgbench, greatest rate", &format!("{:.0} tps, {:.2} ms", most.tps, most.latency));
    let alone = middle(alone);
    figure("pgbench at half of it", &told(alone, None));
    figure("the same beside an agent that polls every 5 s", &told(middle(polled), Some(alone)));
    figure("the same beside a base load", &told(middle(loaded), Some(alone)));
    rows.sort_unstable();
    let staged = rows.get(rows.len() / 2).copied().unwrap_or_default();
    figure("of which were staged meanwhile", &rate(staged, Duration::from_secs(TIME)));
    Ok(())
}

/// The tables of pgbench, its history with a key and a stamp; and a table for base loads.
async fn prepare(url: &str, rows: u64) -> Result<()> {
    talk("making the tables of pgbench");
    call(url, &["-i", "-s", SCALE, "-q"].map(str::to_owned)).await?;
    let erp = servers::connect(url).await?;
    talk(&format!("making {rows} rows"));
    let sql = format!(
        "ALTER TABLE pgbench_history ADD COLUMN id bigserial PRIMARY KEY,
             ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
         CREATE INDEX ON pgbench_history (changed_at, id);
         {};
         CHECKPOINT",
        share::table(rows, false)
    );
    erp.batch_execute(&sql).await.coded(Code::Internal, "cannot make the tables")
}

async fn beside_polling(url: &str, half: f64) -> Result<Run> {
    let erp = servers::connect(url).await?;
    let count = "SELECT count(*) FROM pgbench_history";
    let known = erp.query_one(count, &[]).await.and_then(|row| row.try_get::<_, i64>(0));
    let known = known.coded(Code::Internal, "cannot count")?;
    let tables = ["pgbench_history".to_owned()];
    let stage = Stage::start_at(url, &tables, None, GAIT).await?;
    stage.cloud.staged(known.unsigned_abs()).await?;
    clock::sleep(SETTLE).await;
    let run = pgbench(url, (TIME, Some(half))).await?;
    stage.stop().await?;
    Ok(run)
}

async fn beside_load(url: &str, half: f64) -> Result<(Run, u64)> {
    let tables = ["t".to_owned()];
    let stage = Stage::start_at(url, &tables, None, GAIT).await?;
    stage.cloud.staged(1).await?;
    let staged = async || counter(&stage.cloud.metrics().await, "malote_rows_staged_total");
    let (before, begun) = (staged().await, Mono::now());
    let run = pgbench(url, (TIME, Some(half))).await?;
    let moved = staged().await.saturating_sub(before);
    if begun.elapsed() < Duration::from_secs(TIME) {
        return Err(Error::new(Code::Internal, "pgbench ended early"));
    }
    stage.stop().await?;
    Ok((run, moved))
}

/// Runs pgbench for so many seconds, at that rate or as fast as it goes.
async fn pgbench(url: &str, (seconds, rate): (u64, Option<f64>)) -> Result<Run> {
    let mut words = ["-n", "-c", CLIENTS, "-j", "2", "-T"].map(str::to_owned).to_vec();
    words.push(seconds.to_string());
    if let Some(rate) = rate {
        words.extend(["-R".to_owned(), format!("{rate:.0}")]);
    }
    let told = call(url, &words).await?;
    let number = |head: &str| {
        let line = told.lines().find_map(|line| line.trim().strip_prefix(head))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let (latency, tps) = (number("latency average = "), number("tps = "));
    let unread = || Error::new(Code::Internal, format!("pgbench says: {told}"));
    Ok(Run { latency: latency.ok_or_else(unread)?, tps: tps.ok_or_else(unread)? })
}

async fn call(url: &str, words: &[String]) -> Result<String> {
    let mut command = Command::new(servers::available()?.join("pgbench"));
    command.args(words).arg(url);
    let done = task::blocking(move || command.output()).await?;
    let done = done.coded(Code::Internal, "cannot run pgbench")?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(Error::new(Code::Internal, format!("pgbench failed: {words}")))
}

/// The run whose latency is the middle one.
fn middle(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.latency.total_cmp(&b.latency));
    runs.get(runs.len() / 2).copied().unwrap_or(Run { latency: 0.0, tps: 0.0 })
}

fn told(run: Run, alone: Option<Run>) -> String {
    let more = alone.map_or_else(String::new, |alone| {
        let percent = |now: f64, before: f64| (now / before - 1.0) * 100.0;
        let (latency, tps) = (percent(run.latency, alone.latency), percent(run.tps, alone.tps));
        format!(" ({latency:+.1} % latency, {tps:+.1} % tps)")
    });
    format!("{:.2} ms, {:.0} tps{more}", run.latency, run.tps)
}
