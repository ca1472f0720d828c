//! Recording: a second, detailed log in a file, on for a limited time and size.
//!
//! Promises: ends by itself at its time or its size and with the process; the file is its owner's alone and never longer
//! than was asked for; a line is in it whole or not at all.
//! Never: goes on after a restart; takes more than warnings from packages of others, which may name what must not be
//! logged.

use std::{
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    clock::{self, Mono, Wall},
    files, task,
};

/// Programs of ours that speak at the level asked for.
const OWN: [&str; 4] = ["agent", "malote", "protocol", "runtime"];

/// How much is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    Info,
    #[default]
    Debug,
    Trace,
}

impl Detail {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self) -> EnvFilter {
        let own = OWN.map(|name| format!("{name}={}", self.as_str()));
        EnvFilter::new(format!("warn,{}", own.join(",")))
    }
}

/// What to record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Order {
    /// Replaced by an empty file.
    pub file: PathBuf,
    pub level: Detail,
    pub time: Duration,
    pub max_bytes: u64,
}

/// A recording that is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Recording {
    pub file: PathBuf,
    pub level: Detail,
    /// By the machine's clock, for people; the end is measured by the monotonic one.
    pub until: Wall,
    pub bytes: u64,
    pub max_bytes: u64,
}

/// The file of a recording; dropping it ends the recording.
struct Tape {
    file: File,
    end: Mono,
    told: Recording,
    /// Gone with this, which is what the watch over it waits for.
    _alive: watch::Sender<()>,
}

impl Tape {
    /// Whether the line was taken; else the recording is over.
    fn take(&mut self, line: &[u8]) -> bool {
        let bytes = self.told.bytes.saturating_add(line.len() as u64);
        let fits = bytes <= self.told.max_bytes && Mono::now() < self.end;
        if !fits || self.file.write_all(line).is_err() {
            return false;
        }
        self.told.bytes = bytes;
        true
    }
}

type SetFilter = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// One recording a process, as there is one log.
static TAPE: Mutex<Option<Tape>> = Mutex::new(None);
static FILTER: OnceLock<SetFilter> = OnceLock::new();
/// Held while tape and filter change together; never while a line is written.
static STEERING: Mutex<()> = Mutex::new(());

/// Called by the telemetry once it writes to [`Sink`]; the filter is that of this sink alone.
pub(crate) fn attach(set: impl Fn(EnvFilter) + Send + Sync + 'static) {
    let _ = FILTER.set(Box::new(set));
}

/// What lets nothing through.
pub(crate) fn silent() -> EnvFilter {
    EnvFilter::new("off")
}

/// Begins; a recording that is on ends.
///
/// # Errors
/// `JOURNAL_FAILED` where the file cannot be made; `INTERNAL` where the process does not log.
pub fn begin(order: Order) -> Result<Recording> {
    let set =
        FILTER.get().ok_or_else(|| Error::new(Code::Internal, "this process does not log"))?;
    let words = format!("cannot make the log file {}", order.file.display());
    let steering = lock(&STEERING);
    *lock(&TAPE) = None;
    let file = files::fresh(&order.file).coded(Code::JournalFailed, words)?;
    let until =
        Wall::now().0.saturating_add(i64::try_from(order.time.as_micros()).unwrap_or(i64::MAX));
    let told = Recording {
        file: order.file,
        level: order.level,
        until: Wall(until),
        bytes: 0,
        max_bytes: order.max_bytes,
    };
    let (alive, gone) = watch::channel(());
    let end = Mono::now() + order.time;
    *lock(&TAPE) = Some(Tape { file, end, told: told.clone(), _alive: alive });
    set(order.level.filter());
    drop(steering);
    task::spawn("recording", watch_over(told.file.clone(), order.time, gone));
    Ok(told)
}

/// Ends the recording in that file.
///
/// Gives what it was, where there was one.
pub fn end(file: &Path) -> Option<Recording> {
    let steering = lock(&STEERING);
    let told = of(file)?;
    *lock(&TAPE) = None;
    hush();
    drop(steering);
    Some(told)
}

/// The recording in that file, where one is on.
#[must_use]
pub fn of(file: &Path) -> Option<Recording> {
    let tape = lock(&TAPE);
    tape.as_ref().map(|tape| &tape.told).filter(|told| told.file == file).cloned()
}

/// Waits until the tape is gone, or its time is over.
async fn watch_over(file: PathBuf, time: Duration, mut gone: watch::Receiver<()>) {
    tokio::select! {
        biased;
        // The sender never sends: an answer means that it is gone.
        _ = gone.changed() => {}
        () = clock::sleep(time) => {}
    }
    let steering = lock(&STEERING);
    let over = |tape: &Tape| tape.end <= Mono::now();
    let mut tape = lock(&TAPE);
    if tape.as_ref().is_some_and(over) {
        *tape = None;
    }
    let on = tape.is_some();
    drop(tape);
    // Another one may have begun since.
    if !on {
        hush();
        drop(steering);
        tracing::info!(file = %file.display(), "the detailed log is off");
    }
}

fn hush() {
    if let Some(set) = FILTER.get() {
        set(silent());
    }
}

/// Where the telemetry writes what is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink;

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut tape = lock(&TAPE);
        if tape.as_mut().is_some_and(|tape| !tape.take(line)) {
            *tape = None;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Sink {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

/// What is behind these locks is whole at any moment.
fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::{self, LogFormat};

    fn order(file: &Path, time: Duration, max_bytes: u64) -> Order {
        Order { file: file.to_owned(), level: Detail::Debug, time, max_bytes }
    }

    async fn ends(file: &Path) {
        let over = async {
            while of(file).is_some() {
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), over).await.unwrap();
    }

    /// One test for all: a process has one recording.
    #[tokio::test]
    async fn a_recording_tells_details_of_our_own_until_its_time_or_size_and_never_more() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("detail.log");
        let hour = Duration::from_secs(3_600);
        assert_eq!(begin(order(&file, hour, 1_000)).unwrap_err().code, Code::Internal);
        telemetry::start("error", LogFormat::Json);
        tracing::debug!("before");
        std::fs::write(&file, "of another time").unwrap();
        begin(order(&file, hour, 5_000)).unwrap();
        tracing::debug!(n = 1, "during");
        tracing::trace!("finer");
        tracing::debug!(target: "hyper::proto", "of others");
        tracing::warn!(target: "hyper::proto", "warned");
        let text = std::fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), 2, "{text}");
        assert!(text.contains("during") && text.contains("warned"), "{text}");
        assert_eq!(of(&file).unwrap().bytes, text.len() as u64);
        assert_eq!(of(&home.path().join("other")), None);
        #[cfg(unix)]
        {
            let mode = std::fs::metadata(&file).unwrap().permissions();
            assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
        }
        // Full: the line that does not fit is not begun.
        for n in 0..200 {
            tracing::debug!(n, "filling");
        }
        ends(&file).await;
        let full = std::fs::read_to_string(&file).unwrap();
        assert!(
            full.len() <= 5_000 && full.len() > 4_500 && full.ends_with('\n'),
            "{}",
            full.len()
        );
        // Over by its time, without a line.
        begin(order(&file, Duration::from_millis(30), 5_000)).unwrap();
        ends(&file).await;
        tracing::debug!("after");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "");
        // Ended by a person; what began since is left alone by the watch over the one before.
        begin(order(&file, Duration::from_millis(1), 5_000)).unwrap();
        let other = home.path().join("other.log");
        begin(order(&other, hour, 5_000)).unwrap();
        assert_eq!(end(&file), None);
        tracing::debug!("goes on");
        assert_eq!(end(&other).unwrap().level, Detail::Debug);
        assert!(std::fs::read_to_string(&other).unwrap().contains("goes on"));
        assert_eq!(end(&other), None);
    }
}
