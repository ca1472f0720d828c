//! Overview: streams, batches and messages for people, and what an operator decides about a session.
//!
//! Promises: shows one tenant's things.
//! Never: changes the ledger.

use protocol::{
    Code, Error, Result,
    ids::{BatchId, MessageNumber, TenantId},
    limits,
};

use runtime::clock::Wall;

use super::session::Sessions;
use crate::{
    model::{
        catalog::{At, Page, Place},
        content::{self, Content},
        overview::{BatchView, MessageView, OfferView, Shown, StreamView},
        stream::StreamId,
    },
    store::Store,
};

/// What an operator looks at. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Overview {
    store: Store,
    sessions: Sessions,
}

impl Overview {
    #[must_use]
    pub fn new(store: Store, sessions: Sessions) -> Self {
        Self { store, sessions }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who), sessions: self.sessions.by(who) }
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn streams(&self, tenant: TenantId) -> Result<Vec<StreamView>> {
        self.store.stream_views(tenant).await
    }

    /// Takes the database that was offered and refused last, and that the fingerprint names, for the stream's own; a dry
    /// run only looks.
    ///
    /// # Errors
    /// `NOT_FOUND` where none waits, or another one does.
    pub async fn accept_database(
        &self,
        place: Place,
        fingerprint: String,
        dry_run: bool,
    ) -> Result<OfferView> {
        let Place { tenant, environment, erp } = place;
        let stream = StreamId { tenant, environment, erp };
        self.sessions.accept_database(stream, fingerprint, dry_run).await
    }

    /// Ends the session of a stream at once.
    ///
    /// # Errors
    /// `NOT_FOUND` where it never had one.
    pub async fn release(&self, place: Place) -> Result<()> {
        self.store.release_by_operator(place).await
    }

    /// Batches, the newest first; of one state where it is named.
    ///
    /// # Errors
    /// `BAD_ID` where `page.after` is no batch id.
    pub async fn batches(
        &self,
        place: Place,
        state: Option<Shown>,
        page: Page,
    ) -> Result<Vec<BatchView>> {
        self.store.batch_views(place, (state, At(Wall::now().0)), page).await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn batch(&self, place: Place, batch: BatchId) -> Result<BatchView> {
        let missing = format!("there is no batch {batch} of {}", place.erp);
        let page = Page { after: batch.next().to_string(), limit: 1, ..Page::default() };
        let found = self.batches(place, None, page).await?.pop();
        let found = found.filter(|found| found.batch == batch);
        found.ok_or_else(|| Error::new(Code::NotFound, missing))
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn message(&self, place: Place, batch: BatchId, number: i64) -> Result<MessageView> {
        let missing = format!("batch {batch} has no message {number}");
        let after = number.saturating_sub(1).to_string();
        let page = Page { after, limit: 1, ..Page::default() };
        let found = self.store.message_views(place, batch, page).await?.pop();
        let found = found.filter(|found| i64::from(found.number.0) == number);
        found.ok_or_else(|| Error::new(Code::NotFound, missing))
    }

    /// Messages of a batch in order.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such batch, `BAD_ID` where `page.after` is no number.
    pub async fn messages(
        &self,
        place: Place,
        batch: BatchId,
        page: Page,
    ) -> Result<Vec<MessageView>> {
        self.store.message_views(place, batch, page).await
    }

    /// Rows of a message behind the place that `after` names (empty = from the first), while its body is kept.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such message, `BODY_REMOVED` where retention took its body, `BAD_ID` where `after`
    /// is no place of a row.
    pub async fn content(
        &self,
        place: Place,
        (batch, number): (BatchId, i64),
        (after, limit): (&str, u32),
    ) -> Result<Content> {
        let bad = |_| Error::new(Code::BadId, "a row is named by its place in the message, from 0");
        let after = if after.is_empty() { None } else { Some(after.parse().map_err(bad)?) };
        let missing =
            |_| Error::new(Code::NotFound, format!("batch {batch} has no message {number}"));
        let number = MessageNumber(i32::try_from(number).map_err(missing)?);
        let body = self.store.body(place, batch, number).await?;
        content::read(&body, after, (limit as usize, limits::ADMIN_ANSWER_BYTES))
    }
}
