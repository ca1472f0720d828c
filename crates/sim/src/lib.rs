//! Sim: pretends to be the world. Throw-away servers, independent models, worlds that a seed makes, and (in `tests/it`) what drives them.
//!
//! Promises: nothing here shares a line with what it checks.
//! Never: is shipped.

pub mod chance;
pub mod fuzz;
pub mod model;
pub mod process;
pub mod servers;
pub mod world;
