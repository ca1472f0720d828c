//! Answers: registry, entities and apps as a sender reads them (`contracts.md` 2.2 and 4).
//!
//! Promises: a sender sees its own tenant, its own environment and its own ERP.
//! Never: answers a way of sending above the one asked for.

use protocol::{
    Code, Error, Result,
    json::{self, Endpoint, EntityQuery, Service},
    names::ErpName,
};

use super::{Catalog, everything};
use crate::{model::catalog::Place, service::access::Identity};

/// The list of addresses; `http` without a slash at its end, `grpc` as senders dial it.
#[must_use]
pub fn registry(http: &str, grpc: &str) -> Vec<Service> {
    use json::service::{APPS, CAROL_CREDENTIALS, ENTITIES, INGESTION, RAC_TOKEN};
    [
        (RAC_TOKEN, format!("{http}/totvs.rac/connect/token")),
        (ENTITIES, format!("{http}/api/carol-definitions/v1/entities")),
        (CAROL_CREDENTIALS, format!("{http}/api/carol-definitions/v1/carolcredentials")),
        (APPS, format!("{http}/api/data-management/v1/apps/by-tenant")),
        (INGESTION, grpc.to_owned()),
    ]
    .into_iter()
    .map(|(service, address)| Service {
        service: service.to_owned(),
        endpoints: vec![Endpoint { version: "1".to_owned(), address }],
    })
    .collect()
}

impl Catalog {
    /// Entities of the caller's environment for `erp`, or for the tenant's only ERP.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for another ERP than the credential's, `BAD_REQUEST` where the ERP must be named.
    pub async fn entities_for(
        &self,
        caller: &Identity,
        erp: Option<&str>,
        upload_version: u32,
    ) -> Result<json::Entities> {
        let (own, environment) = caller.installation().ok_or_else(|| {
            Error::new(
                Code::PermissionDenied,
                "this credential is an app's; entities are read by an installation",
            )
        })?;
        let environment = environment.ok_or_else(|| {
            Error::new(
                Code::PermissionDenied,
                "the installation of this credential is not bound to an environment",
            )
        })?;
        let erp = match erp {
            Some(erp) => erp.parse::<ErpName>()?,
            None => self.only_erp(caller).await?,
        };
        if erp != *own {
            return Err(Error::new(
                Code::PermissionDenied,
                format!("this credential is of {own}, not of {erp}"),
            ));
        }
        let place = Place { tenant: caller.tenant(), environment, erp };
        let queries =
            self.store.entities(place, false, everything()).await?.into_iter().map(|entity| {
                EntityQuery {
                    force_reload: entity.force_reload(),
                    reload_generation: Some(entity.generation),
                    table: entity.table,
                    filter: entity.filter,
                    is_native: entity.is_native,
                    is_custom: entity.is_custom,
                    metadata: None,
                }
            });
        Ok(json::Entities {
            upload_version,
            upload_version_info: words(upload_version).to_owned(),
            queries: queries.collect(),
        })
    }

    /// Apps of the caller's tenant.
    ///
    /// # Errors
    /// `STORE_FAILED`.
    pub async fn apps_for(&self, caller: &Identity) -> Result<json::Apps> {
        let items = self.store.apps(caller.tenant(), everything()).await?.into_iter().map(|app| {
            json::App {
                id: app.id.to_string(),
                name: app.name,
                description: app.description,
                active: app.active,
            }
        });
        Ok(json::Apps { items: items.collect() })
    }

    async fn only_erp(&self, caller: &Identity) -> Result<ErpName> {
        let mut erps: Vec<ErpName> = self
            .store
            .installations(caller.tenant(), everything())
            .await?
            .into_iter()
            .map(|found| found.erp)
            .collect();
        erps.sort();
        erps.dedup();
        match <[ErpName; 1]>::try_from(erps) {
            Ok([erp]) => Ok(erp),
            Err(_) => Err(Error::new(
                Code::BadRequest,
                "the tenant has several ERPs: append one to the path, /entities/{ERP}",
            )),
        }
    }
}

fn words(upload_version: u32) -> &'static str {
    if upload_version >= 2 {
        "Envio de dados por gRPC, com sumário por pacote"
    } else {
        "Envio de dados por REST"
    }
}
