//! Batch, model floor: what becomes of a table message and of a Summary (`contracts.md` 5.2, 5.5; `correctness.md` g).
//!
//! Promises: total, one verdict for every input; a number is judged only after the fence; an exact repeat of what is
//! stored is a duplicate in every state of its batch (P2), everything else needs an open batch.
//! Never: reads a clock, looks at rows.
//!
//! | batch \ message | stored, same | stored, other | next | above next | 1 | other |
//! |---|---|---|---|---|---|---|
//! | open | duplicate | conflict | accept | gap | – | unknown |
//! | complete, abandoned | duplicate | conflict | closed | closed | closed | closed |
//! | above the last one | – | – | – | – | open it, abandon the open one | unknown |
//! | other | – | – | – | – | unknown | unknown |

use protocol::{
    ids::{BatchId, Epoch, MessageNumber},
    limits,
};
use runtime::{clock::Wall, mutant};

use super::stream::{Head, Open};

/// State of a batch that the ledger knows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum BatchState {
    Open,
    Complete,
    Abandoned,
}

impl BatchState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Complete => "complete",
            Self::Abandoned => "abandoned",
        }
    }

    /// From the ledger's own word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Open, Self::Complete, Self::Abandoned]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// Who calls and what for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    pub epoch: Option<Epoch>,
    pub batch: BatchId,
    pub number: MessageNumber,
}

/// What the ledger has under that batch and number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// The batch is not in the ledger.
    Nothing,
    /// The batch is, the number is not.
    Batch(BatchState),
    /// The number is, with the same bytes or others.
    Message { same: bool },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Store it; `opens` its batch, abandoning the open one if there is one.
    Accept {
        opens: bool,
    },
    /// Stored already: the same answer again.
    Duplicate,
    Refuse(Refusal),
}

/// Why nothing was stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    Fenced { epoch: Epoch },
    EpochRequired,
    Conflict,
    Gap { expected: MessageNumber },
    Closed(BatchState),
    Unknown { last: BatchId },
    ClockAhead { last: BatchId },
}

/// Judges a table message. `now` is the store's clock.
#[must_use]
pub fn judge(head: &Head, offer: &Offer, known: Known, now: Wall) -> Verdict {
    use Verdict::{Accept, Duplicate, Refuse};
    if let Err(refusal) = fence(head, offer.epoch) {
        return Refuse(refusal);
    }
    match known {
        Known::Message { same: true } => Duplicate,
        Known::Message { same: false } => Refuse(Refusal::Conflict),
        Known::Batch(state @ (BatchState::Complete | BatchState::Abandoned)) => {
            Refuse(Refusal::Closed(state))
        }
        Known::Batch(BatchState::Open) => match head.open {
            Some(open) if open.batch == offer.batch => in_open(open, offer.number, head.last_batch),
            // The ledger's open batch is the head's; anything else is not open any more.
            _ => Refuse(Refusal::Closed(BatchState::Abandoned)),
        },
        Known::Nothing if offer.batch <= head.last_batch => {
            Refuse(Refusal::Unknown { last: head.last_batch })
        }
        Known::Nothing if is_ahead(head, offer.batch, now) => {
            Refuse(Refusal::ClockAhead { last: head.last_batch })
        }
        Known::Nothing if offer.number == MessageNumber(1) => Accept { opens: true },
        Known::Nothing => Refuse(Refusal::Unknown { last: head.last_batch }),
    }
}

fn in_open(open: Open, number: MessageNumber, last: BatchId) -> Verdict {
    if number == open.next || number > open.next && mutant::is("no_gap_check") {
        Verdict::Accept { opens: false }
    } else if number > open.next {
        Verdict::Refuse(Refusal::Gap { expected: open.next })
    } else {
        Verdict::Refuse(Refusal::Unknown { last })
    }
}

/// The fence of (g), before any number is looked at.
///
/// # Errors
/// `Fenced` under any other epoch than the stream's, `EpochRequired` without one while a lease is live.
pub fn fence(head: &Head, epoch: Option<Epoch>) -> Result<(), Refusal> {
    match epoch {
        _ if mutant::is("no_fence") => Ok(()),
        Some(own) if own == head.epoch => Ok(()),
        Some(_) => Err(Refusal::Fenced { epoch: head.epoch }),
        None if head.live => Err(Refusal::EpochRequired),
        None => Ok(()),
    }
}

/// The successor of the last id is always taken: it burns nothing, and a clock set back must not stop a stream.
fn is_ahead(head: &Head, batch: BatchId, now: Wall) -> bool {
    let ahead = i64::try_from(limits::BATCH_AHEAD.as_secs()).unwrap_or(i64::MAX);
    batch.0 > now.seconds().saturating_add(ahead) && batch != head.last_batch.next()
}

/// Whether an open batch has been silent for so long that it is abandoned.
#[must_use]
pub fn is_silent(open: &Open, now: Wall) -> bool {
    now.since(open.last_at) >= limits::BATCH_SILENCE
}

/// Whether people see an open batch as stalled.
#[must_use]
pub fn is_stalled(last_at: Wall, now: Wall) -> bool {
    now.since(last_at) >= limits::BATCH_STALLED
}

/// A batch's manifest, as the Summary told it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Manifest {
    pub messages: i32,
    pub rows: i64,
    /// Microseconds since 1970.
    pub start: Option<i64>,
    pub end: Option<i64>,
}

impl Manifest {
    /// Its range ends before it starts.
    #[must_use]
    pub fn is_backwards(&self) -> bool {
        self.start.zip(self.end).is_some_and(|(start, end)| start > end)
    }
}

/// What the ledger has of the Summary's batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Nothing,
    Open,
    Complete(Manifest),
    Abandoned,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SummaryVerdict {
    /// Counts agree: the batch is complete.
    Complete,
    /// Complete already by the same Summary.
    Duplicate,
    Refuse(SummaryRefusal),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SummaryRefusal {
    /// As a message.
    As(Refusal),
    /// The tail is missing; the batch stays open.
    Missing { from: MessageNumber, to: MessageNumber },
    /// Counts differ; the batch stays open.
    Mismatch { messages: i32, rows: i64 },
}

/// Judges a Summary.
#[must_use]
pub fn judge_summary(
    head: &Head,
    epoch: Option<Epoch>,
    batch: BatchId,
    (told, manifest): (&Told, &Manifest),
) -> SummaryVerdict {
    use SummaryVerdict::{Complete, Duplicate, Refuse};
    if let Err(refusal) = fence(head, epoch) {
        return Refuse(SummaryRefusal::As(refusal));
    }
    let open = head.open.filter(|open| open.batch == batch);
    match (told, open) {
        (Told::Complete(stored), _) if stored == manifest => Duplicate,
        (Told::Complete(_), _) => Refuse(SummaryRefusal::As(Refusal::Conflict)),
        (Told::Open, Some(_)) if mutant::is("summary_without_counts") => Complete,
        (Told::Open, Some(open)) => {
            let stored = open.next.0.saturating_sub(1);
            if manifest.messages > stored {
                let to = MessageNumber(manifest.messages);
                Refuse(SummaryRefusal::Missing { from: open.next, to })
            } else if manifest.messages < stored
                || manifest.rows != open.rows
                || manifest.is_backwards()
            {
                Refuse(SummaryRefusal::Mismatch { messages: stored, rows: open.rows })
            } else {
                Complete
            }
        }
        (Told::Abandoned | Told::Open, _) => {
            Refuse(SummaryRefusal::As(Refusal::Closed(BatchState::Abandoned)))
        }
        (Told::Nothing, _) => {
            Refuse(SummaryRefusal::As(Refusal::Unknown { last: head.last_batch }))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Wall = Wall(1_000_000_000_000);
    const DAY: i64 = 86_400;

    fn head(live: bool) -> Head {
        let open = Open { batch: BatchId(100), next: MessageNumber(4), rows: 30, last_at: NOW };
        Head { epoch: Epoch(7), live, open: Some(open), last_batch: BatchId(100) }
    }

    #[test]
    fn the_grid_of_messages_is_golden() {
        let known = [
            Known::Nothing,
            Known::Batch(BatchState::Open),
            Known::Batch(BatchState::Complete),
            Known::Batch(BatchState::Abandoned),
            Known::Message { same: true },
            Known::Message { same: false },
        ];
        let mut grid = String::new();
        for (live, epoch) in
            [(true, Some(Epoch(7))), (true, Some(Epoch(6))), (true, None), (false, None)]
        {
            for batch in [99, 100, 101, NOW.seconds() + DAY + 1] {
                for number in [1, 3, 4, 5] {
                    for known in known {
                        let offer =
                            Offer { epoch, batch: BatchId(batch), number: MessageNumber(number) };
                        let verdict = judge(&head(live), &offer, known, NOW);
                        grid.push_str(&format!(
                            "live {live}, epoch {epoch:?}, batch {batch}, n {number}, {known:?}: {verdict:?}\n"
                        ));
                    }
                }
            }
        }
        assert_eq!(grid, include_str!("batch.golden.txt"), "got:\n{grid}");
    }

    #[test]
    fn a_batch_starts_at_one_and_not_more_than_a_day_ahead() {
        let offer = |batch, number| Offer {
            epoch: Some(Epoch(7)),
            batch: BatchId(batch),
            number: MessageNumber(number),
        };
        let judge =
            |head: &Head, batch, number| judge(head, &offer(batch, number), Known::Nothing, NOW);
        let last = BatchId(100);
        assert_eq!(judge(&head(true), 101, 1), Verdict::Accept { opens: true });
        assert_eq!(judge(&head(true), 101, 2), Verdict::Refuse(Refusal::Unknown { last }));
        assert_eq!(judge(&head(true), NOW.seconds() + DAY, 1), Verdict::Accept { opens: true });
        let ahead = Verdict::Refuse(Refusal::ClockAhead { last });
        assert_eq!(judge(&head(true), NOW.seconds() + DAY + 1, 1), ahead);
        let stepped = Head { last_batch: BatchId(NOW.seconds() + DAY), open: None, ..head(true) };
        assert_eq!(judge(&stepped, NOW.seconds() + DAY + 1, 1), Verdict::Accept { opens: true });
    }

    #[test]
    fn a_summary_is_taken_repeated_refused_or_unknown() {
        let manifest = |messages, rows| Manifest { messages, rows, start: None, end: Some(9) };
        let judge = |told: Told, manifest: Manifest| {
            judge_summary(&head(true), Some(Epoch(7)), BatchId(100), (&told, &manifest))
        };
        assert_eq!(judge(Told::Open, manifest(3, 30)), SummaryVerdict::Complete);
        let missing = SummaryRefusal::Missing { from: MessageNumber(4), to: MessageNumber(5) };
        assert_eq!(judge(Told::Open, manifest(5, 30)), SummaryVerdict::Refuse(missing));
        let mismatch = SummaryRefusal::Mismatch { messages: 3, rows: 30 };
        for wrong in [manifest(3, 29), manifest(2, 30), manifest(-1, 30)] {
            assert_eq!(judge(Told::Open, wrong), SummaryVerdict::Refuse(mismatch));
        }
        let backwards = Manifest { start: Some(10), ..manifest(3, 30) };
        assert_eq!(judge(Told::Open, backwards), SummaryVerdict::Refuse(mismatch));
        let stored = Told::Complete(manifest(3, 30));
        assert_eq!(judge(stored, manifest(3, 30)), SummaryVerdict::Duplicate);
        let refused = |refusal| SummaryVerdict::Refuse(SummaryRefusal::As(refusal));
        assert_eq!(judge(stored, manifest(3, 31)), refused(Refusal::Conflict));
        let closed = refused(Refusal::Closed(BatchState::Abandoned));
        assert_eq!(judge(Told::Abandoned, manifest(3, 30)), closed);
        assert_eq!(
            judge(Told::Nothing, manifest(3, 30)),
            refused(Refusal::Unknown { last: BatchId(100) })
        );
    }

    #[test]
    fn ten_minutes_of_silence_end_a_batch_and_one_minute_shows_it_as_stalled() {
        let open = head(true).open.unwrap();
        let at = |seconds: i64| Wall(NOW.0 + seconds * 1_000_000);
        assert!(!is_silent(&open, at(599)) && is_silent(&open, at(600)));
        assert!(!is_stalled(NOW, at(59)) && is_stalled(NOW, at(60)));
        assert!(!is_silent(&open, at(-1000)), "a clock that steps back is no silence");
    }

    proptest! {
        #[test]
        fn a_foreign_epoch_never_gets_anything_and_acceptance_is_always_the_next_number(
            epoch in proptest::option::of(0u64..10), live: bool, batch in -2i64..200, number in -2i32..10, pick in 0u8..6
        ) {
            let known = match pick {
                0 => Known::Nothing,
                1 => Known::Batch(BatchState::Open),
                2 => Known::Batch(BatchState::Complete),
                3 => Known::Batch(BatchState::Abandoned),
                same => Known::Message { same: same == 4 },
            };
            let offer = Offer { epoch: epoch.map(Epoch), batch: BatchId(batch), number: MessageNumber(number) };
            let head = head(live);
            match judge(&head, &offer, known, NOW) {
                Verdict::Accept { opens: true } => prop_assert!(number == 1 && batch > 100),
                Verdict::Accept { opens: false } => prop_assert!(number == 4 && batch == 100),
                Verdict::Duplicate => prop_assert_eq!(known, Known::Message { same: true }),
                Verdict::Refuse(_) => return Ok(()),
            }
            prop_assert!(epoch == Some(7) || (epoch.is_none() && !live));
        }
    }
}
