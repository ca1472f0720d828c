//! Commands of staging: what the cloud holds of a table now.
//!
//! Promises: values are shown as they travelled, NULL apart from the empty string; reads only, but for who may read.
//! Never: shows a deleted row among the live ones, or the values of a row in quarantine.

use clap::Subcommand;
use protocol::{Result, names::TableName};
use serde_json::{Map, Value, json};
use server::{model::catalog::Page, service::Services};

use super::{
    OfPlace, RowPaging,
    analyst::AnalystCommand,
    lists::{Form, print},
};
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
    /// Roles of the database that read the staged tables.
    #[command(subcommand)]
    Analyst(AnalystCommand),
    /// Rows that could not be staged, with the reason.
    Quarantine {
        #[command(flatten)]
        rows: RowPaging,
        #[command(flatten)]
        at: OfPlace,
    },
}

impl StagingCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { at } => list(services, &at, form).await,
            Self::Schema { table, at } => schema(services, (&at, &table), form).await,
            Self::Rows { table, limit, after, at } => {
                rows(services, (&at, &table), (&after, limit), form).await
            }
            Self::Count { table, at } => {
                let place = at.find(services).await?;
                let count = services.staging.count(place.environment, &place.erp, &table).await?;
                out::data(if form.json {
                    json!({ "table": table, "rows": count }).to_string()
                } else {
                    count.to_string()
                });
                Ok(())
            }
            Self::Analyst(command) => command.run(services, form).await,
            Self::Quarantine { rows, at } => {
                super::quarantine::list(services, &at, ((None, None), rows.page()), form).await
            }
        }
    }
}

async fn list(services: &Services, at: &OfPlace, form: Form) -> Result<()> {
    let place = at.find(services).await?;
    let mut found = Vec::new();
    let all = Page { limit: 10_000, ..Page::default() };
    for shape in services.staging.shapes(&place, all).await? {
        let rows = services.staging.count(place.environment, &place.erp, &shape.table).await?;
        found.push((shape, rows));
    }
    if form.json {
        for (shape, rows) in &found {
            let line = json!({ "table": shape.table, "rows": rows, "columns": shape.columns.len(),
                "key": shape.key.join(", "), "lacksRows": shape.lacks_rows });
            out::data(line.to_string());
        }
        return Ok(());
    }
    let cells = found.into_iter().map(|(shape, rows)| {
        let lacks = form
            .lang
            .pick("lacks rows until its reload is done", "faltam linhas até a recarga terminar");
        let state = if shape.lacks_rows { lacks } else { "" };
        let (columns, key) = (shape.columns.len().to_string(), shape.key.join(", "));
        vec![shape.table.to_string(), rows.to_string(), columns, key, state.to_owned()]
    });
    let head = [
        ["TABLE", "TABELA"],
        ["ROWS", "LINHAS"],
        ["COLUMNS", "COLUNAS"],
        ["KEY", "CHAVE"],
        ["STATE", "ESTADO"],
    ];
    print(form, &head, cells.collect());
    Ok(())
}

async fn schema(
    services: &Services,
    (at, table): (&OfPlace, &TableName),
    form: Form,
) -> Result<()> {
    let place = at.find(services).await?;
    let found = services.staging.shape(&place, table).await?;
    let place_in_key =
        |name: &String| found.key.iter().position(|column| column == name).map(|at| at + 1);
    for (name, kind) in found.columns.iter().filter(|_| form.json) {
        let key = place_in_key(name);
        out::data(json!({ "column": name, "type": kind, "key": key }).to_string());
    }
    if !form.json {
        let cells = found.columns.iter().map(|(name, kind)| {
            let key = place_in_key(name).map_or_else(String::new, |at| at.to_string());
            vec![name.clone(), kind.clone(), key]
        });
        let head = [["COLUMN", "COLUNA"], ["TYPE", "TIPO"], ["KEY", "CHAVE"]];
        print(form, &head, cells.collect());
    }
    Ok(())
}

async fn rows(
    services: &Services,
    (at, table): (&OfPlace, &TableName),
    (after, limit): (&str, u32),
    form: Form,
) -> Result<()> {
    let place = at.find(services).await?;
    let page = services.staging.rows(&place, table, (after, limit)).await?;
    if form.json {
        for row in &page.values {
            let cells =
                page.columns.iter().zip(row).map(|(name, value)| (name.clone(), json!(value)));
            out::data(Value::Object(cells.collect::<Map<_, _>>()).to_string());
        }
    } else {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "NULL".to_owned());
        let cells = page.values.iter().map(|row| row.iter().map(shown).collect());
        let names: Vec<[&str; 2]> = page.columns.iter().map(|name| [name.as_str(); 2]).collect();
        print(form, &names, cells.collect());
    }
    if let Some(next) = page.next {
        form.more(&next);
    }
    Ok(())
}
