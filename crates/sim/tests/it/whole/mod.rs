//! The whole as the tests see it: an ERP, a server, an agent, and an independent reader on both ends.

pub mod changes;
pub mod cloud;
pub mod compare;
pub mod erp;
pub mod input;
pub mod recorder;
pub mod workload;
pub mod world;
