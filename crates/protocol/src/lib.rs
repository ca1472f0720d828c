//! What both processes must agree on: protos, JSON contracts, ids, names, limits, codes, canonical values.
//!
//! Promises: if something here changes, the other process could break; nothing else is here.
//! Never: does IO, reads a clock, knows a runtime.

pub mod error;
pub mod filter;
pub mod hash;
pub mod ids;
pub mod json;
pub mod key;
pub mod limits;
pub mod loads;
pub mod names;
pub mod proto;
pub mod value;
pub mod wire;

pub use error::{Class, Code, Coded, Error, GrpcStatus, Result};
