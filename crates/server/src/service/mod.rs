//! Service: decides and orders. No axum, tonic, HTML or SQL.
//!
//! SEAM between the edges (`grpc`, `http`) and `ingest`: [`Caller`] is who calls, already authenticated.

pub mod access;
pub mod alerts;
pub mod budget;
pub mod catalog;
pub mod fleet;
pub mod ingest;
pub mod overview;
pub mod reconcile;
pub mod retention;
pub mod session;
pub mod staging;
pub mod webhooks;

#[cfg(test)]
mod trial;

use protocol::{
    Code, Error, Result,
    ids::{ClientId, EnvironmentId, InstallationId, TenantId},
    names::ErpName,
};

use crate::store::Store;

/// An authenticated sender: token → client → tenant, environment, allowed erp (`contracts.md` 3.2). Nothing of it
/// comes from a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caller {
    pub tenant: TenantId,
    pub environment: EnvironmentId,
    pub installation: InstallationId,
    pub client: ClientId,
    /// The one ERP this installation may send.
    pub erp: ErpName,
    /// The HTTP/2 connection, unique in this process: the reorder window lives on one connection.
    pub connection: u64,
}

impl Caller {
    /// # Errors
    /// `PERMISSION_DENIED` where the caller's installation is of another ERP.
    pub fn may_send(&self, erp: &ErpName) -> Result<()> {
        if self.erp == *erp {
            Ok(())
        } else {
            Err(Error::new(
                Code::PermissionDenied,
                format!("this credential may send {}, not {erp}", self.erp),
            ))
        }
    }
}

/// All services over one store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services {
    pub access: access::Access,
    pub alerts: alerts::Alerts,
    pub catalog: catalog::Catalog,
    pub ingest: ingest::Ingest,
    pub sessions: session::Sessions,
    pub overview: overview::Overview,
    pub staging: staging::Staging,
    pub reconcile: reconcile::Reconcile,
    pub retention: retention::Retention,
    pub budget: budget::Budget,
    pub webhooks: webhooks::Webhooks,
    pub fleet: fleet::Fleet,
}

impl Services {
    /// The same services, which let plain http and private addresses be set or not.
    #[must_use]
    pub fn allowing_private(self, allow_private: bool) -> Self {
        Self { access: self.access.allowing_private(allow_private), ..self }
    }

    /// The same services, which keep what the ledger holds for other spans than the defaults.
    #[must_use]
    pub fn keeping(self, policy: crate::model::retention::Policy) -> Self {
        Self { retention: self.retention.keeping(policy), ..self }
    }

    /// The same services, which call webhooks in another way than by default.
    #[must_use]
    pub fn calling(self, calling: webhooks::Calling) -> Self {
        Self { webhooks: self.webhooks.calling(calling), ..self }
    }

    /// The same services, which make and tell alerts in another way than by default.
    #[must_use]
    pub fn alerting(self, settings: alerts::Settings) -> Self {
        Self { alerts: self.alerts.with(settings), ..self }
    }

    /// The same services for another actor: what is changed through them is audited under that name.
    #[must_use]
    pub fn by(&self, who: &str) -> Self {
        Self {
            access: self.access.by(who),
            alerts: self.alerts.by(who),
            catalog: self.catalog.by(who),
            overview: self.overview.by(who),
            staging: self.staging.by(who),
            retention: self.retention.by(who),
            webhooks: self.webhooks.by(who),
            fleet: self.fleet.by(who),
            ..self.clone()
        }
    }

    /// Opens the store of a data folder, whose schema must be current. A second process may do so while a server runs
    /// (the command line does): what it changes is seen there within [`protocol::limits::CLIENT_CACHE`].
    ///
    /// # Errors
    /// `STORE_VERSION`, `STORE_FAILED`, `CONFIG_INVALID` where the key file is wrong.
    pub async fn open(data: &std::path::Path, issuer: String) -> Result<Self> {
        Self::over(Store::open(&data.join("store.sqlite"))?, data, issuer).await
    }

    /// As [`Services::open`], over a store that is open; the data folder has its key file.
    ///
    /// # Errors
    /// As [`Services::open`].
    pub async fn over(store: Store, data: &std::path::Path, issuer: String) -> Result<Self> {
        let access = access::Access::open(store.clone(), data, issuer).await?;
        let sessions = session::Sessions::new(store.clone());
        let staging = staging::Staging::new(store.clone(), data);
        let ingest = ingest::Ingest::new(store.clone());
        let webhooks = webhooks::Webhooks::new(store.clone(), access.clone(), staging.clone());
        let alerts = alerts::Alerts::new(store.clone(), access.clone(), staging.clone(), data);
        Ok(Self {
            access,
            alerts,
            webhooks,
            catalog: catalog::Catalog::new(store.clone()),
            budget: ingest.budget(),
            fleet: fleet::Fleet::new(store.clone()),
            ingest,
            overview: overview::Overview::new(store.clone(), sessions.clone()),
            retention: retention::Retention::new(store, staging.clone()),
            sessions,
            reconcile: reconcile::Reconcile::new(staging.clone()),
            staging,
        })
    }
}
