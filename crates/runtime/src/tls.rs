//! TLS: one provider for the whole process.
//!
//! Promises: installed before the first connection, so that two providers in one tree cannot clash.

/// Installs aws-lc-rs as the process's provider. Repeats do no harm.
pub fn install_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
