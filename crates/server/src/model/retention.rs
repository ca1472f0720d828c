//! Retention, model floor: how long what the ledger holds is kept (`correctness.md` k 10).
//!
//! Promises: a ledger row never goes before its body; 0 days keep for ever.
//! Never: reads a clock.

use std::{ops::AddAssign, time::Duration};

use protocol::{Code, Error, Result};
use runtime::clock::Wall;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Microseconds of a day.
const DAY: i64 = 86_400_000_000;

/// How far a wall clock may be ahead of what surely passed since retention looked last: more is a clock that was set, or
/// a server that was off.
const LEAP: Duration = Duration::from_secs(86_400);
/// A clock that leapt is waited with so long, by the monotonic clock, until it is believed. What is removed by a wrong one
/// does not come back.
const DOUBT: Duration = Duration::from_secs(86_400);
const MOMENT: Duration = Duration::from_secs(1);

/// Whether a wall clock may be gone by, for what removes for good. Kept by the store, so that a restart begins no doubt
/// anew.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trust {
    /// What it showed when it was believed last; `None` = it was never looked at.
    pub believed: Option<Wall>,
    /// For how long programs ran that doubted it since; zero = it is not doubted.
    pub doubted: Duration,
}

impl Trust {
    /// After a look at a clock that shows `now`, `passed` after the look before in this process (zero for its first one).
    /// It is believed where no doubt is left.
    #[must_use]
    pub fn look(self, now: Wall, passed: Duration) -> Self {
        let leapt = self.believed.is_some_and(|at| {
            let most = passed + self.doubted + LEAP;
            now.0 > at.0.saturating_add(i64::try_from(most.as_micros()).unwrap_or(i64::MAX))
        });
        // A doubt that begins has lasted for a moment.
        let doubted = if self.doubted.is_zero() { MOMENT } else { self.doubted + passed };
        if leapt && doubted < DOUBT {
            return Self { doubted, ..self };
        }
        Self { believed: Some(now), doubted: Duration::ZERO }
    }

    #[must_use]
    pub const fn doubts(&self) -> bool {
        !self.doubted.is_zero()
    }
}

/// Days after the end of a batch; 0 = for ever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Bodies of messages whose rows are staged.
    pub body_days: u32,
    /// Batches and messages in the ledger: ids, counts and hashes. Within them a repeat is told as one.
    pub ledger_days: u32,
    /// Tombstones of staged rows. The ledger tells how old one is, so they are kept no longer than its rows.
    pub tombstone_days: u32,
    /// Deliveries of webhooks that were taken; 0 = as long as the ledger, as all other deliveries.
    pub delivery_days: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { body_days: 7, ledger_days: 90, tombstone_days: 30, delivery_days: 7 }
    }
}

impl Policy {
    /// # Errors
    /// `CONFIG_INVALID` where ledger rows would go before their bodies, or before the tombstones they tell the age of.
    pub fn check(self) -> Result<()> {
        let bodies_stay = self.body_days == 0 || self.body_days > self.ledger_days;
        if self.ledger_days != 0 && bodies_stay {
            let words = "retention.ledger_days must be 0 or at least retention.body_days, which must not be 0 then";
            return Err(Error::new(Code::ConfigInvalid, words));
        }
        if self.ledger_days != 0 && self.tombstone_days > self.ledger_days {
            let words =
                "retention.tombstone_days must be 0 (for ever) or at most retention.ledger_days";
            return Err(Error::new(Code::ConfigInvalid, words));
        }
        Ok(())
    }

    /// Bodies of batches that ended at this time or before may go; `None` = none may.
    #[must_use]
    pub fn bodies_before(self, now: Wall) -> Option<Wall> {
        before(self.body_days, now)
    }

    /// As [`Self::bodies_before`] for ledger rows.
    #[must_use]
    pub fn ledger_before(self, now: Wall) -> Option<Wall> {
        before(self.ledger_days, now)
    }

    /// As [`Self::bodies_before`] for tombstones.
    #[must_use]
    pub fn tombstones_before(self, now: Wall) -> Option<Wall> {
        before(self.tombstone_days, now)
    }

    /// As [`Self::bodies_before`] for deliveries that were taken.
    #[must_use]
    pub fn deliveries_before(self, now: Wall) -> Option<Wall> {
        before(self.delivery_days, now)
    }
}

fn before(days: u32, now: Wall) -> Option<Wall> {
    (days > 0).then(|| Wall(now.0.saturating_sub(i64::from(days).saturating_mul(DAY))))
}

/// What was removed, or would be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, ToSchema)]
pub struct Removed {
    /// Bodies of messages.
    pub bodies: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Rows of messages in the ledger.
    pub messages: u64,
    /// Rows of batches in the ledger.
    pub batches: u64,
    /// Tombstones of staged rows.
    pub tombstones: u64,
    /// Deliveries of webhooks.
    pub deliveries: u64,
}

impl Removed {
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.bodies += other.bodies;
        self.bytes += other.bytes;
        self.messages += other.messages;
        self.batches += other.batches;
        self.tombstones += other.tombstones;
        self.deliveries += other.deliveries;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_a_clock_that_leapt_is_waited_with_for_a_day_and_one_that_comes_back_is_believed() {
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let at = |hours: i64| Wall(hours * DAY / 24);
        let believed = |trust: Trust| (!trust.doubts()).then_some(trust.believed.unwrap());
        let known = Trust { believed: Some(at(1_000)), doubted: Duration::ZERO };
        let trust = known.look(at(1_024), hours(0));
        assert_eq!(believed(trust), Some(at(1_024)), "the server was off for a day");
        let trust = trust.look(at(1_030), hours(6));
        assert_eq!(believed(trust), Some(at(1_030)));
        let ahead = trust.look(at(9_800), hours(1));
        assert_eq!(believed(ahead), None, "a year ahead");
        let ahead = ahead.look(at(9_822), hours(22));
        assert_eq!(believed(ahead), None);
        assert_eq!(believed(ahead.look(at(1_054), hours(1))), Some(at(1_054)), "it was set right");
        // Off for a month, and started anew every eight hours since: believed after a day of running all the same.
        let mut trust = known;
        let mut looks = 0;
        while looks < 100 && (looks == 0 || trust.doubts()) {
            let passed = if looks % 9 == 0 { 0 } else { 1 };
            trust = trust.look(at(1_720 + looks), hours(passed));
            looks += 1;
        }
        assert!((25..30).contains(&looks), "{looks}");
        // Back is never ahead; a new store has nothing that could go.
        assert_eq!(believed(trust.look(at(1), hours(1))), Some(at(1)));
        assert_eq!(believed(Trust::default().look(at(1 << 20), hours(0))), Some(at(1 << 20)));
    }

    #[test]
    fn days_are_counted_back_from_now_and_none_keeps_for_ever() {
        let now = Wall(100 * DAY);
        let policy = Policy::default();
        assert_eq!(policy.bodies_before(now), Some(Wall(93 * DAY)));
        assert_eq!(policy.ledger_before(now), Some(Wall(10 * DAY)));
        assert_eq!(policy.tombstones_before(now), Some(Wall(70 * DAY)));
        assert_eq!(policy.deliveries_before(now), Some(Wall(93 * DAY)));
        let ever = Policy { body_days: 0, ledger_days: 0, tombstone_days: 0, delivery_days: 0 };
        assert_eq!((ever.bodies_before(now), ever.ledger_before(now)), (None, None));
        assert_eq!((ever.tombstones_before(now), ever.deliveries_before(now)), (None, None));
        let long = Policy { body_days: u32::MAX, ledger_days: u32::MAX, ..policy };
        assert!(long.bodies_before(now).is_some_and(|before| before.0 < 0));
    }

    #[test]
    fn a_ledger_row_does_not_go_before_its_body() {
        for (body_days, ledger_days, good) in
            [(7, 90, true), (7, 7, true), (0, 0, true), (7, 0, true), (8, 7, false), (0, 7, false)]
        {
            let checked =
                Policy { body_days, ledger_days, tombstone_days: 0, delivery_days: 7 }.check();
            assert_eq!(checked.is_ok(), good, "{body_days} {ledger_days}");
        }
    }

    #[test]
    fn a_ledger_row_does_not_go_before_the_tombstones_it_tells_the_age_of() {
        for (ledger_days, tombstone_days, good) in
            [(90, 30, true), (30, 30, true), (90, 0, true), (0, 500, true), (29, 30, false)]
        {
            let checked =
                Policy { body_days: 7, ledger_days, tombstone_days, delivery_days: 7 }.check();
            assert_eq!(checked.is_ok(), good, "{ledger_days} {tombstone_days}");
        }
    }
}
