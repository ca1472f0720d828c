//! tasks: to be written.
