//! Backup: a folder of copies with a manifest that tells what they are, and the way back into a data folder.
//!
//! Promises: a folder without a whole manifest is no backup; every file of one is compared with its size and SHA-256
//! before anything is put into place; what is put into place is all there or, after a cut, told and gone on with; a cut
//! of the power is one too.
//! Never: knows what is in a file; takes a path of a manifest that leads out of its folder.

use std::{
    fs,
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use protocol::{Code, Coded as _, Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};

use crate::{clock::Wall, files};

/// Name of the manifest in a backup.
pub const MANIFEST: &str = "manifest.json";
/// Version of the manifest's form.
const FORMAT: u32 = 1;
/// A manifest of a thousand staging files has some hundred KB.
const MANIFEST_BYTES: u64 = 16 * 1024 * 1024;

/// A file is read in parts of this size.
const PART: usize = 1024 * 1024;

/// In a data folder: what is to be put into place, and the mark that it is being put there.
const DRAFT: &str = "restore.new";
const PENDING: &str = "restore.pending";

/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What a backup holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Version of this form.
    pub format: u32,
    /// Whose data folder it is of: `server` or `agent`.
    pub of: String,
    /// Version of the program that made it.
    pub program: String,
    /// Number of the database's schema.
    pub schema: u32,
    /// ISO 8601 with `Z`.
    pub made_at: String,
    pub files: Vec<Entry>,
}

/// One file of a backup.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Below the backup's folder, parts between slashes.
    pub path: String,
    pub bytes: u64,
    /// 64 hex digits.
    pub sha256: String,
}

impl Manifest {
    #[must_use]
    pub fn new(of: &str, schema: u32, entries: Vec<Entry>) -> Self {
        Self {
            format: FORMAT,
            of: of.to_owned(),
            program: env!("CARGO_PKG_VERSION").to_owned(),
            schema,
            made_at: Wall::now().to_iso(),
            files: entries,
        }
    }

    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|entry| entry.bytes).sum()
    }

    /// Whether that file is in it.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        self.files.iter().any(|entry| entry.path == path)
    }
}

fn bad(folder: &Path, words: impl Into<String>) -> Error {
    Error::new(Code::BackupInvalid, words).at(format!("backup {}", folder.display()))
}

/// Makes the folder of a backup; one that holds anything is not written into.
///
/// # Errors
/// `ALREADY_EXISTS`, `STORE_FAILED`.
pub fn begin(folder: &Path) -> Result<()> {
    let failed = || format!("cannot make the folder {}", folder.display());
    files::folder(folder).coded(Code::StoreFailed, failed())?;
    if fs::read_dir(folder).coded(Code::StoreFailed, failed())?.next().is_some() {
        let words = format!("{} is not empty; a backup gets a folder of its own", folder.display());
        return Err(Error::new(Code::AlreadyExists, words));
    }
    Ok(())
}

/// Size and hash of a file of a backup, which is on disk when this returns.
///
/// # Errors
/// `STORE_FAILED`.
pub fn entry(folder: &Path, path: &str) -> Result<Entry> {
    let file = folder.join(path);
    let (bytes, sha256) = kept(&file)
        .and_then(|()| measured(&file))
        .coded(Code::StoreFailed, format!("cannot read {path} of the backup again"))?;
    Ok(Entry { path: path.to_owned(), bytes, sha256 })
}

/// What was written reaches the disk.
fn kept(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path)?.sync_all()
}

fn measured(path: &Path) -> io::Result<(u64, String)> {
    let mut file = fs::File::open(path)?;
    let (mut hash, mut bytes, mut part) = (Sha256::new(), 0u64, vec![0; PART]);
    loop {
        let read = file.read(&mut part)?;
        let Some(found) = part.get(..read).filter(|found| !found.is_empty()) else { break };
        hash.update(found);
        bytes += found.len() as u64;
    }
    Ok((bytes, hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()))
}

/// Writes the manifest, which makes the folder a backup.
///
/// # Errors
/// `STORE_FAILED`.
pub fn seal(folder: &Path, manifest: &Manifest) -> Result<()> {
    let text = serde_json::to_vec_pretty(manifest)
        .coded(Code::Internal, "the manifest cannot be written")?;
    sync_all(folder).coded(Code::StoreFailed, "cannot keep the folders of the backup")?;
    files::replace(&folder.join(MANIFEST), &text)
        .coded(Code::StoreFailed, "cannot write the manifest of the backup")
}

/// A folder and those below it are on disk, with the names of what is in them.
fn sync_all(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        // What a link leads to is not ours.
        if entry.file_type()?.is_dir() {
            sync_all(&entry.path())?;
        }
    }
    files::sync(folder)
}

/// Reads a backup and compares every file with the manifest.
///
/// # Errors
/// `BACKUP_INVALID` with what is wrong.
pub fn read(folder: &Path, of: &str) -> Result<Manifest> {
    let path = folder.join(MANIFEST);
    let size = fs::metadata(&path).map_err(|cause| {
        bad(folder, format!("there is no {MANIFEST}: it is no backup, or one that was cut off"))
            .because(cause)
    })?;
    if size.len() > MANIFEST_BYTES {
        return Err(bad(folder, format!("{MANIFEST} is too large to be one")));
    }
    let text = fs::read(&path)
        .map_err(|cause| bad(folder, format!("cannot read {MANIFEST}")).because(cause))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|cause| bad(folder, format!("{MANIFEST} is not whole")).because(cause))?;
    if manifest.format != FORMAT {
        let words = format!("its form {} is not one this program knows", manifest.format);
        return Err(bad(folder, words));
    }
    if manifest.of != of {
        let words = format!("it is of {}, not of {of}", manifest.of);
        return Err(bad(folder, words));
    }
    for entry in &manifest.files {
        compare(folder, entry)?;
    }
    Ok(manifest)
}

fn compare(folder: &Path, entry: &Entry) -> Result<()> {
    let path = Path::new(&entry.path);
    let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
    if entry.path.is_empty() || !path.components().all(plain) {
        return Err(bad(folder, "the manifest names a file outside of it"));
    }
    let (bytes, sha256) = measured(&folder.join(path)).map_err(|cause| {
        bad(folder, format!("its file {} cannot be read", entry.path)).because(cause)
    })?;
    if (bytes, &sha256) != (entry.bytes, &entry.sha256) {
        let words = format!("its file {} is not what the manifest says", entry.path);
        return Err(bad(folder, words));
    }
    Ok(())
}

/// Refuses where a disk has less room than is needed.
///
/// # Errors
/// `DISK_FULL`.
pub fn room(folder: &Path, needed: u64) -> Result<()> {
    let there = folder.ancestors().find(|place| place.exists());
    match there.and_then(files::free) {
        Some(free) if free < needed => {
            let (needed, free) = (needed.div_ceil(1 << 20), free >> 20);
            let words = format!("{needed} MiB are needed and {free} MiB are free");
            Err(Error::new(Code::DiskFull, words).at(folder.display()))
        }
        _ => Ok(()),
    }
}

/// Bytes of the files at or below a path.
#[must_use]
pub fn size(path: &Path) -> u64 {
    let Ok(about) = fs::symlink_metadata(path) else { return 0 };
    if !about.is_dir() {
        return about.len();
    }
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| size(&entry.path())).sum()
}

/// What is being put into place, so that it can be gone on with.
#[derive(Serialize, Deserialize)]
struct Pending {
    /// Names in the data folder.
    names: Vec<String>,
    /// Folder in the data folder that what stood there goes to.
    former: String,
}

fn stuck(data: &Path, cause: io::Error) -> Error {
    Error::new(Code::StoreFailed, "cannot put the restored files into place")
        .at(data.display())
        .because(cause)
}

/// The empty folder to put copies into, below the data folder, so that they are renamed and not copied into place.
///
/// # Errors
/// `STORE_FAILED`, `RESTORE_UNFINISHED` where another one was cut off.
pub fn draft(data: &Path) -> Result<PathBuf> {
    refuse_pending(data)?;
    let draft = data.join(DRAFT);
    let made = match fs::remove_dir_all(&draft) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => files::folder(&draft),
    };
    made.map_err(|cause| stuck(data, cause))?;
    Ok(draft)
}

/// Copies a file of a backup into the draft, private, and compares the copy.
///
/// # Errors
/// `STORE_FAILED`, `DISK_FULL`, `BACKUP_INVALID`.
pub fn fetch(from: &Path, draft: &Path, entry: &Entry) -> Result<()> {
    let to = draft.join(&entry.path);
    let copied = (|| {
        if let Some(folder) = to.parent() {
            files::folder(folder)?;
        }
        let mut file = files::fresh(&to)?;
        io::copy(&mut fs::File::open(from.join(&entry.path))?, &mut file)?;
        file.sync_all()
    })();
    copied.map_err(|cause| {
        let code = match cause.kind() {
            io::ErrorKind::StorageFull => Code::DiskFull,
            _ => Code::StoreFailed,
        };
        Error::new(code, format!("cannot copy {}", entry.path)).because(cause)
    })?;
    compare(draft, entry)
}

/// Throws a draft away that is not put into place.
pub fn forget(data: &Path) {
    // What stays is taken away by the next draft.
    let _ = fs::remove_dir_all(data.join(DRAFT));
}

/// Puts those names of the draft in the place of what stands there, which goes to a folder of its own in the data
/// folder; gives that folder's name. From the mark on it is done, at the latest by [`finish`]: nobody opens the data
/// folder before.
///
/// # Errors
/// `STORE_FAILED`.
pub fn place(data: &Path, names: &[&str]) -> Result<String> {
    let stamp = Wall::now().to_iso().replace([':', '.'], "-");
    let former = format!("before-restore-{stamp}");
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    let pending = Pending { names, former: former.clone() };
    let text = serde_json::to_vec(&pending).coded(Code::Internal, "the mark cannot be written")?;
    sync_all(&data.join(DRAFT)).map_err(|cause| stuck(data, cause))?;
    files::replace(&data.join(PENDING), &text).map_err(|cause| stuck(data, cause))?;
    finish(data)?;
    Ok(former)
}

/// Goes on with what a cut left half in place; `false` where there is nothing of the kind.
///
/// # Errors
/// `STORE_FAILED`; the mark stays.
pub fn finish(data: &Path) -> Result<bool> {
    if !is_pending(data) {
        return Ok(false);
    }
    let pending: Pending = marked(&data.join(PENDING)).map_err(|cause| stuck(data, cause))?;
    let moved = (|| {
        let former = data.join(&pending.former);
        files::folder(&former)?;
        for name in &pending.names {
            exchange(data, &former, name)?;
        }
        files::sync_folder(&former.join(MANIFEST))?;
        // An empty folder tells nothing.
        let _ = fs::remove_dir(&former);
        match fs::remove_dir_all(data.join(DRAFT)) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
            _ => {}
        }
        files::sync_folder(&data.join(PENDING))?;
        fs::remove_file(data.join(PENDING))?;
        files::sync_folder(&data.join(PENDING))
    })();
    moved.map_err(|cause| stuck(data, cause))?;
    Ok(true)
}

fn marked<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    serde_json::from_slice(&fs::read(path)?).map_err(io::Error::other)
}

/// Moves what stands under a name away and the new one there. Where the new one is gone from the draft, both are done.
fn exchange(data: &Path, former: &Path, name: &str) -> io::Result<()> {
    let (new, old) = (data.join(DRAFT).join(name), data.join(name));
    if !new.exists() {
        return Ok(());
    }
    // What belongs to the old database goes before it: beside the new one it would be taken for its own.
    for end in BESIDE {
        let beside = format!("{name}{end}");
        if data.join(&beside).exists() {
            fs::rename(data.join(&beside), former.join(&beside))?;
        }
    }
    if old.exists() {
        fs::rename(&old, former.join(name))?;
    }
    fs::rename(&new, &old)
}

/// Whether files were being put into place and were not all of them.
#[must_use]
pub fn is_pending(data: &Path) -> bool {
    data.join(PENDING).exists()
}

/// Nobody may use a data folder that is half of one time and half of another.
///
/// # Errors
/// `RESTORE_UNFINISHED`.
pub fn refuse_pending(data: &Path) -> Result<()> {
    if is_pending(data) {
        let words = "a restore was cut off while files were put into place";
        return Err(Error::new(Code::RestoreUnfinished, words).at(data.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A backup of two files.
    fn backup(folder: &Path) -> Manifest {
        begin(folder).unwrap();
        write(&folder.join("store"), "new store");
        write(&folder.join("staging/a/b"), "new rows");
        let entries = ["store", "staging/a/b"].map(|path| entry(folder, path).unwrap());
        let manifest = Manifest::new("server", 6, entries.to_vec());
        seal(folder, &manifest).unwrap();
        manifest
    }

    fn prepared(home: &Path) -> PathBuf {
        let (from, data) = (home.join("backup"), home.join("data"));
        let manifest = backup(&from);
        for (name, text) in
            [("store", "old"), ("store-wal", "old wal"), ("staging/a/c", "x"), ("key", "kept")]
        {
            write(&data.join(name), text);
        }
        let draft = draft(&data).unwrap();
        for entry in &manifest.files {
            fetch(&from, &draft, entry).unwrap();
        }
        data
    }

    fn text(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn a_backup_reads_back_and_every_change_of_it_is_found() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("b");
        let manifest = backup(&folder);
        assert_eq!(read(&folder, "server").unwrap(), manifest);
        assert_eq!((manifest.bytes(), manifest.has("store"), manifest.has("x")), (17, true, false));
        assert_eq!(begin(&folder).unwrap_err().code, Code::AlreadyExists);
        let refused = |of: &str| read(&folder, of).unwrap_err();
        assert!(refused("agent").message.contains("it is of server"), "{}", refused("agent"));
        write(&folder.join("staging/a/b"), "new rowz");
        assert!(refused("server").message.contains("staging/a/b"), "{}", refused("server"));
        fs::remove_file(folder.join("staging/a/b")).unwrap();
        assert_eq!(refused("server").code, Code::BackupInvalid);
        fs::remove_file(folder.join(MANIFEST)).unwrap();
        assert!(refused("server").message.contains("no manifest.json"), "{}", refused("server"));
    }

    #[test]
    fn a_manifest_cannot_lead_out_of_its_folder() {
        let home = tempfile::tempdir().unwrap();
        write(&home.path().join("secret"), "x");
        for path in ["../secret", "/etc/hostname", "a/../../secret", ""] {
            let folder = home.path().join("b");
            let mut manifest = backup(&folder);
            manifest.files[0].path = path.to_owned();
            seal(&folder, &manifest).unwrap();
            let refused = read(&folder, "server").unwrap_err();
            assert!(refused.message.contains("outside"), "{path}: {refused}");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    fn what_is_put_into_place_replaces_all_of_it_and_what_stood_there_is_kept_aside() {
        let home = tempfile::tempdir().unwrap();
        let data = prepared(home.path());
        let former = place(&data, &["store", "staging"]).unwrap();
        assert_eq!((text(data.join("store")).as_str(), is_pending(&data)), ("new store", false));
        assert_eq!(text(data.join("staging/a/b")), "new rows");
        assert!(!data.join("store-wal").exists() && !data.join("staging/a/c").exists());
        assert_eq!(text(data.join("key")), "kept");
        let former = data.join(former);
        assert_eq!(
            (text(former.join("store")).as_str(), text(former.join("store-wal")).as_str()),
            ("old", "old wal")
        );
        assert_eq!(text(former.join("staging/a/c")), "x");
        assert!(!finish(&data).unwrap());
    }

    #[test]
    fn whatever_moment_it_is_cut_at_the_folder_is_refused_until_it_is_gone_on_with() {
        // After so many of its renames the process dies.
        for done in 0..=5 {
            let home = tempfile::tempdir().unwrap();
            let data = prepared(home.path());
            let pending = Pending {
                names: vec!["store".to_owned(), "staging".to_owned()],
                former: "former".to_owned(),
            };
            fs::write(data.join(PENDING), serde_json::to_vec(&pending).unwrap()).unwrap();
            let former = data.join("former");
            files::folder(&former).unwrap();
            let draft = data.join(DRAFT);
            let renames = [
                (data.join("store-wal"), former.join("store-wal")),
                (data.join("store"), former.join("store")),
                (draft.join("store"), data.join("store")),
                (data.join("staging"), former.join("staging")),
                (draft.join("staging"), data.join("staging")),
            ];
            for (from, to) in renames.iter().take(done) {
                fs::rename(from, to).unwrap();
            }
            assert_eq!(refuse_pending(&data).unwrap_err().code, Code::RestoreUnfinished);
            assert!(finish(&data).unwrap());
            assert_eq!(text(data.join("store")), "new store", "cut after {done}");
            assert_eq!(text(data.join("staging/a/b")), "new rows", "cut after {done}");
            assert_eq!(text(former.join("store")), "old", "cut after {done}");
            assert!(refuse_pending(&data).is_ok() && !data.join("store-wal").exists());
        }
    }

    #[cfg(unix)]
    #[test]
    fn every_folder_is_on_disk_before_the_manifest_is_and_before_a_draft_takes_its_place() {
        let home = tempfile::tempdir().unwrap();
        files::SYNCED.take();
        let data = prepared(home.path());
        let synced = files::SYNCED.take();
        let of_backup =
            ["staging/a", "staging", ""].map(|part| home.path().join("backup").join(part));
        assert!(of_backup.iter().all(|folder| synced.contains(folder)), "{synced:?}");
        assert!(synced.contains(&home.path().to_owned()), "the backup's own name: {synced:?}");
        place(&data, &["store", "staging"]).unwrap();
        let synced = files::SYNCED.take();
        let drafts = ["staging/a", "staging", ""].map(|part| data.join(DRAFT).join(part));
        assert!(drafts.iter().all(|folder| synced.contains(folder)), "{synced:?}");
    }

    #[test]
    fn a_disk_without_room_is_told_before_anything_is_copied() {
        let home = tempfile::tempdir().unwrap();
        assert!(room(home.path(), 1).is_ok());
        if files::free(home.path()).is_some() {
            let refused = room(&home.path().join("not/there"), u64::MAX).unwrap_err();
            assert_eq!(refused.code, Code::DiskFull);
        }
        write(&home.path().join("a/b"), "12345");
        assert_eq!(size(home.path()), 5);
    }
}
