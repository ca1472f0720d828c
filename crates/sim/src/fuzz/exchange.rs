//! Lists of tables as the server takes them in, as TOML and as CSV.
//!
//! Promises: what is taken names each table once, and reads back alike from either format; what is refused is refused
//! with a code of its own.
//! Never: shares a table.

use std::collections::BTreeSet;

use protocol::{Code, filter::Filter};
use server::model::{
    catalog::At,
    exchange::{self, Format, Listed},
};

use super::{Found, fault, holds};

const FORMATS: [Format; 2] = [Format::Toml, Format::Csv];
const NOW: At = At(1_800_000_000_000_000);

/// The same text as either.
pub(super) fn list(bytes: &[u8]) -> Found {
    // A list is taken as text alone.
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    FORMATS.iter().try_for_each(|&format| taken(text, format))
}

fn taken(text: &str, format: Format) -> Found {
    let list = match exchange::read(text, format) {
        Ok(list) => list,
        Err(error) => {
            let known = matches!(error.code, Code::BadRequest | Code::BadName);
            return holds(known && !error.message.is_empty(), || format!("refused by {error}"));
        }
    };
    let tables: BTreeSet<_> = list.iter().map(|listed| &listed.table).collect();
    holds(tables.len() == list.len(), || "a table is taken twice".to_owned())?;
    for again in FORMATS {
        let written = exchange::write(&list, again).map_err(fault("it cannot be written"))?;
        let read = exchange::read(&written, again);
        let read =
            read.map_err(|error| format!("as {again:?} it is refused: {error}\n{written}"))?;
        holds(read == list, || format!("as {again:?} it reads as another one:\n{written}"))?;
        let changes = exchange::difference(&list, &read, true);
        holds(changes.is_empty(), || format!("taken in again it changes {changes:?}"))?;
    }
    list.iter().try_for_each(warned)
}

/// A filter that lets every row through is warned of.
fn warned(listed: &Listed) -> Found {
    let Some(filter) = &listed.filter else {
        return holds(exchange::warning(None, NOW).is_some(), || "no filter, no word".to_owned());
    };
    holds(!filter.trim().is_empty(), || "an empty filter is taken for one".to_owned())?;
    let columns = ["ID", "A", "RECMODIFIEDON"].map(str::parse);
    let columns = columns.into_iter().collect::<protocol::Result<Vec<_>>>();
    let columns = columns.map_err(fault("no columns"))?;
    if let Ok(filter) = Filter::parse(filter, &listed.table, &columns) {
        let _ = exchange::warning(Some(&filter), NOW);
    }
    Ok(())
}
