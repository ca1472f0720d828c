//! Table messages as bytes: the writer of the sender and the borrowed reader of the server.
//!
//! Promises: the bytes are the proto's (checked against prost); what [`TableView::scan`] accepts can be walked
//! without a further error; a hostile message costs no more memory than its rows' offsets (F64).
//! Never: copies a cell.

mod read;
mod write;

pub use read::{Cells, SchemaView, TableView};
pub use write::{MessageWriter, Pushed};

#[cfg(test)]
mod tests;
