//! Commands of analysts: which roles of the database read staged tables.
//!
//! Promises: reads and changes nothing but rights of the one schema; a dry run changes nothing.
//! Never: makes a role, or asks for a password.

use clap::Subcommand;
use protocol::Result;
use serde_json::json;
use server::service::Services;

use super::{
    OfPlace,
    lists::{Form, print},
};
use crate::out;

#[derive(Debug, Subcommand)]
pub(super) enum AnalystCommand {
    /// Roles that read the staged tables, and the schema these stand in.
    List {
        #[command(flatten)]
        at: OfPlace,
    },
    /// Let a role of the database read the staged tables, and nothing else.
    Add {
        /// The role, which the database has already.
        role: String,
        /// Tell whether it can be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: OfPlace,
    },
    /// Take from a role whatever it reads of the staged tables.
    Remove {
        /// The role.
        role: String,
        /// Tell whether it can be done, and change nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        at: OfPlace,
    },
}

impl AnalystCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { at } => list(services, &at, form).await,
            Self::Add { role, dry_run, at } => {
                let place = at.find(services).await?;
                services.staging.add_analyst(&place, &role, dry_run).await?;
                told(
                    form,
                    dry_run,
                    [
                        format!("{role} reads the staged tables of {}", place.erp),
                        format!("{role} lê as tabelas na staging de {}", place.erp),
                    ],
                );
                Ok(())
            }
            Self::Remove { role, dry_run, at } => {
                let place = at.find(services).await?;
                services.staging.remove_analyst(&place, &role, dry_run).await?;
                told(
                    form,
                    dry_run,
                    [
                        format!("{role} no longer reads the staged tables of {}", place.erp),
                        format!("{role} não lê mais as tabelas na staging de {}", place.erp),
                    ],
                );
                Ok(())
            }
        }
    }
}

async fn list(services: &Services, at: &OfPlace, form: Form) -> Result<()> {
    let place = at.find(services).await?;
    let readers = services.staging.analysts(&place).await?;
    if form.json {
        out::data(json!({ "schema": readers.schema, "roles": readers.roles }).to_string());
        return Ok(());
    }
    let cells = readers.roles.into_iter().map(|role| vec![role, readers.schema.clone()]);
    print(form, &[["ROLE", "PAPEL"], ["SCHEMA", "SCHEMA"]], cells.collect());
    Ok(())
}

fn told(form: Form, dry_run: bool, [en, pt]: [String; 2]) {
    if dry_run {
        form.talk(format!("would be done: {en}"), format!("seria feito: {pt}"));
    } else {
        form.talk(en, pt);
    }
}
