//! Out: stdout is data, stderr is talk.
//!
//! Promises: a reader that went away (`malote … | head`) is no error.
//! Never: mixes the two.

use std::io;

/// One line of data.
pub(crate) fn data(line: impl AsRef<str>) {
    put(io::stdout().lock(), line.as_ref());
}

/// One line of talk.
pub(crate) fn talk(line: impl AsRef<str>) {
    put(io::stderr().lock(), line.as_ref());
}

fn put(mut to: impl io::Write, line: &str) {
    // An error means that nobody reads; the exit code still tells how it went.
    let _ = writeln!(to, "{line}").and_then(|()| to.flush());
}
