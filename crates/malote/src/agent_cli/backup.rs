//! Commands of backup and restore of an agent's data folder.
//!
//! Never: asks the running agent; its files are copied as they are at one moment.

use std::path::{Path, PathBuf};

use agent::{
    app::backup::{self, BackupOrder, RestoreOrder},
    config::AgentConfig,
};
use clap::Args;
use protocol::{Code, Error, Result};
use serde_json::json;

use crate::{lang::Lang, out};

/// `malote agent backup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  malote agent backup --to /backups/agent --config agent.toml

What a backup keeps is history, incidents, pauses and sealed secrets. The keys are not copied unless asked for.")]
pub(super) struct BackupArgs {
    /// Folder of the backup; empty or not there yet.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Copy the keys of sealed secrets and of hashed columns as well.
    #[arg(long)]
    with_keys: bool,
}

/// `malote agent restore`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote agent restore --from /backups/agent --replace --config agent.toml
  malote agent restore --config agent.toml    # goes on with one that was cut off

Nothing of that day is sent: the agent asks the server what is staged and reads again what is missing.")]
pub(super) struct RestoreArgs {
    /// Folder of the backup; left out: go on with a restore that was cut off.
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Put aside what the data folder holds.
    #[arg(long, requires = "from")]
    replace: bool,
    /// Check the backup and tell what would be done, and do nothing.
    #[arg(long, requires = "from")]
    dry_run: bool,
}

impl BackupArgs {
    pub(super) async fn run(self, config: &AgentConfig, as_json: bool, lang: Lang) -> Result<()> {
        let Self { to, with_keys } = self;
        let order = BackupOrder {
            data: config.data.clone(),
            to: to.clone(),
            with_keys,
            mask_key_file: config.mask.key_file.clone(),
        };
        let backup::Made { manifest: made, left } = backup::make(order).await?;
        let (files, bytes) = (made.files.len(), made.bytes());
        if as_json {
            let made = serde_json::to_value(&made).unwrap_or_default();
            let told = json!({"to": to, "bytes": bytes, "manifest": made, "notCopied": left});
            out::data(told.to_string());
        } else {
            out::data(lang.pick(
                format!("{}: {files} files, {bytes} bytes, checked", to.display()),
                format!("{}: {files} arquivos, {bytes} bytes, conferidos", to.display()),
            ));
        }
        if with_keys {
            out::talk(lang.pick(
                "the keys are in it: whoever has this folder can open the sealed secrets",
                "as chaves estão nele: quem tem esta pasta abre os segredos selados",
            ));
        }
        if let Some(left) = left {
            let left = left.display();
            out::talk(lang.pick(
                format!("the key of hashed columns is not in it, keep a copy of {left}"),
                format!("a chave das colunas com hash não está nele, guarde uma cópia de {left}"),
            ));
        }
        Ok(())
    }
}

impl RestoreArgs {
    pub(super) async fn run(self, data: &Path, as_json: bool, lang: Lang) -> Result<()> {
        let Self { from, replace, dry_run } = self;
        let Some(from) = from else { return finish(data, lang) };
        let order = RestoreOrder { data: data.to_owned(), from, replace, dry_run };
        let (manifest, former) = backup::restore(order).await?;
        let made = &manifest.made_at;
        if as_json {
            out::data(json!({"dryRun": dry_run, "madeAt": made, "former": former}).to_string());
        }
        let Some(former) = former else {
            out::talk(lang.pick(
                format!("the backup of {made} is whole; nothing was changed (dry run)"),
                format!("o backup de {made} está inteiro; nada foi alterado (simulação)"),
            ));
            return Ok(());
        };
        let [kept, guardado] = match data.join(&former).exists() {
            true => [
                format!("; what stood there before lies in {former} of the data folder"),
                format!("; o que havia antes está em {former} na pasta de dados"),
            ],
            false => Default::default(),
        };
        out::talk(lang.pick(
            format!(
                "restored as of {made}{kept}.\n\
                 Pauses are those of that day: look with malote agent status once the agent runs."
            ),
            format!(
                "restaurado como em {made}{guardado}.\n\
                 As pausas são as daquele dia: veja com malote agent status quando o agente estiver rodando."
            ),
        ));
        Ok(())
    }
}

fn finish(data: &Path, lang: Lang) -> Result<()> {
    if backup::finish(data)? {
        out::talk(lang.pick("the restore is finished", "a restauração está concluída"));
        return Ok(());
    }
    let words = lang.pick(
        "no restore was cut off here; name the backup: --from FOLDER",
        "nenhuma restauração foi interrompida aqui; indique o backup: --from PASTA",
    );
    Err(Error::new(Code::NotFound, words))
}
