//! Commands of entities: which tables are shared, with which filter, and when they are sent again.
//!
//! Promises: a filter is checked before it is kept.
//! Never: touches staged rows.

use clap::{Args, Subcommand};
use protocol::{Result, names::TableName};
use serde_json::json;
use server::{
    model::catalog::Entity,
    service::{Services, catalog::NewEntity},
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
                show(json, &catalog.add_entities(&place, new).await?, ENTITY);
            }
            Self::List { withdrawn, at, paging } => {
                let place = at.find(services).await?;
                let found = catalog.entities(&place, withdrawn, paging.page()).await?;
                show_page(json, &found, ENTITY, paging.limit);
            }
            Self::Remove { table, at } => {
                catalog.withdraw(&at.find(services).await?, &table).await?;
                out::talk(format!("{table} is not shared any more; its staged rows stay"));
            }
            Self::SetFilter { table, filter, at } => {
                catalog.set_filter(&at.find(services).await?, &table, filter).await?;
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
