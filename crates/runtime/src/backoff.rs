//! Growing pauses between tries, with full jitter.
//!
//! Promises: bounded; the pause after a success starts small again.
//! Never: decides whether to try again (the code's class does).

use std::time::Duration;

use crate::{clock, entropy};

/// Pauses of up to `first`, doubling to `cap`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    tries: u32,
}

impl Backoff {
    #[must_use]
    pub const fn new(first: Duration, cap: Duration) -> Self {
        Self { first, cap, tries: 0 }
    }

    /// The next pause: half of the step for sure, the other half at random, so that it never is zero.
    pub fn next_pause(&mut self) -> Duration {
        let step = self.first.saturating_mul(1u32 << self.tries.min(16)).min(self.cap);
        self.tries = self.tries.saturating_add(1);
        step / 2 + (step / 2).mul_f64(entropy::fraction())
    }

    /// Sleeps the next pause.
    pub async fn pause(&mut self) {
        clock::sleep(self.next_pause()).await;
    }

    /// Tries since the last success.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    pub const fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        let pauses: Vec<_> = (0..40).map(|_| backoff.next_pause()).collect();
        assert!(pauses[0] >= Duration::from_millis(50) && pauses[0] <= Duration::from_millis(100));
        assert!(pauses[39] >= Duration::from_millis(500) && pauses[39] <= Duration::from_secs(1));
        backoff.reset();
        assert!(backoff.next_pause() <= Duration::from_millis(100));
    }
}
