//! Cursor: where one table goes on, as the bytes the server keeps for the agent.
//!
//! Promises: at most 1 KB; what cannot be read, or was written by a later version, means a fresh start: a base load
//! only resends.
//! Never: moves by itself; the rules of movement are in `edge` and `table`.

use std::time::Duration;

use protocol::ids::Generation;
use serde::{Deserialize, Serialize};

use crate::source::{Mask, PageKey, TableShape, Watermark};

/// The session protocol's limit for one entry.
pub(super) const CURSOR_BYTES: usize = 1_024;
const VERSION: u32 = 1;

/// One table's entry. Names are short because the entry is small.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// `W`, in the stamp column's own form. `None` in tables without stamp.
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    pub(super) watermark: Option<Watermark>,
    /// `W` as a time, for the batch's range and for people.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    pub(super) micros: Option<i64>,
    /// Last key sent with stamp `W`, where a batch was cut there.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) cut: Option<Cut>,
    /// Base load under way.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    pub(super) load: Option<Load>,
    /// A base load was complete once.
    #[serde(rename = "d", default, skip_serializing_if = "is_false")]
    pub(super) loaded: bool,
    /// Last request of the server that was run.
    #[serde(rename = "g", default, skip_serializing_if = "is_none_or_zero")]
    pub(super) generation: Option<Generation>,
    /// Last request of the admin door that was run.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub(super) local: u64,
    /// `forceReload` of a server without generations that was run, until its falling edge is seen.
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    pub(super) spent: Option<u64>,
    /// The columns changed under the stamp: the next scan compares every row with the known one.
    #[serde(rename = "c", default, skip_serializing_if = "is_false")]
    pub(super) compare: bool,
    /// When all rows were loaded or compared last, seconds since 1970; zero = not noted.
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) compared: u64,
    /// Key and stamp under which watermark and load were written.
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    pub(super) ground: Option<Ground>,
}

/// What the entry's places hang on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Ground {
    /// Hash of the names of the wire key's and the page key's columns.
    #[serde(rename = "k")]
    pub(super) key: u64,
    /// Hash of the names of the wire key's columns alone; zero = not noted.
    #[serde(rename = "w", default, skip_serializing_if = "is_zero")]
    pub(super) wire: u64,
    /// Hash of the stamp column's name, and of how its values are written; zero = none.
    #[serde(rename = "s")]
    pub(super) stamp: u64,
    /// Hash of names, types and masks of all columns; zero = not told.
    #[serde(rename = "c", default, skip_serializing_if = "is_zero")]
    pub(super) columns: u64,
}

/// What a description changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    Nothing,
    /// Columns came, went or changed: every image may be another one, whatever its stamp says.
    Columns,
    /// Another stamp: every place in the entry means something else.
    Stamp,
    /// Another key: what is known stands under the old one.
    Key,
}

/// Place of a cut inside a group of equal stamps.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Cut {
    #[serde(rename = "k")]
    pub(super) key: PageKey,
    /// Allowance in force at the cut, microseconds; a raised one drops the key.
    #[serde(rename = "e")]
    pub(super) allowance: u64,
}

/// Progress of a base load.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Load {
    /// Request of the server that it answers; what `x-base-load-done` says.
    #[serde(rename = "g")]
    pub(super) generation: Generation,
    /// Highest request of the admin door that it answers.
    #[serde(rename = "r", default, skip_serializing_if = "is_zero")]
    pub(super) local: u64,
    /// Key of the last row sent.
    #[serde(rename = "k", default, skip_serializing_if = "Option::is_none")]
    pub(super) after: Option<PageKey>,
    #[serde(rename = "n", default, skip_serializing_if = "is_zero")]
    pub(super) rows: u64,
    /// Hash of the filter in force; another filter starts the load again.
    #[serde(rename = "f", default, skip_serializing_if = "is_zero")]
    pub(super) filter: u64,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    #[serde(flatten)]
    cursor: Cursor,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

fn is_none_or_zero(generation: &Option<Generation>) -> bool {
    generation.is_none_or(|generation| generation.0 == 0)
}

impl Ground {
    fn of(shape: &TableShape) -> Self {
        let mut key = wire_key(shape);
        let wire = hash_of(&key);
        key.extend([""].into_iter().chain(shape.page_key.iter().map(String::as_str)));
        let columns: Vec<String> = shape
            .columns
            .iter()
            .map(|column| {
                let mask = column.mask.as_ref().map(Mask::mark).unwrap_or_default();
                format!("{} {}{mask}", column.name.folded(), column.wire_type())
            })
            .collect();
        let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
        Self {
            key: hash_of(&key),
            wire,
            stamp: shape.stamp.as_ref().map_or(0, |stamp| match stamp.form.as_str() {
                "" => hash_of(&[&stamp.column]),
                form => hash_of(&[&stamp.column, form]),
            }),
            columns: hash_of(&columns),
        }
    }
}

impl Cursor {
    /// Takes the table's shape as it is now. Under another key or stamp the table is loaded again; under other columns
    /// its rows are compared, since DDL changes images and moves no stamp.
    pub(super) fn describe(&mut self, shape: &TableShape) -> Change {
        let ground = Ground::of(shape);
        let Some(before) = self.ground.replace(ground) else { return Change::Nothing };
        if (before.key, before.stamp) == (ground.key, ground.stamp) {
            let changed = before.columns != 0 && before.columns != ground.columns;
            self.compare |= changed && shape.stamp.is_some();
            return if changed { Change::Columns } else { Change::Nothing };
        }
        (self.watermark, self.micros, self.cut, self.load) = (None, None, None, None);
        self.loaded = false;
        if before.key == ground.key { Change::Stamp } else { Change::Key }
    }

    /// Notes whether the rows of a table with a stamp are to be compared whole: what moves no stamp, or a stamp that came
    /// later than a weak bound could tell, is found by that alone (F04, F05, F12). Counted from the first look, so that
    /// the tables of a new agent do not all begin at once with their loads. `every` of zero: never by the time.
    pub(super) fn note_comparison(&mut self, every: Duration, now: u64) {
        if self.compare || every.is_zero() {
            return;
        }
        if self.compared == 0 || self.compared > now {
            self.compared = now;
        }
        self.compare = now - self.compared >= every.as_secs();
    }

    /// All rows were compared.
    pub(super) fn was_compared(&mut self, now: u64) {
        (self.compare, self.compared) = (false, now);
    }

    /// Whether the table was sent under another key than it has now: the server takes no row of it but with a load that
    /// a person ordered.
    #[must_use]
    pub(super) fn is_under_another_key(&self, shape: &TableShape) -> bool {
        let wire = self.ground.map_or(0, |ground| ground.wire);
        wire != 0 && wire != hash_of(&wire_key(shape))
    }

    /// Reads an entry; `None` = it cannot be used and the table starts again.
    #[must_use]
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let envelope: Envelope = serde_json::from_slice(bytes).ok()?;
        (envelope.v == VERSION).then_some(envelope.cursor)
    }

    /// Writes the entry. Keys that would make it too long are left out, which only reads more again: a cut falls back
    /// to the start of its group, a base load to its beginning.
    #[must_use]
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut cursor = self.clone();
        let mut bytes = cursor.json();
        if bytes.len() > CURSOR_BYTES {
            cursor.cut = None;
            bytes = cursor.json();
        }
        if bytes.len() > CURSOR_BYTES {
            if let Some(load) = &mut cursor.load {
                (load.after, load.rows) = (None, 0);
            }
            bytes = cursor.json();
        }
        bytes
    }

    fn json(&self) -> Vec<u8> {
        // Strings and numbers alone: writing them to memory cannot fail, and an empty entry only starts again.
        serde_json::to_vec(&Envelope { v: VERSION, cursor: self.clone() }).unwrap_or_default()
    }
}

/// Folded names of the key's columns, in key order.
fn wire_key(shape: &TableShape) -> Vec<&str> {
    let names = shape.key.iter().filter_map(|at| Some(shape.columns.get(*at)?.name.folded()));
    names.collect()
}

/// A hash for comparison with itself only: of a filter, or of a table and its filter.
#[must_use]
pub(super) fn hash_of(parts: &[&str]) -> u64 {
    let key = protocol::key::KeyBytes::of(parts.iter().copied());
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&key.0);
    let mut head = [0; 8];
    head.copy_from_slice(&digest[..8]);
    // Zero stands for "none" in the entry.
    u64::from_be_bytes(head).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_key() -> impl Strategy<Value = PageKey> {
        proptest::collection::vec(".{0,20}", 1..4).prop_map(PageKey)
    }

    prop_compose! {
        fn any_cursor()(
            watermark in proptest::option::of("[0-9: .-]{1,64}"),
            micros in proptest::option::of(any::<i64>()),
            cut in proptest::option::of((any_key(), any::<u64>())),
            load in proptest::option::of((any::<i64>(), any::<u64>(), proptest::option::of(any_key()), any::<u64>())),
            loaded in any::<bool>(),
            generation in proptest::option::of(1..i64::MAX),
            local in any::<u64>(),
            spent in proptest::option::of(any::<u64>()),
        ) -> Cursor {
            Cursor {
                watermark: watermark.map(Watermark),
                micros,
                cut: cut.map(|(key, allowance)| Cut { key, allowance }),
                load: load.map(|(generation, local, after, rows)| Load {
                    generation: Generation(generation), local, after, rows, filter: rows,
                }),
                loaded,
                generation: generation.map(Generation),
                local,
                spent,
                compare: loaded,
                compared: local,
                ground: local.is_multiple_of(2).then_some(Ground { key: local, wire: local, stamp: local, columns: local }),
            }
        }
    }

    proptest! {
        #[test]
        fn an_entry_that_fits_reads_back_as_it_was(cursor in any_cursor()) {
            let bytes = cursor.encode();
            prop_assert!(bytes.len() <= CURSOR_BYTES);
            if cursor.json().len() <= CURSOR_BYTES {
                prop_assert_eq!(Cursor::decode(&bytes), Some(cursor));
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Cursor::decode(&bytes);
        }
    }

    #[test]
    fn another_key_or_another_stamp_makes_every_place_void_and_loads_again() {
        use crate::source::{ColumnShape, ColumnSource, StampShape, TableShape};
        let column = |name: &str| ColumnShape {
            name: name.parse().unwrap(),
            type_name: protocol::value::TypeName::parse("string"),
            from: ColumnSource::Physical(name.into()),
            mask: None,
        };
        let stamp = |name: &str| StampShape {
            column: name.into(),
            form: String::new(),
            allowance: std::time::Duration::ZERO,
            nullable: false,
        };
        let mut shape = TableShape {
            wire: "T".parse().unwrap(),
            physical: (None, "T".into()),
            columns: vec![column("A"), column("B")],
            key: vec![0],
            page_key: vec!["A".into()],
            stamp: Some(stamp("S")),
            soft_delete: None,
            shared_key: false,
            fingerprint: [0; 16],
        };
        let loaded = || Cursor {
            watermark: Some(Watermark("1".into())),
            loaded: true,
            generation: Some(Generation(3)),
            ..Cursor::default()
        };
        let mut cursor = loaded();
        assert_eq!(cursor.describe(&shape), Change::Nothing, "an entry without ground takes it");
        assert_eq!(cursor.describe(&shape), Change::Nothing);
        assert!(cursor.loaded && !cursor.compare);
        shape.columns.push(column("C"));
        assert_eq!(cursor.describe(&shape), Change::Columns);
        assert!(cursor.loaded && cursor.compare && cursor.watermark.is_some(), "deltas go on");
        shape.columns[1].mask = Some(crate::source::Mask::Null);
        assert_eq!(cursor.describe(&shape), Change::Columns, "a mask changes images too");
        assert_eq!(cursor.describe(&shape), Change::Nothing);
        shape.stamp = Some(stamp("S2"));
        assert_eq!(cursor.describe(&shape), Change::Stamp, "known rows stay");
        assert!(!cursor.loaded && cursor.watermark.is_none());
        let mut cursor = Cursor { ground: cursor.ground, ..loaded() };
        assert!(!cursor.is_under_another_key(&shape));
        shape.key = vec![0, 1];
        assert!(cursor.is_under_another_key(&shape));
        let old_entry =
            Cursor { ground: cursor.ground.map(|g| Ground { wire: 0, ..g }), ..loaded() };
        assert!(
            !old_entry.is_under_another_key(&shape),
            "an entry that does not tell is no reason"
        );
        assert_eq!(cursor.describe(&shape), Change::Key);
        assert!(!cursor.loaded && cursor.watermark.is_none());
        assert!(!cursor.is_under_another_key(&shape));
        assert_eq!(cursor.generation, Some(Generation(3)));
    }

    #[test]
    fn an_entry_of_another_version_or_of_nonsense_starts_again() {
        for bad in ["", "{}", "[]", r#"{"v":2,"w":"1"}"#, r#"{"v":1,"w":7}"#] {
            assert_eq!(Cursor::decode(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Cursor::decode(br#"{"v":1}"#), Some(Cursor::default()));
    }

    #[test]
    fn a_key_too_long_for_the_entry_is_left_out_and_nothing_else() {
        let long = PageKey(vec!["x".repeat(600)]);
        let cursor = Cursor {
            watermark: Some(Watermark("2024-01-01".into())),
            cut: Some(Cut { key: long.clone(), allowance: 1 }),
            load: Some(Load { after: Some(long.clone()), rows: 9, ..Load::default() }),
            ..Cursor::default()
        };
        let read = Cursor::decode(&cursor.encode()).unwrap();
        assert_eq!((read.cut, read.load.unwrap().after), (None, Some(long)));
        let longer = PageKey(vec!["x".repeat(1_100)]);
        let cursor =
            Cursor { load: Some(Load { after: Some(longer), ..Load::default() }), ..cursor };
        let read = Cursor::decode(&cursor.encode()).unwrap();
        assert_eq!((read.load.unwrap().after, read.watermark), (None, cursor.watermark));
    }

    #[test]
    fn hashes_tell_parts_apart_by_their_borders() {
        assert_ne!(hash_of(&["a", "b"]), hash_of(&["ab", ""]));
        assert_eq!(hash_of(&["a"]), hash_of(&["a"]));
    }
}
