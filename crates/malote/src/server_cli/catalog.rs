//! Commands of the catalog: tenants, apps, environments, installations, credentials.
//!
//! Promises: a command that makes something prints it.
//! Never: prints a secret but in `credential create`.

use clap::{Args, Subcommand};
use protocol::{Result, names::ErpName};
use serde_json::json;
use server::{
    model::catalog::{App, Credential, Environment, EnvironmentType, Holder, Installation, Tenant},
    service::{Services, access::NewCredential, catalog::AppChange},
};

use super::{
    OfTenant, Paging,
    lists::{Column, Form, show, show_page, show_some, when},
};
use crate::out;

const TENANT: &[Column<Tenant>] = &[
    (["NAME", "NOME"], |t, _| t.name.clone()),
    (["ID", "ID"], |t, _| t.id.to_string()),
    (["CREATED", "CRIADO EM"], |t, _| t.created_at.to_string()),
];
const APP: &[Column<App>] = &[
    (["NAME", "NOME"], |a, _| a.name.clone()),
    (["ID", "ID"], |a, _| a.id.to_string()),
    (["ACTIVE", "ATIVO"], |a, lang| lang.yes(a.active).to_owned()),
    (["DESCRIPTION", "DESCRIÇÃO"], |a, _| a.description.clone()),
];
const ENVIRONMENT: &[Column<Environment>] = &[
    (["NAME", "NOME"], |e, _| e.name.clone()),
    (["ID", "ID"], |e, _| e.id.to_string()),
    (["TYPE", "TIPO"], |e, _| e.kind.as_str().to_owned()),
];
const INSTALLATION: &[Column<Installation>] = &[
    (["NAME", "NOME"], |i, _| i.name.clone()),
    (["ID", "ID"], |i, _| i.id.to_string()),
    (["ERP", "ERP"], |i, _| i.erp.to_string()),
    (["ENVIRONMENT", "AMBIENTE"], |i, lang| {
        let unbound = || lang.pick("not bound", "sem vínculo").to_owned();
        i.environment.map_or_else(unbound, |id| id.to_string())
    }),
];
const CREDENTIAL: &[Column<Credential>] = &[
    (["CLIENT", "CLIENT ID"], |c, _| c.client.to_string()),
    (["HOLDER", "TITULAR"], |c, lang| match c.holder {
        Holder::Installation(id) => format!("{} {id}", lang.pick("installation", "instalação")),
        Holder::App(id) => format!("{} {id}", lang.pick("app", "aplicativo")),
    }),
    (["CREATED", "CRIADA EM"], |c, _| c.created_at.to_string()),
    (["REVOKED", "REVOGADA"], |c, lang| when(c.revoked_at, lang)),
];

/// A list of what a tenant has.
#[derive(Debug, Args)]
pub(super) struct ListOf {
    #[command(flatten)]
    of: OfTenant,
    #[command(flatten)]
    paging: Paging,
}

#[derive(Debug, Subcommand)]
pub(super) enum TenantCommand {
    /// Make a tenant.
    Create {
        /// Its name.
        name: String,
    },
    /// All tenants.
    List(Paging),
    /// Show one with its environments, installations and apps.
    Show {
        /// Tenant, by id or name; may be left out where there is one.
        #[arg(default_value = "", hide_default_value = true)]
        tenant: String,
    },
    /// Give a tenant another name; its id stays.
    Rename {
        /// Tenant, by id or name.
        tenant: String,
        /// Its new name.
        name: String,
    },
    /// Remove a tenant that has nothing.
    Delete {
        /// Tenant, by id or name.
        tenant: String,
    },
}

impl TenantCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let catalog = &services.catalog;
        match self {
            Self::Create { name } => show(form, &[catalog.create_tenant(&name).await?], TENANT),
            Self::List(paging) => {
                show_page(form, &catalog.tenants(paging.page()).await?, TENANT, paging.limit)
            }
            Self::Rename { tenant, name } => {
                let tenant = catalog.tenant(&tenant).await?;
                show(form, &[catalog.rename_tenant(&tenant, &name).await?], TENANT);
            }
            Self::Delete { tenant } => {
                catalog.remove_tenant(&catalog.tenant(&tenant).await?).await?;
                form.talk("removed", "removido");
            }
            Self::Show { tenant } => {
                let tenant = catalog.tenant(&tenant).await?;
                let all = Paging { limit: 10_000, after: String::new(), search: String::new() };
                show(form, std::slice::from_ref(&tenant), TENANT);
                // A list that is empty here would say "none" of nothing in particular.
                show_some(form, &catalog.environments(tenant.id, all.page()).await?, ENVIRONMENT);
                show_some(form, &catalog.installations(tenant.id, all.page()).await?, INSTALLATION);
                show_some(form, &catalog.apps(tenant.id, all.page()).await?, APP);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    /// Make an app; it is active.
    Create {
        /// Its name.
        name: String,
        /// What it is for.
        #[arg(long, default_value = "", hide_default_value = true)]
        description: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Apps of a tenant.
    List(ListOf),
    /// Change an app's name or what it is for; what is left out stays.
    Edit {
        /// App, by id or name.
        app: String,
        /// Its new name.
        #[arg(long, required_unless_present = "description")]
        name: Option<String>,
        /// What it is for.
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Let an app's clients in again.
    Activate {
        /// App, by id or name.
        app: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Remove an app without credentials in force.
    Delete {
        /// App, by id or name.
        app: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Keep an app's clients out until it is activated again.
    Deactivate {
        /// App, by id or name.
        app: String,
        #[command(flatten)]
        of: OfTenant,
    },
}

impl AppCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let catalog = &services.catalog;
        let (app, of, active) = match self {
            Self::Create { name, description, of } => {
                let tenant = of.find(services).await?.id;
                show(form, &[catalog.create_app(tenant, &name, &description).await?], APP);
                return Ok(());
            }
            Self::List(ListOf { of, paging }) => {
                let tenant = of.find(services).await?.id;
                show_page(form, &catalog.apps(tenant, paging.page()).await?, APP, paging.limit);
                return Ok(());
            }
            Self::Edit { app, name, description, of } => {
                let app = catalog.app(of.find(services).await?.id, &app).await?;
                let change = AppChange { name, description, active: None };
                show(form, &[catalog.change_app(&app, change).await?], APP);
                return Ok(());
            }
            Self::Delete { app, of } => {
                let app = catalog.app(of.find(services).await?.id, &app).await?;
                catalog.remove_app(&app).await?;
                form.talk("removed", "removido");
                return Ok(());
            }
            Self::Activate { app, of } => (app, of, true),
            Self::Deactivate { app, of } => (app, of, false),
        };
        let app = catalog.app(of.find(services).await?.id, &app).await?;
        show(form, &[catalog.set_app_active(&app, active).await?], APP);
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum EnvironmentCommand {
    /// Make an environment.
    Create {
        /// Its name.
        name: String,
        /// production, staging, development or custom.
        #[arg(long = "type", default_value = "production")]
        kind: EnvironmentType,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Environments of a tenant.
    List(ListOf),
    /// Give an environment another name; its id stays.
    Rename(Rename),
    /// Remove an environment to which nothing is bound, and for which no table was ever shared.
    Delete {
        /// Environment, by id or name.
        environment: String,
        #[command(flatten)]
        of: OfTenant,
    },
}

/// Another name.
#[derive(Debug, Args)]
pub(super) struct Rename {
    /// By id or name.
    key: String,
    /// Its new name.
    name: String,
    #[command(flatten)]
    of: OfTenant,
}

impl EnvironmentCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let catalog = &services.catalog;
        match self {
            Self::Create { name, kind, of } => {
                let tenant = of.find(services).await?.id;
                show(form, &[catalog.create_environment(tenant, &name, kind).await?], ENVIRONMENT);
            }
            Self::List(ListOf { of, paging }) => {
                let tenant = of.find(services).await?.id;
                show_page(
                    form,
                    &catalog.environments(tenant, paging.page()).await?,
                    ENVIRONMENT,
                    paging.limit,
                );
            }
            Self::Rename(Rename { key, name, of }) => {
                let found = catalog.environment(of.find(services).await?.id, &key).await?;
                show(form, &[catalog.rename_environment(&found, &name).await?], ENVIRONMENT);
            }
            Self::Delete { environment, of } => {
                let found = catalog.environment(of.find(services).await?.id, &environment).await?;
                catalog.remove_environment(&found).await?;
                form.talk("removed", "removido");
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum InstallationCommand {
    /// Make an installation, bound where an environment is named.
    Create {
        /// Its name.
        name: String,
        /// RM, PROTHEUS, DATASUL, LOGIX or another.
        #[arg(long)]
        erp: ErpName,
        /// Environment to bind it to.
        #[arg(long, value_name = "ID|NAME")]
        environment: Option<String>,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Installations of a tenant, and where each is bound.
    List(ListOf),
    /// Tie an installation to an environment.
    Bind {
        /// Installation, by id or name.
        installation: String,
        /// Environment, by id or name.
        environment: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Give an installation another name; its id stays.
    Rename(Rename),
    /// Remove an installation that is not bound and has no credential in force.
    Delete {
        /// Installation, by id or name.
        installation: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Untie it; its senders are refused within 60 s.
    Unbind {
        /// Installation, by id or name.
        installation: String,
        #[command(flatten)]
        of: OfTenant,
    },
}

impl InstallationCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        let catalog = &services.catalog;
        match self {
            Self::Create { name, erp, environment, of } => {
                let tenant = of.find(services).await?.id;
                let environment = match environment {
                    Some(key) => Some(catalog.environment(tenant, &key).await?.id),
                    None => None,
                };
                show(
                    form,
                    &[catalog.create_installation(tenant, &name, erp, environment).await?],
                    INSTALLATION,
                );
            }
            Self::List(ListOf { of, paging }) => {
                let tenant = of.find(services).await?.id;
                show_page(
                    form,
                    &catalog.installations(tenant, paging.page()).await?,
                    INSTALLATION,
                    paging.limit,
                );
            }
            Self::Bind { installation, environment, of } => {
                let tenant = of.find(services).await?.id;
                let found = catalog.installation(tenant, &installation).await?;
                let environment = catalog.environment(tenant, &environment).await?.id;
                catalog.bind(&found, environment).await?;
                show(
                    form,
                    &[Installation { environment: Some(environment), ..found }],
                    INSTALLATION,
                );
            }
            Self::Rename(Rename { key, name, of }) => {
                let found = catalog.installation(of.find(services).await?.id, &key).await?;
                show(form, &[catalog.rename_installation(&found, &name).await?], INSTALLATION);
            }
            Self::Delete { installation, of } => {
                let found =
                    catalog.installation(of.find(services).await?.id, &installation).await?;
                catalog.remove_installation(&found).await?;
                form.talk("removed", "removido");
            }
            Self::Unbind { installation, of } => {
                let found =
                    catalog.installation(of.find(services).await?.id, &installation).await?;
                catalog.unbind(&found).await?;
                show(form, &[Installation { environment: None, ..found }], INSTALLATION);
            }
        }
        Ok(())
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum CredentialCommand {
    /// Make a client id and secret; the secret is shown now and never again.
    Create {
        #[command(flatten)]
        holder: HolderArgs,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Clients of a tenant, revoked ones among them; never a secret.
    List(ListOf),
    /// Make a second client for the holder of one; both are in force until one is revoked.
    Rotate {
        /// Client id.
        client: String,
        #[command(flatten)]
        of: OfTenant,
    },
    /// Revoke a client for ever; it is refused within 60 s.
    Revoke {
        /// Client id.
        client: String,
        #[command(flatten)]
        of: OfTenant,
    },
}

/// Whose credential.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct HolderArgs {
    /// Installation, by id or name; the only one where neither is named.
    #[arg(long, value_name = "ID|NAME")]
    installation: Option<String>,
    /// App, by id or name.
    #[arg(long, value_name = "ID|NAME")]
    app: Option<String>,
}

impl CredentialCommand {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        match self {
            Self::Create { holder, of } => {
                let tenant = of.find(services).await?.id;
                let holder = match holder.app {
                    Some(app) => Holder::App(services.catalog.app(tenant, &app).await?.id),
                    None => {
                        let key = holder.installation.unwrap_or_default();
                        Holder::Installation(services.catalog.installation(tenant, &key).await?.id)
                    }
                };
                show_secret(form, &services.access.create_credential(tenant, holder).await?);
            }
            Self::List(ListOf { of, paging }) => {
                let tenant = of.find(services).await?.id;
                let found = services.catalog.credentials(tenant, paging.page()).await?;
                show_page(form, &found, CREDENTIAL, paging.limit);
            }
            Self::Rotate { client, of } => {
                let tenant = of.find(services).await?.id;
                show_secret(form, &services.access.rotate(tenant, &client.parse()?).await?);
                form.talk(
                    format!("give it to the sender, then: credential revoke {client}"),
                    format!("entregue-a ao remetente e depois: credential revoke {client}"),
                );
            }
            Self::Revoke { client, of } => {
                let tenant = of.find(services).await?.id;
                services.access.revoke_credential(tenant, &client.parse()?).await?;
                form.talk(
                    "revoked; a running server refuses it within 60 s",
                    "revogada; um servidor em execução a recusa em até 60 s",
                );
            }
        }
        Ok(())
    }
}

/// The one place where a secret is printed.
pub(super) fn show_secret(form: Form, new: &NewCredential) {
    let (client, secret) = (new.credential.client.as_str(), new.reveal());
    if form.json {
        out::data(json!({ "clientId": client, "clientSecret": secret }).to_string());
    } else {
        out::data(format!("clientId        {client}\nclientSecret    {secret}"));
        form.only_now("secret");
    }
}
