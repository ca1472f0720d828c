//! Cores: one machine shown as two: the ERP's half of the cores, and the other.
//!
//! Promises: what a process starts later stays on its half.
//! Never: on a machine of one core.

use std::process::Command;

use protocol::{Code, Coded as _, Error, Result};

/// A disk that shares nothing with the one of the ERP.
pub(crate) const MEMORY: &str = "/dev/shm";

/// The cores this program was started with, as two halves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Halves {
    all: usize,
}

impl Halves {
    /// Keeps to the first half, with all that this program starts and that is not given the other.
    ///
    /// # Errors
    /// Where there is but one core, or no `taskset` (Linux's `util-linux`).
    pub(crate) fn keep_to_one() -> Result<Self> {
        let all = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if all < 2 {
            return Err(Error::new(Code::BadRequest, "there is one core alone: use --together"));
        }
        give(std::process::id(), 0..all / 2)?;
        Ok(Self { all })
    }

    /// Gives a process, with all its threads, the second half.
    ///
    /// # Errors
    /// Where it is gone.
    pub(crate) fn give_the_other(self, process: u32) -> Result<()> {
        give(process, self.all / 2..self.all)
    }
}

fn give(process: u32, cores: std::ops::Range<usize>) -> Result<()> {
    let cores = format!("{}-{}", cores.start, cores.end.saturating_sub(1));
    let mut command = Command::new("taskset");
    command.args(["--all-tasks", "--cpu-list", "--pid", &cores, &process.to_string()]);
    let done = command.output().coded(Code::Internal, "cannot run taskset")?;
    if done.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(Error::new(Code::Internal, format!("taskset says: {}", words.trim())))
}
