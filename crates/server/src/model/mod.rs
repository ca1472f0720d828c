//! Model: arithmetic and state machines of the server. Pure: time comes in as an argument.

pub mod access;
pub mod admin;
pub mod alert;
pub mod batch;
pub mod carol;
pub mod catalog;
pub mod content;
pub mod delivery;
pub mod exchange;
pub mod fleet;
pub mod order;
pub mod overview;
pub mod restore;
pub mod retention;
pub mod schema;
pub mod session;
pub mod stream;
pub mod webhook;
