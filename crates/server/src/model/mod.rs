//! model: to be written.

pub mod access;
pub mod admin;
pub mod batch;
pub mod carol;
pub mod catalog;
pub mod content;
pub mod exchange;
pub mod overview;
pub mod retention;
pub mod schema;
pub mod session;
pub mod stream;
