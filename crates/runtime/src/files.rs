//! Files that only their owner may read: data folders, databases, locks.
//!
//! Promises: what is made here is private from its first moment (0700, 0600); a database that was readable by others is
//! tightened, with what stands beside it.
//! Never: changes the mode of a folder that is there (others may keep things in it), opens a file that is there: closing
//! it again would drop the locks that SQLite holds on it in this process.

use std::{fs, io, path::Path};

/// What SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Makes a folder where it is missing, private.
///
/// # Errors
/// The system's own.
pub fn folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Makes an empty file where it is missing, private; tightens one that is there.
///
/// # Errors
/// The system's own. A mode that cannot be changed is no error: it is warned about.
pub fn private(path: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {
            tighten(path);
            Ok(())
        }
        made => made.map(drop),
    }
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
fn open_to_others(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

#[cfg(not(unix))]
fn open_to_others(_path: &Path) -> Option<u32> {
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
        private(&data.join("lock")).unwrap();
        assert_eq!((mode(&data), mode(&data.join("lock"))), (0o700, 0o600));
        loosen(&data, 0o755);
        folder(&data).unwrap();
        assert_eq!((mode(&data), open_to_others(&data)), (0o755, Some(0o755)));
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
