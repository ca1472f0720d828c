//! Commands of Carol: with which credentials a tenant's sender reaches it.
//!
//! Promises: the token comes from standard input, so that no list of processes and no history of a shell holds it.
//! Never: prints the token.

use std::io::Read as _;

use clap::{Args, Subcommand};
use protocol::{Code, Coded as _, Result};
use secrecy::SecretString;
use server::{
    model::carol::CarolCredential,
    service::{Services, access::NewCarol},
};

use super::{
    OfTenant,
    lists::{Column, Form, show},
};
use crate::lang::Lang;

const CAROL: &[Column<CarolCredential>] = &[
    (["ENDPOINT", "ENDPOINT"], |c, _| c.endpoint.clone()),
    (["ORGANIZATION", "ORGANIZAÇÃO"], |c, _| c.organization.clone()),
    (["TENANT", "TENANT"], |c, _| c.carol_tenant.clone()),
    (["CONNECTOR", "CONNECTOR"], |c, _| c.connector_id.clone()),
    (["SET", "DEFINIDO EM"], |c, _| c.set_at.to_string()),
];

/// The longest token that is read.
const TOKEN_BYTES: u64 = 4096;

#[derive(Debug, Subcommand)]
pub(super) enum CarolCommand {
    /// Set a tenant's connector, or replace it; the token is read from standard input and kept sealed.
    Set(SetCarol),
    /// A tenant's connector, without its token.
    Show {
        #[command(flatten)]
        of: OfTenant,
    },
    /// Take it away.
    Remove {
        #[command(flatten)]
        of: OfTenant,
    },
}

/// `malote server carol set`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  malote server carol set --endpoint https://acme.carol.ai/api --organization acme \\
    --carol-tenant tenant1111 --connector 0123456789abcdef < token.txt")]
pub(super) struct SetCarol {
    /// Address that ends in /api.
    #[arg(long)]
    endpoint: String,
    /// Organization at Carol.
    #[arg(long)]
    organization: String,
    /// The tenant's subdomain at Carol.
    #[arg(long)]
    carol_tenant: String,
    /// Connector id.
    #[arg(long)]
    connector: String,
    #[command(flatten)]
    of: OfTenant,
}

impl CarolCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::Set(set) => {
                let tenant = set.of.find(services).await?.id;
                let new = NewCarol {
                    endpoint: set.endpoint,
                    organization: set.organization,
                    carol_tenant: set.carol_tenant,
                    connector_id: set.connector,
                    token: token(form.lang)?,
                };
                show(form, &[services.access.set_carol(tenant, new).await?], CAROL);
            }
            Self::Show { of } => {
                let tenant = of.find(services).await?.id;
                show(form, &[services.access.carol(tenant).await?], CAROL);
            }
            Self::Remove { of } => {
                services.access.remove_carol(of.find(services).await?.id).await?;
                form.talk("removed", "removido");
            }
        }
        Ok(())
    }
}

fn token(lang: Lang) -> Result<SecretString> {
    let mut text = String::new();
    let unread = lang.pick(
        "the token could not be read from standard input",
        "não foi possível ler o token da entrada padrão",
    );
    std::io::stdin().take(TOKEN_BYTES).read_to_string(&mut text).coded(Code::BadRequest, unread)?;
    Ok(text.trim().into())
}
