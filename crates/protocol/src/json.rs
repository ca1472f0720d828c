//! JSON contracts that both processes must agree on: registry, token, entities, apps, error body.
//!
//! Promises: unknown fields are ignored; what is written is exactly the contract's form (golden files).
//! Never: carries a secret in `Debug`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    error::{Code, Error, Result},
    ids::Generation,
    names::TableName,
};

/// One item of `GET /api/v1/services` (`contracts.md` 2.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Service {
    pub service: String,
    pub endpoints: Vec<Endpoint>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    pub version: String,
    pub address: String,
}

/// Keys of the registry that Malote publishes and reads.
pub mod service {
    pub const RAC_TOKEN: &str = "rac-token";
    pub const ENTITIES: &str = "provisioning-carol-definitions-entities";
    pub const CAROL_CREDENTIALS: &str = "provisioning-carol-credentials";
    pub const APPS: &str = "provisioning-data-management-apps";
    pub const INGESTION: &str = "smartlink-ingestion";
}

/// Finds version 1 of a service.
///
/// # Errors
/// `REGISTRY_INVALID` where the registry does not list it.
pub fn find_service<'a>(services: &'a [Service], key: &str) -> Result<&'a str> {
    services
        .iter()
        .find(|item| item.service == key)
        .and_then(|item| item.endpoints.iter().find(|endpoint| endpoint.version == "1"))
        .map(|endpoint| endpoint.address.as_str())
        .ok_or_else(|| {
            Error::new(Code::RegistryInvalid, format!("the registry does not list service {key}"))
        })
}

/// Answer of the token call (`contracts.md` 3.1).
#[derive(Serialize, Deserialize)]
pub struct Token {
    pub access_token: String,
    pub expires_in: u64,
    #[serde(default)]
    pub token_type: String,
    #[serde(default)]
    pub scope: String,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(expires in {} s)", self.expires_in)
    }
}

/// Answer of Entities (`contracts.md` 4.1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entities {
    pub upload_version: u32,
    #[serde(default)]
    pub upload_version_info: String,
    pub queries: Vec<EntityQuery>,
}

/// A table to be shared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EntityQuery {
    pub table: TableName,
    pub filter: Option<String>,
    #[serde(default)]
    pub force_reload: bool,
    /// Malote's: one higher per request; absent from a foreign server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload_generation: Option<Generation>,
    #[serde(default = "yes")]
    pub is_native: bool,
    #[serde(default)]
    pub is_custom: bool,
    #[serde(default)]
    pub metadata: Option<serde_json::Value>,
}

const fn yes() -> bool {
    true
}

/// Answer of apps-by-tenant (`contracts.md` 4.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Apps {
    pub items: Vec<App>,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct App {
    pub id: String,
    pub name: String,
    pub description: String,
    pub active: bool,
}

/// Error body of every HTTP interface but RAC (`contracts.md` 0).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorBody {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detailed_message: Option<String>,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        Self {
            code: error.code.to_string(),
            message: error.message.clone(),
            detailed_message: Some(error.code.hint().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_entities_example_of_the_contract_reads_and_writes_back_alike() {
        let text = r#"{"uploadVersion":2,"uploadVersionInfo":"Gestão de Upload de Dados via gRPC","queries":[{"table":"TMOV","filter":"TMOV.DATAMOVIMENTO > '2024-01-01'","forceReload":true,"isNative":true,"isCustom":false,"metadata":null},{"table":"FLAN","filter":"FLAN.IDLAN > 1000","forceReload":false,"isNative":true,"isCustom":false,"metadata":null}]}"#;
        let entities: Entities = serde_json::from_str(text).unwrap();
        assert!(entities.queries[0].force_reload);
        assert_eq!(serde_json::to_string(&entities).unwrap(), text);
    }

    #[test]
    fn the_generic_form_without_native_and_custom_is_taken() {
        let text = r#"{"uploadVersion":2,"queries":[{"table":"SE4","filter":null,"forceReload":false,"metadata":null,"unknown":1}]}"#;
        let entities: Entities = serde_json::from_str(text).unwrap();
        assert!(entities.queries[0].is_native && entities.queries[0].reload_generation.is_none());
    }

    #[test]
    fn a_service_is_found_by_key_and_a_missing_one_is_named() {
        let text = r#"[{"service":"rac-token","endpoints":[{"version":"1","address":"https://malote.example/totvs.rac/connect/token"}]}]"#;
        let services: Vec<Service> = serde_json::from_str(text).unwrap();
        assert!(find_service(&services, service::RAC_TOKEN).unwrap().ends_with("/connect/token"));
        let error = find_service(&services, service::ENTITIES).unwrap_err();
        assert_eq!(error.code, Code::RegistryInvalid);
        assert!(error.message.contains(service::ENTITIES));
    }
}
