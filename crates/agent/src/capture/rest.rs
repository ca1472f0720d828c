//! Rest: what capture does between two cycles: nothing, until the schedule or a person says otherwise.
//!
//! Promises: an order and the end or begin of a pause are heard within a second; a clock that was set back makes the
//! wait be counted anew; without a recurrence a new plan ends it, with one the plan is shown and its time waited for.
//! Never: reads the ERP.

use std::time::Duration;

use runtime::clock::{self, Mono, Wall};

use super::{
    cycle::{Fault, Turn},
    worker::{LOOK, Session, Worker},
};
use crate::{journal::Coming, source::Source};

/// A wall clock that goes back by more was set.
const SET_BACK: i64 = 60_000_000;

/// The end of a rest.
enum End {
    /// Of a pause, which no change of the wall clock may stretch.
    Pause(Mono),
    /// By the clock on the wall.
    Time(Wall),
}

impl End {
    /// How long it is until then, by now.
    fn left(&self, now: Wall) -> Duration {
        match self {
            Self::Pause(until) => *until - Mono::now(),
            Self::Time(until) => until.since(now),
        }
    }
}

impl<S: Source> Worker<S> {
    /// Waits for the next cycle.
    pub(super) async fn rest(&mut self, session: &mut Session) -> Turn {
        self.resting = true;
        let mut seen = Wall::now();
        let mut end = self.until(session, seen);
        let halts = self.journal.halts();
        loop {
            let now = Wall::now();
            if now.0 < seen.0.saturating_sub(SET_BACK) {
                end = self.until(session, now);
            }
            seen = now;
            let left = end.left(now);
            if left.is_zero() {
                break;
            }
            tokio::select! {
                biased;
                changed = session.plan.changed() => {
                    session.planned = session.planned && changed.is_err();
                    if !self.schedule.recurs() {
                        break;
                    }
                    self.show(session).await?;
                    end = self.until(session, now);
                }
                () = clock::sleep(left.min(LOOK)) => {}
            }
            let orders = self.journal.reload_requests().await.unwrap_or_default();
            // A person waits for what was ordered, and to see in the status what was paused; so does a verification.
            let waited_for = orders != session.orders || self.is_waited_for(session);
            if waited_for || halts != self.journal.halts() {
                break;
            }
        }
        self.resting = false;
        Ok(())
    }

    /// The plan as it is now, without reading.
    pub(super) async fn show(&self, session: &mut Session) -> Turn {
        self.refresh(session).await.map_err(Fault::Session)?;
        self.tell(session).await.map_err(Fault::Session)
    }

    /// When the next cycle runs: by the schedule, or as soon as a load that waits may be read. Tells people.
    fn until(&self, session: &Session, now: Wall) -> End {
        let loading = session.tables.iter().any(|table| table.cursor.load.is_some());
        let opens = self.schedule.loads_from(now).filter(|opens| *opens > now);
        let next = self.schedule.next(now);
        let next = opens.filter(|_| loading).map_or(next, |opens| opens.min(next));
        self.journal.tell_coming(Coming { cycle: Some(next), loads: opens });
        if self.schedule.recurs() {
            End::Time(next)
        } else {
            End::Pause(Mono::now() + next.since(now))
        }
    }
}
