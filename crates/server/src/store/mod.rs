//! Store: the server's memory. Intents in one transaction each; no SQL and no transaction handle leaves this floor.
//!
//! Promises: what a method returned as done is durable; what it refused left no trace.
//! Never: decides (the `model` does), knows a wire format.

pub mod sqlite;

pub use sqlite::Store;
