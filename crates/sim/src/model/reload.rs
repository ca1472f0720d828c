//! Reloads: which loads of a table were asked for and are done, and under which key the table is staged
//! (`contracts.md` 4.1, 5.5, 5.6).
//!
//! Promises: a load asked for stands until one that began after the request is told as done; another key is taken only
//! from a load that a person asked for as a rebuild.
//! Never: knows a row or a batch's counts.

use std::collections::{BTreeMap, BTreeSet};

use protocol::Code;

/// What is known of one shared table.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Table {
    /// Rises by one with each request.
    pub generation: i64,
    /// The newest generation that is done.
    pub done: i64,
    /// When the newest request came, microseconds.
    asked_at: i64,
    /// The load that stands may bring another key.
    pub rebuild: bool,
    /// The key under which its rows are staged.
    pub key: Option<Vec<String>>,
}

impl Table {
    /// What Entities says as `forceReload`.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.generation > self.done
    }
}

/// The shared tables of one stream.
#[derive(Clone, Default, Debug)]
pub struct Tables(pub BTreeMap<String, Table>);

impl Tables {
    #[must_use]
    pub fn share(tables: &[&str]) -> Self {
        let shared = tables.iter().map(|table| ((*table).to_owned(), Table::default()));
        Self(shared.collect())
    }

    /// A person asks for a load. A rebuild asked for stays asked for until its load is done.
    pub fn ask(&mut self, table: &str, rebuild: bool, now: i64) {
        if let Some(table) = self.0.get_mut(table) {
            table.generation += 1;
            table.asked_at = now;
            table.rebuild |= rebuild;
        }
    }

    /// Judges the key of a message that is next in its batch; true = the staging table is made anew under it.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` for a table that is not shared, `PRIMARY_KEY_CHANGED`.
    pub fn admit(&mut self, table: &str, key: &[String], base_load: bool) -> Result<bool, Code> {
        let table = self.0.get_mut(table).ok_or(Code::PermissionDenied)?;
        let changed = table.key.as_ref().is_some_and(|stands| *stands != *key);
        if changed && !(base_load && table.rebuild && table.is_asked()) {
            return Err(Code::PrimaryKeyChanged);
        }
        table.key = Some(key.to_vec());
        Ok(changed)
    }

    /// A complete batch told that these loads ended with it.
    pub fn told(&mut self, loads: &[(String, i64)]) {
        for (name, generation) in loads {
            if let Some(table) = self.0.get_mut(name) {
                table.finish(*generation);
            }
        }
    }

    /// A complete batch of a sender that knows no generations: its rows of a base load end what was asked for before
    /// the batch began.
    pub fn untold(&mut self, opened: i64, base_loaded: &BTreeSet<String>) {
        for (name, table) in &mut self.0 {
            if base_loaded.contains(name) && table.is_asked() && table.asked_at < opened {
                table.finish(table.generation);
            }
        }
    }
}

impl Table {
    /// A generation that nobody asked for counts as the newest one that was.
    fn finish(&mut self, generation: i64) {
        self.done = self.done.max(generation.min(self.generation));
        if generation >= self.generation {
            self.rebuild = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(columns: &[&str]) -> Vec<String> {
        columns.iter().map(|column| (*column).to_owned()).collect()
    }

    #[test]
    fn a_load_stands_until_the_newest_request_is_told_as_done() {
        let mut tables = Tables::share(&["T"]);
        tables.ask("T", false, 1);
        tables.ask("T", false, 2);
        tables.told(&[("T".into(), 1)]);
        assert!(tables.0["T"].is_asked());
        tables.told(&[("T".into(), 9), ("U".into(), 9)]);
        assert_eq!((tables.0["T"].done, tables.0["T"].is_asked()), (2, false));
        tables.ask("T", false, 5);
        tables.untold(5, &BTreeSet::from(["T".to_owned()]));
        assert!(tables.0["T"].is_asked(), "the batch did not begin after the request");
        tables.untold(6, &BTreeSet::new());
        assert!(tables.0["T"].is_asked(), "no row of a base load came");
        tables.untold(6, &BTreeSet::from(["T".to_owned()]));
        assert!(!tables.0["T"].is_asked());
    }

    #[test]
    fn another_key_comes_with_a_base_load_that_was_asked_for_as_a_rebuild() {
        let mut tables = Tables::share(&["T"]);
        let (one, other) = (key(&["A"]), key(&["A", "B"]));
        assert_eq!(tables.admit("U", &one, false), Err(Code::PermissionDenied));
        assert_eq!(tables.admit("T", &one, false), Ok(false));
        let refused = Err(Code::PrimaryKeyChanged);
        assert_eq!(tables.admit("T", &other, true), refused);
        tables.ask("T", false, 1);
        assert_eq!(tables.admit("T", &other, true), refused, "a plain reload keeps the table");
        tables.ask("T", true, 2);
        assert_eq!(tables.admit("T", &other, false), refused, "a delta brings no key");
        assert_eq!(tables.admit("T", &other, true), Ok(true));
        assert_eq!(tables.admit("T", &other, true), Ok(false), "made anew once");
        tables.told(&[("T".into(), 1)]);
        assert_eq!(tables.admit("T", &one, true), Ok(true), "the newest load is not done");
        tables.told(&[("T".into(), 2)]);
        assert_eq!(tables.admit("T", &other, true), refused);
    }
}
