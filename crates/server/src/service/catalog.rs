//! Catalog: what an operator sets up, by id or by name, and what a sender reads of it.
//!
//! Promises: a name is taken where it is unambiguous, an id always; an empty key means the only one there is.
//! Never: shows one tenant's things to another.

mod answers;
mod change;
mod import;

use std::{fmt::Display, str::FromStr};

use protocol::{
    Code, Error, Result,
    filter::Filter,
    ids::{AppId, EnvironmentId, Generation, InstallationId, TenantId},
    limits,
    names::{ColumnName, ErpName, TableName},
};
use runtime::{clock::Wall, entropy};

pub use answers::registry;
pub use change::AppChange;
pub use import::{Import, Plan};

use crate::{
    model::{
        catalog::{
            App, At, Credential, Entity, Environment, EnvironmentType, Installation, Page, Place,
            Tenant,
        },
        schema,
    },
    store::Store,
};

/// Names of tenants, environments, installations and apps.
const NAME_BYTES: usize = 128;
/// All of a tenant's things of one kind; an operator has some hundreds at most.
const ALL: u32 = 100_000;

/// Set-up of tenants and what they share. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Catalog {
    store: Store,
}

/// A table to be shared, as an operator gives it.
#[derive(Clone, Debug)]
pub struct NewEntity {
    pub table: TableName,
    pub filter: Option<String>,
    pub is_custom: bool,
}

impl Catalog {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who) }
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn create_tenant(&self, name: &str) -> Result<Tenant> {
        let tenant =
            Tenant { id: TenantId(entropy::uuid()), name: named(name)?, created_at: now() };
        self.store.add_tenant(tenant.clone()).await?;
        Ok(tenant)
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn rename_tenant(&self, tenant: &Tenant, name: &str) -> Result<Tenant> {
        let name = named(name)?;
        self.store.rename_tenant(tenant.id, name.clone()).await?;
        Ok(Tenant { name, ..tenant.clone() })
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn tenants(&self, page: Page) -> Result<Vec<Tenant>> {
        self.store.tenants(page).await
    }

    /// # Errors
    /// `NOT_FOUND`, or `BAD_REQUEST` where nothing was given and there are several.
    pub async fn tenant(&self, key: &str) -> Result<Tenant> {
        let all = self.store.tenants(everything()).await?;
        pick("tenant", key, all, |tenant| (tenant.id.0, &tenant.name))
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn create_environment(
        &self,
        tenant: TenantId,
        name: &str,
        kind: EnvironmentType,
    ) -> Result<Environment> {
        let id = EnvironmentId(entropy::uuid());
        let environment = Environment { tenant, id, name: named(name)?, kind, created_at: now() };
        self.store.add_environment(environment.clone()).await?;
        Ok(environment)
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn environments(&self, tenant: TenantId, page: Page) -> Result<Vec<Environment>> {
        self.store.environments(tenant, page).await
    }

    /// # Errors
    /// As [`Catalog::tenant`].
    pub async fn environment(&self, tenant: TenantId, key: &str) -> Result<Environment> {
        let all = self.store.environments(tenant, everything()).await?;
        pick("environment", key, all, |found| (found.id.0, &found.name))
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS` (also where the environment has an installation of this ERP).
    pub async fn create_installation(
        &self,
        tenant: TenantId,
        name: &str,
        erp: ErpName,
        environment: Option<EnvironmentId>,
    ) -> Result<Installation> {
        let id = InstallationId(entropy::uuid());
        let installation =
            Installation { tenant, id, name: named(name)?, erp, environment, created_at: now() };
        self.store.add_installation(installation.clone()).await?;
        Ok(installation)
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn installations(&self, tenant: TenantId, page: Page) -> Result<Vec<Installation>> {
        self.store.installations(tenant, page).await
    }

    /// # Errors
    /// As [`Catalog::tenant`].
    pub async fn installation(&self, tenant: TenantId, key: &str) -> Result<Installation> {
        let all = self.store.installations(tenant, everything()).await?;
        pick("installation", key, all, |found| (found.id.0, &found.name))
    }

    /// Binds an installation that is not bound; a bound one must be unbound first, so that no link is replaced
    /// by accident (`contracts.md` 11).
    ///
    /// # Errors
    /// `ALREADY_EXISTS` where it is bound elsewhere or the environment has an installation of this ERP.
    pub async fn bind(
        &self,
        installation: &Installation,
        environment: EnvironmentId,
    ) -> Result<()> {
        if installation.environment.is_some_and(|bound| bound != environment) {
            let words = format!(
                "installation {:?} is bound to another environment; unbind it first",
                installation.name
            );
            return Err(Error::new(Code::AlreadyExists, words));
        }
        self.store.bind(installation.tenant, installation.id, Some(environment), Wall::now()).await
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn unbind(&self, installation: &Installation) -> Result<()> {
        self.store.bind(installation.tenant, installation.id, None, Wall::now()).await
    }

    /// # Errors
    /// `BAD_NAME`, `ALREADY_EXISTS`.
    pub async fn create_app(&self, tenant: TenantId, name: &str, description: &str) -> Result<App> {
        let id = AppId(entropy::uuid());
        let description = change::described(description)?;
        let app =
            App { tenant, id, name: named(name)?, description, active: true, created_at: now() };
        self.store.add_app(app.clone()).await?;
        Ok(app)
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn apps(&self, tenant: TenantId, page: Page) -> Result<Vec<App>> {
        self.store.apps(tenant, page).await
    }

    /// # Errors
    /// As [`Catalog::tenant`].
    pub async fn app(&self, tenant: TenantId, key: &str) -> Result<App> {
        pick("app", key, self.store.apps(tenant, everything()).await?, |found| {
            (found.id.0, &found.name)
        })
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn set_app_active(&self, app: &App, active: bool) -> Result<App> {
        self.store.set_app_active(app.tenant, app.id, active).await?;
        Ok(App { active, ..app.clone() })
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn credentials(&self, tenant: TenantId, page: Page) -> Result<Vec<Credential>> {
        self.store.credentials(tenant, page).await
    }

    /// The place whose tables are meant: an environment, and an ERP or the only one that is bound to it.
    ///
    /// # Errors
    /// As [`Catalog::tenant`].
    pub async fn place(&self, tenant: TenantId, environment: &str, erp: &str) -> Result<Place> {
        let environment = self.environment(tenant, environment).await?.id;
        if !erp.is_empty() {
            return Ok(Place { tenant, environment, erp: erp.parse()? });
        }
        let bound = self.store.installations(tenant, everything()).await?;
        let mut erps = bound
            .into_iter()
            .filter(|found| found.environment == Some(environment))
            .map(|found| found.erp);
        match (erps.next(), erps.next()) {
            (Some(erp), None) => Ok(Place { tenant, environment, erp }),
            (None, _) => Err(Error::new(
                Code::NotFound,
                "no installation is bound to this environment; name the ERP",
            )),
            (Some(_), Some(_)) => {
                Err(Error::new(Code::BadRequest, "this environment has several ERPs; name one"))
            }
        }
    }

    /// Shares tables, all or none.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`, `FILTER_REFUSED`, `NAME_RESERVED`.
    pub async fn add_entities(&self, place: &Place, new: Vec<NewEntity>) -> Result<Vec<Entity>> {
        let mut entities = Vec::with_capacity(new.len());
        for NewEntity { table, filter, is_custom } in new {
            must_be_free(&table)?;
            let filter = checked_filter(&table, filter)?;
            entities.push(Entity {
                place: place.clone(),
                table,
                filter,
                is_native: !is_custom,
                is_custom,
                generation: Generation(0),
                done_generation: Generation(0),
                reload_asked_at: None,
                rebuild: false,
                withdrawn_at: None,
            });
        }
        let shared = self.store.entities(place.clone(), false, everything()).await?.len();
        if shared + entities.len() > limits::STREAM_TABLES {
            let words = format!(
                "a stream has at most {} tables, {shared} are shared",
                limits::STREAM_TABLES
            );
            return Err(Error::new(Code::BadRequest, words));
        }
        self.store.add_entities(entities.clone(), Wall::now().0).await?;
        Ok(entities)
    }

    /// # Errors
    /// `STORE_FAILED`.
    pub async fn entities(
        &self,
        place: &Place,
        withdrawn: bool,
        page: Page,
    ) -> Result<Vec<Entity>> {
        self.store.entities(place.clone(), withdrawn, page).await
    }

    /// # Errors
    /// `NOT_FOUND`, `FILTER_REFUSED`.
    pub async fn set_filter(
        &self,
        place: &Place,
        table: &TableName,
        filter: Option<String>,
    ) -> Result<()> {
        let filter = checked_filter(table, filter)?;
        self.store.set_filter(place.clone(), table.clone(), filter).await
    }

    /// Withdraws a table: senders stop sending it, its staged rows stay.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn withdraw(&self, place: &Place, table: &TableName) -> Result<()> {
        self.store.withdraw_entity(place.clone(), table.clone(), Wall::now().0).await
    }

    /// Asks for a base load of `table`, or of all; `rebuild` lets the load bring another key.
    ///
    /// # Errors
    /// `NOT_FOUND`.
    pub async fn reload(
        &self,
        place: &Place,
        table: Option<&TableName>,
        rebuild: bool,
    ) -> Result<Vec<(TableName, Generation)>> {
        self.store.ask_reload(place.clone(), table.cloned(), rebuild, Wall::now().0).await
    }
}

/// A name under which a table can be staged.
///
/// # Errors
/// `NAME_RESERVED`.
pub fn must_be_free(table: &TableName) -> Result<()> {
    if schema::is_reserved_table(table) {
        let words = format!("table {table} has a name that is reserved");
        return Err(Error::new(Code::NameReserved, words));
    }
    Ok(())
}

fn now() -> At {
    At(Wall::now().0)
}

pub(super) fn everything() -> Page {
    Page { limit: ALL, ..Page::default() }
}

pub(super) fn named(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Error::new(
            Code::BadName,
            format!("a name has 1 to {NAME_BYTES} bytes and no control characters"),
        ));
    }
    Ok(name.to_owned())
}

/// Finds by id, else by name; an empty key is the only one there is.
pub(super) fn pick<T>(
    what: &str,
    key: &str,
    all: Vec<T>,
    of: impl Fn(&T) -> (uuid::Uuid, &String),
) -> Result<T> {
    let many = |count: usize| {
        let words = format!(
            "there are {count}: name one {what}, by its name or id; malote server {what} list shows them"
        );
        Error::new(Code::BadRequest, words)
    };
    let missing =
        |key: &dyn Display| Error::new(Code::NotFound, format!("there is no {what} {key}"));
    let key = key.trim();
    if key.is_empty() {
        let count = all.len();
        let mut all = all.into_iter();
        return match (all.next(), count) {
            (Some(only), 1) => Ok(only),
            (None, _) => Err(missing(&"yet")),
            (Some(_), count) => Err(many(count)),
        };
    }
    let id = uuid::Uuid::from_str(key).ok();
    let at = id
        .and_then(|id| all.iter().position(|item| of(item).0 == id))
        .or_else(|| all.iter().position(|item| of(item).1 == key));
    at.and_then(|at| all.into_iter().nth(at)).ok_or_else(|| missing(&format!("{key:?}")))
}

/// A filter as it is kept: trimmed, empty = none, checked against the grammar that senders accept.
fn checked_filter(table: &TableName, filter: Option<String>) -> Result<Option<String>> {
    let Some(filter) = filter.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    if filter.len() > limits::FILTER_BYTES {
        let words = format!(
            "the filter has {} bytes, at most {} are allowed",
            filter.len(),
            limits::FILTER_BYTES
        );
        return Err(Error::new(Code::FilterRefused, words));
    }
    parsed(table, &filter)?;
    Ok(Some(filter))
}

/// The columns are known beside the ERP alone: every word of the text may be one, so only the grammar is judged.
fn parsed(table: &TableName, filter: &str) -> Result<Filter> {
    let columns: Vec<ColumnName> =
        words_outside_text(filter).filter_map(|word| word.parse().ok()).collect();
    Filter::parse(filter, table, &columns)
}

fn words_outside_text(filter: &str) -> impl Iterator<Item = &str> {
    let plain = filter.split('\'').step_by(2);
    plain.flat_map(|part| {
        part.split(|sign: char| !(sign.is_alphanumeric() || matches!(sign, '_' | '$' | '#')))
    })
}

#[cfg(test)]
mod tests;
