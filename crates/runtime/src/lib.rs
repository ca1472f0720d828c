//! How a process of Malote's lives: clock, entropy, tasks, backoff, configuration, addresses, dialling, telemetry, files,
//! backups, databases, heap, keys, certificates, findings, failpoints, shutdown, exit codes; and the door by which a simulator takes
//! the place of all of them.
//!
//! Promises: the only crate that reads the clock, the environment or entropy, and the only one that spawns.
//! Never: knows what is integrated.

pub mod address;
pub mod backoff;
pub mod backup;
pub mod certificate;
pub mod clock;
pub mod config;
pub mod dial;
pub mod entropy;
pub mod exit;
pub mod failpoint;
pub mod files;
pub mod finding;
pub mod heap;
pub mod keyfile;
pub mod mutant;
pub mod postgres;
pub mod priority;
pub mod recording;
pub mod shutdown;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod world;
