//! Pacing: lets the ERP database rest after what was read of it, and looks how fast it answers meanwhile.
//!
//! Promises: a rest ends within the time a batch may be read, also where more was wanted, since changes wait meanwhile;
//! where nothing is held back, nothing is asked.
//! Never: decides the pace: `governor` does.

use std::time::Duration;

use protocol::limits;
use runtime::clock::{self, Mono, Wall};

use super::{
    cycle::Cycle,
    governor::{FULL, Shift},
};
use crate::source::Source;

impl<S: Source> Cycle<'_, S> {
    /// The ERP rests after a chunk, by the duty cycle and by how fast it answers. Where it need not rest, nothing is held
    /// back.
    pub(super) async fn rest(&self, took: Duration) {
        let duty = self.tools.config.capture.duty_percent;
        let rest = self.tools.governor.rest(took, duty);
        if duty >= 100 || rest.is_zero() {
            return;
        }
        clock::sleep(rest.min(limits::BATCH_READING)).await;
        self.look_at_latency().await;
    }

    /// The pace of bulk reading, in thousandths.
    pub(super) fn pace(&self) -> u32 {
        if self.tools.config.capture.duty_percent >= 100 {
            FULL
        } else {
            self.tools.governor.pace()
        }
    }

    /// Asks the database for nothing, and sets the pace by how long that takes. What cannot be asked is met by the next
    /// read.
    pub(super) async fn look_at_latency(&self) {
        let asked = Mono::now();
        if !matches!(self.tools.source.probe().await, Ok(true)) {
            return;
        }
        let change = self.tools.governor.probe(asked.elapsed());
        let pace = self.tools.governor.pace();
        metrics::gauge!("malote_agent_pace").set(f64::from(pace) / f64::from(FULL));
        match change {
            Shift::Nothing => {}
            Shift::Slows => {
                tracing::info!("the ERP database answers slowly: base loads and scans are slowed")
            }
            Shift::Free => {
                tracing::info!(
                    "the ERP database answers as before: base loads and scans go on at full pace"
                )
            }
        }
        let percent = pace * 100 / FULL;
        self.tools.journal.tell_slowed((pace < FULL).then_some(percent), Wall::now());
    }
}
