use rusqlite::Connection;
use secrecy::SecretString;

use super::{
    super::{App, fixture::*},
    *,
};
use crate::model::{admin::Role, catalog::Holder};

/// A stream in the midst of a batch, as a sender leaves it whose server dies.
const SENDING: &str = "
    INSERT INTO ingest_stream (tenant_id, environment_id, erp, epoch, holder, nonce, expires_at, accept_seq, open_batch,
                               next_n, last_batch)
    SELECT tenant_id, id, 'RM', 7, '00000000-0000-4000-8000-000000000001', '00000000-0000-4000-8000-000000000002',
           9000000000000000, 0, 90, 2, 90 FROM environment;
    INSERT INTO batch (tenant_id, environment_id, erp, id, epoch, state, messages, row_count, byte_count, last_seq,
                       opened_at, last_at)
    SELECT tenant_id, id, 'RM', 90, 7, 'open', 1, 1, 1, 1, 1, 9000000000000000 FROM environment;";

fn store(data: &Path) -> Connection {
    let connection = Connection::open(data.join(STORE)).unwrap();
    connection.busy_timeout(std::time::Duration::from_secs(10)).unwrap();
    connection
}

fn number(data: &Path, sql: &str) -> i64 {
    store(data).query_row(sql, [], |row| row.get(0)).unwrap()
}

fn backup_order(data: &Path, to: &Path, with_key: bool) -> BackupOrder {
    BackupOrder { data: data.to_owned(), to: to.to_owned(), with_key }
}

fn restore_order(data: &Path, from: &Path) -> RestoreOrder {
    let (data, from) = (data.to_owned(), from.to_owned());
    RestoreOrder { data, from, replace: false, dry_run: false }
}

#[tokio::test]
async fn a_copy_made_beside_a_running_server_goes_on_with_numbers_that_were_never_given_out() {
    let running = Running::start().await;
    let (data, home) = (running.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let to = home.path().join("b");
    store(&data).execute_batch(SENDING).unwrap();
    let made = make(backup_order(&data, &to, false), "ana").await.unwrap();
    assert!(made.has(STORE) && !made.has(KEY), "{made:?}");
    assert_eq!(number(&data, "SELECT count(*) FROM audit WHERE action = 'store.backup'"), 1);
    // What happens after the copy.
    store(&data).execute_batch("UPDATE ingest_stream SET epoch = 9, open_batch = NULL").unwrap();
    let order = restore_order(&data, &to);
    assert_eq!(restore(order.clone(), "ana").await.unwrap_err().code, Code::StoreBusy);
    let (client, secret) = (running.client.clone(), running.secret.clone());
    let folder = running.folder;
    running.app.stop().await;
    assert_eq!(restore(order.clone(), "ana").await.unwrap_err().code, Code::AlreadyExists);
    let order = RestoreOrder { replace: true, ..order };
    let dry = restore(RestoreOrder { dry_run: true, ..order.clone() }, "ana").await.unwrap();
    assert_eq!((number(&data, "SELECT epoch FROM ingest_stream"), dry.former), (9, None));
    let restored = restore(order, "ana").await.unwrap();
    assert!(restored.knew && data.join(restored.former.clone().unwrap()).join(STORE).exists());
    let moved = restored.streams.first().unwrap();
    let gone_on = protocol::limits::RESTORE_EPOCHS.cast_signed() + 9;
    assert!(moved.to.epoch.0.cast_signed() >= gone_on, "{moved:?}");
    for (sql, wanted) in [
        ("SELECT holder IS NULL AND open_batch IS NULL AND expires_at = 0 FROM ingest_stream", 1),
        ("SELECT last_batch > 1700000000 FROM ingest_stream", 1),
        ("SELECT count(*) FROM batch WHERE state = 'abandoned'", 1),
        ("SELECT count(*) FROM cursor_pending", 0),
        ("SELECT count(*) FROM audit WHERE action = 'store.restore' AND who = 'ana'", 1),
    ] {
        assert_eq!(number(&data, sql), wanted, "{sql}");
    }
    let epoch = number(&data, "SELECT epoch FROM ingest_stream");
    assert_eq!(epoch, moved.to.epoch.0.cast_signed());
    // The key beside it opens what the copy has sealed, and its credentials hold.
    let app = App::start(&config(folder.path())).await.unwrap();
    let again = Running { folder, app, client, secret, ..running };
    assert!(!again.token().await.is_empty());
}

/// Stops the server of a fixture; its folder stays.
async fn stopped(running: Running) -> (tempfile::TempDir, PathBuf) {
    let folder = running.folder;
    running.app.stop().await;
    let data = folder.path().to_owned();
    (folder, data)
}

#[tokio::test]
async fn a_sender_without_sessions_goes_on_after_every_restore_of_one_copy() {
    let running = Running::start().await;
    let (home, now) = (tempfile::tempdir().unwrap(), Wall::now().seconds());
    let to = home.path().join("b");
    running.sent((now - 100, 1), &[&[("ID", "1"), ("N", "1")]]).await;
    // Unbound once and bound again: its epoch is not 0, and nobody ever had a session.
    let catalog = &running.app.services.catalog;
    catalog.unbind(&running.installation).await.unwrap();
    catalog.bind(&running.installation, running.place.environment).await.unwrap();
    let data = running.folder.path().to_owned();
    assert_eq!(number(&data, "SELECT epoch FROM ingest_stream"), 1);
    make(backup_order(&data, &to, false), "ana").await.unwrap();
    let Running { folder, app, tenant, installation, place, client, secret, web } = running;
    app.stop().await;
    for _ in 0..3 {
        let before = number(&data, "SELECT epoch FROM ingest_stream");
        let order = RestoreOrder { replace: true, ..restore_order(&data, &to) };
        restore(order, "ana").await.unwrap();
        let last = number(&data, "SELECT last_batch FROM ingest_stream");
        assert!((now..=Wall::now().seconds()).contains(&last), "{last} at {now}");
        assert!(number(&data, "SELECT epoch FROM ingest_stream") > before);
    }
    let app = App::start(&config(&data)).await.unwrap();
    let again = Running { folder, app, tenant, installation, place, client, secret, web };
    let next = Wall::now().seconds() + 1;
    again.sent((next, 1), &[&[("ID", "2"), ("N", "2")]]).await;
    let taken = format!("SELECT count(*) FROM batch WHERE id = {next}");
    assert_eq!(number(&data, &taken), 1, "its clock's number is taken");
}

#[tokio::test]
async fn a_stream_that_was_opened_after_the_copy_does_not_begin_anew() {
    let running = Running::start().await;
    let home = tempfile::tempdir().unwrap();
    let to = home.path().join("b");
    make(backup_order(running.folder.path(), &to, false), "ana").await.unwrap();
    let (_folder, data) = stopped(running).await;
    let ahead = Wall::now().seconds() + 500_000;
    let later = "00000000-0000-4000-8000-00000000000e";
    store(&data)
        .execute_batch(&format!(
            "{SENDING}
             UPDATE batch SET state = 'complete', closed_at = 1;
             UPDATE ingest_stream SET open_batch = NULL, last_batch = {ahead};
             INSERT INTO environment (tenant_id, id, name, type, created_at)
             SELECT tenant_id, '{later}', 'later', 'STAGING', 1 FROM environment;
             INSERT INTO ingest_stream (tenant_id, environment_id, erp, epoch)
             SELECT tenant_id, id, 'RM', 3 FROM environment WHERE name = 'later';"
        ))
        .unwrap();
    let order = RestoreOrder { replace: true, ..restore_order(&data, &to) };
    let dry = restore(RestoreOrder { dry_run: true, ..order.clone() }, "ana").await.unwrap();
    let restored = restore(order, "ana").await.unwrap();
    for outcome in [&dry, &restored] {
        assert_eq!(
            outcome.streams.len(),
            1,
            "an environment of after it is not there: {outcome:?}"
        );
    }
    let moved = restored.streams.first().unwrap();
    assert_eq!((moved.from.epoch.0, moved.to.last_batch.0), (0, ahead));
    assert!(moved.to.epoch.0 >= protocol::limits::RESTORE_EPOCHS + 7, "{moved:?}");
    let (epoch, last) = (moved.to.epoch.0.cast_signed(), moved.to.last_batch.0);
    let kept = format!(
        "SELECT count(*) FROM ingest_stream WHERE epoch = {epoch} AND last_batch = {last} AND holder IS NULL"
    );
    assert_eq!(number(&data, &kept), 1);
    App::start(&config(&data)).await.unwrap().stop().await;
}

#[tokio::test]
async fn who_was_shut_out_since_the_copy_stays_shut_out() {
    let running = Running::start().await;
    let (data, home) = (running.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let to = home.path().join("b");
    let access = running.app.services.access.clone();
    let holder = Holder::Installation(running.installation.id);
    let gone = access.create_credential(running.tenant.id, holder).await.unwrap();
    let stays = access.create_credential(running.tenant.id, holder).await.unwrap();
    running.admin("rui", Role::Operator, None).await;
    running.admin("eva", Role::Operator, None).await;
    make(backup_order(&data, &to, false), "ana").await.unwrap();
    let (client, left) = (&running.client, &gone.credential.client);
    for revoked in [client, left] {
        access.revoke_credential(running.tenant.id, revoked).await.unwrap();
    }
    access.revoke_admin_token("rui", "test").await.unwrap();
    // It went with its holder, as a revoked one does; the audit still knows.
    let sql = format!("DELETE FROM credential WHERE client_id = '{left}'");
    store(&data).execute_batch(&sql).unwrap();
    let wanted = [client, left].map(ToString::to_string);
    drop(access);
    let (_folder, data) = stopped(running).await;
    let order = RestoreOrder { replace: true, ..restore_order(&data, &to) };
    let dry = restore(RestoreOrder { dry_run: true, ..order.clone() }, "ana").await.unwrap();
    let restored = restore(order, "ana").await.unwrap();
    assert_eq!(dry.revoked, restored.revoked);
    let names: Vec<&str> = restored.revoked.iter().map(|found| found.name.as_str()).collect();
    assert!(wanted.iter().all(|name| names.contains(&name.as_str())), "{names:?}");
    assert!(names.len() == 3 && names.contains(&"rui test"), "{names:?}");
    for (sql, count) in [
        ("SELECT count(*) FROM credential WHERE revoked_at IS NOT NULL", 2),
        ("SELECT count(*) FROM admin_token WHERE revoked_at IS NOT NULL", 1),
        ("SELECT count(*) FROM audit WHERE action = 'credential.revoke' AND who = 'ana'", 2),
        (
            "SELECT count(*) FROM audit WHERE action = 'admin-token.revoke' AND target = 'rui test'",
            1,
        ),
    ] {
        assert_eq!(number(&data, sql), count, "{sql}");
    }
    let app = App::start(&config(&data)).await.unwrap();
    let held = SecretString::from(stays.reveal().to_owned());
    let access = &app.services.access;
    access.issue(stays.credential.client.as_str(), &held, Wall::now()).await.unwrap();
    let held = SecretString::from(gone.reveal().to_owned());
    let refused = access.issue(gone.credential.client.as_str(), &held, Wall::now()).await;
    assert_eq!(refused.map(drop).unwrap_err().code, Code::InvalidClient);
    app.stop().await;
}

#[tokio::test]
async fn a_copy_without_its_key_is_refused_before_anything_is_put_into_place() {
    let running = Running::start().await;
    let (data, home) = (running.folder.path(), tempfile::tempdir().unwrap());
    let (bare, whole) = (home.path().join("bare"), home.path().join("whole"));
    make(backup_order(data, &bare, false), "ana").await.unwrap();
    make(backup_order(data, &whole, true), "ana").await.unwrap();
    let again = make(backup_order(data, &whole, true), "ana").await.unwrap_err();
    assert_eq!(again.code, Code::AlreadyExists, "{again}");
    let fresh = home.path().join("fresh");
    let refused = restore(restore_order(&fresh, &bare), "ana").await.unwrap_err();
    assert_eq!(refused.code, Code::ConfigInvalid, "{refused}");
    assert!(refused.message.contains("master.key") && !fresh.join(STORE).exists(), "{refused}");
    restore(restore_order(&fresh, &whole), "ana").await.unwrap();
    App::start(&config(&fresh)).await.unwrap().stop().await;
    // Another server's key does not open it.
    let other = home.path().join("other");
    App::start(&config(&other)).await.unwrap().stop().await;
    let order = RestoreOrder { replace: true, ..restore_order(&other, &bare) };
    let refused = restore(order, "ana").await.unwrap_err();
    assert!(refused.message.contains("not the key file of this store"), "{refused}");
}

#[tokio::test]
async fn a_damaged_copy_changes_nothing_and_one_of_a_newer_program_is_told() {
    let running = Running::start().await;
    let (data, home) = (running.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let to = home.path().join("b");
    make(backup_order(&data, &to, true), "ana").await.unwrap();
    let fresh = home.path().join("fresh");
    let whole = fs::read(to.join(STORE)).unwrap();
    let mut torn = whole.clone();
    torn[5_000] ^= 1;
    fs::write(to.join(STORE), torn).unwrap();
    let refused = restore(restore_order(&fresh, &to), "ana").await.unwrap_err();
    assert_eq!((refused.code, fresh.exists()), (Code::BackupInvalid, false), "{refused}");
    fs::write(to.join(STORE), whole).unwrap();
    store(&to).pragma_update(None, "user_version", 9_999).unwrap();
    let manifest = backup::read(&to, OF).unwrap_err();
    assert_eq!(manifest.code, Code::BackupInvalid, "what was opened and changed is told");
    let entries = [STORE, KEY].map(|name| backup::entry(&to, name).unwrap());
    backup::seal(&to, &Manifest::new(OF, 9_999, entries.to_vec())).unwrap();
    let refused = restore(restore_order(&fresh, &to), "ana").await.unwrap_err();
    assert_eq!(refused.code, Code::StoreVersion, "{refused}");
}

#[tokio::test]
async fn nobody_opens_a_data_folder_in_which_a_restore_was_cut_off() {
    let running = Running::start().await;
    let (data, home) = (running.folder.path().to_owned(), tempfile::tempdir().unwrap());
    let to = home.path().join("b");
    make(backup_order(&data, &to, true), "ana").await.unwrap();
    let folder = running.folder;
    running.app.stop().await;
    fs::write(data.join("restore.pending"), r#"{"names":["store.sqlite"],"former":"former"}"#)
        .unwrap();
    let refused = App::start(&config(&data)).await.unwrap_err();
    assert_eq!(refused.code, Code::RestoreUnfinished, "{refused}");
    let refused = super::super::open(&config(&data)).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code, Code::RestoreUnfinished, "{refused}");
    let order = RestoreOrder { replace: true, ..restore_order(&data, &to) };
    assert_eq!(restore(order, "ana").await.unwrap_err().code, Code::RestoreUnfinished);
    assert!(finish(&data).unwrap());
    App::start(&config(folder.path())).await.unwrap().stop().await;
}
