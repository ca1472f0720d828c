//! Plan of a read: which physical columns are selected and how they become the cells of a page.
//!
//! Promises: a row with a value that cannot travel, or with NULL in its key, is told as poison with its place.
//! Never: knows a database; whoever reads writes canonical text column by column.

use protocol::{Code, Error, Result};

use super::{
    ColumnSource, Mask, Page, PageBuilder, PageKey, Poison, ReadLimit, TableShape, Watermark,
    catalogue::Found,
};

#[derive(Debug)]
enum Cell {
    Absent,
    Selected(usize),
    /// The mask of a selected column's value.
    Masked(usize, Mask),
    Constant(String),
    Joined(Vec<usize>),
    Slice {
        of: usize,
        from: usize,
        to: usize,
    },
}

/// Columns of one SELECT and what becomes of them.
#[derive(Debug)]
pub(super) struct ReadPlan {
    /// Positions in the catalogue's columns, in the order of the SELECT.
    pub selected: Vec<usize>,
    cells: Vec<Cell>,
    page_key: Vec<usize>,
    key: Vec<usize>,
    soft_delete: Option<(usize, String)>,
    names: Vec<String>,
}

impl ReadPlan {
    /// Every column.
    pub(super) fn whole(shape: &TableShape, found: &Found) -> Result<Self> {
        Self::of(shape, found, &(0..shape.columns.len()).collect::<Vec<_>>())
    }

    /// What the wire key needs, and the page key.
    pub(super) fn keys(shape: &TableShape, found: &Found) -> Result<Self> {
        Self::of(shape, found, &shape.key)
    }

    fn of(shape: &TableShape, found: &Found, wanted: &[usize]) -> Result<Self> {
        let mut plan = Self {
            selected: Vec::new(),
            cells: shape.columns.iter().map(|_| Cell::Absent).collect(),
            page_key: Vec::new(),
            key: shape.key.clone(),
            soft_delete: None,
            names: shape.columns.iter().map(|column| column.name.to_string()).collect(),
        };
        for &at in wanted {
            let cell = plan.cell(shape, found, at)?;
            if let Some(slot) = plan.cells.get_mut(at) {
                *slot = cell;
            }
        }
        for name in &shape.page_key {
            let at = plan.select(found, name)?;
            plan.page_key.push(at);
        }
        if let Some((name, mark)) = &shape.soft_delete {
            plan.soft_delete = Some((plan.select(found, name)?, mark.clone()));
        }
        Ok(plan)
    }

    fn cell(&mut self, shape: &TableShape, found: &Found, at: usize) -> Result<Cell> {
        let Some(column) = shape.columns.get(at) else { return Ok(Cell::Absent) };
        Ok(match &column.from {
            ColumnSource::Physical(name) => match &column.mask {
                None => Cell::Selected(self.select(found, name)?),
                Some(Mask::Null) => Cell::Absent,
                Some(mask) => {
                    mask.ready()?;
                    Cell::Masked(self.select(found, name)?, mask.clone())
                }
            },
            ColumnSource::Constant(text) => Cell::Constant(text.clone()),
            ColumnSource::Joined(parts) => {
                for &part in parts {
                    let cell = self.cell(shape, found, part)?;
                    if let Some(slot @ Cell::Absent) = self.cells.get_mut(part) {
                        *slot = cell;
                    }
                }
                Cell::Joined(parts.clone())
            }
            ColumnSource::Slice { of, from, to } => match self.cell(shape, found, *of)? {
                Cell::Selected(of) => Cell::Slice { of, from: *from, to: *to },
                _ => Cell::Absent,
            },
        })
    }

    fn select(&mut self, found: &Found, name: &str) -> Result<usize> {
        let position = found
            .position(name)
            .ok_or_else(|| Error::new(Code::SchemaChanged, format!("column {name} is gone")))?;
        if let Some(at) = self.selected.iter().position(|known| *known == position) {
            return Ok(at);
        }
        self.selected.push(position);
        Ok(self.selected.len() - 1)
    }
}

/// Fills a page row by row within a limit.
#[derive(Debug)]
pub(super) struct Assembler<'p> {
    plan: &'p ReadPlan,
    limit: ReadLimit,
    page: PageBuilder,
    /// Text of each selected column of the row under way; `None` = NULL.
    texts: Vec<Option<String>>,
    rows: usize,
    full: bool,
}

impl<'p> Assembler<'p> {
    pub(super) fn new(plan: &'p ReadPlan, limit: ReadLimit) -> Self {
        let texts = plan.selected.iter().map(|_| None).collect();
        Self { plan, limit, page: PageBuilder::new(plan.cells.len()), texts, rows: 0, full: false }
    }

    /// The page holds what it may; rows behind are left for the next one.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a row. `read` appends the canonical text of a selected column: `Ok(false)` = NULL, `Err` = why it cannot
    /// travel. Fails where the page key itself cannot be told: nothing could be read behind such a row.
    pub(super) fn row(
        &mut self,
        stamp: Option<Watermark>,
        below_edge: bool,
        mut read: impl FnMut(usize, &mut String) -> Result<bool, String>,
    ) -> Result<()> {
        let mut fault: Option<(Code, String)> = None;
        for at in 0..self.texts.len() {
            let Some(slot) = self.texts.get_mut(at) else { continue };
            let mut text = slot.take().unwrap_or_default();
            text.clear();
            match read(at, &mut text) {
                Ok(true) => *slot = Some(text),
                Ok(false) => {}
                Err(words) if self.plan.page_key.contains(&at) => {
                    let error = Error::new(Code::KeyUnfit, words);
                    return Err(error.at("the key of a row"));
                }
                Err(words) => fault = fault.or(Some((Code::ValueUnfit, words))),
            }
        }
        self.rows += 1;
        let key = self.key();
        let fault = fault.or_else(|| self.null_key());
        if let Some((code, words)) = fault {
            self.page.poison_at(Poison { key, code, words }, stamp, below_edge);
        } else {
            self.cells()?;
            let deleted =
                self.plan.soft_delete.as_ref().is_some_and(|(at, mark)| {
                    self.text(*at).is_some_and(|text| text.trim() == mark)
                });
            self.page.row(key, stamp, below_edge, deleted);
        }
        self.full = self.rows >= self.limit.rows || self.page.bytes() >= self.limit.bytes;
        Ok(())
    }

    /// Tells a row that lies outside the order of pages.
    pub(super) fn poison_outside(&mut self, code: Code, words: String) {
        self.page.poison(Poison { key: PageKey(Vec::new()), code, words });
    }

    pub(super) fn finish(self, complete: bool) -> Page {
        self.page.finish(complete)
    }

    fn text(&self, at: usize) -> Option<&str> {
        self.texts.get(at)?.as_deref()
    }

    fn key(&self) -> PageKey {
        let part = |at: &usize| self.text(*at).unwrap_or_default().to_owned();
        PageKey(self.plan.page_key.iter().map(part).collect())
    }

    /// The key column that is NULL, in words.
    fn null_key(&self) -> Option<(Code, String)> {
        let null = |at: &usize| {
            match self.plan.cells.get(*at) {
            Some(Cell::Selected(from)) => self.text(*from).is_none(),
            Some(Cell::Joined(parts)) => parts.iter().any(|part| {
                matches!(self.plan.cells.get(*part), Some(Cell::Selected(from)) if self.text(*from).is_none())
            }),
            _ => false,
        }
        };
        let at = self.plan.key.iter().find(|at| null(at))?;
        let name = self.plan.names.get(*at).map_or("?", String::as_str);
        Some((Code::KeyIsNull, format!("key column {name} is NULL")))
    }

    fn cells(&mut self) -> Result<()> {
        let plan = self.plan;
        let mut masked = String::new();
        for cell in &plan.cells {
            let text = match cell {
                Cell::Selected(at) => self.texts.get(*at).and_then(Option::as_deref),
                Cell::Masked(at, mask) => {
                    let text = self.texts.get(*at).and_then(Option::as_deref);
                    masked.clear();
                    let shown = text.is_some_and(|text| mask.write(text, &mut masked));
                    shown.then_some(masked.as_str())
                }
                Cell::Constant(text) => Some(text.as_str()),
                Cell::Absent => None,
                Cell::Slice { of, from, to } => {
                    let text = self.texts.get(*of).and_then(Option::as_deref);
                    text.map(|text| slice(text, *from, *to))
                }
                Cell::Joined(parts) => {
                    let joined = self.joined(parts);
                    self.page.value(|out| {
                        out.push_str(&joined);
                        Ok(())
                    })?;
                    continue;
                }
            };
            match text {
                Some(text) => self.page.value(|out| {
                    out.push_str(text);
                    Ok(())
                })?,
                None => self.page.null(),
            }
        }
        Ok(())
    }

    fn joined(&self, parts: &[usize]) -> String {
        let mut joined = String::new();
        for (at, part) in parts.iter().enumerate() {
            if at > 0 {
                joined.push('|');
            }
            match self.plan.cells.get(*part) {
                Some(Cell::Selected(from)) => joined.push_str(self.text(*from).unwrap_or_default()),
                Some(Cell::Constant(text)) => joined.push_str(text),
                _ => {}
            }
        }
        joined
    }
}

/// Characters `from..to`, blanks trimmed at the end.
fn slice(text: &str, from: usize, to: usize) -> &str {
    let place = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(place, _)| place);
    text.get(place(from)..place(to).max(place(from))).unwrap_or_default().trim_end()
}

/// Whether a unique index stands behind these columns.
pub(super) fn is_unique(found: &Found, key: &[String]) -> bool {
    let covered =
        |columns: &[String]| !columns.is_empty() && columns.iter().all(|c| key.contains(c));
    covered(&found.primary) || found.unique.iter().any(|(_, columns)| covered(columns))
}
