//! Commands of entities: which tables are shared, with which filter, and when they are sent again.
//!
//! Promises: a filter is checked before it is kept.
//! Never: touches staged rows.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Error, Result, limits, names::TableName};
use serde_json::json;
use server::{
    model::{catalog::Entity, exchange::Format},
    service::{
        Services,
        catalog::{Import, NewEntity},
    },
};

use super::{
    OfPlace, Paging,
    lists::{Column, show, show_page},
};
use crate::out;

const ENTITY: &[Column<Entity>] = &[
    ("TABLE", |e| e.table.to_string()),
    ("ERP", |e| e.place.erp.to_string()),
    ("RELOAD", |e| {
        if e.force_reload() {
            format!("asked ({})", e.generation)
        } else {
            format!("done ({})", e.done_generation)
        }
    }),
    ("CUSTOM", |e| e.is_custom.to_string()),
    ("WITHDRAWN", |e| e.withdrawn_at.map_or_else(|| "no".to_owned(), |at| at.to_string())),
    ("FILTER", |e| e.filter.clone().unwrap_or_default()),
];

#[derive(Debug, Subcommand)]
pub(super) enum EntityCommand {
    /// Share tables: all that are named, or none.
    Add {
        /// Tables, by their names on the wire (SE1, FLAN).
        #[arg(required = true)]
        tables: Vec<TableName>,
        /// Predicate for the base load of each of them, such as "FLAN.IDLAN > 1000".
        #[arg(long)]
        filter: Option<String>,
        /// They are the customer's own tables.
        #[arg(long)]
        custom: bool,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Tables that are shared, each with its filter and its reload.
    List {
        /// Also those that were withdrawn.
        #[arg(long)]
        withdrawn: bool,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        paging: Paging,
    },
    /// Stop sharing a table; its staged rows stay.
    Remove {
        /// The table.
        table: TableName,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Write the list of shared tables to standard output.
    Export {
        /// toml or csv.
        #[arg(long, default_value = "toml")]
        format: Format,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Take a list of tables in, all or nothing, and tell each change.
    Import(ImportFile),
    /// Set the filter of a table; without one it is taken away. It counts from the next base load on.
    SetFilter {
        /// The table.
        table: TableName,
        /// The predicate, in quotes; left out: none.
        filter: Option<String>,
        #[command(flatten)]
        at: OfPlace,
    },
}

/// `malote server entity import`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server entity export > tables.toml
  malote server entity import tables.toml --dry-run
  malote server entity import tables.csv --withdraw-missing")]
pub(super) struct ImportFile {
    /// The file; its ending (.toml, .csv) says how it is written.
    file: PathBuf,
    /// Tell what would change, and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Withdraw what the list does not name; its staged rows stay.
    #[arg(long)]
    withdraw_missing: bool,
    #[command(flatten)]
    at: OfPlace,
}

impl ImportFile {
    async fn run(self, services: &Services, json: bool) -> Result<()> {
        let ending = self.file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        let format: Format = ending.to_ascii_lowercase().parse()?;
        let unread = || format!("cannot read {}", self.file.display());
        let size = std::fs::metadata(&self.file).coded(Code::BadRequest, unread())?.len();
        if size > limits::ADMIN_BODY_BYTES as u64 {
            let words = format!("a list has at most {} bytes", limits::ADMIN_BODY_BYTES);
            return Err(Error::new(Code::BodyTooLarge, words));
        }
        let text = std::fs::read_to_string(&self.file).coded(Code::BadRequest, unread())?;
        let how = Import { dry_run: self.dry_run, withdraw_missing: self.withdraw_missing };
        let place = self.at.find(services).await?;
        let plan = services.catalog.import(&place, (&text, format), how).await?;
        if json {
            out::data(serde_json::to_string(&plan).unwrap_or_default());
            return Ok(());
        }
        plan.changes.iter().for_each(|change| out::data(change.line()));
        plan.warnings.iter().for_each(|words| out::talk(format!("warning: {words}")));
        out::talk(match (plan.changes.len(), plan.applied) {
            (0, _) => "nothing differs".to_owned(),
            (count, true) => format!("{count} changes made"),
            (count, false) => format!("{count} changes would be made; nothing was changed"),
        });
        Ok(())
    }
}

fn warn(services: &Services, entities: &[Entity]) {
    for entity in entities {
        if let Some(words) = services.catalog.warning(entity) {
            out::talk(format!("warning: {}: {words}", entity.table));
        }
    }
}

impl EntityCommand {
    pub(super) async fn run(self, services: &Services, json: bool) -> Result<()> {
        let catalog = &services.catalog;
        match self {
            Self::Add { tables, filter, custom, at } => {
                let place = at.find(services).await?;
                let new = tables
                    .into_iter()
                    .map(|table| NewEntity { table, filter: filter.clone(), is_custom: custom })
                    .collect();
                let added = catalog.add_entities(&place, new).await?;
                show(json, &added, ENTITY);
                warn(services, &added);
            }
            Self::List { withdrawn, at, paging } => {
                let place = at.find(services).await?;
                let found = catalog.entities(&place, withdrawn, paging.page()).await?;
                show_page(json, &found, ENTITY, paging.limit);
            }
            Self::Export { format, at } => {
                let place = at.find(services).await?;
                out::data(catalog.export(&place, format).await?.trim_end());
            }
            Self::Import(import) => import.run(services, json).await?,
            Self::Remove { table, at } => {
                catalog.withdraw(&at.find(services).await?, &table).await?;
                out::talk(format!("{table} is not shared any more; its staged rows stay"));
            }
            Self::SetFilter { table, filter, at } => {
                let place = at.find(services).await?;
                catalog.set_filter(&place, &table, filter).await?;
                warn(services, &[catalog.entity(&place, &table).await?]);
                out::talk("kept; it counts from the next base load on (malote server reload)");
            }
        }
        Ok(())
    }
}

/// `malote server reload`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server reload FLAN
  malote server reload --all --environment production
  malote server reload FLAN --rebuild    # the answer to PRIMARY_KEY_CHANGED")]
pub(super) struct Reload {
    /// The table.
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    table: Option<TableName>,
    /// Every shared table.
    #[arg(long)]
    all: bool,
    /// The load may bring another primary key: the staging table is made anew.
    #[arg(long)]
    rebuild: bool,
    #[command(flatten)]
    at: OfPlace,
}

impl Reload {
    pub(super) async fn run(self, services: &Services, json: bool) -> Result<()> {
        let place = self.at.find(services).await?;
        let asked = services.catalog.reload(&place, self.table.as_ref(), self.rebuild).await?;
        for (table, generation) in asked {
            out::data(if json {
                json!({ "table": table, "reloadGeneration": generation }).to_string()
            } else {
                format!("{table}: load {generation} is asked for")
            });
        }
        Ok(())
    }
}
