//! Table messages as bytes: the writer of the sender and the borrowed reader of the server.
//!
//! Promises: the bytes are the proto's (checked against prost); what [`TableView::scan`] accepts can be walked
//! without a further error; a hostile message costs no more memory than the places of its cells, whose number is bounded
//! (F64).
//! Never: copies a cell.

mod read;
mod write;

pub use read::{Cell, SchemaView, TableView};
pub use write::{MessageWriter, Pushed};

#[cfg(test)]
mod tests;
