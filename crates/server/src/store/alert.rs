//! Alerts in the embedded store: which there are, what people decided of them, and what is told.
//!
//! Promises: an alert changes in one transaction with all that is told of it, as events of webhooks and as notices to
//! addresses; a look that finds nothing new writes nothing; what a person decides and its entry in the audit are one
//! transaction.
//! Never: judges; `model::alert` does.

mod facts;
mod mail;
mod routes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::store::sql::{Row, SqlResult, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{AlertId, EnvironmentId, TenantId},
    limits,
};
use runtime::{clock::Wall, entropy};
use serde_json::json;

use super::{
    Store, Whose,
    audit::Deed,
    catalog::{change, parsed, rows, text_as, time},
    failed,
};
use crate::model::{
    alert::{
        self, About, Alert, Language, Measure, Notice, Pace, Rule, Standing, Told, Wanted,
        findings::Findings, words,
    },
    catalog::{At, Page},
    webhook::EventKind,
};

pub use facts::Known;
pub(in crate::store) use routes::mail_server;

const SELECT: &str =
    "SELECT id, tenant_id, environment_id, erp, rule, subject, amount, since, code, raised_at, clear_since, resolved_at,
        told_at, returns, acknowledged_at, acknowledged_by, silenced_until, silenced_by FROM alert";

/// What a look came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Turn {
    pub alert: Alert,
    /// What was told, if anything.
    pub notice: Option<Notice>,
    new: bool,
}

impl Store {
    /// Holds what was found of a tenant (`None`: of the server itself) against its alerts, and notes what follows. Returns
    /// the alerts that changed.
    ///
    /// # Errors
    /// The store's own.
    pub async fn judge_alerts(
        &self,
        tenant: Option<TenantId>,
        findings: Findings,
        (pace, now): (Pace, Wall),
    ) -> Result<Vec<Turn>> {
        // A look first: the writer is for those who accept.
        let findings = Arc::new(findings);
        let found = Arc::clone(&findings);
        let any = self
            .read(tenant, move |connection| {
                Ok(!judged(connection, tenant, &found, (pace, now))?.is_empty())
            })
            .await?;
        if !any {
            return Ok(Vec::new());
        }
        self.write(tenant, move |tx| {
            let turns = judged(tx, tenant, &findings, (pace, now))?;
            for turn in &turns {
                keep(tx, turn)?;
                if let Some(notice) = turn.notice {
                    tell(tx, &turn.alert, notice, now)?;
                }
            }
            Ok(turns)
        })
        .await
    }

    /// Alerts of a tenant, or of the server itself, the newest first; the page goes on behind the alert given as `after`.
    ///
    /// # Errors
    /// `BAD_ID` where `after` is no alert.
    pub(crate) async fn alerts(
        &self,
        tenant: Option<TenantId>,
        wanted: Wanted,
        page: Page,
    ) -> Result<Vec<Alert>> {
        let after = match page.after.trim() {
            "" => None,
            text => Some(text.parse::<AlertId>()?.to_string()),
        };
        self.read(tenant, move |connection| {
            let state = match wanted {
                Wanted::Open => "resolved_at IS NULL",
                Wanted::Resolved => "resolved_at IS NOT NULL",
                Wanted::All => "TRUE",
            };
            let sql = format!(
                "{SELECT} WHERE tenant_id IS NOT DISTINCT FROM :tenant AND {state}
                   AND (:after IS NULL
                        OR (raised_at, id) < (SELECT raised_at, id FROM alert WHERE id = :after AND tenant_id IS NOT DISTINCT FROM :tenant))
                 ORDER BY raised_at DESC, id DESC LIMIT :limit"
            );
            rows(
                connection,
                &sql,
                named_params! {":tenant": tenant.map(|id| id.to_string()), ":after": after, ":limit": page.limit},
                shown,
            )
        })
        .await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) async fn alert(&self, tenant: Option<TenantId>, id: AlertId) -> Result<Alert> {
        self.read(tenant, move |connection| one(connection, tenant, id)).await
    }

    /// A person has seen it: it is not told again until it ends.
    ///
    /// # Errors
    /// `NOT_FOUND`; `BAD_REQUEST` where it is resolved.
    pub(crate) async fn acknowledge_alert(&self, alert: Alert, now: Wall) -> Result<Alert> {
        let (tenant, id, who) = (alert.tenant, alert.id, self.actor());
        self.audited(deed("alert.acknowledge", &alert), move |tx| {
            let changed = change(
                tx,
                "an alert",
                "UPDATE alert SET acknowledged_at = :now, acknowledged_by = :who
                  WHERE id = :id AND tenant_id IS NOT DISTINCT FROM :tenant AND resolved_at IS NULL",
                named_params! {":id": id.to_string(), ":tenant": tenant.map(|id| id.to_string()), ":now": now.0,
                    ":who": who},
            )?;
            if changed == 0 {
                let words = "the alert is resolved: there is nothing to acknowledge";
                return Err(Error::new(Code::BadRequest, words));
            }
            one(tx, tenant, id)
        })
        .await
    }

    /// Nothing is told of it until then, but the end of what was told before; `None`: what is due is told again.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub(crate) async fn silence_alert(&self, alert: Alert, until: Option<Wall>) -> Result<Alert> {
        let (tenant, id, who) = (alert.tenant, alert.id, self.actor());
        let words = until
            .map_or_else(|| "no longer".to_owned(), |until| format!("until {}", until.to_iso()));
        self.audited(deed("alert.silence", &alert).with(words), move |tx| {
            change(
                tx,
                "an alert",
                "UPDATE alert SET silenced_until = :until, silenced_by = :who WHERE id = :id AND tenant_id IS NOT DISTINCT FROM :tenant",
                named_params! {":id": id.to_string(), ":tenant": tenant.map(|id| id.to_string()),
                    ":until": until.map(|until| until.0), ":who": until.map(|_| who)},
            )?;
            one(tx, tenant, id)
        })
        .await
    }

    /// Removes what is past its days: alerts that were resolved, notices that ended or were never taken.
    ///
    /// # Errors
    /// The store's own.
    pub async fn forget_alerts(&self, now: Wall) -> Result<()> {
        let before = |kept: std::time::Duration| {
            now.0.saturating_sub(i64::try_from(kept.as_micros()).unwrap_or(i64::MAX))
        };
        let (alerts, mails) = (before(limits::ALERT_KEPT), before(limits::MAIL_KEPT));
        let due = "SELECT EXISTS (SELECT 1 FROM alert WHERE resolved_at < ?1)
                       OR EXISTS (SELECT 1 FROM alert_notice WHERE at < ?2 AND state <> 'leased')";
        let any = self
            .read(Whose::All, move |connection| {
                let mut statement = connection.prepare_cached(due).map_err(failed)?;
                statement.query_row([alerts, mails], |row| row.get::<bool>(0)).map_err(failed)
            })
            .await?;
        if !any {
            return Ok(());
        }
        self.write(Whose::All, move |tx| {
            for (sql, before) in [
                ("DELETE FROM alert WHERE resolved_at < ?1", alerts),
                ("DELETE FROM alert_notice WHERE at < ?1 AND state <> 'leased'", mails),
            ] {
                tx.prepare_cached(sql).map_err(failed)?.execute([before]).map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    /// Open alerts by rule; for metrics.
    ///
    /// # Errors
    /// The store's own.
    pub async fn open_alerts(&self) -> Result<Vec<(String, i64)>> {
        self.read(Whose::All, |connection| {
            let sql = "SELECT rule, count(*) FROM alert WHERE resolved_at IS NULL GROUP BY rule";
            rows(connection, sql, &[], |row| Ok((row.get(0)?, row.get(1)?)))
        })
        .await
    }
}

fn deed(action: &'static str, alert: &Alert) -> Deed {
    let target = format!("{} {}", alert.rule.as_str(), alert.id);
    match alert.tenant {
        Some(tenant) => Deed::of(action, tenant, target),
        None => Deed::global(action, target),
    }
}

fn one(connection: &Tx<'_>, tenant: Option<TenantId>, id: AlertId) -> Result<Alert> {
    let sql = format!("{SELECT} WHERE id = :id AND tenant_id IS NOT DISTINCT FROM :tenant");
    let values = named_params! {":id": id.to_string(), ":tenant": tenant.map(|id| id.to_string())};
    let missing = || Error::new(Code::NotFound, format!("there is no alert {id}"));
    rows(connection, &sql, values, shown)?.into_iter().next().ok_or_else(missing)
}

fn shown(row: &Row<'_>) -> SqlResult<Alert> {
    Ok(Alert {
        id: parsed(row, 0)?,
        tenant: text_as(row, 1)?,
        environment: text_as(row, 2)?,
        erp: row.get(3)?,
        rule: parsed(row, 4)?,
        subject: row.get(5)?,
        amount: row.get(6)?,
        since: time(row, 7)?,
        code: row.get(8)?,
        raised_at: At(row.get(9)?),
        clear_since: time(row, 10)?,
        resolved_at: time(row, 11)?,
        told_at: time(row, 12)?,
        returns: row.get(13)?,
        acknowledged_at: time(row, 14)?,
        acknowledged_by: row.get(15)?,
        silenced_until: time(row, 16)?,
        silenced_by: row.get(17)?,
    })
}

fn about(alert: &Alert) -> About {
    let together = alert.rule == Rule::TableParked && alert.subject.is_empty();
    About {
        environment: alert.environment,
        erp: alert.erp.clone(),
        rule: alert.rule,
        subject: alert.subject.clone(),
        code: alert.code.clone().filter(|_| together),
    }
}

fn measure(alert: &Alert) -> Measure {
    let Alert { amount, since, code, .. } = alert;
    Measure { amount: *amount, since: since.map(|at| Wall(at.0)), code: code.clone() }
}

fn standing(alert: &Alert) -> Standing {
    let wall = |at: Option<At>| at.map(|at| Wall(at.0));
    Standing {
        raised_at: Wall(alert.raised_at.0),
        clear_since: wall(alert.clear_since),
        resolved_at: wall(alert.resolved_at),
        told_at: wall(alert.told_at),
        returns: alert.returns,
        acknowledged: alert.acknowledged_at.is_some(),
        silenced_until: wall(alert.silenced_until),
    }
}

/// The alerts that change, each as it will be.
fn judged(
    connection: &Tx<'_>,
    tenant: Option<TenantId>,
    findings: &Findings,
    (pace, now): (Pace, Wall),
) -> Result<Vec<Turn>> {
    // The newest of each thing; what is over gives way to another alert.
    let sql = format!(
        "{SELECT} WHERE tenant_id IS NOT DISTINCT FROM :tenant AND (resolved_at IS NULL OR resolved_at > :over) ORDER BY raised_at"
    );
    let over = Standing::over_before(now).0;
    let values = named_params! {":tenant": tenant.map(|id| id.to_string()), ":over": over};
    let known = rows(connection, &sql, values, shown)?.into_iter();
    let known: BTreeMap<About, Alert> = known.map(|alert| (about(&alert), alert)).collect();
    let open: BTreeSet<&About> =
        known.iter().filter(|(_, alert)| alert.resolved_at.is_none()).map(|(of, _)| of).collect();
    let conditions = findings.gathered(|about| open.contains(about)).into_iter();
    let mut there: BTreeMap<About, Measure> =
        conditions.map(|found| (found.about, found.measure)).collect();
    let mut turns = Vec::new();
    for (about, alert) in known {
        if findings.is_unknown(&about) {
            continue;
        }
        let found = there.remove(&about);
        let before = standing(&alert);
        let (after, notice) = alert::step(Some(before), found.is_some(), pace, now);
        let Some(after) = after else { continue };
        let another = found.as_ref().is_some_and(|found| *found != measure(&alert));
        if after == before && !another {
            continue;
        }
        let measure = found.unwrap_or_else(|| measure(&alert));
        turns.push(Turn { alert: changed(alert, measure, after), notice, new: false });
    }
    for (about, measure) in there {
        let (after, notice) = alert::step(None, true, pace, now);
        let Some(after) = after else { continue };
        let alert = fresh(tenant, about, now);
        turns.push(Turn { alert: changed(alert, measure, after), notice, new: true });
    }
    Ok(turns)
}

fn fresh(tenant: Option<TenantId>, about: About, now: Wall) -> Alert {
    let About { environment, erp, rule, subject, .. } = about;
    Alert {
        id: AlertId(entropy::uuid()),
        tenant,
        environment,
        erp,
        rule,
        subject,
        amount: 0,
        since: None,
        code: None,
        raised_at: At(now.0),
        clear_since: None,
        resolved_at: None,
        told_at: None,
        returns: 0,
        acknowledged_at: None,
        acknowledged_by: None,
        silenced_until: None,
        silenced_by: None,
    }
}

fn changed(alert: Alert, measure: Measure, after: Standing) -> Alert {
    let at = |wall: Option<Wall>| wall.map(|wall| At(wall.0));
    let Measure { amount, since, code } = measure;
    let silenced_until = at(after.silenced_until);
    Alert {
        amount,
        since: at(since),
        code,
        raised_at: At(after.raised_at.0),
        clear_since: at(after.clear_since),
        resolved_at: at(after.resolved_at),
        told_at: at(after.told_at),
        returns: after.returns,
        acknowledged_at: alert.acknowledged_at.filter(|_| after.acknowledged),
        acknowledged_by: alert.acknowledged_by.filter(|_| after.acknowledged),
        silenced_until,
        silenced_by: alert.silenced_by.filter(|_| silenced_until.is_some()),
        ..alert
    }
}

fn keep(tx: &Tx<'_>, turn: &Turn) -> Result<()> {
    let Turn { alert, new, .. } = turn;
    let sql = if *new {
        "INSERT INTO alert (id, tenant_id, environment_id, erp, rule, subject, amount, since, code, raised_at, clear_since,
            resolved_at, told_at, returns, acknowledged_at, acknowledged_by, silenced_until, silenced_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)"
    } else {
        "UPDATE alert SET amount = ?7, since = ?8, code = ?9, raised_at = ?10, clear_since = ?11, resolved_at = ?12,
            told_at = ?13, returns = ?14, acknowledged_at = ?15, acknowledged_by = ?16, silenced_until = ?17,
            silenced_by = ?18
          WHERE id = ?1 AND tenant_id IS NOT DISTINCT FROM ?2 AND environment_id IS NOT DISTINCT FROM ?3 AND erp IS NOT DISTINCT FROM ?4 AND rule = ?5 AND subject = ?6"
    };
    let micros = |at: Option<At>| at.map(|at| at.0);
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![
            alert.id.to_string(),
            alert.tenant.map(|id| id.to_string()),
            alert.environment.map(|id| id.to_string()),
            alert.erp,
            alert.rule.as_str(),
            alert.subject,
            alert.amount,
            micros(alert.since),
            alert.code,
            alert.raised_at.0,
            micros(alert.clear_since),
            micros(alert.resolved_at),
            micros(alert.told_at),
            alert.returns,
            micros(alert.acknowledged_at),
            alert.acknowledged_by,
            micros(alert.silenced_until),
            alert.silenced_by
        ])
        .map_err(failed)?;
    Ok(())
}

/// Notes a notice for every address and every webhook that asks for it.
fn tell(tx: &Tx<'_>, alert: &Alert, notice: Notice, now: Wall) -> Result<()> {
    let environment = environment_name(tx, alert.environment)?;
    let told = Told {
        notice,
        at: now,
        about: about(alert),
        measure: measure(alert),
        environment: environment.clone(),
    };
    mail::post(tx, alert.tenant, &told)?;
    let Some(tenant) = alert.tenant else { return Ok(()) };
    let kind = match notice {
        Notice::Raised | Notice::Again => EventKind::AlertRaised,
        Notice::Resolved => EventKind::AlertResolved,
    };
    let text = words::line(&told.about, &told.measure, environment.as_deref(), Language::En);
    let time = |at: Option<At>| at.map(|at| at.to_string());
    let data = json!({ "tenantId": tenant.to_string(), "alertId": alert.id.to_string(), "notice": notice.as_str(),
        "rule": alert.rule.as_str(), "environmentId": alert.environment.map(|id| id.to_string()), "erp": alert.erp,
        "table": (!alert.subject.is_empty()).then_some(&alert.subject), "amount": alert.amount, "code": alert.code,
        "since": time(alert.since), "raisedAt": alert.raised_at.to_string(), "resolvedAt": time(alert.resolved_at),
        "text": text });
    let place = alert.environment.map(|id| id.to_string());
    super::webhook::tell_alert(tx, tenant, (kind, place, alert.erp.clone()), data.to_string(), now)
}

fn environment_name(tx: &Tx<'_>, id: Option<EnvironmentId>) -> Result<Option<String>> {
    let Some(id) = id else { return Ok(None) };
    let sql = "SELECT name FROM environment WHERE id = :id";
    let values = named_params! {":id": id.to_string()};
    Ok(rows(tx, sql, values, |row| row.get(0))?.into_iter().next())
}

#[cfg(test)]
mod tests;
