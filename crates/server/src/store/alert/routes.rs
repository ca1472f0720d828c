//! Routes: where alerts are mailed to, by which server, and from which threshold on there are any.
//!
//! Promises: a set of addresses or thresholds is replaced whole, with its entry in the audit; what waits for an address
//! that is gone is not sent.
//! Never: sees the mail server's password unsealed.

use crate::store::sql::{Optional as _, Row, Tx, named_params, params};
use protocol::{Result, ids::TenantId};

use crate::{
    model::{
        alert::{
            MailRoute, MailServer,
            rules::{Threshold, Thresholds},
        },
        carol::Envelope,
        catalog::At,
    },
    store::{
        Store, Whose,
        audit::Deed,
        catalog::{change, parsed, rows, text_as},
        failed,
    },
};

impl Store {
    /// Addresses of a tenant, or of the server itself, by address.
    pub(crate) async fn mail_routes(&self, tenant: Option<TenantId>) -> Result<Vec<MailRoute>> {
        self.read(tenant, move |connection| {
            let sql = "SELECT r.address, r.language, r.environment_id,
                    (SELECT count(*) FROM alert_notice n WHERE n.address = r.address AND n.tenant_id IS NOT DISTINCT FROM r.tenant_id
                        AND n.state IN ('ready', 'leased')),
                    (SELECT count(*) FROM alert_notice n WHERE n.address = r.address AND n.tenant_id IS NOT DISTINCT FROM r.tenant_id
                        AND n.state = 'dead'),
                    (SELECT n.last_error FROM alert_notice n WHERE n.address = r.address AND n.tenant_id IS NOT DISTINCT FROM r.tenant_id
                        AND n.attempts > 0 ORDER BY n.seq DESC LIMIT 1)
                 FROM alert_route r WHERE r.tenant_id IS NOT DISTINCT FROM :tenant ORDER BY r.address";
            let count = |row: &Row<'_>, at: usize| row.get::<i64>(at).map(i64::unsigned_abs);
            rows(connection, sql, named_params! {":tenant": tenant.map(|id| id.to_string())}, |row| {
                Ok(MailRoute {
                    address: row.get(0)?,
                    language: parsed(row, 1)?,
                    environment: text_as(row, 2)?,
                    waiting: count(row, 3)?,
                    dead: count(row, 4)?,
                    last_error: row.get(5)?,
                })
            })
        })
        .await
    }

    /// Puts these addresses in the place of those there are.
    pub(crate) async fn set_mail_routes(
        &self,
        tenant: Option<TenantId>,
        routes: Vec<MailRoute>,
    ) -> Result<()> {
        let names: Vec<&str> = routes.iter().map(|route| route.address.as_str()).collect();
        let deed = of(tenant, "alert.routes", "mail").with(names.join(","));
        self.audited(deed, move |tx| {
            let tenant = tenant.map(|id| id.to_string());
            let sql = "DELETE FROM alert_route WHERE tenant_id IS NOT DISTINCT FROM ?1";
            tx.prepare_cached(sql).map_err(failed)?.execute([&tenant]).map_err(failed)?;
            for route in routes {
                change(
                    tx,
                    format!("address {:?}", route.address),
                    "INSERT INTO alert_route (tenant_id, address, language, environment_id)
                     VALUES (:tenant, :address, :language, :environment)",
                    named_params! {":tenant": tenant, ":address": route.address, ":language": route.language.as_str(),
                        ":environment": route.environment.map(|id| id.to_string())},
                )?;
            }
            let sql = "DELETE FROM alert_notice WHERE tenant_id IS NOT DISTINCT FROM ?1 AND state = 'ready'
                          AND address NOT IN (SELECT address FROM alert_route WHERE tenant_id IS NOT DISTINCT FROM ?1)";
            tx.prepare_cached(sql).map_err(failed)?.execute([&tenant]).map_err(failed)?;
            Ok(())
        })
        .await
    }

    /// Thresholds of a tenant.
    pub(crate) async fn thresholds(&self, tenant: TenantId) -> Result<Thresholds> {
        self.read(tenant, move |connection| {
            let sql = "SELECT rule, environment_id, table_folded, value FROM alert_threshold WHERE tenant_id = :tenant
                        ORDER BY rule, environment_id, table_folded";
            let values = named_params! {":tenant": tenant.to_string()};
            let filled = |text: String| (!text.is_empty()).then_some(text);
            let found = rows(connection, sql, values, |row| {
                let environment = filled(row.get(1)?).and_then(|text| text.parse().ok());
                let (rule, table) = (parsed(row, 0)?, filled(row.get(2)?));
                Ok(Threshold { rule, environment, table, value: row.get(3)? })
            })?;
            Ok(Thresholds(found))
        })
        .await
    }

    /// Puts these thresholds in the place of those there are.
    pub(crate) async fn set_thresholds(
        &self,
        tenant: TenantId,
        thresholds: Vec<Threshold>,
    ) -> Result<()> {
        let count = thresholds.len();
        let deed = Deed::of("alert.thresholds", tenant, format!("{count} thresholds"));
        self.audited(deed, move |tx| {
            let tenant = tenant.to_string();
            let sql = "DELETE FROM alert_threshold WHERE tenant_id = ?1";
            tx.prepare_cached(sql).map_err(failed)?.execute([&tenant]).map_err(failed)?;
            for Threshold { rule, environment, table, value } in thresholds {
                let environment = environment.map(|id| id.to_string()).unwrap_or_default();
                change(
                    tx,
                    format!("a threshold of {}", rule.as_str()),
                    "INSERT INTO alert_threshold (tenant_id, environment_id, table_folded, rule, value)
                     VALUES (:tenant, :environment, :table, :rule, :value)",
                    named_params! {":tenant": tenant, ":environment": environment, ":table": table.unwrap_or_default(),
                        ":rule": rule.as_str(), ":value": value},
                )?;
            }
            Ok(())
        })
        .await
    }

    /// The mail server, and its password as it is kept.
    pub(crate) async fn mail_server(&self) -> Result<Option<(MailServer, Option<Envelope>)>> {
        self.read(Whose::All, mail_server).await
    }

    /// Puts a mail server in the place of the one there is; `None`: there is none.
    pub(crate) async fn set_mail_server(
        &self,
        server: Option<(MailServer, Option<Envelope>)>,
    ) -> Result<()> {
        let target = server.as_ref().map_or("none", |(server, _)| server.host.as_str());
        self.audited(Deed::global("alert.mail", target), move |tx| put(tx, server)).await
    }
}

/// The mail server, and its password as it is kept.
pub(in crate::store) fn mail_server(
    connection: &Tx<'_>,
) -> Result<Option<(MailServer, Option<Envelope>)>> {
    let sql = "SELECT host, port, tls, sender, login, set_at, sealed_key, sealed_secret FROM alert_mail_server";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_row([], |row| {
        let server = MailServer {
            host: row.get(0)?,
            port: row.get(1)?,
            tls: parsed(row, 2)?,
            from: row.get(3)?,
            user: row.get(4)?,
            set_at: At(row.get(5)?),
        };
        let (key, secret): (Option<Vec<u8>>, Option<Vec<u8>>) = (row.get(6)?, row.get(7)?);
        let sealed = key.zip(secret).map(|(key, secret)| Envelope { key, secret });
        Ok((server, sealed))
    });
    found.optional().map_err(failed)
}

fn put(tx: &Tx<'_>, server: Option<(MailServer, Option<Envelope>)>) -> Result<()> {
    tx.prepare_cached("DELETE FROM alert_mail_server")
        .map_err(failed)?
        .execute([])
        .map_err(failed)?;
    let Some((server, sealed)) = server else { return Ok(()) };
    let MailServer { host, port, tls, from, user, set_at } = server;
    let (key, secret) = sealed.map(|sealed| (sealed.key, sealed.secret)).unzip();
    let sql = "INSERT INTO alert_mail_server (one, host, port, tls, sender, login, sealed_key, sealed_secret, set_at)
               VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![host, port, tls.as_str(), from, user, key, secret, set_at.0])
        .map_err(failed)?;
    // Who mends it wants to see what waits.
    let sql = "UPDATE alert_notice SET not_before = at WHERE state = 'ready'";
    tx.prepare_cached(sql).map_err(failed)?.execute([]).map_err(failed)?;
    Ok(())
}

fn of(tenant: Option<TenantId>, action: &'static str, target: &str) -> Deed {
    match tenant {
        Some(tenant) => Deed::of(action, tenant, target),
        None => Deed::global(action, target),
    }
}
