//! Migrate: the store's schema becomes this program's.
//!
//! Promises: a server at work is not changed beneath; of a database, a role that owns nothing is let in.
//! Never: makes a role.

use clap::Args;
use protocol::{Code, Error, Result};
use server::{
    app,
    config::ServerConfig,
    store::{Site, sqlite::State},
};

use super::lists::Form;
use crate::out;

#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// Let this role of the database work as the server; to be run as the role that owns the database.
    #[arg(long)]
    role: Option<String>,
}

impl Migrate {
    pub(super) async fn run(self, config: &ServerConfig, form: Form) -> Result<()> {
        let site = config.site()?;
        runtime::backup::refuse_pending(&config.data)?;
        runtime::files::folder(&config.data).map_err(|cause| {
            Error::new(Code::ConfigInvalid, format!("cannot make {}", config.data.display()))
                .because(cause)
        })?;
        // A server at work has its store open, and what a step changes would change beneath it; over a database that has no
        // schema none is at work.
        let _alone = match (&site, site.state().await?) {
            (_, State::Current) | (Site::Postgres(_), State::Empty) => None,
            _ => Some(app::lock(&config.data)?),
        };
        let steps = site.migrate().await?;
        let nothing = steps.is_empty();
        for step in steps {
            out::data(if form.json {
                serde_json::json!({ "migrated": step }).to_string()
            } else {
                form.lang.pick(format!("migrated {step}"), format!("migrado {step}"))
            });
        }
        if nothing {
            form.talk(
                format!("nothing was to do: the store {site} is current"),
                format!("nada a fazer: o armazenamento {site} está atualizado"),
            );
        } else {
            form.talk(
                format!("the store {site} is current now"),
                format!("o armazenamento {site} agora está atualizado"),
            );
        }
        let Some(role) = self.role else { return Ok(()) };
        site.grant(&role).await?;
        form.talk(
            format!("{role} may work as the server"),
            format!("{role} pode trabalhar como servidor"),
        );
        Ok(())
    }
}
