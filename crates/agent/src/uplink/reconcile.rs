//! Reconcile: asks the cloud what is staged where a verification wants to know.
//!
//! Promises: answers each question with what the server said, or with why it said nothing; a table of which nothing is
//! staged yet is an empty one.
//! Never: compares, or asks again: whoever wants to know decides that.

use protocol::{
    Code, Error,
    hash::RowHash,
    key::KeyBytes,
    names::ErpName,
    proto::ingestion::{
        KeyRange, RangeSum, RangesRequest, RangesResponse, RowsRequest, RowsResponse,
    },
};

use super::rpc::{CallError, RANGES, ROWS, Rpc};
use crate::journal::{Journal, KeySpan, Question, StagedPage, StagedSum, Told};

/// Answers for as long as the session is held. Ends where the journal is closed.
pub(super) async fn answer(journal: &Journal, rpc: &Rpc, erp: &ErpName) -> Error {
    while let Some(asked) = journal.asked().await {
        let told = tell(rpc, erp, asked.question.clone()).await;
        asked.answer(told.map_err(|call| why(&call)));
    }
    Error::new(Code::JournalFailed, "the journal is closed")
}

fn why(call: &CallError) -> Error {
    if call.is_unimplemented() {
        let words = "the server cannot tell what is staged: it does not know Reconcile";
        return Error::new(Code::VersionUnsupported, words);
    }
    call.error()
}

async fn tell(rpc: &Rpc, erp: &ErpName, question: Question) -> Result<Told, CallError> {
    let erp = erp.to_string();
    match question {
        Question::Sums { table, span, bounds } => {
            let (table, parts) = (table.to_string(), bounds.len() + 1);
            let (before, bounds) = parted(&span, bounds);
            let asked = bounds.len() + 1;
            let range = Some(KeyRange { from: span.from.0, to: span.to.0 });
            let answer = rpc.call(RANGES, RangesRequest { erp, table, bounds, range }).await;
            let Some(told): Option<RangesResponse> = there(answer)? else {
                return Ok(Told::Sums(vec![StagedSum::default(); parts]));
            };
            if told.sums.len() != asked {
                let words = "Reconcile answered other ranges than it was asked for";
                return Err(CallError::Before(Error::new(Code::CloudUnreachable, words)));
            }
            let sum = |sum: RangeSum| Ok(StagedSum { count: sum.count, xor: hash(sum.xor128)? });
            let within = told.sums.into_iter().skip(before).take(parts);
            Ok(Told::Sums(within.map(sum).collect::<Result<_, CallError>>()?))
        }
        Question::Rows { table, span, after } => {
            let range = Some(KeyRange { from: span.from.0, to: span.to.0 });
            let request = RowsRequest { erp, table: table.to_string(), range, after: after.0 };
            let told: Option<RowsResponse> = there(rpc.call(ROWS, request).await)?;
            let told = told.unwrap_or_default();
            let row = |row: protocol::proto::ingestion::RowHash| {
                Ok((KeyBytes(row.key), hash(row.hash128)?))
            };
            let rows = told.rows.into_iter().map(row).collect::<Result<Vec<_>, CallError>>()?;
            // A page that says there is more and holds nothing could not be gone on from.
            let more = told.more && !rows.is_empty();
            Ok(Told::Rows(StagedPage { rows, more }))
        }
    }
}

/// The bounds with the ends of the span, so that a server that knows no span parts the keys there too; and how many ranges
/// lie before it.
fn parted(span: &KeySpan, inner: Vec<KeyBytes>) -> (usize, Vec<Vec<u8>>) {
    let end = |key: &KeyBytes| (!key.0.is_empty()).then(|| key.0.clone());
    let before = usize::from(!span.from.0.is_empty());
    let inner = inner.into_iter().map(|bound| bound.0);
    (before, end(&span.from).into_iter().chain(inner).chain(end(&span.to)).collect())
}

/// `None` = nothing is staged yet.
fn there<T>(answer: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match answer {
        Err(call) if call.grpc() == Some(tonic::Code::NotFound) => Ok(None),
        answer => answer.map(Some),
    }
}

fn hash(bytes: Vec<u8>) -> Result<RowHash, CallError> {
    bytes.try_into().map(RowHash).map_err(|_| {
        let words = "Reconcile answered a hash that has not 16 bytes";
        CallError::Before(Error::new(Code::CloudUnreachable, words))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_a_span_are_bounds_and_an_open_end_is_none() {
        let key = |text: &str| KeyBytes::of([text]);
        let of = |from: KeyBytes, to: KeyBytes| parted(&KeySpan { from, to }, vec![key("5")]);
        let bytes = |keys: &[&str]| keys.iter().map(|text| key(text).0).collect::<Vec<_>>();
        let open = KeyBytes::default();
        assert_eq!(of(open.clone(), open.clone()), (0, bytes(&["5"])));
        assert_eq!(of(key("1"), open.clone()), (1, bytes(&["1", "5"])));
        assert_eq!(of(open, key("9")), (0, bytes(&["5", "9"])));
        assert_eq!(of(key("1"), key("9")), (1, bytes(&["1", "5", "9"])));
    }
}
