//! Trial: a real store in a folder of its own, with one tenant, environment and two tables, for the tests of services.
//!
//! Promises: each trial has its own folder. With `MALOTE_TEST_STORE=postgres` its store is a database of its own in a
//! PostgreSQL cluster that the process starts, under a role that is no superuser: so the same tests hold both engines.
//! Never: is compiled into the program.

pub(super) mod stage;

use std::path::PathBuf;

use protocol::{
    Error,
    ids::{Epoch, InstanceId, Nonce},
    proto::ingestion::{
        CursorEntry, DatabaseIdentity, OpenRequest, OpenResponse, PrepareRequest, Versions,
        open_response,
    },
};
use runtime::clock::Wall;
use uuid::Uuid;

use super::{Caller, session::Sessions};
use crate::store::{Store, trial::Database};

pub(super) const NOW: Wall = Wall(1_800_000_000_000_000);

/// Seconds after [`NOW`].
pub(super) const fn at(seconds: i64) -> Wall {
    Wall(NOW.0 + seconds * 1_000_000)
}

pub(super) struct Trial {
    pub(super) store: Store,
    pub(super) caller: Caller,
    folder: tempfile::TempDir,
    database: Database,
}

impl Trial {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::new(folder.path());
        let id = Uuid::from_u128;
        let caller = Caller {
            tenant: protocol::ids::TenantId(id(1)),
            environment: protocol::ids::EnvironmentId(id(2)),
            installation: protocol::ids::InstallationId(id(3)),
            client: "erp-1".parse().unwrap(),
            erp: "RM".parse().unwrap(),
            connection: 1,
        };
        let trial = Self { store: database.store(), caller, folder, database };
        let (tenant, environment) = (trial.caller.tenant, trial.caller.environment);
        let installation = trial.caller.installation;
        trial.run(&format!(
            "INSERT INTO tenant (id, name, created_at) VALUES ('{tenant}', 'T', 1);
             INSERT INTO environment (tenant_id, id, name, type, created_at)
             VALUES ('{tenant}', '{environment}', 'E', 'PRODUCTION', 1);
             INSERT INTO installation (tenant_id, id, name, erp, environment_id, created_at)
             VALUES ('{tenant}', '{installation}', 'I', 'RM', '{environment}', 1);
             INSERT INTO entity (tenant_id, environment_id, erp, name_folded, name, created_at)
             VALUES ('{tenant}', '{environment}', 'RM', 'flan', 'FLAN', 1),
                    ('{tenant}', '{environment}', 'RM', 'tmov', 'TMOV', 1);"
        ));
        trial
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// As after the end of the process.
    pub(super) fn reopen(self) -> Self {
        Self { store: self.database.store(), ..self }
    }

    /// The store as another server over it has it.
    pub(super) fn another(&self) -> Store {
        self.database.store()
    }

    pub(super) fn run(&self, sql: &str) {
        self.database.run(sql);
    }

    /// Bytes as a statement of its engine writes them.
    pub(super) fn bytes(&self, bytes: &[u8]) -> String {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.is_a_file() { format!("x'{hex}'") } else { format!("'\\x{hex}'::bytea") }
    }

    /// The bytes that a statement gives, in hexadecimal digits.
    pub(super) fn hex(&self, sql: &str) -> String {
        match self.is_a_file() {
            true => self.text(&format!("SELECT hex(({sql}))")),
            false => self.text(&format!("SELECT encode(({sql}), 'hex')")),
        }
    }

    /// A role that may log in and nothing else; its name begins so.
    pub(super) fn role(&self, name: &str) -> String {
        self.database.role(name)
    }

    /// Whether the statement is done for that role.
    pub(super) fn may(&self, role: &str, sql: &str) -> bool {
        self.database.try_run_as(role, sql).is_ok()
    }

    pub(super) const fn is_a_file(&self) -> bool {
        self.database.is_a_file()
    }

    /// From now on that table takes no more rows.
    pub(super) fn refuse_rows(&self, table: &str) {
        self.run(&match self.is_a_file() {
            true => format!(
                "CREATE TRIGGER no_row BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'full'); END"
            ),
            false => format!(
                "CREATE FUNCTION no_row() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'full'; END $$;
                 CREATE TRIGGER no_row BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION no_row()"
            ),
        });
    }

    pub(super) fn count(&self, sql: &str) -> i64 {
        self.text(sql).parse().unwrap()
    }

    pub(super) fn text(&self, sql: &str) -> String {
        self.database.first(sql).unwrap_or_else(|| panic!("no row: {sql}"))
    }

    /// What a sender asks with; instance and nonce by small numbers.
    pub(super) fn request(instance: u128, nonce: u128) -> OpenRequest {
        let facts = [("file_id".to_owned(), "7".to_owned())].into();
        OpenRequest {
            erp: "RM".into(),
            instance_id: InstanceId(Uuid::from_u128(instance)).to_string(),
            nonce: Nonce(Uuid::from_u128(nonce)).to_string(),
            database_identity: Some(DatabaseIdentity {
                kind: "sqlite".into(),
                facts,
                position: Default::default(),
            }),
            versions: Some(Versions { agent: "1".into(), protocol: 1, database: "3".into() }),
        }
    }

    pub(super) async fn ask(&self, request: OpenRequest, now: Wall) -> OpenResponse {
        Sessions::new(self.store.clone()).open(&self.caller, request, now).await.unwrap()
    }

    pub(super) async fn open(&self, instance: u128, nonce: u128, now: Wall) -> Epoch {
        match self.ask(Self::request(instance, nonce), now).await.result.unwrap() {
            open_response::Result::Granted(granted) => Epoch(granted.epoch),
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn prepare(
        &self,
        sessions: &Sessions,
        epoch: Option<Epoch>,
        batch_id: i64,
        value: &'static [u8],
    ) -> Result<(), Error> {
        let entry = CursorEntry { table: "FLAN".into(), value: value.into() };
        let epoch = epoch.unwrap_or_default().0;
        let request = PrepareRequest { erp: "RM".into(), epoch, batch_id, entries: vec![entry] };
        sessions.prepare(&self.caller, request, NOW).await.map(|_| ())
    }
}
