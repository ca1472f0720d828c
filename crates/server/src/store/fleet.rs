//! Fleet in the embedded store: the agents of each stream as they were seen, and their tables as they were reported.
//!
//! Promises: an agent is noted in the transaction that answers its Open; a report is taken from the holder of the lease
//! alone, whole or not at all, and replaces the one before.
//! Never: decides who may send.

mod order;

use crate::store::sql::{Optional as _, Row, SqlResult, Tx, named_params, params};
use protocol::{
    Code, Error, Result,
    ids::{Epoch, InstanceId, TenantId},
    limits,
};
use runtime::{clock::Wall, failpoint};

use super::{
    Store,
    catalog::{parsed, rows, text_as, time},
    failed,
    ingest::{bound, head, names},
    session::Asker,
};
use crate::model::{
    catalog::{At, Page, Place},
    fleet::{
        AgentView, Doing, Mode, ReportedTable, SeenAgent, TableQuery, TableView, lag_by_now,
        shortened,
    },
    session::Heard,
    stream::StreamId,
};

/// A report of the holder of a lease.
#[derive(Clone, Debug)]
pub struct Report {
    pub epoch: Epoch,
    /// Of the agent.
    pub version: String,
    pub tables: Vec<ReportedTable>,
}

impl Store {
    /// Notes an agent that was refused before its session was looked at.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` where its installation is not bound any more, the store's own.
    pub async fn note_refused(&self, asker: Asker, code: Code, now: Wall) -> Result<()> {
        self.write(asker.stream.tenant, move |tx| {
            head(tx, &asker.stream, now)?;
            bound(tx, &asker.stream, asker.sender)?;
            seen(tx, &asker, Some((code, String::new())), now)
        })
        .await
    }

    /// Takes a report.
    ///
    /// # Errors
    /// `FENCED` where the epoch does not hold a live lease.
    pub async fn report(&self, stream: StreamId, report: Report, now: Wall) -> Result<()> {
        self.write(stream.tenant, move |tx| {
            failpoint::reach("fleet.report", Code::StoreFailed)?;
            holds(tx, &stream, report.epoch, now)?;
            take(tx, &stream, &report, now)
        })
        .await
    }

    /// Agents of a tenant by environment, ERP and instance.
    pub(crate) async fn agent_views(
        &self,
        tenant: TenantId,
        page: Page,
        now: Wall,
    ) -> Result<Vec<AgentView>> {
        self.read(tenant, move |connection| {
            rows(
                connection,
                "SELECT found.* FROM (SELECT e.name || '/' || a.erp || '/' || a.instance AS agent, e.name, a.erp, a.instance, a.version,
                        a.database, a.first_at, a.asked_at, a.refused, a.granted_at, a.reported_at,
                        s.epoch, s.holder = a.instance, s.expires_at, s.disputed, t.tables, t.parked, t.degraded, t.row_count, a.differs,
                        a.twice_at IS NOT NULL
                   FROM fleet_agent a
                   JOIN environment e ON (e.tenant_id, e.id) = (a.tenant_id, a.environment_id)
                   JOIN ingest_stream s ON (s.tenant_id, s.environment_id, s.erp) = (a.tenant_id, a.environment_id, a.erp)
                   LEFT JOIN (SELECT environment_id, erp, count(*) AS tables, count(*) FILTER (WHERE state = 'PARKED') AS parked,
                                     count(*) FILTER (WHERE degraded <> '') AS degraded,
                                     sum(min(quarantined, 1000000000000)) AS row_count
                                FROM fleet_table WHERE tenant_id = :tenant GROUP BY environment_id, erp) t
                     ON (t.environment_id, t.erp) = (a.environment_id, a.erp) AND s.holder = a.instance
                  WHERE a.tenant_id = :tenant) found
                  WHERE agent > :after
                    AND (:search = '' OR instr(lower(agent), lower(:search)) > 0)
                  ORDER BY agent LIMIT :limit",
                named_params! {":tenant": tenant.to_string(), ":after": page.after, ":search": page.search,
                    ":limit": page.limit},
                |row| agent(row, now),
            )
        })
        .await
    }

    /// Tables of a stream as they were reported last, by name.
    pub(crate) async fn table_views(
        &self,
        place: Place,
        query: TableQuery,
        page: Page,
        now: Wall,
    ) -> Result<Vec<TableView>> {
        self.read(place.tenant, move |connection| {
            rows(
                connection,
                "SELECT name, state, since, mode, watermark, lag_ms, held_by, parked_code, degraded, quarantined, reported_at,
                        differences, verified_at, unverified
                   FROM fleet_table
                  WHERE (tenant_id, environment_id, erp) = (:tenant, :environment, :erp)
                    AND name_folded > lower(:after) AND (:search = '' OR instr(name_folded, lower(:search)) > 0)
                    AND (:state IS NULL OR state = :state)
                    AND (NOT :troubled OR state = 'PARKED' OR degraded <> '' OR quarantined > 0 OR differences > 0
                         OR unverified <> '')
                  ORDER BY name_folded LIMIT :limit",
                named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
                    ":erp": place.erp.as_str(), ":after": page.after, ":search": page.search, ":limit": page.limit,
                    ":state": query.state.map(Doing::as_str), ":troubled": query.troubled},
                |row| table(row, now),
            )
        })
        .await
    }
}

/// Notes that an agent asked for a session, and what it was answered: a refusal with what differs of its database. The instances that asked longest ago go, but
/// never the holder of the lease, which only renews.
pub(super) fn seen(
    tx: &Tx<'_>,
    asker: &Asker,
    refused: Option<(Code, String)>,
    now: Wall,
) -> Result<()> {
    let (code, differs) = refused.unzip();
    let [tenant, environment, erp] = &names(&asker.stream);
    let instance = asker.instance.to_string();
    // A refusal keeps the grant of before, so that people see since when it once sent.
    let sql = "INSERT INTO fleet_agent (tenant_id, environment_id, erp, instance, version, database, first_at, asked_at,
                      refused, differs, granted_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?7, ?8, ?9, iif(?8 IS NULL, ?7, NULL))
               ON CONFLICT (tenant_id, environment_id, erp, instance)
               DO UPDATE SET version = ?5, database = ?6, asked_at = ?7, refused = ?8, differs = ?9,
                      granted_at = iif(?8 IS NULL, ?7, fleet_agent.granted_at)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![
            tenant,
            environment,
            erp,
            instance,
            asker.version,
            asker.database,
            now.0,
            code.map(Code::as_str),
            shortened(differs.unwrap_or_default())
        ])
        .map_err(failed)?;
    let surplus = "DELETE FROM fleet_agent WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND instance NOT IN (
                     SELECT instance FROM fleet_agent WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                      ORDER BY instance = ?4 OR instance = (SELECT holder FROM ingest_stream
                               WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)) IS TRUE DESC,
                               twice_at IS NOT NULL DESC, asked_at DESC
                      LIMIT ?5)";
    let most = i64::try_from(limits::STREAM_INSTANCES).unwrap_or(i64::MAX);
    tx.prepare_cached(surplus)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, instance, most])
        .map_err(failed)?;
    Ok(())
}

/// What an instance was heard with since a person decided last; nothing where it never asked before.
pub(super) fn heard(tx: &Tx<'_>, stream: &StreamId, instance: InstanceId) -> Result<Heard> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT heard FROM fleet_agent WHERE (tenant_id, environment_id, erp, instance) = (?1, ?2, ?3, ?4)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let of = params![tenant, environment, erp, instance.to_string()];
    let bytes: Option<Vec<u8>> =
        statement.query_row(of, |row| row.get(0)).optional().map_err(failed)?;
    Ok(bytes.map_or_else(Heard::default, |bytes| Heard::of_bytes(&bytes)))
}

/// Keeps it, and since when two processes are known to be that instance.
pub(super) fn keep_heard(
    tx: &Tx<'_>,
    stream: &StreamId,
    (instance, heard): (InstanceId, &Heard),
    now: Wall,
) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let sql =
        "UPDATE fleet_agent SET heard = ?5, twice_at = iif(?6, coalesce(twice_at, ?7), twice_at)
                WHERE (tenant_id, environment_id, erp, instance) = (?1, ?2, ?3, ?4)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let (instance, bytes) = (instance.to_string(), heard.to_bytes());
    let values = params![tenant, environment, erp, instance, bytes, heard.are_twins(), now.0];
    statement.execute(values).map_err(failed)?;
    Ok(())
}

/// # Errors
/// `FENCED` where the epoch does not hold a live lease.
fn holds(tx: &Tx<'_>, stream: &StreamId, epoch: Epoch, now: Wall) -> Result<()> {
    let head = head(tx, stream, now)?;
    if head.live && head.epoch == epoch {
        return Ok(());
    }
    Err(Error::new(Code::Fenced, format!("the session of epoch {epoch} is over")))
}

fn take(tx: &Tx<'_>, stream: &StreamId, report: &Report, now: Wall) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "INSERT INTO fleet_table (tenant_id, environment_id, erp, name_folded, name, state, mode, watermark, lag_ms,
                      held_by, parked_code, quarantined, degraded, since, reported_at, differences, verified_at,
                      unverified, unverified_since)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14, ?15, ?16, ?17, ?14)
               ON CONFLICT (tenant_id, environment_id, erp, name_folded)
               DO UPDATE SET name = ?5, since = iif(fleet_table.state = ?6, fleet_table.since, ?14), state = ?6, mode = ?7,
                      watermark = ?8, lag_ms = ?9, held_by = ?10, parked_code = ?11, quarantined = ?12, degraded = ?13,
                      reported_at = ?14, differences = ?15, verified_at = ?16,
                      unverified_since = iif(fleet_table.unverified = '' OR ?17 = '', ?14, fleet_table.unverified_since),
                      unverified = ?17";
    let mut put = tx.prepare_cached(sql).map_err(failed)?;
    for table in &report.tables {
        put.execute(params![
            tenant,
            environment,
            erp,
            table.name.folded(),
            table.name.as_str(),
            table.state.as_str(),
            table.mode.as_str(),
            table.watermark,
            table.lag_ms,
            table.held_by,
            table.parked_code,
            table.quarantined,
            table.degraded,
            now.0,
            table.differences,
            table.verified_at.map(|at| at.0),
            table.unverified
        ])
        .map_err(failed)?;
    }
    // Whatever is not of this report is of one before.
    let mut reported: Vec<&str> = report.tables.iter().map(|table| table.name.folded()).collect();
    reported.sort_unstable();
    let kept =
        "SELECT name_folded FROM fleet_table WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let kept = all_names(tx, kept, [tenant, environment, erp])?;
    let gone = "DELETE FROM fleet_table WHERE (tenant_id, environment_id, erp, name_folded) = (?1, ?2, ?3, ?4)";
    let mut remove = tx.prepare_cached(gone).map_err(failed)?;
    for name in kept.iter().filter(|name| reported.binary_search(&name.as_str()).is_err()) {
        remove.execute(params![tenant, environment, erp, name]).map_err(failed)?;
    }
    let sql = "UPDATE fleet_agent SET reported_at = ?4, version = ?5
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND instance = (
                      SELECT holder FROM ingest_stream WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3))";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, now.0, report.version])
        .map_err(failed)?;
    Ok(())
}

fn all_names(connection: &Tx<'_>, sql: &str, of: [&String; 3]) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let found = statement.query_map(of, |row| row.get(0)).map_err(failed)?;
    Ok(found)
}

fn agent(row: &Row<'_>, now: Wall) -> SqlResult<AgentView> {
    let refused = row.get::<Option<String>>(8)?;
    let found = SeenAgent {
        asked_at: Wall(row.get(7)?),
        refused: refused.map(|code| code.parse().unwrap_or(Code::Internal)),
        reported_at: time(row, 10)?.map(|at| Wall(at.0)),
        holds: row.get::<Option<bool>>(12)?.unwrap_or_default(),
        expires_at: Wall(row.get(13)?),
        disputed: row.get(14)?,
        twins: row.get(20)?,
    };
    let epoch = Epoch(row.get::<i64>(11)?.unsigned_abs());
    let count = |at: usize| row.get::<Option<i64>>(at).map(Option::unwrap_or_default);
    Ok(AgentView {
        agent: row.get(0)?,
        environment: row.get(1)?,
        erp: parsed(row, 2)?,
        instance: parsed(row, 3)?,
        link: found.link(now),
        code: found.code(now).map(|code| code.to_string()),
        version: row.get(4)?,
        database: row.get(5)?,
        epoch: (found.holds && now < found.expires_at).then_some(epoch),
        since: time(row, 9)?,
        first_seen: At(row.get(6)?),
        last_seen: At(found.last_seen().0),
        last_report: time(row, 10)?,
        tables: count(15)?,
        parked: count(16)?,
        degraded: count(17)?,
        quarantined: count(18)?,
        differs: row.get::<String>(19)?,
    })
}

fn table(row: &Row<'_>, now: Wall) -> SqlResult<TableView> {
    let text =
        |at: usize| row.get(at).map(|text: String| Some(text).filter(|text| !text.is_empty()));
    let reported_at = row.get(10)?;
    Ok(TableView {
        table: parsed(row, 0)?,
        state: text_as::<Doing>(row, 1)?.unwrap_or(Doing::Unknown),
        since: At(row.get(2)?),
        mode: text_as::<Mode>(row, 3)?.unwrap_or(Mode::Unknown),
        watermark: text(4)?,
        lag_ms: lag_by_now(row.get(5)?, Wall(reported_at), now),
        held_by: text(6)?,
        parked_code: text(7)?,
        degraded: text(8)?,
        quarantined: row.get(9)?,
        differences: row.get(11)?,
        verified_at: time(row, 12)?,
        unverified: text(13)?,
        reported_at: At(reported_at),
    })
}
