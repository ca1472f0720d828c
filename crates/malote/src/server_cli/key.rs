//! Commands of signing keys: the keys that sign senders' tokens.
//!
//! Never: shows a private key.

use clap::Subcommand;
use protocol::Result;
use runtime::clock::Wall;
use server::{model::access::SigningKey, service::Services};

use super::lists::{Column, Form, show};

const KEY: &[Column<SigningKey>] = &[
    (["KID", "KID"], |key, _| key.kid.clone()),
    (["CREATED", "CRIADA EM"], |key, _| key.created_at.to_string()),
    (["RETIRED", "RETIRADA EM"], |key, lang| {
        key.retired_at.map_or_else(|| lang.pick("no", "não").to_owned(), |at| at.to_string())
    }),
];

#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    /// Keys that sign tokens or did, the newest first.
    List,
    /// Make a key that signs from now on; a running server follows within 30 seconds.
    #[command(
        after_help = "Tokens of before stay good until they end by themselves, at most an hour. Where a key came into wrong hands:
  malote server key rotate --at-once
Senders then fetch new tokens by themselves."
    )]
    Rotate {
        /// Refuse every token of before.
        #[arg(long)]
        at_once: bool,
    },
}

impl KeyCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::List => show(form, &services.access.signing_keys().await?, KEY),
            Self::Rotate { at_once } => {
                let made = services.access.rotate_signing_key(at_once, Wall::now()).await?;
                show(form, &[made], KEY);
                if at_once {
                    form.talk(
                        "tokens of before are refused from now on, by running servers within 30 seconds",
                        "tokens anteriores são recusados a partir de agora; servidores em execução, em até 30 segundos",
                    );
                } else {
                    form.talk(
                        "tokens of before stay good until they end",
                        "tokens anteriores continuam válidos até vencerem",
                    );
                }
            }
        }
        Ok(())
    }
}
