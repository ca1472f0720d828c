//! Pacing: lets the ERP database rest after what was read of it in bulk, and looks how fast it answers meanwhile.
//!
//! Promises: one pace for base loads, scans and verification; a rest ends within the time a batch may be read, also where
//! more was wanted, since changes or a drain wait meanwhile, and sooner where the database answers as before again; where
//! nothing is ever held back, nothing is asked.
//! Never: reads rows. `governor` decides the pace.

mod governor;

use std::time::Duration;

use protocol::limits;
use runtime::clock::{self, Mono, Wall};

pub use governor::{FULL, Governor};

use crate::{journal::Journal, source::Source};
use governor::Shift;

/// Within a long rest it is looked so often how fast the database answers.
const LOOK: Duration = Duration::from_secs(1);

/// How one source is read in bulk, at a share of its time (1 to 100) that the configuration gives.
#[derive(Debug)]
pub(crate) struct Pacing<'a, S> {
    pub(crate) source: &'a S,
    pub(crate) journal: &'a Journal,
    pub(crate) governor: &'a Governor,
    pub(crate) duty_percent: u32,
}

impl<S: Source> Pacing<'_, S> {
    /// The ERP rests after a page, by the duty cycle and by how fast it answers.
    pub(crate) async fn rest(&self, took: Duration) {
        if self.duty_percent >= 100 {
            return;
        }
        let begun = Mono::now();
        loop {
            let rest = self.governor.rest(took, self.duty_percent).min(limits::BATCH_READING);
            let left = rest.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return;
            }
            clock::sleep(left.min(LOOK)).await;
            self.look(true).await;
        }
    }

    /// The pace of bulk reading, in thousandths.
    pub(crate) fn pace(&self) -> u32 {
        if self.duty_percent >= 100 { FULL } else { self.governor.pace() }
    }

    /// As [`Self::look`], while nothing is read in bulk: so it is known what the database is used to before that begins.
    pub(crate) async fn look_while_idle(&self) {
        if self.duty_percent < 100 {
            self.look(false).await;
        }
    }

    /// Asks the database for nothing, and sets the pace by how long that takes. What cannot be asked is met by the next
    /// read.
    async fn look(&self, in_bulk: bool) {
        let asked = Mono::now();
        if !matches!(self.source.probe().await, Ok(true)) {
            return;
        }
        let change = self.governor.probe(asked.elapsed(), in_bulk);
        let pace = self.governor.pace();
        metrics::gauge!("malote_agent_pace").set(f64::from(pace) / f64::from(FULL));
        match change {
            Shift::Nothing => {}
            Shift::Slows => {
                tracing::info!("the ERP database answers slowly: bulk reading is slowed")
            }
            Shift::Free => {
                tracing::info!(
                    "the ERP database answers as before: bulk reading goes on at full pace"
                )
            }
        }
        let percent = pace * 100 / FULL;
        self.journal.tell_slowed((pace < FULL).then_some(percent), Wall::now());
    }
}
