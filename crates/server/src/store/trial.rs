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

/// The server's role, which sees what a policy shows, and the one that owns the schema.
const ROLE: &str = "malote";
const OWNER: &str = "malote_owner";

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
                let (address, sql) = (super_of(address), sql.to_owned());
                apart(move || async move {
                    let done = client(&address).await.batch_execute(&sql).await;
                    done.map_err(|cause| format!("{cause:?}"))
                })
            }
        }
    }

    /// A role that may log in and nothing else, of a name that begins so and that no other test's has.
    pub(crate) fn role(&self, name: &str) -> String {
        let Self::Server(address) = self else { unreachable!("a file has no roles") };
        let name = format!("{name} {}", address.config().get_dbname().unwrap());
        self.run(&format!("CREATE ROLE \"{}\" LOGIN", name.replace('"', "\"\"")));
        name
    }

    /// As [`Self::try_run`], as that role.
    ///
    /// # Errors
    /// What the database says.
    pub(crate) fn try_run_as(&self, role: &str, sql: &str) -> Result<(), String> {
        let Self::Server(address) = self else { unreachable!("a file has no roles") };
        let (address, sql) = (as_role(address, role), sql.to_owned());
        apart(move || async move {
            let done = client(&address).await.batch_execute(&sql).await;
            done.map_err(|cause| format!("{cause:?}"))
        })
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
                let (address, sql) = (super_of(address), sql.to_owned());
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

/// A new database in this process's cluster, with the schema, for the server's role; another role owns it.
pub(crate) async fn made() -> Address {
    let url = servers::shared().await.unwrap();
    let config: Config = url.parse().unwrap();
    let (whole, connection) = config.connect(NoTls).await.unwrap();
    let driver = runtime::task::spawn("owner", connection);
    let name = config.get_dbname().unwrap();
    for role in [ROLE, OWNER] {
        let sql = format!(
            "DO $$ BEGIN CREATE ROLE {role} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        );
        whole.batch_execute(&sql).await.unwrap();
    }
    let sql = format!("ALTER DATABASE {name} OWNER TO {OWNER}");
    whole.batch_execute(&sql).await.unwrap();
    drop(whole);
    driver.join().await.unwrap().unwrap();
    let service = as_role(&Address::plain(config), ROLE);
    let owner = owner_of(&service);
    postgres::migrate(&owner).await.unwrap();
    postgres::grant(&owner, ROLE).await.unwrap();
    service
}

/// The same database for whoever owns it.
pub(crate) fn owner_of(service: &Address) -> Address {
    as_role(service, OWNER)
}

/// The same database for whom no policy holds.
fn super_of(service: &Address) -> Address {
    as_role(service, "postgres")
}

fn as_role(address: &Address, role: &str) -> Address {
    let mut config = address.config().clone();
    config.user(role);
    Address::plain(config)
}

/// As a configuration names it.
pub(crate) fn url(address: &Address) -> String {
    let user = address.config().get_user().unwrap_or_default();
    address.to_string().replacen("//", &format!("//{user}@"), 1)
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
