use super::{fixture::*, *};

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
    sqlite::migrate(&config.store()).unwrap();
    let store = rusqlite::Connection::open(config.store()).unwrap();
    store.pragma_update(None, "user_version", 9_999).unwrap();
    assert_eq!(App::start(&config).await.unwrap_err().code, Code::StoreVersion);
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
