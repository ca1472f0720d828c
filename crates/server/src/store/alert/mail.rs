//! Mail: notices that wait for an address, gathered into mails and settled by the mail's receipt.
//!
//! Promises: of one address one mail at a time, and none within a minute of the one before; a try is counted before it is
//! made; what a receipt that is not in force says changes nothing; a lapsed lease is a failed try; what failed and is for
//! an address that is gone, or that the mail server refuses for good, is not tried again.
//! Never: decides when to try again (`model::delivery` does); sees the text of a mail.

use crate::store::sql::{Row, SqlResult, Tx, named_params, params};
use protocol::{Result, ids::TenantId, limits};
use runtime::{clock::Wall, entropy};
use uuid::Uuid;

use crate::{
    model::{
        alert::{About, Hindrance, MailClaim, Measure, Notice, Told, Unsent},
        delivery::{self, Next, Outcome, Schedule},
    },
    store::{
        Store, Whose,
        catalog::{parsed, rows, text_as},
        failed,
    },
};

/// How a mail is tried: after 1, 2, 4 … minutes and then each hour, for about half a day.
const SCHEDULE: Schedule = Schedule { attempts: 16, first_retry_seconds: 60 };

/// Whether an address may be written to: it was not for a while, and nothing is under way to it.
const FREE: &str = "NOT EXISTS (SELECT 1 FROM alert_notice o WHERE o.address = n.address AND o.state = 'leased')
    AND NOT EXISTS (SELECT 1 FROM alert_notice o WHERE o.address = n.address AND o.state = 'done' AND o.ended_at > :since)";

impl Store {
    /// Takes what waits for one address, as one mail; `None` where nothing is due. Leases that lapsed are settled as
    /// failures first.
    ///
    /// # Errors
    /// The store's own.
    pub async fn claim_mail(&self, (now, chance): (Wall, f64)) -> Result<Option<MailClaim>> {
        // A look first: the writer is for those who accept.
        let due =
            "SELECT EXISTS (SELECT 1 FROM alert_notice WHERE (state = 'ready' AND not_before <= ?1)
                                     OR (state = 'leased' AND lease_until <= ?1))";
        let any = self
            .read(Whose::All, move |connection| {
                let mut statement = connection.prepare_cached(due).map_err(failed)?;
                statement.query_row([now.0], |row| row.get::<bool>(0)).map_err(failed)
            })
            .await?;
        if !any {
            return Ok(None);
        }
        self.write(Whose::All, move |tx| {
            let sql = "SELECT DISTINCT receipt FROM alert_notice WHERE state = 'leased' AND lease_until <= :now";
            let lapsed: Vec<Uuid> = rows(tx, sql, named_params! {":now": now.0}, |row| {
                let text: String = row.get(0)?;
                Ok(text.parse().unwrap_or_default())
            })?;
            for receipt in lapsed {
                let words = "the server ended before it noted what the try came to".to_owned();
                let unsent = Unsent { words, why: Hindrance::Later };
                settle(tx, receipt, Some(&unsent), (now, chance))?;
            }
            claim(tx, now)
        })
        .await
    }

    /// Writes down what a try came to: `None` = it was taken, else why not. Returns what becomes of its first notice that
    /// is still for somebody.
    ///
    /// # Errors
    /// The store's own.
    pub async fn settle_mail(
        &self,
        receipt: Uuid,
        unsent: Option<Unsent>,
        (now, chance): (Wall, f64),
    ) -> Result<Option<Next>> {
        self.write(Whose::All, move |tx| settle(tx, receipt, unsent.as_ref(), (now, chance))).await
    }

    /// Notices that wait or are under way, and those that were given up.
    ///
    /// # Errors
    /// The store's own.
    pub async fn notice_counts(&self) -> Result<(u64, u64)> {
        self.read(Whose::All, |connection| {
            let sql = "SELECT count(*) FILTER (WHERE state IN ('ready', 'leased')), count(*) FILTER (WHERE state = 'dead')
                         FROM alert_notice";
            let mut statement = connection.prepare_cached(sql).map_err(failed)?;
            let count = |row: &Row<'_>, at: usize| row.get::<i64>(at).map(i64::unsigned_abs);
            statement.query_row([], |row| Ok((count(row, 0)?, count(row, 1)?))).map_err(failed)
        })
        .await
    }
}

/// Notes one notice for each address that is to be told.
pub(super) fn post(tx: &Tx<'_>, tenant: Option<TenantId>, told: &Told) -> Result<()> {
    let sql = "INSERT INTO alert_notice (tenant_id, address, language, notice, at, environment_id, environment, erp, rule,
                   subject, amount, since, code, not_before)
               SELECT r.tenant_id, r.address, r.language, :notice, :at, :of, :environment, :erp, :rule, :subject, :amount,
                   :since, :code, :at
                 FROM alert_route r
                WHERE r.tenant_id IS NOT DISTINCT FROM :tenant AND (r.environment_id IS NULL OR r.environment_id = :of)";
    let Told { notice, at, about, measure, environment } = told;
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(named_params! {":tenant": tenant.map(|id| id.to_string()), ":notice": notice.as_str(), ":at": at.0,
            ":of": about.environment.map(|id| id.to_string()), ":environment": environment, ":erp": about.erp,
            ":rule": about.rule.as_str(), ":subject": about.subject, ":amount": measure.amount,
            ":since": measure.since.map(|at| at.0), ":code": measure.code})
        .map_err(failed)?;
    Ok(())
}

fn claim(tx: &Tx<'_>, now: Wall) -> Result<Option<MailClaim>> {
    let since =
        now.0.saturating_sub(i64::try_from(limits::MAIL_PAUSE.as_micros()).unwrap_or(i64::MAX));
    // A notice that is tried again waits alone: those that came behind it are tried when they are due.
    let sql = format!(
        "SELECT n.address, n.language FROM alert_notice n WHERE n.state = 'ready' AND n.not_before <= :now AND {FREE}
          ORDER BY n.seq LIMIT 1"
    );
    let due = rows(tx, &sql, named_params! {":now": now.0, ":since": since}, |row| {
        Ok((row.get::<String>(0)?, parsed(row, 1)?))
    })?;
    let Some((address, language)) = due.into_iter().next() else { return Ok(None) };
    let receipt = entropy::uuid();
    let lease = i64::try_from(limits::MAIL_LEASE.as_micros()).unwrap_or(i64::MAX);
    let many = i64::try_from(limits::MAIL_NOTICES).unwrap_or(i64::MAX);
    let sql = "UPDATE alert_notice SET state = 'leased', receipt = ?1, lease_until = ?2, attempts = attempts + 1
                WHERE seq IN (SELECT seq FROM alert_notice WHERE address = ?3 AND state = 'ready' AND not_before <= ?4
                               ORDER BY seq LIMIT ?5)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![receipt.to_string(), now.0.saturating_add(lease), address, now.0, many])
        .map_err(failed)?;
    let sql = "SELECT notice, at, environment_id, environment, erp, rule, subject, amount, since, code, attempts, seq
                 FROM alert_notice WHERE receipt = :receipt ORDER BY seq";
    let found = rows(tx, sql, named_params! {":receipt": receipt.to_string()}, |row| {
        Ok((told(row)?, row.get::<u32>(10)?, row.get::<i64>(11)?))
    })?;
    let (attempt, first) = found.first().map_or((1, 0), |(_, attempt, seq)| (*attempt, *seq));
    let last = found.last().map_or(0, |(_, _, seq)| *seq);
    let notices = found.into_iter().map(|(told, _, _)| told).collect();
    Ok(Some(MailClaim { receipt, address, language, attempt, range: (first, last), notices }))
}

fn told(row: &Row<'_>) -> SqlResult<Told> {
    let notice: String = row.get(0)?;
    Ok(Told {
        notice: Notice::parse(&notice).unwrap_or(Notice::Again),
        at: Wall(row.get(1)?),
        about: About {
            environment: text_as(row, 2)?,
            erp: row.get(4)?,
            rule: parsed(row, 5)?,
            subject: row.get(6)?,
            code: None,
        },
        measure: Measure {
            amount: row.get(7)?,
            since: row.get::<Option<i64>>(8)?.map(Wall),
            code: row.get(9)?,
        },
        environment: row.get(3)?,
    })
}

fn settle(
    tx: &Tx<'_>,
    receipt: Uuid,
    unsent: Option<&Unsent>,
    (now, chance): (Wall, f64),
) -> Result<Option<Next>> {
    if unsent.is_some() {
        // Its address was taken away while the mail was under way: nobody waits for another try.
        let sql = "DELETE FROM alert_notice WHERE receipt = ?1 AND NOT EXISTS (
                     SELECT 1 FROM alert_route r WHERE r.tenant_id IS NOT DISTINCT FROM alert_notice.tenant_id
                        AND r.address = alert_notice.address)";
        tx.prepare_cached(sql).map_err(failed)?.execute([receipt.to_string()]).map_err(failed)?;
    }
    let sql = "SELECT seq, attempts FROM alert_notice WHERE receipt = :receipt ORDER BY seq";
    let found = rows(tx, sql, named_params! {":receipt": receipt.to_string()}, |row| {
        Ok((row.get::<i64>(0)?, row.get::<u32>(1)?))
    })?;
    let mut first = None;
    for (seq, attempts) in found {
        let next = match unsent.map(|unsent| unsent.why) {
            None => Next::Done,
            Some(Hindrance::Never) => Next::Dead,
            Some(Hindrance::Later | Hindrance::Unreached) => {
                delivery::after(attempts, Outcome::Unanswered, SCHEDULE, (now, chance))
            }
        };
        let (state, not_before, ended) = match next {
            Next::Done => ("done", now, Some(now.0)),
            Next::Again { not_before } => ("ready", not_before, None),
            Next::Dead => ("dead", now, Some(now.0)),
        };
        let sql = "UPDATE alert_notice SET state = ?2, not_before = ?3, ended_at = ?4, last_error = ?5, receipt = NULL,
                       lease_until = NULL
                    WHERE seq = ?1";
        let words = unsent.map(|unsent| unsent.words.as_str());
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![seq, state, not_before.0, ended, words])
            .map_err(failed)?;
        first.get_or_insert(next);
    }
    Ok(first)
}
