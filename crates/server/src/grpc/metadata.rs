//! Metadata of Write and Summary: the sender's epoch and the base loads that ended (`contracts.md` 5.6).
//!
//! Promises: absent is absent; what is there and does not read is refused.
//! Never: takes a second value of the same key.

use protocol::{
    Code, Error, Result,
    ids::{Epoch, Generation},
    loads::done_entries,
    names::TableName,
};
use tonic::metadata::MetadataMap;

/// The epoch of the session, where the sender has one.
pub(super) fn epoch(metadata: &MetadataMap) -> Result<Option<Epoch>> {
    let Some(text) = single(metadata, "x-sender-epoch")? else { return Ok(None) };
    match plain_number(text) {
        Some(epoch) if epoch > 0 => Ok(Some(Epoch(epoch))),
        _ => Err(Error::new(Code::InvalidArgument, "x-sender-epoch must be a positive integer")),
    }
}

/// Tables whose base load has its last rows in this batch, with the generation loaded.
pub(super) fn base_loads_done(metadata: &MetadataMap) -> Result<Vec<(TableName, Generation)>> {
    single(metadata, "x-base-load-done")?.map_or_else(|| Ok(Vec::new()), done_entries)
}

fn single<'a>(metadata: &'a MetadataMap, key: &str) -> Result<Option<&'a str>> {
    let mut values = metadata.get_all(key).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|_| values.next().is_none());
    text.map(Some)
        .ok_or_else(|| Error::new(Code::InvalidArgument, format!("{key} must come once, in ASCII")))
}

/// Digits alone: no sign, no blanks.
fn plain_number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &'static str, values: &[&str]) -> MetadataMap {
        let mut metadata = MetadataMap::new();
        for value in values {
            metadata.append(key, value.parse().unwrap());
        }
        metadata
    }

    #[test]
    fn an_epoch_is_a_positive_integer_given_once() {
        assert_eq!(epoch(&MetadataMap::new()).unwrap(), None);
        assert_eq!(epoch(&with("x-sender-epoch", &["7"])).unwrap(), Some(Epoch(7)));
        for bad in [
            &["0"][..],
            &["-1"],
            &["+1"],
            &["1.0"],
            &[""],
            &["x"],
            &["99999999999999999999"],
            &["1", "1"],
        ] {
            assert_eq!(
                epoch(&with("x-sender-epoch", bad)).unwrap_err().code,
                Code::InvalidArgument,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn base_loads_come_once_and_absent_is_none() {
        assert!(base_loads_done(&MetadataMap::new()).unwrap().is_empty());
        let read = |values: &[&str]| base_loads_done(&with("x-base-load-done", values));
        assert_eq!(read(&["a%2Cb:1"]).unwrap(), [("a,b".parse().unwrap(), Generation(1))]);
        for bad in [&["FLAN"][..], &["FLAN:1", "TMOV:1"]] {
            assert_eq!(read(bad).unwrap_err().code, Code::InvalidArgument, "{bad:?}");
        }
    }
}
