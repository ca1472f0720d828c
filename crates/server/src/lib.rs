//! What happens in the cloud: identity, registry, acceptance, ledger, staging.
//!
//! Floors, each seeing only the one below: `http`, `grpc`, `tasks` (siblings that never meet) · `service` decides and
//! orders · `store` promises intents in one transaction · `model` is arithmetic and state machines.

pub mod app;
pub mod config;
pub mod grpc;
pub mod http;
pub mod model;
mod peers;
pub mod service;
pub mod store;
pub mod tasks;
