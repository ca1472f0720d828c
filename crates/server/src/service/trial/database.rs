//! Database of a trial: a SQLite file, or a PostgreSQL database under a role that is no superuser.

#[path = "../../../../sim/src/servers.rs"]
#[allow(
    dead_code,
    unreachable_pub,
    reason = "the simulator's starter of PostgreSQL, of which this takes a part"
)]
mod servers;

use std::path::{Path, PathBuf};

use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::store::{Store, postgres, sqlite};

pub(super) enum Database {
    File(PathBuf),
    Server(Config),
}

/// The store's role, which owns its schema and sees what a policy shows.
const ROLE: &str = "malote";

impl Database {
    pub(super) fn new(folder: &Path) -> Self {
        if std::env::var("MALOTE_TEST_STORE").is_ok_and(|engine| engine == "postgres") {
            return Self::Server(apart(made));
        }
        let path = folder.join("store.sqlite");
        sqlite::migrate(&path).unwrap();
        Self::File(path)
    }

    pub(super) fn store(&self) -> Store {
        match self {
            Self::File(path) => Store::open(path).unwrap(),
            Self::Server(config) => {
                let config = config.clone();
                apart(move || Store::connect(config)).unwrap()
            }
        }
    }

    pub(super) fn run(&self, sql: &str) {
        match self {
            Self::File(path) => sqlite::connect(path, false).unwrap().execute_batch(sql).unwrap(),
            Self::Server(config) => {
                let (config, sql) = (config.clone(), sql.to_owned());
                apart(move || async move {
                    client(&config).await.batch_execute(&sql).await.unwrap();
                });
            }
        }
    }

    /// The first column of the first row.
    pub(super) fn first(&self, sql: &str) -> Option<String> {
        match self {
            Self::File(path) => {
                let connection = sqlite::connect(path, false).unwrap();
                let sql = format!("SELECT CAST(({sql}) AS TEXT)");
                connection.query_row(&sql, [], |row| row.get(0)).unwrap()
            }
            Self::Server(config) => {
                let (config, sql) = (config.clone(), sql.to_owned());
                apart(move || async move {
                    let told = client(&config).await.simple_query(&sql).await.unwrap();
                    told.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                        _ => None,
                    })
                })
            }
        }
    }
}

/// A new database in this process's cluster, with the schema.
async fn made() -> Config {
    let url = servers::shared().await.unwrap();
    let config: Config = url.parse().unwrap();
    let (owner, connection) = config.connect(NoTls).await.unwrap();
    let driver = tokio::spawn(connection);
    let name = config.get_dbname().unwrap();
    let sql = format!(
        "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         ALTER DATABASE {name} OWNER TO {ROLE}"
    );
    owner.batch_execute(&sql).await.unwrap();
    drop(owner);
    driver.await.unwrap().unwrap();
    let mut config = config;
    config.user(ROLE);
    postgres::migrate(&config).await.unwrap();
    config
}

/// A look over every tenant's shoulder.
async fn client(config: &Config) -> Client {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute("SET search_path TO malote; SET malote.tenant TO '*'").await.unwrap();
    client
}

/// Waits for it on a thread of its own, from wherever.
fn apart<F: Future<Output: Send>>(work: impl FnOnce() -> F + Send) -> F::Output {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
