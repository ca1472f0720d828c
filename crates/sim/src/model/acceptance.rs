//! Acceptance: which messages a stream takes, and when a batch is complete.
//!
//! Promises: stored numbers of a batch are 1..k (I3), one content per number (I2), complete = equal to its Summary (I4),
//! ids rise in the order of first acceptance (I6).
//! Never: knows a row; a message is its sha, its number of rows and the table it loads.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Code;

use super::Answer;

const SECOND: i64 = 1_000_000;
const DAY_SECONDS: i64 = 24 * 3600;
const SILENCE: i64 = 600 * SECOND;

/// A table message as acceptance sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    pub batch: i64,
    pub number: i32,
    pub sha: [u8; 32],
    pub rows: i64,
    /// The table whose base load it is part of.
    pub loads: Option<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    pub messages: i32,
    pub records: i32,
    /// Microseconds.
    pub start: Option<i64>,
    pub end: Option<i64>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    Open,
    Complete,
    Abandoned,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub sha: [u8; 32],
    pub rows: i64,
    pub accept_seq: i64,
}

#[derive(Clone, Debug)]
pub struct Batch {
    pub state: State,
    /// Messages 1, 2, 3…
    pub messages: Vec<Stored>,
    pub summary: Option<Summary>,
    /// Tables with rows of a base load in it.
    pub base_loaded: BTreeSet<String>,
    /// When its first message was accepted.
    pub opened: i64,
    /// When its newest message was accepted.
    pub heard: i64,
}

impl Batch {
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

/// All batches of one stream.
#[derive(Clone, Default, Debug)]
pub struct Ledger {
    pub batches: BTreeMap<i64, Batch>,
    pub last_batch: i64,
    pub accept_seq: i64,
}

impl Ledger {
    #[must_use]
    pub fn open_batch(&self) -> Option<i64> {
        self.batches.iter().find(|(_, batch)| batch.is_open()).map(|(id, _)| *id)
    }

    pub fn write(&mut self, now: i64, write: &Write) -> Answer {
        let accept_seq = self.accept_seq + 1;
        let stored = Stored { sha: write.sha, rows: write.rows, accept_seq };
        let Some(batch) = self.batches.get_mut(&write.batch) else {
            return self.first_write(now, write, stored);
        };
        let next = i32::try_from(batch.messages.len()).unwrap_or(i32::MAX) + 1;
        let known = usize::try_from(write.number - 1).ok().and_then(|at| batch.messages.get(at));
        match known {
            // An exact repeat changes nothing, whatever became of the batch.
            Some(known) if known.sha == write.sha => Answer::Success,
            Some(_) => Answer::Refused(Code::MessageConflict),
            None if !batch.is_open() => Answer::Refused(Code::BatchClosed),
            None if write.number < 1 => Answer::Refused(Code::BatchUnknown),
            None if write.number != next => Answer::Gap(next),
            None => {
                batch.messages.push(stored);
                batch.base_loaded.extend(write.loads.clone());
                batch.heard = now;
                self.accept_seq = accept_seq;
                Answer::Success
            }
        }
    }

    /// A batch the ledger does not know begins above the last id, not a day ahead (but for last id + 1, which a
    /// sender with a wrong clock is told to use), with message 1.
    fn first_write(&mut self, now: i64, write: &Write, stored: Stored) -> Answer {
        if write.batch <= self.last_batch {
            return Answer::Refused(Code::BatchUnknown);
        }
        if write.batch > now.div_euclid(SECOND) + DAY_SECONDS && write.batch != self.last_batch + 1
        {
            return Answer::Refused(Code::ClockAhead);
        }
        if write.number != 1 {
            return Answer::Refused(Code::BatchUnknown);
        }
        self.abandon_open();
        self.accept_seq = stored.accept_seq;
        self.last_batch = write.batch;
        let batch = Batch {
            state: State::Open,
            messages: vec![stored],
            summary: None,
            base_loaded: write.loads.iter().cloned().collect(),
            opened: now,
            heard: now,
        };
        self.batches.insert(write.batch, batch);
        Answer::Success
    }

    pub fn summary(&mut self, id: i64, summary: &Summary) -> Answer {
        let Some(batch) = self.batches.get_mut(&id) else {
            return Answer::Refused(Code::BatchUnknown);
        };
        match batch.state {
            State::Complete if batch.summary.as_ref() == Some(summary) => return Answer::Success,
            State::Complete => return Answer::Refused(Code::MessageConflict),
            State::Abandoned => return Answer::Refused(Code::BatchClosed),
            State::Open => {}
        }
        let stored = i32::try_from(batch.messages.len()).unwrap_or(i32::MAX);
        let rows: i64 = batch.messages.iter().map(|message| message.rows).sum();
        if summary.messages > stored {
            return Answer::Missing(stored + 1, summary.messages);
        }
        let backwards = summary.start.zip(summary.end).is_some_and(|(start, end)| start > end);
        if summary.messages < stored || i64::from(summary.records) != rows || backwards {
            return Answer::Refused(Code::SummaryMismatch);
        }
        batch.state = State::Complete;
        batch.summary = Some(summary.clone());
        Answer::Success
    }

    pub fn abandon_open(&mut self) {
        for batch in self.batches.values_mut().filter(|batch| batch.is_open()) {
            batch.state = State::Abandoned;
        }
    }

    pub fn silence(&mut self, now: i64) {
        for batch in self.batches.values_mut().filter(|batch| batch.is_open()) {
            if now - batch.heard >= SILENCE {
                batch.state = State::Abandoned;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000 * SECOND;

    fn write(batch: i64, number: i32, content: u8) -> Write {
        Write { batch, number, sha: [content; 32], rows: 2, loads: None }
    }

    fn summary(messages: i32, records: i32) -> Summary {
        Summary { messages, records, start: None, end: Some(1) }
    }

    #[test]
    fn the_rules_of_a_batch_read_as_in_the_contract() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.write(NOW, &write(10, 2, 1)), Answer::Refused(Code::BatchUnknown));
        assert_eq!(ledger.write(NOW, &write(10, 1, 1)), Answer::Success);
        assert_eq!(ledger.write(NOW, &write(10, 1, 1)), Answer::Success);
        assert_eq!(ledger.write(NOW, &write(10, 1, 2)), Answer::Refused(Code::MessageConflict));
        assert_eq!(ledger.write(NOW, &write(10, 3, 3)), Answer::Gap(2));
        assert_eq!(ledger.summary(10, &summary(3, 6)), Answer::Missing(2, 3));
        assert_eq!(ledger.summary(10, &summary(1, 3)), Answer::Refused(Code::SummaryMismatch));
        assert_eq!(ledger.summary(10, &summary(1, 2)), Answer::Success);
        assert_eq!(ledger.summary(10, &summary(1, 2)), Answer::Success);
        assert_eq!(ledger.summary(10, &summary(1, 1)), Answer::Refused(Code::MessageConflict));
        assert_eq!(ledger.write(NOW, &write(10, 2, 1)), Answer::Refused(Code::BatchClosed));
        assert_eq!(ledger.write(NOW, &write(9, 1, 1)), Answer::Refused(Code::BatchUnknown));
        assert_eq!(
            ledger.write(NOW, &write(1_800_090_000, 1, 1)),
            Answer::Refused(Code::ClockAhead)
        );
        assert_eq!(ledger.accept_seq, 1);
    }

    #[test]
    fn a_higher_batch_and_ten_silent_minutes_abandon_the_open_one() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.write(NOW, &write(10, 1, 1)), Answer::Success);
        assert_eq!(ledger.write(NOW, &write(11, 1, 1)), Answer::Success);
        assert_eq!(ledger.batches[&10].state, State::Abandoned);
        ledger.silence(NOW + SILENCE);
        assert_eq!(ledger.open_batch(), None);
        assert_eq!(ledger.summary(11, &summary(1, 2)), Answer::Refused(Code::BatchClosed));
    }
}
