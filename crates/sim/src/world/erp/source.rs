//! Source: the double as the agent reads it.
//!
//! Promises: every call has a snapshot of its own, taken at one moment between its begin and its end; order and
//! comparison are the double's, by number.
//! Never: shows what is not committed.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent::source::{
    Bound, ColumnShape, ColumnSource, Finding, From, Identity, Page, PageBuilder, PageKey,
    ReadLimit, Source, StampShape, TableShape, TableSpec, Watermark,
};
use protocol::{
    Code, Error, Result, filter::Filter, key::KeyBytes, names::TableName, value::TypeName,
};
use runtime::clock;

use super::{Engine, Row, TABLES, TableAt};
use crate::world::here;

/// The database, for all who use it.
#[derive(Clone, Debug)]
pub struct Double(Arc<Mutex<Engine>>);

impl Double {
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self(Arc::new(Mutex::new(engine)))
    }

    pub fn held(&self) -> MutexGuard<'_, Engine> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call takes until it reaches its snapshot, and from there on.
    async fn pass(&self) -> Result<()> {
        let time = here().slowness();
        clock::sleep(time).await;
        if self.held().away {
            return Err(Error::new(Code::SourceUnreachable, "the ERP database does not answer"));
        }
        Ok(())
    }

    /// Waits for rows that a transaction holds, as long as a lock is waited for.
    async fn unlocked(&self, table: TableAt) -> Result<()> {
        /// `LOCK_TIMEOUT`.
        const LONGEST: u32 = 20;
        for _tenth in 0..LONGEST {
            if !self.held().is_held(table) {
                return Ok(());
            }
            clock::sleep(Duration::from_millis(100)).await;
        }
        Err(Error::new(Code::SourceTimeout, "rows are held by another transaction"))
    }

    async fn read<T: Send>(&self, work: impl FnOnce(&Engine, i64) -> T + Send) -> Result<T> {
        self.pass().await?;
        let now = here().machine.true_micros();
        let read = work(&self.held(), now);
        self.pass().await?;
        Ok(read)
    }
}

fn table_of(shape: &TableShape) -> TableAt {
    TableAt(usize::from(shape.wire.as_str() == TABLES[1]))
}

fn number(text: &str) -> Result<i64> {
    text.parse().map_err(|_| Error::new(Code::Internal, format!("{text:?} is no number")))
}

fn place(key: &PageKey) -> Result<i64> {
    number(key.0.first().map_or("", String::as_str))
}

/// Fills a page up to its limit; `whole` = with what is no key.
struct Filling {
    page: PageBuilder,
    limit: ReadLimit,
    rows: usize,
    whole: bool,
    edge: i64,
}

impl Filling {
    fn new(limit: ReadLimit, whole: bool, edge: i64) -> Self {
        Self { page: PageBuilder::new(3), limit, rows: 0, whole, edge }
    }

    /// `false` = the page is full and the row is not in it.
    fn add(&mut self, id: i64, row: &Row) -> Result<bool> {
        if self.rows >= self.limit.rows || self.page.bytes() >= self.limit.bytes {
            return Ok(false);
        }
        let mut cell = |text: &str| {
            self.page.value(|out| {
                out.push_str(text);
                Ok(())
            })
        };
        cell(&id.to_string())?;
        if self.whole {
            cell(&row.name)?;
            cell(&row.version.to_string())?;
        } else {
            self.page.null();
            self.page.null();
        }
        let stamp = row.stamp.map(|stamp| Watermark(stamp.to_string()));
        let below = row.stamp.is_some_and(|stamp| stamp < self.edge);
        self.page.row(PageKey(vec![id.to_string()]), stamp, below, row.marked);
        self.rows += 1;
        Ok(true)
    }

    fn all<'a>(mut self, rows: impl Iterator<Item = (&'a i64, &'a Row)>) -> Result<Page> {
        for (id, row) in rows {
            if !self.add(*id, row)? {
                return Ok(self.page.finish(false));
            }
        }
        Ok(self.page.finish(true))
    }
}

fn limited(limit: ReadLimit) -> ReadLimit {
    let most = usize::try_from(here().plan.agent.rows_a_page).unwrap_or(usize::MAX);
    ReadLimit { rows: limit.rows.min(most), ..limit }
}

/// Live rows behind a place, in the order of their keys.
fn live(rows: &BTreeMap<i64, Row>, after: Option<i64>) -> impl Iterator<Item = (&i64, &Row)> {
    let from = after.map_or(i64::MIN, |after| after.saturating_add(1));
    rows.range(from..).filter(|(_, row)| !row.marked)
}

impl Source for Double {
    async fn identity(&self) -> Result<Identity> {
        self.read(|engine, _| Identity {
            kind: "postgres",
            facts: vec![("system_identifier".to_owned(), format!("sim-{}", engine.tenant))],
            position: engine.commits.to_be_bytes().to_vec(),
            version: "double".to_owned(),
        })
        .await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        TABLES.iter().map(|name| name.parse()).collect()
    }

    async fn describe(&self, spec: &TableSpec) -> Result<TableShape> {
        self.pass().await?;
        let engine = self.held();
        let column = |name: &str, kind: &str| {
            Ok::<_, Error>(ColumnShape {
                name: name.parse()?,
                type_name: TypeName::parse(kind),
                from: ColumnSource::Physical(name.to_owned()),
                mask: None,
            })
        };
        let mut shape = TableShape {
            wire: spec.wire.clone(),
            physical: (None, spec.wire.to_string()),
            columns: vec![column("ID", "long")?, column("NAME", "string")?, column("VER", "long")?],
            key: vec![0],
            page_key: vec!["ID".to_owned()],
            stamp: Some(StampShape {
                column: "STAMP".to_owned(),
                allowance: Duration::from_micros(engine.allowance().unsigned_abs()),
                form: String::new(),
                nullable: true,
            }),
            soft_delete: None,
            shared_key: false,
            fingerprint: [7; 16],
        };
        if engine.marks(table_of(&shape)) {
            shape.soft_delete = Some(("DEL".to_owned(), "*".to_owned()));
        }
        Ok(shape)
    }

    async fn bound(&self) -> Result<Bound> {
        self.read(|engine, now| {
            let (mut micros, held) = engine.bound(now);
            if runtime::mutant::is("overlap_60s") {
                micros = now - 60_000_000;
            }
            let committed = engine.plan().tells_committed.then(|| engine.commits.to_string());
            Bound {
                at_micros: now,
                micros,
                degraded: None,
                held_by: held.then(|| "a session".to_owned()),
                committed,
            }
        })
        .await
    }

    fn watermark(&self, _shape: &TableShape, bound: &Bound) -> Result<Watermark> {
        Ok(Watermark(bound.micros.to_string()))
    }

    async fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        _filter: Option<&Filter>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let (table, after) = (table_of(shape), after.map(place).transpose()?);
        self.unlocked(table).await?;
        let filling = Filling::new(limited(limit), true, i64::MIN);
        self.read(|engine, now| filling.all(live(engine.loaded(table, now), after))).await?
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        let table = table_of(shape);
        self.unlocked(table).await?;
        let allowance = self.held().allowance();
        let from = match from {
            From::At(watermark) => (number(&watermark.0)? - allowance, i64::MIN),
            From::After(watermark, key) => (number(&watermark.0)?, place(key)?.saturating_add(1)),
        };
        let from = if runtime::mutant::is("greater_not_equal") && from.1 == i64::MIN {
            (from.0 + 1, from.1)
        } else {
            from
        };
        let filling = Filling::new(limited(limit), true, bound.micros - allowance);
        self.read(|engine, now| {
            let rows = engine.seen(table, now).iter();
            let stamped = rows.filter_map(|(id, row)| Some(((row.stamp?, *id), (id, row))));
            let mut rows: Vec<_> = stamped.filter(|(place, _)| *place >= from).collect();
            rows.sort_unstable_by_key(|(place, _)| *place);
            filling.all(rows.into_iter().map(|(_, row)| row))
        })
        .await?
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let (table, after) = (table_of(shape), after.map(place).transpose()?);
        self.unlocked(table).await?;
        let filling = Filling::new(limited(limit), false, i64::MIN);
        self.read(|engine, now| filling.all(live(engine.seen(table, now), after))).await?
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let (table, after) = (table_of(shape), after.map(place).transpose()?);
        self.unlocked(table).await?;
        let filling = Filling::new(limited(limit), true, i64::MIN);
        let none = |(_, row): &(&i64, &Row)| row.stamp.is_none();
        self.read(|engine, now| filling.all(live(engine.seen(table, now), after).filter(none)))
            .await?
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        let table = table_of(shape);
        self.unlocked(table).await?;
        let mut ids = Vec::new();
        for key in keys {
            ids.push(number(key.values()?.first().copied().unwrap_or_default())?);
        }
        ids.sort_unstable();
        let limit = ReadLimit { rows: usize::MAX, bytes: usize::MAX };
        let filling = Filling::new(limit, true, i64::MIN);
        self.read(|engine, now| {
            let asked = |(id, _): &(&i64, &Row)| ids.binary_search(id).is_ok();
            filling.all(live(engine.seen(table, now), None).filter(asked))
        })
        .await?
    }

    fn findings(
        &self,
        _shapes: &[TableShape],
    ) -> impl Future<Output = Result<Vec<Finding>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}
