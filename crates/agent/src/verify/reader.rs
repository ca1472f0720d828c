//! Reader: all live rows of a table, page by page, in the database's own order.
//!
//! Promises: the pages of capture: short statements, between them the rest that the duty leaves the ERP; a page that fails
//! for a while is tried again.
//! Never: keeps a transaction between two pages, or a page.

use std::time::Duration;

use protocol::{Code, Error, Result};
use runtime::{backoff::Backoff, clock::Mono};

use crate::pacing::{FULL, Pacing};
use crate::source::{LEAST_ROWS, PAGE_ROWS, Pace, Page, PageKey, Source, TableShape};

/// Tries of one page, and the pauses between them.
const TRIES: u32 = 4;
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

pub(super) struct Reader<'a, S> {
    pacing: Pacing<'a, S>,
    shape: &'a TableShape,
    pace: Pace,
    after: Option<PageKey>,
    done: bool,
}

impl<'a, S: Source> Reader<'a, S> {
    pub(super) fn new(pacing: Pacing<'a, S>, shape: &'a TableShape) -> Self {
        Self { pacing, shape, pace: Pace::default(), after: None, done: false }
    }

    /// The next page; `None` = all was read.
    pub(super) async fn next(&mut self) -> Result<Option<Page>> {
        if self.done {
            return Ok(None);
        }
        let begun = Mono::now();
        let page = self.read().await?;
        let took = begun.elapsed();
        self.pace.took(took, page.len());
        self.done = page.is_complete();
        match page.last() {
            Some(place) => self.after = Some(place.key.clone()),
            None if self.done => {}
            None => {
                return Err(Error::new(
                    Code::Internal,
                    "a page is empty although more rows follow",
                ));
            }
        }
        self.pacing.governor.page(&self.shape.wire, took, page.len());
        self.pacing.rest(took).await;
        Ok(Some(page))
    }

    async fn read(&self) -> Result<Page> {
        let mut pauses = Backoff::new(PAUSES.0, PAUSES.1);
        loop {
            let governed = PAGE_ROWS * self.pacing.pace() as usize / FULL as usize;
            let limit = self.pace.limit(governed.max(LEAST_ROWS));
            match self.pacing.source.chunk(self.shape, self.after.as_ref(), None, limit).await {
                Err(error) if passes_by(&error) && pauses.tries() + 1 < TRIES => {
                    pauses.pause().await;
                }
                read => return read,
            }
        }
    }
}

/// A table that changed has to be described anew; trying again would not do.
fn passes_by(error: &Error) -> bool {
    error.is_transient() && error.code != Code::SchemaChanged
}
