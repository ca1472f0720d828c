//! Reference models: what acceptance, session and staging must do, in the plainest form that can be read beside the
//! contract (`contracts.md` 5.2, 5.5, 5.6; `correctness.md` 3 e, g, h).
//!
//! Promises: no line shared with the server; lists and maps only; every rule stands where the contract's sentence says.
//! Never: reads a clock, stores anything, is fast.

pub mod acceptance;
pub mod reload;
pub mod session;
pub mod staging;

use std::collections::BTreeMap;

use acceptance::{Ledger, Summary, Write};
use protocol::Code;
use reload::Tables;
use session::{Grant, Lease, Opening, Sender};

/// What a call is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    Success,
    /// `success=false` or a status; the code tells which.
    Refused(Code),
    /// `SEQUENCE_GAP`, with the number that is expected.
    Gap(i32),
    /// `MESSAGES_MISSING`, with the first and last number that never came.
    Missing(i32, i32),
}

/// One stream: (tenant, erp, environment).
#[derive(Clone, Default, Debug)]
pub struct Stream {
    pub lease: Lease,
    pub ledger: Ledger,
    pub tables: Tables,
    /// Committed cursor entries by table.
    pub cursors: BTreeMap<String, Vec<u8>>,
    /// Entries of `Prepare`, waiting for the Summary of one batch.
    pending: Option<(i64, BTreeMap<String, Vec<u8>>)>,
}

impl Stream {
    /// A stream that nobody sent yet.
    #[must_use]
    pub fn sharing(tables: &[&str]) -> Self {
        Self { tables: Tables::share(tables), ..Self::default() }
    }

    /// A Write at `now` (microseconds), under the epoch of its metadata.
    pub fn write(&mut self, now: i64, epoch: Option<u64>, write: &Write) -> Answer {
        if let Err(code) = self.lease.admit(now, epoch) {
            return Answer::Refused(code);
        }
        self.silence(now);
        let was_open = self.ledger.open_batch();
        let answer = self.ledger.write(now, write);
        // A batch that opens ends what was prepared for any other.
        if self.ledger.open_batch() != was_open {
            self.pending = None;
        }
        answer
    }

    /// A Summary with the loads it tells as done; success commits these and the entries prepared for its batch.
    pub fn summary(
        &mut self,
        now: i64,
        epoch: Option<u64>,
        (batch, loads): (i64, &[(String, i64)]),
        summary: &Summary,
    ) -> Answer {
        if let Err(code) = self.lease.admit(now, epoch) {
            return Answer::Refused(code);
        }
        self.silence(now);
        let was_open = self.ledger.open_batch() == Some(batch);
        let answer = self.ledger.summary(batch, summary);
        if was_open && answer == Answer::Success {
            let pending = self.pending.take_if(|(prepared, _)| *prepared == batch);
            self.cursors.extend(pending.into_iter().flat_map(|(_, entries)| entries));
            self.tables.told(loads);
            // Only a sender without a session is taken for one that knows no generations.
            if let (None, [], Some(batch)) = (epoch, loads, self.ledger.batches.get(&batch)) {
                self.tables.untold(batch.opened, &batch.base_loaded);
            }
        }
        self.forget_pending();
        answer
    }

    /// `Session.Open`; a grant abandons whatever is open.
    pub fn open(&mut self, now: i64, sender: &Sender) -> Opening {
        let opening = self.lease.open(now, sender);
        if matches!(opening, Opening::Granted(_)) {
            self.ledger.abandon_open();
            self.pending = None;
        }
        opening
    }

    /// What a grant tells the sender beside its epoch.
    #[must_use]
    pub fn grant(&self, epoch: u64) -> Grant {
        Grant { epoch, cursors: self.cursors.clone(), last_batch: self.ledger.last_batch }
    }

    /// `Session.Prepare`: per table the last entry counts, entries of another batch are thrown away.
    ///
    /// # Errors
    /// The code of the refusal.
    pub fn prepare(
        &mut self,
        now: i64,
        epoch: u64,
        batch: i64,
        entries: &[(String, Vec<u8>)],
    ) -> Result<(), Code> {
        self.silence(now);
        self.lease.live_epoch(now, epoch)?;
        if self.pending.as_ref().is_none_or(|(prepared, _)| *prepared != batch) {
            self.pending = Some((batch, BTreeMap::new()));
        }
        if let Some((_, pending)) = &mut self.pending {
            pending.extend(entries.iter().cloned());
        }
        Ok(())
    }

    /// Ten minutes of silence abandon the open batch.
    pub fn silence(&mut self, now: i64) {
        self.ledger.silence(now);
        self.forget_pending();
    }

    /// Whatever abandons a batch forgets what was prepared for it.
    fn forget_pending(&mut self) {
        let closed =
            |batch: i64| self.ledger.batches.get(&batch).is_some_and(|batch| !batch.is_open());
        if self.pending.as_ref().is_some_and(|(batch, _)| closed(*batch)) {
            self.pending = None;
        }
    }
}
