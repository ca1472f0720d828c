//! Detail: where the detailed log lies, and what of it may be ordered, whoever orders it.
//!
//! Promises: what is ordered is within bounds and leaves the disk the room that reading needs.
//! Never: begins or ends a recording.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use protocol::{Code, Error, Result, limits};
use runtime::recording::{Detail, Order};

use super::Journal;

/// In the data folder.
pub const DETAIL_LOG: &str = "detail.log";

/// A recording as it is begun, where it is within bounds. `free` are the bytes that the disk has left, where that is
/// known.
///
/// # Errors
/// `BAD_REQUEST` beyond a bound, `DISK_FULL`.
pub fn detail_order(
    file: &Path,
    (level, time): (Detail, Duration),
    max_bytes: u64,
    free: Option<u64>,
) -> Result<Order> {
    let refuse = |words: String| Err(Error::new(Code::BadRequest, words));
    if time.is_zero() || time > limits::DETAIL_TIME {
        let most = limits::DETAIL_TIME.as_secs();
        return refuse(format!("a detailed log is on for 1 to {most} seconds"));
    }
    let (least, most) = (limits::DETAIL_LEAST_BYTES, limits::DETAIL_BYTES);
    if !(least..=most).contains(&max_bytes) {
        return refuse(format!("a detailed log has {least} to {most} bytes"));
    }
    let needed = max_bytes.saturating_add(limits::DISK_FREE_BYTES);
    if let Some(free) = free.filter(|free| *free < needed) {
        let words = format!(
            "{free} bytes are free; a log of {max_bytes} would leave less than reading needs"
        );
        return Err(Error::new(Code::DiskFull, words));
    }
    Ok(Order { file: file.to_owned(), level, time, max_bytes })
}

impl Journal {
    /// File of the detailed log.
    #[must_use]
    pub fn detail_log(&self) -> PathBuf {
        self.shared.path.with_file_name(DETAIL_LOG)
    }
}
