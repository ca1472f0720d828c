//! Image: a row of a page as the cloud knows it: key bytes and hash, and whether the cloud's filter lets it go.
//!
//! Promises: whoever reads a table, to send it or to compare it, names and hashes its rows alike.
//! Never: reads; a page is read by `Source`.

use protocol::{Result, filter::Filter, hash::RowHasher, key::KeyBytes, names::ColumnName};

use super::{Page, TableShape};

impl TableShape {
    /// The wire key of a row, as bytes.
    #[must_use]
    pub fn key_bytes(&self, page: &Page, row: usize) -> KeyBytes {
        KeyBytes::of(self.key.iter().map(|at| page.cell(row, *at).unwrap_or_default()))
    }

    /// Hashes rows of this shape; a cell is told by its place in `columns`.
    #[must_use]
    pub fn hasher(&self) -> RowHasher {
        let names: Vec<ColumnName> =
            self.columns.iter().map(|column| column.name.clone()).collect();
        RowHasher::new(&names)
    }

    /// The filter of the plan, where it says one.
    ///
    /// # Errors
    /// `FILTER_REFUSED`.
    pub fn filter(&self, text: Option<&str>) -> Result<Option<Filter>> {
        let text = text.map(str::trim).filter(|text| !text.is_empty());
        // Rows chosen by a value that stays in the building would tell it.
        let open: Vec<ColumnName> = self
            .columns
            .iter()
            .filter(|column| column.mask.is_none())
            .map(|column| column.name.clone())
            .collect();
        let filter = text.map(|text| Filter::parse(text, &self.wire, &open)).transpose();
        filter.map_err(|mut error| {
            if open.len() < self.columns.len() {
                error.message.push_str(" (a masked column cannot be filtered by)");
            }
            error
        })
    }

    /// Whether a row passes the filter of the load.
    #[must_use]
    pub fn passes(&self, filter: Option<&Filter>, page: &Page, row: usize) -> bool {
        let cell = |name: &ColumnName| {
            let at = self.columns.iter().position(|column| column.name == *name)?;
            page.cell(row, at)
        };
        filter.is_none_or(|filter| filter.matches(&cell))
    }
}
