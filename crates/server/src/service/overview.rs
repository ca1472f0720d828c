//! Overview: streams, batches and messages for people, and what an operator decides about a session.
//!
//! Promises: shows one tenant's things.
//! Never: changes the ledger.

use protocol::{
    Result,
    ids::{BatchId, TenantId},
};

use super::session::Sessions;
use crate::{
    model::{
        catalog::{Page, Place},
        overview::{BatchView, MessageView, StreamView},
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

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn streams(&self, tenant: TenantId) -> Result<Vec<StreamView>> {
        self.store.stream_views(tenant).await
    }

    /// Takes the database that was offered and refused last for the stream's own.
    ///
    /// # Errors
    /// `NOT_FOUND` where none waits.
    pub async fn accept_database(&self, place: Place) -> Result<()> {
        let Place { tenant, environment, erp } = place;
        self.sessions.accept_database(StreamId { tenant, environment, erp }).await
    }

    /// Ends the session of a stream at once.
    ///
    /// # Errors
    /// `NOT_FOUND` where it never had one.
    pub async fn release(&self, place: Place) -> Result<()> {
        self.store.release_by_operator(place).await
    }

    /// Batches, the newest first.
    ///
    /// # Errors
    /// `BAD_ID` where `page.after` is no batch id.
    pub async fn batches(&self, place: Place, page: Page) -> Result<Vec<BatchView>> {
        self.store.batch_views(place, page).await
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
}
