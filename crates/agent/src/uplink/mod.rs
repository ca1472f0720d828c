//! uplink: to be written.
