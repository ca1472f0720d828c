//! Process: the real `malote` binary as a child, to be stopped, killed and started again.
//!
//! Promises: a child ends with whoever started it; its output is kept in a file and shown where a test fails.
//! Never: builds the binary; `./test.sh` (or `cargo build -p malote`) does.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::clock;

/// The binary beside a program of this workspace (`target/release/bench`) or above a test's own
/// (`target/debug/deps/it-…`).
///
/// # Errors
/// `NOT_FOUND` with how to build it.
pub fn binary() -> Result<PathBuf> {
    let own =
        std::env::current_exe().coded(Code::Internal, "this test does not know its own file")?;
    let mut beside = own.ancestors().skip(1).take(2).map(|folder| folder.join("malote"));
    beside.find(|path| path.exists()).ok_or_else(|| {
        Error::new(Code::NotFound, "the malote binary is missing; build it: cargo build -p malote")
    })
}

/// Runs a command of the binary to its end and gives its stdout.
///
/// # Errors
/// Where it fails, with its stderr.
pub fn command<S: AsRef<OsStr>>(folder: &Path, arguments: &[S]) -> Result<String> {
    let mut command = Command::new(binary()?);
    let done = command.args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    let done = done.coded(Code::Internal, "cannot run malote")?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    let output = [done.stdout, done.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned())
        .join(" / ");
    Err(Error::new(Code::Internal, format!("malote {} failed: {output}", words.join(" "))))
}

/// Runs a command of the binary to its end with that text at its stdin, however it ends.
///
/// # Errors
/// Where it cannot run.
pub fn answer<S: AsRef<OsStr>>(folder: &Path, arguments: &[S], stdin: &str) -> Result<Output> {
    let failed = "cannot run malote";
    let mut command = Command::new(binary()?);
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().coded(Code::Internal, failed)?;
    if let Some(mut to) = child.stdin.take() {
        // An error means that it ended without reading; how, its output tells.
        let _ = to.write_all(stdin.as_bytes());
    }
    child.wait_with_output().coded(Code::Internal, failed)
}

/// Bytes in a line of `/proc/{of}/status`, as Linux counts a process's memory: `VmHWM` is the most so far, `VmRSS` all
/// of now, `RssAnon` what of it the process made itself. `of` is a process id or `self`.
///
/// # Errors
/// Where there is no such process or line, or no Linux.
pub fn memory(of: impl std::fmt::Display, line: &str) -> Result<u64> {
    let status =
        fs::read_to_string(format!("/proc/{of}/status")).coded(Code::Internal, "no /proc")?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
    let kib = found.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.map(|kib| kib * 1024).ok_or_else(|| Error::new(Code::Internal, "no such line in /proc"))
}

/// A running `malote`.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `malote` with its output appended to `log`.
    ///
    /// # Errors
    /// Where the binary is missing or cannot start.
    pub fn start<S: AsRef<OsStr>>(folder: &Path, log: &Path, arguments: &[S]) -> Result<Self> {
        Self::start_in(folder, log, arguments, &[])
    }

    /// As [`Process::start`], with variables over this process's own.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_in<S: AsRef<OsStr>>(
        folder: &Path,
        log: &Path,
        arguments: &[S],
        variables: &[(String, String)],
    ) -> Result<Self> {
        let out = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .coded(Code::Internal, "no log")?;
        let err = out.try_clone().coded(Code::Internal, "no log")?;
        let mut command = Command::new(binary()?);
        command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(out).stderr(err);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let child = command.spawn().coded(Code::Internal, "cannot start malote")?;
        Ok(Self { child, log: log.to_owned() })
    }

    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// `kill -9`, and waits until it is gone.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().coded(Code::Internal, "cannot kill malote")?;
        self.child.wait().coded(Code::Internal, "cannot wait for malote")?;
        Ok(())
    }

    /// Sends a signal by name, e.g. `TERM`, `STOP`, `CONT`.
    ///
    /// # Errors
    /// Where the process is gone.
    pub fn signal(&self, name: &str) -> Result<()> {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        match done.coded(Code::Internal, "cannot run kill")?.success() {
            true => Ok(()),
            false => Err(Error::new(Code::Internal, format!("no process to send {name} to"))),
        }
    }

    /// Whether it has ended by itself, and how.
    ///
    /// # Errors
    /// Where the operating system refuses.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().coded(Code::Internal, "cannot ask for malote's end")
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// Where it does not end within `wait`; it is killed then.
    pub async fn stop(&mut self, wait: Duration) -> Result<ExitStatus> {
        self.signal("TERM")?;
        let begun = clock::Mono::now();
        while begun.elapsed() < wait {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
        self.kill()?;
        Err(Error::new(
            Code::Internal,
            format!("malote did not stop within {wait:?}: {}", self.log_end(20)),
        ))
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn log_end(&self, lines: usize) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = log.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be gone already; then there is nothing to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
