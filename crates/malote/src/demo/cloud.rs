//! Cloud: the demo's server, as it really runs, on free ports over a temporary folder, set up through its services.
//!
//! Promises: whoever reads its addresses and credentials can use them as any sender would.
//! Never: opens the server's files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use protocol::{
    Code, Result,
    ids::{AcceptSeq, BatchId, EnvironmentId, TenantId},
    key::KeyBytes,
    names::{ErpName, TableName},
};
use secrecy::SecretString;
use server::{
    app::App,
    config::ServerConfig,
    model::{
        catalog::{EnvironmentType, Holder, Page, Place},
        overview::BatchView,
        stream::StreamId,
    },
    service::catalog::NewEntity,
    store::staging::{Spaces, StagedRow},
};

use super::verify::Staged;

pub(crate) struct Cloud {
    pub(crate) app: App,
    data: PathBuf,
    pub(crate) tenant: TenantId,
    pub(crate) environment: EnvironmentId,
}

/// Keys of one page.
const KEYS: u32 = 5_000;
/// Batches that are counted: the newest ones.
const BATCHES: u32 = 2_000;

/// Where a stream stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Standing {
    pub(crate) accepted: AcceptSeq,
    pub(crate) applied: AcceptSeq,
    /// Newest complete batch; 0 = none.
    pub(crate) last: BatchId,
    pub(crate) is_open: bool,
    pub(crate) batches: u64,
    /// Rows of all batches, deletes among them.
    pub(crate) rows: u64,
    /// Live rows of all staged tables.
    pub(crate) staged: u64,
    /// From the first message to the accepted Summary, of the newest complete batch.
    pub(crate) latency_ms: Option<u64>,
}

/// What one ERP's agent signs in with.
pub(crate) struct Login {
    pub(crate) place: Place,
    pub(crate) client_id: String,
    pub(crate) secret: SecretString,
}

impl Cloud {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        let config = ServerConfig {
            data: folder.join("server"),
            http_listen: free,
            grpc_listen: free,
            allow_private: true,
            ..ServerConfig::default()
        };
        let app = App::start(&config).await?;
        let catalog = &app.services.catalog;
        let tenant = catalog.create_tenant("Demo").await?.id;
        let environment =
            catalog.create_environment(tenant, "demo", EnvironmentType::Development).await?.id;
        Ok(Self { app, data: config.data, tenant, environment })
    }

    /// An installation of `erp` with its credential, bound to the environment, and the tables it shall share.
    pub(crate) async fn install(&self, erp: &ErpName, tables: Vec<TableName>) -> Result<Login> {
        let services = &self.app.services;
        let name = format!("{erp} demo");
        let bound = Some(self.environment);
        let installation =
            services.catalog.create_installation(self.tenant, &name, erp.clone(), bound).await?;
        let holder = Holder::Installation(installation.id);
        let credential = services.access.create_credential(self.tenant, holder).await?;
        let place = Place { tenant: self.tenant, environment: self.environment, erp: erp.clone() };
        let shared = |table| NewEntity { table, filter: None, is_custom: false };
        services.catalog.add_entities(&place, tables.into_iter().map(shared).collect()).await?;
        let client_id = credential.credential.client.to_string();
        Ok(Login { place, client_id, secret: credential.reveal().to_owned().into() })
    }

    /// Rows of these keys as staging has them.
    pub(crate) async fn staged(
        &self,
        place: &Place,
        table: &TableName,
        keys: Vec<KeyBytes>,
    ) -> Result<Staged> {
        let staging = &self.app.services.staging;
        let found = staging.tables(place.environment, &place.erp).await?;
        let Some(found) = found.into_iter().find(|found| found.name == *table) else {
            return Ok(Staged::default());
        };
        let columns =
            found.columns.iter().map(|column| column.name.parse()).collect::<Result<_>>()?;
        let rows = staging.rows_by_keys(place.environment, &place.erp, table, keys).await?;
        let live = |row: StagedRow| (!row.deleted).then_some(row.values);
        Ok(Staged { columns, rows: rows.into_iter().map(|row| row.and_then(live)).collect() })
    }

    /// A page of keys of live rows behind `after`, in the order of key bytes.
    pub(crate) async fn live_keys(
        &self,
        place: &Place,
        table: &TableName,
        after: Option<&KeyBytes>,
    ) -> Result<Vec<KeyBytes>> {
        let staging = &self.app.services.staging;
        let after = after.cloned().unwrap_or_default();
        match staging.page(place.environment, &place.erp, table, (after, KEYS)).await {
            Ok(rows) => Ok(rows.into_iter().map(|row| row.key).collect()),
            Err(error) if error.code == Code::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Where a stream stands: ledger and staging.
    pub(crate) async fn standing(&self, place: &Place) -> Result<Standing> {
        let staging = &self.app.services.staging;
        let Place { tenant, environment, erp } = place.clone();
        let stream = StreamId { tenant, environment, erp };
        let accepted = staging.accepted(&stream).await?;
        let progress = staging.applied(place.environment, &place.erp).await?;
        let page = Page { limit: BATCHES, ..Page::default() };
        let batches = self.app.services.overview.batches(place.clone(), None, page).await?;
        let complete = |batch: &&BatchView| batch.state == "complete";
        let last = batches.iter().find(complete);
        let took = |batch: &BatchView| {
            u64::try_from((batch.closed_at?.0 - batch.opened_at.0) / 1_000).ok()
        };
        let rows: i64 = batches.iter().map(|batch| batch.rows).sum();
        let mut staged = 0;
        for table in staging.tables(place.environment, &place.erp).await? {
            staged += staging.count(place.environment, &place.erp, &table.name).await?;
        }
        Ok(Standing {
            accepted,
            applied: progress.applied,
            last: last.map_or(BatchId(0), |batch| batch.batch),
            is_open: batches.iter().any(|batch| batch.state == "open"),
            batches: u64::try_from(batches.iter().filter(complete).count()).unwrap_or(0),
            rows: rows.unsigned_abs(),
            staged,
            latency_ms: last.and_then(took),
        })
    }

    /// The staging file of an ERP, for whoever reads it by SQL of its own.
    pub(crate) fn staging_file(&self, erp: &ErpName) -> PathBuf {
        Spaces::path(&self.data, self.environment, erp)
    }

    /// `http://host:port/api/v1/services`.
    pub(crate) fn registry(&self) -> String {
        format!("{}/api/v1/services", self.app.addresses.http)
    }
}
