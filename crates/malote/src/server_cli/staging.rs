//! Commands of staging: what the cloud holds of a table now.
//!
//! Promises: values are shown as they travelled, NULL apart from the empty string; reads only.
//! Never: shows a deleted row among the live ones, or the values of a row in quarantine.

use clap::Subcommand;
use protocol::{Code, Error, Result, key::KeyBytes, names::TableName};
use serde_json::{Map, Value, json};
use server::{model::catalog::Page, service::Services};

use super::{OfPlace, lists::grid};
use crate::out;

#[derive(Debug, Subcommand)]
pub(super) enum StagingCommand {
    /// Staged tables with their live rows.
    List {
        #[command(flatten)]
        at: OfPlace,
    },
    /// Columns and key of a table.
    Schema {
        /// The table.
        table: TableName,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Live rows of a table, in the order of their key's bytes.
    Rows {
        /// The table.
        table: TableName,
        /// At most this many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Go on behind this key (in hex, as the page before tells it).
        #[arg(long, default_value = "", hide_default_value = true, value_name = "KEY")]
        after: String,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Number of live rows.
    Count {
        /// The table.
        table: TableName,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Rows that could not be staged, with the reason.
    Quarantine {
        /// At most this many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        #[command(flatten)]
        at: OfPlace,
    },
}

impl StagingCommand {
    pub(super) async fn run(self, services: &Services, json: bool) -> Result<()> {
        match self {
            Self::List { at } => list(services, &at, json).await,
            Self::Schema { table, at } => schema(services, (&at, &table), json).await,
            Self::Rows { table, limit, after, at } => {
                rows(services, (&at, &table), (&after, limit), json).await
            }
            Self::Count { table, at } => {
                let place = at.find(services).await?;
                let count = services.staging.count(place.environment, &place.erp, &table).await?;
                out::data(if json {
                    json!({ "table": table, "rows": count }).to_string()
                } else {
                    count.to_string()
                });
                Ok(())
            }
            Self::Quarantine { limit, at } => quarantine(services, &at, limit, json).await,
        }
    }
}

async fn list(services: &Services, at: &OfPlace, json: bool) -> Result<()> {
    let place = at.find(services).await?;
    // Staging folds names; people read them as they were shared. Withdrawn ones are staged still.
    let shared = Page { after: String::new(), limit: 10_000 };
    let shared = services.catalog.entities(&place, true, shared).await?;
    let mut lines = Vec::new();
    for table in services.staging.tables(place.environment, &place.erp).await? {
        let rows = services.staging.count(place.environment, &place.erp, &table.name).await?;
        let entity = shared.iter().find(|entity| entity.table == table.name);
        let name = entity.map_or(&table.name, |entity| &entity.table).to_string();
        let column = |folded: &String| {
            let found = table.columns.iter().find(|column| column.folded == *folded);
            found.map_or_else(|| folded.clone(), |column| column.name.clone())
        };
        let key: Vec<String> = table.key.iter().map(column).collect();
        lines.push((name, rows, table.columns.len(), key.join(", ")));
    }
    if json {
        lines.iter().for_each(|(table, rows, columns, key)| {
            out::data(
                json!({ "table": table, "rows": rows, "columns": columns, "key": key }).to_string(),
            );
        });
        return Ok(());
    }
    let cells = lines
        .into_iter()
        .map(|(table, rows, columns, key)| vec![table, rows.to_string(), columns.to_string(), key]);
    print(&["TABLE", "ROWS", "COLUMNS", "KEY"], cells.collect());
    Ok(())
}

async fn schema(
    services: &Services,
    (at, table): (&OfPlace, &TableName),
    json: bool,
) -> Result<()> {
    let place = at.find(services).await?;
    let found = services.staging.table(place.environment, &place.erp, table).await?;
    let place_in_key =
        |folded: &str| found.key.iter().position(|name| name == folded).map(|at| at + 1);
    for column in found.columns.iter().filter(|_| json) {
        let kind = column.type_name.column_type.as_str();
        out::data(
            json!({ "column": column.name, "type": kind, "key": place_in_key(&column.folded) })
                .to_string(),
        );
    }
    if !json {
        let cells = found.columns.iter().map(|column| {
            let key = place_in_key(&column.folded).map_or_else(String::new, |at| at.to_string());
            vec![column.name.clone(), column.type_name.column_type.as_str().to_owned(), key]
        });
        print(&["COLUMN", "TYPE", "KEY"], cells.collect());
    }
    Ok(())
}

async fn rows(
    services: &Services,
    (at, table): (&OfPlace, &TableName),
    (after, limit): (&str, u32),
    json: bool,
) -> Result<()> {
    let place = at.find(services).await?;
    let found = services.staging.table(place.environment, &place.erp, table).await?;
    let page = (KeyBytes(bytes(after)?), limit);
    let page = services.staging.page(place.environment, &place.erp, table, page).await?;
    let names: Vec<&str> = found.columns.iter().map(|column| column.name.as_str()).collect();
    if json {
        for row in &page {
            let cells = names
                .iter()
                .zip(&row.values)
                .map(|(name, value)| ((*name).to_owned(), json!(value)));
            out::data(Value::Object(cells.collect::<Map<_, _>>()).to_string());
        }
    } else {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        let cells = page.iter().map(|row| row.values.iter().map(shown).collect());
        print(&names, cells.collect());
    }
    if let Some(last) = page.last().filter(|_| page.len() >= limit as usize) {
        out::talk(format!("more: --after {}", hex(&last.key.0)));
    }
    Ok(())
}

async fn quarantine(services: &Services, at: &OfPlace, limit: u32, json: bool) -> Result<()> {
    let place = at.find(services).await?;
    let found = services.staging.quarantine(place.environment, &place.erp, limit).await?;
    if json {
        for row in &found {
            out::data(
                json!({ "table": row.table, "batch": row.batch, "message": row.message, "row": row.row,
                    "code": row.code, "reason": row.reason })
                .to_string(),
            );
        }
        return Ok(());
    }
    let cells = found.into_iter().map(|row| {
        vec![
            row.table,
            row.batch.to_string(),
            row.message.to_string(),
            row.row.to_string(),
            row.code,
            row.reason,
        ]
    });
    print(&["TABLE", "BATCH", "MESSAGE", "ROW", "CODE", "REASON"], cells.collect());
    Ok(())
}

fn print(head: &[&str], cells: Vec<Vec<String>>) {
    if cells.is_empty() {
        out::talk("none");
        return;
    }
    grid(head.iter().map(|name| (*name).to_owned()).collect(), cells)
        .into_iter()
        .for_each(out::data);
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let bad = || Error::new(Code::BadId, "--after takes the key as the page before told it");
    if !hex.is_ascii() || !hex.len().is_multiple_of(2) {
        return Err(bad());
    }
    (0..hex.len())
        .step_by(2)
        .map(|at| {
            u8::from_str_radix(hex.get(at..at + 2).unwrap_or_default(), 16).map_err(|_| bad())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_told_by_one_page_is_taken_by_the_next() {
        let key = KeyBytes::of(["1", "ação"]).0;
        assert_eq!(bytes(&hex(&key)).unwrap(), key);
        for bad in ["0", "zz", "é0"] {
            assert_eq!(bytes(bad).unwrap_err().code, Code::BadId, "{bad}");
        }
    }
}
