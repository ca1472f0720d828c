//! Session, service floor: who sends a stream, and where it resumes (`contracts.md` 5.6, `correctness.md` e).
//!
//! Promises: one live sender per stream; another database, or one set back in time, waits for a person; cursor entries
//! are opaque and hold only with the Summary of their batch.
//! Never: knows a transport.

use std::{collections::BTreeSet, time::Duration};

use metrics::counter;
use prost::Message as _;
use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, Nonce},
    limits,
    names::ErpName,
    proto::ingestion::{
        CursorEntry, DatabaseIdentity, Granted, Held, OpenRequest, OpenResponse, PrepareRequest,
        PrepareResponse, Refused, ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse,
        open_response,
    },
};
use runtime::{clock::Wall, failpoint};

use super::Caller;
use crate::{
    model::{
        fleet,
        overview::OfferView,
        session::{Database, Event},
        stream::StreamId,
    },
    store::{
        Store,
        session::{Asker, Asking, Entry, Grant, Opened},
    },
};

/// Facts of an identity: the longest list of `contracts.md` 5.6 has six; data_directory is the longest value.
const IDENTITY_BYTES: usize = 16 * 1024;

/// Sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sessions {
    store: Store,
}

impl Sessions {
    #[must_use]
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// The same for another actor.
    #[must_use]
    pub(super) fn by(&self, who: &str) -> Self {
        Self { store: self.store.by(who) }
    }

    /// Opens a session, or tells why not in the response.
    ///
    /// # Errors
    /// Malformed requests, another ERP, the store's own.
    pub async fn open(
        &self,
        caller: &Caller,
        request: OpenRequest,
        now: Wall,
    ) -> Result<OpenResponse> {
        let stream = stream(caller, &request.erp)?;
        let versions = request.versions.unwrap_or_default();
        let identity = request.database_identity.unwrap_or_default();
        let by = Asker {
            stream,
            sender: caller.installation,
            instance: request.instance_id.parse()?,
            version: fleet::shortened(versions.agent),
            database: fleet::shortened(versions.database),
        };
        if versions.protocol != limits::PROTOCOL_VERSION {
            let code = Code::VersionUnsupported;
            self.store.note_refused(by, code, now).await?;
            let (ours, theirs) = (limits::PROTOCOL_VERSION, versions.protocol);
            let words = format!("the server speaks protocol {ours}, the agent {theirs}");
            return Ok(refused(code, words));
        }
        if identity.kind.is_empty() {
            return Err(invalid("database_identity.kind is empty"));
        }
        if identity.encoded_len() > IDENTITY_BYTES {
            return Err(invalid("database_identity is too long"));
        }
        let nonce = request.nonce.parse()?;
        let asking = Asking { by, nonce, identity: identity.encode_to_vec() };
        match self.store.open_session(asking, differences, now).await? {
            Opened::Granted(grant) => {
                failpoint::pass("lease.opened", Code::StoreFailed).await?;
                counter!("malote_sessions_opened_total").increment(1);
                tracing::info!(erp = %request.erp, epoch = %grant.epoch, "session granted");
                Ok(granted(grant))
            }
            Opened::Refused(Code::SessionHeld) => Ok(OpenResponse {
                result: Some(open_response::Result::Held(Held {
                    retry_after_seconds: seconds(limits::SESSION_RETRY),
                })),
            }),
            Opened::Refused(code) => {
                tracing::warn!(erp = %request.erp, %code, "session refused");
                Ok(refused(code, code.hint().to_owned()))
            }
        }
    }

    /// Prolongs the lease of an epoch, where what the sender says of its database follows what is known of it.
    ///
    /// # Errors
    /// `FENCED` where the epoch is older, lapsed or released, `INSTANCE_TWICE`, `DATABASE_CHANGED`, `INVALID_ARGUMENT`.
    pub async fn renew(
        &self,
        caller: &Caller,
        request: RenewRequest,
        now: Wall,
    ) -> Result<RenewResponse> {
        let nonce: Nonce = request.nonce.parse()?;
        let event = Event::Renew { epoch: Epoch(request.epoch), nonce };
        let RenewRequest { database_identity, position, .. } = request;
        let length = database_identity.as_ref().map_or(0, |identity| identity.encoded_len());
        if length.max(position.len()) > IDENTITY_BYTES {
            return Err(invalid("database_identity or position is too long"));
        }
        let judge = move |known: &[u8]| judged(known, database_identity.as_ref(), &position);
        self.step(caller, &request.erp, (event, judge), now).await?;
        Ok(RenewResponse { ttl_seconds: seconds(limits::SESSION_TTL) })
    }

    /// Ends the lease of an epoch at once.
    ///
    /// # Errors
    /// `FENCED` where the epoch is older.
    pub async fn release(
        &self,
        caller: &Caller,
        request: ReleaseRequest,
        now: Wall,
    ) -> Result<ReleaseResponse> {
        let event = Event::Release { epoch: Epoch(request.epoch) };
        self.step(caller, &request.erp, (event, |_: &[u8]| Database::AsKnown), now).await?;
        Ok(ReleaseResponse {})
    }

    async fn step(
        &self,
        caller: &Caller,
        erp: &str,
        (event, judge): (Event, impl Fn(&[u8]) -> Database + Send + 'static),
        now: Wall,
    ) -> Result<()> {
        let stream = stream(caller, erp)?;
        match self.store.step_session(stream, event, judge, now).await? {
            Ok(()) => failpoint::pass("lease.stepped", Code::StoreFailed).await,
            Err(Code::Fenced) => {
                Err(Error::new(Code::Fenced, format!("the session of {erp} is over")))
            }
            Err(Code::DatabaseChanged) => {
                tracing::warn!(erp, code = %Code::DatabaseChanged, "session refused");
                Err(Error::new(Code::DatabaseChanged, Code::DatabaseChanged.hint()))
            }
            Err(code) => {
                tracing::warn!(erp, %code, "session refused");
                Err(Error::new(code, format!("the session of {erp} is shown by two processes")))
            }
        }
    }

    /// Keeps cursor entries until the Summary of their batch.
    ///
    /// # Errors
    /// `FENCED` where the epoch is older or lapsed, `INVALID_ARGUMENT` above a limit.
    pub async fn prepare(
        &self,
        caller: &Caller,
        request: PrepareRequest,
        now: Wall,
    ) -> Result<PrepareResponse> {
        let stream = stream(caller, &request.erp)?;
        if request.batch_id < 1 {
            return Err(invalid("batch_id must be 1 or more"));
        }
        if request.entries.len() > limits::STREAM_TABLES {
            return Err(invalid("more entries than a stream may have tables"));
        }
        let entries = request.entries.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
        let place = (Epoch(request.epoch), BatchId(request.batch_id));
        self.store.prepare(stream, place, entries, now).await?;
        failpoint::pass("lease.prepared", Code::StoreFailed).await?;
        Ok(PrepareResponse {})
    }

    /// An operator takes the database that was refused last, and that the fingerprint names, for the stream's own; a dry
    /// run only looks.
    ///
    /// # Errors
    /// `NOT_FOUND` where none waits, or another one does.
    pub async fn accept_database(
        &self,
        stream: StreamId,
        fingerprint: String,
        dry_run: bool,
    ) -> Result<OfferView> {
        match dry_run {
            true => self.store.offer(stream, fingerprint).await,
            false => self.store.accept_identity(stream, fingerprint).await,
        }
    }
}

fn stream(caller: &Caller, erp: &str) -> Result<StreamId> {
    let erp: ErpName = erp.parse()?;
    caller.may_send(&erp)?;
    Ok(caller.stream())
}

fn entry(entry: CursorEntry) -> Result<Entry> {
    let table = entry.table.parse()?;
    if entry.value.len() > limits::CURSOR_BYTES {
        let words = format!(
            "the cursor entry of {table} has {} bytes, the limit is {}",
            entry.value.len(),
            limits::CURSOR_BYTES
        );
        return Err(Error::new(Code::InvalidArgument, words));
    }
    Ok(Entry { table, value: entry.value.to_vec() })
}

/// What keeps a database from following the one before: facts that differ, or a log position that goes back; one that
/// stopped telling its position is another.
fn differences(stored: &[u8], offered: &[u8]) -> Vec<String> {
    let (Ok(stored), Ok(offered)) =
        (DatabaseIdentity::decode(stored), DatabaseIdentity::decode(offered))
    else {
        return vec!["identity".to_owned()];
    };
    let mut found = Vec::new();
    if stored.kind != offered.kind {
        found.push("kind".to_owned());
    }
    let names: BTreeSet<&String> = stored.facts.keys().chain(offered.facts.keys()).collect();
    let other =
        names.into_iter().filter(|name| stored.facts.get(*name) != offered.facts.get(*name));
    found.extend(other.cloned());
    if digits(&stored.position) > digits(&offered.position) {
        found.push("position".to_owned());
    }
    found
}

/// A position as a number of any length: how many digits, and which.
fn digits(position: &[u8]) -> (usize, &[u8]) {
    let zeros = position.iter().take_while(|byte| **byte == 0).count();
    let digits = position.get(zeros..).unwrap_or_default();
    (digits.len(), digits)
}

/// What the sender's word of its database comes to. A position alone was read at some time before the call, so it says
/// nothing where it is lower.
fn judged(known: &[u8], offered: Option<&DatabaseIdentity>, position: &[u8]) -> Database {
    if let Some(offered) = offered {
        let encoded = offered.encode_to_vec();
        return match differences(known, &encoded).is_empty() {
            true => Database::Moved(encoded),
            false => Database::Another(encoded),
        };
    }
    match DatabaseIdentity::decode(known) {
        Ok(before) if digits(&before.position) < digits(position) => {
            let position = position.to_vec();
            Database::Moved(DatabaseIdentity { position, ..before }.encode_to_vec())
        }
        _ => Database::AsKnown,
    }
}

fn granted(grant: Grant) -> OpenResponse {
    let entry =
        |entry: Entry| CursorEntry { table: entry.table.as_str().to_owned(), value: entry.value };
    OpenResponse {
        result: Some(open_response::Result::Granted(Granted {
            epoch: grant.epoch.0,
            cursor: grant.cursor.into_iter().map(entry).collect(),
            last_batch: grant.last_batch.0,
            ttl_seconds: seconds(limits::SESSION_TTL),
        })),
    }
}

fn refused(code: Code, message: String) -> OpenResponse {
    let refused = Refused { code: code.as_str().to_owned(), message };
    OpenResponse { result: Some(open_response::Result::Refused(refused)) }
}

fn invalid(message: &str) -> Error {
    Error::new(Code::InvalidArgument, message)
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
