//! Body: the bytes of one message as they came, for whoever looks at its rows or tries them again.
//!
//! Promises: a message whose body retention took is told apart from one that never was.
//! Never: changes anything, but for the audit's note of what is tried again or discarded.

use crate::store::sql::{Optional as _, params};
use bytes::Bytes;
use protocol::{
    Code, Error, Result,
    ids::{AcceptSeq, BatchId, MessageNumber},
};

use crate::{
    model::catalog::Place,
    store::{Store, audit::Deed, failed},
};

/// What the ledger still knows of a message.
#[derive(Clone, Debug)]
pub struct Kept {
    pub seq: AcceptSeq,
    pub rebuild: bool,
    /// `None` once retention has taken it.
    pub body: Option<Bytes>,
}

impl Store {
    /// The body of a message.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is no such message, `BODY_REMOVED` where only its ledger row is left.
    pub(crate) async fn body(
        &self,
        place: Place,
        batch: BatchId,
        number: MessageNumber,
    ) -> Result<Bytes> {
        self.read(place.tenant, move |connection| {
            let sql = "SELECT body FROM ingest_message
                        WHERE (tenant_id, environment_id, erp, batch, number) = (?1, ?2, ?3, ?4, ?5)";
            let (tenant, environment) = (place.tenant.to_string(), place.environment.to_string());
            let found: Option<Option<Vec<u8>>> = connection
                .prepare_cached(sql)
                .map_err(failed)?
                .query_row(params![tenant, environment, place.erp.as_str(), batch.0, number.0], |row| row.get(0))
                .optional()
                .map_err(failed)?;
            let of = || format!("message {number} of batch {batch}");
            match found {
                Some(Some(body)) => Ok(body.into()),
                Some(None) => {
                    let words = format!("the body of {} was removed by retention", of());
                    Err(Error::new(Code::BodyRemoved, words))
                }
                None => Err(Error::new(Code::NotFound, format!("there is no {} of {}", of(), place.erp))),
            }
        })
        .await
    }

    /// A message as far as the ledger still has it; `None` where it does not.
    pub(crate) async fn kept(
        &self,
        place: Place,
        batch: BatchId,
        number: MessageNumber,
    ) -> Result<Option<Kept>> {
        self.read(place.tenant, move |connection| {
            let sql = "SELECT accept_seq, rebuild, body FROM ingest_message
                        WHERE (tenant_id, environment_id, erp, batch, number) = (?1, ?2, ?3, ?4, ?5)";
            let (tenant, environment) = (place.tenant.to_string(), place.environment.to_string());
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            statement
                .query_row(params![tenant, environment, place.erp.as_str(), batch.0, number.0], |row| {
                    let body = row.get::<Option<Vec<u8>>>(2)?.map(Bytes::from);
                    Ok(Kept { seq: AcceptSeq(row.get(0)?), rebuild: row.get(1)?, body })
                })
                .optional()
                .map_err(failed)
        })
        .await
    }

    /// Columns of the key a table (folded) stands under by the ledger, folded; none where nothing of it came.
    pub(crate) async fn key_columns(&self, place: Place, table: String) -> Result<Vec<String>> {
        self.read(place.tenant, move |connection| {
            let sql = "SELECT key_columns FROM ingest_table
                        WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4)";
            let (tenant, environment) = (place.tenant.to_string(), place.environment.to_string());
            let found: Option<String> = connection
                .prepare_cached(sql)
                .map_err(failed)?
                .query_row(params![tenant, environment, place.erp.as_str(), table], |row| {
                    row.get(0)
                })
                .optional()
                .map_err(failed)?;
            Ok(found.and_then(|columns| serde_json::from_str(&columns).ok()).unwrap_or_default())
        })
        .await
    }

    /// Notes that rows of the quarantine are tried again.
    pub(crate) async fn note_retry(&self, place: Place, what: String, rows: usize) -> Result<()> {
        let deed = Deed::of("quarantine.retry", place.tenant, place.name_of(what));
        self.audited(deed.with(format!("{rows} rows")), |_| Ok(())).await
    }

    /// Notes that a role of the database may read staged tables from now on, or no longer.
    pub(crate) async fn note_analyst(
        &self,
        action: &'static str,
        place: Place,
        role: String,
    ) -> Result<()> {
        let deed = Deed::of(action, place.tenant, place.name_of("staged tables"));
        self.audited(deed.with(format!("role {role:?}")), |_| Ok(())).await
    }

    /// Notes that a row of the quarantine is given up, and why.
    pub(crate) async fn note_discard(
        &self,
        place: Place,
        (row, table): (String, String),
        why: String,
    ) -> Result<()> {
        let deed = Deed::of("quarantine.discard", place.tenant, place.name_of(row));
        self.audited(deed.with(format!("table {table}: {why}")), |_| Ok(())).await
    }
}
