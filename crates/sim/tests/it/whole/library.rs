//! Small libraries in C that are put before the system's own (`LD_PRELOAD`), so that a real process meets a clock or a disk
//! of the test's.
//!
//! Promises: built by the machine's compiler from `tests/c`, in a folder that goes with the test.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

pub(crate) struct Library {
    folder: TempDir,
}

impl Library {
    /// `tests/c/{name}.c`, built.
    pub(crate) fn built(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = sim::servers::crate_folder().join("tests/c").join(name).with_extension("c");
        let library = Self { folder };
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]);
        run(compiler.arg(library.beside("library.so")).arg(source).arg("-ldl"));
        library
    }

    /// A file in the library's folder.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The variable by which a process loads it.
    pub(crate) fn loaded(&self) -> (String, String) {
        ("LD_PRELOAD".to_owned(), text(&self.beside("library.so")))
    }
}

pub(crate) fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Runs a command to its end, which must be a good one.
pub(crate) fn run(command: &mut Command) {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {done:?}");
}
