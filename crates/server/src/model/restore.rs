//! Restore, model floor: where a stream goes on after its store came back from an older copy.
//!
//! Promises: neither an epoch nor a batch id that the store of before can have given out since comes again, whatever was
//! restored how often, as long as the clock runs on.
//! Never: reads a clock.
//!
//! The copy does not know what was granted and numbered after it was made. So the epoch steps by more grants than there
//! can have been, and at least to the microseconds of the clock: two restores of one copy differ, since no store grants
//! one session a microsecond. A batch id is the second its range starts in, or the one behind the last, and the server
//! takes none more than a day ahead; so ids go on behind tomorrow's second. Where the store that is replaced can still be
//! read, its own numbers are a floor beneath both.
//!
//! A sender without sessions numbers by its clock and would have to wait for tomorrow. Whether a stream is one of those
//! is no matter of its epoch: an unbinding and a restore step that one too.

use protocol::{
    ids::{BatchId, Epoch},
    limits,
};
use runtime::clock::Wall;

/// How far a stream is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    pub epoch: Epoch,
    pub last_batch: BatchId,
    /// A session was granted at some time.
    pub had_session: bool,
}

/// Where it goes on.
#[must_use]
pub fn after(copy: Mark, replaced: Option<Mark>, now: Wall) -> Mark {
    let replaced = replaced.unwrap_or_default();
    let epoch = copy.epoch.max(replaced.epoch).0.saturating_add(limits::RESTORE_EPOCHS);
    let clock = u64::try_from(now.0).unwrap_or_default();
    let had_session = copy.had_session || replaced.had_session;
    let ahead = match had_session {
        true => i64::try_from(limits::BATCH_AHEAD.as_secs()).unwrap_or(i64::MAX),
        false => 0,
    };
    let last = copy.last_batch.max(replaced.last_batch);
    Mark {
        epoch: Epoch(epoch.max(clock)),
        last_batch: last.max(BatchId(now.seconds().saturating_add(ahead))),
        had_session,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: i64 = 86_400;
    const NOW: Wall = Wall(1_800_000_000_000_000);

    fn mark(epoch: u64, last: i64) -> Mark {
        Mark { epoch: Epoch(epoch), last_batch: BatchId(last), had_session: true }
    }

    fn sessionless(epoch: u64, last: i64) -> Mark {
        Mark { had_session: false, ..mark(epoch, last) }
    }

    #[test]
    fn a_stream_goes_on_beyond_all_that_was_granted_and_numbered_meanwhile() {
        let went_on = after(mark(7, NOW.seconds() - DAY), None, NOW);
        assert_eq!(went_on, mark(1_800_000_000_000_000, NOW.seconds() + DAY));
        let twice = after(mark(7, NOW.seconds() - DAY), None, Wall(NOW.0 + 1_000_000));
        assert!(twice.epoch > went_on.epoch && twice.last_batch > went_on.last_batch);
        let of_before = mark(went_on.epoch.0 + 3, went_on.last_batch.0 + 900);
        let known = after(mark(7, 1), Some(of_before), NOW);
        assert_eq!(known, mark(of_before.epoch.0 + limits::RESTORE_EPOCHS, of_before.last_batch.0));
    }

    #[test]
    fn a_sender_without_sessions_goes_on_at_once_with_the_second_it_is() {
        let first = after(sessionless(0, 5), None, NOW);
        assert_eq!(first.last_batch, BatchId(NOW.seconds()));
        // Restored before, or unbound once: its epoch stepped, and still nobody had a session.
        for before in [first, sessionless(1, 5)] {
            let again = after(sessionless(0, 5), Some(before), Wall(NOW.0 + 5_000_000));
            assert_eq!(again.last_batch, BatchId(NOW.seconds() + 5), "{before:?}");
            assert!(again.epoch > before.epoch && !again.had_session, "{again:?}");
        }
        let known = after(sessionless(0, 5), Some(mark(3, 9)), NOW);
        assert_eq!(
            known.last_batch,
            BatchId(NOW.seconds() + DAY),
            "its first one came after the copy"
        );
    }

    proptest! {
        #[test]
        fn no_number_goes_back_at_any_clock(epoch in 0u64..1 << 50, last in 0i64..1 << 40, clock in any::<i64>(),
                                            other in (0u64..1 << 50, 0i64..1 << 40)) {
            let (copy, replaced) = (mark(epoch, last), mark(other.0, other.1));
            let found = after(copy, Some(replaced), Wall(clock));
            prop_assert!(found.epoch.0 >= epoch.max(other.0) + limits::RESTORE_EPOCHS);
            prop_assert!(found.last_batch.0 >= last.max(other.1));
        }
    }
}
