//! Signatures: how a consumer knows that a body came from this server (`contracts.md` 5.7).
//!
//! Promises: the header names the second it was made in and one `v1` for each secret in force, the newest first.
//! Never: shows a secret.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use secrecy::{ExposeSecret as _, SecretString};

/// Name of the header.
pub(super) const HEADER: &str = "X-Malote-Signature";

/// `t={seconds},v1={hex}`: HMAC-SHA-256 of `{seconds}.{body}`, the key being the secret's text.
pub(super) fn signature(secrets: &[SecretString], seconds: i64, body: &str) -> String {
    let mut header = format!("t={seconds}");
    for secret in secrets {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose_secret().as_bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{seconds}.").as_bytes());
        context.update(body.as_bytes());
        header.push_str(",v1=");
        for byte in context.sign().as_ref() {
            // Writing into a string does not fail.
            let _ = write!(header, "{byte:02x}");
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_hmac_sha256_of_time_and_body_for_each_secret() {
        // Reckoned by Python: hmac.new(b"whsec_one", b"1767614407.{}", "sha256").hexdigest(), and with b"whsec_two".
        let one = "776645c77e4f6fb0470ecc3870e94aabba6dd7f45c83506c01151157388bcc5e";
        let two = "c1a6bcfb20a2d16201ca024c562c02d63063623f8e309e751059210471e29c62";
        let secrets = ["whsec_one".into(), "whsec_two".into()];
        assert_eq!(signature(&secrets[..1], 1_767_614_407, "{}"), format!("t=1767614407,v1={one}"));
        let both = format!("t=1767614407,v1={one},v1={two}");
        assert_eq!(signature(&secrets, 1_767_614_407, "{}"), both);
    }
}
