//! Measure: time, CPU and memory of processes, counters of the server, lines of the table.

use std::{fs, time::Duration};

use protocol::{Code, Coded as _, Result};
use sim::process;

/// Clock ticks a second in `/proc`; Linux has had 100 on every machine for long.
const TICKS: f64 = 100.0;

/// CPU time of a process, all its threads.
///
/// # Errors
/// Where the process is gone or this is not Linux.
pub(crate) fn cpu(id: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).coded(Code::Internal, "no /proc")?;
    // The name stands in parentheses and may hold blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(Duration::from_secs_f64(ticks / TICKS))
}

/// A line of `/proc/PID/status` in MiB, such as `VmHWM` (most memory so far) or `VmRSS` (now).
///
/// # Errors
/// As [`cpu`].
pub(crate) fn memory(id: u32, line: &str) -> Result<f64> {
    #[expect(clippy::cast_precision_loss, reason = "a figure shown to people")]
    process::memory(id, line).map(|bytes| bytes as f64 / 1_048_576.0)
}

/// Memory of a process now, as figures show it: all, and of it what the process made itself; the rest are pages of its
/// program and of files, which the system takes back where it needs them.
///
/// # Errors
/// As [`cpu`].
pub(crate) fn memory_now(id: u32) -> Result<String> {
    let (all, own) = (memory(id, "VmRSS")?, memory(id, "RssAnon")?);
    Ok(format!("{all:.0} MiB ({own:.0} of its own)"))
}

/// Sum of a counter over its labels, from the text of `/metrics`.
#[must_use]
pub(crate) fn counter(metrics: &str, name: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .map(|value| value as u64)
        .sum()
}

/// Rows a second, as figures show it.
pub(crate) fn rate(rows: u64, time: Duration) -> String {
    format!("{:.0} rows/s ({:.1} s)", rows as f64 / time.as_secs_f64(), time.as_secs_f64())
}

/// CPU-seconds a million rows.
pub(crate) fn per_million(time: Duration, rows: u64) -> f64 {
    time.as_secs_f64() * 1e6 / rows as f64
}

/// Times at the middle and at the 99th of a hundred, as figures show them.
pub(crate) fn middle_and_late(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |hundredths: usize| {
        let place = times.len().saturating_sub(1) * hundredths / 100;
        times.get(place).copied().unwrap_or_default().as_secs_f64() * 1e3
    };
    format!("{:.1} ms, {:.1} ms", at(50), at(99))
}

/// One figure, as a row of a table.
#[expect(clippy::print_stdout, reason = "a bench speaks on stdout")]
pub(crate) fn figure(what: &str, value: &str) {
    println!("| {what} | {value} |");
}

#[expect(clippy::print_stderr, reason = "words beside the figures")]
pub(crate) fn talk(words: &str) {
    eprintln!("{words}");
}
