//! Every id of the system, in alphabetical order, parsed once at the edge.
//!
//! Promises: an id that exists is well formed; two kinds of id cannot be mixed up.
//! Never: makes an id (entropy lives in `runtime`), prints more than the id itself.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Code, Error};

macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0.hyphenated())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0.hyphenated())
            }
        }
        /// Takes the id with or without dashes, in any case (`contracts.md` 3.2).
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Uuid::try_parse(text.trim()).map(Self).map_err(|_| {
                    Error::new(Code::BadId, format!(concat!(stringify!($name), " is not a UUID")))
                })
            }
        }
    )+};
}

macro_rules! number_ids {
    ($($(#[$doc:meta])* $name:ident($int:ty);)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl $name {
            /// The next one. Saturates: a number never wraps back to an old one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    )+};
}

uuid_ids! {
    /// A token of an administrator.
    AdminTokenId;
    /// A person or a program that administers over the network.
    AdministratorId;
    /// Something that is wrong and that people are told of.
    AlertId;
    /// An app of the platform that consumes data or messages.
    AppId;
    /// A workspace of a tenant.
    EnvironmentId;
    /// Something that happened and that webhooks tell.
    EventId;
    /// One ERP set-up, unique for ever.
    InstallationId;
    /// One installed agent; kept with its data.
    InstanceId;
    /// One process of an agent; new at each start.
    Nonce;
    /// An order to an agent.
    OrderId;
    /// The customer, owner of every row and message.
    TenantId;
    /// An address that events are told to.
    WebhookId;
}

number_ids! {
    /// Place of a message in its stream's order of acceptance, from 1.
    AcceptSeq(i64);
    /// Batch of a stream: seconds of its range's start, raised above the last one (`correctness.md` f).
    BatchId(i64);
    /// A session's number; each grant is higher than all before it.
    Epoch(u64);
    /// One request to load a table again; one higher per request.
    Generation(i64);
    /// Place of a table message in its batch, from 1.
    MessageNumber(i32);
}

/// OAuth client id of an installation or app: 1 to 128 printable ASCII characters without blanks.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ClientId(String);

impl ClientId {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ClientId {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::new(Code::BadId, "client id must be 1 to 128 printable ASCII characters"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_id_is_taken_with_and_without_dashes_and_printed_with_them() {
        let dashed = "11111111-2222-3333-4444-5555555555aa";
        let bare = dashed.replace('-', "").to_uppercase();
        let id: TenantId = bare.parse().unwrap();
        assert_eq!(id.to_string(), dashed);
        assert_eq!(dashed.parse::<TenantId>().unwrap(), id);
        assert_eq!("x".parse::<TenantId>().unwrap_err().code, Code::BadId);
    }

    #[test]
    fn a_client_id_with_blanks_or_nothing_in_it_is_refused() {
        assert!("erp-1".parse::<ClientId>().is_ok());
        for bad in ["", "a b", "é", &"x".repeat(129)] {
            assert_eq!(bad.parse::<ClientId>().unwrap_err().code, Code::BadId, "{bad:?}");
        }
    }

    #[test]
    fn numbers_saturate_instead_of_wrapping() {
        assert_eq!(BatchId(i64::MAX).next(), BatchId(i64::MAX));
        assert_eq!(Epoch(0).next(), Epoch(1));
    }
}
