//! Backup of a server's data folder, and the way back.
//!
//! Promises: a backup is made beside a running server; staging files are copied before the store, so that what a copy of
//! staging lacks is in the ledger beside it; a restore checks all of a backup before it touches the data folder, and
//! puts all of it into place or nothing.
//! Never: restores under a running server; replaces a store that it was not told to replace; copies the master key
//! without being asked for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use protocol::{Code, Coded as _, Error, Result};
use runtime::{
    backup::{self, Entry, Manifest},
    clock::Wall,
    files,
};

use super::{lock, make_folder};
use crate::{
    service::access,
    store::{
        Store,
        sqlite::{
            self, State,
            backup::{self as copies, Steps},
        },
    },
};

pub use copies::{Moved, Revoked};

/// Whose backups these are, as their manifest says.
const OF: &str = "server";
const STORE: &str = "store.sqlite";
const STAGING: &str = "staging";
const KEY: &str = "master.key";
/// What stays free beside a copy.
const SPARE: u64 = 64 * 1024 * 1024;

/// What is to be copied and where to.
#[derive(Clone, Debug)]
pub struct BackupOrder {
    pub data: PathBuf,
    /// A folder that is empty or not there yet.
    pub to: PathBuf,
    /// The master key too: who has it and the copy can open every secret of the store.
    pub with_key: bool,
}

/// Makes a backup; a server may run meanwhile.
///
/// # Errors
/// `NOT_FOUND` where there is no store, `ALREADY_EXISTS`, `DISK_FULL`, `STORE_FAILED`, `BACKUP_INVALID` where the store
/// itself is damaged, `RESTORE_UNFINISHED`.
pub async fn make(order: BackupOrder, who: &str) -> Result<Manifest> {
    let store = order.data.join(STORE);
    backup::refuse_pending(&order.data)?;
    let state = sqlite::state(&store)?;
    if state == State::Empty {
        let words = format!("there is no store {}", store.display());
        return Err(Error::new(Code::NotFound, words));
    }
    backup::room(&order.to, backup::size(&order.data).saturating_add(SPARE))?;
    backup::begin(&order.to)?;
    if state == State::Current
        && let Err(error) = note(&store, who, &order.to).await
    {
        // A full disk is no reason against a copy on another one.
        tracing::warn!(code = %error.code, cause = error.cause(), "the audit does not tell of this backup");
    }
    let to = order.to.clone();
    let made = runtime::task::blocking(move || copy_all(&order)).await?;
    if made.is_err() {
        // What is there is no backup without its manifest.
        for name in [STORE, STAGING, KEY] {
            let path = to.join(name);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
    made
}

async fn note(store: &Path, who: &str, to: &Path) -> Result<()> {
    Store::open(store)?.by(who).note_backup(to.display().to_string()).await
}

fn copy_all(order: &BackupOrder) -> Result<Manifest> {
    let BackupOrder { data, to, with_key } = order;
    let mut entries = Vec::new();
    for name in staging_files(data)? {
        entries.push(copied(data, to, &name)?);
    }
    entries.push(copied(data, to, STORE)?);
    if *with_key {
        let words = || format!("cannot copy the key file {}", data.join(KEY).display());
        let key = fs::read(data.join(KEY)).coded(Code::StoreFailed, words())?;
        files::replace(&to.join(KEY), &key).coded(Code::StoreFailed, words())?;
        entries.push(backup::entry(to, KEY)?);
    }
    let manifest = Manifest::new(OF, sqlite::version(&to.join(STORE))?, entries);
    backup::seal(to, &manifest)?;
    Ok(manifest)
}

fn copied(data: &Path, to: &Path, name: &str) -> Result<Entry> {
    copies::copy(&data.join(name), &to.join(name)).map_err(|error| error.at(name))?;
    copies::check(&to.join(name))?;
    backup::entry(to, name)
}

/// Names of the staging files below the data folder, parts between slashes.
fn staging_files(data: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let words = || format!("cannot look into {}", data.join(STAGING).display());
    if !data.join(STAGING).exists() {
        return Ok(found);
    }
    for environment in fs::read_dir(data.join(STAGING)).coded(Code::StoreFailed, words())? {
        let environment = environment.coded(Code::StoreFailed, words())?;
        if !environment.path().is_dir() {
            continue;
        }
        for file in fs::read_dir(environment.path()).coded(Code::StoreFailed, words())? {
            let path = file.coded(Code::StoreFailed, words())?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.extension().is_some_and(|end| end == "sqlite") {
                let environment = environment.file_name().to_string_lossy().into_owned();
                found.push(format!("{STAGING}/{environment}/{name}"));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// What is to be put back and where.
#[derive(Clone, Debug)]
pub struct RestoreOrder {
    pub data: PathBuf,
    pub from: PathBuf,
    /// What stands in the data folder may be put aside.
    pub replace: bool,
    /// Tell what would be done, and do nothing.
    pub dry_run: bool,
}

/// What a restore did, or would do.
#[derive(Clone, Debug)]
pub struct Restored {
    pub manifest: Manifest,
    pub streams: Vec<Moved>,
    /// What lets somebody in by the copy, had been revoked in the store that was replaced, and is revoked again.
    pub revoked: Vec<Revoked>,
    /// Steps that brought the copy to this program's schema; for a dry run none is named.
    pub migrated: Vec<&'static str>,
    /// Folder in the data folder with what stood there; `None` for a dry run.
    pub former: Option<String>,
    /// A store was replaced, and its numbers could be read.
    pub knew: bool,
}

/// Puts a backup in the place of what a data folder holds. No server may run on it.
///
/// # Errors
/// `BACKUP_INVALID`, `STORE_BUSY`, `STORE_VERSION` for the copy of a newer program, `ALREADY_EXISTS`, `CONFIG_INVALID`
/// where the master key is missing or not the copy's, `DISK_FULL`, `STORE_FAILED`, `RESTORE_UNFINISHED`.
pub async fn restore(order: RestoreOrder, who: &str) -> Result<Restored> {
    let who = who.to_owned();
    runtime::task::blocking(move || restore_now(&order, &who)).await?
}

/// Goes on with a restore that was cut off; `false` where there is none.
///
/// # Errors
/// `STORE_BUSY`, `STORE_FAILED`.
pub fn finish(data: &Path) -> Result<bool> {
    if !backup::is_pending(data) {
        return Ok(false);
    }
    let _alone = lock(data)?;
    backup::finish(data)
}

fn restore_now(order: &RestoreOrder, who: &str) -> Result<Restored> {
    let RestoreOrder { data, from, replace, dry_run } = order;
    let manifest = backup::read(from, OF)?;
    for entry in manifest.files.iter().filter(|entry| entry.path != KEY) {
        copies::check(&from.join(&entry.path))?;
    }
    let store = from.join(STORE);
    match sqlite::state(&store)? {
        State::Current | State::Behind { .. } => {}
        State::Empty => {
            return Err(Error::new(Code::BackupInvalid, "it holds no store").at(from.display()));
        }
        State::Ahead { found } => {
            let words = format!("the copy has schema {found}, which this program does not know");
            return Err(Error::new(Code::StoreVersion, words).at(from.display()));
        }
    }
    if *dry_run && !data.exists() {
        copies_key(order, &manifest)?;
        return told(order, manifest, &copies::Replaced::default());
    }
    make_folder(data)?;
    let _alone = lock(data)?;
    backup::refuse_pending(data)?;
    if !replace && (data.join(STORE).exists() || data.join(STAGING).exists()) {
        let words = "there is a store already; --replace puts it aside";
        return Err(Error::new(Code::AlreadyExists, words).at(data.display()));
    }
    copies_key(order, &manifest)?;
    backup::room(data, manifest.bytes().saturating_mul(2).saturating_add(SPARE))?;
    // One that cannot be read has no say: it may be what the restore is for.
    let replaced = data.join(STORE).exists().then(|| copies::replaced(&data.join(STORE)));
    let knew = replaced.as_ref().is_some_and(|read| read.is_ok());
    let replaced = replaced.and_then(|read| read.ok()).unwrap_or_default();
    if *dry_run {
        return Ok(Restored { knew, ..told(order, manifest, &replaced)? });
    }
    let prepared = prepare_draft(order, &manifest, &replaced, who);
    let (Steps { streams, revoked }, migrated) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => {
            backup::forget(data);
            return Err(error);
        }
    };
    let key = manifest.has(KEY).then_some(KEY);
    let names: Vec<&str> = [STORE, STAGING].into_iter().chain(key).collect();
    // Nothing stood there: nothing was kept.
    let former = Some(backup::place(data, &names)?).filter(|former| data.join(former).exists());
    Ok(Restored { manifest, streams, revoked, migrated, former, knew })
}

/// The key that will lie beside the restored store opens what is sealed in it.
fn copies_key(order: &RestoreOrder, manifest: &Manifest) -> Result<()> {
    let beside = if manifest.has(KEY) { &order.from } else { &order.data };
    access::fits(beside, &copies::sealed_keys(&order.from.join(STORE))?)
}

/// What a restore would do.
fn told(order: &RestoreOrder, manifest: Manifest, replaced: &copies::Replaced) -> Result<Restored> {
    let Steps { streams, revoked } =
        copies::foreseen(&order.from.join(STORE), replaced, Wall::now())?;
    let (migrated, former, knew) = (Vec::new(), None, false);
    Ok(Restored { manifest, streams, revoked, migrated, former, knew })
}

/// Copies the backup beside what it will replace, and makes the copy fit to go on.
fn prepare_draft(
    order: &RestoreOrder,
    manifest: &Manifest,
    replaced: &copies::Replaced,
    who: &str,
) -> Result<(Steps, Vec<&'static str>)> {
    let draft = backup::draft(&order.data)?;
    for entry in &manifest.files {
        backup::fetch(&order.from, &draft, entry)?;
    }
    // Where nothing was staged an empty folder takes the place of what is.
    files::folder(&draft.join(STAGING)).coded(Code::StoreFailed, "cannot make a folder")?;
    let store = draft.join(STORE);
    let migrated = sqlite::migrate(&store)?;
    let from = order.from.display().to_string();
    let steps = copies::settle(&store, replaced, (who, &from), Wall::now())?;
    Ok((steps, migrated))
}

#[cfg(test)]
mod tests;
