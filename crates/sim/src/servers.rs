//! Servers: throw-away PostgreSQL clusters for the tests, on free ports, in folders of their own.
//!
//! Promises: a cluster ends and its folder goes with whoever started it, even where that process is killed: a small
//! shell waits on a pipe and cleans up when the pipe closes. Never runs as root. The first start of a machine makes a
//! template in the cache folder, later ones copy it.
//! Never: touches a server it did not start; passes in silence where PostgreSQL is missing (see [`available`]).

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{clock, config, entropy, task};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Waits for a word on its stdin: `QUIT` is a power cut (data stays), anything else or the end of the pipe a clean end.
const GUARD: &str = r#"folder=$1; shift
"$@" & server=$!
read word || word=END
case $word in
  QUIT) kill -QUIT $server; wait $server ;;
  STOP) kill -INT $server; wait $server ;;
  *) kill -INT $server; wait $server; cd /; rm -rf "$folder" ;;
esac"#;

const START_WAIT: Duration = Duration::from_secs(60);

/// A cluster of its own; ends when dropped.
#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    folder: TempDir,
    port: u16,
    /// `-c` settings over the defaults.
    settings: Vec<String>,
    variables: Vec<(String, String)>,
    guard: Option<Child>,
}

/// Folder of PostgreSQL's binaries.
///
/// # Errors
/// `NOT_FOUND` with what to install.
pub fn available() -> Result<PathBuf> {
    let named = Command::new("pg_config").arg("--bindir").output().ok();
    let named =
        named.map(|found| PathBuf::from(String::from_utf8_lossy(&found.stdout).trim().to_owned()));
    let mut places: Vec<PathBuf> = named.into_iter().collect();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|entry| entry.path().join("bin")).collect();
    installed.sort();
    places.extend(installed.into_iter().rev());
    places
        .into_iter()
        .find(|place| place.join("initdb").exists() && place.join("postgres").exists())
        .ok_or_else(|| {
            Error::new(
                Code::NotFound,
                "PostgreSQL's initdb and postgres are missing; install postgresql (./test.sh does)",
            )
        })
}

impl Postgres {
    /// Starts an empty cluster.
    ///
    /// # Errors
    /// Where PostgreSQL is missing or does not start; the words hold the end of its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`Postgres::start`], with settings (`name=value`) over the defaults, e.g. `fsync=on`.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_with(settings: &[&str]) -> Result<Self> {
        let binaries = available()?;
        let template = template(&binaries).await?;
        let folder = tempfile::Builder::new()
            .prefix("malote-pg-")
            .tempdir()
            .coded(Code::Internal, "no folder")?;
        let data = folder.path().join("data");
        let (from, to) = (template, folder.path().to_owned());
        task::blocking(move || {
            run(Command::new("cp").arg("-R").arg(&from).arg(&data))?;
            run(Command::new("chmod").arg("700").arg(&data))?;
            give_away(&to)
        })
        .await??;
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let variables = Vec::new();
        let mut server = Self { binaries, folder, port: 0, settings, variables, guard: None };
        let mut tries = 0;
        loop {
            // Somebody may take a free port before the server does, so a failed start is tried on another one.
            server.port = free_port()?;
            tries += 1;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) if tries == 3 => return Err(error),
                Err(_) => server.end("STOP").await?,
            }
        }
    }

    /// Address of a database, as the superuser.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    /// Address of a database, as that role; every role is trusted.
    #[must_use]
    pub fn url_as(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/{database}", self.port)
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Makes a database and gives its address.
    ///
    /// # Errors
    /// What the server says.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let client = connect(&self.url("postgres")).await?;
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\""))
            .await
            .coded(Code::Internal, format!("cannot create database {name}"))?;
        Ok(self.url(name))
    }

    /// Cuts the power: every process of the cluster ends at once, nothing is flushed (`immediate`).
    ///
    /// # Errors
    /// Where the server was not running.
    pub async fn stop_immediate(&mut self) -> Result<()> {
        self.end("QUIT").await
    }

    /// Starts the stopped cluster again, on the same port and data.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn restart(&mut self) -> Result<()> {
        if self.guard.is_some() {
            self.end("STOP").await?;
        }
        self.guard = Some(self.spawn()?);
        let begun = clock::Mono::now();
        loop {
            let fault = match connect(&self.url("postgres")).await {
                Ok(_) => return Ok(()),
                Err(fault) => fault,
            };
            let ended = self.pid_file_is_missing();
            if begun.elapsed() > START_WAIT || (ended && begun.elapsed() > Duration::from_secs(5)) {
                return Err(Error::new(
                    Code::Internal,
                    format!("PostgreSQL does not start: {}", self.log_end()),
                )
                .because(fault));
            }
            clock::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops the cluster and starts it in recovery, as a standby that nobody feeds; `pg_promote()` ends that.
    ///
    /// # Errors
    /// As [`Postgres::restart`].
    pub async fn follow(&mut self) -> Result<()> {
        self.end("STOP").await?;
        let mark = self.folder.path().join("data/standby.signal");
        fs::write(mark, "").coded(Code::Internal, "cannot mark the cluster as a standby")?;
        give_away(&self.folder.path().join("data/standby.signal"))?;
        self.restart().await
    }

    /// Ends the cluster cleanly, keeps a copy of it as it is now, and starts it again.
    ///
    /// # Errors
    /// As [`Postgres::restart`].
    pub async fn copied(&mut self) -> Result<()> {
        self.end("STOP").await?;
        let folder = self.folder.path().to_owned();
        task::blocking(move || copy(&folder.join("data"), &folder.join("copy"))).await??;
        self.restart().await
    }

    /// Ends the cluster and puts the copy in its place, as a restore does.
    ///
    /// # Errors
    /// As [`Postgres::restart`], or where there is no copy.
    pub async fn put_back(&mut self) -> Result<()> {
        self.end("STOP").await?;
        let folder = self.folder.path().to_owned();
        let done = task::blocking(move || {
            fs::remove_dir_all(folder.join("data")).coded(Code::Internal, "cannot remove")?;
            fs::rename(folder.join("copy"), folder.join("data")).coded(Code::Internal, "no copy")
        });
        done.await??;
        self.restart().await
    }

    /// Starts the copy as a second cluster beside this one, on a port of its own: a clone.
    ///
    /// # Errors
    /// As [`Postgres::start`], or where there is no copy.
    pub async fn clone_of_copy(&self) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("malote-pg-").tempdir();
        let folder = folder.coded(Code::Internal, "no folder")?;
        let (from, to) = (self.folder.path().join("copy"), folder.path().to_owned());
        task::blocking(move || {
            copy(&from, &to.join("data"))?;
            give_away(&to)
        })
        .await??;
        let (binaries, settings) = (self.binaries.clone(), self.settings.clone());
        let (port, variables) = (free_port()?, Vec::new());
        let mut clone = Self { binaries, folder, port, settings, variables, guard: None };
        clone.restart().await?;
        Ok(clone)
    }

    /// From its next start on it has these variables in its environment.
    pub fn under(&mut self, variables: Vec<(String, String)>) {
        self.variables = variables;
    }

    /// All that the server logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn pid_file_is_missing(&self) -> bool {
        !self.folder.path().join("data/postmaster.pid").exists()
    }

    fn spawn(&self) -> Result<Child> {
        let folder = self.folder.path();
        let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log"));
        let log = log.coded(Code::Internal, "cannot open the server's log")?;
        let log_too = log.try_clone().coded(Code::Internal, "cannot open the server's log")?;
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD, "guard"]).arg(folder).arg(self.binaries.join("postgres"));
        guard.arg("-D").arg(folder.join("data"));
        let address = [
            format!("port={}", self.port),
            format!("unix_socket_directories={}", folder.display()),
        ];
        let fixed =
            ["listen_addresses=127.0.0.1", "max_prepared_transactions=10", "shared_buffers=32MB"];
        // A killed server loses nothing that was written to a file, so fsync is only for tests about fsync.
        let quick = ["fsync=off", "full_page_writes=off", "max_connections=120"];
        let settings = address.iter().map(String::as_str).chain(fixed).chain(quick);
        for setting in settings.chain(self.settings.iter().map(String::as_str)) {
            guard.arg("-c").arg(setting);
        }
        guard
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(log_too)
            .envs(self.variables.iter().cloned())
            .current_dir(folder)
            .process_group(0);
        if let Some((user, group)) = other_user()? {
            guard.uid(user).gid(group);
        }
        guard.spawn().coded(Code::Internal, "cannot start PostgreSQL")
    }

    async fn end(&mut self, word: &str) -> Result<()> {
        let mut guard = self
            .guard
            .take()
            .ok_or_else(|| Error::new(Code::Internal, "the server is not running"))?;
        if let Some(stdin) = guard.stdin.as_mut() {
            writeln!(stdin, "{word}").coded(Code::Internal, "the server's guard is gone")?;
        }
        task::blocking(move || guard.wait())
            .await?
            .coded(Code::Internal, "the server's guard is lost")?;
        Ok(())
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines.iter().rev().take(8).rev().copied().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            drop(guard.stdin.take());
            // The folder must not go before the server has ended.
            let _ = guard.wait();
        }
    }
}

/// A folder with all that is in it, its owners and rights too.
fn copy(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(from).arg(to))
}

/// A database of its own in this process's shared cluster; it goes with the process.
///
/// # Errors
/// As [`Postgres::start`].
pub async fn shared() -> Result<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}", COUNT.fetch_add(1, Ordering::Relaxed));
    shared_server().await?.create_database(&name).await
}

/// This process's shared cluster.
///
/// # Errors
/// As [`Postgres::start`].
pub async fn shared_server() -> Result<&'static Postgres> {
    static SHARED: OnceCell<Postgres> = OnceCell::const_new();
    SHARED.get_or_try_init(Postgres::start).await
}

/// A connection whose driver runs as a task.
///
/// # Errors
/// What the server or the network says.
pub async fn connect(url: &str) -> Result<tokio_postgres::Client> {
    let connected = tokio_postgres::connect(url, tokio_postgres::NoTls).await;
    let (client, connection) = connected.coded(Code::Internal, "cannot connect to PostgreSQL")?;
    // The task ends with the client or the server; both are seen by the client's next call.
    drop(task::spawn("test connection", async move { drop(connection.await) }));
    Ok(client)
}

/// Where tests keep what may be kept between runs.
#[must_use]
pub fn cache_folder() -> PathBuf {
    let home = config::variable("HOME").unwrap_or_else(|| "/tmp".to_owned());
    config::variable("MALOTE_CACHE")
        .map_or_else(|| Path::new(&home).join(".cache/malote"), PathBuf::from)
}

/// This crate's folder, as the runner of the tests tells it: built tests that are cached may have been built in another
/// clone.
#[must_use]
pub fn crate_folder() -> PathBuf {
    config::variable("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from)
}

/// Ports that no outgoing connection gets, which would take one between its choice and whoever listens on it: they lie
/// below the range that systems take those from.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// A port nobody listens on now.
///
/// # Errors
/// Where the loopback interface is missing, or each of a hundred ports was taken.
pub fn free_port() -> Result<u16> {
    for _ in 0..100 {
        let port = PORTS.start + u16::from_le_bytes(entropy::bytes()) % (PORTS.end - PORTS.start);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err(Error::new(Code::Internal, "no free port"))
}

/// An initialised data folder, made once per machine and version.
async fn template(binaries: &Path) -> Result<PathBuf> {
    let binaries = binaries.to_owned();
    task::blocking(move || {
        let version = output(Command::new(binaries.join("postgres")).arg("--version"))?;
        let version: String =
            version.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let kept = cache_folder().join(format!("pg-template-{version}-1"));
        if kept.exists() {
            return Ok(kept);
        }
        let work = tempfile::Builder::new()
            .prefix("malote-initdb-")
            .tempdir()
            .coded(Code::Internal, "no folder")?;
        give_away(work.path())?;
        let mut init = Command::new(binaries.join("initdb"));
        init.args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--wal-segsize=4",
        ]);
        init.arg("-D").arg(work.path().join("data")).current_dir(work.path());
        if let Some((user, group)) = other_user()? {
            init.uid(user).gid(group);
        }
        run(&mut init)?;
        fs::create_dir_all(cache_folder()).coded(Code::Internal, "cannot make the cache folder")?;
        let half = cache_folder().join(format!("pg-template-{}", entropy::uuid()));
        run(Command::new("cp").arg("-R").arg(work.path().join("data")).arg(&half))?;
        // Another process may have been quicker; its template is as good.
        if fs::rename(&half, &kept).is_err() {
            fs::remove_dir_all(&half).coded(Code::Internal, "cannot clean up")?;
        }
        Ok(kept)
    })
    .await?
}

/// The user that runs PostgreSQL where the tests run as root, which PostgreSQL refuses.
fn other_user() -> Result<Option<(u32, u32)>> {
    let number = |args: &[&str]| -> Result<u32> {
        let text = output(Command::new("id").args(args))?;
        text.trim().parse().coded(Code::Internal, "id gives no number")
    };
    if number(&["-u"])? != 0 {
        return Ok(None);
    }
    Ok(Some((number(&["-u", "postgres"])?, number(&["-g", "postgres"])?)))
}

fn give_away(folder: &Path) -> Result<()> {
    match other_user()? {
        None => Ok(()),
        Some((user, group)) => {
            run(Command::new("chown").arg("-R").arg(format!("{user}:{group}")).arg(folder))
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

fn output(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command
        .stdin(Stdio::null())
        .output()
        .coded(Code::Internal, format!("cannot run {name}"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(Error::new(
        Code::Internal,
        format!("{name} failed: {}", String::from_utf8_lossy(&done.stderr).trim()),
    ))
}
