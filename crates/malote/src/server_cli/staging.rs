//! Commands of staging: what the cloud holds of a table now.
//!
//! Promises: values are shown as they travelled, NULL apart from the empty string; reads only.
//! Never: shows a deleted row among the live ones, or the values of a row in quarantine.

use clap::Subcommand;
use protocol::{Result, names::TableName};
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
        /// Go on behind this row (the first column of the last line).
        #[arg(long, default_value = "", hide_default_value = true, value_name = "ROW")]
        after: String,
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
            Self::Quarantine { limit, after, at } => {
                let page = Page { after, limit, ..Page::default() };
                super::quarantine::list(services, &at, page, json).await
            }
        }
    }
}

async fn list(services: &Services, at: &OfPlace, json: bool) -> Result<()> {
    let place = at.find(services).await?;
    let mut lines = Vec::new();
    let all = Page { limit: 10_000, ..Page::default() };
    for shape in services.staging.shapes(&place, all).await? {
        let rows = services.staging.count(place.environment, &place.erp, &shape.table).await?;
        let lacks = if shape.lacks_rows { "lacks rows until its reload is done" } else { "" };
        lines.push((
            shape.table.to_string(),
            rows,
            shape.columns.len(),
            shape.key.join(", "),
            lacks,
        ));
    }
    if json {
        lines.iter().for_each(|(table, rows, columns, key, lacks)| {
            let lacks = !lacks.is_empty();
            let line = json!({ "table": table, "rows": rows, "columns": columns, "key": key, "lacksRows": lacks });
            out::data(line.to_string());
        });
        return Ok(());
    }
    let cells = lines.into_iter().map(|(table, rows, columns, key, lacks)| {
        vec![table, rows.to_string(), columns.to_string(), key, lacks.to_owned()]
    });
    print(&["TABLE", "ROWS", "COLUMNS", "KEY", "STATE"], cells.collect());
    Ok(())
}

async fn schema(
    services: &Services,
    (at, table): (&OfPlace, &TableName),
    json: bool,
) -> Result<()> {
    let place = at.find(services).await?;
    let found = services.staging.shape(&place, table).await?;
    let place_in_key =
        |name: &String| found.key.iter().position(|column| column == name).map(|at| at + 1);
    for (name, kind) in found.columns.iter().filter(|_| json) {
        let key = place_in_key(name);
        out::data(json!({ "column": name, "type": kind, "key": key }).to_string());
    }
    if !json {
        let cells = found.columns.iter().map(|(name, kind)| {
            let key = place_in_key(name).map_or_else(String::new, |at| at.to_string());
            vec![name.clone(), kind.clone(), key]
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
    let page = services.staging.rows(&place, table, (after, limit)).await?;
    if json {
        for row in &page.values {
            let cells =
                page.columns.iter().zip(row).map(|(name, value)| (name.clone(), json!(value)));
            out::data(Value::Object(cells.collect::<Map<_, _>>()).to_string());
        }
    } else {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        let cells = page.values.iter().map(|row| row.iter().map(shown).collect());
        let names: Vec<&str> = page.columns.iter().map(String::as_str).collect();
        print(&names, cells.collect());
    }
    if let Some(next) = page.next {
        out::talk(format!("more: --after {next}"));
    }
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
