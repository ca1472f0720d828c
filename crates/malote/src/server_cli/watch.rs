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
    OfPlace, OfTenant, RowPaging,
    lists::{Column, Form, print, show, show_page},
};
use crate::out;

const STREAM: &[Column<StreamView>] = &[
    (["ENVIRONMENT", "AMBIENTE"], |s, _| s.environment.clone()),
    (["ERP", "ERP"], |s, _| s.erp.to_string()),
    (["EPOCH", "ÉPOCA"], |s, _| s.epoch.to_string()),
    (["HELD BY", "CONCESSÃO"], |s, lang| match &s.holder {
        Some(holder) if s.expires_at > now() => holder.clone(),
        Some(_) => lang.pick("lapsed", "vencida").to_owned(),
        None => lang.pick("free", "livre").to_owned(),
    }),
    (["LAST BATCH", "ÚLTIMO PACOTE"], |s, _| s.last_batch.to_string()),
    (["OFFERED BY", "OFERECIDO POR"], |s, _| {
        s.offer.as_ref().map_or_else(String::new, |offer| offer.instance.clone())
    }),
    (["OFFERED SINCE", "OFERECIDO DESDE"], |s, _| {
        s.offer.as_ref().map_or_else(String::new, |offer| offer.since.to_string())
    }),
    (["WAITS FOR YOU", "ESPERA POR VOCÊ"], |s, lang| match (s.database_waits, s.disputed) {
        (true, _) => {
            let mark = s.offer.as_ref().map_or("", |offer| &offer.fingerprint);
            format!("DATABASE_CHANGED: session accept {mark}")
        }
        (false, true) => lang
            .pick(
                "INSTANCE_TWICE: stop one agent, then session release",
                "INSTANCE_TWICE: pare um dos agentes, depois session release",
            )
            .to_owned(),
        (false, false) => String::new(),
    }),
];
const BATCH: &[Column<BatchView>] = &[
    (["BATCH", "PACOTE"], |b, _| b.batch.to_string()),
    (["ERP", "ERP"], |b, _| b.erp.to_string()),
    (["STATE", "ESTADO"], |b, _| b.shown(now()).to_owned()),
    (["MESSAGES", "MENSAGENS"], |b, _| b.messages.to_string()),
    (["ROWS", "LINHAS"], |b, _| b.rows.to_string()),
    (["BYTES", "BYTES"], |b, _| b.bytes.to_string()),
    (["OPENED", "ABERTO"], |b, _| b.opened_at.to_string()),
    (["CLOSED", "FECHADO"], |b, _| b.closed_at.map_or_else(String::new, |at| at.to_string())),
    (["REFUSED", "RECUSA"], |b, _| b.refused.clone().unwrap_or_default()),
];
const MESSAGE: &[Column<MessageView>] = &[
    (["NUMBER", "NÚMERO"], |m, _| m.number.to_string()),
    (["TABLE", "TABELA"], |m, _| m.table.to_string()),
    (["ROWS", "LINHAS"], |m, _| m.rows.to_string()),
    (["BYTES", "BYTES"], |m, _| m.bytes.to_string()),
    (["BASE LOAD", "CARGA INICIAL"], |m, lang| lang.yes(m.base_load).to_owned()),
    (["RECEIVED", "RECEBIDA"], |m, _| m.received_at.to_string()),
    (["BODY", "CONTEÚDO"], |m, lang| {
        let (kept, removed) = lang.pick(("kept", "removed"), ("guardado", "removido"));
        if m.body_kept { kept.to_owned() } else { removed.to_owned() }
    }),
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
        /// Fingerprint of that database, as the list shows it.
        fingerprint: String,
        /// Only tell whether it waits.
        #[arg(long)]
        dry_run: bool,
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
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { of } => {
                let tenant = of.find(services).await?.id;
                show(form, &services.overview.streams(tenant).await?, STREAM);
            }
            Self::Accept { fingerprint, dry_run, at } => {
                let place = at.find(services).await?;
                services.overview.accept_database(place, fingerprint, dry_run).await?;
                if dry_run {
                    form.talk("it waits; nothing was accepted", "está à espera; nada foi aceito");
                    return Ok(());
                }
                form.talk(
                    "accepted; the next Open is granted",
                    "aceito; a próxima abertura de sessão é concedida",
                );
            }
            Self::Release { at } => {
                services.overview.release(at.find(services).await?).await?;
                form.talk(
                    "released; the next Open is granted",
                    "encerrada; a próxima abertura de sessão é concedida",
                );
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
        rows: RowPaging,
    },
    /// Messages of a batch.
    Show {
        /// The batch's number, as the list shows it.
        batch: i64,
        #[command(flatten)]
        at: OfPlace,
        #[command(flatten)]
        rows: RowPaging,
    },
    /// Rows of a message as they were sent, while its body is kept.
    Rows {
        /// The batch's number, as the list shows it.
        batch: i64,
        /// The message's number within its batch.
        number: i64,
        #[command(flatten)]
        rows: RowPaging,
        #[command(flatten)]
        at: OfPlace,
    },
}

impl BatchesCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { state, at, rows } => {
                let place = at.find(services).await?;
                let found = services.overview.batches(place, state, rows.page()).await?;
                show_page(form, &found, BATCH, rows.limit);
            }
            Self::Show { batch, at, rows } => {
                let place = at.find(services).await?;
                let found = services.overview.messages(place, BatchId(batch), rows.page()).await?;
                show_page(form, &found, MESSAGE, rows.limit);
            }
            Self::Rows { batch, number, rows, at } => {
                let (place, of) = (at.find(services).await?, (BatchId(batch), number));
                let found = services.overview.content(place, of, (&rows.after, rows.limit)).await?;
                show_rows(form, &found);
            }
        }
        Ok(())
    }
}

fn show_rows(form: Form, content: &Content) {
    if form.json {
        for row in &content.rows {
            let of = |names: &[String]| -> Map<String, Value> {
                names.iter().map(|name| (name.clone(), json!(row.value(name)))).collect()
            };
            let columns: Vec<String> = row.cells.iter().map(|(name, _)| name.clone()).collect();
            let line = json!({ "row": row.row, "table": content.table, "operation": row.operation(),
                "key": of(&content.key), "columns": of(&columns) });
            out::data(line.to_string());
        }
        return;
    }
    let head = [["ROW", "LINHA"], ["OPERATION", "OPERAÇÃO"]].into_iter();
    let head: Vec<_> = head.chain(content.columns.iter().map(|name| [name.as_str(); 2])).collect();
    let cells = content.rows.iter().map(|row| {
        let values = content.columns.iter().map(|name| row.value(name).unwrap_or("NULL"));
        let begin = [row.row.to_string(), row.operation().to_owned()];
        begin.into_iter().chain(values.map(str::to_owned)).collect()
    });
    print(form, &head, cells.collect());
    if let Some(next) = content.next {
        form.more(&next.to_string());
    }
}
