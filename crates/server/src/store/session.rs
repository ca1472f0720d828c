//! Session, store floor: the lease, the database's identity and the cursor of a stream.
//!
//! Promises: a step of the lease and what it owes (an abandoned batch, forgotten entries) are one transaction.
//! Never: decides who may send; `model::session` does.

use std::collections::BTreeMap;

use crate::store::sql::{Optional as _, Tx, params};
use prost::Message as _;
use protocol::{
    Code, Error, Result,
    ids::{BatchId, Epoch, InstallationId, InstanceId, Nonce},
    limits,
    names::TableName,
    proto::ingestion::DatabaseIdentity,
};
use runtime::{clock::Wall, failpoint, mutant};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use super::{
    Store,
    audit::Deed,
    failed, fleet,
    ingest::{abandon, bound, head, names},
};
use crate::model::{
    catalog::At,
    overview::OfferView,
    session::{Database, Effect, Event, Held, State, Step, speaker, step, step_of},
    stream::StreamId,
};

/// One entry of a cursor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    pub table: TableName,
    pub value: Vec<u8>,
}

/// A granted session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    pub epoch: Epoch,
    pub cursor: Vec<Entry>,
    pub last_batch: BatchId,
}

/// What an open came to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    Granted(Grant),
    Refused(Code),
}

/// Who asks for a session.
#[derive(Clone, Debug)]
pub struct Asker {
    pub stream: StreamId,
    pub sender: InstallationId,
    pub instance: InstanceId,
    /// For people: version of the agent, and of its database.
    pub version: String,
    pub database: String,
}

/// A session that is asked for, with the encoded identity of the asker's database.
#[derive(Clone, Debug)]
pub struct Asking {
    pub by: Asker,
    pub nonce: Nonce,
    pub identity: Vec<u8>,
}

impl Store {
    /// Opens a session. `differs` names what keeps the identity offered from following the one stored; nothing: it may.
    ///
    /// # Errors
    /// The store's own.
    pub async fn open_session(
        &self,
        asking: Asking,
        differs: impl Fn(&[u8], &[u8]) -> Vec<String> + Send + 'static,
        now: Wall,
    ) -> Result<Opened> {
        self.write(asking.by.stream.tenant, move |tx| {
            let (opened, found) = open(tx, &asking, differs, now)?;
            let refused = match opened {
                Opened::Granted(_) => None,
                Opened::Refused(code) => Some((code, found.join(", "))),
            };
            fleet::seen(tx, &asking.by, refused, now)?;
            Ok(opened)
        })
        .await
    }

    /// Renews or releases. What the step refuses is the inner error's code; its new state is stored all the same. What a
    /// holder says of its database is judged by what is stored: another one renews nothing.
    ///
    /// # Errors
    /// The store's own.
    pub async fn step_session(
        &self,
        stream: StreamId,
        event: Event,
        judge: impl Fn(&[u8]) -> Database + Send + 'static,
        now: Wall,
    ) -> Result<std::result::Result<(), Code>> {
        self.write(stream.tenant, move |tx| {
            head(tx, &stream, now)?;
            failpoint::reach("lease.step", Code::StoreFailed)?;
            let (state, answer) = judged(tx, &stream, event, now)?;
            let by = match &state {
                State::Held(held) => held.instance.to_string(),
                State::Free { .. } => String::new(),
            };
            if answer.is_ok() {
                let by = by.as_str();
                let known = identity(tx, &stream)?;
                match known.map_or(Database::AsKnown, |known| judge(&known)) {
                    Database::AsKnown => {}
                    Database::Moved(further) => follow_identity(tx, &stream, (by, &further))?,
                    Database::Another(other) => {
                        offer_identity(tx, &stream, (by, &other), now)?;
                        return Ok(Err(Code::DatabaseChanged));
                    }
                }
            }
            save(tx, &stream, &state)?;
            Ok(answer.map(|_| ()))
        })
        .await
    }

    /// Keeps cursor entries for a batch, until its Summary.
    ///
    /// # Errors
    /// `FENCED` where the epoch does not hold a live lease, `INVALID_ARGUMENT` above the limit of tables.
    pub async fn prepare(
        &self,
        stream: StreamId,
        (epoch, batch): (Epoch, BatchId),
        entries: Vec<Entry>,
        now: Wall,
    ) -> Result<()> {
        self.write(stream.tenant, move |tx| {
            let head = head(tx, &stream, now)?;
            if epoch != head.epoch || !head.live {
                let words = format!("the session of epoch {epoch} is over");
                return Err(Error::new(Code::Fenced, words));
            }
            keep(tx, &stream, batch, &entries)
        })
        .await
    }

    /// The identity that was refused last, where its fingerprint is that one.
    ///
    /// # Errors
    /// `NOT_FOUND` where no identity was refused, or another one since.
    pub(crate) async fn offer(&self, stream: StreamId, fingerprint: String) -> Result<OfferView> {
        self.read(stream.tenant, move |connection| offer(connection, &stream, &fingerprint)).await
    }

    /// Takes the identity of that fingerprint, which was refused last, as the stream's own; an operator's decision.
    ///
    /// # Errors
    /// As [`Store::offer`]; then nothing is changed.
    pub(crate) async fn accept_identity(
        &self,
        stream: StreamId,
        fingerprint: String,
    ) -> Result<OfferView> {
        let deed = Deed::of(
            "session.accept-database",
            stream.tenant,
            format!("{}/{}", stream.environment, stream.erp),
        )
        .with(&fingerprint);
        self.audited(deed, move |tx| {
            let accepted = offer(tx, &stream, &fingerprint)?;
            let [tenant, environment, erp] = &names(&stream);
            let sql = "UPDATE ingest_stream SET identity = offered, offered = NULL
                        WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
            tx.execute(sql, params![tenant, environment, erp]).map_err(failed)?;
            Ok(accepted)
        })
        .await
    }
}

/// What a person saw of a database: this instance with these facts. The log position goes on, so it is left out.
fn fingerprint(instance: &str, identity: &[u8]) -> String {
    let mut hasher = Sha256::new();
    let mut add = |part: &[u8]| {
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    };
    add(instance.as_bytes());
    match DatabaseIdentity::decode(identity) {
        Ok(identity) => {
            add(identity.kind.as_bytes());
            for (name, value) in identity.facts.iter().collect::<BTreeMap<_, _>>() {
                add(name.as_bytes());
                add(value.as_bytes());
            }
        }
        Err(_) => add(identity),
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn offer(connection: &Tx<'_>, stream: &StreamId, wanted: &str) -> Result<OfferView> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT offered_mark, offered_by, offered_since, offered_at FROM ingest_stream
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND offered_mark IS NOT NULL
                  AND offered IS NOT NULL";
    let found = connection
        .query_row(sql, params![tenant, environment, erp], |row| {
            Ok(OfferView {
                fingerprint: row.get(0)?,
                instance: row.get(1)?,
                since: At(row.get(2)?),
                at: At(row.get(3)?),
            })
        })
        .optional()
        .map_err(failed)?;
    let none = || Error::new(Code::NotFound, "no database waits for acceptance");
    let found = found.ok_or_else(none)?;
    if found.fingerprint.eq_ignore_ascii_case(wanted) {
        return Ok(found);
    }
    let words = format!(
        "the database that waits is {} of instance {}, no longer the one named; look again before it is accepted",
        found.fingerprint, found.instance
    );
    Err(Error::new(Code::NotFound, words))
}

fn open(
    tx: &Tx<'_>,
    asking: &Asking,
    differs: impl Fn(&[u8], &[u8]) -> Vec<String>,
    now: Wall,
) -> Result<(Opened, Vec<String>)> {
    failpoint::reach("lease.open", Code::StoreFailed)?;
    let stream = &asking.by.stream;
    let head = head(tx, stream, now)?;
    bound(tx, stream, asking.by.sender)?;
    // The identity comes before the lease: a clone must not be able to stop the original (F51).
    let stored = identity(tx, stream)?;
    let found = stored.map_or_else(Vec::new, |stored| differs(&stored, &asking.identity));
    if !found.is_empty() {
        let by = asking.by.instance.to_string();
        offer_identity(tx, stream, (&by, &asking.identity), now)?;
        return Ok((Opened::Refused(Code::DatabaseChanged), found));
    }
    let by = asking.by.instance;
    let event = Event::Open { by, nonce: asking.nonce };
    let (state, answer) = judged(tx, stream, event, now)?;
    save(tx, stream, &state)?;
    let effects = match answer {
        Ok(effects) => effects,
        Err(code) => return Ok((Opened::Refused(code), found)),
    };
    if effects.contains(&Effect::Abandon) {
        abandon(tx, stream, now)?;
    }
    keep_identity(tx, stream, &asking.identity)?;
    let cursor = cursor(tx, stream)?;
    let grant = Grant { epoch: state.epoch(), cursor, last_batch: head.last_batch };
    Ok((Opened::Granted(grant), found))
}

/// The database that the stream is known by.
fn identity(tx: &Tx<'_>, stream: &StreamId) -> Result<Option<Vec<u8>>> {
    let [tenant, environment, erp] = &names(stream);
    let sql =
        "SELECT identity FROM ingest_stream WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    statement.query_row(params![tenant, environment, erp], |row| row.get(0)).map_err(failed)
}

fn keep_identity(tx: &Tx<'_>, stream: &StreamId, identity: &[u8]) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "UPDATE ingest_stream SET identity = ?4, offered = NULL
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    statement.execute(params![tenant, environment, erp, identity]).map_err(failed)?;
    Ok(())
}

/// The same one, further on. What another instance offered still waits.
fn follow_identity(tx: &Tx<'_>, stream: &StreamId, (by, identity): (&str, &[u8])) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let sql =
        "UPDATE ingest_stream SET identity = ?4, offered = iif(offered_by = ?5, NULL, offered)
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    statement.execute(params![tenant, environment, erp, identity, by]).map_err(failed)?;
    Ok(())
}

/// Another one, which a person may take for the stream's own.
fn offer_identity(
    tx: &Tx<'_>,
    stream: &StreamId,
    (by, identity): (&str, &[u8]),
    now: Wall,
) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let mark = fingerprint(by, identity);
    let sql = "UPDATE ingest_stream SET offered = ?4, offered_by = ?6, offered_at = ?7, offered_mark = ?5,
                      offered_since = iif(offered IS NOT NULL AND offered_mark = ?5, offered_since, ?7)
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let values = params![tenant, environment, erp, identity, mark, by, now.0];
    statement.execute(values).map_err(failed)?;
    Ok(())
}

/// Ends whatever sends the stream: its open batch, its lease and, by a new epoch, every call still under way (F52).
pub(super) fn fence(tx: &Tx<'_>, stream: &StreamId, now: Wall) -> Result<()> {
    let before = head(tx, stream, now)?;
    abandon(tx, stream, now)?;
    save(tx, stream, &State::Free { epoch: before.epoch.next() })
}

fn load(tx: &Tx<'_>, stream: &StreamId) -> Result<State> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT epoch, holder, nonce, former, expires_at, disputed FROM ingest_stream
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    let row = tx
        .prepare_cached(sql)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp], |row| {
            let epoch = Epoch(row.get::<i64>(0)?.cast_unsigned());
            let holder = row.get::<Option<String>>(1)?.zip(row.get::<Option<String>>(2)?);
            let former = row.get::<Vec<u8>>(3)?;
            Ok((epoch, holder, former, Wall(row.get(4)?), row.get(5)?))
        })
        .optional()
        .map_err(failed)?;
    let Some((epoch, holder, former, until, disputed)) = row else {
        return Ok(State::Free { epoch: Epoch(0) });
    };
    let Some((instance, nonce)) = holder else { return Ok(State::Free { epoch }) };
    let former =
        former.as_chunks::<16>().0.iter().map(|bytes| Nonce(Uuid::from_bytes(*bytes))).collect();
    Ok(State::Held(Held {
        epoch,
        instance: instance.parse()?,
        nonce: nonce.parse()?,
        former,
        until,
        disputed,
    }))
}

/// The step of an event, beside what its speaker was heard with; that is kept whatever the step comes to.
fn judged(tx: &Tx<'_>, stream: &StreamId, event: Event, now: Wall) -> Result<Step> {
    let state = load(tx, stream)?;
    let Some(by) = speaker(&state, event) else { return Ok(step(state, event, now)) };
    let before = fleet::heard(tx, stream, by)?;
    let mut heard = before.clone();
    let judged = step_of(state, event, &mut heard, now);
    if heard != before {
        fleet::keep_heard(tx, stream, (by, &heard), now)?;
    }
    Ok(judged)
}

fn save(tx: &Tx<'_>, stream: &StreamId, state: &State) -> Result<()> {
    let [tenant, environment, erp] = &names(stream);
    let epoch = state.epoch().0.cast_signed();
    let (holder, nonce, former, until, disputed) = match state {
        State::Free { .. } => (None, None, Vec::new(), 0, false),
        State::Held(held) => (
            Some(held.instance.to_string()),
            Some(held.nonce.to_string()),
            held.former.iter().flat_map(|nonce| *nonce.0.as_bytes()).collect(),
            held.until.0,
            held.disputed,
        ),
    };
    let sql = "UPDATE ingest_stream SET epoch = ?4, holder = ?5, nonce = ?6, former = ?7, expires_at = ?8, disputed = ?9
                WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)";
    tx.prepare_cached(sql)
        .map_err(failed)?
        .execute(params![tenant, environment, erp, epoch, holder, nonce, former, until, disputed])
        .map_err(failed)?;
    Ok(())
}

fn cursor(tx: &Tx<'_>, stream: &StreamId) -> Result<Vec<Entry>> {
    let [tenant, environment, erp] = &names(stream);
    let sql = "SELECT name, value FROM cursor WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                ORDER BY name_folded";
    let mut statement = tx.prepare_cached(sql).map_err(failed)?;
    let rows = statement
        .query_map(params![tenant, environment, erp], |row| {
            Ok((row.get::<String>(0)?, row.get(1)?))
        })
        .map_err(failed)?;
    rows.into_iter().map(|(name, value)| Ok(Entry { table: name.parse()?, value })).collect()
}

fn keep(tx: &Tx<'_>, stream: &StreamId, batch: BatchId, entries: &[Entry]) -> Result<()> {
    failpoint::reach("lease.prepare", Code::StoreFailed)?;
    let [tenant, environment, erp] = &names(stream);
    let whole = params![tenant, environment, erp, batch.0];
    let forget = "DELETE FROM cursor_pending WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND batch <> ?4";
    tx.prepare_cached(forget).map_err(failed)?.execute(whole).map_err(failed)?;
    for entry in entries {
        let sql = "INSERT INTO cursor_pending (tenant_id, environment_id, erp, batch, name_folded, name, value)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                   ON CONFLICT (tenant_id, environment_id, erp, name_folded)
                   DO UPDATE SET batch = excluded.batch, name = excluded.name, value = excluded.value";
        let (folded, name) = (entry.table.folded(), entry.table.as_str());
        tx.prepare_cached(sql)
            .map_err(failed)?
            .execute(params![tenant, environment, erp, batch.0, folded, name, entry.value])
            .map_err(failed)?;
        if mutant::is("cursor_before_summary") {
            let sql =
                "INSERT INTO cursor (tenant_id, environment_id, erp, name_folded, name, value)
                       VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                       ON CONFLICT (tenant_id, environment_id, erp, name_folded)
                       DO UPDATE SET name = excluded.name, value = excluded.value";
            let mut statement = tx.prepare_cached(sql).map_err(failed)?;
            let entry = params![tenant, environment, erp, folded, name, entry.value];
            statement.execute(entry).map_err(failed)?;
        }
    }
    // A withdrawn table keeps its entry, for the day it is shared again, and takes no place.
    let count = "SELECT count(*) FROM (
                   SELECT name_folded FROM cursor WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                   UNION SELECT name_folded FROM cursor_pending WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3)
                   EXCEPT SELECT name_folded FROM entity
                    WHERE (tenant_id, environment_id, erp) = (?1, ?2, ?3) AND withdrawn_at IS NOT NULL) named";
    let tables: i64 = tx
        .prepare_cached(count)
        .map_err(failed)?
        .query_row(params![tenant, environment, erp], |row| row.get(0))
        .map_err(failed)?;
    if tables > i64::try_from(limits::STREAM_TABLES).unwrap_or(i64::MAX) {
        let words = format!(
            "the stream would have {tables} tables, the limit is {}",
            limits::STREAM_TABLES
        );
        return Err(Error::new(Code::InvalidArgument, words));
    }
    Ok(())
}
