//! The command that takes the store of a data folder into a database.
//!
//! Promises: tells table by table how many rows went over, or would.
//! Never: copies while a server runs on the data folder; takes the old file away.

use clap::Args;
use protocol::Result;
use server::{app, config::ServerConfig, store::copy::Copied};

use super::lists::{Column, Form, show};

/// `malote server copy-store`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server migrate --config server.toml    # makes the tables in the new database
  malote server copy-store --dry-run --config server.toml
  malote server copy-store --config server.toml

The file store.sqlite stays as it is; put it away afterwards. The server goes on in the database with the same master.key.

Staged tables are not copied: the server makes them again from the messages whose bodies are still kept, and orders from
the agents, once more and whole, the tables for which retention has removed bodies.")]
pub(super) struct CopyArgs {
    /// Tell what would be copied, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

const COPIED: &[Column<Copied>] = &[
    (["TABLE", "TABELA"], |copied, _| copied.table.clone()),
    (["ROWS", "LINHAS"], |copied, _| copied.rows.to_string()),
];

impl CopyArgs {
    pub(super) async fn run(self, config: &ServerConfig, form: Form) -> Result<()> {
        let copied = app::copy::store(config, self.dry_run, &app::command_line()).await?;
        show(form, &copied, COPIED);
        let (file, site) = (config.store_file(), config.site()?);
        let file = file.display();
        if self.dry_run {
            form.talk(
                format!("dry run: nothing was copied into {site}"),
                format!("simulação: nada foi copiado para {site}"),
            );
            return Ok(());
        }
        form.talk(
            format!(
                "copied into {site} and compared; {file} is as it was: put it away, since a server without store.url \
                 would go on with it.\n\
                 Staged tables are made again by the server."
            ),
            format!(
                "copiado para {site} e conferido; {file} está como antes: guarde-o em outro lugar, pois um servidor sem \
                 store.url continuaria com ele.\n\
                 As tabelas da staging são refeitas pelo servidor."
            ),
        );
        Ok(())
    }
}
