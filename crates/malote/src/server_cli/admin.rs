//! Commands of administration: who may administer over the network, and what was done.
//!
//! Promises: a token is shown once, when it is made.
//! Never: asks for a token itself: whoever may write the data folder administers already.

use clap::{Args, Subcommand};
use protocol::{Code, Error, Result};
use serde_json::json;
use server::{
    model::{
        admin::{AdminToken, Administrator, AuditEntry, AuditQuery, Role},
        catalog::At,
    },
    service::{
        Services,
        access::{NewAdminToken, TokenWish},
    },
};

use super::{
    Paging,
    lists::{Column, Form, show, show_page, when},
};
use crate::out;

const ADMINISTRATOR: &[Column<Administrator>] = &[
    (["NAME", "NOME"], |a, _| a.name.clone()),
    (["ID", "ID"], |a, _| a.id.to_string()),
    (["CREATED", "CRIADO EM"], |a, _| a.created_at.to_string()),
    (["REVOKED", "REVOGADO"], |a, lang| when(a.revoked_at, lang)),
];
const TOKEN: &[Column<AdminToken>] = &[
    (["NAME", "NOME"], |t, _| t.name.clone()),
    (["ROLE", "PAPEL"], |t, _| t.role.as_str().to_owned()),
    (["TENANT", "TENANT"], |t, lang| {
        t.tenant.map_or_else(|| lang.pick("every", "todos").to_owned(), |id| id.to_string())
    }),
    (["CREATED", "CRIADO EM"], |t, _| t.created_at.to_string()),
    (["EXPIRES", "EXPIRA"], |t, lang| {
        t.expires_at.map_or_else(|| lang.pick("never", "nunca").to_owned(), |at| at.to_string())
    }),
    (["REVOKED", "REVOGADO"], |t, lang| when(t.revoked_at, lang)),
];
const ENTRY: &[Column<AuditEntry>] = &[
    (["SEQ", "SEQ"], |e, _| e.seq.to_string()),
    (["AT", "QUANDO"], |e, _| e.at.to_string()),
    (["WHO", "QUEM"], |e, _| e.who.clone()),
    (["ACTION", "AÇÃO"], |e, _| e.action.clone()),
    (["TARGET", "ALVO"], |e, _| e.target.clone()),
    (["DETAIL", "DETALHE"], |e, _| e.detail.clone()),
];

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Make an administrator; a token lets it in.
    Add {
        /// Its name.
        name: String,
    },
    /// Administrators, revoked ones among them.
    List(Paging),
    /// End an administrator with all its tokens, at once and for ever.
    Revoke {
        /// Administrator, by id or name.
        administrator: String,
    },
    /// Tokens of an administrator.
    #[command(subcommand)]
    Token(TokenCommand),
}

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; it is shown now and never again.
    Create(NewToken),
    /// Tokens of an administrator; never their secrets.
    List {
        /// Administrator, by id or name.
        administrator: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Revoke a token at once and for ever.
    Revoke {
        /// Administrator, by id or name.
        administrator: String,
        /// The token's name.
        name: String,
    },
}

/// `malote server admin token create`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server admin token create ana --name laptop --role operator
  malote server admin token create monitor --name grafana --role read-only --tenant Acme --expires 2027-01-31")]
pub(super) struct NewToken {
    /// Administrator, by id or name.
    administrator: String,
    /// What tells this token from others of the same administrator.
    #[arg(long)]
    name: String,
    /// operator (reads and changes) or read-only.
    #[arg(long)]
    role: Role,
    /// The one tenant it opens, by id or name; left out: every tenant, and the server's own settings.
    #[arg(long, value_name = "ID|NAME")]
    tenant: Option<String>,
    /// When it ends: a date (2027-01-31, its first moment in UTC) or a time (2027-01-31T12:00:00Z); left out: never.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    expires: Option<At>,
}

impl AdminCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let access = &services.access;
        match self {
            Self::Add { name } => {
                show(form, &[access.create_administrator(&name).await?], ADMINISTRATOR)
            }
            Self::List(paging) => {
                let found = access.administrators(paging.page()).await?;
                show_page(form, &found, ADMINISTRATOR, paging.limit);
            }
            Self::Revoke { administrator } => {
                let ended = access.revoke_administrator(&administrator).await?;
                show(form, &[ended], ADMINISTRATOR);
            }
            Self::Token(TokenCommand::Create(new)) => {
                show_token(form, &new.make(services).await?);
            }
            Self::Token(TokenCommand::List { administrator, paging }) => {
                let found = access.admin_tokens(&administrator, paging.page()).await?;
                show_page(form, &found, TOKEN, paging.limit);
            }
            Self::Token(TokenCommand::Revoke { administrator, name }) => {
                access.revoke_admin_token(&administrator, &name).await?;
                form.talk(
                    "revoked; the next call with it is refused",
                    "revogado; a próxima chamada com ele será recusada",
                );
            }
        }
        Ok(())
    }
}

impl NewToken {
    async fn make(self, services: &Services) -> Result<NewAdminToken> {
        let tenant = match &self.tenant {
            Some(key) => Some(services.catalog.tenant(key).await?.id),
            None => None,
        };
        let wish = TokenWish { name: self.name, role: self.role, tenant, expires_at: self.expires };
        services.access.create_admin_token(&self.administrator, wish).await
    }
}

fn show_token(form: Form, new: &NewAdminToken) {
    if form.json {
        out::data(json!({ "id": new.token.id, "token": new.reveal() }).to_string());
    } else {
        out::data(new.reveal());
        form.only_now("token");
    }
}

pub(super) fn moment(text: &str) -> Result<At> {
    At::read(text)
}

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// What was done, the newest first.
    List {
        /// Only what concerns this tenant, by id or name.
        #[arg(long, value_name = "ID|NAME")]
        tenant: Option<String>,
        /// At most this many.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// Go on below this number (the first column of the last line).
        #[arg(long, default_value_t = 0, hide_default_value = true, value_name = "SEQ")]
        after: i64,
        /// Only where who, action or target hold this.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "PART")]
        search: String,
    },
    /// Check that no entry was changed or taken out.
    Verify,
}

impl AuditCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List { tenant, limit, after, search } => {
                let tenant = match &tenant {
                    Some(key) => Some(services.catalog.tenant(key).await?.id),
                    None => None,
                };
                let query = AuditQuery { tenant, search, below: after, limit };
                show_page(form, &services.access.audit(query).await?, ENTRY, limit);
                Ok(())
            }
            Self::Verify => match services.access.first_broken_audit().await? {
                None => {
                    if form.json {
                        out::data(serde_json::json!({ "intact": true }).to_string());
                        return Ok(());
                    }
                    form.talk(
                        "every entry follows from the one before it",
                        "nenhum registro foi alterado nem retirado: cada um decorre do anterior",
                    );
                    Ok(())
                }
                Some(seq) => {
                    let words = form.lang.pick(
                        format!("entry {seq} of the audit was changed, or one before it was taken out"),
                        format!("o registro {seq} da auditoria foi alterado, ou um anterior foi retirado"),
                    );
                    Err(Error::new(Code::StoreFailed, words))
                }
            },
        }
    }
}
