//! What PostgreSQL alone has: row-level security, and a schema that is SQLite's twin.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use uuid::Uuid;

use super::*;
use crate::store::{
    sqlite,
    trial::{Database, apart, made, owner_of},
};

/// Tables without a tenant: who administers, and what is of the server itself.
const OF_ALL: &[&str] =
    &["administrator", "alert_mail_server", "migration", "retention_look", "signing_key"];

/// Rows of a statement, each as its columns' text.
fn told(address: &Address, tenant: &str, sql: &str) -> Result<Vec<Vec<String>>> {
    let (address, tenant, sql) = (address.clone(), tenant.to_owned(), sql.to_owned());
    apart(move || async move {
        let session = Session::open(&address).await?;
        runtime::task::blocking(move || {
            session.begin("BEGIN").map_err(crate::store::failed)?;
            let tx = Tx::postgres(&session);
            if !tenant.is_empty() {
                tx.query_row(READ_STORE, [tenant], |_| Ok(())).map_err(crate::store::failed)?;
            }
            let mut statement = tx.prepare_cached(&sql).map_err(crate::store::failed)?;
            let found = statement.query_map([], |row| {
                let columns = (0..).map_while(|at| row.get::<Option<String>>(at).ok());
                Ok(columns.map(Option::unwrap_or_default).collect())
            });
            found.map_err(crate::store::failed)
        })
        .await?
    })
}

fn of_tenants(address: &Address) -> BTreeSet<String> {
    let sql = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'malote' AND c.relkind = 'r'";
    let all = told(address, "*", sql).unwrap().into_iter().map(|mut row| row.remove(0));
    all.filter(|table| !OF_ALL.contains(&table.as_str())).collect()
}

#[test]
fn each_table_of_tenants_shows_a_transaction_the_rows_of_the_tenant_it_names_and_no_others() {
    let address = apart(made);
    let database = Database::Server(Box::new(address.clone()));
    let tables = of_tenants(&address);
    assert!(tables.len() > 20, "{tables:?}");
    let kept =
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE n.nspname = 'malote' AND c.relrowsecurity AND c.relforcerowsecurity";
    let kept: BTreeSet<String> =
        told(&address, "*", kept).unwrap().into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(kept, tables, "row-level security is on for all of them, also for their owner");
    // A row of two tenants in every table, whatever else the schema asks of it.
    let [one, two] = [1, 2].map(|tenant| Uuid::from_u128(tenant).to_string());
    for table in &tables {
        let column = if table == "tenant" { "id" } else { "tenant_id" };
        let sql = format!("SELECT DISTINCT {column} FROM {table}");
        for (tenant, number) in [(&one, 1), (&two, 2)] {
            database.try_run(&row_of(&address, table, tenant, number)).unwrap();
        }
        assert_eq!(told(&address, &one, &sql).unwrap(), [[one.clone()]], "{table}");
        assert_eq!(told(&address, &two, &sql).unwrap(), [[two.clone()]], "{table}");
        assert_eq!(told(&address, "*", &sql).unwrap().len(), 2, "{table}");
        assert!(told(&address, "", &sql).unwrap().is_empty(), "{table} without a name");
    }
}

/// A statement that adds a row to a table: constraints are lifted first, and every column that must have a value gets one.
fn row_of(address: &Address, table: &str, tenant: &str, number: i64) -> String {
    let columns = told(
        address,
        "*",
        &format!(
            "SELECT column_name::text, data_type::text FROM information_schema.columns
              WHERE table_schema = 'malote' AND table_name = '{table}'
                AND (is_nullable = 'NO' OR column_name = 'tenant_id') AND is_identity = 'NO'"
        ),
    );
    let mut values = BTreeMap::new();
    for column in columns.unwrap() {
        let value = match (column[0].as_str(), column[1].as_str()) {
            ("tenant_id", _) => format!("'{tenant}'"),
            ("id", "text") if table == "tenant" => format!("'{tenant}'"),
            (_, "bigint") => number.to_string(),
            (_, "bytea") => "''".to_owned(),
            _ => format!("'{}'", Uuid::from_u128(u128::try_from(number).unwrap())),
        };
        values.insert(column[0].clone(), value);
    }
    let (names, values): (Vec<_>, Vec<_>) = values.into_iter().unzip();
    format!(
        "DO $$ DECLARE broken record; BEGIN
           FOR broken IN SELECT conname FROM pg_constraint
                          WHERE conrelid = 'malote.{table}'::regclass AND contype IN ('c', 'f') LOOP
             EXECUTE format('ALTER TABLE {table} DROP CONSTRAINT %I', broken.conname);
           END LOOP; END $$;
         INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        values.join(", ")
    )
}

#[test]
fn both_schemas_have_the_same_tables_columns_and_indices() {
    let address = apart(made);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    sqlite::migrate(&path).unwrap();
    let theirs = of_sqlite(&path);
    let sql = "SELECT table_name::text, column_name::text, data_type::text, is_nullable::text
                 FROM information_schema.columns
                WHERE table_schema = 'malote' AND table_name <> 'migration'";
    let ours: BTreeSet<Vec<String>> = told(&address, "*", sql).unwrap().into_iter().collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let more: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && more.is_empty(), "missing {missing:?}\nmore {more:?}");
    let sql = "SELECT indexname::text FROM pg_indexes
                WHERE schemaname = 'malote' AND indexname NOT LIKE '%\\_pkey' AND indexname NOT LIKE '%\\_key'";
    let ours: BTreeSet<String> =
        told(&address, "*", sql).unwrap().into_iter().map(|mut row| row.remove(0)).collect();
    assert_eq!(ours, indices_of_sqlite(&path));
}

fn of_sqlite(path: &Path) -> BTreeSet<Vec<String>> {
    let connection = sqlite::connect(path, true).unwrap();
    let sql = "SELECT t.name, c.name, c.type, c.\"notnull\" OR c.pk > 0 FROM sqlite_schema t, pragma_table_info(t.name) c
                WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| {
        let kind: String = row.get(2)?;
        let kind = match kind.as_str() {
            "INTEGER" => "bigint",
            "BLOB" => "bytea",
            _ => "text",
        };
        let nullable = if row.get(3)? { "NO" } else { "YES" };
        Ok(vec![row.get(0)?, row.get(1)?, kind.to_owned(), nullable.to_owned()])
    });
    rows.unwrap().map(|row| row.unwrap()).collect()
}

fn indices_of_sqlite(path: &Path) -> BTreeSet<String> {
    let connection = sqlite::connect(path, true).unwrap();
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND name NOT LIKE 'sqlite_%'";
    let mut statement = connection.prepare(sql).unwrap();
    let rows = statement.query_map([], |row| row.get(0));
    rows.unwrap().map(|row| row.unwrap()).collect()
}

#[test]
fn replicas_that_migrate_at_once_do_it_once() {
    let address = owner_of(&apart(made));
    let ran = apart(move || async move {
        let fresh = "DROP SCHEMA malote CASCADE";
        let (client, _driver) = address.dial().await.unwrap();
        client.batch_execute(fresh).await.unwrap();
        let all = futures_util::future::join_all((0..4).map(|_| migrate(&address))).await;
        let state = state(&address).await.unwrap();
        (all.into_iter().map(|ran| ran.unwrap().len()).collect::<Vec<_>>(), state)
    });
    let (mut ran, state) = ran;
    ran.sort_unstable();
    assert_eq!(ran[..3], [0, 0, 0]);
    assert!(ran[3] > 0 && state == sqlite::State::Current, "{ran:?} {state:?}");
}

#[tokio::test]
async fn an_intent_that_goes_on_behind_a_statement_that_failed_is_not_told_as_done() {
    let database = Postgres::new(apart(made));
    let ignores = |tx: &Tx<'_>| {
        let good = "INSERT INTO administrator (id, name, created_at) VALUES (?1, ?2, 1)";
        let id = Uuid::from_u128(1).to_string();
        tx.execute(good, [id.as_str(), "ana"]).map_err(crate::store::failed)?;
        // The same name again.
        let other = Uuid::from_u128(2).to_string();
        assert!(tx.execute(good, [other.as_str(), "ana"]).is_err());
        Ok(())
    };
    let refused = database.write(Whose::All, ignores).await.unwrap_err();
    assert_eq!(refused.code, Code::StoreFailed);
    let count = |tx: &Tx<'_>| {
        let sql = "SELECT count(*) FROM administrator";
        tx.query_row(sql, [], |row| row.get::<i64>(0)).map_err(crate::store::failed)
    };
    assert_eq!(database.read(Whose::All, count).await.unwrap(), 0);
    assert_eq!(database.write(Whose::All, |_| Ok(1)).await.unwrap(), 1, "the next one goes on");
}
