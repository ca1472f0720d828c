//! Import: a place's list of tables as a file, out and in.
//!
//! Promises: a dry run tells exactly what a run would change; a run changes all of it or nothing.
//! Never: withdraws a table unless told to.

use protocol::{Code, Error, Result, limits, names::TableName};
use runtime::clock::Wall;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Catalog, checked_filter, everything, must_be_free, parsed};
use crate::model::{
    catalog::{At, Place},
    exchange::{self, Change, Format, Listed, Warning},
};

/// How a list is taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Import {
    /// Tell what would change, and change nothing.
    pub dry_run: bool,
    /// Withdraw what the list does not name.
    pub withdraw_missing: bool,
}

/// What an import changed, or would change.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Plan {
    /// False for a dry run.
    pub applied: bool,
    pub changes: Vec<Change>,
    /// Of filters that are missing or reach back over two years, among what is added or altered.
    pub warnings: Vec<String>,
}

impl Catalog {
    /// The tables a place shares, as a file.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn export(&self, place: &Place, format: Format) -> Result<String> {
        exchange::write(&self.listed(place).await?, format)
    }

    /// Takes a list in, or tells what it would change.
    ///
    /// # Errors
    /// `BAD_REQUEST`, `BAD_NAME`, `NAME_RESERVED`, `FILTER_REFUSED` for a list that cannot be taken; nothing is changed.
    pub async fn import(
        &self,
        place: &Place,
        (text, format): (&str, Format),
        how: Import,
    ) -> Result<Plan> {
        let too_many = || {
            let words = format!("a stream has at most {} tables", limits::STREAM_TABLES);
            Error::new(Code::BadRequest, words)
        };
        let wanted = exchange::read(text, format)?;
        if wanted.is_empty() && how.withdraw_missing {
            // More likely a file that was not written than a wish.
            let words = "the list is empty and would withdraw every table; withdraw them by name";
            return Err(Error::new(Code::BadRequest, words));
        }
        if wanted.len() > limits::STREAM_TABLES {
            return Err(too_many());
        }
        for listed in &wanted {
            let at = |error: Error| error.at(format!("table {}", listed.table));
            must_be_free(&listed.table)?;
            checked_filter(&listed.table, listed.filter.clone()).map_err(at)?;
        }
        let shared = self.listed(place).await?;
        let changes = exchange::difference(&shared, &wanted, how.withdraw_missing);
        let (added, withdrawn) = (count(&changes, true), count(&changes, false));
        if shared.len() + added > limits::STREAM_TABLES + withdrawn {
            return Err(too_many());
        }
        let warned = changes.iter().filter_map(|change| match change {
            Change::Add(new) | Change::Alter { after: new, .. } => {
                let words = warning(&new.table, new.filter.as_deref())?;
                Some(format!("{}: {words}", new.table))
            }
            Change::Withdraw(_) => None,
        });
        let warnings = warned.collect();
        if !how.dry_run && !changes.is_empty() {
            self.store.import_entities(place.clone(), changes.clone(), Wall::now().0).await?;
        }
        Ok(Plan { applied: !how.dry_run, changes, warnings })
    }

    /// What a person should know of the filter of a shared table.
    #[must_use]
    pub fn warning(&self, table: &TableName, filter: Option<&str>) -> Option<Warning> {
        warning(table, filter)
    }

    async fn listed(&self, place: &Place) -> Result<Vec<Listed>> {
        let shared = self.store.entities(place.clone(), false, everything()).await?;
        Ok(shared.iter().map(Listed::from).collect())
    }
}

fn count(changes: &[Change], added: bool) -> usize {
    let of = |change: &&Change| match change {
        Change::Add(_) => added,
        Change::Withdraw(_) => !added,
        Change::Alter { .. } => false,
    };
    changes.iter().filter(of).count()
}

fn warning(table: &TableName, filter: Option<&str>) -> Option<Warning> {
    let filter = match filter {
        // One that an older program kept and this one does not read is refused by the sender, which says so.
        Some(text) => Some(parsed(table, text).ok()?),
        None => None,
    };
    exchange::warning(filter.as_ref(), At(Wall::now().0))
}
