//! Scratch: the rows of ranges that differ, from both sides, in a database that nobody else sees; what differs of them, and
//! what of that stays so.
//!
//! Promises: memory is bounded, whatever the number of rows; the file has no name and goes with its last handle; a row
//! counts as different only where two looks show the same two images.
//! Never: reads the ERP or the cloud; holds a value but those of keys.

use std::sync::{Arc, Mutex, PoisonError};

use protocol::{Code, Error, Result, hash::RowHash, key::KeyBytes};
use runtime::task;
use rusqlite::{Connection, ErrorCode, params};

use crate::journal::{Differences, KeySpan};

/// `met` and `staged` hold the rows of both sides, `suspect` what differs: `here` and `there` are the images of the look
/// before (NULL = no row), `…_now` those of the look under way; `passes` tells whether the filter lets the ERP's row go.
const SCHEMA: &str = "
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -4000; PRAGMA temp_store = FILE;
CREATE TABLE met (key BLOB PRIMARY KEY, hash BLOB NOT NULL, passes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE staged (key BLOB PRIMARY KEY, hash BLOB NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE suspect (
    key BLOB PRIMARY KEY, here BLOB, there BLOB, here_now BLOB, there_now BLOB, passes INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'DIFFERENT', 'SKIPPED'))
) STRICT, WITHOUT ROWID;";

/// A row that the filter keeps back and that is not staged is as it should be.
const COMPARE: &str = "
INSERT INTO suspect (key, here, there, passes)
    SELECT m.key, m.hash, s.hash, m.passes FROM met m LEFT JOIN staged s ON s.key = m.key
    WHERE s.hash IS NOT m.hash AND (m.passes OR s.key IS NOT NULL);
INSERT INTO suspect (key, here, there, passes)
    SELECT s.key, NULL, s.hash, 1 FROM staged s WHERE NOT EXISTS (SELECT 1 FROM met m WHERE m.key = s.key);
DELETE FROM met;
DELETE FROM staged;";

const LOOK: &str =
    "UPDATE suspect SET here_now = NULL, there_now = NULL, passes = 1 WHERE state = 'OPEN'";

const JUDGE: &str = "
DELETE FROM suspect WHERE state = 'OPEN' AND (here_now IS there_now OR (there_now IS NULL AND NOT passes));
UPDATE suspect SET state = 'DIFFERENT' WHERE state = 'OPEN' AND here_now IS here AND there_now IS there;
UPDATE suspect SET here = here_now, there = there_now WHERE state = 'OPEN';";

/// A row of the ERP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Met {
    pub(super) key: KeyBytes,
    pub(super) hash: RowHash,
    pub(super) passes: bool,
}

/// What became of the suspects.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Judged {
    pub(super) found: Differences,
    pub(super) skipped: u64,
    /// Never twice the same.
    pub(super) unsettled: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Scratch {
    db: Arc<Mutex<Connection>>,
}

fn failed(cause: rusqlite::Error) -> Error {
    let full = cause.sqlite_error_code() == Some(ErrorCode::DiskFull);
    let code = if full { Code::DiskFull } else { Code::Internal };
    Error::new(code, "the temporary file of a verification cannot be used").because(cause)
}

impl Scratch {
    /// # Errors
    /// `DISK_FULL` where there is no room for temporary files, as every other call.
    pub(super) async fn new() -> Result<Self> {
        let made = task::blocking(|| -> rusqlite::Result<Connection> {
            // Without a name SQLite makes a file of its own in the folder for temporary ones and removes it at once.
            let db = Connection::open("")?;
            db.execute_batch(SCHEMA)?;
            Ok(db)
        });
        Ok(Self { db: Arc::new(Mutex::new(made.await?.map_err(failed)?)) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let db = Arc::clone(&self.db);
        let done = task::blocking(move || -> rusqlite::Result<T> {
            let db = db.lock().unwrap_or_else(PoisonError::into_inner);
            db.execute_batch("BEGIN")?;
            let done = work(&db)?;
            db.execute_batch("COMMIT")?;
            Ok(done)
        });
        done.await?.map_err(failed)
    }

    /// Rows of the ERP in ranges that differ; one read twice counts as it was read last.
    pub(super) async fn put_met(&self, rows: Vec<Met>) -> Result<()> {
        self.run(move |db| {
            let mut put = db.prepare_cached("INSERT OR REPLACE INTO met VALUES (?1, ?2, ?3)")?;
            rows.iter().try_for_each(|row| {
                put.execute(params![row.key.0, row.hash.0, row.passes]).map(|_| ())
            })
        })
        .await
    }

    /// Staged rows of the same ranges.
    pub(super) async fn put_staged(&self, rows: Vec<(KeyBytes, RowHash)>) -> Result<()> {
        self.run(move |db| {
            let mut put = db.prepare_cached("INSERT OR REPLACE INTO staged VALUES (?1, ?2)")?;
            rows.iter().try_for_each(|(key, hash)| put.execute(params![key.0, hash.0]).map(|_| ()))
        })
        .await
    }

    /// Compares both sides; gives how many rows are suspects.
    pub(super) async fn compare(&self) -> Result<u64> {
        self.run(|db| {
            db.execute_batch(COMPARE)?;
            count(db, "OPEN")
        })
        .await
    }

    /// A look at the open suspects begins: no row was seen of any yet.
    pub(super) async fn begin_look(&self) -> Result<()> {
        self.run(|db| db.execute(LOOK, []).map(|_| ())).await
    }

    /// Open suspects of a span, ascending behind `after`.
    pub(super) async fn open(
        &self,
        span: KeySpan,
        after: KeyBytes,
        limit: usize,
    ) -> Result<Vec<KeyBytes>> {
        let sql = "SELECT key FROM suspect WHERE state = 'OPEN' AND key > ?1 AND key >= ?2
                   AND (?3 = x'' OR key < ?3) ORDER BY key LIMIT ?4";
        self.run(move |db| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let mut read = db.prepare_cached(sql)?;
            let found = read.query_map(params![after.0, span.from.0, span.to.0, limit], |row| {
                Ok(KeyBytes(row.get(0)?))
            })?;
            found.collect()
        })
        .await
    }

    /// Rows of the ERP as they are now; those that are no suspects are passed over.
    pub(super) async fn see_met(&self, rows: Vec<Met>) -> Result<()> {
        let sql = "UPDATE suspect SET here_now = ?2, passes = ?3 WHERE key = ?1 AND state = 'OPEN'";
        self.run(move |db| {
            let mut see = db.prepare_cached(sql)?;
            rows.iter().try_for_each(|row| {
                see.execute(params![row.key.0, row.hash.0, row.passes]).map(|_| ())
            })
        })
        .await
    }

    /// Staged rows as they are now.
    pub(super) async fn see_staged(&self, rows: Vec<(KeyBytes, RowHash)>) -> Result<()> {
        let sql = "UPDATE suspect SET there_now = ?2 WHERE key = ?1 AND state = 'OPEN'";
        self.run(move |db| {
            let mut see = db.prepare_cached(sql)?;
            rows.iter().try_for_each(|(key, hash)| see.execute(params![key.0, hash.0]).map(|_| ()))
        })
        .await
    }

    /// Rows that cannot travel: they have an incident of their own.
    pub(super) async fn skip(&self, keys: Vec<KeyBytes>) -> Result<()> {
        self.run(move |db| {
            let sql = "UPDATE suspect SET state = 'SKIPPED' WHERE key = ?1 AND state = 'OPEN'";
            let mut skip = db.prepare_cached(sql)?;
            keys.iter().try_for_each(|key| skip.execute(params![key.0]).map(|_| ()))
        })
        .await
    }

    /// Rows that are there and cannot be read: no suspects any more where they could not be read before either, for then they
    /// were counted as the table was summed.
    pub(super) async fn pass_over(&self, keys: Vec<KeyBytes>) -> Result<()> {
        self.run(move |db| {
            let sql = "DELETE FROM suspect WHERE key = ?1 AND state = 'OPEN' AND here IS NULL";
            let mut pass = db.prepare_cached(sql)?;
            keys.iter().try_for_each(|key| pass.execute(params![key.0]).map(|_| ()))
        })
        .await
    }

    /// The look is over: what is alike now is none, what is as it was is a difference, all else stays open. Gives how many
    /// stay.
    pub(super) async fn judge(&self) -> Result<u64> {
        self.run(|db| {
            db.execute_batch(JUDGE)?;
            count(db, "OPEN")
        })
        .await
    }

    pub(super) async fn judged(&self) -> Result<Judged> {
        let sql = "SELECT count(*) FILTER (WHERE there IS NULL), count(*) FILTER (WHERE here IS NULL), count(*)
                   FROM suspect WHERE state = 'DIFFERENT'";
        self.run(move |db| {
            let found = db.query_row(sql, [], |row| {
                let [missing, extra, all] =
                    [row.get(0)?, row.get(1)?, row.get(2)?].map(i64::cast_unsigned);
                Ok(Differences { missing, extra, differing: all - missing - extra })
            })?;
            Ok(Judged { found, skipped: count(db, "SKIPPED")?, unsettled: count(db, "OPEN")? })
        })
        .await
    }

    /// Keys of the differences, ascending behind `after`.
    pub(super) async fn different(&self, after: KeyBytes, limit: usize) -> Result<Vec<KeyBytes>> {
        self.run(move |db| {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let sql = "SELECT key FROM suspect WHERE state = 'DIFFERENT' AND key > ?1 ORDER BY key LIMIT ?2";
            let mut read = db.prepare_cached(sql)?;
            let found = read.query_map(params![after.0, limit], |row| Ok(KeyBytes(row.get(0)?)))?;
            found.collect()
        })
        .await
    }
}

fn count(db: &Connection, state: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT count(*) FROM suspect WHERE state = ?1";
    db.query_row(sql, [state], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// A row on both sides: version in the ERP with whether the filter lets it go, version staged.
    type Sides = (Option<(u8, bool)>, Option<u8>);

    fn key(number: u8) -> KeyBytes {
        KeyBytes::of([number.to_string().as_str()])
    }

    fn hash(version: u8) -> RowHash {
        RowHash([version; 16])
    }

    fn sides() -> impl Strategy<Value = BTreeMap<u8, Sides>> {
        let here = proptest::option::of((0u8..3, prop::bool::weighted(0.8)));
        let there = proptest::option::of(0u8..3);
        proptest::collection::btree_map(0u8..40, (here, there), 0..40)
    }

    fn met(sides: &BTreeMap<u8, Sides>) -> Vec<Met> {
        let row = |(number, (here, _)): (&u8, &Sides)| {
            let (version, passes) = (*here)?;
            Some(Met { key: key(*number), hash: hash(version), passes })
        };
        sides.iter().filter_map(row).collect()
    }

    fn staged(sides: &BTreeMap<u8, Sides>) -> Vec<(KeyBytes, RowHash)> {
        sides
            .iter()
            .filter_map(|(number, (_, there))| Some((key(*number), hash((*there)?))))
            .collect()
    }

    fn differs((here, there): &Sides) -> bool {
        match (here, there) {
            (Some((_, passes)), None) => *passes,
            (here, there) => here.map(|(version, _)| version) != *there,
        }
    }

    async fn look(scratch: &Scratch, now: &BTreeMap<u8, Sides>) -> u64 {
        scratch.begin_look().await.unwrap();
        scratch.see_met(met(now)).await.unwrap();
        scratch.see_staged(staged(now)).await.unwrap();
        scratch.judge().await.unwrap()
    }

    /// What the looks at one row come to, written down without SQL.
    fn model(looks: [Sides; 3]) -> Option<bool> {
        let images = |(here, there): &Sides| (here.map(|(version, _)| version), *there);
        let mut before = looks[0];
        if !differs(&before) {
            return None;
        }
        for now in &looks[1..] {
            if !differs(now) {
                return None;
            }
            if images(now) == images(&before) {
                return Some(true);
            }
            before = *now;
        }
        Some(false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn a_difference_is_what_two_looks_in_a_row_show_alike_and_the_filter_does_not_explain(
            first in sides(), second in sides(), third in sides(), same in proptest::collection::vec(any::<bool>(), 40),
        ) {
            let of = |sides: &BTreeMap<u8, Sides>, number: u8| sides.get(&number).copied().unwrap_or_default();
            // Most rows do not change between two looks.
            let next = |before: &BTreeMap<u8, Sides>, other: &BTreeMap<u8, Sides>| -> BTreeMap<u8, Sides> {
                (0..40u8).map(|n| (n, if same[usize::from(n)] { of(before, n) } else { of(other, n) })).collect()
            };
            let second = next(&first, &second);
            let third = next(&second, &third);
            let machine = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (judged, keys, suspects) = machine.block_on(async {
                let scratch = Scratch::new().await.unwrap();
                scratch.put_met(met(&first)).await.unwrap();
                scratch.put_staged(staged(&first)).await.unwrap();
                let suspects = scratch.compare().await.unwrap();
                look(&scratch, &second).await;
                look(&scratch, &third).await;
                let keys = scratch.different(KeyBytes::default(), 100).await.unwrap();
                (scratch.judged().await.unwrap(), keys, suspects)
            });
            prop_assert_eq!(suspects, (0..40).filter(|n| differs(&of(&first, *n))).count() as u64);
            let told = |n: u8| model([of(&first, n), of(&second, n), of(&third, n)]);
            let wanted: Vec<KeyBytes> = {
                let mut keys: Vec<_> = (0..40).filter(|n| told(*n) == Some(true)).map(key).collect();
                keys.sort();
                keys
            };
            prop_assert_eq!(keys, wanted);
            prop_assert_eq!(judged.unsettled, (0..40).filter(|n| told(*n) == Some(false)).count() as u64);
            prop_assert_eq!(judged.found.total(), (0..40).filter(|n| told(*n) == Some(true)).count() as u64);
        }
    }

    #[tokio::test]
    async fn each_kind_is_counted_apart_and_what_cannot_travel_is_none_of_them() {
        let scratch = Scratch::new().await.unwrap();
        let yes = Some((1, true));
        let rows: BTreeMap<u8, Sides> = [
            (1, (yes, None)),
            (2, (None, Some(1))),
            (3, (yes, Some(2))),
            (4, (yes, Some(1))),
            (5, (Some((1, false)), None)),
            (6, (Some((1, false)), Some(2))),
            (7, (yes, None)),
        ]
        .into();
        scratch.put_met(met(&rows)).await.unwrap();
        scratch.put_staged(staged(&rows)).await.unwrap();
        assert_eq!(scratch.compare().await.unwrap(), 5);
        let open = scratch.open(KeySpan { from: key(2), to: key(7) }, KeyBytes::default(), 9).await;
        assert_eq!(open.unwrap(), [2, 3, 6].map(key));
        scratch.skip(vec![key(7)]).await.unwrap();
        assert_eq!(look(&scratch, &rows).await, 0);
        let judged = scratch.judged().await.unwrap();
        let found = Differences { missing: 1, extra: 1, differing: 2 };
        assert_eq!(judged, Judged { found, skipped: 1, unsettled: 0 });
        assert_eq!(scratch.different(key(1), 2).await.unwrap(), [2, 3].map(key));
    }
}
