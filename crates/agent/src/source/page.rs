//! A page of rows: canonical text in one arena.
//!
//! Promises: one allocation for all cells, whatever their number; bytes are bounded by the read limit and one row.
//! Never: holds a row that is poison; such a row is told apart with its key and reason.

use protocol::{Code, Error};

use super::{PageKey, Watermark};

/// A row that cannot travel unchanged (I17).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Poison {
    pub key: PageKey,
    pub code: Code,
    /// Which column and why; never the value.
    pub words: String,
}

/// Rows as read. Cell text is canonical; column order is the shape's.
#[derive(Clone, Debug, Default)]
pub struct Page {
    columns: usize,
    text: String,
    /// End of each cell in `text`; the sign bit marks NULL.
    ends: Vec<u32>,
    rows: Vec<RowMark>,
    poison: Vec<Poison>,
    /// Place of the last row read, where that row is poison.
    last: Option<RowMark>,
    complete: bool,
}

/// Place of a row in the order of the read; where a cut page is gone on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    pub key: &'a PageKey,
    pub stamp: Option<&'a Watermark>,
    pub below_edge: bool,
}

#[derive(Clone, Debug)]
struct RowMark {
    key: PageKey,
    stamp: Option<Watermark>,
    below_edge: bool,
    deleted: bool,
}

const NULL: u32 = 1 << 31;

impl Page {
    /// Rows, poison not among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The read reached the end: nothing lay behind it when it was made.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes of canonical text.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len()
    }

    /// Canonical text of a cell, `None` where NULL.
    ///
    /// # Panics
    /// Outside the page.
    #[must_use]
    pub fn cell(&self, row: usize, column: usize) -> Option<&str> {
        let at = row * self.columns + column;
        let end = self.ends[at];
        if end & NULL != 0 {
            return None;
        }
        let start = if at == 0 { 0 } else { self.ends[at - 1] & !NULL };
        Some(&self.text[start as usize..end as usize])
    }

    #[must_use]
    pub fn key(&self, row: usize) -> &PageKey {
        &self.rows[row].key
    }

    #[must_use]
    pub fn stamp(&self, row: usize) -> Option<&Watermark> {
        self.rows[row].stamp.as_ref()
    }

    /// The stamp is below `bound - allowance`: no open transaction can still write it.
    #[must_use]
    pub fn below_edge(&self, row: usize) -> bool {
        self.rows[row].below_edge
    }

    #[must_use]
    pub fn is_deleted(&self, row: usize) -> bool {
        self.rows[row].deleted
    }

    /// The last row read, poison or not: the next page starts behind it, so that a page of nothing but poison does not
    /// come again for ever.
    #[must_use]
    pub fn last(&self) -> Option<Place<'_>> {
        let mark = self.last.as_ref().or(self.rows.last())?;
        Some(Place { key: &mark.key, stamp: mark.stamp.as_ref(), below_edge: mark.below_edge })
    }

    /// Rows that cannot travel, with their reasons.
    #[must_use]
    pub fn poison(&self) -> &[Poison] {
        &self.poison
    }
}

/// Fills a page row by row.
#[derive(Debug)]
pub struct PageBuilder {
    page: Page,
    row_start: (usize, usize),
}

impl PageBuilder {
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self { page: Page { columns, ..Page::default() }, row_start: (0, 0) }
    }

    /// Adds a NULL cell.
    pub fn null(&mut self) {
        let end = self.end();
        self.page.ends.push(end | NULL);
    }

    /// Adds a cell that `write` appends to the arena; an error leaves the row to [`Self::poison`].
    ///
    /// # Errors
    /// What `write` says.
    pub fn value(
        &mut self,
        write: impl FnOnce(&mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        write(&mut self.page.text)?;
        if self.page.text.len() >= NULL as usize {
            return Err(Error::new(Code::RowTooLarge, "a page of more than 2 GiB"));
        }
        let end = self.end();
        self.page.ends.push(end);
        Ok(())
    }

    /// Text of a cell of the row under way, `None` where NULL or not yet added.
    #[must_use]
    pub fn cell(&self, column: usize) -> Option<&str> {
        let at = self.row_start.0 + column;
        let end = *self.page.ends.get(at)?;
        if end & NULL != 0 {
            return None;
        }
        let start = if at == 0 { 0 } else { self.page.ends[at - 1] & !NULL };
        self.page.text.get(start as usize..end as usize)
    }

    /// Ends the row.
    pub fn row(&mut self, key: PageKey, stamp: Option<Watermark>, below_edge: bool, deleted: bool) {
        debug_assert_eq!(self.page.ends.len() - self.row_start.0, self.page.columns);
        self.page.rows.push(RowMark { key, stamp, below_edge, deleted });
        self.page.last = None;
        self.row_start = (self.page.ends.len(), self.page.text.len());
    }

    /// Throws the row under way out and tells it as poison.
    pub fn poison(&mut self, poison: Poison) {
        self.page.ends.truncate(self.row_start.0);
        self.page.text.truncate(self.row_start.1);
        self.page.poison.push(poison);
    }

    /// As [`Self::poison`], for a row in the order of the read: it has a place there.
    pub fn poison_at(&mut self, poison: Poison, stamp: Option<Watermark>, below_edge: bool) {
        let key = poison.key.clone();
        self.page.last = Some(RowMark { key, stamp, below_edge, deleted: false });
        self.poison(poison);
    }

    /// Bytes so far.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.page.text.len()
    }

    /// The page; `complete` = the read reached the end.
    #[must_use]
    pub fn finish(mut self, complete: bool) -> Page {
        self.page.complete = complete;
        self.page
    }

    /// Offsets are 31 bits; [`Self::value`] keeps the arena below that.
    fn end(&self) -> u32 {
        u32::try_from(self.page.text.len()).unwrap_or(u32::MAX) & !NULL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(page: &mut PageBuilder, text: &str) {
        let write = |out: &mut String| {
            out.push_str(text);
            Ok(())
        };
        page.value(write).unwrap();
    }

    #[test]
    fn cells_rows_and_poison_are_told_apart() {
        let mut page = PageBuilder::new(2);
        let key = |text: &str| PageKey(vec![text.into()]);
        text(&mut page, "a");
        page.null();
        page.row(key("a"), None, true, false);
        text(&mut page, "lost");
        page.poison(Poison { key: key("b"), code: Code::ValueUnfit, words: "column x".into() });
        page.null();
        text(&mut page, "c");
        assert_eq!(page.cell(1), Some("c"));
        page.row(key("c"), Some(Watermark("1".into())), false, true);
        let page = page.finish(true);
        assert_eq!((page.len(), page.poison().len(), page.bytes()), (2, 1, 2));
        assert_eq!((page.cell(0, 0), page.cell(0, 1)), (Some("a"), None));
        assert_eq!((page.cell(1, 0), page.cell(1, 1)), (None, Some("c")));
        assert!(page.below_edge(0) && page.is_deleted(1) && page.is_complete());
        assert_eq!(page.last().unwrap().key, &key("c"));
    }

    #[test]
    fn a_page_goes_on_behind_its_last_row_even_where_that_is_poison() {
        let mut page = PageBuilder::new(1);
        page.null();
        page.row(PageKey(vec!["a".into()]), None, false, false);
        let key = PageKey(vec!["b".into()]);
        let poison = Poison { key: key.clone(), code: Code::ValueUnfit, words: "x".into() };
        page.poison_at(poison, Some(Watermark("7".into())), true);
        let page = page.finish(false);
        let last = page.last().unwrap();
        assert_eq!((last.key, last.stamp.unwrap().0.as_str(), last.below_edge), (&key, "7", true));
        assert_eq!(Page::default().last(), None);
    }
}
