//! Act: reads an order of the server as what the journal is to do.
//!
//! Promises: an order that does not read, or that this agent does not know, has an outcome with a code.
//! Never: touches a table; what is not the journal's own (the detailed log) is done here, and is the same done twice.

use std::{path::Path, time::Duration};

use protocol::{
    Code, Error, Result,
    key::KeyBytes,
    limits,
    names::TableName,
    proto::fleet::{Command, Verb},
};
use runtime::{
    clock::Wall,
    files,
    recording::{self, Detail},
};

use crate::journal::{Deed, Halt, KeySpan, detail_order};

/// Minutes of a detailed log where the order names none.
const USUAL_MINUTES: u64 = 30;
/// Bytes of a detailed log that was ordered; a person on the machine may ask for more.
const LOG_BYTES: u64 = 50_000_000;

/// What is to be done for an order.
pub(super) fn deed(command: &Command, log: &Path, now: Wall) -> Deed {
    read(command, log, now).unwrap_or_else(|error| {
        tracing::warn!(%error, "an order cannot be carried out");
        Deed::Ended(Some(error.code))
    })
}

fn read(command: &Command, log: &Path, now: Wall) -> Result<Deed> {
    let table = match command.table.as_str() {
        "" => None,
        name => Some(name.parse::<TableName>()?),
    };
    let word = |name: &str| command.args.get(name).map(String::as_str);
    match Verb::try_from(command.verb).unwrap_or(Verb::Unspecified) {
        Verb::Reload => Ok(Deed::Reload(table)),
        Verb::Pause => {
            let who = word("who").unwrap_or("an operator of the server");
            Ok(Deed::Pause(table, Halt::new(who, word("why").unwrap_or_default(), now)))
        }
        Verb::Resume => Ok(Deed::Resume(table)),
        Verb::Retry => Ok(Deed::Retry(table)),
        Verb::LogLevel => {
            record(log, word("level").unwrap_or_default(), word("minutes"))?;
            Ok(Deed::Ended(None))
        }
        Verb::Verify => compare(table, (word("from"), word("to")), false),
        Verb::Repair => compare(table, (word("from"), word("to")), true),
        Verb::Unspecified => {
            let words = format!("this agent knows no order {}", command.verb);
            Err(Error::new(Code::VerbUnsupported, words))
        }
    }
}

/// Verification, or repair, of a table within a range of keys, or of all tables.
fn compare(
    table: Option<TableName>,
    (from, to): (Option<&str>, Option<&str>),
    repair: bool,
) -> Result<Deed> {
    let tables = usize::from(table.is_some());
    let span = KeySpan::asked(key(from)?, key(to)?)?.of_tables(tables)?;
    Ok(Deed::Verify { table, repair, span })
}

/// A key as an order names it: the value of its one column, or a JSON list of the values; nothing = no bound.
fn key(text: Option<&str>) -> Result<KeyBytes> {
    match text.unwrap_or_default() {
        "" => Ok(KeyBytes::default()),
        list if list.starts_with('[') => {
            let unread = |cause| {
                let words = "a key of several columns is a list of texts, as in [\"1\",\"10\"]";
                Error::new(Code::BadRequest, words).because(cause)
            };
            let values: Vec<String> = serde_json::from_str(list).map_err(unread)?;
            Ok(KeyBytes::of(values.iter().map(String::as_str)))
        }
        value => Ok(KeyBytes::of([value])),
    }
}

fn record(log: &Path, level: &str, minutes: Option<&str>) -> Result<()> {
    let level = match level.to_ascii_lowercase().as_str() {
        "off" => {
            let _ = recording::end(log);
            return Ok(());
        }
        "info" => Detail::Info,
        "debug" => Detail::Debug,
        "trace" => Detail::Trace,
        _ => return Err(Error::new(Code::BadRequest, "a level is info, debug, trace or off")),
    };
    let bad = |_| Error::new(Code::BadRequest, "minutes is a number");
    let minutes = minutes.map_or(Ok(USUAL_MINUTES), |text| text.parse().map_err(bad))?;
    let most = limits::DETAIL_TIME.as_secs() / 60;
    let time = Duration::from_secs(minutes.min(most + 1) * 60);
    let free = log.parent().and_then(files::free);
    recording::begin(detail_order(log, (level, time), LOG_BYTES, free)?)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered(verb: i32, table: &str, args: &[(&str, &str)]) -> Deed {
        let args = args.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let command = Command { id: "x".into(), verb, table: table.into(), args };
        let folder = tempfile::tempdir().unwrap();
        deed(&command, &folder.path().join("detail.log"), Wall(7))
    }

    #[test]
    fn an_order_is_read_with_its_table_or_for_all() {
        let table: TableName = "FLAN".parse().unwrap();
        assert_eq!(ordered(Verb::Reload.into(), "FLAN", &[]), Deed::Reload(Some(table.clone())));
        assert_eq!(ordered(Verb::Reload.into(), "", &[]), Deed::Reload(None));
        assert_eq!(ordered(Verb::Resume.into(), "FLAN", &[]), Deed::Resume(Some(table.clone())));
        assert_eq!(ordered(Verb::Retry.into(), "", &[]), Deed::Retry(None));
        let halt = Halt::new("ana (laptop)", "month end", Wall(7));
        let args = [("who", "ana (laptop)"), ("why", "month end")];
        let paused = Deed::Pause(Some(table.clone()), halt);
        assert_eq!(ordered(Verb::Pause.into(), "FLAN", &args), paused);
        let part = [("from", "1"), ("to", "[\"1\",\"10\"]")];
        let span = KeySpan { from: KeyBytes::of(["1"]), to: KeyBytes::of(["1", "10"]) };
        let verify = |table, repair, span| Deed::Verify { table, repair, span };
        let mended = verify(Some(table), true, span);
        assert_eq!(ordered(Verb::Repair.into(), "FLAN", &part), mended);
        let all = verify(None, false, KeySpan::default());
        assert_eq!(ordered(Verb::Verify.into(), "", &[]), all);
    }

    #[test]
    fn what_this_agent_does_not_know_or_cannot_read_fails_with_a_code() {
        let code = |verb: i32, table: &str, args: &[(&str, &str)]| match ordered(verb, table, args)
        {
            Deed::Ended(code) => code,
            other => panic!("{other:?}"),
        };
        for verb in [0, 8, -1] {
            assert_eq!(code(verb, "FLAN", &[]), Some(Code::VerbUnsupported), "{verb}");
        }
        assert_eq!(code(Verb::Reload.into(), "a\0b", &[]), Some(Code::BadName));
        let part = [("from", "[1,2]")];
        assert_eq!(code(Verb::Verify.into(), "FLAN", &part), Some(Code::BadRequest));
        // No key lies between these two, and a part is one table's.
        for (table, from, to) in [("FLAN", "7", "7"), ("FLAN", "10", "9"), ("", "7", "9")] {
            let part = [("from", from), ("to", to)];
            for verb in [Verb::Verify, Verb::Repair] {
                let told = code(verb.into(), table, &part);
                assert_eq!(told, Some(Code::BadRequest), "{table} {from} {to}");
            }
        }
        let log = |args: &[(&str, &str)]| code(Verb::LogLevel.into(), "", args);
        assert_eq!(log(&[("level", "loud")]), Some(Code::BadRequest));
        for minutes in ["0", "1441", "18446744073709551615", "soon"] {
            let args = [("level", "debug"), ("minutes", minutes)];
            assert_eq!(log(&args), Some(Code::BadRequest), "{minutes}");
        }
        assert_eq!(log(&[("level", "off")]), None);
    }
}
