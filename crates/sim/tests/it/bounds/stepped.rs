//! A source that stops where the test wants it to, and that may choose a wrong bound on purpose.
//!
//! Promises: rows are read by the real source; [`Choice::Right`] changes nothing but the pace.
//! Never: is what the agent ships; the wrong choices show that the tests of the right one can fail.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use agent::source::{
    AnySource, Bound, Finding, From, Identity, Page, PageKey, ReadLimit, Source, TableShape,
    TableSpec, Watermark,
};
use protocol::{Result, filter::Filter, key::KeyBytes, names::TableName};
use tokio::sync::{mpsc, oneshot};

/// Where a cycle can be held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// Nothing of this cycle was asked yet; the batch of the one before is through.
    Begin,
    /// Of bound and rows one was taken, the other not.
    Between,
    /// The rows were read and are not handed on yet.
    Read,
}

/// How far the watermark may move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Choice {
    /// The agent's own bound, before the rows.
    Right,
    /// As a naive capture has it: the highest stamp there is (F01).
    HighestStamp,
    /// Only transactions that wrote already hold it back (F02).
    WritersOnly,
    /// The clock less a window (F04).
    Overlap(Duration),
    /// The agent's own bound, after the rows (F03).
    AfterTheRows,
}

impl Choice {
    /// Microseconds: the clock, and the bound.
    fn sql(self) -> Option<String> {
        let micros = |of: &str| format!("(extract(epoch FROM {of}) * 1000000)::bigint");
        let bound = match self {
            Self::Right | Self::AfterTheRows => return None,
            Self::HighestStamp => "(SELECT max(changed_at) FROM t)".to_owned(),
            Self::WritersOnly => {
                "least(clock_timestamp(), (SELECT min(xact_start) FROM pg_stat_activity
                WHERE datname = current_database() AND backend_xid IS NOT NULL))"
                    .to_owned()
            }
            Self::Overlap(window) => {
                format!("clock_timestamp() - interval '{} seconds'", window.as_secs_f64())
            }
        };
        Some(format!("SELECT {}, {}", micros("clock_timestamp()"), micros(&bound)))
    }
}

#[derive(Debug)]
struct Reached {
    moment: Moment,
    go_on: oneshot::Sender<()>,
}

/// The real source, held and misled. For one table.
#[derive(Debug)]
pub(crate) struct Stepped {
    inner: AnySource,
    erp: tokio_postgres::Client,
    choice: Choice,
    stepping: std::sync::Arc<AtomicBool>,
    tell: mpsc::UnboundedSender<Reached>,
    early: Mutex<Early>,
}

/// What reading before the bound needs.
#[derive(Debug, Default)]
struct Early {
    shape: Option<TableShape>,
    last: Option<Bound>,
    page: Option<(From, Page)>,
}

/// The test's end: holds the agent and lets it go on.
#[derive(Debug)]
pub(crate) struct Steps {
    stepping: std::sync::Arc<AtomicBool>,
    reached: mpsc::UnboundedReceiver<Reached>,
    held: Option<oneshot::Sender<()>>,
}

impl Steps {
    /// Lets the agent go on to its next moment of that kind and holds it there.
    pub(crate) async fn hold(&mut self, at: Moment) {
        self.stepping.store(true, Ordering::SeqCst);
        loop {
            // Where nothing is held the agent runs into its next moment by itself.
            if let Some(go_on) = self.held.take() {
                go_on.send(()).unwrap();
            }
            let reached = tokio::time::timeout(Duration::from_secs(30), self.reached.recv()).await;
            let reached = reached.expect("the agent reaches no moment").unwrap();
            self.held = Some(reached.go_on);
            if reached.moment == at {
                return;
            }
        }
    }

    /// Runs whole cycles; the agent is held at the beginning of the one after them.
    pub(crate) async fn cycles(&mut self, count: usize) {
        for _ in 0..count {
            self.hold(Moment::Begin).await;
        }
    }

    /// Holds the agent no more.
    pub(crate) fn free(&mut self) {
        self.stepping.store(false, Ordering::SeqCst);
        drop(self.held.take());
        self.reached.close();
        // Whoever was on the way here is let go too.
        while self.reached.try_recv().is_ok() {}
    }
}

impl Stepped {
    /// Not held before the first [`Steps::hold`].
    pub(crate) fn new(
        inner: AnySource,
        erp: tokio_postgres::Client,
        choice: Choice,
    ) -> (Self, Steps) {
        let stepping = std::sync::Arc::new(AtomicBool::new(false));
        let (tell, reached) = mpsc::unbounded_channel();
        let steps = Steps { stepping: stepping.clone(), reached, held: None };
        (Self { inner, erp, choice, stepping, tell, early: Mutex::default() }, steps)
    }

    async fn reach(&self, moment: Moment) {
        if !self.stepping.load(Ordering::SeqCst) {
            return;
        }
        let (go_on, gone_on) = oneshot::channel();
        if self.tell.send(Reached { moment, go_on }).is_ok() {
            // A test that is over holds nobody.
            let _ = gone_on.await;
        }
    }

    /// Reads what the coming pass will ask for: everything from the bound of the pass before.
    async fn read_early(&self) -> Result<()> {
        let asked = {
            let early = self.early.lock().unwrap();
            early.shape.clone().zip(early.last.clone())
        };
        let Some((shape, last)) = asked else { return Ok(()) };
        let from = From::At(self.inner.watermark(&shape, &last)?);
        let limit = ReadLimit { rows: 10_000, bytes: 10 << 20 };
        let page = self.inner.delta(&shape, &from, &last, limit).await?;
        assert!(page.is_complete(), "the table is too large for this test");
        self.early.lock().unwrap().page = Some((from, page));
        Ok(())
    }
}

impl Source for Stepped {
    async fn bound(&self) -> Result<Bound> {
        self.reach(Moment::Begin).await;
        if self.choice == Choice::AfterTheRows {
            self.read_early().await?;
            self.reach(Moment::Between).await;
        }
        let bound = match self.choice.sql() {
            None => self.inner.bound().await?,
            Some(sql) => {
                let row = self.erp.query_one(&sql, &[]).await.unwrap();
                Bound { micros: row.get(1), ..Bound::at(row.get(0)) }
            }
        };
        // Each pass is read: the steps of a test are its reads.
        let bound = Bound { committed: None, ..bound };
        self.early.lock().unwrap().last = Some(bound.clone());
        Ok(bound)
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        let early = self.early.lock().unwrap().page.take();
        let page = match early {
            Some((read, page)) => {
                assert_eq!(read, *from, "what was read early is not what is asked for");
                page
            }
            None => {
                self.reach(Moment::Between).await;
                self.inner.delta(shape, from, bound, limit).await?
            }
        };
        self.reach(Moment::Read).await;
        Ok(page)
    }

    async fn describe(&self, spec: &TableSpec) -> Result<TableShape> {
        let shape = self.inner.describe(spec).await?;
        self.early.lock().unwrap().shape = Some(shape.clone());
        Ok(shape)
    }

    async fn identity(&self) -> Result<Identity> {
        self.inner.identity().await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.inner.tables().await
    }

    fn watermark(&self, shape: &TableShape, bound: &Bound) -> Result<Watermark> {
        self.inner.watermark(shape, bound)
    }

    async fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        filter: Option<&Filter>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.inner.chunk(shape, after, filter, limit).await
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.inner.keys(shape, after, limit).await
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.inner.unstamped(shape, after, limit).await
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        self.inner.by_keys(shape, keys).await
    }

    async fn findings(&self, shapes: &[TableShape]) -> Result<Vec<Finding>> {
        self.inner.findings(shapes).await
    }
}
