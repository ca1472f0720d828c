//! PostgreSQL's errors under our codes, by SQLSTATE.
//!
//! Never: copies the server's words into the message, since they may hold values; they go to the log as the cause's code.

use protocol::{Code, Error};

pub(super) fn fault(cause: tokio_postgres::Error) -> Error {
    let Some(database) = cause.as_db_error() else {
        let words = "the database does not answer or broke the connection";
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
