//! Tree: the repository as the laws see it.
//!
//! Promises: reads every Rust file once; knows of each module whether it is test code.
//! Never: looks into build output or hidden folders.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Rust file of the workspace.
pub(crate) struct File {
    /// Path below the repository, with `/`.
    pub(crate) path: String,
    /// `agent`, `server`, …
    pub(crate) krate: String,
    /// Module path inside `src`; empty for `lib.rs`, `main.rs` and files outside `src`.
    pub(crate) module: Vec<String>,
    /// Below `src/` and not a `tests` module: what ships (of `sim`: what would).
    pub(crate) production: bool,
    pub(crate) text: String,
    pub(crate) syntax: syn::File,
}

pub(crate) fn root() -> PathBuf {
    // Told when the tests run: built tests that are cached may have been built in another clone.
    let here = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    here.ancestors().nth(2).expect("the crate lies two folders below the repository").to_owned()
}

/// All Rust files below `crates/`.
pub(crate) fn rust_files() -> Vec<File> {
    let root = root();
    let mut paths = Vec::new();
    walk(&root.join("crates"), &mut paths);
    let rust = paths.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let mut files: Vec<File> = rust.map(|path| read(&root, &path)).collect();
    let tests: Vec<(String, Vec<String>)> = files.iter().flat_map(test_modules).collect();
    for file in &mut files {
        let test = tests
            .iter()
            .any(|(krate, module)| *krate == file.krate && file.module.starts_with(module));
        file.production &= !test;
    }
    files
}

/// Modules in files of their own that `#[cfg(test)] mod name;` mounts.
fn test_modules(file: &File) -> Vec<(String, Vec<String>)> {
    let mounted = |item: &syn::Item| match item {
        syn::Item::Mod(item) if item.content.is_none() && super::syntax::is_test(&item.attrs) => {
            let module = file.module.iter().cloned().chain([item.ident.to_string()]).collect();
            Some((file.krate.clone(), module))
        }
        _ => None,
    };
    file.syntax.items.iter().filter_map(mounted).collect()
}

/// Files that people and machines keep in the repository, whatever their kind.
pub(crate) fn all_files() -> Vec<PathBuf> {
    let mut paths = Vec::new();
    walk(&root(), &mut paths);
    paths
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(folder).expect("folder is readable").flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if matches!(name.as_str(), ".git" | "target" | "node_modules" | "__pycache__" | ".venv") {
            continue;
        }
        if path.is_dir() {
            walk(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn read(root: &Path, path: &Path) -> File {
    let text = fs::read_to_string(path).expect("source is UTF-8");
    let below = path.strip_prefix(root).expect("below the repository");
    let parts: Vec<String> =
        below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let in_src = parts.get(2).is_some_and(|part| part == "src");
    let mut module: Vec<String> = if in_src { parts[3..].to_vec() } else { Vec::new() };
    if let Some(last) = module.pop() {
        let stem = last.trim_end_matches(".rs");
        if !matches!(stem, "mod" | "lib" | "main") {
            module.push(stem.to_owned());
        }
    }
    let production = in_src && !module.iter().any(|part| part == "tests");
    let path = parts.join("/");
    let syntax = syn::parse_file(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    File { krate: parts[1].clone(), path, module, production, text, syntax }
}
