//! Wall clock and monotonic clock.
//!
//! Promises: a lease or a time-out is measured by [`Mono`] alone; a wall clock that steps cannot shorten it (F10, F40).
//! Never: is read by the pure core; time goes in as an argument.

use std::{
    ops::{Add, Sub},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::Instant;

use crate::world;

/// Microseconds since 1970-01-01T00:00:00Z by the machine's wall clock.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Wall(pub i64);

impl Wall {
    #[must_use]
    pub fn now() -> Self {
        if let Some(world) = world::current() {
            return Self(world.wall_micros());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    #[must_use]
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Time from `earlier` to this; zero where the clock went back.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// ISO 8601 with `Z`.
    #[must_use]
    pub fn to_iso(self) -> String {
        jiff::Timestamp::from_microsecond(self.0).unwrap_or_default().to_string()
    }
}

/// Thirty years.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// Monotonic instant of this process; tokio's, so that a test which pauses tokio's clock moves this one too.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Mono(Instant);

impl Mono {
    #[must_use]
    pub fn now() -> Self {
        Self(Instant::now())
    }

    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

impl Add<Duration> for Mono {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        // What lies beyond the clock's end is as good as never.
        Self(self.0.checked_add(by).unwrap_or(self.0 + FAR))
    }
}

impl Sub for Mono {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }
}

/// Sleeps on tokio's clock.
pub async fn sleep(time: Duration) {
    tokio::time::sleep(time).await;
}
