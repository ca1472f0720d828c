//! Look: staged tables as people and programs page through them.
//!
//! Promises: names as they were shared; a page is bounded in rows and in bytes, and says how to go on.
//! Never: changes anything.

use std::collections::BTreeMap;

use protocol::{Code, Error, Result, ids::Generation, key::KeyBytes, limits, names::TableName};

use super::Staging;
use crate::{
    model::catalog::{Entity, Page, Place},
    store::staging::StagedTable,
};

/// A staged table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pub table: TableName,
    /// Columns of the key, in its order.
    pub key: Vec<String>,
    /// Name and type.
    pub columns: Vec<(String, String)>,
    /// Rows were lost with an older staging file, and the load that brings them again is not done.
    pub lacks_rows: bool,
}

/// A page of live rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    pub columns: Vec<String>,
    /// In the order of `columns`; `None` where NULL.
    pub values: Vec<Vec<Option<String>>>,
    /// Where the page behind begins; `None` = there is none.
    pub next: Option<String>,
}

impl Staging {
    /// Staged tables by name, behind `page.after`.
    ///
    /// # Errors
    /// The store's own.
    pub async fn shapes(&self, place: &Place, page: Page) -> Result<Vec<Shape>> {
        let known = self.known(place).await?;
        let (after, search) = (page.after.to_ascii_lowercase(), page.search.to_ascii_lowercase());
        Ok(self
            .tables(place.environment, &place.erp)
            .await?
            .into_iter()
            .filter(|table| table.name.folded() > after.as_str())
            .filter(|table| table.name.folded().contains(&search))
            .take(page.limit as usize)
            .map(|table| shape(table, &known))
            .collect())
    }

    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn shape(&self, place: &Place, table: &TableName) -> Result<Shape> {
        let found = self.table(place.environment, &place.erp, table).await?;
        Ok(shape(found, &self.known(place).await?))
    }

    /// Live rows in the order of their keys, behind `after` (what `next` of the page before told; empty = from the first).
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such table, `BAD_ID` where `after` is not what a page told.
    pub async fn rows(
        &self,
        place: &Place,
        table: &TableName,
        (after, limit): (&str, u32),
    ) -> Result<Rows> {
        let after = KeyBytes(bytes(after)?);
        let found = self.table(place.environment, &place.erp, table).await?;
        let space = self.space(place.environment, &place.erp).await?;
        let bounds = (limit, limits::ADMIN_ANSWER_BYTES);
        let (rows, more) = space.bounded_page(table.clone(), after, bounds).await?;
        let next = rows.last().filter(|_| more).map(|row| hex(&row.key.0));
        Ok(Rows {
            columns: found.columns.into_iter().map(|column| column.name).collect(),
            values: rows.into_iter().map(|row| row.values).collect(),
            next,
        })
    }

    async fn known(&self, place: &Place) -> Result<Known> {
        let page = Page { limit: 10_000, ..Page::default() };
        let shared = self.store.entities(place.clone(), true, page).await?;
        let lost = match self.found(place.environment, &place.erp).await? {
            Some(space) => space.lost().await?,
            None => BTreeMap::new(),
        };
        Ok(Known { shared, lost })
    }
}

/// What is known of tables beside their staged form.
struct Known {
    /// In the spelling they were shared under, withdrawn ones too.
    shared: Vec<Entity>,
    lost: BTreeMap<String, Generation>,
}

fn shape(table: StagedTable, known: &Known) -> Shape {
    let entity = known.shared.iter().find(|entity| entity.table == table.name);
    let name = entity.map_or(&table.name, |entity| &entity.table).clone();
    let done = entity.map(|entity| entity.done_generation);
    let lost = known.lost.get(table.name.folded());
    let lacks_rows = lost.is_some_and(|generation| done.is_none_or(|done| done < *generation));
    let column = |folded: &String| {
        let found = table.columns.iter().find(|column| column.folded == *folded);
        found.map_or_else(|| folded.clone(), |column| column.name.clone())
    };
    let kind = |kind: protocol::value::TypeName| kind.column_type.as_str().to_owned();
    Shape {
        key: table.key.iter().map(column).collect(),
        columns: table.columns.iter().map(|c| (c.name.clone(), kind(c.type_name))).collect(),
        table: name,
        lacks_rows,
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let bad = || Error::new(Code::BadId, "after takes the key as the page before told it");
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| bad())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_told_by_one_page_is_taken_by_the_next() {
        let key = KeyBytes::of(["1", "ação"]).0;
        assert_eq!(bytes(&hex(&key)).unwrap(), key);
        for bad in ["0", "zz", "é0"] {
            assert_eq!(bytes(bad).unwrap_err().code, Code::BadId, "{bad}");
        }
    }
}
