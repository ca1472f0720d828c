//! Files that only their owner may read: data folders, databases, locks; and the disk below them.
//!
//! Promises: what is made here is private from its first moment (0700, 0600); a database that was readable by others is
//! tightened, with what stands beside it; a file that is replaced is the old or the new one, never a part; a folder that
//! was made is still there after the power failed.
//! Never: changes the mode of a folder that is there (others may keep things in it), opens a file that is there: closing
//! it again would drop the locks that SQLite holds on it in this process.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a folder where it is missing, private, with those above it.
///
/// # Errors
/// The system's own.
pub fn folder(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|place| !place.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)?;
    for made in missing.into_iter().filter(|place| !place.as_os_str().is_empty()) {
        match sync_folder(made) {
            // Who may make something in a folder may still not be allowed to read it.
            Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => {}
            synced => synced?,
        }
    }
    Ok(())
}

/// Makes an empty file where it is missing, private; tightens one that is there.
///
/// # Errors
/// The system's own. A mode that cannot be changed is no error: it is warned about.
pub fn private(path: &Path) -> io::Result<()> {
    match make(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            tighten(path);
            Ok(())
        }
        made => made.map(drop),
    }
}

fn make(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// An empty private file in place of what may be there, open for writing.
///
/// # Errors
/// The system's own.
pub fn fresh(path: &Path) -> io::Result<fs::File> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(cause),
        _ => {}
    }
    // What somebody puts there in between is not written to: the call fails.
    make(path)
}

/// Puts a private file with that content in place of what may be there.
///
/// # Errors
/// The system's own; what was there stays.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = Path::new(&draft);
    let mut file = fresh(draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(draft, path)?;
    sync_folder(path)
}

/// What stands in the folder of that path is on disk: names, and not the files' content.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    sync(folder.unwrap_or(Path::new(".")))
}

/// As [`sync_folder`], of the folder itself.
#[cfg(unix)]
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(folder.to_owned()));
    fs::File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
pub(crate) fn sync(_folder: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(all(test, unix))]
thread_local! {
    /// What this thread of a test synced: nothing else shows it while the power stays on.
    pub(crate) static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> =
        const { std::cell::RefCell::new(Vec::new()) };
}

/// Bytes of the disk below a folder that a login without special rights may use; `None` = not to be had.
#[cfg(unix)]
#[must_use]
pub fn free(folder: &Path) -> Option<u64> {
    if crate::world::is_on() {
        // The machine's own disk is not the simulated one.
        return None;
    }
    let disk = rustix::fs::statvfs(folder).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

#[cfg(not(unix))]
#[must_use]
pub fn free(_folder: &Path) -> Option<u64> {
    None
}

/// As [`private`], for a SQLite database. What SQLite makes beside it gets the database's mode.
///
/// # Errors
/// As [`private`].
pub fn database(path: &Path) -> io::Result<()> {
    private(path)?;
    for end in BESIDE {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        tighten(Path::new(&beside));
    }
    Ok(())
}

/// Warns where others may look into a folder.
pub fn warn_of_open_folder(path: &Path) {
    if let Some(mode) = open_to_others(path) {
        tracing::warn!(
            folder = %path.display(),
            mode = format!("{mode:o}"),
            "others may look into the data folder; set it to 700"
        );
    }
}

/// The mode, where it lets others in; `None` also where nothing is there.
#[cfg(unix)]
#[must_use]
pub fn open_to_others(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
#[must_use]
pub fn open_to_others(_path: &Path) -> Option<u32> {
    None
}

#[cfg(unix)]
fn tighten(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(mode) = open_to_others(path) else { return };
    let done = fs::set_permissions(path, fs::Permissions::from_mode(mode & !0o077));
    let (file, mode) = (path.display(), format!("{mode:o}"));
    match done {
        Ok(()) => tracing::info!(%file, mode, "others could read it; tightened"),
        Err(cause) => {
            tracing::warn!(%file, mode, %cause, "others may read it and it cannot be tightened; set it to 600");
        }
    }
}

#[cfg(not(unix))]
fn tighten(_path: &Path) {}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn loosen(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_is_made_is_private_and_a_folder_that_is_there_keeps_its_mode() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("a/data");
        folder(&data).unwrap();
        let synced = SYNCED.take();
        assert!([home.path().join("a"), home.path().to_owned()].iter().all(|f| synced.contains(f)));
        folder(&data).unwrap();
        assert!(SYNCED.take().is_empty(), "nothing was made");
        private(&data.join("lock")).unwrap();
        assert_eq!((mode(&data), mode(&data.join("lock"))), (0o700, 0o600));
        loosen(&data, 0o755);
        folder(&data).unwrap();
        assert_eq!((mode(&data), open_to_others(&data)), (0o755, Some(0o755)));
    }

    #[test]
    fn a_replaced_file_is_private_and_whole_and_a_failure_leaves_what_was_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("kept");
        fs::write(&path, "old").unwrap();
        loosen(&path, 0o644);
        replace(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"new".to_vec(), 0o600));
        assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1, "no draft is left");
        // A folder stands where the draft would go.
        fs::create_dir(home.path().join("kept.new")).unwrap();
        assert!(replace(&path, b"newer").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(free(home.path()).is_none_or(|free| free > 0));
    }

    #[test]
    fn a_database_that_others_could_read_is_tightened_with_what_stands_beside_it() {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| home.path().join(name);
        for name in ["x.sqlite", "x.sqlite-wal", "x.sqlite-shm", "other"] {
            fs::write(file(name), "kept").unwrap();
            loosen(&file(name), 0o664);
        }
        database(&file("x.sqlite")).unwrap();
        for name in ["x.sqlite", "x.sqlite-wal", "x.sqlite-shm"] {
            assert_eq!(mode(&file(name)), 0o600, "{name}");
            assert_eq!(fs::read(file(name)).unwrap(), b"kept");
        }
        assert_eq!(mode(&file("other")), 0o664);
        assert!(!file("x.sqlite-journal").exists());
    }
}
