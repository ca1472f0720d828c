use super::{fixture::*, *};
use crate::store::trial;

#[tokio::test]
async fn a_data_folder_has_one_server_and_a_taken_port_is_told() {
    let running = Running::start().await;
    let again = App::start(&config(running.folder.path())).await.unwrap_err();
    assert_eq!(again.code, Code::StoreBusy, "{again}");
    let elsewhere = tempfile::tempdir().unwrap();
    let taken = ServerConfig { http_listen: running.app.http, ..config(elsewhere.path()) };
    let error = App::start(&taken).await.unwrap_err();
    assert_eq!(error.code, Code::AddressInUse, "{error}");
    assert!(error.message.contains("http_listen"), "{error}");
    let folder = running.folder;
    running.app.stop().await;
    App::start(&config(folder.path())).await.unwrap().stop().await;
}

#[tokio::test]
async fn who_only_looks_at_a_data_folder_keeps_no_server_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let looking = lock(&data).unwrap();
    let starting = task::spawn("start", async move { alone(&data).await.map(drop) });
    let begun = runtime::clock::Mono::now();
    while !starting.is_finished() && begun.elapsed() < Duration::from_millis(200) {
        runtime::clock::sleep(Duration::from_millis(10)).await;
    }
    drop(looking);
    starting.join().await.unwrap().unwrap();
}

#[tokio::test]
async fn a_public_address_that_is_private_is_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let error = App::start(&ServerConfig { allow_private: false, ..config(folder.path()) })
        .await
        .unwrap_err();
    assert_eq!(error.code, Code::AddressRefused, "{error}");
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    sqlite::migrate(&config.store_file()).unwrap();
    let store = rusqlite::Connection::open(config.store_file()).unwrap();
    store.pragma_update(None, "user_version", 9_999).unwrap();
    assert_eq!(App::start(&config).await.unwrap_err().code, Code::StoreVersion);
}

/// A configuration of that data folder and that database.
fn over(data: &Path, url: String) -> ServerConfig {
    let store = crate::config::StoreConfig { url, ..Default::default() };
    ServerConfig { store, ..config(data) }
}

#[tokio::test]
async fn a_server_over_a_database_gives_tokens_and_accepts_writes() {
    let folder = tempfile::tempdir().unwrap();
    let address = trial::apart(trial::made);
    let config = over(folder.path(), trial::url(&address));
    let running = Running::start_with(folder, &config).await;
    assert!(!running.token().await.is_empty());
    running.sent((100, 1), &[&[("ID", "1"), ("S", "a")]]).await;
    let database = trial::Database::Server(Box::new(address));
    let first = |sql: &str| database.first(sql).unwrap();
    assert_eq!(first("SELECT count(*) FROM ingest_message"), "1");
    assert_eq!(first("SELECT name FROM tenant"), "Loja");
    assert!(!config.store_file().exists(), "nothing is kept in a file beside it");
    assert!(config.data.join("master.key").exists());
    // The command line works with the same store, beside the server.
    let services = open(&config).await.unwrap();
    assert_eq!(services.catalog.tenant("").await.unwrap().id, running.tenant.id);
    let again = App::start(&config).await.unwrap_err();
    assert_eq!(again.code, Code::StoreBusy, "{again}");
    running.app.stop().await;
}

#[tokio::test]
async fn a_database_is_made_ready_by_command_alone_and_its_errors_name_it() {
    let folder = tempfile::tempdir().unwrap();
    let address = trial::owner_of(&trial::apart(trial::made));
    let url = trial::url(&address);
    trial::Database::Server(Box::new(address.clone())).run("DROP SCHEMA malote CASCADE");
    let config = over(folder.path(), url.clone());
    let bare = App::start(&config).await.unwrap_err();
    assert_eq!(bare.code, Code::StoreVersion, "{bare}");
    assert!(bare.message.starts_with(&address.to_string()), "{bare}");
    let site = config.site().unwrap();
    assert_eq!(site.state().await.unwrap(), State::Empty, "a start makes nothing");
    assert!(!site.migrate().await.unwrap().is_empty());
    assert_eq!(site.state().await.unwrap(), State::Current);
    assert!(site.migrate().await.unwrap().is_empty(), "nothing is done twice");
    App::start(&config).await.unwrap().stop().await;
    let absent = App::start(&over(folder.path(), format!("{url}x"))).await.unwrap_err();
    assert_eq!(absent.code, Code::StoreFailed, "{absent}");
    assert!(absent.message.contains("there is no such database"), "{absent}");
}

#[tokio::test]
async fn a_store_moves_into_a_database_and_its_senders_notice_nothing() {
    let running = Running::start().await;
    running.sent((100, 1), &[&[("ID", "1"), ("S", "a")]]).await;
    let address = trial::owner_of(&trial::apart(trial::made));
    let to = over(running.folder.path(), trial::url(&address));
    let busy = copy::store(&to, false, "ana").await.unwrap_err();
    assert_eq!(busy.code, Code::StoreBusy, "a server runs: {busy}");
    let Running { folder, app, tenant, installation, place, client, secret, web } = running;
    app.stop().await;
    let foreseen = copy::store(&to, true, "ana").await.unwrap();
    let database = trial::Database::Server(Box::new(address));
    assert_eq!(database.first("SELECT count(*) FROM tenant").unwrap(), "0", "a dry run");
    let copied = copy::store(&to, false, "ana").await.unwrap();
    assert_eq!(copied, foreseen);
    let rows = |table: &str| copied.iter().find(|copied| copied.table == table).unwrap().rows;
    assert_eq!((rows("tenant"), rows("ingest_message"), rows("entity")), (1, 1, 2), "{copied:?}");
    assert!(to.store_file().exists(), "the file stays");
    let app = App::start(&to).await.unwrap();
    let running = Running { folder, app, tenant, installation, place, client, secret, web };
    assert!(!running.token().await.is_empty(), "the secret of before is in force");
    running.sent((100, 2), &[&[("ID", "2"), ("S", "b")]]).await;
    assert_eq!(database.first("SELECT count(*) FROM ingest_message").unwrap(), "2");
    assert_eq!(database.first("SELECT count(DISTINCT batch) FROM ingest_message").unwrap(), "1");
    running.app.stop().await;
}

#[tokio::test]
async fn a_copy_needs_a_store_and_a_database_that_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let file = config(folder.path());
    let unnamed = copy::store(&file, true, "ana").await.unwrap_err();
    assert_eq!(unnamed.code, Code::ConfigInvalid);
    assert!(unnamed.message.contains("store.url"), "{unnamed}");
    let address = trial::owner_of(&trial::apart(trial::made));
    let to = over(folder.path(), trial::url(&address));
    let none = copy::store(&to, false, "ana").await.unwrap_err();
    assert_eq!(none.code, Code::NotFound, "{none}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is made");
    sqlite::migrate(&to.store_file()).unwrap();
    trial::Database::Server(Box::new(address.clone())).run("DROP SCHEMA malote CASCADE");
    for dry_run in [true, false] {
        let bare = copy::store(&to, dry_run, "ana").await.unwrap_err();
        assert_eq!(bare.code, Code::StoreVersion, "{bare}");
        assert!(bare.message.starts_with(&address.to_string()), "{bare}");
    }
}

#[tokio::test]
async fn run_ends_when_the_drain_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (trigger, shutdown) = shutdown::channel();
    let running = task::spawn("run", run(config(folder.path()), shutdown));
    trigger.drain();
    tokio::time::timeout(CLOSE, running.join())
        .await
        .expect("a drain without calls is short")
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_drain_waits_for_the_longest_call() {
    let running = Running::start().await;
    let call = running.app.calls.begin().unwrap();
    tokio::time::pause();
    let stopping = task::spawn("stop", running.app.stop());
    for _ in 0..limits::CALL_TIMEOUT.as_secs() {
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(!stopping.is_finished(), "a call may take that long");
    drop(call);
    stopping.join().await.unwrap();
}

#[tokio::test]
async fn what_another_process_changes_is_seen_by_the_running_server() {
    let running = Running::start().await;
    let other = Services::open(running.folder.path(), String::new()).await.unwrap();
    let holder = crate::model::catalog::Holder::Installation(running.installation.id);
    let (client, secret) =
        told(other.access.create_credential(running.tenant.id, holder).await.unwrap());
    assert!(!running.token_of(&client, &secret).await.is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_may_read_the_data_and_what_was_open_to_others_is_tightened() {
    use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

    fn below(folder: &Path, found: &mut Vec<(PathBuf, u32)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            found.push((entry.path(), entry.metadata().unwrap().permissions().mode() & 0o777));
            if entry.path().is_dir() {
                below(&entry.path(), found);
            }
        }
    }

    let home = tempfile::tempdir().unwrap();
    let config = config(&home.path().join("server-data"));
    let all_private = |files: usize| {
        let mut found = Vec::new();
        below(home.path(), &mut found);
        for (path, mode) in &found {
            let expected = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(*mode, expected, "{} has mode {mode:o}", path.display());
        }
        let count = found.iter().filter(|(path, _)| path.is_file()).count();
        assert!(count >= files, "{found:?}");
        found
    };
    let app = App::start(&config).await.unwrap();
    let stream = crate::model::stream::StreamId {
        tenant: protocol::ids::TenantId(runtime::entropy::uuid()),
        environment: protocol::ids::EnvironmentId(runtime::entropy::uuid()),
        erp: "RM".parse().unwrap(),
    };
    app.services.staging.apply(&stream, runtime::clock::Wall::now()).await.unwrap();
    // Lock, key, store and staging file, the latter two with what SQLite keeps beside them.
    let found = all_private(8);
    app.stop().await;
    for (path, _) in found.iter().filter(|(path, _)| !path.ends_with("master.key")) {
        let open = if path.is_dir() { 0o700 } else { 0o644 };
        // What SQLite keeps beside a store goes with its last connection, which may still be closing.
        match fs::set_permissions(path, fs::Permissions::from_mode(open)) {
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => {}
            set => set.unwrap(),
        }
    }
    let app = App::start(&config).await.unwrap();
    app.services.staging.apply(&stream, runtime::clock::Wall::now()).await.unwrap();
    all_private(4);
    app.stop().await;
}
