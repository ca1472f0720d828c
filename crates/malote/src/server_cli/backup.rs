//! Commands of backup and restore of a server's data folder.
//!
//! Promises: what a restore changes is told stream by stream and credential by credential, before it with `--dry-run`.
//! Never: opens the services; a store that is to be restored may be damaged.

use std::path::PathBuf;

use clap::Args;
use protocol::{Code, Error, Result};
use serde_json::{Value, json};
use server::{
    app::{
        self,
        backup::{BackupOrder, Moved, RestoreOrder, Restored, Revoked},
    },
    config::ServerConfig,
    store::Site,
};

use super::lists::{Form, print};
use crate::out;

/// `malote server backup`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  malote server backup --to /backups/monday --config server.toml

The master key is not copied: keep it apart from the backups, for who has both can open every secret of the store. A
backup whose key is lost cannot be restored.

A store in a database (store.url) is backed up with the database's own tools, such as pg_dump.")]
pub(super) struct BackupArgs {
    /// Folder of the backup; empty or not there yet.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Copy the master key as well.
    #[arg(long)]
    with_key: bool,
}

/// `malote server restore`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server restore --from /backups/monday --dry-run --config server.toml
  malote server restore --from /backups/monday --replace --config server.toml
  malote server restore --config server.toml    # goes on with one that was cut off

Agents find out by themselves and read again what the backup lacks.")]
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
    pub(super) async fn run(self, config: &ServerConfig, form: Form) -> Result<()> {
        let Self { to, with_key } = self;
        only_files(config, form)?;
        let order = BackupOrder { data: config.data.clone(), to: to.clone(), with_key };
        let made = app::backup::make(order, &app::command_line()).await?;
        let (files, bytes) = (made.files.len(), made.bytes());
        if form.json {
            let made = serde_json::to_value(&made).unwrap_or_default();
            out::data(json!({"to": to, "bytes": bytes, "manifest": made}).to_string());
        } else {
            out::data(form.lang.pick(
                format!("{}: {files} files, {bytes} bytes, checked", to.display()),
                format!("{}: {files} arquivos, {bytes} bytes, conferidos", to.display()),
            ));
        }
        if with_key {
            form.talk(
                "the master key is in it: whoever has this folder can open every secret of the store",
                "a chave mestra está nele: quem tem esta pasta abre todos os segredos do armazenamento",
            );
        } else {
            form.talk(
                "master.key of the data folder is not in it: keep a copy apart, a restore needs it",
                "master.key da pasta de dados não está nele: guarde uma cópia à parte, a restauração precisa dela",
            );
        }
        Ok(())
    }
}

impl RestoreArgs {
    pub(super) async fn run(self, config: &ServerConfig, form: Form) -> Result<()> {
        let Self { from, replace, dry_run } = self;
        let data = config.data.clone();
        // One that was cut off is of files, and nothing opens the folder before it is finished.
        let Some(from) = from else { return finish(&data, form) };
        only_files(config, form)?;
        let order = RestoreOrder { data, from, replace, dry_run };
        let restored = app::backup::restore(order, &app::command_line()).await?;
        show(&restored, dry_run, form);
        Ok(())
    }
}

/// What is copied and put back are files; a database has means of its own.
fn only_files(config: &ServerConfig, form: Form) -> Result<()> {
    let Site::Postgres(_) = config.site()? else { return Ok(()) };
    let words = form.lang.pick(
        "the store is in a PostgreSQL database: back it up and restore it with the database's own tools, such as \
         pg_dump and pg_restore, and keep the file master.key of the data folder apart",
        "o armazenamento está em um banco PostgreSQL: faça o backup e a restauração com as ferramentas do próprio banco, \
         como pg_dump e pg_restore, e guarde à parte o arquivo master.key da pasta de dados",
    );
    Err(Error::new(Code::BadRequest, words))
}

fn finish(data: &std::path::Path, form: Form) -> Result<()> {
    if app::backup::finish(data)? {
        form.talk("the restore is finished", "a restauração está concluída");
        return Ok(());
    }
    let words = form.lang.pick(
        "no restore was cut off here; name the backup: --from FOLDER",
        "nenhuma restauração foi interrompida aqui; indique o backup: --from PASTA",
    );
    Err(Error::new(Code::NotFound, words))
}

fn stream_json(moved: &Moved) -> Value {
    let Moved { stream, from, to } = moved;
    json!({
        "tenant": stream.tenant, "environment": stream.environment, "erp": stream.erp.as_str(),
        "epoch": {"from": from.epoch, "to": to.epoch},
        "lastBatch": {"from": from.last_batch, "to": to.last_batch},
    })
}

fn revoked_json(revoked: &Revoked) -> Value {
    let Revoked { entrance, id, tenant, name } = revoked;
    json!({"what": entrance.as_str(), "id": id, "tenant": tenant, "name": name})
}

fn show_revoked(revoked: &[Revoked], knew: bool, form: Form) {
    if !knew {
        form.talk(
            "no store that is replaced could be read: what was revoked since the backup is in force again",
            "nenhum armazenamento substituído pôde ser lido: o que foi revogado depois do backup vale de novo",
        );
    }
    for Revoked { entrance, name, .. } in revoked {
        let what = entrance.as_str();
        form.talk(
            format!("{what} {name} was revoked since the backup and stays revoked"),
            format!("{what} {name} foi revogado depois do backup e continua revogado"),
        );
    }
}

fn show(restored: &Restored, dry_run: bool, form: Form) {
    let Restored { manifest, streams, revoked, migrated, former, knew } = restored;
    if form.json {
        let streams: Vec<Value> = streams.iter().map(stream_json).collect();
        let revoked: Vec<Value> = revoked.iter().map(revoked_json).collect();
        out::data(
            json!({
                "dryRun": dry_run, "madeAt": manifest.made_at, "bytes": manifest.bytes(), "streams": streams,
                "revokedAgain": revoked, "migrated": migrated, "former": former, "knewWhatItReplaces": knew,
            })
            .to_string(),
        );
        return;
    }
    let head = [
        ["ENVIRONMENT", "AMBIENTE"],
        ["ERP", "ERP"],
        ["EPOCH", "ÉPOCA"],
        ["LAST BATCH", "ÚLTIMO PACOTE"],
    ];
    let line = |moved: &Moved| {
        let Moved { stream, from, to } = moved;
        vec![
            stream.environment.to_string(),
            stream.erp.as_str().to_owned(),
            format!("{} -> {}", from.epoch, to.epoch),
            format!("{} -> {}", from.last_batch, to.last_batch),
        ]
    };
    print(form, &head, streams.iter().map(line).collect());
    show_revoked(revoked, *knew, form);
    let made = &manifest.made_at;
    if dry_run {
        form.talk(
            format!("the backup of {made} is whole; nothing was changed (dry run)"),
            format!("o backup de {made} está inteiro; nada foi alterado (simulação)"),
        );
        return;
    }
    if !migrated.is_empty() {
        let steps = migrated.join(", ");
        form.talk(
            format!("the copy was brought to this program's schema: {steps}"),
            format!("a cópia foi atualizada para o schema deste programa: {steps}"),
        );
    }
    let [kept, guardado] = former.as_ref().map_or_else(Default::default, |former| {
        [
            format!("; what stood there before lies in {former} of the data folder, remove it when all is well"),
            format!("; o que havia antes está em {former} na pasta de dados, remova quando tudo estiver certo"),
        ]
    });
    form.talk(
        format!(
            "restored as of {made}{kept}.\n\
             Agents read again what came since; what people set up since has to be set up again."
        ),
        format!(
            "restaurado como em {made}{guardado}.\n\
             Os agentes leem de novo o que veio depois; o que foi cadastrado depois precisa ser refeito."
        ),
    );
}
