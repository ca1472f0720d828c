//! Heap: how the C library, which hands out this program's memory, goes on with what was given back.
//!
//! Promises: what a load needed goes back to the system when it is over; whoever sets one of the variables decides by
//! himself.
//! Never: stops a start: where it cannot be set, the process goes on with the library's own ways.

/// What the library reads at the start of a process, and nowhere else: two pools instead of eight a core, since each
/// keeps what its threads gave back; from 128 KiB on a piece is a mapping of its own, however often such were freed.
const SETTINGS: [(&str, &str); 3] = [
    ("MALLOC_ARENA_MAX", "2"),
    ("MALLOC_MMAP_THRESHOLD_", "131072"),
    ("MALLOC_TRIM_THRESHOLD_", "131072"),
];

/// Starts the program anew with these settings: the same process, the same words. Comes back where they are in force, or
/// others are, or the system refuses. To be called before anything was begun.
pub fn settle() {
    let given = SETTINGS.iter().any(|(name, _)| std::env::var_os(name).is_some());
    if cfg!(all(target_os = "linux", target_env = "gnu")) && !given {
        again();
    }
}

#[cfg(unix)]
fn again() {
    use std::{os::unix::process::CommandExt as _, process::Command};
    let mut words = std::env::args_os();
    let (Ok(own), Some(name)) = (std::env::current_exe(), words.next()) else { return };
    // Comes back only where the system refuses.
    let _ = Command::new(own).arg0(name).args(words).envs(SETTINGS).exec();
}

#[cfg(not(unix))]
fn again() {}
