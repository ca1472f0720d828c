//! `malote server setup`: from nothing to credentials in one command.
//!
//! Promises: what is there by that name is used; each run makes new credentials and leaves older ones in force.
//! Never: takes a table away.

use clap::Args;
use protocol::{
    Code, Result,
    names::{ErpName, TableName},
};
use serde_json::json;
use server::{
    model::catalog::{EnvironmentType, Holder, Installation, Page, Place, Tenant},
    service::{
        Services,
        catalog::{self, NewEntity},
    },
};

use super::{entity, lists::Form};
use crate::{lang::Lang, out};

/// `malote server setup`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  malote server setup --tenant Acme --erp RM --tables FCFO,FLAN
  malote server setup --tenant Acme --erp PROTHEUS --environment test --type development --json

Run it again with further tables to share them as well. Each run makes a further credential; `malote server
credential revoke CLIENT` ends an older one.")]
pub(super) struct Setup {
    /// Name of the tenant.
    #[arg(long)]
    tenant: String,
    /// Name of the environment.
    #[arg(long, default_value = "production")]
    environment: String,
    /// What a new environment is: production, staging, development or custom.
    #[arg(long = "type", default_value = "production")]
    kind: EnvironmentType,
    /// RM, PROTHEUS, DATASUL, LOGIX or another.
    #[arg(long)]
    erp: ErpName,
    /// Name of the installation; the ERP's where it is left out.
    #[arg(long)]
    installation: Option<String>,
    /// Tables to share: A,B,C.
    #[arg(long, value_delimiter = ',')]
    tables: Vec<TableName>,
}

impl Setup {
    pub(super) async fn run(self, services: &Services, form: Form) -> Result<()> {
        // Before anything is made, so that a wrong name leaves nothing half set up.
        self.tables.iter().try_for_each(catalog::must_be_free)?;
        let catalog = &services.catalog;
        let tenant = match catalog.tenant(&self.tenant).await {
            Err(error) if error.code == Code::NotFound => {
                catalog.create_tenant(&self.tenant).await?
            }
            found => found?,
        };
        let environment = match catalog.environment(tenant.id, &self.environment).await {
            Err(error) if error.code == Code::NotFound => {
                catalog.create_environment(tenant.id, &self.environment, self.kind).await?
            }
            found => found?,
        };
        let place = Place { tenant: tenant.id, environment: environment.id, erp: self.erp.clone() };
        let installation = self.installation(services, &tenant, &place, form.lang).await?;
        let shared =
            catalog.entities(&place, false, Page { limit: 10_000, ..Page::default() }).await?;
        let new = |table: TableName| NewEntity { table, filter: None, is_custom: false };
        let missing: Vec<NewEntity> = self
            .tables
            .into_iter()
            .filter(|table| !shared.iter().any(|entity| entity.table == *table))
            .map(new)
            .collect();
        let added = catalog.add_entities(&place, missing).await?;
        let made = services
            .access
            .create_credential(tenant.id, Holder::Installation(installation.id))
            .await?;
        let lines = [
            ("tenantId", tenant.id.to_string()),
            ("environmentId", environment.id.to_string()),
            ("installationId", installation.id.to_string()),
            ("clientId", made.credential.client.to_string()),
            ("clientSecret", made.reveal().to_owned()),
        ];
        if form.json {
            out::data(
                json!(lines.into_iter().collect::<std::collections::BTreeMap<_, _>>()).to_string(),
            );
        } else {
            lines.iter().for_each(|(name, value)| out::data(format!("{name:<15} {value}")));
            form.only_now("secret");
        }
        for entity in &added {
            entity::warn(services, (&entity.table, entity.filter.as_deref()), form);
        }
        Ok(())
    }

    async fn installation(
        &self,
        services: &Services,
        tenant: &Tenant,
        place: &Place,
        lang: Lang,
    ) -> Result<Installation> {
        let catalog = &services.catalog;
        let name = self.installation.clone().unwrap_or_else(|| self.erp.to_string());
        let found = match catalog.installation(tenant.id, &name).await {
            Err(error) if error.code == Code::NotFound => {
                return catalog
                    .create_installation(
                        tenant.id,
                        &name,
                        self.erp.clone(),
                        Some(place.environment),
                    )
                    .await;
            }
            found => found?,
        };
        if found.erp != self.erp {
            let (is, asked) = (&found.erp, &self.erp);
            let words = lang.pick(
                format!("installation {name:?} is of {is}, not of {asked}"),
                format!("a instalação {name:?} é de {is}, não de {asked}"),
            );
            return Err(protocol::Error::new(Code::AlreadyExists, words));
        }
        catalog.bind(&found, place.environment).await?;
        Ok(found)
    }
}
