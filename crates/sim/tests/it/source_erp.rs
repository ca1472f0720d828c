//! An ERP database of each kind for the tests of sources: a writer beside the source under test.

use agent::source::{AnySource, Profile, SourceOptions, connect};
use sim::servers;

pub(crate) trait Erp {
    /// Runs statements as the ERP.
    async fn run(&self, sql: &str);

    fn url(&self) -> String;

    /// A stamp column without a zone.
    fn stamp_type(&self) -> &'static str;

    fn source(&self, profile: Profile) -> AnySource {
        connect(&self.url(), profile, &SourceOptions::default()).unwrap()
    }

    fn source_in(&self, profile: Profile, zone: &str) -> AnySource {
        let options = SourceOptions { stamp_zone: Some(zone.into()), ..SourceOptions::default() };
        connect(&self.url(), profile, &options).unwrap()
    }
}

pub(crate) struct PostgresErp {
    pub(crate) url: String,
    pub(crate) client: tokio_postgres::Client,
}

impl PostgresErp {
    pub(crate) async fn new() -> Self {
        let url = servers::shared().await.unwrap();
        let client = servers::connect(&url).await.unwrap();
        Self { url, client }
    }
}

impl Erp for PostgresErp {
    async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn stamp_type(&self) -> &'static str {
        "timestamp"
    }
}

pub(crate) struct SqliteErp {
    folder: tempfile::TempDir,
    pub(crate) connection: rusqlite::Connection,
}

impl SqliteErp {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let connection = rusqlite::Connection::open(folder.path().join("erp.db")).unwrap();
        connection.execute_batch("PRAGMA journal_mode = WAL").unwrap();
        Self { folder, connection }
    }
}

impl Erp for SqliteErp {
    async fn run(&self, sql: &str) {
        self.connection.execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    fn url(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("erp.db").display())
    }

    fn stamp_type(&self) -> &'static str {
        "datetime"
    }
}
