//! Commands of retention.
//!
//! Promises: a dry run tells what a run would remove, and removes nothing.
//! Never: changes the spans; the configuration has them.

use clap::Subcommand;
use protocol::{Code, Error, Result};
use runtime::clock::Wall;
use server::service::{
    Services,
    retention::{FailedStream, Swept},
};

use super::lists::{Column, Form, show};

const SWEPT: &[Column<Swept>] = &[
    (["BODIES", "CONTEÚDOS"], |s, _| s.removed.bodies.to_string()),
    (["BYTES", "BYTES"], |s, _| s.removed.bytes.to_string()),
    (["LEDGER MESSAGES", "MENSAGENS NO RASTREIO"], |s, _| s.removed.messages.to_string()),
    (["LEDGER BATCHES", "PACOTES NO RASTREIO"], |s, _| s.removed.batches.to_string()),
    (["TOMBSTONES", "MARCAS DE EXCLUSÃO"], |s, _| s.removed.tombstones.to_string()),
    (["DELIVERIES", "ENTREGAS"], |s, _| s.removed.deliveries.to_string()),
];

#[derive(Debug, Subcommand)]
pub(super) enum RetentionCommand {
    /// Remove now what the configuration keeps no longer; a running server does so every hour by itself.
    Run {
        /// Tell what would be removed, and remove nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl RetentionCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let Self::Run { dry_run } = self;
        let retention = &services.retention;
        let swept = if dry_run {
            retention.due(Wall::now()).await?
        } else {
            let mut all = retention.run(Wall::now()).await?;
            while all.more {
                let next = retention.run(Wall::now()).await?;
                all.removed += next.removed;
                (all.more, all.failed) = (next.more, next.failed);
            }
            all
        };
        show(form, std::slice::from_ref(&swept), SWEPT);
        if dry_run && !form.json {
            form.talk("dry run: nothing was removed", "simulação: nada foi removido");
        } else if !form.json {
            form.talk("removed", "removido");
        }
        let failed = &swept.failed;
        let Some(first) = failed.first() else { return Ok(()) };
        for FailedStream { environment, erp, code, message } in failed {
            form.talk(
                format!("not cleaned: {erp} of environment {environment}: {code}: {message}"),
                format!("não limpo: {erp} do ambiente {environment}: {code}: {message}"),
            );
        }
        let words = form.lang.count(
            failed.len() as u64,
            ["stream was not cleaned", "streams were not cleaned"],
            ["fluxo não foi limpo", "fluxos não foram limpos"],
        );
        Err(Error::new(first.code.parse().unwrap_or(Code::Internal), words))
    }
}
