//! PostgreSQL as a source.
//!
//! Promises: read-only sessions, at most three; each page is one statement of at most 5 s, probes 30 s, locks 2 s; the
//! table is looked at again after each page, so that a page read across a change of the table is thrown away (F30).
//! Never: goes on half a page (F16), reads a standby (F14), takes a decimal through a float.

mod bound;
mod catalogue;
mod cell;
mod fault;
mod findings;
mod link;
mod read;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use protocol::{
    Code, Error, Result, filter::Filter, key::KeyBytes, names::TableName, value::push_timestamp,
};

use self::{
    bound::BoundState,
    fault::fault,
    link::Links,
    read::{Read, Start},
};
use super::{
    Bound, Finding, From, Identity, LOOK_UP_BYTES, Page, PageKey, Profile, ReadLimit, Source,
    SourceOptions, TableShape, TableSpec, Watermark, catalogue::Found,
};

/// What a DBA installs so that a login without further rights learns the safe bound.
pub const SAFE_BOUND_SQL: &str = include_str!("postgres/safe_bound.sql");

/// `now()` is the first statement's arrival and becomes visible to others a moment later (`correctness.md` 3 a).
const ALLOWANCE: Duration = Duration::from_secs(10);

/// A PostgreSQL database of the ERP.
#[derive(Debug)]
pub struct PostgresSource {
    links: Links,
    profile: Profile,
    bound: BoundState,
    found: Mutex<HashMap<String, Arc<Found>>>,
    /// Bytes of a row as last seen, by table: keeps a page's LIMIT near what the page can hold.
    widths: Mutex<HashMap<String, usize>>,
}

impl PostgresSource {
    /// A source at that URL; connected by the first call.
    ///
    /// # Errors
    /// `CONFIG_INVALID` for a URL that is wrong.
    pub fn new(url: &str, profile: Profile, options: &SourceOptions) -> Result<Self> {
        let zone = options.stamp_zone.clone();
        let zone = zone.or_else(|| profile.stamps_are_utc().then(|| "UTC".to_owned()));
        Ok(Self {
            links: Links::new(url, zone, options.ca_file.clone())?,
            profile,
            bound: BoundState::new(options.overlap),
            found: Mutex::default(),
            widths: Mutex::default(),
        })
    }

    /// What the catalogue says of a described table; whether it still does is looked at after each read.
    async fn known(&self, shape: &TableShape) -> Result<Arc<Found>> {
        let name = catalogue::name_of(shape);
        let known = lock(&self.found).get(&name).cloned();
        if let Some(found) = known.filter(|found| found.fingerprint == shape.fingerprint) {
            return Ok(found);
        }
        let link = self.links.take().await?;
        let (schema, table) = &shape.physical;
        let found = catalogue::load(&link, schema.as_deref(), table).await?;
        link.give_back();
        if found.fingerprint != shape.fingerprint {
            return Err(changed(shape));
        }
        let found = Arc::new(found);
        lock(&self.found).insert(name, Arc::clone(&found));
        Ok(found)
    }

    async fn page(&self, shape: &TableShape, start: Start<'_>, limit: ReadLimit) -> Result<Page> {
        let found = self.known(shape).await?;
        let name = catalogue::name_of(shape);
        let width = lock(&self.widths).get(&name).copied();
        let link = self.links.take().await?;
        let read = Read { shape, found: &found, limit, width, zone: link.zone() };
        let page = link.within(read.run(&link, start)).await;
        let page = match page {
            Err(error) if error.code == Code::SourceRights => Err(self.rights(shape, error).await),
            page => page,
        };
        let page = page.map_err(|error| error.at(format_args!("table {}", shape.wire)))?;
        if link.within(catalogue::fingerprint_of(&link, shape)).await? != Some(shape.fingerprint) {
            return Err(changed(shape));
        }
        link.give_back();
        if !page.is_empty() {
            lock(&self.widths).insert(name, page.bytes() / page.len() + 1);
        }
        Ok(page)
    }
}

impl PostgresSource {
    /// The refusal with what is to be granted, as far as the catalogue tells.
    async fn rights(&self, shape: &TableShape, refused: Error) -> Error {
        let asked = async {
            let link = self.links.take().await?;
            let columns = link.within(catalogue::unreadable(&link, shape)).await?;
            link.give_back();
            Ok::<_, Error>(columns)
        };
        match asked.await {
            Ok(columns) if !columns.is_empty() => {
                let table = catalogue::name_of(shape);
                let words = if columns.len() < shape.columns.len() {
                    format!("SELECT is missing on columns {} of {table}", columns.join(", "))
                } else {
                    format!("SELECT is missing on {table}")
                };
                Error::new(refused.code, words)
            }
            _ => refused,
        }
    }
}

fn changed(shape: &TableShape) -> Error {
    let words = format!("table {} is not what it was when it was described", shape.wire);
    Error::new(Code::SchemaChanged, words)
}

impl Source for PostgresSource {
    async fn identity(&self) -> Result<Identity> {
        // Over a connection of its own: the database may have been replaced behind those that are open.
        let identity = self.links.identity().await?;
        self.links.tell(identity.clone());
        Ok(identity)
    }

    fn position(&self) -> Option<Vec<u8>> {
        self.links.position()
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        let link = self.links.take().await?;
        let names = link.within(catalogue::tables(&link)).await?;
        link.give_back();
        Ok(names.iter().filter_map(|name| self.profile.wire(name)?.parse().ok()).collect())
    }

    async fn describe(&self, spec: &TableSpec) -> Result<TableShape> {
        let place = |error: Error| error.at(format_args!("table {}", spec.wire));
        let link = self.links.take().await?;
        let wanted = self.profile.physical(&spec.wire);
        let found = link.within(catalogue::describe(&link, &wanted)).await.map_err(place)?;
        link.give_back();
        let shape = self.profile.shape(spec, &found, ALLOWANCE)?;
        lock(&self.found).insert(catalogue::name_of(&shape), Arc::new(found));
        Ok(shape)
    }

    async fn bound(&self) -> Result<Bound> {
        let link = self.links.take().await?;
        let bound = link.within(self.bound.take(&link)).await?;
        let position = link.within(catalogue::position(&link)).await?;
        link.give_back();
        self.links.reached(position);
        Ok(bound)
    }

    async fn probe(&self) -> Result<bool> {
        let link = self.links.take().await?;
        link.within(async { link.simple_query("SELECT 1").await.map(|_| ()).map_err(fault) })
            .await?;
        link.give_back();
        Ok(true)
    }

    fn watermark(&self, shape: &TableShape, bound: &Bound) -> Result<Watermark> {
        if shape.stamp.is_none() {
            let words = format!("table {} has no stamp", shape.wire);
            return Err(Error::new(Code::StampUnfit, words));
        }
        // An instant, also where the column has no zone: the database turns it into the column's own time at the read.
        Ok(Watermark(instant(bound.micros)))
    }

    async fn chunk(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        filter: Option<&Filter>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(shape, Start::Chunk { after, filter }, limit).await
    }

    async fn delta(
        &self,
        shape: &TableShape,
        from: &From,
        bound: &Bound,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(shape, Start::Delta { from, edge: bound.micros }, limit).await
    }

    async fn keys(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(shape, Start::Keys { after }, limit).await
    }

    async fn unstamped(
        &self,
        shape: &TableShape,
        after: Option<&PageKey>,
        limit: ReadLimit,
    ) -> Result<Page> {
        self.page(shape, Start::Unstamped { after }, limit).await
    }

    async fn by_keys(&self, shape: &TableShape, keys: &[KeyBytes]) -> Result<Page> {
        let limit = ReadLimit { rows: usize::MAX, bytes: LOOK_UP_BYTES };
        self.page(shape, Start::ByKeys(keys), limit).await
    }

    async fn row_count(&self, shape: &TableShape) -> Result<Option<u64>> {
        findings::row_count(&self.links, shape).await
    }

    async fn findings(&self, shapes: &[TableShape]) -> Result<Vec<Finding>> {
        let mut all = Vec::new();
        // Tables without a stamp need no bound.
        let stamped = shapes.iter().any(|shape| shape.stamp.is_some());
        if let Some(words) = self.bound().await?.degraded.filter(|_| stamped) {
            let code = Some(Code::BoundDegraded);
            all.push(Finding { table: None, code, words, concern: None });
        }
        for shape in shapes {
            let found = match self.known(shape).await {
                Ok(found) => findings::of_table(&self.links, shape, &found).await,
                Err(error) => Err(error),
            };
            match found {
                Ok(found) => all.extend(found),
                Err(error) => all.push(Finding {
                    table: Some(shape.wire.clone()),
                    code: Some(error.code),
                    words: error.message,
                    concern: None,
                }),
            }
        }
        Ok(all)
    }
}

/// `YYYY-MM-DDTHH:MM:SS.ffffffZ`.
fn instant(micros: i64) -> String {
    let mut text = String::new();
    push_timestamp(&mut text, micros, true);
    text
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Maps of what was learnt: whole at any time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
