//! Access: what is known of a client and of the keys that sign tokens.
//!
//! Promises: `Debug` shows neither HMAC nor sealed key.
//! Never: does cryptography.

use std::fmt;

use protocol::{
    ids::{AppId, ClientId, EnvironmentId, InstallationId, TenantId},
    names::ErpName,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::At;

/// A client with its holder and binding.
#[derive(Clone)]
pub struct ClientRecord {
    pub client: ClientId,
    pub tenant: TenantId,
    pub tenant_name: String,
    pub secret_hmac: Vec<u8>,
    pub revoked: bool,
    pub holder: HolderRecord,
}

impl fmt::Debug for ClientRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientRecord({}, tenant {}, revoked {})", self.client, self.tenant, self.revoked)
    }
}

/// Whose client it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum HolderRecord {
    Installation { id: InstallationId, erp: ErpName, environment: Option<EnvironmentId> },
    App { id: AppId, active: bool },
}

/// A signing key as the store keeps it.
#[derive(Clone)]
pub struct SealedKey {
    pub kid: String,
    pub sealed: Vec<u8>,
    pub public_der: Vec<u8>,
}

/// A signing key as people see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningKey {
    /// Its id in tokens and in the JWKS.
    pub kid: String,
    pub created_at: At,
    /// From then on it verifies no token; absent: it signs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retired_at: Option<At>,
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey({})", self.kid)
    }
}
