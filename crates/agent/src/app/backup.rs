//! Backup of an agent's data folder, and the way back.
//!
//! Promises: a backup is made beside a running agent; a restored journal sends nothing of its day; a restore checks all
//! of a backup, and that its sealed secrets open under the key they will lie beside, before it touches the data folder,
//! and puts all of it into place or nothing.
//! Never: is needed for the rows, which the ERP and the server hold; copies a key without being asked for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    backup::{self, Manifest},
    clock::Wall,
    files,
};

use crate::{
    config::{MASK_KEY_FILE, vault},
    journal::backup as journal,
};

/// Whose backups these are, as their manifest says.
const OF: &str = "agent";
/// What stays free beside a copy.
const SPARE: u64 = 64 * 1024 * 1024;

/// What is to be copied and where to.
#[derive(Clone, Debug)]
pub struct BackupOrder {
    pub data: PathBuf,
    /// A folder that is empty or not there yet.
    pub to: PathBuf,
    /// The keys too: of the sealed secrets, and of hashed columns.
    pub with_keys: bool,
    /// Where the configuration names the key of hashed columns, if it does.
    pub mask_key_file: Option<PathBuf>,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub manifest: Manifest,
    /// The key of hashed columns, where keys were asked for and it lies outside of the data folder: it is its owner's to
    /// keep, agents may share it.
    pub left: Option<PathBuf>,
}

/// Makes a backup; an agent may run meanwhile.
///
/// # Errors
/// `NOT_FOUND` where there is no journal, `ALREADY_EXISTS`, `DISK_FULL`, `JOURNAL_FAILED`, `BACKUP_INVALID` where the
/// journal itself is damaged, `RESTORE_UNFINISHED`.
pub async fn make(order: BackupOrder) -> Result<Made> {
    runtime::task::blocking(move || make_now(&order)).await?
}

fn make_now(order: &BackupOrder) -> Result<Made> {
    let BackupOrder { data, to, with_keys, mask_key_file } = order;
    backup::refuse_pending(data)?;
    if !data.join(journal::FILE).exists() {
        let words = format!("there is no journal {}", data.join(journal::FILE).display());
        return Err(Error::new(Code::NotFound, words));
    }
    backup::room(to, backup::size(data).saturating_add(SPARE))?;
    backup::begin(to)?;
    let made = copy_all(data, to, *with_keys);
    if made.is_err() {
        // What is there is no backup without its manifest.
        for name in names() {
            let _ = fs::remove_file(to.join(name));
        }
    }
    let own = fs::canonicalize(data.join(MASK_KEY_FILE)).ok();
    let is_own = |path: &PathBuf| {
        *path == data.join(MASK_KEY_FILE) || own.is_some() && fs::canonicalize(path).ok() == own
    };
    let left = mask_key_file.clone().filter(|path| *with_keys && !is_own(path));
    Ok(Made { manifest: made?, left })
}

/// Everything a backup may hold.
fn names() -> [&'static str; 4] {
    [journal::FILE, vault::FILE, vault::KEY_FILE, MASK_KEY_FILE]
}

fn copy_all(data: &Path, to: &Path, with_keys: bool) -> Result<Manifest> {
    journal::copy(&data.join(journal::FILE), &to.join(journal::FILE))?;
    let schema = journal::check(&to.join(journal::FILE))?;
    let mut entries = vec![backup::entry(to, journal::FILE)?];
    let [_, sealed, keys @ ..] = names();
    let keys = keys.into_iter().filter(|_| with_keys);
    for name in std::iter::once(sealed).chain(keys).filter(|name| data.join(name).exists()) {
        let words = || format!("cannot copy {}", data.join(name).display());
        let bytes = fs::read(data.join(name)).coded(Code::JournalFailed, words())?;
        files::replace(&to.join(name), &bytes).coded(Code::JournalFailed, words())?;
        entries.push(backup::entry(to, name)?);
    }
    let manifest = Manifest::new(OF, schema, entries);
    backup::seal(to, &manifest)?;
    Ok(manifest)
}

/// What is to be put back and where.
#[derive(Clone, Debug)]
pub struct RestoreOrder {
    pub data: PathBuf,
    pub from: PathBuf,
    /// What stands in the data folder may be put aside.
    pub replace: bool,
    /// Check, and do nothing.
    pub dry_run: bool,
}

/// Puts a backup in the place of what a data folder holds; gives the manifest, and the folder in the data folder with
/// what stood there (`None` for a dry run). No agent may run on it.
///
/// # Errors
/// `BACKUP_INVALID`, `STORE_BUSY`, `STORE_VERSION`, `ALREADY_EXISTS`, `CONFIG_INVALID` where the key of the sealed secrets
/// is missing or not theirs, `DISK_FULL`, `JOURNAL_FAILED`, `RESTORE_UNFINISHED`.
pub async fn restore(order: RestoreOrder) -> Result<(Manifest, Option<String>)> {
    runtime::task::blocking(move || restore_now(&order)).await?
}

/// Goes on with a restore that was cut off; `false` where there is none.
///
/// # Errors
/// `STORE_BUSY`, `STORE_FAILED`.
pub fn finish(data: &Path) -> Result<bool> {
    if !backup::is_pending(data) {
        return Ok(false);
    }
    let _alone = journal::hold(data)?;
    backup::finish(data)
}

fn restore_now(order: &RestoreOrder) -> Result<(Manifest, Option<String>)> {
    let RestoreOrder { data, from, replace, dry_run } = order;
    let manifest = backup::read(from, OF)?;
    if !manifest.has(journal::FILE) {
        let words = "it holds no journal";
        return Err(Error::new(Code::BackupInvalid, words).at(from.display()));
    }
    journal::check(&from.join(journal::FILE)).map_err(|error| error.at(from.display()))?;
    keys_fit(order, &manifest)?;
    if *dry_run && !data.exists() {
        return Ok((manifest, None));
    }
    let _alone = journal::hold(data)?;
    backup::refuse_pending(data)?;
    if !replace && data.join(journal::FILE).exists() {
        let words = "there is a journal already; --replace puts it aside";
        return Err(Error::new(Code::AlreadyExists, words).at(data.display()));
    }
    backup::room(data, manifest.bytes().saturating_mul(2).saturating_add(SPARE))?;
    if *dry_run {
        return Ok((manifest, None));
    }
    let prepared = (|| {
        let draft = backup::draft(data)?;
        for entry in &manifest.files {
            backup::fetch(from, &draft, entry)?;
        }
        journal::settle(&draft.join(journal::FILE), Wall::now())
    })();
    if let Err(error) = prepared {
        backup::forget(data);
        return Err(error);
    }
    let names: Vec<&str> = names().into_iter().filter(|name| manifest.has(name)).collect();
    let former = backup::place(data, &names)?;
    Ok((manifest, Some(former)))
}

/// The key that will lie beside the sealed secrets opens them, whichever of the two comes from the backup.
fn keys_fit(order: &RestoreOrder, manifest: &Manifest) -> Result<()> {
    let (sealed, key) = (vault::FILE, vault::KEY_FILE);
    if !manifest.has(sealed) && !manifest.has(key) {
        return Ok(());
    }
    let of = |name: &str| match manifest.has(name) {
        true => order.from.join(name),
        false => order.data.join(name),
    };
    vault::fits(&of(sealed), &of(key))
}

#[cfg(test)]
mod tests {
    use protocol::{
        hash::RowHash,
        ids::{BatchId, Epoch},
        key::KeyBytes,
        names::TableName,
    };

    use super::*;
    use crate::{
        config::vault::Vault,
        journal::{Grant, Journal},
    };

    fn orders(home: &Path) -> (BackupOrder, RestoreOrder) {
        let (data, to) = (home.join("data"), home.join("backup"));
        let restore =
            RestoreOrder { data: data.clone(), from: to.clone(), replace: true, dry_run: false };
        (BackupOrder { data, to, with_keys: false, mask_key_file: None }, restore)
    }

    fn seal(data: &Path, value: &str) {
        let value = value.to_owned().into();
        Vault::of(data).set(&"erp".parse().unwrap(), &value, Wall::now()).unwrap();
    }

    fn table() -> TableName {
        "FLAN".parse().unwrap()
    }

    /// A journal that was granted a session, opened a batch and knows a row.
    async fn working(data: &Path) -> Journal {
        let (journal, _) = Journal::open(data).await.unwrap();
        let cursors = [(table(), b"place".to_vec())].into();
        let grant = Grant { epoch: Epoch(7), last_batch: BatchId(90), cursors };
        journal.grant(grant, Wall::now()).await.unwrap();
        let mut key = KeyBytes::default();
        key.push("1");
        journal.known_load(&table(), vec![(key, RowHash([1; 16]))]).await.unwrap();
        journal.open_batch(Epoch(7), BatchId(91), Wall::now()).await.unwrap();
        journal
    }

    async fn closed(journal: Journal, data: &Path) {
        drop(journal);
        // The file closes a moment after the last handle went; the lock says when.
        let data = data.to_owned();
        runtime::task::blocking(move || journal::hold(&data).map(drop)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_restored_journal_knows_and_sends_nothing_of_its_day_and_is_a_new_instance() {
        let home = tempfile::tempdir().unwrap();
        let (backup, restore_order) = orders(home.path());
        let running = working(&backup.data).await;
        let (before, data) = (running.instance(), backup.data.clone());
        let made = make(backup).await.unwrap().manifest;
        assert_eq!((made.of.as_str(), made.files.len()), ("agent", 1));
        assert_eq!(restore(restore_order.clone()).await.unwrap_err().code, Code::StoreBusy);
        closed(running, &data).await;
        let kept = RestoreOrder { replace: false, ..restore_order.clone() };
        assert_eq!(restore(kept).await.unwrap_err().code, Code::AlreadyExists);
        let dry = RestoreOrder { dry_run: true, ..restore_order.clone() };
        assert_eq!(restore(dry).await.unwrap().1, None);
        let begun = Wall::now().seconds();
        let (_, former) = restore(restore_order).await.unwrap();
        assert!(data.join(former.unwrap()).join(journal::FILE).exists());
        let (restored, _) = Journal::open(&data).await.unwrap();
        assert_ne!(restored.instance(), before, "two of one instance would stop each other");
        assert_eq!(restored.last_epoch().await.unwrap(), None, "it asks for a session of its own");
        assert_eq!(restored.spool().borrow().batch, None);
        assert_eq!(restored.known_count(&table()).await.unwrap(), 0);
        // For a server without sessions these are the only copy. Batches of since have numbers that it does not know.
        let last = restored.last_batch().await.unwrap().unwrap();
        assert!((begun..=Wall::now().seconds()).contains(&last.0), "{last:?} at {begun}");
        assert_eq!(restored.cursors().await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_damaged_copy_is_refused_and_what_is_there_stays() {
        let home = tempfile::tempdir().unwrap();
        let (backup, restore_order) = orders(home.path());
        let (data, to) = (backup.data.clone(), backup.to.clone());
        let running = working(&data).await;
        make(backup).await.unwrap();
        let instance = running.instance();
        closed(running, &data).await;
        fs::write(to.join(journal::FILE), "torn").unwrap();
        assert_eq!(restore(restore_order).await.unwrap_err().code, Code::BackupInvalid);
        let (journal, _) = Journal::open(&data).await.unwrap();
        assert_eq!(journal.instance(), instance);
    }

    #[tokio::test]
    async fn sealed_secrets_are_not_put_beside_a_key_that_does_not_open_them() {
        let home = tempfile::tempdir().unwrap();
        let (backup, restore_order) = orders(home.path());
        let data = backup.data.clone();
        closed(working(&data).await, &data).await;
        seal(&data, "one");
        let whole =
            BackupOrder { with_keys: true, to: home.path().join("whole"), ..backup.clone() };
        make(backup).await.unwrap();
        make(whole.clone()).await.unwrap();
        let fresh = RestoreOrder { data: home.path().join("fresh"), ..restore_order.clone() };
        for dry_run in [true, false] {
            let order = RestoreOrder { dry_run, ..fresh.clone() };
            let refused = restore(order).await.unwrap_err();
            assert_eq!(refused.code, Code::ConfigInvalid, "{refused}");
            assert!(refused.message.contains("secrets.key") && !fresh.data.exists(), "{refused}");
        }
        // Another key was made since, and what is sealed now is sealed under that one.
        for name in [vault::FILE, vault::KEY_FILE] {
            fs::remove_file(data.join(name)).unwrap();
        }
        seal(&data, "two");
        let there = fs::read(data.join(vault::FILE)).unwrap();
        let refused = restore(restore_order.clone()).await.unwrap_err();
        assert!(refused.code == Code::ConfigInvalid && refused.message.contains("another key"));
        assert_eq!(fs::read(data.join(vault::FILE)).unwrap(), there, "nothing was touched");
        // With its own key it is whole.
        restore(RestoreOrder { from: whole.to.clone(), ..restore_order }).await.unwrap();
        let opened = fs::read(data.join(vault::KEY_FILE)).unwrap();
        assert_eq!(opened, fs::read(whole.to.join(vault::KEY_FILE)).unwrap());
        restore(RestoreOrder { from: whole.to, ..fresh }).await.unwrap();
    }

    #[tokio::test]
    async fn a_key_of_hashed_columns_that_lies_elsewhere_is_told_and_not_copied() {
        let home = tempfile::tempdir().unwrap();
        let (backup, _) = orders(home.path());
        let data = backup.data.clone();
        closed(working(&data).await, &data).await;
        fs::write(data.join(MASK_KEY_FILE), "key").unwrap();
        let left = async |with_keys: bool, named: &Path| {
            let to = home.path().join(format!("{with_keys}-{}", named.components().count()));
            let (to, mask_key_file) = (to, Some(named.to_owned()));
            make(BackupOrder { to, with_keys, mask_key_file, ..backup.clone() }).await.unwrap().left
        };
        let elsewhere = home.path().join("mask.key");
        assert_eq!(left(true, &elsewhere).await, Some(elsewhere.clone()));
        assert_eq!(left(false, &elsewhere).await, None);
        assert_eq!(left(true, &data.join(MASK_KEY_FILE)).await, None, "that one is copied");
    }

    #[tokio::test]
    async fn a_folder_in_which_a_restore_was_cut_off_is_not_opened() {
        let home = tempfile::tempdir().unwrap();
        let (backup, _) = orders(home.path());
        let data = backup.data;
        closed(working(&data).await, &data).await;
        fs::write(data.join("restore.pending"), r#"{"names":[],"former":"former"}"#).unwrap();
        assert_eq!(Journal::open(&data).await.unwrap_err().code, Code::RestoreUnfinished);
        assert!(finish(&data).unwrap() && !finish(&data).unwrap());
        Journal::open(&data).await.unwrap();
    }
}
