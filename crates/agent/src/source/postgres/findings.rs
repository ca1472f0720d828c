//! Findings: the pre-flight of one table.

use protocol::{Code, Error, Result};

use super::{
    super::{Finding, TableShape, catalogue::Found, dialect::quoted, plan::is_unique},
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
    let mut tell = |code: Option<Code>, words: String| {
        findings.push(Finding { table: Some(shape.wire.clone()), code, words });
    };
    if !exists(link, &format!("SELECT EXISTS (SELECT * FROM {table} LIMIT 1)")).await? {
        tell(None, "the table is empty".to_owned());
    }
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
    match &shape.stamp {
        None => tell(None, "no stamp column: changes are found by complete scans".to_owned()),
        Some(stamp) => {
            let row = link.query_one(STAMP_INDEX, &[&table, &stamp.column]).await.map_err(fault)?;
            let column = &stamp.column;
            tell(
                None,
                if row.try_get(0).map_err(fault)? {
                    format!("stamp column {column} has an index")
                } else {
                    format!("stamp column {column} has no index: each cycle reads the whole table")
                },
            );
            let sql =
                format!("SELECT EXISTS (SELECT FROM {table} WHERE {} IS NULL)", quoted(column));
            if stamp.nullable && exists(link, &sql).await? {
                tell(None, format!("rows with NULL in {column} are compared at each key scan"));
            }
        }
    }
    Ok(findings)
}

async fn exists(link: &Link, sql: &str) -> Result<bool, Error> {
    link.query_one(sql, &[]).await.and_then(|row| row.try_get(0)).map_err(fault)
}
