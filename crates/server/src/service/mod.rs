//! Service: decides and orders. No axum, tonic, HTML or SQL.
//!
//! SEAM between the edges (`grpc`, `http`) and `ingest`: [`Caller`] is who calls, already authenticated.

use protocol::{
    Code, Error, Result,
    ids::{ClientId, EnvironmentId, InstallationId, TenantId},
    names::ErpName,
};

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
            Err(Error::new(Code::PermissionDenied, format!("this credential may send {}, not {erp}", self.erp)))
        }
    }
}
