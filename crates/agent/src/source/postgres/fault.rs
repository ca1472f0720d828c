//! PostgreSQL's errors under our codes, by SQLSTATE.
//!
//! Never: copies the server's words into the message, since they may hold values; they go to the log as the cause's code.

use protocol::{Code, Error};
use runtime::dial;
use tokio_postgres::{Config, config::Host};

/// As [`fault`], of a connection that did not come about: the words name the address, and what stands in the way.
pub(super) fn unconnected(cause: tokio_postgres::Error, config: &Config) -> Error {
    let place = address(config);
    if cause.as_db_error().is_some() {
        return fault(cause).at(place);
    }
    let why = dial::why(&cause);
    // The library has no other sign of a handshake that failed.
    if cause.to_string().starts_with("error performing TLS handshake") {
        let words = why.unwrap_or("the database takes no encrypted connection");
        return Error::new(Code::SourceTls, words).at(place).because(cause);
    }
    let words = why.unwrap_or("the database does not answer");
    Error::new(Code::SourceUnreachable, words).at(place).because(cause)
}

/// `host:port` of the first address.
pub(super) fn address(config: &Config) -> String {
    let port = config.get_ports().first().copied().unwrap_or(5432);
    match config.get_hosts().first() {
        Some(Host::Tcp(name)) => format!("{name}:{port}"),
        #[cfg(unix)]
        Some(Host::Unix(folder)) => format!("{}/.s.PGSQL.{port}", folder.display()),
        None => "source.url".to_owned(),
    }
}

pub(super) fn fault(cause: tokio_postgres::Error) -> Error {
    let Some(database) = cause.as_db_error() else {
        let words =
            dial::why(&cause).unwrap_or("the database does not answer or broke the connection");
        return Error::new(Code::SourceUnreachable, words).because(cause);
    };
    let state = database.code().code().to_owned();
    let (code, words) = meaning(&state);
    // The server's message names values in some errors (class 22); only the state goes on.
    Error::new(code, format!("{words} (SQLSTATE {state})"))
}

fn meaning(state: &str) -> (Code, &'static str) {
    let class = state.get(..2).unwrap_or_default();
    match (class, state) {
        ("28", _) | (_, "3D000") => (Code::SourceLogin, "the database refused the login"),
        (_, "42501") => (Code::SourceRights, "the login may not read this"),
        (_, "57014") => (Code::SourceTimeout, "the statement took longer than allowed"),
        (_, "55P03") => (Code::SourceTimeout, "a lock was held longer than allowed"),
        (_, "42P01" | "3F000") => (Code::TableMissing, "the table is not there"),
        (_, "42703" | "42804" | "42883") => {
            (Code::SchemaChanged, "the table's columns are not what they were")
        }
        (_, "53300" | "57P01" | "57P02" | "57P03") | ("08", _) => {
            (Code::SourceUnreachable, "the database is not taking connections")
        }
        ("22", _) => (Code::SourceFailed, "a value did not fit its column's type"),
        _ => (Code::SourceFailed, "the database reported an error"),
    }
}
