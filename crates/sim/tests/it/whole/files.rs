//! Files of the whole: what lies in clear below a folder.
//!
//! Promises: looks into every file, as bytes.

use std::{fs, path::Path};

/// Files below a folder that hold the text.
pub(crate) fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(holding(&path, text));
            continue;
        }
        // A file of a store may go while it is looked for.
        let bytes = fs::read(&path).unwrap_or_default();
        if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path.display().to_string());
        }
    }
    found
}
