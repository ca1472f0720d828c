//! Look: staged tables as people and programs page through them.
//!
//! Promises: names as they were shared; a page is bounded in rows and in bytes, and says how to go on.
//! Never: changes anything.

use protocol::{Code, Error, Result, key::KeyBytes, limits, names::TableName};

use super::Staging;
use crate::{
    model::catalog::{Page, Place},
    store::sqlite::staging::{Quarantined, RowAt, StagedTable},
};

/// A staged table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    pub table: TableName,
    /// Columns of the key, in its order.
    pub key: Vec<String>,
    /// Name and type.
    pub columns: Vec<(String, String)>,
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
        let names = self.names(place).await?;
        let (after, search) = (page.after.to_ascii_lowercase(), page.search.to_ascii_lowercase());
        Ok(self
            .tables(place.environment, &place.erp)
            .await?
            .into_iter()
            .filter(|table| table.name.folded() > after.as_str())
            .filter(|table| table.name.folded().contains(&search))
            .take(page.limit as usize)
            .map(|table| shape(table, &names))
            .collect())
    }

    /// # Errors
    /// `NOT_FOUND` where there is no such table.
    pub async fn shape(&self, place: &Place, table: &TableName) -> Result<Shape> {
        let found = self.table(place.environment, &place.erp, table).await?;
        Ok(shape(found, &self.names(place).await?))
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
        let file = self.file(place.environment, &place.erp).await?;
        let bounds = (limit, limits::ADMIN_ANSWER_BYTES);
        let (rows, more) = file.bounded_page(table.clone(), after, bounds).await?;
        let next = rows.last().filter(|_| more).map(|row| hex(&row.key.0));
        Ok(Rows {
            columns: found.columns.into_iter().map(|column| column.name).collect(),
            values: rows.into_iter().map(|row| row.values).collect(),
            next,
        })
    }

    /// Rows in quarantine, the newest batch first, behind the one that `page.after` names.
    ///
    /// # Errors
    /// `BAD_ID` where `page.after` names none.
    pub async fn quarantined(&self, place: &Place, page: Page) -> Result<Vec<Quarantined>> {
        let after = match page.after.as_str() {
            "" => None,
            text => Some(RowAt::read(text)?),
        };
        match self.found(place.environment, &place.erp).await? {
            Some(file) => file.quarantine((after, page.limit)).await,
            None => Ok(Vec::new()),
        }
    }

    /// Tables in the spelling they were shared under, withdrawn ones too.
    async fn names(&self, place: &Place) -> Result<Vec<TableName>> {
        let page = Page { limit: 10_000, ..Page::default() };
        let shared = self.store.entities(place.clone(), true, page).await?;
        Ok(shared.into_iter().map(|entity| entity.table).collect())
    }
}

fn shape(table: StagedTable, names: &[TableName]) -> Shape {
    let name = names.iter().find(|name| **name == table.name).unwrap_or(&table.name).clone();
    let column = |folded: &String| {
        let found = table.columns.iter().find(|column| column.folded == *folded);
        found.map_or_else(|| folded.clone(), |column| column.name.clone())
    };
    let kind = |kind: protocol::value::TypeName| kind.column_type.as_str().to_owned();
    Shape {
        key: table.key.iter().map(column).collect(),
        columns: table.columns.iter().map(|c| (c.name.clone(), kind(c.type_name))).collect(),
        table: name,
    }
}

fn hex(bytes: &[u8]) -> String {
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
