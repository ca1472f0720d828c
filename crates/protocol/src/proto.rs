//! Generated messages of the three protos, and their descriptors.
//!
//! Promises: compiled from the files in `proto/`, which are the contract; nothing is edited by hand.
//! Never: holds a service stub; those need a transport and live in `agent` and `server`.

/// `com.totvs.ingestion.grpc`: Data Sharing v2 as document 001 prints it.
pub mod totvs {
    include!(concat!(env!("OUT_DIR"), "/com.totvs.ingestion.grpc.rs"));
}

/// `malote.ingestion.v1`: session and reconcile (`contracts.md` 5.6).
pub mod ingestion {
    include!(concat!(env!("OUT_DIR"), "/malote.ingestion.v1.rs"));
}

/// `malote.fleet.v1`: reports and orders (`contracts.md` 5.6).
pub mod fleet {
    include!(concat!(env!("OUT_DIR"), "/malote.fleet.v1.rs"));
}

/// Encoded `FileDescriptorSet` of all protos with their imports, for `grpc.reflection`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
