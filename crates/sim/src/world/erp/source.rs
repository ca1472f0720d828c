//! Source: the double as the agent reads it.
//!
//! Promises: every call has a snapshot of its own, taken at one moment between its begin and its end, except where the
//! database has no row versions (`walk`); order and comparison are the double's, by number. A read of Oracle whose undo
//! was used up before its end fails (ORA-01555, F15). No agent has more than three statements under way (I16).
//! Never: shows what is not committed.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use agent::source::{
    Bound, ColumnShape, ColumnSource, Finding, From, Identity, Page, PageBuilder, PageKey, Poison,
    ReadLimit, Source, StampShape, TableShape, TableSpec, Watermark,
};
use protocol::{
    Code, Error, Result, filter::Filter, key::KeyBytes, names::TableName, value::TypeName,
};
use runtime::clock;

use super::{
    Engine, Row, TABLES, TableAt,
    walk::{Index, Path},
};
use crate::world::{here, machine::Host, plan::Kind};

/// Statements that one agent may have under way (I16).
const STATEMENTS: usize = 3;

/// A statement under way.
struct Busy(Double, Host);

impl Drop for Busy {
    fn drop(&mut self) {
        if let Some(count) = self.0.held().busy.get_mut(&self.1) {
            *count = count.saturating_sub(1);
        }
    }
}

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

    /// What the database's clock shows.
    pub(super) fn now(&self) -> i64 {
        here().machine.true_micros() + self.held().clock
    }

    /// What a call takes until it reaches its snapshot, and from there on.
    pub(super) async fn pass(&self) -> Result<()> {
        let time = here().slowness();
        clock::sleep(time).await;
        if self.held().away {
            return Err(Error::new(Code::SourceUnreachable, "the ERP database does not answer"));
        }
        Ok(())
    }

    /// A statement begins.
    fn busy(&self) -> Busy {
        let sim = here();
        let host = sim.machine.current();
        let count = {
            let mut engine = self.held();
            let count = engine.busy.entry(host).or_default();
            *count += 1;
            *count
        };
        if count > STATEMENTS {
            let words = format!("{} has {count} statements under way", sim.machine.name(host));
            sim.check.borrow_mut().fault("I16", words);
        }
        Busy(self.clone(), host)
    }

    /// What asks for no row.
    async fn read<T: Send>(&self, work: impl FnOnce(&Engine, i64) -> T + Send) -> Result<T> {
        let _busy = self.busy();
        self.pass().await?;
        let now = self.now();
        let read = work(&self.held(), now);
        self.pass().await?;
        Ok(read)
    }

    /// A page of rows from a place on.
    async fn page<F: Fn(i64, &Row) -> bool + Send + Sync>(
        &self,
        path: Path<F>,
        filling: Filling,
    ) -> Result<Page> {
        if self.held().plan().kind == Kind::Locking {
            let _busy = self.busy();
            return self.walk(path, filling).await;
        }
        let before = AtomicU64::new(0);
        let page = self
            .read(|engine, now| {
                before.store(engine.overwritten, Ordering::Relaxed);
                filling.all(engine.path(&path, now))
            })
            .await??;
        let engine = self.held();
        let lost = engine.overwritten - before.load(Ordering::Relaxed) >= engine.plan().undo;
        if engine.plan().kind == Kind::Oracle && lost {
            return Err(Error::new(Code::SourceFailed, "snapshot too old"));
        }
        Ok(page)
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
pub(super) struct Filling {
    pub(super) page: PageBuilder,
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
    pub(super) fn add(&mut self, id: i64, row: &Row) -> Result<bool> {
        if self.rows >= self.limit.rows || self.page.bytes() >= self.limit.bytes {
            return Ok(false);
        }
        let stamp = row.stamp.map(|stamp| Watermark(stamp.to_string()));
        let below = row.stamp.is_some_and(|stamp| stamp < self.edge);
        let key = PageKey(vec![id.to_string()]);
        if self.whole && row.is_poison() {
            let words = "column NAME holds U+0000".to_owned();
            self.page.poison_at(Poison { key, code: Code::ValueUnfit, words }, stamp, below);
            self.rows += 1;
            return Ok(true);
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
        self.page.row(key, stamp, below, row.marked);
        self.rows += 1;
        Ok(true)
    }

    fn all<'a>(mut self, rows: impl IntoIterator<Item = (i64, &'a Row)>) -> Result<Page> {
        for (id, row) in rows {
            if !self.add(id, row)? {
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

/// A path along the keys, behind one of them.
fn along<F: Fn(i64, &Row) -> bool>(
    shape: &TableShape,
    after: Option<&PageKey>,
    (load, wanted): (bool, F),
) -> Result<Path<F>> {
    let from = after.map(place).transpose()?.map_or(i64::MIN, |after| after.saturating_add(1));
    Ok(Path { table: table_of(shape), index: Index::Key, from: (0, from), load, wanted })
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
        let _busy = self.busy();
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
                from_before_a_step: engine.is_open_from_later_than(now),
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
        let path = along(shape, after, (true, |_, row: &Row| !row.marked))?;
        self.page(path, Filling::new(limited(limit), true, i64::MIN)).await
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        let table = table_of(shape);
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
        let wanted = |_, _: &Row| true;
        let path = Path { table, index: Index::Stamp, from, load: false, wanted };
        self.page(path, filling).await
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let path = along(shape, after, (false, |_, row: &Row| !row.marked))?;
        self.page(path, Filling::new(limited(limit), false, i64::MIN)).await
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        let wanted = |_, row: &Row| !row.marked && row.stamp.is_none();
        self.page(
            along(shape, after, (false, wanted))?,
            Filling::new(limited(limit), true, i64::MIN),
        )
        .await
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        let mut ids = Vec::new();
        for key in keys {
            ids.push(number(key.values()?.first().copied().unwrap_or_default())?);
        }
        ids.sort_unstable();
        let limit = ReadLimit { rows: usize::MAX, bytes: usize::MAX };
        let wanted = |id: i64, row: &Row| !row.marked && ids.binary_search(&id).is_ok();
        self.page(along(shape, None, (false, wanted))?, Filling::new(limit, true, i64::MIN)).await
    }

    fn findings(
        &self,
        _shapes: &[TableShape],
    ) -> impl Future<Output = Result<Vec<Finding>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}
