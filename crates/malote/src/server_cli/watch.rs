//! Commands to watch: sessions, batches, messages and the rows in them.
//!
//! Promises: what is shown is the store's state now, whether or not a server runs.
//! Never: changes the ledger.

use clap::Subcommand;
use protocol::{Result, ids::BatchId};
use runtime::clock::Wall;
use serde_json::{Map, Value, json};
use server::{
    model::{
        catalog::At,
        content::Content,
        overview::{BatchView, MessageView, Shown, StreamView},
    },
    service::Services,
};

use super::{
    OfPlace, OfTenant, Paging,
    lists::{Column, grid, show, show_page},
};
use crate::out;

const STREAM: &[Column<StreamView>] = &[
    ("ENVIRONMENT", |s| s.environment.clone()),
    ("ERP", |s| s.erp.to_string()),
    ("EPOCH", |s| s.epoch.to_string()),
    ("HELD BY", |s| match &s.holder {
        Some(holder) if s.expires_at > now() => holder.clone(),
        Some(_) => "lapsed".to_owned(),
        None => "free".to_owned(),
    }),
    ("LAST BATCH", |s| s.last_batch.to_string()),
    ("WAITS FOR YOU", |s| match (s.database_waits, s.disputed) {
        (true, _) => "DATABASE_CHANGED: session accept".to_owned(),
        (false, true) => "INSTANCE_TWICE: stop one agent, then session release".to_owned(),
        (false, false) => String::new(),
    }),
];
const BATCH: &[Column<BatchView>] = &[
    ("BATCH", |b| b.batch.to_string()),
    ("ERP", |b| b.erp.to_string()),
    ("STATE", |b| b.shown(now()).to_owned()),
    ("MESSAGES", |b| b.messages.to_string()),
    ("ROWS", |b| b.rows.to_string()),
    ("BYTES", |b| b.bytes.to_string()),
    ("OPENED", |b| b.opened_at.to_string()),
    ("CLOSED", |b| b.closed_at.map_or_else(String::new, |at| at.to_string())),
    ("REFUSED", |b| b.refused.clone().unwrap_or_default()),
];
const MESSAGE: &[Column<MessageView>] = &[
    ("NUMBER", |m| m.number.to_string()),
    ("TABLE", |m| m.table.to_string()),
    ("ROWS", |m| m.rows.to_string()),
    ("BYTES", |m| m.bytes.to_string()),
    ("BASE LOAD", |m| m.base_load.to_string()),
    ("RECEIVED", |m| m.received_at.to_string()),
    ("BODY", |m| if m.body_kept { "kept".to_owned() } else { "removed".to_owned() }),
];

fn now() -> At {
    At(Wall::now().0)
}

#[derive(Debug, Subcommand)]
pub(super) enum SessionCommand {
    /// Streams with who sends them.
    List {
        #[command(flatten)]
        of: OfTenant,
    },
    /// Take the database that was refused last for the stream's own (DATABASE_CHANGED).
    Accept {
        #[command(flatten)]
        at: OfPlace,
    },
    /// End the session at once; its sender reads again from the cursor.
    Release {
        #[command(flatten)]
        at: OfPlace,
    },
}

impl SessionCommand {
    pub(super) async fn run(self, services: &Services, json: bool) -> Result<()> {
        match self {
            Self::List { of } => {
                let tenant = of.find(services).await?.id;
                show(json, &services.overview.streams(tenant).await?, STREAM);
            }
            Self::Accept { at } => {
                services.overview.accept_database(at.find(services).await?).await?;
                out::talk("accepted; the next Open is granted");
            }
            Self::Release { at } => {
                services.overview.release(at.find(services).await?).await?;
                out::talk("released; the next Open is granted");
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum BatchesCommand {
    /// Batches, the newest first.
    List {
        /// Only those that are open, stalled, incomplete or complete.
        #[arg(long)]
        state: Option<Shown>,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        paging: Paging,
    },
    /// Messages of a batch.
    Show {
        /// The batch's number, as the list shows it.
        batch: i64,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        paging: Paging,
    },
    /// Rows of a message as they were sent, while its body is kept.
    Rows {
        /// The batch's number, as the list shows it.
        batch: i64,
        /// The message's number within its batch.
        number: i64,
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

impl BatchesCommand {
    pub(super) async fn run(self, services: &Services, json: bool) -> Result<()> {
        match self {
            Self::List { state, at, paging } => {
                let place = at.find(services).await?;
                let found = services.overview.batches(place, state, paging.page()).await?;
                show_page(json, &found, BATCH, paging.limit);
            }
            Self::Show { batch, at, paging } => {
                let place = at.find(services).await?;
                let found =
                    services.overview.messages(place, BatchId(batch), paging.page()).await?;
                show_page(json, &found, MESSAGE, paging.limit);
            }
            Self::Rows { batch, number, limit, after, at } => {
                let (place, of) = (at.find(services).await?, (BatchId(batch), number));
                let found = services.overview.content(place, of, (&after, limit)).await?;
                show_rows(json, &found);
            }
        }
        Ok(())
    }
}

fn show_rows(json: bool, content: &Content) {
    if json {
        for row in &content.rows {
            let of = |names: &[String]| -> Map<String, Value> {
                names.iter().map(|name| (name.clone(), json!(row.value(name)))).collect()
            };
            let columns: Vec<String> = row.cells.iter().map(|(name, _)| name.clone()).collect();
            let line = json!({ "row": row.row, "table": content.table, "operation": row.operation(),
                "key": of(&content.key), "columns": of(&columns) });
            out::data(line.to_string());
        }
    } else if content.rows.is_empty() {
        out::talk("none");
    } else {
        let head = ["ROW", "OPERATION"].into_iter().map(str::to_owned);
        let cells = content.rows.iter().map(|row| {
            let mut line = vec![row.row.to_string(), row.operation().to_owned()];
            line.extend(
                content.columns.iter().map(|name| row.value(name).unwrap_or("NULL").to_owned()),
            );
            line
        });
        let head = head.chain(content.columns.iter().cloned()).collect();
        grid(head, cells.collect()).into_iter().for_each(out::data);
    }
    if let Some(next) = content.next.filter(|_| !json) {
        out::talk(format!("more: --after {next}"));
    }
}
