//! Exit codes of the program, documented in the reference.
//!
//! Promises: stable numbers.

/// All went well; for `demo` and `verify`: equal.
pub const OK: u8 = 0;
/// The command failed; its message names the code.
pub const FAILED: u8 = 1;
/// The command line is wrong.
pub const USAGE: u8 = 2;
/// Source and staging differ.
pub const DIFFERENT: u8 = 3;
/// Something must be mended first (`malote agent check`).
pub const FINDINGS: u8 = 4;
/// The agent runs and its configuration is not complete (`malote agent status`).
pub const UNCONFIGURED: u8 = 5;
/// A second signal ended the process at once.
pub const INTERRUPTED: u8 = 130;
