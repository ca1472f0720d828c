//! Impact: what an agent costs the ERP database it reads: pgbench at half of its greatest rate, alone, beside an agent that
//! polls, and beside one that makes a base load.
//!
//! Promises: each way is measured right behind a run alone, since the machine is not as fast at one time as at another; the
//! ERP and pgbench have one half of the cores in all of them, also alone, and Malote's server never that half or their
//! disk, unless all shares all (`--together`).

use std::{process::Command, time::Duration};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    clock::{self, Mono},
    task,
};
use sim::servers::{self, Postgres};

use super::{
    Options,
    cores::Halves,
    measure::{counter, figure, rate, talk},
    share,
    stage::{Apart, Gait, Stage},
};

/// Parts that can be measured alone.
pub(crate) const PARTS: [&str; 2] = ["polls", "load"];
/// Scale of pgbench: 1,000,000 accounts.
const SCALE: &str = "10";
const CLIENTS: &str = "8";
/// How long the greatest rate is looked for, and how long each way is measured.
const SEARCH: u64 = 15;
const TIME: u64 = 20;
/// How often each way is measured.
const ROUNDS: u64 = 3;
/// Between two runs.
const REST: Duration = Duration::from_secs(3);
/// What follows a base load (comparison of keys, rows within the allowance of the clock) is over by then.
const SETTLE: Duration = Duration::from_secs(15);

/// What pgbench says of one run.
#[derive(Clone, Copy)]
struct Run {
    /// Mean, in milliseconds, from when a transaction was due.
    latency: f64,
    tps: f64,
}

/// A way to measure: what it is called, what follows the ERP, and what is apart from it.
type Way = (&'static str, Reading, Apart);

/// One round of a way.
struct Pair {
    alone: Run,
    beside: Run,
    /// Rows staged beside it.
    staged: u64,
}

#[derive(Clone, Copy)]
enum Reading {
    Changes,
    Load,
}

/// Measures all ways.
///
/// # Errors
/// Where something cannot start or no row moves for a minute.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let ways = ways(options)?;
    let settings = ["shared_buffers=512MB", "max_wal_size=4GB", "fsync=on", "full_page_writes=on"];
    let postgres = Postgres::start_with(&settings).await?;
    let url = postgres.create_database("impact").await?;
    prepare(&url, options.rows).await?;
    talk("looking for the greatest rate");
    let most = pgbench(&url, (SEARCH, None)).await?;
    let half = most.tps / 2.0;
    figure("pgbench, greatest rate", &format!("{:.0} tps, {:.2} ms", most.tps, most.latency));
    let mut pairs: Vec<Vec<Pair>> = ways.iter().map(|_| vec![]).collect();
    for round in 1..=ROUNDS {
        for ((name, reading, apart), pairs) in ways.iter().zip(&mut pairs) {
            let gait = Gait { cycle_seconds: 5, duty_percent: 25, apart: *apart, store: None };
            settle(&url).await?;
            let alone = pgbench(&url, (TIME, Some(half))).await?;
            let (beside, staged) = match reading {
                Reading::Changes => (beside_polling(&url, half, gait).await?, 0),
                Reading::Load => beside_load(&url, half, gait).await?,
            };
            talk(&format!(
                "round {round} of {ROUNDS}: {:.2} ms, {name} {:.2} ms",
                alone.latency, beside.latency
            ));
            pairs.push(Pair { alone, beside, staged });
        }
    }
    for ((name, reading, _), pairs) in ways.into_iter().zip(&pairs) {
        figure(&format!("pgbench at half of it, alone and {name}"), &told(pairs));
        if matches!(reading, Reading::Load) {
            let staged = pairs.iter().map(|pair| pair.staged).sum::<u64>();
            figure(
                "of which were staged meanwhile",
                &rate(staged, Duration::from_secs(TIME * ROUNDS)),
            );
        }
    }
    Ok(())
}

/// What was left to write by whoever was there before is written.
async fn settle(url: &str) -> Result<()> {
    let erp = servers::connect(url).await?;
    erp.batch_execute("CHECKPOINT").await.coded(Code::Internal, "cannot settle")?;
    clock::sleep(REST).await;
    Ok(())
}

/// Agents as they are installed: on a machine of their own, or on the ERP's.
fn ways(options: &Options) -> Result<Vec<Way>> {
    let ways = if options.together {
        vec![
            ("beside an agent that polls", Reading::Changes, Apart::Nothing),
            ("beside a base load", Reading::Load, Apart::Nothing),
        ]
    } else {
        let halves = Halves::keep_to_one()?;
        let (server, both) = (Apart::Server(halves), Apart::ServerAndAgent(halves));
        let journal = Apart::ServerAndJournal(halves);
        vec![
            ("beside an agent that polls from another machine", Reading::Changes, both),
            (
                "beside one on the ERP's machine, its journal on another disk",
                Reading::Changes,
                journal,
            ),
            ("beside one on the ERP's machine and disk", Reading::Changes, server),
            ("beside a base load from another machine", Reading::Load, both),
            (
                "beside a base load on the ERP's machine, its journal on another disk",
                Reading::Load,
                journal,
            ),
        ]
    };
    let of_part = |way: &Way| match options.only.as_deref() {
        Some("polls") => matches!(way.1, Reading::Changes),
        Some("load") => matches!(way.1, Reading::Load),
        _ => true,
    };
    Ok(ways.into_iter().filter(of_part).collect())
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

async fn beside_polling(url: &str, half: f64, gait: Gait<'_>) -> Result<Run> {
    let erp = servers::connect(url).await?;
    let count = "SELECT count(*) FROM pgbench_history";
    let known = erp.query_one(count, &[]).await.and_then(|row| row.try_get::<_, i64>(0));
    let known = known.coded(Code::Internal, "cannot count")?;
    let tables = ["pgbench_history".to_owned()];
    let stage = Stage::start_at(url, &tables, None, gait).await?;
    stage.cloud.staged(known.unsigned_abs()).await?;
    clock::sleep(SETTLE).await;
    let run = pgbench(url, (TIME, Some(half))).await?;
    stage.stop().await?;
    Ok(run)
}

async fn beside_load(url: &str, half: f64, gait: Gait<'_>) -> Result<(Run, u64)> {
    let tables = ["t".to_owned()];
    let stage = Stage::start_at(url, &tables, None, gait).await?;
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

/// Both latencies, each the mean of its runs; by how much the second is above the first, and the least and the most of
/// that in a round.
fn told(pairs: &[Pair]) -> String {
    let mean = |of: fn(&Pair) -> f64| {
        pairs.iter().map(of).sum::<f64>()
            / f64::from(u32::try_from(pairs.len()).unwrap_or(1).max(1))
    };
    let percent = |now: f64, before: f64| (now / before - 1.0) * 100.0;
    let (alone, beside) = (mean(|pair| pair.alone.latency), mean(|pair| pair.beside.latency));
    let tps = percent(mean(|pair| pair.beside.tps), mean(|pair| pair.alone.tps));
    let mut each: Vec<f64> =
        pairs.iter().map(|pair| percent(pair.beside.latency, pair.alone.latency)).collect();
    each.sort_by(f64::total_cmp);
    let (least, most) = (each.first().copied(), each.last().copied());
    format!(
        "{alone:.2} ms, {beside:.2} ms: {:+.1} % ({:+.1} to {:+.1} in a round), {tps:+.1} % tps",
        percent(beside, alone),
        least.unwrap_or_default(),
        most.unwrap_or_default(),
    )
}
