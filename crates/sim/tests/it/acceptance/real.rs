//! The real thing under test: the server's service on its SQLite store, and readers of what it left behind.

use std::{collections::BTreeMap, path::PathBuf};

use bytes::Bytes;
use protocol::{
    Code, Error,
    ids::{ClientId, Epoch, Generation},
    names::TableName,
    proto::{
        ingestion::{
            CursorEntry, DatabaseIdentity, OpenRequest, PrepareRequest, ReleaseRequest,
            RenewRequest, Versions, open_response,
        },
        totvs::BatchSummary,
    },
};
use runtime::clock::Wall;
use rusqlite::{Connection, OpenFlags};
use server::{
    model::catalog::{EnvironmentType, Place},
    service::{
        Caller,
        catalog::{Catalog, NewEntity},
        ingest::Ingest,
        overview::Overview,
        session::Sessions,
        staging::Staging,
    },
    store::{Store, sqlite},
};
use sim::model::{
    Answer,
    session::{Grant, Opening, Sender},
};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const ERP: &str = "RM";
pub(crate) const TABLES: [&str; 2] = ["FLAN", "TMOV"];

pub(crate) struct Real {
    folder: TempDir,
    ingest: Ingest,
    sessions: Sessions,
    overview: Overview,
    staging: Staging,
    catalog: Catalog,
    place: Place,
    caller: Caller,
}

/// (state, messages as (sha, rows, accept_seq)).
pub(crate) type BatchRow = (String, Vec<(Vec<u8>, i64, i64)>);

/// (generation, generation done, rebuild asked for, key it is staged under).
pub(crate) type TableRow = (i64, i64, bool, Option<Vec<String>>);

/// (deleted, batch, message, cells).
pub(crate) type StagedRow = (bool, i64, i32, BTreeMap<String, String>);

impl Real {
    pub(crate) async fn new() -> Self {
        // In memory where the system has such a folder: these tests are about order and state, and a busy disk that
        // holds a commit back for two seconds would rightly end a wait of the window.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = folder.path().join("store.sqlite");
        sqlite::migrate(&path).unwrap();
        let store = Store::open(&path).unwrap();
        let catalog = Catalog::new(store.clone());
        let tenant = catalog.create_tenant("tenant").await.unwrap().id;
        let environment =
            catalog.create_environment(tenant, "e", EnvironmentType::Production).await.unwrap().id;
        let erp: protocol::names::ErpName = ERP.parse().unwrap();
        let installation = catalog
            .create_installation(tenant, "i", erp.clone(), Some(environment))
            .await
            .unwrap()
            .id;
        let place = catalog.place(tenant, "", "").await.unwrap();
        let entity = |table: &str| NewEntity {
            table: table.parse().unwrap(),
            filter: None,
            is_custom: false,
        };
        catalog.add_entities(&place, TABLES.map(entity).into()).await.unwrap();
        let client: ClientId = "client".parse().unwrap();
        let caller = Caller { tenant, environment, installation, client, erp, connection: 0 };
        let staging = Staging::new(store.clone(), folder.path());
        let (ingest, sessions) = (Ingest::new(store.clone()), Sessions::new(store.clone()));
        let overview = Overview::new(store, sessions.clone());
        Self { folder, ingest, sessions, overview, staging, catalog, place, caller }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("store.sqlite")
    }

    /// A process that died and came back: nothing but the file is left.
    pub(crate) fn crash(&mut self) {
        let store = Store::open(&self.path()).unwrap();
        self.staging = Staging::new(store.clone(), self.folder.path());
        self.catalog = Catalog::new(store.clone());
        (self.ingest, self.sessions) = (Ingest::new(store.clone()), Sessions::new(store.clone()));
        self.overview = Overview::new(store, self.sessions.clone());
    }

    /// Each call on a connection of its own, so that no window joins two of them.
    fn caller(&mut self) -> Caller {
        self.caller.connection += 1;
        self.caller.clone()
    }

    pub(crate) async fn write(&mut self, now: i64, epoch: Option<u64>, bytes: &Bytes) -> Answer {
        let caller = self.caller();
        answer(self.ingest.write(&caller, epoch.map(Epoch), bytes.clone(), Wall(now)).await)
    }

    /// All at once on one connection, polled in the order given.
    pub(crate) async fn write_all(
        &mut self,
        now: i64,
        epoch: Option<u64>,
        messages: Vec<Bytes>,
    ) -> Vec<Answer> {
        let caller = self.caller();
        let mut running = Vec::new();
        for bytes in messages {
            let (ingest, caller) = (self.ingest.clone(), caller.clone());
            running.push(runtime::task::spawn("write", async move {
                answer(ingest.write(&caller, epoch.map(Epoch), bytes, Wall(now)).await)
            }));
        }
        let mut answers = Vec::new();
        for task in running {
            answers.push(task.join().await.unwrap());
        }
        answers
    }

    pub(crate) async fn summary(
        &mut self,
        now: i64,
        epoch: Option<u64>,
        loads: &[(String, i64)],
        summary: &BatchSummary,
    ) -> Answer {
        let caller = self.caller();
        let load =
            |(table, generation): &(String, i64)| (table.parse().unwrap(), Generation(*generation));
        let loads: Vec<_> = loads.iter().map(load).collect();
        answer(self.ingest.summary(&caller, epoch.map(Epoch), &loads, summary, Wall(now)).await)
    }

    /// Asks for a load as a person does; tells its generation. The catalogue dates it by the machine's clock, these
    /// tests have one of their own.
    pub(crate) async fn reload(&self, now: i64, table: &str, rebuild: bool) -> i64 {
        let table: TableName = table.parse().unwrap();
        let asked = self.catalog.reload(&self.place, Some(&table), rebuild).await.unwrap();
        let connection = Connection::open(self.path()).unwrap();
        let sql = "UPDATE entity SET reload_asked_at = ?1 WHERE name_folded = ?2";
        assert_eq!(connection.execute(sql, (now, table.folded())).unwrap(), 1);
        asked[0].1.0
    }

    /// Loads and keys as they lie in the file.
    pub(crate) fn tables(&self) -> BTreeMap<String, TableRow> {
        let connection = self.read();
        let sql =
            "SELECT e.name, e.generation, e.done_generation, e.rebuild, t.key_columns FROM entity e
                     LEFT JOIN ingest_table t ON t.name_folded = e.name_folded";
        let mut found = connection.prepare(sql).unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let key: Option<String> = row.get(4)?;
            let key = key.map(|json| serde_json::from_str::<Vec<String>>(&json).unwrap());
            let key = key.map(|names| names.iter().map(|name| name.to_uppercase()).collect());
            Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?, key)))
        };
        found.query_map([], row).unwrap().map(Result::unwrap).collect()
    }

    pub(crate) async fn open(&mut self, now: i64, sender: &Sender) -> (Opening, Option<Grant>) {
        let facts = [("system_identifier".to_owned(), sender.facts.clone())].into_iter().collect();
        let position = sender.position.to_be_bytes().to_vec();
        let request = OpenRequest {
            erp: ERP.to_owned(),
            instance_id: uuid(sender.instance),
            nonce: uuid(100 + sender.nonce),
            database_identity: Some(DatabaseIdentity {
                kind: "postgres".to_owned(),
                facts,
                position,
            }),
            versions: Some(Versions {
                agent: "test".to_owned(),
                protocol: 1,
                database: "15".to_owned(),
            }),
        };
        let caller = self.caller();
        match self.sessions.open(&caller, request, Wall(now)).await.unwrap().result.unwrap() {
            open_response::Result::Granted(granted) => {
                let cursors = granted
                    .cursor
                    .into_iter()
                    .map(|entry| (entry.table, entry.value.to_vec()))
                    .collect();
                let grant = Grant { epoch: granted.epoch, cursors, last_batch: granted.last_batch };
                (Opening::Granted(granted.epoch), Some(grant))
            }
            open_response::Result::Held(_) => (Opening::Held, None),
            open_response::Result::Refused(refused) => {
                (Opening::Refused(refused.code.parse().unwrap()), None)
            }
        }
    }

    pub(crate) async fn renew(&mut self, now: i64, epoch: u64, nonce: u8) -> Result<(), Code> {
        let request = RenewRequest {
            erp: ERP.to_owned(),
            epoch,
            nonce: uuid(100 + nonce),
            ..RenewRequest::default()
        };
        let caller = self.caller();
        self.sessions
            .renew(&caller, request, Wall(now))
            .await
            .map(|_| ())
            .map_err(|error| error.code)
    }

    pub(crate) async fn release(&mut self, now: i64, epoch: u64) -> Result<(), Code> {
        let request = ReleaseRequest { erp: ERP.to_owned(), epoch };
        let caller = self.caller();
        self.sessions
            .release(&caller, request, Wall(now))
            .await
            .map(|_| ())
            .map_err(|error| error.code)
    }

    pub(crate) async fn prepare(
        &mut self,
        now: i64,
        (epoch, batch): (u64, i64),
        entries: &[(String, Vec<u8>)],
    ) -> Result<(), Code> {
        let entry = |(table, value): &(String, Vec<u8>)| CursorEntry {
            table: table.clone(),
            value: value.clone(),
        };
        let entries = entries.iter().map(entry).collect();
        let request = PrepareRequest { erp: ERP.to_owned(), epoch, batch_id: batch, entries };
        let caller = self.caller();
        self.sessions
            .prepare(&caller, request, Wall(now))
            .await
            .map(|_| ())
            .map_err(|error| error.code)
    }

    pub(crate) async fn accept_database(&mut self) -> Result<(), Code> {
        let streams = self.overview.streams(self.place.tenant).await.unwrap();
        let waits = streams.into_iter().find_map(|stream| stream.offer);
        let waits = waits.map_or_else(String::new, |offer| offer.fingerprint);
        let accepted = self.sessions.accept_database(self.caller.stream(), waits, false).await;
        accepted.map(|_| ()).map_err(|error| error.code)
    }

    /// Applies some of what was accepted, as the task does.
    pub(crate) async fn apply(&self, now: i64) {
        self.staging.apply(&self.caller.stream(), Wall(now)).await.unwrap();
    }

    /// Applies all and reads the staged tables as they lie in the file: table → key → row.
    pub(crate) async fn staged(
        &self,
        now: i64,
    ) -> BTreeMap<String, BTreeMap<Vec<String>, StagedRow>> {
        self.staging.catch_up(&self.caller.stream(), Wall(now)).await.unwrap();
        let path = crate::whole::cloud::database(self.folder.path(), ERP);
        let mut tables = BTreeMap::new();
        let Ok(connection) = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
        else {
            return tables;
        };
        for table in TABLES.map(str::to_lowercase) {
            let sql = format!("SELECT _key, _deleted, _batch, _message, ID, V FROM {table}");
            let Ok(mut rows) = connection.prepare(&sql) else { continue };
            let rows = rows.query_map([], |row| {
                let cells = [
                    ("id", row.get::<_, Option<i64>>(4)?.map(|id| id.to_string())),
                    ("v", row.get(5)?),
                ];
                let cells =
                    cells.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
                let deleted: bool = row.get(1)?;
                // What a deleted row still shows is not part of the promise.
                let cells = if deleted { BTreeMap::new() } else { cells.collect() };
                Ok((
                    key_parts(&row.get::<_, Vec<u8>>(0)?),
                    (deleted, row.get(2)?, row.get(3)?, cells),
                ))
            });
            tables.insert(table, rows.unwrap().map(Result::unwrap).collect());
        }
        tables
    }

    fn read(&self) -> Connection {
        Connection::open_with_flags(self.path(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
    }

    /// The ledger as it lies in the file.
    pub(crate) fn ledger(&self) -> BTreeMap<i64, BatchRow> {
        let connection = self.read();
        let mut batches = connection.prepare("SELECT id, state FROM batch").unwrap();
        let batches = batches.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let mut messages = connection
            .prepare("SELECT sha256, row_count, accept_seq, number FROM ingest_message WHERE batch = ?1 ORDER BY number")
            .unwrap();
        let mut ledger = BTreeMap::new();
        for batch in batches {
            let (id, state): (i64, String) = batch.unwrap();
            let rows = messages
                .query_map([id], |row| Ok(((row.get(0)?, row.get(1)?, row.get(2)?), row.get(3)?)));
            type Stored = ((Vec<u8>, i64, i64), i64);
            let rows: Vec<Stored> = rows.unwrap().map(Result::unwrap).collect();
            // I3: the stored numbers of a batch are 1..k.
            assert!(rows.iter().zip(1..).all(|((_, number), expected)| *number == expected));
            ledger.insert(id, (state, rows.into_iter().map(|(row, _)| row).collect()));
        }
        ledger
    }

    pub(crate) fn cursors(&self) -> BTreeMap<String, Vec<u8>> {
        let connection = self.read();
        let mut entries = connection.prepare("SELECT name, value FROM cursor").unwrap();
        entries
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }
}

/// Each part as 4 bytes of length, big end first, and text.
fn key_parts(mut bytes: &[u8]) -> Vec<String> {
    let mut parts = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<4>() {
        let (part, rest) = rest.split_at(u32::from_be_bytes(*head) as usize);
        parts.push(String::from_utf8(part.to_vec()).unwrap());
        bytes = rest;
    }
    parts
}

fn uuid(number: u8) -> String {
    Uuid::from_u128(u128::from(number) + 1).to_string()
}

fn answer(result: Result<(), Error>) -> Answer {
    let Err(error) = result else { return Answer::Success };
    let numbers: Vec<i32> = error
        .message
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect();
    match (error.code, numbers.as_slice()) {
        // "batch B of RM expects message N, got G"
        (Code::SequenceGap, [.., expected, _got]) => Answer::Gap(*expected),
        // "batch B of RM lacks messages A to Z"
        (Code::MessagesMissing, [.., from, to]) => Answer::Missing(*from, *to),
        (code, _) => Answer::Refused(code),
    }
}
