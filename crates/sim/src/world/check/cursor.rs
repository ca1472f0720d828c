//! Cursor: what a cursor entry says of where a table is read from, as far as I9 needs it.
//!
//! Promises: reads the entry's JSON by itself; what it does not know it takes for "nothing is passed".
//! Never: shares a line with `agent::capture`.

use serde_json::Value;

/// Where the next read of a table begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    watermark: i64,
    /// Key of the last row with the watermark's stamp that was taken, where the batch was cut there.
    cut: Option<i64>,
    /// A base load is under way, and has come so far.
    load: Option<Option<i64>>,
}

impl Place {
    /// `None` = the entry has no watermark, or is none.
    pub(super) fn read(entry: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(entry).ok()?;
        let key = |value: &Value| value.get(0)?.as_str()?.parse().ok();
        let watermark = value.get("w")?.as_str()?.parse().ok()?;
        let cut = value.get("k").and_then(|cut| key(cut.get("k")?));
        let load = value.get("l").map(|load| load.get("k").and_then(key));
        Some(Self { watermark, cut, load })
    }

    /// Whether no delta from here meets a row with that stamp and key.
    pub(super) fn passed(&self, stamp: i64, id: i64, allowance: i64) -> bool {
        match self.cut {
            Some(cut) => (stamp, id) <= (self.watermark, cut),
            None => stamp < self.watermark - allowance,
        }
    }

    /// Whether the base load that is under way comes to that key.
    pub(super) fn will_load(&self, id: i64) -> bool {
        self.load.is_some_and(|after| after.is_none_or(|after| id > after))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_tells_what_it_has_passed() {
        let place = Place::read(br#"{"v":1,"w":"100","d":true}"#).unwrap();
        assert!(place.passed(96, 1, 3) && !place.passed(97, 1, 3) && !place.will_load(1));
        let cut = br#"{"v":1,"w":"100","k":{"k":["7"],"e":3},"l":{"g":1,"k":["5"]}}"#;
        let place = Place::read(cut).unwrap();
        assert!(place.passed(100, 7, 3) && !place.passed(100, 8, 3));
        assert!(place.will_load(6) && !place.will_load(5));
        assert_eq!(Place::read(b"{}"), None);
    }
}
