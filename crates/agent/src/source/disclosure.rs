//! Disclosure of a shape: columns that stay in the building go, masked ones are marked.
//!
//! Promises: a declared column that is not there parks its table, since a misspelt one would travel as it is; what
//! pages, keys, stamps and added columns are made of can be neither left out nor masked.
//! Never: reads a row.

use protocol::{Code, Error, Result};

use super::{ColumnShape, ColumnSource, TableSpec, catalogue::Found};

/// Columns that travel whatever is declared, with the reason.
pub(super) struct Needed<'a> {
    pub name: &'a str,
    pub why: &'static str,
}

/// Leaves columns out and marks masked ones.
pub(super) fn apply(
    columns: &mut Vec<ColumnShape>,
    spec: &TableSpec,
    found: &Found,
    needed: &[Needed<'_>],
) -> Result<()> {
    let disclosure = &spec.disclosure;
    if let Some(name) = disclosure.named().find(|name| found.column(name.as_str()).is_none()) {
        let words = format!("there is no column {name}, which is declared");
        return Err(Error::new(Code::ConfigInvalid, words));
    }
    for column in &mut *columns {
        let shown = disclosure.shows(&column.name);
        column.mask = disclosure.mask(&column.name).cloned();
        if shown && column.mask.is_none() {
            continue;
        }
        let ColumnSource::Physical(physical) = &column.from else { continue };
        if let Some(Needed { why, .. }) = needed.iter().find(|needed| needed.name == physical) {
            let (name, what) = (&column.name, if shown { "masked" } else { "left out" });
            return Err(Error::new(
                Code::MaskUnfit,
                format!("column {name} cannot be {what}: {why}"),
            ));
        }
    }
    columns.retain(|column| disclosure.shows(&column.name));
    Ok(())
}
