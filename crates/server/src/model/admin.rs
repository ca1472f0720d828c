//! Admin: who administers over the network, what a token lets through, and the record of what was done.
//!
//! Promises: a token opens what its role and its tenant allow and nothing else; `Debug` shows no HMAC.
//! Never: holds a secret, reads a clock.

use std::{fmt, str::FromStr};

use protocol::{
    Code, Error, Result,
    ids::{AdminTokenId, AdministratorId, TenantId},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::catalog::At;

/// What a token may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Reads and changes.
    Operator,
    /// Reads.
    ReadOnly,
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::ReadOnly => "read-only",
        }
    }
}

impl FromStr for Role {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        [Self::Operator, Self::ReadOnly].into_iter().find(|role| role.as_str() == text).ok_or_else(
            || Error::new(Code::BadRequest, "an administrator's role is operator or read-only"),
        )
    }
}

/// A person or a program that administers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Administrator {
    #[schema(value_type = String)]
    pub id: AdministratorId,
    pub name: String,
    pub created_at: At,
    pub revoked_at: Option<At>,
}

/// A token of an administrator; its secret is not here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AdminToken {
    #[schema(value_type = String)]
    pub id: AdminTokenId,
    pub administrator: String,
    pub name: String,
    pub role: Role,
    /// The one tenant it opens; absent: every tenant.
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    pub created_at: At,
    pub expires_at: Option<At>,
    pub revoked_at: Option<At>,
}

/// A token as it is looked up.
#[derive(Clone)]
pub struct AdminTokenRecord {
    pub token: AdminToken,
    pub administrator_revoked: bool,
    pub secret_hmac: Vec<u8>,
}

impl fmt::Debug for AdminTokenRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminTokenRecord({})", self.token.id)
    }
}

impl AdminTokenRecord {
    /// Whether the token still opens anything.
    #[must_use]
    pub fn is_in_force(&self, now: At) -> bool {
        !self.administrator_revoked
            && self.token.revoked_at.is_none()
            && self.token.expires_at.is_none_or(|end| now < end)
    }
}

impl AdminToken {
    /// # Errors
    /// `PERMISSION_DENIED` where a call needs more than this token has.
    pub fn may(&self, needed: Role, every_tenant: bool) -> Result<()> {
        let denied = |why: &str| Err(Error::new(Code::PermissionDenied, why));
        if needed == Role::Operator && self.role == Role::ReadOnly {
            return denied("this token is read-only");
        }
        if every_tenant && self.tenant.is_some() {
            return denied("this token is of one tenant; the call is about the whole server");
        }
        Ok(())
    }

    /// Who acted, as the audit tells it.
    #[must_use]
    pub fn actor(&self) -> String {
        format!("{} ({})", self.administrator, self.name)
    }
}

/// Something that was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    pub seq: i64,
    pub at: At,
    pub who: String,
    pub action: String,
    #[schema(value_type = Option<String>)]
    pub tenant: Option<TenantId>,
    pub target: String,
    pub detail: String,
}

impl AuditEntry {
    /// Hash of this entry behind the one before it in its chain. Each field goes with its length, so that no two
    /// entries read alike.
    #[must_use]
    pub fn hash(&self, before: &[u8]) -> [u8; 32] {
        let tenant = self.tenant.map(|id| id.to_string()).unwrap_or_default();
        let at = self.at.0.to_string();
        let mut hasher = Sha256::new();
        let fields = [&at, &self.who, &self.action, &tenant, &self.target, &self.detail];
        let fields = std::iter::once(before).chain(fields.into_iter().map(|text| text.as_bytes()));
        for field in fields {
            hasher.update((field.len() as u64).to_be_bytes());
            hasher.update(field);
        }
        hasher.finalize().into()
    }
}

/// Which entries of the audit are asked for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AuditQuery {
    /// Entries of this tenant alone.
    pub tenant: Option<TenantId>,
    /// Part of who acted, of the action or of its target.
    pub search: String,
    /// Below this number, the newest first; 0 = from the newest.
    pub below: i64,
    pub limit: u32,
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn token(role: Role, tenant: Option<TenantId>) -> AdminToken {
        AdminToken {
            id: AdminTokenId(Uuid::from_u128(1)),
            administrator: "ana".into(),
            name: "laptop".into(),
            role,
            tenant,
            created_at: At(0),
            expires_at: Some(At(10)),
            revoked_at: None,
        }
    }

    #[test]
    fn a_token_opens_what_its_role_and_tenant_allow() {
        let one = Some(TenantId(Uuid::from_u128(7)));
        let cases = [
            (Role::Operator, None, Role::Operator, true, true),
            (Role::Operator, one, Role::Operator, false, true),
            (Role::Operator, one, Role::Operator, true, false),
            (Role::ReadOnly, None, Role::ReadOnly, true, true),
            (Role::ReadOnly, None, Role::Operator, false, false),
            (Role::ReadOnly, one, Role::ReadOnly, true, false),
        ];
        for (has, tenant, needed, every, opens) in cases {
            assert_eq!(token(has, tenant).may(needed, every).is_ok(), opens, "{has:?} {needed:?}");
        }
    }

    #[test]
    fn a_token_ends_with_its_time_its_revocation_and_its_administrator() {
        let record = AdminTokenRecord {
            token: token(Role::Operator, None),
            administrator_revoked: false,
            secret_hmac: vec![],
        };
        assert!(record.is_in_force(At(9)));
        assert!(!record.is_in_force(At(10)));
        let revoked = AdminTokenRecord { administrator_revoked: true, ..record.clone() };
        assert!(!revoked.is_in_force(At(9)));
        let ended = AdminToken { revoked_at: Some(At(1)), ..record.token.clone() };
        assert!(!AdminTokenRecord { token: ended, ..record }.is_in_force(At(9)));
    }

    #[test]
    fn the_hash_of_an_entry_depends_on_every_field_and_on_where_one_ends() {
        let entry = |who: &str, action: &str| AuditEntry {
            seq: 1,
            at: At(5),
            who: who.into(),
            action: action.into(),
            tenant: None,
            target: String::new(),
            detail: String::new(),
        };
        let hash = entry("ab", "c").hash(b"x");
        assert_ne!(hash, entry("a", "bc").hash(b"x"));
        assert_ne!(hash, entry("ab", "c").hash(b"y"));
        assert_ne!(hash, AuditEntry { at: At(6), ..entry("ab", "c") }.hash(b"x"));
    }
}
