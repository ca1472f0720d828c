//! Audit in the embedded store: what was done, by whom, in the transaction that did it.
//!
//! Promises: an operator's intent and its entry are kept together or not at all; entries of a chain hold each other's
//! hashes, so that one that was changed or taken out is found.
//! Never: holds a secret or a row's value; changes an entry (the schema refuses).

use std::collections::BTreeMap;

use crate::store::sql::{Optional as _, Row, SqlResult, Tx, named_params, params};
use protocol::{Result, ids::TenantId};
use runtime::clock::Wall;

use super::{
    Store, Whose,
    catalog::{rows, text_as},
    failed,
};
use crate::model::{
    admin::{AuditEntry, AuditQuery},
    catalog::At,
};

/// What an intent does, for the audit.
#[derive(Clone, Debug)]
pub(crate) struct Deed {
    action: &'static str,
    tenant: Option<TenantId>,
    target: String,
    detail: String,
}

impl Deed {
    pub(crate) fn of(action: &'static str, tenant: TenantId, target: impl ToString) -> Self {
        Self { tenant: Some(tenant), ..Self::global(action, target) }
    }

    /// Of what belongs to no tenant.
    pub(crate) fn global(action: &'static str, target: impl ToString) -> Self {
        Self { action, tenant: None, target: target.to_string(), detail: String::new() }
    }

    #[must_use]
    pub(crate) fn with(self, detail: impl ToString) -> Self {
        Self { detail: detail.to_string(), ..self }
    }
}

impl Store {
    /// The same store for another actor: what is done through it is audited under that name.
    #[must_use]
    pub fn by(&self, who: &str) -> Self {
        Self { who: who.into(), ..self.clone() }
    }

    /// The name under which this handle's deeds are noted.
    pub(super) fn actor(&self) -> String {
        self.who.to_string()
    }

    /// Runs an operator's intent and keeps its entry in the same transaction.
    pub(super) async fn audited<T: Send + 'static>(
        &self,
        deed: Deed,
        work: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let who = self.who.clone();
        self.write(deed.tenant, move |transaction| {
            let done = work(transaction)?;
            note(transaction, &who, deed)?;
            Ok(done)
        })
        .await
    }

    /// Entries, the newest first.
    pub(crate) async fn audit(&self, query: AuditQuery) -> Result<Vec<AuditEntry>> {
        self.read(query.tenant, move |connection| {
            rows(
                connection,
                "SELECT seq, at, who, action, tenant_id, target, detail FROM audit
                 WHERE (:tenant IS NULL OR tenant_id = :tenant) AND (:below = 0 OR seq < :below)
                   AND (:search = '' OR instr(lower(who || ' ' || action || ' ' || target), lower(:search)) > 0)
                 ORDER BY seq DESC LIMIT :limit",
                named_params! {":tenant": query.tenant.map(|id| id.to_string()), ":below": query.below,
                    ":search": query.search, ":limit": query.limit},
                entry,
            )
        })
        .await
    }

    /// The first entry whose hash does not follow from the one before it in its chain.
    pub(crate) async fn first_broken_audit(&self) -> Result<Option<i64>> {
        self.read(Whose::All, first_broken).await
    }
}

/// Entries that are looked at together.
const PAGE: i64 = 1_000;

pub(super) fn note(transaction: &Tx<'_>, who: &str, deed: Deed) -> Result<()> {
    let Deed { action, tenant, target, detail } = deed;
    let before: Option<Vec<u8>> = transaction
        .prepare_cached("SELECT hash FROM audit WHERE tenant_id IS NOT DISTINCT FROM ?1 ORDER BY seq DESC LIMIT 1")
        .map_err(failed)?
        .query_row([tenant.map(|id| id.to_string())], |row| row.get(0))
        .optional()
        .map_err(failed)?;
    let (who, action) = (who.to_owned(), action.to_owned());
    let entry = AuditEntry { seq: 0, at: At(Wall::now().0), who, action, tenant, target, detail };
    let hash = entry.hash(&before.unwrap_or_default());
    transaction
        .prepare_cached(
            "INSERT INTO audit (at, who, action, tenant_id, target, detail, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .map_err(failed)?
        .execute(params![
            entry.at.0,
            entry.who,
            entry.action,
            entry.tenant.map(|id| id.to_string()),
            entry.target,
            entry.detail,
            hash
        ])
        .map_err(failed)?;
    Ok(())
}

fn entry(row: &Row<'_>) -> SqlResult<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get(0)?,
        at: At(row.get(1)?),
        who: row.get(2)?,
        action: row.get(3)?,
        tenant: text_as(row, 4)?,
        target: row.get(5)?,
        detail: row.get(6)?,
    })
}

fn first_broken(connection: &Tx<'_>) -> Result<Option<i64>> {
    let sql =
        "SELECT seq, at, who, action, tenant_id, target, detail, hash FROM audit WHERE seq > ?1
                ORDER BY seq LIMIT ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let mut ends: BTreeMap<Option<TenantId>, Vec<u8>> = BTreeMap::new();
    let mut after = 0;
    loop {
        let page = statement
            .query_map([after, PAGE], |row| Ok((entry(row)?, row.get::<Vec<u8>>(7)?)))
            .map_err(failed)?;
        let Some((last, _)) = page.last() else { return Ok(None) };
        after = last.seq;
        for (found, hash) in page {
            let before = ends.entry(found.tenant).or_default();
            if found.hash(before) != hash.as_slice() {
                return Ok(Some(found.seq));
            }
            *before = hash;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::catalog::Tenant, store::trial::Database};

    async fn store() -> (tempfile::TempDir, Database, Store) {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(folder.path());
        let store = database.store().by("ana (laptop)");
        for (at, name) in [(1, "A"), (2, "B"), (3, "C")] {
            let id = TenantId(uuid::Uuid::from_u128(at));
            let tenant = Tenant { id, name: name.into(), created_at: At(1) };
            store.add_tenant(tenant).await.unwrap();
            store.rename_tenant(id, format!("{name}{name}")).await.unwrap();
        }
        (folder, database, store)
    }

    fn query() -> AuditQuery {
        AuditQuery { limit: 10, ..AuditQuery::default() }
    }

    #[tokio::test]
    async fn what_was_done_is_told_with_who_did_it_and_what_was_refused_is_not() {
        let (_folder, _, store) = store().await;
        let id = TenantId(uuid::Uuid::from_u128(1));
        assert!(store.rename_tenant(id, "BB".into()).await.is_err());
        let all = store.audit(query()).await.unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!((all[0].action.as_str(), all[0].target.as_str()), ("tenant.rename", "CC"));
        assert!(all.iter().all(|entry| entry.who == "ana (laptop)"));
        let one = store.audit(AuditQuery { tenant: Some(id), ..query() }).await.unwrap();
        assert_eq!(one.len(), 2);
        let page = AuditQuery { below: one[0].seq, search: "CREATE".into(), ..query() };
        assert_eq!(store.audit(page).await.unwrap()[0].action, "tenant.create");
    }

    #[tokio::test]
    async fn an_entry_that_was_changed_or_taken_out_is_found_and_the_schema_refuses_both() {
        let (_folder, database, store) = store().await;
        assert_eq!(store.first_broken_audit().await.unwrap(), None);
        let [change, removal] =
            ["UPDATE audit SET who = 'x' WHERE seq = 3", "DELETE FROM audit WHERE seq = 3"];
        for sql in [change, removal] {
            assert!(database.try_run(sql).is_err(), "{sql}");
        }
        database.run(if database.is_a_file() {
            "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_removed"
        } else {
            "ALTER TABLE audit DISABLE TRIGGER USER"
        });
        database.run(change);
        assert_eq!(store.first_broken_audit().await.unwrap(), Some(3));
        database.run(removal);
        assert_eq!(store.first_broken_audit().await.unwrap(), Some(4));
    }
}
