//! grpc: to be written.
