//! Deliveries: claimed under a lease, settled by their receipt, looked at and replayed by people.
//!
//! Promises: one try at a time per webhook; a try is counted before it is made; whatever a receipt that is not in force
//! says changes nothing; a lapsed lease is a failed try.
//! Never: judges; `model::delivery` does.

use std::collections::BTreeMap;

use crate::store::sql::{Optional as _, Row, SqlResult, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{EventId, TenantId},
    limits,
};
use runtime::{clock::Wall, entropy};
use uuid::Uuid;

use crate::{
    model::{
        carol::Envelope,
        catalog::{At, Page},
        delivery::{self, Health, Next, Outcome, Schedule, State},
        webhook::{Claim, Delivery, Event, EventKind, Secrets, Standing, Target, Webhook},
    },
    store::{
        Store, Whose,
        audit::Deed,
        catalog::{parsed, rows, text_as, time},
        failed,
    },
};

use super::count;

/// Rows that retention removes in one step.
const STEP: i64 = 1_000;

/// What is not kept any longer: done deliveries that ended by then, and all whose event happened by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    pub done_before: Option<Wall>,
    pub all_before: Option<Wall>,
}

/// Which deliveries of a webhook are told again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replay {
    One(EventId),
    /// All of a state, `done` or `dead`, whose event happened at that moment or later; `None`: at any time.
    All {
        state: State,
        since: Option<At>,
    },
}

impl Store {
    /// Takes deliveries that are due, the oldest of each webhook: at most `room` of them, and of one tenant no more than
    /// its share. Leases that lapsed are settled as failures first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn claim_deliveries(
        &self,
        room: usize,
        schedule: Schedule,
        (now, chance): (Wall, f64),
    ) -> Result<Vec<Claim>> {
        // A look first: the writer is for those who accept.
        let due = self.read(Whose::All, move |connection| is_any_due(connection, now)).await?;
        if !due {
            return Ok(Vec::new());
        }
        self.write(Whose::All, move |tx| {
            for receipt in lapsed(tx, now)? {
                let words = "the server ended before it noted what the try came to";
                settle(tx, receipt, (Outcome::Unknown, Some(words)), (schedule, now, chance))?;
            }
            claim(tx, room, now)
        })
        .await
    }

    /// Writes down what a try came to; `false` where its lease was over.
    ///
    /// # Errors
    /// The store's own.
    pub async fn settle_delivery(
        &self,
        receipt: Uuid,
        (outcome, words): (Outcome, Option<String>),
        schedule: Schedule,
        (now, chance): (Wall, f64),
    ) -> Result<Option<Next>> {
        self.write(Whose::All, move |tx| {
            settle(tx, receipt, (outcome, words.as_deref()), (schedule, now, chance))
        })
        .await
    }

    /// Notes a test for one webhook.
    ///
    /// # Errors
    /// The store's own.
    pub(crate) async fn add_test(
        &self,
        webhook: Webhook,
        data: String,
        now: Wall,
    ) -> Result<EventId> {
        let deed = Deed::of("webhook.test", webhook.tenant, &webhook.name);
        self.audited(deed.with(webhook.url.shown()), move |tx| {
            let id = EventId(entropy::uuid_at(now.millis()));
            let tenant = webhook.tenant.to_string();
            let sql = "INSERT INTO webhook_event (id, tenant_id, type, at, data) VALUES (?1, ?2, ?3, ?4, ?5) RETURNING seq";
            let kind = EventKind::Test.as_str();
            let seq: i64 = tx
                .prepare_cached(sql)
                .map_err(failed)?
                .query_row(params![id.to_string(), tenant, kind, now.0, data], |row| row.get(0))
                .map_err(failed)?;
            let sql = "INSERT INTO webhook_delivery (tenant_id, webhook_id, event_seq, test, not_before)
                       VALUES (?1, ?2, ?3, 1, ?4)";
            tx.prepare_cached(sql)
                .map_err(failed)?
                .execute(params![tenant, webhook.id.to_string(), seq, now.0])
                .map_err(failed)?;
            Ok(id)
        })
        .await
    }

    /// Deliveries of a webhook, the newest first; the page goes on behind the event given as `after`.
    ///
    /// # Errors
    /// `BAD_ID` where `after` is no event.
    pub(crate) async fn deliveries(
        &self,
        webhook: Webhook,
        (state, kind): (Option<State>, Option<EventKind>),
        page: Page,
    ) -> Result<Vec<Delivery>> {
        let after = match page.after.trim() {
            "" => None,
            text => Some(text.parse::<EventId>()?.to_string()),
        };
        self.read(webhook.tenant, move |connection| {
            let sql = format!(
                "{SELECT} WHERE d.tenant_id = :tenant AND d.webhook_id = :webhook
                   AND (:state IS NULL OR d.state = :state) AND (:kind IS NULL OR e.type = :kind)
                   AND (:after IS NULL OR d.event_seq < (SELECT seq FROM webhook_event WHERE id = :after))
                 ORDER BY d.event_seq DESC LIMIT :limit"
            );
            rows(
                connection,
                &sql,
                named_params! {":tenant": webhook.tenant.to_string(), ":webhook": webhook.id.to_string(),
                    ":state": state.map(State::as_str), ":kind": kind.map(EventKind::as_str), ":after": after,
                    ":limit": page.limit},
                shown,
            )
        })
        .await
    }

    /// One delivery with the event it tells.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) async fn delivery(
        &self,
        webhook: Webhook,
        id: EventId,
    ) -> Result<(Delivery, Event)> {
        self.read(webhook.tenant, move |connection| {
            let sql = format!(
                "{SELECT} WHERE d.tenant_id = :tenant AND d.webhook_id = :webhook AND e.id = :id"
            );
            let found = rows(
                connection,
                &sql,
                named_params! {":tenant": webhook.tenant.to_string(), ":webhook": webhook.id.to_string(),
                    ":id": id.to_string()},
                |row| {
                    let delivery = shown(row)?;
                    let Delivery { id, kind, at, .. } = delivery;
                    Ok((delivery, Event { id, kind, at, data: row.get(14)? }))
                },
            )?;
            let words = || format!("webhook {:?} has no delivery {id}", webhook.name);
            found.into_iter().next().ok_or_else(|| Error::new(Code::NotFound, words()))
        })
        .await
    }

    /// Makes deliveries that ended ready again, with all their tries before them; tells how many there are, or would be.
    ///
    /// # Errors
    /// `NOT_FOUND` for one that does not exist or has not ended.
    pub(crate) async fn replay(
        &self,
        webhook: Webhook,
        which: Replay,
        (dry_run, now): (bool, Wall),
    ) -> Result<u64> {
        let words = match which {
            Replay::One(id) => format!("event {id}"),
            Replay::All { state, since: None } => format!("all that are {}", state.as_str()),
            Replay::All { state, since: Some(since) } => {
                format!("all that are {} since {since}", state.as_str())
            }
        };
        if dry_run {
            return self
                .read(webhook.tenant, move |connection| replayable(connection, &webhook, which))
                .await;
        }
        let deed = Deed::of("webhook.replay", webhook.tenant, &webhook.name).with(words);
        self.audited(deed, move |tx| {
            let count = replayable(tx, &webhook, which)?;
            if let (Replay::One(id), 0) = (which, count) {
                let words = format!("webhook {:?} has no delivery {id} that has ended", webhook.name);
                return Err(Error::new(Code::NotFound, words));
            }
            let sql = format!(
                "UPDATE webhook_delivery SET state = 'ready', attempts = 0, not_before = :now, ended_at = NULL
                  WHERE tenant_id = :tenant AND webhook_id = :webhook AND {ENDED}"
            );
            let (id, state, since) = parts(which);
            let values = named_params! {":tenant": webhook.tenant.to_string(), ":webhook": webhook.id.to_string(),
                ":id": id, ":state": state, ":since": since, ":now": now.0};
            tx.prepare_cached(&sql).map_err(failed)?.execute(values).map_err(failed)?;
            // Who orders this has mended the consumer: its address need not rest any longer.
            let sql = "UPDATE webhook SET failures = 0, not_before = 0 WHERE tenant_id = ?1 AND id = ?2";
            tx.prepare_cached(sql)
                .map_err(failed)?
                .execute(params![webhook.tenant.to_string(), webhook.id.to_string()])
                .map_err(failed)?;
            Ok(count)
        })
        .await
    }

    /// Deliveries that wait or are under way, and dead ones; tests are left out.
    ///
    /// # Errors
    /// The store's own.
    pub async fn delivery_counts(&self) -> Result<(u64, u64)> {
        self.read(Whose::All, |connection| {
            // One count for each state: each has an index of its own.
            let sql = "SELECT (SELECT count(*) FROM webhook_delivery WHERE state = 'ready' AND test = 0)
                            + (SELECT count(*) FROM webhook_delivery WHERE state = 'leased' AND test = 0),
                              (SELECT count(*) FROM webhook_delivery WHERE state = 'dead' AND test = 0)";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            statement.query_row([], |row| Ok((count(row, 0)?, count(row, 1)?))).map_err(failed)
        })
        .await
    }

    /// How many deliveries are not kept any longer.
    ///
    /// # Errors
    /// The store's own.
    pub async fn deliveries_due(&self, due: Due) -> Result<u64> {
        self.read(Whose::All, move |connection| {
            let sql = format!("SELECT count(*) {PAST}");
            let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
            let (done, all) = past(due);
            let values = named_params! {":done": done, ":all": all};
            statement.query_row(values, |row| count(row, 0)).map_err(failed)
        })
        .await
    }

    /// Removes some of them, and events that nothing hangs on any more; 0 = there were none. How many of them had not
    /// been told is the second number.
    ///
    /// # Errors
    /// The store's own.
    pub async fn forget_deliveries(&self, due: Due) -> Result<(u64, u64)> {
        if self.deliveries_due(due).await? == 0 {
            return Ok((0, 0));
        }
        self.write(Whose::All, move |tx| {
            let sql = format!(
                "DELETE FROM webhook_delivery WHERE (tenant_id, webhook_id, event_seq) IN
                   (SELECT d.tenant_id, d.webhook_id, d.event_seq {PAST} LIMIT {STEP}) RETURNING state <> 'done'"
            );
            let (done, all) = past(due);
            let values = named_params! {":done": done, ":all": all};
            let mut statement = tx.prepare_cached(&sql).map_err(failed)?;
            let gone = statement
                .query_map(values, |row| row.get::<bool>(0))
                .map_err(failed)?;
            let sql = "DELETE FROM webhook_event WHERE at <= max(:done, :all)
                         AND NOT EXISTS (SELECT 1 FROM webhook_delivery WHERE event_seq = seq)";
            tx.prepare_cached(sql).map_err(failed)?.execute(values).map_err(failed)?;
            let untold = gone.iter().filter(|untold| **untold).count();
            Ok((gone.len() as u64, untold as u64))
        })
        .await
    }
}

const SELECT: &str =
    "SELECT e.id, e.type, e.environment_id, e.erp, e.batch, e.at, d.state, e.held_for IS NOT NULL,
        d.attempts, d.not_before, d.last_at, d.last_status, d.last_error, d.ended_at, e.data
   FROM webhook_delivery d JOIN webhook_event e ON e.seq = d.event_seq";

/// A union, so that each half goes by its index.
const PAST: &str = "FROM (
     SELECT tenant_id, webhook_id, event_seq FROM webhook_delivery WHERE state = 'done' AND ended_at <= :done
     UNION
     SELECT d.tenant_id, d.webhook_id, d.event_seq FROM webhook_event e JOIN webhook_delivery d ON d.event_seq = e.seq
      WHERE e.at <= :all AND d.state <> 'leased') d";

const ENDED: &str = "state IN ('done', 'dead') AND (:id IS NOT NULL OR test = 0) AND (:id IS NULL OR event_seq = (SELECT seq FROM webhook_event WHERE id = :id))
   AND (:state IS NULL OR state = :state)
   AND event_seq IN (SELECT seq FROM webhook_event WHERE at >= :since)";

/// The two moments, before all time where nothing goes by them.
fn past(due: Due) -> (i64, i64) {
    let moment = |at: Option<Wall>| at.map_or(i64::MIN, |at| at.0);
    (moment(due.done_before), moment(due.all_before))
}

fn parts(which: Replay) -> (Option<String>, Option<&'static str>, i64) {
    match which {
        Replay::One(id) => (Some(id.to_string()), None, i64::MIN),
        Replay::All { state, since } => {
            (None, Some(state.as_str()), since.map_or(i64::MIN, |since| since.0))
        }
    }
}

fn replayable(connection: &Tx<'_>, webhook: &Webhook, which: Replay) -> Result<u64> {
    let sql = format!(
        "SELECT count(*) FROM webhook_delivery WHERE tenant_id = :tenant AND webhook_id = :webhook AND {ENDED}"
    );
    let (id, state, since) = parts(which);
    let values = named_params! {":tenant": webhook.tenant.to_string(), ":webhook": webhook.id.to_string(), ":id": id,
    ":state": state, ":since": since};
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    statement.query_row(values, |row| count(row, 0)).map_err(failed)
}

/// The oldest delivery of each webhook that may be tried now: a test at any time, all else unless the webhook is paused
/// or its address rests. A webhook with a try under way has none. The indices are named since the primary key, which
/// would be taken, leads through all that was taken before.
const CANDIDATES: &str = "SELECT w.tenant_id, w.id, w.next FROM (
     SELECT w.tenant_id, w.id, coalesce(
        (SELECT d.event_seq FROM webhook_delivery d INDEXED BY webhook_delivery_test
          WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id AND d.state = 'ready' AND d.test = 1
            AND d.not_before <= :now ORDER BY d.event_seq LIMIT 1),
        CASE WHEN w.paused_at IS NULL AND w.not_before <= :now THEN
           (SELECT d.event_seq FROM webhook_delivery d INDEXED BY webhook_delivery_ready
              JOIN webhook_event e ON e.seq = d.event_seq
             WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id AND d.state = 'ready' AND d.not_before <= :now
               AND e.held_for IS NULL ORDER BY d.event_seq LIMIT 1) END) AS next
       FROM webhook w
      WHERE NOT EXISTS (SELECT 1 FROM webhook_delivery d
          WHERE d.tenant_id = w.tenant_id AND d.webhook_id = w.id AND d.state = 'leased')) w
   WHERE w.next IS NOT NULL";

fn is_any_due(connection: &Tx<'_>, now: Wall) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM webhook_delivery WHERE state = 'leased' AND lease_until <= :now)
             OR EXISTS ({CANDIDATES})"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    statement.query_row(named_params! {":now": now.0}, |row| row.get(0)).map_err(failed)
}

fn lapsed(tx: &Tx<'_>, now: Wall) -> Result<Vec<Uuid>> {
    let sql = "SELECT receipt FROM webhook_delivery WHERE state = 'leased' AND lease_until <= ?1";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map([now.0], |row| row.get::<String>(0)).map_err(failed)?;
    Ok(found.iter().filter_map(|receipt| receipt.parse().ok()).collect())
}

/// Calls under way, by tenant.
fn under_way(tx: &Tx<'_>) -> Result<BTreeMap<String, u64>> {
    let sql = "SELECT tenant_id, count(*) FROM webhook_delivery WHERE state = 'leased' GROUP BY tenant_id";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, count(row, 1)?))).map_err(failed)?;
    Ok(found.into_iter().collect())
}

fn claim(tx: &Tx<'_>, room: usize, now: Wall) -> Result<Vec<Claim>> {
    let mut calls = under_way(tx)?;
    let sql = format!("{CANDIDATES} ORDER BY w.next");
    let found: Vec<(String, String, i64)> = rows(tx, &sql, named_params! {":now": now.0}, |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })?;
    let mut claims = Vec::new();
    for (tenant, webhook, seq) in found {
        let of_tenant = calls.entry(tenant.clone()).or_default();
        if claims.len() >= room {
            break;
        }
        if *of_tenant >= limits::TENANT_WEBHOOK_CALLS as u64 {
            continue;
        }
        *of_tenant += 1;
        claims.push(take(tx, (&tenant, &webhook, seq), now)?);
    }
    Ok(claims)
}

/// Counts the try and leases the delivery.
fn take(tx: &Tx<'_>, (tenant, webhook, seq): (&str, &str, i64), now: Wall) -> Result<Claim> {
    let receipt = entropy::uuid();
    let lease = i64::try_from(limits::WEBHOOK_LEASE.as_micros()).unwrap_or(i64::MAX);
    let sql = "UPDATE webhook_delivery SET state = 'leased', attempts = attempts + 1, receipt = ?4, lease_until = ?5
                WHERE (tenant_id, webhook_id, event_seq) = (?1, ?2, ?3)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![tenant, webhook, seq, receipt.to_string(), now.0.saturating_add(lease)])
        .map_err(failed)?;
    let sql = "SELECT w.tenant_id, w.id, w.url, w.sealed_key, w.sealed_secret, w.former_key, w.former_secret,
                      w.former_until, e.id, e.type, e.at, e.data, d.attempts
                 FROM webhook_delivery d JOIN webhook_event e ON e.seq = d.event_seq
                 JOIN webhook w ON w.tenant_id = d.tenant_id AND w.id = d.webhook_id
                WHERE (d.tenant_id, d.webhook_id, d.event_seq) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    statement
        .query_row(params![tenant, webhook, seq], |row| claimed(row, receipt, now))
        .map_err(failed)
}

fn claimed(row: &Row<'_>, receipt: Uuid, now: Wall) -> SqlResult<Claim> {
    let envelope = |key: usize, secret: usize| -> SqlResult<Option<Envelope>> {
        let parts = row.get::<Option<Vec<u8>>>(key)?.zip(row.get::<Option<Vec<u8>>>(secret)?);
        Ok(parts.map(|(key, secret)| Envelope { key, secret }))
    };
    let until = row.get::<Option<i64>>(7)?.map(Wall).filter(|until| *until > now);
    Ok(Claim {
        tenant: parsed::<TenantId>(row, 0)?,
        webhook: parsed(row, 1)?,
        url: Target(row.get(2)?),
        secrets: Secrets {
            current: Envelope { key: row.get(3)?, secret: row.get(4)? },
            former: envelope(5, 6)?.zip(until),
        },
        event: Event {
            id: parsed(row, 8)?,
            kind: parsed(row, 9)?,
            at: At(row.get(10)?),
            data: row.get(11)?,
        },
        attempt: row.get(12)?,
        receipt,
    })
}

/// Moves a leased delivery on, and notes how its address stands.
fn settle(
    tx: &Tx<'_>,
    receipt: Uuid,
    (outcome, words): (Outcome, Option<&str>),
    (schedule, now, chance): (Schedule, Wall, f64),
) -> Result<Option<Next>> {
    let Some(standing) = standing(tx, receipt)? else { return Ok(None) };
    let tries = if standing.test { schedule.attempts } else { standing.attempts };
    let next = delivery::after(tries, outcome, schedule, (now, chance));
    let (state, not_before, ended) = match next {
        Next::Done => (State::Done, now, Some(now.0)),
        Next::Dead => (State::Dead, now, Some(now.0)),
        Next::Again { not_before } => (State::Ready, not_before, None),
    };
    let status = match outcome {
        Outcome::Answered { status, .. } => Some(status),
        Outcome::Unanswered | Outcome::Unknown => None,
    };
    if !standing.test {
        let health = delivery::health(standing.health, outcome, schedule, (now, chance));
        let sql = "UPDATE webhook SET failures = ?2, not_before = ?3 WHERE (tenant_id, id) =
                     (SELECT tenant_id, webhook_id FROM webhook_delivery WHERE receipt = ?1)";
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![receipt.to_string(), health.failures, health.not_before.0])
            .map_err(failed)?;
    }
    let sql = "UPDATE webhook_delivery SET state = ?2, not_before = ?3, ended_at = ?4, last_at = ?5, last_status = ?6,
                      last_error = ?7, receipt = NULL, lease_until = NULL
                WHERE receipt = ?1";
    let values = params![
        receipt.to_string(),
        state.as_str(),
        not_before.0,
        ended,
        now.0,
        status,
        words.filter(|_| !outcome.is_good())
    ];
    tx.prepare_cached(sql).map_err(failed)?.execute(values).map_err(failed)?;
    Ok(Some(next))
}

fn standing(tx: &Tx<'_>, receipt: Uuid) -> Result<Option<Standing>> {
    let sql = "SELECT d.attempts, d.test, w.failures, w.not_before FROM webhook_delivery d
                 JOIN webhook w ON w.tenant_id = d.tenant_id AND w.id = d.webhook_id
                WHERE d.receipt = ?1 AND d.state = 'leased'";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .query_row([receipt.to_string()], |row| {
            let health = Health { failures: row.get(2)?, not_before: Wall(row.get(3)?) };
            Ok(Standing { attempts: row.get(0)?, test: row.get(1)?, health })
        })
        .optional()
        .map_err(failed)
}

fn shown(row: &Row<'_>) -> SqlResult<Delivery> {
    let state = State::parse(&row.get::<String>(6)?).unwrap_or(State::Dead);
    Ok(Delivery {
        id: parsed(row, 0)?,
        kind: parsed(row, 1)?,
        environment: text_as(row, 2)?,
        erp: row.get(3)?,
        batch: row.get::<Option<i64>>(4)?.map(protocol::ids::BatchId),
        at: At(row.get(5)?),
        state,
        waits_for_staging: row.get(7)?,
        attempts: row.get(8)?,
        next_at: (state == State::Ready).then_some(At(row.get(9)?)),
        last_at: time(row, 10)?,
        last_status: row.get(11)?,
        last_error: row.get(12)?,
        ended_at: time(row, 13)?,
    })
}
