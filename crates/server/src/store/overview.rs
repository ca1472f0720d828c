//! Overview in the embedded store: streams, batches and messages for people.
//!
//! Promises: reads, but for the release of a session, which an operator orders.
//! Never: reads a body.

use crate::store::sql::{Row, SqlError, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, MessageNumber, TenantId},
    limits,
};

use super::{
    Store,
    audit::Deed,
    catalog::{change, parsed, rows, time},
    failed,
};
use crate::model::{
    catalog::{At, Page, Place},
    overview::{BatchView, MessageView, OfferView, Shown, StreamView},
};

/// Bytes that are none, as a value: the engines write them each in a way of its own.
const NOTHING: &[u8] = &[];

impl Store {
    pub(crate) async fn stream_views(&self, tenant: TenantId) -> Result<Vec<StreamView>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT e.name, s.erp, s.epoch, s.holder, s.expires_at,
                        s.disputed = 1 OR EXISTS (SELECT 1 FROM fleet_agent a WHERE a.twice_at IS NOT NULL
                          AND (a.tenant_id, a.environment_id, a.erp) = (s.tenant_id, s.environment_id, s.erp)),
                        s.offered IS NOT NULL, s.last_batch, s.offered_mark, s.offered_by, s.offered_since, s.offered_at
                 FROM ingest_stream s JOIN environment e ON e.tenant_id = s.tenant_id AND e.id = s.environment_id
                 WHERE s.tenant_id = :tenant ORDER BY e.name, s.erp",
                named_params! {":tenant": tenant.to_string()},
                |row| {
                    let database_waits = row.get(6)?;
                    let offer = |row: &Row<'_>| {
                        Ok::<_, SqlError>(OfferView {
                            fingerprint: row.get(8)?,
                            instance: row.get(9)?,
                            since: At(row.get(10)?),
                            at: At(row.get(11)?),
                        })
                    };
                    Ok(StreamView {
                        environment: row.get(0)?,
                        erp: parsed(row, 1)?,
                        epoch: Epoch(row.get::<i64>(2)?.unsigned_abs()),
                        holder: row.get(3)?,
                        expires_at: At(row.get(4)?),
                        disputed: row.get(5)?,
                        database_waits,
                        // One of before fingerprints were kept is shown with the agent's next try.
                        offer: if database_waits { offer(row).ok() } else { None },
                        last_batch: BatchId(row.get(7)?),
                    })
                },
            )
        })
        .await
    }

    /// Ends a session as its holder would; the epoch stays, so that the next grant is higher.
    pub(crate) async fn release_by_operator(&self, place: Place) -> Result<()> {
        let deed = Deed::of("session.release", place.tenant, place.name_of("session"));
        self.audited(deed, move |transaction| {
            let found = change(
                transaction,
                "a stream",
                "UPDATE ingest_stream SET holder = NULL, nonce = NULL, former = :nothing, disputed = 0, expires_at = 0
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp",
                named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
                    ":erp": place.erp.as_str(), ":nothing": NOTHING},
            )?;
            transaction
                .execute(
                    "UPDATE fleet_agent SET twice_at = NULL, heard = ?4
                      WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)",
                    params![place.tenant.to_string(), place.environment.to_string(), place.erp.as_str(), NOTHING],
                )
                .map_err(failed)?;
            if found == 0 {
                return Err(Error::new(Code::NotFound, format!("{} has had no session yet", place.erp)));
            }
            Ok(())
        })
        .await
    }

    /// Batches, the newest first, of one state as people see it now where it is named; the page goes on below the id
    /// given as `after`.
    pub(crate) async fn batch_views(
        &self,
        place: Place,
        (state, now): (Option<Shown>, At),
        page: Page,
    ) -> Result<Vec<BatchView>> {
        let silent = i64::try_from(limits::BATCH_STALLED.as_micros()).unwrap_or(i64::MAX);
        let below = match page.after.trim() {
            "" => i64::MAX,
            text => text.parse().map_err(|_| Error::new(Code::BadId, "a batch id is a number"))?,
        };
        self.read(place.tenant, move |connection| {
            rows(
                connection,
                "SELECT erp, id, state, messages, row_count, byte_count, opened_at, last_at, closed_at, refused_code
                 FROM batch WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND id < :below
                   AND (:state IS NULL OR :state = CASE
                        WHEN state = 'abandoned' OR (state = 'open' AND refused_code IS NOT NULL) THEN 'incomplete'
                        WHEN state = 'open' AND last_at <= :silent THEN 'stalled'
                        ELSE state END)
                 ORDER BY id DESC LIMIT :limit",
                named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
                    ":erp": place.erp.as_str(), ":below": below, ":limit": page.limit,
                    ":state": state.map(Shown::as_str), ":silent": now.0.saturating_sub(silent)},
                |row| {
                    Ok(BatchView {
                        erp: parsed(row, 0)?,
                        batch: BatchId(row.get(1)?),
                        state: row.get(2)?,
                        messages: row.get(3)?,
                        rows: row.get(4)?,
                        bytes: row.get(5)?,
                        opened_at: At(row.get(6)?),
                        last_at: At(row.get(7)?),
                        closed_at: time(row, 8)?,
                        refused: row.get(9)?,
                    })
                },
            )
        })
        .await
    }

    /// Messages of a batch in order; the page goes on above the number given as `after`.
    pub(crate) async fn message_views(
        &self,
        place: Place,
        batch: BatchId,
        page: Page,
    ) -> Result<Vec<MessageView>> {
        let above: i64 = match page.after.trim() {
            "" => 0,
            text => {
                text.parse().map_err(|_| Error::new(Code::BadId, "a message number is a number"))?
            }
        };
        self.read(place.tenant, move |connection| {
            let of = [place.tenant.to_string(), place.environment.to_string(), place.erp.to_string()];
            let [tenant, environment, erp] = &of;
            let known: bool = connection
                .query_row(
                    "SELECT EXISTS (SELECT 1 FROM batch WHERE (tenant_id, environment_id, erp, id) = (?1, ?2, ?3, ?4))",
                    params![tenant, environment, erp, batch.0],
                    |row| row.get(0),
                )
                .map_err(failed)?;
            if !known {
                let words = format!("there is no batch {batch} of {erp}");
                return Err(Error::new(Code::NotFound, words));
            }
            rows(
                connection,
                // As it was shared; the ledger folds the name.
                "SELECT m.number, coalesce(e.name, m.name_folded), m.row_count, m.byte_count, m.is_base_load,
                        m.received_at, m.body IS NOT NULL
                 FROM ingest_message m
                 LEFT JOIN entity e ON (e.tenant_id, e.environment_id, e.erp, e.name_folded)
                     = (m.tenant_id, m.environment_id, m.erp, m.name_folded)
                 WHERE m.tenant_id = :tenant AND m.environment_id = :environment AND m.erp = :erp
                   AND m.batch = :batch AND m.number > :above ORDER BY m.number LIMIT :limit",
                named_params! {":tenant": tenant, ":environment": environment, ":erp": erp, ":batch": batch.0,
                    ":above": above, ":limit": page.limit},
                |row| {
                    Ok(MessageView {
                        number: MessageNumber(row.get(0)?),
                        table: parsed(row, 1)?,
                        rows: row.get(2)?,
                        bytes: row.get(3)?,
                        base_load: row.get(4)?,
                        received_at: At(row.get(5)?),
                        body_kept: row.get(6)?,
                    })
                },
            )
        })
        .await
    }
}
