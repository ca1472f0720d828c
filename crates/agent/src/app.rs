//! app: to be written.
