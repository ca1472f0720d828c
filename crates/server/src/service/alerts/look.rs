//! Look: holds what the server knows against the rules, again and again.
//!
//! Promises: what is found is in the store, with all that is to be told, before any of it is told; a stream whose facts
//! cannot be read keeps its alerts as they are and holds up no other one.
//! Never: decides what is wrong (`model::alert::rules` does) or whom to tell (`model::alert` does); sends a mail.

use std::collections::{BTreeMap, BTreeSet};

use metrics::{counter, gauge};
use protocol::{Result, ids::TenantId};
use runtime::{clock::Wall, files};

use super::Alerts;
use crate::{
    model::{
        alert::{
            Alert, Notice, Rule,
            findings::Findings,
            fresh::{Mark, Seen},
            rules::{self, Facts, Read, Reports, Thresholds},
        },
        fleet::Doing,
        stream::StreamId,
    },
    store::alert::Known,
};

/// What looks. It remembers since when no lease was seen and how far each table was read: a start of the server begins that
/// anew, and until it knows again what was told stays as it is.
#[derive(Debug)]
pub struct Look {
    alerts: Alerts,
    /// Streams of which it saw a live lease.
    live: BTreeSet<StreamId>,
    absent: BTreeMap<StreamId, Wall>,
    marks: BTreeMap<StreamId, BTreeMap<String, Mark>>,
}

impl Look {
    pub(super) fn new(alerts: Alerts) -> Self {
        let (absent, marks) = (BTreeMap::new(), BTreeMap::new());
        Self { alerts, live: BTreeSet::new(), absent, marks }
    }

    /// Looks at everything once.
    ///
    /// # Errors
    /// The stores' own: the first one, once everything else was looked at.
    pub async fn look(&mut self, now: Wall) -> Result<()> {
        let mut outcome = self.look_at_server(now).await;
        let mut tenants: BTreeMap<TenantId, Vec<(StreamId, Known)>> = BTreeMap::new();
        let mut there = BTreeSet::new();
        for (stream, known) in self.alerts.store.stream_facts(now).await? {
            // Of a stream that nobody is to send nothing is wrong: what was told of it ends.
            let streams = tenants.entry(stream.tenant).or_default();
            if let Some(known) = known {
                there.insert(stream.clone());
                streams.push((stream, known));
            }
        }
        self.live.retain(|stream| there.contains(stream));
        self.absent.retain(|stream, _| there.contains(stream));
        self.marks.retain(|stream, _| there.contains(stream));
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
        self.judge(None, rules::of_server(free, least).into(), now).await
    }

    async fn look_at_tenant(
        &mut self,
        tenant: TenantId,
        streams: Vec<(StreamId, Known)>,
        now: Wall,
    ) -> Result<()> {
        let thresholds = self.alerts.store.thresholds(tenant).await?;
        let (mut found, mut outcome) = (Findings::default(), Ok(()));
        for (stream, known) in streams {
            match self.facts(stream.clone(), known, &thresholds, now).await {
                Ok(facts) => found.add(rules::findings(&facts, &thresholds, now)),
                Err(error) => {
                    found.note_unknown(&stream, None);
                    let place = format!("{}/{}", stream.environment, stream.erp);
                    outcome = outcome.and(Err(error.at(place)));
                }
            }
        }
        self.judge(Some(tenant), found, now).await?;
        outcome
    }

    /// What the ledger knows, with what its staging file and the looks before add.
    async fn facts(
        &mut self,
        stream: StreamId,
        known: Known,
        thresholds: &Thresholds,
        now: Wall,
    ) -> Result<Facts> {
        let absent_since = if known.live_until.is_some() {
            self.absent.remove(&stream);
            self.live.insert(stream.clone());
            None
        } else {
            Some(*self.absent.entry(stream.clone()).or_insert(now))
        };
        let reports = Reports::of(known.live_until.is_some(), known.holder, now);
        let mut own = thresholds.fresh_tables(stream.environment);
        let read = if reports == Reports::Current {
            own.retain(|(table, _)| {
                !known.tables.iter().any(|seen| seen.table.eq_ignore_ascii_case(table))
            });
            self.read(&stream, known.tables, now)
        } else {
            Vec::new()
        };
        let undated_absence = !self.live.contains(&stream);
        let Alerts { store, staging, .. } = &self.alerts;
        let applied = staging.applied(stream.environment, &stream.erp).await?.applied;
        let quarantined = match staging.found(stream.environment, &stream.erp).await? {
            Some(file) => file.quarantine_count().await?,
            None => 0,
        };
        Ok(Facts {
            silent_tables: store.silent_tables(stream.clone(), own, now).await?,
            unstaged_since: store.accepted_behind(stream.clone(), applied).await?,
            stream,
            had_session: known.had_session,
            live_until: known.live_until,
            absent_since,
            undated_absence,
            newest: known.newest,
            complete_at: known.complete_at,
            incomplete: known.incomplete,
            quarantined,
            reports,
            reported: known.reported,
            read,
        })
    }

    /// How far the tables of a stream were read, by their reports and what is remembered of those before.
    fn read(&mut self, stream: &StreamId, tables: Vec<Seen>, now: Wall) -> Vec<Read> {
        let before = self.marks.remove(stream).unwrap_or_default();
        let (mut read, mut marks) = (Vec::new(), BTreeMap::new());
        for seen in tables {
            let mark = Mark::after(before.get(&seen.table), &seen);
            let paused = seen.state == Doing::Paused;
            read.extend(mark.fresh(&seen, now).map(|fresh| Read {
                table: seen.table.clone(),
                fresh,
                undated: !mark.is_dated(&seen),
                paused,
            }));
            marks.insert(seen.table, mark);
        }
        self.marks.insert(stream.clone(), marks);
        read
    }

    async fn judge(&self, tenant: Option<TenantId>, found: Findings, now: Wall) -> Result<()> {
        let pace = self.alerts.settings.pace;
        let turns = self.alerts.store.judge_alerts(tenant, found, (pace, now)).await?;
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
