//! The whole as the tests see it: an ERP, a server, an agent, and an independent reader on both ends.

pub(crate) mod changes;
pub(crate) mod cloud;
pub(crate) mod compare;
pub(crate) mod erp;
pub(crate) mod files;
pub(crate) mod input;
pub(crate) mod inside;
pub(crate) mod library;
pub(crate) mod line;
pub(crate) mod recorder;
pub(crate) mod sender;
pub(crate) mod workload;
pub(crate) mod world;
