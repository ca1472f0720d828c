//! Trial: a store of its own for a test, in a SQLite file or, with `MALOTE_TEST_STORE=postgres`, in a database of a
//! PostgreSQL cluster that the process starts, under a role that is no superuser.
//!
//! Never: is compiled into the program.

#[path = "../../../sim/src/servers.rs"]
#[expect(
    dead_code,
    unreachable_pub,
    reason = "the simulator's starter of PostgreSQL, of which this takes a part"
)]
mod servers;

use std::path::{Path, PathBuf};

use runtime::postgres::Address;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use super::{Store, postgres, sqlite};

pub(crate) enum Database {
    File(PathBuf),
    Server(Box<Address>),
}

/// The store's role, which owns its schema and sees what a policy shows.
const ROLE: &str = "malote";

impl Database {
    pub(crate) fn new(folder: &Path) -> Self {
        if std::env::var_os("MALOTE_TEST_STORE").is_some_and(|engine| engine == "postgres") {
            return Self::Server(Box::new(apart(made)));
        }
        let path = folder.join("store.sqlite");
        sqlite::migrate(&path).unwrap();
        Self::File(path)
    }

    pub(crate) fn store(&self) -> Store {
        match self {
            Self::File(path) => Store::open(path).unwrap(),
            Self::Server(address) => {
                let address = Address::clone(address);
                apart(move || Store::connect(address)).unwrap()
            }
        }
    }

    pub(crate) const fn is_a_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    pub(crate) fn run(&self, sql: &str) {
        self.try_run(sql).unwrap();
    }

    /// # Errors
    /// What the engine says.
    pub(crate) fn try_run(&self, sql: &str) -> Result<(), String> {
        match self {
            Self::File(path) => {
                let connection = sqlite::connect(path, false).unwrap();
                connection.execute_batch(sql).map_err(|cause| cause.to_string())
            }
            Self::Server(address) => {
                let (address, sql) = (Address::clone(address), sql.to_owned());
                apart(move || async move {
                    let done = client(&address).await.batch_execute(&sql).await;
                    done.map_err(|cause| format!("{cause:?}"))
                })
            }
        }
    }

    /// The first column of the first row.
    pub(crate) fn first(&self, sql: &str) -> Option<String> {
        match self {
            Self::File(path) => {
                let connection = sqlite::connect(path, false).unwrap();
                let sql = format!("SELECT CAST(({sql}) AS TEXT)");
                connection.query_row(&sql, [], |row| row.get(0)).unwrap()
            }
            Self::Server(address) => {
                let (address, sql) = (Address::clone(address), sql.to_owned());
                apart(move || async move {
                    let told = client(&address).await.simple_query(&sql).await.unwrap();
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
pub(crate) async fn made() -> Address {
    let url = servers::shared().await.unwrap();
    let config: Config = url.parse().unwrap();
    let (owner, connection) = config.connect(NoTls).await.unwrap();
    let driver = runtime::task::spawn("owner", connection);
    let name = config.get_dbname().unwrap();
    let sql = format!(
        "DO $$ BEGIN CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
         ALTER DATABASE {name} OWNER TO {ROLE}"
    );
    owner.batch_execute(&sql).await.unwrap();
    drop(owner);
    driver.join().await.unwrap().unwrap();
    let mut config = config;
    config.user(ROLE);
    let address = Address::plain(config);
    postgres::migrate(&address).await.unwrap();
    address
}

/// As a configuration names it.
pub(crate) fn url(address: &Address) -> String {
    address.to_string().replacen("//", &format!("//{ROLE}@"), 1)
}

/// A look over every tenant's shoulder.
async fn client(address: &Address) -> Client {
    let (client, _driver) = address.dial().await.unwrap();
    client.batch_execute("SET search_path TO malote; SET malote.tenant TO '*'").await.unwrap();
    client
}

/// Waits for it on a thread of its own, from wherever.
pub(crate) fn apart<F: Future<Output: Send>>(work: impl FnOnce() -> F + Send) -> F::Output {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}
