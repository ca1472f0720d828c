//! Findings: the pre-flight of one table.

use protocol::{Code, Error, Result};

use super::{
    super::{Concern, Finding, TableShape, catalogue::Found, dialect::quoted, plan::is_unique},
    catalogue::name_of,
    fault,
    link::{Link, Links},
};

const STAMP_INDEX: &str = "
SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                WHERE i.indrelid = to_regclass($1)::oid AND a.attname = $2 AND i.indisvalid AND i.indpred IS NULL)
";

pub(super) async fn of_table(
    links: &Links,
    shape: &TableShape,
    found: &Found,
) -> Result<Vec<Finding>> {
    let link = links.take().await?;
    let findings = link.probe(look(&link, shape, found)).await?;
    link.give_back();
    Ok(findings)
}

async fn look(link: &Link, shape: &TableShape, found: &Found) -> Result<Vec<Finding>> {
    let table = name_of(shape);
    let mut findings = Vec::new();
    let of = || Some(shape.wire.clone());
    let mut about = Vec::new();
    if !exists(link, &format!("SELECT EXISTS (SELECT * FROM {table} LIMIT 1)")).await? {
        about.push((Some(Concern::Empty), "the table is empty".to_owned()));
    }
    if may_write(link, &table).await? {
        let words = "the login may also change rows here; SELECT is enough".to_owned();
        about.push((Some(Concern::MayWrite), words));
    }
    let mut tell = |code: Option<Code>, words: String| {
        findings.push(Finding { table: of(), code, words, concern: None });
    };
    for name in shape.page_key.iter().filter(|name| found.column(name).is_none_or(|c| c.nullable)) {
        let sql = format!("SELECT EXISTS (SELECT FROM {table} WHERE {} IS NULL)", quoted(name));
        if exists(link, &sql).await? {
            tell(
                Some(Code::KeyIsNull),
                format!("rows with NULL in key column {name} cannot travel"),
            );
        }
    }
    if !is_unique(found, &shape.page_key) {
        let key: Vec<_> = shape.page_key.iter().map(|name| quoted(name)).collect();
        let group = format!("SELECT FROM {table} GROUP BY {} HAVING count(*) > 1", key.join(", "));
        if exists(link, &format!("SELECT EXISTS ({group})")).await? {
            let words = format!("rows share the key {}", shape.page_key.join(", "));
            tell(Some(Code::KeyNotUnique), words);
        }
    }
    about.extend(of_stamp(link, shape, &table).await?);
    findings.extend(about.into_iter().map(|(concern, words)| Finding {
        table: of(),
        code: None,
        words,
        concern,
    }));
    Ok(findings)
}

/// What stands in the way of a quick read of what is new; an index is told as good news.
async fn of_stamp(
    link: &Link,
    shape: &TableShape,
    table: &str,
) -> Result<Vec<(Option<Concern>, String)>> {
    let Some(stamp) = &shape.stamp else {
        let words = "no stamp column: changes are found by complete scans".to_owned();
        return Ok(vec![(Some(Concern::NoStamp), words)]);
    };
    let mut about = Vec::new();
    let row = link.query_one(STAMP_INDEX, &[&table, &stamp.column]).await.map_err(fault)?;
    let column = &stamp.column;
    if row.try_get(0).map_err(fault)? {
        about.push((None, format!("stamp column {column} has an index")));
    } else {
        let words = format!("stamp column {column} has no index: each cycle reads the whole table");
        about.push((Some(Concern::NoStampIndex(column.clone())), words));
    }
    let sql = format!("SELECT EXISTS (SELECT FROM {table} WHERE {} IS NULL)", quoted(column));
    if stamp.nullable && exists(link, &sql).await? {
        let words = format!("rows with NULL in {column} are compared at each key scan");
        about.push((Some(Concern::StampNull(column.clone())), words));
    }
    about.extend(switched_off(link, table).await?);
    Ok(about)
}

/// A trigger of people that is switched off may be the one that sets the stamp (F12).
async fn switched_off(link: &Link, table: &str) -> Result<Vec<(Option<Concern>, String)>, Error> {
    let sql = "SELECT tgname::text FROM pg_trigger WHERE tgrelid = to_regclass($1)::oid AND NOT tgisinternal
                 AND tgenabled = 'D' ORDER BY tgname LIMIT 20";
    let rows = link.query(sql, &[&table]).await.map_err(fault)?;
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(0).map_err(fault)?;
            let words = format!("trigger {name} is switched off: if it sets the stamp, changes are found by the daily comparison alone");
            Ok((Some(Concern::TriggerOff(name)), words))
        })
        .collect()
}

/// Whether the login may change rows, which the agent never does.
async fn may_write(link: &Link, table: &str) -> Result<bool, Error> {
    let sql =
        "SELECT has_table_privilege($1::text, 'INSERT') OR has_table_privilege($1::text, 'UPDATE')
                      OR has_table_privilege($1::text, 'DELETE')";
    link.query_one(sql, &[&table]).await.and_then(|row| row.try_get(0)).map_err(fault)
}

/// About how many rows a table has: what the planner believes, or a count where it believes nothing yet.
pub(super) async fn row_count(links: &Links, shape: &TableShape) -> Result<Option<u64>> {
    let link = links.take().await?;
    let table = name_of(shape);
    let counted = link
        .probe(async {
            let sql =
                "SELECT (SELECT reltuples::bigint FROM pg_class WHERE oid = to_regclass($1)::oid
                                  AND relkind IN ('r', 'm'))";
            let believed: Option<i64> = link
                .query_one(sql, &[&table])
                .await
                .and_then(|row| row.try_get(0))
                .map_err(fault)?;
            if let Some(rows) = believed.and_then(|rows| u64::try_from(rows).ok()) {
                return Ok(Some(rows));
            }
            let sql = format!("SELECT count(*) FROM {table}");
            let count: i64 =
                link.query_one(&sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fault)?;
            Ok(u64::try_from(count).ok())
        })
        .await?;
    link.give_back();
    Ok(counted)
}

async fn exists(link: &Link, sql: &str) -> Result<bool, Error> {
    link.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fault)
}
