//! What the sender does with an answer: the sender's column of `contracts.md` 5.5.
//!
//! Promises: pure; every outcome has exactly one action; what is not understood is repeated with pauses, never dropped
//! in silence and never taken for success.
//! Never: looks at words but for the code at their head and the number a gap names.

use std::time::Duration;

use protocol::{Code, GrpcStatus};
use tonic::Code as Grpc;

/// Characters of an answer's words that are kept: a server that is not ours may answer anything.
const WORDS: usize = 500;

/// An answer to a call, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Success,
    /// `success = false`: the entries of `errors`.
    Refused(Vec<String>),
    Status {
        grpc: Grpc,
        words: String,
        retry_after: Option<Duration>,
    },
}

/// What happened before in this batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Standing {
    /// The token was renewed for this call.
    pub token_renewed: bool,
    /// The last gap resent named this number.
    pub gap_at: Option<i32>,
    /// The missing tail was resent and the Summary repeated.
    pub tail_resent: bool,
}

impl Standing {
    /// The action is taken: the same answer again has another meaning, whichever call it comes to.
    pub(super) fn resent(&mut self, action: &Action) {
        match action {
            Action::ResendFrom(expected) => self.gap_at = Some(*expected),
            Action::ResendTail(_) => self.tail_resent = true,
            _ => {}
        }
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Done,
    /// The same bytes again, after the time given or a growing pause.
    Repeat(Option<Duration>),
    RenewToken,
    /// Out of the spool from this number on.
    ResendFrom(i32),
    /// The tail from this number on, then the Summary once more.
    ResendTail(i32),
    /// One recovery path: drop the batch, Release, Open, read again.
    Drop {
        code: Code,
        alert: bool,
    },
    /// As `Drop`, and nothing of that table until a person acts.
    Park(Code),
    /// As `Drop`; the table goes one row a message until the culprit is known.
    Suspect(Code),
    /// Drop the batch, stand by, Open with growing pauses.
    Fenced(Code),
}

impl Outcome {
    /// The words that decide: of several errors the first one with a code, since a code is what is understood.
    pub(super) fn words(&self) -> &str {
        let words = self.all_words();
        let end = words.char_indices().nth(WORDS).map(|(end, _)| end);
        end.and_then(|end| words.get(..end)).unwrap_or(words)
    }

    fn all_words(&self) -> &str {
        match self {
            Self::Success => "",
            Self::Refused(errors) => errors
                .iter()
                .find(|words| code_of(words).is_some())
                .or_else(|| errors.first())
                .map_or("refused without words", String::as_str),
            Self::Status { words, .. } => words,
        }
    }
}

/// The code that `CODE: words` begins with.
pub(super) fn code_of(words: &str) -> Option<Code> {
    words.parse().ok()
}

pub(super) fn decide(outcome: &Outcome, standing: Standing) -> Action {
    let words = outcome.words();
    let code = code_of(words);
    match outcome {
        Outcome::Success => Action::Done,
        Outcome::Refused(_) => refused(code, words, standing),
        // A service without errors[] has no other way to say a business outcome; it fences nobody.
        Outcome::Status { grpc: Grpc::FailedPrecondition, .. } if code.is_some_and(is_business) => {
            refused(code, words, standing)
        }
        Outcome::Status { grpc, retry_after, .. } => status(*grpc, code, *retry_after, standing),
    }
}

fn is_business(code: Code) -> bool {
    code.grpc() == GrpcStatus::Ok
}

/// What a size was refused with; every other code of RESOURCE_EXHAUSTED speaks of room, which comes back.
fn is_size(code: Code) -> bool {
    matches!(code, Code::MessageTooLarge | Code::RowTooLarge | Code::BodyTooLarge)
}

fn refused(code: Option<Code>, words: &str, standing: Standing) -> Action {
    let alert = |code| Action::Drop { code, alert: true };
    let quiet = |code| Action::Drop { code, alert: false };
    match code {
        Some(code @ Code::SequenceGap) => match number_after(words, "expects message ") {
            // Progress since the last gap earns another try; the same number again does not.
            Some(expected) if standing.gap_at.is_none_or(|before| expected > before) => {
                Action::ResendFrom(expected)
            }
            _ => quiet(code),
        },
        Some(code @ (Code::MessagesMissing | Code::SummaryMismatch)) if standing.tail_resent => {
            alert(code)
        }
        // Without a number the whole batch goes again: what the server has are exact repeats.
        Some(Code::MessagesMissing | Code::SummaryMismatch) => {
            Action::ResendTail(number_after(words, "messages ").unwrap_or(1))
        }
        Some(code @ (Code::MissingKeyColumn | Code::PrimaryKeyChanged)) => Action::Park(code),
        Some(code @ (Code::RecordCountMismatch | Code::MessageConflict)) => alert(code),
        Some(code @ (Code::BatchClosed | Code::BatchUnknown | Code::ClockAhead)) => quiet(code),
        // A business outcome this version does not know: the batch cannot go on.
        code => alert(code.unwrap_or(Code::BadRequest)),
    }
}

fn status(
    grpc: Grpc,
    code: Option<Code>,
    retry_after: Option<Duration>,
    standing: Standing,
) -> Action {
    match grpc {
        Grpc::Ok => Action::Done,
        Grpc::Unauthenticated if !standing.token_renewed => Action::RenewToken,
        Grpc::PermissionDenied => Action::Park(code.unwrap_or(Code::PermissionDenied)),
        Grpc::InvalidArgument => Action::Suspect(code.unwrap_or(Code::InvalidArgument)),
        Grpc::OutOfRange => Action::Suspect(Code::MessageTooLarge),
        // Room may be spoken of without retry info; to take it for a size would leave good rows out.
        Grpc::ResourceExhausted
            if retry_after.is_some() || code.is_some_and(|code| !is_size(code)) =>
        {
            Action::Repeat(retry_after)
        }
        Grpc::ResourceExhausted => Action::Suspect(Code::MessageTooLarge),
        Grpc::FailedPrecondition => Action::Fenced(code.unwrap_or(Code::Fenced)),
        Grpc::DataLoss => Action::Drop { code: code.unwrap_or(Code::Internal), alert: true },
        // Transport or server trouble, and whatever else: the outcome is unknown.
        _ => Action::Repeat(retry_after),
    }
}

fn number_after(words: &str, mark: &str) -> Option<i32> {
    let (_, rest) = words.split_once(mark)?;
    let digits: &str = rest.split(|sign: char| !sign.is_ascii_digit()).next()?;
    digits.parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(words: &str) -> Outcome {
        Outcome::Refused(vec![words.to_owned()])
    }

    fn status(grpc: Grpc, words: &str) -> Outcome {
        Outcome::Status { grpc, words: words.to_owned(), retry_after: None }
    }

    #[test]
    fn words_are_cut_where_they_are_longer_than_people_read() {
        let long = status(Grpc::Internal, &"ã".repeat(9_000));
        assert_eq!(long.words().chars().count(), WORDS);
        assert_eq!(refusal("short").words(), "short");
    }

    #[test]
    fn every_row_of_the_contracts_table_has_its_action() {
        let wait = Some(Duration::from_secs(2));
        let quiet = |code| Action::Drop { code, alert: false };
        let alert = |code| Action::Drop { code, alert: true };
        let rows = [
            (Outcome::Success, Action::Done),
            (status(Grpc::Unauthenticated, "UNAUTHENTICATED: expired"), Action::RenewToken),
            (
                status(Grpc::PermissionDenied, "PERMISSION_DENIED: x"),
                Action::Park(Code::PermissionDenied),
            ),
            (
                status(Grpc::InvalidArgument, "INVALID_ARGUMENT: x"),
                Action::Suspect(Code::InvalidArgument),
            ),
            (status(Grpc::OutOfRange, "too large"), Action::Suspect(Code::MessageTooLarge)),
            (
                status(Grpc::ResourceExhausted, "MESSAGE_TOO_LARGE: x"),
                Action::Suspect(Code::MessageTooLarge),
            ),
            (
                status(Grpc::ResourceExhausted, "foreign words"),
                Action::Suspect(Code::MessageTooLarge),
            ),
            (
                Outcome::Status {
                    grpc: Grpc::ResourceExhausted,
                    words: "RATE_LIMITED: x".into(),
                    retry_after: wait,
                },
                Action::Repeat(wait),
            ),
            (status(Grpc::Unavailable, "UNAVAILABLE: x"), Action::Repeat(None)),
            (status(Grpc::DeadlineExceeded, "TIMEOUT: x"), Action::Repeat(None)),
            (status(Grpc::Aborted, "x"), Action::Repeat(None)),
            (status(Grpc::FailedPrecondition, "FENCED: x"), Action::Fenced(Code::Fenced)),
            (
                status(Grpc::FailedPrecondition, "EPOCH_REQUIRED: x"),
                Action::Fenced(Code::EpochRequired),
            ),
            (
                refusal("SEQUENCE_GAP: batch 17 of RM expects message 3, got 5"),
                Action::ResendFrom(3),
            ),
            (refusal("MESSAGE_CONFLICT: x"), alert(Code::MessageConflict)),
            (refusal("RECORD_COUNT_MISMATCH: x"), alert(Code::RecordCountMismatch)),
            (refusal("MISSING_KEY_COLUMN: x"), Action::Park(Code::MissingKeyColumn)),
            (refusal("PRIMARY_KEY_CHANGED: x"), Action::Park(Code::PrimaryKeyChanged)),
            (refusal("BATCH_CLOSED: x"), quiet(Code::BatchClosed)),
            (refusal("BATCH_UNKNOWN: x"), quiet(Code::BatchUnknown)),
            (refusal("CLOCK_AHEAD: x"), quiet(Code::ClockAhead)),
            (
                refusal("MESSAGES_MISSING: batch 17 of RM lacks messages 4 to 6"),
                Action::ResendTail(4),
            ),
            (refusal("SUMMARY_MISMATCH: x"), Action::ResendTail(1)),
        ];
        for (outcome, action) in rows {
            assert_eq!(decide(&outcome, Standing::default()), action, "{outcome:?}");
        }
    }

    #[test]
    fn a_second_try_without_progress_drops() {
        let gap = refusal("SEQUENCE_GAP: batch 17 of RM expects message 3, got 5");
        let at = |gap_at| Standing { gap_at, ..Standing::default() };
        assert_eq!(decide(&gap, at(Some(2))), Action::ResendFrom(3));
        assert_eq!(
            decide(&gap, at(Some(3))),
            Action::Drop { code: Code::SequenceGap, alert: false }
        );
        let nameless = refusal("SEQUENCE_GAP: no number");
        assert!(matches!(decide(&nameless, at(None)), Action::Drop { .. }));
        let missing = refusal("MESSAGES_MISSING: batch 17 of RM lacks messages 4 to 6");
        let resent = Standing { tail_resent: true, ..Standing::default() };
        assert_eq!(
            decide(&missing, resent),
            Action::Drop { code: Code::MessagesMissing, alert: true }
        );
        let renewed = Standing { token_renewed: true, ..Standing::default() };
        assert_eq!(decide(&status(Grpc::Unauthenticated, "x"), renewed), Action::Repeat(None));
    }

    #[test]
    fn what_is_not_understood_is_never_success() {
        for grpc in 1..17 {
            assert_ne!(
                decide(&status(Grpc::from(grpc), ""), Standing::default()),
                Action::Done,
                "{grpc}"
            );
        }
        assert!(matches!(
            decide(&Outcome::Refused(vec![]), Standing::default()),
            Action::Drop { alert: true, .. }
        ));
        assert!(matches!(
            decide(&refusal("NEW_CODE: x"), Standing::default()),
            Action::Drop { alert: true, .. }
        ));
    }
}
