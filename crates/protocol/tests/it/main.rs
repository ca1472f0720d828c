//! Golden files of every wire shape; `MALOTE_GOLDEN=write` rewrites them, and the diff is then judged by a person.
#![expect(clippy::unwrap_used, reason = "a test may end by a panic")]

mod golden_files;
