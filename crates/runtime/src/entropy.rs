//! Random bytes, ids and jitter, from the operating system.
//!
//! Promises: secrets have 256 bits.
//! Never: falls back to a weaker source; without entropy the process aborts.

use uuid::Uuid;

use crate::world;

/// Fills `N` random bytes.
///
/// # Panics
/// Where the operating system gives no entropy: nothing safe can be done without.
#[must_use]
#[expect(clippy::expect_used, reason = "without entropy no id, nonce or secret may be made")]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut out = [0; N];
    if let Some(world) = world::current() {
        world.fill(&mut out);
        return out;
    }
    getrandom::fill(&mut out).expect("the operating system gives entropy");
    out
}

/// A random (version 4) UUID.
#[must_use]
pub fn uuid() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// A UUID of version 7: milliseconds since 1970, then random bits, so that ids sort by their time.
#[must_use]
pub fn uuid_at(millis: i64) -> Uuid {
    let millis = u64::try_from(millis).unwrap_or(0);
    uuid::Builder::from_unix_timestamp_millis(millis, &bytes()).into_uuid()
}

/// A fraction in `0.0..1.0` for jitter.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 random bits fit exactly")]
pub fn fraction() -> f64 {
    (u64::from_le_bytes(bytes()) >> 11) as f64 / (1u64 << 53) as f64
}

/// A client secret: 256 random bits as 64 hex digits.
#[must_use]
pub fn secret() -> secrecy::SecretString {
    let hex: String = bytes::<32>().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.into()
}
