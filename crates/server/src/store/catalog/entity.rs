//! Entities in the embedded store: which tables an environment's ERP shares, and their reload generations.
//!
//! Promises: a generation only rises; a withdrawn table keeps its row, so that its generation goes on when it returns.
//! Never: touches staging.

use crate::store::sql::{Tx, named_params};
use protocol::{Code, Error, Result, ids::Generation, names::TableName};
use runtime::failpoint;

use super::{Deed, Page, Store, change, parsed, rows, time};
use crate::model::{
    catalog::{Entity, Place},
    exchange::{Change, Listed},
};

/// Which tables an import changes, for the audit: `+` added, `~` altered, `-` withdrawn; at most so many by name.
fn named(changes: &[Change]) -> String {
    const NAMES: usize = 50;
    let one = |change: &Change| match change {
        Change::Add(new) => format!("+{}", new.table),
        Change::Alter { after, .. } => format!("~{}", after.table),
        Change::Withdraw(old) => format!("-{}", old.table),
    };
    let mut words: Vec<String> = changes.iter().take(NAMES).map(one).collect();
    if let Some(more) = changes.len().checked_sub(NAMES).filter(|more| *more > 0) {
        words.push(format!("and {more} more"));
    }
    words.join(" ")
}

impl Store {
    /// Adds tables; one that was withdrawn comes back with its generations. All or none.
    pub(crate) async fn add_entities(&self, entities: Vec<Entity>, now: i64) -> Result<()> {
        let Some(first) = entities.first() else { return Ok(()) };
        let tables: Vec<&str> = entities.iter().map(|entity| entity.table.as_str()).collect();
        let deed =
            Deed::of("entity.add", first.place.tenant, first.place.name_of(tables.join(", ")));
        self.audited(deed, move |transaction| {
            entities.iter().try_for_each(|entity| add(transaction, entity, now))
        })
        .await
    }

    /// Takes the changes of a list in, all or none.
    pub(crate) async fn import_entities(
        &self,
        place: Place,
        changes: Vec<Change>,
        now: i64,
    ) -> Result<()> {
        let deed =
            Deed::of("entity.import", place.tenant, place.name_of("tables")).with(named(&changes));
        self.audited(deed, move |transaction| {
            changes.iter().try_for_each(|change| import(transaction, &place, change, now))
        })
        .await
    }

    pub(crate) async fn set_filter(
        &self,
        place: Place,
        table: TableName,
        filter: Option<String>,
    ) -> Result<()> {
        let deed = Deed::of("entity.set-filter", place.tenant, place.name_of(&table))
            .with(filter.as_deref().unwrap_or("none"));
        self.audited(deed, move |transaction| {
            let found = change(
                transaction,
                &table,
                "UPDATE entity SET filter = :filter
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND name_folded = :table
                   AND withdrawn_at IS NULL",
                named_params! {":filter": filter, ":tenant": place.tenant.to_string(),
                    ":environment": place.environment.to_string(), ":erp": place.erp.as_str(), ":table": table.folded()},
            )?;
            must_exist(found, &table)
        })
        .await
    }

    pub(crate) async fn withdraw_entity(
        &self,
        place: Place,
        table: TableName,
        now: i64,
    ) -> Result<()> {
        let deed = Deed::of("entity.withdraw", place.tenant, place.name_of(&table));
        self.audited(deed, move |transaction| {
            let found = change(
                transaction,
                &table,
                "UPDATE entity SET withdrawn_at = :now
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND name_folded = :table
                   AND withdrawn_at IS NULL",
                named_params! {":now": now, ":tenant": place.tenant.to_string(),
                    ":environment": place.environment.to_string(), ":erp": place.erp.as_str(), ":table": table.folded()},
            )?;
            must_exist(found, &table)
        })
        .await
    }

    /// Asks for a load of `table`, or of every table; returns the tables with their new generations.
    pub(crate) async fn ask_reload(
        &self,
        place: Place,
        table: Option<TableName>,
        rebuild: bool,
        now: i64,
    ) -> Result<Vec<(TableName, Generation)>> {
        let deed = match &table {
            Some(table) => Deed::of("reload", place.tenant, place.name_of(table)),
            None => Deed::of("reload", place.tenant, place.name_of("every table")),
        };
        let deed = if rebuild { deed.with("rebuild") } else { deed };
        self.audited(deed, move |transaction| {
            let asked = rows(
                transaction,
                "UPDATE entity SET generation = generation + 1, reload_asked_at = :now, rebuild = max(rebuild, :rebuild)
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND withdrawn_at IS NULL
                   AND (:table IS NULL OR name_folded = :table)
                 RETURNING name, generation",
                named_params! {":now": now, ":rebuild": rebuild, ":tenant": place.tenant.to_string(),
                    ":environment": place.environment.to_string(), ":erp": place.erp.as_str(),
                    ":table": table.as_ref().map(TableName::folded)},
                |row| Ok((parsed(row, 0)?, Generation(row.get(1)?))),
            )?;
            if let Some(table) = &table {
                must_exist(asked.len(), table)?;
            }
            Ok(asked)
        })
        .await
    }

    /// Tables of a place, the withdrawn ones only on request.
    pub(crate) async fn entities(
        &self,
        place: Place,
        withdrawn: bool,
        page: Page,
    ) -> Result<Vec<Entity>> {
        failpoint::pass("catalog.entities", Code::StoreFailed).await?;
        self.read(place.tenant, move |connection| {
            rows(
                connection,
                "SELECT name, filter, is_native, is_custom, generation, done_generation, reload_asked_at, rebuild,
                        withdrawn_at
                 FROM entity
                 WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND name_folded > :after
                   AND (:withdrawn OR withdrawn_at IS NULL) AND instr(name_folded, :search) > 0
                 ORDER BY name_folded LIMIT :limit",
                named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
                    ":erp": place.erp.as_str(), ":after": page.after.to_ascii_lowercase(), ":withdrawn": withdrawn,
                    ":search": page.search.to_ascii_lowercase(),
                    ":limit": page.limit},
                |row| {
                    Ok(Entity {
                        place: place.clone(),
                        table: parsed(row, 0)?,
                        filter: row.get(1)?,
                        is_native: row.get(2)?,
                        is_custom: row.get(3)?,
                        generation: Generation(row.get(4)?),
                        done_generation: Generation(row.get(5)?),
                        reload_asked_at: time(row, 6)?,
                        rebuild: row.get(7)?,
                        withdrawn_at: time(row, 8)?,
                    })
                },
            )
        })
        .await
    }
}

fn import(tx: &Tx<'_>, place: &Place, entry: &Change, now: i64) -> Result<()> {
    let of = |listed: &Listed| Entity {
        place: place.clone(),
        table: listed.table.clone(),
        filter: listed.filter.clone(),
        is_native: !listed.is_custom,
        is_custom: listed.is_custom,
        generation: Generation(0),
        done_generation: Generation(0),
        reload_asked_at: None,
        rebuild: false,
        withdrawn_at: None,
    };
    let (listed, sql) = match entry {
        Change::Add(new) => return add(tx, &of(new), now),
        Change::Alter { after, .. } => (
            after,
            "UPDATE entity SET filter = :filter, is_custom = :custom, is_native = 1 - :custom
             WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND name_folded = :table
               AND withdrawn_at IS NULL AND :now = :now",
        ),
        Change::Withdraw(old) => (
            old,
            "UPDATE entity SET withdrawn_at = :now
             WHERE tenant_id = :tenant AND environment_id = :environment AND erp = :erp AND name_folded = :table
               AND withdrawn_at IS NULL AND :filter IS NOT DISTINCT FROM :filter AND :custom = :custom",
        ),
    };
    let found = change(
        tx,
        &listed.table,
        sql,
        named_params! {":filter": listed.filter, ":custom": listed.is_custom, ":now": now,
        ":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
        ":erp": place.erp.as_str(), ":table": listed.table.folded()},
    )?;
    must_exist(found, &listed.table)
}

fn add(transaction: &Tx<'_>, entity: &Entity, now: i64) -> Result<()> {
    let place = &entity.place;
    let added = change(
        transaction,
        &entity.table,
        "INSERT INTO entity (tenant_id, environment_id, erp, name_folded, name, filter, is_native, is_custom, created_at)
         VALUES (:tenant, :environment, :erp, :folded, :name, :filter, :native, :custom, :now)
         ON CONFLICT (tenant_id, environment_id, erp, name_folded) DO UPDATE
         SET name = excluded.name, filter = excluded.filter, is_native = excluded.is_native,
             is_custom = excluded.is_custom, withdrawn_at = NULL
         WHERE entity.withdrawn_at IS NOT NULL",
        named_params! {":tenant": place.tenant.to_string(), ":environment": place.environment.to_string(),
            ":erp": place.erp.as_str(), ":folded": entity.table.folded(), ":name": entity.table.as_str(),
            ":filter": entity.filter, ":native": entity.is_native, ":custom": entity.is_custom, ":now": now},
    )?;
    if added == 0 {
        return Err(Error::new(
            Code::AlreadyExists,
            format!("table {} is shared already", entity.table),
        ));
    }
    Ok(())
}

fn must_exist(found: usize, table: &TableName) -> Result<()> {
    if found == 0 {
        return Err(Error::new(
            Code::NotFound,
            format!("table {table} is not shared by this environment and ERP"),
        ));
    }
    Ok(())
}
