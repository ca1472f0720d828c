//! Verdict: what a comparison of source and staging found.
//!
//! Promises: every difference is counted; the first [`SHOWN`] are kept with table, key hash and columns.
//! Never: holds a row's value or key.

use std::collections::{BTreeSet, HashSet};

use protocol::{Error, key::KeyBytes};
use sha2::{Digest as _, Sha256};

use crate::lang::Lang;

/// Differences that are kept with their place; all are counted.
pub(crate) const SHOWN: usize = 20;
/// Differing rows that are remembered for a second look; where more differ, no look makes them fewer.
const REMEMBERED: usize = 100_000;

/// One row that differs.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Difference {
    pub(crate) table: String,
    /// SHA-256 of the key, its first half in hex: a key is a row's value and stays out of sight.
    pub(crate) key_hash: String,
    pub(crate) kind: Kind,
    /// Columns that differ, where both sides have the row.
    pub(crate) columns: Vec<String>,
    /// Code and words, where the agent said why the row cannot be equal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
}

impl Difference {
    /// As people read it.
    pub(crate) fn line(&self, lang: Lang) -> String {
        let key = lang.pick("key", "chave");
        let mut line =
            format!("  {} {key} {} {}", self.table, self.key_hash, self.kind.words(lang));
        if !self.columns.is_empty() {
            line = format!("{line}: {}", self.columns.join(", "));
        }
        if let Some(why) = &self.why {
            line = format!("{line}: {why}");
        }
        line
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Kind {
    /// The source has the row, staging has not.
    Missing,
    /// Staging has the row live, the source has not.
    Extra,
    /// Both have it with other values.
    Values,
    /// Two rows of the source share the key, so staging can hold one of them only.
    KeyTwice,
    /// The row has a value that cannot travel unchanged.
    Quarantined,
}

impl Kind {
    fn words(self, lang: Lang) -> &'static str {
        match self {
            Self::Missing => lang.pick("missing in staging", "falta no staging"),
            Self::Extra => lang.pick("too many in staging", "sobra no staging"),
            Self::Values => lang.pick("other values", "valores diferentes"),
            Self::KeyTwice => lang.pick("key twice in the source", "chave repetida na origem"),
            Self::Quarantined => lang.pick("in quarantine", "em quarentena"),
        }
    }
}

/// Sum over tables.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) tables: usize,
    pub(crate) rows: u64,
    pub(crate) differences: u64,
    pub(crate) first: Vec<Difference>,
    /// Table and key hash of the differing rows.
    pub(crate) differing: BTreeSet<(String, String)>,
}

impl Verdict {
    pub(crate) fn is_equal(&self) -> bool {
        self.differences == 0
    }

    pub(crate) fn differs(
        &mut self,
        table: &str,
        key: &[u8; 16],
        kind: Kind,
        columns: Vec<String>,
    ) {
        self.differences += 1;
        let key_hash: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        if self.differing.len() < REMEMBERED {
            self.differing.insert((table.to_owned(), key_hash.clone()));
        }
        if self.first.len() < SHOWN {
            let table = table.to_owned();
            self.first.push(Difference { table, key_hash, kind, columns, why: None });
        }
    }

    /// A row that its agent leaves out, and why.
    pub(crate) fn quarantined(&mut self, table: &str, key: &[u8; 16], why: &Error) {
        let shown = self.first.len();
        self.differs(table, key, Kind::Quarantined, Vec::new());
        if let Some(difference) = self.first.get_mut(shown) {
            difference.why = Some(why.to_string());
        }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.tables += other.tables;
        self.rows += other.rows;
        self.differences += other.differences;
        let room = SHOWN - self.first.len().min(SHOWN);
        self.first.extend(other.first.into_iter().take(room));
        let room = REMEMBERED - self.differing.len().min(REMEMBERED);
        self.differing.extend(other.differing.into_iter().take(room));
    }

    /// What still differs after a second look some cycles later: while a source is written to, a row may differ because
    /// it changed between the two reads. A row that differs in both looks counts.
    pub(crate) fn also_in(mut self, before: &Self) -> Self {
        let all = |verdict: &Self| verdict.differences <= REMEMBERED as u64;
        if !all(&self) || !all(before) {
            return self;
        }
        self.differing.retain(|row| before.differing.contains(row));
        let kept = &self.differing;
        self.first.retain(|row| kept.contains(&(row.table.clone(), row.key_hash.clone())));
        self.differences = self.differing.len() as u64;
        self
    }
}

/// Keys of the source's live rows, as hashes: 16 bytes a row.
#[derive(Debug, Default)]
pub(crate) struct Keys(HashSet<[u8; 16]>);

impl Keys {
    pub(crate) fn hash(key: &KeyBytes) -> [u8; 16] {
        let digest = Sha256::digest(&key.0);
        let mut head = [0; 16];
        head.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        head
    }

    /// `false` where the key was there already.
    pub(crate) fn insert(&mut self, hash: [u8; 16]) -> bool {
        self.0.insert(hash)
    }

    pub(crate) fn contains(&self, hash: &[u8; 16]) -> bool {
        self.0.contains(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_counted_and_the_first_are_kept() {
        let mut verdict = Verdict { tables: 1, rows: 50, ..Verdict::default() };
        for n in 0..50 {
            let key = Keys::hash(&KeyBytes::of([n.to_string().as_str()]));
            verdict.differs("FLAN", &key, Kind::Values, vec!["VALOR".into()]);
        }
        assert_eq!((verdict.differences, verdict.first.len()), (50, SHOWN));
        let mut sum = Verdict { tables: 1, rows: 1, ..Verdict::default() };
        sum.add(verdict);
        assert_eq!((sum.tables, sum.rows, sum.differences, sum.first.len()), (2, 51, 50, SHOWN));
        assert!(!sum.is_equal());
    }

    #[test]
    fn a_difference_is_told_in_both_languages_and_a_quarantined_row_with_its_reason() {
        let mut verdict = Verdict::default();
        let key = Keys::hash(&KeyBytes::of(["1"]));
        let why = Error::new(protocol::Code::ValueUnfit, "column NOTE: not UTF-8");
        verdict.quarantined("FLAN", &key, &why);
        verdict.differs("FLAN", &key, Kind::Values, vec!["A".into(), "B".into()]);
        let lines: Vec<String> = verdict.first.iter().map(|found| found.line(Lang::Pt)).collect();
        assert!(
            lines[0].ends_with("em quarentena: VALUE_UNFIT: column NOTE: not UTF-8"),
            "{lines:?}"
        );
        assert!(lines[1].ends_with("valores diferentes: A, B"), "{lines:?}");
        assert!(verdict.first[0].line(Lang::En).contains(" key "), "{lines:?}");
    }

    #[test]
    fn a_row_that_changed_between_the_reads_is_no_difference_and_one_that_stays_is() {
        let of = |keys: &[&str]| {
            let mut verdict = Verdict { tables: 1, rows: 9, ..Verdict::default() };
            for key in keys {
                let key = Keys::hash(&KeyBytes::of([*key]));
                verdict.differs("FLAN", &key, Kind::Values, vec!["VALOR".into()]);
            }
            verdict
        };
        let again = of(&["b", "c"]).also_in(&of(&["a", "b"]));
        assert_eq!((again.differences, again.first.len(), again.rows), (1, 1, 9));
        assert_eq!(again.first, of(&["b"]).first);
        assert!(of(&["c"]).also_in(&of(&["a"])).is_equal());
    }

    #[test]
    fn a_key_is_known_by_its_hash() {
        let mut keys = Keys::default();
        let one = Keys::hash(&KeyBytes::of(["1", "x"]));
        assert!(keys.insert(one) && !keys.insert(one) && keys.contains(&one));
        assert!(!keys.contains(&Keys::hash(&KeyBytes::of(["1x", ""]))));
    }
}
