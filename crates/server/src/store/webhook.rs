//! Webhooks in the embedded store: which addresses there are, and under which secrets they are called.
//!
//! Promises: at most `limits::TENANT_WEBHOOKS` of a tenant; at most two secrets of one are in force; a change and its
//! entry in the audit are one transaction.
//! Never: sees an unsealed secret; notes an address with its query.

mod delivery;
mod outbox;

use crate::store::sql::{Row, SqlResult, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{EnvironmentId, TenantId, WebhookId},
    limits,
};
use runtime::clock::Wall;

use super::{
    Store,
    audit::Deed,
    catalog::{change, parsed, rows, text_as, time},
    failed,
};
use crate::model::{
    carol::Envelope,
    catalog::{At, Page},
    webhook::{EventKind, Target, Webhook},
};

pub use delivery::{Due, Replay};
pub(super) use outbox::{tell, tell_alert};

const SELECT: &str =
    "SELECT w.id, w.name, w.environment_id, w.url, w.events, w.description, w.created_at, w.paused_at, w.secret_at,
            w.former_until, w.failures, w.not_before,
            (SELECT count(*) FROM webhook_delivery d INDEXED BY webhook_delivery_ready
              WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id AND d.state = 'ready')
          + (SELECT count(*) FROM webhook_delivery d WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id
                AND d.state = 'leased'),
            (SELECT count(*) FROM webhook_delivery d INDEXED BY webhook_delivery_dead
              WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id AND d.state = 'dead' AND d.test = 0)
       FROM webhook w";

impl Store {
    /// # Errors
    /// `ALREADY_EXISTS` for a name that is taken, `BAD_REQUEST` above the limit.
    pub(crate) async fn add_webhook(&self, webhook: Webhook, secret: Envelope) -> Result<()> {
        let deed = Deed::of("webhook.create", webhook.tenant, &webhook.name);
        let deed = deed.with(format!("{} {}", webhook.url.shown(), listed(&webhook.events)));
        self.audited(deed, move |tx| {
            room_for_one(tx, webhook.tenant)?;
            change(
                tx,
                format!("webhook {:?}", webhook.name),
                "INSERT INTO webhook (tenant_id, id, name, environment_id, url, events, description, created_at,
                        sealed_key, sealed_secret, secret_at)
                 VALUES (:tenant, :id, :name, :environment, :url, :events, :description, :at, :key, :secret, :at)",
                named_params! {":tenant": webhook.tenant.to_string(), ":id": webhook.id.to_string(),
                    ":name": webhook.name, ":environment": webhook.environment.map(|id| id.to_string()),
                    ":url": webhook.url.0, ":events": json_of(&webhook.events),
                    ":description": webhook.description, ":at": webhook.created_at.0, ":key": secret.key,
                    ":secret": secret.secret},
            )?;
            Ok(())
        })
        .await
    }

    /// Webhooks of a tenant, by name.
    pub(crate) async fn webhooks(
        &self,
        tenant: TenantId,
        page: Page,
        now: Wall,
    ) -> Result<Vec<Webhook>> {
        self.read(tenant, move |connection| {
            let sql = format!(
                "{SELECT} WHERE w.tenant_id = :tenant AND w.name > :after
                   AND (:search = '' OR instr(lower(w.name), lower(:search)) > 0) ORDER BY w.name LIMIT :limit"
            );
            rows(
                connection,
                &sql,
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| webhook(row, tenant, now),
            )
        })
        .await
    }

    /// Changes what people set: name, address, events, description, environment.
    ///
    /// # Errors
    /// `ALREADY_EXISTS` for a name that is taken.
    pub(crate) async fn change_webhook(&self, webhook: Webhook) -> Result<()> {
        let deed = Deed::of("webhook.change", webhook.tenant, &webhook.name);
        let deed = deed.with(format!("{} {}", webhook.url.shown(), listed(&webhook.events)));
        self.audited(deed, move |tx| {
            // Another address begins without the failures of the one before.
            change(
                tx,
                format!("webhook {:?}", webhook.name),
                "UPDATE webhook SET name = :name, environment_id = :environment, events = :events,
                        description = :description, failures = iif(url = :url, failures, 0),
                        not_before = iif(url = :url, not_before, 0), url = :url
                  WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": webhook.tenant.to_string(), ":id": webhook.id.to_string(),
                ":name": webhook.name, ":environment": webhook.environment.map(|id| id.to_string()),
                ":url": webhook.url.0, ":events": json_of(&webhook.events),
                ":description": webhook.description},
            )?;
            Ok(())
        })
        .await
    }

    /// Holds deliveries back from that moment, or lets them go out.
    pub(crate) async fn pause_webhook(&self, webhook: Webhook, at: Option<Wall>) -> Result<()> {
        let action = if at.is_some() { "webhook.pause" } else { "webhook.resume" };
        self.audited(Deed::of(action, webhook.tenant, &webhook.name), move |tx| {
            change(
                tx,
                "a webhook",
                "UPDATE webhook SET paused_at = iif(:at IS NULL, NULL, coalesce(paused_at, :at)), failures = 0,
                        not_before = 0
                  WHERE tenant_id = :tenant AND id = :id",
                named_params! {":tenant": webhook.tenant.to_string(), ":id": webhook.id.to_string(),
                    ":at": at.map(|at| at.0)},
            )?;
            Ok(())
        })
        .await
    }

    /// Puts a secret in the place of the one in force, which signs as well `until` then.
    ///
    /// # Errors
    /// `STILL_USED` where an older one is in force yet and the one of now is to stay in force.
    pub(crate) async fn rotate_webhook(
        &self,
        webhook: Webhook,
        secret: Envelope,
        (now, until): (Wall, Option<Wall>),
    ) -> Result<()> {
        let words = until.map_or_else(
            || "the secret of before is out of force".to_owned(),
            |until| format!("the secret of before is in force until {}", until.to_iso()),
        );
        let deed = Deed::of("webhook.rotate", webhook.tenant, &webhook.name).with(words);
        self.audited(deed, move |tx| {
            let ids = (webhook.tenant.to_string(), webhook.id.to_string());
            let changed = change(
                tx,
                "a webhook",
                "UPDATE webhook SET former_key = iif(:until IS NULL, NULL, sealed_key),
                        former_secret = iif(:until IS NULL, NULL, sealed_secret), former_until = :until,
                        sealed_key = :key, sealed_secret = :secret, secret_at = :now
                  WHERE tenant_id = :tenant AND id = :id
                    AND (:until IS NULL OR coalesce(former_until, 0) <= :now)",
                named_params! {":tenant": ids.0, ":id": ids.1, ":until": until.map(|until| until.0),
                    ":now": now.0, ":key": secret.key, ":secret": secret.secret},
            )?;
            if changed == 1 {
                return Ok(());
            }
            let words = format!("two secrets of webhook {:?} are in force already", webhook.name);
            Err(Error::new(Code::StillUsed, words))
        })
        .await
    }

    /// Removes a webhook with its deliveries.
    pub(crate) async fn remove_webhook(&self, webhook: Webhook) -> Result<()> {
        let deed = Deed::of("webhook.remove", webhook.tenant, &webhook.name);
        self.audited(deed.with(webhook.url.shown()), move |tx| {
            let of = [webhook.tenant.to_string(), webhook.id.to_string()];
            for sql in [
                "DELETE FROM webhook_delivery WHERE tenant_id = ?1 AND webhook_id = ?2",
                "DELETE FROM webhook WHERE tenant_id = ?1 AND id = ?2",
                "DELETE FROM webhook_event WHERE tenant_id = ?1 AND ?2 = ?2
                    AND NOT EXISTS (SELECT 1 FROM webhook_delivery WHERE event_seq = seq)",
            ] {
                tx.prepare_cached(sql)
                    .map_err(failed)?
                    .execute(params![of[0], of[1]])
                    .map_err(failed)?;
            }
            Ok(())
        })
        .await
    }
}

fn room_for_one(tx: &Tx<'_>, tenant: TenantId) -> Result<()> {
    let sql = "SELECT count(*) FROM webhook WHERE tenant_id = ?1";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found =
        statement.query_row(params![tenant.to_string()], |row| count(row, 0)).map_err(failed)?;
    if found < limits::TENANT_WEBHOOKS as u64 {
        return Ok(());
    }
    let words = format!("a tenant has at most {} webhooks", limits::TENANT_WEBHOOKS);
    Err(Error::new(Code::BadRequest, words))
}

fn webhook(row: &Row<'_>, tenant: TenantId, now: Wall) -> SqlResult<Webhook> {
    let environment: Option<EnvironmentId> = text_as(row, 2)?;
    let rests: i64 = row.get(11)?;
    Ok(Webhook {
        tenant,
        id: parsed::<WebhookId>(row, 0)?,
        name: row.get(1)?,
        environment,
        url: Target(row.get(3)?),
        events: events(&row.get::<String>(4)?),
        description: row.get(5)?,
        created_at: At(row.get(6)?),
        paused_at: time(row, 7)?,
        secret_at: At(row.get(8)?),
        former_until: time(row, 9)?.filter(|until| until.0 > now.0),
        failures: row.get(10)?,
        rests_until: (rests > now.0).then_some(At(rests)),
        pending: count(row, 12)?,
        dead: count(row, 13)?,
    })
}

fn count(row: &Row<'_>, at: usize) -> SqlResult<u64> {
    row.get(at).map(i64::unsigned_abs)
}

fn json_of(events: &[EventKind]) -> String {
    serde_json::to_string(events).unwrap_or_default()
}

fn events(json: &str) -> Vec<EventKind> {
    let words: Vec<String> = serde_json::from_str(json).unwrap_or_default();
    words.iter().filter_map(|word| EventKind::parse(word)).collect()
}

fn listed(events: &[EventKind]) -> String {
    events.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(",")
}
