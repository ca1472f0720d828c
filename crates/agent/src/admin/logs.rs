//! Logs: a person switches the detailed log on for a while, reads it, switches it off.
//!
//! Promises: what is asked for is within bounds and leaves the disk the room that reading needs; whole lines are shown.
//! Never: shows another file; lets the log grow while nobody set an end.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Query, State, rejection::QueryRejection},
    routing,
};
use protocol::{Code, Coded as _, Error, Result, limits};
use runtime::{
    files,
    recording::{self, Detail, Order, Recording},
    task,
};
use serde::{Deserialize, Serialize};

use super::door::{Behind, Refusal, parsed};
use crate::journal::detail_order;

/// Lines where nobody says how many.
const USUAL_LINES: usize = 200;

pub(super) fn routes() -> Router<Behind> {
    Router::new().route("/v1/logs", routing::get(show).post(switch_on).delete(switch_off))
}

/// An order to record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogOrder {
    #[serde(default)]
    pub level: Detail,
    pub seconds: u64,
    pub max_bytes: u64,
}

impl LogOrder {
    /// As a recording, where it is within bounds and the disk has room.
    fn checked(&self, file: &Path, free: Option<u64>) -> Result<Order> {
        let time = Duration::from_secs(self.seconds);
        detail_order(file, (self.level, time), self.max_bytes, free)
    }
}

/// A detailed log that is on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogStatus {
    pub level: Detail,
    /// ISO 8601.
    pub until: String,
    /// So far.
    pub bytes: u64,
    pub max_bytes: u64,
}

impl From<Recording> for LogStatus {
    fn from(told: Recording) -> Self {
        let Recording { level, until, bytes, max_bytes, .. } = told;
        Self { level, until: until.to_iso(), bytes, max_bytes }
    }
}

/// A part of the file.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogPage {
    /// Whole lines.
    pub text: String,
    /// Where the next part begins, in bytes.
    pub next: u64,
    /// Absent: nothing comes any more.
    pub on: Option<LogStatus>,
}

/// The detailed log, where it is on.
pub(super) fn on(file: &Path) -> Option<LogStatus> {
    recording::of(file).map(LogStatus::from)
}

async fn switch_on(
    State(behind): State<Behind>,
    body: axum::body::Bytes,
) -> Result<Json<LogStatus>, Refusal> {
    let order: LogOrder = parsed(&body, "{\"level\": \"debug\", \"seconds\": …, \"maxBytes\": …}")?;
    let free = behind.log.parent().and_then(files::free);
    let told = recording::begin(order.checked(&behind.log, free)?)?;
    tracing::info!(
        level = order.level.as_str(),
        seconds = order.seconds,
        max_bytes = order.max_bytes,
        "the detailed log is on, by a person"
    );
    Ok(Json(told.into()))
}

async fn switch_off(State(behind): State<Behind>) -> Json<Option<LogStatus>> {
    Json(recording::end(&behind.log).map(LogStatus::from))
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogQuery {
    lines: Option<usize>,
    from: Option<u64>,
}

async fn show(
    State(behind): State<Behind>,
    asked: Result<Query<LogQuery>, QueryRejection>,
) -> Result<Json<LogPage>, Refusal> {
    let Query(asked) = asked.map_err(|cause| {
        Error::new(Code::BadRequest, "logs takes ?lines=… or ?from=…").because(cause)
    })?;
    let log = Arc::clone(&behind.log);
    Ok(Json(task::blocking(move || page(&log, asked)).await??))
}

fn page(file: &Path, asked: LogQuery) -> Result<LogPage> {
    // Asked before the file is read: what is written in between is in the next part.
    let on = on(file);
    let words = || format!("cannot read {}", file.display());
    let mut log = match File::open(file) {
        Err(cause) if cause.kind() == ErrorKind::NotFound => {
            let words = "no detailed log was ever on; malote agent logs on begins one";
            return Err(Error::new(Code::NotFound, words));
        }
        opened => opened.coded(Code::JournalFailed, words())?,
    };
    let length = log.metadata().coded(Code::JournalFailed, words())?.len();
    let most = limits::DETAIL_PAGE_BYTES;
    // A place behind the end is one of a file that another has taken the place of since.
    let from = match asked.from {
        Some(from) => Some(from).filter(|from| *from <= length).unwrap_or(0),
        None => length.saturating_sub(most),
    };
    let mut bytes = Vec::new();
    log.seek(SeekFrom::Start(from))
        .and_then(|_| log.take(most.min(length - from)).read_to_end(&mut bytes))
        .coded(Code::JournalFailed, words())?;
    // A line that fills a part alone is shown in parts.
    let none = if bytes.len() as u64 == most { bytes.len() } else { 0 };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(none, |at| at + 1);
    bytes.truncate(whole);
    let next = from + whole as u64;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if asked.from.is_none() {
        if from > 0 {
            // The first line was cut.
            text = text.split_once('\n').map(|(_, rest)| rest.to_owned()).unwrap_or_default();
        }
        text = last_lines(&text, asked.lines.unwrap_or(USUAL_LINES)).to_owned();
    }
    Ok(LogPage { text, next, on })
}

fn last_lines(text: &str, lines: usize) -> &str {
    // The last line break ends the last line, the one before begins it.
    let mut starts = text.rmatch_indices('\n').map(|(at, _)| at + 1);
    starts.nth(lines).and_then(|at| text.get(at..)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::DETAIL_LOG;

    #[test]
    fn an_order_is_taken_within_bounds_and_where_the_disk_keeps_its_room() {
        let order = LogOrder { level: Detail::Debug, seconds: 60, max_bytes: 1_000_000 };
        let code = |change: &dyn Fn(&mut LogOrder), free: Option<u64>| {
            let mut order = order.clone();
            change(&mut order);
            order.checked(Path::new("x"), free).map(|order| order.time).map_err(|error| error.code)
        };
        let minute = Ok(Duration::from_secs(60));
        assert_eq!(code(&|_| {}, None), minute);
        let enough = limits::DISK_FREE_BYTES + 1_000_000;
        assert_eq!(code(&|_| {}, Some(enough)), minute);
        assert_eq!(code(&|_| {}, Some(enough - 1)), Err(Code::DiskFull));
        let bad = Err(Code::BadRequest);
        assert_eq!(code(&|order| order.seconds = 0, None), bad);
        assert_eq!(code(&|order| order.seconds = 24 * 3_600 + 1, None), bad);
        assert_eq!(code(&|order| order.max_bytes = limits::DETAIL_LEAST_BYTES - 1, None), bad);
        assert_eq!(code(&|order| order.max_bytes = limits::DETAIL_BYTES + 1, None), bad);
    }

    #[test]
    fn the_last_lines_are_shown_and_then_what_follows_in_whole_lines() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(DETAIL_LOG);
        let look = |lines, from| page(&file, LogQuery { lines, from });
        assert_eq!(look(None, None).unwrap_err().code, Code::NotFound);
        std::fs::write(&file, "one\ntwo\nthree\nfo").unwrap();
        let text = |lines| look(Some(lines), None).unwrap().text;
        assert_eq!([text(0), text(1), text(2)], ["", "three\n", "two\nthree\n"]);
        assert_eq!((text(3), text(9)), ("one\ntwo\nthree\n".into(), "one\ntwo\nthree\n".into()));
        let first = look(Some(1), None).unwrap();
        assert_eq!((first.next, first.on), (14, None));
        std::fs::write(&file, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(look(None, Some(first.next)).unwrap().text, "four\n");
        assert_eq!(look(None, Some(19)).unwrap().text, "");
        std::fs::write(&file, "new\n").unwrap();
        assert_eq!(look(None, Some(19)).unwrap().text, "new\n");
        // More than a part holds: the tail, from its first whole line on; or part after part.
        let line = format!("{}\n", "x".repeat(999));
        std::fs::write(&file, format!("begin\n{}", line.repeat(1_500))).unwrap();
        assert_eq!(look(Some(9_999), None).unwrap().text, line.repeat(999));
        let part = look(None, Some(0)).unwrap();
        assert!(part.text.starts_with("begin\n") && part.text.ends_with('\n'));
        let rest = look(None, Some(part.next)).unwrap();
        assert_eq!(part.text.len() + rest.text.len(), 6 + 1_500_000);
    }
}
