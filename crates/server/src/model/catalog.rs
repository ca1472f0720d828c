//! Catalog: what an operator sets up. Plain records, as the store keeps them and as `--json` prints them.
//!
//! Promises: ids and names are parsed; every record knows its tenant.
//! Never: holds a secret (a credential's HMAC stays in the store and in `access`).

use std::{fmt, str::FromStr};

use protocol::{
    Code, Error, Result,
    ids::{AppId, ClientId, EnvironmentId, Generation, InstallationId, TenantId},
    names::{ErpName, TableName},
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

/// Microseconds since 1970 UTC; printed as RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ToSchema)]
#[schema(value_type = String, format = DateTime)]
pub struct At(pub i64);

impl At {
    /// Reads RFC 3339, or a date, which stands for its first moment in UTC.
    ///
    /// # Errors
    /// `BAD_REQUEST`.
    pub fn read(text: &str) -> Result<Self> {
        let whole = if text.contains(['T', 't', ' ']) {
            text.to_owned()
        } else {
            format!("{text}T00:00:00Z")
        };
        whole.parse::<jiff::Timestamp>().map(|time| Self(time.as_microsecond())).map_err(|_| {
            Error::new(Code::BadRequest, "a time is 2027-01-31 or 2027-01-31T12:00:00Z")
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{} us", self.0),
        }
    }
}

impl Serialize for At {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The customer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    #[schema(value_type = String)]
    pub id: TenantId,
    pub name: String,
    pub created_at: At,
}

/// A product of the platform that consumes data or messages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct App {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub id: AppId,
    pub name: String,
    pub description: String,
    pub active: bool,
    pub created_at: At,
}

/// What an environment is for (`contracts.md` 11).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnvironmentType {
    Production,
    Staging,
    Development,
    Custom,
}

impl EnvironmentType {
    pub const ALL: [Self; 4] = [Self::Production, Self::Staging, Self::Development, Self::Custom];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Production => "PRODUCTION",
            Self::Staging => "STAGING",
            Self::Development => "DEVELOPMENT",
            Self::Custom => "CUSTOM",
        }
    }
}

impl FromStr for EnvironmentType {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text)).ok_or_else(
            || {
                Error::new(
                    Code::BadRequest,
                    "an environment's type is production, staging, development or custom",
                )
            },
        )
    }
}

/// A workspace of a tenant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub id: EnvironmentId,
    pub name: String,
    #[serde(rename = "type")]
    pub kind: EnvironmentType,
    pub created_at: At,
}

/// One ERP set-up; `environment` is its binding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Installation {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub id: InstallationId,
    pub name: String,
    #[schema(value_type = String)]
    pub erp: ErpName,
    #[schema(value_type = Option<String>)]
    pub environment: Option<EnvironmentId>,
    pub created_at: At,
}

/// Whose credential it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum Holder {
    #[schema(value_type = String)]
    Installation(InstallationId),
    #[schema(value_type = String)]
    App(AppId),
}

/// A client id; its secret is not here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub client: ClientId,
    pub holder: Holder,
    pub created_at: At,
    pub revoked_at: Option<At>,
}

/// Where entities live: one installation's stream has one such place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
pub struct Place {
    #[schema(value_type = String)]
    pub tenant: TenantId,
    #[schema(value_type = String)]
    pub environment: EnvironmentId,
    #[schema(value_type = String)]
    pub erp: ErpName,
}

impl Place {
    /// A thing of this place, as the audit names it.
    #[must_use]
    pub fn name_of(&self, thing: impl fmt::Display) -> String {
        format!("{}/{} {thing}", self.environment, self.erp)
    }
}

/// A table to be shared.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entity {
    #[serde(flatten)]
    pub place: Place,
    #[schema(value_type = String)]
    pub table: TableName,
    pub filter: Option<String>,
    pub is_native: bool,
    pub is_custom: bool,
    #[schema(value_type = i64)]
    pub generation: Generation,
    #[schema(value_type = i64)]
    pub done_generation: Generation,
    pub reload_asked_at: Option<At>,
    pub rebuild: bool,
    pub withdrawn_at: Option<At>,
}

impl Entity {
    /// True until a base load of the newest generation is complete.
    #[must_use]
    pub fn force_reload(&self) -> bool {
        self.generation > self.done_generation
    }
}

/// A page of a listing: what comes behind `after`, at most `limit`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    pub after: String,
    pub limit: u32,
    /// Part of the name, in any case; empty: all.
    pub search: String,
}

impl Default for Page {
    fn default() -> Self {
        Self { after: String::new(), limit: 1_000, search: String::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_type_is_read_in_any_case_and_others_are_refused() {
        assert_eq!("Production".parse::<EnvironmentType>().unwrap(), EnvironmentType::Production);
        assert_eq!("test".parse::<EnvironmentType>().unwrap_err().code, Code::BadRequest);
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(At(1_718_000_000_000_000).to_string(), "2024-06-10T06:13:20Z");
        assert_eq!(At::read("2024-06-10T06:13:20Z").unwrap(), At(1_718_000_000_000_000));
        assert_eq!(At::read("2024-06-10").unwrap().to_string(), "2024-06-10T00:00:00Z");
        assert_eq!(At::read("soon").unwrap_err().code, Code::BadRequest);
    }
}
