//! Carol: with which credentials a tenant's sender reaches Carol.
//!
//! Promises: `Debug` and what is shown hold no token, sealed or not.
//! Never: unseals.

use std::fmt;

use protocol::ids::TenantId;
use serde::Serialize;
use utoipa::ToSchema;

use super::catalog::At;

/// A tenant's connector, without its token.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CarolCredential {
    /// Address that ends in `/api`.
    pub endpoint: String,
    pub organization: String,
    /// The tenant's subdomain at Carol.
    pub carol_tenant: String,
    pub connector_id: String,
    pub set_at: At,
}

/// A secret under a key of its own, which is sealed under the key file's.
#[derive(Clone)]
pub struct Envelope {
    pub key: Vec<u8>,
    pub secret: Vec<u8>,
}

impl fmt::Debug for Envelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Envelope")
    }
}

/// As the store keeps it.
#[derive(Clone, Debug)]
pub struct SealedCarol {
    pub tenant: TenantId,
    pub shown: CarolCredential,
    pub token: Envelope,
}
