//! Look: holds what the server knows against the rules, again and again, and sends the mails that are due.
//!
//! Promises: what is found is in the store, with all that is to be told, before any of it is told; a tenant whose facts
//! cannot be read keeps its alerts as they are and holds up no other one; a mail that was tried is written down with what
//! it came to, or tried again.
//! Never: decides what is wrong (`model::alert::rules` does) or whom to tell (`model::alert` does).

use std::collections::BTreeMap;

use metrics::{counter, gauge};
use protocol::{Result, ids::TenantId};
use runtime::{clock::Wall, entropy, files};

use super::{Alerts, post::Mail};
use crate::{
    model::{
        alert::{
            Alert, Condition, MailClaim, Notice, Rule,
            rules::{self, Facts, Thresholds},
            words,
        },
        delivery::Next,
        stream::StreamId,
    },
    store::sqlite::alert::StreamFacts,
};

/// Mails of one look: what is above waits for the next one.
const MAILS: usize = 32;

/// What looks. It remembers since when no lease was seen: a start of the server begins that anew.
#[derive(Debug)]
pub struct Look {
    alerts: Alerts,
    absent: BTreeMap<StreamId, Wall>,
}

impl Look {
    pub(super) fn new(alerts: Alerts) -> Self {
        Self { alerts, absent: BTreeMap::new() }
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// The stores' own: the first one, once everything else was looked at.
    pub async fn look(&mut self, now: Wall) -> Result<()> {
        let mut outcome = self.look_at_server(now).await;
        let mut tenants: BTreeMap<TenantId, Vec<StreamFacts>> = BTreeMap::new();
        for facts in self.alerts.store.stream_facts(now).await? {
            tenants.entry(facts.stream.tenant).or_default().push(facts);
        }
        for (tenant, streams) in tenants {
            let looked = self.look_at_tenant(tenant, streams, now).await;
            outcome = outcome.and(looked.map_err(|error| error.at(format!("tenant {tenant}"))));
        }
        self.measure().await?;
        outcome.and(self.alerts.store.forget_alerts(now).await)
    }

    async fn look_at_server(&self, now: Wall) -> Result<()> {
        let least = self.alerts.settings.disk_free_mb;
        let free = files::free(&self.alerts.data);
        self.judge(None, rules::of_server(free, least), now).await
    }

    async fn look_at_tenant(
        &mut self,
        tenant: TenantId,
        streams: Vec<StreamFacts>,
        now: Wall,
    ) -> Result<()> {
        let thresholds = self.alerts.store.thresholds(tenant).await?;
        let mut conditions = Vec::new();
        for known in streams {
            let facts = self.facts(known, &thresholds, now).await?;
            conditions.extend(rules::conditions(&facts, &thresholds, now));
        }
        self.judge(Some(tenant), conditions, now).await
    }

    /// What the ledger knows, with what its staging file and the looks before add.
    async fn facts(
        &mut self,
        known: StreamFacts,
        thresholds: &Thresholds,
        now: Wall,
    ) -> Result<Facts> {
        let StreamFacts {
            stream,
            had_session,
            live_until,
            newest,
            complete_at,
            incomplete,
            reported,
        } = known;
        let absent_since = if live_until.is_some() {
            self.absent.remove(&stream);
            None
        } else {
            Some(*self.absent.entry(stream.clone()).or_insert(now))
        };
        let Alerts { store, staging, .. } = &self.alerts;
        let applied = staging.applied(stream.environment, &stream.erp).await?.applied;
        let quarantined = match staging.found(stream.environment, &stream.erp).await? {
            Some(file) => file.quarantine_count().await?,
            None => 0,
        };
        let mut stale_tables = Vec::new();
        for (table, minutes) in thresholds.fresh_tables(stream.environment) {
            let since = Wall(now.0.saturating_sub(i64::from(minutes) * 60_000_000));
            if !store.came_since(stream.clone(), table.clone(), since).await? {
                stale_tables.push((table, minutes));
            }
        }
        Ok(Facts {
            unstaged_since: store.accepted_behind(stream.clone(), applied).await?,
            stream,
            had_session,
            live_until,
            absent_since,
            newest,
            complete_at,
            incomplete,
            quarantined,
            stale_tables,
            reported,
        })
    }

    async fn judge(
        &self,
        tenant: Option<TenantId>,
        conditions: Vec<Condition>,
        now: Wall,
    ) -> Result<()> {
        let pace = self.alerts.settings.pace;
        let turns = self.alerts.store.judge_alerts(tenant, conditions, (pace, now)).await?;
        for turn in turns {
            if let Some(notice) = turn.notice {
                log(&turn.alert, notice);
            }
        }
        Ok(())
    }

    async fn measure(&self) -> Result<()> {
        let open: BTreeMap<String, i64> =
            self.alerts.store.open_alerts().await?.into_iter().collect();
        for rule in Rule::ALL {
            let count = open.get(rule.as_str()).copied().unwrap_or(0);
            #[expect(clippy::cast_precision_loss, reason = "2^53 alerts are never open")]
            let count = count as f64;
            gauge!("malote_alerts_open", "rule" => rule.as_str()).set(count);
        }
        let (waiting, dead) = self.alerts.store.notice_counts().await?;
        #[expect(clippy::cast_precision_loss, reason = "2^53 notices are never kept")]
        let gauges = (waiting as f64, dead as f64);
        gauge!("malote_alert_mails_waiting").set(gauges.0);
        gauge!("malote_alert_mails_dead").set(gauges.1);
        Ok(())
    }

    /// Sends the mails that are due; returns how many were taken. Without a mail server they wait.
    ///
    /// # Errors
    /// The store's own.
    pub async fn send(&self) -> Result<usize> {
        let Some(post) = self.alerts.post().await? else { return Ok(0) };
        let mut taken = 0;
        for _ in 0..MAILS {
            let moment = (Wall::now(), entropy::fraction());
            let Some(claim) = self.alerts.store.claim_mail(moment).await? else { break };
            let (receipt, attempt) = (claim.receipt, claim.attempt);
            let sent = post.send(self.mail(claim)).await;
            let moment = (Wall::now(), entropy::fraction());
            let next = self.alerts.store.settle_mail(receipt, sent.clone().err(), moment).await?;
            let words = sent.err().unwrap_or_default();
            match next {
                Some(Next::Done) => {
                    taken += 1;
                    counter!("malote_alert_mails_total", "outcome" => "done").increment(1);
                }
                Some(Next::Again { .. }) => {
                    counter!("malote_alert_mails_total", "outcome" => "failed").increment(1);
                    tracing::warn!(
                        attempt,
                        words,
                        "a mail about alerts could not be sent, it is tried again"
                    );
                }
                Some(Next::Dead) => {
                    counter!("malote_alert_mails_total", "outcome" => "dead").increment(1);
                    tracing::error!(
                        attempt,
                        words,
                        "a mail about alerts could not be sent and its tries are used up"
                    );
                }
                None => tracing::info!(
                    attempt,
                    "a mail was sent after its lease, or its address was taken away"
                ),
            }
        }
        Ok(taken)
    }

    fn mail(&self, claim: MailClaim) -> Mail {
        let MailClaim { address, language, range: (first, last), notices, .. } = claim;
        let (subject, text) = words::mail(&notices, &self.alerts.settings.source, language);
        Mail { to: address, subject, text, name: format!("{first}-{last}") }
    }
}

/// The log is told of everything, whatever else is set.
fn log(alert: &Alert, notice: Notice) {
    counter!("malote_alert_notices_total", "notice" => notice.as_str()).increment(1);
    let Alert { id, rule, subject, erp, amount, code, .. } = alert;
    let tenant = alert.tenant.map(|tenant| tenant.to_string()).unwrap_or_default();
    let environment = alert.environment.map(|of| of.to_string()).unwrap_or_default();
    let (rule, table) = (rule.as_str(), subject);
    let (erp, code) = (erp.as_deref().unwrap_or_default(), code.as_deref().unwrap_or_default());
    match notice {
        Notice::Raised => {
            tracing::warn!(alert = %id, rule, tenant, environment, erp, table, amount, code, "alert");
        }
        Notice::Again => {
            tracing::warn!(alert = %id, rule, tenant, environment, erp, table, amount, code, "alert is still open");
        }
        Notice::Resolved => {
            tracing::info!(alert = %id, rule, tenant, environment, erp, table, amount, code, "alert is resolved");
        }
    }
}
