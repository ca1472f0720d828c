//! Changes and removals of the catalog, and what is found by its exact name.
//!
//! Promises: what something still hangs on stays.
//! Never: removes a staged row.

use protocol::{
    Code, Error, Result,
    ids::{ClientId, TenantId},
    names::TableName,
};

use super::{Catalog, everything, named};
use crate::model::catalog::{
    App, Credential, Entity, Environment, Installation, Page, Place, Tenant,
};

/// Longest description of an app: a paragraph.
const DESCRIPTION_BYTES: usize = 2_048;

/// What is left out stays.
#[derive(Clone, Debug, Default)]
pub struct AppChange {
    pub name: Option<String>,
    pub description: Option<String>,
    pub active: Option<bool>,
}

impl Catalog {
    /// The tenant by id or name, for whoever may see `own` alone, or all where it is `None`.
    ///
    /// # Errors
    /// `NOT_FOUND`; `PERMISSION_DENIED` for any other key than `own`'s, whether or not it stands for a tenant.
    pub async fn tenant_for(&self, own: Option<TenantId>, key: &str) -> Result<Tenant> {
        let Some(own) = own else { return self.tenant(key).await };
        let found = self.tenant(&own.to_string()).await?;
        let meant = key.trim() == found.name || key.parse().is_ok_and(|id: TenantId| id == own);
        if meant {
            return Ok(found);
        }
        Err(Error::new(Code::PermissionDenied, "this token is of another tenant"))
    }

    /// Tenants, for whoever may see `own` alone, or all where it is `None`.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn tenants_for(&self, own: Option<TenantId>, page: Page) -> Result<Vec<Tenant>> {
        match own {
            None => self.tenants(page).await,
            Some(own) => {
                let found = self.tenant(&own.to_string()).await?;
                Ok(if found.name > page.after { vec![found] } else { Vec::new() })
            }
        }
    }

    /// # Errors
    /// `STILL_USED`.
    pub async fn remove_tenant(&self, tenant: &Tenant) -> Result<()> {
        self.store.remove_tenant(tenant.clone()).await
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`, `BAD_REQUEST` for a description that is too long.
    pub async fn change_app(&self, app: &App, change: AppChange) -> Result<App> {
        let changed = App {
            name: change.name.as_deref().map_or_else(|| Ok(app.name.clone()), named)?,
            description: described(change.description.as_deref().unwrap_or(&app.description))?,
            active: change.active.unwrap_or(app.active),
            ..app.clone()
        };
        self.store.change_app(changed.clone()).await?;
        Ok(changed)
    }

    /// # Errors
    /// `STILL_USED`.
    pub async fn remove_app(&self, app: &App) -> Result<()> {
        self.store.remove_app(app.clone()).await
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn rename_environment(&self, found: &Environment, name: &str) -> Result<Environment> {
        let name = named(name)?;
        self.store.rename_environment((found.tenant, found.id), name.clone()).await?;
        Ok(Environment { name, ..found.clone() })
    }

    /// # Errors
    /// `STILL_USED`.
    pub async fn remove_environment(&self, environment: &Environment) -> Result<()> {
        self.store.remove_environment(environment.clone()).await
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn rename_installation(
        &self,
        found: &Installation,
        name: &str,
    ) -> Result<Installation> {
        let name = named(name)?;
        self.store.rename_installation((found.tenant, found.id), name.clone()).await?;
        Ok(Installation { name, ..found.clone() })
    }

    /// # Errors
    /// `STILL_USED`.
    pub async fn remove_installation(&self, installation: &Installation) -> Result<()> {
        self.store.remove_installation(installation.clone()).await
    }

    /// # Errors
    /// `NOT_FOUND`.
    pub async fn credential(&self, tenant: TenantId, client: &ClientId) -> Result<Credential> {
        let page = Page { search: client.to_string(), ..everything() };
        let found = self.store.credentials(tenant, page).await?;
        let missing = || Error::new(Code::NotFound, format!("the tenant has no client {client}"));
        found.into_iter().find(|credential| credential.client == *client).ok_or_else(missing)
    }

    /// A table that is shared, or was.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn entity(&self, place: &Place, table: &TableName) -> Result<Entity> {
        let page = Page { search: table.to_string(), ..everything() };
        let found = self.store.entities(place.clone(), true, page).await?;
        let missing = || {
            let words = format!("table {table} is not shared by this environment and ERP");
            Error::new(Code::NotFound, words)
        };
        found.into_iter().find(|entity| entity.table == *table).ok_or_else(missing)
    }
}

/// A description as it is kept.
pub(super) fn described(text: &str) -> Result<String> {
    if text.len() > DESCRIPTION_BYTES {
        let words = format!("a description has at most {DESCRIPTION_BYTES} bytes");
        return Err(Error::new(Code::BadRequest, words));
    }
    Ok(text.to_owned())
}
