//! model: to be written.

pub mod access;
pub mod catalog;
pub mod batch;
pub mod overview;
pub mod schema;
pub mod session;
pub mod stream;
